//! Backups: taken of a broker that serves, restored on a bare machine, tried out; and what whoever has one gets.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use broker::{
    backup::format::{Reader, Writer},
    store::redb::SCHEMA,
};
use proto::{
    answer::Decision,
    api::SecondFactor,
    device::DeviceKey,
    digest::{Algorithm, Digest, hex},
    intent::{IntendedFile, IntendedItem, IntentRequest, IntentStatement},
    log::checkpoint::{Checkpoint, LogKey},
    time::UnixTime,
};
use serde_json::{Value, json};
use stand::{
    backups::Vaulted,
    daemon::Daemon,
    people::{Device, NO_REGISTRY, Office, Reply, random},
    root,
    team::{POLICY as TEAM_POLICY, Team},
    until,
};
use std::{
    collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration,
};

const POLICY: &str = stand::kept::POLICY;
const TOKEN: &str = "canary-registry-token";

async fn office(vaulted: &Vaulted) -> Office {
    let builder = vaulted.of(Daemon::builder(), "");
    Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap()
}

const AGREE: &str = "/v1/admin/restored/agree";

async fn agree(device: &Device, more: Value) -> Reply {
    device.with_code(AGREE, more).await.unwrap()
}

async fn is_older(device: &Device) -> bool {
    let status: Value = device.get("/v1/status").await.unwrap().ok().unwrap();
    status["restored"] == true
}

async fn older(device: &Device) -> Value {
    let state = device.get("/v1/admin/restored").await;
    state.unwrap().ok().unwrap()
}

async fn checkpoint(device: &Device) -> String {
    let note = device.get("/v1/log/checkpoint").await.unwrap();
    note.body.as_str().unwrap().to_owned()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["type"].as_str().unwrap()).collect()
}

fn report(out: &stand::Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("{out}"))
}

#[tokio::test]
async fn a_backup_of_a_broker_that_serves_is_a_broker() {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    office.store(TOKEN).await.unwrap();
    let denied = office.open("@acme/down", "1.0.0", b"d").await.unwrap();
    alice
        .deny(&denied, false)
        .await
        .unwrap()
        .ok::<Value>()
        .unwrap();
    let waits = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    // Long enough for what is finished to be moved while it is copied.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    let before = office.events().await.unwrap();
    assert_eq!(before.last().unwrap()["type"], "backup-taken");
    assert_eq!(before.last().unwrap()["by"], "robin");
    // It goes on meanwhile.
    assert_eq!(waits.state().await.unwrap(), "pending");

    let drilled = report(
        &vaulted
            .drill(&office.daemon, &backup)
            .await
            .unwrap()
            .ok()
            .unwrap(),
    );
    assert_eq!(drilled["findings_count"], 0, "{drilled}");
    assert_eq!(drilled["tokens"], 1, "{drilled}");
    assert!(drilled["rows_proved"].as_u64().unwrap() > 5, "{drilled}");
    // The restore's own entry comes on top.
    assert_eq!(drilled["log_entries"], before.len() + 1, "{drilled}");
    let left: Vec<_> = fs::read_dir(vaulted.folder()).unwrap().collect();
    assert_eq!(left.len(), 2, "the drill leaves nothing: {left:?}");

    let config = fs::read(office.daemon.config_path()).unwrap();
    vaulted.put_back(&mut office, &backup).await.unwrap();
    let data = office.daemon.dir().join("data");
    let kept = fs::read(data.join("reference/countersign.toml")).unwrap();
    assert!(kept == config, "the configuration of that time");
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let after = office.events().await.unwrap();
    assert_eq!(after[..before.len()], before[..], "the log goes on");
    assert_eq!(after[before.len()]["type"], "broker-restored");
    assert_eq!(waits.state().await.unwrap(), "pending");
    assert_eq!(denied.state().await.unwrap(), "denied");
    let tokens = office.admin.get("/v1/admin/tokens").await.unwrap();
    assert_eq!(tokens.body.as_array().unwrap().len(), 1);
    // One admin alone: he agrees by himself. What waited is approved then.
    assert!(is_older(&office.admin).await);
    let done = agree(&office.admin, json!({})).await;
    assert_eq!(done.body["restored"], false, "{}", done.body);
    let code = alice.code(0).unwrap();
    let approved = alice.approve(&waits, Some(&code)).await.unwrap();
    assert!(approved.success(), "{}", approved.body);
}

#[tokio::test]
async fn people_take_try_out_and_agree_with_our_own_programs() {
    let vaulted = Vaulted::new().unwrap();
    let registry = stand::parts::Verdaccio::start().await.unwrap();
    let issuer = stand::parts::Issuer::start().await.unwrap();
    let (url, token) = (registry.url.clone(), registry.token.clone());
    let builder = Daemon::builder()
        .policy(TEAM_POLICY)
        .registry("npm", "npm", &url)
        .registry("secrets", "generic", "");
    let builder = vaulted.of(builder, "");
    let team = Team::assemble(registry, issuer, builder, ("npm", &token), "");
    let mut team = team.await.unwrap();
    let status = team
        .admin(&["admin", "status"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(status.stdout.contains("no backup is known"), "{status}");
    let out = vaulted.folder().join("by-cli.backup");
    let shown = out.display().to_string();
    let taken = team.admin(&["admin", "backup", "--out", &shown]).await;
    taken.unwrap().ok().unwrap();
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let drilled = vaulted
        .drill(&team.daemon, &out)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(report(&drilled)["findings_count"], 0, "{drilled}");

    let data = team.daemon.dir().join("data");
    team.daemon.kill9();
    fs::rename(&data, team.daemon.dir().join("aside")).unwrap();
    let restored = vaulted
        .restore(&team.daemon, &out, &data, &[])
        .await
        .unwrap();
    assert!(
        restored.stdout.contains("countersign admin restored"),
        "{restored}"
    );
    team.daemon.restart().await.unwrap();
    let status = team.admin(&["status"]).await.unwrap();
    assert_eq!(status.status, Some(6), "{status}");
    assert!(status.stdout.contains("OLDER COPY"), "{status}");
    let told = team
        .admin(&["admin", "restored"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(told.stdout.contains("0 of 1"), "{told}");
    let agreed = team.admin_with_code(&["admin", "restored", "agree"]).await;
    let agreed = agreed.unwrap().ok().unwrap();
    assert!(agreed.stdout.contains("approvals count"), "{agreed}");
    team.admin(&["status"]).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn attack_45_a_restored_database_lets_nothing_through_until_two_admins_agree() {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let carol = office.hire("carol", &[], true, &[]).await.unwrap();
    office.store(TOKEN).await.unwrap();
    let approved = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    let code = alice.code(0).unwrap();
    let done = alice.approve(&approved, Some(&code)).await.unwrap();
    assert!(done.success(), "{}", done.body);
    let waits = office.open("@acme/right", "1.0.0", b"y").await.unwrap();
    let denied = office.open("@acme/down", "1.0.0", b"z").await.unwrap();
    let invite = office.invite("mallory", &[], true, &[]).await.unwrap();
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    // What the copy does not know: it was collected.
    let collected = approved.collect().await.unwrap();
    assert!(collected.success(), "{}", collected.body);
    vaulted.put_back(&mut office, &backup).await.unwrap();

    assert!(is_older(&office.admin).await);
    let again = approved.collect().await.unwrap();
    assert_eq!(again.code(), "restored", "{}", again.body);
    // No factor is looked at: this code was spent already.
    let answer = alice.code(0).unwrap();
    let refused = alice.approve(&waits, Some(&answer)).await.unwrap();
    assert_eq!(
        (refused.status, refused.code()),
        (503, "restored"),
        "{}",
        refused.body
    );
    let no = alice.deny(&denied, true).await.unwrap();
    assert!(no.success(), "denying works: {}", no.body);
    let freeze = json!({"package": "npm:@acme/other"});
    let frozen = office.admin.post("/v1/admin/freeze", freeze).await.unwrap();
    assert!(frozen.success(), "freezing works: {}", frozen.body);

    // Without a second factor, by a newcomer, or by one of two, nothing is agreed.
    let bare = office.admin.post(AGREE, json!({})).await.unwrap();
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    let newcomer = Device::enroll(&office.daemon.url, &invite).await;
    let newcomer = newcomer.err().unwrap().to_string();
    assert!(newcomer.contains("\"restored\""), "{newcomer}");
    let by_two = json!({"person": "alice"});
    let recovered = carol.with_code("/v1/recoveries/invite", by_two).await;
    assert_eq!(recovered.unwrap().code(), "restored");
    let one = agree(&office.admin, json!({})).await;
    assert_eq!(one.body["restored"], true, "{}", one.body);
    assert_eq!(one.body["agreed"][0]["person"], "robin", "{}", one.body);
    assert_eq!(one.body["may"], json!(["carol", "robin"]), "{}", one.body);
    let twice = agree(&office.admin, json!({})).await;
    assert_eq!(
        twice.body["restored"], true,
        "one person is one: {}",
        twice.body
    );
    // The mark outlives the process, and a copy of a copy. That one is no younger than the first.
    let first = older(&office.admin).await;
    office.daemon.restart().await.unwrap();
    let copy = vaulted.take(&office.admin, "two").await.unwrap();
    vaulted.put_back(&mut office, &copy).await.unwrap();
    let state = older(&office.admin).await;
    assert_eq!(
        state["agreed"],
        json!([]),
        "another restore, another question: {state}"
    );
    for part in ["taken", "entries", "may", "needed"] {
        assert_eq!(state[part], first[part], "{part} of a copy of a copy");
    }

    let hers = agree(&carol, json!({})).await;
    assert_eq!(hers.body["restored"], true, "{}", hers.body);
    let his = agree(&office.admin, json!({})).await;
    assert_eq!(his.body["restored"], false, "{}", his.body);
    assert!(!is_older(&office.admin).await);
    let code = alice.code(0).unwrap();
    let done = alice.approve(&waits, Some(&code)).await.unwrap();
    assert!(done.success(), "{}", done.body);
    let events = office.events().await.unwrap();
    let kinds = kinds(&events);
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(count("broker-restored"), 2);
    assert_eq!(count("restored-accepted"), 1);
    let last = events
        .iter()
        .rfind(|e| e["type"] == "restored-accepted")
        .unwrap();
    assert_eq!(last["by"].as_array().unwrap().len(), 2, "{last}");
}

#[tokio::test]
async fn attack_45_a_device_that_saw_more_than_was_restored_is_heard() {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let early = checkpoint(&office.admin).await;
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let late = checkpoint(&office.admin).await;
    vaulted.put_back(&mut office, &backup).await.unwrap();
    // The log grows again past what was lost: a length alone would say nothing.
    for name in ["a", "b", "c"] {
        let freeze = json!({ "package": format!("npm:@acme/{name}") });
        let frozen = office.admin.post("/v1/admin/freeze", freeze).await.unwrap();
        assert!(frozen.success(), "{}", frozen.body);
    }
    let seen = json!({ "checkpoint": late });
    let refused = agree(&office.admin, seen).await;
    assert_eq!(refused.code(), "not-allowed", "{}", refused.body);
    let words = refused.body["title"].as_str().unwrap();
    assert!(words.contains("this device saw 2 entries"), "{words}");
    let foreign = late.replacen(late.lines().next().unwrap(), "elsewhere.example", 1);
    let foreign = agree(&office.admin, json!({"checkpoint": foreign})).await;
    assert_eq!(foreign.code(), "bad-request", "{}", foreign.body);
    assert!(is_older(&office.admin).await);
    // A prefix is no sign of a loss, and no proof of none.
    let despite = json!({"checkpoint": late, "despite_loss": true});
    let done = agree(&office.admin, despite).await;
    assert_eq!(done.body["restored"], false, "{}", done.body);
    let events = office.events().await.unwrap();
    let agreed = events
        .iter()
        .find(|e| e["type"] == "restored-agreed")
        .unwrap();
    assert_eq!(agreed["lost"], 2, "{agreed}");
    vaulted.put_back(&mut office, &backup).await.unwrap();
    let done = agree(&office.admin, json!({ "checkpoint": early })).await;
    assert_eq!(done.body["restored"], false, "{}", done.body);
}

/// Announces a package's only file, with a code: enough for an approval.
async fn announce(by: &Device, name: &str, bytes: &[u8]) -> Reply {
    let time = UnixTime(stand::now().unwrap());
    let statement = IntentStatement {
        items: vec![IntendedItem {
            registry: "npm".parse().unwrap(),
            package: name.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            tag: Some("latest".parse().unwrap()),
            files: vec![IntendedFile {
                name: "package.tgz".into(),
                digest: Digest::of(Algorithm::Sha512, bytes),
            }],
        }],
        commit: None,
        expires: time.after(1800),
        device: by.key.public().id(),
        time,
        nonce: hex(&random::<16>().unwrap()),
    };
    let request = IntentRequest {
        signature: hex(&by.key.sign(&statement.canonical())),
        statement,
        factor: SecondFactor {
            totp: Some(by.code(0).unwrap()),
            passkey: None,
        },
    };
    let request = serde_json::to_value(&request).unwrap();
    by.post("/v1/intents", request).await.unwrap()
}

#[tokio::test]
async fn attack_45_what_was_announced_approves_nothing_in_a_restored_broker_and_jobs_learn_how_it_stands()
 {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let announced = announce(&alice, "@acme/left", b"x").await;
    assert!(announced.success(), "{}", announced.body);
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    vaulted.put_back(&mut office, &backup).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    let refused = announce(&alice, "@acme/right", b"y").await;
    assert_eq!(refused.code(), "restored", "{}", refused.body);
    let done = agree(&office.admin, json!({})).await;
    assert_eq!(done.body["restored"], false, "{}", done.body);
    assert_eq!(job.state().await.unwrap(), "approved");
}

fn holds(bytes: &[u8], canary: &[u8]) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary)
}

#[tokio::test]
async fn attack_44_a_backup_shows_names_to_its_recipients_alone_and_secrets_to_nobody() {
    let vaulted = Vaulted::new().unwrap();
    let office = office(&vaulted).await;
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    office.store(TOKEN).await.unwrap();
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    let sealed = fs::read(&backup).unwrap();
    let inside = vaulted.inside(&backup).unwrap();
    let seed = alice.totp.secret().as_ref().to_vec();
    for name in [&b"robin"[..], b"alice", b"@acme", b"countersign-backup"] {
        assert!(!holds(&sealed, name));
        assert!(holds(&inside, name), "{}", String::from_utf8_lossy(name));
    }
    let base32 = alice.otpauth.split_once("secret=").unwrap().1;
    let base32 = base32.split('&').next().unwrap();
    for secret in [TOKEN.as_bytes(), &seed, base32.as_bytes()] {
        assert!(!holds(&sealed, secret) && !holds(&inside, secret));
    }
    // Who has it and its identity, and not what opens the vault, restores a sealed broker.
    let unseal = office.daemon.dir().join("unseal.age");
    fs::write(&unseal, fs::read(vaulted.identity_file()).unwrap()).unwrap();
    let drilled = vaulted.drill(&office.daemon, &backup).await.unwrap();
    assert_eq!(drilled.status, Some(1), "{drilled}");
    assert!(
        drilled.stderr.contains("does not unseal the vault"),
        "{drilled}"
    );
}

#[tokio::test]
async fn attack_45_nothing_but_a_whole_backup_of_this_broker_is_restored_and_only_where_nothing_is()
{
    let vaulted = Vaulted::new().unwrap();
    let office = office(&vaulted).await;
    let daemon = &office.daemon;
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    let data = vaulted.folder().join("data");
    let bytes = fs::read(&backup).unwrap();
    let inside = vaulted.inside(&backup).unwrap();
    let changed = |at: usize| {
        let mut other = inside.clone();
        other[at] ^= 1;
        other
    };
    let put = |name: &str, bytes: &[u8]| {
        let path = vaulted.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let newer = String::from_utf8_lossy(&inside[..400]).contains("\"v\":1");
    assert!(newer, "the head stands in front");
    let at = inside.windows(5).position(|w| w == b"\"v\":1").unwrap() + 4;
    let mut future = inside.clone();
    future[at] = b'9';
    for (what, file, code, words) in [
        (
            "cut",
            put("cut", &bytes[..bytes.len() - 1]),
            1,
            "cut or damaged",
        ),
        (
            "cut early",
            put("early", &bytes[..bytes.len() / 2]),
            1,
            "cut or damaged",
        ),
        ("flipped", put("flipped", &flipped), 1, "cut or damaged"),
        (
            "no age file",
            put("plain", b"something else"),
            1,
            "no age file",
        ),
        (
            "forged",
            vaulted.forge(&changed(inside.len() / 2), "forged").unwrap(),
            1,
            "the backup",
        ),
        (
            "another content",
            vaulted.forge(b"hello", "hello").unwrap(),
            1,
            "the backup",
        ),
        (
            "of a newer version",
            vaulted.forge(&future, "newer").unwrap(),
            5,
            "has format 9",
        ),
    ] {
        let said = vaulted.restore(daemon, &file, &data, &[]).await.unwrap();
        assert_eq!(said.status, Some(code), "{what}: {said}");
        assert!(said.stderr.contains(words), "{what}: {said}");
        let left = fs::read_dir(&data).unwrap().count();
        assert_eq!(left, 0, "{what} left something: {said}");
    }
    let stranger = Vaulted::new().unwrap();
    let said = stranger.restore(daemon, &backup, &data, &[]).await.unwrap();
    assert!(
        said.stderr.contains("this identity does not open"),
        "{said}"
    );
    // Where a broker is, or anything else, nothing is touched.
    let running = daemon.dir().join("data");
    let said = vaulted
        .restore(daemon, &backup, &running, &[])
        .await
        .unwrap();
    assert!(said.stderr.contains("there is a broker already"), "{said}");
    fs::write(data.join("notes"), "mine").unwrap();
    let said = vaulted.restore(daemon, &backup, &data, &[]).await.unwrap();
    assert!(said.stderr.contains("not empty"), "{said}");
    assert_eq!(fs::read(data.join("notes")).unwrap(), b"mine");
    // The key that was written down decides whose log it is.
    fs::remove_file(data.join("notes")).unwrap();
    let key = DeviceKey::from_seed([5; 32]).unwrap();
    let key = LogKey::new("127.0.0.1", key.public()).unwrap();
    let [from, identity, data] =
        [backup, vaulted.identity_file(), data].map(|p| p.display().to_string());
    let key = key.to_string();
    let args = [
        "restore",
        "--from",
        &from,
        "--identity",
        &identity,
        "--data",
        &data,
        "--log-key",
        &key,
    ];
    let dir = vaulted.folder();
    let said = stand::run(
        &daemon.bins.countersignd,
        &args,
        &[],
        dir,
        Duration::from_mins(1),
    );
    let said = said.await.unwrap();
    assert!(said.stderr.contains("a log with another key"), "{said}");
}

/// The same content, changed at will and signed with another key, which it names.
fn resigned(inside: &[u8], by: &DeviceKey) -> Vec<u8> {
    let (mut head, mut reader) = Reader::begin(inside, SCHEMA).unwrap();
    let key: LogKey = head.log_key.parse().unwrap();
    let own = LogKey::new(key.name(), by.public()).unwrap();
    head.log_key = own.to_string();
    let signed = Checkpoint::open(&head.checkpoint, &key).unwrap();
    head.checkpoint = signed.sign(by).unwrap();
    let mut writer = Writer::begin(Vec::new(), &head).unwrap();
    while let Some(frame) = reader.next_frame().unwrap() {
        match (frame.piece(), frame.file()) {
            (Some((which, piece)), _) => writer.piece(which, piece).unwrap(),
            (None, Some((name, bytes))) => writer.file(name, bytes).unwrap(),
            (None, None) => panic!("neither"),
        }
    }
    writer.end(|bytes| by.sign(bytes)).unwrap()
}

#[tokio::test]
async fn attack_45_nobody_agrees_to_a_backup_that_somebody_else_signed() {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    let forger = DeviceKey::from_seed([6; 32]).unwrap();
    let inside = resigned(&vaulted.inside(&backup).unwrap(), &forger);
    let forged = vaulted.forge(&inside, "forged").unwrap();
    // Without `--log-key` nothing is wrong with it. Its vault knows better, when that is open.
    vaulted.put_back(&mut office, &forged).await.unwrap();
    assert!(is_older(&office.admin).await);
    let state = office.admin.get("/v1/admin/restored").await.unwrap();
    let refused = agree(&office.admin, json!({})).await;
    for said in [&state, &refused] {
        assert_eq!(said.code(), "not-allowed", "{}", said.body);
        let words = said.body["title"].as_str().unwrap();
        assert!(words.contains("somebody else made this backup"), "{words}");
    }
    assert!(is_older(&office.admin).await);
    vaulted.put_back(&mut office, &backup).await.unwrap();
    let done = agree(&office.admin, json!({})).await;
    assert_eq!(done.body["restored"], false, "{}", done.body);
}

#[tokio::test]
async fn attack_47_a_restore_has_its_folder_alone_and_removes_no_brokers_files() {
    let vaulted = Vaulted::new().unwrap();
    let mut office = office(&vaulted).await;
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    office.daemon.kill9();
    let data = vaulted.folder().join("data");
    fs::create_dir(&data).unwrap();
    let other = fs::File::open(&data).unwrap();
    other.lock().unwrap();
    let daemon = &office.daemon;
    let said = vaulted.restore(daemon, &backup, &data, &[]).await.unwrap();
    assert!(said.stderr.contains("another restore"), "{said}");
    drop(other);
    let done = vaulted.restore(daemon, &backup, &data, &[]).await.unwrap();
    done.ok().unwrap();
    // A whole broker's files, whose live store somebody moved away, beside what a restore could not remove.
    fs::create_dir(data.join(".restore")).unwrap();
    fs::rename(data.join("live.redb"), vaulted.folder().join("aside")).unwrap();
    let said = vaulted.restore(daemon, &backup, &data, &[]).await.unwrap();
    assert!(said.stderr.contains("not empty"), "{said}");
    assert!(data.join("vault.json").exists() && data.join("history.redb").exists());
    // Where a restore broke off, no new broker is made.
    let own = daemon.dir().join("data");
    fs::rename(&own, daemon.dir().join("own")).unwrap();
    fs::create_dir_all(own.join(".restore")).unwrap();
    let config = daemon.config_path().display().to_string();
    let args = ["init", "--config", &config, "--admin", "robin"];
    let program = &daemon.bins.countersignd;
    let said = stand::run(program, &args, &[], daemon.dir(), Duration::from_mins(1));
    let said = said.await.unwrap();
    assert!(said.stderr.contains("a restore broke off"), "{said}");
    assert!(!own.join("vault.json").exists());
}

#[tokio::test]
async fn without_recipients_there_is_no_backup_and_a_browsers_approver_gets_none() {
    let office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let body = json!({});
    let refused = office
        .admin
        .post("/v1/admin/backup", body.clone())
        .await
        .unwrap();
    assert_eq!(refused.code(), "bad-request", "{}", refused.body);
    let refused = alice.post("/v1/admin/backup", body).await.unwrap();
    assert_eq!(refused.code(), "not-allowed", "{}", refused.body);
    let known: Value = office
        .admin
        .get("/v1/admin/backups")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(known["recipients"], 0, "{known}");
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    // Nothing of all this is in the way of a broker that was never restored.
    let digest = job.opened.request_digest;
    let answer = alice.answer(Decision::Deny, digest, "", None).unwrap();
    let denied = alice
        .send(&job.opened.id.to_string(), &answer)
        .await
        .unwrap();
    assert!(denied.success(), "{}", denied.body);
}

/// Copies the files of a folder, and no folder in it.
fn copy(from: &Path, to: &Path, but: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if entry.path().is_file() && !but.iter().any(|b| *b == name) {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn anchored(file: &Path) -> u64 {
    let note = fs::read_to_string(file).unwrap_or_default();
    let size = note.lines().nth(1).and_then(|size| size.parse().ok());
    size.unwrap_or_default()
}

#[tokio::test]
async fn attack_45_an_older_database_that_was_put_in_by_hand_is_noticed_at_the_next_start() {
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("anchor");
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let data = office.daemon.dir().join("data");
    let beside = data.join("anchor");
    let old = office.daemon.dir().join("old");
    let config = fs::read_to_string(office.daemon.config_path()).unwrap();
    // Once with the file beside the database, which stays when the database alone is put back; once with the file
    // elsewhere, when the whole folder is.
    for (anchor, but) in [(&beside, &["anchor"][..]), (&outside, &[])] {
        let line = format!("anchor = \"{}\"\n", anchor.display());
        fs::write(office.daemon.config_path(), line + &config).unwrap();
        office.daemon.restart().await.unwrap();
        until("it does not come", || anchored(anchor) > 0)
            .await
            .unwrap();
        office.daemon.terminate().await.unwrap();
        copy(&data, &old, &[]);
        let before = anchored(anchor);
        office.daemon.restart().await.unwrap();
        assert!(!is_older(&office.admin).await, "a restart is no rollback");
        let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
        until("it does not come", || anchored(anchor) > before + 2)
            .await
            .unwrap();
        office.daemon.kill9();
        copy(&old, &data, but);
        fs::remove_dir_all(&old).unwrap();
        office.daemon.restart().await.unwrap();
        assert!(is_older(&office.admin).await, "{}", anchor.display());
        assert!(!job.state().await.is_ok_and(|state| state == "pending"));
        let state: Value = office
            .admin
            .get("/v1/admin/restored")
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(state["rolled_back"], true, "{state}");
        // It stays so, and what was known is not forgotten, until an admin has looked.
        let known = anchored(anchor);
        office.daemon.restart().await.unwrap();
        assert!(is_older(&office.admin).await);
        // Long enough for it to be written, as it was above.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(anchored(anchor), known);
        let done = agree(&office.admin, json!({})).await;
        assert_eq!(done.body["restored"], false, "{}", done.body);
        let kept = fs::read_to_string(anchor).unwrap();
        until("it does not come", || {
            fs::read_to_string(anchor).unwrap() != kept
        })
        .await
        .unwrap();
        office.daemon.restart().await.unwrap();
        assert!(!is_older(&office.admin).await, "agreed to once is enough");
        let events = office.events().await.unwrap();
        assert!(kinds(&events).contains(&"rolled-back"));
    }
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_is_told() {
    let vaulted = Vaulted::new().unwrap();
    let folder = vaulted.folder().join("not-there");
    let more = format!("folder = \"{}\"\n", folder.display());
    let builder = vaulted.of(Daemon::builder(), &more);
    let office = Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap();
    until("it does not come", || {
        office.daemon.log().contains("ALARM: no backup was made")
    })
    .await
    .unwrap();
    let known: Value = office
        .admin
        .get("/v1/admin/backups")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(known["failed"], true, "{known}");
    let events = office.events().await.unwrap();
    let failed = events.iter().filter(|e| e["type"] == "backup-failed");
    assert_eq!(failed.count(), 1, "{events:?}");
}

/// The names in `Table("…")` of the daemon's sources, tests left out.
fn tables(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tables(&path, found);
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let rust = path.extension().is_some_and(|e| e == "rs");
        if name == "contract.rs" || name.ends_with("tests.rs") || !rust {
            continue;
        }
        let code = fs::read_to_string(&path).unwrap();
        let code = code.split("#[cfg(test)]").next().unwrap();
        for after in code.split("Table(\"").skip(1) {
            found.insert(after.split('"').next().unwrap().to_owned());
        }
    }
}

#[test]
fn attack_44_a_drill_knows_what_the_rows_of_every_table_must_prove() {
    let mut found = BTreeSet::new();
    tables(&root().join("broker/src"), &mut found);
    let known = broker::publish::contents::TABLES.iter();
    let known: BTreeSet<_> = known.map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = found.difference(&known).collect();
    assert!(missing.is_empty(), "say what their rows prove: {missing:?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "no such table: {gone:?}");
}
