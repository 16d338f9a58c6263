//! What is rationed in memory.
//!
//! How many refusals of strangers the log takes: who floods us must not fill the disk with our own
//! records. What is beyond the ration is counted in the metrics and not lost from there.

use proto::time::UnixTime;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// Refusals recorded one by one in a minute.
const PER_MINUTE: u32 = 120;

/// Counts what is done in the current minute.
pub struct Ration {
    most: u32,
    state: Mutex<(u64, u32)>,
}

impl Default for Ration {
    fn default() -> Self {
        Self::of(PER_MINUTE)
    }
}

impl Ration {
    /// So many a minute.
    pub const fn of(most: u32) -> Self {
        Self {
            most,
            state: Mutex::new((0, 0)),
        }
    }

    /// Whether one more is in the ration.
    pub fn take(&self, now: UnixTime) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.0 / 60;
        if state.0 != minute {
            *state = (minute, 0);
        }
        state.1 = state.1.saturating_add(1);
        state.1 <= self.most
    }
}

/// Passphrases that are tried at the door of the first enrolment, until the daemon is started again.
const PASSPHRASES: u32 = 5;

/// Counts tries at that door.
#[derive(Default)]
pub struct Tries(AtomicU32);

impl Tries {
    /// Charges one try, before anything is compared; says whether it may be made.
    pub fn charge(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) < PASSPHRASES
    }

    /// Takes a charge back: nothing was compared, or it was right.
    pub fn refund(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
