//! Deposit: the files are handed over first, the job ends, people approve, the broker publishes.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::Opened,
    digest::{Algorithm, Digest},
};
use serde_json::{Value, json};
use stand::{
    api::{self, Job, Small},
    daemon::Daemon,
    packages,
    parts::{self, Issuer, Verdaccio},
    proxy::{Fault, Proxy},
    team::{POLICY, PUBLISH, Team, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

async fn team() -> Team {
    let policy = POLICY.replacen("quorum = 2", "quorum = 2\nmode = \"deposit\"", 1);
    Team::with_policy(&policy).await.unwrap()
}

/// A job that asks, hands over, and ends. Its ticket is in the file.
async fn hand_over(team: &Team, what: &Path, more: &[&str]) -> (Waiting, PathBuf) {
    let token = team.id_token().await.unwrap();
    let file = team
        .folder()
        .join(format!("{}.json", stand::free_port().unwrap()));
    let (what, out) = (what.display().to_string(), file.display().to_string());
    let mut args = vec!["request", "npm", &what, "--out", &out];
    args.extend_from_slice(more);
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let mut job = team.job_as(&args, &env).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    (job, file)
}

async fn shown(team: &Team, name: &str) -> Option<String> {
    team.registry.integrity(name, "1.0.0").await.unwrap()
}

/// Waits from somewhere else, with the ticket alone.
async fn wait(team: &Team, file: &Path) -> stand::Output {
    let file = file.display().to_string();
    let args = ["wait", "--published", "--ticket-file", &file];
    team.run(&team.admin, &args, &[]).await.unwrap()
}

fn kept(team: &Team) -> Vec<PathBuf> {
    let files = fs::read_dir(team.daemon.dir().join("data/deposits")).unwrap();
    files.map(|f| f.unwrap().path()).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_job_ends_and_the_broker_publishes_after_the_approval() {
    let team = team().await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let (job, ticket) = hand_over(&team, &dir, &["--hand-over"]).await;
    assert!(job.text().contains("Nothing is published yet"));
    let [payload] = kept(&team).try_into().unwrap();
    // Neither the document nor the tarball can be read there.
    let bytes = fs::read(payload).unwrap();
    for plain in [&b"_attachments"[..], b"H4sI", b"\x1f\x8b\x08"] {
        assert!(!bytes.windows(plain.len()).any(|w| w == plain));
    }
    assert_eq!(shown(&team, "@acme/left").await, None);
    team.approve_both(&job).await.unwrap();
    wait(&team, &ticket).await.ok().unwrap();
    assert!(shown(&team, "@acme/left").await.is_some());
    until("the payload is destroyed", || kept(&team).is_empty()).await;

    // A job that waits itself needs nothing more.
    let dir = team.package("@acme/right", "1.0.0").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(shown(&team, "@acme/right").await.is_some());
}

#[tokio::test]
async fn attack_12_16_only_the_bytes_of_the_request_are_kept_and_a_denial_destroys_them() {
    let team = team().await;
    let name = "@acme/left";
    let (ours, evil) = (
        packages::with_readme(name, "ours").unwrap(),
        packages::with_readme(name, "evil").unwrap(),
    );
    let file = team.folder().join("left.tgz");
    fs::write(&file, &ours).unwrap();
    let (job, ticket) = hand_over(&team, &file, &[]).await;
    let session: Value = serde_json::from_slice(&fs::read(&ticket).unwrap()).unwrap();
    let credential = session["deposit"].as_str().unwrap();
    for (package, bytes) in [(name, &evil), ("@acme/other", &ours)] {
        let (status, text) = team.upload(credential, package, bytes).await.unwrap();
        assert!((400..500).contains(&status), "{status} {text}");
        assert!(kept(&team).is_empty());
    }
    // The same bytes twice are one deposit.
    for _ in 0..2 {
        let (status, text) = team.upload(credential, name, &ours).await.unwrap();
        assert_eq!(status, 201, "{text}");
        assert_eq!(kept(&team).len(), 1);
    }
    let deny = ["deny", job.id.as_str(), "--reason", "not today"];
    let denied = team.run(&team.maintainers[0], &deny, &[]).await.unwrap();
    denied.ok().unwrap();
    assert_eq!(wait(&team, &ticket).await.status, Some(3));
    until("the payload is destroyed", || kept(&team).is_empty()).await;
    assert_eq!(team.upload(credential, name, &ours).await.unwrap().0, 403);
    assert_eq!(shown(&team, name).await, None);
}

#[tokio::test]
async fn attack_44_47_a_payload_survives_a_kill_and_no_change() {
    let mut team = team().await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let (job, ticket) = hand_over(&team, &dir, &["--hand-over"]).await;
    let dir = team.package("@acme/right", "1.0.0").unwrap();
    let (changed, _) = hand_over(&team, &dir, &["--hand-over"]).await;
    team.daemon.kill9();
    // A stray of a crash between file and row goes; the newest payload is changed by one bit.
    let deposits = team.daemon.dir().join("data/deposits");
    fs::write(deposits.join("stray"), "x").unwrap();
    let newest = |p: &PathBuf| fs::metadata(p).unwrap().modified().unwrap();
    let mut files = kept(&team);
    files.retain(|p| !p.ends_with("stray"));
    let evil = files.into_iter().max_by_key(newest).unwrap();
    let mut bytes = fs::read(&evil).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&evil, bytes).unwrap();
    team.daemon.restart().await.unwrap();
    assert_eq!(kept(&team).len(), 2);
    team.approve_both(&job).await.unwrap();
    wait(&team, &ticket).await.ok().unwrap();
    assert!(shown(&team, "@acme/left").await.is_some());
    team.approve_both(&changed).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shown(&team, "@acme/right").await, None);
    assert!(team.daemon.log().contains("a deposit is not published yet"));
}

/// A workspace of three, by hand-over: its request. The process has ended.
async fn hand_over_three(small: &Small) -> Job {
    let root = small.daemon.dir().join("monorepo");
    fs::create_dir(&root).unwrap();
    let manifest = json!({"name": "monorepo", "private": true, "workspaces": ["packages/*"]});
    fs::write(root.join("package.json"), manifest.to_string()).unwrap();
    // Their names are in the wrong order, their needs are not.
    for (name, needs) in [("a", Some("b")), ("b", Some("c")), ("c", None)] {
        let needs = needs.map(|n| json!({"dependencies": {format!("@acme/{n}"): "^1.0.0"}}));
        let folder = root.join("packages").join(name);
        let extra = needs.unwrap_or_else(|| json!({}));
        packages::npm_package(&folder, &format!("@acme/{name}"), "1.0.0", &extra).unwrap();
    }
    let token = small.id_token().await.unwrap();
    let mut args = vec!["request", "npm", "--workspaces", "--hand-over"];
    args.extend(["--out", "request.json"]);
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let waiting = Waiting::start(&small.daemon, &root, &args, &env).await;
    let mut waiting = waiting.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let job = Job::seen_by(&small.alice, &waiting.id, &waiting.match_code).await;
    job.unwrap()
}

#[tokio::test]
async fn a_deposit_of_three_goes_on_by_itself_when_its_registry_is_back() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = api::POLICY.replacen("quorum = 2", "quorum = 2\nmode = \"deposit\"", 1);
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &proxy.url)
        .policy(&policy);
    let small = Small::with_token(builder, issuer, ("npm", &registry.token))
        .await
        .unwrap();
    let job = hand_over_three(&small).await;
    let names: Vec<_> = job.facts.items.iter().map(|i| i.package.as_str()).collect();
    assert_eq!(names, ["@acme/c", "@acme/b", "@acme/a"]);

    // The first goes out; with the upload of the second the registry is gone.
    let second = "PUT /@acme%2fb ";
    proxy.watch_all();
    proxy.arm(second, Fault::Down);
    small.approve(&job).await.unwrap();
    let gone = || proxy.watched(second).iter().any(|w| w.hit);
    until("the second is sent", gone).await;
    let again = || {
        small
            .daemon
            .log()
            .contains("a deposit is not published yet")
    };
    until("the broker tries again later", again).await;
    let mut shown = Vec::new();
    for name in &names {
        shown.push(registry.integrity(name, "1.0.0").await.unwrap().is_some());
    }
    assert_eq!(shown, [true, false, false]);
    assert_eq!(job_state(&small, &job).await, "settling");

    // Nobody runs anything.
    proxy.up();
    let start = Instant::now();
    while job_state(&small, &job).await != "published" {
        assert!(start.elapsed() < PUBLISH, "{}", small.daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for item in &job.facts.items {
        let shown = registry.integrity(item.package.as_str(), "1.0.0").await;
        assert_eq!(shown.unwrap(), Some(item.files[0].digest.sri()));
    }
    // In their order, each once: what never reached the registry does not count.
    let first_line = |up: &Vec<u8>| {
        let text = String::from_utf8_lossy(up);
        text.lines().next().unwrap_or_default().to_owned()
    };
    let mut sent: Vec<_> = proxy.arrived().iter().map(first_line).collect();
    sent.retain(|line| line.starts_with("PUT "));
    let expected = ["c", "b", "a"].map(|n| format!("PUT /@acme%2f{n} HTTP/1.1"));
    assert_eq!(sent, expected);
}

/// The request's state, as people see it.
async fn job_state(small: &Small, job: &Job) -> String {
    let asked: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    asked["state"].as_str().unwrap_or_default().to_owned()
}

/// What a job is told of its request, asked for by this CI account.
async fn opened(team: &Team, actor: &str, name: &str, bytes: &[u8]) -> Opened {
    let mut claims = parts::github_claims(&team.daemon.url);
    claims["actor_id"] = actor.into();
    let token = team.issuer.mint(claims).await.unwrap();
    let item = serde_json::from_value(json!({
        "registry": "npm", "package": name, "version": "1.0.0", "tag": "latest",
        "files": [{"name": "x.tgz", "size": bytes.len(),
            "digest": Digest::of(Algorithm::Sha512, bytes).to_string()}],
    }));
    let (body, _) = api::asking(&[item.unwrap()], name);
    let api = api::Api::of(&team.daemon).unwrap();
    let reply = api.bearer("POST", "/v1/requests", &token, &body).await;
    reply.unwrap().ok().unwrap()
}

#[tokio::test]
async fn attack_53_54_many_requests_of_one_account_do_not_make_many_uploads_at_once() {
    let team = team().await;
    let bytes = |name: &str| packages::with_readme(name, "x").unwrap();
    let mut credentials = Vec::new();
    for (actor, name) in [("666", "@acme/a"), ("666", "@acme/b"), ("8", "@acme/left")] {
        let opened = opened(&team, actor, name, &bytes(name)).await;
        credentials.push(opened.deposit.unwrap());
    }
    let upload = async |at: usize, name: &str| {
        let (status, _) = team
            .upload(&credentials[at], name, &bytes(name))
            .await
            .unwrap();
        status
    };
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(team.slow_upload(&credentials[0], "@acme/a").await.unwrap());
    }
    let start = Instant::now();
    while upload(0, "@acme/a").await != 429 {
        assert!(start.elapsed() < LIMIT, "uploads have no limit");
    }
    // Another request of the same account has no places of its own; its colleague has.
    assert_eq!(upload(1, "@acme/b").await, 429);
    assert_eq!(upload(2, "@acme/left").await, 201);
    // Given back when the connections are gone.
    drop(held);
    let start = Instant::now();
    while upload(1, "@acme/b").await != 201 {
        assert!(start.elapsed() < LIMIT, "a place is lost");
    }
}
