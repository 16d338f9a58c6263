//! A database copied whole: what a backup takes out of one, and a new one filled with it.
//!
//! It is copied row by row, not page by page: the copy has no freed pages in it, in which deleted rows may
//! still stand, and does not depend on the layout of redb's own file.

use super::{
    CreateError, LOG, META, META_LOG_LEN, META_SCHEMA, META_VERSION, Options, ROWS, Redb,
    VERSION_BYTES,
    file::{SCHEMA, furnish_new},
    shown::Shown,
    split_version,
};
use crate::store::{
    StoreError,
    snapshot::{Counters, Piece, Snapshot, WalkError},
};
use ::redb::Database;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes that are gathered before they are written in one transaction.
const CHUNK_BYTES: usize = 4 << 20;

/// What a database shows at one instant.
pub(super) struct Copy(pub(super) Arc<Shown>);

impl Snapshot for Copy {
    fn counters(&self) -> Counters {
        Counters {
            schema: SCHEMA,
            version: self.0.version(),
            log_len: self.0.log_len(),
        }
    }

    fn walk(
        &self,
        to: &mut dyn FnMut(Piece<'_>) -> Result<(), io::Error>,
    ) -> Result<(), WalkError> {
        let failed =
            |error: ::redb::Error| WalkError::Store(StoreError::Unavailable(error.to_string()));
        let (rows, log) = self.0.tables();
        for row in rows.range::<&[u8]>(..).map_err(|e| failed(e.into()))? {
            let (place, stored) = row.map_err(|e| failed(e.into()))?;
            let (version, value) = split_version(stored.value()).map_err(failed)?;
            let place = place.value();
            to(Piece::Row {
                place,
                version,
                value,
            })?;
        }
        for entry in log.range::<u64>(..).map_err(|e| failed(e.into()))? {
            let (index, value) = entry.map_err(|e| failed(e.into()))?;
            to(Piece::Entry {
                index: index.value(),
                value: value.value(),
            })?;
        }
        Ok(())
    }
}

/// A new database that is being filled. It counts as one, and opens, only after [`Filling::finish`].
pub struct Filling {
    path: PathBuf,
    db: Database,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    entries: Vec<(u64, Vec<u8>)>,
    gathered: usize,
}

impl Redb {
    /// Makes a new database at `path`, to be filled. Refuses when there is anything. Unlike a created one it is
    /// at its path while it is not whole: the caller names it when it is.
    pub fn fill(path: &Path, options: impl Into<Options>) -> Result<Filling, CreateError> {
        Ok(Filling {
            db: furnish_new(path, &options.into())?,
            path: path.to_owned(),
            rows: Vec::new(),
            entries: Vec::new(),
            gathered: 0,
        })
    }
}

impl Filling {
    /// Adds a piece.
    pub fn put(&mut self, piece: Piece<'_>) -> Result<(), CreateError> {
        match piece {
            Piece::Row {
                place,
                version,
                value,
            } => {
                let mut stored = Vec::with_capacity(VERSION_BYTES + value.len());
                stored.extend_from_slice(&version.to_be_bytes());
                stored.extend_from_slice(value);
                self.gathered += place.len() + stored.len();
                self.rows.push((place.to_vec(), stored));
            }
            Piece::Entry { index, value } => {
                self.gathered += value.len();
                self.entries.push((index, value.to_vec()));
            }
        }
        if self.gathered >= CHUNK_BYTES {
            return self.write(None);
        }
        Ok(())
    }

    /// Writes what is left, and what is counted; closes and flushes the file. The folder is the caller's to flush.
    pub fn finish(mut self, counters: Counters) -> Result<(), CreateError> {
        self.write(Some(counters))?;
        let Self { path, db, .. } = self;
        // Closing marks the file as whole, so that nothing has to be repaired at the first start.
        drop(db);
        let flushed = File::open(&path).and_then(|file| file.sync_all());
        flushed.map_err(|error| failed(&path, &error.into()))
    }

    fn write(&mut self, counters: Option<Counters>) -> Result<(), CreateError> {
        let written = self.transaction(counters);
        self.rows.clear();
        self.entries.clear();
        self.gathered = 0;
        written.map_err(|error| failed(&self.path, &error))
    }

    fn transaction(&self, counters: Option<Counters>) -> Result<(), ::redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_two_phase_commit(true);
        {
            let mut rows = txn.open_table(ROWS)?;
            for (place, stored) in &self.rows {
                rows.insert(place.as_slice(), stored.as_slice())?;
            }
            let mut log = txn.open_table(LOG)?;
            for (index, value) in &self.entries {
                log.insert(*index, value.as_slice())?;
            }
            if let Some(counters) = counters {
                let mut meta = txn.open_table(META)?;
                meta.insert(META_SCHEMA, SCHEMA)?;
                meta.insert(META_VERSION, counters.version)?;
                meta.insert(META_LOG_LEN, counters.log_len)?;
            }
        }
        Ok(txn.commit()?)
    }
}

fn failed(path: &Path, error: &::redb::Error) -> CreateError {
    CreateError::Storage {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
