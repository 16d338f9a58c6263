//! Who is told what beside the first ring: that something can still be denied, that a channel is gone, that somebody
//! enrols anew.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::{Inbox, Question},
    ids::RequestId,
    problem::Code,
};
use redb::ReadableDatabase as _;
use serde_json::{Value, json};
use stand::{
    api::{Device, POLICY, Packed, Small, policy_of_one},
    bells::{Got, Hook, events, veto_told},
    daemon::{Builder, Daemon},
    intents::{version_only, with_files},
    parts::{Clock, Issuer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Nobody listens there: opening asks the registry, and goes on without it.
const NO_REGISTRY: &str = "http://127.0.0.1:9";
/// The commit that the release job's token claims.
const COMMIT: &str = "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e";
const ROWS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("rows");

/// One approval, with these keys.
fn policy(keys: &str) -> String {
    policy_of_one().replacen("quorum = 1", &format!("quorum = 1\n{keys}"), 1)
}

async fn small_by(builder: Builder, policy: &str, hook: &Hook) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let builder = builder
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", NO_REGISTRY)
        .registry("secrets", "generic", "")
        .policy(policy)
        .extra(&format!("[push]\norigins = [\"{}\"]\n", hook.origin));
    Small::with(builder, issuer, "canary-token").await.unwrap()
}

async fn small(policy: &str, hook: &Hook) -> Small {
    small_by(Daemon::builder(), policy, hook).await
}

async fn add(device: &Device, given: Value) -> String {
    let reply = device.call("POST", "/v1/notify/channels", &given).await;
    let added: Value = reply.unwrap().ok().unwrap();
    added["id"].as_str().unwrap().to_owned()
}

async fn webhook(device: &Device, hook: &Hook, path: &str) -> String {
    add(
        device,
        json!({"kind": "webhook", "url": hook.at(path), "name": path}),
    )
    .await
}

fn wish(name: &str, version: &str) -> proto::request::Item {
    Packed::new(name, version).unwrap().item("latest").unwrap()
}

fn about(got: &Got) -> String {
    got.json()["about"].as_str().unwrap_or_default().to_owned()
}

/// Waits until somebody is told this of a request. (What was delivered when the broker was killed may come again.)
async fn next(hook: &Hook, what: &str, id: RequestId) {
    let is = |got: &Got| about(got) == what && got.json()["id"] == id.to_string();
    let mut count = hook.so_far().len();
    while !hook.so_far().iter().any(is) {
        count = hook.got(count + 1).await.unwrap().len();
    }
}

/// Whom the log has as rung, in the order of the rings.
async fn rung(small: &Small) -> Vec<BTreeSet<String>> {
    let people = |e: Value| {
        let people = e["people"].as_array().unwrap().clone();
        people
            .iter()
            .map(|p| p.as_str().unwrap().to_owned())
            .collect()
    };
    let all = events(&small.robin, "rung").await.unwrap();
    all.into_iter().map(people).collect()
}

/// The broker stops at once after the approval, or is sealed by one admin: the veto runs out, and nobody was told.
#[tokio::test]
async fn attack_27_a_veto_that_nobody_was_told_of_is_not_over() {
    for sealed in [false, true] {
        let dir = TempDir::new().unwrap();
        let clock = Clock::make(dir.path()).await.unwrap();
        let hook = Hook::start().await.unwrap();
        let keys = "veto = \"1m\"\nhours = \"always\"\nunsolicited = \"queue\"";
        let builder = clock.env(Daemon::builder());
        let mut small = small_by(builder, &policy(keys), &hook).await;
        webhook(&small.bob, &hook, "bob").await;
        // Its server takes the call and says nothing: the letter is on its way, and not told.
        hook.hold(true);
        let job = small.open(&[wish("@acme/left", "1.0.0")]).await.unwrap();
        assert!(small.alice.approve(&job).await.unwrap().good());
        if sealed {
            let seal = small.robin.call("POST", "/v1/admin/seal", &Value::Null);
            assert!(seal.await.unwrap().good());
            assert_eq!(
                job.state().await.unwrap(),
                "approved",
                "it is said while sealed"
            );
        }
        clock.pass(&mut small.daemon, 70).await.unwrap();
        // Nothing is let out: people are told first, and have a third of the time to deny it.
        let said = job.collect_raw().await.unwrap();
        assert_eq!(said.code(), Some(Code::NotYet), "{}", said.text);
        assert!(job.status().await.unwrap().json()["not_before"].is_u64());
        hook.hold(false);
        next(&hook, "veto", job.id).await;
        veto_told(&small.robin, &job.id).await.unwrap();
        let said = job.collect_raw().await.unwrap();
        assert_eq!(said.code(), Some(Code::NotYet), "{}", said.text);
        // Who was told could not answer while the broker was away: the third begins anew.
        clock.pass(&mut small.daemon, 70 + 60).await.unwrap();
        let said = job.collect_raw().await.unwrap();
        assert_eq!(said.code(), Some(Code::NotYet), "{}", said.text);
        let start = Instant::now();
        while !job.collect_raw().await.unwrap().good() {
            assert!(start.elapsed() < Duration::from_mins(1));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(job.status().await.unwrap().json()["not_before"].is_null());
    }
}

#[tokio::test]
async fn whoever_may_still_deny_is_told_of_what_an_intent_or_a_silent_answer_approved() {
    let hook = Hook::start().await.unwrap();
    let keys = "veto = \"10m\"\nhours = \"always\"\nunsolicited = \"queue\"";
    let small = small(&policy(keys), &hook).await;
    for (device, path) in [
        (&small.alice, "alice"),
        (&small.bob, "bob"),
        (&small.robin, "robin"),
    ] {
        webhook(device, &hook, path).await;
    }
    let announced = wish("@acme/left", "1.0.0");
    small
        .alice
        .intend(vec![with_files(&announced)], None)
        .await
        .unwrap();
    // Nobody was asked: the intent was enough. Who made it is told too, for the release may be a thief's.
    let job = small.open(&[announced]).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    for got in hook.got(3).await.unwrap() {
        let told = json!({"about": "veto", "id": job.id.to_string()});
        assert_eq!(got.json()["about"], told["about"]);
        assert_eq!(got.json()["id"], told["id"]);
    }
    let all = ["alice", "bob", "robin"].map(str::to_owned);
    assert_eq!(rung(&small).await, [BTreeSet::from(all)]);
    let inbox: Inbox = small.bob.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox.requests[0].id, job.id);
    assert!(inbox.requests[0].not_before.is_some());
    assert!(small.bob.deny(&job).await.unwrap().good());
    assert_eq!(job.state().await.unwrap(), "denied");
    // Everybody but him hears of that.
    let alarms = hook.got(5).await.unwrap();
    assert!(alarms[3..].iter().all(|got| about(got) == "alarm"));

    // This one waited silently, and one person found it.
    let job = small.open(&[wish("@acme/right", "1.0.0")]).await.unwrap();
    assert!(small.alice.approve(&job).await.unwrap().good());
    let got = hook.got(7).await.unwrap();
    assert!(got[5..].iter().all(|got| about(got) == "veto"));
    let others = ["bob", "robin"].map(str::to_owned);
    assert_eq!(rung(&small).await[1], BTreeSet::from(others));
    assert!(small.robin.deny(&job).await.unwrap().good());
}

#[tokio::test]
async fn attack_24_who_opens_and_takes_back_silences_neither_the_ring_nor_the_veto() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let hook = Hook::start().await.unwrap();
    let keys = "veto = \"10m\"\nhours = \"always\"\nunsolicited = \"queue\"\nintent = \"commit\"";
    let mut small = small_by(clock.env(Daemon::builder()), &policy(keys), &hook).await;
    webhook(&small.bob, &hook, "bob").await;
    // Of `left` the commit is announced, which counts here; of `right` the version, which rings.
    let (left, right) = (wish("@acme/left", "1.0.0"), wish("@acme/right", "1.0.0"));
    let announce = async |item, commit| small.alice.intend(vec![version_only(item)], commit).await;
    announce(&left, Some(COMMIT)).await.unwrap();
    announce(&right, None).await.unwrap();
    let mut count = 0;
    for item in [&left, &right] {
        // Each rings three times at once, and then it is silent for a while.
        for n in 0..8 {
            let job = small.open(std::slice::from_ref(item)).await.unwrap();
            if n < 3 {
                count += 1;
                let got = hook.got(count).await.unwrap().pop().unwrap();
                assert_eq!(got.json()["id"], job.id.to_string(), "{n}");
            }
            assert!(job.cancel().await.unwrap().good());
        }
    }
    let vetoable = small.open(&[left]).await.unwrap();
    assert_eq!(vetoable.state().await.unwrap(), "approved");
    let waiting = small.open(&[right]).await.unwrap();
    // Whatever was to be decided has been when the alarm comes that is ordered now.
    let other = small.robin.freezer("freeze", "npm:@acme/other").await;
    assert!(other.unwrap().good());
    assert_eq!(about(&hook.got(7).await.unwrap()[6]), "alarm");
    // The real ones ring while there is time: both last ten minutes, and this is their second half.
    clock.pass(&mut small.daemon, 6 * 60).await.unwrap();
    next(&hook, "veto", vetoable.id).await;
    clock.pass(&mut small.daemon, 9 * 60).await.unwrap();
    next(&hook, "waits", waiting.id).await;
}

#[tokio::test]
async fn a_removed_channel_is_told_for_the_last_time_and_quiet_hours_are_in_the_log() {
    let hook = Hook::start().await.unwrap();
    let small = small(&policy_of_one(), &hook).await;
    webhook(&small.alice, &hook, "first").await;
    let second = webhook(&small.alice, &hook, "second").await;
    webhook(&small.bob, &hook, "bob").await;
    let path = format!("/v1/notify/channels/{second}");
    let gone = small.alice.call("DELETE", &path, &Value::Null).await;
    gone.unwrap().ok_status().unwrap();
    let got = hook.got(2).await.unwrap();
    assert!(got.iter().all(|got| about(got) == "settings"), "{got:?}");
    let quiet = json!({"hours": "22:00-07:00 UTC"});
    for given in [quiet, json!({})] {
        let set = small.alice.call("PUT", "/v1/notify/quiet", &given).await;
        set.unwrap().ok_status().unwrap();
    }
    let logged = events(&small.robin, "quiet-hours-set").await.unwrap();
    let quiet: Vec<_> = logged.iter().map(|e| &e["quiet"]).collect();
    assert_eq!(quiet, [&json!(true), &json!(false)]);
    assert_eq!(logged[0]["person"], "alice");
    // Alice, who is no admin, was not rung.
    assert_eq!(hook.so_far().len(), 2);
}

#[tokio::test]
async fn attack_24_the_test_button_pressed_often_is_one_test() {
    let hook = Hook::start().await.unwrap();
    let small = small(&policy_of_one(), &hook).await;
    for n in 0..3 {
        webhook(&small.alice, &hook, &format!("alice-{n}")).await;
    }
    webhook(&small.bob, &hook, "bob").await;
    let press = || small.alice.call("POST", "/v1/notify/test", &Value::Null);
    // The broker's nonce is fresh from here on.
    small.alice.inbox().await.unwrap();
    let all = futures_util::future::join_all((0..30).map(|_| press())).await;
    let taken = all.iter().filter(|r| r.as_ref().unwrap().good()).count();
    assert_eq!(taken, 1);
    // What is asked behind them rings all the same, and nothing was between.
    small.open(&[wish("@acme/left", "1.0.0")]).await.unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    for got in hook.got(3 + 4).await.unwrap() {
        *counts.entry(about(&got)).or_default() += 1;
    }
    let expected = [("test".to_owned(), 3), ("waits".to_owned(), 4)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[tokio::test]
async fn a_push_subscription_that_is_over_is_removed_with_a_record() {
    for status in [404, 410] {
        let hook = Hook::start().await.unwrap();
        let small = small(&policy_of_one(), &hook).await;
        // A browser's key and secret, from RFC 8291 §5.
        let given = json!({
            "kind": "web-push", "endpoint": hook.at("push/1"), "name": "phone",
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        });
        add(&small.alice, given).await;
        webhook(&small.alice, &hook, "webhook").await;
        hook.answer(status);
        small.open(&[wish("@acme/left", "1.0.0")]).await.unwrap();
        hook.got(2).await.unwrap();
        let gone = loop {
            let gone = events(&small.robin, "channel-gone").await.unwrap();
            if !gone.is_empty() {
                break gone;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(gone[0]["person"], "alice");
        let told = small.alice.call("GET", "/v1/notify", &Value::Null).await;
        let told: Value = told.unwrap().ok().unwrap();
        let left = told["channels"].as_array().unwrap();
        assert_eq!(
            left.len(),
            1,
            "{status}: the webhook's server may come back"
        );
        assert_eq!(left[0]["kind"], "webhook");
    }
}

/// The keys of a table, without its name.
fn keys(live: &Path, table: &str) -> Vec<Vec<u8>> {
    let db = redb::Database::open(live).unwrap();
    let read = db.begin_read().unwrap();
    let rows = read.open_table(ROWS).unwrap();
    let start = [table.as_bytes(), b"\0"].concat();
    let mut all = Vec::new();
    for row in rows.range::<&[u8]>(start.as_slice()..).unwrap() {
        let (key, _) = row.unwrap();
        match key.value().strip_prefix(start.as_slice()) {
            Some(key) => all.push(key.to_vec()),
            None => break,
        }
    }
    all
}

#[tokio::test]
async fn looking_who_is_to_be_rung_writes_nothing_where_nothing_changes() {
    let hook = Hook::start().await.unwrap();
    let mut small = small(&policy_of_one(), &hook).await;
    webhook(&small.alice, &hook, "alice").await;
    let hour = stand::now().unwrap() / 3600 % 24;
    let around = format!("{:02}:00-{:02}:00 UTC", (hour + 23) % 24, (hour + 2) % 24);
    let quiet = async |given: Value| {
        let set = small.alice.call("PUT", "/v1/notify/quiet", &given).await;
        set.unwrap().ok_status().unwrap();
    };
    quiet(json!({"hours": around})).await;
    let job = small.open(&[wish("@acme/left", "1.0.0")]).await.unwrap();
    let question = small.alice.question(job.id).await.unwrap();
    let question: Question = question.ok().unwrap();
    quiet(json!({})).await;
    // It was looked at when it was opened, and again.
    hook.got(1).await.unwrap();
    small.daemon.kill9();
    let [row] = keys(&small.daemon.dir().join("data/live.redb"), "ring")
        .try_into()
        .unwrap();
    let time = u64::from_be_bytes(row[..8].try_into().unwrap());
    assert_eq!(
        time, question.opened.0,
        "the row is still the one of the opening"
    );
    small.daemon.restart().await.unwrap();
}

#[tokio::test]
async fn admins_hear_of_a_token_that_ages_once_a_step() {
    const DAY: i64 = 24 * 3600;
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let hook = Hook::start().await.unwrap();
    let builder = clock.env(Daemon::builder());
    let mut small = small_by(builder, &policy(""), &hook).await;
    webhook(&small.robin, &hook, "robin").await;
    webhook(&small.alice, &hook, "alice").await;
    let aged = async |small: &Small| -> Vec<Value> {
        let all = events(&small.robin, "token-aged").await.unwrap();
        all.into_iter().map(|e| e["rotation"].clone()).collect()
    };
    let counted = async |small: &Small, name: &str| -> Option<u64> {
        Some(small.daemon.metric(name).await.unwrap())
    };
    // Of ninety days, 60 are nothing, 70 are 77 % and 82 are 91 %.
    let mut seen = 0;
    for (days, told, soon, now) in [
        (60, json!([]), 0, 0),
        (70, json!(["soon"]), 1, 0),
        (71, json!(["soon"]), 1, 0),
        (82, json!(["soon", "now"]), 0, 1),
    ] {
        clock.pass(&mut small.daemon, days * DAY).await.unwrap();
        let count = told.as_array().unwrap().len();
        if count > seen {
            let got = hook.got(count).await.unwrap();
            assert!(got.iter().all(|g| about(g) == "token"));
        }
        seen = count;
        let start = Instant::now();
        while (
            counted(&small, "countersign_tokens_rotate_soon").await,
            counted(&small, "countersign_tokens_rotate_now").await,
        ) != (Some(soon), Some(now))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{days}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(Value::from(aged(&small).await), told, "{days}");
        let list = small.robin.call("GET", "/v1/admin/tokens", &Value::Null);
        let list: Value = list.await.unwrap().ok().unwrap();
        let step = told.as_array().unwrap().last().cloned();
        assert_eq!(list[0]["rotation"], step.unwrap_or(json!("later")));
    }
    // Alice, who is no admin, was not rung.
    assert_eq!(hook.so_far().len(), 2);
}

#[tokio::test]
async fn admins_hear_of_an_old_token_when_it_is_destroyed_and_every_week_until_it_is_revoked() {
    const DAY: i64 = 24 * 3600;
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let hook = Hook::start().await.unwrap();
    let builder = clock.env(Daemon::builder());
    let mut small = small_by(builder, &policy(""), &hook).await;
    webhook(&small.robin, &hook, "robin").await;
    webhook(&small.alice, &hook, "alice").await;
    let place = json!({"kind": "add-token", "registry": "secrets", "scope": "deploy-key"});
    let stored = small.robin.act(place.clone(), Some("canary-old")).await;
    let stored: Value = stored.unwrap().ok().unwrap();
    let mut rotate = place;
    rotate["kind"] = json!("rotate-token");
    let rotated = small.robin.act(rotate, Some("canary-new")).await;
    let _: Value = rotated.unwrap().ok().unwrap();
    // Its hour is over; a day later nobody is told again, and after a week everybody is.
    for (seconds, told) in [
        (3700, 1),
        (DAY, 1),
        (9 * DAY, 2),
        (10 * DAY, 2),
        (17 * DAY, 3),
    ] {
        clock.pass(&mut small.daemon, seconds).await.unwrap();
        let got = hook.got(told).await.unwrap();
        assert!(got.iter().all(|g| about(g) == "token"), "{seconds}");
        // A round of the house and of the tokens.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(hook.so_far().len(), told, "{seconds}");
    }
    let print = &stored["token"]["fingerprint"];
    let said = json!({"fingerprint": print});
    let path = "/v1/admin/tokens/revoked";
    let revoked = small.robin.call("POST", path, &said).await.unwrap();
    revoked.ok_status().unwrap();
    clock.pass(&mut small.daemon, 25 * DAY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(hook.so_far().len(), 3);
}

#[tokio::test]
async fn everybody_hears_of_a_policy_that_allows_more_and_it_waits_as_long_as_the_configuration_says()
 {
    const HOUR: u64 = 3600;
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let hook = Hook::start().await.unwrap();
    // Of an age at which a policy does not change by itself any more.
    let builder = clock.made_ago(Daemon::builder(), 13 * HOUR).unwrap();
    let mut small = small_by(builder, POLICY, &hook).await;
    let path = small.daemon.config_path();
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("weakening_wait = \"48h\"\n{before}")).unwrap();
    small.daemon.restart().await.unwrap();
    // Neither of them is an admin, and one approves nothing.
    let invite = small.robin.invite("carol", &[], false, &[]).await.unwrap();
    let carol = Device::enroll(&small.daemon, &invite).await.unwrap();
    for (device, name) in [(&small.alice, "alice"), (&carol, "carol")] {
        webhook(device, &hook, name).await;
    }
    fs::write(small.daemon.policy_path(), policy_of_one()).unwrap();
    small.daemon.reload().await.unwrap();
    let got = hook.got(2).await.unwrap();
    assert!(got.iter().all(|g| about(g) == "policy"));
    let acts = async || {
        let acts = small.robin.call("GET", "/v1/acts", &Value::Null).await;
        acts.unwrap().ok::<Value>().unwrap()["acts"][0].clone()
    };
    let waits = acts().await;
    assert_eq!(waits["changes"][0]["words"], "npm:@acme/* quorum: 2 to 1");
    let id = waits["id"].as_str().unwrap();
    let agreed = small.robin.confirm(id).await.unwrap();
    agreed.ok_status().unwrap();
    let ready = acts().await["ready"].as_u64().unwrap();
    let wait = ready - stand::now().unwrap();
    assert!((48 * HOUR - 120..=48 * HOUR).contains(&wait), "{wait}");
}
