//! What left the broker: one row a file, written in the commit that goes before its first byte, or before the
//! token with which a job sends it itself.
//!
//! The watch tells by it the broker's own publishes from others', also while an upload is on its way and
//! when a version shows up long after its request has ended. If an attacker writes here: a planted row
//! would hide a publish of his, so each is authenticated; a deleted one makes an alarm of our own publish.

use crate::{
    desk::{Desk, Fault},
    publish::ledger,
    registry::ShownFile,
    store::{Batch, Table},
    vault::rows,
};
use proto::{
    digest::Digest,
    ids::VersionText,
    request::{File, Item},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// `registry:package` NUL version NUL digest NUL file NUL: what left.
pub const LEFT: Table = Table("left");

/// One file that left.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Left {
    /// When it left first.
    pub since: UnixTime,
}

/// Notes in `batch` that this file is about to leave.
pub fn leaves(
    desk: &Desk,
    batch: Batch,
    item: &Item,
    file: &File,
    now: UnixTime,
) -> Result<Batch, Fault> {
    let key = key(item, file);
    let value = || desk.authentic(LEFT, &key, &Left { since: now });
    Ok(match desk.live.get(LEFT, &key)? {
        Some(row) if rows::check_authentic(&desk.vault, LEFT, &key, &row.value).is_ok() => batch,
        old => batch.put(LEFT, &key, old.map(|old| old.version), value()?),
    })
}

fn key(item: &Item, file: &File) -> Vec<u8> {
    ledger::prefix(&[
        &item.package_key(),
        item.version.as_str(),
        &file.digest.to_string(),
        &file.name,
    ])
}

/// Whether any file of these items left, as far as rows say that this broker has written. Not each of a release does:
/// a registry may have a layer, or the first files, already.
pub fn any_left(desk: &Desk, items: &[Item]) -> Result<bool, Fault> {
    for (item, file) in items
        .iter()
        .flat_map(|i| i.files.iter().map(move |f| (i, f)))
    {
        let key = key(item, file);
        if let Some(row) = desk.live.get(LEFT, &key)?
            && rows::check_authentic(&desk.vault, LEFT, &key, &row.value).is_ok()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes that the job itself is about to publish these files, with a token that it is given in this commit:
/// they are ours as well, and any other bytes that the token publishes are not.
pub fn all_leave(desk: &Desk, batch: Batch, item: &Item, now: UnixTime) -> Result<Batch, Fault> {
    let mut files = item.files.iter();
    files.try_fold(batch, |batch, file| leaves(desk, batch, item, file, now))
}

/// Whether this file of a version left this broker. A digest that the registry does not show can be
/// anybody's: then whether any file of that version did.
pub fn ours(
    desk: &Desk,
    package: &str,
    version: &VersionText,
    shown: &ShownFile,
) -> Result<bool, Fault> {
    let digest = shown.digest.as_ref().map(Digest::to_string);
    let mut parts = vec![package, version.as_str()];
    parts.extend(digest.as_deref());
    if digest.is_some() {
        parts.extend(shown.name.as_deref());
    }
    let rows = desk.live.range(LEFT, &ledger::prefix(&parts), None, 10)?;
    Ok(rows
        .iter()
        .any(|(key, row)| rows::check_authentic(&desk.vault, LEFT, key, &row.value).is_ok()))
}

/// A row of what left.
pub struct Trace {
    /// Its key.
    pub key: Vec<u8>,
    /// The row's version in the store.
    pub row: u64,
    /// The package's version.
    pub version: String,
    /// When it left first; not authenticated, it says how long the row is kept.
    pub since: UnixTime,
}

/// What left of a package.
pub fn of_package(desk: &Desk, package: &str, limit: usize) -> Result<Vec<Trace>, Fault> {
    let prefix = ledger::prefix(&[package]);
    let mut out = Vec::new();
    for (key, row) in desk.live.range(LEFT, &prefix, None, limit)? {
        let rest = key.get(prefix.len()..).unwrap_or_default();
        let version = rest.split(|b| *b == 0).next().unwrap_or_default();
        let version = String::from_utf8_lossy(version).into_owned();
        let left = rows::unauthenticated(&row.value);
        let left: Option<Left> = left.and_then(|v| serde_json::from_slice(v).ok());
        if let Some(Left { since }) = left {
            out.push(Trace {
                key,
                row: row.version,
                version,
                since,
            });
        }
    }
    Ok(out)
}

/// The packages of which something left, each once.
pub fn packages(desk: &Desk, limit: usize) -> Result<Vec<String>, Fault> {
    let mut out = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    while out.len() < limit {
        let Some((key, _)) = desk.live.range(LEFT, b"", after.as_deref(), 1)?.pop() else {
            break;
        };
        let package = key.split(|b| *b == 0).next().unwrap_or_default();
        // The next package: behind every key that begins with this one and its NUL.
        after = Some([package, &[1]].concat());
        out.extend(String::from_utf8(package.to_vec()).ok());
    }
    Ok(out)
}
