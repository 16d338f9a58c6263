//! The registry origin: what an unmodified npm, pnpm or Yarn finds there.
//!
//! Only the publish route reaches the vault, by way of `publish::forward`. Everything else is
//! answered here or refused (attack 20); nothing is ever passed on with the token.

use super::reply::Failed;
use crate::{
    desk::Desk,
    publish::{Refusal, forward, problem},
    registry::npm::{self, name},
};
use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode, header};
use proto::{
    bearer::{Bearer, Kind},
    ids::RegistryId,
    problem::Code,
};
use std::{
    io::{Seek as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Largest publish document: npm's base64 makes it 4/3 of the tarball.
const UPLOAD_MAX: u64 = 320 * 1024 * 1024;
/// Time for one upload to arrive.
const UPLOAD_TIME: Duration = Duration::from_mins(10);
/// Uploads up to this size stay in memory.
const SPOOL_MEMORY: usize = 64 * 1024;

/// Its router: one handler, since names are paths here.
pub fn router(desk: &Arc<Desk>, registry: RegistryId) -> Router {
    let desk = Arc::clone(desk);
    Router::new().fallback(move |request: Request| {
        let (desk, registry) = (Arc::clone(&desk), registry.clone());
        async move {
            serve(desk, registry, request)
                .await
                .unwrap_or_else(|failed| npm_error(&failed))
        }
    })
}

async fn serve(
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
    let bearer = credential(&request)?;
    // The credential is judged before a byte of the body is taken (attack 53).
    let admission = forward::admit(&desk, &registry, bearer.hash(), &package)?;
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let most = admission.bytes_max.min(UPLOAD_MAX);
    if declared.is_some_and(|n| n > most) {
        return Err(too_large(most));
    }
    let id = admission.id;
    let _place = desk
        .uploads
        .enter(id)
        .ok_or_else(|| Failed::from(Refusal::Busy))?;
    let reading = spool(request.into_body(), desk.place.spool.clone(), most);
    let spool = tokio::time::timeout(UPLOAD_TIME, reading)
        .await
        .map_err(|_| {
            Failed::new(
                Code::BadRequest,
                "the upload took too long",
                "Run the same command again.",
            )
        })??;
    let folder = desk.place.spool.clone();
    let named = package.clone();
    let read = tokio::task::spawn_blocking(move || npm::read(spool, &named, &folder)).await;
    let upload = match read {
        Ok(Ok(upload)) => upload,
        Ok(Err(why)) => return Err(Refusal::Upload(why.to_string()).into()),
        Err(_) => return Err(Refusal::Upload("the upload cannot be read".to_owned()).into()),
    };
    // In a task of its own: a client that hangs up changes nothing about what was begun.
    let task = tokio::spawn(forward::forward(desk, id, registry, upload));
    match task.await {
        Ok(Ok(())) => Ok((
            StatusCode::CREATED,
            Json(serde_json::json!({"ok": true, "success": true})),
        )
            .into_response()),
        Ok(Err(refusal)) => {
            tracing::info!(%id, %refusal, "an upload was not published");
            Err(Failed(problem(&refusal), None))
        }
        Err(_) => Err(Refusal::Unsettled.into()),
    }
}

/// Takes the body to a spool without holding it in memory; the file has no name on disk.
async fn spool(
    body: Body,
    folder: PathBuf,
    most: u64,
) -> Result<tempfile::SpooledTempFile, Failed> {
    let failed = |_| {
        Failed::new(
            Code::Internal,
            "the upload could not be stored",
            "Is the broker's disk full?",
        )
    };
    let mut file = tempfile::spooled_tempfile_in(SPOOL_MEMORY, folder);
    let mut taken = 0u64;
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| {
            Failed::new(
                Code::BadRequest,
                "the upload broke off",
                "Run the same command again.",
            )
        })?;
        taken += frame.len() as u64;
        if taken > most {
            return Err(too_large(most));
        }
        // Small writes into the page cache: not worth a trip to another thread.
        file.write_all(&frame).map_err(failed)?;
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn too_large(most: u64) -> Failed {
    Failed::new(
        Code::TooLarge,
        "the package is too large",
        format!("At most {} MB.", most / 1024 / 1024),
    )
}

fn package_of(path: &str) -> Result<proto::ids::PackageName, Failed> {
    name::from_path(path).map_err(|e| Failed::new(Code::BadRequest, e.to_string(), ""))
}

fn credential(request: &Request) -> Result<Bearer, Failed> {
    let missing = || {
        Failed::new(
            Code::Unauthenticated,
            "no Countersign credential",
            "Publish with: countersign publish npm <file or folder>",
        )
    };
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing());
    };
    let text = value
        .to_str()
        .ok()
        .and_then(|v| v.strip_prefix("Bearer "))
        .ok_or_else(missing)?;
    Bearer::parse(Kind::Credential, text).map_err(|_| missing())
}

/// npm prints `error` and the `npm-notice` header. Never a 2xx, and nothing that it repeats, unless
/// repeating is right.
fn npm_error(failed: &Failed) -> Response {
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
