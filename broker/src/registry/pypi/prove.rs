//! Whether an index takes a token, by uploads that cannot succeed: the file's name is none that an index takes, and
//! its digest is another file's.
//!
//! The public index's tokens are macaroons: with a caveat that ran out long ago a good one is refused for that caveat,
//! and another one for being unknown. The index says which in words alone, so words it is that are compared here; others
//! than the two known ones prove nothing either way.

use super::{
    macaroon::{self, Caveat},
    upstream::PyPi,
};
use crate::{
    registry::{
        Life, Proof, ReadError, Trial,
        proof::{Answer, NAME, invented},
        upstream::failed,
    },
    secret::Secret,
};
use proto::{ids::PackageName, time::UnixTime};
use reqwest::header::CONTENT_TYPE;

/// A life that ended in 2001.
const OVER: Life = Life {
    from: UnixTime(0),
    until: UnixTime(1_000_000_000),
};
/// What the public index says of a token whose own caveat ran out.
const EXPIRED: &str = "token is expired";
/// What it says of one that it does not know.
const UNKNOWN: &str = "nvalid or non-existent authentication";
/// SHA-256 of nothing that is sent.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Between the parts of a form; no field holds it.
const BOUNDARY: &str = "countersign-probe-boundary";
/// The user beside an invented token, where tokens are some account's passwords: no account's tries are used up.
const NOBODY: &str = NAME;

/// Asks. A macaroon is never shown as it is.
pub(super) async fn ask(
    index: &PyPi,
    token: &Secret<String>,
    trial: Trial<'_>,
) -> Result<Proof, ReadError> {
    match macaroon::narrow(token, &[Caveat::Life(OVER)]) {
        Ok(expired) => by_caveat(index, &expired, trial.package).await,
        Err(_) => by_form(index, token, trial.package).await,
    }
}

async fn by_caveat(
    index: &PyPi,
    expired: &Secret<String>,
    package: Option<&PackageName>,
) -> Result<Proof, ReadError> {
    let Some(package) = package else {
        return Ok(Proof::unproved(
            "it is asked about one project, and none is known: store the token under its project's name, or check it \
             after the first publish",
        ));
    };
    // An upload to a project that is not there might make it.
    if index.page(package, None).await?.versions.is_empty() {
        return Ok(Proof::unproved(format!(
            "{package} is not there yet, and an upload to it might make it"
        )));
    }
    let fields = [
        (":action", "file_upload".to_owned()),
        ("protocol_version", "1".to_owned()),
        ("metadata_version", "2.1".to_owned()),
        ("name", package.to_string()),
        ("version", "0.0.0".to_owned()),
        ("filetype", "sdist".to_owned()),
        ("pyversion", "source".to_owned()),
        ("sha256_digest", NO_DIGEST.to_owned()),
    ];
    let answer = upload(index, index.user(), &fields, expired).await?;
    Ok(if answer.is_no() && answer.said.contains(EXPIRED) {
        Proof::proved("it knows the token, which it was shown with an end in the past")
    } else if answer.is_no() && answer.said.contains(UNKNOWN) {
        Proof::unknown(answer.told())
    } else {
        Proof::unproved(format!(
            "shown the token with an end in the past, it answers {}: {}",
            answer.status, answer.said
        ))
    })
}

/// For indexes whose tokens are passwords: a form that asks for nothing that exists.
async fn by_form(
    index: &PyPi,
    token: &Secret<String>,
    package: Option<&PackageName>,
) -> Result<Proof, ReadError> {
    let mut fields = vec![(":action", NAME.to_owned())];
    // Some tokens are for one project, and refused where none is named.
    fields.extend(package.map(|package| ("name", package.to_string())));
    let answer = upload(index, index.user(), &fields, token).await?;
    let unnamed = answer.is_no() && package.is_none();
    if let Some(proof) = answer.judged().filter(|_| !unnamed) {
        return proof;
    }
    let user = if index.is_token_user() {
        index.user()
    } else {
        NOBODY
    };
    let other = upload(index, user, &fields, &invented()?).await?;
    Ok(if !unnamed {
        other.beside()
    } else if (answer.status, other.status) == (401, 401) {
        Proof::unknown(answer.told())
    } else {
        Proof::unproved(format!(
            "it answers {} where no project is named: store the token under its project's name",
            answer.status
        ))
    })
}

async fn upload(
    index: &PyPi,
    user: &str,
    fields: &[(&'static str, String)],
    token: &Secret<String>,
) -> Result<Answer, ReadError> {
    let body = super::upstream::frame(fields, NAME, 0, BOUNDARY);
    let mut whole = body.head;
    whole.extend(body.tail);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = index.uploading().header(CONTENT_TYPE, kind).body(whole);
    let request = super::upstream::authorised(request, user, token);
    let reply = request.ok_or(ReadError::NotUnderstood)?.send().await;
    let reply = reply.map_err(|e| failed(&e))?;
    let status = reply.status().as_u16();
    let said = super::upstream::told(reply, token, &super::upstream::pair(user, token)).await;
    Ok(Answer { status, said })
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
