//! What an unmodified npm, pnpm or Yarn finds at the registry origin.

use super::{Received, authorization, carried_out, read, receive, take};
use crate::{
    caller::{Caller, CallerRefused},
    desk::{Desk, Registry},
    http::{auth, reply::Failed},
    publish::{
        unannounced::{self, Arrived},
        versions,
    },
    registry::{Head, npm::name},
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode};
use proto::{
    bearer::{Bearer, Kind},
    ids::{RegistryId, VersionText},
    problem::Code,
    time::UnixTime,
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where these clients exchange their id token; the package's name follows.
const EXCHANGE: &str = "/-/npm/v1/oidc/token/exchange/package/";

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
            let token = authorization(&request, "Bearer ").ok_or_else(missing)?;
            Bearer::parse(Kind::Credential, token).map_err(|_| missing())?;
            Ok(Json(serde_json::json!({"username": "countersign"})).into_response())
        }
        (&Method::GET, p) if p.starts_with("/-/package/") && p.ends_with("/visibility") => {
            Ok(Json(serde_json::json!({"public": true})).into_response())
        }
        // What exists is the registry's to say; a client that is told nothing goes on to the publish.
        (&Method::GET | &Method::HEAD, p) if !p.starts_with("/-/") => {
            let credential = authorization(&request, "Bearer ")
                .and_then(|token| Bearer::parse(Kind::Credential, token).ok());
            drop(request);
            match credential {
                Some(credential) => versions(&desk, &registry, &credential, p).await,
                None => Err(no_such_package()),
            }
        }
        (&Method::POST, p) if p.starts_with(EXCHANGE) => {
            let package = p.get(EXCHANGE.len()..).unwrap_or_default();
            let token = authorization(&request, "Bearer ").ok_or_else(missing)?;
            let token = Zeroizing::new(token.to_owned());
            drop(request);
            exchange(&desk, &registry, package, &token).await
        }
        (&Method::PUT, p) if !p.starts_with("/-/") => {
            Box::pin(publish(desk, registry, p, request)).await
        }
        _ => Err(Failed::new(
            Code::NotAllowed,
            "this broker passes on publishes alone",
            "Use your own login at the registry for anything else.",
        )),
    }
}

/// The least document of a package from which these clients see which versions there are.
async fn versions(
    desk: &Desk,
    registry: &RegistryId,
    credential: &Bearer,
    path: &str,
) -> Result<Response, Failed> {
    let package = package_of(path).map_err(|_| no_such_package())?;
    let shown = versions::shown(desk, registry, credential.hash(), &package).await;
    let shown = shown.ok_or_else(no_such_package)?;
    let newest = shown.newest.filter(|v| shown.versions.contains_key(v));
    let newest = newest.or_else(|| shown.versions.keys().next_back().cloned());
    let entry = |v: &VersionText| {
        let manifest = serde_json::json!({"name": package, "version": v, "dist": {}});
        (v.to_string(), manifest)
    };
    let all: serde_json::Map<_, _> = shown.versions.keys().map(entry).collect();
    let reply = serde_json::json!({
        "name": package, "dist-tags": {"latest": newest}, "versions": all,
    });
    Ok(Json(reply).into_response())
}

fn no_such_package() -> Failed {
    Failed::new(Code::NotFound, "no such package", "")
}

/// What npm, pnpm and Yarn ask for by themselves in a job that has an id token.
async fn exchange(
    desk: &Desk,
    registry: &RegistryId,
    package: &str,
    token: &str,
) -> Result<Response, Failed> {
    let package = package_of(&format!("/{package}"))?;
    auth::trusted_clock(desk)?;
    let now = desk.world.now();
    let caller = caller(desk, registry, token, now).await?;
    let (token, until) = unannounced::exchange(desk, registry, Some(package), caller, now).await?;
    let reply = serde_json::json!({
        "token_type": "oidc", "token": token.expose(),
        "created": now.rfc3339(), "expires": until.rfc3339(),
    });
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// The caller behind an id token whose audience is this origin: npm and pnpm leave the port out, Yarn
/// does not. A token made for the API's audience is none for this place, nor the other way round.
async fn caller(
    desk: &Desk,
    registry: &RegistryId,
    token: &str,
    now: UnixTime,
) -> Result<Caller, Failed> {
    let Some(Registry::Forward { endpoint, .. }) = desk.registries.get(registry) else {
        return Err(missing());
    };
    let host = endpoint.host_str().unwrap_or_default();
    let mut audiences = vec![format!("npm:{host}")];
    audiences.extend(endpoint.port().map(|port| format!("npm:{host}:{port}")));
    let mut refused = CallerRefused::Audience;
    for audience in audiences {
        match desk.issuers.for_audience(audience).verify(token, now).await {
            Ok(caller) => return Ok(caller),
            Err(CallerRefused::Audience) => {}
            Err(why) => refused = why,
        }
    }
    Err(auth::refused(&refused))
}

async fn publish(
    desk: Arc<Desk>,
    registry: RegistryId,
    path: &str,
    request: Request,
) -> Result<Response, Failed> {
    let package = package_of(path)?;
    let token = authorization(&request, "Bearer ").ok_or_else(missing)?;
    let guest = Bearer::parse(Kind::Guest, token).ok();
    let credential = Bearer::parse(Kind::Credential, token).ok();
    let head = Head {
        package: Some(package.clone()),
        ..Head::default()
    };
    if let Some(token) = guest {
        let guest = unannounced::admit(&desk, &registry, &token, Some(&package))?;
        let slot = guest.slot.clone();
        let most = unannounced::UPLOAD_MAX;
        let arrived = receive(&desk, slot, most, request).await?;
        let (upload, Received { body, place }) =
            read(&desk, &registry, head.clone(), arrived).await?;
        let name = name::file_name(upload.package(), upload.version());
        let arrived = Arrived {
            upload,
            body,
            head,
            name,
        };
        carried_out(async move {
            let _place = place;
            unannounced::publish(desk, guest, arrived).await
        })
        .await?;
    } else {
        let token = credential.ok_or_else(missing)?;
        take(desk, registry, &token, head, request).await?;
    }
    let reply = serde_json::json!({"ok": true, "success": true});
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

fn package_of(path: &str) -> Result<proto::ids::PackageName, Failed> {
    name::from_path(path).map_err(|e| Failed::new(Code::BadRequest, e.to_string(), ""))
}

fn missing() -> Failed {
    Failed::new(
        Code::Unauthenticated,
        "no Countersign credential",
        "Publish with: countersign publish npm <file or folder>",
    )
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
