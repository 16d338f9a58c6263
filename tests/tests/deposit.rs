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
    api, packages, parts,
    team::{POLICY, Team, Waiting},
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
