//! Row 44, and 15 and 36 with it: whoever writes the store's files edits requests, and publishes nothing by it. And
//! row 28 for credentials, over the same desk.

use crate::{NO_REGISTRY, POLICY, SetClock, approved_case, case_of, desk, row, write_row, yes};
use broker::{
    desk::Registry,
    policy::Policy,
    publish::{
        Refusal, answer, forward,
        ledger::{self, REQUESTS},
        release,
    },
    registry::{Address, Kind as Protocol, Timeouts},
    store::Batch,
};
use proto::{
    answer::{Decision, Evidence, Factor},
    api::StateName,
    bearer::{Bearer, BearerHash, Kind},
    device::DeviceKey,
    digest::{Algorithm, Digest, unhex},
};
use serde_json::{Value, json};
use stand::people::{Job, Office, random};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Edits a stored request while the broker is down.
async fn edited(office: &mut Office, job: &Job, edit: impl FnOnce(&mut Value)) {
    office.daemon.kill9();
    let live = office.daemon.dir().join("data/live.redb");
    write(&live, job, edit);
    office.daemon.restart().await.unwrap();
}

fn write(live: &Path, job: &Job, edit: impl FnOnce(&mut Value)) {
    let key = [b"request\0".as_slice(), job.opened.id.0.as_bytes()].concat();
    let stored = row(live, &key).unwrap();
    let (version, text) = stored.split_at(8);
    let mut record: Value = serde_json::from_slice(text).unwrap();
    let before = record.clone();
    edit(&mut record);
    assert_ne!(before, record, "the edit changes something");
    let text = serde_json::to_vec(&record).unwrap();
    write_row(live, &key, Some(&[version, &text].concat())).unwrap();
}

#[tokio::test]
async fn attack_15_an_approval_is_not_carried_over_to_other_bytes_in_the_store() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    assert!(alice.approve(&job, None).await.unwrap().success());
    let file = "/facts/items/0/files/0/size";
    edited(&mut office, &job, |r| {
        *r.pointer_mut(file).unwrap() = json!(2);
    })
    .await;
    let collected = job.collect().await.unwrap();
    assert!(!collected.success(), "{}", collected.body);
    // Put back, it comes out: it was the edit that was refused.
    edited(&mut office, &job, |r| {
        *r.pointer_mut(file).unwrap() = json!(1);
    })
    .await;
    assert!(job.collect().await.unwrap().success());
}

#[tokio::test]
async fn attack_44_who_writes_the_database_does_not_drop_the_requesters_exclusion() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    // Robert started the job: actor 7 in its token.
    let robert = office.hire("robert", &["release"], false, &["github:7"]);
    let robert = robert.await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    edited(&mut office, &job, |r| r["actor"] = Value::Null).await;
    let reply = robert.approve(&job, None).await.unwrap();
    assert!(!reply.success(), "{}", reply.body);
    assert_eq!(job.state().await.unwrap(), "pending");
    edited(&mut office, &job, |r| r["actor"] = json!("github:7")).await;
    assert!(alice.approve(&job, None).await.unwrap().success());
}

#[tokio::test]
async fn attack_44_who_writes_the_database_adds_no_second_factor_to_a_stolen_device() {
    let policy = POLICY.replace("[\"device\"]", "[\"totp\"]");
    let mut office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    let digest = job.opened.request_digest;
    let answer = alice
        .answer(Decision::Approve, digest, &job.opened.match_code, None)
        .unwrap();
    let evidence = |totp_mac: Option<String>| Evidence {
        person: "alice".parse().unwrap(),
        factor: Factor::Totp,
        statement: answer.statement.clone(),
        public_key: alice.key.public(),
        signature: answer.signature.clone(),
        totp_mac,
        assertion: None,
    };
    let until = stand::now().unwrap() + 600;
    for mac in [None, Some(format!("1.{}", "00".repeat(32)))] {
        let forged = json!({"is": "approved", "evidence": [evidence(mac)], "collect_by": until});
        edited(&mut office, &job, |r| r["state"] = forged).await;
        assert_eq!(job.state().await.unwrap(), "approved");
        let collected = job.collect().await.unwrap();
        assert_eq!(collected.code(), "not-approved", "{}", collected.body);
    }
}

#[tokio::test]
async fn attack_36_a_secret_goes_out_once_even_if_its_request_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetClock(AtomicU64::new(stand::now().unwrap())));
    let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
    let now = desk.world.now();
    let (opened, ticket) = approved_case(&desk, &ci, &key).await.unwrap();
    let id = opened.id.0.as_bytes().as_slice();
    let approved = desk.live.get(REQUESTS, id).unwrap().unwrap();
    release::collect(&desk, opened.id, &ticket, now)
        .await
        .unwrap();
    // The row of before, as a backup would bring it back.
    let held = desk.live.get(REQUESTS, id).unwrap().unwrap();
    let back = Batch::new().replace(REQUESTS, id, held.version, approved.value);
    desk.commit(back, &[], now).await.unwrap();
    let record = ledger::find(&desk, opened.id).unwrap().unwrap();
    assert_eq!(record.name().text(), "approved");
    clock.0.fetch_add(5, Ordering::SeqCst);
    let again = release::collect(&desk, opened.id, &ticket, desk.world.now()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn attack_28_a_credential_ends_to_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let start = stand::now().unwrap();
    let clock = Arc::new(SetClock(AtomicU64::new(start)));
    let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let mut desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
    let connect = Protocol::Npm.row().connect.unwrap();
    let address = Address::at(NO_REGISTRY.parse().unwrap());
    let npm = Registry::Forward {
        kind: Protocol::Npm,
        upstream: connect(address, Timeouts::default()).unwrap(),
        endpoint: NO_REGISTRY.parse().unwrap(),
        approve_token: None,
    };
    desk.registries.insert("npm".parse().unwrap(), npm);
    let policy = r#"[[package]]
match = ["npm:left"]
callers = [{ issuer = "client-key", client_key = "old-ci" }]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "semver"
tags = ["latest"]
"#;
    let policy = Policy::parse(policy, "policy.toml").unwrap();
    desk.policy.store(Arc::new(policy));
    let file = json!({"name": "l.tgz", "size": 1, "digest": Digest::of(Algorithm::Sha512, b"x")});
    let item = json!({"registry": "npm", "package": "left", "version": "1.0.0", "tag": "latest",
        "files": [file]});
    let (opened, alice) = case_of(&desk, &ci, &key, &item).await.unwrap();
    let now = desk.world.now();
    let given = yes(&key, &opened, now).unwrap();
    answer::answer(&desk, opened.id, &alice, &given, now)
        .await
        .unwrap();
    let ticket = Bearer::parse(Kind::Ticket, &opened.ticket).unwrap();
    release::collect(&desk, opened.id, &ticket, now)
        .await
        .unwrap();
    let record = ledger::find(&desk, opened.id).unwrap().unwrap();
    let hash = unhex(&record.credential.unwrap()).unwrap();
    let hash = BearerHash(hash.try_into().unwrap());
    for (wait, good) in [(0, true), (899, true), (900, false), (86_400, false)] {
        clock.0.store(start + wait, Ordering::SeqCst);
        let (registry, package) = ("npm".parse().unwrap(), "left".parse().unwrap());
        let admitted = forward::admit(&desk, &registry, hash, Some(&package));
        let expired = matches!(admitted, Err(Refusal::State(StateName::Expired, _)));
        assert_eq!((admitted.is_ok(), expired), (good, !good), "after {wait} s");
    }
}
