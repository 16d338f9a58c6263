//! The store: rows with versions, one log, and commits that happen wholly or not at all.
//!
//! It knows no domain type. Whatever races in this house (two collects, approve against freeze, a
//! code used twice) is decided here and nowhere else: by a batch whose preconditions hold, or do
//! not. Read [`Store`] for the contract; [`redb`] is the embedded back end; [`history`] moves what
//! is finished into a second store. The back ends share the tests in `contract`, not code.
//!
//! What if an attacker writes here? The store proves nothing about its bytes: a row may be planted,
//! swapped or rolled back by whoever writes the files. The vault authenticates its records, and the
//! audit log's signed checkpoints show a rollback.

mod batch;
pub mod history;
pub mod redb;
pub mod snapshot;

#[cfg(test)]
pub mod contract;

pub use batch::Batch;

use snapshot::Snapshot;
use std::pin::Pin;
use thiserror::Error;

/// A future that may be moved between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The name of a table. A table exists as soon as it has a row. The name holds no NUL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Table(pub &'static str);

/// A row as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Grows with every write of the row and is never given out twice in a store's life, not even
    /// after the row was deleted and made anew.
    pub version: u64,
    /// What was written.
    pub value: Vec<u8>,
}

/// What a commit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The index of the batch's first log entry, the others follow without a gap. Where the batch
    /// appended nothing, the index that the next entry will get.
    pub first_appended: u64,
    /// The version that all rows have now which the batch wrote. Where it wrote none, no row's.
    pub version: u64,
}

/// Why a read gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StoreError {
    /// The store failed, now or earlier. It does not come back without a restart.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// Why a batch was not committed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CommitError {
    /// A precondition on this row does not hold. Nothing of the batch was written.
    #[error("a row of table {} is not as expected", table.0)]
    Conflict {
        /// The row's table.
        table: Table,
        /// The row's key.
        key: Vec<u8>,
    },
    /// The store failed. **Whether the batch was written is unknown** until it was opened again:
    /// the caller has done nothing, and must not say that he has, nor that he has not.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// A compare-and-swap store.
///
/// The contract, which every back end keeps and `contract` tests:
///
/// - **All or nothing.** All preconditions of a batch hold at one instant, and all its writes
///   happen at that instant; or there is a [`CommitError::Conflict`] and no trace of it.
/// - **One order.** Batches take effect one after another; each sees all earlier ones.
/// - **Durable when answered.** [`Store::commit`] resolves after the flush, a conflict too (the
///   row that it lost against is durable). A read sees only what is durable.
/// - **Versions are never reused**, so a version that was read earlier proves that the row has not
///   been touched since, even when it was deleted and made again with the same bytes (ABA).
/// - **The log** numbers its entries from 0 without gaps, in the order of the batches. Trimming
///   drops entries and never numbers.
/// - **The first storage error is the last.** After it every read and commit is `Unavailable`:
///   after a failed flush nobody knows what the disk holds, and answering from memory could let a
///   one-shot act happen twice.
/// - **Dropping the future** of a commit does not undo it: it was committed, or it will be, or it
///   never was.
///
/// Reads block the calling thread for microseconds; they are meant to be called from async code.
pub trait Store: Send + Sync + 'static {
    /// One row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// Rows of `table` whose key starts with `prefix` and is greater than `after` (if given),
    /// ascending by bytes, at most `limit`. All from one instant.
    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>, StoreError>;

    /// Log entries that are still here with an index of at least `from`, ascending, at most
    /// `limit`.
    fn log_read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// The number of entries ever appended, which is the index of the next one.
    fn log_len(&self) -> Result<u64, StoreError>;

    /// Everything that is durable now, to be copied.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Commits a batch. The future starts when it is polled and resolves after the flush.
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, CommitError>>;
}
