//! The question to a person, and the answer.

use super::{Mode, StateName};
use crate::{
    answer::{Decision, Statement},
    ids::{PersonId, RequestId, VersionText},
    intent::Intended,
    passkey::Act,
    request::{RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// A registry's own second factor, handed over to those who approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// `npm:@acme/left@1.4.2`
    pub item: String,
    /// The registry's page, on an origin that the broker's configuration names; absent while the broker asks
    /// for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// It is waited for until then.
    pub until: UnixTime,
    /// The registry's name for what it keeps aside, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// `GET /v1/requests/{id}/question`, signed by a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// What the digest covers; the device computes the digest itself.
    pub facts: RequestFacts,
    /// What the broker says it is.
    pub request_digest: RequestDigest,
    /// What a yes does.
    pub mode: Mode,
    /// Mint: how many seconds the token lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint_seconds: Option<u64>,
    /// Its state.
    pub state: StateName,
    /// When it was opened.
    pub opened: UnixTime,
    /// Words of the job, unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Accepted factors.
    pub factors: Vec<crate::answer::Factor>,
    /// Approvals so far.
    pub approvals: Vec<PersonId>,
    /// The intents that it fits: what people announced before it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Intended>,
    /// Approved, and let out from then on: it can be denied until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixTime>,
    /// Approvals needed.
    pub quorum: u32,
    /// Per item: the newest version the registry serves, if it was read.
    pub previous: Vec<Option<VersionText>>,
    /// Other pending requests for one of these versions.
    pub rivals: Vec<RequestId>,
    /// What is unusual, one sentence each, most important first.
    pub warnings: Vec<String>,
    /// Whether a registry of these items will ask for its own second factor after the approval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub will_confirm: bool,
    /// The registry's own second factor, which is asked for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirm: Vec<Confirm>,
    /// What is inside the files, one card a file, as far as the broker has seen them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<crate::card::Card>,
}

/// `POST /v1/requests/{id}/answer`, signed by a device.
#[derive(Clone, Serialize, Deserialize)]
pub struct AnswerRequest {
    /// What the device signs.
    pub statement: Statement,
    /// Ed25519 over its canonical bytes, hex.
    pub signature: String,
    /// 6 digits typed by the person.
    pub match_code: String,
    /// The second factor.
    #[serde(flatten)]
    pub factor: SecondFactor,
    /// Why, shown to the job's log; for denials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is given beside a device's signature: nothing, a TOTP code, or a passkey's reply.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The TOTP code typed by the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// The passkey's reply to a challenge of the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<PasskeyReply>,
}

/// A passkey's reply to a challenge.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeyReply {
    /// The challenge's nonce, hex.
    pub nonce: String,
    /// `PublicKeyCredential.toJSON()` (WebAuthn §5.1).
    pub credential: serde_json::Value,
}

/// `POST /v1/challenges`, signed by a device: what a passkey shall sign.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// For what.
    pub act: Act,
    /// About what: a request's digest, or the digest of another act's own bytes.
    pub digest: RequestDigest,
}

/// Reply to it. The challenge is made of act, digest and nonce; the device makes it again before it asks
/// its person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// Hex; names the challenge in the answer.
    pub nonce: String,
    /// For `navigator.credentials.get`.
    pub options: serde_json::Value,
}

/// Reply to an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The state after it.
    pub state: StateName,
    /// Approvals so far.
    pub approvals: u32,
    /// Approvals needed.
    pub quorum: u32,
    /// What was decided.
    pub decision: Decision,
}
