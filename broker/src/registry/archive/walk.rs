//! Every file of a published archive, in one shape for all registries: for whoever looks into archives without
//! asking what they are called.

use super::{
    ArchiveError,
    tar::Tar,
    zip::{Entry, Zip},
};
use crate::registry::Kind;
use flate2::bufread::GzDecoder;
use proto::distribution::{Distribution, Form};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Seek};

/// Length of a gem's metadata, packed and unpacked.
const MAX_METADATA: u64 = 8 << 20;

/// The archives that can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// npm's `.tgz`.
    Npm,
    /// A Python source distribution.
    Sdist,
    /// A Python wheel.
    Wheel,
    /// A `.crate`.
    Crate,
    /// A gem.
    Gem,
}

impl Format {
    /// The format of a file that goes to such a registry; `None` where it may be anything.
    pub fn of(kind: Kind, file: &str) -> Option<Self> {
        match kind {
            Kind::Npm => Some(Self::Npm),
            Kind::Crates => Some(Self::Crate),
            Kind::RubyGems => Some(Self::Gem),
            Kind::PyPi => match Distribution::parse(file).ok()?.form {
                Form::Wheel => Some(Self::Wheel),
                Form::Sdist => Some(Self::Sdist),
            },
            Kind::Oci | Kind::Http | Kind::Generic => None,
        }
    }

    /// Whether everything lies in one root folder, whose name changes with the version.
    pub const fn in_one_folder(self) -> bool {
        match self {
            Self::Npm | Self::Sdist | Self::Crate => true,
            Self::Wheel | Self::Gem => false,
        }
    }
}

/// What is done with each file: its whole name, and what it holds.
pub type See<'a> = &'a mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>;

/// Shows every file of an archive of `length` bytes, as strictly as the registries' adapters read it. A gem's
/// own metadata comes as `metadata`.
pub fn walk<F: Read + Seek>(
    format: Format,
    archive: F,
    length: u64,
    see: See<'_>,
) -> Result<(), ArchiveError> {
    match format {
        Format::Npm => tar(Tar::new(archive, length, "package.json"), see),
        Format::Sdist => tar(Tar::new(archive, length, "PKG-INFO"), see),
        Format::Crate => tar(Tar::new(archive, length, "Cargo.toml"), see),
        Format::Wheel => zip(Zip::new(archive, length)?, see),
        Format::Gem => gem(archive, length, see),
    }
}

/// Shows every file of a source archive, a `.tar.gz` of `length` bytes. It is published nowhere, so links may lie in
/// it; they are passed over.
pub fn walk_source<R: Read>(archive: R, length: u64, see: See<'_>) -> Result<(), ArchiveError> {
    tar(Tar::source(archive, length), see)
}

fn tar<R: Read>(mut tar: Tar<R>, see: See<'_>) -> Result<(), ArchiveError> {
    while let Some(entry) = tar.next()? {
        if !entry.folder {
            see(&entry.name, &mut tar.stream()).map_err(ArchiveError::Broken)?;
        }
    }
    tar.finish().map(drop)
}

fn zip<F: Read + Seek>(mut zip: Zip<F>, see: See<'_>) -> Result<(), ArchiveError> {
    let mut one = |entry: &Entry, content: &mut dyn Read| {
        if entry.folder {
            return Ok(());
        }
        see(&entry.name, content)
    };
    while zip.next(&mut one)?.is_some() {}
    Ok(())
}

/// The outer archive is not packed; only its parts are.
fn gem(archive: impl Read, length: u64, see: See<'_>) -> Result<(), ArchiveError> {
    let mut outer = Tar::plain(archive, length);
    while let Some(entry) = outer.next()? {
        match entry.name.as_str() {
            "metadata.gz" => {
                let packed = outer.content(MAX_METADATA, "metadata")?;
                let mut unpacked = GzDecoder::new(packed.as_slice()).take(MAX_METADATA);
                see("metadata", &mut unpacked).map_err(ArchiveError::Broken)?;
            }
            "data.tar.gz" => tar(Tar::files(outer.stream(), entry.size), see)?,
            _ => {}
        }
    }
    outer.finish().map(drop)
}
