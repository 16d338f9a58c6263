//! What a person finds waiting, ended and frozen.

use super::{Confirm, StateName};
use crate::{
    ids::{PersonId, RequestId},
    request::RequestDigest,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// `GET /v1/inbox`, signed by a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// What waits, most urgent first: in the order in which the time for answers ends.
    pub requests: Vec<InboxLine>,
    /// What the broker saw at registries and froze packages for, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// What a registry took, or may have taken, and nobody can see; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// There may be more: `GET /v1/inbox?after=<next>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One line of the inbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InboxLine {
    /// The request.
    pub id: RequestId,
    /// `npm:@acme/left@1.4.2`, first of the items.
    pub title: String,
    /// How many items.
    pub items: usize,
    /// Their packages (`npm:@acme/left`), each once.
    pub packages: Vec<String>,
    /// The digest, so that many can be denied at once. Whoever approves computes it himself.
    pub request_digest: RequestDigest,
    /// Who asks.
    pub caller: String,
    /// Opened.
    pub opened: UnixTime,
    /// Answers are taken until.
    pub expires: UnixTime,
    /// Approvals so far and needed.
    pub approvals: (u32, u32),
    /// Approved, and let out from then on: it can be denied until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixTime>,
    /// Whether this person has answered.
    pub answered: bool,
    /// Who announced it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intended_by: Vec<PersonId>,
    /// The registry's own second factor, which is asked for now; answers are given already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirm: Vec<Confirm>,
}

/// `GET /v1/history`, signed by a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// What ended, newest first.
    pub requests: Vec<HistoryLine>,
    /// There may be more: `GET /v1/history?after=<next>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A request that ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The request.
    pub id: RequestId,
    /// `npm:@acme/left@1.4.2`, first of the items.
    pub title: String,
    /// How many items.
    pub items: usize,
    /// Who asked.
    pub caller: String,
    /// How it ended.
    pub state: StateName,
    /// A sentence: who denied and why, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who approved.
    pub approvals: Vec<PersonId>,
    /// Opened.
    pub opened: UnixTime,
    /// Ended.
    pub ended: UnixTime,
}

/// `GET /v1/packages`, signed by a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Packages {
    /// By name.
    pub packages: Vec<PackageLine>,
    /// There may be more: `GET /v1/packages?after=<next>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackageLine {
    /// `npm:@acme/left`
    pub package: String,
    /// Its freeze, if it is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<FrozenLine>,
    /// How many requests for it are open; counted to 100.
    pub open: usize,
    /// The last publishes, newest first.
    pub published: Vec<HistoryLine>,
}

/// A freeze.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FrozenLine {
    /// Who froze it; absent: the broker itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PersonId>,
    /// Since when.
    pub since: UnixTime,
    /// What the broker saw, where it froze the package itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Who asked for the thaw; two are needed.
    pub thawing: Vec<PersonId>,
}
