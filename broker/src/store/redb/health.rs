//! Whether the store still answers.

use super::OnFatal;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Remembers the first storage error, for good.
pub(super) struct Health {
    reason: OnceLock<String>,
    alarm: Mutex<Option<OnFatal>>,
}

impl Health {
    pub(super) fn new(on_fatal: OnFatal) -> Self {
        Self {
            reason: OnceLock::new(),
            alarm: Mutex::new(Some(on_fatal)),
        }
    }

    /// The reason, if the store has failed.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.reason.get() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// Why nothing is answered any more.
    pub(super) fn reason(&self) -> String {
        let closed = || "it was closed".to_owned();
        self.reason.get().cloned().unwrap_or_else(closed)
    }

    /// From now on everything is refused.
    pub(super) fn fail(&self, reason: &str) {
        let _ = self.reason.set(reason.to_owned());
    }

    /// Tells the owner, once. He may well end the process in this call.
    pub(super) fn sound_alarm(&self) {
        let alarm = self
            .alarm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(alarm) = alarm {
            alarm(&self.reason());
        }
    }
}
