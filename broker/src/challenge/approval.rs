//! Stored evidence becomes an [`Approval`] here and nowhere else.

use proto::{
    answer::{Decision, Evidence, Factor},
    device::DevicePublic,
    ids::PersonId,
    passkey::{PasskeyPublic, RelyingParty},
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
    /// The device cannot answer alone.
    #[error("a browser's signature alone is no answer")]
    BrowserAlone,
    /// The passkey was removed, or belongs to somebody else.
    #[error("the passkey is not enrolled for this person")]
    NoPasskey,
    /// The passkey's assertion is about something else, or does not hold.
    #[error("the passkey's assertion does not hold: {0}")]
    Assertion(#[from] proto::passkey::NotAsserted),
}

/// What is enrolled right now for the person whose evidence it is.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// The key of the device that the statement names.
    pub device: &'a DevicePublic,
    /// Whether that device is a browser, which asks nobody before it signs.
    pub browser: bool,
    /// The public key of the passkey that the evidence names, if the person has it.
    pub passkey: Option<&'a PasskeyPublic>,
    /// The site that assertions are for, where the broker has passkeys.
    pub site: Option<&'a RelyingParty>,
}

impl Approval {
    /// Verifies evidence: about this digest, an approval, signed by the key that `enrolled` (absent when
    /// the statement's device is not enrolled for `evidence.person` right now) still names, and with the
    /// factor that it claims: a TOTP record that `totp_mac_holds` under the vault's key, or the assertion
    /// of an enrolled passkey.
    pub fn verify(
        evidence: &Evidence,
        digest: &RequestDigest,
        enrolled: Option<Enrolled<'_>>,
        totp_mac_holds: impl FnOnce(&Evidence) -> bool,
    ) -> Result<Self, NotAnApproval> {
        if evidence.statement.decision != Decision::Approve {
            return Err(NotAnApproval::OtherDecision);
        }
        if evidence.statement.request_digest != *digest {
            return Err(NotAnApproval::OtherRequest);
        }
        // A person or device removed meanwhile takes effect at once (attack 29).
        let enrolled = enrolled
            .filter(|e| *e.device == evidence.public_key)
            .ok_or(NotAnApproval::NotEnrolled)?;
        if !evidence.signature_holds() {
            return Err(NotAnApproval::Signature);
        }
        match evidence.factor {
            // Whoever holds a browser's session could have it sign (attack 32).
            Factor::Device if enrolled.browser => return Err(NotAnApproval::BrowserAlone),
            Factor::Device => {}
            Factor::Totp if totp_mac_holds(evidence) => {}
            Factor::Totp => return Err(NotAnApproval::Factor),
            Factor::Passkey => {
                let claimed = evidence.assertion.as_ref().map(|a| &a.public_key);
                if claimed.is_none() || claimed != enrolled.passkey {
                    return Err(NotAnApproval::NoPasskey);
                }
                let site = enrolled.site.ok_or(NotAnApproval::NoPasskey)?;
                evidence.assertion_holds(site)?;
            }
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
