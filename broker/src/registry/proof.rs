//! Whether a registry takes a token, found out without publishing anything.
//!
//! Each adapter asks as its registry allows: by a call that names the account, or by an upload that cannot succeed. Such
//! an upload proves something only where an invented token is answered otherwise: some servers look at the form before
//! they look at the token, and say the same to everybody.

use super::{ReadError, upstream};
use crate::secret::Secret;
use proto::{api::ProofOutcome, digest::hex, ids::PackageName};
use reqwest::Response;

/// What uploads that cannot succeed call themselves, so that whoever reads a registry's log knows them.
pub(super) const NAME: &str = "countersign-probe";
/// Bytes of an invented token, before they are written in hexadecimal.
const INVENTED_BYTES: usize = 32;

/// What a token is tried with.
#[derive(Clone, Copy, Default)]
pub struct Trial<'a> {
    /// A package that it should be good for, where one is known.
    pub package: Option<&'a PackageName>,
    /// The token that it is to replace: it shows how the registry answers one that is good.
    pub present: Option<&'a Secret<String>>,
}

/// What the registry says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// In a word.
    pub outcome: ProofOutcome,
    /// Whose it is, where the registry says so.
    pub account: Option<String>,
    /// In a sentence.
    pub detail: String,
    /// Whether it is refused for being no token of the registry's at all.
    pub unknown: bool,
}

impl Proof {
    /// The registry takes it.
    pub fn proved(detail: impl Into<String>) -> Self {
        Self::of(ProofOutcome::Proved, detail.into())
    }

    /// Nothing short of a publish tells.
    pub fn unproved(why: impl Into<String>) -> Self {
        Self::of(ProofOutcome::Unproved, why.into())
    }

    /// The registry does not take it.
    pub fn refused(said: impl Into<String>) -> Self {
        Self::of(ProofOutcome::Refused, said.into())
    }

    /// The registry knows no such token.
    pub fn unknown(said: impl Into<String>) -> Self {
        let refused = Self::refused(said);
        Self {
            unknown: true,
            ..refused
        }
    }

    /// The same with the account that the registry names.
    #[must_use]
    pub fn whose(mut self, account: String) -> Self {
        self.account = Some(account);
        self
    }

    const fn of(outcome: ProofOutcome, detail: String) -> Self {
        Self {
            outcome,
            account: None,
            detail,
            unknown: false,
        }
    }
}

/// The answer to an upload that cannot succeed.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The registry's words, in a form that may be shown.
    pub(super) said: String,
}

impl Answer {
    /// Takes a reply; `token` is cut out of its words.
    pub(super) async fn of(reply: Response, token: &Secret<String>) -> Self {
        let status = reply.status().as_u16();
        let bytes = upstream::short_reply(reply).await.unwrap_or_default();
        let said = upstream::said(&words(&bytes), token);
        Self { status, said }
    }

    pub(super) const fn is_no(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    pub(super) fn told(&self) -> String {
        format!("it answers {}: {}", self.status, self.said)
    }

    /// What the answer to the token itself says. `None`: an invented one must be tried beside it.
    pub(super) fn judged(&self) -> Option<Result<Proof, ReadError>> {
        match self.status {
            // RFC 9110 §15.5.2: whoever asks is nobody there.
            401 => Some(Ok(Proof::unknown(self.told()))),
            403 => Some(Ok(Proof::refused(self.told()))),
            200..=299 => Some(Ok(Proof::unproved(
                "it says yes to an upload that is none, so its word proves nothing",
            ))),
            400 | 402 | 404..=407 | 409..=424 => None,
            status => Some(Err(ReadError::Status(status))),
        }
    }

    /// What both answers together say, where this one is to an invented token.
    pub(super) fn beside(&self) -> Proof {
        if self.is_no() {
            Proof::proved(
                "it looks into an upload with this token, and refuses an invented one before that",
            )
        } else {
            Proof::unproved(
                "it says the same to an invented token: nothing short of a publish tells",
            )
        }
    }
}

/// A token that no registry has given out.
pub(super) fn invented() -> Result<Secret<String>, ReadError> {
    let mut bytes = [0; INVENTED_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ReadError::Unreachable)?;
    Ok(Secret::new(hex(&bytes)))
}

/// The reason in an answer: the text of a JSON body, the title of a page, or the text as it is.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| {
        let at = |path: &str| json.pointer(path).and_then(serde_json::Value::as_str);
        at("/errors/0/detail")
            .or_else(|| at("/errors/0/message"))
            .or_else(|| at("/message"))
            .or_else(|| at("/error"))
    });
    let title = text
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"));
    let said = said.or(title.map(|(title, _)| title)).unwrap_or(&text);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        let said = "words".to_owned();
        Answer { status, said }
    }

    #[test]
    fn only_a_no_is_a_no_and_only_a_difference_proves() {
        for status in [401, 403] {
            let proof = answer(status).judged().unwrap().unwrap();
            assert_eq!(proof.outcome, ProofOutcome::Refused);
            assert!(proof.detail.contains("words"));
            let proof = answer(status).beside();
            assert_eq!(proof.outcome, ProofOutcome::Proved);
        }
        for status in [400, 404, 413, 422] {
            assert!(answer(status).judged().is_none());
            let proof = answer(status).beside();
            assert_eq!(proof.outcome, ProofOutcome::Unproved);
        }
        for status in [301, 408, 425, 429, 500, 503] {
            assert!(answer(status).judged().unwrap().is_err(), "{status}");
        }
        let yes = answer(200).judged().unwrap().unwrap();
        assert_eq!(yes.outcome, ProofOutcome::Unproved);
    }

    #[test]
    fn the_reason_is_found_in_what_registries_write() {
        for (body, want) in [
            (r#"{"errors":[{"detail":"no"}]}"#, "no"),
            (r#"{"errors":[{"code":"X","message":"no"}]}"#, "no"),
            (r#"{"message":"no"}"#, "no"),
            ("<html><title>403 no</title>", "403 no"),
            ("no\r\n", "no"),
            ("", ""),
        ] {
            assert_eq!(words(body.as_bytes()), want, "{body}");
        }
        assert_ne!(invented().unwrap().expose(), invented().unwrap().expose());
    }
}
