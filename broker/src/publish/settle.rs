//! Settling: whatever the registry answered, what it *shows* decides. A restart, a time-out and a
//! normal publish all come through here.

use super::{
    Refusal, fetch,
    ledger::{self, REQUESTS},
    state::{FileAt, Progress, Record, State, Step},
};
use crate::{
    desk::{Desk, Fault},
    registry::{Published, ReadBack, ReadError},
    store::Batch,
    vault::release as vault,
};
use proto::{
    api::StateName,
    digest::Digest,
    ids::{RequestId, VersionText},
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
/// Another task of this daemon may be sending for this long, in seconds.
const SENDING_MAX: u64 = 150;

/// How a file stands at the registry.
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

/// Brings a file to a clear state: waits for an attempt on its way, reads back an unclear one.
pub async fn settled(desk: &Desk, id: RequestId, at: FileAt) -> Result<Outcome, Refusal> {
    let mut changes = desk.waiters.subscribe(id);
    for _ in 0..100 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(of_final(ledger::find(desk, id)?.as_ref()));
        };
        if !matches!(held.record.state, State::Releasing { .. }) {
            return Ok(of_final(Some(&held.record)));
        }
        let now = desk.world.now();
        match held.record.progress(at) {
            None => return Err(Refusal::NotFound),
            Some(Progress::Published { .. }) => return Ok(Outcome::Published),
            Some(Progress::Conflict { .. }) => return Ok(Outcome::Conflict),
            Some(Progress::Waiting { .. }) => {
                // Somebody may have published it by another way, or an old copy of our store forgot.
                let (published, back) = shows(desk, &held.record, at).await?;
                return match back {
                    ReadBack::Absent => {
                        let wish = held.record.facts.items.get(at.item);
                        let wish = wish.ok_or(Refusal::NotFound)?;
                        Ok(Outcome::MaySend(published.beside(wish)))
                    }
                    ReadBack::Shows(digest) => {
                        shown(desk, id, at, &digest).await?;
                        continue;
                    }
                };
            }
            Some(Progress::Sending { since, .. }) if now.since(*since) < SENDING_MAX => {
                // A twin of this upload is on its way; its outcome is ours.
                let _ = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
            }
            Some(Progress::Sending { .. }) => mark_unclear(desk, id, at).await?,
            Some(Progress::Settling { since, .. }) => {
                let since = *since;
                match read_back(desk, &held.record, at).await? {
                    ReadBack::Shows(digest) => {
                        shown(desk, id, at, &digest).await?;
                    }
                    ReadBack::Absent if now.since(since) >= lag(desk, &held.record, at) => {
                        change(desk, id, |r| r.absent(at, None)).await?;
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
pub async fn after_accepted(desk: &Desk, record: &Record, at: FileAt) -> Result<(), Refusal> {
    let id = record.facts.id;
    for pause in LAG {
        // Even a sleep of nothing waits for the timer's next millisecond.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if let Ok(ReadBack::Shows(digest)) = read_back(desk, record, at).await {
            return shown(desk, id, at, &digest).await;
        }
    }
    mark_unclear(desk, id, at).await
}

/// The registry said no. "Already exists" is neither success nor failure: read back.
pub async fn after_refused(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    status: u16,
    said: String,
) -> Result<Option<String>, Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(None);
    };
    match read_back(desk, &held.record, at).await {
        Ok(ReadBack::Shows(digest)) => {
            shown(desk, id, at, &digest).await?;
            Ok(None)
        }
        Ok(ReadBack::Absent) => {
            let text = format!("{status} {said}");
            change(desk, id, |r| r.absent(at, Some(text.clone()))).await?;
            Ok(Some(text))
        }
        Err(_) => mark_unclear(desk, id, at).await.map(|()| None),
    }
}

/// The answer was unclear.
pub async fn mark_unclear(desk: &Desk, id: RequestId, at: FileAt) -> Result<(), Refusal> {
    let now = desk.world.now();
    change(desk, id, |r| r.unclear(at, now)).await
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
    if !matches!(record.state, State::Releasing { .. }) {
        return;
    }
    for at in record.files() {
        let open = match record.progress(at) {
            // At start nobody of this process is sending: the attempt died with its process.
            Some(Progress::Sending { .. }) if started => mark_unclear(desk, id, at).await.is_ok(),
            Some(Progress::Sending { since, .. }) => desk.world.now().since(*since) >= SENDING_MAX,
            Some(Progress::Settling { .. }) => true,
            // Sent once, absent so far: it may show up late.
            Some(Progress::Waiting { attempt, .. }) => *attempt > 0,
            _ => false,
        };
        if open && let Err(why) = settle_once(desk, id, at).await {
            tracing::warn!(%id, at.item, at.file, %why, "still unsettled");
        }
    }
}

async fn settle_once(desk: &Desk, id: RequestId, at: FileAt) -> Result<(), Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(());
    };
    let now = desk.world.now();
    if !matches!(held.record.state, State::Releasing { .. }) {
        return Ok(());
    }
    let since: UnixTime = match held.record.progress(at) {
        Some(Progress::Settling { since, .. }) => *since,
        Some(Progress::Sending { .. }) => return mark_unclear(desk, id, at).await,
        Some(Progress::Waiting { attempt, .. }) if *attempt > 0 => now,
        _ => return Ok(()),
    };
    match read_back(desk, &held.record, at).await? {
        ReadBack::Shows(digest) => shown(desk, id, at, &digest).await,
        ReadBack::Absent if now.since(since) >= lag(desk, &held.record, at) => {
            change(desk, id, |r| r.absent(at, None)).await
        }
        ReadBack::Absent => Ok(()),
    }
}

/// How long the file's registry may take to show it, in seconds.
fn lag(desk: &Desk, record: &Record, at: FileAt) -> u64 {
    let item = record.facts.items.get(at.item);
    item.and_then(|item| desk.upstream(&item.registry))
        .map_or(u64::MAX, |upstream| upstream.lag().as_secs())
}

async fn read_back(desk: &Desk, record: &Record, at: FileAt) -> Result<ReadBack, Refusal> {
    Ok(shows(desk, record, at).await?.1)
}

/// What the registry shows of an item's package, and of the file, past its caches.
async fn shows(desk: &Desk, record: &Record, at: FileAt) -> Result<(Published, ReadBack), Refusal> {
    let wish = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
    let file = wish.files.get(at.file).ok_or(Refusal::NotFound)?;
    let upstream = desk.upstream(&wish.registry).ok_or(Refusal::NotFound)?;
    let token = vault::for_reading(
        &desk.vault,
        &*desk.live,
        &wish.registry,
        &wish.package,
        desk.world.now(),
    )
    .map_err(Fault::from)?;
    let down = |e: ReadError| Refusal::RegistryDown(e.to_string());
    let published = upstream
        .shows(&wish.package, token.as_ref())
        .await
        .map_err(down)?;
    let back = published.file(&wish.version, file).map_err(down)?;
    Ok((published, back))
}

/// The registry shows this digest for a file. Where it is the approved one, the same commit orders the
/// artifact itself to be fetched.
async fn shown(desk: &Desk, id: RequestId, at: FileAt, digest: &Digest) -> Result<(), Refusal> {
    change_with(
        desk,
        id,
        |r| r.shows(at, digest.clone()),
        |record, now| fetch::ordered(record, at, digest, now),
    )
    .await
}

async fn change(
    desk: &Desk,
    id: RequestId,
    make: impl Fn(Record) -> Result<Step, super::state::NotFrom>,
) -> Result<(), Refusal> {
    change_with(desk, id, make, |_, _| Batch::new()).await
}

/// Stores a transition, judging it again when somebody else was faster. A transition that the new
/// state does not allow any more has been made by somebody else.
async fn change_with(
    desk: &Desk,
    id: RequestId,
    make: impl Fn(Record) -> Result<Step, super::state::NotFrom>,
    more: impl Fn(&Record, UnixTime) -> Batch,
) -> Result<(), Refusal> {
    for _ in 0..20 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(());
        };
        let Ok(step) = make(held.record) else {
            return Ok(());
        };
        let now = desk.world.now();
        let batch = more(step.record(), now);
        let record = match ledger::persist(desk, held.version, step, batch, now).await {
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
