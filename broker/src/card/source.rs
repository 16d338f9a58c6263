//! The source of a release, as the job handed it in: which files it has, and what digests they have. The broker
//! keeps this list and not the archive.
//!
//! If an attacker writes here: whoever starts the job chooses the archive. That a package agrees with it proves nothing
//! against him; that it does not is worth a question.

use crate::registry::archive::{ArchiveError, walk_source};
use aws_lc_rs::digest::{Context, SHA256};
use proto::digest::hex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Most files.
const FILES_MAX: usize = 20_000;
/// Bytes of all names.
const NAMES_MAX: usize = 1 << 20;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// The files of a source archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listing(pub BTreeMap<String, String>);

impl Listing {
    /// Longest form as JSON, in bytes.
    pub const JSON_MAX: u64 = 4 << 20;

    /// Reads a `.tar.gz`, as `git archive` makes it. Links are no files, and passed over.
    pub(super) fn read(archive: impl Read, length: u64) -> Result<Self, ArchiveError> {
        let mut files = BTreeMap::new();
        let mut names = 0;
        let mut buffer = vec![0; PIECE];
        walk_source(archive, length, &mut |name, content| {
            names += name.len();
            if files.len() >= FILES_MAX || names > NAMES_MAX {
                return Err(io::Error::other("too many files"));
            }
            files.insert(name.to_owned(), digest(content, &mut buffer)?);
            Ok(())
        })?;
        Ok(Self(files))
    }

    /// The digest of a file by its path in the repository, in the root of the archive or in its one root folder.
    pub fn at(&self, path: &str) -> Option<&str> {
        let root = self.root();
        self.0.get(&format!("{root}{path}")).map(String::as_str)
    }

    /// The root folder that all files lie in, with a slash; else nothing.
    fn root(&self) -> &str {
        let folder = |name: &'_ String| name.split_once('/').map(|(folder, _)| folder.len() + 1);
        let Some((first, at)) = self.0.keys().next().and_then(|f| Some((f, folder(f)?))) else {
            return "";
        };
        let root = first.get(..at).unwrap_or_default();
        let all = self.0.keys().all(|name| name.starts_with(root));
        if all { root } else { "" }
    }
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
