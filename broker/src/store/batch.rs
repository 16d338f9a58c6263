//! A batch: what must be so, and what shall become of it.

use super::Table;

/// Preconditions and writes that hold and happen together.
///
/// All preconditions are about the state before the batch. A batch writes a row at most once: a
/// second write to the same row is answered as a conflict, since one of the two would be lost.
#[derive(Clone, Default, Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    pub(super) steps: Vec<Step>,
    pub(super) appended: Vec<Vec<u8>>,
    pub(super) trim_below: u64,
}

/// One row's part in a batch.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    /// The version that the row must have; none if there must be no row.
    pub(super) expected: Option<u64>,
    pub(super) then: Then,
}

/// What happens to a row whose precondition holds.
#[derive(Clone, Debug)]
pub(super) enum Then {
    Keep,
    Write(Vec<u8>),
    Delete,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a row; there must be none.
    pub fn create(self, table: Table, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Self {
        self.step(table, key, None, Then::Write(value.into()))
    }

    /// Replaces the row's value; it must have this version.
    pub fn replace(
        self,
        table: Table,
        key: impl AsRef<[u8]>,
        version: u64,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        self.step(table, key, Some(version), Then::Write(value.into()))
    }

    /// Makes the row where `version` is none, else replaces that version.
    pub fn put(
        self,
        table: Table,
        key: impl AsRef<[u8]>,
        version: Option<u64>,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        self.step(table, key, version, Then::Write(value.into()))
    }

    /// Deletes the row; it must have this version.
    pub fn delete(self, table: Table, key: impl AsRef<[u8]>, version: u64) -> Self {
        self.step(table, key, Some(version), Then::Delete)
    }

    /// The row must have this version; it stays as it is.
    pub fn require(self, table: Table, key: impl AsRef<[u8]>, version: u64) -> Self {
        self.step(table, key, Some(version), Then::Keep)
    }

    /// There must be no such row.
    pub fn require_absent(self, table: Table, key: impl AsRef<[u8]>) -> Self {
        self.step(table, key, None, Then::Keep)
    }

    /// Leaves no row there: deletes what was read, or nothing where there was none.
    pub fn clear(self, table: Table, key: impl AsRef<[u8]>, there: Option<u64>) -> Self {
        self.step(table, key, there, Then::Delete)
    }

    /// Appends an entry to the log.
    pub fn append(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.appended.push(value.into());
        self
    }

    /// Drops the log entries with an index below `below` (they were copied to the history). The
    /// log's length does not shrink, and what this very batch appends stays.
    pub fn trim_log(mut self, below: u64) -> Self {
        self.trim_below = self.trim_below.max(below);
        self
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.appended.is_empty() && self.trim_below == 0
    }

    /// Looks at each row that it writes, with what it writes there; none where the row goes.
    pub fn each_write(&self, mut look: impl FnMut(Table, &[u8], Option<&[u8]>)) {
        for step in &self.steps {
            match &step.then {
                Then::Keep => {}
                Then::Write(value) => look(step.table, &step.key, Some(value)),
                Then::Delete => look(step.table, &step.key, None),
            }
        }
    }

    fn step(
        mut self,
        table: Table,
        key: impl AsRef<[u8]>,
        expected: Option<u64>,
        then: Then,
    ) -> Self {
        self.steps.push(Step {
            table,
            key: key.as_ref().to_vec(),
            expected,
            then,
        });
        self
    }
}
