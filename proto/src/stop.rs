//! The JSON of an incident: everything is stopped, and what was published is looked through.

use crate::{
    act::Withdrawal,
    answer::Factor,
    api::{Mode, SecondFactor, StateName},
    digest::Digest,
    ids::{PackageName, PersonId, RegistryId, RequestId, VersionText},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// In place of a package's name: all of them. No package is called so, since each has its registry before it.
pub const EVERYTHING: &str = "*";
/// Longest reason, in bytes.
pub const REASON_MAX: usize = 300;

/// `POST /v1/admin/panic`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanicRequest {
    /// Why, for people; it is in every inbox, and not in the log.
    #[serde(default)]
    pub reason: String,
}

/// Its reply: what this call ended. The freeze was stored first; a call that breaks off is gone on with by the broker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stopped {
    /// Whether everything is frozen.
    pub frozen: bool,
    /// Since when.
    pub since: UnixTime,
    /// Requests that ended, and nothing of which had left.
    pub ended: usize,
    /// Credentials that ended after a part of their request had left.
    pub credentials: usize,
    /// Announcements that were withdrawn.
    pub intents: usize,
    /// Jobs whose session at a registry endpoint ended.
    pub sessions: usize,
    /// Invites that nobody had used, and that are gone.
    pub invites: usize,
    /// What may be on its way to a registry: it is read back, and nothing of it is sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sending: Vec<OnTheWay>,
    /// What jobs hold themselves, and the broker cannot call back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handed_out: Vec<HandedOut>,
    /// Who could thaw it; absent: the vault is sealed, and nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thawers: Option<Thawers>,
    /// What lies at registries, unpublished: reject it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
    /// There is more; the broker goes on with it by itself.
    #[serde(default)]
    pub more: bool,
}

/// People who were enrolled before everything was stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Thawers {
    /// Admins: two of them thaw it.
    pub admins: Vec<PersonId>,
    /// Others, who could thaw it if they were made admins.
    pub others: Vec<PersonId>,
}

/// A file that may be on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnTheWay {
    /// Of which request.
    pub request: RequestId,
    /// `npm:@acme/left@1.4.2`
    pub name: String,
    /// The file.
    pub file: String,
}

/// What a job was given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandedOut {
    /// By which request.
    pub request: RequestId,
    /// `npm:@acme/left`, or the secret's name.
    pub package: String,
    /// When the registry stops to take it; absent: when somebody revokes it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
}

/// `GET /v1/admin/published`: what left the broker, newest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PublishedPage {
    /// The requests.
    pub requests: Vec<PublishedLine>,
    /// What jobs were given by these requests and by others, of which nothing left, with what became of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<GivenLine>,
    /// There may be more: `&after=<next>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a job was given itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GivenKind {
    /// A one-shot credential for the broker's own endpoint.
    Credential,
    /// A token of the registry's own, narrowed to a project and some minutes.
    Minted,
    /// The stored secret.
    Secret,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenLine {
    /// By which request.
    pub request: RequestId,
    /// `npm:@acme/left@1.4.2`
    pub names: Vec<String>,
    /// What.
    pub kind: GivenKind,
    /// When.
    pub at: UnixTime,
    /// When it stops to work by itself; absent: when somebody revokes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// Where its request stands, which says what was done with it.
    pub state: StateName,
    /// When the request ended; absent: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<UnixTime>,
    /// Of how many files something left by it, or may have.
    pub left: usize,
}

/// One request of which something was published, or may have been.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishedLine {
    /// The request; a published one's receipt has the same id.
    pub request: RequestId,
    /// Where it stands.
    pub state: StateName,
    /// Who published: the broker itself, or the job with what it was given.
    pub mode: Mode,
    /// When it ended; absent: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<UnixTime>,
    /// What.
    pub items: Vec<PublishedFiles>,
    /// Who asked: the issuer's name and the immutable id there.
    pub asked_by: String,
    /// The CI account that started the job, where the issuer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The run, a link made from verified claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Who approved, and by which proof.
    pub approved_by: Vec<ApprovedBy>,
    /// Who announced it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced_by: Vec<PersonId>,
}

/// Who approved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovedBy {
    /// Who.
    pub person: PersonId,
    /// By which proof.
    pub factor: Factor,
}

/// An item's files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishedFiles {
    /// `npm:@acme/left@1.4.2`
    pub name: String,
    /// Its files.
    pub files: Vec<PublishedFile>,
}

/// A file, as it was approved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its approved digest.
    pub digest: Digest,
    /// What became of it.
    pub state: StateName,
}

/// `GET /v1/admin/registries`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegistryLine {
    /// The registry, as the configuration names it.
    pub registry: RegistryId,
    /// The protocol: `npm`, `pypi`, `crates`, `rubygems`, `oci`, `http`, `generic`.
    pub kind: String,
    /// Its web pages, where the configuration names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<String>,
}

/// One line of `GET /v1/admin/withdrawals`: what admins agreed to withdraw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithdrawalLine {
    /// What.
    pub withdrawal: Withdrawal,
    /// Who asked.
    pub by: PersonId,
    /// Who agreed.
    pub confirmed: Vec<PersonId>,
    /// When.
    pub agreed: UnixTime,
    /// What became of it.
    pub state: WithdrawalState,
    /// Calls so far.
    pub attempts: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// When it ended; absent: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<UnixTime>,
}

/// What became of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithdrawalState {
    /// The broker is at it.
    Waiting,
    /// The registry shows it.
    Done,
    /// An admin called it back before anything had left.
    CalledBack,
    /// It does not, and the broker has given up.
    Failed,
}

/// `POST /v1/admin/withdrawals/call-back`: of what admins agreed to withdraw, and nothing of which has left yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct CallBack {
    /// The registry.
    pub registry: RegistryId,
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: VersionText,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

impl CallBack {
    /// `npm:@acme/left@1.4.2`
    pub fn name(&self) -> String {
        format!("{}:{}@{}", self.registry, self.package, self.version)
    }
}

/// `POST /v1/admin/panic` stopped everything, and no two admins have thawed it since.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standstill {
    /// Who stopped everything; absent: its record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PersonId>,
    /// Since when.
    pub since: UnixTime,
    /// Why, in that person's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked for the thaw; two are needed.
    pub thawing: Vec<PersonId>,
}
