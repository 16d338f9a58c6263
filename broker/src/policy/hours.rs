//! When the policy lets a release out: windows of a week, by the clock of a place.
//!
//! Pure: the time comes from the case. What a place's clock shows, summer time too, is in the time zones
//! that the broker was built with.

use jiff::{
    Timestamp, Zoned,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use proto::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Days until a window comes round again, and one more for a clock that was put forward over it.
const DAYS_AHEAD: i32 = 8;
/// Steps until several sets of windows are open together; beyond that they never are.
const STEPS_MAX: usize = 100;
/// The days, as they are written.
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// One or several windows; it is open while one of them is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Hours(Vec<Window>);

/// `Mon-Fri 08:00-18:00 Europe/Berlin`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    text: String,
    days: Vec<Weekday>,
    /// Minutes of the day.
    from: u16,
    /// The same, up to the day's end.
    to: u16,
    zone: TimeZone,
}

impl Hours {
    /// Reads windows; there is at least one.
    pub fn parse<T: AsRef<str>>(windows: &[T]) -> Result<Self, String> {
        if windows.is_empty() {
            return Err("names no window".to_owned());
        }
        let windows = windows.iter().map(|w| Window::parse(w.as_ref()));
        windows.collect::<Result<_, _>>().map(Self)
    }

    /// As written.
    pub fn text(&self) -> String {
        let windows: Vec<_> = self.0.iter().map(|w| w.text.as_str()).collect();
        windows.join(", ")
    }

    /// The first moment from this one on in which it is open.
    fn opens(&self, from: UnixTime) -> Option<UnixTime> {
        let next = self.0.iter().filter_map(|w| w.opens(from));
        next.min()
    }
}

/// The first moment from this one on in which all of them are open; `None` if they never are.
pub fn all_open<'a>(
    all: impl IntoIterator<Item = &'a Hours, IntoIter: Clone>,
    from: UnixTime,
) -> Option<UnixTime> {
    let all = all.into_iter();
    let mut at = from;
    for _ in 0..STEPS_MAX {
        let latest = all
            .clone()
            .map(|hours| hours.opens(at))
            .try_fold(at, |latest, opens| Some(latest.max(opens?)))?;
        if latest == at {
            return Some(at);
        }
        at = latest;
    }
    None
}

impl Window {
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(' ').collect();
        let [days, times, zone] = parts.as_slice() else {
            return Err(
                "must be days, times and a place, like \"Mon-Fri 08:00-18:00 Europe/Berlin\""
                    .to_owned(),
            );
        };
        let (from, to) = times
            .split_once('-')
            .and_then(|(from, to)| Some((clock(from)?, clock(to)?)))
            .ok_or_else(|| "must have times like 08:00-18:00".to_owned())?;
        if from >= to {
            return Err(
                "must begin before it ends; write two windows for one over midnight".to_owned(),
            );
        }
        // Names alone: an offset would not know summer time, and the machine's own zone is not the policy's.
        let named = zone.contains('/') || *zone == "UTC";
        let zone = named.then(|| TimeZone::get(zone).ok()).flatten();
        Ok(Self {
            text: text.to_owned(),
            days: weekdays(days)?,
            from,
            to,
            zone: zone.ok_or_else(|| {
                "must end with the name of a time zone, like Europe/Berlin or UTC".to_owned()
            })?,
        })
    }

    /// The first moment from this one on in which it is open.
    fn opens(&self, from: UnixTime) -> Option<UnixTime> {
        let today = self.local(from)?.date();
        // Yesterday too: where a clock is put back over midnight, its day goes on.
        (-1..=DAYS_AHEAD)
            .filter_map(|days| {
                let day = today.checked_add(jiff::Span::new().days(days)).ok()?;
                let (begins, ends) = self.on(day)?;
                (from < ends && begins < ends).then(|| begins.max(from))
            })
            .min()
    }

    fn local(&self, at: UnixTime) -> Option<Zoned> {
        let at = Timestamp::from_second(i64::try_from(at.0).ok()?).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }

    /// When it begins and ends on a day of its place. A time that the clock jumps over is the moment of the
    /// jump's other side; of one that it shows twice, the first counts.
    fn on(&self, day: Date) -> Option<(UnixTime, UnixTime)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        let begins = self.moment(day, self.from)?;
        let ends = if self.to == DAY {
            self.moment(day.tomorrow().ok()?, 0)?
        } else {
            self.moment(day, self.to)?
        };
        Some((begins, ends))
    }

    fn moment(&self, day: Date, minutes: u16) -> Option<UnixTime> {
        let part = |n: u16| i8::try_from(n).ok();
        let time = Time::new(part(minutes / 60)?, part(minutes % 60)?, 0, 0).ok()?;
        let moment = day.to_datetime(time).to_zoned(self.zone.clone()).ok()?;
        u64::try_from(moment.timestamp().as_second())
            .ok()
            .map(UnixTime)
    }
}

/// `08:00`, in minutes of the day; `24:00` is its end.
fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let at = hours * 60 + minutes;
    (minutes < 60 && at <= DAY).then_some(at)
}

/// `Mon`, `Mon-Fri`, `Mon,Wed,Fri`, also over the week's end: `Sun-Thu`.
fn weekdays(text: &str) -> Result<Vec<Weekday>, String> {
    let place = |name: &str| {
        let place = DAYS.iter().position(|(day, _)| *day == name);
        place.ok_or_else(|| "must name days like Mon-Fri or Mon,Wed".to_owned())
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (place(first)?, place(last)?),
            None => (place(part)?, place(part)?),
        };
        let count = (last + DAYS.len() - first) % DAYS.len();
        let part = DAYS.iter().cycle().skip(first).take(count + 1);
        for (_, day) in part {
            if days.contains(day) {
                return Err("names a day twice".to_owned());
            }
            days.push(*day);
        }
    }
    Ok(days)
}

impl TryFrom<Vec<String>> for Hours {
    type Error = String;
    fn try_from(windows: Vec<String>) -> Result<Self, String> {
        Self::parse(&windows)
    }
}

impl From<Hours> for Vec<String> {
    fn from(hours: Hours) -> Self {
        hours.0.into_iter().map(|w| w.text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixTime {
        let at: Timestamp = text.parse().unwrap();
        UnixTime(u64::try_from(at.as_second()).unwrap())
    }

    fn hours(windows: &[&str]) -> Hours {
        Hours::parse(windows).unwrap()
    }

    fn opens(windows: &[&str], from: &str) -> String {
        hours(windows).opens(at(from)).unwrap().rfc3339()
    }

    const WORK: &[&str] = &["Mon-Fri 08:00-18:00 Europe/Berlin"];

    #[test]
    fn it_is_open_from_the_first_second_to_the_last() {
        // 2026-11-23 is a Monday; Berlin is one hour ahead of UTC then.
        for (from, opens_at) in [
            ("2026-11-23T06:59:59Z", "2026-11-23T07:00:00Z"),
            ("2026-11-23T07:00:00Z", "2026-11-23T07:00:00Z"),
            ("2026-11-23T16:59:59Z", "2026-11-23T16:59:59Z"),
            ("2026-11-23T17:00:00Z", "2026-11-24T07:00:00Z"),
            ("2026-11-27T17:00:00Z", "2026-11-30T07:00:00Z"),
            ("2026-11-28T12:00:00Z", "2026-11-30T07:00:00Z"),
        ] {
            assert_eq!(opens(WORK, from), opens_at, "{from}");
        }
    }

    #[test]
    fn summer_time_moves_it_with_the_clocks_of_its_place() {
        // Clocks go forward on 2026-03-29 and back on 2026-10-25.
        assert_eq!(opens(WORK, "2026-03-27T20:00:00Z"), "2026-03-30T06:00:00Z");
        assert_eq!(opens(WORK, "2026-10-23T20:00:00Z"), "2026-10-26T07:00:00Z");
        let night = &["Sun 02:30-03:30 Europe/Berlin"][..];
        // 02:30 is jumped over: what is left of the window begins where 02:30 would be, an hour on.
        assert_eq!(opens(night, "2026-03-29T00:00:00Z"), "2026-04-05T00:30:00Z");
        let night = &["Sun 01:30-03:30 Europe/Berlin"][..];
        assert_eq!(opens(night, "2026-03-29T00:00:00Z"), "2026-03-29T00:30:00Z");
        assert_eq!(opens(night, "2026-03-29T01:29:59Z"), "2026-03-29T01:29:59Z");
        assert_eq!(opens(night, "2026-03-29T01:30:00Z"), "2026-04-04T23:30:00Z");
        // 02:30 comes twice: the first one ends it.
        let late = &["Sun 01:00-02:30 Europe/Berlin"][..];
        assert_eq!(opens(late, "2026-10-25T00:29:59Z"), "2026-10-25T00:29:59Z");
        assert_eq!(opens(late, "2026-10-25T00:30:00Z"), "2026-11-01T00:00:00Z");
        // A day of 25 hours is open to its end.
        let day = &["Sun 00:00-24:00 Europe/Berlin"][..];
        assert_eq!(opens(day, "2026-10-25T22:59:59Z"), "2026-10-25T22:59:59Z");
        assert_eq!(opens(day, "2026-10-25T23:00:00Z"), "2026-10-31T23:00:00Z");
    }

    #[test]
    fn days_and_windows_are_read_in_one_way() {
        assert_eq!(weekdays("Sun-Tue").unwrap().len(), 3);
        assert_eq!(weekdays("Mon,Wed,Fri").unwrap().len(), 3);
        assert_eq!(
            opens(&["Sun-Mon 00:00-24:00 UTC"], "2026-11-24T00:00:00Z"),
            "2026-11-29T00:00:00Z"
        );
        for bad in [
            "",
            "Mon",
            "Mon 08:00-18:00",
            "mon 08:00-18:00 UTC",
            "Mon-Fri 8:00-18:00 UTC",
            "Mon-Fri 08:00-18:00 Berlin",
            "Mon-Fri 08:00-18:00 +01:00",
            "Mon-Fri 18:00-08:00 UTC",
            "Mon-Fri 08:00-08:00 UTC",
            "Mon,Mon 08:00-18:00 UTC",
            "Mon-Fri,Fri 08:00-18:00 UTC",
            "Mon-Fri 24:00-24:00 UTC",
            "Mon-Fri 08:00-25:00 UTC",
            "Mon-Fri 08:00-18:60 UTC",
            "Mon-Fri  08:00-18:00 UTC",
            "Mon-Fri 08:00-18:00 Europe/Atlantis",
            "Mon- 08:00-18:00 UTC",
            "Mon-Fri 08:00-18:00 UTC ",
            "Mon-Fri 08:00–18:00 UTC",
        ] {
            assert!(Hours::parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(Hours::parse::<&str>(&[]).is_err(), "absence is a no");
    }

    #[test]
    fn several_windows_open_one_after_the_other_and_several_rules_together() {
        let two = &["Mon-Fri 08:00-12:00 UTC", "Mon-Fri 13:00-18:00 UTC"][..];
        assert_eq!(opens(two, "2026-11-23T12:00:00Z"), "2026-11-23T13:00:00Z");
        let berlin = hours(WORK);
        let tokyo = hours(&["Mon-Fri 08:00-18:00 Asia/Tokyo"]);
        let both = [&berlin, &tokyo];
        let open = all_open(both, at("2026-11-23T12:00:00Z")).unwrap();
        assert_eq!(open.rfc3339(), "2026-11-24T07:00:00Z");
        let never = [
            &hours(&["Mon 08:00-09:00 UTC"]),
            &hours(&["Tue 08:00-09:00 UTC"]),
        ];
        assert_eq!(all_open(never, at("2026-11-23T12:00:00Z")), None);
        assert_eq!(
            all_open([], at("2026-11-23T12:00:00Z")),
            Some(at("2026-11-23T12:00:00Z"))
        );
    }
}
