//! What a job asks and is told.

use crate::{
    digest::Digest,
    ids::{RegistryId, RequestId},
    request::{Item, RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `POST /v1/requests`, header `Authorization: Bearer <IdToken>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// What to publish.
    pub items: Vec<Item>,
    /// The job's ephemeral age X25519 recipient (`age1…`).
    pub job_key: String,
    /// Chosen by the client; a repeated open with the same key and body is the same request.
    pub idempotency_key: String,
    /// Words of the job to the approver; shown as unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Leave out the items whose version the registry serves already, instead of refusing them all. What is
    /// left is in the reply's facts, in the same order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leave_out_published: bool,
}

/// Reply to an open.
#[derive(Clone, Serialize, Deserialize)]
pub struct Opened {
    /// The request.
    pub id: RequestId,
    /// What people will approve; the client computes it again from `facts`.
    pub request_digest: RequestDigest,
    /// What the digest covers.
    pub facts: RequestFacts,
    /// Secret: waits and collects.
    pub ticket: String,
    /// 6 digits for the job's output.
    pub match_code: String,
    /// Where a person opens it.
    pub page: String,
    /// The registry endpoint to publish to, per registry.
    pub registry_url: std::collections::BTreeMap<RegistryId, String>,
    /// Deposit: the credential by which the registry's client hands the files over, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<String>,
    /// Files that the broker would like to look into, so that people see what is in them:
    /// `PUT /v1/requests/{id}/files/{digest}` with the ticket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inspect: Vec<Digest>,
}

/// A request's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// Waits for answers.
    Pending,
    /// Waits to be collected.
    Approved,
    /// The credential is out, or bytes are on their way.
    Releasing,
    /// The registry's answer was unclear; it is being read back.
    Settling,
    /// The registry wants its own second factor before it publishes; nothing is published yet.
    Confirming,
    /// Done: the registry shows the approved bytes (or the secret was revealed).
    Published,
    /// The registry shows other bytes.
    Conflict,
    /// A person said no, or the package was frozen.
    Denied,
    /// Too late.
    Expired,
    /// The job took it back.
    Cancelled,
}

impl StateName {
    /// Whether nothing can change any more.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Published | Self::Conflict | Self::Denied | Self::Expired | Self::Cancelled
        )
    }
    /// As printed.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Releasing => "releasing",
            Self::Settling => "settling",
            Self::Confirming => "confirming",
            Self::Published => "published",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `GET /v1/requests/{id}?wait=S&since=N`, header `Authorization: Bearer <ticket>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The request.
    pub id: RequestId,
    /// Its state.
    pub state: StateName,
    /// Grows with every change; pass it as `since` to wait for the next.
    pub revision: u64,
    /// Approvals so far.
    pub approvals: u32,
    /// Approvals needed.
    pub quorum: u32,
    /// When it expires next (answers, then collecting, then the credential).
    pub expires: UnixTime,
    /// A sentence for the job's log: who denied and why, what the registry said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Approved, and to be collected from then on: people may still deny it, or it is outside the policy's
    /// hours. The reason says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixTime>,
    /// Per item: what is published and read back.
    #[serde(default)]
    pub items: Vec<ItemStatus>,
}

/// One item's outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemStatus {
    /// `npm:@acme/left@1.4.2`
    pub name: String,
    /// Its state: that of its least advanced file.
    pub state: StateName,
    /// Its files, in the request's order; empty for a secret.
    #[serde(default)]
    pub files: Vec<FileStatus>,
}

/// One file's outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileStatus {
    /// Its name, as the request has it.
    pub name: String,
    /// Its state.
    pub state: StateName,
    /// The digest that the registry showed when it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<Digest>,
}

/// `POST /v1/requests/{id}/collect`, header `Authorization: Bearer <ticket>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Collected {
    /// An armored age file for the job's key. In it: [`SealedRelease`] as JSON. The same on every fetch.
    pub sealed: String,
    /// How the permit is spent.
    pub mode: Mode,
    /// Until when the credential works.
    pub expires: UnixTime,
}

/// What the sealed blob holds.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SealedRelease {
    /// Forward: the one-shot credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Reveal: the stored secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Mint: a token of the registry's own, narrowed and short-lived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted: Option<Minted>,
}

/// A registry's own token, narrowed to one project and a few minutes.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// The user name beside it.
    pub user: String,
    /// Where the registry takes uploads.
    pub upload_url: String,
    /// Until when the registry takes it.
    #[zeroize(skip)]
    pub expires: UnixTime,
}

/// How a permit is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The broker publishes with its own token what is uploaded after the approval.
    Forward,
    /// The broker keeps what is uploaded before the approval, and publishes it afterwards.
    Deposit,
    /// The job gets a token of the registry's own, narrowed to the project and a few minutes. Weaker than
    /// forward: whatever files the job likes can be uploaded with it.
    Mint,
    /// The job gets the stored secret.
    Reveal,
}
