//! The third outcome of a publish: a registry that takes a file, and shows or serves it to nobody. And other bytes in
//! its place, which are an alarm before the watch looks.

use crate::{CALLERS, count, events, line, look};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::StatusCode;
use proto::{
    digest::{Algorithm, Digest},
    problem::Code,
};
use serde_json::{Value, json};
use stand::{
    api::{self, Job, Packed, Small},
    daemon::Daemon,
    parts::{Clock, Issuer},
};
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(1);

/// What the registry does with what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It shows the document, and has no archive.
    ShowsAlone,
    /// It says yes, and nobody ever sees it.
    Swallows,
    /// Somebody was faster, with other bytes.
    HasOther,
}

struct Shelf {
    does: Does,
    shown: Mutex<Option<Value>>,
}

async fn document(State(shelf): State<Arc<Shelf>>) -> Response {
    match shelf.shown.lock().unwrap().clone() {
        Some(shown) => axum::Json(shown).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn take(
    State(shelf): State<Arc<Shelf>>,
    Path(package): Path<String>,
    axum::Json(sent): axum::Json<Value>,
) -> Response {
    let (version, manifest) = sent["versions"].as_object().unwrap().iter().next().unwrap();
    let mut manifest = manifest.clone();
    if shelf.does == Does::HasOther {
        let other = Digest::of(Algorithm::Sha512, b"other");
        manifest["dist"]["integrity"] = json!(other.sri());
    }
    if shelf.does != Does::Swallows {
        let shown = json!({
            "name": package, "versions": {version: manifest}, "dist-tags": {"latest": version},
        });
        *shelf.shown.lock().unwrap() = Some(shown);
    }
    match shelf.does {
        Does::HasOther => StatusCode::CONFLICT.into_response(),
        _ => axum::Json(json!({"success": true})).into_response(),
    }
}

struct Stage {
    shelf: Arc<Shelf>,
    small: Small,
    clock: Clock,
    _dir: TempDir,
}

impl Stage {
    async fn start(does: Does) -> Self {
        let shelf = Arc::new(Shelf {
            does,
            shown: Mutex::default(),
        });
        // What lies deeper than a package is not there: no archive is.
        let router = Router::new()
            .route("/{package}", get(document).put(take))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shelf));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = TempDir::new().unwrap();
        let clock = Clock::make(dir.path()).await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let policy = format!(
            "[[package]]\nmatch = [\"npm:left\"]\n{CALLERS}version = \"semver\"\ntags = [\"latest\"]\n"
        );
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", &url)
            .policy(&policy);
        let small = Small::with(clock.env(builder), issuer, "canary").await;
        Self {
            shelf,
            small: small.unwrap(),
            clock,
            _dir: dir,
        }
    }

    /// Asked for, approved and sent.
    async fn sent(&self) -> Job {
        let packed = Packed::new("left", "1.0.0").unwrap();
        let job = self.small.open(&[packed.item("latest").unwrap()]).await;
        let job = job.unwrap();
        self.small.approve(&job).await.unwrap();
        let credential = job.credential().await.unwrap();
        let endpoint = &self.small.daemon.registry_url;
        let document = packed.document("latest").unwrap();
        let _ = api::put(endpoint, &credential, "left", document)
            .await
            .unwrap();
        job
    }

    async fn pass(&mut self, seconds: i64) {
        self.clock
            .pass(&mut self.small.daemon, seconds)
            .await
            .unwrap();
    }

    /// Waits until that many alarms were given.
    async fn alarms(&self, number: u64) {
        let start = Instant::now();
        loop {
            let alarms = self.small.daemon.metric("countersign_alarms_total");
            let given = alarms.await.unwrap();
            if given == number {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{given} alarms, not {number}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn inbox(&self) -> Value {
        self.small.alice.inbox().await.unwrap().ok().unwrap()
    }

    /// Whether an archive was asked for at all.
    async fn until_event(&self, kind: &str) {
        let start = Instant::now();
        while count(&events(&self.small).await, kind) == 0 {
            assert!(start.elapsed() < LIMIT, "{kind}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn an_artifact_that_is_shown_and_never_served_is_an_alarm_after_an_hour() {
    let mut stage = Stage::start(Does::ShowsAlone).await;
    let job = stage.sent().await;
    stage.small.until(&job, "published").await.unwrap();
    stage.pass(3500).await;
    // Tried again, and still within its time.
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(stage.inbox().await["unseen"], Value::Null);
    stage.alarms(0).await;
    stage.pass(3700).await;
    stage.until_event("artifact-overdue").await;
    stage.alarms(1).await;
    let unseen = stage.inbox().await["unseen"].clone();
    assert_eq!(unseen.as_array().unwrap().len(), 1, "{unseen}");
    let words = unseen[0].as_str().unwrap();
    assert!(
        words.starts_with("npm:left@1.0.0") && words.contains("nobody can download it"),
        "{words}"
    );
    // Once; and no freeze, since silence can be anybody's.
    stage.pass(8 * 3600).await;
    let all = events(&stage.small).await;
    assert_eq!(count(&all, "artifact-overdue"), 1);
    assert_eq!(count(&all, "frozen-by-broker"), 0);
    assert_eq!(stage.inbox().await["unseen"].as_array().unwrap().len(), 1);
    // Told for a week.
    stage.pass(9 * 24 * 3600).await;
    let start = Instant::now();
    while stage.inbox().await["unseen"] != Value::Null {
        assert!(start.elapsed() < LIMIT, "it is told for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_publish_that_was_accepted_and_never_shown_is_an_alarm_at_its_end() {
    let mut stage = Stage::start(Does::Swallows).await;
    let invite = stage.small.robin.invite("eve", &["others"], false, &[]);
    let eve = api::Device::enroll(&stage.small.daemon, &invite.await.unwrap()).await;
    let eve = eve.unwrap();
    let job = stage.sent().await;
    let state = job.state().await.unwrap();
    assert!(
        ["settling", "releasing"].contains(&state.as_str()),
        "{state}"
    );
    stage.alarms(0).await;
    // The credential, and the time in which what was sent may show up late, are over.
    stage.pass(3600).await;
    stage.small.until(&job, "expired").await.unwrap();
    stage.alarms(1).await;
    let all = events(&stage.small).await;
    assert_eq!(count(&all, "outcome-unclear"), 1);
    assert_eq!(count(&all, "request-expired"), 1);
    let status = job.status().await.unwrap();
    assert!(status.text.contains("may have taken it"), "{}", status.text);
    let unseen = stage.inbox().await["unseen"].clone();
    let words = unseen[0].as_str().unwrap();
    assert!(
        words.starts_with("npm:left@1.0.0") && words.contains("did not show it in time"),
        "{words}"
    );
    // Whoever is not asked about the package is not told of it either.
    let inbox: Value = eve.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox["unseen"], Value::Null, "{inbox}");
}

#[tokio::test]
async fn a_credential_that_was_never_used_is_no_alarm() {
    let mut stage = Stage::start(Does::Swallows).await;
    let packed = Packed::new("left", "1.0.0").unwrap();
    let item = packed.item("latest").unwrap();
    let job = stage.small.open(&[item]).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    job.credential().await.unwrap();
    stage.pass(3600).await;
    stage.small.until(&job, "expired").await.unwrap();
    assert_eq!(count(&events(&stage.small).await, "outcome-unclear"), 0);
    stage.alarms(0).await;
    assert_eq!(stage.inbox().await["unseen"], Value::Null);
}

#[tokio::test]
async fn attack_59_other_bytes_in_the_place_of_a_publish_freeze_the_package_at_once() {
    let stage = Stage::start(Does::HasOther).await;
    look(&stage.small).await;
    let job = stage.sent().await;
    stage.small.until(&job, "conflict").await.unwrap();
    stage.alarms(1).await;
    let all = events(&stage.small).await;
    let place = |kind: &str| all.iter().position(|e| e["type"] == kind).unwrap();
    assert_eq!(place("frozen-by-broker").abs_diff(place("conflict")), 1);
    let inbox = stage.inbox().await;
    let alarm = inbox["alarms"][0].as_str().unwrap();
    assert!(alarm.contains("npm:left@1.0.0"), "{alarm}");
    let next = [Packed::new("left", "1.1.0")
        .unwrap()
        .item("latest")
        .unwrap()];
    let token = stage.small.id_token().await.unwrap();
    let refused = stage.small.open_raw(&token, &next).await.unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen), "{}", refused.text);
    // The watch knows of it, and gives no second alarm for the same bytes.
    let report = look(&stage.small).await;
    assert_eq!(line(&report, "npm:left")["others"], json!(["1.0.0"]));
    stage.alarms(1).await;
    assert!(stage.shelf.shown.lock().unwrap().is_some());
}
