//! What is known of packages at their registries: a row a package with every version and digest that the watch
//! has seen, and a small one about its last look.
//!
//! If an attacker writes here: the first row is authenticated, so he cannot make a publish of his known.
//! The second is what people are shown, and decides nothing.

use crate::{
    desk::{Desk, Fault},
    registry::ShownFile,
    store::{Batch, Table},
};
use proto::{digest::Digest, ids::VersionText, time::UnixTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `registry:package`: what is known of it; authenticated.
pub const KNOWN: Table = Table("known");
/// `registry:package`: the last look at it.
pub const LOOKS: Table = Table("look");
/// Most packages that are watched.
pub const PACKAGES_MAX: usize = 5000;

/// A package as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its versions, also those that are gone: a number is never free again.
    pub versions: BTreeMap<VersionText, Version>,
    /// Where the tag `latest` points, on registries that have tags.
    #[serde(default)]
    pub latest: Option<VersionText>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Whose it is.
    pub by: By,
    /// Digests by file name; the name is empty where a version has one file.
    pub files: BTreeMap<String, Option<Digest>>,
    /// Whether it was missing at the last look: an old copy in a cache may not have it yet.
    #[serde(default)]
    pub missed: bool,
    /// Whether it is gone.
    #[serde(default)]
    pub gone: bool,
    /// Whether it is yanked.
    #[serde(default)]
    pub withdrawn: bool,
}

impl Version {
    /// One of which no file is known yet.
    pub const fn by(by: By) -> Self {
        Self {
            by,
            files: BTreeMap::new(),
            missed: false,
            gone: false,
            withdrawn: false,
        }
    }
}

/// Who published a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// It was there when the package was first looked at.
    Before,
    /// This broker.
    Broker,
    /// Somebody else, past the broker. There was an alarm.
    Others,
}

/// The last look at a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// When the registry last answered.
    pub looked: Option<UnixTime>,
    /// Since when it has not, and what came instead.
    pub failing: Option<(UnixTime, String)>,
    /// Whether the alarm was given that nobody can look.
    pub blind: bool,
    /// Whether an admin has been shown what was there before.
    pub told: bool,
}

/// What is known of a package, with its row's version.
pub fn known(desk: &Desk, package: &str) -> Result<Option<(u64, Known)>, Fault> {
    let row = desk.authentic_row::<Known>(KNOWN, package.as_bytes())?;
    Ok(row.map(|r| (r.version, r.value)))
}

/// Adds to a batch that others published this file, so that the watch gives no second alarm for it. `None`: it is
/// known already, and there was an alarm, or it was there before.
pub fn others(
    desk: &Desk,
    batch: Batch,
    package: &str,
    version: &VersionText,
    shown: &ShownFile,
) -> Result<Option<Batch>, Fault> {
    let (row, mut known) = match known(desk, package) {
        Ok(Some(found)) => found,
        // Never looked at, or a row that the watch tells of at its next round.
        Ok(None) | Err(Fault::Damaged(_)) => return Ok(Some(batch)),
        Err(other) => return Err(other),
    };
    let name = shown.name.clone().unwrap_or_default();
    let of_version = known.versions.entry(version.clone());
    let of_version = of_version.or_insert_with(|| Version::by(By::Others));
    if of_version.files.get(&name) == Some(&shown.digest) {
        return Ok(None);
    }
    of_version.by = By::Others;
    of_version.files.insert(name, shown.digest.clone());
    let bytes = desk.authentic(KNOWN, package.as_bytes(), &known)?;
    Ok(Some(batch.replace(KNOWN, package.as_bytes(), row, bytes)))
}

/// The last look at a package, with its row's version.
pub fn look(desk: &Desk, package: &str) -> Result<(Option<u64>, Look), Fault> {
    let Some(row) = desk.live.get(LOOKS, package.as_bytes())? else {
        return Ok((None, Look::default()));
    };
    let look = serde_json::from_slice(&row.value).unwrap_or_default();
    Ok((Some(row.version), look))
}

/// Stores a look.
pub fn put_look(
    batch: Batch,
    package: &str,
    version: Option<u64>,
    look: &Look,
) -> Result<Batch, Fault> {
    let value = serde_json::to_vec(look).map_err(|_| Fault::Damaged("a look"))?;
    Ok(batch.put(LOOKS, package.as_bytes(), version, value))
}

/// Every package that was looked at.
pub fn packages(desk: &Desk) -> Result<Vec<String>, Fault> {
    let rows = desk.live.range(LOOKS, b"", None, PACKAGES_MAX)?;
    Ok(rows
        .into_iter()
        .filter_map(|(key, _)| String::from_utf8(key).ok())
        .collect())
}
