//! A job that is stopped takes its request back and removes its files.

use crate::fail::Failure;
use proto::problem::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// Takes the signals over from the system's own handling.
    pub(crate) fn new() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// Resolves when the job is told to stop.
    pub(crate) async fn stopped(&mut self) -> Failure {
        tokio::select! {
            () = next(self.interrupt.as_mut()) => {}
            () = next(self.terminate.as_mut()) => {}
        }
        Failure::new(
            Exit::Expired,
            "The job was stopped.",
            "Run it again to open a new request.",
        )
    }
}

async fn next(signal: Option<&mut Signal>) {
    match signal {
        Some(s) => {
            s.recv().await;
        }
        None => std::future::pending().await,
    }
}
