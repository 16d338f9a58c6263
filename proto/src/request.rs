//! What is asked for, and the one digest that people approve.

use crate::{
    canonical::Canonical,
    digest::{Digest, hex_text},
    ids::{PackageName, RegistryId, RequestId, VersionText},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Most items in one request.
pub const ITEMS_MAX: usize = 200;
/// Most files in one item.
pub const FILES_MAX: usize = 100;

/// One package version to publish (or, for a generic secret, the use of it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The registry, as the broker's configuration names it.
    pub registry: RegistryId,
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: VersionText,
    /// The tag that the version gets, on registries that have tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<VersionText>,
    /// The files; empty only for a secret that is revealed.
    #[serde(default)]
    pub files: Vec<File>,
}

impl Item {
    /// `npm:@acme/left@1.4.2`
    pub fn name(&self) -> String {
        format!("{}:{}@{}", self.registry, self.package, self.version)
    }
    /// `npm:@acme/left`
    pub fn package_key(&self) -> String {
        format!("{}:{}", self.registry, self.package)
    }
}

/// One file of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// File name as the job knows it; shown, and compared where the registry's upload carries it.
    pub name: String,
    /// Size in bytes; 0 for a file that is only announced.
    pub size: u64,
    /// Digest in the registry's own algorithm.
    pub digest: Digest,
}

impl File {
    /// Whether the job only says that it will publish this file, with a secret that it is given: the broker
    /// never sees the file, and nobody told its size. No registry takes an empty file.
    pub const fn is_announced(&self) -> bool {
        self.size == 0
    }
}

/// What the broker verified about who asks; every field comes from a checked token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerFacts {
    /// The issuer's name in the configuration, or `client-key`.
    pub issuer: String,
    /// Who: repository id, project id, or the client key's name. Never a name that can be re-registered.
    pub subject: String,
    /// Further verified claims, by their names in the policy, sorted.
    pub claims: std::collections::BTreeMap<String, String>,
    /// Link to the run, built by the broker from verified claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_url: Option<String>,
}

/// Everything that a [`RequestDigest`] covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// The request's id.
    pub id: RequestId,
    /// What is to be published.
    pub items: Vec<Item>,
    /// Who asks.
    pub caller: CallerFacts,
    /// SHA-256 of the policy document in force when it was opened.
    pub policy: Digest,
    /// The job's ephemeral public key: an age X25519 recipient.
    pub job_key: String,
    /// Answers are taken until then.
    pub expires: UnixTime,
}

impl RequestFacts {
    /// The canonical bytes, tag `countersign/request/v1`. `proto/vectors/request.json` pins them.
    pub fn canonical(&self) -> Vec<u8> {
        let mut c = Canonical::new("countersign/request/v1")
            .text(&self.id.to_string())
            .number(self.items.len() as u64);
        for item in &self.items {
            c = c
                .text(item.registry.as_str())
                .text(item.package.as_str())
                .text(item.version.as_str())
                .maybe(item.tag.as_ref().map(VersionText::as_str))
                .number(item.files.len() as u64);
            for file in &item.files {
                c = c
                    .text(&file.name)
                    .number(file.size)
                    .text(&file.digest.to_string());
            }
        }
        c = c
            .text(&self.caller.issuer)
            .text(&self.caller.subject)
            .number(self.caller.claims.len() as u64);
        for (name, value) in &self.caller.claims {
            c = c.text(name).text(value);
        }
        c.maybe(self.caller.run_url.as_deref())
            .text(&self.policy.to_string())
            .text(&self.job_key)
            .number(self.expires.0)
            .finish()
    }

    /// The digest that people approve.
    pub fn digest(&self) -> RequestDigest {
        let mut out = [0; 32];
        out.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.canonical()).as_ref(),
        );
        RequestDigest(out)
    }
}

/// SHA-256 over a request's canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestDigest(pub [u8; 32]);

hex_text!(RequestDigest);
