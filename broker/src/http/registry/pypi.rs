//! What an unmodified twine, uv, flit, hatch, pdm or poetry finds at the registry origin.

mod exchange;

use super::{Received, authorization, carried_out, read, receive, take};
use crate::{
    desk::Desk,
    http::reply::Failed,
    publish::unannounced::{self, Arrived},
    registry::Head,
};
use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, StatusCode, header};
use hyper::ext::ReasonPhrase;
use proto::{
    bearer::{Bearer, Kind},
    ids::RegistryId,
    problem::Code,
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The user name that clients give beside a token.
const TOKEN_USER: &str = "__token__";

/// Answers one request.
pub(super) async fn serve(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    match (request.method(), request.uri().path()) {
        (_, path) if path.starts_with(exchange::PATH) => {
            Ok(exchange::serve(&desk, &registry, request).await)
        }
        // The public index's path, and the root, where other servers take uploads.
        (&Method::POST, "/legacy/" | "/") => Box::pin(publish(desk, registry, request)).await,
        // twine and uv follow no redirect with a body.
        (&Method::POST, "/legacy") => Err(Failed::new(
            Code::NotFound,
            "the upload address ends with a slash",
            "Write it as /legacy/.",
        )),
        // What exists is the index's to say; hatch and uv go on when they are told nothing.
        (&Method::GET | &Method::HEAD, path) if is_index(path) => {
            Err(Failed::new(Code::NotFound, "no such project", ""))
        }
        _ => Err(Failed::new(
            Code::NotAllowed,
            "this broker passes on uploads alone",
            "Use your own login at the registry for anything else.",
        )),
    }
}

/// `/simple/…`, and hatch's `/legacy/%2Bsimple/…`.
fn is_index(path: &str) -> bool {
    ["/simple/", "/legacy/%2Bsimple/", "/%2Bsimple/", "/+simple/"]
        .iter()
        .any(|start| path.starts_with(start))
}

async fn publish(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    let password = password(&request).ok_or_else(missing)?;
    let guest = Bearer::parse(Kind::Guest, &password).ok();
    let credential = Bearer::parse(Kind::Credential, &password).ok();
    drop(password);
    let mut kinds = request.headers().get_all(header::CONTENT_TYPE).iter();
    let media_type = match (kinds.next().map(|v| v.to_str()), kinds.next()) {
        (Some(Ok(kind)), None) => Some(kind.to_owned()),
        _ => None,
    };
    let head = Head {
        media_type,
        drops_attestations: desk
            .upstream(&registry)
            .is_some_and(crate::registry::Upstream::drops_attestations),
        ..Head::default()
    };
    if let Some(token) = guest {
        unannounced(desk, registry, &token, head, request).await?;
    } else {
        let credential = credential.ok_or_else(missing)?;
        take(desk, registry, &credential, head, request).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// An upload of somebody who exchanged his id token here.
async fn unannounced(
    desk: Arc<Desk>,
    registry: RegistryId,
    token: &Bearer,
    head: Head,
    request: Request,
) -> Result<(), Failed> {
    let guest = unannounced::admit(&desk, &registry, token, None)?;
    let arrived = receive(&desk, guest.slot.clone(), unannounced::UPLOAD_MAX, request).await?;
    let (upload, Received { body, place }) = read(&desk, &registry, head.clone(), arrived).await?;
    let name = upload.name().unwrap_or_default().to_owned();
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
    .await
}

/// HTTP Basic (RFC 7617) with the credential as password. twine and uv say `__token__`, and so must
/// everybody: another name would be another registry's credential.
fn password(request: &Request) -> Option<Zeroizing<String>> {
    let pair = authorization(request, "Basic ")?;
    let pair = Zeroizing::new(STANDARD.decode(pair).ok()?);
    let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    (user == TOKEN_USER).then(|| Zeroizing::new(password.to_owned()))
}

fn missing() -> Failed {
    Failed::new(
        Code::Unauthenticated,
        "no Countersign credential",
        "Publish with: countersign publish pypi <files or folder>",
    )
}

/// Clients show the body, some the status alone. Never a 2xx, and nothing that they repeat, unless
/// repeating is right.
pub(super) fn error(failed: &Failed) -> Response {
    let problem = &failed.0;
    let status = match problem.code {
        // A missing credential is 403: a 401 makes some clients ask for a password.
        Code::Unauthenticated => StatusCode::FORBIDDEN,
        Code::NotFound
            if !["no such project", "the upload address ends with a slash"]
                .contains(&problem.title.as_str()) =>
        {
            StatusCode::FORBIDDEN
        }
        // twine repeats every 5xx at once, and each repeat would be sent to the registry again.
        Code::RegistryRefused => StatusCode::BAD_REQUEST,
        _ => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = format!(
        "{} ({}). {}\n",
        problem.title,
        problem.code.text(),
        problem.detail
    );
    // twine shows the status line's words and not the body.
    let words: String = text.chars().filter(|c| (' '..='~').contains(c)).collect();
    let mut response = (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response();
    if let Ok(words) = ReasonPhrase::try_from(words) {
        response.extensions_mut().insert(words);
    }
    response
}
