//! Code that nobody can read: minified, encoded or encrypted, where it is new or has other bytes.

use super::Case;
use crate::card::tree::{Leaf, named};
use proto::card::{Finding, FindingKind, Risk};

/// Files that are code.
const CODE: [&str; 14] = [
    ".js", ".cjs", ".mjs", ".jsx", ".ts", ".py", ".rb", ".rs", ".sh", ".php", ".pl", ".lua",
    ".ps1", ".bat",
];
/// Shorter files hide nothing worth hiding, in bytes.
const SHORT: u64 = 1024;
/// People break lines before this, in bytes.
const LONG_LINE: u64 = 5000;
/// Average length of a line that no person writes, in bytes.
const LONG_LINES: u64 = 400;
/// A run of letters and digits without a blank, in bytes: base64 or hex.
const LONG_RUN: u64 = 3000;
/// Written code has 4 to 5.4 bits of information in a byte; what is encrypted and encoded has about 6.
const DENSE: u32 = 580;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let code: Vec<_> = case
        .now
        .fresh(case.before.tree())
        .filter(|(name, leaf)| leaf.size >= SHORT && is_code(name))
        .collect();
    let was = |name: &str, test: fn(&Leaf) -> bool| {
        let old = case.before.tree().and_then(|b| b.files.get(name));
        old.is_some_and(test)
    };
    let mut out = Vec::new();
    for (test, risk, words, why) in [
        (
            encoded as fn(&Leaf) -> bool,
            Risk::High,
            "long encoded or encrypted parts in",
            "Hidden code is usually carried like this, and unpacked when it runs.",
        ),
        (
            minified,
            Risk::Medium,
            "minified code in",
            "Nobody can read it here; compare it with a build of the source.",
        ),
    ] {
        let found = code.iter().filter(|(_, leaf)| test(leaf));
        // What was of that kind before is built so: less of a surprise, but still not readable.
        let (old, new): (Vec<_>, Vec<_>) = found.partition(|(name, _)| was(name, test));
        for (group, risk, more) in [(new, risk, ""), (old, Risk::Low, ", as before")] {
            if !group.is_empty() {
                let names = named(group.iter().map(|(name, _)| *name));
                out.push(Finding {
                    kind: FindingKind::Opaque,
                    risk: if case.before.is_first() {
                        Risk::Low
                    } else {
                        risk
                    },
                    what: format!("{words} {names}{more}"),
                    why: why.to_owned(),
                });
            }
        }
    }
    out
}

fn is_code(name: &str) -> bool {
    CODE.iter().any(|end| name.ends_with(end))
}

fn encoded(leaf: &Leaf) -> bool {
    let shape = leaf.shape;
    // Text in other scripts than Latin is dense too.
    shape.run >= LONG_RUN || (shape.ascii && shape.entropy >= DENSE) || shape.nul
}

fn minified(leaf: &Leaf) -> bool {
    let lines = leaf.shape.lines.max(1);
    !encoded(leaf) && (leaf.shape.longest >= LONG_LINE || leaf.size / lines >= LONG_LINES)
}
