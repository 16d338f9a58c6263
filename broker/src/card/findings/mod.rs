//! What stands out: one file a kind, each a pure function over a [`Case`], and one row here.

mod binaries;
mod dependencies;
mod manifest;
mod opaque;
mod scripts;
pub(super) mod secret_rules;
pub(super) mod secrets;
mod size;
pub(super) mod source;

use super::{Format, tree::Tree};
use proto::card::Finding;
use source::Sorted;
use std::collections::BTreeMap;

/// Most findings of one kind: a flood of one must not hide another, which a policy may forbid.
const OF_ONE_KIND: usize = 12;
/// Longest text about one, in characters.
const WHAT_MAX: usize = 600;

/// All that a finding can be made from.
pub(super) struct Case<'a> {
    /// What the archives are.
    pub(super) format: Format,
    /// The package's name, as the request says.
    pub(super) package: &'a str,
    /// The version, as the request says.
    pub(super) version: &'a str,
    /// The archive.
    pub(super) now: &'a Tree,
    /// The previous version.
    pub(super) before: Before<'a>,
    /// Its files against the source, if the job handed that in.
    pub(super) source: Option<&'a Sorted<'a>>,
}

/// What an archive is compared with. That nothing is known of a version before is neither calm nor a first release.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// There is none: nothing of the package is published.
    First,
    /// There may be one, and it could not be had or read.
    Unknown,
    /// This.
    Tree(&'a Tree),
}

impl<'a> Before<'a> {
    /// Its files, if they are known.
    pub(super) const fn tree(self) -> Option<&'a Tree> {
        match self {
            Self::Tree(tree) => Some(tree),
            Self::First | Self::Unknown => None,
        }
    }

    /// Whether nothing of the package is published.
    pub(super) const fn is_first(self) -> bool {
        matches!(self, Self::First)
    }

    /// Whether nothing is known.
    pub(super) const fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Looks for one kind of thing.
type Look = fn(&Case<'_>) -> Vec<Finding>;

/// The one table of kinds.
const LOOKS: [Look; 8] = [
    secrets::look,
    manifest::look,
    scripts::look,
    binaries::look,
    opaque::look,
    dependencies::look,
    source::look,
    size::look,
];

/// Everything that stands out, the worst first; of the same risk, in the table's order.
pub(super) fn all(case: &Case<'_>) -> Vec<Finding> {
    let mut all: Vec<Finding> = LOOKS.iter().flat_map(|look| look(case)).collect();
    all.sort_by_key(|f| std::cmp::Reverse(f.risk));
    let mut seen = BTreeMap::<_, usize>::new();
    all.retain(|f| {
        let count = seen.entry(f.kind).or_default();
        *count += 1;
        *count <= OF_ONE_KIND
    });
    for finding in &mut all {
        if finding.what.chars().count() > WHAT_MAX {
            finding.what = finding.what.chars().take(WHAT_MAX).chain(['…']).collect();
        }
        finding.what = proto::text::harmless(&finding.what);
    }
    all
}
