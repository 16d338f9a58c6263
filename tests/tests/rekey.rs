//! The vault gets a fresh data key while the broker serves: nothing is lost, and the old key is worth nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker::{
    publish::contents::{self, Proof},
    secret::Secret,
    store::{
        Store as _, Table,
        redb::{Options, Redb},
    },
    vault::{Unseal, Vault},
    world::World,
};
use proto::device::DeviceKey;
use serde_json::{Value, json};
use stand::{
    backups::Vaulted,
    daemon::{Builder, Daemon},
    killed::Killer,
    live_at,
    parts::{Clock, Verdaccio},
    people::{Device, Job, NO_REGISTRY, Office, Reply, STEP, archive, phone_policy},
    rows::copy_folder,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const METHOD: &str = "/v1/admin/unseal-method";
const UNSEAL: &str = "/v1/admin/unseal";
const DAY: i64 = 24 * 3600;

async fn data_key(by: &Device) -> Value {
    let custody: Value = by.get(METHOD).await.unwrap().ok().unwrap();
    custody["data_key"].clone()
}

async fn comes_to(by: &Device, step: &Value) -> Value {
    let start = Instant::now();
    loop {
        let key = data_key(by).await;
        if key["step"] == *step {
            return key;
        }
        assert!(start.elapsed() < Duration::from_mins(2), "{key}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn rekey(office: &Office) {
    let done = office.admin.act(json!({"kind": "rekey"}), None).await;
    let done = done.unwrap();
    assert_eq!(done.body["done"], true, "{}", done.body);
}

/// Approves with a code that is none of before; returns it.
async fn approve(by: &Device, job: &Job, spent: &str) -> String {
    let mut code = by.code(0).unwrap();
    while code == spent {
        tokio::time::sleep(Duration::from_millis(200)).await;
        code = by.code(0).unwrap();
    }
    let approved = by.approve(job, Some(&code)).await.unwrap();
    assert!(approved.success(), "{}", approved.body);
    code
}

/// Whoever has a key file and what opens it.
fn opened(key_file: &[u8], identity: &Path) -> Vault {
    let vault = Vault::new(World::system());
    let secret = Secret::new(fs::read_to_string(identity).unwrap());
    vault.unseal(key_file, &Unseal::Identity(secret)).unwrap();
    vault
}

/// Rows by table and key.
type Rows = BTreeSet<(&'static str, Vec<u8>)>;

/// Of all rows that prove something: those that this vault believes and opens, and those that it does not.
fn believed(data: &Path, vault: &Vault) -> (Rows, Vec<String>) {
    let (mut good, mut bad) = (Rows::new(), Vec::new());
    for name in ["live.redb", "history.redb"] {
        let store = Redb::open(data.join(name), Options::new(1 << 20)).unwrap();
        for (table, proof) in contents::TABLES {
            if proof == Proof::Bare {
                continue;
            }
            for (key, row) in store.range(Table(table), b"", None, 100_000).unwrap() {
                match contents::check(vault, table, &key, &row.value) {
                    Ok(_) => drop(good.insert((table, key))),
                    Err(why) => bad.push(why),
                }
            }
        }
    }
    (good, bad)
}

#[tokio::test]
async fn attack_44_after_a_rekey_the_old_key_reads_nothing_and_nothing_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let vaulted = Vaulted::new().unwrap();
    let builder = vaulted.of(clock.env(Daemon::builder()), "");
    let policy = phone_policy(1, "[\"totp\"]");
    let office = Office::start_as(builder, &policy, &registry.url).await;
    let mut office = office.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    office.add_token("npm", "*", &registry.token).await.unwrap();
    let bytes = archive("@acme/left", "1.0.0").unwrap();
    office
        .publish(&alice, "@acme/left", "1.0.0", &bytes)
        .await
        .unwrap();
    // One waits for its answer, one was approved: both go on under another key.
    let next = archive("@acme/left", "2.0.0").unwrap();
    let waits = office.open("@acme/left", "2.0.0", &next).await.unwrap();
    let bytes = archive("@acme/right", "1.0.0").unwrap();
    let held = office.open("@acme/right", "1.0.0", &bytes).await.unwrap();
    let spent = alice.code(0).unwrap();
    let spent = approve(&alice, &held, &spent).await;

    let data = office.daemon.dir().join("data");
    let identity = office.daemon.dir().join("unseal.age");
    let stolen = fs::read(data.join("vault.json")).unwrap();
    assert_eq!(data_key(&office.admin).await, json!({"generation": 1}));
    rekey(&office).await;
    // Once at a time.
    let twice = office.admin.act(json!({"kind": "rekey"}), None).await;
    let twice = twice.unwrap();
    assert_eq!(twice.code(), "bad-request", "{}", twice.body);
    let key = comes_to(&office.admin, &json!("retired")).await;
    assert_eq!((&key["generation"], &key["old"]), (&json!(2), &json!(1)));

    // Ticket, match code and approval hold, and the token is still a token.
    let credential = held.open(&held.collect().await.unwrap()).unwrap();
    let put = held.put(&credential, &bytes).await.unwrap();
    assert!(put.success(), "{}", put.body);
    approve(&alice, &waits, &spent).await;
    let credential = waits.open(&waits.collect().await.unwrap()).unwrap();
    let put = waits.put(&credential, &next).await.unwrap();
    assert!(put.success(), "{}", put.body);
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    let drilled = vaulted.drill(&office.daemon, &backup).await.unwrap();
    assert_eq!(drilled.status, Some(0), "{drilled}");

    // A copy of the disk from now on, for who has the key file of then and what opened it.
    office.daemon.terminate().await.unwrap();
    let (good, _) = believed(&data, &opened(&stolen, &identity));
    assert_eq!(good, Rows::new(), "rows of the old key");
    let now = fs::read(data.join("vault.json")).unwrap();
    let (good, bad) = believed(&data, &opened(&now, &identity));
    assert!(good.len() > 15 && bad.is_empty(), "{good:?}: {bad:?}");

    // Two days later no request of its time is left; then the old one goes, and a restart finds all it needs.
    office.daemon.restart().await.unwrap();
    for later in [2 * DAY, 2 * DAY + 600] {
        clock.pass(&mut office.daemon, later).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let key = comes_to(&office.admin, &Value::Null).await;
    assert_eq!(key, json!({"generation": 2}));
    let events = office.events().await.unwrap();
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|e| e["type"].as_str().filter(|t| t.starts_with("rekey")))
        .collect();
    assert_eq!(
        kinds,
        ["rekey-begun", "rekey-in-use", "rekey-retired", "rekey-done"]
    );
    office.daemon.restart().await.unwrap();
    let tokens: Value = office
        .admin
        .get("/v1/admin/tokens")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(tokens.as_array().unwrap().len(), 1, "{tokens}");
}

#[tokio::test]
async fn attack_50_one_admin_alone_does_not_rekey_and_a_change_of_method_goes_with_it() {
    let office = Office::start(&phone_policy(1, "[\"totp\"]"), NO_REGISTRY).await;
    let office = office.unwrap();
    let second = office.hire("second", &[], true, &[]).await.unwrap();
    let bare = json!({"act": {"kind": "rekey"}});
    let bare = office.admin.post("/v1/admin/acts", bare).await.unwrap();
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    let asked = office.admin.act(json!({"kind": "rekey"}), None).await;
    let asked = asked.unwrap().body;
    assert_eq!(asked["done"], false, "{asked}");
    assert_eq!(data_key(&second).await, json!({"generation": 1}));
    let id = asked["act"]["id"].as_str().unwrap();
    let confirmed = second.confirm(id).await.unwrap();
    assert_eq!(confirmed.body["done"], true, "{}", confirmed.body);
    comes_to(&second, &json!("retired")).await;

    // The key file is made anew for both keys while the old one is still there, and is gone on with.
    let to = json!({"to": {"method": "identity"}});
    let asked = office.admin.with_code(METHOD, to).await.unwrap();
    let change = asked.body["change"]["id"].as_str().unwrap().to_owned();
    let path = format!("{METHOD}/confirm");
    let done = second.with_code(&path, json!({"change": change})).await;
    let done = done.unwrap().body;
    assert_eq!(done["change"], Value::Null, "{done}");
    assert_eq!(done["data_key"]["old"], 1, "{done}");
}

/// A broker that is killed at every durable step from a point on.
struct Sweep {
    office: Office,
    alice: Device,
    killer: Killer,
    data: PathBuf,
    base: PathBuf,
    identity: PathBuf,
    /// The rows with which it began.
    first: Rows,
    _folder: tempfile::TempDir,
}

impl Sweep {
    /// Of a broker with people, tokens and requests, as it is when `ready` has been done.
    async fn new() -> Self {
        let (folder, killer) = killer().await;
        let sweep = Self::of(Daemon::builder(), killer, folder, NO_REGISTRY, "canary").await;
        sweep
            .office
            .open("@acme/left", "1.0.0", b"x")
            .await
            .unwrap();
        sweep
    }

    /// Of one that publishes, where nothing counts before the key file is replaced.
    async fn of_key_file(builder: Builder, registry: &Verdaccio) -> Self {
        let (folder, killer) = killer().await;
        let killer = killer.since("vault.next.json");
        Self::of(builder, killer, folder, &registry.url, &registry.token).await
    }

    async fn of(
        builder: Builder,
        killer: Killer,
        folder: tempfile::TempDir,
        registry: &str,
        token: &str,
    ) -> Self {
        let policy = phone_policy(1, "[\"device\"]");
        let office = Office::start_as(killer.on(builder), &policy, registry).await;
        let office = office.unwrap();
        let alice = office.hire("alice", &["release"], false, &[]).await;
        office.store(token).await.unwrap();
        Self {
            alice: alice.unwrap(),
            killer,
            data: office.daemon.dir().join("data"),
            base: office.daemon.dir().join("base"),
            identity: office.daemon.dir().join("unseal.age"),
            office,
            first: Rows::new(),
            _folder: folder,
        }
    }

    /// Kills it; the sweep begins with what is on the disk.
    fn begins(&mut self) {
        self.office.daemon.kill9();
        copy_folder(&self.data, &self.base).unwrap();
        self.first = self.rows();
        // What is under way comes to its end, and its row with it.
        let over = ["rekey", "unseal-change"];
        self.first.retain(|(table, _)| !over.contains(table));
    }

    /// Kills it; no row of those with which the sweep began is missing, and the key file that it left proves all.
    fn whole(&mut self, step: u64) {
        let rows = self.rows();
        let gone: Vec<_> = self.first.difference(&rows).collect();
        assert!(gone.is_empty(), "step {step}: {gone:?}");
    }

    fn rows(&mut self) -> Rows {
        self.office.daemon.kill9();
        let key_file = fs::read(self.data.join("vault.json")).unwrap();
        let (good, bad) = believed(&self.data, &opened(&key_file, &self.identity));
        assert!(good.len() > 8 && bad.is_empty(), "{good:?} {bad:?}");
        good
    }

    /// Kills it at each of its durable steps until none comes within `pause` of the start; after each the broker
    /// starts again by itself, and every row is believed. Returns how many steps there were.
    async fn run(&mut self, pause: Duration, stride: u64) -> u64 {
        self.begins();
        let mut step = 1;
        loop {
            let none = self.stopped(step, pause).await;
            self.office.daemon.restart().await.unwrap();
            let people = self.office.admin.get("/v1/admin/people").await.unwrap();
            assert!(people.success(), "step {step}: {}", people.body);
            self.whole(step);
            if none {
                return step;
            }
            step += stride;
        }
    }

    /// Goes on from where the sweep began, and is killed at this step; returns whether none came within `pause` of the start.
    async fn stopped(&mut self, step: u64, pause: Duration) -> bool {
        copy_folder(&self.base, &self.data).unwrap();
        self.killer.at(step).unwrap();
        let up = self.office.daemon.restart_sealed().await.is_ok();
        let start = Instant::now();
        while up && start.elapsed() < pause && self.killer.left().unwrap() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It looks at the count before it dies.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let none = self.killer.left().unwrap() > 1;
        self.killer.at(0).unwrap();
        self.office.daemon.kill9();
        none
    }

    /// Goes on from where the sweep began and is killed at this step, unless it came to where it goes before. Whichever
    /// it was, it has started again by itself. Returns whether it was killed.
    async fn killed_at(&mut self, step: u64, goes_to: &Value) -> bool {
        copy_folder(&self.base, &self.data).unwrap();
        self.killer.at(step).unwrap();
        // Some steps come as soon as it starts.
        let _ = self.office.daemon.restart().await;
        let process = self.office.daemon.id().map(|id| format!("/proc/{id}/exe"));
        let lives = || {
            process
                .as_ref()
                .is_some_and(|path| Path::new(path).exists())
        };
        let (start, mut there) = (Instant::now(), None::<Instant>);
        // What is still to be done then takes no second.
        while lives() && there.is_none_or(|at| at.elapsed() < Duration::from_secs(1)) {
            assert!(start.elapsed() < Duration::from_mins(1), "step {step}");
            let seen = self.office.admin.get(METHOD).await;
            let comes =
                |reply: &Reply| reply.success() && reply.body["data_key"]["step"] == *goes_to;
            if there.is_none() && seen.as_ref().is_ok_and(comes) {
                there = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let killed = !lives();
        self.killer.at(0).unwrap();
        self.office.daemon.restart().await.unwrap();
        killed
    }

    /// The token serves a publish.
    async fn publishes(&self, step: u64) {
        let version = format!("{step}.0.0");
        let bytes = archive("@acme/next", &version).unwrap();
        let job = self.office.open("@acme/next", &version, &bytes).await;
        let job = job.unwrap();
        let approved = self.alice.approve(&job, None).await.unwrap();
        assert!(approved.success(), "step {step}: {}", approved.body);
        let credential = job.open(&job.collect().await.unwrap()).unwrap();
        let put = job.put(&credential, &bytes).await.unwrap();
        assert!(put.success(), "step {step}: {}", put.body);
    }

    /// How often the log has such an event.
    async fn events(&self, kind: &str) -> usize {
        let events = self.office.events().await.unwrap();
        events.iter().filter(|e| e["type"] == kind).count()
    }
}

/// The data folder has a place that is known before the daemon starts.
async fn killer() -> (tempfile::TempDir, Killer) {
    let folder = tempfile::tempdir().unwrap();
    let killer = Killer::make(folder.path(), &std::env::temp_dir()).await;
    (folder, killer.unwrap())
}

/// Every step in the full form (`COUNTERSIGN_SWEEP=full`), every seventh else.
fn stride() -> u64 {
    match std::env::var("COUNTERSIGN_SWEEP").as_deref() {
        Ok("full") => 1,
        _ => 7,
    }
}

#[tokio::test]
async fn attack_47_a_rekey_that_is_killed_anywhere_loses_nothing_and_goes_on() {
    let mut sweep = Sweep::new().await;
    // Agreed to, and killed before anything of it is done.
    rekey(&sweep.office).await;
    let steps = sweep.run(Duration::from_secs(4), stride()).await;
    assert!(steps > 20, "{steps} steps");
    println!("killed at up to {steps} steps");
    // Whatever was left, it comes to its end.
    copy_folder(&sweep.base, &sweep.data).unwrap();
    sweep.office.daemon.restart().await.unwrap();
    comes_to(&sweep.office.admin, &json!("retired")).await;
}

#[tokio::test]
async fn attack_47_an_old_key_whose_retiring_is_killed_anywhere_is_retired_or_still_good() {
    let registry = Verdaccio::start().await.unwrap();
    let mut sweep = Sweep::of_key_file(Daemon::builder(), &registry).await;
    let left = sweep.office.open("@acme/left", "1.0.0", b"x").await;
    left.unwrap();
    rekey(&sweep.office).await;
    comes_to(&sweep.office.admin, &json!("writing")).await;
    // All is written anew by then; only the time is missing.
    tokio::time::sleep(Duration::from_secs(2)).await;
    sweep.begins();
    let (mut step, mut seen) = (0, [0; 2]);
    loop {
        step += 1;
        let killed = sweep.killed_at(step, &json!("retired")).await;
        let key = data_key(&sweep.office.admin).await;
        let retired = key["step"] == "retired";
        assert!(retired || key["step"] == "writing", "step {step}: {key}");
        assert_eq!((&key["generation"], &key["old"]), (&json!(2), &json!(1)));
        let told = sweep.events("rekey-retired").await;
        assert_eq!(told, usize::from(retired), "step {step}");
        // Of the two, the key file is the first to say so.
        let file = fs::read(sweep.data.join("vault.json")).unwrap();
        let (_, old) = opened(&file, &sweep.identity).generations().unwrap();
        let (_, in_file) = old.unwrap();
        assert!(in_file || !retired, "step {step}");
        sweep.publishes(step).await;
        sweep.whole(step);
        if !killed {
            assert!(retired);
            break;
        }
        seen[usize::from(retired)] += 1;
        assert!(step < 60, "it does not come to an end");
    }
    println!("killed at {} steps; [not yet, retired]: {seen:?}", step - 1);
    assert!(seen[0] > 3 && seen[1] > 0, "{seen:?}");
    // Whatever was left, it comes to its end.
    sweep.killed_at(seen[0], &json!("retired")).await;
    comes_to(&sweep.office.admin, &json!("retired")).await;
}

#[tokio::test]
async fn attack_47_an_old_key_whose_end_is_killed_anywhere_goes_and_takes_nothing_along() {
    const AGO: i64 = 2 * DAY + 3600;
    let registry = Verdaccio::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    // Everybody lives two days ago until it is retired, and today from then on: all clocks are right at both times.
    clock.set(-AGO).unwrap();
    live_at(-AGO);
    let builder = clock.env(Daemon::builder());
    let mut sweep = Sweep::of_key_file(builder, &registry).await;
    let stolen = fs::read(sweep.data.join("vault.json")).unwrap();
    rekey(&sweep.office).await;
    comes_to(&sweep.office.admin, &json!("retired")).await;
    sweep.begins();
    clock.set(0).unwrap();
    live_at(0);
    let mut step = 0;
    loop {
        step += 1;
        let killed = sweep.killed_at(step, &Value::Null).await;
        sweep.publishes(step).await;
        let key = comes_to(&sweep.office.admin, &Value::Null).await;
        assert_eq!(key, json!({"generation": 2}), "step {step}");
        assert_eq!(sweep.events("rekey-done").await, 1, "step {step}");
        sweep.whole(step);
        let now = fs::read(sweep.data.join("vault.json")).unwrap();
        let held = opened(&now, &sweep.identity).generations().unwrap();
        assert_eq!(held, (2, None), "step {step}");
        let (good, _) = believed(&sweep.data, &opened(&stolen, &sweep.identity));
        assert_eq!(good, Rows::new(), "step {step}: rows of the old key");
        if !killed {
            break;
        }
        assert!(step < 60, "it does not come to an end");
    }
    println!("killed at {} steps", step - 1);
    assert!(step > 7, "{step} steps");
}

#[tokio::test]
async fn attack_47_a_change_of_method_that_is_killed_anywhere_leaves_one_that_opens() {
    let mut sweep = Sweep::new().await;
    // The disk refuses the file: agreed to, and not done.
    let next = sweep.data.join("vault.next.json");
    fs::create_dir(&next).unwrap();
    let to = json!({"to": {"method": "identity"}});
    let asked = sweep.office.admin.with_code(METHOD, to).await.unwrap();
    assert_eq!(asked.status, 500, "{}", asked.body);
    sweep.office.daemon.kill9();
    fs::remove_dir(&next).unwrap();
    let steps = sweep.run(Duration::from_secs(2), stride()).await;
    assert!(steps > 10, "{steps} steps");
    println!("killed at up to {steps} steps");
}

/// An admin who has a share, and the key that opens it.
struct Holder {
    device: Device,
    key: age::x25519::Identity,
}

impl Holder {
    async fn register(device: Device) -> Self {
        let key = age::x25519::Identity::generate();
        let asked = json!({"recipient": key.to_public().to_string()});
        let done = device.with_code("/v1/admin/share-key", asked).await;
        let done = done.unwrap();
        assert!(done.success(), "{}", done.body);
        Self { device, key }
    }

    fn open(&self, own: &Value) -> String {
        let file = STANDARD.decode(own.as_str().unwrap()).unwrap();
        STANDARD.encode(age::decrypt(&self.key, &file).unwrap())
    }

    async fn confirm(&self) -> Reply {
        let custody: Value = self.device.get(METHOD).await.unwrap().ok().unwrap();
        let change = &custody["change"];
        let asked = json!({"change": change["id"], "share": self.open(&change["own"])});
        let path = format!("{METHOD}/confirm");
        self.device.with_code(&path, asked).await.unwrap()
    }

    async fn hands_in(&self) {
        let unsealing: Value = self.device.get(UNSEAL).await.unwrap().ok().unwrap();
        let share = self.open(&unsealing["shares"]["own"]);
        let given = self.device.post(UNSEAL, json!({"share": share})).await;
        let given = given.unwrap();
        assert!(given.success(), "{}", given.body);
    }

    async fn sees(&self, path: &str) -> Value {
        self.device.get(path).await.unwrap().ok().unwrap()
    }
}

/// Two who hold a share each, after the last of them agreed and before anything of it was done.
async fn agreed_to_shares(sweep: &mut Sweep, clock: &Clock) -> [Holder; 2] {
    let admin = &sweep.office.admin;
    let key = DeviceKey::from_seed(*admin.key.expose_seed()).unwrap();
    let robin = Device::of(key, &admin.otpauth, &admin.url).unwrap();
    let second = sweep.office.hire("second", &[], true, &[]).await.unwrap();
    let holders = [
        Holder::register(robin).await,
        Holder::register(second).await,
    ];
    // Everybody lives in the next step of codes from here on.
    sweep.office.daemon.kill9();
    let later = i64::try_from(STEP).unwrap();
    clock.set(later).unwrap();
    live_at(later);
    sweep.office.daemon.restart().await.unwrap();
    let to = json!({"method": "shares", "needed": 2, "holders": ["robin", "second"]});
    let asked = holders[0].device.with_code(METHOD, json!({"to": to})).await;
    let asked = asked.unwrap();
    assert!(asked.success(), "{}", asked.body);
    let first = holders[0].confirm().await;
    assert!(first.success(), "{}", first.body);
    // The disk refuses the file.
    let next = sweep.data.join("vault.next.json");
    fs::create_dir(&next).unwrap();
    let last = holders[1].confirm().await;
    assert_eq!(last.status, 500, "{}", last.body);
    sweep.office.daemon.kill9();
    fs::remove_dir(&next).unwrap();
    copy_folder(&sweep.data, &sweep.base).unwrap();
    holders
}

#[tokio::test]
async fn attack_47_a_change_to_shares_that_is_killed_anywhere_opens_by_the_old_or_the_new_way() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let (folder, killer) = killer().await;
    let killer = killer.since("vault.next.json");
    let builder = clock.env(Daemon::builder());
    let mut sweep = Sweep::of(builder, killer, folder, NO_REGISTRY, "canary").await;
    let holders = agreed_to_shares(&mut sweep, &clock).await;
    let before = fs::read(sweep.data.join("vault.json")).unwrap();
    let (mut step, mut seen) = (1, [0; 2]);
    loop {
        let none = sweep.stopped(step, Duration::from_secs(2)).await;
        let replaced = fs::read(sweep.data.join("vault.json")).unwrap() != before;
        seen[usize::from(replaced)] += 1;
        sweep.office.daemon.restart_sealed().await.unwrap();
        // The old one opens it by itself, and the new one by both shares; then it comes to its end.
        for again in [false, true] {
            if again {
                sweep.office.daemon.restart_sealed().await.unwrap();
            }
            let status = holders[0].sees("/v1/status").await;
            assert_eq!(status["sealed"], replaced || again, "step {step}: {status}");
            if replaced || again {
                holders[0].hands_in().await;
                holders[1].hands_in().await;
            }
            let start = Instant::now();
            loop {
                let custody = holders[1].sees(METHOD).await;
                if custody["methods"] == json!(["shares"]) && custody["change"].is_null() {
                    break;
                }
                let late = start.elapsed() > Duration::from_mins(1);
                assert!(!late, "step {step}: {custody}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let tokens = holders[0].sees("/v1/admin/tokens").await;
        assert_eq!(tokens.as_array().unwrap().len(), 1, "step {step}: {tokens}");
        let people = holders[0].sees("/v1/admin/people").await;
        assert_eq!(people.as_array().unwrap().len(), 3, "step {step}: {people}");
        if none {
            break;
        }
        step += 1;
        assert!(step < 60, "it does not come to an end");
    }
    println!(
        "killed at {} steps; [the old one, the new one]: {seen:?}",
        step - 1
    );
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
