//! Searching the log.
//!
//! There is no index by package or person: it would be two to five rows more in each act's commit, for a search that
//! an admin makes now and then. A call reads a bounded piece of the log and gives the place where the next one goes
//! on; where `since` is given, its beginning is found by halving.

use super::log::export;
use crate::{
    desk::{Desk, Fault},
    publish::{Refusal, ledger},
};
use proto::{
    api::Found,
    ids::RequestId,
    log::find::{Entry, Wanted},
    time::UnixTime,
};
use std::collections::HashMap;

/// Entries that one call reads.
const READ_MAX: u64 = 4_000;
/// Entries that are read at once.
const PIECE: usize = 500;
/// Most entries that one call gives.
pub const FOUND_MAX: usize = 500;
/// How far entries may stand out of the order of their times, in seconds: an act takes its time when it begins, and
/// its place when it is committed.
const DISORDER: u64 = 3_600;

/// The entries that are looked for, from an index on.
pub fn find(desk: &Desk, wanted: &Wanted, from: u64, limit: usize) -> Result<Found, Refusal> {
    let limit = limit.clamp(1, FOUND_MAX);
    let start = match wanted.since {
        Some(since) if from == 0 => first_since(desk, since.before(DISORDER))?,
        _ => from,
    };
    let mut known = HashMap::new();
    let mut entries = Vec::new();
    let mut at = start;
    while at < start.saturating_add(READ_MAX) {
        let lines = export(desk, at, PIECE)?;
        if lines.is_empty() {
            return Ok(Found {
                entries,
                next: None,
            });
        }
        for line in lines {
            at = line.index + 1;
            let Some(entry) = Entry::read(&line.leaf) else {
                continue;
            };
            if wanted.until.is_some_and(|t| entry.time > t.after(DISORDER)) {
                return Ok(Found {
                    entries,
                    next: None,
                });
            }
            let of = |id, package: &str| is_for(desk, &mut known, id, package);
            if wanted.fits(&entry, of) {
                entries.push(line);
            }
            if entries.len() == limit {
                return Ok(Found {
                    entries,
                    next: Some(at),
                });
            }
        }
    }
    Ok(Found {
        entries,
        next: Some(at),
    })
}

/// Whether a request is for a package. One that cannot be read is none: a search decides nothing.
fn is_for(desk: &Desk, known: &mut HashMap<RequestId, bool>, id: RequestId, package: &str) -> bool {
    *known.entry(id).or_insert_with(|| {
        let record = ledger::find(desk, id).ok().flatten();
        record.is_some_and(|r| r.facts.items.iter().any(|i| i.package_key() == package))
    })
}

/// The first entry that is not before a moment.
fn first_since(desk: &Desk, moment: UnixTime) -> Result<u64, Refusal> {
    let length = desk.live.log_len().map_err(Fault::from)?;
    halved(length, moment, |index| {
        let line = export(desk, index, 1)?;
        let entry = line.first().and_then(|l| Entry::read(&l.leaf));
        Ok(entry.map(|e| e.time))
    })
}

/// The same of entries in the order of their times.
fn halved(
    length: u64,
    moment: UnixTime,
    mut time: impl FnMut(u64) -> Result<Option<UnixTime>, Refusal>,
) -> Result<u64, Refusal> {
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low + (high - low) / 2;
        if time(middle)?.is_some_and(|t| t < moment) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_time_is_found_by_few_looks() {
        let times: Vec<u64> = (0..1_000).map(|n| 100 + n / 3).collect();
        for moment in [0, 99, 100, 101, 250, 433, 434, 10_000] {
            let mut looks = 0;
            let found = halved(1_000, UnixTime(moment), |at| {
                looks += 1;
                Ok(times
                    .get(usize::try_from(at).unwrap())
                    .copied()
                    .map(UnixTime))
            });
            let wanted = times.iter().filter(|t| **t < moment).count();
            assert_eq!(found.ok(), Some(wanted as u64), "{moment}");
            assert!(looks <= 10, "{looks}");
        }
        assert_eq!(halved(0, UnixTime(1), |_| Ok(None)).ok(), Some(0));
    }
}
