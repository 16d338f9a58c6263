//! Databases of released versions are opened by today's daemon; one of a newer version is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::Value;
use stand::{
    backups::Vaulted,
    daemon::Daemon,
    kept,
    people::{NO_REGISTRY, Office},
    run,
};
use std::{fs, path::Path, time::Duration};

const COMMAND: Duration = Duration::from_mins(1);

async fn daemon_says(daemon: &Daemon, args: &[&str]) -> stand::Output {
    let dir = daemon.dir();
    let out = run(&daemon.bins.countersignd, args, &[], dir, COMMAND).await;
    out.unwrap()
}

#[tokio::test]
async fn every_released_versions_database_opens() {
    let all = kept::all().unwrap();
    assert!(!all.is_empty(), "cargo run --bin corpus");
    let mut office = Office::start(kept::POLICY, NO_REGISTRY).await.unwrap();
    for path in all {
        let shown = path.display();
        let (told, admin) = kept::open(&mut office.daemon, &path).await.unwrap();
        let people: Vec<Value> = admin.get("/v1/admin/people").await.unwrap().ok().unwrap();
        let mut names: Vec<_> = people
            .iter()
            .map(|p| p["person"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, told.people, "{shown}");
        let tokens: Vec<Value> = admin.get("/v1/admin/tokens").await.unwrap().ok().unwrap();
        assert_eq!(tokens.len(), told.tokens, "{shown}");
        let status: Value = admin.get("/v1/status").await.unwrap().ok().unwrap();
        assert_eq!(status["log_key"], told.log_key, "{shown}");
        assert_eq!(status["restored"], Value::Null, "{shown}");
        // The log of that version and what today's daemon adds are one log, and today's client verifies it.
        let log = export(&admin, office.daemon.dir()).await;
        assert!(log.1 > told.entries, "{shown}: {} entries", log.1);
        let args = ["verify", &log.0, "--key", &told.log_key];
        let dir = office.daemon.dir();
        let verified = office.daemon.countersign(&args, &[], dir, COMMAND).await;
        verified.unwrap().ok().unwrap();
        // It is written to as well.
        let job = office.open("@acme/new", "1.0.0", b"new").await.unwrap();
        assert_eq!(job.state().await.unwrap(), "pending", "{shown}");
    }
}

/// The whole log in a file, as `countersign admin audit export` writes it; and how many entries it has.
async fn export(admin: &stand::people::Device, dir: &Path) -> (String, usize) {
    let note = admin.get("/v1/log/checkpoint").await.unwrap().body;
    let note = note.as_str().unwrap();
    let size: usize = note.lines().nth(1).unwrap().parse().unwrap();
    let path = format!("/v1/log/export?from=0&limit={size}");
    let page = admin.get(&path).await.unwrap().body;
    let mut text = page.as_str().unwrap().to_owned();
    text.push_str(&serde_json::json!({ "checkpoint": note }).to_string());
    text.push('\n');
    let file = dir.join("log.jsonl");
    fs::write(&file, text).unwrap();
    (file.display().to_string(), size)
}

/// Gives a database a newer schema than there is.
fn from_the_future(path: &Path) {
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let db = redb::Database::open(path).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", 7).unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused_wherever_it_is_met_and_nothing_is_changed() {
    let mut office = Office::start(kept::POLICY, NO_REGISTRY).await.unwrap();
    office.daemon.terminate().await.unwrap();
    let daemon = &office.daemon;
    let config = daemon.config_path().display().to_string();
    let checked = daemon_says(daemon, &["check", "--config", &config]).await;
    checked.ok().unwrap();
    for name in ["live.redb", "history.redb"] {
        let path = daemon.dir().join("data").join(name);
        let honest = fs::read(&path).unwrap();
        from_the_future(&path);
        let before = fs::read(&path).unwrap();
        for command in ["serve", "check"] {
            let said = daemon_says(daemon, &[command, "--config", &config]).await;
            assert_eq!(said.status, Some(5), "{command} {name}: {said}");
            let words = "the database has schema 7, this program knows schemas up to 1";
            assert!(said.stderr.contains(words), "{command} {name}: {said}");
            let untouched = fs::read(&path).unwrap() == before;
            assert!(untouched, "{command} wrote to {name}");
        }
        fs::write(&path, honest).unwrap();
    }
    let checked = daemon_says(daemon, &["check", "--config", &config]).await;
    checked.ok().unwrap();
}

#[tokio::test]
async fn a_backup_of_a_newer_database_is_neither_restored_nor_tried_out() {
    let vaulted = Vaulted::new().unwrap();
    let builder = vaulted.of(Daemon::builder(), "");
    let office = Office::start_as(builder, kept::POLICY, NO_REGISTRY).await;
    let office = office.unwrap();
    let backup = vaulted.take(&office.admin, "today").await.unwrap();
    // The head stands in front, and says which schema both databases have.
    let mut inside = vaulted.inside(&backup).unwrap();
    let schema = b"\"schema\":1";
    let places = inside.windows(schema.len()).enumerate();
    let places: Vec<_> = places
        .filter(|(_, w)| w == schema)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 2);
    inside[places[0] + schema.len() - 1] = b'7';
    let newer = vaulted.forge(&inside, "newer").unwrap();
    let data = vaulted.folder().join("data");
    let restored = vaulted.restore(&office.daemon, &newer, &data, &[]).await;
    let drilled = vaulted.drill(&office.daemon, &newer).await;
    for (command, said) in [("restore", restored.unwrap()), ("drill", drilled.unwrap())] {
        assert_eq!(said.status, Some(5), "{command}: {said}");
        let words = "the backup has schema 7, this program knows schemas up to 1";
        assert!(said.stderr.contains(words), "{command}: {said}");
    }
    let left = fs::read_dir(&data).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a restore that was refused left something");
    // The honest one is restored.
    let restored = vaulted.restore(&office.daemon, &backup, &data, &[]).await;
    restored.unwrap().ok().unwrap();
}
