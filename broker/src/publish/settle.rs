//! Settling: whatever the registry answered, what it *shows* decides. A restart, a time-out and a
//! normal publish all come through here.

use super::{
    Refusal,
    ledger::{self, REQUESTS},
    state::{Progress, Record, State, Step},
};
use crate::{
    desk::{Desk, Fault, Registry},
    registry::npm::{self, Published, ReadBack, ReadError},
    store::Batch,
    vault::release as vault,
};
use proto::{
    api::StateName,
    ids::{RequestId, VersionText},
    request::Item,
    time::UnixTime,
};
use std::time::Duration;

/// Pauses between read-backs while the registry shows nothing yet.
const LAG: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// How long a registry may take to show what it was sent, in seconds. Before that an absent version
/// is not sent again after an unclear answer.
const REGISTRY_LAG: u64 = 10;
/// Another task of this daemon may be sending for this long, in seconds.
const SENDING_MAX: u64 = 150;

/// How an item stands at the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The approved bytes are there.
    Published,
    /// Other bytes are there.
    Conflict,
    /// Nothing is there and nothing is on its way: the bytes may be sent. With what the registry
    /// shows of the package at this moment, which the policy wants to know.
    MaySend(Vec<VersionText>),
    /// Not known yet.
    Unclear,
}

/// Brings an item to a clear state: waits for an attempt on its way, reads back an unclear one.
pub async fn settled(desk: &Desk, id: RequestId, item: usize) -> Result<Outcome, Refusal> {
    let mut changes = desk.waiters.subscribe(id);
    for _ in 0..100 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(of_final(ledger::find(desk, id)?.as_ref()));
        };
        let State::Releasing { progress, .. } = &held.record.state else {
            return Ok(of_final(Some(&held.record)));
        };
        let now = desk.world.now();
        match progress.get(item) {
            None => return Err(Refusal::NotFound),
            Some(Progress::Published { .. }) => return Ok(Outcome::Published),
            Some(Progress::Conflict { .. }) => return Ok(Outcome::Conflict),
            Some(Progress::Waiting { .. }) => {
                // Somebody may have published it by another way, or an old copy of our store forgot.
                let (published, back) = shows(desk, &held.record, item).await?;
                return match back {
                    ReadBack::Absent => {
                        Ok(Outcome::MaySend(published.versions.into_keys().collect()))
                    }
                    ReadBack::Shows(digest) => {
                        change(desk, id, |r| r.shows(item, digest.clone())).await?;
                        continue;
                    }
                };
            }
            Some(Progress::Sending { since, .. }) if now.since(*since) < SENDING_MAX => {
                // A twin of this upload is on its way; its outcome is ours.
                let _ = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
            }
            Some(Progress::Sending { .. }) => mark_unclear(desk, id, item).await?,
            Some(Progress::Settling { since, .. }) => {
                let since = *since;
                match read_back(desk, &held.record, item).await? {
                    ReadBack::Shows(digest) => {
                        change(desk, id, |r| r.shows(item, digest.clone())).await?;
                    }
                    ReadBack::Absent if now.since(since) >= REGISTRY_LAG => {
                        change(desk, id, |r| r.absent(item, None)).await?;
                    }
                    ReadBack::Absent => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        }
    }
    Ok(Outcome::Unclear)
}

fn of_final(record: Option<&Record>) -> Outcome {
    match record.map(Record::name) {
        Some(StateName::Published) => Outcome::Published,
        Some(StateName::Conflict) => Outcome::Conflict,
        _ => Outcome::Unclear,
    }
}

/// The registry said yes: it counts when it shows the bytes.
pub async fn after_accepted(desk: &Desk, record: &Record, item: usize) -> Result<(), Refusal> {
    let id = record.facts.id;
    for pause in LAG {
        // Even a sleep of nothing waits for the timer's next millisecond.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if let Ok(ReadBack::Shows(digest)) = read_back(desk, record, item).await {
            return change(desk, id, |r| r.shows(item, digest.clone())).await;
        }
    }
    mark_unclear(desk, id, item).await
}

/// The registry said no. "Already exists" is neither success nor failure: read back.
pub async fn after_refused(
    desk: &Desk,
    id: RequestId,
    item: usize,
    status: u16,
    said: String,
) -> Result<Option<String>, Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(None);
    };
    match read_back(desk, &held.record, item).await {
        Ok(ReadBack::Shows(digest)) => {
            change(desk, id, |r| r.shows(item, digest.clone())).await?;
            Ok(None)
        }
        Ok(ReadBack::Absent) => {
            let text = format!("{status} {said}");
            change(desk, id, |r| r.absent(item, Some(text.clone()))).await?;
            Ok(Some(text))
        }
        Err(_) => mark_unclear(desk, id, item).await.map(|()| None),
    }
}

/// The answer was unclear.
pub async fn mark_unclear(desk: &Desk, id: RequestId, item: usize) -> Result<(), Refusal> {
    let now = desk.world.now();
    change(desk, id, |r| r.unclear(item, now)).await
}

/// Looks at everything that was on its way when the daemon stopped, and at what stayed unclear.
pub async fn resume(desk: &Desk, started: bool) -> Result<(), Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(REQUESTS, b"", after.as_deref(), 500)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, _) in rows {
            let Some(id) = ledger::id_of(&key) else {
                continue;
            };
            if let Some(held) = ledger::live(desk, id)? {
                resume_one(desk, id, &held.record, started).await;
            }
        }
    }
}

async fn resume_one(desk: &Desk, id: RequestId, record: &Record, started: bool) {
    let State::Releasing { progress, .. } = &record.state else {
        return;
    };
    for (item, p) in progress.iter().enumerate() {
        let open = match p {
            // At start nobody of this process is sending: the attempt died with its process.
            Progress::Sending { .. } if started => mark_unclear(desk, id, item).await.is_ok(),
            Progress::Sending { since, .. } => desk.world.now().since(*since) >= SENDING_MAX,
            Progress::Settling { .. } => true,
            // Sent once, absent so far: it may show up late.
            Progress::Waiting { attempt, .. } => *attempt > 0,
            _ => false,
        };
        if open && let Err(why) = settle_once(desk, id, item).await {
            tracing::warn!(%id, item, %why, "still unsettled");
        }
    }
}

async fn settle_once(desk: &Desk, id: RequestId, item: usize) -> Result<(), Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(());
    };
    let now = desk.world.now();
    let State::Releasing { progress, .. } = &held.record.state else {
        return Ok(());
    };
    let since: UnixTime = match progress.get(item) {
        Some(Progress::Settling { since, .. }) => *since,
        Some(Progress::Sending { .. }) => return mark_unclear(desk, id, item).await,
        Some(Progress::Waiting { attempt, .. }) if *attempt > 0 => now,
        _ => return Ok(()),
    };
    match read_back(desk, &held.record, item).await? {
        ReadBack::Shows(digest) => change(desk, id, |r| r.shows(item, digest.clone())).await,
        ReadBack::Absent if now.since(since) >= REGISTRY_LAG => {
            change(desk, id, |r| r.absent(item, None)).await
        }
        ReadBack::Absent => Ok(()),
    }
}

async fn read_back(desk: &Desk, record: &Record, item: usize) -> Result<ReadBack, Refusal> {
    Ok(shows(desk, record, item).await?.1)
}

/// What the registry shows of an item's package, and of the item, past its caches.
async fn shows(
    desk: &Desk,
    record: &Record,
    item: usize,
) -> Result<(Published, ReadBack), Refusal> {
    let wish: &Item = record.facts.items.get(item).ok_or(Refusal::NotFound)?;
    let Some(Registry::Npm { upstream, .. }) = desk.registries.get(&wish.registry) else {
        return Err(Refusal::NotFound);
    };
    let token = vault::for_reading(&desk.vault, &*desk.live, wish, desk.world.now())
        .map_err(Fault::from)?;
    let down = |e: ReadError| Refusal::RegistryDown(e.to_string());
    let published = upstream
        .shows(&wish.package, token.as_ref())
        .await
        .map_err(down)?;
    let back = npm::shown(&published, &wish.version).map_err(down)?;
    Ok((published, back))
}

/// Stores a transition, judging it again when somebody else was faster. A transition that the new
/// state does not allow any more has been made by somebody else.
async fn change(
    desk: &Desk,
    id: RequestId,
    make: impl Fn(Record) -> Result<Step, super::state::NotFrom>,
) -> Result<(), Refusal> {
    for _ in 0..20 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(());
        };
        let Ok(step) = make(held.record) else {
            return Ok(());
        };
        let record =
            match ledger::persist(desk, held.version, step, Batch::new(), desk.world.now()).await {
                Err(Fault::Conflict(..)) => continue,
                other => other?,
            };
        match record.name() {
            StateName::Published => {
                desk.metrics.published.inc();
                tracing::info!(%id, "published and read back");
            }
            StateName::Conflict => {
                desk.metrics.conflicts.inc();
                tracing::error!(%id, "the registry shows other bytes than the approved ones");
            }
            _ => {}
        }
        return Ok(());
    }
    Err(Refusal::Busy)
}
