//! Intents: what people announced before any job asked.
//!
//! [`make`]: announced, listed, taken back. [`all`]: all of them taken back at once. [`fit`]: which of them a request
//! fits, and what becomes of it. [`past`]: those that serve nobody any more.
//!
//! If an attacker writes here: rows are authenticated under the vault's key and bound to their place, and the inventory
//! (`desk/inventory.rs`) says which there must be. So he can delete an intent, and make none; and one that was spent or
//! withdrawn does not come back as its own older copy.

mod all;
mod fit;
mod make;
mod past;

pub use all::withdraw_all;
pub use fit::{
    about, approvals, approve, counting, described, ended_by_denial, fits_in_part, fitting,
    outside_quotas, shown, spend, status_at, unlike,
};
pub use make::{intend, list, withdraw};

use super::ledger;
use crate::{
    audit::event::Event,
    desk::{Desk, Fault, inventory::INTENTS, people::Versioned},
    store::{Batch, Table},
};
use past::moved;
use proto::{
    api::StateName,
    ids::{IntentId, PersonId, RequestId},
    intent::{IntentEvidence, IntentState},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// `registry:package` NUL intent: those that may still be live.
pub const OF_PACKAGE: Table = Table("intent-of-package");

/// An intent as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What was signed.
    pub evidence: IntentEvidence,
    /// What ended it before its time.
    pub end: Option<End>,
}

/// What ended an intent before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum End {
    /// A request was approved with it.
    Spent {
        /// Which.
        request: RequestId,
    },
    /// Somebody took it back.
    Withdrawn {
        /// Who.
        by: PersonId,
    },
}

/// Whether an intent may serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may.
    Free,
    /// Another request was approved with it, and may still be published.
    Taken,
    /// It may not any more.
    Over,
}

impl Kept {
    fn state(&self, now: UnixTime) -> IntentState {
        match &self.end {
            Some(End::Spent { .. }) => IntentState::Spent,
            Some(End::Withdrawn { .. }) => IntentState::Withdrawn,
            None if now >= self.evidence.statement.expires => IntentState::Expired,
            None => IntentState::Live,
        }
    }

    /// Whether it may serve this request. One that was approved with it and then ended with nothing sent
    /// gives it back: else whoever takes it first, and leaves it lying, takes it from everybody.
    fn standing(&self, desk: &Desk, request: Option<RequestId>) -> Result<Standing, Fault> {
        let by = match &self.end {
            None => return Ok(Standing::Free),
            Some(End::Withdrawn { .. }) => return Ok(Standing::Over),
            Some(End::Spent { request: by }) => *by,
        };
        if Some(by) == request {
            return Ok(Standing::Free);
        }
        let Some(spender) = ledger::find(desk, by)? else {
            return Ok(Standing::Over);
        };
        Ok(match spender.name() {
            StateName::Cancelled => Standing::Free,
            StateName::Expired if spender.never_left() => Standing::Free,
            name if name.is_final() => Standing::Over,
            _ => Standing::Taken,
        })
    }
}

/// An intent that may still serve a request; `None` too where its row is not the one that must stand there.
fn kept(desk: &Desk, id: IntentId) -> Result<Option<Versioned<Kept>>, Fault> {
    believed(desk.authentic_row::<Kept>(INTENTS, id.0.as_bytes()), id)
}

/// What was read of an intent; nothing where it cannot be believed.
fn believed(
    read: Result<Option<Versioned<Kept>>, Fault>,
    id: IntentId,
) -> Result<Option<Versioned<Kept>>, Fault> {
    match read {
        Ok(row) => Ok(row.filter(|r| r.value.evidence.id == id)),
        Err(Fault::Damaged(what)) => {
            tracing::error!(%id, what, "an intent's row cannot be believed; it is passed over");
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// Adds the end of an intent. One that was spent may be given back; one that was taken back serves nobody again.
fn ends(desk: &Desk, batch: Batch, row: Versioned<Kept>, end: End) -> Result<Batch, Fault> {
    let Versioned { version, mut value } = row;
    let id = value.evidence.id;
    let is_over = matches!(end, End::Withdrawn { .. });
    value.end = Some(end);
    if is_over {
        return moved(desk, batch, version, &value);
    }
    let bytes = desk.authentic(INTENTS, id.0.as_bytes(), &value)?;
    Ok(batch.replace(INTENTS, id.0.as_bytes(), version, bytes))
}

/// Adds that somebody takes an intent back. What is hidden at that moment is taken off the inventory: it would count again
/// when it is put back. None where there must be no such row.
fn taken_back(
    desk: &Desk,
    batch: Batch,
    id: IntentId,
    row: Option<Versioned<Kept>>,
    by: &PersonId,
) -> Result<Option<Batch>, Fault> {
    match row {
        None => desk.unlisted(batch, INTENTS, id.0.as_bytes()),
        Some(row) => ends(desk, batch, row, End::Withdrawn { by: by.clone() }).map(Some),
    }
}

fn withdrawn(intent: IntentId, by: &PersonId) -> Event {
    let by = by.clone();
    Event::IntentWithdrawn { intent, by }
}
