//! A store copied whole: everything of one instant out of it, for a backup.

use super::{StoreError, Table};
use serde::{Deserialize, Serialize};
use std::io;
use thiserror::Error;

/// What a store counts beside its rows and entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// The layout of what is stored.
    pub schema: u64,
    /// The last row version that was given out.
    pub version: u64,
    /// The number of log entries ever appended.
    pub log_len: u64,
}

/// One piece of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// A row.
    Row {
        /// Its table and key: see [`place`].
        place: &'a [u8],
        /// Its version.
        version: u64,
        /// Its value.
        value: &'a [u8],
    },
    /// A log entry that is still here.
    Entry {
        /// Its index.
        index: u64,
        /// What was appended.
        value: &'a [u8],
    },
}

/// Everything in a store at one instant, whatever is committed meanwhile. While it is held, the store
/// does not use the space again that it shows.
pub trait Snapshot: Send {
    /// What was counted at that instant.
    fn counters(&self) -> Counters;

    /// Hands out every row, ascending by place, then every log entry, ascending by index. One at a
    /// time: nothing is gathered in memory. Blocking.
    fn walk(&self, to: &mut dyn FnMut(Piece<'_>) -> Result<(), io::Error>)
    -> Result<(), WalkError>;
}

/// Why not everything was handed out.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever takes it could not.
    #[error(transparent)]
    Taker(#[from] io::Error),
}

/// A row's table and key as one: the table's name, NUL, the key.
pub fn place(table: Table, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(table.0.len() + 1 + key.len());
    out.extend_from_slice(table.0.as_bytes());
    out.push(0);
    out.extend_from_slice(key);
    out
}

/// The table's name and the key of a place.
pub fn split_place(place: &[u8]) -> Option<(&str, &[u8])> {
    // The first NUL ends the table's name, which holds none.
    let end = place.iter().position(|byte| *byte == 0)?;
    let (table, key) = place.split_at_checked(end)?;
    Some((std::str::from_utf8(table).ok()?, key.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_table_and_a_key_whatever_is_in_the_key() {
        for key in [&b""[..], b"k", b"\0", b"a\0b"] {
            let whole = place(Table("table"), key);
            assert_eq!(split_place(&whole), Some(("table", key)));
        }
        assert_eq!(split_place(b"no end"), None);
    }
}
