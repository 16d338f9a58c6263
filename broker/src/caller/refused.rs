//! Why a token does not name a caller.

use std::borrow::Cow;
use thiserror::Error;

/// Why a token was refused. The texts go to the CI job's log: they say what to do, and quote nothing
/// from the token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallerRefused {
    /// It is not a compact, signed JWT of the strict shape that we read.
    #[error("the token {0}; send the ID token exactly as the CI system gave it")]
    Malformed(&'static str),
    /// No configured issuer has exactly this `iss`.
    #[error(
        "no configured issuer made this token; an admin adds issuers to the broker's configuration"
    )]
    UnknownIssuer,
    /// Signed with an algorithm that the issuer's configuration does not allow, or not by a key of it.
    #[error(
        "the token's algorithm or type is not allowed for its issuer; see `algorithms` in the broker's configuration"
    )]
    Algorithm,
    /// The issuer (or the broker, for a client key) does not know the key, or not any more.
    #[error(
        "the token's key is not known; if the issuer has just changed keys, ask again in a minute, and if it is a client key, ask an admin whether it was removed"
    )]
    UnknownKey,
    /// The issuer's keys could not be fetched.
    #[error("the issuer's keys could not be fetched; ask again in a minute")]
    KeysUnavailable,
    /// The signature does not hold.
    #[error(
        "the token's signature does not hold; send the ID token exactly as the CI system gave it"
    )]
    Signature,
    /// Made for somebody else.
    #[error(
        "the token was made for another audience; ask the CI system for one whose only audience is the broker's public URL"
    )]
    Audience,
    /// Its time is over.
    #[error("the token has expired; ask the CI system for a fresh one just before the call")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks of the broker and of the issuer")]
    NotYetValid,
    /// It lives longer than a job's token may.
    #[error(
        "the token is valid for longer than tokens of its issuer may be; shorten the job's time limit or the token's life, or ask an admin for `life_minutes`"
    )]
    TooLong,
    /// A claim is absent, or is not what it has to be.
    #[error("the token's claim `{0}` is missing, of the wrong type, too long or not plain text")]
    ClaimMissing(Cow<'static, str>),
    /// An event that runs foreign code with the repository's identity.
    #[error(
        "jobs of `pull_request_target`, `workflow_run`, merge requests and SSH reruns are refused, because a stranger's code or hands may run in them; an admin may name the event in `events_named`"
    )]
    Event,
}
