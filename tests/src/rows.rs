//! What somebody does who writes the database's file: rows of the live store, by "table NUL key". A row is 8 bytes of
//! version, 32 of MAC where it has one, and JSON.

use anyhow::{Context as _, Result};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use std::path::Path;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// One row.
///
/// # Errors
/// If there is none.
pub fn read(live: &Path, key: &[u8]) -> Result<Vec<u8>> {
    let database = Database::open(live)?;
    let read = database.begin_read()?;
    let stored = read.open_table(ROWS)?.get(key)?.context("a row")?;
    Ok(stored.value().to_vec())
}

/// The rows of a table, with their whole keys.
///
/// # Errors
/// If the file cannot be read.
pub fn of_table(live: &Path, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let prefix = [table.as_bytes(), b"\0"].concat();
    let database = Database::open(live)?;
    let read = database.begin_read()?;
    let mut found = Vec::new();
    for row in read.open_table(ROWS)?.range(prefix.as_slice()..)? {
        let (key, value) = row?;
        if !key.value().starts_with(&prefix) {
            break;
        }
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

/// Puts a row in, or takes it out.
///
/// # Errors
/// If the file cannot be written.
pub fn write(live: &Path, key: &[u8], value: Option<&[u8]>) -> Result<()> {
    let database = Database::open(live)?;
    let write = database.begin_write()?;
    match value {
        Some(value) => drop(write.open_table(ROWS)?.insert(key, value)?),
        None => drop(write.open_table(ROWS)?.remove(key)?),
    }
    Ok(write.commit()?)
}
