//! Errors as they travel (RFC 9457), and the exit codes they become.

use serde::{Deserialize, Serialize};

/// A problem body, media type `application/problem+json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, for programs.
    pub code: Code,
    /// One short sentence.
    pub title: String,
    /// What to do next.
    #[serde(default)]
    pub detail: String,
    /// The HTTP status.
    pub status: u16,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $exit:ident;)*) => {
        /// Stable problem codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// A code that this version does not know.
            #[serde(other)]
            Unknown,
        }
        impl Code {
            /// The text form.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "unknown" }
            }
            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* Self::Unknown => 500 }
            }
            /// The exit code of the client.
            pub const fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* Self::Unknown => Exit::Failed }
            }
        }
    };
}

codes! {
    /// The body or a parameter is not what the route takes.
    BadRequest = "bad-request", 400, Usage;
    /// The body is larger than the route takes.
    TooLarge = "too-large", 413, Failed;
    /// No such route, or nothing that this caller may see.
    NotFound = "not-found", 404, Failed;
    /// No proof of who is calling, or one that does not hold.
    Unauthenticated = "unauthenticated", 401, Refused;
    /// The signed call's nonce is not the one handed out; sign again with `DPoP-Nonce`.
    UseNonce = "use-dpop-nonce", 401, Failed;
    /// The caller's token was used before.
    TokenReplayed = "token-replayed", 401, Refused;
    /// The clock of the caller or of the broker is wrong.
    ClockWrong = "clock-wrong", 401, Refused;
    /// The broker's clock jumped: TOTP codes and id tokens are refused until it is trusted again.
    ClockSuspect = "clock-suspect", 503, Refused;
    /// The policy does not allow this.
    PolicyDenied = "policy-denied", 403, Refused;
    /// This person may not do this.
    NotAllowed = "not-allowed", 403, Refused;
    /// The package is frozen.
    Frozen = "frozen", 403, Refused;
    /// Somebody denied the request.
    Denied = "denied", 403, Denied;
    /// It was not answered or collected in time.
    Expired = "expired", 410, Expired;
    /// It was cancelled.
    Cancelled = "cancelled", 410, Expired;
    /// Nobody answered yet.
    NotApproved = "not-approved", 409, Expired;
    /// Approved, and not let out at this time.
    NotYet = "not-yet", 409, Expired;
    /// People have been asked; the same upload works when they have approved.
    ApprovalNeeded = "approval-needed", 403, Expired;
    /// The typed match code is another one.
    MatchCodeWrong = "match-code-wrong", 403, Refused;
    /// The second factor did not hold.
    FactorWrong = "factor-wrong", 403, Refused;
    /// The second factor's tries are used up.
    FactorExhausted = "factor-exhausted", 429, Refused;
    /// The policy asks for a second factor that the answer does not carry.
    FactorMissing = "factor-missing", 403, Refused;
    /// The request is in a final state, or another act was faster.
    AlreadySettled = "already-settled", 409, Conflict;
    /// The same idempotency key with another body.
    IdempotencyMismatch = "idempotency-mismatch", 422, Conflict;
    /// This version exists already, or another request for it was approved.
    VersionTaken = "version-taken", 409, Conflict;
    /// Published versions were to be left out, and nothing else was asked for.
    AllPublished = "all-published", 409, Conflict;
    /// The uploaded bytes are not the approved ones.
    BytesDiffer = "bytes-differ", 403, Refused;
    /// The upload is not a publish that the broker passes on.
    UploadRefused = "upload-refused", 422, Failed;
    /// The registry shows other bytes than the approved ones.
    RegistryConflict = "registry-conflict", 409, Conflict;
    /// The registry did not answer clearly; the broker keeps reading back.
    Unsettled = "unsettled", 502, Conflict;
    /// The registry wants its own second factor; an approver gives it, and the same upload gets the outcome.
    Confirming = "confirming", 503, Expired;
    /// The registry said no.
    RegistryRefused = "registry-refused", 502, Failed;
    /// The registry cannot be reached.
    RegistryDown = "registry-down", 502, Failed;
    /// The vault is sealed.
    Sealed = "sealed", 503, Unreachable;
    /// The vault is sealed and nobody is enrolled yet: the first admin's enrolment needs its passphrase.
    PassphraseNeeded = "passphrase-needed", 503, Unreachable;
    /// The database is an older copy: nothing is approved or released until the admins have agreed to it.
    Restored = "restored", 503, Unreachable;
    /// No token is stored for this package.
    NoToken = "no-token", 503, Refused;
    /// Too many requests are open or calls were made.
    Busy = "busy", 429, Failed;
    /// It exists already.
    Exists = "exists", 409, Failed;
    /// The broker's fault.
    Internal = "internal", 500, Failed;
}

/// Exit codes of the client. No error exits 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Denied by a person.
    Denied = 3,
    /// Expired or timed out.
    Expired = 4,
    /// Refused by policy, or an unknown caller.
    Refused = 5,
    /// Broker unreachable or sealed.
    Unreachable = 6,
    /// Conflict or unsettled.
    Conflict = 7,
}

impl Problem {
    /// A problem with a title and a hint.
    pub fn new(code: Code, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code,
            title: title.into(),
            detail: detail.into(),
            status: code.status(),
        }
    }
}
