//! Package registries: what a publish looks like on the wire, and how it is passed on.
//!
//! One folder per registry plus its row in [`KINDS`]. An adapter parses what a client sent, proves
//! that envelope and archive agree, and rebuilds the request for the registry. It knows nothing of
//! people or policy, and it sees a token for the length of one call only.

pub mod archive;
mod artifact;
pub mod crates;
mod doors;
mod factor;
pub mod http;
pub mod npm;
pub mod oci;
mod pieces;
mod proof;
pub mod pypi;
pub mod rubygems;
mod upstream;
pub mod withdraw;

#[cfg(test)]
mod fake;

pub use artifact::{Fetched, Keep};
pub use doors::{Door, Doors};
pub use factor::{
    FactorAsk, FactorSaid, Inspected, NotShown, SecondFactor, StageId, Staged, Staging,
};
pub use proof::{Proof, Trial};
pub use upstream::{
    Account, BaseError, BoxFuture, Life, MINTS_NOTHING, Narrowed, Published, ReadBack, ReadError,
    Sent, ShownFile, Timeouts, Upstream, client, limited,
};

use proto::{
    digest::{Algorithm, Digest},
    ids::{PackageName, VersionText},
    request::{File, Item},
};
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path, sync::Arc};
use tempfile::SpooledTempFile;
use url::Url;

/// Uploads and archives up to this size stay in memory, in bytes; larger ones go to a file without a name.
pub const IN_MEMORY: usize = 64 << 10;

/// The protocol that a configured registry speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The npm protocol: npm, pnpm, Yarn.
    Npm,
    /// Python's upload protocol and simple index: twine, uv, flit, hatch, poetry.
    PyPi,
    /// cargo's registry protocol with a sparse index.
    Crates,
    /// The gems protocol with a compact index.
    RubyGems,
    /// The OCI distribution protocol: container images and other artifacts.
    Oci,
    /// A server that takes a file as the body of one request.
    Http,
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
    /// Whether versions get a tag.
    pub tags: bool,
    /// A package's name in the one spelling that the broker uses.
    pub package: fn(&str) -> Result<PackageName, String>,
    /// Whether an item could be published there at all: its version, its files.
    pub item: fn(&Item) -> Result<(), String>,
    /// Reads an upload, blocking; `None` where the broker cannot forward.
    pub read: Option<Read>,
    /// The adapter for a configured address; `None` where the broker cannot forward.
    pub connect: Option<Connect>,
}

/// Reads an upload: the body at its start, what its head said, and a folder for temporary files.
pub type Read = fn(&mut SpooledTempFile, &Head, &Path) -> Result<Publish, String>;

/// What the head of an upload says, as far as its body cannot be read without it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The package that the address names, where it names one.
    pub package: Option<PackageName>,
    /// The version, where the address alone tells it.
    #[serde(default)]
    pub version: Option<VersionText>,
    /// The file's name, where the address alone tells it.
    #[serde(default)]
    pub file: Option<String>,
    /// The media type, where it has parameters that count.
    pub media_type: Option<String>,
    /// Whether attestations beside the file are left out, by the configuration; otherwise an upload that
    /// has some is refused.
    #[serde(default)]
    pub drops_attestations: bool,
}

/// Makes an adapter.
pub type Connect = fn(Address, Timeouts) -> Result<Arc<dyn Upstream>, BaseError>;

/// Where a registry is.
pub struct Address {
    /// Its address in the configuration.
    pub url: Url,
    /// Where uploads go, where that is another address.
    pub upload: Option<Url>,
    /// The broker's own endpoint for it, as clients see it.
    pub endpoint: Url,
    /// The user name beside the token, where the protocol has one.
    pub user: Option<String>,
    /// Whether the token is narrowed to the one package before it is sent, where the protocol has such
    /// tokens.
    pub narrow: bool,
    /// The registry's own ids of packages, where its tokens can be narrowed to one.
    pub project_ids: Option<pypi::ProjectIds>,
    /// What becomes of attestations beside an upload, where the protocol has them.
    pub attestations: pypi::Attestations,
    /// Other origins from which files may be fetched to hash them.
    pub downloads: Vec<Url>,
    /// How a publish gets there, where the protocol has several ways.
    pub via: npm::Via,
    /// Origins beside the registry's own where its people may be sent to give its second factor.
    pub factor_origins: Vec<Url>,
    /// Where the registry's short tokens come from, where the protocol has such.
    pub tokens: Option<Url>,
    /// The upload call, where the protocol is the configuration's own.
    pub http: Option<http::Shape>,
}

impl Address {
    /// An address, with nothing said beside it.
    pub fn at(url: Url) -> Self {
        Self {
            endpoint: url.clone(),
            url,
            upload: None,
            user: None,
            narrow: false,
            project_ids: None,
            attestations: pypi::Attestations::default(),
            downloads: Vec::new(),
            via: npm::Via::default(),
            factor_origins: Vec::new(),
            tokens: None,
            http: None,
        }
    }
}

/// The one table of registries.
pub const KINDS: [KindRow; 7] = [
    npm::ROW,
    pypi::ROW,
    crates::ROW,
    rubygems::ROW,
    oci::ROW,
    http::ROW,
    KindRow {
        kind: Kind::Generic,
        name: "generic",
        algorithm: Algorithm::Sha256,
        tags: false,
        package: |name| name.parse().map_err(|_| format!("'{name}' is not a name")),
        item: |item| match item.files.as_slice() {
            [] => Ok(()),
            _ => Err(format!("{}: a secret has no files", item.name())),
        },
        read: None,
        connect: None,
    },
];

impl Kind {
    /// The kind of that exact name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|r| r.name == name).map(|r| r.kind)
    }

    /// Its row.
    pub fn row(self) -> &'static KindRow {
        // Every kind has its row: a test says so. Without one it would be a place for secrets.
        let [.., generic] = &KINDS;
        KINDS.iter().find(|r| r.kind == self).unwrap_or(generic)
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether such a registry shows a list of versions with digests. Without one nothing could be told from a look,
    /// and a watch that always says "all as it was", or "nobody can look", would be worse than none.
    pub const fn shows_versions(self) -> bool {
        match self {
            Self::Npm | Self::PyPi | Self::Crates | Self::RubyGems => true,
            Self::Oci | Self::Http | Self::Generic => false,
        }
    }
}

/// One file on its way to a registry: parsed, its digest recomputed, its inside compared with its
/// envelope. Only the adapters make one; the rest of the broker reads what it is.
pub struct Publish {
    package: PackageName,
    version: VersionText,
    tag: Option<VersionText>,
    name: Option<String>,
    digest: Digest,
    size: u64,
    contents: Contents,
    file: SpooledTempFile,
    envelope: Envelope,
}

/// What stands around the file, in the registry's own form.
enum Envelope {
    Npm(npm::Envelope),
    PyPi(pypi::Envelope),
    Crates(crates::Envelope),
    /// Nothing: the gem is the whole upload.
    RubyGems,
    Oci(oci::Envelope),
    Http,
}

/// A file that must be at the registry before another may follow: what a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its name among the item's files.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
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

impl Publish {
    /// The package, as path, envelope, manifest and archive all name it.
    pub const fn package(&self) -> &PackageName {
        &self.package
    }

    /// The version, likewise.
    pub const fn version(&self) -> &VersionText {
        &self.version
    }

    /// The tag that will point to the version, on registries that have tags.
    pub const fn tag(&self) -> Option<&VersionText> {
        self.tag.as_ref()
    }

    /// The file's name, on registries where a version has several files.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The file's digest, computed here.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The file's length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What is inside.
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Drops what would change a package that exists beyond this version: nobody approved that.
    pub fn for_known_package(&mut self) {
        match &mut self.envelope {
            Envelope::Npm(envelope) => envelope.keep_access(),
            // None of them says anything about other versions.
            Envelope::PyPi(_)
            | Envelope::Crates(_)
            | Envelope::RubyGems
            | Envelope::Oci(_)
            | Envelope::Http => {}
        }
    }

    /// The files of the same item that must be at the registry before this one.
    pub fn needs(&self) -> &[Need] {
        match &self.envelope {
            Envelope::Oci(oci::Envelope::Manifest { needs, .. }) => needs,
            _ => &[],
        }
    }

    /// Whether it makes the version visible, so that all other files of the item come before it.
    pub const fn is_last(&self) -> bool {
        matches!(
            self.envelope,
            Envelope::Oci(oci::Envelope::Manifest { tagged: true, .. })
        )
    }

    /// A manifest of the item that is no part of what its tag will point to.
    pub fn stray<'f>(&self, files: &'f [File]) -> Option<&'f File> {
        files.iter().find(|file| {
            let part = |need: &Need| need.name == file.name;
            let own = self.name() == Some(file.name.as_str());
            let manifest = file.name.starts_with("manifests/");
            self.is_last() && manifest && !own && !self.needs().iter().any(part)
        })
    }

    /// The upload as it came: the file itself, where nothing stood around it.
    pub fn into_body(self, body: SpooledTempFile) -> SpooledTempFile {
        match self.envelope {
            Envelope::Oci(_) | Envelope::Http => self.file,
            Envelope::Npm(_) | Envelope::PyPi(_) | Envelope::Crates(_) | Envelope::RubyGems => body,
        }
    }

    /// The file alone.
    pub fn into_file(self) -> SpooledTempFile {
        self.file
    }

    /// The file, at its start.
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
        for kind in KINDS.map(|row| row.kind) {
            assert_eq!(kind.row().kind, kind);
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        for bad in ["NPM", "npm ", "", "PyPI"] {
            assert_eq!(Kind::parse(bad), None, "{bad:?}");
        }
    }
}
