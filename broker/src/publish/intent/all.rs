//! Taking back every announcement at once: an admin stopped everything.

use super::{INTENTS, Kept, Standing, kept, make::intent_of, taken_back, withdrawn};
use crate::{
    desk::{Desk, Fault, people::Versioned},
    store::Batch,
};
use proto::{
    ids::{IntentId, PersonId},
    time::UnixTime,
};

/// Attempts to end an intent that others spend at the same moment.
const RACES_MAX: usize = 20;

/// Ends what was announced until `made` and could still serve a request; says how many. The vault is open.
pub async fn withdraw_all(
    desk: &Desk,
    by: &PersonId,
    made: UnixTime,
    now: UnixTime,
) -> Result<usize, Fault> {
    let mut count = 0;
    for key in desk.inventory()?.keys(INTENTS) {
        let Some(id) = intent_of(&key) else {
            continue;
        };
        if withdraw(desk, id, by, made, now).await? {
            count += 1;
        }
    }
    Ok(count)
}

async fn withdraw(
    desk: &Desk,
    id: IntentId,
    by: &PersonId,
    made: UnixTime,
    now: UnixTime,
) -> Result<bool, Fault> {
    let event = [withdrawn(id, by)];
    for _ in 0..RACES_MAX {
        let row = kept(desk, id)?;
        if let Some(row) = &row
            && (row.value.evidence.made > made || !may_serve(desk, row, now)?)
        {
            return Ok(false);
        }
        let Some(batch) = taken_back(desk, Batch::new(), id, row, by)? else {
            return Ok(false);
        };
        match desk.commit(batch, &event, now).await {
            // A request was approved with it at this very moment: it is looked at again.
            Err(Fault::Conflict(..)) => {}
            other => return other.map(|_| true),
        }
    }
    Err(Fault::Conflict(INTENTS, id.0.as_bytes().to_vec()))
}

/// Whether it may still serve a request: one that was spent for a request that came to nothing may.
fn may_serve(desk: &Desk, row: &Versioned<Kept>, now: UnixTime) -> Result<bool, Fault> {
    let lives = now < row.value.evidence.statement.expires;
    Ok(lives && row.value.standing(desk, None)? != Standing::Over)
}
