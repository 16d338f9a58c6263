//! Looking into archives for people: what is inside, what changed, what stands out.
//!
//! The daemon never does this itself. [`run`] starts a process that may do nothing but read what it was given
//! and write what it found ([`sandbox`]); [`child`] is what that process does. Everything from [`tree`] on is a
//! pure function of the bytes: the same archives give the same card.
//!
//! Reading order: [`Job`] and [`Inspection`] are what goes in and comes out, [`tree`] reads an archive, one file in
//! [`findings`] looks for one kind of thing.

pub mod child;
mod diff;
mod entry_points;
mod findings;
pub mod run;
mod sandbox;
mod setup_cfg;
pub mod source;
mod tree;

pub use crate::registry::archive::Format;

use findings::{Before, secrets::Rules, source::Sorted};
use proto::card::{Diff, Finding, Inside};
use serde::{Deserialize, Serialize};
use source::Listing;
use std::io::{self, Read, Seek};
use tree::{Judged, Tree};

/// What is to be looked into. The archives themselves follow it on the child's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What both archives are.
    pub format: Format,
    /// The package's name, as the request says.
    pub package: String,
    /// The version, as the request says.
    pub version: String,
    /// Bytes of the archive.
    pub length: u64,
    /// What it is compared with.
    pub previous: Against,
    /// Bytes of the list of the source's files ([`Listing`]), if the job handed its source in.
    #[serde(default)]
    pub source: Option<u64>,
}

/// What an archive is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Nothing: nothing of the package is published.
    First,
    /// Nothing: what is published could not be had.
    Unknown,
    /// The previous version's archive, of so many bytes.
    Bytes(u64),
}

/// What the process is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// To look into an archive.
    Look(Job),
    /// To list the files of a source archive of so many bytes.
    List(u64),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// Whether the previous version's archive could be read too.
    pub compared: bool,
    /// The files.
    pub inside: Inside,
    /// What stands out, the worst first.
    pub findings: Vec<Finding>,
    /// Text differences of some files.
    pub diffs: Vec<Diff>,
}

/// Looks into an archive. An archive that cannot be read is no card; a previous one that cannot be read is not
/// compared with, and that is said.
fn inspect<F: Read + Seek>(
    rules: &Rules,
    job: &Job,
    archive: F,
    previous: Option<F>,
    source: Option<&Listing>,
) -> Result<Inspection, crate::registry::archive::ArchiveError> {
    let before = match (job.previous, previous) {
        (Against::Bytes(length), Some(file)) => Tree::read(job.format, file, length, None).ok(),
        _ => None,
    };
    let judged = Judged {
        before: before.as_ref(),
        rules,
    };
    let now = Tree::read(job.format, archive, job.length, Some(judged))?;
    let sorted = source.map(|list| Sorted::of(job.format, &now, before.as_ref(), list));
    let case = findings::Case {
        format: job.format,
        package: &job.package,
        version: &job.version,
        now: &now,
        before: match (&before, job.previous) {
            (Some(tree), _) => Before::Tree(tree),
            (None, Against::First) => Before::First,
            (None, _) => Before::Unknown,
        },
        source: sorted.as_ref(),
    };
    let (mut inside, diffs) = diff::inside(&case);
    inside.source = sorted.as_ref().map(Sorted::counts);
    Ok(Inspection {
        compared: before.is_some(),
        inside,
        findings: findings::all(&case),
        diffs,
    })
}

/// A part of a file as a file of its own.
pub(crate) struct Window<F> {
    file: F,
    start: u64,
    length: u64,
    at: u64,
}

impl<F: Read + Seek> Window<F> {
    pub(crate) const fn new(file: F, start: u64, length: u64) -> Self {
        Self {
            file,
            start,
            length,
            at: 0,
        }
    }
}

impl<F: Read + Seek> Read for Window<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        self.file
            .seek(io::SeekFrom::Start(self.start.saturating_add(self.at)))?;
        let n = self.file.read(out.get_mut(..most).unwrap_or_default())?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<F: Read + Seek> Seek for Window<F> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(n) => Some(n),
            io::SeekFrom::Current(n) => self.at.checked_add_signed(n),
            io::SeekFrom::End(n) => self.length.checked_add_signed(n),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod gem_tests;
#[cfg(test)]
mod hidden_tests;
#[cfg(test)]
mod python_tests;
#[cfg(test)]
mod rust_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod sdist_tests;
#[cfg(test)]
mod tests;
