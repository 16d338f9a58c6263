//! The vault gets a fresh data key while the broker serves: nothing is lost, and the old key is worth nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

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
use serde_json::{Value, json};
use stand::{
    backups::Vaulted,
    daemon::Daemon,
    killed::Killer,
    parts::{Clock, Verdaccio},
    people::{Device, Job, NO_REGISTRY, Office, archive, phone_policy},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const METHOD: &str = "/v1/admin/unseal-method";
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

/// Of all rows that prove something: those that this vault believes and opens, and those that it does not.
fn believed(data: &Path, vault: &Vault) -> (usize, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    for name in ["live.redb", "history.redb"] {
        let store = Redb::open(data.join(name), Options::new(1 << 20)).unwrap();
        for (table, proof) in contents::TABLES {
            if proof == Proof::Bare {
                continue;
            }
            for (key, row) in store.range(Table(table), b"", None, 100_000).unwrap() {
                match contents::check(vault, table, &key, &row.value) {
                    Ok(_) => good += 1,
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
    assert_eq!(good, 0, "rows of the old key");
    let now = fs::read(data.join("vault.json")).unwrap();
    let (good, bad) = believed(&data, &opened(&now, &identity));
    assert!(good > 15 && bad.is_empty(), "{good}: {bad:?}");

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

fn copied(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A broker that is killed at every durable step from a point on.
struct Sweep {
    office: Office,
    killer: Killer,
    data: PathBuf,
    base: PathBuf,
    identity: PathBuf,
    folder: tempfile::TempDir,
}

impl Sweep {
    /// Of a broker with people, tokens and requests, as it is when `ready` has been done.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The data folder has a place that is known before the daemon starts.
        let killer = Killer::make(folder.path(), &std::env::temp_dir())
            .await
            .unwrap();
        let mut builder = Daemon::builder();
        for (name, value) in killer.env() {
            builder = builder.env(name, &value);
        }
        let office = Office::start_as(builder, &phone_policy(1, "[\"totp\"]"), NO_REGISTRY).await;
        let office = office.unwrap();
        office
            .hire("alice", &["release"], false, &[])
            .await
            .unwrap();
        office.store("canary-registry-token").await.unwrap();
        office.open("@acme/left", "1.0.0", b"x").await.unwrap();
        Self {
            killer,
            data: office.daemon.dir().join("data"),
            base: office.daemon.dir().join("base"),
            identity: office.daemon.dir().join("unseal.age"),
            office,
            folder,
        }
    }

    /// Stops it; the sweep begins here.
    async fn begins(&mut self) {
        self.office.daemon.terminate().await.unwrap();
        copied(&self.data, &self.base);
    }

    /// Kills it at each of its durable steps until none comes within `pause` of the start; after each the broker
    /// starts again by itself, and every row is believed. Returns how many steps there were.
    async fn run(&mut self, pause: Duration, stride: u64) -> u64 {
        let mut step = 1;
        loop {
            copied(&self.base, &self.data);
            self.killer.at(step).unwrap();
            let up = self.office.daemon.restart().await.is_ok();
            let start = Instant::now();
            while up && start.elapsed() < pause && left(self.folder.path()) > 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // It looks at the count before it dies.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let none = left(self.folder.path()) > 1;
            self.killer.at(0).unwrap();
            self.office.daemon.restart().await.unwrap();
            let people = self.office.admin.get("/v1/admin/people").await.unwrap();
            assert!(people.success(), "step {step}: {}", people.body);
            self.office.daemon.kill9();
            let key_file = fs::read(self.data.join("vault.json")).unwrap();
            let (good, bad) = believed(&self.data, &opened(&key_file, &self.identity));
            assert!(good > 8 && bad.is_empty(), "step {step}: {good} {bad:?}");
            if none {
                return step;
            }
            step += stride;
        }
    }
}

/// Steps that are left until it is killed.
fn left(folder: &Path) -> u64 {
    let text = fs::read_to_string(folder.join("steps-left")).unwrap();
    text.trim().parse().unwrap()
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
    sweep.begins().await;
    sweep.office.daemon.restart().await.unwrap();
    rekey(&sweep.office).await;
    sweep.office.daemon.kill9();
    let steps = {
        copied(&sweep.data, &sweep.base);
        sweep.run(Duration::from_secs(4), stride()).await
    };
    assert!(steps > 20, "{steps} steps");
    println!("killed at up to {steps} steps");
    // Whatever was left, it comes to its end.
    copied(&sweep.base, &sweep.data);
    sweep.office.daemon.restart().await.unwrap();
    comes_to(&sweep.office.admin, &json!("retired")).await;
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
    copied(&sweep.data, &sweep.base);
    let steps = sweep.run(Duration::from_secs(2), stride()).await;
    assert!(steps > 10, "{steps} steps");
    println!("killed at up to {steps} steps");
}
