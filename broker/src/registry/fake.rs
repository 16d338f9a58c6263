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
    let body = body.to_owned();
    started(headers, move |_: &Seen| (status, body.clone())).await
}

/// One that answers by what it is asked: status and body.
pub(super) async fn fake_with<F>(answer: F) -> (Url, Log)
where
    F: Fn(&Seen) -> (u16, String) + Clone + Send + Sync + 'static,
{
    started(&[], answer).await
}

/// One that answers by what stands in the `authorization` header: of these texts the first that it holds.
pub(super) async fn answering(answers: &[(&str, (u16, &str))]) -> (Url, Log) {
    let own = |(held, (status, body)): &(&str, (u16, &str))| {
        ((*held).to_owned(), (*status, (*body).to_owned()))
    };
    let answers: Vec<_> = answers.iter().map(own).collect();
    // An index's page is read by its type; the others do not look at it.
    let kind = "application/vnd.pypi.simple.v1+json".to_owned();
    started(&[("content-type", kind)], move |seen: &Seen| {
        let shown = seen.headers.get("authorization");
        let shown = shown.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let answer = answers.iter().find(|(held, _)| shown.contains(held));
        answer.map_or((404, String::new()), |(_, answer)| answer.clone())
    })
    .await
}

async fn started<F>(headers: &[(&'static str, String)], answer: F) -> (Url, Log)
where
    F: Fn(&Seen) -> (u16, String) + Clone + Send + Sync + 'static,
{
    let log = Log::default();
    let (seen, headers) = (Arc::clone(&log), headers.to_vec());
    let app = Router::new().fallback(move |request: Request| {
        let (seen, answer, headers) = (Arc::clone(&seen), answer.clone(), headers.clone());
        async move {
            let (parts, data) = request.into_parts();
            let data = to_bytes(data, 64 << 20).await.unwrap_or_default();
            let asked = Seen {
                method: parts.method.to_string(),
                path: parts.uri.to_string(),
                headers: parts.headers,
                body: data.to_vec(),
            };
            let (status, body) = answer(&asked);
            seen.lock().unwrap().push(asked);
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
