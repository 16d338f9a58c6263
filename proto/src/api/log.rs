//! What is exported of the log, and receipts.

use super::ItemStatus;
use crate::{
    answer::Evidence,
    intent::IntentEvidence,
    log::merkle::TreeHash,
    passkey::RelyingParty,
    request::{RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// One exported line of the audit log (`GET /v1/log/export?from=N&limit=M`, JSON lines).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Position, from 0.
    pub index: u64,
    /// The event's exact bytes: the leaf is hashed over this text.
    pub leaf: String,
}

/// What a search of the log found (`GET /v1/log/find`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The entries, in their order.
    pub entries: Vec<LogLine>,
    /// Where to go on: a call reads a bounded piece of the log. Absent at the log's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A checkpoint with a proof for the very tree that it signs (`GET /v1/log/consistency?from=N`, where the tree
/// begins with that of N entries, and `GET /v1/log/inclusion?index=N`, where it has entry N).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// The signed checkpoint of this moment (C2SP tlog-checkpoint).
    pub checkpoint: String,
    /// The proof's hashes, in the order of RFC 9162 §2.1. Empty where there is nothing to prove, or no way to:
    /// whoever asked finds that by the checkpoint.
    pub proof: Vec<TreeHash>,
}

/// How a witness of the log does (`GET /v1/admin/witnesses`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessState {
    /// Its vkey.
    pub witness: String,
    /// Entries of the log that it cosigned last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// When, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned: Option<UnixTime>,
    /// Since when it does not cosign, and why, where it says nothing against the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<(UnixTime, String)>,
    /// Why it refuses the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<WitnessRefusal>,
}

/// What a witness says against the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRefusal {
    /// Since when.
    pub since: UnixTime,
    /// Entries that it was shown then.
    pub entries: u64,
    /// Entries that it has seen, by its own word.
    pub seen: u64,
    /// Whether the log does not begin with those; otherwise it has fewer.
    pub forked: bool,
}

/// What a receipt states; the predicate of an in-toto statement in a DSSE envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiptBody {
    /// What was asked.
    pub facts: RequestFacts,
    /// Its digest.
    pub request_digest: RequestDigest,
    /// The approvals' evidence.
    pub evidence: Vec<Evidence>,
    /// The site that passkeys' assertions are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<RelyingParty>,
    /// The intents that it fitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<IntentEvidence>,
    /// What the registry showed afterwards.
    pub items: Vec<ItemStatus>,
    /// The leaf that records the publish.
    pub leaf: LogLine,
    /// Inclusion proof of that leaf (RFC 9162 §2.1.3), hex.
    pub inclusion: Vec<String>,
    /// The signed checkpoint (C2SP tlog-checkpoint) that it is proved against.
    pub checkpoint: String,
}
