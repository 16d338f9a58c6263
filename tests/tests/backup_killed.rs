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
    until,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const POLICY: &str = stand::kept::POLICY;

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
            marked(&data, &format!("step {steps}"));
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
            marked(&data, &format!("again after step {steps}"));
            fs::remove_dir_all(&data).unwrap();
        }
        assert!(steps < 500, "it does not come to an end");
    }
    marked(&data, "without a kill");
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

/// A whole broker is there, and its mark.
fn marked(data: &Path, when: &str) {
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
    drop(past.unwrap());
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
    let killer = Killer::make(vaulted.folder(), &folder).await.unwrap();
    let mut builder = Daemon::builder();
    for (name, value) in killer.env() {
        builder = builder.env(name, &value);
    }
    let more = format!("folder = \"{}\"\nkeep = 1\n", folder.display());
    let builder = vaulted.of(builder, &more);
    let mut office = Office::start_as(builder, POLICY, NO_REGISTRY)
        .await
        .unwrap();
    until("a first backup", || listed(&folder).0.len() == 1)
        .await
        .unwrap();
    let mut steps = 0;
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
        assert!(steps < 50, "it does not come to an end");
    }
    assert!(
        steps >= 4,
        "{steps} steps: make, flush, name, flush the folder, remove the old one"
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
