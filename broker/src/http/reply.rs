//! Replies: JSON, or a problem (RFC 9457).

use crate::publish::{Refusal, problem};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use proto::problem::{Code, Problem};
use serde::Serialize;

/// A failed call.
#[derive(Debug)]
pub struct Failed(pub Problem, pub Option<String>);

/// What every handler returns.
pub type Reply<T> = Result<Json<T>, Failed>;

impl Failed {
    /// A problem without more.
    pub fn new(code: Code, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, title, detail), None)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Fault(fault) = &refusal {
            tracing::error!(%fault, "a call failed");
        }
        Self(problem(&refusal), None)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(problem, nonce) = self;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(nonce) = nonce.and_then(|n| HeaderValue::from_str(&n).ok()) {
            headers.insert("dpop-nonce", nonce);
        }
        response
    }
}

/// JSON of a finished verb.
pub fn json<T: Serialize>(result: Result<T, Refusal>) -> Reply<T> {
    result.map(Json).map_err(Failed::from)
}
