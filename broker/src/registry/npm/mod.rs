//! npm's protocol, as npm, pnpm and Yarn speak it.
//!
//! [`read`] parses the body of `PUT /{package}` into a [`super::Publish`]; [`Upstream`] rebuilds it
//! for the registry and reads the registry back. Nothing of what the client sent is copied as it
//! stood, except the archive's bytes and the provenance bundle's text.

mod attestation;
mod body;
mod document;
mod doors;
pub(super) mod json;
mod manifest;
mod packument;
mod stage;
mod tarball;
mod told;
mod upstream;
mod withdraw;

pub mod name;

pub use document::{DocumentError, read};
pub use json::JsonError;
pub use manifest::Disagreement;
pub use stage::Via;
pub use tarball::TarballError;
pub use upstream::Npm;

use super::{Kind, KindRow};
use proto::{digest::Algorithm, request::Item};
use serde_json::{Map, Value};
use std::sync::Arc;

/// npm's row in the table of registries.
pub const ROW: KindRow = KindRow {
    kind: Kind::Npm,
    name: "npm",
    algorithm: Algorithm::Sha512,
    tags: true,
    package: |text| name::parse(text).map_err(|e| e.to_string()),
    item: check_item,
    read: Some(|body, head, folder| {
        let package = head
            .package
            .as_ref()
            .ok_or("the address names no package")?;
        read(body, package, folder).map_err(|e| e.to_string())
    }),
    connect: Some(|address, timeouts| Ok(Arc::new(Npm::new(address, timeouts)?))),
};

/// One file with the registry's own digest, and a version that it takes.
fn check_item(item: &Item) -> Result<(), String> {
    let [file] = item.files.as_slice() else {
        let name = item.name();
        return Err(format!("{name} has exactly one file, the package's .tgz"));
    };
    if file.digest.algorithm() != Algorithm::Sha512 {
        return Err(format!("{}: npm's digests are sha512", item.name()));
    }
    if semver::Version::parse(item.version.as_str()).is_err() {
        let version = &item.version;
        return Err(format!("{version} is not a version by semver.org 2.0.0"));
    }
    Ok(())
}

/// What a publish document holds beside the archive.
pub struct Envelope {
    metadata: Map<String, Value>,
    attestation: Option<Attestation>,
}

/// A provenance bundle that travels beside the archive, byte for byte as its signer wrote it.
struct Attestation {
    content_type: String,
    text: String,
    length: u64,
}

impl Envelope {
    /// Drops the wish for a visibility (`public` or `restricted`): on a package that exists it would
    /// change the access of all its versions.
    pub(super) fn keep_access(&mut self) {
        self.metadata.remove("access");
    }
}

#[cfg(test)]
mod samples;
