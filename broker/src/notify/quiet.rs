//! Quiet hours: `22:00-07:00 Europe/Berlin`. In them nothing rings that nobody announced; it waits in the inbox,
//! and rings when they are over if it still waits then.

use jiff::{Timestamp, civil::Time, tz::TimeZone};
use proto::time::UnixTime;

/// What is said of a text that is none.
pub const FORM: &str = "quiet hours are like \"22:00-07:00 Europe/Berlin\"";

/// A person's quiet hours.
#[derive(Debug)]
pub struct QuietHours {
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl QuietHours {
    /// Reads them.
    pub fn parse(text: &str) -> Option<Self> {
        let (hours, zone) = text.split_once(' ')?;
        let (from, to) = hours.split_once('-')?;
        let (from, to) = (clock(from)?, clock(to)?);
        let zone = TimeZone::get(zone).ok()?;
        (from != to).then_some(Self { from, to, zone })
    }

    /// Whether it is quiet now, by the clock on that zone's walls.
    pub fn cover(&self, now: UnixTime) -> bool {
        let Ok(seconds) = i64::try_from(now.0) else {
            return false;
        };
        let Ok(now) = Timestamp::from_second(seconds) else {
            return false;
        };
        let time = now.to_zoned(self.zone.clone()).time();
        if self.from < self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        }
    }
}

/// `07:00`
fn clock(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    if !(two(hour) && two(minute)) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixTime {
        let time: Timestamp = text.parse().unwrap();
        UnixTime(u64::try_from(time.as_second()).unwrap())
    }

    #[test]
    fn over_midnight_and_over_a_change_of_the_clock() {
        let quiet = QuietHours::parse("22:00-07:00 Europe/Berlin").unwrap();
        // Summer: two hours ahead of UTC; winter: one.
        for (time, covered) in [
            ("2026-07-01T19:59:59Z", false),
            ("2026-07-01T20:00:00Z", true),
            ("2026-07-02T04:59:59Z", true),
            ("2026-07-02T05:00:00Z", false),
            ("2026-12-01T20:59:59Z", false),
            ("2026-12-01T21:00:00Z", true),
            ("2026-12-02T06:00:00Z", false),
        ] {
            assert_eq!(quiet.cover(at(time)), covered, "{time}");
        }
        let day = QuietHours::parse("09:00-17:30 UTC").unwrap();
        assert!(day.cover(at("2026-07-01T17:29:00Z")));
        assert!(!day.cover(at("2026-07-01T17:30:00Z")));
    }

    #[test]
    fn nothing_else_is_taken() {
        for bad in [
            "",
            "22:00-07:00",
            "22:00-07:00 Nowhere/City",
            "22:00-22:00 UTC",
            "24:00-07:00 UTC",
            "22-07 UTC",
            "+2:00-07:00 UTC",
            "22:00 - 07:00 UTC",
        ] {
            assert!(QuietHours::parse(bad).is_none(), "{bad:?}");
        }
    }
}
