//! Machine code, bytecode and archives inside that are new or have other bytes: nobody reads them.

use super::Case;
use crate::card::tree::{Leaf, named};
use proto::card::{Finding, FindingKind, Risk};

/// What begins with these bytes; the names are for people.
const MAGIC: [(&[u8], &str); 14] = [
    (b"\x7fELF", "a Linux program or library"),
    (b"MZ", "a Windows program or library"),
    (b"\xfe\xed\xfa\xce", "a macOS program or library"),
    (b"\xfe\xed\xfa\xcf", "a macOS program or library"),
    (b"\xce\xfa\xed\xfe", "a macOS program or library"),
    (b"\xcf\xfa\xed\xfe", "a macOS program or library"),
    (b"\xca\xfe\xba\xbe", "Java bytecode, or a macOS program"),
    (b"\0asm", "WebAssembly"),
    (b"!<arch>\n", "a static library"),
    (b"dex\n", "Android bytecode"),
    (b"PK\x03\x04", "an archive in the archive"),
    (b"\x1f\x8b", "an archive in the archive"),
    (b"\xfd7zXZ", "an archive in the archive"),
    (b"7z\xbc\xaf", "an archive in the archive"),
];
/// What ends so is bytecode whose first bytes change with each version of its language.
const ENDINGS: [(&str, &str); 3] = [
    (".pyc", "Python bytecode"),
    (".jsc", "JavaScript bytecode"),
    (".node", "a Linux program or library"),
];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let fresh = case.now.fresh(case.before.tree());
    let found: Vec<_> = fresh
        .filter_map(|(name, leaf)| Some((name, leaf, kind(name, leaf)?)))
        .collect();
    let before = case.before.tree();
    let known = |name: &str| before.is_some_and(|b| b.files.contains_key(name));
    let (changed, new): (Vec<_>, Vec<_>) = found.into_iter().partition(|(n, ..)| known(n));
    let new_words = if case.before.is_unknown() {
        "perhaps new"
    } else {
        "new"
    };
    let mut out = Vec::new();
    for (group, words, risk) in [
        (&new, new_words, Risk::High),
        (&changed, "with other bytes", Risk::Medium),
    ] {
        let Some((_, _, first)) = group.first() else {
            continue;
        };
        let names = named(group.iter().map(|(name, ..)| *name));
        let kinds = if group.iter().all(|(.., k)| k == first) {
            first
        } else {
            "programs, libraries or archives"
        };
        // In a first release everything is new: nothing to compare with is no sign of anything.
        out.push(Finding {
            kind: FindingKind::Binaries,
            risk: if case.before.is_first() {
                Risk::Medium
            } else {
                risk
            },
            what: format!("{words}: {names} ({kinds})"),
            why: "Nobody can read what it does, and it may run wherever the package is used."
                .to_owned(),
        });
    }
    out
}

fn kind(name: &str, leaf: &Leaf) -> Option<&'static str> {
    let magic = MAGIC
        .iter()
        .find(|(head, _)| leaf.shape.head.starts_with(head));
    // "MZ" begins many a text too.
    let magic = magic.filter(|(head, _)| *head != b"MZ" || leaf.shape.nul);
    let by_end = || ENDINGS.iter().find(|(end, _)| name.ends_with(end));
    magic.map(|(_, k)| *k).or_else(|| by_end().map(|(_, k)| *k))
}
