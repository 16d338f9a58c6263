//! After a publish the artifact itself is downloaded and hashed: real registries, and one that serves other bytes than
//! it shows.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::StatusCode;
use proto::{answer::Decision, problem::Code};
use serde_json::{Value, json};
use stand::{
    api::{Device, Job, Small},
    cargo::{self, Freighter},
    daemon::Daemon,
    direct::{Direct, Packed, Wish, policy},
    index::{self, Dist},
    parts::{Issuer, Verdaccio},
    python::PyPiServer,
    team::Waiting,
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_mins(1);
/// Callers of the policies here.
const CALLERS: &str = r#"callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device", "totp"]
"#;

/// The first event of this type, once it is in the log.
async fn event(admin: &Device, kind: &str) -> Value {
    let start = Instant::now();
    loop {
        let log = admin
            .call("GET", "/v1/log/export?from=0&limit=1000", &Value::Null)
            .await
            .unwrap();
        for line in log.text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
            if leaf["event"]["type"] == kind {
                return leaf["event"].clone();
            }
        }
        assert!(start.elapsed() < LIMIT, "no {kind} in {}", log.text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn npm_event(direct: &Direct, kind: &str) -> Value {
    let start = Instant::now();
    loop {
        let (lines, _) = direct.export().await.unwrap();
        for line in &lines {
            let leaf: Value = serde_json::from_str(&line.leaf).unwrap();
            if leaf["event"]["type"] == kind {
                return leaf["event"].clone();
            }
        }
        assert!(start.elapsed() < LIMIT, "no {kind}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn npm(registry: &str, token: &str, name: &str) -> (Daemon, Direct) {
    let daemon = Daemon::builder()
        .registry("npm", "npm", registry)
        .policy(&policy(&[("@acme", 1)]))
        .start()
        .await
        .unwrap();
    let direct = Direct::set_up(&daemon, token, &[name.to_owned()]).await;
    (daemon, direct.unwrap())
}

/// A whole publish.
async fn publish(direct: &Direct, name: &str) -> Packed {
    let packed = Packed::new(name, "1.0.0", name).unwrap();
    let wish = Wish::new(&packed).unwrap();
    let token = direct.id_token().unwrap();
    let opened = direct.open(&token, &wish.asked).await.unwrap();
    let about = (opened.id, opened.request_digest, opened.match_code.as_str());
    direct
        .answer(&direct.alice, about, Decision::Approve)
        .await
        .unwrap();
    let collected = direct.collect(opened.id, &opened.ticket).await.unwrap();
    let credential = wish.credential(&collected).unwrap();
    direct.upload(&packed, &credential).await.unwrap();
    packed
}

#[tokio::test]
async fn what_verdaccio_serves_is_downloaded_and_hashed() {
    let registry = Verdaccio::start().await.unwrap();
    let name = "@acme/left";
    let (_daemon, direct) = npm(&registry.url, &registry.token, name).await;
    let packed = publish(&direct, name).await;
    let event = npm_event(&direct, "artifact-fetched").await;
    assert_eq!(event["digest"], packed.digest.to_string());
}

#[tokio::test]
async fn what_pypiserver_serves_is_downloaded_and_hashed() {
    let registry = PyPiServer::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let policy = format!("[[package]]\nmatch = [\"pypi:acme-*\"]\n{CALLERS}version = \"pep440\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("pypi", "pypi", &registry.index, &keys)
        .policy(&policy);
    let token = registry.token.clone();
    let small = Small::with_token(builder, issuer, ("pypi", &token))
        .await
        .unwrap();
    let wheel = Dist::wheel("acme-left", "1.0.0");
    let job: Job = small.open(&[wheel.item(&[]).unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    let (status, words) = index::post(&small.daemon.registry_url, &credential, wheel.form())
        .await
        .unwrap();
    assert_eq!(status, 200, "{words}");
    let event = event(&small.robin, "artifact-fetched").await;
    assert_eq!(event["digest"], wheel.file().digest.to_string());
}

#[tokio::test]
async fn what_a_cargo_registry_serves_is_downloaded_and_hashed() {
    let registry = Freighter::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.url);
    let policy =
        format!("[[package]]\nmatch = [\"crates:acme-*\"]\n{CALLERS}version = \"semver\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("crates", "crates", &registry.index, &keys)
        .policy(&policy);
    let token = registry.token.clone();
    let small = Small::with_token(builder, issuer, ("crates", &token))
        .await
        .unwrap();
    let folder = small.daemon.dir().join("work");
    std::fs::create_dir(&folder).unwrap();
    let package = cargo::package(&folder, "acme-left", "1.4.2").unwrap();
    let token = small.id_token().await.unwrap();
    let args = ["publish", "crates", &package.display().to_string()];
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let mut waiting = Waiting::start(&small.daemon, &folder, &args, &env)
        .await
        .unwrap();
    let job = Job::seen_by(&small.alice, &waiting.id, &waiting.match_code)
        .await
        .unwrap();
    small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let event = event(&small.robin, "artifact-fetched").await;
    let approved = &job.facts.items[0].files[0].digest;
    assert_eq!(event["digest"], approved.to_string());
}

/// A registry that shows the approved digest of everything, and says that the bytes lie at `place`.
#[derive(Default)]
struct Liar {
    shown: Mutex<BTreeMap<String, String>>,
    place: Mutex<String>,
    downloads: Mutex<Vec<Option<String>>>,
}

async fn document(State(liar): State<Arc<Liar>>, Path(package): Path<String>) -> Response {
    let place = liar.place.lock().unwrap().clone();
    match liar.shown.lock().unwrap().get(&package) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(sri) => Json(json!({"name": package, "versions": {
            "1.0.0": {"dist": {"integrity": sri, "tarball": place}}
        }}))
        .into_response(),
    }
}

async fn taken(
    State(liar): State<Arc<Liar>>,
    Path(package): Path<String>,
    Json(document): Json<Value>,
) -> StatusCode {
    let sri = &document["versions"]["1.0.0"]["dist"]["integrity"];
    let sri = sri.as_str().unwrap().to_owned();
    liar.shown.lock().unwrap().insert(package, sri);
    StatusCode::CREATED
}

async fn bytes(State(liar): State<Arc<Liar>>, headers: http::HeaderMap) -> &'static str {
    let token = headers.get("authorization");
    let token = token.map(|t| t.to_str().unwrap().to_owned());
    liar.downloads.lock().unwrap().push(token);
    "not what was approved"
}

impl Liar {
    async fn start() -> (Arc<Self>, String) {
        let liar = Arc::new(Self::default());
        let router = Router::new()
            .route("/{package}", get(document).put(taken))
            .route("/files/evil.tgz", get(bytes))
            .with_state(Arc::clone(&liar));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (liar, url)
    }
}

#[tokio::test]
async fn attack_59_other_bytes_behind_the_index_freeze_the_package() {
    let (liar, url) = Liar::start().await;
    *liar.place.lock().unwrap() = format!("{url}/files/evil.tgz");
    let name = "@acme/left";
    let (_daemon, direct) = npm(&url, "canary-registry-token", name).await;
    publish(&direct, name).await;
    let event = npm_event(&direct, "frozen-by-broker").await;
    assert_eq!(event["package"], "npm:@acme/left");
    assert_eq!(event["cause"], "artifact-differs");
    npm_event(&direct, "artifact-differs").await;
    // Seen twice, and never with the token: it is not the package's own folder.
    assert_eq!(*liar.downloads.lock().unwrap(), [None, None]);

    let next = Packed::new(name, "1.0.1", name).unwrap();
    let asked = Wish::new(&next).unwrap().asked;
    let token = direct.id_token().unwrap();
    let why = direct.open(&token, &asked).await.err().unwrap();
    assert_eq!(why.code(), Some(Code::Frozen), "{why}");
    // Two people thaw it, and it is not frozen again for the same.
    for (device, frozen) in [(&direct.robin, true), (&direct.alice, false)] {
        let status = direct.freezer(device, "thaw", "npm:@acme/left").await;
        assert_eq!(status.unwrap().frozen, frozen);
    }
    let token = direct.id_token().unwrap();
    direct.open(&token, &asked).await.unwrap();
}

#[tokio::test]
async fn attack_39_a_registry_cannot_send_the_broker_elsewhere() {
    let (visited, other) = Liar::start().await;
    let (liar, url) = Liar::start().await;
    *liar.place.lock().unwrap() = format!("{other}/files/evil.tgz");
    let name = "@acme/left";
    let (_daemon, direct) = npm(&url, "canary-registry-token", name).await;
    publish(&direct, name).await;
    npm_event(&direct, "artifact-elsewhere").await;
    assert!(visited.downloads.lock().unwrap().is_empty());
}
