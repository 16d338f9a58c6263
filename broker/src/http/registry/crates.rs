//! What cargo, and our own client, find at the registry origin of a cargo registry.
//!
//! `sparse+<origin>/index/` is an index of its own: its `config.json` names the broker as the API and the real
//! registry for downloads, and every crate's file is a redirect to the real index. So an unmodified
//! `cargo publish --registry` publishes through the broker, and sees what is really there.

use super::{authorization, take};
use crate::{
    desk::{Desk, Registry},
    http::reply::Failed,
    publish::Refusal,
    registry::{Head, crates},
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use proto::{
    bearer::{Bearer, Kind},
    ids::RegistryId,
    problem::Code,
};
use serde_json::json;
use std::sync::Arc;

/// Answers one request.
pub(super) async fn serve(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/index/config.json") => config(&desk, &registry).await,
        (&Method::GET, p) if p.starts_with("/index/") => file(&desk, &registry, p),
        (&Method::PUT, "/api/v1/crates/new") => publish(desk, registry, request, None).await,
        // Our own client hands over the archive alone.
        (&Method::PUT, "/files/crate") => {
            publish(desk, registry, request, Some(crates::FILE_TYPE)).await
        }
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
    request: Request,
    media_type: Option<&str>,
) -> Result<Response, Failed> {
    // cargo sends the token as it is, our own client with a scheme.
    let token = authorization(&request, "Bearer ").or_else(|| authorization(&request, ""));
    let credential = token.and_then(|token| Bearer::parse(Kind::Credential, token).ok());
    let credential = credential.ok_or_else(|| {
        Failed::new(
            Code::Unauthenticated,
            "no Countersign credential",
            "Publish with: countersign publish crates <folder or .crate>",
        )
    })?;
    let head = Head {
        media_type: media_type.map(str::to_owned),
        ..Head::default()
    };
    take(desk, registry, &credential, head, request).await?;
    let none: [&str; 0] = [];
    let warnings = json!({"invalid_categories": none, "invalid_badges": none, "other": none});
    Ok(Json(json!({ "warnings": warnings })).into_response())
}

/// `auth-required` is false: with it cargo would show its credential on every read.
async fn config(desk: &Desk, registry: &RegistryId) -> Result<Response, Failed> {
    let Some(Registry::Forward {
        upstream, endpoint, ..
    }) = desk.registries.get(registry)
    else {
        return Err(Refusal::NotFound.into());
    };
    let downloads = upstream.downloads().await;
    let downloads = downloads.map_err(|e| Failed::from(Refusal::RegistryDown(e.to_string())))?;
    let api = endpoint.as_str().trim_end_matches('/');
    Ok(Json(json!({
        "dl": downloads,
        "api": api,
        "auth-required": false,
    }))
    .into_response())
}

/// The place of a crate, if it is one, at the real index. Nothing else of a path is passed on.
fn file(desk: &Desk, registry: &RegistryId, path: &str) -> Result<Response, Failed> {
    let unknown = || Failed::new(Code::NotFound, "no such crate", "");
    let place = path.strip_prefix("/index/").ok_or_else(unknown)?;
    let name = place.rsplit('/').next().ok_or_else(unknown)?;
    if crates::index_path(name).as_deref() != Some(place) {
        return Err(unknown());
    }
    let upstream = desk.upstream(registry).ok_or_else(unknown)?;
    let to = upstream.index_file(place).ok_or_else(unknown)?;
    Ok((StatusCode::FOUND, [(header::LOCATION, to.to_string())]).into_response())
}

/// cargo prints the details. Never a 2xx.
pub(super) fn error(failed: &Failed) -> Response {
    let problem = &failed.0;
    let status = match problem.code {
        // cargo answers a 401 with advice to log in.
        Code::Unauthenticated => StatusCode::FORBIDDEN,
        Code::NotFound if problem.title != "no such crate" => StatusCode::FORBIDDEN,
        _ => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = format!(
        "{} ({}). {}",
        problem.title,
        problem.code.text(),
        problem.detail
    );
    let errors = json!({"errors": [{"detail": text}]});
    (status, Json(errors)).into_response()
}
