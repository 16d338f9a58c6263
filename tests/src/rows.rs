//! What somebody does who writes the database's files: rows of a store, by "table NUL key", and entries of the log. A row
//! is 8 bytes of version, 32 of MAC where it has one, and JSON.

use anyhow::{Context as _, Result, ensure};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use std::{collections::BTreeMap, fs, path::Path};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// What the keys of the log's entries begin with in [`all`], behind those of all rows.
pub const ENTRY: &[u8] = b"\xff";

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

/// All rows of a store by their whole keys, and the log's entries by their numbers.
///
/// # Errors
/// If the file cannot be read.
pub fn all(store: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let database = Database::open(store)?;
    let read = database.begin_read()?;
    let mut found = BTreeMap::new();
    for row in read.open_table(ROWS)?.iter()? {
        let (key, value) = row?;
        found.insert(key.value().to_vec(), value.value().to_vec());
    }
    for entry in read.open_table(LOG)?.iter()? {
        let (number, value) = entry?;
        let key = [ENTRY, &number.value().to_be_bytes()].concat();
        found.insert(key, value.value().to_vec());
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

/// Puts many rows in.
///
/// # Errors
/// If the file cannot be written.
pub fn write_all(live: &Path, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()> {
    let database = Database::open(live)?;
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(ROWS)?;
        for (key, value) in rows {
            table.insert(key.as_slice(), value.as_slice())?;
        }
    }
    Ok(write.commit()?)
}

/// Takes out all rows but those of which this holds of their whole key.
///
/// # Errors
/// If the file cannot be written, or nothing was taken out.
pub fn retain(store: &Path, kept: impl Fn(&[u8]) -> bool) -> Result<()> {
    let database = Database::open(store)?;
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(ROWS)?;
        let before = table.len()?;
        table.retain(|key, _| kept(key))?;
        ensure!(table.len()? < before, "nothing was taken out");
    }
    Ok(write.commit()?)
}

/// Changes an entry of the log in this data folder, and lets the broker build its tree anew from what is there.
///
/// # Errors
/// If there is no such entry, or the files cannot be written.
pub fn rewrite_entry(data: &Path, entry: u64) -> Result<()> {
    let live = Database::open(data.join("live.redb"))?;
    let old = {
        let log = live.begin_read()?.open_table(LOG)?;
        let stored = log.get(entry)?.context("an entry")?;
        String::from_utf8(stored.value().to_vec())?
    };
    let edited = old.replacen("\"time\":1", "\"time\":2", 1);
    ensure!(old != edited, "nothing was changed");
    let write = live.begin_write()?;
    drop(write.open_table(LOG)?.insert(entry, edited.as_bytes())?);
    write.commit()?;
    retain(&data.join("history.redb"), |key| {
        !key.starts_with(b"tree\0")
    })
}

/// Copies a folder with all that is in it to a place where nothing else is then, as somebody does who puts a database back.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
