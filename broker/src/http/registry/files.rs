//! What our own client, curl or any other program that can send a file finds at the registry origin of a server of
//! kind `http`: `PUT /files/<package>/<version>/<file>`, whatever the server's own call looks like.

use super::{authorization, take};
use crate::{
    desk::Desk,
    http::reply::Failed,
    registry::{Head, http as server},
};
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
    let place = request.uri().path().strip_prefix("/files/");
    let named = place.and_then(server::place);
    let (&Method::PUT, None, Some((package, version, file))) =
        (request.method(), request.uri().query(), named)
    else {
        return Err(Failed::new(
            Code::NotAllowed,
            "this broker passes on uploads alone",
            "PUT a file to /files/<package>/<version>/<file>.",
        ));
    };
    let token = authorization(&request, "Bearer ");
    let credential = token.and_then(|token| Bearer::parse(Kind::Credential, token).ok());
    let credential = credential.ok_or_else(|| {
        Failed::new(
            Code::Unauthenticated,
            "no Countersign credential",
            "Publish with: countersign publish <registry> <files> --as <package>@<version>",
        )
    })?;
    let head = Head {
        package: Some(package),
        version: Some(version),
        file: Some(file),
        ..Head::default()
    };
    take(desk, registry, &credential, head, request).await?;
    Ok(StatusCode::CREATED.into_response())
}
