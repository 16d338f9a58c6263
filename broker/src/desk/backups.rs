//! Where backups go, and what of them is known while the broker runs.

use crate::vault::key_file;
use proto::time::UnixTime;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

/// Whom backups are encrypted to, and what is made by itself.
#[derive(Clone, Debug)]
pub struct Plan {
    /// age public keys. Each of them opens a backup; none of them opens the vault inside.
    pub recipients: Vec<String>,
    /// Where the broker keeps backups by itself.
    pub rounds: Option<Rounds>,
    /// Files that are put into a backup as they are, by their name in it: configuration and policy.
    pub texts: Vec<(&'static str, PathBuf)>,
}

/// Backups that the broker makes by itself.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// In which folder.
    pub folder: PathBuf,
    /// Seconds between two.
    pub every: u64,
    /// How many are kept.
    pub keep: usize,
}

/// A backup that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// When.
    pub taken: UnixTime,
    /// Its bytes.
    pub bytes: u64,
}

/// Backups of this broker.
pub struct Backups {
    /// What the configuration says; none: there are no backups.
    pub plan: Option<Plan>,
    /// One at a time: each holds the stores' old pages for as long as it takes.
    pub one: Arc<Semaphore>,
    /// Held by whoever moves rows from the live store to the history. Between a look at the one and a look at
    /// the other nothing may move, else it would be in neither.
    pub moving: tokio::sync::Mutex<()>,
    last: Mutex<Option<Last>>,
    failed: Mutex<bool>,
}

impl Backups {
    /// By this plan.
    pub fn new(plan: Option<Plan>) -> Self {
        Self {
            plan,
            one: Arc::new(Semaphore::new(1)),
            moving: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// The last one that is known of.
    pub fn last(&self) -> Option<Last> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was made, or found. What a clock said that ran ahead stands in nobody's way.
    pub fn made(&self, made: Last, now: UnixTime) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.taken <= made.taken || last.taken > now) {
            *last = Some(made);
        }
    }

    /// Whether the last try of the broker's own failed.
    pub fn has_failed(&self) -> bool {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the last try of the broker's own went; returns how the one before it did.
    pub fn failing(&self, failed: bool) -> bool {
        let mut held = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, failed)
    }
}

/// Whether backups can be encrypted to this: a public key of age's own kind, no plugin's.
pub fn is_recipient(text: &str) -> bool {
    key_file::is_recipient(text)
}
