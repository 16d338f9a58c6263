//! The embedded back end: one file, one writer thread, group commit.
//!
//! Read [`file`] for how a database is made and opened, [`writer`] for how it is written.

mod copy;
mod file;
mod health;
mod shown;
mod writer;

#[cfg(test)]
mod tests;

pub use copy::Filling;
pub use file::{CreateError, OpenError, SCHEMA};

use self::{
    health::Health,
    shown::Shown,
    writer::{Job, Message, Writer},
};
use super::{
    Batch, BoxFuture, CommitError, Committed, Row, Store, StoreError, Table,
    snapshot::{Snapshot, place as row_key},
};
use ::redb::{Database, TableDefinition};
use arc_swap::ArcSwap;
use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};
use tokio::sync::{Semaphore, oneshot};

/// All rows of all tables in one tree, so that a commit dirties few pages: key = table, NUL, key;
/// value = version (8 bytes, big-endian), value.
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// The log's entries by index.
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Counters by name.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const META_SCHEMA: &str = "schema";
const META_VERSION: &str = "version";
const META_LOG_LEN: &str = "log length";

/// Bytes of a row's version in front of its value.
const VERSION_BYTES: usize = 8;

/// Batches that may wait for the writer. Whoever comes later waits for a place, not for memory.
const QUEUE_LIMIT: usize = 1024;

/// What to do with the reason of the first storage error.
pub type OnFatal = Box<dyn Fn(&str) + Send>;

/// How a database is opened. A plain number means: with this cache.
pub struct Options {
    cache_bytes: usize,
    quick_repair: bool,
    on_fatal: OnFatal,
}

impl Options {
    /// With a page cache of this size, in bytes (redb's own default is 1 GiB). On a storage error
    /// nothing happens but that the store refuses everything: see [`Options::on_fatal`].
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            cache_bytes,
            quick_repair: false,
            on_fatal: Box::new(|_| ()),
        }
    }

    /// Opens at once after a crash, however large the file; each commit writes more. For history.
    #[must_use]
    pub fn quick_repair(mut self) -> Self {
        self.quick_repair = true;
        self
    }

    /// Called once, at the first storage error, after everybody who waited was answered. The
    /// daemon exits here: only opening the file again tells what the disk holds.
    #[must_use]
    pub fn on_fatal(mut self, on_fatal: OnFatal) -> Self {
        self.on_fatal = on_fatal;
        self
    }
}

impl From<usize> for Options {
    fn from(cache_bytes: usize) -> Self {
        Self::new(cache_bytes)
    }
}

/// A store in one redb file. Dropping it finishes what was queued and closes the file.
pub struct Redb {
    /// What everybody reads; gone before the database.
    shown: Arc<ArcSwap<Shown>>,
    /// Closed with this handle, whatever became of the writer.
    _db: Arc<Database>,
    health: Arc<Health>,
    queue: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl Redb {
    /// Takes a database whose schema was checked, and starts the writer.
    fn start(db: Database, options: Options) -> Result<Self, OpenError> {
        let db = Arc::new(db);
        let health = Arc::new(Health::new(options.on_fatal));
        let (queue, inbox) = mpsc::channel();
        let failed = |error: ::redb::Error| OpenError::Storage(error.to_string());
        let shown = Arc::new(ArcSwap::from_pointee(Shown::read(&db).map_err(failed)?));
        let (to, quick) = (Arc::clone(&shown), options.quick_repair);
        let writer = Writer::new(Arc::clone(&db), to, Arc::clone(&health), quick);
        let writer = writer.map_err(failed)?;
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| OpenError::Storage(error.to_string()))?;
        Ok(Self {
            shown,
            _db: db,
            health,
            queue,
            places: Arc::new(Semaphore::new(QUEUE_LIMIT)),
            writer: Some(writer),
        })
    }

    /// Runs a read on the caller's thread. An error while reading ends the store as well: a page
    /// that does not come back, or comes back wrong, is no reason to go on deciding.
    fn read<T>(
        &self,
        read: impl FnOnce(&Shown) -> Result<T, ::redb::Error>,
    ) -> Result<T, StoreError> {
        self.health.check().map_err(StoreError::Unavailable)?;
        // Held for one read: what is shown keeps its pages from being used again.
        read(&self.shown.load()).map_err(|error| {
            let reason = error.to_string();
            self.health.fail(&reason);
            self.health.sound_alarm();
            StoreError::Unavailable(reason)
        })
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        // Futures of commits may outlive this handle, on this very thread: closing the places and
        // sending a last message ends the writer without waiting for them.
        self.places.close();
        let _ = self.queue.send(Message::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for Redb {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.read(|shown| shown.get(table, key))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        self.read(|shown| shown.range(table, prefix, after, limit))
    }

    fn log_read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.read(|shown| shown.log_read(from, limit))
    }

    fn log_len(&self) -> Result<u64, StoreError> {
        self.read(|shown| Ok(shown.log_len()))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.health.check().map_err(StoreError::Unavailable)?;
        // What is shown is one commit whole, and stays readable for as long as somebody holds it.
        Ok(Box::new(copy::Copy(self.shown.load_full())))
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>> {
        // The future holds no handle of the database: it must be possible to close the file while
        // somebody still holds a future that he will never poll.
        let (queue, places) = (self.queue.clone(), Arc::clone(&self.places));
        let health = Arc::clone(&self.health);
        Box::pin(async move {
            health.check().map_err(CommitError::Unavailable)?;
            let place = places
                .acquire_owned()
                .await
                .map_err(|_| CommitError::Unavailable(health.reason()))?;
            let (reply, answer) = oneshot::channel();
            let job = Job::new(batch, reply, place)?;
            queue
                .send(Message::Commit(job))
                .map_err(|_| CommitError::Unavailable(health.reason()))?;
            answer
                .await
                .unwrap_or_else(|_| Err(CommitError::Unavailable(health.reason())))
        })
    }
}

fn split_version(stored: &[u8]) -> Result<(u64, &[u8]), ::redb::Error> {
    let (version, value) = stored
        .split_first_chunk::<VERSION_BYTES>()
        .ok_or_else(|| ::redb::Error::Corrupted("a row without a version".to_owned()))?;
    Ok((u64::from_be_bytes(*version), value))
}

fn meta(
    table: &impl ::redb::ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<u64, ::redb::Error> {
    table
        .get(name)?
        .map(|guard| guard.value())
        .ok_or_else(|| ::redb::Error::Corrupted(format!("no {name}")))
}
