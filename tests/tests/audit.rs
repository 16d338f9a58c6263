//! Searching and exporting the log: what is found is all there is, in pieces and on resumption.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use broker::store::{Batch, Store as _, redb::Redb};
use serde_json::{Value, json};
use stand::{
    Output, now,
    people::{NO_REGISTRY, Office, phone_policy},
};
use std::{collections::BTreeSet, fs};

async fn run(office: &Office, person: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    office.run(person, args, env).await.unwrap()
}

/// What `find` gives, and where it would go on.
async fn find(office: &Office, args: &[&str]) -> (Vec<Value>, Option<u64>) {
    let all = [&["--json", "admin", "audit", "find"], args].concat();
    let out = run(office, "carol", &all, &[]).await;
    assert!(out.success(), "{args:?}: {out}");
    let value: Value = serde_json::from_str(&out.stdout).unwrap();
    let entries = value["entries"].as_array().unwrap().clone();
    (entries, value["next"].as_u64())
}

fn kinds(entries: &[Value]) -> BTreeSet<&str> {
    let kinds = entries.iter().map(|e| e["event"]["type"].as_str().unwrap());
    kinds.collect()
}

#[tokio::test]
async fn entries_are_found_by_package_person_type_and_time_and_all_of_them() {
    let policy = phone_policy(1, r#"["device"]"#);
    let mut office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    office.terminal("dora", false).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    // Last: what one admin does not do alone, two do.
    office.terminal("carol", true).await.unwrap();
    let left = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let right = office.open("@acme/right", "1.0.0", b"b").await.unwrap();
    assert!(alice.deny(&left, false).await.unwrap().success());
    assert!(bob.deny(&right, true).await.unwrap().success());

    let (found, next) = find(&office, &["--package", "npm:@acme/left"]).await;
    assert_eq!(next, None);
    let said = kinds(&found);
    for kind in ["request-opened", "answer-accepted", "request-denied"] {
        assert!(said.contains(kind), "{kind}: {said:?}");
    }
    assert!(!said.contains("frozen"));
    let text = json!(found).to_string();
    assert!(!text.contains("acme/right") && !text.contains(&right.opened.id.to_string()));
    let (found, _) = find(&office, &["--package", "npm:@acme/right"]).await;
    assert!(kinds(&found).contains("frozen"), "{found:?}");

    let (found, _) = find(&office, &["--person", "bob"]).await;
    let text = json!(found).to_string();
    assert!(
        text.contains("person-enrolled") && text.contains("frozen"),
        "{text}"
    );
    assert!(!text.contains("alice"));
    let (found, _) = find(&office, &["--event", "frozen", "--person", "alice"]).await;
    assert_eq!(found, Vec::<Value>::new());
    let (found, _) = find(&office, &["--event", "request-denied", "--since", "1h"]).await;
    assert_eq!(found.len(), 2);
    let (found, _) = find(&office, &["--until", "2001-01-01"]).await;
    assert_eq!(found, Vec::<Value>::new());

    // In pieces it is the same as in one.
    let (all, _) = find(&office, &["--since", "2001-01-01"]).await;
    let (mut pieces, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (more, next) = find(&office, &["--limit", "3", "--from", &at.to_string()]).await;
        assert!(more.len() <= 3);
        pieces.extend(more);
        from = next;
    }
    assert_eq!(pieces, all);
    assert!(kinds(&all).contains("broker-started"));

    // Whoever is no admin does not search.
    let out = run(&office, "dora", &["admin", "audit", "find"], &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
    for bad in ["Al%20ice", "x%2Fy"] {
        let path = format!("/v1/log/find?person={bad}");
        let reply = office.admin.get(&path).await.unwrap();
        assert_eq!(reply.code(), "bad-request", "{}", reply.body);
    }

    // A long log is read in bounded pieces.
    many(&mut office, 9_000).await;
    let (found, next) = find(&office, &["--event", "clock-agrees", "--limit", "100000"]).await;
    assert!(found.len() >= 9_000 && next.is_none(), "{}", found.len());
    // One call does not read it all.
    let path = "/v1/log/find?event=no-such-event";
    let first: Value = office.admin.get(path).await.unwrap().ok().unwrap();
    assert!(first["next"].as_u64().unwrap() < 5_000, "{first}");
}

/// Adds entries.
async fn many(office: &mut Office, count: u64) {
    office.daemon.kill9();
    let live = Redb::open(office.daemon.dir().join("data/live.redb"), 1 << 20).unwrap();
    let leaf = format!(
        r#"{{"v":1,"time":{},"event":{{"type":"clock-agrees"}}}}"#,
        now().unwrap()
    );
    for _ in 0..count / 500 {
        let batch = (0..500).fold(Batch::new(), |batch, _| batch.append(leaf.as_str()));
        live.commit(batch).await.unwrap();
    }
    drop(live);
    office.daemon.restart().await.unwrap();
}

#[tokio::test]
async fn an_export_goes_on_where_the_last_one_ended_in_both_formats() {
    let policy = phone_policy(1, r#"["device"]"#);
    let office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    office.terminal("carol", true).await.unwrap();
    let folder = office.daemon.dir().to_owned();
    let export = async |name: &str, more: &[&str]| {
        let path = folder.join(name).display().to_string();
        let args = ["--json", "admin", "audit", "export", "--out", &path];
        let args = [&args, more].concat();
        let out = run(&office, "carol", &args, &[]).await;
        assert!(out.success(), "{out}");
        let value: Value = serde_json::from_str(&out.stdout).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        (lines, value["next"].as_u64().unwrap())
    };
    let ocsf = ["--format", "ocsf"];
    let (first, next) = export("one", &ocsf).await;
    assert_eq!(first.len() as u64, next);
    let (none, same) = export("none", &["--format", "ocsf", "--from", &next.to_string()]).await;
    assert_eq!((none.len(), same), (0, next));
    let frozen = json!({"package": "npm:@acme/left"});
    let done = office.admin.post("/v1/admin/freeze", frozen).await.unwrap();
    assert!(done.success());
    let (second, end) = export("two", &["--format", "ocsf", "--from", &next.to_string()]).await;
    assert_eq!(second.len() as u64, end - next);
    let freeze = second
        .iter()
        .find(|e| e["metadata"]["event_code"] == "frozen")
        .unwrap();
    assert_eq!(freeze["class_uid"], 3004);
    assert_eq!(freeze["entity"]["name"], "npm:@acme/left");
    assert_eq!(freeze["actor"]["user"]["name"], "robin");
    // Together they are the whole, each entry once and in order.
    let (whole, _) = export("whole", &["--format", "jsonl"]).await;
    let both: Vec<_> = first.iter().chain(&second).collect();
    for (at, event) in both.iter().enumerate() {
        assert_eq!(event["metadata"]["sequence"], at);
        assert_eq!(event["raw_data"], whole[at]["leaf"]);
        let sum =
            event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap();
        assert_eq!(event["type_uid"], sum);
    }
    // A log that ends before the place where the last export ended was cut.
    let path = folder.join("cut").display().to_string();
    let args = [
        "admin", "audit", "export", "--out", &path, "--from", "100000",
    ];
    let out = run(&office, "carol", &args, &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
}
