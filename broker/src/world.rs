//! What the daemon takes from outside: time and entropy. Whatever a test replaces comes in here.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use proto::{
    ids::{IntentId, RequestId},
    time::UnixTime,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use thiserror::Error;
use watch::Watch;

mod watch;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The wall clock, in milliseconds since 1970. Somebody may set it.
    fn now_ms(&self) -> u64;
    /// Milliseconds since some moment; nobody sets it, and it never goes back.
    fn monotonic_ms(&self) -> u64;
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
    watch: Arc<Mutex<Watch>>,
}

impl World {
    /// From parts.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let watch = Watch::new(clock.now_ms(), clock.monotonic_ms());
        Self {
            clock,
            entropy,
            watch: Arc::new(Mutex::new(watch)),
        }
    }

    /// The system's clocks and random numbers.
    pub fn system() -> Self {
        Self::new(
            Arc::new(System(Instant::now())),
            Arc::new(System(Instant::now())),
        )
    }

    /// Now, as it is believed: the wall clock, or what the monotonic clock makes of the time before the
    /// wall clock jumped. Read once per request, at the edge.
    pub fn now(&self) -> UnixTime {
        UnixTime(self.believed_ms() / 1000)
    }

    /// Milliseconds since some moment, for durations.
    pub fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// Whether the wall clock jumped against the monotonic one: what needs the right time (TOTP, id
    /// tokens) is refused, since a wrong one would spend steps and revive tokens (attack 48).
    pub fn clock_suspect(&self) -> bool {
        self.believed_ms();
        self.watch().suspect()
    }

    /// Whether `time` is within `seconds` of `now`, or of the wall clock: when the two differ, nobody
    /// knows which one is right, and a device that shows either is answered.
    pub fn near(&self, time: UnixTime, now: UnixTime, seconds: u64) -> bool {
        let apart = |other: UnixTime| time.0.abs_diff(other.0);
        apart(now) <= seconds || apart(self.wall()) <= seconds
    }

    /// The wall clock, believed or not.
    pub fn wall(&self) -> UnixTime {
        UnixTime(self.clock.now_ms() / 1000)
    }

    /// Believes the wall clock as it is now.
    pub fn believe_clock(&self) {
        let (wall, monotonic) = (self.clock.now_ms(), self.clock.monotonic_ms());
        self.watch().believe(wall, monotonic);
    }

    /// A durable record says that it was this late already: a wall clock before it is not believed.
    pub fn not_before(&self, then: UnixTime) {
        let monotonic = self.clock.monotonic_ms();
        self.watch()
            .not_before(then.0.saturating_mul(1000), monotonic);
    }

    fn believed_ms(&self) -> u64 {
        let mut watch = self.watch();
        watch.read(self.clock.now_ms(), self.clock.monotonic_ms())
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fresh random bytes.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut out = [0; N];
        self.entropy.fill(&mut out)?;
        Ok(out)
    }

    /// A new time-ordered request id.
    pub fn request_id(&self) -> Result<RequestId, NoEntropy> {
        self.ordered_id().map(RequestId)
    }

    /// A new time-ordered intent id.
    pub fn intent_id(&self) -> Result<IntentId, NoEntropy> {
        self.ordered_id().map(IntentId)
    }

    fn ordered_id(&self) -> Result<uuid::Uuid, NoEntropy> {
        let random = self.random::<10>()?;
        let id = uuid::Builder::from_unix_timestamp_millis(self.believed_ms(), &random);
        Ok(id.into_uuid())
    }
}

struct System(Instant);

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

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Entropy for System {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        SystemRandom::new().fill(out).map_err(|_| NoEntropy)
    }
}
