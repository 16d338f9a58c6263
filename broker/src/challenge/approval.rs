//! Stored evidence becomes an [`Approval`] here and nowhere else.

use proto::{
    answer::{Decision, Evidence, Factor},
    device::DevicePublic,
    ids::PersonId,
    request::RequestDigest,
};
use thiserror::Error;

/// Evidence that has been verified again just now. Private fields, no `Clone`, no `Deserialize`:
/// whoever holds one has called [`Approval::verify`].
///
/// ```compile_fail
/// let forged = broker::challenge::approval::Approval { digest: todo!(), person: todo!(), factor: todo!() };
/// ```
/// ```compile_fail
/// fn twice(a: &broker::challenge::approval::Approval) -> broker::challenge::approval::Approval {
///     a.clone()
/// }
/// ```
#[derive(Debug)]
pub struct Approval {
    digest: RequestDigest,
    person: PersonId,
    factor: Factor,
}

/// Why stored evidence does not count (any more).
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotAnApproval {
    /// The statement is a denial.
    #[error("the statement is not an approval")]
    OtherDecision,
    /// It is about another request.
    #[error("the statement is about another request")]
    OtherRequest,
    /// The device was removed, or belongs to somebody else.
    #[error("the device is not enrolled for this person")]
    NotEnrolled,
    /// The signature is not the device's.
    #[error("the signature does not hold")]
    Signature,
    /// The record of the second factor is not the broker's.
    #[error("the record of the second factor does not hold")]
    Factor,
}

impl Approval {
    /// Verifies evidence: about this digest, an approval, signed by a key that `enrolled` (the key
    /// of the statement's device as it is enrolled for `evidence.person` right now, if any) still
    /// names, and a TOTP record that `totp_mac_holds` under the vault's key.
    pub fn verify(
        evidence: &Evidence,
        digest: &RequestDigest,
        enrolled: Option<&DevicePublic>,
        totp_mac_holds: impl FnOnce(&Evidence) -> bool,
    ) -> Result<Self, NotAnApproval> {
        if evidence.statement.decision != Decision::Approve {
            return Err(NotAnApproval::OtherDecision);
        }
        if evidence.statement.request_digest != *digest {
            return Err(NotAnApproval::OtherRequest);
        }
        // A person or device removed meanwhile takes effect at once (attack 29).
        if enrolled != Some(&evidence.public_key) {
            return Err(NotAnApproval::NotEnrolled);
        }
        if !evidence.signature_holds() {
            return Err(NotAnApproval::Signature);
        }
        if evidence.factor == Factor::Totp && !totp_mac_holds(evidence) {
            return Err(NotAnApproval::Factor);
        }
        Ok(Self {
            digest: *digest,
            person: evidence.person.clone(),
            factor: evidence.factor,
        })
    }

    /// What it approves.
    pub const fn digest(&self) -> &RequestDigest {
        &self.digest
    }

    /// Whose it is.
    pub const fn person(&self) -> &PersonId {
        &self.person
    }

    /// Which proof it rests on.
    pub const fn factor(&self) -> Factor {
        self.factor
    }
}
