//! Backups and restores that are killed at each durable step.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::Value;
use stand::{
    backups::Vaulted,
    daemon::Daemon,
    killed::Killer,
    people::{NO_REGISTRY, Office},
    rows, until,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const POLICY: &str = stand::kept::POLICY;
/// A step in the middle of a restore.
const AMONG: u64 = 20;

#[tokio::test]
async fn attack_47_a_restore_that_is_killed_anywhere_is_done_again_or_done() {
    let vaulted = Vaulted::new().unwrap();
    let builder = vaulted.of(Daemon::builder(), "");
    let office = Office::start_as(builder, POLICY, NO_REGISTRY).await;
    let mut office = office.unwrap();
    office.store("canary-registry-token").await.unwrap();
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    office.daemon.kill9();
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let done = vaulted.restore(&office.daemon, &backup, &data, &[]).await;
    done.unwrap().ok().unwrap();
    let whole_one = marked(&data, "without a killer");
    assert!(whole_one[0].len() > 15, "{} rows", whole_one[0].len());
    fs::remove_dir_all(&data).unwrap();
    let killer = Killer::make(vaulted.folder(), &data).await.unwrap();
    let env = killer.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let live = data.join("live.redb");
    let (mut steps, mut whole) = (0, 0);
    loop {
        steps += 1;
        killer.at(steps).unwrap();
        let killed = vaulted.restore(&office.daemon, &backup, &data, &env).await;
        let killed = killed.unwrap();
        if killed.status == Some(0) {
            break;
        }
        assert_eq!(killed.status, None, "step {steps}: {killed}");
        if live.exists() {
            // Named last: all of it is there.
            whole += 1;
            let when = format!("step {steps}");
            same(&marked(&data, &when), &whole_one, &when);
            if whole == 1 {
                serves(&mut office, &data, &when).await;
            }
            fs::remove_dir_all(&data).unwrap();
        } else {
            // Killed once more, in the middle of cleaning up; then it is done.
            killer.at(1 + steps % 7).unwrap();
            let _ = vaulted.restore(&office.daemon, &backup, &data, &env).await;
            if !live.exists() {
                killer.at(0).unwrap();
                let done = vaulted.restore(&office.daemon, &backup, &data, &env).await;
                done.unwrap().ok().unwrap();
            }
            let when = format!("again after step {steps}");
            same(&marked(&data, &when), &whole_one, &when);
            if steps == AMONG {
                serves(&mut office, &data, &when).await;
            }
            fs::remove_dir_all(&data).unwrap();
        }
        assert!(steps < 500, "it does not come to an end");
    }
    same(&marked(&data, "without a kill"), &whole_one, "at last");
    // Fewer would mean that the library did not see the steps.
    assert!(steps > 30, "{steps} steps");
    assert!(
        whole >= 1,
        "the last steps come after the live store has its name"
    );
    println!("killed at {} steps", steps - 1);
}

#[tokio::test]
async fn attack_47_a_restore_onto_a_full_disk_leaves_nothing() {
    let vaulted = Vaulted::new().unwrap();
    let builder = vaulted.of(Daemon::builder(), "");
    let office = Office::start_as(builder, POLICY, NO_REGISTRY).await;
    let mut office = office.unwrap();
    let backup = vaulted.take(&office.admin, "one").await.unwrap();
    office.daemon.kill9();
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let identity = vaulted.identity_file();
    let program = &office.daemon.bins.countersignd;
    let paths: [&Path; 4] = [program, &backup, &identity, &data];
    let [program, backup, identity, shown] = paths.map(|p| p.display().to_string());
    let mut full = 0;
    // No file may grow beyond so many blocks of 512 bytes: each write behind that fails, as on a full disk.
    for blocks in (0..).map(|n| n * 300) {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {program} restore --from {backup} --identity {identity} --data {shown}"
        );
        let dir = vaulted.folder();
        let args = ["-c", script.as_str()];
        let out = stand::run("sh", &args, &[], dir, Duration::from_mins(1));
        let out = out.await.unwrap();
        if out.success() {
            break;
        }
        full += 1;
        assert_eq!(out.status, Some(1), "{blocks} blocks: {out}");
        let left = fs::read_dir(&data).unwrap().count();
        assert_eq!(left, 0, "{blocks} blocks left something: {out}");
        assert!(blocks < 100_000, "{out}");
    }
    assert!(full >= 3, "{full} full disks");
    marked(&data, "when there was room");
}

/// A whole broker is there, and its mark. Gives what lies in its two stores.
fn marked(data: &Path, when: &str) -> [BTreeMap<Vec<u8>, Vec<u8>>; 2] {
    for name in [
        "live.redb",
        "history.redb",
        "vault.json",
        "spool",
        "deposits",
    ] {
        assert!(data.join(name).exists(), "{name} {when}");
    }
    let live = broker::store::redb::Redb::open(data.join("live.redb"), 1 << 20).unwrap();
    let mark = broker::desk::restored::read(&live).unwrap();
    assert!(mark.is_some_and(|m| m.mark.is_some()), "no mark {when}");
    let past = broker::store::redb::Redb::open(data.join("history.redb"), 1 << 20);
    drop((live, past.unwrap()));
    ["live.redb", "history.redb"].map(|name| {
        let mut all = rows::all(&data.join(name)).unwrap();
        // A mark's own id and time, and the entry about it, are those of one restore.
        all.remove(&b"restored\0mark"[..]);
        let last = all.last_entry();
        let last = last.filter(|last| last.key().starts_with(rows::ENTRY));
        last.map(|mut last| last.insert(Vec::new()));
        all
    })
}

/// Every row and every entry of the log, of two restores of one backup.
fn same(one: &[BTreeMap<Vec<u8>, Vec<u8>>], other: &[BTreeMap<Vec<u8>, Vec<u8>>], when: &str) {
    for (one, other) in one.iter().zip(other) {
        let keys = |all: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<_> {
            let shown = all
                .keys()
                .map(|key| String::from_utf8_lossy(key).into_owned());
            shown.collect()
        };
        assert_eq!(keys(one), keys(other), "{when}");
        for (key, value) in one {
            let key_ = String::from_utf8_lossy(key);
            assert_eq!(value, &other[key], "{key_} {when}");
        }
    }
}

/// A broker opens it, its vault too, and knows its people and its token.
async fn serves(office: &mut Office, data: &Path, when: &str) {
    rows::copy_folder(data, &office.daemon.dir().join("data")).unwrap();
    office.daemon.restart().await.unwrap();
    let tokens = office.admin.get("/v1/admin/tokens").await.unwrap();
    let tokens: Value = tokens.ok().unwrap();
    assert_eq!(tokens.as_array().unwrap().len(), 1, "{tokens} {when}");
    let events = office.events().await.unwrap();
    assert!(
        events.iter().any(|e| e["type"] == "token-stored"),
        "{when}: {events:?}"
    );
    office.daemon.kill9();
}

#[tokio::test]
async fn attack_47_a_backup_that_an_admin_takes_is_whole_or_not_there_wherever_it_is_cut() {
    let vaulted = Vaulted::new().unwrap();
    let builder = vaulted.of(Daemon::builder(), "");
    let office = Office::start_as(builder, POLICY, NO_REGISTRY).await;
    let office = office.unwrap();
    office.terminal("carol", true).await.unwrap();
    let folder = vaulted.folder().join("taken");
    fs::create_dir(&folder).unwrap();
    let out = folder.join("countersign.backup");
    let killer = Killer::make(vaulted.folder(), &folder).await.unwrap();
    let home = office.daemon.dir().join("carol").display().to_string();
    let killing = killer.env();
    let mut env = vec![
        ("COUNTERSIGN_HOME", home.as_str()),
        ("COUNTERSIGN_PASSPHRASE", "p"),
        ("COUNTERSIGN_BROKER", office.daemon.url.as_str()),
    ];
    env.extend(killing.iter().map(|(n, v)| (*n, v.as_str())));
    let paths: [&Path; 2] = [&office.daemon.bins.countersign, &out];
    let [program, shown] = paths.map(|p| p.display().to_string());
    let command = format!("exec {program} admin backup --out {shown}");
    // Killed at a durable step; killed when the file has so many blocks of 512 bytes; and a disk that is full then.
    let steps = (1..=3).map(|step| (step, command.clone()));
    let blocks = [2, 6, 10, 14].into_iter();
    let sizes = blocks.flat_map(|n| ["", "trap '' XFSZ; "].map(|trap| (n, trap)));
    let sizes = sizes.map(|(n, trap)| (0, format!("{trap}ulimit -f {n}; {command}")));
    let mut absent = 0;
    for (step, script) in steps.chain(sizes) {
        killer.at(step).unwrap();
        let args = ["-c", script.as_str()];
        let dir = vaulted.folder();
        let cut = stand::run("sh", &args, &env, dir, Duration::from_mins(1));
        let cut = cut.await.unwrap();
        assert!(!cut.success(), "{script}, step {step}: {cut}");
        if out.exists() {
            let drilled = vaulted.drill(&office.daemon, &out).await.unwrap();
            assert!(drilled.success(), "{script}, step {step}: {drilled}");
            fs::remove_file(&out).unwrap();
        } else {
            absent += 1;
        }
    }
    assert!(absent >= 9, "{absent} cuts came before it had its name");
    killer.at(0).unwrap();
    let args = ["-c", command.as_str()];
    let done = stand::run("sh", &args, &env, vaulted.folder(), Duration::from_mins(1));
    done.await.unwrap().ok().unwrap();
    let drilled = vaulted.drill(&office.daemon, &out).await.unwrap();
    assert!(drilled.success(), "{drilled}");
    println!("{absent} of 11 cuts left nothing");
}

/// How many backups the log tells of.
async fn taken(office: &Office) -> usize {
    let events = office.events().await.unwrap();
    events
        .iter()
        .filter(|e| e["type"] == "backup-taken")
        .count()
}

/// The backups in a folder, and whatever else is there.
fn listed(folder: &Path) -> (Vec<PathBuf>, usize) {
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let (whole, other): (Vec<_>, Vec<_>) =
        all.partition(|path| path.extension().is_some_and(|e| e == "backup"));
    (whole, other.len())
}

#[tokio::test]
async fn attack_47_a_backup_of_the_brokers_own_is_whole_or_not_there_wherever_it_is_killed() {
    let vaulted = Vaulted::new().unwrap();
    let folder = vaulted.folder().join("kept");
    fs::create_dir(&folder).unwrap();
    // From the file that it grows in on; its record in the log, below the data folder, is among the steps.
    let killer = Killer::make(vaulted.folder(), &std::env::temp_dir()).await;
    let killer = killer.unwrap().since(&folder.display().to_string());
    let builder = killer.on(Daemon::builder());
    let more = format!("folder = \"{}\"\nkeep = 1\n", folder.display());
    let builder = vaulted.of(builder, &more);
    let mut office = Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap();
    until("a first backup", || listed(&folder).0.len() == 1)
        .await
        .unwrap();
    let (mut steps, mut told) = (0, taken(&office).await);
    loop {
        steps += 1;
        // An old one, so that one is due, and that one has to go.
        for path in fs::read_dir(&folder).unwrap() {
            fs::remove_file(path.unwrap().path()).unwrap();
        }
        let old = folder.join("countersign-000000000007.backup");
        fs::write(&old, "old").unwrap();
        killer.at(steps).unwrap();
        let _ = office.daemon.restart().await;
        let pid = office.daemon.id();
        let dead = || pid.is_none_or(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists());
        let done = || !old.exists() && listed(&folder) == (listed(&folder).0, 0);
        until("a backup or a kill", || dead() || done())
            .await
            .unwrap();
        if done() && !dead() {
            break;
        }
        let (whole, _) = listed(&folder);
        assert!(
            !whole.is_empty(),
            "step {steps}: not even the old one is there"
        );
        for path in whole.iter().filter(|path| **path != old) {
            let drilled = vaulted.drill(&office.daemon, path).await.unwrap();
            assert!(drilled.success(), "step {steps}: {drilled}");
        }
        // The next start removes what was half written, and makes the one that is due.
        killer.at(0).unwrap();
        office.daemon.restart().await.unwrap();
        if whole.iter().all(|path| *path == old) {
            until("the next one", || {
                listed(&folder).0.iter().any(|p| *p != old)
            })
            .await
            .unwrap();
            until("nothing half written", || listed(&folder).1 == 0)
                .await
                .unwrap();
        }
        // What has the name of a backup is in the log, once; where there was none, the next start made another.
        let before = std::mem::replace(&mut told, taken(&office).await);
        let made = whole.iter().any(|path| *path != old);
        let more = if made { 1..=1 } else { 1..=2 };
        assert!(
            more.contains(&(told - before)),
            "step {steps}: {before}, then {told}"
        );
        assert!(steps < 50, "it does not come to an end");
    }
    assert!(
        steps > 7,
        "{steps} steps: make, record, flush, name, flush the folder, remove the old one"
    );
    let (whole, _) = listed(&folder);
    assert_eq!(whole.len(), 1);
    assert_eq!(
        fs::metadata(&whole[0]).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let known: Value = office
        .admin
        .get("/v1/admin/backups")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(known["every"], 86_400, "{known}");
    assert!(known["taken"].is_u64(), "{known}");
    println!("killed at {} steps", steps - 1);
}
