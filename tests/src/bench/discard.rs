//! A registry that throws every upload away, and shows what it was told beforehand: for all kinds, since it looks for a
//! package's name in the first bytes alone.

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use http::{Method, StatusCode, header};
use stand::artifact::{Artifact, Kind, VERSION};
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;

/// Bytes at the front of an upload that name the package.
const HEAD: usize = 16 << 10;

/// What is shown of one package once it was uploaded.
struct Shown {
    name: String,
    landed: bool,
    kind: &'static str,
    page: Bytes,
}

/// The registry.
#[derive(Clone, Default)]
pub(crate) struct Discard {
    /// Its origin.
    pub(crate) url: String,
    shown: Arc<Mutex<Vec<Shown>>>,
}

impl Discard {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let sink = Self {
            url: format!("http://{}", listener.local_addr()?),
            shown: Arc::default(),
        };
        let own = sink.clone();
        let router = Router::new().fallback(move |request: Request| {
            let own = own.clone();
            async move { own.answer(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(sink)
    }

    /// What it will show of this package.
    pub(crate) fn expect(&self, kind: Kind, artifact: &Artifact) {
        let item = &artifact.item;
        let name = item.package.as_str();
        let file = item.files.first().map(|f| f.name.clone());
        let hex = proto::digest::hex(artifact.digest.as_bytes());
        let (media_type, page) = match kind {
            Kind::Npm => (
                "application/json",
                serde_json::json!({
                    "dist-tags": {"latest": VERSION},
                    "versions": {VERSION: {"dist": {"integrity": artifact.digest.sri()}}},
                }),
            ),
            Kind::PyPi => (
                "application/vnd.pypi.simple.v1+json",
                serde_json::json!({
                    "meta": {"api-version": "1.1"}, "name": name,
                    "files": [{"filename": file, "url": "x", "hashes": {"sha256": hex}}],
                }),
            ),
            Kind::Crates => (
                "text/plain",
                serde_json::json!({
                    "name": name, "vers": VERSION, "deps": [], "cksum": hex, "features": {},
                    "yanked": false,
                }),
            ),
        };
        let mut page = page.to_string();
        page.push('\n');
        self.all().push(Shown {
            name: name.to_owned(),
            landed: false,
            kind: media_type,
            page: page.into(),
        });
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request) -> Response {
        if request.method() == Method::GET {
            let path = request.uri().path().replace("%2f", "/");
            let all = self.all();
            let found = all.iter().find(|s| s.landed && path.contains(&s.name));
            return match found {
                Some(s) => ([(header::CONTENT_TYPE, s.kind)], s.page.clone()).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            };
        }
        let mut head = Vec::new();
        let mut frames = request.into_body().into_data_stream();
        while let Some(frame) = frames.next().await {
            let Ok(frame) = frame else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            let room = HEAD.saturating_sub(head.len()).min(frame.len());
            head.extend_from_slice(frame.get(..room).unwrap_or_default());
        }
        let head = String::from_utf8_lossy(&head);
        for shown in self.all().iter_mut().filter(|s| head.contains(&s.name)) {
            shown.landed = true;
        }
        (StatusCode::OK, "{}").into_response()
    }
}
