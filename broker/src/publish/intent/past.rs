//! Announcements that serve nobody any more: they are shown for a month, and count for nothing.
//!
//! They have a table of their own, so that the inventory lists those alone that may count. A row here makes no
//! announcement again: nobody who asks what a request fits reads this table, and a row is bound to its table.

use super::{INTENTS, Kept, believed};
use crate::{
    desk::{Desk, Fault, passable, people::Versioned},
    publish::ledger::{self, BY_INTENT},
    store::{Batch, Table},
};
use proto::{ids::IntentId, time::UnixTime};

/// Those that were taken back, or whose time is over, by their ids.
pub(super) const PAST: Table = Table("intent-past");
/// Rows that one commit moves.
const MOVES_MAX: usize = 500;
/// Seconds after an announcement's end in which a request is still stored that came before it.
const LATE: u64 = 600;

/// One of them.
pub(super) fn past(desk: &Desk, id: IntentId) -> Result<Option<Kept>, Fault> {
    let row = believed(desk.authentic_row::<Kept>(PAST, id.0.as_bytes()), id)?;
    Ok(row.map(|row| row.value))
}

/// Moves one out of the rows that may count.
pub(super) fn moved(desk: &Desk, batch: Batch, version: u64, value: &Kept) -> Result<Batch, Fault> {
    let key = value.evidence.id.0.as_bytes();
    let bytes = desk.authentic(PAST, key, value)?;
    // A row that was planted there keeps nobody from taking his word back.
    let there = desk.live.get(PAST, key)?.map(|row| row.version);
    let batch = batch.delete(INTENTS, key, version);
    Ok(batch.put(PAST, key, there, bytes))
}

/// Moves those whose time is over and that no open request fits. Done when the next one is announced: so there are
/// never many.
pub(super) async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut batch = Batch::new();
    let mut count = 0;
    for Versioned { version, value } in desk.listed_rows::<Kept>(INTENTS)? {
        let over = now >= value.evidence.statement.expires.after(LATE);
        if over && count < MOVES_MAX && !is_asked_for(desk, value.evidence.id)? {
            batch = moved(desk, batch, version, &value)?;
            count += 1;
        }
    }
    if count == 0 {
        return Ok(());
    }
    passable(desk.commit(batch, &[], now).await)
}

/// Whether an open request fits it: that one may be approved by it, or was.
fn is_asked_for(desk: &Desk, id: IntentId) -> Result<bool, Fault> {
    let prefix = ledger::prefix(&[&id.to_string()]);
    Ok(!desk.live.range(BY_INTENT, &prefix, None, 1)?.is_empty())
}
