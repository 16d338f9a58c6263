//! Whether an OCI registry takes a token: by an upload of a blob that is begun and taken back, where a repository is known,
//! and else by the question who one is.

use super::upstream::Oci;
use crate::{
    registry::{Account, Proof, ReadError, Trial, Upstream as _, proof::Answer, upstream::failed},
    secret::Secret,
};
use proto::ids::PackageName;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, LOCATION},
};

/// Asks.
pub(super) async fn ask(
    registry: &Oci,
    token: &Secret<String>,
    trial: Trial<'_>,
) -> Result<Proof, ReadError> {
    match trial.package {
        Some(package) => by_upload(registry, token, package).await,
        None => Ok(match registry.whoami(token).await? {
            Account::Named(name) => Proof::proved("it knows user and password").whose(name),
            Account::Unknown | Account::CannotAsk => {
                Proof::unknown("it does not know user and password")
            }
        }),
    }
}

async fn by_upload(
    registry: &Oci,
    token: &Secret<String>,
    package: &PackageName,
) -> Result<Proof, ReadError> {
    let login = match registry.shown_as(package, "pull,push", Some(token)).await {
        Err(ReadError::Status(401)) => {
            return Ok(Proof::unknown("it does not know user and password"));
        }
        Err(ReadError::Status(403)) => {
            return Ok(Proof::refused(format!(
                "it lets user and password push nothing to {package}"
            )));
        }
        login => login?,
    };
    let address = registry.at(package, "blobs/uploads/")?;
    let request = registry.ask(Method::POST, address.clone(), &login);
    let reply = request.header(CONTENT_LENGTH, 0).send().await;
    let reply = reply.map_err(|e| failed(&e))?;
    if reply.status() != StatusCode::ACCEPTED {
        let answer = Answer::of(reply, token).await;
        let said = super::upstream::without(&answer.said, &login);
        let answer = Answer { said, ..answer };
        return answer.judged().unwrap_or_else(|| {
            Ok(Proof::unproved(format!(
                "it begins no upload to {package} and does not say why: {}",
                answer.said
            )))
        });
    }
    let place = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    let place = place.and_then(|place| address.join(place).ok());
    // Taken back where that is the registry; left to its own cleaning otherwise, and where it knows no taking back.
    if let Some(place) = place.filter(|place| place.origin() == address.origin()) {
        let _ = registry.ask(Method::DELETE, place, &login).send().await;
    }
    Ok(Proof::proved(format!("it began an upload to {package}")).whose(registry.user().to_owned()))
}
