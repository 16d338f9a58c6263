//! A registry on loopback for the adapters' own tests.

use axum::{Router, body::to_bytes, extract::Request, response::IntoResponse};
use http::StatusCode;
use std::sync::{Arc, Mutex};
use url::Url;

/// What a fake registry saw of one request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) type Log = Arc<Mutex<Vec<Seen>>>;

/// A registry on loopback that answers everything in one way.
pub(super) async fn fake(
    status: u16,
    headers: &[(&'static str, String)],
    body: &str,
) -> (Url, Log) {
    let log = Log::default();
    let (seen, body, headers) = (Arc::clone(&log), body.to_owned(), headers.to_vec());
    let app = Router::new().fallback(move |request: Request| {
        let (seen, body, headers) = (Arc::clone(&seen), body.clone(), headers.clone());
        async move {
            let (parts, data) = request.into_parts();
            let data = to_bytes(data, 64 << 20).await.unwrap_or_default();
            seen.lock().unwrap().push(Seen {
                method: parts.method.to_string(),
                path: parts.uri.to_string(),
                headers: parts.headers,
                body: data.to_vec(),
            });
            let mut reply = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                reply.headers_mut().insert(name, value.parse().unwrap());
            }
            reply
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/r", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url.parse().unwrap(), log)
}
