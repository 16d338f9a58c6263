//! The writer: one thread that takes whatever batches are waiting, applies them in their order,
//! flushes once, and answers them all.
//!
//! There is no timer: while one group is being flushed the next one gathers by itself.

use super::{
    LOG, META, META_LOG_LEN, META_VERSION, ROWS, VERSION_BYTES, health::Health, meta, row_key,
    shown::Shown, split_version,
};
use crate::store::{
    Batch, CommitError, Committed, Table,
    batch::{Step, Then},
};
use ::redb::{Database, ReadableDatabase as _, ReadableTable as _, WriteTransaction};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::Receiver},
    thread,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Batches in one transaction at most, so that the first of them does not wait for ever.
const GROUP_LIMIT: usize = 512;

type Outcome = Result<Committed, CommitError>;
type Rows<'t> = ::redb::Table<'t, &'static [u8], &'static [u8]>;
type Log<'t> = ::redb::Table<'t, u64, &'static [u8]>;

/// What the writer is told.
pub(super) enum Message {
    Commit(Job),
    /// Finish what is queued, then end.
    Stop,
}

/// A batch on its way, encoded by its owner's thread so that the writer has less to do.
pub(super) struct Job {
    steps: Vec<Encoded>,
    appended: Vec<Vec<u8>>,
    trim_below: u64,
    reply: oneshot::Sender<Outcome>,
    /// Its place in the queue, free again when the job was answered.
    _place: OwnedSemaphorePermit,
}

struct Encoded {
    table: Table,
    /// Table, NUL, key.
    key: Vec<u8>,
    expected: Option<u64>,
    /// A written value has room for its version in front.
    then: Then,
}

impl Job {
    /// Refuses a batch that writes one row twice.
    pub(super) fn new(
        batch: Batch,
        reply: oneshot::Sender<Outcome>,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, CommitError> {
        let steps: Vec<Encoded> = batch.steps.into_iter().map(Encoded::new).collect();
        let mut written = BTreeSet::new();
        for step in &steps {
            if !matches!(step.then, Then::Keep) && !written.insert(&step.key) {
                return Err(step.conflict());
            }
        }
        drop(written);
        Ok(Self {
            steps,
            appended: batch.appended,
            trim_below: batch.trim_below,
            reply,
            _place: place,
        })
    }

    fn changes_something(&self) -> bool {
        !self.appended.is_empty()
            || self.trim_below > 0
            || self.steps.iter().any(|s| !matches!(s.then, Then::Keep))
    }
}

impl Encoded {
    fn new(step: Step) -> Self {
        let then = match step.then {
            Then::Write(value) => {
                let mut stored = Vec::with_capacity(VERSION_BYTES + value.len());
                stored.extend_from_slice(&[0; VERSION_BYTES]);
                stored.extend_from_slice(&value);
                Then::Write(stored)
            }
            then => then,
        };
        Self {
            table: step.table,
            key: row_key(step.table, &step.key),
            expected: step.expected,
            then,
        }
    }

    fn conflict(&self) -> CommitError {
        let key = self.key.get(self.table.0.len() + 1..).unwrap_or_default();
        CommitError::Conflict {
            table: self.table,
            key: key.to_vec(),
        }
    }
}

/// What the store counts. The writer alone changes it, in the transaction that uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counters {
    /// The last version given out: one per batch, store-wide, so that no row sees one twice.
    version: u64,
    log_len: u64,
}

/// The only writer of a database.
pub(super) struct Writer {
    shown: Arc<ArcSwap<Shown>>,
    db: Arc<Database>,
    health: Arc<Health>,
    quick_repair: bool,
    counters: Counters,
}

impl Writer {
    pub(super) fn new(
        db: Arc<Database>,
        shown: Arc<ArcSwap<Shown>>,
        health: Arc<Health>,
        quick_repair: bool,
    ) -> Result<Self, ::redb::Error> {
        let table = db.begin_read()?.open_table(META)?;
        let counters = Counters {
            version: meta(&table, META_VERSION)?,
            log_len: meta(&table, META_LOG_LEN)?,
        };
        drop(table);
        Ok(Self {
            shown,
            db,
            health,
            quick_repair,
            counters,
        })
    }

    /// Runs until it is told to stop, or the storage fails.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let _guard = PanicGuard(Arc::clone(&self.health));
        let mut stopping = false;
        loop {
            let message = if stopping {
                inbox.try_recv().ok()
            } else {
                inbox.recv().ok()
            };
            let Some(message) = message else { return };
            let group = gather(message, inbox, &mut stopping);
            if !self.commit(group) {
                self.health.sound_alarm();
                return; // The inbox goes, and with it the queue: all of it is unavailable.
            }
        }
    }

    /// Commits a group and answers it. False: the store has failed.
    fn commit(&mut self, group: Vec<Job>) -> bool {
        let written = match self.health.check() {
            Ok(()) => self.write(&group).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match written {
            // Now all of the group is on the disk, or none of it wanted to be; after a crash
            // here the owners find by reading that it was done.
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    let _ = job.reply.send(outcome);
                }
                true
            }
            Err(reason) => {
                // First refuse, then answer: nobody may act on an answer and find the store alive.
                self.health.fail(&reason);
                for job in group {
                    let _ = job
                        .reply
                        .send(Err(CommitError::Unavailable(reason.clone())));
                }
                false
            }
        }
    }

    fn write(&mut self, group: &[Job]) -> Result<Vec<Outcome>, ::redb::Error> {
        let mut txn = self.db.begin_write()?;
        // With one phase, whoever chooses the bytes and crashes the process at the right moment
        // could make a half-written commit pass its (not cryptographic) checksum.
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(self.quick_repair);
        let mut counters = self.counters;
        let outcomes = apply_all(&txn, group, &mut counters)?;
        if counters == self.counters {
            // Lost races and pure questions cost no flush: what they saw is on the disk already.
            txn.abort()?;
        } else {
            txn.commit()?;
            self.counters = counters;
            // Durable, so it may be seen; seen, so it may be answered.
            self.shown.store(Arc::new(Shown::read(&self.db)?));
        }
        Ok(outcomes)
    }
}

/// A panic in the storage library is a storage error like any other: everything is refused.
struct PanicGuard(Arc<Health>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the writer panicked");
            self.0.sound_alarm();
        }
    }
}

/// The message's batch and whatever else is waiting.
fn gather(message: Message, inbox: &Receiver<Message>, stopping: &mut bool) -> Vec<Job> {
    let mut group = Vec::new();
    let mut next = Some(message);
    while let Some(message) = next {
        match message {
            Message::Commit(job) => group.push(job),
            Message::Stop => *stopping = true,
        }
        next = if group.len() < GROUP_LIMIT {
            inbox.try_recv().ok()
        } else {
            None
        };
    }
    group
}

fn apply_all(
    txn: &WriteTransaction,
    group: &[Job],
    counters: &mut Counters,
) -> Result<Vec<Outcome>, ::redb::Error> {
    let before = *counters;
    let mut rows = txn.open_table(ROWS)?;
    let mut log = txn.open_table(LOG)?;
    let mut outcomes = Vec::with_capacity(group.len());
    for job in group {
        outcomes.push(apply(&mut rows, &mut log, counters, job)?);
    }
    if *counters != before {
        let mut table = txn.open_table(META)?;
        table.insert(META_VERSION, counters.version)?;
        table.insert(META_LOG_LEN, counters.log_len)?;
    }
    Ok(outcomes)
}

/// Applies one batch on top of those before it in the group.
fn apply(
    rows: &mut Rows<'_>,
    log: &mut Log<'_>,
    counters: &mut Counters,
    job: &Job,
) -> Result<Outcome, ::redb::Error> {
    // All questions come before the first write: a batch that conflicts leaves no trace among the
    // others of its group, with which it shares the transaction.
    for step in &job.steps {
        let found = rows.get(step.key.as_slice())?;
        let version = match &found {
            Some(stored) => Some(split_version(stored.value())?.0),
            None => None,
        };
        if version != step.expected {
            return Ok(Err(step.conflict()));
        }
    }
    let first_appended = counters.log_len;
    if !job.changes_something() {
        return Ok(Ok(Committed {
            first_appended,
            version: 0,
        }));
    }
    counters.version += 1;
    for step in &job.steps {
        match &step.then {
            Then::Keep => {}
            Then::Write(stored) => {
                let mut place = rows.insert_reserve(step.key.as_slice(), stored.len())?;
                let bytes: &mut [u8] = place.as_mut();
                bytes.copy_from_slice(stored);
                if let Some(version) = bytes.first_chunk_mut::<VERSION_BYTES>() {
                    *version = counters.version.to_be_bytes();
                }
            }
            Then::Delete => drop(rows.remove(step.key.as_slice())?),
        }
    }
    let trimmed = job.trim_below.min(first_appended);
    if trimmed > 0 {
        log.retain_in(..trimmed, |_, _| false)?;
    }
    for value in &job.appended {
        log.insert(counters.log_len, value.as_slice())?;
        counters.log_len += 1;
    }
    Ok(Ok(Committed {
        first_appended,
        version: counters.version,
    }))
}
