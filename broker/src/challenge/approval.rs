//! Stored evidence becomes an [`Approval`] here and nowhere else.

use proto::{
    answer::{Decision, Evidence, Factor},
    device::DevicePublic,
    ids::PersonId,
    intent::{IntentEvidence, Names},
    passkey::{Assertion, NotAsserted, PasskeyPublic, RelyingParty},
    request::{RequestDigest, RequestFacts},
    time::UnixTime,
};
use thiserror::Error;

/// Evidence that has been verified again just now. Private fields, no `Clone`, no `Deserialize`:
/// whoever holds one has called [`Approval::verify`].
///
/// ```compile_fail
/// let forged = broker::challenge::approval::Approval { digest: todo!(), person: todo!(), factor: todo!(), intent: None };
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
    intent: Option<Names>,
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
    Assertion(#[from] NotAsserted),
    /// An intent that says something else, or too little.
    #[error("the intent does not name what is asked for")]
    OtherIntent,
    /// An intent that came later than the request, or was over by then.
    #[error("the intent was not live when the request was opened")]
    NotLive,
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
        let shown = Shown {
            person: &evidence.person,
            public_key: &evidence.public_key,
            signed: evidence.signature_holds(),
            factor: evidence.factor,
            assertion: evidence.assertion.as_ref(),
        };
        let totp = || totp_mac_holds(evidence);
        shown.approves(*digest, None, enrolled, totp, |site| {
            evidence.assertion_holds(site)
        })
    }

    /// Verifies an intent as the approval of a request that was opened at `opened`: signed by a key that is
    /// enrolled right now, with its second factor, live then, and fitting in all that it names. One that
    /// names no more than versions is nobody's approval. Whether one with a commit alone counts is the
    /// policy's business.
    pub fn intended(
        evidence: &IntentEvidence,
        request: &RequestFacts,
        opened: UnixTime,
        enrolled: Option<Enrolled<'_>>,
        totp_mac_holds: impl FnOnce(&IntentEvidence) -> bool,
    ) -> Result<Self, NotAnApproval> {
        let names = evidence.statement.names();
        if names == Names::Versions || !evidence.statement.fits(request) {
            return Err(NotAnApproval::OtherIntent);
        }
        if !evidence.lived_at(opened) {
            return Err(NotAnApproval::NotLive);
        }
        let shown = Shown {
            person: &evidence.person,
            public_key: &evidence.public_key,
            signed: evidence.signature_holds(),
            factor: evidence.factor,
            assertion: evidence.assertion.as_ref(),
        };
        let totp = || totp_mac_holds(evidence);
        shown.approves(request.digest(), Some(names), enrolled, totp, |site| {
            evidence.assertion_holds(site)
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

    /// How much the intent says that it rests on; `None`: it is an answer to this very request.
    pub const fn intent(&self) -> Option<Names> {
        self.intent
    }
}

/// What an answer and an intent show alike: a device's signature, and a second factor.
struct Shown<'a> {
    person: &'a PersonId,
    public_key: &'a DevicePublic,
    signed: bool,
    factor: Factor,
    assertion: Option<&'a Assertion>,
}

impl Shown<'_> {
    /// The one place where an approval is made.
    fn approves(
        &self,
        digest: RequestDigest,
        intent: Option<Names>,
        enrolled: Option<Enrolled<'_>>,
        totp_mac_holds: impl FnOnce() -> bool,
        assertion_holds: impl FnOnce(&RelyingParty) -> Result<(), NotAsserted>,
    ) -> Result<Approval, NotAnApproval> {
        // A person or device removed meanwhile takes effect at once (attack 29).
        let enrolled = enrolled
            .filter(|e| *e.device == *self.public_key)
            .ok_or(NotAnApproval::NotEnrolled)?;
        if !self.signed {
            return Err(NotAnApproval::Signature);
        }
        match self.factor {
            // Whoever holds a browser's session could have it sign (attack 32).
            Factor::Device if enrolled.browser => return Err(NotAnApproval::BrowserAlone),
            Factor::Device => {}
            Factor::Totp if totp_mac_holds() => {}
            Factor::Totp => return Err(NotAnApproval::Factor),
            Factor::Passkey => {
                let claimed = self.assertion.map(|a| &a.public_key);
                if claimed.is_none() || claimed != enrolled.passkey {
                    return Err(NotAnApproval::NoPasskey);
                }
                let site = enrolled.site.ok_or(NotAnApproval::NoPasskey)?;
                assertion_holds(site)?;
            }
        }
        Ok(Approval {
            digest,
            person: self.person.clone(),
            factor: self.factor,
            intent,
        })
    }
}
