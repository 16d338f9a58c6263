//! The package against the source that the job handed in: files that are not in it, or differ from it.

use super::Case;
use crate::card::{
    Format, entry_points,
    source::Listing,
    tree::{Tree, named},
};
use proto::{
    card::{AgainstSource, Finding, FindingKind, Risk},
    digest::hex,
};
use std::collections::{BTreeMap, BTreeSet};

const WHY: &str = "What is published should be what can be read in the source; it is taken as the job handed it in.";
const WHY_BUILT: &str = "What is built looks like this, and what somebody has put in besides; compare it with a build \
     of your own.";

/// What setuptools writes into a folder `*.egg-info`; anything else there is a file like others.
const EGG_INFO: [&str; 9] = [
    "PKG-INFO",
    "SOURCES.txt",
    "requires.txt",
    "top_level.txt",
    "dependency_links.txt",
    "namespace_packages.txt",
    "eager_resources.txt",
    "zip-safe",
    "not-zip-safe",
];

/// What became of the package's files.
#[derive(Default)]
pub(in crate::card) struct Sorted<'c> {
    /// As in the source.
    same: usize,
    /// Elsewhere in the source, with the same bytes.
    moved: Vec<&'c str>,
    /// With other bytes than in the source.
    differ: Vec<&'c str>,
    /// Not in the source, and not in the version before.
    new: Vec<&'c str>,
    /// Not in the source, with a file of that name in the version before.
    usual: Vec<&'c str>,
    /// Not in the source, as the format's tools make them.
    made: Vec<&'c str>,
}

impl<'c> Sorted<'c> {
    /// How many files are in the source.
    pub(in crate::card) fn counts(&self) -> AgainstSource {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        AgainstSource {
            same: count(self.same + self.moved.len()),
            differ: count(self.differ.len()),
            absent: count(self.new.len() + self.usual.len() + self.made.len()),
        }
    }

    /// Sorts a package's files.
    pub(in crate::card) fn of(
        format: Format,
        now: &'c Tree,
        before: Option<&Tree>,
        source: &Listing,
    ) -> Self {
        let files: BTreeMap<_, _> = now
            .files
            .iter()
            .map(|(name, leaf)| (name.as_str(), hex(&leaf.digest)))
            .collect();
        // The folder of the source that the package is made of: the one in which most of its files lie as they are.
        let mut votes = BTreeMap::<&str, usize>::new();
        for (path, digest) in &source.files {
            let folders = path.match_indices('/').map(|(at, _)| at + 1);
            for at in std::iter::once(0).chain(folders) {
                let (folder, name) = path.split_at_checked(at).unwrap_or(("", path));
                if files.get(name) == Some(digest) {
                    *votes.entry(folder).or_default() += 1;
                }
            }
        }
        let most = |(folder, votes): &(&str, usize)| (*votes, std::cmp::Reverse(folder.len()));
        let root = votes.into_iter().max_by_key(most).map_or("", |(f, _)| f);
        let all: BTreeSet<&String> = source.files.values().collect();
        let mut out = Self::default();
        for (name, digest) in files {
            // Cargo keeps the manifest as it was written under another name.
            let was = match name {
                "Cargo.toml.orig" => "Cargo.toml",
                name => name,
            };
            let path = format!("{root}{was}");
            let runs = || runs_at_build(now, before, name);
            let says = || now.text(name).is_some_and(|text| source.says(&path, text));
            match source.files.get(&path) {
                Some(there) if *there == digest => out.same += 1,
                _ if made(format, name) => out.made.push(name),
                // Commands, as setuptools lists them; what runs at a build is a file like others.
                _ if is_entry_points(format, name) && !runs() => out.made.push(name),
                // Rewritten by setuptools, and it says what it said.
                _ if is_settings(format, name) && says() => out.made.push(name),
                Some(_) => out.differ.push(name),
                None if all.contains(&digest) => out.moved.push(name),
                None if before.is_some_and(|b| b.files.contains_key(name)) => out.usual.push(name),
                None => out.new.push(name),
            }
        }
        out
    }
}

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let Some(sorted) = case.source else {
        return Vec::new();
    };
    let groups = [
        (
            &sorted.differ,
            Risk::Medium,
            "other bytes than in the source",
            WHY,
        ),
        (&sorted.new, Risk::Medium, "not in the source", WHY_BUILT),
        (
            &sorted.usual,
            Risk::Low,
            "not in the source, as files of these names before",
            WHY_BUILT,
        ),
        (&sorted.moved, Risk::Low, "elsewhere in the source", WHY),
        (&sorted.made, Risk::Note, "made when it was packed", WHY),
    ];
    groups
        .into_iter()
        .filter(|(files, ..)| !files.is_empty())
        .map(|(files, risk, words, why)| Finding {
            kind: FindingKind::Source,
            risk,
            what: format!("{words}: {}", named(files.iter().copied())),
            why: why.to_owned(),
        })
        .collect()
}

/// Whether a file is the list of entry points that setuptools makes.
fn is_entry_points(format: Format, name: &str) -> bool {
    format == Format::Sdist && name.ends_with(".egg-info/entry_points.txt")
}

/// Whether such a list names something that runs at a build, as far as it can be read.
fn runs_at_build(now: &Tree, before: Option<&Tree>, name: &str) -> bool {
    // The text of a file that is the same in both is kept in one of them.
    let same = |tree: &&Tree| {
        let digest = |tree: &Tree| tree.files.get(name).map(|leaf| leaf.digest);
        digest(now) == digest(tree)
    };
    let text = now.text(name).or_else(|| before.filter(same)?.text(name));
    text.is_none_or(|text| !entry_points::building(text).0.is_empty())
}

/// Whether a file is what setuptools writes anew when it packs.
fn is_settings(format: Format, name: &str) -> bool {
    format == Format::Sdist && name == "setup.cfg"
}

/// Files that the tools write when they pack, whose content the card tells by itself.
fn made(format: Format, name: &str) -> bool {
    match format {
        Format::Npm => false,
        Format::Sdist => {
            let mut parts = name.rsplit('/');
            let last = parts.next().unwrap_or_default();
            let egg = parts
                .next()
                .is_some_and(|folder| folder.ends_with(".egg-info"));
            name == "PKG-INFO" || (egg && EGG_INFO.contains(&last))
        }
        Format::Wheel => name.starts_with(".dist-info/"),
        Format::Crate => matches!(name, "Cargo.toml" | "Cargo.lock" | ".cargo_vcs_info.json"),
        Format::Gem => name == "metadata",
    }
}
