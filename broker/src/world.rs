//! What the daemon takes from outside: time and entropy. Whatever a test replaces comes in here.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use proto::{ids::RequestId, time::UnixTime};
use std::sync::Arc;
use thiserror::Error;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync {
    /// Now, in milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Makes unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The operating system gave no random bytes: nothing may be issued.
#[derive(Debug, Error)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy;

/// Time and entropy.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl World {
    /// From parts.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy }
    }

    /// The system's clock and random numbers.
    pub fn system() -> Self {
        Self::new(Arc::new(System), Arc::new(System))
    }

    /// Now. Read once per request, at the edge.
    pub fn now(&self) -> UnixTime {
        UnixTime(self.clock.now_ms() / 1000)
    }

    /// Fresh random bytes.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut out = [0; N];
        self.entropy.fill(&mut out)?;
        Ok(out)
    }

    /// A new time-ordered request id.
    pub fn request_id(&self) -> Result<RequestId, NoEntropy> {
        let random = self.random::<10>()?;
        let id = uuid::Builder::from_unix_timestamp_millis(self.clock.now_ms(), &random);
        Ok(RequestId(id.into_uuid()))
    }
}

struct System;

impl Clock for System {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Entropy for System {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        SystemRandom::new().fill(out).map_err(|_| NoEntropy)
    }
}
