//! Package registries: what a publish looks like on the wire, and how it is passed on.
//!
//! One file (or folder) per registry plus its row in [`KINDS`]. An adapter parses what a client
//! sent, proves that envelope and archive agree, and rebuilds the request for the registry. It
//! knows nothing of people or policy, and it sees a token for the length of one call only.

pub mod npm;

use proto::{
    digest::{Algorithm, Digest},
    ids::{PackageName, VersionText},
};
use serde_json::{Map, Value};
use std::{fmt, io};
use tempfile::SpooledTempFile;

/// The protocol that a configured registry speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The npm protocol: npm, pnpm, Yarn.
    Npm,
    /// Anything else: the broker keeps a secret for it, and speaks no protocol.
    Generic,
}

/// What the broker knows about one kind of registry.
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// Its name in the configuration.
    pub name: &'static str,
    /// The digest that people approve: the one that the registry itself publishes.
    pub algorithm: Algorithm,
    /// Whether the broker can forward a publish to it.
    pub forwards: bool,
}

/// The one table of registries.
pub const KINDS: [KindRow; 2] = [
    KindRow {
        kind: Kind::Npm,
        name: "npm",
        algorithm: Algorithm::Sha512,
        forwards: true,
    },
    KindRow {
        kind: Kind::Generic,
        name: "generic",
        algorithm: Algorithm::Sha256,
        forwards: false,
    },
];

impl Kind {
    /// The kind of that exact name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|r| r.name == name).map(|r| r.kind)
    }

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Generic => "generic",
        }
    }

    /// Its row.
    pub fn row(self) -> Option<&'static KindRow> {
        KINDS.iter().find(|r| r.kind == self)
    }
}

/// One artifact on its way to a registry: parsed, its digest recomputed, its inside compared with
/// its envelope. Only the adapters make one; the rest of the broker reads what it is.
pub struct Publish {
    package: PackageName,
    version: VersionText,
    tag: VersionText,
    digest: Digest,
    size: u64,
    contents: Contents,
    file: SpooledTempFile,
    metadata: Map<String, Value>,
    attestation: Option<Attestation>,
}

/// What the approver may want to know about the inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Files and folders in the archive.
    pub entries: u32,
    /// Bytes after unpacking.
    pub unpacked: u64,
    /// Scripts that run on the user's machine when the package is installed.
    pub install_scripts: Vec<&'static str>,
}

/// A provenance bundle that travels beside the archive, byte for byte as its signer wrote it.
struct Attestation {
    content_type: String,
    text: String,
    length: u64,
}

impl Publish {
    /// The package, as path, envelope, manifest and archive all name it.
    pub const fn package(&self) -> &PackageName {
        &self.package
    }

    /// The version, likewise.
    pub const fn version(&self) -> &VersionText {
        &self.version
    }

    /// The dist-tag that will point to the version.
    pub const fn tag(&self) -> &VersionText {
        &self.tag
    }

    /// The archive's digest, computed here.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The archive's length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What is inside.
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The visibility that the client asked for, if it asked (`public` or `restricted`).
    pub fn access(&self) -> Option<&str> {
        self.metadata.get("access").and_then(Value::as_str)
    }

    /// Drops the wish for a visibility: on a package that exists it would change the access of all its
    /// versions, which nobody approved.
    pub fn keep_access(&mut self) {
        self.metadata.remove("access");
    }

    /// The archive, at its start.
    pub fn file(&mut self) -> io::Result<&mut SpooledTempFile> {
        io::Seek::rewind(&mut self.file)?;
        Ok(&mut self.file)
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("package", &self.package)
            .field("version", &self.version)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for kind in [Kind::Npm, Kind::Generic] {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
            assert_eq!(kind.row().map(|r| r.name), Some(kind.name()));
        }
        for bad in ["NPM", "npm ", "", "pypi"] {
            assert_eq!(Kind::parse(bad), None, "{bad:?}");
        }
    }
}
