//! A registry that writes down everything it is asked, and shows what it was sent.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The registry token of these tests.
pub(crate) const TOKEN: &str = "canary-registry-token";

/// One request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) token: bool,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    packages: BTreeMap<String, Value>,
}

/// The registry.
#[derive(Clone, Default)]
pub(crate) struct Upstream {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        upstream
    }

    /// Everything that was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// Everything that could change something.
    pub(crate) fn writes(&self) -> Vec<Seen> {
        let mut all = self.seen();
        all.retain(|s| s.method != "GET" && s.method != "HEAD");
        all
    }

    /// Makes a version exist already.
    pub(crate) fn has(&self, package: &str, version: &str) {
        let document = json!({"name": package, "versions": {version: {"dist": {}}}});
        let mut inner = self.inner.lock().unwrap();
        inner.packages.insert(package.to_owned(), document);
    }
}

async fn serve(
    State(upstream): State<Upstream>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = upstream.inner.lock().unwrap();
    let token = headers
        .values()
        .any(|v| String::from_utf8_lossy(v.as_bytes()).contains(TOKEN));
    inner.seen.push(Seen {
        method: method.to_string(),
        path: uri.path().to_owned(),
        token,
        body: body.to_vec(),
    });
    let package = uri.path().trim_start_matches('/').replace("%2f", "/");
    if method == Method::PUT {
        let document = serde_json::from_slice(&body).unwrap_or_default();
        inner.packages.insert(package, document);
        return Json(json!({"success": true})).into_response();
    }
    match inner.packages.get(&package) {
        Some(document) => Json(document.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({}))).into_response(),
    }
}
