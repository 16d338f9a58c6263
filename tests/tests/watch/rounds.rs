//! The rounds themselves: who can break some looks must not hide the rest, and nobody has to ask for one.

use crate::{CALLERS, count, events, line, look, past_the_broker};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use proto::digest::{Algorithm, Digest};
use serde_json::{Value, json};
use stand::{
    api::Small,
    daemon::Daemon,
    parts::{Clock, Issuer, Verdaccio},
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How each package is answered for: `cut` in the middle of the answer, `html`, or a list of versions.
type Moods = Arc<Mutex<BTreeMap<String, &'static str>>>;

async fn document(State(moods): State<Moods>, Path(package): Path<String>) -> Response {
    let mood = moods
        .lock()
        .unwrap()
        .get(&package)
        .copied()
        .unwrap_or("1.0.0");
    if mood == "cut" {
        // The library closes the connection before the answer's end.
        let broken = std::io::Error::other("cut");
        let body = futures_util::stream::iter([Ok("{\"versions\":"), Err(broken)]);
        return Body::from_stream(body).into_response();
    }
    if mood == "html" {
        return axum::response::Html("<html>back soon</html>").into_response();
    }
    let dist =
        |v: &str| json!({"dist": {"integrity": Digest::of(Algorithm::Sha512, v.as_bytes()).sri()}});
    let versions: serde_json::Map<_, _> =
        mood.split(' ').map(|v| (v.to_owned(), dist(v))).collect();
    axum::Json(json!({"name": package, "versions": versions})).into_response()
}

async fn moody() -> (String, Moods) {
    let moods = Moods::default();
    let router = Router::new()
        .route("/{package}", get(document))
        .with_state(Arc::clone(&moods));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, moods)
}

fn frozen(report: &Value, name: &str) -> bool {
    line(report, &format!("npm:{name}"))["frozen"] == true
}

#[tokio::test]
async fn attack_59_three_packages_that_cannot_be_seen_do_not_blind_the_watch_for_the_rest() {
    let (url, moods) = moody().await;
    let dir = tempfile::TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let names = ["a", "b", "c", "y", "z"];
    let matches = names.map(|n| format!("npm:{n}"));
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &url)
        .policy(&format!(
            "[[package]]\nmatch = {matches:?}\n{CALLERS}version = \"semver\"\n"
        ));
    let mut small = Small::with(clock.env(builder), issuer, "canary")
        .await
        .unwrap();
    let set = |names: &[&str], mood| {
        let mut moods = moods.lock().unwrap();
        moods.extend(names.iter().map(|n| ((*n).to_owned(), mood)));
    };
    look(&small).await;

    // What is wrong with these three is not the registry's silence: the same round looks at the others.
    set(&["a", "b", "c"], "html");
    set(&["y"], "1.0.0 1.1.0");
    assert!(frozen(&look(&small).await, "y"));
    // Silence is: the others have their turn at the next round, and are not said to be seen until then.
    set(&["a", "b", "c"], "cut");
    set(&["z"], "1.0.0 1.1.0");
    let report = look(&small).await;
    let passed_over = line(&report, "npm:z");
    assert!(passed_over["problem"].is_string(), "{passed_over}");
    let report = look(&small).await;
    assert!(frozen(&report, "z"), "{report}");
    assert!(line(&report, "npm:z")["problem"].is_null(), "{report}");

    // A registry that is silent for hours is an alarm for each of them, whoever was asked for.
    set(&names, "cut");
    look(&small).await;
    assert_eq!(count(&events(&small).await, "watch-blind"), 0);
    clock.pass(&mut small.daemon, 7 * 3600).await.unwrap();
    look(&small).await;
    assert_eq!(count(&events(&small).await, "watch-blind"), names.len());
    look(&small).await;
    assert_eq!(count(&events(&small).await, "watch-blind"), names.len());
}

#[tokio::test]
async fn attack_59_nobody_has_to_ask_for_a_look() {
    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = format!("[[package]]\nmatch = [\"npm:left\"]\n{CALLERS}version = \"semver\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &registry.url)
        .policy(&policy)
        .extra("[watch]\nevery = \"1m\"\n");
    let small = Small::with(builder, issuer, &registry.token).await.unwrap();
    past_the_broker(&registry, "left", "1.0.0").await;
    look(&small).await;
    past_the_broker(&registry, "left", "1.1.0").await;
    // From here on nobody asks for one: the broker's own round finds it.
    let start = Instant::now();
    loop {
        let alarms = small.daemon.metric("countersign_alarms_total");
        if alarms.await.unwrap() == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(3), "nobody looks");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let inbox: Value = small.alice.inbox().await.unwrap().ok().unwrap();
    let alarm = inbox["alarms"][0].as_str().unwrap();
    assert!(alarm.contains("npm:left@1.1.0"), "{alarm}");
}
