//! Whether the wall clock can be believed.
//!
//! The wall clock decides over codes, id tokens and deadlines, and anybody who can set it (a bad time
//! server is enough) would decide with it. So it is compared with the monotonic clock, which nobody
//! sets. While both run alike, the wall clock is believed. When it jumps, time goes on as the monotonic
//! clock counts it, and whoever needs the right time (TOTP, id tokens) is told that it is suspect.

/// Milliseconds that the wall clock may fall behind the monotonic one.
const BACK_MAX: i64 = 60_000;
/// Milliseconds that the wall clock may run ahead of the monotonic one.
const AHEAD_MAX: i64 = 120_000;
/// The share of the elapsed time by which the two may drift apart for good: twice what the kernel's
/// slewing does at most (adjtime, 500 ppm). Smaller steps add up until they are forgiven at this rate.
const SLEW: i64 = 1000;

/// Wall time minus monotonic time, as it is believed, in milliseconds.
#[derive(Clone, Copy)]
enum Anchor {
    /// It was seen.
    At(i64),
    /// It is this or more: a record of an earlier process says how late it was then.
    AtLeast(i64),
}

/// Compares the two clocks.
pub(super) struct Watch {
    anchor: Anchor,
    /// Monotonic time up to which slewing was allowed for.
    slewed: i64,
    suspect: bool,
}

impl Watch {
    /// Believes the wall clock as it is now.
    pub(super) fn new(wall: u64, monotonic: u64) -> Self {
        Self {
            anchor: Anchor::At(signed(wall).saturating_sub(signed(monotonic))),
            slewed: signed(monotonic),
            suspect: false,
        }
    }

    /// The time that is believed, in milliseconds since 1970.
    pub(super) fn read(&mut self, wall: u64, monotonic: u64) -> u64 {
        let (wall, monotonic) = (signed(wall), signed(monotonic));
        let offset = wall.saturating_sub(monotonic);
        let (believed, jumped) = match self.anchor {
            Anchor::At(at) => {
                let drift = offset.saturating_sub(at);
                (at, !(-BACK_MAX..=AHEAD_MAX).contains(&drift))
            }
            Anchor::AtLeast(at) => {
                let behind = offset.saturating_sub(at) < -BACK_MAX;
                if !behind {
                    self.anchor = Anchor::At(offset);
                }
                (at, behind)
            }
        };
        self.suspect = jumped;
        if jumped {
            // What slews meanwhile is not forgiven: agreement means the old time again.
            self.slewed = monotonic;
            return unsigned(monotonic.saturating_add(believed));
        }
        if let Anchor::At(at) = &mut self.anchor {
            let most = monotonic.saturating_sub(self.slewed) / SLEW;
            if most > 0 {
                let drift = offset.saturating_sub(*at);
                *at = at.saturating_add(drift.clamp(-most, most));
                self.slewed = monotonic;
            }
        }
        unsigned(wall)
    }

    /// Somebody who may says that the wall clock is right now.
    pub(super) fn believe(&mut self, wall: u64, monotonic: u64) {
        *self = Self::new(wall, monotonic);
    }

    /// A durable record says that it was this late already.
    pub(super) fn not_before(&mut self, then: u64, monotonic: u64) {
        self.anchor = Anchor::AtLeast(signed(then).saturating_sub(signed(monotonic)));
    }

    /// As of the last reading.
    pub(super) const fn suspect(&self) -> bool {
        self.suspect
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_800_000_000_000;
    const MINUTE: u64 = 60_000;

    #[test]
    fn attack_48_a_clock_that_jumps_is_not_believed_until_it_agrees_again() {
        let jumps: [i64; 6] = [
            -61_000,
            121_000,
            -3_600_000,
            86_400_000,
            -NOON_I,
            i64::MAX / 4,
        ];
        for jump in jumps {
            let mut watch = Watch::new(NOON, 5);
            for minute in 1..10 {
                let passed = minute * MINUTE;
                let wall = NOON.saturating_add_signed(jump).saturating_add(passed);
                assert_eq!(watch.read(wall, 5 + passed), NOON + passed, "{jump}");
                assert!(watch.suspect(), "{jump}");
            }
            let passed = 10 * MINUTE;
            assert_eq!(watch.read(NOON + passed, 5 + passed), NOON + passed);
            assert!(!watch.suspect());
        }
    }

    const NOON_I: i64 = 1_800_000_000_000;

    #[test]
    fn small_steps_and_slewing_are_no_jump_and_many_small_steps_are_one() {
        for step in [-59_000, 119_000] {
            let mut watch = Watch::new(NOON, 0);
            let wall = NOON.saturating_add_signed(step);
            assert_eq!(watch.read(wall, 0), wall);
            assert!(!watch.suspect());
        }
        // A day of slewing at the kernel's most, read every 10 ms at first and then every second.
        let mut watch = Watch::new(NOON, 0);
        for read in 0..86_400u64 {
            let passed = if read < 1000 { read * 10 } else { read * 1000 };
            let wall = NOON + passed + passed / 2000;
            assert_eq!(watch.read(wall, passed), wall);
            assert!(!watch.suspect(), "{read}");
        }
        // A second's step every second: found out within a few minutes.
        let mut watch = Watch::new(NOON, 0);
        let found = (1..400).find(|s| {
            watch.read(NOON + s * 2000, s * 1000);
            watch.suspect()
        });
        assert!(found.is_some_and(|s| s <= 125), "{found:?}");
    }

    #[test]
    fn a_record_of_an_earlier_process_bounds_the_clock_from_below() {
        let mut watch = Watch::new(NOON, 0);
        watch.not_before(NOON + 3 * MINUTE, 0);
        assert_eq!(watch.read(NOON, 0), NOON + 3 * MINUTE);
        assert!(watch.suspect());
        // Set right, or simply much later: believed from there on.
        let later = NOON + 1_000_000 * MINUTE;
        assert_eq!(watch.read(later, MINUTE), later);
        assert!(!watch.suspect());
        watch.read(NOON, MINUTE);
        assert!(watch.suspect());
    }

    #[test]
    fn who_may_says_that_it_is_right() {
        let mut watch = Watch::new(NOON, 0);
        watch.read(NOON + 10 * MINUTE, 0);
        assert!(watch.suspect());
        watch.believe(NOON + 10 * MINUTE, 0);
        assert_eq!(watch.read(NOON + 11 * MINUTE, MINUTE), NOON + 11 * MINUTE);
        assert!(!watch.suspect());
    }
}
