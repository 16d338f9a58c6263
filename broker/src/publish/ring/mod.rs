//! Who is rung, and who is not. Decided after a request was opened, beside the request's own path: opening costs
//! one row more, and nobody waits for a phone.
//!
//! [`round`]: for requests. A thief's come from the repository of the real ones, so what rings is rationed: one open
//! ring a package and person, three a day and person, nothing in quiet hours (attack 24). What is over that waits
//! in the inbox, and is looked at again: it rings when there is room while it still waits. What a person announced
//! is outside of all that, and is only spaced: [`budget`]. So is what is approved and can still be denied.
//! [`notices`]: what else people are told.
//!
//! If an attacker writes here: he rings, or keeps quiet. The inbox does not read these rows.

mod budget;
mod notices;
mod round;
mod rows;

pub use budget::UNSOLICITED_MOST;
pub use notices::notice;

use super::ledger::timed;
use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table},
};
use budget::Budget;
use proto::{
    ids::{PersonId, RequestId},
    time::UnixTime,
};

/// Requests that wait for answers, oldest first: seconds (big-endian) and id.
pub const RINGS: Table = Table("ring");
/// Request: who was rung for it. As long as it waits.
pub const RUNG: Table = Table("rung");
/// Person: when they were rung.
pub const BUDGET: Table = Table("ring-budget");

/// Orders the look at who is to be rung: part of the commit that opens a request.
pub fn ordered(batch: Batch, id: RequestId, now: UnixTime) -> Batch {
    batch.create(RINGS, timed(now, id), [])
}

/// Rings of a person in the last day that nobody announced.
pub fn spent(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<usize, Fault> {
    let (_, mut budget) = rows::read::<Budget>(desk, BUDGET, person.as_str().as_bytes())?;
    Ok(budget.unsolicited(now))
}

/// One look at what may have to ring.
pub async fn decide(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    notices::tell(desk, now).await?;
    round::vetoes(desk, now).await?;
    round::requests(desk, now).await
}

/// A damaged row keeps nobody else from being rung.
fn passable(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(Fault::Damaged(what)) => {
            tracing::error!(what, "somebody is not rung for a damaged row");
            Ok(())
        }
        other => other,
    }
}
