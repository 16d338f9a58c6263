//! The card: what an approver sees about the bytes, computed by the broker from the bytes themselves.
//!
//! Names in it come from inside archives, so whoever built them chose them: they are cut and made harmless
//! where the card is made, and again where it is drawn (attack 10).

use crate::time::UnixTime;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Largest file that a job hands over to be looked into, in bytes.
pub const FILE_MAX: u64 = 64 << 20;
/// Files of one request that are looked into.
pub const FILES_MAX: usize = 400;
/// Bytes of one request's files that are looked into.
pub const BYTES_MAX: u64 = 1 << 30;
/// Largest source archive that a job hands in, in bytes.
pub const SOURCE_MAX: u64 = 64 << 20;
/// Most lines about single files; the counts beside them are of all.
pub const LINES_MAX: usize = 200;
/// Longest name in a card, in characters.
pub const NAME_MAX: usize = 160;

/// What is known about the bytes of one file of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Which item of the request, from 0.
    pub item: u32,
    /// Which of its files, from 0.
    pub file: u32,
    /// That file's name.
    pub name: String,
    /// Whether it was looked into.
    pub outcome: Outcome,
    /// What it was compared with.
    #[serde(default)]
    pub previous: Previous,
    /// The files inside, where it was looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
    /// What stands out, the worst first.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// Whether the broker looked into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did.
    Inspected,
    /// It has the bytes, and the card is being made.
    Waiting,
    /// It has not been given the bytes.
    NotGiven,
    /// It tried, and could not: too large, too slow, or an archive that programs read differently.
    Failed,
    /// Not an archive that the broker knows how to look into.
    NotAnArchive,
    /// The request has more files, or larger ones, than the broker looks into.
    LeftOut,
}

impl Outcome {
    /// What a person is told.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Inspected => "the broker looked into it",
            Self::Waiting => "the broker is looking into it; ask again in a moment",
            Self::NotGiven => {
                "nobody handed it to the broker for inspection: what is in it is not known"
            }
            Self::Failed => {
                "COULD NOT BE INSPECTED: it is damaged, ambiguous, too large or took too long"
            }
            Self::NotAnArchive => "not an archive that the broker looks into",
            Self::LeftOut => {
                "NOT READ: the request has more than the broker looks into, so what is in it is not known"
            }
        }
    }
}

/// What a file was compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Previous {
    /// Nothing of this package is published: all of it is new.
    First,
    /// Not known, or it could not be had: nothing was compared.
    #[default]
    Unknown,
    /// With a file of this version.
    Version {
        /// The version.
        version: String,
        /// When it was published, where the registry says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        published: Option<UnixTime>,
    },
}

/// The files inside an archive, against those of the previous version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Files in all.
    pub files: u32,
    /// Bytes after unpacking.
    pub unpacked: u64,
    /// The same of the previous version, if it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<(u32, u64)>,
    /// Files that were not there before.
    pub added: u32,
    /// Files that are gone.
    pub removed: u32,
    /// Files with other bytes.
    pub changed: u32,
    /// The first of them: what decides, then by name. Empty too where a request has too many files for all lists.
    pub lines: Vec<Line>,
    /// Against the source, if the job handed it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<AgainstSource>,
}

/// The files of a package against the source of its release, as the job handed it in: the job's word, which
/// proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainstSource {
    /// Files that are in it, with the same bytes.
    pub same: u32,
    /// Files with other bytes than in it.
    pub differ: u32,
    /// Files that are not in it.
    pub absent: u32,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// How.
    pub change: Change,
    /// Its name below the archive's root folder.
    pub name: String,
    /// Its size now, in bytes; of a file that is gone, the size that it had.
    pub size: u64,
    /// Its size before, in bytes, if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// The number of its text difference, if there is one to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<u32>,
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
    /// It has other bytes.
    Changed,
}

/// Something that stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// How much it should worry.
    pub risk: Risk,
    /// What it is, with names from inside the archive.
    pub what: String,
    /// Why it matters, in one sentence.
    pub why: String,
}

/// How much a finding should worry. Only [`Risk::Note`] says that nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Good to know; it was so before.
    Note,
    /// Usual in many releases.
    Low,
    /// Look at it.
    Medium,
    /// This is how packages are poisoned.
    High,
    /// This should hardly ever be published.
    Critical,
}

/// The kinds of findings; also what `require_unchanged` in the policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A secret inside.
    Secrets,
    /// Code that runs when the package is installed or built.
    InstallScripts,
    /// What the package pulls in.
    Dependencies,
    /// Machine code, bytecode or archives inside.
    Binaries,
    /// Code that nobody can read: minified, encoded or encrypted.
    Opaque,
    /// Much larger than before.
    Size,
    /// The archive contradicts what it says of itself.
    Manifest,
    /// The archive differs from the tagged source.
    Source,
}

impl FindingKind {
    /// All, in the order of the policy's documentation.
    pub const ALL: [Self; 8] = [
        Self::Secrets,
        Self::InstallScripts,
        Self::Dependencies,
        Self::Binaries,
        Self::Opaque,
        Self::Size,
        Self::Manifest,
        Self::Source,
    ];

    /// Its name in policy and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::InstallScripts => "install-scripts",
            Self::Dependencies => "dependencies",
            Self::Binaries => "binaries",
            Self::Opaque => "opaque",
            Self::Size => "size",
            Self::Manifest => "manifest",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a kind of finding")]
pub struct UnknownKind;

impl FromStr for FindingKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let mut all = Self::ALL.into_iter();
        all.find(|k| k.name() == text).ok_or(UnknownKind)
    }
}

/// `GET /v1/requests/{id}/diff`, signed by a device: how the text of one file inside changed. It is asked for by
/// the numbers of item, file and difference: names are cut for people, and two may look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The file's name below the archive's root folder.
    pub name: String,
    /// A unified difference, each line harmless.
    pub text: String,
}

impl Card {
    /// A card that says only how it came out.
    pub fn only(item: u32, file: u32, name: &str, outcome: Outcome) -> Self {
        Self {
            item,
            file,
            name: shown(name),
            outcome,
            previous: Previous::Unknown,
            inside: None,
            findings: Vec::new(),
        }
    }
}

/// A name from inside an archive, short and harmless. Its end is kept: that is where the kind of a file
/// stands, and whoever chose the name would like it cut off.
pub fn shown(name: &str) -> String {
    let harmless = crate::text::harmless(name);
    let count = harmless.chars().count();
    if count <= NAME_MAX {
        return harmless;
    }
    let half = NAME_MAX / 2 - 1;
    let start: String = harmless.chars().take(half).collect();
    let end: String = harmless.chars().skip(count - half).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_in_json() {
        for kind in FindingKind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.name());
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("Secrets".parse::<FindingKind>().is_err());
        assert!(Risk::Critical > Risk::High && Risk::Low > Risk::Note);
    }

    #[test]
    fn attack_10_names_are_short_harmless_and_keep_their_end() {
        assert_eq!(shown("lib/a.js"), "lib/a.js");
        let name = format!("lib/{}\u{202e}sj.exe", "a".repeat(1000));
        let shown = shown(&name);
        assert!(shown.chars().count() <= NAME_MAX);
        assert!(shown.ends_with("\u{fffd}sj.exe"), "{shown}");
        assert!(!shown.chars().any(crate::text::misleads));
    }
}
