//! Settling: whatever the registry answered, what it *shows* decides. A restart, a time-out and a
//! normal publish all come through here.

use super::{
    Refusal, confirm, conflict, fetch,
    ledger::{self, REQUESTS},
    stages,
    state::{FileAt, Progress, Record, State, Step},
    tried,
    unseen::{self, Missing},
};
use crate::{
    audit::event::{Event, leaf},
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
/// How long an upload's answer waits for the registry's second factor, in seconds: less than the patience
/// of any client (Yarn: 60 s).
const CONFIRMING_MAX: u64 = 50;
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
    /// The registry wants its own second factor, and people are asked for it.
    Confirming,
    /// It said no to what it held back; its words, or ours.
    Refused(String),
    /// Not known yet.
    Unclear,
}

/// Brings a file to a clear state: waits for an attempt on its way, reads back an unclear one.
pub async fn settled(desk: &Desk, id: RequestId, at: FileAt) -> Result<Outcome, Refusal> {
    let mut changes = desk.waiters.subscribe(id);
    let mut confirming = None;
    for _ in 0..100 {
        let Some(held) = ledger::live(desk, id)? else {
            return of_final(ledger::find(desk, id)?.as_ref());
        };
        if !matches!(held.record.state, State::Releasing { .. }) {
            return of_final(Some(&held.record));
        }
        let now = desk.world.now();
        match held.record.progress(at) {
            None => return Err(Refusal::NotFound),
            Some(Progress::Published { .. }) => return Ok(Outcome::Published),
            Some(Progress::Conflict { .. }) => return Ok(Outcome::Conflict),
            Some(Progress::Held { hold, .. })
                if hold.stage.is_some() || desk.factors.busy(id, at.numbers()) =>
            {
                if now.since(*confirming.get_or_insert(now)) >= CONFIRMING_MAX {
                    return Ok(Outcome::Confirming);
                }
                let _ = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
            }
            // What was held back is refused: it is not sent again without anybody's asking.
            Some(Progress::Waiting {
                said: Some(said), ..
            }) if confirming.is_some() => return Ok(Outcome::Refused(said.clone())),
            Some(Progress::Waiting { .. } | Progress::Held { .. }) => {
                // Somebody may have published it by another way, or an old copy of our store forgot.
                if let Some(shown) = may_send(desk, id, at).await? {
                    return Ok(Outcome::MaySend(shown));
                }
            }
            Some(Progress::Sending { since, .. }) if now.since(*since) < SENDING_MAX => {
                // A twin of this upload is on its way; its outcome is ours.
                let _ = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
            }
            Some(Progress::Sending { .. }) => mark_unclear(desk, id, at).await?,
            Some(Progress::Settling { since, .. }) => {
                let since = *since;
                let (published, back) = shows(desk, &held.record, at).await?;
                match back {
                    ReadBack::Shows(digest) => {
                        saw(desk, &held.record, at, &published, digest).await?;
                    }
                    ReadBack::Absent => {
                        if !absent(desk, &held.record, at, since).await? {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
            }
        }
    }
    Ok(Outcome::Unclear)
}

/// What the registry shows of the package beside the file, when it does not show the file itself.
/// `None`: it does, and the state says so.
pub(super) async fn may_send(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
) -> Result<Option<Vec<VersionText>>, Refusal> {
    let Some(held) = ledger::live(desk, id)? else {
        return Ok(None);
    };
    let (published, back) = shows(desk, &held.record, at).await?;
    match back {
        ReadBack::Absent => {
            let wish = held.record.facts.items.get(at.item);
            Ok(Some(published.beside(wish.ok_or(Refusal::NotFound)?)))
        }
        ReadBack::Shows(digest) => {
            saw(desk, &held.record, at, &published, digest).await?;
            Ok(None)
        }
    }
}

/// Whether the registry shows a file, with whatever bytes. Changes nothing.
pub(super) async fn is_out(desk: &Desk, record: &Record, at: FileAt) -> Result<bool, Refusal> {
    let (_, back) = shows(desk, record, at).await?;
    Ok(matches!(back, ReadBack::Shows(_)))
}

/// The registry shows nothing of a file whose attempt was unclear. Whether that is clear now: its
/// stage was found, or the registry's lag is over.
async fn absent(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    since: UnixTime,
) -> Result<bool, Refusal> {
    let id = record.facts.id;
    let hold = record.progress(at).and_then(Progress::hold);
    if hold.is_none_or(|h| h.stage.is_none()) {
        match stages::find(desk, record, at).await? {
            stages::Found::Nothing => {}
            stages::Found::Ours(stage) => {
                confirm::hold(desk, id, at, Some(stage)).await?;
                return Ok(true);
            }
            stages::Found::Occupied(said) => {
                change(desk, id, |r| r.unheld(at, said.clone())).await?;
                return Ok(true);
            }
        }
    }
    if !had_its_time(since, desk.world.now(), lag(desk, record, at)) {
        return Ok(false);
    }
    change(desk, id, |r| r.absent(at, None)).await?;
    Ok(true)
}

/// The registry shows a file. People approved its tag too: who holds a token may move tags, so one that
/// points elsewhere is an alarm.
async fn saw(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    published: &Published,
    digest: Digest,
) -> Result<(), Refusal> {
    let id = record.facts.id;
    let Some(item) = record.facts.items.get(at.item) else {
        return Err(Refusal::NotFound);
    };
    let file = item.files.get(at.file).ok_or(Refusal::NotFound)?;
    let same = file.digest == digest;
    if !same {
        return Box::pin(conflict::saw(desk, record, at, published, &digest)).await;
    }
    let registry = desk.registries.get(&item.registry);
    let tagged = registry.is_some_and(|r| r.kind().row().tags);
    let tag = item.tag.as_ref().map_or("latest", |t| t.as_str());
    let elsewhere = tagged && published.tags.get(tag) != Some(&item.version);
    let event = Event::TagElsewhere {
        request: id,
        item: at.numbers().0,
    };
    let event = elsewhere.then_some(&event);
    let Some(after) = shown(desk, id, at, &digest, event).await? else {
        return Ok(());
    };
    if elsewhere {
        desk.metrics.alarms.inc();
        tracing::error!(%id, at.item, "the approved tag points elsewhere");
    }
    // What was sent or refused since the registry was asked counts, too.
    if let Some(token) = record.tries(at).filter(|t| after.tries(at) == Some(t)) {
        Box::pin(tried::taken(desk, (id, item), token)).await;
    }
    Ok(())
}

fn of_final(record: Option<&Record>) -> Result<Outcome, Refusal> {
    match record.map(|r| (r.name(), r)) {
        Some((StateName::Published, _)) => Ok(Outcome::Published),
        Some((StateName::Conflict, _)) => Ok(Outcome::Conflict),
        Some((name, r)) if name.is_final() => Err(Refusal::State(name, r.status().reason)),
        _ => Ok(Outcome::Unclear),
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
        if let Ok((published, ReadBack::Shows(digest))) = shows(desk, record, at).await {
            return saw(desk, record, at, &published, digest).await;
        }
    }
    mark_unclear(desk, id, at).await
}

/// The registry said no. "Already exists" is neither success nor failure: read back. Whatever it shows, the token was
/// not taken this time: the bytes came there by another way.
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
    let record = held.record.with_token(at, None);
    match shows(desk, &record, at).await {
        Ok((published, ReadBack::Shows(digest))) => {
            saw(desk, &record, at, &published, digest).await?;
            Ok(None)
        }
        Ok((_, ReadBack::Absent)) => {
            let text = format!("{status} {said}");
            change(desk, id, |r| r.absent(at, Some(text.clone()))).await?;
            Ok(Some(text))
        }
        Err(_) => {
            let now = desk.world.now();
            let unclear = |r: Record| r.with_token(at, None).unclear(at, now);
            change(desk, id, unclear).await.map(|()| None)
        }
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
            if let Some(held) = ledger::among(desk, id)? {
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
            // Its own people may publish what the registry holds back by themselves.
            Some(Progress::Settling { .. } | Progress::Held { .. }) => true,
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
        Some(Progress::Held { .. }) => now,
        _ => return Ok(()),
    };
    let settling = matches!(held.record.progress(at), Some(Progress::Settling { .. }));
    let (published, back) = shows(desk, &held.record, at).await?;
    match back {
        ReadBack::Shows(digest) => saw(desk, &held.record, at, &published, digest).await,
        ReadBack::Absent if settling => absent(desk, &held.record, at, since).await.map(drop),
        ReadBack::Absent => Ok(()),
    }
}

/// Whether a registry that shows nothing has had its time (`lag`, in seconds) to show what may have reached it
/// at `since`. Before that the bytes are not sent again, after it they may be.
fn had_its_time(since: UnixTime, now: UnixTime, lag: u64) -> bool {
    now.since(since) >= lag
}

/// How long the file's registry may take to show it, in seconds.
fn lag(desk: &Desk, record: &Record, at: FileAt) -> u64 {
    let item = record.facts.items.get(at.item);
    item.and_then(|item| desk.upstream(&item.registry))
        .map_or(u64::MAX, |upstream| upstream.lag().as_secs())
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
        .shows_file(wish, file, token.as_ref())
        .await
        .map_err(down)?;
    let back = published.file(&wish.version, file).map_err(down)?;
    Ok((published, back))
}

/// The registry shows this digest for a file. Where it is the approved one, the same commit orders the
/// artifact itself to be fetched.
async fn shown(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    digest: &Digest,
    beside: Option<&Event>,
) -> Result<Option<Record>, Refusal> {
    change_with(
        desk,
        id,
        |r| r.shows(at, digest.clone()),
        |record, now| {
            let batch = fetch::ordered(record, at, digest, now);
            let batch = match beside {
                Some(event) => batch.append(leaf(event, now)),
                None => batch,
            };
            unseen::seen(desk, batch, id, at, Missing::File)
        },
    )
    .await
}

pub(super) async fn change(
    desk: &Desk,
    id: RequestId,
    make: impl Fn(Record) -> Result<Step, super::state::NotFrom>,
) -> Result<(), Refusal> {
    let nothing = |_: &Record, _| Ok(Batch::new());
    change_with(desk, id, make, nothing).await.map(drop)
}

/// Stores a transition, judging it again when somebody else was faster; the record as it is then. A transition that the
/// new state does not allow any more has been made by somebody else: then there is none.
pub(super) async fn change_with(
    desk: &Desk,
    id: RequestId,
    make: impl Fn(Record) -> Result<Step, super::state::NotFrom>,
    more: impl Fn(&Record, UnixTime) -> Result<Batch, Fault>,
) -> Result<Option<Record>, Refusal> {
    for _ in 0..20 {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(None);
        };
        let Ok(step) = make(held.record) else {
            return Ok(None);
        };
        let now = desk.world.now();
        let batch = more(step.record(), now)?;
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
        return Ok(Some(record));
    }
    Err(Refusal::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Address, KINDS, Timeouts};

    #[test]
    fn nothing_is_sent_again_before_the_registry_had_its_time() {
        let then = UnixTime(1_000_000);
        for (name, seconds) in [("npm", 10), ("pypi", 10), ("crates", 90), ("rubygems", 90)] {
            let row = KINDS.iter().find(|r| r.name == name).unwrap();
            let url: url::Url = "https://registry.example/".parse().unwrap();
            let mut address = Address::at(url.clone());
            address.upload = Some(url);
            let upstream = row.connect.unwrap()(address, Timeouts::default());
            let Ok(upstream) = upstream else {
                panic!("{name}");
            };
            let lag = upstream.lag().as_secs();
            assert!(lag >= seconds, "{name}: {lag}");
            assert!(!had_its_time(then, then, lag));
            assert!(!had_its_time(then, then.after(lag - 1), lag), "{name}");
            assert!(had_its_time(then, then.after(lag), lag), "{name}");
            // A clock that went back gives no time away.
            assert!(!had_its_time(then, UnixTime(0), lag), "{name}");
        }
    }
}
