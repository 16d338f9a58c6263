//! Who opens the vault: shares of admins, and how that changes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use age::{secrecy::ExposeSecret as _, x25519::Identity};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use stand::{
    Output,
    bells::Hook,
    daemon::{Builder, Daemon},
    now,
    people::{Device, Office, Reply, STEP},
    rows,
    team::POLICY,
};
use std::{cell::Cell, fs, path::PathBuf, time::Duration};

const NO_REGISTRY: &str = "http://127.0.0.1:1";
const COMMAND: Duration = Duration::from_mins(1);
const METHOD: &str = "/v1/admin/unseal-method";
const UNSEAL: &str = "/v1/admin/unseal";
const PASSPHRASE: &str = "of-the-vault-itself-1234";

/// An admin whose device is the test's own.
struct Admin {
    device: Device,
    key: Identity,
    /// The TOTP step that was spent last.
    spent: Cell<u64>,
}

impl Admin {
    fn new(device: Device) -> Self {
        let spent = Cell::new(now().unwrap() / STEP - 1);
        let key = Identity::generate();
        Self { device, key, spent }
    }

    /// A code that was not used before.
    async fn code(&self) -> String {
        loop {
            let at = now().unwrap();
            if at / STEP > self.spent.get() {
                self.spent.set(at / STEP);
                return self.device.code(0).unwrap();
            }
            tokio::time::sleep(Duration::from_secs(STEP - at % STEP)).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.device.get(path).await.unwrap().ok().unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.device.post(path, body).await.unwrap()
    }

    async fn register(&self) {
        let recipient = self.key.to_public().to_string();
        let asked = json!({"recipient": recipient, "totp": self.code().await});
        let done = self.post("/v1/admin/share-key", asked).await;
        assert!(done.success(), "{}", done.body);
    }

    async fn ask(&self, to: Value, passphrase: Option<&str>) -> Reply {
        let code = self.code().await;
        let asked = json!({"to": to, "passphrase": passphrase, "totp": code});
        self.post(METHOD, asked).await
    }

    /// Confirms what is under way, with the own share of it where there is one.
    async fn confirm(&self, code: Option<String>) -> Reply {
        let custody = self.get(METHOD).await;
        let change = &custody["change"];
        let share = change["own"].as_str().map(|own| self.open(own));
        let asked = json!({"change": change["id"], "share": share, "totp": code});
        self.post(&format!("{METHOD}/confirm"), asked).await
    }

    /// What this admin's machine makes of his share.
    fn open(&self, own: &str) -> String {
        let file = STANDARD.decode(own).unwrap();
        STANDARD.encode(age::decrypt(&self.key, &file).unwrap())
    }

    /// The own share of the key file that holds now.
    async fn share(&self) -> String {
        let unsealing = self.get(UNSEAL).await;
        self.open(unsealing["shares"]["own"].as_str().unwrap())
    }

    async fn hand_in(&self, share: &str) -> Reply {
        self.post(UNSEAL, json!({ "share": share })).await
    }
}

async fn office() -> (Office, Admin) {
    office_of(Daemon::builder()).await
}

async fn office_of(builder: Builder) -> (Office, Admin) {
    let office = Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap();
    let device = Device::of(
        proto::device::DeviceKey::from_seed(*office.admin.key.expose_seed()).unwrap(),
        &office.admin.otpauth,
        &office.admin.url,
    );
    (office, Admin::new(device.unwrap()))
}

async fn hired(office: &Office, name: &str) -> Admin {
    Admin::new(office.hire(name, &[], true, &[]).await.unwrap())
}

/// robin and alice have a share each, and both are needed.
async fn of_two() -> (Office, Admin, Admin) {
    let (office, robin) = office().await;
    let alice = hired(&office, "alice").await;
    robin.register().await;
    alice.register().await;
    let shares = json!({"method": "shares", "needed": 2, "holders": ["robin", "alice"]});
    let asked = robin.ask(shares, None).await;
    assert!(asked.success(), "{}", asked.body);
    // Who asked gave a factor then.
    let confirmed = robin.confirm(None).await;
    assert_eq!(confirmed.body["change"]["waits_for"], json!(["alice"]));
    let done = alice.confirm(Some(alice.code().await)).await;
    assert_eq!(done.body["methods"], json!(["shares"]), "{}", done.body);
    (office, robin, alice)
}

fn key_file(daemon: &Daemon) -> Vec<u8> {
    fs::read(daemon.dir().join("data/vault.json")).unwrap()
}

async fn sealed(admin: &Admin) -> bool {
    admin.get("/v1/status").await["sealed"] == true
}

async fn kinds(office: &Office) -> Vec<String> {
    let events = office.events().await.unwrap();
    let kind = |e: &Value| e["type"].as_str().unwrap().to_owned();
    events.iter().map(kind).collect()
}

#[tokio::test]
async fn attack_50_one_admin_alone_does_not_change_what_opens_the_vault() {
    let hook = Hook::start().await.unwrap();
    let push = format!("[push]\norigins = [\"{}\"]\n", hook.origin);
    let (office, robin) = office_of(Daemon::builder().extra(&push)).await;
    let alice = hired(&office, "alice").await;
    let channel = json!({"kind": "webhook", "url": hook.at("alice"), "name": "team"});
    let added = alice.post("/v1/notify/channels", channel).await;
    assert!(added.success(), "{}", added.body);
    let before = key_file(&office.daemon);
    let wish = json!({"method": "passphrase"});

    // Nothing without a second factor, and no passphrase that is guessed from a stolen disk.
    let asked = json!({"to": wish, "passphrase": PASSPHRASE});
    let bare = robin.post(METHOD, asked).await;
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    let short = robin.ask(wish.clone(), Some("short")).await;
    assert_eq!(short.code(), "bad-request", "{}", short.body);
    robin.spent.set(0);
    let asked = robin.ask(wish.clone(), Some(PASSPHRASE)).await;
    assert_eq!(asked.body["change"]["second_admin"], true, "{}", asked.body);

    // The other one is told.
    let told = hook.got(1).await.unwrap();
    assert_eq!(told[0].json()["about"], "custody");

    // It waits, and what one admin chose opens nothing: not the disk either.
    assert!(key_file(&office.daemon) == before);
    assert!(!office.daemon.dir().join("data/vault.next.json").exists());
    let own = robin.confirm(None).await;
    assert_eq!(own.code(), "bad-request", "{}", own.body);
    let bare = alice.confirm(None).await;
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    let wrong = alice.device.wrong_code().unwrap();
    let wrong = alice.confirm(Some(wrong)).await;
    assert_eq!(wrong.code(), "factor-wrong", "{}", wrong.body);
    // A yes to another change is none to this one.
    let other = json!({"change": "00", "totp": alice.device.code(0).unwrap()});
    let other = alice.post(&format!("{METHOD}/confirm"), other).await;
    assert_eq!(other.code(), "not-found", "{}", other.body);
    robin.spent.set(0);
    let second = robin.ask(wish.clone(), Some(PASSPHRASE)).await;
    assert_eq!(second.code(), "bad-request", "{}", second.body);
    assert!(key_file(&office.daemon) == before);

    // Any admin takes it back, and nothing is left of it.
    let back = alice.device.call(Method::DELETE, METHOD, None);
    assert!(back.await.unwrap().success());
    assert_eq!(robin.get(METHOD).await["change"], Value::Null);
    robin.spent.set(now().unwrap() / STEP);
    let again = robin.ask(wish, Some(PASSPHRASE)).await;
    assert!(again.success(), "{}", again.body);
    let done = alice.confirm(Some(alice.code().await)).await;
    assert_eq!(done.body["methods"], json!(["passphrase"]), "{}", done.body);
    assert!(key_file(&office.daemon) != before);
    let kinds = kinds(&office).await;
    for kind in ["asked", "cancelled", "confirmed", "agreed", "changed"] {
        let kind = format!("unseal-method-{kind}");
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn attack_44_a_wrong_share_opens_nothing_and_is_told_by_name() {
    let (mut office, robin, alice) = of_two().await;
    let (mine, hers) = (robin.share().await, alice.share().await);
    let early = robin.hand_in(&mine).await;
    assert_eq!(
        early.code(),
        "bad-request",
        "the vault is open: {}",
        early.body
    );
    let stranger = office.hire("mallory", &[], false, &[]).await.unwrap();
    let third = hired(&office, "carol").await;

    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&robin).await);
    // [unseal] names the identity that opened it before; now it opens nothing.
    assert!(
        office
            .daemon
            .log()
            .contains("the key file is opened by: shares")
    );

    // Nobody but admins hands in, and whoever has no share sees none.
    let none = stranger.post(UNSEAL, json!({"share": mine})).await.unwrap();
    assert_eq!(none.status, 403, "{}", none.body);
    assert_eq!(third.get(UNSEAL).await["shares"]["own"], Value::Null);
    let first = robin.hand_in(&mine).await;
    assert_eq!(
        first.body["shares"]["given"],
        json!(["robin"]),
        "{}",
        first.body
    );
    // Another one's share, a bent one, a cut one, none at all.
    let mut bent = STANDARD.decode(&hers).unwrap();
    bent[3] ^= 1;
    let cut = STANDARD.encode(&bent[..bent.len() - 1]);
    for (who, name, share) in [
        (&alice, "alice", mine.as_str()),
        (&alice, "alice", &STANDARD.encode(&bent)),
        (&alice, "alice", &cut),
        (&alice, "alice", ""),
        (&third, "carol", &hers),
    ] {
        let wrong = who.hand_in(share).await;
        assert_eq!(wrong.status, 403, "{}", wrong.body);
        let told = format!("not the share of {name}");
        assert!(
            wrong.body["title"].as_str().unwrap().contains(&told),
            "{}",
            wrong.body
        );
    }
    // One admin is one, however often he comes.
    let again = robin.hand_in(&mine).await;
    assert_eq!(again.body["sealed"], true, "{}", again.body);
    assert!(sealed(&robin).await);
    let open = alice.hand_in(&hers).await;
    assert_eq!(open.body["sealed"], false, "{}", open.body);
    assert!(!sealed(&robin).await);

    // Sealed again, what opened it is forgotten; and who seals what is sealed takes nobody's share away.
    let seal = robin.post("/v1/admin/seal", json!({})).await;
    assert!(seal.success());
    let one = robin.hand_in(&mine).await;
    let given = &one.body["shares"]["given"];
    assert_eq!(*given, json!(["robin"]), "{}", one.body);
    let seal = alice.post("/v1/admin/seal", json!({})).await;
    assert!(seal.success());
    // Nor does who tries wrong ones without end.
    let (wrong, good) = tokio::join!(third.hand_in(&hers), alice.hand_in(&hers));
    assert_eq!(wrong.status, 403, "{}", wrong.body);
    assert!(good.success(), "{}", good.body);
    assert!(!sealed(&robin).await);
    let kinds = kinds(&office).await;
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!(count("share-refused"), 6, "{kinds:?}");
    assert_eq!(count("share-given"), 5, "{kinds:?}");
}

#[tokio::test]
async fn attack_47_a_change_that_breaks_off_leaves_a_key_file_that_opens() {
    let (mut office, robin) = office().await;
    let data = office.daemon.dir().join("data");
    let before = key_file(&office.daemon);
    // The disk refuses the new file, at the moment when everybody has confirmed.
    let next = data.join("vault.next.json");
    fs::create_dir(&next).unwrap();
    let wish = json!({"method": "passphrase"});
    let asked = robin.ask(wish, Some(PASSPHRASE)).await;
    assert_eq!(asked.status, 500, "{}", asked.body);
    assert!(key_file(&office.daemon) == before);
    // The old one opens, however often it starts.
    office.daemon.restart().await.unwrap();
    assert!(key_file(&office.daemon) == before);
    office.daemon.terminate().await.unwrap();
    // All but the key file: the live store alone would be an older copy, and is noticed.
    let files = || fs::read_dir(&data).unwrap().map(|e| e.unwrap().path());
    let mut agreed = Vec::new();
    for file in files().filter(|f| f.is_file() && !f.ends_with("vault.json")) {
        agreed.push((file.clone(), fs::read(file).unwrap()));
    }

    // Killed before the name changed: what lies there half written is nothing.
    fs::remove_dir(&next).unwrap();
    fs::write(&next, b"{\"v\":1,").unwrap();
    office.daemon.restart().await.unwrap();
    assert!(key_file(&office.daemon) != before);
    assert!(!next.exists());
    let custody = robin.get(METHOD).await;
    assert_eq!(custody["methods"], json!(["passphrase"]), "{custody}");
    assert_eq!(custody["change"], Value::Null);
    let changed = kinds(&office).await;
    assert!(
        changed.contains(&"unseal-method-changed".to_owned()),
        "{changed:?}"
    );

    // Killed after the name changed and before the record: it comes to the same end.
    office.daemon.terminate().await.unwrap();
    let after = key_file(&office.daemon);
    for (file, bytes) in agreed {
        fs::write(file, bytes).unwrap();
    }
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&robin).await);
    let open = robin.post(UNSEAL, json!({"passphrase": PASSPHRASE})).await;
    assert_eq!(open.body["sealed"], false, "{}", open.body);
    assert!(key_file(&office.daemon) == after);
    assert_eq!(robin.get(METHOD).await["change"], Value::Null);
}

/// Who writes the database and kept the row of an agreed change does not put its key file back, not even with the
/// inventory of that time.
#[tokio::test]
async fn attack_44_a_kept_change_of_long_ago_puts_no_key_file_back() {
    let (mut office, robin) = office().await;
    let live = office.daemon.dir().join("data/live.redb");
    let next = office.daemon.dir().join("data/vault.next.json");
    let wish = || json!({"method": "passphrase"});
    let before = key_file(&office.daemon);
    // The disk refuses the file: agreed, and not installed. It can be taken back, and is gone.
    fs::create_dir(&next).unwrap();
    assert_eq!(robin.ask(wish(), Some(PASSPHRASE)).await.status, 500);
    let back = robin.device.call(Method::DELETE, METHOD, None).await;
    assert!(back.unwrap().success());
    // Once more, and the row is kept.
    assert_eq!(robin.ask(wish(), Some(PASSPHRASE)).await.status, 500);
    office.daemon.terminate().await.unwrap();
    let keys = [&b"unseal-change\0next"[..], b"inventory\0all"];
    let kept = keys.map(|key| (key, rows::read(&live, key).unwrap()));
    fs::remove_dir(&next).unwrap();
    assert!(key_file(&office.daemon) == before);
    office.daemon.restart().await.unwrap();
    let asked = robin
        .ask(wish(), Some("another-passphrase-of-it-5678"))
        .await;
    assert!(asked.success(), "{}", asked.body);
    let after = key_file(&office.daemon);

    office.daemon.terminate().await.unwrap();
    for (key, row) in kept {
        rows::write(&live, key, Some(&row)).unwrap();
    }
    fs::remove_file(office.daemon.dir().join("data/anchor")).unwrap();
    office.daemon.restart_sealed().await.unwrap();
    let open = json!({"passphrase": "another-passphrase-of-it-5678"});
    let open = robin.post(UNSEAL, open).await;
    assert_eq!(open.body["sealed"], false, "{}", open.body);
    assert!(key_file(&office.daemon) == after);
    assert_eq!(robin.get(METHOD).await["change"], Value::Null);
    let kinds = kinds(&office).await;
    assert_eq!(
        kinds
            .iter()
            .filter(|k| *k == "unseal-method-dropped")
            .count(),
        1
    );
}

/// Who writes the database while the vault is sealed makes a device of his count; when it is open, he is found out.
#[tokio::test]
async fn attack_44_a_share_from_a_device_that_was_planted_while_sealed_seals_again() {
    let (mut office, robin, alice) = of_two().await;
    let (mine, hers) = (robin.share().await, alice.share().await);
    // A copy of alice's machine and passphrase would do; here, her share in the hand of another device.
    let thief = Device::of(
        proto::device::DeviceKey::from_seed([77; 32]).unwrap(),
        &alice.device.otpauth,
        &alice.device.url,
    );
    let thief = Admin::new(thief.unwrap());
    office.daemon.terminate().await.unwrap();
    let live = office.daemon.dir().join("data/live.redb");
    let honest = rows::read(&live, b"person\0alice").unwrap();
    let mut row: Value = serde_json::from_slice(&honest[40..]).unwrap();
    let public = thief.device.key.public();
    row["devices"][0]["id"] = json!(public.id());
    row["devices"][0]["public_key"] = json!(public);
    let forged = [&honest[..40], &serde_json::to_vec(&row).unwrap()].concat();
    rows::write(&live, b"person\0alice", Some(&forged)).unwrap();
    let key = [b"device\0", public.id().as_str().as_bytes()].concat();
    let index = rows::read(
        &live,
        &[
            b"device\0",
            alice.device.key.public().id().as_str().as_bytes(),
        ]
        .concat(),
    );
    rows::write(&live, &key, Some(&index.unwrap())).unwrap();

    office.daemon.restart_sealed().await.unwrap();
    assert!(robin.hand_in(&mine).await.success());
    let found = thief.hand_in(&hers).await;
    assert_eq!(found.status, 403, "{}", found.body);
    let why = found.body["title"].as_str().unwrap();
    assert!(why.contains("not written by this broker"), "{why}");
    assert!(sealed(&robin).await);
    assert_eq!(robin.get(UNSEAL).await["shares"]["given"], json!([]));

    // Put right, the same two open it.
    office.daemon.terminate().await.unwrap();
    rows::write(&live, b"person\0alice", Some(&honest)).unwrap();
    office.daemon.restart_sealed().await.unwrap();
    assert!(robin.hand_in(&mine).await.success());
    assert_eq!(alice.hand_in(&hers).await.body["sealed"], false);
}

#[tokio::test]
async fn a_holder_whose_key_changed_since_has_confirmed_nothing() {
    let (office, mut robin) = office().await;
    let alice = hired(&office, "alice").await;
    robin.register().await;
    alice.register().await;
    let before = key_file(&office.daemon);
    let shares = json!({"method": "shares", "needed": 2, "holders": ["robin", "alice"]});
    let asked = robin.ask(shares, None).await;
    assert!(asked.success(), "{}", asked.body);
    assert!(robin.confirm(None).await.success());
    // The share that he opened is encrypted to a key that he has no more: with the last confirmation nobody could
    // open the vault again.
    robin.key = Identity::generate();
    robin.register().await;
    let done = alice.confirm(Some(alice.code().await)).await;
    assert!(done.success(), "{}", done.body);
    assert_eq!(done.body["change"]["waits_for"], json!(["robin"]));
    assert!(key_file(&office.daemon) == before);
    let back = alice.device.call(Method::DELETE, METHOD, None).await;
    assert!(back.unwrap().success());
}

#[tokio::test]
async fn a_share_key_is_its_admins_own_and_goes_with_its_device() {
    let (office, robin) = office().await;
    let alice = hired(&office, "alice").await;
    let recipient = robin.key.to_public().to_string();
    let bare = json!({ "recipient": recipient });
    let bare = robin.post("/v1/admin/share-key", bare).await;
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    let none = json!({"recipient": "age1xyz", "totp": robin.device.code(0).unwrap()});
    let none = robin.post("/v1/admin/share-key", none).await;
    assert_eq!(none.code(), "bad-request", "{}", none.body);
    robin.register().await;
    // One machine with two people's shares would be two of them.
    let same = json!({"recipient": recipient, "totp": alice.device.code(0).unwrap()});
    let same = alice.post("/v1/admin/share-key", same).await;
    assert_eq!(same.code(), "bad-request", "{}", same.body);
    let custody = robin.get(METHOD).await;
    assert_eq!(custody["keys"], json!(["robin"]));
    let shares = json!({"method": "shares", "needed": 1, "holders": ["robin", "alice"]});
    let asked = json!({"to": shares, "totp": "000000"});
    let keyless = robin.post(METHOD, asked).await;
    assert_eq!(keyless.code(), "bad-request", "{}", keyless.body);
    assert!(
        keyless.body["title"]
            .as_str()
            .unwrap()
            .contains("share-key")
    );
}

/// A person with the command line, on a machine of his own.
struct Cli<'a> {
    daemon: &'a Daemon,
    home: PathBuf,
    totp: String,
    spent: Cell<u64>,
}

impl<'a> Cli<'a> {
    fn new(daemon: &'a Daemon, name: &str) -> Self {
        let totp = daemon.dir().join(format!("{name}.totp"));
        Self {
            daemon,
            home: daemon.dir().join(name),
            totp: totp.display().to_string(),
            spent: Cell::new(0),
        }
    }

    async fn run(&self, args: &[&str]) -> Output {
        let home = self.home.display().to_string();
        let env = [
            ("COUNTERSIGN_HOME", home.as_str()),
            ("COUNTERSIGN_PASSPHRASE", "of-the-device"),
            ("COUNTERSIGN_BROKER", self.daemon.url.as_str()),
        ];
        let dir = self.daemon.dir();
        self.daemon
            .countersign(args, &env, dir, COMMAND)
            .await
            .unwrap()
    }

    /// With a code of the next step.
    async fn proved(&self, args: &[&str]) -> Output {
        let at = now().unwrap();
        if at / STEP <= self.spent.get() {
            tokio::time::sleep(Duration::from_secs(STEP - at % STEP)).await;
        }
        self.spent.set(now().unwrap() / STEP);
        let code = ["totp", "--quiet", "--file", &self.totp];
        let code = self.run(&code).await.ok().unwrap().stdout;
        self.run(&[args, &["--totp", code.trim()]].concat()).await
    }

    /// The id of the change under way.
    async fn change(&self) -> String {
        let shown = self.run(&["--json", "admin", "unseal-method"]).await;
        let shown: Value = serde_json::from_str(&shown.ok().unwrap().stdout).unwrap();
        shown["change"]["id"].as_str().unwrap().to_owned()
    }

    async fn enroll(&self, args: &[&str]) {
        let all = [&["enroll", "--totp-file", &self.totp], args].concat();
        self.run(&all).await.ok().unwrap();
        self.spent.set(now().unwrap() / STEP);
    }
}

/// Three admins at their own machines, from the first start on.
#[tokio::test]
async fn two_of_three_admins_open_the_vault_and_a_removed_one_does_not() {
    let mut daemon = Daemon::builder()
        .policy(POLICY)
        .sealed()
        .start()
        .await
        .unwrap();
    let told = daemon.init.as_ref().unwrap().stdout.clone();
    let old = told
        .lines()
        .map(str::trim)
        .find(|l| l.len() == 39 && l.matches('-').count() == 7);
    let old_file = daemon.dir().join("old").display().to_string();
    fs::write(&old_file, old.unwrap()).unwrap();
    let by_passphrase = ["admin", "unseal", "--passphrase-file", &old_file];
    let unseal = ["admin", "unseal"];
    {
        let [robin, alice, bob] = ["robin", "alice", "bob"].map(|n| Cli::new(&daemon, n));
        let invite = daemon.invite_path().display().to_string();
        let first = [
            "--invite-file",
            &invite,
            "--vault-passphrase-file",
            &old_file,
        ];
        robin.enroll(&first).await;
        let file = |name: &str| {
            let path = daemon.dir().join(format!("{name}.invite"));
            path.display().to_string()
        };
        // Both before one of them is an admin, who would have to agree.
        for name in ["alice", "bob"] {
            let invite = ["admin", "invite", name, "--admin", "--out", &file(name)];
            robin.run(&invite).await.ok().unwrap();
        }
        for (name, admin) in [("alice", &alice), ("bob", &bob)] {
            admin.enroll(&["--invite-file", &file(name)]).await;
        }
        for admin in [&robin, &alice, &bob] {
            let out = admin.proved(&["admin", "share-key"]).await.ok().unwrap();
            assert!(out.stdout.contains("age1"), "{out}");
        }
        let method = ["admin", "unseal-method"];
        let shares = ["shares", "--threshold", "2", "robin", "alice", "bob"];
        let asked = robin
            .proved(&[&method[..], &shares].concat())
            .await
            .ok()
            .unwrap();
        assert!(asked.stdout.contains("waits for: alice, bob"), "{asked}");
        assert!(asked.stdout.contains("opened by: passphrase"), "{asked}");
        let change = alice.change().await;
        let confirm = ["admin", "unseal-method", "confirm", change.as_str()];
        let first = alice.proved(&confirm).await.ok().unwrap();
        assert!(
            first
                .stderr
                .contains("any 2 of robin, alice, bob, by robin"),
            "{first}"
        );
        assert!(first.stdout.contains("waits for: bob"), "{first}");
        let done = bob.proved(&confirm).await.ok().unwrap();
        assert!(
            done.stdout
                .contains("opened by: any 2 of robin, alice, bob"),
            "{done}"
        );
    }

    daemon.restart().await.unwrap();
    {
        let [robin, alice, bob] = ["robin", "alice", "bob"].map(|n| Cli::new(&daemon, n));
        let status = robin.run(&["status"]).await;
        assert_eq!(status.status, Some(6), "{status}");
        let refused = robin.run(&by_passphrase).await;
        assert_eq!(refused.status, Some(5), "{refused}");
        for _ in 0..2 {
            let one = alice.run(&unseal).await.ok().unwrap();
            assert!(one.stdout.contains("1 of 2 shares are in"), "{one}");
            assert!(one.stdout.contains("robin or bob"), "{one}");
        }
        let two = bob.run(&unseal).await.ok().unwrap();
        assert!(two.stdout.contains("unsealed"), "{two}");
        assert!(robin.run(&["status"]).await.success());

        // bob goes; until it is dealt anew, his place is told.
        robin.spent.set(now().unwrap() / STEP);
        alice.spent.set(now().unwrap() / STEP);
        let remove = ["--json", "admin", "remove-person", "bob"];
        let asked = robin.proved(&remove).await.ok().unwrap();
        let asked: Value = serde_json::from_str(&asked.stdout).unwrap();
        let id = asked["waits"]["id"].as_str().unwrap();
        let removed = alice.proved(&["admin", "confirm", id]).await;
        let removed = removed.ok().unwrap();
        assert!(removed.stderr.contains("! bob cannot open"), "{removed}");
        assert!(!removed.stderr.contains("NOBODY"), "{removed}");
        let shown = robin.run(&["admin", "unseal-method"]).await.ok().unwrap();
        assert!(shown.stdout.contains("! bob cannot open"), "{shown}");
        let anew = [
            "admin",
            "unseal-method",
            "shares",
            "--threshold",
            "2",
            "robin",
            "alice",
        ];
        robin.spent.set(now().unwrap() / STEP);
        robin.proved(&anew).await.ok().unwrap();
        let change = alice.change().await;
        let confirm = ["admin", "unseal-method", "confirm", change.as_str()];
        let done = alice.proved(&confirm).await;
        let done = done.ok().unwrap();
        assert!(
            done.stdout.contains("opened by: any 2 of robin, alice"),
            "{done}"
        );
    }

    daemon.restart().await.unwrap();
    let [robin, alice, bob] = ["robin", "alice", "bob"].map(|n| Cli::new(&daemon, n));
    alice.run(&unseal).await.ok().unwrap();
    let gone = bob.run(&unseal).await;
    assert!(!gone.success(), "{gone}");
    let status = robin.run(&["status"]).await;
    assert_eq!(status.status, Some(6), "{status}");
    let open = robin.run(&unseal).await.ok().unwrap();
    assert!(open.stdout.contains("unsealed"), "{open}");
    let log = daemon.log();
    for secret in [old.unwrap(), "AGE-SECRET-KEY"] {
        assert!(!log.contains(secret));
    }
}

/// systemd decrypts a credential for the unit alone, into a folder that it names to it (`LoadCredentialEncrypted=`).
#[tokio::test]
async fn a_credential_opens_the_vault_at_the_start_and_no_other_does() {
    let folder = tempfile::tempdir().unwrap();
    let credential = folder.path().join("unseal");
    let write = |key: &Identity| fs::write(&credential, key.to_string().expose_secret()).unwrap();
    let key = Identity::generate();
    write(&key);
    // The builder's own way to unseal is left out, and this one stands in its place.
    let builder = Daemon::builder()
        .sealed()
        .extra("[unseal]\ncredential = \"unseal\"\n")
        .env(
            "CREDENTIALS_DIRECTORY",
            &folder.path().display().to_string(),
        );
    let mut office = Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap();
    let open = async |office: &Office| {
        let status: Value = office.admin.get("/v1/status").await.unwrap().ok().unwrap();
        status["sealed"] == false
    };
    assert!(open(&office).await);
    office.store("canary-behind-the-credential").await.unwrap();
    office.daemon.restart().await.unwrap();
    assert!(open(&office).await);
    let tokens: Value = office
        .admin
        .get("/v1/admin/tokens")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(tokens.as_array().unwrap().len(), 1);
    // Another one opens nothing: the broker serves sealed, and an admin may open it. Without any it says so and ends.
    write(&Identity::generate());
    office.daemon.restart().await.unwrap();
    assert!(!open(&office).await);
    assert!(
        office
            .daemon
            .log()
            .contains("what [unseal] names does not open it")
    );
    fs::remove_file(&credential).unwrap();
    let why = office.daemon.restart().await.unwrap_err().to_string();
    assert!(why.contains("unseal: cannot be read"), "{why}");
    write(&key);
    office.daemon.restart().await.unwrap();
    assert!(open(&office).await);
}
