//! What `gem push --host <origin>`, and our own client, find at the registry origin of a gem registry.

use super::{authorization, take};
use crate::{desk::Desk, http::reply::Failed, registry::Head};
use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use proto::{
    bearer::{Bearer, Kind},
    ids::RegistryId,
    problem::Code,
};
use std::sync::Arc;

/// Answers one request.
pub(super) async fn serve(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    if request.method() != Method::POST || request.uri().path() != "/api/v1/gems" {
        return Err(Failed::new(
            Code::NotAllowed,
            "this broker passes on pushes alone",
            "Use your own login at the registry for anything else.",
        ));
    }
    // gem sends the key as it is, our own client with a scheme.
    let token = authorization(&request, "Bearer ").or_else(|| authorization(&request, ""));
    let credential = token.and_then(|token| Bearer::parse(Kind::Credential, token).ok());
    let credential = credential.ok_or_else(|| {
        Failed::new(
            Code::Unauthenticated,
            "no Countersign credential",
            "Publish with: countersign publish <registry> <file.gem>",
        )
    })?;
    take(desk, registry, &credential, Head::default(), request).await?;
    Ok("The broker has published the gem, and read it back.\n".into_response())
}

/// gem prints the text. Never a 2xx, and never a 401: gem answers that with a question for a login or a code.
pub(super) fn error(failed: &Failed) -> Response {
    let problem = &failed.0;
    let status = match problem.code {
        Code::Unauthenticated | Code::NotFound => StatusCode::FORBIDDEN,
        _ => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let text = format!(
        "{} ({}). {}\n",
        problem.title,
        problem.code.text(),
        problem.detail
    );
    (status, text).into_response()
}
