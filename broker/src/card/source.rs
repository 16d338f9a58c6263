//! The source of a release, as the job handed it in: which files it has, and what digests they have. The broker
//! keeps this list and not the archive.
//!
//! If an attacker writes here: whoever starts the job chooses the archive. That a package agrees with it proves nothing
//! against him; that it does not is worth a question.

use super::setup_cfg;
use crate::registry::archive::{ArchiveError, walk_source};
use aws_lc_rs::digest::{Context, SHA256};
use proto::digest::hex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Longest `setup.cfg` that is compared by what it says, in bytes.
const SETTINGS_MAX: u64 = 64 << 10;

/// Most files.
const FILES_MAX: usize = 20_000;
/// Bytes of all names.
const NAMES_MAX: usize = 1 << 20;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Length of a digest as text.
const DIGEST: usize = 32;

/// The files of a source archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// Digests by name.
    pub files: BTreeMap<String, String>,
    /// Of each `setup.cfg`: the digest of what it says, as [`setup_cfg`] reads it.
    pub settings: BTreeMap<String, String>,
}

impl Listing {
    /// Longest form as JSON, in bytes.
    pub const JSON_MAX: u64 = 4 << 20;

    /// Reads a `.tar.gz`, as `git archive` makes it. Links are no files, and passed over.
    pub(super) fn read(archive: impl Read, length: u64) -> Result<Self, ArchiveError> {
        let mut list = Self::default();
        let mut names = 0;
        let mut buffer = vec![0; PIECE];
        walk_source(archive, length, &mut |name, content| {
            names += name.len();
            if list.files.len() >= FILES_MAX || names > NAMES_MAX {
                return Err(io::Error::other("too many files"));
            }
            let settings = name == "setup.cfg" || name.ends_with("/setup.cfg");
            let mut start = Vec::new();
            if settings {
                content.take(SETTINGS_MAX + 1).read_to_end(&mut start)?;
            }
            let digest = digest(&mut start.as_slice().chain(content), &mut buffer)?;
            let whole = settings && start.len() as u64 <= SETTINGS_MAX;
            if let Some(text) = std::str::from_utf8(&start).ok().filter(|_| whole) {
                list.settings
                    .insert(name.to_owned(), settings_digest(text)?);
            }
            list.files.insert(name.to_owned(), digest);
            Ok(())
        })?;
        Ok(list)
    }

    /// Whether a `setup.cfg` says what the source's does; where that has none, whether it says nothing.
    pub(super) fn says(&self, path: &str, text: &str) -> bool {
        let said = settings_digest(text).ok();
        match self.settings.get(path) {
            Some(there) => said.as_ref() == Some(there),
            None => !self.files.contains_key(path) && setup_cfg::said(text).is_empty(),
        }
    }

    /// Whether it can be what [`Self::read`] says of an archive: the process that read it is not believed.
    pub(super) fn is_sound(&self) -> bool {
        let digest = |text: &String| {
            text.len() == DIGEST
                && text
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let names: usize = self.files.keys().map(String::len).sum();
        self.files.len() <= FILES_MAX
            && names <= NAMES_MAX
            && self
                .files
                .values()
                .chain(self.settings.values())
                .all(digest)
            && self
                .settings
                .keys()
                .all(|name| self.files.contains_key(name))
    }

    /// The digest of a file by its path in the repository, in the root of the archive or in its one root folder.
    pub fn at(&self, path: &str) -> Option<&str> {
        let root = self.root();
        self.files.get(&format!("{root}{path}")).map(String::as_str)
    }

    /// The root folder that all files lie in, with a slash; else nothing.
    fn root(&self) -> &str {
        let folder = |name: &'_ String| name.split_once('/').map(|(folder, _)| folder.len() + 1);
        let Some((first, at)) = self.files.keys().next().and_then(|f| Some((f, folder(f)?))) else {
            return "";
        };
        let root = first.get(..at).unwrap_or_default();
        let all = self.files.keys().all(|name| name.starts_with(root));
        if all { root } else { "" }
    }
}

/// The digest of what a `setup.cfg` says.
fn settings_digest(text: &str) -> io::Result<String> {
    let said = setup_cfg::said(text);
    digest(&mut said.as_bytes(), &mut vec![0; PIECE])
}

/// A file's digest, as short as those that archives are compared by.
fn digest(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<String> {
    let mut hash = Context::new(&SHA256);
    loop {
        let n = content.read(buffer)?;
        if n == 0 {
            let whole = hash.finish();
            return Ok(hex(whole.as_ref().get(..16).unwrap_or_default()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
