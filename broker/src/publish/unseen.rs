//! The third outcome of a publish, beside the approved bytes and other ones: the registry took a file, and nobody
//! can see it. Told for a week to those whose package it is; the log has it for good.
//!
//! If an attacker writes here: these rows are what people are shown, and decide nothing.

use super::state::{FileAt, Record};
use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table},
};
use proto::{ids::RequestId, request::Item, time::UnixTime};
use serde::{Deserialize, Serialize};

/// Request, item, file (big-endian) and what is missing: who is told what.
pub const UNSEEN: Table = Table("unseen");

/// Seconds for which it is told.
const TOLD: u64 = 7 * 24 * 3600;
/// Most rows that are looked at.
const LOOK_MAX: usize = 500;

/// What nobody can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The registry does not show the file.
    File,
    /// It shows the file, and does not serve it.
    Artifact,
}

/// One file that nobody can see.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unseen {
    /// Since when it is told.
    since: UnixTime,
    /// `registry:package`.
    pub package: String,
    /// A sentence.
    pub words: String,
}

fn key(request: RequestId, at: FileAt, missing: Missing) -> Vec<u8> {
    let (item, file) = at.numbers();
    let mut key = request.0.as_bytes().to_vec();
    key.extend_from_slice(&item.to_be_bytes());
    key.extend_from_slice(&file.to_be_bytes());
    key.push(match missing {
        Missing::File => 0,
        Missing::Artifact => 1,
    });
    key
}

/// Part of the commit that records the alarm.
pub fn tell(
    desk: &Desk,
    batch: Batch,
    (request, at): (RequestId, FileAt),
    item: &Item,
    (missing, words): (Missing, &str),
    now: UnixTime,
) -> Result<Batch, Fault> {
    let file = item.files.get(at.file).map_or("", |f| f.name.as_str());
    let unseen = Unseen {
        since: now,
        package: item.package_key(),
        words: format!("{} ({file}): {words}", item.name()),
    };
    let value = serde_json::to_vec(&unseen).map_err(|_| Fault::Damaged("an alarm"))?;
    let key = key(request, at, missing);
    let old = desk.live.get(UNSEEN, &key)?;
    Ok(batch.put(UNSEEN, key, old.map(|old| old.version), value))
}

/// Somebody saw it after all.
pub fn seen(
    desk: &Desk,
    batch: Batch,
    request: RequestId,
    at: FileAt,
    missing: Missing,
) -> Result<Batch, Fault> {
    let key = key(request, at, missing);
    Ok(match desk.live.get(UNSEEN, &key)? {
        None => batch,
        Some(row) => batch.delete(UNSEEN, key, row.version),
    })
}

/// All that is told now.
pub fn all(desk: &Desk) -> Result<Vec<Unseen>, Fault> {
    let rows = desk.live.range(UNSEEN, b"", None, LOOK_MAX)?;
    let read = |value: &[u8]| serde_json::from_slice(value).ok();
    Ok(rows
        .iter()
        .filter_map(|(_, row)| read(&row.value))
        .collect())
}

/// Forgets what was told for long enough.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut batch = Batch::new();
    for (key, row) in desk.live.range(UNSEEN, b"", None, LOOK_MAX)? {
        let read: Option<Unseen> = serde_json::from_slice(&row.value).ok();
        if read.is_none_or(|u| now.since(u.since) > TOLD) {
            batch = batch.delete(UNSEEN, key, row.version);
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    match desk.commit(batch, &[], now).await {
        Ok(_) | Err(Fault::Conflict(..)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The files of a record that an alarm is given for, as [`tell`] wants them.
pub fn tell_all(desk: &Desk, batch: Batch, record: &Record, now: UnixTime) -> Result<Batch, Fault> {
    let Some(words) = record.unseen() else {
        return Ok(batch);
    };
    let mut batch = batch;
    for at in record.files() {
        let item = record.facts.items.get(at.item);
        if let (true, Some(item)) = (record.unclear.contains(&at.numbers()), item) {
            let about = (record.facts.id, at);
            batch = tell(desk, batch, about, item, (Missing::File, words), now)?;
        }
    }
    Ok(batch)
}
