//! What an admin does.

use crate::{
    api::{DeviceLine, SecondFactor},
    device::DevicePublic,
    ids::{ClientKeyId, GroupName, PersonId, RegistryId, RequestId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

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
    /// Which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolled: Vec<DeviceLine>,
    /// CI accounts.
    pub actors: Vec<String>,
}

/// Names a token, as in `POST /v1/admin/tokens/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether it is kept beyond that, until the version in its place was accepted once by its registry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The old version that is kept until this one was accepted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<u64>,
    /// Share of the allowed age, in percent.
    pub age_percent: u64,
    /// Whether a job has seen it (reveal): rotate it.
    pub exposed: bool,
    /// How soon it is to be rotated, for any of these reasons.
    #[serde(default)]
    pub rotation: Rotation,
    /// What its registry said of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<TokenProof>,
    /// When an admin said that the token is nowhere else any more; absent: nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptied: Option<UnixTime>,
}

/// A token that is no more here, and may still be good at its registry: in `GET /v1/admin/tokens/left`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftToken {
    /// The registry.
    pub registry: RegistryId,
    /// What it covered.
    pub scope: String,
    /// Which version of it.
    pub version: u64,
    /// Keyed fingerprint, 8 hex digits.
    pub fingerprint: String,
    /// When it was destroyed here.
    pub since: UnixTime,
    /// When the registry lets it expire, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
}

/// `POST /v1/admin/tokens/revoked`.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// Keyed fingerprint, 8 hex digits.
    pub fingerprint: String,
    /// Proof, where the token is one that is kept.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// Names tokens by their fingerprint: `POST /v1/admin/tokens/emptied`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPrint {
    /// Keyed fingerprint, 8 hex digits.
    pub fingerprint: String,
}

/// How a token that was destroyed here ended at its registry, as far as the broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenEnd {
    /// The broker revoked it there.
    Revoked,
    /// The registry does not know it any more: somebody revoked it there.
    Unknown,
    /// Its time there is over.
    Expired,
    /// The same token is stored in another place here, and goes on.
    InUse,
    /// It may still be good: an admin revokes it there.
    Open,
}

/// Seconds before its expiry from which on a token is to be rotated soon.
const EXPIRES_SOON: u64 = 7 * 86_400;

/// How soon a token is to be rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// Nothing is to be done.
    #[default]
    Later,
    /// From 75 % of the allowed age on, and in the last week before the expiry.
    Soon,
    /// From 90 % on, after the expiry, once a job has seen it, and when its registry refuses it.
    Now,
}

impl TokenLine {
    /// Whether new uploads take it. Others are old ones.
    pub const fn is_present(&self) -> bool {
        self.overlap_until.is_none()
    }

    /// How soon it is to be rotated, by its age, its expiry, who has seen it and what its registry says. An old one was.
    pub fn rotation(&self, now: UnixTime) -> Rotation {
        if !self.is_present() {
            return Rotation::Later;
        }
        let by_age = match self.age_percent {
            0..75 => Rotation::Later,
            75..90 => Rotation::Soon,
            _ => Rotation::Now,
        };
        let by_expiry = match self.expires {
            Some(at) if at <= now => Rotation::Now,
            Some(at) if at.since(now) < EXPIRES_SOON => Rotation::Soon,
            _ => Rotation::Later,
        };
        let seen = if self.exposed {
            Rotation::Now
        } else {
            Rotation::Later
        };
        let refused = |p: &TokenProof| p.outcome == ProofOutcome::Refused;
        let by_proof = if self.proof.as_ref().is_some_and(refused) {
            Rotation::Now
        } else {
            Rotation::Later
        };
        by_age.max(by_expiry).max(seen).max(by_proof)
    }
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

/// What came of asking a registry about a token without publishing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofOutcome {
    /// The registry takes it.
    Proved,
    /// Nothing short of a publish tells, or the registry could not be asked.
    Unproved,
    /// The registry does not take it.
    Refused,
}

/// What a registry said of a token, and when: the reply to a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    /// In a word.
    pub outcome: ProofOutcome,
    /// Whose it is, as the registry says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// In a sentence about the registry ("it").
    pub detail: String,
    /// At which publish it showed: `@acme/left@1.4.2`; absent: it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// When it was asked.
    pub at: UnixTime,
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

/// `POST /v1/admin/freeze`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// `npm:@acme/left`
    pub package: String,
    /// Why, for the log of people.
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/admin/thaw`
#[derive(Clone, Serialize, Deserialize)]
pub struct ThawRequest {
    /// `npm:@acme/left`
    pub package: String,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
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
