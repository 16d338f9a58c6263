//! Moving what is finished from the live store to the history.
//!
//! The live store stays small, so that starting, memory and every commit cost the same with a
//! million old requests. There is no transaction over two stores: what moves is first copied, then
//! dropped. A crash in between leaves it in both, equal, and the next move finishes. So whoever
//! looks in the live store first and in the history second never misses anything.

use super::{Batch, CommitError, Row, Store, StoreError, Table};
use thiserror::Error;

/// The history's copy of the log, one row per entry, keyed by its index (8 bytes, big-endian).
pub const LOG: Table = Table("log");

/// Log entries moved in one commit.
const LOG_CHUNK: usize = 512;

/// Log entries with their indexes.
pub type Entries = Vec<(u64, Vec<u8>)>;

/// Why something was not moved. What was not moved is still in the live store.
#[derive(Debug, Error)]
pub enum MoveError {
    /// The history holds other bytes under this key. It is never overwritten: what is finished is
    /// final, and a live row that contradicts it is a fault, or an attack on the record.
    #[error("the history holds something else in table {}", table.0)]
    Differs {
        /// The row's table.
        table: Table,
        /// The row's key.
        key: Vec<u8>,
    },
    /// The row changed meanwhile, or was moved by another. Read again and decide again.
    #[error("a row of table {} changed meanwhile", table.0)]
    Changed {
        /// The row's table.
        table: Table,
        /// The row's key.
        key: Vec<u8>,
    },
    /// A store failed.
    #[error("a store is unavailable: {0}")]
    Unavailable(String),
}

impl From<StoreError> for MoveError {
    fn from(StoreError::Unavailable(reason): StoreError) -> Self {
        Self::Unavailable(reason)
    }
}

impl From<CommitError> for MoveError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { table, key } => Self::Changed { table, key },
            CommitError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

/// Moves finished rows, as they were read from the live store, to the history.
///
/// Only rows that will never change again may be moved. Keys and values stay; versions are the
/// history's own.
pub async fn move_rows(
    live: &dyn Store,
    history: &dyn Store,
    rows: Vec<(Table, Vec<u8>, Row)>,
) -> Result<(), MoveError> {
    let mut dropped = Batch::new();
    let mut copies = Vec::with_capacity(rows.len());
    for (table, key, row) in rows {
        dropped = dropped.delete(table, &key, row.version);
        copies.push((table, key, row.value));
    }
    copy(history, copies).await?;
    // Now the rows are in both stores. A crash here leaves them there for the next move.
    if !dropped.is_empty() {
        live.commit(dropped).await?;
    }
    Ok(())
}

/// Moves all but the last `keep_last` log entries to the history, where they keep their indexes.
pub async fn move_log(
    live: &dyn Store,
    history: &dyn Store,
    keep_last: u64,
) -> Result<(), MoveError> {
    let below = live.log_len()?.saturating_sub(keep_last);
    loop {
        let mut entries = live.log_read(0, LOG_CHUNK)?;
        entries.retain(|(index, _)| *index < below);
        let Some((last, _)) = entries.last() else {
            return Ok(());
        };
        let moved = last + 1;
        let copies = entries
            .into_iter()
            .map(|(index, value)| (LOG, index.to_be_bytes().to_vec(), value));
        copy(history, copies.collect()).await?;
        // Now the entries are in both stores. A crash here leaves them there for the next move.
        live.commit(Batch::new().trim_log(moved)).await?;
    }
}

/// Log entries that are in the history, with an index of at least `from`, at most `limit`.
pub fn history_log_read(
    history: &dyn Store,
    from: u64,
    limit: usize,
) -> Result<Entries, StoreError> {
    let after = from.checked_sub(1).map(u64::to_be_bytes);
    let after = after.as_ref().map(<[u8; 8]>::as_slice);
    let mut out = Vec::new();
    for (key, row) in history.range(LOG, b"", after, limit)? {
        let index = <[u8; 8]>::try_from(key.as_slice())
            .map_err(|_| StoreError::Unavailable("a log entry without an index".to_owned()))?;
        out.push((u64::from_be_bytes(index), row.value));
    }
    Ok(out)
}

/// Log entries with an index of at least `from`, at most `limit`, wherever they are.
pub fn whole_log_read(
    live: &dyn Store,
    history: &dyn Store,
    from: u64,
    limit: usize,
) -> Result<Entries, StoreError> {
    // Live first: what is missing there was already in the history when we looked.
    let recent = live.log_read(from, limit)?;
    let gap_ends = match recent.first() {
        Some((index, _)) => *index,
        None => live.log_len()?,
    };
    if gap_ends <= from {
        return Ok(recent);
    }
    let mut out = history_log_read(history, from, limit)?;
    out.retain(|(index, _)| *index < gap_ends);
    let room = limit.saturating_sub(out.len());
    out.extend(recent.into_iter().take(room));
    Ok(out)
}

/// A row, wherever it is. Its version says nothing: what is in the history cannot be replaced.
pub fn find(
    live: &dyn Store,
    history: &dyn Store,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    if let Some(row) = live.get(table, key)? {
        return Ok(Some(row.value));
    }
    Ok(history.get(table, key)?.map(|row| row.value))
}

/// Copies what is not there yet.
async fn copy(
    history: &dyn Store,
    copies: Vec<(Table, Vec<u8>, Vec<u8>)>,
) -> Result<(), MoveError> {
    let mut batch = Batch::new();
    for (table, key, value) in copies {
        match history.get(table, &key)? {
            None => batch = batch.create(table, key, value),
            Some(row) if row.value == value => {}
            Some(_) => return Err(MoveError::Differs { table, key }),
        }
    }
    if !batch.is_empty() {
        history.commit(batch).await?;
    }
    Ok(())
}
