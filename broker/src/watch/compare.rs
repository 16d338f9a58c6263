//! The comparison: what a registry shows against what is known. A pure function over both and over the
//! question whether a file left this broker.

use crate::{
    audit::{event::Event, reason::FreezeCause},
    publish::{
        known::{By, Known, Version},
        ledger::Seen,
    },
    registry::{Published, ShownFile},
};
use proto::ids::VersionText;
use std::collections::BTreeMap;

/// What came of a comparison.
#[derive(Debug)]
pub struct Compared {
    /// What is known from now on.
    pub known: Known,
    /// What is to be recorded.
    pub events: Vec<Event>,
    /// Why the package is frozen, if it is.
    pub alarm: Option<Seen>,
}

/// Nothing can be said: the registry shows nothing at all of a package that had versions.
#[derive(Debug, PartialEq, Eq)]
pub struct Emptied;

/// A comparison on its way.
struct Work<'a, F> {
    package: &'a str,
    ours: F,
    out: Compared,
    /// Versions that this broker published since the last look.
    fresh: Vec<VersionText>,
}

/// Compares. `ours` says whether a file of a version left this broker.
pub fn compare<E>(
    package: &str,
    known: Option<&Known>,
    shown: &Published,
    ours: impl Fn(&VersionText, &ShownFile) -> Result<bool, E>,
) -> Result<Result<Compared, Emptied>, E> {
    let Some(known) = known else {
        return Ok(Ok(first(package, shown, ours)?));
    };
    let had = known.versions.values().any(|v| !v.gone);
    if had && shown.versions.values().all(Vec::is_empty) {
        return Ok(Err(Emptied));
    }
    let mut work = Work {
        package,
        ours,
        out: Compared {
            known: known.clone(),
            events: Vec::new(),
            alarm: None,
        },
        fresh: Vec::new(),
    };
    for (version, files) in &shown.versions {
        for file in files {
            work.file(version, file)?;
        }
    }
    work.missing(shown);
    work.withdrawn(shown);
    work.latest(shown);
    Ok(Ok(work.out))
}

/// The first look at a package: what is there now was there before, but for what left this broker.
fn first<E>(
    package: &str,
    shown: &Published,
    ours: impl Fn(&VersionText, &ShownFile) -> Result<bool, E>,
) -> Result<Compared, E> {
    let mut known = Known {
        latest: shown.latest.clone(),
        ..Known::default()
    };
    for (version, files) in &shown.versions {
        let mut all = !files.is_empty();
        let mut digests = BTreeMap::new();
        for file in files {
            all = all && ours(version, file)?;
            digests.insert(file.name.clone().unwrap_or_default(), file.digest.clone());
        }
        let mut row = Version::by(if all { By::Broker } else { By::Before });
        row.files = digests;
        row.withdrawn = shown.withdrawn.contains(version);
        known.versions.insert(version.clone(), row);
    }
    let before = known.versions.values().filter(|v| v.by == By::Before);
    let event = Event::PackageWatched {
        package: package.to_owned(),
        before: before.count() as u64,
    };
    Ok(Compared {
        known,
        events: vec![event],
        alarm: None,
    })
}

impl<E, F: Fn(&VersionText, &ShownFile) -> Result<bool, E>> Work<'_, F> {
    fn name(&self, version: &VersionText) -> String {
        format!("{}@{version}", self.package)
    }

    /// One file that the registry shows.
    fn file(&mut self, version: &VersionText, shown: &ShownFile) -> Result<(), E> {
        let name = shown.name.clone().unwrap_or_default();
        let old = self.out.known.versions.get_mut(version);
        let (is_new, before) = match old.as_ref().and_then(|v| v.files.get(&name)) {
            None => (true, None),
            Some(before) => (false, before.clone()),
        };
        if let Some(old) = old {
            old.missed = false;
            old.gone = false;
        }
        match (&before, &shown.digest) {
            // The same; or the registry does not show it (any more), and nothing can be said.
            (Some(a), Some(b)) if a == b => return Ok(()),
            (_, None) if !is_new => return Ok(()),
            // Shown for the first time, of a file that was there.
            (None, Some(digest)) if !is_new => {
                self.adopt(version, None, name, Some(digest.clone()));
                return Ok(());
            }
            _ => {}
        }
        if (self.ours)(version, shown)? {
            // Without a digest it may be ours: it is adopted when it has one.
            if shown.digest.is_some() {
                self.adopt(version, Some(By::Broker), name, shown.digest.clone());
                self.fresh.push(version.clone());
            }
            return Ok(());
        }
        let about = self.name(version);
        let (event, cause) = match before {
            None => (
                Event::VersionUnknown {
                    name: about.clone(),
                    file: name.clone(),
                    shown: shown.digest.clone(),
                },
                FreezeCause::VersionUnknown,
            ),
            Some(known) => (
                Event::VersionChanged {
                    name: about.clone(),
                    file: name.clone(),
                    known,
                    shown: shown.digest.clone(),
                },
                FreezeCause::VersionChanged,
            ),
        };
        self.out.events.push(event);
        self.out.alarm.get_or_insert(Seen { cause, name: about });
        // Known from now on: thawed, the package is not frozen again for the same.
        self.adopt(version, Some(By::Others), name, shown.digest.clone());
        Ok(())
    }

    fn adopt(
        &mut self,
        version: &VersionText,
        by: Option<By>,
        name: String,
        digest: Option<proto::digest::Digest>,
    ) {
        let versions = &mut self.out.known.versions;
        let row = versions
            .entry(version.clone())
            .or_insert_with(|| Version::by(by.unwrap_or(By::Before)));
        // What others did to a version stays written.
        if let Some(by) = by.filter(|by| *by == By::Others) {
            row.by = by;
        }
        row.files.insert(name, digest);
    }

    /// Versions that the registry has not shown twice in a row: reported, and no reason to freeze.
    fn missing(&mut self, shown: &Published) {
        let is_there = |v: &VersionText| shown.versions.get(v).is_some_and(|f| !f.is_empty());
        for (version, row) in &mut self.out.known.versions {
            if row.gone || row.files.is_empty() || is_there(version) {
                continue;
            }
            if row.missed {
                row.gone = true;
                self.out.events.push(Event::VersionGone {
                    name: format!("{}@{version}", self.package),
                });
            }
            row.missed = true;
        }
    }

    fn withdrawn(&mut self, shown: &Published) {
        for (version, row) in &mut self.out.known.versions {
            let now = shown.withdrawn.contains(version);
            if now && !row.withdrawn {
                self.out.events.push(Event::VersionWithdrawn {
                    name: format!("{}@{version}", self.package),
                });
            }
            row.withdrawn = now;
        }
    }

    /// `latest` moved, and not by a publish of ours: reported.
    fn latest(&mut self, shown: &Published) {
        let known = &mut self.out.known;
        if known.latest == shown.latest {
            return;
        }
        let ours = shown
            .latest
            .as_ref()
            .is_some_and(|v| self.fresh.contains(v));
        if !ours {
            self.out.events.push(Event::LatestMoved {
                package: self.package.to_owned(),
                from: known.latest.clone(),
                to: shown.latest.clone(),
            });
        }
        known.latest.clone_from(&shown.latest);
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
