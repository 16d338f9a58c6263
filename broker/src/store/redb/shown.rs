//! What readers see: the newest durable commit, opened once and read by all.
//!
//! Opening a read transaction and its tables costs more than the look-up itself, and a request makes
//! dozens of them. So the writer opens both after each flush, and only then answers: whoever was told
//! that his commit is done reads it. What is shown is always the last commit, whose pages must stay
//! anyway, so that nothing else is kept alive by it.

use super::{LOG, META, META_LOG_LEN, META_VERSION, ROWS, meta, row_key, split_version};
use crate::store::{Row, Table};
use ::redb::{Database, ReadOnlyTable, ReadableDatabase as _};
use std::ops::Bound;

/// The state after one commit.
pub(super) struct Shown {
    rows: Rows,
    log: Log,
    log_len: u64,
    version: u64,
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Log = ReadOnlyTable<u64, &'static [u8]>;

impl Shown {
    /// The newest durable state.
    pub(super) fn read(db: &Database) -> Result<Self, ::redb::Error> {
        let txn = db.begin_read()?;
        let counted = txn.open_table(META)?;
        Ok(Self {
            rows: txn.open_table(ROWS)?,
            log: txn.open_table(LOG)?,
            log_len: meta(&counted, META_LOG_LEN)?,
            version: meta(&counted, META_VERSION)?,
        })
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, ::redb::Error> {
        let found = self.rows.get(row_key(table, key).as_slice())?;
        found.map(|guard| row(guard.value())).transpose()
    }

    pub(super) fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>, ::redb::Error> {
        let first = row_key(table, prefix);
        let after = after
            .map(|after| row_key(table, after))
            .filter(|after| *after >= first);
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(first.as_slice()),
        };
        let mut out = Vec::new();
        let rows = self.rows.range::<&[u8]>((from, Bound::Unbounded))?;
        for entry in rows.take(limit) {
            let (key, value) = entry?;
            if !key.value().starts_with(&first) {
                break;
            }
            // The first NUL ends the table's name, which holds none.
            let key = key.value().get(table.0.len() + 1..).unwrap_or_default();
            out.push((key.to_vec(), row(value.value())?));
        }
        Ok(out)
    }

    pub(super) fn log_read(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, ::redb::Error> {
        let mut out = Vec::new();
        for entry in self.log.range(from..)?.take(limit) {
            let (index, value) = entry?;
            out.push((index.value(), value.value().to_vec()));
        }
        Ok(out)
    }

    pub(super) const fn log_len(&self) -> u64 {
        self.log_len
    }

    /// The last version that was given out.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// All of it.
    pub(super) const fn tables(&self) -> (&Rows, &Log) {
        (&self.rows, &self.log)
    }
}

fn row(stored: &[u8]) -> Result<Row, ::redb::Error> {
    let (version, value) = split_version(stored)?;
    Ok(Row {
        version,
        value: value.to_vec(),
    })
}
