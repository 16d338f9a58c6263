//! What is approved and held back: for the policy's veto or hours. Whoever may deny it is told, and keeps a time to do
//! so: a veto that ran out while the broker was down, or sealed, was nobody's chance. A row stands for each such
//! request from the commit that approves it until that is done, and nothing is let out while it stands.
//!
//! If an attacker writes here: without the row a request waits for its veto alone, and people are told in the inbox.

use super::state::{Record, State};
use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table},
};
use proto::{ids::PersonId, time::UnixTime};
use serde::{Deserialize, Serialize};

/// Approved requests that are held back, and who was told.
pub const VETOES: Table = Table("ring-veto");
/// Longest time that is kept after people were told, in seconds; it is a third of the whole where that is less.
const CHANCE_MOST: u64 = 600;

/// Who was told that it can still be denied.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Who was rung.
    pub people: Vec<PersonId>,
    /// When everybody had been: no letter of it was still to be sent for the first time.
    pub since: Option<UnixTime>,
}

/// Holds it back, where it is approved and not let out yet: part of the commit that approves it. Who asked nobody (an
/// intent was enough), or whom nobody heard (it was queued), is not out of people's reach.
pub fn held_back(batch: Batch, record: &Record) -> Batch {
    let told = serde_json::to_vec(&Told::default()).unwrap_or_default();
    batch.create(VETOES, record.facts.id.0.as_bytes(), told)
}

/// Until when it is held back, if it is: asked again at each decision.
pub fn until(desk: &Desk, record: &Record, now: UnixTime) -> Result<Option<UnixTime>, Fault> {
    if !matches!(record.state, State::Approved { later: Some(_), .. }) {
        return Ok(None);
    }
    match desk.live.get(VETOES, record.facts.id.0.as_bytes())? {
        None => Ok(record.later(now).map(|later| later.until)),
        // What cannot be read is told anew.
        Some(row) => {
            let told = serde_json::from_slice(&row.value).unwrap_or_default();
            Ok(with(record, &told, desk.bells.open_since(), now))
        }
    }
}

/// The same of a row that was read. Who was told before the broker was sealed or stopped could not answer until it was
/// open again: their time begins anew then.
pub fn with(record: &Record, told: &Told, open_since: UnixTime, now: UnixTime) -> Option<UnixTime> {
    let State::Approved {
        later: Some(later), ..
    } = &record.state
    else {
        return None;
    };
    let from = record.approved.unwrap_or(record.opened);
    let chance = (later.until.since(from) / 3).min(CHANCE_MOST);
    let heard = told.since.map_or(now, |since| since.max(open_since));
    let heard = heard.after(chance);
    Some(later.until.max(heard)).filter(|until| now < *until)
}
