//! Rings and channels: who is rung, by what, and what that gives to whoever reads it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use stand::{
    api::{Device, POLICY, Packed, Small, item, policy_of_one},
    bells::{self, Got, Hook, Ntfy},
    daemon::Daemon,
    intents::version_only,
    parts::{Issuer, github_claims},
    team::Team,
};
use std::{collections::BTreeSet, fs, path::Path};

/// Nobody listens there: opening asks the registry, and goes on without it.
const NO_REGISTRY: &str = "http://127.0.0.1:9";

async fn small(policy: &str, origins: &[&str]) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let origins = json!(origins);
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", NO_REGISTRY)
        .registry("secrets", "generic", "")
        .policy(policy)
        .extra(&format!("[push]\norigins = {origins}\n"));
    Small::with(builder, issuer, "canary-token").await.unwrap()
}

async fn add(device: &Device, given: Value) -> Value {
    let reply = device.call("POST", "/v1/notify/channels", &given).await;
    reply.unwrap().ok().unwrap()
}

async fn webhook(device: &Device, hook: &Hook, path: &str) -> Value {
    let given = json!({"kind": "webhook", "url": hook.at(path), "name": "team"});
    add(device, given).await
}

async fn settings(device: &Device) -> Value {
    let reply = device.call("GET", "/v1/notify", &Value::Null).await;
    reply.unwrap().ok().unwrap()
}

fn wanted(name: &str) -> proto::request::Item {
    Packed::new(name, "1.0.0").unwrap().item("latest").unwrap()
}

async fn events(small: &Small, kind: &str) -> Vec<Value> {
    bells::events(&small.robin, kind).await.unwrap()
}

/// What a receiver of webhooks does with one.
fn signed(got: &Got, secret: &str) -> bool {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let (id, time) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    let mut bytes = format!("{id}.{time}.").into_bytes();
    bytes.extend_from_slice(&got.body);
    let signature = got.header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    hmac::verify(&key, &bytes, &signature).is_ok()
}

#[tokio::test]
async fn a_request_rings_the_people_who_may_approve_it_on_a_real_ntfy_server_and_a_webhook() {
    let (ntfy, hook) = (Ntfy::start().await.unwrap(), Hook::start().await.unwrap());
    let small = small(&policy_of_one(), &[&ntfy.url, &hook.origin]).await;
    let given = json!({"kind": "ntfy", "url": ntfy.topic(), "token": ntfy.token, "name": "phone"});
    add(&small.alice, given).await;
    let added = webhook(&small.bob, &hook, "bob").await;
    // An admin who is in no approving group is not asked, and not rung.
    webhook(&small.robin, &hook, "robin").await;
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    let id = job.id.to_string();

    let messages = ntfy.messages(1).await.unwrap();
    assert_eq!(messages[0]["title"], "Countersign");
    assert_eq!(messages[0]["message"], "Something waits for your answer.");
    let page = format!("{}/r/{id}", small.daemon.url);
    assert_eq!(messages[0]["click"], page.as_str());

    let got = hook.got(1).await.unwrap();
    let secret = added["secret"].as_str().unwrap();
    assert!(signed(&got[0], secret));
    let text = format!("Something waits for your answer. {page}");
    let body = json!({"text": text, "about": "waits", "id": id});
    assert_eq!(got[0].json(), body);
    assert_eq!(events(&small, "rung").await.len(), 1);

    // One more for the same package is in the inbox, and silent; both rings were one each.
    small.open(&[wanted("@acme/left")]).await.unwrap();
    assert_eq!(small.waiting().await.unwrap(), 2);
    webhook(&small.alice, &hook, "alice").await;
    small
        .alice
        .call("POST", "/v1/notify/test", &Value::Null)
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    assert_eq!(hook.got(2).await.unwrap()[1].json()["about"], "test");
    assert_eq!(hook.so_far().len(), 2);
}

#[tokio::test]
async fn attack_24_a_thousand_requests_ring_three_times_a_day_and_person() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    webhook(&small.alice, &hook, "alice").await;
    webhook(&small.bob, &hook, "bob").await;
    // Each for a package of its own, and taken back, so that neither coalescing nor quotas ration them.
    for round in 0..20 {
        let mut jobs = Vec::new();
        for n in 0..50 {
            let bytes = format!("{round}-{n}");
            let item = item(
                "npm",
                &format!("@acme/p-{bytes}"),
                "1.0.0",
                "latest",
                bytes.as_bytes(),
            );
            jobs.push(small.open(&[item.unwrap()]).await.unwrap());
        }
        for job in jobs {
            job.cancel().await.unwrap().ok_status().unwrap();
        }
    }
    let mut rings = std::collections::BTreeMap::<String, usize>::new();
    for event in events(&small, "rung").await {
        for person in event["people"].as_array().unwrap() {
            *rings
                .entry(person.as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    let three = |person: &str| rings.get(person) == Some(&3);
    assert!(
        three("alice") && three("bob") && rings.len() == 2,
        "{rings:?}"
    );
    let told = settings(&small.alice).await;
    assert_eq!(
        (&told["rings"], &told["rings_most"]),
        (&json!(3), &json!(3))
    );
    // The last one waits silently, and everybody finds it.
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    let inbox: Value = small.alice.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox["requests"][0]["id"], job.id.to_string());
    // An alarm is not rationed with them.
    let denied = small.robin.deny(&job).await.unwrap();
    assert!(denied.good(), "{denied:?}");
    let alarms = |got: &[Got]| got.iter().filter(|g| g.json()["about"] == "alarm").count();
    let mut count = hook.so_far().len();
    while alarms(&hook.so_far()) < 2 {
        count = hook.got(count + 1).await.unwrap().len();
    }
    assert!(hook.so_far().len() <= 8, "{:?}", hook.so_far());
}

#[tokio::test]
async fn attack_24_a_package_rings_once_while_it_waits_and_the_next_when_that_is_over() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    webhook(&small.alice, &hook, "alice").await;
    let first = small.open(&[wanted("@acme/left")]).await.unwrap();
    assert_eq!(
        hook.got(1).await.unwrap()[0].json()["id"],
        first.id.to_string()
    );
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(
            small
                .open(&[wanted("@acme/left")])
                .await
                .unwrap()
                .id
                .to_string(),
        );
    }
    // Another package rings beside it.
    let right = small.open(&[wanted("@acme/right")]).await.unwrap();
    assert_eq!(
        hook.got(2).await.unwrap()[1].json()["id"],
        right.id.to_string()
    );
    // The thief takes his first request back: what he silenced with it rings now.
    first.cancel().await.unwrap().ok_status().unwrap();
    let third = hook.got(3).await.unwrap()[2].json();
    assert!(
        others.iter().any(|id| third["id"] == id.as_str()),
        "{third}"
    );
    assert_eq!(events(&small, "rung").await.len(), 3);
}

#[tokio::test]
async fn attack_24_what_was_announced_rings_past_the_budget_and_no_thief_rings_with_it_at_once() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    webhook(&small.bob, &hook, "bob").await;
    let ask = async |name: &str| small.open(&[wanted(name)]).await.unwrap();
    let about = |got: &Got| got.json()["id"].as_str().unwrap_or_default().to_owned();
    // The day's rings are spent, and it is quiet.
    for n in 1..=3 {
        let job = ask(&format!("@acme/p-{n}")).await;
        let got = hook.got(n).await.unwrap();
        assert_eq!(about(got.last().unwrap()), job.id.to_string());
    }
    let hour = stand::now().unwrap() / 3600 % 24;
    let around = format!("{:02}:00-{:02}:00 UTC", (hour + 23) % 24, (hour + 2) % 24);
    let quiet = json!({ "hours": around });
    let set = small.bob.call("PUT", "/v1/notify/quiet", &quiet).await;
    set.unwrap().ok_status().unwrap();
    // Alice announces a version, without its bytes: it rings all the same.
    let item = version_only(&wanted("@acme/left"));
    small.alice.intend(vec![item], None).await.unwrap();
    // A thief's requests fit it as well; he takes each back, and opens the next.
    for n in 4..=6 {
        let job = ask("@acme/left").await;
        let got = hook.got(n).await.unwrap();
        assert_eq!(about(got.last().unwrap()), job.id.to_string());
        job.cancel().await.unwrap().ok_status().unwrap();
    }
    for _ in 0..10 {
        let job = ask("@acme/left").await;
        job.cancel().await.unwrap().ok_status().unwrap();
    }
    ask("@acme/left").await;
    // Whatever was to be decided has been when the alarm comes that is ordered now.
    let frozen = small
        .robin
        .freezer("freeze", "npm:@acme/other")
        .await
        .unwrap();
    assert!(frozen.good(), "{frozen:?}");
    let last = hook.got(7).await.unwrap().pop().unwrap();
    assert_eq!(last.json()["about"], "alarm");
    assert_eq!(events(&small, "rung").await.len(), 6);
}

#[tokio::test]
async fn attack_34_what_a_notification_carries_gives_no_power() {
    let (ntfy, hook) = (Ntfy::start().await.unwrap(), Hook::start().await.unwrap());
    let small = small(&policy_of_one(), &[&ntfy.url, &hook.origin]).await;
    let given = json!({"kind": "ntfy", "url": ntfy.topic(), "token": ntfy.token, "name": "phone"});
    add(&small.alice, given).await;
    let added = webhook(&small.alice, &hook, "canary-address").await;
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    let message = ntfy.messages(1).await.unwrap().remove(0);
    let got = hook.got(1).await.unwrap().remove(0);

    // Nothing of the request but its id.
    let id = job.id.to_string();
    let texts = [
        message.to_string(),
        format!("{:?} {}", got.headers, got.json()),
    ];
    for text in &texts {
        for canary in [&job.ticket, &job.match_code, "left", "acme", "npm", "alice"] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
        assert!(text.contains(&id));
    }
    // Who has read it may look at a page that says how to answer, and may do nothing.
    let api = &small.api;
    let page = api
        .call("GET", &format!("/r/{id}"), &[], Vec::new())
        .await
        .unwrap();
    assert!(page.good());
    for canary in [&job.ticket, &job.match_code] {
        assert!(!page.text.contains(canary), "{canary} in the page");
    }
    for (method, rest) in [
        ("GET", ""),
        ("GET", "/question"),
        ("POST", "/answer"),
        ("POST", "/collect"),
        ("POST", "/cancel"),
        ("GET", "/receipt"),
    ] {
        let path = format!("/v1/requests/{id}{rest}");
        let reply = api.call(method, &path, &[], Vec::new()).await.unwrap();
        assert_eq!(reply.status, 401, "{method} {path}");
        let reply = api.bearer(method, &path, &id, &json!({})).await.unwrap();
        assert_eq!(reply.status, 401, "{method} {path} with the id as a bearer");
    }
    assert_eq!(job.state().await.unwrap(), "pending");
    // The channels' own secrets lie sealed, and are in no log.
    let secret = added["secret"].as_str().unwrap();
    let log = small.daemon.log();
    for canary in [secret, &ntfy.token, "canary-address", &job.match_code] {
        assert!(!log.contains(canary), "{canary} in the log");
        assert!(
            !lies_in(&small.daemon.dir().join("data"), canary.as_bytes()),
            "{canary} on the disk"
        );
    }
    // Nor does the list of channels tell them, to their own person.
    let told = settings(&small.alice).await.to_string();
    for canary in [secret, &ntfy.token, "canary-address"] {
        assert!(!told.contains(canary), "{canary} in the settings");
    }
}

fn lies_in(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return lies_in(&path, needle);
        }
        let bytes = fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|w| w == needle)
    })
}

#[tokio::test]
async fn a_ring_survives_a_crash_and_is_tried_again() {
    let hook = Hook::start().await.unwrap();
    let mut small = small(POLICY, &[&hook.origin]).await;
    webhook(&small.alice, &hook, "alice").await;
    hook.answer(503);
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    let first = hook.got(1).await.unwrap().remove(0);
    // The failure is shown to the person.
    let failed = loop {
        let told = settings(&small.alice).await;
        if let Some(failed) = told["channels"][0].get("failed") {
            break failed.clone();
        }
    };
    assert_eq!(failed["why"], "its server answered with status 503");
    small.daemon.kill9();
    small.daemon.restart().await.unwrap();
    hook.answer(200);
    let again = hook.got(2).await.unwrap().remove(1);
    assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(again.json()["id"], job.id.to_string());
    assert_eq!(events(&small, "rung").await.len(), 1);
}

#[tokio::test]
async fn a_channel_that_hangs_or_is_gone_decides_nothing() {
    let (slow, gone) = (Hook::start().await.unwrap(), Hook::start().await.unwrap());
    let small = small(&policy_of_one(), &[&slow.origin, &gone.origin]).await;
    webhook(&small.alice, &slow, "alice").await;
    webhook(&small.bob, &gone, "bob").await;
    slow.hold(true);
    gone.answer(410);
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    slow.got(1).await.unwrap();
    // While one server holds the broker, another request is opened, rings, and is answered.
    let other = small.open(&[wanted("@acme/right")]).await.unwrap();
    gone.got(1).await.unwrap();
    let _: Value = small.alice.approve(&other).await.unwrap().ok().unwrap();
    let _: Value = small.alice.approve(&job).await.unwrap().ok().unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    // A server that is being mended says that too: the channel stays, and its person sees what went wrong.
    let shown = async || settings(&small.bob).await["channels"][0]["failed"].clone();
    for _ in 0..100 {
        if !shown().await.is_null() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(!shown().await.is_null());
    assert_eq!(events(&small, "channel-gone").await.len(), 0);
    slow.hold(false);
}

#[tokio::test]
async fn attack_32_no_channel_gets_other_keys_and_its_end_is_told() {
    let (push, hook) = (Hook::start().await.unwrap(), Hook::start().await.unwrap());
    let small = small(&policy_of_one(), &[&push.origin, &hook.origin]).await;
    // The keys of the example in RFC 8291 §5.
    let subscription = json!({
        "kind": "web-push",
        "endpoint": push.at("alice"),
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        "name": "phone",
    });
    let added = add(&small.alice, subscription.clone()).await;
    webhook(&small.alice, &hook, "alice").await;
    // A browser gives the same again when it likes.
    let again = add(&small.alice, subscription.clone()).await;
    assert_eq!(again["id"], added["id"]);
    // With keys that nobody holds, what is sent would be read by nobody.
    let mut deaf = subscription;
    deaf["auth"] = json!("AAAAAAAAAAAAAAAAAAAAAA");
    let same = json!({"kind": "webhook", "url": hook.at("alice"), "name": "team"});
    for given in [deaf, same] {
        let call = small.alice.call("POST", "/v1/notify/channels", &given);
        let reply = call.await.unwrap();
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(reply.text.contains("notify remove"), "{}", reply.text);
    }
    assert_eq!(events(&small, "channel-added").await.len(), 2);
    // Whoever holds the browser ends its subscription: the person hears of it elsewhere.
    push.answer(410);
    small.open(&[wanted("@acme/left")]).await.unwrap();
    push.got(1).await.unwrap();
    let told: BTreeSet<_> = hook
        .got(2)
        .await
        .unwrap()
        .iter()
        .map(|got| got.json()["about"].as_str().unwrap_or_default().to_owned())
        .collect();
    let wanted = BTreeSet::from(["settings".to_owned(), "waits".to_owned()]);
    assert_eq!(told, wanted);
    let left = settings(&small.alice).await;
    assert_eq!(left["channels"].as_array().unwrap().len(), 1);
    assert_eq!(events(&small, "channel-gone").await.len(), 1);
}

#[tokio::test]
async fn attack_32_channels_that_are_added_at_once_are_never_more_than_are_listed() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    let at = |n: u32| hook.at(&format!("{n}"));
    let add = async |url: String| {
        let given = json!({"kind": "webhook", "url": url, "name": "team"});
        let reply = small.alice.call("POST", "/v1/notify/channels", &given);
        reply.await.unwrap().good()
    };
    let mut added = 0;
    for n in 0..9 {
        added += usize::from(add(at(n)).await);
    }
    let more = futures_util::future::join_all((9..40).map(|n| add(at(n)))).await;
    added += more.into_iter().filter(|taken| *taken).count();
    assert_eq!(added, 10);
    let listed = settings(&small.alice).await;
    assert_eq!(listed["channels"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn who_was_removed_is_not_rung_and_who_asked_is_not_either() {
    let hook = Hook::start().await.unwrap();
    let small = small(&policy_of_one(), &[&hook.origin]).await;
    // `github:7` is the account that starts these jobs.
    let invite = small
        .robin
        .invite("carol", &["release"], false, &["github:7"])
        .await
        .unwrap();
    let carol = Device::enroll(&small.daemon, &invite).await.unwrap();
    for (device, path) in [(&small.alice, "a"), (&small.bob, "b"), (&carol, "c")] {
        webhook(device, &hook, path).await;
    }
    small
        .robin
        .remove_person("bob")
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    assert_eq!(github_claims("x")["actor_id"], "7");
    small.open(&[wanted("@acme/left")]).await.unwrap();
    hook.got(1).await.unwrap();
    let rung = events(&small, "rung").await;
    assert_eq!(rung.len(), 1);
    assert_eq!(rung[0]["people"], json!(["alice"]));
    assert_eq!(hook.so_far().len(), 1);
}

#[tokio::test]
async fn in_quiet_hours_nothing_rings_and_afterwards_it_does() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    webhook(&small.alice, &hook, "alice").await;
    webhook(&small.bob, &hook, "bob").await;
    let hour = stand::now().unwrap() / 3600 % 24;
    let around = format!("{:02}:00-{:02}:00 UTC", (hour + 23) % 24, (hour + 2) % 24);
    for bad in ["22-7", "22:00-07:00", "22:00-07:00 Mars/City"] {
        let reply = small
            .alice
            .call("PUT", "/v1/notify/quiet", &json!({"hours": bad}))
            .await;
        assert_eq!(reply.unwrap().status, 400, "{bad}");
    }
    let set = async |given: Value| {
        let reply = small.alice.call("PUT", "/v1/notify/quiet", &given).await;
        reply.unwrap().ok_status().unwrap();
    };
    set(json!({"hours": around})).await;
    assert_eq!(settings(&small.alice).await["quiet"], around.as_str());
    let job = small.open(&[wanted("@acme/left")]).await.unwrap();
    hook.got(1).await.unwrap();
    assert_eq!(events(&small, "rung").await[0]["people"], json!(["bob"]));
    set(json!({})).await;
    // It still waits, and is looked at again.
    assert_eq!(
        hook.got(2).await.unwrap()[1].json()["id"],
        job.id.to_string()
    );
    assert_eq!(events(&small, "rung").await[1]["people"], json!(["alice"]));
}

#[tokio::test]
async fn attack_39_a_channel_leads_to_no_server_that_the_configuration_does_not_name() {
    let (hook, inner) = (Hook::start().await.unwrap(), Hook::start().await.unwrap());
    let small = small(POLICY, &[&hook.origin]).await;
    for url in [
        inner.at("x"),
        inner.at("x").replace("127.0.0.1", "localhost"),
        hook.at("x").replace("http:", "https:"),
        format!(
            "{}@{}",
            hook.origin,
            inner.at("x").trim_start_matches("http://")
        ),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://updates.example.net/push".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        for given in [
            json!({"kind": "webhook", "url": url, "name": "x"}),
            json!({"kind": "ntfy", "url": url, "name": "x"}),
        ] {
            let reply = small
                .alice
                .call("POST", "/v1/notify/channels", &given)
                .await
                .unwrap();
            assert_eq!(reply.status, 400, "{given}: {reply:?}");
        }
    }
    assert!(inner.so_far().is_empty());
    // One that was added when the configuration allowed it is not called when it does so no more.
    webhook(&small.alice, &hook, "alice").await;
    let mut small = small;
    let config = fs::read_to_string(small.daemon.config_path()).unwrap();
    let config = config.replace(&hook.origin, &inner.origin);
    fs::write(small.daemon.config_path(), config).unwrap();
    small.daemon.restart().await.unwrap();
    small.open(&[wanted("@acme/left")]).await.unwrap();
    let why = loop {
        let told = settings(&small.alice).await;
        if let Some(failed) = told["channels"][0].get("failed") {
            break failed["why"].as_str().unwrap().to_owned();
        }
    };
    assert!(why.contains("configuration"), "{why}");
    assert!(hook.so_far().is_empty() && inner.so_far().is_empty());
}

#[tokio::test]
async fn attack_26_a_persons_channels_are_their_own() {
    let hook = Hook::start().await.unwrap();
    let small = small(POLICY, &[&hook.origin]).await;
    let added = webhook(&small.alice, &hook, "alice").await;
    let path = format!("/v1/notify/channels/{}", added["id"].as_str().unwrap());
    // Nobody removes another's, an admin neither; and it is not seen by them.
    for other in [&small.bob, &small.robin] {
        let reply = other.call("DELETE", &path, &Value::Null).await.unwrap();
        assert_eq!(reply.status, 404, "{reply:?}");
        assert_eq!(settings(other).await["channels"], json!([]));
    }
    let reply = small
        .api
        .call("DELETE", &path, &[], Vec::new())
        .await
        .unwrap();
    assert_eq!(reply.status, 401);
    assert_eq!(
        settings(&small.alice).await["channels"][0]["kind"],
        "webhook"
    );
    // There is an end to how many.
    for n in 0..9 {
        webhook(&small.alice, &hook, &format!("more-{n}")).await;
    }
    let given = json!({"kind": "webhook", "url": hook.at("eleventh"), "name": "x"});
    let reply = small
        .alice
        .call("POST", "/v1/notify/channels", &given)
        .await
        .unwrap();
    assert_eq!(reply.status, 400);
    small
        .alice
        .call("DELETE", &path, &Value::Null)
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    assert_eq!(
        settings(&small.alice).await["channels"]
            .as_array()
            .unwrap()
            .len(),
        9
    );
}

#[tokio::test]
async fn the_command_line_adds_tests_lists_and_removes_channels() {
    let (ntfy, hook) = (Ntfy::start().await.unwrap(), Hook::start().await.unwrap());
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .registry("npm", "npm", NO_REGISTRY)
        .policy(stand::team::POLICY)
        .extra(&format!(
            "[push]\norigins = [\"{}\", \"{}\"]\n",
            ntfy.url, hook.origin
        ));
    let team = Team::assemble((), issuer, builder, ("npm", "canary-token"), "")
        .await
        .unwrap();
    let alice = &team.maintainers[0];
    let run = async |args: &[&str]| team.run(alice, args, &[]).await.unwrap();

    let none = run(&["notify", "test"]).await;
    assert_eq!(none.status, Some(2), "{none}");
    let file = team.folder().join("ntfy.token");
    fs::write(&file, &ntfy.token).unwrap();
    let file = file.display().to_string();
    let topic = ntfy.topic();
    run(&["notify", "add", "ntfy", &topic, "--token-file", &file])
        .await
        .ok()
        .unwrap();
    let url = hook.at("hook");
    let added = run(&["--json", "notify", "add", "webhook", &url])
        .await
        .ok()
        .unwrap();
    let added: Value = serde_json::from_str(&added.stdout).unwrap();
    assert!(added["secret"].as_str().unwrap().starts_with("whsec_"));
    let tested = run(&["notify", "test"]).await.ok().unwrap();
    assert_eq!(tested.stdout.matches("delivered").count(), 2, "{tested}");
    assert_eq!(ntfy.messages(1).await.unwrap()[0]["title"], "Countersign");
    hook.got(1).await.unwrap();

    run(&["notify", "quiet", "22:00-07:00 Europe/Berlin"])
        .await
        .ok()
        .unwrap();
    let list = run(&["notify", "list"]).await.ok().unwrap();
    assert!(
        list.stdout.contains("quiet: 22:00-07:00 Europe/Berlin"),
        "{list}"
    );
    run(&["notify", "quiet", "off"]).await.ok().unwrap();
    let id = added["id"].as_str().unwrap();
    run(&["notify", "remove", &id[..8]]).await.ok().unwrap();
    let list = run(&["--json", "notify", "list"]).await.ok().unwrap();
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list["channels"].as_array().unwrap().len(), 1);
    assert_eq!(list.get("quiet"), None);
    let refused = run(&["notify", "add", "webhook", "https://elsewhere.example/x"]).await;
    assert_eq!(refused.status, Some(2), "{refused}");
    assert!(refused.stderr.contains("[push]"), "{refused}");
}
