//! What a maintainer signs.

use crate::{
    canonical::Canonical,
    ids::DeviceId,
    passkey::{Assertion, NotAsserted, RelyingParty},
    request::RequestDigest,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// A person's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Publish exactly this.
    Approve,
    /// Do not publish this.
    Deny,
    /// Do not publish this, nor anything else of these packages until two people thaw them.
    DenyAndFreeze,
}

impl Decision {
    /// As written in the signed statement.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::DenyAndFreeze => "deny-and-freeze",
        }
    }
}

/// The statement that a device signs: it names the decision, so that a denial can never be replayed
/// as an approval, and the digest, so that it fits one request alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What was decided.
    pub decision: Decision,
    /// About what.
    pub request_digest: RequestDigest,
    /// By which device.
    pub device: DeviceId,
    /// When, by the device's clock.
    pub time: UnixTime,
    /// 128 random bits of the device, hex.
    pub nonce: String,
}

impl Statement {
    /// The signed bytes, tag `countersign/answer/v1`.
    pub fn canonical(&self) -> Vec<u8> {
        Canonical::new("countersign/answer/v1")
            .text(self.decision.name())
            .bytes(&self.request_digest.0)
            .text(self.device.as_str())
            .number(self.time.0)
            .text(&self.nonce)
            .finish()
    }
}

/// The kind of proof behind an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// The device's signature after the typed match code.
    Device,
    /// The same, and a TOTP code (RFC 6238). The weakest second factor; labelled so.
    Totp,
    /// The same, and a passkey's assertion over decision and digest, made for its verified user.
    Passkey,
}

impl Factor {
    /// As the policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Totp => "totp",
            Self::Passkey => "passkey",
        }
    }
}

/// What is kept of an answer: enough for anybody to verify the signature again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who answered.
    pub person: crate::ids::PersonId,
    /// Which proof.
    pub factor: Factor,
    /// What was signed.
    pub statement: Statement,
    /// The device's public key at that time.
    pub public_key: crate::device::DevicePublic,
    /// Ed25519 signature over [`Statement::canonical`], hex.
    pub signature: String,
    /// MAC of the accepted TOTP step and the request's digest, hex; checked by the broker alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp_mac: Option<String>,
    /// The passkey's assertion over decision and digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
}

impl Evidence {
    /// Whether the signature is the public key's over the statement, and the device is that key's.
    pub fn signature_holds(&self) -> bool {
        self.public_key.id() == self.statement.device
            && crate::digest::unhex(&self.signature)
                .is_some_and(|s| self.public_key.verify(&self.statement.canonical(), &s))
    }

    /// Whether there is a passkey's assertion, over this decision about this request, made at this site.
    pub fn assertion_holds(&self, site: &RelyingParty) -> Result<(), NotAsserted> {
        let assertion = self.assertion.as_ref().ok_or(NotAsserted::Malformed)?;
        let Statement {
            decision,
            request_digest,
            ..
        } = &self.statement;
        assertion.verify((*decision).into(), &request_digest.0, site)
    }
}
