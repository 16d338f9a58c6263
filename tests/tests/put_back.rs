//! Rows 50 and 11: announcements and client keys that were taken back, and whoever writes the database puts them back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{
    device::DeviceKey, digest::hex, ids::IntentId, intent::IntentState, problem::Code,
    request::Item,
};
use serde_json::{Value, json};
use stand::{
    api::{self, Packed, Small, policy_of_one},
    daemon::Daemon,
    free_port,
    intents::{LIFE, with_files},
    parts::{Clock, Issuer},
    rows,
};
use tempfile::TempDir;

/// Where one approval is enough, which an announcement is.
async fn small() -> Small {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let policy = policy_of_one();
    let small = Small::over(&url, "canary-registry-token", &policy).await;
    small.unwrap()
}

fn item(version: &str) -> Item {
    let packed = Packed::new("@acme/left", version).unwrap();
    packed.item("latest").unwrap()
}

/// The rows of these tables, of a broker that is killed for it.
async fn rows_now(small: &mut Small, tables: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let live = small.daemon.dir().join("data").join("live.redb");
    small.daemon.kill9();
    let rows = tables
        .iter()
        .flat_map(|t| rows::of_table(&live, t).unwrap());
    let rows = rows.collect();
    small.daemon.restart().await.unwrap();
    rows
}

async fn put_back(small: &mut Small, rows: Vec<(Vec<u8>, Vec<u8>)>) {
    let live = small.daemon.dir().join("data").join("live.redb");
    small.daemon.kill9();
    rows::write_all(&live, rows).unwrap();
    small.daemon.restart().await.unwrap();
}

/// How a request for this version stands that a job opens now.
async fn asked_for(small: &Small, version: &str) -> String {
    let job = small.open(&[item(version)]).await.unwrap();
    job.state().await.unwrap()
}

/// How the list shows what was announced first.
async fn shown(small: &Small) -> IntentState {
    let all = small.alice.intents().await.unwrap();
    all.last().unwrap().state
}

const ANNOUNCED: [&str; 2] = ["intent", "intent-of-package"];

#[tokio::test]
async fn attack_50_an_announcement_that_was_withdrawn_or_deleted_counts_for_nothing() {
    let mut small = small().await;
    let mut ids = Vec::new();
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let made = small.alice.intend(vec![with_files(&item(version))], None);
        ids.push(made.await.unwrap().id);
    }
    let before = rows_now(&mut small, &ANNOUNCED).await;
    assert_eq!(before.len(), 6);
    assert!(small.alice.withdraw(ids[0]).await.unwrap().good());
    put_back(&mut small, before).await;
    assert_eq!(asked_for(&small, "1.0.0").await, "pending");
    assert!(small.daemon.log().contains("ALARM: a row of"));
    assert_eq!(shown(&small).await, IntentState::Withdrawn);
    // Those that nobody took back count.
    assert_eq!(asked_for(&small, "2.0.0").await, "approved");

    // One that is gone is an alarm as well, and is no announcement.
    let live = small.daemon.dir().join("data").join("live.redb");
    small.daemon.kill9();
    let key = [b"intent\0", &ids[2].0.as_bytes()[..]].concat();
    rows::read(&live, &key).unwrap();
    rows::write(&live, &key, None).unwrap();
    let alarms = small.daemon.log().matches("ALARM: a row of").count();
    small.daemon.restart().await.unwrap();
    assert_eq!(asked_for(&small, "3.0.0").await, "pending");
    assert!(small.daemon.log().matches("ALARM: a row of").count() > alarms);
}

#[tokio::test]
async fn attack_50_what_was_announced_before_everything_was_stopped_is_not_put_back() {
    let mut small = small().await;
    let dora = small.dora().await.unwrap();
    let wish = vec![with_files(&item("1.0.0"))];
    small.alice.intend(wish, None).await.unwrap();
    let before = rows_now(&mut small, &ANNOUNCED).await;
    let stop = json!({"reason": "a laptop was stolen"});
    let stopped = small.robin.call("POST", "/v1/admin/panic", &stop).await;
    assert_eq!(stopped.unwrap().json()["intents"], 1);
    for admin in [&small.robin, &dora] {
        assert!(admin.freezer("thaw", "*").await.unwrap().good());
    }
    put_back(&mut small, before).await;
    assert_eq!(asked_for(&small, "1.0.0").await, "pending");
    assert_eq!(shown(&small).await, IntentState::Withdrawn);
}

#[tokio::test]
async fn attack_50_a_client_key_that_was_removed_is_not_put_back() {
    let mut small = small().await;
    let key = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    let packages = ["npm:@acme/left"];
    let added = small.robin.add_client_key("old-ci", &key, &packages).await;
    assert!(added.unwrap().good());
    let before = rows_now(&mut small, &["client-key"]).await;
    assert_eq!(before.len(), 1);
    let token = |small: &Small| {
        api::client_key_token(&key, "old-ci", &small.daemon.url, &json!({})).unwrap()
    };
    let opened = small.open_raw(&token(&small), &[item("1.0.0")]).await;
    assert!(opened.unwrap().good());
    let removed = small.robin.remove_client_key("old-ci").await;
    assert!(removed.unwrap().good());
    put_back(&mut small, before).await;
    let opened = small.open_raw(&token(&small), &[item("2.0.0")]).await;
    let opened = opened.unwrap();
    assert_eq!(
        opened.code(),
        Some(Code::Unauthenticated),
        "{}",
        opened.text
    );
    assert!(small.daemon.log().contains("ALARM: a row of"));
    let path = "/v1/admin/client-keys";
    let listed = small.robin.call("GET", path, &Value::Null).await.unwrap();
    assert_eq!(listed.json(), json!([]), "{}", listed.text);
    // What stands there is taken away and a new one registered, as ever.
    let removed = small.robin.remove_client_key("old-ci").await;
    assert!(removed.unwrap().good());
    let added = small.robin.add_client_key("old-ci", &key, &packages).await;
    assert!(added.unwrap().good());
    let opened = small.open_raw(&token(&small), &[item("2.0.0")]).await;
    assert!(opened.unwrap().good());
}

/// Takes rows away, or puts others in their place, while the broker does not run.
async fn hidden(small: &mut Small, rows: &[(Vec<u8>, Vec<u8>)], by: Option<&[u8]>) {
    let live = small.daemon.dir().join("data").join("live.redb");
    small.daemon.kill9();
    for (key, _) in rows {
        rows::write(&live, key, by).unwrap();
    }
    small.daemon.restart().await.unwrap();
}

#[tokio::test]
async fn attack_50_what_is_hidden_while_it_is_taken_back_counts_for_nothing_when_it_is_shown_again()
{
    let mut small = small().await;
    let dora = small.dora().await.unwrap();
    let key = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    let packages = ["npm:@acme/left"];
    let added = small.robin.add_client_key("old-ci", &key, &packages).await;
    assert!(added.unwrap().good());
    let mut ids = Vec::new();
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let wish = vec![with_files(&item(version))];
        ids.push(small.alice.intend(wish, None).await.unwrap().id);
    }
    let keys = rows_now(&mut small, &["client-key"]).await;
    let intents = rows_now(&mut small, &["intent"]).await;
    // Alice takes the first one back, which is gone at that moment.
    hidden(&mut small, &intents[..1], None).await;
    let all = small.alice.intents().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(small.alice.withdraw(ids[0]).await.unwrap().status, 404);
    // An admin removes the key and stops everything; then all is put back, and thawed.
    hidden(&mut small, &keys, None).await;
    hidden(&mut small, &intents[1..2], None).await;
    hidden(&mut small, &intents[2..], Some(&intents[1].1)).await;
    // However many rows stand beside them.
    let like = &intents[0].1;
    let planted = (0..1_500_u16).map(|n| {
        let key = [b"intent\0\0", &n.to_be_bytes()[..]].concat();
        (key, like.clone())
    });
    put_back(&mut small, planted.collect()).await;
    let removed = small.robin.remove_client_key("old-ci").await.unwrap();
    assert!(removed.good(), "{}", removed.text);
    let stop = json!({"reason": "a laptop was stolen"});
    let stopped = small.robin.call("POST", "/v1/admin/panic", &stop).await;
    assert_eq!(stopped.unwrap().json()["intents"], 2);
    put_back(&mut small, [keys, intents].concat()).await;
    for admin in [&small.robin, &dora] {
        assert!(admin.freezer("thaw", "*").await.unwrap().good());
    }
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        assert_eq!(asked_for(&small, version).await, "pending", "{version}");
    }
    let token = api::client_key_token(&key, "old-ci", &small.daemon.url, &json!({})).unwrap();
    let opened = small.open_raw(&token, &[item("4.0.0")]).await.unwrap();
    assert_eq!(
        opened.code(),
        Some(Code::Unauthenticated),
        "{}",
        opened.text
    );
}

/// The announcements that the inventory lists.
async fn listed(small: &mut Small) -> usize {
    let rows = rows_now(small, &["inventory"]).await;
    let json: Value = serde_json::from_slice(&rows[0].1[40..]).unwrap();
    let names = json["rows"].as_object().unwrap().keys();
    names.filter(|name| name.starts_with("intent/")).count()
}

/// Announces with a life that is longer by so many seconds.
async fn announced(small: &Small, version: &str, longer: u64) -> IntentId {
    let items = vec![with_files(&item(version))];
    let mut asked = small.alice.intending(items, None, None).unwrap();
    asked.statement.expires = asked.statement.expires.after(longer);
    let signed = small.alice.key.sign(&asked.statement.canonical());
    asked.signature = hex(&signed);
    let made: Value = small.alice.announce(&asked).await.unwrap().ok().unwrap();
    made["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_was_announced_is_listed_while_it_may_count_and_shown_afterwards() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &url)
        .registry("secrets", "generic", "")
        .policy(&api::POLICY.replacen("quorum = 2", "quorum = 2\nanswers = \"2h\"", 1));
    let small = Small::with(clock.env(builder), issuer, "canary-registry-token").await;
    let mut small = small.unwrap();
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        announced(&small, version, 0).await;
    }
    let taken_back = announced(&small, "4.0.0", 0).await;
    assert!(small.alice.withdraw(taken_back).await.unwrap().good());
    assert_eq!(listed(&mut small).await, 3);
    // One that an open request fits is listed as long as that is open: bob is still asked.
    let waits = small.open(&[item("3.0.0")]).await.unwrap();
    // Past the announcements' time, and not past the request's.
    clock.pass(&mut small.daemon, 2500).await.unwrap();
    announced(&small, "5.0.0", 2 * LIFE).await;
    assert_eq!(listed(&mut small).await, 2);
    let all = small.alice.intents().await.unwrap();
    let states: Vec<_> = all.iter().map(|line| line.state).collect();
    let over = IntentState::Expired;
    assert_eq!(
        states,
        [IntentState::Live, IntentState::Withdrawn, over, over, over]
    );
    assert!(small.bob.approve(&waits).await.unwrap().good());
    assert_eq!(waits.state().await.unwrap(), "approved");
    // To take back what is over changes nothing.
    let again = small.alice.withdraw(all[4].id).await.unwrap();
    assert!(again.good(), "{}", again.text);
    assert_eq!(small.alice.intents().await.unwrap()[4].state, over);
}
