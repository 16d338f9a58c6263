//! After a publish: the artifact itself is downloaded and hashed, in the background.
//!
//! What the registry *shows* has decided the request already (`settle`), and nobody waits for this. The
//! index can be right and the bytes behind it wrong, so each published file is fetched once, and what came
//! of it is an event: the approved bytes, other bytes (the package is frozen), nothing in time (an alarm),
//! or not asked, since the file lies at an origin that the configuration does not name.

use super::{
    alarm,
    ledger::{self, Seen},
    state::{FileAt, Record},
    unseen::{self, Missing},
};
use crate::{
    audit::{event::Event, reason::FreezeCause},
    desk::{Desk, Fault, passable},
    registry::Fetched,
    store::{Batch, Row, Table},
    vault::release as vault,
};
use futures_util::{StreamExt as _, stream};
use proto::{
    digest::Digest,
    request::{File, Item},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Files to fetch: when (seconds), request, item and file (all big-endian).
pub const FETCHES: Table = Table("fetch");

/// Seconds before the next try; the last one counts for all that follow.
const PAUSES: [u64; 9] = [1, 2, 5, 10, 30, 60, 120, 300, 900];
/// Seconds after which a file that cannot be had is an alarm. Caches of registries live some minutes.
const OVERDUE: u64 = 3600;
/// Seconds after which it is not tried any more.
const GIVE_UP: u64 = 24 * 3600;
/// Files fetched at once.
const AT_ONCE: usize = 4;
/// Rows looked at in one sweep.
const LOOK_MAX: usize = 100;

/// One file that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wanted {
    /// When it was published.
    since: UnixTime,
    /// Tries so far.
    tries: usize,
    /// What the last try gave, if it was other bytes: one broken download is no proof.
    other: Option<String>,
    /// Whether the alarm was given that it cannot be had.
    overdue: bool,
}

/// Orders a file to be fetched: part of the commit that records its publish.
pub fn ordered(record: &Record, at: FileAt, shown: &Digest, now: UnixTime) -> Batch {
    let file = record.facts.items.get(at.item);
    let file = file.and_then(|item| item.files.get(at.file));
    let wanted = Wanted {
        since: now,
        tries: 0,
        other: None,
        overdue: false,
    };
    match (file, serde_json::to_vec(&wanted)) {
        (Some(file), Ok(value)) if file.digest == *shown => {
            Batch::new().create(FETCHES, key(record, at, now), value)
        }
        // Other bytes are a conflict already.
        _ => Batch::new(),
    }
}

/// Fetches what is due.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let mut due = desk.live.range(FETCHES, b"", None, LOOK_MAX)?;
    due.retain(|(key, _)| time_of(key).is_none_or(|at| at <= now));
    let results = stream::iter(due)
        .map(|(key, row)| async move { one(desk, &key, &row).await })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    results.into_iter().collect()
}

async fn one(desk: &Desk, key: &[u8], row: &Row) -> Result<(), Fault> {
    let found = target(desk, key)?;
    let wanted: Option<Wanted> = serde_json::from_slice(&row.value).ok();
    let drop_row = || Batch::new().delete(FETCHES, key, row.version);
    let (Some((record, at)), Some(mut wanted)) = (found, wanted) else {
        tracing::error!("a row of what to fetch is damaged; it is dropped");
        return passable(
            desk.commit(drop_row(), &[], desk.world.now())
                .await
                .map(drop),
        );
    };
    let Some((item, file)) = item_and_file(&record, at) else {
        return passable(
            desk.commit(drop_row(), &[], desk.world.now())
                .await
                .map(drop),
        );
    };
    let got = fetched(desk, item, file).await?;
    let now = desk.world.now();
    let (request, (at_item, at_file)) = (record.facts.id, at.numbers());
    let late = now.since(wanted.since);
    let mut events = Vec::new();
    let mut done = false;
    let mut other = None;
    match got {
        Fetched::Same => {
            done = true;
            tracing::info!(%request, name = %item.name(), "the artifact was downloaded: the approved bytes");
            events.push(Event::ArtifactFetched {
                request,
                item: at_item,
                file: at_file,
                digest: file.digest.clone(),
            });
        }
        Fetched::Elsewhere => {
            done = true;
            tracing::warn!(%request, name = %item.name(),
                "the artifact was not downloaded: it lies at an origin that `downloads` of the configuration does not name");
            events.push(Event::ArtifactElsewhere {
                request,
                item: at_item,
                file: at_file,
            });
        }
        Fetched::Other(digest) => {
            let said = digest
                .as_ref()
                .map_or("longer".to_owned(), Digest::to_string);
            if wanted.other.as_ref() == Some(&said) {
                let seen = Seen {
                    cause: FreezeCause::ArtifactDiffers,
                    name: item.name(),
                };
                let event = Event::ArtifactDiffers {
                    request,
                    item: at_item,
                    file: at_file,
                    fetched: digest,
                };
                let package = item.package_key();
                return passable(
                    alarm::freeze(desk, &package, &seen, &[event], drop_row, now).await,
                );
            }
            other = Some(said);
        }
        Fetched::Absent if late >= OVERDUE && !wanted.overdue => {
            wanted.overdue = true;
            desk.metrics.alarms.inc();
            tracing::error!(%request, name = %item.name(),
                "ALARM: the artifact that was published cannot be downloaded");
            events.push(Event::ArtifactOverdue {
                request,
                item: at_item,
                file: at_file,
            });
        }
        Fetched::Absent => {}
    }
    let mut batch = drop_row();
    if done {
        batch = unseen::seen(desk, batch, request, at, Missing::Artifact)?;
    } else if !events.is_empty() {
        let missing = (Missing::Artifact, "published, and nobody can download it");
        batch = unseen::tell(desk, batch, (request, at), item, missing, now)?;
    }
    if !done && late < GIVE_UP {
        let pause = PAUSES.get(wanted.tries).or(PAUSES.last());
        let next = now.after(pause.copied().unwrap_or(OVERDUE));
        wanted.tries = wanted.tries.saturating_add(1);
        wanted.other = other;
        let value = serde_json::to_vec(&wanted).map_err(|_| Fault::Damaged("a fetch"))?;
        batch = batch.create(FETCHES, self::key(&record, at, next), value);
    }
    passable(desk.commit(batch, &events, now).await.map(drop))
}

async fn fetched(desk: &Desk, item: &Item, file: &File) -> Result<Fetched, Fault> {
    let Some(upstream) = desk.upstream(&item.registry) else {
        // The configuration has it no more.
        return Ok(Fetched::Elsewhere);
    };
    let token = vault::for_reading(
        &desk.vault,
        &*desk.live,
        &item.registry,
        &item.package,
        desk.world.now(),
    )?;
    let got = upstream
        .fetch(&item.package, &item.version, file, None, token.as_ref())
        .await;
    Ok(got.unwrap_or_else(|why| {
        tracing::warn!(name = %item.name(), %why, "the artifact could not be downloaded yet");
        Fetched::Absent
    }))
}

fn item_and_file(record: &Record, at: FileAt) -> Option<(&Item, &File)> {
    let item = record.facts.items.get(at.item)?;
    Some((item, item.files.get(at.file)?))
}

fn key(record: &Record, at: FileAt, due: UnixTime) -> Vec<u8> {
    let mut key = ledger::timed(due, record.facts.id);
    let (item, file) = at.numbers();
    key.extend_from_slice(&item.to_be_bytes());
    key.extend_from_slice(&file.to_be_bytes());
    key
}

fn time_of(key: &[u8]) -> Option<UnixTime> {
    let (time, _) = key.split_first_chunk::<8>()?;
    Some(UnixTime(u64::from_be_bytes(*time)))
}

/// The file that a key names.
fn target(desk: &Desk, key: &[u8]) -> Result<Option<(Record, FileAt)>, Fault> {
    let number = |from: usize| {
        let bytes = key.get(from..from + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let parts = key.get(8..24).and_then(ledger::id_of);
    let (Some(id), Some(item), Some(file)) = (parts, number(24), number(28)) else {
        return Ok(None);
    };
    Ok(ledger::find(desk, id)?.map(|record| (record, FileAt { item, file })))
}
