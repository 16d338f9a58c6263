//! Making a database and opening one: two different acts.
//!
//! Were opening to make what is missing, a mistyped path or a lost mount would start an empty
//! broker that has forgotten every burnt token and every freeze.

use super::{LOG, META, META_LOG_LEN, META_SCHEMA, META_VERSION, Options, ROWS, Redb, meta};
use ::redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError};
use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The layout that this program writes. A database with a greater number is refused.
pub const SCHEMA: u64 = 1;
/// The number of one that is not whole yet. It is no layout, and is refused.
const UNFINISHED: u64 = 0;

/// Why a database was not made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// Something is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file could not be written.
    #[error("cannot make {}: {reason}", path.display())]
    Storage {
        /// The database's path.
        path: PathBuf,
        /// What the storage said.
        reason: String,
    },
    /// It was made, and could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a database was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A newer program wrote it.
    #[error(
        "the database has schema {found}, this program knows schemas up to {known}: a newer countersignd wrote it; start that one, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database's schema.
        found: u64,
        /// The newest schema that this program knows.
        known: u64,
    },
    /// It is a file, and not one of ours, or one that was never filled to its end.
    #[error("{} is not a whole store of this program", .0.display())]
    Foreign(PathBuf),
    /// The storage failed, or the file is damaged.
    #[error("the storage failed: {0}")]
    Storage(String),
}

impl Redb {
    /// Makes a new database and opens it. Refuses when there is anything at the path.
    ///
    /// At every instant there is either nothing at `path` or a whole, flushed database.
    pub fn create(
        path: impl AsRef<Path>,
        options: impl Into<Options>,
    ) -> Result<Self, CreateError> {
        let (path, options) = (path.as_ref(), options.into());
        if path.symlink_metadata().is_ok() {
            return Err(CreateError::Exists(path.to_owned()));
        }
        let failed = |reason: String| CreateError::Storage {
            path: path.to_owned(),
            reason,
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Readable by its owner alone, and gone again if anything fails below.
        let draft = tempfile::Builder::new()
            .prefix(".new-store-")
            .tempfile_in(folder)
            .map_err(|error| failed(error.to_string()))?;
        draft
            .reopen()
            .map_err(::redb::Error::from)
            .and_then(|file| furnish(file, &options, SCHEMA).map(drop))
            .map_err(|error| failed(error.to_string()))?;
        let synced = draft.as_file().sync_all();
        synced.map_err(|error| failed(error.to_string()))?;
        // The rename itself refuses an existing target: two creates at once make one database.
        draft
            .persist_noclobber(path)
            .map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => CreateError::Exists(path.to_owned()),
                _ => failed(error.error.to_string()),
            })?;
        let named = File::open(folder).and_then(|folder| folder.sync_all());
        named.map_err(|error| failed(error.to_string()))?;
        Ok(Self::open(path, options)?)
    }

    /// Opens an existing database. Refuses one that is absent, foreign or of a newer schema.
    pub fn open(path: impl AsRef<Path>, options: impl Into<Options>) -> Result<Self, OpenError> {
        let (path, options) = (path.as_ref(), options.into());
        // Opening for writing writes. A newer program's database is not touched at all, where it can be looked at.
        if let Err(newer @ OpenError::Newer { .. }) = Self::look(path) {
            return Err(newer);
        }
        let db = builder(&options)
            .open(path)
            .map_err(|error| refusal(path, error))?;
        known(path, schema(&db))?;
        Self::start(db, options)
    }

    /// The schema of an existing database, read without writing a byte. Refused as [`Redb::open`] refuses.
    pub fn look(path: impl AsRef<Path>) -> Result<u64, OpenError> {
        let path = path.as_ref();
        let db = Builder::new().open_read_only(path);
        let db = db.map_err(|error| refusal(path, error))?;
        known(path, schema(&db))
    }

    /// A store that forgets everything when it is dropped: for the tests of other rooms.
    #[cfg(test)]
    pub fn in_memory() -> Self {
        Self::over(::redb::backends::InMemoryBackend::new(), Options::new(0)).unwrap()
    }

    /// Opens over any storage, furnished if it is empty: for tests of what happens when it fails.
    #[cfg(test)]
    pub(super) fn over(
        backend: impl ::redb::StorageBackend,
        options: Options,
    ) -> Result<Self, OpenError> {
        let failed = |error: ::redb::Error| OpenError::Storage(error.to_string());
        let db = builder(&options).create_with_backend(backend);
        let db = db.map_err(|error| failed(error.into()))?;
        if schema(&db).map_err(failed)?.is_none() {
            write_schema(&db, SCHEMA).map_err(failed)?;
        }
        Self::start(db, options)
    }
}

fn builder(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// A schema that this program reads.
fn known(path: &Path, found: Result<Option<u64>, ::redb::Error>) -> Result<u64, OpenError> {
    match found {
        Ok(Some(SCHEMA)) => Ok(SCHEMA),
        Ok(Some(found)) if found > SCHEMA => Err(OpenError::Newer {
            found,
            known: SCHEMA,
        }),
        Ok(_) => Err(OpenError::Foreign(path.to_owned())),
        Err(error) => Err(OpenError::Storage(error.to_string())),
    }
}

/// Writes an empty store into a fresh file.
fn furnish(file: File, options: &Options, schema: u64) -> Result<Database, ::redb::Error> {
    let db = builder(options).create_file(file)?;
    write_schema(&db, schema)?;
    Ok(db)
}

/// An empty store in a file that was not there, readable by its owner alone. It does not open before its schema is set.
pub(super) fn furnish_new(path: &Path, options: &Options) -> Result<Database, CreateError> {
    let mut new = File::options();
    new.read(true).write(true).create_new(true).mode(0o600);
    let file = new.open(path).map_err(::redb::Error::from);
    let made = file.and_then(|file| furnish(file, options, UNFINISHED));
    made.map_err(|error| CreateError::Storage {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn write_schema(db: &Database, schema: u64) -> Result<(), ::redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(true);
    {
        // Readers rely on all tables being there.
        txn.open_table(ROWS)?;
        txn.open_table(LOG)?;
        let mut meta = txn.open_table(META)?;
        meta.insert(META_SCHEMA, schema)?;
        meta.insert(META_VERSION, 0)?;
        meta.insert(META_LOG_LEN, 0)?;
    }
    Ok(txn.commit()?)
}

/// The database's schema; none if it is somebody else's.
fn schema(db: &impl ReadableDatabase) -> Result<Option<u64>, ::redb::Error> {
    match db.begin_read()?.open_table(META) {
        Ok(table) => meta(&table, META_SCHEMA).map(Some),
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        DatabaseError::Storage(::redb::StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::NotFound => OpenError::Absent(path.to_owned()),
            io::ErrorKind::InvalidData => OpenError::Foreign(path.to_owned()),
            _ => OpenError::Storage(error.to_string()),
        },
        error => OpenError::Storage(error.to_string()),
    }
}
