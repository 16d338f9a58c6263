//! Incidents: one admin stops everything, nothing is released until two thaw it, and what was published is told.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{answer::Decision, problem::Code};
use serde_json::{Value, json};
use stand::{
    api::{self, Device, Job, Packed, Small},
    bells::Hook,
    daemon::Daemon,
    http,
    intents::with_files,
    killed::Killer,
    parts::{Issuer, Verdaccio, github_claims},
    people::publish_document,
    proxy::{Fault, Proxy},
    until,
};
use std::{path::Path, time::Duration};

const PANIC: &str = "/v1/admin/panic";

async fn panic(by: &Device) -> api::Reply {
    let asked = json!({"reason": "a laptop was stolen"});
    by.call("POST", PANIC, &asked).await.unwrap()
}

/// The types of all events in the log.
async fn types(small: &Small) -> Vec<String> {
    let path = "/v1/log/export?from=0&limit=1000";
    let log = small.robin.call("GET", path, &Value::Null).await.unwrap();
    let kind = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
        leaf["event"]["type"].as_str().unwrap().to_owned()
    };
    log.text.lines().map(kind).collect()
}

async fn asked(small: &Small, name: &str) -> (Packed, Job) {
    let packed = Packed::new(name, "1.0.0").unwrap();
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    (packed, job)
}

async fn put(small: &Small, packed: &Packed, credential: &str) -> api::Reply {
    let endpoint = &small.daemon.registry_url;
    let document = packed.document("latest").unwrap();
    let sent = api::put(endpoint, credential, &packed.name, document).await;
    sent.unwrap()
}

/// A job's session at the registry endpoint, as npm gets it.
async fn guest(small: &Small) -> String {
    let mut claims = github_claims(&small.daemon.url);
    claims["aud"] = "npm:127.0.0.1".into();
    let token = small.issuer.mint(claims).await.unwrap();
    let exchange = "-/npm/v1/oidc/token/exchange/package/@acme%2fguest";
    let url = format!("{}/{exchange}", small.daemon.registry_url);
    let reply = http().unwrap().post(url).bearer_auth(token).send().await;
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 201);
    let reply: Value = reply.json().await.unwrap();
    reply["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn attack_52_one_admin_stops_everything_and_nothing_leaves_until_two_have_thawed_it() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    let eve = small.robin.invite("eve", &["release"], false, &[]).await;
    let eve = eve.unwrap();
    let dora = small.dora().await.unwrap();
    let (before, job) = asked(&small, "@acme/before").await;
    small.approve(&job).await.unwrap();
    let sent = put(&small, &before, &job.credential().await.unwrap()).await;
    assert!(sent.good(), "{}", sent.text);
    // What is there at the first look was there before.
    let looked = small
        .robin
        .call("POST", "/v1/admin/watch", &json!({}))
        .await;
    assert!(looked.unwrap().good());
    past_the_broker(registry, "@acme/before", "1.0.1").await;
    let looked = small
        .robin
        .call("POST", "/v1/admin/watch", &json!({}))
        .await;
    assert!(looked.unwrap().good());

    // One whose credential is out, one that is approved, one that waits, one that is announced, a job at the endpoint.
    let (out, out_job) = asked(&small, "@acme/out").await;
    small.approve(&out_job).await.unwrap();
    let credential = out_job.credential().await.unwrap();
    let (_, approved) = asked(&small, "@acme/approved").await;
    small.approve(&approved).await.unwrap();
    let (_, waiting) = asked(&small, "@acme/waiting").await;
    let soon = Packed::new("@acme/soon", "1.0.0").unwrap();
    let soon = soon.item("latest").unwrap();
    small
        .alice
        .intend(vec![with_files(&soon)], None)
        .await
        .unwrap();
    guest(&small).await;

    // A person who is no admin does not.
    assert_eq!(panic(&small.alice).await.status, 403);
    let stopped = panic(&small.robin).await;
    let told = stopped.json();
    assert_eq!(told["frozen"], true, "{}", stopped.text);
    let counts = ["ended", "intents", "sessions", "invites"].map(|n| told[n].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 1, 1], "{told}");

    // Nothing is opened, answered, collected or sent.
    for job in [&out_job, &approved, &waiting] {
        assert_eq!(job.state().await.unwrap(), "denied");
    }
    let refused = put(&small, &out, &credential).await;
    assert!(!refused.good(), "{}", refused.text);
    assert!(!approved.collect_raw().await.unwrap().good());
    let answer = small
        .alice
        .answer(&waiting, Decision::Approve, &waiting.match_code, None);
    assert_eq!(answer.await.unwrap().code(), Some(Code::Denied));
    let token = small.id_token().await.unwrap();
    let refused = small
        .open_raw(&token, std::slice::from_ref(&soon))
        .await
        .unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen), "{}", refused.text);
    let late = Device::enroll(&small.daemon, &eve).await;
    assert!(late.is_err(), "an invite that nobody had used is gone");
    for name in ["@acme/out", "@acme/approved", "@acme/soon"] {
        assert_eq!(registry.package(name).await.unwrap(), None, "{name}");
    }
    let inbox: Value = small.alice.inbox().await.unwrap().ok().unwrap();
    let alarm = inbox["alarms"][0].as_str().unwrap();
    assert!(alarm.contains("EVERYTHING IS FROZEN"), "{alarm}");
    assert!(alarm.contains("robin (a laptop was stolen)"), "{alarm}");

    // What was published, by whose word.
    let path = "/v1/admin/published?since=0";
    let page = small.robin.call("GET", path, &Value::Null).await.unwrap();
    let page: Value = page.ok().unwrap();
    assert_eq!(page["requests"].as_array().unwrap().len(), 1, "{page}");
    let line = &page["requests"][0];
    assert_eq!(line["request"], job.id.to_string());
    assert_eq!(line["items"][0]["name"], "npm:@acme/before@1.0.0");
    let digest = &line["items"][0]["files"][0]["digest"];
    assert_eq!(
        *digest,
        json!(before.item("latest").unwrap().files[0].digest)
    );
    let people = line["approved_by"].as_array().unwrap();
    let people: Vec<_> = people
        .iter()
        .map(|p| p["person"].as_str().unwrap())
        .collect();
    assert_eq!(people, ["alice", "bob"]);

    // One admin does not thaw it, nor does one who came after; two do.
    let one = small.robin.freezer("thaw", "*").await.unwrap();
    assert_eq!(one.json()["frozen"], true, "{}", one.text);
    let again = small.robin.freezer("thaw", "*").await.unwrap();
    assert_eq!(again.json()["frozen"], true, "{}", again.text);
    let two = dora.freezer("thaw", "*").await.unwrap();
    assert_eq!(two.json()["frozen"], false, "{}", two.text);
    // What ended is dead, and the package that the broker froze by itself stays frozen.
    assert!(!put(&small, &out, &credential).await.good());
    let intents = small.alice.intents().await.unwrap();
    assert_eq!(json!(intents[0].state), "withdrawn");
    let token = small.id_token().await.unwrap();
    let next = Packed::new("@acme/before", "1.1.0").unwrap();
    let item = next.item("latest").unwrap();
    let refused = small.open_raw(&token, &[item]).await.unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen), "{}", refused.text);
    // And a new request is published as ever.
    let (packed, job) = asked(&small, "@acme/out").await;
    small.approve(&job).await.unwrap();
    let sent = put(&small, &packed, &job.credential().await.unwrap()).await;
    assert!(sent.good(), "{}", sent.text);
    let all = types(&small).await;
    let at = |kind: &str| all.iter().position(|t| t == kind).unwrap();
    assert!(at("everything-stopped") < at("request-denied"));
    assert!(at("request-denied") < at("thawed"));
    assert!(all.contains(&"invite-ended".to_owned()));
}

/// Publishes past the broker, with the registry's own token.
async fn past_the_broker(registry: &Verdaccio, name: &str, version: &str) {
    let bytes = stand::packages::with_readme(name, version).unwrap();
    let document = publish_document(name, version, &registry.url, &bytes);
    let url = format!("{}/{}", registry.url, name.replace('/', "%2f"));
    let put = http().unwrap().put(url).bearer_auth(&registry.token);
    let reply = put.json(&document).send().await.unwrap();
    assert!(reply.status().is_success(), "{reply:?}");
}

async fn is_frozen(small: &Small) -> bool {
    let report = small
        .robin
        .call("GET", "/v1/admin/watch", &Value::Null)
        .await;
    let report: Value = report.unwrap().ok().unwrap();
    !report["stopped"].is_null()
}

#[tokio::test]
async fn attack_47_a_stop_that_is_killed_in_the_middle_is_gone_on_with_and_stays_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let killer = Killer::make(folder.path(), Path::new("/")).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let mut builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", "http://127.0.0.1:1")
        .policy(api::POLICY);
    for (name, value) in killer.env() {
        builder = builder.env(name, &value);
    }
    let mut small = Small::with(builder, issuer, "canary").await.unwrap();
    let mut jobs = Vec::new();
    for n in 0..30 {
        jobs.push(asked(&small, &format!("@acme/p{n}")).await.1);
    }
    // Killed at its first step, its second one, and so on, until one of them comes after the freeze.
    let mut step = 0;
    loop {
        step += 1;
        killer.at(step).unwrap();
        let asked = json!({});
        let call = small.robin.call("POST", PANIC, &asked).await;
        assert!(call.is_err(), "step {step}: it was not killed");
        killer.at(0).unwrap();
        small.daemon.restart().await.unwrap();
        if is_frozen(&small).await {
            break;
        }
        for job in &jobs {
            assert_eq!(job.state().await.unwrap(), "pending", "step {step}");
        }
        assert!(step < 40, "it does not freeze");
    }
    // Nobody calls again: the start goes on with it.
    for job in &jobs {
        small.until(job, "denied").await.unwrap();
    }
    assert!(is_frozen(&small).await);
    let token = small.id_token().await.unwrap();
    let late = Packed::new("@acme/late", "1.0.0").unwrap();
    let items = [late.item("latest").unwrap()];
    let refused = small.open_raw(&token, &items).await.unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen), "{}", refused.text);
}

#[tokio::test]
async fn everything_is_stopped_while_sealed_too_and_everybody_is_told() {
    let hook = Hook::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", "http://127.0.0.1:1")
        .policy(api::POLICY)
        .extra(&format!("[push]\norigins = [\"{}\"]\n", hook.origin));
    let small = Small::with(builder, issuer, "canary").await.unwrap();
    let (_, job) = asked(&small, "@acme/left").await;
    let channel = json!({"kind": "webhook", "url": hook.at("bob"), "name": "bob"});
    let added = small
        .bob
        .call("POST", "/v1/notify/channels", &channel)
        .await;
    assert!(added.unwrap().good());
    let seal = small.robin.call("POST", "/v1/admin/seal", &Value::Null);
    assert!(seal.await.unwrap().good());
    let stopped = panic(&small.robin).await;
    let told = stopped.json();
    assert_eq!((&told["ended"], &told["more"]), (&json!(1), &json!(true)));
    assert_eq!(job.state().await.unwrap(), "denied");
    let mut small = small;
    small.daemon.restart().await.unwrap();
    assert!(is_frozen(&small).await, "also after a start that unseals");
    until("bob is told", || {
        let so_far = hook.so_far();
        so_far.iter().any(|n| n.json()["about"] == "stopped")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn attack_42_52_what_is_on_its_way_when_everything_stops_is_read_back_and_told_as_it_is() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let small = Small::over(&proxy.url, &registry.token, api::POLICY).await;
    let small = small.unwrap();
    let (packed, job) = asked(&small, "@acme/out").await;
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    // The registry takes it at once, and its answer is on its way for some seconds.
    let call = "PUT /@acme%2fout";
    proxy.arm(call, Fault::Delay(Duration::from_secs(5)));
    let (sent, told) = tokio::join!(put(&small, &packed, &credential), async {
        while proxy.watched(call).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic(&small.robin).await.json()
    });
    assert_eq!(
        (&told["ended"], &told["credentials"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(told["sending"][0]["name"], "npm:@acme/out@1.0.0", "{told}");
    assert_eq!(told["sending"][0]["request"], job.id.to_string());
    // It had left: the registry has it, the record says so, and the client is told the truth.
    small.until(&job, "published").await.unwrap();
    assert!(sent.good(), "{}", sent.text);
    let shown = registry.integrity("@acme/out", "1.0.0").await.unwrap();
    assert!(shown.is_some());
    let path = "/v1/admin/published?since=0";
    let page = small.robin.call("GET", path, &Value::Null).await.unwrap();
    let page: Value = page.ok().unwrap();
    assert_eq!(page["requests"][0]["state"], "published", "{page}");
    assert_eq!(proxy.watched(call).len(), 1, "and nothing is sent again");
}

async fn published(small: &Small) -> Value {
    let path = "/v1/admin/published?since=0";
    let page = small.robin.call("GET", path, &Value::Null).await.unwrap();
    page.ok().unwrap()
}

#[tokio::test]
async fn what_jobs_were_given_is_told_with_what_became_of_it_though_it_has_ended() {
    let small = Small::start(api::POLICY).await.unwrap();
    let stored = small
        .robin
        .add_token("secrets", "deploy-key", "canary-of-the-test");
    assert!(stored.await.unwrap().good());
    let (used, used_job) = asked(&small, "@acme/used").await;
    small.approve(&used_job).await.unwrap();
    let sent = put(&small, &used, &used_job.credential().await.unwrap()).await;
    assert!(sent.good(), "{}", sent.text);
    let (_, unused) = asked(&small, "@acme/unused").await;
    small.approve(&unused).await.unwrap();
    unused.credential().await.unwrap();
    let (_, never) = asked(&small, "@acme/never-out").await;
    small.approve(&never).await.unwrap();
    let secret = api::secret_item("deploy-key").unwrap();
    let revealed = small.open(&[secret]).await.unwrap();
    assert!(small.alice.approve(&revealed).await.unwrap().good());
    revealed.collect().await.unwrap();
    let told = panic(&small.robin).await.json();
    assert_eq!(told["frozen"], true, "{told}");

    let page = published(&small).await;
    let given = page["given"].as_array().unwrap();
    let of = |job: &Job| {
        let id = job.id.to_string();
        let mut own = given.iter().filter(|g| g["request"] == id);
        (own.next(), own.count())
    };
    for (job, name, kind, state, left) in [
        (
            &used_job,
            "npm:@acme/used@1.0.0",
            "credential",
            "published",
            1,
        ),
        (&unused, "npm:@acme/unused@1.0.0", "credential", "denied", 0),
        (&revealed, "secrets:deploy-key@1", "secret", "published", 0),
    ] {
        let (Some(line), 0) = of(job) else {
            panic!("{name}: {page}");
        };
        assert_eq!(line["names"], json!([name]));
        assert_eq!(
            (&line["kind"], &line["state"]),
            (&json!(kind), &json!(state)),
            "{line}"
        );
        assert_eq!(line["left"], left, "{line}");
        assert!(line["ended"].is_u64() && line["at"].is_u64(), "{line}");
        assert_eq!(line["until"].is_u64(), kind == "credential", "{line}");
    }
    assert_eq!(given.len(), 3, "nothing was given out for the rest: {page}");
}

#[tokio::test]
async fn a_stop_tells_who_could_thaw_it() {
    let small = Small::start(api::POLICY).await.unwrap();
    let told = panic(&small.robin).await.json();
    assert_eq!(told["thawers"]["admins"], json!(["robin"]), "{told}");
    assert_eq!(told["thawers"]["others"], json!(["alice", "bob"]), "{told}");
    // Who comes now does not count; who was there and is made an admin does. Times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let dora = small.dora().await.unwrap();
    let late = dora.freezer("thaw", "*").await.unwrap();
    assert_eq!(late.status, 403, "{}", late.text);
    let again = panic(&small.robin).await.json();
    assert_eq!(again["thawers"], told["thawers"], "{again}");
    let act =
        json!({"kind": "change-person", "person": "alice", "groups": ["release"], "admin": true});
    let asked = small.robin.act(act, None).await.unwrap();
    let id = asked.json()["act"]["id"].as_str().unwrap().to_owned();
    assert_eq!(dora.confirm(&id).await.unwrap().json()["done"], true);
    let told = panic(&small.robin).await.json();
    assert_eq!(
        told["thawers"]["admins"],
        json!(["alice", "robin"]),
        "{told}"
    );
    for by in [&small.alice, &small.robin] {
        assert!(by.freezer("thaw", "*").await.unwrap().good());
    }
    let next = asked_later(&small).await;
    assert!(next.good(), "{}", next.text);
}

async fn asked_later(small: &Small) -> api::Reply {
    let packed = Packed::new("@acme/later", "1.0.0").unwrap();
    let token = small.id_token().await.unwrap();
    let items = [packed.item("latest").unwrap()];
    small.open_raw(&token, &items).await.unwrap()
}

#[tokio::test]
async fn attack_52_a_jobs_session_is_over_with_the_stop_and_stays_over_after_the_thaw() {
    let small = Small::start(api::POLICY).await.unwrap();
    let dora = small.dora().await.unwrap();
    let (before, after) = (guest(&small).await, guest(&small).await);
    let packed = Packed::new("@acme/guest", "1.0.0").unwrap();
    // A session asks by its upload.
    assert!(!put(&small, &packed, &before).await.good());
    assert_eq!(small.waiting().await.unwrap(), 1);
    let told = panic(&small.robin).await.json();
    assert_eq!(
        (&told["sessions"], &told["ended"]),
        (&json!(2), &json!(1)),
        "{told}"
    );
    let refused = put(&small, &packed, &after).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    for by in [&small.robin, &dora] {
        assert!(by.freezer("thaw", "*").await.unwrap().good());
    }
    for session in [&before, &after] {
        let refused = put(&small, &packed, session).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
    }
    assert_eq!(
        small.waiting().await.unwrap(),
        0,
        "no session of before asks"
    );
    // A new job does.
    let packed = Packed::new("@acme/guest", "1.0.1").unwrap();
    assert!(!put(&small, &packed, &guest(&small).await).await.good());
    assert_eq!(small.waiting().await.unwrap(), 1);
}
