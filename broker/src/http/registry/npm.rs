//! What an unmodified npm, pnpm or Yarn finds at the registry origin.

use super::{bearer, take};
use crate::{
    desk::Desk,
    http::reply::Failed,
    registry::npm::{self, name},
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode};
use proto::{bearer::Bearer, ids::RegistryId, problem::Code};
use std::sync::Arc;

/// Answers one request.
pub(super) async fn serve(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/-/ping") => Ok(Json(serde_json::json!({})).into_response()),
        (&Method::GET, "/-/whoami") => {
            credential(&request)?;
            Ok(Json(serde_json::json!({"username": "countersign"})).into_response())
        }
        (&Method::GET, p) if p.starts_with("/-/package/") && p.ends_with("/visibility") => {
            Ok(Json(serde_json::json!({"public": true})).into_response())
        }
        // What exists is the registry's to say; a client that is told nothing goes on to the publish.
        (&Method::GET | &Method::HEAD, p) if !p.starts_with("/-/") => {
            Err(Failed::new(Code::NotFound, "no such package", ""))
        }
        (&Method::PUT, p) if !p.starts_with("/-/") => publish(desk, registry, p, request).await,
        _ => Err(Failed::new(
            Code::NotAllowed,
            "this broker passes on publishes alone",
            "Use your own login at the registry for anything else.",
        )),
    }
}

async fn publish(
    desk: Arc<Desk>,
    registry: RegistryId,
    path: &str,
    request: Request,
) -> Result<Response, Failed> {
    let package = package_of(path)?;
    let credential = credential(&request)?;
    let named = package.clone();
    let read = move |spool, folder: &std::path::Path| {
        npm::read(spool, &named, folder).map_err(|e| e.to_string())
    };
    take(desk, registry, &credential, Some(&package), request, read).await?;
    let reply = serde_json::json!({"ok": true, "success": true});
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

fn package_of(path: &str) -> Result<proto::ids::PackageName, Failed> {
    name::from_path(path).map_err(|e| Failed::new(Code::BadRequest, e.to_string(), ""))
}

fn credential(request: &Request) -> Result<Bearer, Failed> {
    bearer(request, |value| value.strip_prefix("Bearer ")).ok_or_else(|| {
        Failed::new(
            Code::Unauthenticated,
            "no Countersign credential",
            "Publish with: countersign publish npm <file or folder>",
        )
    })
}

/// npm prints `error` and the `npm-notice` header. Never a 2xx, and nothing that it repeats, unless
/// repeating is right.
pub(super) fn error(failed: &Failed) -> Response {
    let problem = &failed.0;
    let status = match problem.code {
        // A missing credential is 403, since npm takes a 401 for "log in again".
        Code::Unauthenticated | Code::NotFound if problem.title != "no such package" => {
            StatusCode::FORBIDDEN
        }
        _ => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = format!(
        "{} ({}). {}",
        problem.title,
        problem.code.text(),
        problem.detail
    );
    let mut response = (
        status,
        Json(serde_json::json!({"error": text, "code": problem.code.text()})),
    )
        .into_response();
    let ascii: String = text
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .collect();
    // npm asks for a package before it publishes it; that it is told nothing is no notice to print.
    if problem.code != Code::NotFound
        && let Ok(value) = HeaderValue::from_str(&ascii)
    {
        response.headers_mut().insert("npm-notice", value);
    }
    response
}
