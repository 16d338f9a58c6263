//! What stands out: one file a kind, each a pure function over a [`Case`], and one row here.

mod binaries;
mod dependencies;
mod manifest;
mod opaque;
mod scripts;
mod secret_rules;
pub(super) mod secrets;
mod size;

use super::{Format, tree::Tree};
use proto::card::Finding;

/// Most findings of one archive.
const FINDINGS_MAX: usize = 40;
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
    /// That of the previous version, if it was had.
    pub(super) before: Option<&'a Tree>,
}

/// Looks for one kind of thing.
type Look = fn(&Case<'_>) -> Vec<Finding>;

/// The one table of kinds.
const LOOKS: [Look; 7] = [
    secrets::look,
    manifest::look,
    scripts::look,
    binaries::look,
    opaque::look,
    dependencies::look,
    size::look,
];

/// Everything that stands out, the worst first; of the same risk, in the table's order.
pub(super) fn all(case: &Case<'_>) -> Vec<Finding> {
    let mut all: Vec<Finding> = LOOKS.iter().flat_map(|look| look(case)).collect();
    all.sort_by_key(|f| std::cmp::Reverse(f.risk));
    all.truncate(FINDINGS_MAX);
    for finding in &mut all {
        if finding.what.chars().count() > WHAT_MAX {
            finding.what = finding.what.chars().take(WHAT_MAX).chain(['…']).collect();
        }
        finding.what = proto::text::harmless(&finding.what);
    }
    all
}
