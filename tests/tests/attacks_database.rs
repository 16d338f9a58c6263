//! Row 44 and 50: whoever writes the database, and finds rows that matter although they hold no secret.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    api::{Job, Packed, Small, policy_of_one},
    daemon::Daemon,
    parts::Issuer,
    people::Office,
    rows::{read as row, write as write_row},
    stages::{STAGE_ONLY, Stages},
};
use std::time::{Duration, Instant};

/// Nothing listens there: these requests never get as far as the registry.
const NO_REGISTRY: &str = "http://127.0.0.1:1";

const POLICY: &str = r#"[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "semver-release"
tags = ["latest"]
"#;

/// A release that was handed over.
async fn handed_over(small: &Small, name: &str) -> Job {
    let packed = Packed::new(name, "1.0.0").unwrap();
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    let credential = job.deposit.clone().unwrap();
    let document = packed.document("latest").unwrap();
    let sent = small.endpoint().unwrap();
    let sent = sent.put(name, &credential, document).await.unwrap();
    assert!(sent.good(), "{}", sent.text);
    job
}

/// The registry's page for its second factor, as soon as people are shown it.
async fn page(small: &Small, job: &Job) -> String {
    let start = Instant::now();
    loop {
        let asked: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
        if let Some(page) = asked["confirm"][0]["page"].as_str() {
            return page.to_owned();
        }
        let waited = start.elapsed();
        assert!(waited < Duration::from_mins(1), "no page is shown: {asked}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn edited(row: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(&row[40..]).unwrap();
    change(&mut value);
    [&row[..40], &serde_json::to_vec(&value).unwrap()].concat()
}

#[tokio::test]
async fn attack_44_a_totp_budget_that_was_edited_deleted_or_moved_is_no_budget() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    office.hire("bob", &["release"], false, &[]).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    let wrong = alice.wrong_code().unwrap();
    let charged = alice.approve(&job, Some(&wrong)).await.unwrap();
    assert_eq!(charged.code(), "factor-wrong", "{}", charged.body);
    let live = office.daemon.dir().join("data/live.redb");
    office.daemon.kill9();
    let hers = row(&live, b"totp\0alice").unwrap();
    let his = row(&live, b"totp\0bob").unwrap();

    let budget = edited(&hers, |v| v["wrong"] = json!([]));
    let step = edited(&hers, |v| v["last_step"] = json!(0));
    let plain = [&hers[..8], br#"{"last_step":0,"wrong":[]}"#].concat();
    for (what, value) in [
        ("the wrong tries taken out", Some(&budget)),
        ("the last step set back", Some(&step)),
        ("bob's row", Some(&his)),
        ("a row without a MAC", Some(&plain)),
        ("no row", None),
    ] {
        write_row(&live, b"totp\0alice", value.map(Vec::as_slice)).unwrap();
        office.daemon.restart().await.unwrap();
        let code = alice.code(0).unwrap();
        let reply = alice.approve(&job, Some(&code)).await.unwrap();
        assert_eq!(reply.status, 500, "{what}: {}", reply.body);
        assert_eq!(job.state().await.unwrap(), "pending", "{what}");
        office.daemon.kill9();
    }
    // Put back as it was, the same person's code is good.
    write_row(&live, b"totp\0alice", Some(&hers)).unwrap();
    office.daemon.restart().await.unwrap();
    let code = alice.code(0).unwrap();
    let reply = alice.approve(&job, Some(&code)).await.unwrap();
    assert!(reply.success(), "{}", reply.body);
}

#[tokio::test]
async fn attack_50_a_thaw_that_was_written_into_the_database_is_nobodys() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let second = office.hire("second", &[], true, &[]).await.unwrap();
    let live = office.daemon.dir().join("data/live.redb");
    let package = json!({"package": "npm:@acme/left"});
    // Once with the vault open, and once sealed, when a freeze cannot be authenticated.
    for sealed in [false, true] {
        if sealed {
            let done = office
                .admin
                .post("/v1/admin/seal", json!({}))
                .await
                .unwrap();
            assert!(done.success(), "{}", done.body);
        }
        let frozen = office
            .admin
            .post("/v1/admin/freeze", package.clone())
            .await
            .unwrap();
        assert_eq!(frozen.body["frozen"], true, "{}", frozen.body);
        office.daemon.kill9();
        let honest = row(&live, b"frozen\0npm:@acme/left").unwrap();
        let forged = edited(&honest, |v| v["thawing"] = json!(["second", "robin"]));
        write_row(&live, b"frozen\0npm:@acme/left", Some(&forged)).unwrap();
        office.daemon.restart().await.unwrap();

        let asked = office.ask("@acme/left", "1.0.0", b"x").await.unwrap().0;
        assert_eq!(asked.code(), "frozen", "{}", asked.body);
        for _ in 0..2 {
            let one = office.admin.thaw("npm:@acme/left").await.unwrap();
            assert_eq!(one.body["frozen"], true, "sealed {sealed}: {}", one.body);
        }
        let two = second.thaw("npm:@acme/left").await.unwrap();
        assert_eq!(two.body["frozen"], false, "sealed {sealed}: {}", two.body);
    }
}

#[tokio::test]
async fn attack_44_a_damaged_request_keeps_nobody_from_the_others() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let spoilt = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    let sound = office.open("@acme/right", "1.0.0", b"y").await.unwrap();
    let live = office.daemon.dir().join("data/live.redb");
    office.daemon.kill9();
    let key = [b"request\0", spoilt.opened.id.0.as_bytes().as_slice()].concat();
    let honest = row(&live, &key).unwrap();
    write_row(&live, &key, Some(&honest[..honest.len() / 2])).unwrap();
    office.daemon.restart().await.unwrap();

    let inbox = alice.get("/v1/inbox").await.unwrap();
    let listed = inbox.body["requests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{}", inbox.body);
    assert_eq!(listed[0]["id"], sound.opened.id.to_string());
    let code = alice.code(0).unwrap();
    let reply = alice.approve(&sound, Some(&code)).await.unwrap();
    assert!(reply.success(), "{}", reply.body);
    let reply = spoilt.collect().await.unwrap();
    assert_eq!(reply.status, 500, "{}", reply.body);
}

#[tokio::test]
async fn attack_44_a_damaged_row_keeps_no_other_deposit_or_stage_waiting() {
    let stages = Stages::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = policy_of_one().replacen("quorum = 1", "quorum = 1\nmode = \"deposit\"", 1);
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("npm", "npm", &stages.url, &stages.keys("stage"))
        .policy(&policy);
    let mut small = Small::with(builder, issuer, STAGE_ONLY).await.unwrap();
    // The first is approved and staged: it has a row among the deposits and one among the stages.
    let spoilt = handed_over(&small, "@acme/left").await;
    let _: Value = small.alice.approve(&spoilt).await.unwrap().ok().unwrap();
    page(&small, &spoilt).await;
    let sound = handed_over(&small, "@acme/right").await;
    assert!(spoilt.id < sound.id, "it is looked at first");
    let live = small.daemon.dir().join("data/live.redb");
    let key = [b"request\0", spoilt.id.0.as_bytes().as_slice()].concat();
    small.daemon.kill9();
    let honest = row(&live, &key).unwrap();
    write_row(&live, &key, Some(&honest[..honest.len() / 2])).unwrap();
    small.daemon.restart().await.unwrap();

    let _: Value = small.alice.approve(&sound).await.unwrap().ok().unwrap();
    let shown = page(&small, &sound).await;
    stages.confirm(&shown).await.unwrap();
    small.until(&sound, "published").await.unwrap();
    assert_eq!(stages.integrity("@acme/left", "1.0.0"), None);
    // What was handed over to the damaged one is kept: its row is put right, and it goes on.
    small.daemon.kill9();
    write_row(&live, &key, Some(&honest)).unwrap();
    small.daemon.restart().await.unwrap();
    let shown = page(&small, &spoilt).await;
    stages.confirm(&shown).await.unwrap();
    small.until(&spoilt, "published").await.unwrap();
}

/// Approves, collects and publishes.
async fn published(small: &Small, job: &Job, package: &Packed) {
    small.alice.approve(job).await.unwrap().ok_status().unwrap();
    let credential = job.credential().await.unwrap();
    let document = package.document("latest").unwrap();
    let endpoint = small.endpoint().unwrap();
    let put = endpoint.put(&package.name, &credential, document).await;
    let put = put.unwrap();
    assert_eq!(put.status, 201, "{}", put.text);
}

/// Waits until a request that eve starts is told as unusual: that of this package was learnt from.
async fn learnt(small: &Small, name: &str) -> Job {
    let start = Instant::now();
    let mut version = 0;
    loop {
        version += 1;
        let (new, job) = eve_is_new(small, name, &format!("1.1.{version}")).await;
        if new {
            return job;
        }
        assert!(start.elapsed() < Duration::from_secs(30));
        job.cancel().await.unwrap().ok_status().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Whether a request that eve starts is told as unusual.
async fn eve_is_new(small: &Small, name: &str, version: &str) -> (bool, Job) {
    let next = Packed::new(name, version).unwrap();
    let eve = json!({"actor": "eve", "actor_id": "8"});
    let token = small.token_with(&eve).await.unwrap();
    let items = [next.item("latest").unwrap()];
    let key = format!("key {name} {version}");
    let job = Job::open(&small.daemon, &token, &items, &key)
        .await
        .unwrap();
    let question: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let told = question["warnings"].to_string();
    (told.contains("started by eve"), job)
}

#[tokio::test]
async fn attack_44_a_request_that_was_made_published_teaches_nothing() {
    let mut small = Small::start(&policy_of_one()).await.unwrap();
    let first = Packed::new("@acme/left", "1.0.0").unwrap();
    let job = small.open(&[first.item("latest").unwrap()]).await.unwrap();
    published(&small, &job, &first).await;
    let asked = learnt(&small, &first.name).await;
    // Nobody approved it. Whoever writes the database makes it one that was published long ago.
    small.daemon.kill9();
    let live = small.daemon.dir().join("data/live.redb");
    let id = asked.id.0.as_bytes().as_slice();
    let key = [b"request\0", id].concat();
    let stored = row(&live, &key).unwrap();
    let mut record: Value = serde_json::from_slice(&stored[8..]).unwrap();
    record["state"] = json!({"is": "published", "evidence": [], "sealed": "", "read_back": []});
    let forged = [&stored[..8], &serde_json::to_vec(&record).unwrap()].concat();
    write_row(&live, &key, Some(&forged)).unwrap();
    let finished = [b"finished\0".as_slice(), &1_u64.to_be_bytes(), id].concat();
    write_row(&live, &finished, Some(&[0; 8])).unwrap();
    small.daemon.restart().await.unwrap();
    // It goes to the other finished ones, and nobody has learnt its ways.
    let start = Instant::now();
    loop {
        let moved = small.daemon.log().contains("nothing is learnt from it");
        if moved {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(eve_is_new(&small, &first.name, "1.2.0").await.0);
}

#[tokio::test]
async fn attack_44_a_damaged_source_keeps_no_release_from_being_remembered() {
    let mut small = Small::start(&policy_of_one()).await.unwrap();
    let spoilt = Packed::new("@acme/left", "1.0.0").unwrap();
    let sound = Packed::new("@acme/right", "1.0.0").unwrap();
    let mut jobs = Vec::new();
    for package in [&spoilt, &sound] {
        jobs.push(
            small
                .open(&[package.item("latest").unwrap()])
                .await
                .unwrap(),
        );
    }
    let bearer = format!("Bearer {}", jobs[0].ticket);
    let headers = [("authorization", bearer.as_str())];
    let path = jobs[0].path("/source");
    let source = spoilt.tgz.clone();
    let taken = jobs[0].api.call("PUT", &path, &headers, source).await;
    taken.unwrap().ok_status().unwrap();
    small.daemon.kill9();
    let live = small.daemon.dir().join("data/live.redb");
    let key = [b"source\0", jobs[0].id.0.as_bytes().as_slice()].concat();
    let honest = row(&live, &key).unwrap();
    write_row(&live, &key, Some(&honest[..honest.len() / 2])).unwrap();
    small.daemon.restart().await.unwrap();

    // The damaged one ends first, so it is moved and remembered first.
    for (job, package) in jobs.iter().zip([&spoilt, &sound]) {
        published(&small, job, package).await;
    }
    for name in ["@acme/right", "@acme/left"] {
        learnt(&small, name).await;
    }
}
