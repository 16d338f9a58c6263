//! The texts of an archive, and how much may be done with them.

use super::modules::Modules;
use crate::card::tree::{Leaf, Tree};
use std::cell::Cell;

/// What may be done for all hooks of an archive: names that are compared, and pieces of text that are read.
pub(super) const WORK_MAX: usize = 40_000_000;
/// What is read as text, though a NUL stands in it; and what Python loads that nobody can read.
const READ_AS_TEXT: [&str; 19] = [
    "py", "pyw", "pyc", "pyo", "pth", "start", "js", "cjs", "mjs", "ts", "jsx", "sh", "bash", "rb",
    "rs", "pl", "ps1", "bat", "cmd",
];
/// How machine code begins.
const MACHINE: [&[u8]; 8] = [
    b"\x7fELF",
    b"MZ",
    b"\0asm",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xfe\xed\xfa",
    b"!<arch>",
];
/// An archive, and the other of the two: of a file that is the same in both, the text is kept in one of them.
#[derive(Clone, Copy)]
pub(super) struct Texts<'t> {
    pub(super) tree: &'t Tree,
    pub(super) other: Option<&'t Tree>,
    /// Its modules.
    pub(super) modules: &'t Modules<'t>,
    /// What may still be done.
    pub(super) left: &'t Cell<usize>,
}

impl<'t> Texts<'t> {
    pub(super) fn has(self, name: &str) -> bool {
        self.tree.files.contains_key(name)
    }

    /// Counts work; where there was too much, the hooks are told as not followed. An archive is made by whoever
    /// wants it not to be looked into.
    pub(super) fn spend(self, work: usize) -> bool {
        let left = self.left.get().saturating_sub(work);
        self.left.set(left);
        left > 0
    }

    pub(super) fn text(self, name: &str) -> Option<&'t str> {
        let leaf = self.tree.files.get(name)?;
        let same = || {
            let other = self.other?.files.get(name)?;
            (other.digest == leaf.digest)
                .then_some(other.text.as_deref())
                .flatten()
        };
        leaf.text.as_deref().or_else(same)
    }
}

/// Whether a file that is no text is machine code, or data: nothing else runs with it that could be named in it.
pub(super) fn is_one(name: &str, leaf: &Leaf) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let machine = || MACHINE.iter().any(|head| leaf.shape.head.starts_with(head));
    leaf.shape.nul
        && match file.rsplit_once('.') {
            Some((_, end)) => !READ_AS_TEXT.contains(&end),
            None => machine(),
        }
}
