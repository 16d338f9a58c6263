//! Rows that a round reads, changes in memory, and stores where they changed.

use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table},
};
use serde::{Serialize, de::DeserializeOwned};

/// A row as it was read, and as it is now.
pub(super) struct Known<T> {
    version: Option<u64>,
    pub(super) value: T,
    pub(super) changed: bool,
}

impl<T: Default + DeserializeOwned> Known<T> {
    pub(super) fn read(desk: &Desk, table: Table, key: &[u8]) -> Result<Self, Fault> {
        let (version, value) = read(desk, table, key)?;
        Ok(Self {
            version,
            value,
            changed: false,
        })
    }
}

impl<T: Serialize> Known<T> {
    /// Adds the write, if there is anything to write.
    pub(super) fn stored(&self, batch: Batch, table: Table, key: &[u8]) -> Result<Batch, Fault> {
        if !self.changed {
            return Ok(batch);
        }
        let value = serde_json::to_vec(&self.value).map_err(|_| Fault::Damaged("a ring"))?;
        Ok(batch.put(table, key, self.version, value))
    }
}

/// A row and its version; what is not there, or cannot be read, is as it was in the beginning.
pub(super) fn read<T: Default + DeserializeOwned>(
    desk: &Desk,
    table: Table,
    key: &[u8],
) -> Result<(Option<u64>, T), Fault> {
    Ok(match desk.live.get(table, key)? {
        None => (None, T::default()),
        Some(row) => {
            let value = serde_json::from_slice(&row.value).unwrap_or_default();
            (Some(row.version), value)
        }
    })
}
