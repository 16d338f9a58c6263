//! The JSON that travels between client and broker.

use crate::{
    answer::{Decision, Evidence, Statement},
    device::{DeviceKind, DevicePublic},
    digest::Digest,
    ids::{ClientKeyId, DeviceId, GroupName, PersonId, RegistryId, RequestId, VersionText},
    intent::{Intended, IntentEvidence},
    passkey::{Act, RelyingParty},
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

/// `POST /v1/enroll`: the first call of a new device, with the invite in the body.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// `csi_…`
    pub invite: String,
    /// The device's public key.
    pub public_key: DevicePublic,
    /// Over [`crate::device::enrolment_bytes`], hex.
    pub signature: String,
    /// A name for the device, for the person's own list.
    pub device_name: String,
    /// What the device is.
    #[serde(default)]
    pub kind: DeviceKind,
    /// Absent like `passkey`: the broker makes a TOTP secret and returns it (stage 1). Present: the first
    /// code proves that it was stored (stage 2), and the person is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// A new passkey, `PublicKeyCredential.toJSON()`: stage 2 as well, beside a code or instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<serde_json::Value>,
}

/// `POST /v1/enroll/unseal`: the first admin enrols while the vault is sealed. The reply is that of the
/// enrolment's stage 1.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsealFirst {
    /// The enrolment, as it would be sent without this; its `totp` is not read.
    pub enrolment: EnrollRequest,
    /// The vault's passphrase.
    pub passphrase: String,
}

/// Reply to an enrolment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// Who.
    pub person: PersonId,
    /// The device.
    pub device: DeviceId,
    /// `otpauth://…`, secret: shown once as a QR code. Only at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otpauth: Option<String>,
    /// The same as a QR code, a row of 0 and 1 each. For browsers, at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<Vec<String>>,
    /// For `navigator.credentials.create`, where the broker has passkeys. Only at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<serde_json::Value>,
    /// Whether the person can answer now.
    pub done: bool,
}

/// A device in `GET /v1/devices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: DeviceKind,
    /// When it was enrolled.
    pub enrolled: UnixTime,
    /// Whether it is the one that asks.
    pub this: bool,
}

/// A passkey in `GET /v1/devices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasskeyLine {
    /// Its credential's id, base64url.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub enrolled: UnixTime,
    /// When it answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixTime>,
}

/// `GET /v1/devices`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Devices {
    /// Who asks.
    pub person: PersonId,
    /// Groups.
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    pub admin: bool,
    /// Devices.
    pub devices: Vec<DeviceLine>,
    /// Passkeys.
    #[serde(default)]
    pub passkeys: Vec<PasskeyLine>,
    /// Whether an authenticator app is set up.
    #[serde(default)]
    pub totp: bool,
}

/// `GET /v1/status`, for everybody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// The daemon's version.
    pub version: String,
    /// Whether the vault is sealed.
    pub sealed: bool,
    /// The broker's clock, as the broker believes it.
    pub time: UnixTime,
    /// Whether it jumped: TOTP codes and id tokens are refused until it is trusted again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_suspect: bool,
    /// The log's verification key (C2SP signed-note vkey), once unsealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_key: Option<String>,
    /// The audience that an IdToken must name.
    pub audience: String,
}

/// `POST /v1/admin/invites`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Who.
    pub person: PersonId,
    /// Groups that the person joins.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    #[serde(default)]
    pub admin: bool,
    /// The person's accounts at CI issuers, like `github:12345` (actor id), for requester exclusion.
    #[serde(default)]
    pub actors: Vec<String>,
}

/// Reply: the invite, shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invited {
    /// `csi_…`
    pub invite: String,
    /// Works until.
    pub expires: UnixTime,
    /// The page that takes it.
    #[serde(default)]
    pub link: String,
    /// The link as a QR code, a row of 0 and 1 each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<Vec<String>>,
}

/// One person in `GET /v1/admin/people`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PersonLine {
    /// Who.
    pub person: PersonId,
    /// Groups.
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    pub admin: bool,
    /// How many devices.
    pub devices: usize,
    /// CI accounts.
    pub actors: Vec<String>,
}

/// `POST /v1/admin/tokens` (add) and `POST /v1/admin/tokens/rotate`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The registry.
    pub registry: RegistryId,
    /// What the token covers: a package name or a pattern like `@acme/*` or `*`.
    pub scope: String,
    /// The secret; it goes in and never comes out.
    pub token: String,
    /// When the registry lets it expire, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
}

/// Names a token: `POST /v1/admin/tokens/check` and `…/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenName {
    /// The registry.
    pub registry: RegistryId,
    /// What it covers.
    pub scope: String,
}

/// One stored token in `GET /v1/admin/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenLine {
    /// The registry.
    pub registry: RegistryId,
    /// What it covers.
    pub scope: String,
    /// Its version, from 1.
    pub version: u64,
    /// Keyed fingerprint, 8 hex digits.
    pub fingerprint: String,
    /// When it was stored.
    pub stored: UnixTime,
    /// When the registry lets it expire, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<UnixTime>,
    /// The old version is kept until then for requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_until: Option<UnixTime>,
    /// Share of the allowed age, in percent.
    pub age_percent: u64,
    /// Whether a job has seen it (reveal): rotate it.
    pub exposed: bool,
}

/// A stage in `GET /v1/admin/stages`: what a registry keeps aside, unpublished.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageLine {
    /// The registry.
    pub registry: RegistryId,
    /// The registry's name for it.
    pub stage: String,
    /// The package, as the registry says.
    pub package: String,
    /// The version, as the registry says.
    pub version: String,
    /// The tag that it will get, as the registry says.
    pub tag: String,
    /// Who staged it, as the registry says.
    pub actor: String,
    /// When, as the registry says.
    pub created: String,
    /// The request by which this broker made it; absent: somebody else did. Look into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

/// `GET /v1/admin/stages`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stages {
    /// What lies at the registries.
    pub stages: Vec<StageLine>,
    /// Registries and packages that did not answer, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Reply to a check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenChecked {
    /// Whether the registry knows the token.
    pub works: bool,
    /// Whose it is, as the registry says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// A sentence.
    pub detail: String,
}

/// `POST /v1/admin/client-keys`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKeyRequest {
    /// Its name.
    pub name: ClientKeyId,
    /// Ed25519 public key.
    pub public_key: DevicePublic,
    /// Packages it may ask for, like `npm:@acme/left`; exact names.
    pub packages: Vec<String>,
}

/// A stored client key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientKeyLine {
    /// Its name.
    pub name: ClientKeyId,
    /// Packages.
    pub packages: Vec<String>,
    /// Registered.
    pub added: UnixTime,
}

/// `POST /v1/admin/freeze` and `…/thaw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// `npm:@acme/left`
    pub package: String,
    /// Why, for the log of people.
    #[serde(default)]
    pub reason: String,
}

/// Reply to freeze and thaw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FreezeStatus {
    /// `npm:@acme/left`
    pub package: String,
    /// Whether it is frozen now.
    pub frozen: bool,
    /// People who asked for the thaw; two are needed.
    pub thawing: Vec<PersonId>,
}

/// `POST /v1/admin/unseal`
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsealRequest {
    /// The passphrase.
    pub passphrase: String,
}

/// One exported line of the audit log (`GET /v1/log/export?from=N&limit=M`, JSON lines).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Position, from 0.
    pub index: u64,
    /// The event's exact bytes: the leaf is hashed over this text.
    pub leaf: String,
}

/// What a receipt states; the payload of a DSSE envelope.
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
