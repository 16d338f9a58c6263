//! The names within one archive: each file system must unpack them to the same tree.

use aws_lc_rs::digest::{SHA256, digest};
use proto::text;
use std::collections::HashMap;
use thiserror::Error;

/// Longest name of a file in an archive, in bytes.
const MAX_PATH: usize = 1024;
/// Folders within each other.
const MAX_PARTS: usize = 64;

/// Files and folders in all: each takes memory until the archive is read (attack 53).
const MAX_NAMES: usize = 200_000;

/// Why a name was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NamesError {
    /// Absolute, escaping, or read differently elsewhere.
    #[error("the archive has a dangerous name: '{0}'")]
    Dangerous(String),
    /// Two entries become one file, perhaps only where case does not matter.
    #[error("the archive has '{0}' twice")]
    Twice(String),
    /// npm unpacks by cutting off the first folder, whatever its name; Python's tools expect one too.
    #[error("the archive has more than one root folder ('{0}')")]
    Root(String),
    /// More than any package has.
    #[error("the archive has more than {MAX_NAMES} files and folders")]
    TooMany,
}

/// The names seen so far, as short digests, so that memory stays small with many long names.
pub(in crate::registry) struct Names {
    one_folder: bool,
    root: Option<String>,
    seen: HashMap<[u8; 16], Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

impl Names {
    /// Everything lies in one root folder, as in npm's and Python's source archives.
    pub(in crate::registry) fn in_one_folder() -> Self {
        Self {
            one_folder: true,
            root: None,
            seen: HashMap::new(),
        }
    }

    /// The root is where it is unpacked, as in a wheel.
    pub(in crate::registry) fn anywhere() -> Self {
        Self {
            one_folder: false,
            ..Self::in_one_folder()
        }
    }

    /// Takes the next name.
    pub(in crate::registry) fn add(&mut self, name: &str, folder: bool) -> Result<(), NamesError> {
        let shown = || text::harmless(&name.chars().take(200).collect::<String>());
        let parts = split(name);
        let dangerous = name.len() > MAX_PATH
            || parts.len() > MAX_PARTS
            || parts.is_empty()
            || name.starts_with('/')
            || (!folder && name.ends_with('/'))
            || parts.iter().any(|p| !plain(p));
        if dangerous {
            return Err(NamesError::Dangerous(shown()));
        }
        let root = parts.first().copied().unwrap_or_default();
        let one =
            self.root.get_or_insert_with(|| root.to_owned()) == root && (parts.len() > 1 || folder);
        if self.one_folder && !one {
            return Err(NamesError::Root(shown()));
        }
        let mut path = String::new();
        let last = parts.len() - 1;
        for (i, part) in parts.iter().enumerate() {
            path.push('/');
            path.push_str(&fold(part));
            let kind = if i == last && !folder {
                Kind::File
            } else {
                Kind::Folder
            };
            if self.seen.len() >= MAX_NAMES {
                return Err(NamesError::TooMany);
            }
            let before = self.seen.insert(key(&path), kind);
            // A folder may be named often; a file once, and never where a folder is.
            if before == Some(Kind::File) || (kind == Kind::File && before.is_some()) {
                return Err(NamesError::Twice(shown()));
            }
        }
        Ok(())
    }
}

/// The parts of a name, without `.` and empty ones.
pub(in crate::registry) fn split(name: &str) -> Vec<&str> {
    name.split('/')
        .filter(|p| !matches!(*p, "" | "."))
        .collect()
}

/// A part that means the same everywhere: no parent, no Windows drive, stream or separator, nothing
/// that Windows cuts off at the end, nothing invisible.
fn plain(part: &str) -> bool {
    part != ".."
        && !part.contains(['\\', ':'])
        && !part.ends_with(['.', ' '])
        && !part.chars().any(text::misleads)
}

/// How file systems without case compare. Upper first, so that 'ß' meets "SS".
fn fold(part: &str) -> String {
    part.to_uppercase().to_lowercase()
}

fn key(path: &str) -> [u8; 16] {
    let hash = digest(&SHA256, path.as_bytes());
    let mut out = [0; 16];
    out.iter_mut().zip(hash.as_ref()).for_each(|(o, h)| *o = *h);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &[&str]) -> Result<(), NamesError> {
        let mut seen = Names::in_one_folder();
        names.iter().try_for_each(|n| seen.add(n, n.ends_with('/')))
    }

    #[test]
    fn attack_53_many_deep_folders_take_bounded_memory() {
        let mut seen = Names::in_one_folder();
        let deep = "a/".repeat(MAX_PARTS - 3);
        let refused = (0..MAX_NAMES).find_map(|n| {
            let name = format!("package/{n}/{deep}f");
            seen.add(&name, false).err()
        });
        assert_eq!(refused, Some(NamesError::TooMany));
        assert!(seen.seen.len() <= MAX_NAMES);
    }

    #[test]
    fn a_usual_package() {
        let names = [
            "package/",
            "package/package.json",
            "package/lib/",
            "package/lib/a.js",
            "package/b/c.js",
        ];
        assert_eq!(all(&names), Ok(()));
    }

    #[test]
    fn attack_14_names_that_unpack_differently_are_refused() {
        for bad in [
            vec!["/etc/passwd"],
            vec!["package/../../x"],
            vec!["package/a", "package/a"],
            vec!["package/a", "package/./a"],
            vec!["package/a", "package//a"],
            vec!["package/readme", "package/README"],
            vec!["package/stra\u{df}e", "package/STRASSE"],
            vec!["package/a", "package/A/b"],
            vec!["package/a/b", "package/A"],
            vec!["package/a", "other/b"],
            vec!["package/a", "Package/b"],
            vec!["package.json"],
            vec!["package"],
            vec!["package/C:/x"],
            vec!["package/..\\x"],
            vec!["package/a."],
            vec!["package/a\u{202e}b"],
            vec!["package/a\nb"],
            vec![""],
            vec!["."],
        ] {
            assert!(all(&bad).is_err(), "{bad:?}");
        }
        assert!(all(&[&format!("package/{}", "a".repeat(1100))]).is_err());
        assert!(all(&[&format!("package/{}x", "a/".repeat(80))]).is_err());
    }
}
