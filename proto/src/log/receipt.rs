//! The receipt of one publish: who approved which bytes, and that the log says so.
//!
//! A DSSE envelope (secure-systems-lab/dsse v1) around an in-toto [`Statement`], signed by the log's key.

use super::{
    checkpoint::{Checkpoint, LogKey, NoteError},
    merkle::{TreeHash, leaf_hash, verify_inclusion},
    statement::{PAYLOAD_TYPE, Statement},
};
use crate::{
    answer::{Decision, Factor},
    api::{ReceiptBody, StateName},
    device::{DeviceKey, DevicePublic},
    digest::Digest,
    ids::{DeviceId, PersonId, RequestId},
    intent::Names,
    passkey::{Assertion, RelyingParty},
    request::{RequestDigest, RequestFacts},
    time::UnixTime,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// Longest receipt that is read, in bytes: 200 items of 100 files each.
pub const RECEIPT_MAX: usize = 16 * 1024 * 1024;
/// Version of the leaves' form.
pub const LEAF_VERSION: u32 = 1;
/// The event that a receipt proves.
pub const PUBLISHED_TYPE: &str = "request-published";

/// A DSSE envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Base64.
    pub payload: String,
    /// The log's signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// The log's vkey: a hint, not a proof, unless the reader trusts that key already.
    pub keyid: String,
    /// Ed25519 over the pre-authentication encoding, base64.
    pub sig: String,
}

/// One published item, as the last leaf of a request records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedItem {
    /// `npm:@acme/left@1.4.2`
    pub name: String,
    /// What the registry showed afterwards, one digest a file, in the request's order.
    pub read_back: Vec<Digest>,
}

/// The leaf of a publish, as a verifier reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaf {
    v: u32,
    time: UnixTime,
    event: LeafEvent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafEvent {
    r#type: String,
    request: RequestId,
    digest: RequestDigest,
    items: Vec<PublishedItem>,
}

/// What a valid receipt proves.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptReport {
    /// What was asked; its files' digests are what the registry showed.
    pub facts: RequestFacts,
    /// What was approved.
    pub request_digest: RequestDigest,
    /// Who approved.
    pub approvers: Vec<Approver>,
    /// When the log recorded the publish, by the broker's clock.
    pub published: UnixTime,
    /// The log's vkey.
    pub log_key: String,
    /// Whether the reader named this key. If not, the receipt proves only that whoever holds this
    /// key made it.
    pub pinned: bool,
    /// The leaf's position.
    pub index: u64,
    /// The size of the tree that the checkpoint signs.
    pub tree_size: u64,
    /// The checkpoint itself, for who demands witnesses' cosignatures on it.
    #[serde(skip)]
    pub checkpoint: String,
}

/// One approval in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approver {
    /// Who.
    pub person: PersonId,
    /// By which device.
    pub device: DeviceId,
    /// Which proof. A TOTP code itself was checked by the broker alone.
    pub factor: Factor,
    /// When, by the device's clock.
    pub time: UnixTime,
    /// Announced before the request was there: what the intent named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Names>,
}

/// Why a receipt is not valid.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// Too long.
    #[error("the receipt is longer than {RECEIPT_MAX} bytes")]
    TooLong,
    /// Not an envelope, or not of a receipt.
    #[error("this is not a receipt: {0}")]
    Form(&'static str),
    /// The trusted key is not a vkey.
    #[error("the trusted key {0}")]
    TrustedKey(NoteError),
    /// Signed by another key than the trusted one.
    #[error("the receipt is not signed by the trusted log key")]
    OtherKey,
    /// The envelope's signature does not hold.
    #[error("the receipt's signature does not hold")]
    Signature,
    /// The facts are not what the digest covers.
    #[error("the request's facts do not have the request's digest")]
    FactsDiffer,
    /// Nobody approved.
    #[error("the receipt has no approval")]
    NoApproval,
    /// Evidence that is not a valid approval of this request.
    #[error("the approval of '{person}' does not count: {why}")]
    Evidence {
        /// Whose.
        person: PersonId,
        /// Why.
        why: &'static str,
    },
    /// The checkpoint.
    #[error("the checkpoint: {0}")]
    Checkpoint(NoteError),
    /// The leaf is not in the checkpoint's tree.
    #[error("the publish is not in the log that the checkpoint signs")]
    NotIncluded,
    /// The leaf records something else.
    #[error("the log's leaf does not record this publish: {0}")]
    Leaf(&'static str),
    /// The registry showed other bytes than the approved ones.
    #[error("the registry did not show the approved bytes of {0}")]
    ReadBack(String),
}

/// Pre-authentication encoding (DSSE v1): the type is signed with the payload, so that the log key's
/// other signatures can never be passed off as a receipt.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Why a receipt could not be made.
#[derive(Debug, Error)]
pub enum SignError {
    /// The log's name.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// JSON.
    #[error("the receipt could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Makes a receipt: the envelope as JSON, signed by the log's key under the log's name.
pub fn sign_receipt(
    body: &ReceiptBody,
    origin: &str,
    key: &DeviceKey,
) -> Result<String, SignError> {
    let payload = serde_json::to_vec(&Statement::new(body.clone()))?;
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(&payload),
        signatures: vec![EnvelopeSignature {
            keyid: LogKey::new(origin, key.public())?.to_string(),
            sig: STANDARD.encode(key.sign(&pae(PAYLOAD_TYPE, &payload))),
        }],
    };
    Ok(serde_json::to_string(&envelope)?)
}

/// Verifies a receipt with nothing but its bytes and, if the reader has it, the log's vkey.
pub fn verify_receipt(
    envelope_json: &[u8],
    trusted_vkey: Option<&str>,
) -> Result<ReceiptReport, VerifyError> {
    let (body, key) = open_envelope(envelope_json, trusted_vkey)?;
    if body.facts.digest() != body.request_digest {
        return Err(VerifyError::FactsDiffer);
    }
    let approvers = check_evidence(&body)?;
    let point = Checkpoint::open(&body.checkpoint, &key).map_err(VerifyError::Checkpoint)?;
    check_inclusion(&body, &point)?;
    let published = check_leaf(&body)?;
    Ok(ReceiptReport {
        request_digest: body.request_digest,
        approvers,
        published,
        log_key: key.to_string(),
        pinned: trusted_vkey.is_some(),
        index: body.leaf.index,
        tree_size: point.size,
        checkpoint: body.checkpoint,
        facts: body.facts,
    })
}

fn open_envelope(json: &[u8], trusted: Option<&str>) -> Result<(ReceiptBody, LogKey), VerifyError> {
    if json.len() > RECEIPT_MAX {
        return Err(VerifyError::TooLong);
    }
    let envelope: Envelope =
        serde_json::from_slice(json).map_err(|_| VerifyError::Form("not a DSSE envelope"))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(VerifyError::Form("another payload type"));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(VerifyError::Form("not exactly one signature"));
    };
    let named: LogKey = signature
        .keyid
        .parse()
        .map_err(|_| VerifyError::Form("its key id is not a log key"))?;
    if let Some(trusted) = trusted {
        let trusted: LogKey = trusted.trim().parse().map_err(VerifyError::TrustedKey)?;
        if trusted != named {
            return Err(VerifyError::OtherKey);
        }
    }
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|_| VerifyError::Form("its payload is not base64"))?;
    let sig = STANDARD
        .decode(&signature.sig)
        .map_err(|_| VerifyError::Signature)?;
    if !named.public().verify(&pae(PAYLOAD_TYPE, &payload), &sig) {
        return Err(VerifyError::Signature);
    }
    let statement: Statement = serde_json::from_slice(&payload)
        .map_err(|_| VerifyError::Form("its payload is not a receipt of this version"))?;
    if let Some(wrong) = statement.wrong() {
        return Err(VerifyError::Form(wrong));
    }
    Ok((statement.predicate, named))
}

fn check_evidence(body: &ReceiptBody) -> Result<Vec<Approver>, VerifyError> {
    let mut counted = Counted::default();
    let mut approvers = Vec::new();
    for evidence in &body.evidence {
        let statement = &evidence.statement;
        let refuse = |why| not_counted(&evidence.person, why);
        if statement.decision != Decision::Approve {
            return Err(refuse("it is not an approval"));
        }
        if statement.request_digest != body.request_digest {
            return Err(refuse("it is about another request"));
        }
        if !evidence.signature_holds() {
            return Err(refuse("its signature does not hold"));
        }
        let asserted = |site: &RelyingParty| evidence.assertion_holds(site).is_ok();
        if evidence.factor == Factor::Passkey && !body.site.as_ref().is_some_and(asserted) {
            return Err(refuse("its passkey's assertion does not hold"));
        }
        let passkey = evidence.assertion.as_ref();
        let passkey = passkey.filter(|_| evidence.factor == Factor::Passkey);
        counted
            .once(&evidence.person, evidence.public_key, passkey)
            .map_err(refuse)?;
        approvers.push(Approver {
            person: evidence.person.clone(),
            device: statement.device.clone(),
            factor: evidence.factor,
            time: statement.time,
            announced: None,
        });
    }
    for evidence in &body.intents {
        let statement = &evidence.statement;
        let refuse = |why| not_counted(&evidence.person, why);
        if statement.names() == Names::Versions || !statement.fits(&body.facts) {
            return Err(refuse("the intent does not name what was published"));
        }
        if !evidence.signature_holds() {
            return Err(refuse("the intent's signature does not hold"));
        }
        let asserted = |site: &RelyingParty| evidence.assertion_holds(site).is_ok();
        if evidence.factor == Factor::Passkey && !body.site.as_ref().is_some_and(asserted) {
            return Err(refuse("the intent's passkey assertion does not hold"));
        }
        let passkey = evidence.assertion.as_ref();
        let passkey = passkey.filter(|_| evidence.factor == Factor::Passkey);
        counted
            .once(&evidence.person, evidence.public_key, passkey)
            .map_err(refuse)?;
        approvers.push(Approver {
            person: evidence.person.clone(),
            device: statement.device.clone(),
            factor: evidence.factor,
            time: statement.time,
            announced: Some(statement.names()),
        });
    }
    if approvers.is_empty() {
        return Err(VerifyError::NoApproval);
    }
    Ok(approvers)
}

fn not_counted(person: &PersonId, why: &'static str) -> VerifyError {
    VerifyError::Evidence {
        person: person.clone(),
        why,
    }
}

/// Whoever counted already, by answer or by intent. One passkey or device under two names is one human still.
#[derive(Default)]
struct Counted<'a> {
    passkeys: BTreeSet<&'a str>,
    people: BTreeSet<&'a PersonId>,
    keys: BTreeSet<DevicePublic>,
}

impl<'a> Counted<'a> {
    fn once(
        &mut self,
        person: &'a PersonId,
        key: DevicePublic,
        passkey: Option<&'a Assertion>,
    ) -> Result<(), &'static str> {
        if passkey.is_some_and(|a| !self.passkeys.insert(&a.credential)) {
            return Err("its passkey answered for another person too");
        }
        if !self.people.insert(person) {
            return Err("this person is counted twice");
        }
        if !self.keys.insert(key) {
            return Err("its device answered for another person too");
        }
        Ok(())
    }
}

fn check_inclusion(body: &ReceiptBody, point: &Checkpoint) -> Result<(), VerifyError> {
    let proof: Vec<TreeHash> = body
        .inclusion
        .iter()
        .map(|h| h.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| VerifyError::NotIncluded)?;
    let leaf = leaf_hash(body.leaf.leaf.as_bytes());
    verify_inclusion(&leaf, body.leaf.index, point.size, &point.root, &proof)
        .then_some(())
        .ok_or(VerifyError::NotIncluded)
}

fn check_leaf(body: &ReceiptBody) -> Result<UnixTime, VerifyError> {
    let leaf: Leaf = serde_json::from_str(&body.leaf.leaf)
        .map_err(|_| VerifyError::Leaf("it is no publish event"))?;
    if leaf.v != LEAF_VERSION || leaf.event.r#type != PUBLISHED_TYPE {
        return Err(VerifyError::Leaf("it is another event"));
    }
    if leaf.event.request != body.facts.id || leaf.event.digest != body.request_digest {
        return Err(VerifyError::Leaf("it is about another request"));
    }
    let count = body.facts.items.len();
    if leaf.event.items.len() != count || body.items.len() != count {
        return Err(VerifyError::Leaf("it has other items"));
    }
    let recorded = leaf.event.items.iter().zip(&body.items);
    for (item, (logged, shown)) in body.facts.items.iter().zip(recorded) {
        let name = item.name();
        if logged.name != name || shown.name != name {
            return Err(VerifyError::Leaf("it has other items"));
        }
        let same = logged.read_back.len() == item.files.len()
            && std::iter::zip(&logged.read_back, &item.files).all(|(d, f)| *d == f.digest);
        // The short form that people read must not say anything else than the leaf.
        let told = shown.state == StateName::Published
            && shown.files.len() == item.files.len()
            && std::iter::zip(&shown.files, &item.files).all(|(told, f)| {
                told.name == f.name
                    && told.state == StateName::Published
                    && told.read_back.as_ref() == Some(&f.digest)
            });
        if !same || !told {
            return Err(VerifyError::ReadBack(name));
        }
    }
    Ok(leaf.time)
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
