//! Servers of kind `http`: a real nginx that takes files by `PUT`, through the broker.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::request::Item;
use serde_json::Value;
use stand::{
    api::{Api, Job, Reply, Small},
    daemon::Daemon,
    nginx::Nginx,
    oci,
    parts::Issuer,
    team::Waiting,
};
use std::{fs, path::PathBuf};

const POLICY: &str = r#"
[[package]]
match = ["files:acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device", "totp"]
version = "any"
"#;
const KEYS: &str = r#"
path = "/store/{package}/{version}/{file}"
token_header = "X-Api-Key: {token}"
"#;

struct Stage {
    server: Nginx,
    small: Small,
    folder: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        let server = Nginx::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry_with("files", "http", &server.url, KEYS)
            .policy(POLICY);
        let token = server.token.clone();
        let small = Small::with_token(builder, issuer, ("files", &token)).await;
        let small = small.unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            server,
            small,
            folder,
        }
    }

    async fn publish(&self, args: &[&str]) -> (Waiting, Job) {
        let token = self.small.id_token().await.unwrap();
        let all: Vec<&str> = ["publish", "files"].iter().chain(args).copied().collect();
        let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
        let waiting = Waiting::start(&self.small.daemon, &self.folder, &all, &env);
        let waiting = waiting.await.unwrap();
        let job = Job::seen_by(&self.small.alice, &waiting.id, &waiting.match_code).await;
        (waiting, job.unwrap())
    }

    async fn approve(&self, job: &Job) {
        let _: Value = self.small.alice.approve(job).await.unwrap().ok().unwrap();
    }

    async fn collected(&self, item: &Item) -> (Api, String, Job) {
        let job = self.small.open(std::slice::from_ref(item)).await.unwrap();
        self.approve(&job).await;
        let credential = format!("Bearer {}", job.credential().await.unwrap());
        (self.small.endpoint().unwrap(), credential, job)
    }
}

fn item(files: &[(&str, &[u8])]) -> Item {
    let files = files.iter().map(|(name, bytes)| oci::file(name, bytes));
    let item = oci::item("acme/app", "1.0", files.collect()).unwrap();
    Item {
        registry: "files".parse().unwrap(),
        ..item
    }
}

#[tokio::test]
async fn files_are_published_by_our_own_client_and_by_curl_after_approval() {
    let stage = Stage::start().await;
    let large = vec![5; 300_000];
    fs::write(stage.folder.join("app.tgz"), &large).unwrap();
    fs::write(stage.folder.join("app-1.0.whl"), "not a wheel").unwrap();
    let args = ["app.tgz", "app-1.0.whl", "--as", "acme/app@1.0"];
    let (mut waiting, job) = stage.publish(&args).await;
    assert!(stage.server.is_empty().unwrap());
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let stored = fs::read(stage.server.file("store/acme/app/1.0/app.tgz"));
    assert_eq!(stored.unwrap(), large);

    let command = "curl -sS -T app.tgz \"$UPLOAD_URL/\"";
    let args = ["app.tgz", "--as", "acme/app@1.1", "--", "sh", "-c", command];
    let (mut waiting, job) = stage.publish(&args).await;
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    assert!(stage.server.file("store/acme/app/1.1/app.tgz").exists());
}

#[tokio::test]
async fn attack_12_15_16_and_20_only_the_approved_file_goes_to_its_own_place() {
    let stage = Stage::start().await;
    let (origin, credential, job) = stage.collected(&item(&[("app.tgz", b"bytes")])).await;
    let call = async |method: &str, path: &str, credential: &str, body: &[u8]| -> Reply {
        let headers = [("authorization", credential)];
        origin
            .call(method, path, &headers, body.to_vec())
            .await
            .unwrap()
    };
    let place = "/files/acme/app/1.0/app.tgz";
    for (path, body) in [
        (place, &b"bytez"[..]),
        (place, b"bytes "),
        (place, b""),
        ("/files/acme/app/1.0/app.sig", b"bytes"),
        ("/files/acme/app/1.1/app.tgz", b"bytes"),
        ("/files/acme/other/1.0/app.tgz", b"bytes"),
        ("/files/acme/app/x/1.0/app.tgz", b"bytes"),
        ("/files/acme%2fapp/1.0/app.tgz", b"bytes"),
        ("/files/acme/app/1.0/app.tgz?x=1", b"bytes"),
        ("/store/acme/app/1.0/app.tgz", b"bytes"),
    ] {
        let reply = call("PUT", path, &credential, body).await;
        assert!(!reply.good(), "{path}: {}", reply.text);
    }
    for method in ["DELETE", "GET", "POST", "MKCOL", "PATCH"] {
        let reply = call(method, place, &credential, b"bytes").await;
        assert!(!reply.good(), "{method}: {}", reply.text);
    }
    for other in [
        "",
        "Bearer csc_AAAA",
        &format!("Bearer {}", stage.server.token),
    ] {
        assert!(!call("PUT", place, other, b"bytes").await.good(), "{other}");
    }
    assert!(stage.server.is_empty().unwrap());
    for _ in 0..2 {
        let reply = call("PUT", place, &credential, b"bytes").await;
        reply.ok_status().unwrap();
    }
    assert_eq!(job.state().await.unwrap(), "published");
    let stored = fs::read(stage.server.file("store/acme/app/1.0/app.tgz"));
    assert_eq!(stored.unwrap(), b"bytes");
}

#[tokio::test]
async fn a_file_that_is_there_with_other_bytes_is_a_conflict_and_is_not_replaced() {
    let stage = Stage::start().await;
    let (origin, credential, job) = stage.collected(&item(&[("app.tgz", b"bytes")])).await;
    let there = stage.server.file("store/acme/app/1.0/app.tgz");
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&there, "other").unwrap();
    let headers = [("authorization", credential.as_str())];
    let place = "/files/acme/app/1.0/app.tgz";
    let reply = origin.call("PUT", place, &headers, b"bytes".to_vec()).await;
    assert!(!reply.unwrap().good());
    assert_eq!(job.state().await.unwrap(), "conflict");
    assert_eq!(fs::read(&there).unwrap(), b"other");
}
