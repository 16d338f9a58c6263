//! Connections to the registry that break at every kind of moment: after the client's retry the record agrees with
//! what the registry shows.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::get,
};
use http::StatusCode;
use proto::{
    answer::Decision,
    api::{Opened, StateName},
    problem::Code,
};
use serde_json::{Value, json};
use stand::{
    daemon::Daemon,
    direct::{Direct, Fail, Packed, Wish, policy},
    free_port,
    parts::Verdaccio,
    proxy::{Fault, Proxy},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinSet};

/// Uploads of the same bytes that a client tries; npm tries three times.
const TRIES: usize = 3;

async fn stand(registry: &str, token: &str, names: &[String]) -> (Daemon, Arc<Direct>) {
    let daemon = Daemon::builder()
        .registry("npm", "npm", registry)
        .policy(&policy(&[("@acme", 1)]))
        .start()
        .await
        .unwrap();
    let direct = Direct::set_up(&daemon, token, names).await.unwrap();
    (daemon, Arc::new(direct))
}

/// Opens, approves and collects; returns what an upload needs.
async fn approved(direct: &Direct, name: &str) -> (Packed, Opened, String) {
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
    (packed, opened, credential)
}

async fn upload_until_done(direct: &Direct, packed: &Packed, credential: &str) {
    let mut last = None;
    for _ in 0..TRIES {
        match direct.upload(packed, credential).await {
            Ok(_) => return,
            Err(why) => last = Some(why),
        }
    }
    panic!("{}: {}", packed.name, last.unwrap());
}

fn put_of(name: &str) -> String {
    format!("PUT /{} ", name.replace('/', "%2f"))
}

async fn agrees(direct: &Direct, registry: &Verdaccio, packed: &Packed, opened: &Opened) {
    let name = &packed.name;
    let status = direct.status(opened.id, &opened.ticket).await.unwrap();
    assert_eq!(status.state, StateName::Published, "{name}");
    assert_eq!(
        status.items[0].files[0].read_back.as_ref(),
        Some(&packed.digest)
    );
    let shown = registry.integrity(name, "1.0.0").await.unwrap();
    assert_eq!(shown, Some(packed.digest.sri()), "{name}");
}

#[tokio::test]
async fn a_connection_cut_after_any_byte_leaves_no_wrong_record() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Arc::new(Proxy::start(&registry.url).await.unwrap());
    let name = |n: usize| format!("@acme/c{n:02}");
    let names: Vec<_> = (0..20).map(name).collect();
    let (_daemon, direct) = stand(&proxy.url, &registry.token, &names).await;

    // Without a fault first: it shows how many bytes there are to cut.
    let (packed, opened, credential) = approved(&direct, &names[0]).await;
    proxy.arm(&put_of(&names[0]), Fault::None);
    upload_until_done(&direct, &packed, &credential).await;
    agrees(&direct, &registry, &packed, &opened).await;
    let whole = &proxy.watched(&put_of(&names[0]))[0];
    let (up, down) = (whole.up.len() as u64, whole.down);
    let head = whole.up.windows(4).position(|w| w == b"\r\n\r\n").unwrap() as u64 + 4;
    assert!(up > head && down > 20, "{up} {head} {down}");

    let mut faults = Vec::new();
    for k in [
        0,
        1,
        head - 1,
        head,
        head + 1,
        u64::midpoint(head, up),
        up - 1,
        up,
    ] {
        faults.push(Fault::CutUp(k));
    }
    for k in [0, 1, 12, down / 2, down - 1, down] {
        faults.push(Fault::CutDown(k));
    }
    faults.extend([Fault::ResetDown(0), Fault::ResetDown(down / 2)]);
    let mut cases = JoinSet::new();
    for (fault, name) in faults.into_iter().zip(names.into_iter().skip(1)) {
        let (direct, proxy) = (Arc::clone(&direct), Arc::clone(&proxy));
        cases.spawn(async move {
            let (packed, opened, credential) = approved(&direct, &name).await;
            proxy.arm(&put_of(&name), fault);
            upload_until_done(&direct, &packed, &credential).await;
            (name, fault, packed, opened)
        });
    }
    let (mut count, mut sent) = (0, 0);
    while let Some(case) = cases.join_next().await {
        let (name, fault, packed, opened) = case.unwrap();
        agrees(&direct, &registry, &packed, &opened).await;
        let uploads = proxy.watched(&put_of(&name));
        assert!(uploads[0].hit, "{fault:?} did not hit");
        // Whatever was sent again is the same, up to the byte where it was cut.
        let longest = uploads.iter().max_by_key(|u| u.up.len()).unwrap();
        for upload in &uploads {
            assert!(longest.up.starts_with(&upload.up), "{fault:?}");
        }
        count += 1;
        sent += uploads.len();
    }
    println!("faults {count}, uploads {sent}, bytes up {up}, down {down}, wrong records 0");
}

#[tokio::test]
async fn a_registry_that_is_down_costs_no_approval() {
    let registry = Verdaccio::start().await.unwrap();
    let port = free_port().unwrap();
    let names = ["@acme/left".to_owned()];
    let url = format!("http://127.0.0.1:{port}");
    let (mut daemon, direct) = stand(&url, &registry.token, &names).await;
    let (packed, opened, credential) = approved(&direct, &names[0]).await;
    for _ in 0..2 {
        let why = direct.upload(&packed, &credential).await.unwrap_err();
        assert_eq!(why.code(), Some(Code::RegistryDown), "{why}");
        assert!(why.to_string().contains("publish again"), "{why}");
    }
    let status = direct.status(opened.id, &opened.ticket).await.unwrap();
    assert_eq!(status.state, StateName::Releasing);

    // A crash of the broker meanwhile changes nothing.
    daemon.restart().await.unwrap();
    let _back = Proxy::at(port, &registry.url).await.unwrap();
    upload_until_done(&direct, &packed, &credential).await;
    agrees(&direct, &registry, &packed, &opened).await;
}

/// A registry on a bad day: what it does is its package's name; once healed it is a plain registry.
#[derive(Default)]
struct Bad {
    shown: Mutex<BTreeMap<String, String>>,
    spoiled: Mutex<BTreeSet<String>>,
    elsewhere: String,
}

impl Bad {
    /// Whether this is the first time for a package.
    fn first(&self, package: &str) -> bool {
        self.spoiled.lock().unwrap().insert(package.to_owned())
    }
}

async fn bad_get(State(bad): State<Arc<Bad>>, Path(package): Path<String>) -> Response {
    // The first read-back, not the question about versions when the request is opened.
    match package.as_str() {
        "@acme/get-html" if bad.first("get-html-1") || bad.first("get-html-2") => {
            return Html("<html>maintenance</html>").into_response();
        }
        "@acme/get-500" if bad.first("get-500-1") || bad.first("get-500-2") => {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        "@acme/get-redirect" if bad.first("get-redirect-1") || bad.first("get-redirect-2") => {
            return Redirect::temporary(&bad.elsewhere).into_response();
        }
        _ => {}
    }
    match bad.shown.lock().unwrap().get(&package) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(sri) => {
            Json(json!({"name": package, "versions": {"1.0.0": {"dist": {"integrity": sri}}}}))
                .into_response()
        }
    }
}

async fn bad_put(
    State(bad): State<Arc<Bad>>,
    Path(package): Path<String>,
    Json(document): Json<Value>,
) -> Response {
    let first = bad.first(&package);
    match package.as_str() {
        "@acme/put-500" if first => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "@acme/put-html" if first => return Html("<html>welcome</html>").into_response(),
        "@acme/put-redirect" if first => {
            return Redirect::temporary(&bad.elsewhere).into_response();
        }
        _ => {}
    }
    let sri = &document["versions"]["1.0.0"]["dist"]["integrity"];
    let sri = sri.as_str().unwrap().to_owned();
    bad.shown.lock().unwrap().insert(package, sri);
    StatusCode::CREATED.into_response()
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn errors_pages_and_redirects_give_no_token_away_and_no_wrong_record() {
    let visitors = Arc::new(Mutex::new(Vec::<String>::new()));
    let seen = Arc::clone(&visitors);
    let elsewhere = Router::new().fallback(move |request: axum::extract::Request| async move {
        seen.lock().unwrap().push(format!("{request:?}"));
        StatusCode::OK
    });
    let elsewhere = format!("{}/taken", serve(elsewhere).await);
    let bad = Arc::new(Bad {
        elsewhere,
        ..Bad::default()
    });
    let router = Router::new()
        .route("/{package}", get(bad_get).put(bad_put))
        .with_state(Arc::clone(&bad));
    let url = serve(router).await;
    let kinds = [
        "put-500",
        "put-html",
        "put-redirect",
        "get-500",
        "get-html",
        "get-redirect",
    ];
    let names = kinds.map(|k| format!("@acme/{k}"));
    let (_daemon, direct) = stand(&url, "canary-registry-token", &names).await;

    let mut cases = JoinSet::new();
    for name in names {
        let direct = Arc::clone(&direct);
        cases.spawn(async move {
            let (packed, opened, credential) = approved(&direct, &name).await;
            let first: Result<Value, Fail> = direct.upload(&packed, &credential).await;
            if name.contains("/get-") {
                let why = first.unwrap_err();
                assert_eq!(why.code(), Some(Code::RegistryDown), "{name}: {why}");
            }
            upload_until_done(&direct, &packed, &credential).await;
            (
                packed,
                direct.status(opened.id, &opened.ticket).await.unwrap(),
            )
        });
    }
    while let Some(case) = cases.join_next().await {
        let (packed, status) = case.unwrap();
        assert_eq!(status.state, StateName::Published, "{}", packed.name);
        let shown = bad.shown.lock().unwrap().get(&packed.name).cloned();
        assert_eq!(shown, Some(packed.digest.sri()), "{}", packed.name);
    }
    let visitors = visitors.lock().unwrap();
    assert!(visitors.is_empty(), "{visitors:?}");
}
