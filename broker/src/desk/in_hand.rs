//! Deposits that are being published right now, and when the others are tried again.

use proto::{ids::RequestId, time::UnixTime};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Pause before the second attempt, in seconds; it doubles.
const PAUSE: u64 = 10;
/// Longest pause between two attempts, in seconds.
const PAUSE_MAX: u64 = 60;

/// One task a request, and a growing pause between its attempts. There is no last attempt: the request
/// has an end, and until then people count on what they approved.
#[derive(Default)]
pub struct InHand(Mutex<BTreeMap<RequestId, Try>>);

#[derive(Clone, Copy)]
struct Try {
    running: bool,
    /// Files that were kept when it was begun.
    kept: usize,
    pause: u64,
    next: UnixTime,
}

impl InHand {
    /// Whether the caller may begin; then he must [`InHand::end`]. Another file of the request makes
    /// the pauses short again.
    #[must_use]
    pub fn begin(&self, id: RequestId, kept: usize, now: UnixTime) -> bool {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry(id).or_insert(Try {
            running: false,
            kept,
            pause: PAUSE,
            next: now,
        });
        if entry.running {
            return false;
        }
        if entry.kept != kept {
            *entry = Try {
                running: false,
                kept,
                pause: PAUSE,
                next: now,
            };
        }
        let go = now >= entry.next;
        if go {
            entry.running = true;
            entry.next = now.after(entry.pause);
            entry.pause = (entry.pause * 2).min(PAUSE_MAX);
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

    fn begun(hand: &InHand, id: RequestId, kept: usize, from: u64, to: u64) -> Vec<u64> {
        let mut begun = Vec::new();
        for second in from..to {
            let now = UnixTime(100 + second);
            if hand.begin(id, kept, now) {
                assert!(!hand.begin(id, kept, now.after(1000)), "it runs already");
                assert!(!hand.begin(id, kept + 1, now), "it runs already");
                hand.end(id);
                begun.push(second);
            }
        }
        begun
    }

    #[test]
    fn one_at_a_time_with_growing_pauses_and_no_end() {
        let (hand, id) = (InHand::default(), RequestId(uuid::Uuid::from_u128(1)));
        let times = begun(&hand, id, 1, 0, 300);
        assert_eq!(times, [0, 10, 30, 70, 130, 190, 250]);
        // As long as the request lives: a day later it is tried as often.
        assert_eq!(begun(&hand, id, 1, 86_400, 86_520), [86_400, 86_460]);
        // What is handed over later does not wait for the pause.
        assert_eq!(begun(&hand, id, 2, 86_520, 86_535), [86_520, 86_530]);
        hand.forget(id);
        assert_eq!(begun(&hand, id, 2, 86_535, 86_540), [86_535]);
    }
}
