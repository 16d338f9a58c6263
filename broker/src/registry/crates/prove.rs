//! Whether a cargo registry takes a token, by two calls that cannot succeed: a yank of a version that nobody has, and a
//! publish whose archive is announced with more bytes than any registry takes, and of which no byte follows. The public registry
//! looks at the token before it looks at the length; others look at the form first, but at the token before a yank.

use super::upstream::Crates;
use crate::{
    registry::{
        Proof, ReadError, Trial,
        proof::{Answer, invented},
        upstream::failed,
    },
    secret::Secret,
};
use proto::{api::ProofOutcome, ids::PackageName};
use reqwest::header::ACCEPT;
use serde_json::json;

/// The announced length, in bytes: a hundred times what the public registry takes.
const LENGTH: u32 = 1 << 30;
/// A version that nobody publishes.
const VERSION: &str = "0.0.0-countersign-probe";

/// Asks.
pub(super) async fn ask(
    registry: &Crates,
    token: &Secret<String>,
    trial: Trial<'_>,
) -> Result<Proof, ReadError> {
    let Some(package) = trial.package else {
        return Ok(Proof::unproved(
            "it is asked about one crate, and none is known: store the token under its crate's name, or check it after \
             the first publish",
        ));
    };
    match by_yank(registry, token, package, trial.present).await? {
        Yanking::Good(proof) => Ok(proof),
        Yanking::Unknown => by_length(registry, token, package).await,
        Yanking::LessThanStored => Ok(less(package, by_length(registry, token, package).await?)),
    }
}

/// What a yank tells of a token.
enum Yanking {
    /// It is known.
    Good(Proof),
    /// Nothing.
    Unknown,
    /// It may not, and the stored one may.
    LessThanStored,
}

/// To publish is what the broker needs, so a token that may do that and no more is as good. Where nothing shows that, a
/// mistyped one looks the same.
fn less(package: &PackageName, by_length: Proof) -> Proof {
    match by_length.outcome {
        ProofOutcome::Proved => Proof::proved(format!(
            "{}; it may not yank versions of {package}, as the stored one may: countersign admin yank would not work",
            by_length.detail
        )),
        ProofOutcome::Refused => by_length,
        ProofOutcome::Unproved => Proof::refused(format!(
            "the stored token may yank versions of {package}, and this one may not; nothing else tells it from an invented \
             one here. If it shall publish and no more: countersign admin token remove, then add. Else make one that may \
             yank, too"
        )),
    }
}

/// A token that may yank is looked at before the version is looked for.
async fn by_yank(
    registry: &Crates,
    token: &Secret<String>,
    package: &PackageName,
    present: Option<&Secret<String>>,
) -> Result<Yanking, ReadError> {
    let looked = async |token: &Secret<String>| {
        let reply = registry.yanking(package, VERSION, token)?.send().await;
        let reply = reply.map_err(|e| failed(&e))?;
        match Answer::of(reply, token).await {
            no if no.is_no() => Ok(Some(false)),
            Answer {
                status: 400 | 404 | 422,
                ..
            } => Ok(Some(true)),
            // It knows no yanking, or says yes to anything.
            Answer { status, .. } if status < 500 => Ok(None),
            Answer { status, .. } => Err(ReadError::Status(status)),
        }
    };
    match looked(token).await? {
        Some(true) if looked(&invented()?).await? == Some(false) => {
            Ok(Yanking::Good(Proof::proved(format!(
                "it looked for a version of {package} to yank, and refuses an invented token before that"
            ))))
        }
        // To yank is a right of its own, which this token need not have: the stored one shows what is usual.
        Some(false) => match present {
            Some(present) if looked(present).await? == Some(true) => Ok(Yanking::LessThanStored),
            _ => Ok(Yanking::Unknown),
        },
        _ => Ok(Yanking::Unknown),
    }
}

/// Ends a token. The public registry lets tokens without scopes end themselves, and says so with 204; asked again it does
/// not know the token any more. One that says yes twice has ended nothing.
pub(super) async fn revoke(registry: &Crates, token: &Secret<String>) -> Result<bool, ReadError> {
    let asked = async || {
        let reply = registry.ending(token)?.send().await;
        Ok(reply.map_err(|e| failed(&e))?.status().as_u16())
    };
    Ok(asked().await? == 204 && matches!(asked().await?, 401 | 403))
}

async fn by_length(
    registry: &Crates,
    token: &Secret<String>,
    package: &PackageName,
) -> Result<Proof, ReadError> {
    let answer = upload(registry, package, token).await?;
    if let Some(proof) = answer.judged() {
        return proof;
    }
    let invented = invented()?;
    Ok(upload(registry, package, &invented).await?.beside())
}

async fn upload(
    registry: &Crates,
    package: &PackageName,
    token: &Secret<String>,
) -> Result<Answer, ReadError> {
    let metadata = json!({
        "name": package, "vers": VERSION, "deps": [], "features": {}, "authors": [],
        "description": "asks whether a token is known; nothing follows", "documentation": null,
        "homepage": null, "readme": null, "readme_file": null, "keywords": [], "categories": [],
        "license": null, "license_file": null, "repository": null, "badges": {}, "links": null,
    });
    let metadata = metadata.to_string().into_bytes();
    let length = u32::try_from(metadata.len()).map_err(|_| ReadError::TooLarge)?;
    let mut body = length.to_le_bytes().to_vec();
    body.extend(metadata);
    body.extend(LENGTH.to_le_bytes());
    let request = registry
        .uploading(token)?
        .header(ACCEPT, "application/json");
    let reply = request.body(body).send().await.map_err(|e| failed(&e))?;
    Ok(Answer::of(reply, token).await)
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
