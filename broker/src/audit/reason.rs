//! Why something was refused, as the log records it: closed lists, no text.

use serde::{Deserialize, Serialize};

/// Why a verified caller's request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// The body is not a request.
    BadRequest,
    /// The policy does not allow it.
    Policy,
    /// The package is frozen.
    Frozen,
    /// Too many requests wait.
    Quota,
    /// Same idempotency key, other body.
    IdempotencyMismatch,
    /// The version exists, or another request for it was approved.
    VersionTaken,
    /// No token is stored for the package.
    NoToken,
    /// The vault is sealed.
    Sealed,
    /// The ticket is another request's, or nobody's.
    Ticket,
    /// The uploaded bytes are not the approved ones.
    BytesDiffer,
    /// The upload is not a publish that the broker passes on.
    UploadRefused,
    /// The credential is unknown, spent or too old.
    Credential,
    /// The registry said no.
    RegistryRefused,
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerRefusal {
    /// The request does not wait for answers any more.
    NotPending,
    /// Too late.
    Expired,
    /// The statement is about another request.
    OtherRequest,
    /// The device is not this person's.
    NotEnrolled,
    /// The signature does not hold.
    Signature,
    /// This person may not answer this request.
    NotAllowed,
    /// Who asked may not approve.
    Requester,
    /// This person has answered.
    Repeated,
    /// The statement's time is too far from the broker's.
    Clock,
    /// The typed match code is another one.
    MatchCode,
    /// The tries for the match code are used up.
    MatchCodeExhausted,
    /// The policy asks for a factor that the answer lacks.
    FactorMissing,
    /// The second factor did not hold.
    FactorWrong,
    /// The second factor's tries are used up.
    FactorExhausted,
    /// The vault is sealed.
    Sealed,
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenyCause {
    /// A person said no.
    Person,
    /// The package was frozen.
    Frozen,
    /// Another request for the same version was approved.
    Rival,
    /// Somebody rejected at the registry what it held back.
    Rejected,
    /// An admin stopped everything.
    Stopped,
}

/// What the broker saw at a registry that made it freeze a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreezeCause {
    /// A published file, downloaded, is other bytes than the approved ones.
    ArtifactDiffers,
    /// A version or a file of a version that the broker did not publish.
    VersionUnknown,
    /// Another digest than before for a file of a known version.
    VersionChanged,
    /// Other bytes in the place of a file that was approved and was about to be published.
    Conflict,
}

impl FreezeCause {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ArtifactDiffers => {
                "the registry serves other bytes than those that were approved"
            }
            Self::VersionUnknown => "somebody published it past this broker",
            Self::VersionChanged => "the registry shows other bytes for it than before",
            Self::Conflict => {
                "somebody published other bytes than those that were approved, past this broker"
            }
        }
    }
}

/// What a witness finds wrong with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessFinding {
    /// It has seen more entries than there are.
    Shorter,
    /// The log does not begin with what it has seen.
    Forked,
}

/// Why a caller was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerRefusal {
    /// No token, or not a token.
    Form,
    /// No configured issuer's.
    Issuer,
    /// The algorithm is not allowed.
    Algorithm,
    /// The key is unknown.
    Key,
    /// The signature does not hold.
    Signature,
    /// It is for somebody else.
    Audience,
    /// Too old, too young or too long-lived.
    Time,
    /// A claim is missing or has another type.
    Claims,
    /// It was used before.
    Replayed,
    /// The issuer's keys could not be read.
    KeysUnavailable,
}
