//! npm by way of a stage: our own second factor first, then the registry's, both by the same people.
//!
//! Against the stand's own registry (`stand::stages`): no registry that runs here has stages, and none was
//! tried live.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    api::{Job, Packed, Reply, Small, policy_of_one},
    daemon::Daemon,
    packages,
    parts::Issuer,
    proxy::{Fault, Proxy},
    stages::{Lies, OWN_FACTOR, STAGE_ONLY, Stages, WITH_FACTOR},
    team::{self, Person, Team, Waiting},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_mins(1);
const NAME: &str = "@acme/left";
/// What a registry says that has no such question.
const NOT_FOUND: Fault =
    Fault::Answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

/// A broker over the registry at `url`.
async fn small(stages: &Stages, url: &str, via: &str, token: &str) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("npm", "npm", url, &stages.keys(via))
        .policy(&policy_of_one());
    let small = Small::with(builder, issuer, token).await;
    small.unwrap()
}

async fn staged() -> (Stages, Small) {
    let stages = Stages::start().await.unwrap();
    let small = small(&stages, &stages.url, "stage", STAGE_ONLY).await;
    (stages, small)
}

/// Opens, approves, collects.
async fn approved(small: &Small, packed: &Packed) -> (Job, String) {
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    let _: Value = small.alice.approve(&job).await.unwrap().ok().unwrap();
    let credential = job.credential().await.unwrap();
    (job, credential)
}

/// An upload of its own, which waits for the outcome.
fn upload(small: &Small, packed: &Packed, credential: &str) -> JoinHandle<Reply> {
    let (endpoint, packed) = (small.endpoint().unwrap(), packed.clone());
    let credential = credential.to_owned();
    tokio::spawn(async move {
        let document = packed.document("latest").unwrap();
        let reply = endpoint.put(&packed.name, &credential, document);
        reply.await.unwrap()
    })
}

async fn question(small: &Small, job: &Job) -> Value {
    small.alice.question(job.id).await.unwrap().ok().unwrap()
}

/// Waits until the question shows the registry's page (and not that one).
async fn page(small: &Small, job: &Job, not: &str) -> String {
    let start = Instant::now();
    loop {
        let asked = question(small, job).await;
        if let Some(page) = asked["confirm"][0]["page"].as_str().filter(|p| *p != not) {
            return page.to_owned();
        }
        assert!(start.elapsed() < LIMIT, "no page is shown: {asked}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn alarms(small: &Small) -> u64 {
    let alarms = small.daemon.metric("countersign_alarms_total");
    alarms.await.unwrap()
}

/// The types of the log's events.
async fn log(small: &Small) -> Vec<String> {
    let reply = small
        .robin
        .call("GET", "/v1/log/export?from=0&limit=1000", &Value::Null)
        .await
        .unwrap();
    let lines = reply.text.lines().map(|l| {
        let line: Value = serde_json::from_str(l).unwrap();
        let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap_or("{}")).unwrap();
        leaf["event"]["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    lines.collect()
}

/// How often the registry was told to publish a stage, with a second factor.
fn told_yes(stages: &Stages) -> usize {
    let seen = stages.seen();
    let approve = |s: &&stand::stages::Seen| s.path.ends_with("/approve") && s.factor;
    seen.iter().filter(approve).count()
}

#[tokio::test]
async fn npm_publish_is_approved_here_and_then_at_the_registry() {
    let stages = Stages::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = team::POLICY
        .replacen("quorum = 2", "quorum = 1", 1)
        .replacen(r#"factors = ["totp"]"#, r#"factors = ["device"]"#, 1);
    let builder = Daemon::builder()
        .registry_with("npm", "npm", &stages.url, &stages.keys("stage"))
        .policy(&policy);
    let token = ("npm", STAGE_ONLY);
    let team = Team::assemble(stages.clone(), issuer, builder, token, "")
        .await
        .unwrap();
    let dir = team.package(NAME, "1.0.0").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    let [alice, bob] = &team.maintainers;
    let show = ["show", job.id.as_str()];
    let before = team.run(alice, &show, &[]).await.unwrap().ok().unwrap();
    let hint = "the registry will want its own second factor";
    assert!(before.stdout.contains(hint), "{}", before.stdout);
    // Whoever approves waits for the second half.
    let approve = ["approve", &job.id, "--match-code", &job.match_code];
    let told = team.folder().join("approve.out");
    let both = tokio::join!(
        team.run_into(&told, alice, &approve),
        second_half(&stages, &team, bob, &job, &told)
    );
    let (said, page) = (both.0.unwrap().ok().unwrap(), both.1);
    let lines = [page.as_str(), "second half", "\npublished"];
    assert!(lines.iter().all(|l| said.stdout.contains(l)), "{said}");
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(stages.integrity(NAME, "1.0.0").is_some());
    // The page is for those who approve: the job's log has none.
    assert!(!job.text().contains("/auth/cli/"), "{}", job.text());
    // The token goes to the registry; its question how it came out, and the page, get none.
    for seen in stages.seen() {
        let asked = seen.path.starts_with("/-/v1/done");
        assert!(!(asked || seen.page) || !seen.credential, "{seen:?}");
    }
    assert_eq!(stages.count("PUT", "/"), 0);
}

/// Another maintainer finds the page in the inbox, with its host said apart, and confirms. The page.
async fn second_half(
    stages: &Stages,
    team: &Team<Stages>,
    bob: &Person,
    job: &Waiting,
    told: &Path,
) -> String {
    let start = Instant::now();
    let page = loop {
        let inbox = team.run(bob, &["--json", "inbox"], &[]).await.unwrap();
        let inbox: Value = serde_json::from_str(&inbox.ok().unwrap().stdout).unwrap();
        let page = inbox["requests"][0]["confirm"][0]["page"].as_str();
        if let Some(page) = page {
            break page.to_owned();
        }
        assert!(start.elapsed() < LIMIT, "{inbox}\n{}", job.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(page.starts_with(&stages.pages), "{page}");
    let text = team.run(bob, &["inbox"], &[]).await.unwrap().ok().unwrap();
    let host = stages.pages.trim_start_matches("http://");
    let second = format!("at {host}: {page}");
    assert!(text.stdout.contains(&second), "{}", text.stdout);
    assert_eq!(stages.integrity(NAME, "1.0.0"), None);

    // A person sees the stage with npm's own client too.
    packages::npmrc(team.folder(), &stages.url, WITH_FACTOR).unwrap();
    let listed = stand::run("npm", &["stage", "list"], &[], team.folder(), LIMIT).await;
    let listed = listed.unwrap().ok();
    let listed =
        listed.unwrap_or_else(|why| panic!("`npm stage` needs npm 11.15 or newer here: {why}"));
    assert!(listed.stdout.contains(NAME), "{}", listed.stdout);
    let ours = team.admin(&["--json", "admin", "stages"]).await.unwrap();
    let ours: Value = serde_json::from_str(&ours.ok().unwrap().stdout).unwrap();
    assert_eq!(ours["stages"][0]["request"], job.id.as_str(), "{ours}");

    // Whoever approved is shown it where he waits.
    while !std::fs::read_to_string(told).is_ok_and(|text| text.contains(&page)) {
        assert!(start.elapsed() < LIMIT, "{}", job.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stages.confirm(&page).await.unwrap();
    page
}

#[tokio::test]
async fn a_deposit_of_two_is_published_by_the_broker_while_people_confirm_each() {
    let stages = Stages::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = policy_of_one().replacen("quorum = 1", "quorum = 1\nmode = \"deposit\"", 1);
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("npm", "npm", &stages.url, &stages.keys("stage"))
        .policy(&policy);
    let small = Small::with(builder, issuer, STAGE_ONLY).await.unwrap();
    let two = [NAME, "@acme/right"].map(|n| Packed::new(n, "1.0.0").unwrap());
    let items: Vec<_> = two.iter().map(|p| p.item("latest").unwrap()).collect();
    let (body, identity) = stand::api::asking(&items, "a-deposit-of-two");
    let token = small.id_token().await.unwrap();
    let reply = small.api.bearer("POST", "/v1/requests", &token, &body);
    let reply = reply.await.unwrap();
    let opened: Value = reply.ok().unwrap();
    let job = Job::opened(small.api.clone(), &reply, identity).unwrap();
    for packed in &two {
        let credential = opened["deposit"].as_str().unwrap();
        let reply = upload(&small, packed, credential).await.unwrap();
        assert!(reply.good(), "{}", reply.text);
    }
    let _: Value = small.alice.approve(&job).await.unwrap().ok().unwrap();
    let first = page(&small, &job, "").await;
    assert_eq!(job.state().await.unwrap(), "confirming");
    stages.confirm(&first).await.unwrap();
    let second = page(&small, &job, &first).await;
    stages.confirm(&second).await.unwrap();
    small.until(&job, "published").await.unwrap();
    for packed in &two {
        assert!(stages.integrity(&packed.name, "1.0.0").is_some());
    }
    assert_eq!(alarms(&small).await, 0);
}

#[tokio::test]
async fn a_stage_that_holds_what_was_approved_is_a_yes_to_a_token_that_nobody_could_prove() {
    let stages = Stages::start().await.unwrap();
    let proxy = Proxy::start(&stages.url).await.unwrap();
    let small = small(&stages, &proxy.url, "stage", STAGE_ONLY).await;
    proxy.arm_all("GET /-/whoami", NOT_FOUND);
    let act = json!({"kind": "rotate-token", "registry": "npm", "scope": "*"});
    let rotated = small.robin.act(act, Some(WITH_FACTOR)).await.unwrap();
    assert_eq!(rotated.json()["token"]["fallback"], 1, "{}", rotated.text);
    let kept = async || {
        let list = small.robin.call("GET", "/v1/admin/tokens", &Value::Null);
        let tokens: Vec<Value> = list.await.unwrap().ok().unwrap();
        tokens.iter().any(|token| token["held"] == true)
    };
    // One that holds other bytes says nothing of it.
    let evil = Packed::with(NAME, "1.0.0", &json!({"evil": true})).unwrap();
    stages.lie(Lies {
        swapped: Some(evil.tgz),
        ..Lies::default()
    });
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    upload(&small, &packed, &credential).await.unwrap();
    small.until(&job, "conflict").await.unwrap();
    assert!(kept().await);
    stages.lie(Lies {
        done_at: Some(proxy.url.clone()),
        ..Lies::default()
    });
    let packed = Packed::new("@acme/right", "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let sending = upload(&small, &packed, &credential);
    page(&small, &job, "").await;
    let start = Instant::now();
    while kept().await {
        assert!(start.elapsed() < LIMIT, "it is kept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stages.integrity("@acme/right", "1.0.0"), None);
    assert!(log(&small).await.contains(&"token-tried".to_owned()));
    sending.abort();
}

#[tokio::test]
async fn attack_12_15_a_stage_that_holds_anything_else_is_never_approved() {
    let (stages, small) = staged().await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    // The bytes, then the tag, are other ones than those that were sent.
    let evil = Packed::with(NAME, "1.0.0", &json!({"evil": true})).unwrap();
    let swapped = Lies {
        swapped: Some(evil.tgz),
        ..Lies::default()
    };
    let tag = Lies {
        tag: Some("next".into()),
        ..Lies::default()
    };
    for (n, (lies, state, said)) in [
        (swapped, "conflict", "other bytes"),
        (tag, "releasing", "is not the one that was made"),
    ]
    .into_iter()
    .enumerate()
    {
        let packed = match n {
            0 => packed.clone(),
            _ => Packed::new("@acme/right", "1.0.0").unwrap(),
        };
        stages.lie(lies);
        let (job, credential) = approved(&small, &packed).await;
        let reply = upload(&small, &packed, &credential).await.unwrap();
        assert!(!reply.good(), "{}", reply.text);
        small.until(&job, state).await.unwrap();
        let status = job.status().await.unwrap();
        assert!(status.text.contains(said), "{}", status.text);
        assert_eq!(stages.integrity(&packed.name, "1.0.0"), None);
    }
    // Not even asked for: nobody could have said yes by mistake.
    let asked = stages
        .seen()
        .into_iter()
        .filter(|s| s.path.ends_with("/approve"));
    assert_eq!(asked.count(), 0);
    assert!(alarms(&small).await >= 2);
    let log = log(&small).await;
    assert!(log.contains(&"stage-differs".to_owned()), "{log:?}");

    // The download is what was approved, and the sum under which the stage is published is another one, or there is
    // none: which bytes a yes would publish is not known.
    for (n, shasum) in [Some("0".repeat(40)), None].into_iter().enumerate() {
        stages.lie(Lies {
            shasum: Some(shasum),
            ..Lies::default()
        });
        let packed = Packed::new(&format!("@acme/sum{n}"), "1.0.0").unwrap();
        let (_, credential) = approved(&small, &packed).await;
        let reply = upload(&small, &packed, &credential).await.unwrap();
        assert!(!reply.good(), "{}", reply.text);
        assert_eq!(stages.integrity(&packed.name, "1.0.0"), None);
    }
    let asked = stages.seen().into_iter();
    assert_eq!(asked.filter(|s| s.path.ends_with("/approve")).count(), 0);
}

#[tokio::test]
async fn attack_18_the_watch_finds_a_squatting_stage_before_anybody_asks() {
    let (stages, small) = staged().await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let look = async || {
        let path = "/v1/admin/watch";
        let reply = small.robin.call("POST", path, &json!({})).await.unwrap();
        assert!(reply.good(), "{}", reply.text);
    };
    look().await;
    assert_eq!(alarms(&small).await, 0);
    stages.squat("mallory", (NAME, "1.0.0", "latest"), &packed.tgz);
    // Of a package that no policy names nobody here is told.
    stages.squat("mallory", ("unrelated", "1.0.0", "latest"), b"x");
    for _ in 0..2 {
        look().await;
        assert_eq!(alarms(&small).await, 1);
    }
    let log = log(&small).await;
    assert_eq!(log.iter().filter(|e| *e == "stage-foreign").count(), 1);
}

#[tokio::test]
async fn attack_18_a_squatting_stage_is_an_alarm_and_nothing_is_sent() {
    let (stages, small) = staged().await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    // The very bytes, by another account: its metadata may still be another's.
    stages.squat("mallory", (NAME, "1.0.0", "latest"), &packed.tgz);
    stages.squat("mallory", (NAME, "6.6.6", "latest"), b"evil");
    let (job, credential) = approved(&small, &packed).await;
    let warned = question(&small, &job).await["warnings"].to_string();
    assert!(
        warned.contains("did not make") && warned.contains("6.6.6"),
        "{warned}"
    );
    let reply = upload(&small, &packed, &credential).await.unwrap();
    for word in ["occupied by the stage", "mallory", "npm stage reject"] {
        assert!(reply.text.contains(word), "{}", reply.text);
    }
    assert_eq!(stages.count("POST", "/"), 0);
    // One alarm a stage, however often it is seen.
    assert_eq!(alarms(&small).await, 2);
    let log = log(&small).await;
    assert_eq!(log.iter().filter(|e| *e == "stage-foreign").count(), 2);
    let listed = small.robin.call("GET", "/v1/admin/stages", &Value::Null);
    let listed: Value = listed.await.unwrap().ok().unwrap();
    let all = listed["stages"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{listed}");
    assert!(all.iter().all(|s| s["request"].is_null()), "{listed}");
}

#[tokio::test]
async fn attack_42_a_lost_reply_to_the_stage_is_found_again_and_a_strangers_stage_is_not_taken_for_it()
 {
    let stages = Stages::start().await.unwrap();
    let proxy = Proxy::start(&stages.url).await.unwrap();
    stages.known_as(&proxy.url);
    let small = small(&stages, &proxy.url, "stage", STAGE_ONLY).await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    // It arrived; we never heard.
    proxy.arm("POST /-/stage/package/@acme%2fleft", Fault::CutDown(0));
    let (job, credential) = approved(&small, &packed).await;
    let waiting = upload(&small, &packed, &credential);
    let shown = page(&small, &job, "").await;
    stages.confirm(&shown).await.unwrap();
    let reply = waiting.await.unwrap();
    assert!(reply.good(), "{}", reply.text);
    small.until(&job, "published").await.unwrap();
    assert_eq!(stages.count("POST", "/-/stage/package/"), 1);

    // It did not arrive, and a stranger was faster with the very bytes.
    let packed = Packed::new("@acme/right", "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    proxy.arm("POST /-/stage/package/@acme%2fright", Fault::CutUp(200));
    let waiting = upload(&small, &packed, &credential);
    small.until(&job, "settling").await.unwrap();
    stages.squat("mallory", ("@acme/right", "1.0.0", "latest"), &packed.tgz);
    let reply = waiting.await.unwrap();
    assert!(reply.text.contains("mallory"), "{}", reply.text);
    assert_eq!(told_yes(&stages), 1);
    assert_eq!(stages.integrity("@acme/right", "1.0.0"), None);
}

#[tokio::test]
async fn attack_42_47_a_kill_and_a_lost_reply_while_people_confirm_lose_nothing() {
    let stages = Stages::start().await.unwrap();
    let proxy = Proxy::start(&stages.url).await.unwrap();
    stages.known_as(&proxy.url);
    let mut small = small(&stages, &proxy.url, "stage", STAGE_ONLY).await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let _goes_on = upload(&small, &packed, &credential);
    let first = page(&small, &job, "").await;
    small.daemon.kill9();
    small.daemon.restart().await.unwrap();
    // A new page; the old one leads nowhere any more.
    let second = page(&small, &job, &first).await;
    // A page that is over is replaced.
    stages.pages_end();
    let third = page(&small, &job, &second).await;
    // The word arrived, its answer did not: what the registry shows decides.
    let stage = stages.staged()[0].0.clone();
    let approve = format!("POST /-/stage/{stage}/approve");
    proxy.arm(&approve, Fault::CutDown(0));
    stages.confirm(&third).await.unwrap();
    small.until(&job, "published").await.unwrap();
    assert_eq!(told_yes(&stages), 1);
    // The job repeats its upload, and gets the recorded outcome.
    let reply = upload(&small, &packed, &credential).await.unwrap();
    assert!(reply.good(), "{}", reply.text);
    assert_eq!(stages.count("POST", "/-/stage/package/"), 1);
}

#[tokio::test]
async fn a_no_here_or_at_the_registry_ends_what_is_held_back() {
    let (stages, small) = staged().await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let waiting = upload(&small, &packed, &credential);
    let shown = page(&small, &job, "").await;
    let _: Value = small.bob.deny(&job).await.unwrap().ok().unwrap();
    assert!(!waiting.await.unwrap().good());
    assert_eq!(job.state().await.unwrap(), "denied");
    // Too late: whoever says yes on the page has nobody who asks for it.
    stages.confirm(&shown).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        (told_yes(&stages), stages.integrity(NAME, "1.0.0")),
        (0, None)
    );
    // Its stage still occupies the version: a new request is told whose it is.
    let (_, credential) = approved(&small, &packed).await;
    let reply = upload(&small, &packed, &credential).await.unwrap();
    assert!(reply.text.contains(&job.id.to_string()), "{}", reply.text);

    // A person with a login of his own, npm's client and no broker: rejects one, approves another.
    let folder = tempfile::tempdir().unwrap();
    packages::npmrc(folder.path(), &stages.url, WITH_FACTOR).unwrap();
    let otp = format!("--otp={OWN_FACTOR}");
    for (name, verb, end) in [
        ("@acme/right", "reject", "denied"),
        ("@acme/third", "approve", "published"),
    ] {
        let packed = Packed::new(name, "1.0.0").unwrap();
        let (job, credential) = approved(&small, &packed).await;
        let waiting = upload(&small, &packed, &credential);
        let shown = page(&small, &job, "").await;
        let stage = question(&small, &job).await["confirm"][0]["stage"].to_string();
        let stage = stage.trim_matches('"').to_owned();
        let args = ["stage", verb, &stage, &otp];
        let done = stand::run("npm", &args, &[], folder.path(), LIMIT).await;
        done.unwrap().ok().unwrap();
        if verb == "reject" {
            stages.confirm(&shown).await.unwrap();
        }
        small.until(&job, end).await.unwrap();
        let good = waiting.await.unwrap().good();
        assert_eq!(good, end == "published", "{name}");
    }
}

#[tokio::test]
async fn attack_39_nobody_is_led_to_an_origin_that_the_configuration_does_not_name() {
    let (stages, small) = staged().await;
    let elsewhere = Stages::start().await.unwrap();
    for (name, lies, said) in [
        (
            NAME,
            Lies {
                page_at: Some(elsewhere.pages.clone()),
                ..Lies::default()
            },
            "does not know",
        ),
        (
            "@acme/right",
            Lies {
                done_at: Some(elsewhere.url.clone()),
                ..Lies::default()
            },
            "not its own origin",
        ),
    ] {
        stages.lie(lies);
        let packed = Packed::new(name, "1.0.0").unwrap();
        let (job, credential) = approved(&small, &packed).await;
        let reply = upload(&small, &packed, &credential).await.unwrap();
        assert!(reply.text.contains(said), "{}", reply.text);
        let asked = question(&small, &job).await;
        assert!(asked["confirm"][0]["page"].is_null(), "{asked}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn attack_20_the_endpoint_passes_on_nothing_about_stages_or_tags() {
    let (stages, small) = staged().await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let _goes_on = upload(&small, &packed, &credential);
    page(&small, &job, "").await;
    let id = stages.staged()[0].0.clone();
    let endpoint = small.endpoint().unwrap();
    let before = stages.count("POST", "/") + stages.count("DELETE", "/");
    for (method, path) in [
        ("GET", "/-/stage?page=0&perPage=100".to_owned()),
        ("GET", format!("/-/stage/{id}")),
        ("GET", format!("/-/stage/{id}/tarball")),
        ("POST", format!("/-/stage/{id}/approve")),
        ("DELETE", format!("/-/stage/{id}")),
        ("POST", "/-/stage/package/@acme%2fleft".to_owned()),
        ("PUT", "/-/package/@acme%2fleft/dist-tags/latest".to_owned()),
        (
            "DELETE",
            "/-/package/@acme%2fleft/dist-tags/next".to_owned(),
        ),
        ("GET", "/-/v1/done?authId=1".to_owned()),
    ] {
        let nothing = json!({});
        let reply = endpoint.bearer(method, &path, &credential, &nothing);
        let reply = reply.await.unwrap();
        assert_eq!(reply.status, 403, "{method} {path}: {}", reply.text);
    }
    let after = stages.count("POST", "/") + stages.count("DELETE", "/");
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_direct_publish_hands_the_second_factor_over_too() {
    let stages = Stages::start().await.unwrap();
    let small = small(&stages, &stages.url, "publish", WITH_FACTOR).await;
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let waiting = upload(&small, &packed, &credential);
    let shown = page(&small, &job, "").await;
    // A page that is over is replaced here too.
    stages.pages_end();
    let shown = page(&small, &job, &shown).await;
    stages.confirm(&shown).await.unwrap();
    let reply = waiting.await.unwrap();
    assert!(reply.good(), "{}", reply.text);
    assert_eq!(job.state().await.unwrap(), "published");
    assert_eq!(alarms(&small).await, 0);
}

#[tokio::test]
async fn a_tag_that_points_elsewhere_after_the_publish_is_an_alarm() {
    let (stages, small) = staged().await;
    stages.lie(Lies {
        keeps_tags: true,
        ..Lies::default()
    });
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let waiting = upload(&small, &packed, &credential);
    let shown = page(&small, &job, "").await;
    stages.confirm(&shown).await.unwrap();
    assert!(waiting.await.unwrap().good());
    small.until(&job, "published").await.unwrap();
    assert_eq!(alarms(&small).await, 1);
    assert!(log(&small).await.contains(&"tag-elsewhere".to_owned()));
}

#[tokio::test]
async fn another_token_may_approve_what_the_first_one_staged() {
    let stages = Stages::start().await.unwrap();
    stages.lie(Lies {
        stage_only_never_approves: true,
        ..Lies::default()
    });
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("{}approve_token = \"npm-people\"\n", stages.keys("stage"));
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("npm", "npm", &stages.url, &keys)
        .registry("npm-people", "generic", "")
        .policy(&policy_of_one());
    let small = Small::with(builder, issuer, STAGE_ONLY).await.unwrap();
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let waiting = upload(&small, &packed, &credential);
    small.until(&job, "confirming").await.unwrap();
    let added = small.robin.add_token("npm-people", "@acme/*", WITH_FACTOR);
    let _: Value = added.await.unwrap().ok().unwrap();
    let shown = page(&small, &job, "").await;
    stages.confirm(&shown).await.unwrap();
    assert!(waiting.await.unwrap().good());
    small.until(&job, "published").await.unwrap();
}

#[tokio::test]
async fn when_nobody_confirms_in_time_the_request_expires_and_says_what_is_left() {
    let stages = Stages::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock = stand::parts::Clock::make(folder.path()).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("npm", "npm", &stages.url, &stages.keys("stage"))
        .policy(&policy_of_one());
    let builder = clock.env(builder);
    let mut small = Small::with(builder, issuer, STAGE_ONLY).await.unwrap();
    let packed = Packed::new(NAME, "1.0.0").unwrap();
    let (job, credential) = approved(&small, &packed).await;
    let _goes_on = upload(&small, &packed, &credential);
    page(&small, &job, "").await;
    // Half an hour later; a broker that was down takes that for a long pause.
    small.daemon.kill9();
    clock.set(31 * 60).unwrap();
    small.daemon.restart().await.unwrap();
    small.until(&job, "expired").await.unwrap();
    let status = job.status().await.unwrap();
    let stage = stages.staged()[0].0.clone();
    for word in ["in time", stage.as_str(), "npm stage reject"] {
        assert!(status.text.contains(word), "{}", status.text);
    }
    assert_eq!(
        (told_yes(&stages), stages.integrity(NAME, "1.0.0")),
        (0, None)
    );
}
