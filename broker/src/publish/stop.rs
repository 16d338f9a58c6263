//! Stopping everything: each open request ends, or nothing more of it leaves.
//!
//! The freeze of everything is committed before ([`crate::admin::panic`]), so that nothing new is opened, approved or
//! sent meanwhile. All of this may be done again, and is, after a crash.

use super::{
    ledger::{self, BY_SUBJECT, Held},
    state::{Record, State},
};
use crate::{
    desk::{Desk, Fault},
    store::Batch,
};
use proto::{
    api::{Mode, StateName},
    ids::RequestId,
    request::Item,
    stop::{HandedOut, OnTheWay, Stopped},
    time::UnixTime,
};

/// Index rows read at once.
const PAGE: usize = 500;
/// Most requests that one call looks at; the rest is looked at by the next.
const REQUESTS_MAX: usize = 20_000;
/// Most lines of one kind that are told.
const LINES_MAX: usize = 200;
/// Attempts to end a request that others change at the same moment.
const RACES_MAX: usize = 50;
/// Bytes of an id at a key's end.
const ID_BYTES: usize = 16;

/// Ends every open request, and says of the others what may be on its way and what was handed out.
pub async fn requests(desk: &Desk, now: UnixTime) -> Result<Stopped, Fault> {
    let mut told = Stopped::default();
    let (mut after, mut seen) = (None::<Vec<u8>>, 0);
    while seen < REQUESTS_MAX {
        let rows = desk.live.range(BY_SUBJECT, b"", after.as_deref(), PAGE)?;
        let more = rows.len() == PAGE;
        seen += rows.len();
        after = rows.last().map(|(key, _)| key.clone());
        for (key, _) in rows {
            let at = key.len().saturating_sub(ID_BYTES);
            if let Some(id) = key.get(at..).and_then(ledger::id_of) {
                one(desk, id, &mut told, now).await?;
            }
        }
        if !more {
            return Ok(told);
        }
    }
    told.more = true;
    Ok(told)
}

async fn one(desk: &Desk, id: RequestId, told: &mut Stopped, now: UnixTime) -> Result<(), Fault> {
    for _ in 0..RACES_MAX {
        let Some(Held { version, record }) = ledger::among(desk, id)? else {
            return Ok(());
        };
        let stages = stages(&record);
        let record = match record.clone().stop(now) {
            Err(_) => record,
            Ok(step) => match ledger::persist(desk, version, step, Batch::new(), now).await {
                // Somebody answered it, or the registry did, at this very moment: it is looked at again.
                Err(Fault::Conflict(..)) => continue,
                other => {
                    let record = other?;
                    match record.name() {
                        StateName::Denied => told.ended += 1,
                        _ => told.credentials += 1,
                    }
                    add(&mut told.stages, stages);
                    record
                }
            },
        };
        add(&mut told.sending, on_the_way(&record));
        add(&mut told.handed_out, handed_out(&record));
        return Ok(());
    }
    // Whoever was faster so often cannot send anything either: everything is frozen.
    told.more = true;
    Ok(())
}

fn add<T>(lines: &mut Vec<T>, more: Vec<T>) {
    let room = LINES_MAX.saturating_sub(lines.len());
    lines.extend(more.into_iter().take(room));
}

/// What the registry keeps back, and somebody must reject there.
fn stages(record: &Record) -> Vec<String> {
    let held = record.held().into_iter();
    held.filter_map(|(at, hold)| {
        let item = record.facts.items.get(at.item)?;
        Some(format!("{}: {}", item.name(), hold.stage?))
    })
    .collect()
}

/// What may be at the registry without anybody's knowing; it is read back.
fn on_the_way(record: &Record) -> Vec<OnTheWay> {
    let forwarded = matches!(record.mode, Mode::Forward | Mode::Deposit);
    let open = |at| {
        record
            .progress(at)
            .is_some_and(super::state::Progress::on_its_way)
    };
    let files = record.files().filter(|at| forwarded && open(*at));
    files
        .filter_map(|at| {
            let item = record.facts.items.get(at.item)?;
            Some(OnTheWay {
                request: record.facts.id,
                name: item.name(),
                file: item.files.get(at.file)?.name.clone(),
            })
        })
        .collect()
}

/// What the job itself holds: nobody calls it back but the registry.
fn handed_out(record: &Record) -> Vec<HandedOut> {
    let State::Releasing { until, .. } = &record.state else {
        return Vec::new();
    };
    let out = match record.mode {
        Mode::Mint => Some(Some(*until)),
        Mode::Reveal => Some(None),
        Mode::Forward | Mode::Deposit => None,
    };
    out.map(|until| HandedOut {
        request: record.facts.id,
        package: record
            .facts
            .items
            .first()
            .map(Item::package_key)
            .unwrap_or_default(),
        until,
    })
    .into_iter()
    .collect()
}
