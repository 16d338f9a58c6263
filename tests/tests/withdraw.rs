//! Withdrawing a version: two admins agree, the broker makes the one call, and the registry shows it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{self, Device, Job, Packed, Reply, Small},
    cargo::{self, Freighter},
    daemon::Daemon,
    gems::{self, Gems, KEY},
    http,
    parts::{Issuer, Verdaccio},
    proxy::{Fault, Proxy},
    rows,
};
use std::{fs, time::Duration};
use tokio::task::JoinHandle;

const LEFT: &str = "@acme/left";

fn act(registry: &str, package: &str, version: &str, message: Option<&str>) -> Value {
    let act = json!({
        "kind": "withdraw", "registry": registry, "package": package, "version": version,
    });
    let Some(message) = message else {
        return act;
    };
    let mut act = act;
    act["message"] = message.into();
    act
}

fn undo(act: &Value) -> Value {
    let mut act = act.clone();
    act.as_object_mut().unwrap().remove("message");
    act["undo"] = true.into();
    act
}

/// More admins, each with a code that is not used yet.
async fn admins<const N: usize>(small: &Small, names: [&str; N]) -> [Device; N] {
    let invites = names.map(|name| small.robin.invite(name, &[], true, &[]));
    let invites = futures_util::future::join_all(invites).await;
    let mut all = Vec::new();
    for invite in invites {
        let admin = Device::enroll(&small.daemon, &invite.unwrap()).await;
        all.push(admin.unwrap());
    }
    all.try_into().ok().unwrap()
}

/// robin asks, and dora agrees.
async fn agreed(small: &Small, dora: &Device, act: Value) {
    agreed_by([&small.robin, dora], act).await;
}

async fn agreed_by([one, other]: [&Device; 2], act: Value) {
    let asked = one.act(act, None).await.unwrap();
    let id = asked.json()["act"]["id"].as_str().unwrap().to_owned();
    let done = other.confirm(&id).await.unwrap();
    assert_eq!(done.json()["done"], true, "{}", done.text);
}

async fn lines(small: &Small) -> Vec<Value> {
    let path = "/v1/admin/withdrawals";
    let all = small.robin.call("GET", path, &Value::Null).await.unwrap();
    all.ok().unwrap()
}

/// Waits until what was agreed to last has ended.
async fn ended(small: &Small) -> Value {
    for _ in 0..600 {
        let first = lines(small).await.remove(0);
        if first["state"] != "waiting" {
            return first;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not end: {:?}", lines(small).await);
}

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

fn count(types: &[String], kind: &str) -> usize {
    types.iter().filter(|t| *t == kind).count()
}

async fn publish(small: &Small, version: &str) -> String {
    let ready = ready(small, version).await;
    let endpoint = &small.daemon.registry_url;
    let sent = api::put(endpoint, &ready.credential, LEFT, ready.document).await;
    assert!(sent.unwrap().good());
    ready.credential
}

/// A version that needs no more than its upload.
struct Ready {
    job: Job,
    credential: String,
    document: Vec<u8>,
}

async fn ready(small: &Small, version: &str) -> Ready {
    let packed = Packed::new(LEFT, version).unwrap();
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    Ready {
        credential: job.credential().await.unwrap(),
        document: packed.document("latest").unwrap(),
        job,
    }
}

/// Uploads it, while the test goes on.
fn uploads(small: &Small, ready: &Ready) -> JoinHandle<anyhow::Result<Reply>> {
    let endpoint = small.daemon.registry_url.clone();
    let (credential, document) = (ready.credential.clone(), ready.document.clone());
    tokio::spawn(async move { api::put(&endpoint, &credential, LEFT, document).await })
}

#[tokio::test]
async fn attack_50_one_admin_alone_withdraws_nothing_and_two_change_one_member_of_one_version() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    let dora = small.dora().await.unwrap();
    publish(&small, "1.0.0").await;
    publish(&small, "1.1.0").await;
    let before = registry.package(LEFT).await.unwrap().unwrap();
    let message = "broken: use 1.1.0";
    let wish = act("npm", LEFT, "1.0.0", Some(message));

    // The device alone is nothing, and so is whoever is no admin, and what makes no sense is said before a code is spent.
    let bare = json!({"act": wish});
    let bare = small.robin.call("POST", "/v1/admin/acts", &bare).await;
    assert_eq!(bare.unwrap().code(), Some(Code::FactorMissing));
    let alice = small.alice.act(wish.clone(), None).await.unwrap();
    assert_eq!(alice.status, 403, "{}", alice.text);
    // One asks, and asks again: it waits.
    let asked = small.robin.act(wish.clone(), None).await.unwrap();
    assert_eq!(asked.json()["done"], false, "{}", asked.text);
    let id = asked.json()["act"]["id"].as_str().unwrap().to_owned();
    let own = small.robin.confirm(&id).await.unwrap();
    assert_eq!(own.code(), Some(Code::BadRequest), "{}", own.text);
    assert!(lines(&small).await.is_empty());
    assert_eq!(registry.package(LEFT).await.unwrap().unwrap(), before);

    let done = dora.confirm(&id).await.unwrap();
    assert_eq!(done.json()["done"], true, "{}", done.text);
    let line = ended(&small).await;
    assert_eq!(line["state"], "done", "{line}");
    assert_eq!(
        (&line["by"], &line["confirmed"]),
        (&json!("robin"), &json!(["dora"]))
    );
    let mut after = registry.package(LEFT).await.unwrap().unwrap();
    assert_eq!(after["versions"]["1.0.0"]["deprecated"], message);
    // Nothing else is another: no version, no tag, no tarball.
    after["versions"]["1.0.0"]
        .as_object_mut()
        .unwrap()
        .remove("deprecated");
    for member in ["versions", "dist-tags"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    let all = types(&small).await;
    let at = |kind: &str| all.iter().position(|t| t == kind).unwrap();
    assert_eq!(at("act-confirmed") + 1, at("withdrawal-agreed"));
    assert!(at("withdrawal-agreed") < at("withdrawal-sent"));
    assert!(at("withdrawal-sent") < at("withdrawal-done"));

    // And back.
    agreed(&small, &dora, undo(&wish)).await;
    assert_eq!(ended(&small).await["state"], "done");
    let after = registry.package(LEFT).await.unwrap().unwrap();
    let words = after["versions"]["1.0.0"]["deprecated"].as_str();
    assert!(words.unwrap_or_default().is_empty(), "{words:?}");
    publish(&small, "1.2.0").await;
}

#[tokio::test]
async fn attack_20_no_job_reaches_the_call_that_withdraws() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    publish(&small, "1.0.0").await;
    // A job with an approval for the next version, and a good credential.
    let packed = Packed::new(LEFT, "1.1.0").unwrap();
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    let before = registry.package(LEFT).await.unwrap().unwrap();
    let mut document = before.clone();
    document["versions"]["1.0.0"]["deprecated"] = "by a thief".into();
    document.as_object_mut().unwrap().remove("_attachments");
    let endpoint = small.endpoint().unwrap();
    let body = serde_json::to_vec(&document).unwrap();
    let put = endpoint.put(LEFT, &credential, body).await.unwrap();
    assert!(!put.good(), "{}", put.text);
    let authorization = format!("Bearer {credential}");
    let headers = [("authorization", authorization.as_str())];
    for (method, path) in [
        ("DELETE", "/@acme%2fleft/-rev/1-a"),
        ("PUT", "/@acme%2fleft/-rev/1-a"),
        ("POST", "/v1/admin/acts"),
        ("GET", "/v1/admin/withdrawals"),
    ] {
        let body = b"{}".to_vec();
        let reply: Reply = endpoint.call(method, path, &headers, body).await.unwrap();
        assert!(!reply.good(), "{method} {path}: {}", reply.text);
    }
    assert_eq!(registry.package(LEFT).await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn attack_42_47_a_yank_whose_answer_is_lost_is_read_back_after_a_crash_and_not_sent_twice() {
    let registry = Freighter::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", proxy.url);
    let policy = api::POLICY.replace("npm:@acme/*", "crates:acme-*");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("crates", "crates", &registry.index, &keys)
        .registry("secrets", "generic", "")
        .policy(&policy.replace("tags = [\"latest\", \"next\"]\n", ""));
    let token = registry.token.clone();
    let small = Small::with_token(builder, issuer, ("crates", &token)).await;
    let mut small = small.unwrap();
    let folder = small.daemon.dir().join("work");
    fs::create_dir(&folder).unwrap();
    let package = cargo::package(&folder, "acme-left", "1.0.0").unwrap();
    let index = format!("sparse+{}", registry.index);
    let env = [
        ("CARGO_REGISTRIES_RAW_INDEX", index.as_str()),
        ("CARGO_REGISTRIES_RAW_TOKEN", token.as_str()),
    ];
    let args = ["publish", "--registry", "raw", "--allow-dirty"];
    cargo::cargo(&package, &args, &env)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let dora = small.dora().await.unwrap();
    // npm alone shows a message.
    let wordy = act("crates", "acme-left", "1.0.0", Some("x"));
    let wordy = small.robin.act(wordy, None).await.unwrap();
    assert_eq!(wordy.code(), Some(Code::BadRequest), "{}", wordy.text);
    let absent = act("crates", "acme-left", "9.9.9", None);
    let absent = small.robin.act(absent, None).await.unwrap();
    assert!(absent.text.contains("does not show it"), "{}", absent.text);

    // The first call never arrives; the broker is killed, and makes it again.
    let yank = "DELETE /api/v1/crates/acme-left/1.0.0/yank";
    proxy.arm(yank, Fault::CutUp(0));
    let wish = act("crates", "acme-left", "1.0.0", None);
    agreed(&small, &dora, wish.clone()).await;
    while !types(&small).await.contains(&"withdrawal-sent".to_owned()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    small.daemon.kill9();
    proxy.forget(yank);
    let yanked = async |want: bool| {
        let lines = registry.lines("acme-left").await.unwrap();
        (lines[0]["yanked"] == true) == want
    };
    assert!(yanked(false).await);
    // It arrived after all, say.
    let direct = format!("{}/api/v1/crates/acme-left/1.0.0/yank", registry.url);
    let by_hand = http()
        .unwrap()
        .delete(direct)
        .header("authorization", &token);
    assert!(by_hand.send().await.unwrap().status().is_success());
    small.daemon.restart().await.unwrap();
    let line = ended(&small).await;
    assert_eq!(
        (&line["state"], &line["attempts"]),
        (&json!("done"), &json!(1))
    );
    assert!(yanked(true).await);
    assert_eq!(count(&types(&small).await, "withdrawal-done"), 1);

    // Back, by one call, and no more of them.
    agreed(&small, &dora, undo(&wish)).await;
    let line = ended(&small).await;
    assert_eq!(
        (&line["state"], &line["attempts"]),
        (&json!("done"), &json!(1))
    );
    assert!(yanked(false).await);
}

#[tokio::test]
async fn attack_47_a_call_that_never_arrived_is_made_again_after_a_crash() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let policy = api::POLICY;
    let small = Small::over(&proxy.url, &registry.token, policy).await;
    let mut small = small.unwrap();
    publish(&small, "1.0.0").await;
    let put = "PUT /@acme%2fleft";
    proxy.arm(put, Fault::CutUp(0));
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    let done = small.robin.act(wish, None).await.unwrap();
    assert_eq!(done.json()["done"], true, "{}", done.text);
    while !proxy.watched(put).iter().any(|w| w.hit) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    small.daemon.kill9();
    let shown = registry.package(LEFT).await.unwrap().unwrap();
    assert!(shown["versions"]["1.0.0"]["deprecated"].is_null());
    small.daemon.restart().await.unwrap();
    let line = ended(&small).await;
    assert_eq!(
        (&line["state"], &line["attempts"]),
        (&json!("done"), &json!(2))
    );
    let shown = registry.package(LEFT).await.unwrap().unwrap();
    assert_eq!(shown["versions"]["1.0.0"]["deprecated"], "broken");
}

#[tokio::test]
async fn gems_are_yanked_for_good_and_a_secret_has_no_versions() {
    let registry = Gems::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("gems", "rubygems", &registry.url)
        .registry("secrets", "generic", "")
        .policy(
            &api::POLICY
                .replace("npm:@acme/*", "gems:acme-*")
                .replace("tags = [\"latest\", \"next\"]\n", ""),
        );
    let small = Small::with_token(builder, issuer, ("gems", KEY)).await;
    let small = small.unwrap();
    let folder = small.daemon.dir().join("work");
    fs::create_dir(&folder).unwrap();
    for version in ["1.0.0", "1.1.0"] {
        let gem = gems::build(&folder, "acme-left", version, "");
        let gem = fs::read(gem.await.unwrap()).unwrap();
        let push = http()
            .unwrap()
            .post(format!("{}/api/v1/gems", registry.url));
        let push = push.header("authorization", KEY);
        let push = push.header("content-type", "application/octet-stream");
        let pushed = push.body(gem).send().await.unwrap();
        assert!(pushed.status().is_success());
    }
    // Alone, as there is no other admin; with a code.
    let wish = act("gems", "acme-left", "1.0.0", None);
    let back = small.robin.act(undo(&wish), None).await.unwrap();
    assert!(back.text.contains("takes no yank back"), "{}", back.text);
    let done = small.robin.act(wish, None).await.unwrap();
    assert_eq!(done.json()["done"], true, "{}", done.text);
    assert_eq!(ended(&small).await["state"], "done");
    let yanked = registry.writes();
    let yanked = yanked.iter().find(|w| w.method == "DELETE").unwrap();
    assert_eq!(yanked.path, "/api/v1/gems/yank");
    let body = String::from_utf8_lossy(&yanked.body);
    assert_eq!(body, "gem_name=acme-left&version=1.0.0&platform=ruby");
    assert!(yanked.key && registry.gem("acme-left-1.0.0.gem").is_none());

    let secret = act("secrets", "deploy-key", "1", None);
    let no = small.robin.act(secret, None).await.unwrap();
    assert_eq!(no.code(), Some(Code::BadRequest), "{}", no.text);
}

/// The number of calls that changed the package at the registry since `proxy` was armed.
fn calls(proxy: &Proxy) -> usize {
    let all = proxy.watched("PUT /@acme%2fleft");
    all.iter().filter(|w| !w.up.is_empty()).count()
}

async fn call_back(by: &Device, version: &str) -> Reply {
    let path = "/v1/admin/withdrawals/call-back";
    let asked = json!({"registry": "npm", "package": LEFT, "version": version});
    by.with_code(path, asked).await.unwrap()
}

#[tokio::test]
async fn a_withdrawal_that_waits_is_called_back_by_one_admin_until_its_call_begins() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let small = Small::over(&proxy.url, &registry.token, api::POLICY).await;
    let small = small.unwrap();
    let [carol, erin, dora] = admins(&small, ["carol", "erin", "dora"]).await;
    publish(&small, "1.0.0").await;
    let none = call_back(&carol, "1.0.0").await;
    assert_eq!(none.code(), Some(Code::BadRequest), "{}", none.text);
    // It waits for an upload that is on its way.
    let put = "PUT /@acme%2fleft";
    proxy.arm(put, Fault::Delay(Duration::from_secs(8)));
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    let (_, ()) = tokio::join!(publish(&small, "1.1.0"), async {
        while proxy.watched(put).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        agreed(&small, &dora, wish.clone()).await;
        assert_eq!(lines(&small).await[0]["state"], "waiting");
        // Who is no admin, and who shows no code, calls nothing back.
        let path = "/v1/admin/withdrawals/call-back";
        let asked = json!({"registry": "npm", "package": LEFT, "version": "1.0.0"});
        let bare = carol.call("POST", path, &asked).await.unwrap();
        assert_eq!(bare.code(), Some(Code::FactorMissing), "{}", bare.text);
        assert_eq!(call_back(&small.alice, "1.0.0").await.status, 403);
        assert_eq!(lines(&small).await[0]["state"], "waiting");
        let done = call_back(&carol, "1.0.0").await;
        assert_eq!(done.json()["state"], "called-back", "{}", done.text);
        assert_eq!(done.json()["attempts"], 0);
    });
    // The upload is over, and nothing follows it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(calls(&proxy), 1, "the upload alone");
    let line = lines(&small).await.remove(0);
    assert_eq!(line["state"], "called-back", "{line}");
    assert!(line["said"].as_str().unwrap().contains("carol"), "{line}");
    let shown = registry.package(LEFT).await.unwrap().unwrap();
    assert!(shown["versions"]["1.0.0"]["deprecated"].is_null());
    let all = types(&small).await;
    assert_eq!(count(&all, "withdrawal-called-back"), 1);
    assert_eq!(count(&all, "withdrawal-sent"), 0);

    // Asked for again it is done; and once its call has begun nobody calls it back.
    proxy.arm(put, Fault::CutUp(0));
    agreed(&small, &dora, wish).await;
    while count(&types(&small).await, "withdrawal-sent") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = call_back(&erin, "1.0.0").await;
    assert_eq!(late.code(), Some(Code::BadRequest), "{}", late.text);
    assert!(late.text.contains("has begun"), "{}", late.text);
    assert_eq!(ended(&small).await["state"], "done");
}

/// Where uploads of the package, and calls that deprecate one of its versions, go.
const PUT: &str = "PUT /@acme%2fleft";

async fn watched(proxy: &Proxy, calls: usize) {
    while proxy.watched(PUT).len() < calls {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn attack_50_a_withdrawal_that_was_called_back_is_not_put_back() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let small = Small::over(&proxy.url, &registry.token, api::POLICY).await;
    let mut small = small.unwrap();
    let [carol, dora] = admins(&small, ["carol", "dora"]).await;
    publish(&small, "1.0.0").await;
    // It waits for an upload, and then for what became of that one, since the registry is away.
    let next = ready(&small, "1.1.0").await;
    proxy.arm(PUT, Fault::Delay(Duration::from_secs(8)));
    let upload = uploads(&small, &next);
    watched(&proxy, 1).await;
    agreed(&small, &dora, act("npm", LEFT, "1.0.0", Some("broken"))).await;
    assert_eq!(lines(&small).await[0]["state"], "waiting");
    small.daemon.kill9();
    drop(upload.await.unwrap());
    proxy.down();
    let live = small.daemon.dir().join("data").join("live.redb");
    let waits = rows::of_table(&live, "withdrawal").unwrap();
    assert_eq!(waits.len(), 1);
    small.daemon.restart().await.unwrap();
    let done = call_back(&carol, "1.0.0").await;
    assert_eq!(done.json()["state"], "called-back", "{}", done.text);

    // Whoever writes the database puts back what waited, and the registry is there again.
    small.daemon.kill9();
    rows::write(&live, &waits[0].0, Some(&waits[0].1)).unwrap();
    small.daemon.restart().await.unwrap();
    proxy.up();
    small.until(&next.job, "published").await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(count(&types(&small).await, "withdrawal-sent"), 0);
    let shown = registry.package(LEFT).await.unwrap().unwrap();
    assert!(shown["versions"]["1.0.0"]["deprecated"].is_null());
    assert!(lines(&small).await.is_empty());
    assert!(small.daemon.log().contains("ALARM: what admins agreed to"));
    // Who wants it after all agrees anew, whatever lies there.
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    agreed(&small, &dora, wish).await;
    assert_eq!(ended(&small).await["state"], "done");
}

#[tokio::test]
async fn attack_42_what_is_agreed_to_again_is_not_called_back_after_the_call_of_before() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let small = Small::over(&proxy.url, &registry.token, api::POLICY).await;
    let small = small.unwrap();
    let names = ["carol", "dora", "erin", "frank"];
    let [carol, dora, erin, frank] = admins(&small, names).await;
    publish(&small, "1.0.0").await;
    let next = ready(&small, "1.1.0").await;
    // A call leaves, and nobody hears what became of it.
    proxy.arm(PUT, Fault::CutUp(0));
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    agreed(&small, &dora, wish.clone()).await;
    watched(&proxy, 1).await;
    // The same is agreed to again, and waits for an upload.
    proxy.forget(PUT);
    proxy.arm_inside("left-1.1.0.tgz", Fault::Delay(Duration::from_secs(8)));
    let upload = uploads(&small, &next);
    while proxy.watched("left-1.1.0.tgz").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agreed_by([&carol, &erin], wish).await;
    let line = lines(&small).await.remove(0);
    assert_eq!(
        (&line["state"], &line["by"]),
        (&json!("waiting"), &json!("carol"))
    );
    let late = call_back(&frank, "1.0.0").await;
    assert_eq!(late.code(), Some(Code::BadRequest), "{}", late.text);
    assert!(late.text.contains("has begun"), "{}", late.text);
    assert!(upload.await.unwrap().unwrap().good());
    let line = ended(&small).await;
    assert_eq!(
        (&line["state"], &line["attempts"]),
        (&json!("done"), &json!(2))
    );
}

#[tokio::test]
async fn attack_42_the_late_answer_to_a_call_ends_nothing_that_was_agreed_to_since() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let small = Small::over(&proxy.url, &registry.token, api::POLICY).await;
    let small = small.unwrap();
    let [carol, dora, erin] = admins(&small, ["carol", "dora", "erin"]).await;
    publish(&small, "1.0.0").await;
    let no = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    proxy.arm(PUT, Fault::LateAnswer(Duration::from_secs(6), no));
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    agreed(&small, &dora, wish.clone()).await;
    watched(&proxy, 1).await;
    agreed_by([&carol, &erin], wish).await;
    let line = ended(&small).await;
    assert_eq!(
        (&line["state"], &line["by"]),
        (&json!("done"), &json!("carol"))
    );
    let all = types(&small).await;
    assert_eq!(count(&all, "withdrawal-failed"), 0);
    assert_eq!(count(&all, "withdrawal-sent"), 2);
}

#[tokio::test]
async fn attack_52_a_frozen_package_is_not_offered_again() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    let dora = small.dora().await.unwrap();
    publish(&small, "1.0.0").await;
    let wish = act("npm", LEFT, "1.0.0", Some("broken"));
    agreed(&small, &dora, wish.clone()).await;
    assert_eq!(ended(&small).await["state"], "done");
    // Asked for before the freeze, agreed to after it; and asked for under it; by its own freeze and by that of everything.
    let asked = small.robin.act(undo(&wish), None).await.unwrap();
    let id = asked.json()["act"]["id"].as_str().unwrap().to_owned();
    for name in ["npm:@acme/left", "*"] {
        if name == "*" {
            let path = "/v1/admin/panic";
            let stopped = small.robin.call("POST", path, &json!({})).await;
            assert!(stopped.unwrap().good());
        } else {
            assert!(small.robin.freezer("freeze", name).await.unwrap().good());
        }
        let late = dora.confirm(&id).await.unwrap();
        assert_eq!(late.code(), Some(Code::BadRequest), "{}", late.text);
        assert!(late.text.contains("is frozen"), "{}", late.text);
        for by in [&small.robin, &dora] {
            let thawed = by.freezer("thaw", name).await.unwrap();
            assert!(thawed.good(), "{}", thawed.text);
        }
    }
    let shown = registry.package(LEFT).await.unwrap().unwrap();
    assert_eq!(shown["versions"]["1.0.0"]["deprecated"], "broken");
    assert_eq!(count(&types(&small).await, "withdrawal-sent"), 1);
    // Thawed, it is offered.
    let done = dora.confirm(&id).await.unwrap();
    assert_eq!(done.json()["done"], true, "{}", done.text);
    assert_eq!(ended(&small).await["state"], "done");
}

#[tokio::test]
async fn an_upload_that_races_a_withdrawal_is_neither_lost_nor_loses_it() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    publish(&small, "1.0.0").await;
    // Back and forth, while a version after the other is published: no pause is the same.
    for round in 1..=6 {
        let wish = act("npm", LEFT, "1.0.0", Some("broken"));
        let undone = round % 2 == 0;
        let wish = if undone { undo(&wish) } else { wish };
        let version = format!("1.{round}.0");
        let (_, ()) = tokio::join!(publish(&small, &version), async {
            tokio::time::sleep(Duration::from_millis(round * 120)).await;
            let done = small.robin.act(wish, None).await.unwrap();
            assert_eq!(done.json()["done"], true, "{}", done.text);
        });
        assert_eq!(ended(&small).await["state"], "done", "round {round}");
        let shown = registry.package(LEFT).await.unwrap().unwrap();
        for n in 0..=round {
            let version = &shown["versions"][format!("1.{n}.0")];
            assert!(version.is_object(), "round {round}: 1.{n}.0 is gone");
        }
        assert_eq!(shown["dist-tags"]["latest"], version, "round {round}");
        let words = shown["versions"]["1.0.0"]["deprecated"].as_str();
        assert_eq!(
            words.unwrap_or_default().is_empty(),
            undone,
            "round {round}"
        );
    }
}
