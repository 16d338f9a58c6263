//! The story: how a wish becomes a publish.
//!
//! Read `state` (what can happen), then the verbs in their order: [`intent`] (before any job asks), [`open`], [`answer`],
//! [`release`] (collect), [`forward`], [`confirm`] (where the registry has a second factor of its own),
//! [`settle`], [`fetch`], [`close`]. What people see of the bytes is made by [`inspect`].

pub mod alarm;
pub mod answer;
pub mod archive;
pub mod close;
pub mod confirm;
mod conflict;
pub mod contents;
mod deny;
pub mod deposit;
pub mod ended;
pub mod fetch;
pub mod forward;
pub mod frozen;
mod habits;
pub mod inbox;
pub mod inspect;
pub mod intent;
pub mod judge;
pub mod known;
pub mod ledger;
pub mod open;
pub mod outbox;
pub mod past;
mod previous;
pub mod prove;
pub mod pushes;
pub mod question;
pub mod release;
pub mod ring;
pub mod settle;
pub mod stages;
pub mod state;
pub mod stop;
pub mod trace;
mod tried;
pub mod unannounced;
pub mod unseen;
pub mod versions;
pub mod veto;

use crate::{
    desk::Fault,
    policy::{self, Reason},
};
use proto::{
    api::StateName,
    ids::RequestId,
    problem::{Code, Problem},
};
use thiserror::Error;

/// Why a verb did not do what was asked; one enum for the story, split by whose fault it is.
#[derive(Debug, Error)]
pub enum Refusal {
    /// What was asked makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// No such request, or none that this ticket opens. Both look the same (attack 55).
    #[error("no such request")]
    NotFound,
    /// The caller's token was used before.
    #[error("this token was used before")]
    TokenReplayed,
    /// The same idempotency key with another body.
    #[error("this idempotency key was used with another body")]
    IdempotencyMismatch,
    /// The policy says no.
    #[error("{0}")]
    Policy(policy::Refusal),
    /// Too many requests are open.
    #[error("too many requests of this project are open")]
    Busy,
    /// The version exists or was approved elsewhere.
    #[error("{0}")]
    VersionTaken(String),
    /// Published versions were to be left out, and nothing else was asked for.
    #[error("every version is published already")]
    AllPublished,
    /// The state does not allow it.
    #[error("the request is {}", .0.text())]
    State(StateName, Option<String>),
    /// Not enough answers yet.
    #[error("{0}")]
    NotApproved(String),
    /// Approved, and not let out at this time.
    #[error("{0}")]
    NotYet(policy::Later),
    /// A client that announced nothing: people have just been asked.
    #[error("this waits for approval: {page} (match code {match_code}, request {id})")]
    Asked {
        /// The request.
        id: RequestId,
        /// The question's address.
        page: String,
        /// What this job's output must show.
        match_code: String,
    },
    /// A client that announced nothing handed its files over.
    #[error(
        "handed over, and published as soon as it is approved: {page} (match code {match_code}, request {id})"
    )]
    HandedOver {
        /// The request.
        id: RequestId,
        /// The question's address.
        page: String,
        /// What this job's output must show.
        match_code: String,
    },
    /// The typed match code is another one.
    #[error("this is not the match code in the job's output")]
    MatchCodeWrong {
        /// Tries that this person has left for this request.
        left: u8,
    },
    /// The second factor did not hold.
    #[error("the code is wrong or was used before")]
    FactorWrong,
    /// A second factor is needed, or another one.
    #[error("this needs a second factor that was not given")]
    FactorMissing,
    /// Devices and factors change by the strongest factor alone.
    #[error("this needs your passkey, or your authenticator's code where you have no passkey")]
    StrongestFactor,
    /// The passkey's reply does not hold.
    #[error("the passkey's reply does not hold for this")]
    PasskeyRefused,
    /// The broker's clock jumped.
    #[error("the broker's clock jumped: TOTP codes and id tokens are refused")]
    ClockSuspect,
    /// The database is an older copy that the admins have not agreed to.
    #[error(
        "the broker's database is an older copy: nothing is approved or released until its admins have agreed to it"
    )]
    Restored,
    /// A device saw what that copy does not have.
    #[error(
        "this device saw {0} entries of the log that this database does not have: what was approved, removed, rotated or frozen then is unknown here"
    )]
    Lost(u64),
    /// The tries are used up.
    #[error("too many wrong tries")]
    FactorExhausted,
    /// This person may not do this.
    #[error("{0}")]
    NotAllowed(String),
    /// The uploaded bytes are not the approved ones.
    #[error("{0}")]
    BytesDiffer(String),
    /// The upload is not a publish.
    #[error("{0}")]
    Upload(String),
    /// The registry said no.
    #[error("the registry said no: {0}")]
    RegistryRefused(String),
    /// The registry does not take a token that was to be stored.
    #[error("the registry does not take this token: {0}")]
    TokenRefused(String),
    /// The registry shows other bytes.
    #[error("the registry shows other bytes than the approved ones")]
    RegistryConflict,
    /// The registry wants its own second factor first.
    #[error(
        "the registry wants its own second factor before it publishes; an approver gives it now"
    )]
    Confirming,
    /// Unclear; it is being read back.
    #[error("the registry did not answer clearly; the broker keeps reading it back")]
    Unsettled,
    /// The registry cannot be reached.
    #[error("the registry cannot be reached: {0}")]
    RegistryDown(String),
    /// No token is stored.
    #[error("no token is stored for {0}")]
    NoToken(String),
    /// Below the verb.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<state::NotFrom> for Refusal {
    fn from(e: state::NotFrom) -> Self {
        Self::State(e.0, None)
    }
}

/// The problem that leaves the broker. The text for outside is not the text for inside: a fault of
/// the broker's is a number of its log, never a path or a row.
pub fn problem(refusal: &Refusal) -> Problem {
    let (code, hint) = match refusal {
        Refusal::BadRequest(_) => (Code::BadRequest, "Correct the request and send it again."),
        Refusal::NotFound => (Code::NotFound, "Check the id and the ticket."),
        Refusal::TokenReplayed => (Code::TokenReplayed, "Get a fresh token for every call."),
        Refusal::IdempotencyMismatch => (
            Code::IdempotencyMismatch,
            "Use a new idempotency key for a new request.",
        ),
        Refusal::Policy(r) => match r.reason {
            Reason::Frozen => (Code::Frozen, "Two people thaw it: countersign admin thaw."),
            Reason::Exists => (Code::VersionTaken, "Choose a new version."),
            _ => (
                Code::PolicyDenied,
                "Ask an admin of the broker: the policy is not in this repository.",
            ),
        },
        Refusal::Busy => (
            Code::Busy,
            "Answer or deny the open requests first (countersign inbox).",
        ),
        Refusal::VersionTaken(_) => (Code::VersionTaken, "Choose a new version."),
        Refusal::AllPublished => (
            Code::AllPublished,
            "There is nothing left to publish. Choose a new version where one is wanted.",
        ),
        Refusal::State(StateName::Denied, _) => (Code::Denied, "Ask the person who denied it."),
        Refusal::State(StateName::Expired, _) => (Code::Expired, "Open a new request."),
        Refusal::State(StateName::Cancelled, _) => (Code::Cancelled, "Open a new request."),
        Refusal::State(_, _) | Refusal::Fault(Fault::Conflict(..)) => {
            (Code::AlreadySettled, "Look at its status.")
        }
        Refusal::NotApproved(_) => (Code::NotApproved, "Wait until enough people have approved."),
        Refusal::NotYet(_) => (
            Code::NotYet,
            "Nothing is lost: wait until then (countersign wait), and collect within 15 minutes.",
        ),
        Refusal::HandedOver { .. } => (
            Code::ApprovalNeeded,
            "Nothing is left for this job to do; nothing is published yet.",
        ),
        Refusal::Asked { .. } => (
            Code::ApprovalNeeded,
            "When it is approved, run this job again: the same bytes are published then.",
        ),
        Refusal::MatchCodeWrong { left } => (
            Code::MatchCodeWrong,
            match left {
                0 => {
                    "No try is left for you: another person can still approve. If you do not know the job, deny it."
                }
                1 => "Type the six digits that this job's output shows. One try is left.",
                _ => "Type the six digits that this job's output shows. Two tries are left.",
            },
        ),
        Refusal::FactorWrong => (
            Code::FactorWrong,
            "Wait for the next code (30 s) and check the clock.",
        ),
        Refusal::FactorMissing => (
            Code::FactorMissing,
            "Give the code of your authenticator app, or use your passkey in the web app, as the policy asks.",
        ),
        Refusal::StrongestFactor => (
            Code::FactorMissing,
            "With a passkey: do it on the Devices page of the web app.",
        ),
        Refusal::PasskeyRefused => (
            Code::FactorWrong,
            "Try again with a passkey that is enrolled for you at this broker.",
        ),
        Refusal::ClockSuspect => (
            Code::ClockSuspect,
            "Denying and device-key approvals work. An admin checks the clock of the broker's machine, then: countersign admin trust-clock.",
        ),
        Refusal::Restored => (
            Code::Restored,
            "Denying and freezing work. Admins look at what was lost, and agree: countersign admin restored.",
        ),
        Refusal::Lost(_) => (
            Code::NotAllowed,
            "Look for a newer backup. To go on without them: countersign admin restored agree --despite-loss.",
        ),
        Refusal::FactorExhausted => (
            Code::FactorExhausted,
            "Deny still works. Another person can approve, or wait.",
        ),
        Refusal::NotAllowed(_) => (Code::NotAllowed, "Ask somebody whom the policy names."),
        Refusal::BytesDiffer(_) => (
            Code::BytesDiffer,
            "Publish the very file that was approved, or ask again.",
        ),
        Refusal::Upload(_) => (Code::UploadRefused, "Publish with an unmodified client."),
        Refusal::RegistryRefused(_) => (
            Code::RegistryRefused,
            "The approval stays good until it expires: mend the cause and publish again.",
        ),
        Refusal::TokenRefused(_) => (
            Code::RegistryRefused,
            "Nothing was stored, and what is stored stays. Look at the token at the registry, or make a new one there.",
        ),
        Refusal::RegistryConflict => (
            Code::RegistryConflict,
            "Somebody else published. Freeze the package and look into it.",
        ),
        Refusal::Confirming => (
            Code::Confirming,
            "Approvers find the registry's page with countersign inbox. Run the same command again, or wait: nothing is sent twice.",
        ),
        Refusal::Unsettled => (
            Code::Unsettled,
            "Run the same command again; nothing is sent twice.",
        ),
        Refusal::RegistryDown(_) => (
            Code::RegistryDown,
            "Nothing was sent. An approval stays good until it expires: publish again.",
        ),
        Refusal::NoToken(_) => (
            Code::NoToken,
            "An admin stores one: countersign admin token add.",
        ),
        Refusal::Fault(Fault::Sealed) => (
            Code::Sealed,
            "An admin unseals it: countersign admin unseal.",
        ),
        Refusal::Fault(_) => (Code::Internal, "Look into the broker's log."),
    };
    let title = match refusal {
        Refusal::Fault(Fault::Sealed) => "the broker's vault is sealed".to_owned(),
        Refusal::Fault(Fault::Conflict(..)) => "another act was faster".to_owned(),
        Refusal::Fault(_) => "the broker failed".to_owned(),
        Refusal::State(s, Some(reason)) => format!("the request is {}: {reason}", s.text()),
        other => other.to_string(),
    };
    Problem::new(code, title, hint)
}
