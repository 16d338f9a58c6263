//! The exchange that uv and pdm make by themselves in a job that has an id token: they ask for the audience,
//! hand the id token in, and uv says when it is done. The form is the public index's.

use crate::{
    caller::Caller,
    desk::{Desk, Registry},
    http::{auth, reply::Failed},
    publish::unannounced,
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use proto::{
    bearer::{Bearer, Kind},
    ids::RegistryId,
    problem::Code,
    time::UnixTime,
};
use serde::Deserialize;
use std::time::Duration;
use url::Url;
use zeroize::{Zeroize as _, Zeroizing};

/// Where all of it lies: at the host's root, whatever the upload's path is.
pub(super) const PATH: &str = "/_/oidc/";
/// Longest body: an id token has at most 8 KiB.
const BODY_MAX: usize = 16 << 10;
/// Time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The body of both calls; the index's own clients send nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handed {
    token: String,
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// Answers one request.
pub(super) async fn serve(desk: &Desk, registry: &RegistryId, request: Request) -> Response {
    let done = match (request.method(), request.uri().path()) {
        (&Method::GET, "/_/oidc/audience") => audience(desk, registry)
            .map(|audience| Json(serde_json::json!({"audience": audience})).into_response()),
        (&Method::POST, "/_/oidc/mint-token") => mint(desk, registry, request).await,
        (&Method::POST, "/_/oidc/burn-token") => burn(desk, request).await,
        _ => Err(Failed::new(Code::NotFound, "no such call", "")),
    };
    done.unwrap_or_else(|failed| refused(&failed))
}

/// The one audience of this origin: a token that was made for the API, or for another registry's origin,
/// is none here.
fn audience(desk: &Desk, registry: &RegistryId) -> Result<String, Failed> {
    match desk.registries.get(registry) {
        Some(Registry::Forward { endpoint, .. }) => Ok(audience_of(endpoint)),
        _ => Err(Failed::new(Code::NotFound, "no such registry", "")),
    }
}

fn audience_of(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    match endpoint.port() {
        Some(port) => format!("pypi:{host}:{port}"),
        None => format!("pypi:{host}"),
    }
}

/// Lets the job upload for a while. uv hands the same id token in up to four times: it gets the same answer.
async fn mint(desk: &Desk, registry: &RegistryId, request: Request) -> Result<Response, Failed> {
    let handed = body(request).await?;
    auth::trusted_clock(desk)?;
    let now = desk.world.now();
    let caller = caller(desk, registry, &handed.token, now).await?;
    let (token, until) = unannounced::exchange(desk, registry, None, caller, now).await?;
    let text = Zeroizing::new(token.expose());
    let reply = serde_json::json!({
        "success": true, "token": text.as_str(), "expires": until.since(now),
    });
    Ok(Json(reply).into_response())
}

async fn caller(
    desk: &Desk,
    registry: &RegistryId,
    token: &str,
    now: UnixTime,
) -> Result<Caller, Failed> {
    let issuers = desk.issuers.for_audience(audience(desk, registry)?);
    let verified = issuers.verify(token, now).await;
    verified.map_err(|why| auth::refused(&why))
}

/// Ends a guest. The answer says nothing about whether there was one, as the public index's does.
async fn burn(desk: &Desk, request: Request) -> Result<Response, Failed> {
    let handed = body(request).await?;
    if let Ok(token) = Bearer::parse(Kind::Guest, &handed.token) {
        desk.guests.end(token.hash());
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn body(request: Request) -> Result<Handed, Failed> {
    let taking = axum::body::to_bytes(request.into_body(), BODY_MAX);
    let Ok(Ok(body)) = tokio::time::timeout(BODY_TIME, taking).await else {
        let title = "the body did not arrive";
        return Err(Failed::new(Code::BadRequest, title, ""));
    };
    serde_json::from_slice(&body).map_err(|_| {
        let title = "the body is not {\"token\": \"…\"}";
        Failed::new(Code::BadRequest, title, "")
    })
}

/// The index's form of a no: clients show it whole. What is the caller's own fault is 422 there; the rest
/// keeps its status, since clients repeat what is 5xx.
fn refused(failed: &Failed) -> Response {
    let problem = &failed.0;
    let status = match problem.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        _ if problem.status < 500 && problem.status != 429 => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let description = format!("{}. {}", problem.title, problem.detail);
    let reply = serde_json::json!({
        "message": problem.title,
        "errors": [{"code": problem.code.text(), "description": description.trim()}],
    });
    (status, Json(reply)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_audience() {
        for (endpoint, audience) in [
            ("https://pypi.broker.example/", "pypi:pypi.broker.example"),
            ("https://broker.example:8443/", "pypi:broker.example:8443"),
            ("https://broker.example:443/", "pypi:broker.example"),
        ] {
            assert_eq!(audience_of(&endpoint.parse().unwrap()), audience);
        }
    }
}
