//! Deposits that are being published right now, and when the others are tried again.

use proto::{ids::RequestId, time::UnixTime};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Attempts at publishing without a new approval.
const TRIES_MAX: u32 = 6;
/// Pause before the second attempt, in seconds; it doubles.
const PAUSE: u64 = 5;

/// One task a request, and a growing pause between its attempts.
#[derive(Default)]
pub struct InHand(Mutex<BTreeMap<RequestId, Try>>);

#[derive(Clone, Copy)]
struct Try {
    running: bool,
    count: u32,
    next: UnixTime,
}

impl InHand {
    /// Whether the caller may begin; then he must [`InHand::end`].
    #[must_use]
    pub fn begin(&self, id: RequestId, now: UnixTime) -> bool {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry(id).or_insert(Try {
            running: false,
            count: 0,
            next: now,
        });
        let go = !entry.running && entry.count < TRIES_MAX && now >= entry.next;
        if go {
            entry.running = true;
            entry.count += 1;
            entry.next = now.after(PAUSE << entry.count.min(8));
        }
        go
    }

    /// The attempt is over.
    pub fn end(&self, id: RequestId) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = map.get_mut(&id) {
            entry.running = false;
        }
    }

    /// The request is over.
    pub fn forget(&self, id: RequestId) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_with_growing_pauses_and_an_end() {
        let (hand, id) = (InHand::default(), RequestId(uuid::Uuid::from_u128(1)));
        let mut now = UnixTime(100);
        let mut begun = Vec::new();
        for _ in 0..2000 {
            if hand.begin(id, now) {
                assert!(!hand.begin(id, now.after(1000)), "it runs already");
                hand.end(id);
                begun.push(now.0 - 100);
            }
            now = now.after(1);
        }
        assert_eq!(begun, [0, 10, 30, 70, 150, 310]);
        hand.forget(id);
        assert!(hand.begin(id, now));
    }
}
