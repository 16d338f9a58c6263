//! Rows 44, 46 and 50: whoever writes the database takes rows away or puts older ones back, and has one admin.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    people::{Device, NO_REGISTRY, Office, phone_policy},
    rows, until,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn live(office: &Office) -> PathBuf {
    office.daemon.dir().join("data").join("live.redb")
}

/// robin and second are admins, alice approves.
async fn office() -> Office {
    let office = Office::start(&phone_policy(1, "[\"totp\"]"), NO_REGISTRY)
        .await
        .unwrap();
    let hired = office.hire("alice", &["release"], false, &[]).await;
    hired.unwrap();
    office
}

/// The kinds of rows that say who somebody is.
const OF_A_PERSON: [&str; 3] = ["person", "device", "totp"];

fn rows_of(live: &Path, person: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = OF_A_PERSON.iter().flat_map(|table| {
        let rows = rows::of_table(live, table).unwrap();
        rows.into_iter()
    });
    let own = |(key, value): &(Vec<u8>, Vec<u8>)| {
        key.ends_with(person.as_bytes()) || value.ends_with(person.as_bytes())
    };
    all.filter(own).collect()
}

#[tokio::test]
async fn attack_50_who_deletes_the_other_admins_is_not_the_only_one() {
    let mut office = office().await;
    office.hire("second", &[], true, &[]).await.unwrap();
    let live = live(&office);
    office.daemon.kill9();
    let taken = rows_of(&live, "second");
    assert_eq!(taken.len(), 3, "person, device, budget");
    for (key, _) in &taken {
        rows::write(&live, key, None).unwrap();
    }
    office.daemon.restart().await.unwrap();
    let invite = json!({"kind": "invite", "person": "mallory", "admin": true});
    let asked = office.admin.act(invite.clone(), None).await.unwrap();
    assert_eq!(asked.status, 500, "{}", asked.body);
    let people = office.admin.get("/v1/admin/people").await.unwrap();
    assert_eq!(people.status, 500, "{}", people.body);
    assert!(office.daemon.log().contains("ALARM: a row of people"));
    // What makes things stricter works.
    let package = json!({"package": "npm:@acme/left"});
    let frozen = office.admin.post("/v1/admin/freeze", package).await;
    assert!(frozen.unwrap().success());

    // Put back, all is as it was.
    office.daemon.kill9();
    for (key, row) in &taken {
        rows::write(&live, key, Some(row)).unwrap();
    }
    office.daemon.restart().await.unwrap();
    let asked = office.admin.act(invite, None).await.unwrap();
    assert_eq!(asked.body["done"], false, "{}", asked.body);
    assert_eq!(asked.body["act"]["missing"], 1, "{}", asked.body);
}

#[tokio::test]
async fn attack_50_a_person_who_was_removed_or_changed_is_not_put_back() {
    let mut office = office().await;
    let live = live(&office);
    office.daemon.kill9();
    let before = rows_of(&live, "alice");
    office.daemon.restart().await.unwrap();
    let gone = json!({"kind": "remove-person", "person": "alice"});
    let gone = office.admin.act(gone, None).await.unwrap();
    assert_eq!(gone.body["done"], true, "{}", gone.body);
    office.daemon.kill9();
    for (key, row) in &before {
        rows::write(&live, key, Some(row)).unwrap();
    }
    office.daemon.restart().await.unwrap();
    let people = office.admin.get("/v1/admin/people").await.unwrap();
    assert_eq!(people.status, 500, "{}", people.body);
    let asked = office.ask("@acme/left", "1.0.0", b"x").await.unwrap().0;
    assert!(!asked.success(), "{}", asked.body);
}

/// An act that the second admin vetoed, put back by whoever writes the database; its id.
async fn vetoed_and_put_back(office: &mut Office, second: &Device) -> String {
    let live = live(office);
    let act = json!({"kind": "change-person", "person": "alice", "groups": [], "admin": true});
    let asked = office.admin.act(act, None).await.unwrap();
    let id = asked.body["act"]["id"].as_str().unwrap().to_owned();
    office.daemon.kill9();
    let waits = rows::of_table(&live, "act").unwrap();
    assert_eq!(waits.len(), 1);
    office.daemon.restart().await.unwrap();
    assert!(second.veto(&id).await.unwrap().success());
    office.daemon.kill9();
    assert_eq!(rows::of_table(&live, "act").unwrap().len(), 0);
    rows::write(&live, &waits[0].0, Some(&waits[0].1)).unwrap();
    office.daemon.restart().await.unwrap();
    id
}

#[tokio::test]
async fn attack_50_an_act_that_was_vetoed_is_not_put_back() {
    let mut office = office().await;
    let second = office.hire("second", &[], true, &[]).await.unwrap();
    let id = vetoed_and_put_back(&mut office, &second).await;
    let acts: Value = second.get("/v1/acts").await.unwrap().ok().unwrap();
    assert_eq!(acts["acts"], json!([]));
    let confirmed = second.confirm(&id).await.unwrap();
    assert_eq!(confirmed.status, 404, "{}", confirmed.body);
}

#[tokio::test]
async fn attack_50_a_rekey_makes_nothing_genuine_that_was_put_back() {
    let mut office = office().await;
    let second = office.hire("second", &[], true, &[]).await.unwrap();
    let id = vetoed_and_put_back(&mut office, &second).await;
    // A row that says one is under way keeps nobody from re-keying, unless this broker wrote it.
    office.daemon.kill9();
    let live = live(&office);
    let planted = rows::of_table(&live, "act").unwrap().remove(0).1;
    rows::write(&live, b"rekey\0now", Some(&planted)).unwrap();
    office.daemon.restart().await.unwrap();
    let asked = office.admin.act(json!({"kind": "rekey"}), None).await;
    let rekey = asked.unwrap().body["act"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let done = second.confirm(&rekey).await.unwrap();
    assert_eq!(done.body["done"], true, "{}", done.body);
    let start = Instant::now();
    loop {
        let custody = second.get("/v1/admin/unseal-method").await.unwrap().body;
        if custody["data_key"]["step"] == "retired" {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{custody}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let acts: Value = second.get("/v1/acts").await.unwrap().ok().unwrap();
    assert_eq!(acts["acts"], json!([]));
    let confirmed = second.confirm(&id).await.unwrap();
    assert_eq!(confirmed.status, 404, "{}", confirmed.body);
}

#[tokio::test]
async fn attack_50_an_older_policy_that_was_in_force_is_not_put_back() {
    let mut office = office().await;
    let live = live(&office);
    let key = b"policy\0in-force";
    office.daemon.kill9();
    let loose = rows::read(&live, key).unwrap();
    office.daemon.restart().await.unwrap();
    // Stricter: it holds at once.
    let strict = phone_policy(2, "[\"totp\"]");
    office.daemon.change_policy(&strict).await.unwrap();
    office.daemon.kill9();
    assert_ne!(rows::read(&live, key).unwrap(), loose);
    rows::write(&live, key, Some(&loose)).unwrap();
    fs::write(office.daemon.policy_path(), phone_policy(1, "[\"totp\"]")).unwrap();
    office.daemon.restart().await.unwrap();
    let asked = office.ask("@acme/left", "1.0.0", b"x").await.unwrap().0;
    assert_eq!(asked.code(), "policy-denied", "{}", asked.body);
}

fn number(live: &Path) -> u64 {
    let row = rows::read(live, b"inventory\0all").unwrap();
    let row: Value = serde_json::from_slice(&row[40..]).unwrap();
    row["number"].as_u64().unwrap()
}

/// The inventory's number beside the database; 0 while nothing is kept.
fn kept(anchor: &Path) -> u64 {
    let text = fs::read_to_string(anchor).unwrap_or_default();
    let number = text.rsplit_once("inventory ").map(|(_, n)| n.trim());
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn attack_44_the_people_of_yesterday_with_yesterdays_inventory_stop_the_start() {
    let mut office = office().await;
    let live = live(&office);
    let anchor = office.daemon.dir().join("data").join("anchor");
    let invite = office.invite("second", &[], true, &[]).await.unwrap();
    office.daemon.terminate().await.unwrap();
    let number = number(&live);
    let tables = ["person", "device", "totp", "invite", "inventory"];
    let rows = |live: &Path| -> Vec<_> {
        let all = tables.iter().flat_map(|t| rows::of_table(live, t).unwrap());
        all.collect()
    };
    let yesterday = rows(&live);
    office.daemon.restart().await.unwrap();
    let url = office.daemon.url.clone();
    Device::enroll(&url, &invite).await.unwrap();
    until("nothing is kept", || kept(&anchor) > number)
        .await
        .unwrap();
    office.daemon.terminate().await.unwrap();
    let today = rows(&live);
    for (key, _) in &today {
        rows::write(&live, key, None).unwrap();
    }
    for (key, row) in &yesterday {
        rows::write(&live, key, Some(row)).unwrap();
    }
    // Nor does a mark that somebody plants beside them make it a restore that admins agree to.
    let mark = json!({"id": "00", "cause": "rolled-back", "taken": 1, "restored": 1, "entries": 1});
    let mark = [&[0; 8][..], &serde_json::to_vec(&mark).unwrap()].concat();
    rows::write(&live, b"restored\0mark", Some(&mark)).unwrap();
    let why = office.daemon.restart().await.unwrap_err();
    rows::write(&live, b"restored\0mark", None).unwrap();
    let log = office.daemon.log();
    assert!(
        log.contains("are older than the log") && log.contains("countersignd restore"),
        "{why}: {log}"
    );
    for (key, row) in &today {
        rows::write(&live, key, Some(row)).unwrap();
    }
    office.daemon.restart().await.unwrap();
}

#[tokio::test]
async fn attack_46_a_live_store_that_was_put_back_and_has_grown_again_stops_the_start() {
    let mut office = office().await;
    let data = office.daemon.dir().join("data");
    let [old, newer] = ["old", "newer"].map(|name| office.daemon.dir().join(name));
    office.daemon.terminate().await.unwrap();
    rows::copy_folder(&data, &old).unwrap();
    office.daemon.restart().await.unwrap();
    office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    office.admin.get("/v1/log/checkpoint").await.unwrap();
    office.daemon.terminate().await.unwrap();
    rows::copy_folder(&data, &newer).unwrap();

    // Elsewhere the old copy grows past it.
    rows::copy_folder(&old, &data).unwrap();
    fs::remove_file(data.join("anchor")).unwrap();
    office.daemon.restart().await.unwrap();
    for version in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"] {
        office.open("@acme/right", version, b"y").await.unwrap();
    }
    office.daemon.terminate().await.unwrap();
    fs::copy(newer.join("history.redb"), data.join("history.redb")).unwrap();
    let _ = fs::remove_file(data.join("anchor"));
    let why = office.daemon.restart().await.unwrap_err();
    let log = office.daemon.log();
    assert!(log.contains("is not the one in its tree"), "{why}: {log}");
}
