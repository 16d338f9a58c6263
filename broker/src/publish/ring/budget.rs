//! What a person is rung with in a day.
//!
//! What nobody announced is counted: after three rings it waits silently. What was announced, and what can still be
//! denied, is spaced instead. A count would be used up by whoever opens what fits and takes it back, and the real
//! release would be silent; and without a space between them he would ring for ever (attack 24).

use proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rings a day and person that nobody announced.
pub const UNSOLICITED_MOST: usize = 3;
/// Rings for one thing that may follow each other at once.
const AT_ONCE: u32 = 3;
/// Seconds between two further ones.
pub(super) const SPACE: u64 = 600;
/// The same for what is approved and has half of its time behind it: where many versions are, each is told in time.
pub(super) const VETO_SPACE: u64 = 60;
/// The day, in seconds.
const DAY: u64 = 24 * 3600;

/// When a person was rung in the last day.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Budget {
    /// For what nobody announced.
    unsolicited: Vec<UnixTime>,
    /// For an intent, or a package's veto: how often, and when last.
    #[serde(default)]
    spaced: BTreeMap<String, (u32, UnixTime)>,
    /// The same things: when one last rang for no other reason than that half of its time was over.
    #[serde(default)]
    late: BTreeMap<String, UnixTime>,
}

/// A time that runs out: when half of it is over there is a ring of its own, whatever was rung before. It has a space
/// too: whoever keeps many requests open has one that is half over at each moment.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: UnixTime,
    pub(super) until: UnixTime,
    /// Seconds between two rings that come for its half alone.
    pub(super) space: u64,
}

impl Span {
    fn half_over(self, now: UnixTime) -> bool {
        now.since(self.from) >= self.until.since(now)
    }
}

impl Budget {
    pub(super) fn forget(&mut self, now: UnixTime) {
        // A clock may have been put back a little; a time far ahead was never rung at, and silences nobody.
        let lately = |t: UnixTime| t <= now.after(SPACE) && now.since(t) < DAY;
        self.unsolicited.retain(|t| lately(*t));
        self.spaced.retain(|_, (_, t)| lately(*t));
        self.late.retain(|_, t| lately(*t));
    }

    /// Rings of the last day that nobody announced.
    pub(super) fn unsolicited(&mut self, now: UnixTime) -> usize {
        self.forget(now);
        self.unsolicited.len()
    }

    /// Whether this may ring now.
    pub(super) fn has_space(&self, what: &str, span: Span, now: UnixTime) -> bool {
        let late = || {
            self.late
                .get(what)
                .is_none_or(|last| now.since(*last) >= span.space)
        };
        self.is_free(what, now) || (span.half_over(now) && late())
    }

    fn is_free(&self, what: &str, now: UnixTime) -> bool {
        let free = |(count, last): &(u32, UnixTime)| *count < AT_ONCE || now.since(*last) >= SPACE;
        self.spaced.get(what).is_none_or(free)
    }

    /// Takes the place of one ring for this.
    pub(super) fn take(&mut self, what: String, now: UnixTime) {
        if !self.is_free(&what, now) {
            self.late.insert(what, now);
            return;
        }
        let (count, last) = self.spaced.entry(what).or_insert((0, now));
        *count = count.saturating_add(1);
        *last = now;
    }

    /// Takes one of the day's rings, if there is one left.
    pub(super) fn charge(&mut self, now: UnixTime) -> bool {
        if self.unsolicited.len() >= UNSOLICITED_MOST {
            return false;
        }
        self.unsolicited.push(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        from: UnixTime(0),
        until: UnixTime(1800),
        space: SPACE,
    };

    #[test]
    fn attack_24_what_was_announced_is_never_used_up_and_never_rings_without_end() {
        let mut budget = Budget::default();
        let mut rings = 0;
        // A thief opens and takes back every second for ten hours, each time for half an hour, and of what he left
        // open one is half over every second.
        for now in (0..36_000).map(UnixTime) {
            for from in [now, UnixTime(now.0.saturating_sub(900))] {
                let until = from.after(1800);
                let span = Span {
                    from,
                    until,
                    space: SPACE,
                };
                budget.forget(now);
                if budget.has_space("intent", span, now) {
                    budget.take("intent".to_owned(), now);
                    rings += 1;
                }
            }
        }
        assert_eq!(rings, 3 + 59 + 59);
        // The real one waits ten minutes at most.
        let opened = UnixTime(36_000);
        let span = Span {
            from: opened,
            until: opened.after(1800),
            space: SPACE,
        };
        assert!((0..=600).any(|s| budget.has_space("intent", span, opened.after(s))));
    }

    #[test]
    fn whatever_was_rung_before_a_short_time_rings_when_half_of_it_is_over() {
        let mut budget = Budget::default();
        for _ in 0..3 {
            assert!(budget.has_space("veto", SPAN, UnixTime(0)));
            budget.take("veto".to_owned(), UnixTime(0));
        }
        let short = Span {
            from: UnixTime(0),
            until: UnixTime(60),
            space: VETO_SPACE,
        };
        assert!(!budget.has_space("veto", short, UnixTime(29)));
        assert!(budget.has_space("veto", short, UnixTime(30)));
        budget.take("veto".to_owned(), UnixTime(30));
        // Once: the next has its turn a minute later.
        assert!(!budget.has_space("veto", short, UnixTime(31)));
        assert!(budget.has_space("veto", short, UnixTime(90)));
        assert!(budget.has_space("another", short, UnixTime(0)));
    }

    #[test]
    fn a_ring_in_the_future_is_none() {
        let far = UnixTime(10 * DAY);
        let mut budget = Budget::default();
        for _ in 0..3 {
            assert!(budget.charge(far));
            budget.take("intent".to_owned(), far);
        }
        budget.forget(UnixTime(0));
        assert!(budget.charge(UnixTime(0)));
        assert!(budget.has_space("intent", SPAN, UnixTime(0)));
    }

    #[test]
    fn what_nobody_announced_is_counted_by_the_day() {
        let mut budget = Budget::default();
        let all = (0..10).filter(|n| budget.charge(UnixTime(*n))).count();
        assert_eq!(all, UNSOLICITED_MOST);
        assert_eq!(budget.unsolicited(UnixTime(DAY + 1)), 1);
        assert!(budget.charge(UnixTime(DAY + 1)));
    }
}
