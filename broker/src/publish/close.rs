//! Ending requests without a publish: cancelled, too late, frozen, or overtaken by a rival.

use super::{
    Refusal, answer,
    ledger::{self, BURNT, DUE, Held},
    state::{Record, Step},
    unseen,
};
use crate::{
    audit::reason::DenyCause,
    desk::{Desk, Fault, passable},
    store::Batch,
};
use proto::{api::Status, bearer::Bearer, ids::RequestId, time::UnixTime};

/// Most rivals that are ended at once; what is left cannot be approved any more and expires.
const RIVALS_MAX: usize = 200;
/// Attempts to end a request that others answer at the same moment.
const RACES_MAX: usize = 50;
/// Rows looked at in one sweep.
const SWEEP_MAX: usize = 1000;
/// Until a request whose row is damaged is looked at again, in seconds.
const DAMAGED_AGAIN: u64 = 3600;

/// The job takes its request back.
pub async fn cancel(
    desk: &Desk,
    id: RequestId,
    ticket: &Bearer,
    now: UnixTime,
) -> Result<Status, Refusal> {
    for _ in 0..10 {
        let Some(held) = ledger::live(desk, id)? else {
            // Finished a while ago: the state is told, to whoever holds the ticket.
            let record = status(desk, id, ticket)?;
            return Err(Refusal::State(record.name(), record.status().reason));
        };
        if !ledger::ticket_fits(&held.record, ticket) {
            return Err(Refusal::NotFound);
        }
        let step = held.record.cancel()?;
        match ledger::persist(desk, held.version, step, Batch::new(), now).await {
            Err(Fault::Conflict(..)) => {}
            other => return Ok(other?.status()),
        }
    }
    Err(Refusal::Busy)
}

/// Ends the other pending requests for the versions of an approved one.
pub async fn end_rivals(desk: &Desk, winner: &Record, now: UnixTime) -> Result<(), Fault> {
    end_those(desk, winner, |_| true, now).await
}

/// Ends those that a crash left behind an approval, before what was published gives its version's claim back: else
/// two requests for one version would be approved. What only adds files to the release goes on.
pub async fn end_left_rivals(desk: &Desk, winner: &Record, now: UnixTime) -> Result<(), Fault> {
    end_those(desk, winner, |item| !answer::adds_to(item, winner), now).await
}

async fn end_those(
    desk: &Desk,
    winner: &Record,
    ends: impl Fn(&proto::request::Item) -> bool,
    now: UnixTime,
) -> Result<(), Fault> {
    for item in &winner.facts.items {
        let id = winner.facts.id;
        for rival in ledger::others_of_package(desk, &item.package_key(), Some(id), RIVALS_MAX)? {
            let same = |i: &proto::request::Item| i.name() == item.name();
            if rival.record.facts.items.iter().any(|i| same(i) && ends(i)) {
                try_deny(desk, rival, DenyCause::Rival, now).await?;
            }
        }
    }
    Ok(())
}

/// Ends the requests of a package that was frozen.
pub async fn deny_frozen(desk: &Desk, package: &str, now: UnixTime) -> Result<(), Fault> {
    for held in ledger::of_package(desk, package, RIVALS_MAX)? {
        try_deny(desk, held, DenyCause::Frozen, now).await?;
    }
    Ok(())
}

async fn try_deny(
    desk: &Desk,
    mut held: Held,
    cause: DenyCause,
    now: UnixTime,
) -> Result<(), Fault> {
    let id = held.record.facts.id;
    for _ in 0..RACES_MAX {
        // It ended meanwhile, or its bytes are on their way.
        let Ok(step) = held.record.deny(None, None, cause) else {
            return Ok(());
        };
        match ledger::persist(desk, held.version, step, Batch::new(), now).await {
            // Somebody answered it at this very moment: it is looked at again.
            Err(Fault::Conflict(..)) => {}
            other => return other.map(drop),
        }
        let Some(again) = ledger::live(desk, id)? else {
            return Ok(());
        };
        held = again;
    }
    Ok(())
}

/// Looks at all that is due: expires what is overdue, and comes back later for the rest. Returns
/// how many rows it looked at.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<usize, Fault> {
    let due = desk.live.range(DUE, b"", None, SWEEP_MAX)?;
    let mut seen = 0;
    // Rows of what has ended go together: one flush for all of them.
    let mut ended = Batch::new();
    for (key, row) in due {
        let Some((at, id)) = ledger::untimed(&key) else {
            continue;
        };
        if at > now {
            break;
        }
        seen += 1;
        let held = match ledger::live(desk, id) {
            // Its row may be put right by hand; the others are not kept waiting for that.
            Err(Fault::Damaged(what)) => {
                tracing::error!(%id, what, "a request's row cannot be believed; it is looked at again in an hour");
                let batch = Batch::new().delete(DUE, key, row.version).create(
                    DUE,
                    ledger::timed(now.after(DAMAGED_AGAIN), id),
                    Vec::new(),
                );
                passable(desk.commit(batch, &[], now).await.map(drop))?;
                continue;
            }
            held => held?,
        };
        let Some(held) = held.filter(|h| !h.record.name().is_final()) else {
            ended = ended.delete(DUE, key, row.version);
            continue;
        };
        let mut batch = Batch::new().delete(DUE, key, row.version);
        if held.record.overdue(now) {
            let told = held.record.told;
            let step: Step = match held.record.expire(now) {
                Ok(step) => step,
                Err(_) => continue,
            };
            passable(ends(desk, held.version, (step, told), batch, now).await)?;
        } else {
            let again = held.record.expires().max(now.after(30));
            batch = batch.create(DUE, ledger::timed(again, id), Vec::new());
            match held.record.unsettled(now) {
                Ok(step) => passable(ends(desk, held.version, (step, false), batch, now).await)?,
                Err(_) => passable(desk.commit(batch, &[], now).await.map(drop))?,
            }
        }
    }
    if !ended.is_empty() {
        passable(desk.commit(ended, &[], now).await.map(drop))?;
    }
    Ok(seen)
}

/// Stores a step at the end of a request's time, with an alarm for each file of which nobody knows what became of
/// it, unless that was told before.
async fn ends(
    desk: &Desk,
    version: u64,
    (step, told): (Step, bool),
    batch: Batch,
    now: UnixTime,
) -> Result<(), Fault> {
    let id = step.record().facts.id;
    let unclear = step.record().unclear.len();
    let alarm = step.record().unseen().filter(|_| !told);
    let batch = match alarm {
        Some(_) => unseen::tell_all(desk, batch, step.record(), now)?,
        None => batch,
    };
    ledger::persist(desk, version, step, batch, now).await?;
    if let Some(words) = alarm {
        tracing::error!(%id, words, "ALARM: nobody knows what became of a publish");
        (0..unclear).for_each(|_| _ = desk.metrics.alarms.inc());
    }
    Ok(())
}

/// Forgets tokens of callers that have been expired for a while.
pub async fn forget_burnt(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut batch = Batch::new();
    let mut any = false;
    for (key, row) in desk.live.range(BURNT, b"", None, SWEEP_MAX)? {
        let Some((until, _)) = key.split_first_chunk::<8>() else {
            continue;
        };
        if u64::from_be_bytes(*until) >= now.0 {
            break;
        }
        any = true;
        batch = batch.delete(BURNT, key, row.version);
    }
    if any {
        passable(desk.commit(batch, &[], now).await.map(drop))?;
    }
    Ok(())
}

/// The status of a request for whoever holds its ticket.
pub fn status(desk: &Desk, id: RequestId, ticket: &Bearer) -> Result<Record, Refusal> {
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    if ledger::ticket_fits(&record, ticket) {
        Ok(record)
    } else {
        Err(Refusal::NotFound)
    }
}
