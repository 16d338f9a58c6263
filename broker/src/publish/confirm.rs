//! Confirming: the registry's own second factor is handed over to those who approve.
//!
//! The registry names a page; the question and the inbox show it; the broker asks the registry how it
//! came out and repeats the publish with what was given. Nothing of it lies in the store but that the
//! registry holds the publish back, and until when it is waited for: after a restart it is asked anew.

use super::{
    Refusal, forward, ledger, ring, settle, stages,
    state::{FileAt, Hold, Progress, Record},
};
use crate::{
    desk::{Desk, Fault},
    notify::About,
    registry::{FactorAsk, FactorSaid, StageId},
    secret::Secret,
    store::{Batch, Table},
};
use proto::{
    api::{Confirm, StateName},
    ids::{RegistryId, RequestId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Id, item and file (both big-endian) → which stage: what the sweep looks at.
pub const CONFIRMING: Table = Table("confirming");
/// Rows looked at in one sweep.
const LOOK_MAX: usize = 1000;
/// Pause after a question to the registry that failed.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct Row {
    registry: RegistryId,
    stage: StageId,
}

/// The registry holds a file back. In one commit: the state, its event, and whose the stage is.
pub(super) async fn hold(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    stage: Option<StageId>,
) -> Result<(), Refusal> {
    for _ in 0..20 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(());
        };
        let now = desk.world.now();
        let mut batch = Batch::new();
        if let Some(stage) = &stage {
            let Some(item) = held.record.facts.items.get(at.item) else {
                return Err(Refusal::NotFound);
            };
            let Some(with_owner) = stages::own(desk, batch, item, stage, (id, at))? else {
                let said =
                    format!("the registry named the stage {stage}, which is another request's");
                return settle::change(desk, id, |r| r.unheld(at, said.clone())).await;
            };
            let row = Row {
                registry: item.registry.clone(),
                stage: stage.clone(),
            };
            let row = serde_json::to_vec(&row).map_err(|_| Fault::Damaged("a stage"))?;
            let key = key(id, at);
            let old = desk.live.get(CONFIRMING, &key).map_err(Fault::from)?;
            batch = with_owner.put(CONFIRMING, key, old.map(|old| old.version), row);
        }
        // Without a stage the registry has asked: its page does not wait long.
        let item = held.record.facts.items.get(at.item);
        if let Some(item) = item.filter(|_| stage.is_none()) {
            batch = ring::notice(desk, batch, About::Factor, &item.package_key(), None)?;
        }
        let Ok(step) = held.record.hold(at, stage.clone(), now) else {
            return Ok(());
        };
        match ledger::persist(desk, held.version, step, batch, now).await {
            Err(Fault::Conflict(..)) => {}
            // From here on a restart knows the stage, and goes on with it.
            other => return Ok(other.map(drop)?),
        }
    }
    Err(Refusal::Busy)
}

/// Looks at everything that a registry holds in a stage, and goes on with it.
pub async fn sweep(desk: &Arc<Desk>) -> Result<(), Fault> {
    let now = desk.world.now();
    for (key, row) in desk.live.range(CONFIRMING, b"", None, LOOK_MAX)? {
        let Some((id, at)) = unkey(&key) else {
            continue;
        };
        let record = match ledger::find(desk, id) {
            // Its row may be put right by hand; the others are not kept waiting for that.
            Err(Fault::Damaged(what)) => {
                if desk.factors.begin(id, at.numbers(), now) {
                    tracing::error!(%id, what, "a request's row cannot be believed; its stage waits");
                    desk.factors.end(id, at.numbers(), now);
                }
                continue;
            }
            record => record?,
        };
        let done = record.as_ref().is_none_or(|r| {
            r.name().is_final() || matches!(r.progress(at), Some(Progress::Published { .. }))
        });
        if done {
            desk.factors.forget(id, at.numbers());
            let mut batch = Batch::new().delete(CONFIRMING, key, row.version);
            if let (Ok(of), Some(record)) = (serde_json::from_slice::<Row>(&row.value), record)
                && record.name() == StateName::Published
            {
                batch = stages::forget(desk, batch, &of.registry, &of.stage)?;
            }
            match desk.commit(batch, &[], now).await {
                Ok(_) | Err(Fault::Conflict(..)) => {}
                Err(other) => return Err(other),
            }
            continue;
        }
        let held = record.as_ref().and_then(|r| stage_of(r, at)).is_some();
        if held && !desk.vault.is_sealed() && desk.factors.begin(id, at.numbers(), now) {
            let desk = Arc::clone(desk);
            tokio::spawn(async move {
                if let Err(why) = drive(&desk, id, at).await {
                    tracing::warn!(%id, at.item, %why, "a stage is not approved yet");
                }
                desk.factors.end(id, at.numbers(), desk.world.now());
            });
        }
    }
    Ok(())
}

/// Asks the registry to publish a stage; shows people where it wants to be told yes; asks again with
/// what they gave. Comes back when that is clear, or when the page is over: the next sweep asks anew.
async fn drive(desk: &Desk, id: RequestId, at: FileAt) -> Result<(), Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(());
    };
    let Some((stage, until)) = stage_of(&held.record, at) else {
        return Ok(());
    };
    if desk.world.now() >= until {
        return Ok(());
    }
    let forward::After::Asked(ask) = approve(desk, id, at, &stage, None).await? else {
        return Ok(());
    };
    match given(desk, id, at, &ask, until).await? {
        Some(factor) => approve(desk, id, at, &stage, Some(&factor)).await.map(drop),
        None => Ok(()),
    }
}

fn stage_of(record: &Record, at: FileAt) -> Option<(StageId, UnixTime)> {
    match record.progress(at)? {
        Progress::Held {
            hold: Hold {
                until,
                stage: Some(stage),
            },
            ..
        } => Some((stage.clone(), *until)),
        _ => None,
    }
}

/// One attempt to have a stage published, unless the registry shows the version already.
pub(super) async fn approve(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    stage: &StageId,
    factor: Option<&Secret<String>>,
) -> Result<forward::After, Refusal> {
    let Some(shown) = settle::may_send(desk, id, at).await? else {
        return Ok(forward::After::Look);
    };
    let delivery = forward::Delivery::Stage { stage, factor };
    forward::send(desk, id, at, shown, delivery).await
}

/// Waits until somebody has given the second factor on the registry's page; `None` when the page is
/// over, the time is, or nobody is asked any more.
pub(super) async fn given(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    ask: &FactorAsk,
    until: UnixTime,
) -> Result<Option<Secret<String>>, Refusal> {
    desk.factors.show(id, at.numbers(), Some(ask.show.clone()));
    let outcome = ask_until(desk, id, at, ask, until).await;
    desk.factors.show(id, at.numbers(), None);
    outcome
}

async fn ask_until(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    ask: &FactorAsk,
    until: UnixTime,
) -> Result<Option<Secret<String>>, Refusal> {
    let mut changes = desk.waiters.subscribe(id);
    let over = |life: Duration| desk.world.now().after(life.as_secs());
    let until = ask.life.map_or(until, |life| until.min(over(life)));
    loop {
        let now = desk.world.now();
        let held = ledger::live(desk, id)?;
        let Some(record) = held
            .map(|h| h.record)
            .filter(|r| now < until && matches!(r.progress(at), Some(Progress::Held { .. })))
        else {
            return Ok(None);
        };
        let item = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
        let upstream = desk.upstream(&item.registry).ok_or(Refusal::NotFound)?;
        let second = upstream.second_factor().ok_or(Refusal::NotFound)?;
        let token = stages::token(desk, item)?;
        let token = token.ok_or_else(|| Refusal::NoToken(item.package_key()))?;
        let said = second.outcome(ask, &token).await;
        drop(token);
        let pause = match said {
            Ok(FactorSaid::Given(factor)) => return Ok(Some(factor)),
            Ok(FactorSaid::Over) => return Ok(None),
            Ok(FactorSaid::NotYet(pause)) => pause,
            Err(why) => {
                tracing::info!(%id, %why, "the registry does not say how its second factor came out");
                PAUSE
            }
        };
        // A denial ends the asking at once.
        let _ = tokio::time::timeout(pause, changes.changed()).await;
    }
}

/// What people are shown of it.
pub fn lines(desk: &Desk, record: &Record) -> Vec<Confirm> {
    let line = |(at, hold): (FileAt, Hold)| Confirm {
        item: record
            .facts
            .items
            .get(at.item)
            .map(proto::request::Item::name)
            .unwrap_or_default(),
        page: desk
            .factors
            .page(record.facts.id, at.numbers())
            .map(String::from),
        until: hold.until,
        stage: hold.stage.map(String::from),
    };
    record.held().into_iter().map(line).collect()
}

fn key(id: RequestId, at: FileAt) -> Vec<u8> {
    let (item, file) = at.numbers();
    [
        &id.0.as_bytes()[..],
        &item.to_be_bytes(),
        &file.to_be_bytes(),
    ]
    .concat()
}

fn unkey(key: &[u8]) -> Option<(RequestId, FileAt)> {
    let (id, rest) = key.split_at_checked(16)?;
    let (item, file) = rest.split_at_checked(4)?;
    let number = |bytes: &[u8]| usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok();
    let at = FileAt {
        item: number(item)?,
        file: number(file)?,
    };
    Some((ledger::id_of(id)?, at))
}
