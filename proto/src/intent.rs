//! What a maintainer is about to release, signed before any job asks.
//!
//! A request must fit an intent in every field that it names. With the files' digests named, the bytes were
//! approved before CI ran, and the intent counts as that person's approval.

use crate::{
    answer::Factor,
    api::SecondFactor,
    canonical::Canonical,
    device::DevicePublic,
    digest::{Algorithm, Digest},
    ids::{DeviceId, IntentId, PackageName, PersonId, RegistryId, RequestId, VersionText},
    passkey::{Act, Assertion, NotAsserted, RelyingParty},
    request::{FILES_MAX, File, ITEMS_MAX, Item, RequestDigest, RequestFacts},
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Shortest life of an intent, in seconds.
pub const LIFE_MIN: u64 = 60;
/// Longest life of an intent, in seconds: it is a yes that lies about.
pub const LIFE_MAX: u64 = 24 * 60 * 60;
/// The verified claim that holds a job's commit.
pub const COMMIT_CLAIM: &str = "sha";
/// The tag that is meant where an intent names none, on registries that have tags.
pub const USUAL_TAG: &str = "latest";

/// A file that will be published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntendedFile {
    /// Its name.
    pub name: String,
    /// Its digest, in the registry's own algorithm.
    pub digest: Digest,
}

/// One package version that will be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntendedItem {
    /// The registry, as the broker's configuration names it.
    pub registry: RegistryId,
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: VersionText,
    /// The tag; absent: none, or `latest` where the registry has tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<VersionText>,
    /// All files of the version; empty: whatever files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<IntendedFile>,
}

impl IntendedItem {
    /// `npm:@acme/left@1.4.2`
    pub fn name(&self) -> String {
        format!("{}:{}@{}", self.registry, self.package, self.version)
    }

    /// `npm:@acme/left`
    pub fn package_key(&self) -> String {
        format!("{}:{}", self.registry, self.package)
    }

    /// Whether an item is this one, in all that is named.
    fn fits(&self, item: &Item) -> bool {
        let usual = |tag: &VersionText| tag.as_str() == USUAL_TAG;
        let tag = match (&self.tag, &item.tag) {
            (None, tag) => tag.as_ref().is_none_or(usual),
            (Some(meant), Some(tag)) => meant == tag,
            (Some(_), None) => false,
        };
        tag && self.registry == item.registry
            && self.package == item.package
            && self.version == item.version
            && (self.files.is_empty() || self.has_exactly(&item.files))
    }

    /// The same files: none is missing, none is there beside them, whatever their order.
    fn has_exactly(&self, files: &[File]) -> bool {
        let in_both = |meant: &IntendedFile, file: &File| {
            // An npm package has one file, and the registry names it; elsewhere its name says for whom it is.
            let named = meant.digest.algorithm() == Algorithm::Sha512 || meant.name == file.name;
            named && meant.digest == file.digest
        };
        files.len() == self.files.len()
            && files
                .iter()
                .all(|f| self.files.iter().any(|m| in_both(m, f)))
            && self
                .files
                .iter()
                .all(|m| files.iter().any(|f| in_both(m, f)))
    }
}

/// How much an intent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// Packages and versions: whoever asks for them may ring.
    Versions,
    /// The commit too: an approval where the policy says so.
    Commit,
    /// The digests of all files: an approval.
    Bytes,
}

/// The statement that a device signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentStatement {
    /// What will be published: all of one request.
    pub items: Vec<IntendedItem>,
    /// The commit that it is built from, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Requests opened from then on do not fit.
    pub expires: UnixTime,
    /// By which device.
    pub device: DeviceId,
    /// When, by the device's clock.
    pub time: UnixTime,
    /// 128 random bits of the device, hex.
    pub nonce: String,
}

impl IntentStatement {
    /// The signed bytes, tag `countersign/intent/v1`. `proto/vectors/intent.json` pins them.
    pub fn canonical(&self) -> Vec<u8> {
        let mut c = Canonical::new("countersign/intent/v1").number(self.items.len() as u64);
        for item in &self.items {
            c = c
                .text(item.registry.as_str())
                .text(item.package.as_str())
                .text(item.version.as_str())
                .maybe(item.tag.as_ref().map(VersionText::as_str))
                .number(item.files.len() as u64);
            for file in &item.files {
                c = c.text(&file.name).text(&file.digest.to_string());
            }
        }
        c.maybe(self.commit.as_deref())
            .number(self.expires.0)
            .text(self.device.as_str())
            .number(self.time.0)
            .text(&self.nonce)
            .finish()
    }

    /// Whether it is well-formed; the error says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.items.is_empty() || self.items.len() > ITEMS_MAX {
            return Err(format!("an intent names 1 to {ITEMS_MAX} packages"));
        }
        for (n, item) in self.items.iter().enumerate() {
            let name = item.name();
            let before = self.items.iter().take(n);
            if before
                .into_iter()
                .any(|i| i.package_key() == item.package_key())
            {
                return Err(format!("{} is named twice", item.package_key()));
            }
            if item.files.len() > FILES_MAX {
                return Err(format!("{name} has more than {FILES_MAX} files"));
            }
            for file in &item.files {
                text::check(&file.name, 255).map_err(|e| format!("a file name of {name} {e}"))?;
            }
        }
        if self.commit.as_deref().is_some_and(|c| !is_commit(c)) {
            return Err("the commit is not a full hash in lower-case hex".to_owned());
        }
        if self.nonce.len() != 32 {
            return Err("the nonce has not 128 bits".to_owned());
        }
        Ok(())
    }

    /// SHA-256 of the signed bytes: what a passkey signs too.
    pub fn digest(&self) -> RequestDigest {
        let mut out = [0; 32];
        let digest = Digest::of(Algorithm::Sha256, &self.canonical());
        out.copy_from_slice(digest.as_bytes());
        RequestDigest(out)
    }

    /// How much it says.
    pub fn names(&self) -> Names {
        if self.items.iter().all(|i| !i.files.is_empty()) {
            Names::Bytes
        } else if self.commit.is_some() {
            Names::Commit
        } else {
            Names::Versions
        }
    }

    /// Whether a request is what was meant, in every field that is named: exactly these packages, and of
    /// each what is said of it (attack 54).
    pub fn fits(&self, request: &RequestFacts) -> bool {
        let commit = match &self.commit {
            None => true,
            Some(commit) => request.caller.claims.get(COMMIT_CLAIM) == Some(commit),
        };
        commit
            && !self.items.is_empty()
            && self.items.len() == request.items.len()
            && request
                .items
                .iter()
                .all(|item| self.items.iter().any(|meant| meant.fits(item)))
            && self
                .items
                .iter()
                .all(|meant| request.items.iter().any(|item| meant.fits(item)))
    }
}

/// Whether a text is a whole commit hash: SHA-1 or SHA-256, as git writes it.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is kept of an intent: enough for anybody to verify the signature again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentEvidence {
    /// Its id.
    pub id: IntentId,
    /// Whose.
    pub person: PersonId,
    /// Which proof.
    pub factor: Factor,
    /// What was signed.
    pub statement: IntentStatement,
    /// The device's public key at that time.
    pub public_key: DevicePublic,
    /// Ed25519 signature over [`IntentStatement::canonical`], hex.
    pub signature: String,
    /// MAC of the accepted TOTP step, hex; checked by the broker alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp_mac: Option<String>,
    /// The passkey's assertion over the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
    /// When the broker took it.
    pub made: UnixTime,
}

impl IntentEvidence {
    /// Whether the signature is the public key's over the statement, and the device is that key's.
    pub fn signature_holds(&self) -> bool {
        self.public_key.id() == self.statement.device
            && crate::digest::unhex(&self.signature)
                .is_some_and(|s| self.public_key.verify(&self.statement.canonical(), &s))
    }

    /// Whether there is a passkey's assertion over this statement, made at this site.
    pub fn assertion_holds(&self, site: &RelyingParty) -> Result<(), NotAsserted> {
        let assertion = self.assertion.as_ref().ok_or(NotAsserted::Malformed)?;
        assertion.verify(Act::Intend, &self.statement.digest().0, site)
    }

    /// Whether it was there and not over when a request was opened.
    pub fn lived_at(&self, opened: UnixTime) -> bool {
        self.made <= opened && opened < self.statement.expires
    }
}

/// `POST /v1/intents`, signed by a device.
#[derive(Clone, Serialize, Deserialize)]
pub struct IntentRequest {
    /// What the device signs.
    pub statement: IntentStatement,
    /// Ed25519 over its canonical bytes, hex.
    pub signature: String,
    /// The second factor; a passkey's is about the act `intend` and [`IntentStatement::digest`].
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// Where an intent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntentState {
    /// Requests may fit it.
    Live,
    /// A request was approved with it.
    Spent,
    /// Somebody took it back, or denied what it had approved.
    Withdrawn,
    /// Its time is over.
    Expired,
}

impl IntentState {
    /// As printed.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Spent => "spent",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

/// An intent, as people see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntentLine {
    /// Its id.
    pub id: IntentId,
    /// Whose.
    pub person: PersonId,
    /// What is meant.
    pub items: Vec<IntendedItem>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How much it says.
    pub names: Names,
    /// When the broker took it.
    pub made: UnixTime,
    /// Until when.
    pub expires: UnixTime,
    /// Where it stands.
    pub state: IntentState,
    /// Who ended it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<PersonId>,
    /// The request that was approved with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Whether it is the asking person's own.
    pub mine: bool,
}

/// `GET /v1/intents`, signed by a device: newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intents {
    /// Those of this person, and those about packages that he approves.
    pub intents: Vec<IntentLine>,
}

/// An intent that a request fits, as the question shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intended {
    /// Which.
    pub id: IntentId,
    /// Whose.
    pub person: PersonId,
    /// When.
    pub made: UnixTime,
    /// How much it says.
    pub names: Names,
    /// Whether it counts as that person's approval.
    pub counts: bool,
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
