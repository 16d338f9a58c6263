//! Files that are being looked into.

use crate::card::run::Inspector;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// One look a file at a time.
#[derive(Default)]
pub struct Inspections {
    /// Starts the process that looks.
    pub inspector: Inspector,
    busy: Mutex<BTreeSet<Vec<u8>>>,
}

impl Inspections {
    /// Looks into files with another program.
    pub fn with(inspector: Inspector) -> Self {
        Self {
            inspector,
            busy: Mutex::default(),
        }
    }

    /// Whether the caller may look into this file; it is busy as long as what is returned lives.
    #[must_use]
    pub fn begin(self: &Arc<Self>, key: &[u8]) -> Option<Busy> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let new = busy.insert(key.to_vec());
        new.then(|| Busy {
            all: Arc::clone(self),
            key: key.to_vec(),
        })
    }
}

/// A file that is being looked into.
pub struct Busy {
    all: Arc<Inspections>,
    key: Vec<u8>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let busy = &self.all.busy;
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.key);
    }
}
