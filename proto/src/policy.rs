//! The policy in force, as admins are shown it.

use crate::{
    answer::Factor,
    api::Mode,
    digest::Digest,
    ids::{GroupName, PersonId},
};
use serde::{Deserialize, Serialize};

/// `GET /v1/admin/policy`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyShown {
    /// SHA-256 of the document.
    pub digest: Digest,
    /// One a `[[package]]`, in the document's order.
    pub entries: Vec<PolicyEntry>,
}

/// What is allowed for some packages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// Names and patterns.
    pub matches: Vec<String>,
    /// Who may ask, in words.
    pub callers: Vec<String>,
    /// Groups that approve.
    pub approvers: Vec<GroupName>,
    /// Who is in them now.
    pub people: Vec<PersonId>,
    /// How many of them must approve.
    pub quorum: u32,
    /// How.
    pub factors: Vec<Factor>,
    /// What a yes does.
    pub mode: Mode,
    /// Whether who asked may be one of them.
    pub requester_may_approve: bool,
    /// Seconds after the approval in which anybody of them may still deny.
    pub veto_seconds: u64,
}
