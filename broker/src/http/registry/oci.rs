//! What skopeo, docker, podman, crane, oras and buildah find at the registry origin of an OCI registry.
//!
//! They push blobs, then manifests, then the manifest of the tag. Each is a file of the request, named after its
//! place and approved by its digest, and is passed on as soon as it has arrived: nothing is held back for later,
//! and nothing that was not approved is kept. A blob comes in pieces, which are spooled until its digest is named
//! ([`pushes`](super::pushes)).

use super::{
    Received, authorization, pass_on,
    pushes::{self, numbered},
    take,
};
use crate::{
    desk::{Desk, pushes::Target},
    http::reply::Failed,
    publish::{
        Refusal,
        forward::{self, Admission},
        settle::{self, Outcome},
    },
    registry::{
        Head, Kind,
        oci::{BLOB_MAX, Place},
    },
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use proto::{
    bearer::{self, Bearer},
    digest::Digest,
    ids::{PackageName, RegistryId, RequestId},
    problem::Code,
};
use serde_json::json;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The user name beside a credential.
const USER: &str = "countersign";
/// The header that names a digest.
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What an address names.
enum Route {
    /// `/v2/`
    Root,
    /// `/v2/<repository>/blobs/uploads/`
    Uploads(PackageName),
    /// `/v2/<repository>/blobs/uploads/<number>`
    Upload(PackageName, String),
    /// `/v2/<repository>/blobs/<digest>` or `…/manifests/<tag or digest>`
    File(PackageName, Place),
}

impl Route {
    /// Nothing is decoded: a name with `%` in it is no name.
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.strip_prefix("/v2/")?.split('/').collect();
        let package = |parts: &[&str]| (Kind::Oci.row().package)(&parts.join("/")).ok();
        match parts.as_slice() {
            [""] => Some(Self::Root),
            [name @ .., "blobs", "uploads", ""] => Some(Self::Uploads(package(name)?)),
            [name @ .., "blobs", "uploads", number] => {
                Some(Self::Upload(package(name)?, (*number).to_owned()))
            }
            [name @ .., folder, reference] => Some(Self::File(
                package(name)?,
                Place::parse(&format!("{folder}/{reference}"))?,
            )),
            _ => None,
        }
    }
}

/// Answers one request.
pub(super) async fn serve(
    desk: Arc<Desk>,
    registry: RegistryId,
    request: Request,
) -> Result<Response, Failed> {
    let Some(route) = Route::of(request.uri().path()) else {
        return Err(refused());
    };
    let credential = credential(&request)?;
    let package = match &route {
        Route::Root => None,
        Route::Uploads(p) | Route::Upload(p, _) | Route::File(p, _) => Some(p.clone()),
    };
    let admission = admit(&desk, &registry, &credential, package.as_ref())?;
    let target = |package: PackageName| Target {
        id: admission.id,
        registry: registry.clone(),
        package,
    };
    match (request.method(), route) {
        (&Method::GET | &Method::HEAD, Route::Root) => {
            let version = (
                HeaderName::from_static("docker-distribution-api-version"),
                "registry/2.0",
            );
            Ok(([version], Json(json!({}))).into_response())
        }
        (&Method::HEAD, Route::File(package, place @ Place::Blob(_))) => {
            has(&desk, &registry, admission.id, &package, &place).await
        }
        // A client that is told nothing goes on to push.
        (&Method::GET | &Method::HEAD, Route::File(..)) => {
            Err(Failed::new(Code::NotFound, "nothing is read here", ""))
        }
        (&Method::POST, Route::Uploads(package)) => {
            // Whoever asks for something else begins nothing.
            let digest = digest(&request)?;
            let target = target(package);
            let number = pushes::begin(&desk, &admission, &target)?;
            match digest {
                // The whole blob in one request.
                Some(digest) => {
                    let push = Push {
                        desk,
                        admission,
                        target,
                        number,
                    };
                    push.finish(digest, request).await
                }
                // A mount from another repository is none: the blob is pushed like any other.
                None => Ok(go_on(&target.package, &number, 0)),
            }
        }
        (&Method::PATCH, Route::Upload(package, number)) => {
            let most = admission.bytes_max.min(BLOB_MAX);
            let target = target(package);
            let push = (&target, number.as_str());
            let size = pushes::append(&desk, &admission, push, most, request).await?;
            Ok(go_on(&target.package, &number, size))
        }
        (&Method::PUT, Route::Upload(package, number)) => {
            let digest = digest(&request)?.ok_or_else(|| {
                Failed::new(Code::BadRequest, "an upload ends with its digest", "")
            })?;
            let target = target(package);
            let push = Push {
                desk,
                admission,
                target,
                number,
            };
            push.finish(digest, request).await
        }
        (&Method::PUT, Route::File(package, place @ (Place::Tag(_) | Place::Manifest(_)))) => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|v| v.to_str().ok()).map(str::to_owned);
            let (head, digest) =
                approved(&desk, &registry, admission.id, &package, &place, kind).await?;
            take(desk, registry, &credential, head, request).await?;
            Ok(created(&package, &place, &digest))
        }
        _ => Err(refused()),
    }
}

/// A blob that is about to be complete.
struct Push {
    desk: Arc<Desk>,
    admission: Admission,
    target: Target,
    number: String,
}

impl Push {
    /// Takes the last piece, and passes the blob on.
    async fn finish(self, digest: Digest, request: Request) -> Result<Response, Failed> {
        let Self {
            desk,
            admission,
            target,
            number,
        } = self;
        let (id, place) = (admission.id, Place::Blob(digest.clone()));
        let (registry, package) = (&target.registry, &target.package);
        let head = match approved(&desk, registry, id, package, &place, None).await {
            Ok((head, _)) => head,
            Err(why) => {
                // What was not approved takes no room either.
                pushes::forget(&desk, &target, &number);
                return Err(why);
            }
        };
        // From here on it is an upload like any other.
        let taken = desk.uploads.enter(admission.slot.clone());
        let taken = taken.ok_or(Refusal::Busy)?;
        let most = admission.bytes_max.min(BLOB_MAX);
        let push = (&target, number.as_str());
        pushes::append(&desk, &admission, push, most, request).await?;
        let body = pushes::end(&desk, &target, &number)?;
        let arrived = Received { body, place: taken };
        pass_on(desk, target.registry, admission, head, arrived).await?;
        Ok(created(&target.package, &place, &digest))
    }
}

/// What is known of a file from the approved request, and its digest; what is not in it is refused on the
/// record.
async fn approved(
    desk: &Desk,
    registry: &RegistryId,
    id: RequestId,
    package: &PackageName,
    place: &Place,
    media_type: Option<String>,
) -> Result<(Head, Digest), Failed> {
    let name = place.name();
    let Some((at, item)) = forward::named(desk, id, registry, package, &name)? else {
        forward::note_refused(desk).await?;
        let why = format!("{name} is not among the approved files of {package}");
        return Err(Refusal::BytesDiffer(why).into());
    };
    let file = item.files.get(at.file).ok_or(Refusal::NotFound)?;
    let head = Head {
        package: Some(package.clone()),
        version: Some(item.version.clone()),
        file: Some(name),
        media_type,
        drops_attestations: false,
    };
    Ok((head, file.digest.clone()))
}

/// Whether an approved blob is at the registry already: then the client need not send it.
async fn has(
    desk: &Desk,
    registry: &RegistryId,
    id: RequestId,
    package: &PackageName,
    place: &Place,
) -> Result<Response, Failed> {
    let unknown = || Failed::new(Code::NotFound, "it is not there yet", "Push it.");
    let name = place.name();
    let named = forward::named(desk, id, registry, package, &name)?;
    let (at, item) = named.ok_or_else(unknown)?;
    let file = item.files.get(at.file).ok_or_else(unknown)?;
    if settle::settled(desk, id, at).await? != Outcome::Published {
        return Err(unknown());
    }
    let digest = file.digest.to_string();
    let headers = [
        (header::CONTENT_LENGTH, file.size.to_string()),
        (DIGEST, digest),
    ];
    Ok((StatusCode::OK, headers).into_response())
}

fn admit(
    desk: &Desk,
    registry: &RegistryId,
    credential: &Bearer,
    package: Option<&PackageName>,
) -> Result<Admission, Failed> {
    match forward::admit(desk, registry, credential.hash(), package) {
        Err(Refusal::NotFound) => Err(missing()),
        other => Ok(other?),
    }
}

/// HTTP Basic with the credential as password: `--dest-creds`, `docker login`.
fn credential(request: &Request) -> Result<Bearer, Failed> {
    let password = || {
        let pair = authorization(request, "Basic ")?;
        let pair = Zeroizing::new(STANDARD.decode(pair).ok()?);
        let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        let own = Bearer::parse(bearer::Kind::Credential, password).ok()?;
        (user == USER).then_some(own)
    };
    password().ok_or_else(missing)
}

fn missing() -> Failed {
    Failed::new(
        Code::Unauthenticated,
        "no Countersign credential",
        "Publish with: countersign publish <registry> <repository>:<tag> --layout <folder>",
    )
}

fn refused() -> Failed {
    Failed::new(
        Code::NotAllowed,
        "this broker passes on pushes alone",
        "Use your own login at the registry for anything else.",
    )
}

/// The one `digest` of the query, if it has one.
fn digest(request: &Request) -> Result<Option<Digest>, Failed> {
    let query = request.uri().query().unwrap_or_default();
    let mut named =
        url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "digest");
    let bad = || Failed::new(Code::BadRequest, "this is not one sha256 digest", "");
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some((_, digest)), None) => match Place::parse(&format!("blobs/{digest}")) {
            Some(Place::Blob(digest)) => Ok(Some(digest)),
            _ => Err(bad()),
        },
        _ => Err(bad()),
    }
}

fn go_on(package: &PackageName, number: &str, size: u64) -> Response {
    let headers = [
        (
            header::LOCATION,
            format!("/v2/{package}/blobs/uploads/{number}"),
        ),
        (header::RANGE, format!("0-{}", size.saturating_sub(1))),
        (numbered(), number.to_owned()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    (StatusCode::ACCEPTED, headers).into_response()
}

fn created(package: &PackageName, place: &Place, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{package}/{}", place.name())),
        (DIGEST, digest.to_string()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

/// The protocol's own form of a no. Never a 2xx.
pub(super) fn error(failed: &Failed) -> Response {
    let problem = &failed.0;
    let code = match problem.code {
        Code::Unauthenticated => "UNAUTHORIZED",
        Code::NotFound => "BLOB_UNKNOWN",
        Code::TooLarge => "SIZE_INVALID",
        Code::BadRequest => "UNSUPPORTED",
        Code::BytesDiffer | Code::UploadRefused => "MANIFEST_INVALID",
        _ => "DENIED",
    };
    let text = format!(
        "{} ({}). {}",
        problem.title,
        problem.code.text(),
        problem.detail
    );
    let body = Json(json!({"errors": [{"code": code, "message": text}]}));
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, body).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"countersign\"");
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_40_an_address_is_read_in_one_way_or_not_at_all() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let file = |path: &str| matches!(Route::of(path), Some(Route::File(..)));
        assert!(file(&format!("/v2/acme/app/blobs/{digest}")));
        assert!(file("/v2/acme/blobs/app/manifests/1.0"));
        assert!(matches!(Route::of("/v2/"), Some(Route::Root)));
        for bad in [
            "/v2",
            "//v2/",
            "/v2//",
            "/v2/acme/../x/manifests/1.0",
            "/v2/acme%2fapp/manifests/1.0",
            "/v2/Acme/manifests/1.0",
            "/v2//manifests/1.0",
            "/v2/manifests/1.0",
            "/v2/acme/app/manifests/",
            "/v2/acme/app/manifests/1.0/",
            "/v2/acme/app/tags/list",
            "/v2/_catalog",
            "/v2/acme/app/referrers/x",
            "/v2/acme/app/blobs/uploads",
        ] {
            assert!(Route::of(bad).is_none(), "{bad}");
        }
    }
}
