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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::archive::samples::{entry, header, pax, sum, tgz};

    fn link(name: &str, target: &str) -> Vec<u8> {
        let mut h = header(name, b'2', 0);
        h[157..157 + target.len()].copy_from_slice(target.as_bytes());
        sum(&mut h);
        h
    }

    fn names(archive: &[u8]) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        walk_source(archive, archive.len() as u64, &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn links_in_a_source_are_passed_over_whatever_their_target() {
        let target = "d/".repeat(100);
        let archive = tgz(&[
            entry("a.js", b'0', b"1"),
            link("short", "a.js"),
            // As git writes it.
            pax(&[("linkpath", &target)]),
            link("long", "see abcdef.paxheader"),
            entry("b.js", b'0', b"2"),
        ]);
        assert_eq!(names(&archive).unwrap(), ["a.js", "b.js"]);
        // In what is published there is none, long or short.
        for bad in [
            vec![link("package/short", "a.js")],
            vec![pax(&[("linkpath", &target)]), link("package/long", "a.js")],
        ] {
            let archive = io::Cursor::new(tgz(&bad));
            let length = archive.get_ref().len() as u64;
            let refused = walk(Format::Npm, archive, length, &mut |_, _| Ok(()));
            assert!(refused.is_err());
        }
    }

    #[test]
    fn attack_14_a_links_target_belongs_to_a_link() {
        for bad in [
            vec![pax(&[("linkpath", "x")]), entry("a.js", b'0', b"1")],
            vec![pax(&[("linkpath", "x")])],
            vec![
                link("a", "b"),
                pax(&[("linkpath", "x"), ("linkpath", "y")]),
                link("c", "d"),
            ],
        ] {
            assert!(names(&tgz(&bad)).is_err());
        }
        let mut file = link("a.js", "b");
        file[156] = b'0';
        sum(&mut file);
        assert!(names(&tgz(&[file])).is_err());
    }
}
