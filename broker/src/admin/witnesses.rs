//! Witnesses of the log: each is shown the log's checkpoints with the proof that they continue what it has seen, and
//! cosigns them. It is somebody else's machine, so it notices what no device of the house may be left to notice: a
//! database that was rolled back, and a log of which two versions are shown.
//!
//! No witness decides anything, and nobody waits for one. What it says is believed where it is its own cosignature over
//! this log's checkpoint, and each is verified again over the tree as it is before it is given out.
//!
//! If an attacker writes here: he can have cosignatures forgotten, which witnesses give again, and an alarm told again.
//! That the log was rolled back is known to the witness, and not here.

mod post;

use crate::{
    audit::{event::Event, reason::WitnessFinding},
    desk::{Desk, Fault, passable, witnesses::Witness},
    store::{Batch, Table},
};
use post::{NotCosigned, Reply, post};
use proto::{
    api::{WitnessRefusal, WitnessState},
    log::checkpoint::Checkpoint,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Vkey: what it cosigned, and whether it refuses.
const WITNESS: Table = Table("witness");
/// Rows read at once; the configuration has fewer.
const ROWS: usize = 1_000;
/// Cosignatures that are kept of each.
const KEPT: usize = 8;
/// Pause between two looks whether the log has grown.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds until the next try after one in vain: they double, up to the second.
const PAUSE: (u64, u64) = (1, 600);
/// Milliseconds after which a log that does not grow is cosigned anew: a cosignature has its time.
const ANEW_MS: u64 = 3_600_000;
/// Calls in one try: one learns what the witness has seen, the next goes on from there.
const CALLS: usize = 3;
/// Seconds without a cosignature after which a witness counts as silent.
const SILENT: u64 = 3_600;

/// What is stored of one witness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// By size, the largest last.
    cosigned: Vec<Cosignature>,
    /// While it refuses the log.
    refused: Option<WitnessRefusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cosignature {
    size: u64,
    time: UnixTime,
    /// The signature line of the note.
    line: String,
}

impl Held {
    fn newest(&self) -> u64 {
        self.cosigned.last().map_or(0, |newest| newest.size)
    }
}

/// What a try came to.
enum Said {
    Cosigned(UnixTime, String),
    Refuses(WitnessFinding, u64),
    Nothing(NotCosigned),
}

/// Records which witnesses the configuration names, and no longer names; once, when the vault is open.
pub async fn settle(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let rows = desk.live.range(WITNESS, b"", None, ROWS)?;
    let mut known: BTreeMap<_, _> = rows.into_iter().collect();
    let (mut batch, mut events) = (Batch::new(), Vec::new());
    for witness in &desk.witnesses.all {
        let key = witness.key.to_string();
        if known.remove(key.as_bytes()).is_none() {
            let row = desk.authentic(WITNESS, key.as_bytes(), &Held::default())?;
            batch = batch.create(WITNESS, key.as_bytes(), row);
            events.push(Event::WitnessNamed { witness: key });
        }
    }
    for (key, row) in known {
        let witness = String::from_utf8_lossy(&key).into_owned();
        tracing::warn!(witness, "the configuration names this witness no longer");
        batch = batch.delete(WITNESS, key, row.version);
        events.push(Event::WitnessDropped { witness });
    }
    if !events.is_empty() {
        desk.commit(batch, &events, now).await?;
    }
    count(desk)
}

/// Shows a witness the log, if it has grown; says when to look again. One call is on its way at a time.
pub async fn look(desk: &Desk, witness: &Witness) -> Result<Duration, Fault> {
    if desk.vault.is_sealed() {
        return Ok(LOOK);
    }
    let (_, held) = stored(desk, witness)?;
    let (size, note) = desk.for_witnesses().await?;
    let health = witness.health();
    let fresh = |at| desk.world.monotonic_ms().saturating_sub(at) < ANEW_MS;
    let well = held.refused.is_none() && health.cosigned_ms.is_some_and(fresh);
    if well && health.failing.is_none() && held.newest() == size {
        return Ok(LOOK);
    }
    let seen = health.seen.unwrap_or_else(|| held.newest());
    let said = ask(desk, witness, seen, size, &note).await?;
    let now = desk.world.now();
    let in_vain = match said {
        Said::Cosigned(time, line) => {
            passable(keep(desk, witness, Cosignature { size, time, line }, now).await)?;
            witness.well(size, desk.world.monotonic_ms());
            0
        }
        Said::Refuses(finding, seen) => {
            let refusal = WitnessRefusal {
                since: now,
                entries: size,
                seen,
                forked: finding == WitnessFinding::Forked,
            };
            passable(refuse(desk, witness, refusal, finding, now).await)?;
            witness.failed("it refuses the log", Some(seen), now)
        }
        Said::Nothing(why) => {
            let why = why.to_string();
            tracing::warn!(
                witness = witness.key.name(),
                why,
                "the log was not cosigned"
            );
            witness.failed(&why, None, now)
        }
    };
    count(desk)?;
    Ok(pause(in_vain))
}

/// Until the next look.
fn pause(in_vain: u32) -> Duration {
    let seconds = PAUSE.0 << in_vain.saturating_sub(1).min(20);
    Duration::from_secs(seconds.min(PAUSE.1)).max(LOOK)
}

/// Asks for a cosignature, from what the witness is known to have seen, or says that it has.
async fn ask(
    desk: &Desk,
    witness: &Witness,
    seen: u64,
    size: u64,
    note: &str,
) -> Result<Said, Fault> {
    let mut old = if seen <= size { seen } else { 0 };
    for _ in 0..CALLS {
        let proof = if old == 0 {
            Vec::new()
        } else {
            let proof = desk.tree.consistency(&*desk.history, old, size);
            proof.map_err(|e| Fault::Store(e.to_string()))?
        };
        match post(witness, old, &proof, note).await {
            Err(why) => return Ok(Said::Nothing(why)),
            Ok(Reply::Cosigned(time, line)) => return Ok(Said::Cosigned(time, line)),
            Ok(Reply::Forked) => return Ok(Said::Refuses(WitnessFinding::Forked, old)),
            Ok(Reply::Has(seen)) => match seen.unwrap_or(old) {
                // As many entries as were shown, and other ones.
                seen if seen == old && old == size => {
                    return Ok(Said::Refuses(WitnessFinding::Forked, seen));
                }
                seen if seen == old => break,
                seen if seen <= size => old = seen,
                // What was shown may be some seconds old; the log itself is not.
                seen if seen <= desk.tree.size() => return Ok(Said::Nothing(NotCosigned::Older)),
                seen => return Ok(Said::Refuses(WitnessFinding::Shorter, seen)),
            },
        }
    }
    Ok(Said::Nothing(NotCosigned::NotUnderstood))
}

/// A cosignature that was verified: kept, in the commit that ends an alarm.
async fn keep(
    desk: &Desk,
    witness: &Witness,
    new: Cosignature,
    now: UnixTime,
) -> Result<(), Fault> {
    let (version, mut held) = stored(desk, witness)?;
    held.cosigned.retain(|old| old.size < new.size);
    held.cosigned.push(new);
    let surplus = held.cosigned.len().saturating_sub(KEPT);
    held.cosigned.drain(..surplus);
    let mut events = Vec::new();
    if held.refused.take().is_some() {
        let key = witness.key.to_string();
        tracing::warn!(witness = key, "the witness cosigns the log again");
        events.push(Event::WitnessAgreed { witness: key });
    }
    put(desk, witness, version, &held, &events, now).await
}

/// An alarm, told once for as long as it stands.
async fn refuse(
    desk: &Desk,
    witness: &Witness,
    refusal: WitnessRefusal,
    finding: WitnessFinding,
    now: UnixTime,
) -> Result<(), Fault> {
    let (version, mut held) = stored(desk, witness)?;
    if held
        .refused
        .as_ref()
        .is_some_and(|r| r.forked == refusal.forked)
    {
        return Ok(());
    }
    let (entries, seen) = (refusal.entries, refusal.seen);
    let key = witness.key.to_string();
    tracing::error!(
        witness = key,
        entries,
        seen,
        ?finding,
        "ALARM: a witness refuses the log: it was rolled back or rewritten, or the witness lies; see docs/LOG.md"
    );
    held.refused = Some(refusal);
    let event = Event::WitnessRefused {
        witness: key,
        entries,
        seen,
        finding,
    };
    put(desk, witness, version, &held, &[event], now).await
}

async fn put(
    desk: &Desk,
    witness: &Witness,
    version: Option<u64>,
    held: &Held,
    events: &[Event],
    now: UnixTime,
) -> Result<(), Fault> {
    let key = witness.key.to_string();
    let row = desk.authentic(WITNESS, key.as_bytes(), held)?;
    let batch = match version {
        None => Batch::new().create(WITNESS, key, row),
        Some(version) => Batch::new().replace(WITNESS, key, version, row),
    };
    desk.commit(batch, events, now).await.map(drop)
}

/// What is stored of a witness. A row that this broker did not write counts for nothing, and is written anew.
fn stored(desk: &Desk, witness: &Witness) -> Result<(Option<u64>, Held), Fault> {
    let key = witness.key.to_string();
    match desk.authentic_row::<Held>(WITNESS, key.as_bytes()) {
        Ok(row) => Ok(row.map_or_else(Default::default, |r| (Some(r.version), r.value))),
        Err(Fault::Damaged(_)) => {
            tracing::error!(
                witness = key,
                "what was kept of a witness is damaged; it is asked anew"
            );
            let row = desk.live.get(WITNESS, key.as_bytes())?;
            Ok((row.map(|row| row.version), Held::default()))
        }
        Err(fault) => Err(fault),
    }
}

/// A checkpoint with the cosignatures there are over it.
pub fn cosigned(desk: &Desk, size: u64, note: String) -> Result<String, Fault> {
    let lines = by_size(desk)?.remove(&size).unwrap_or_default();
    Ok(with(note, &lines).0)
}

/// The newest checkpoint that at least so many witnesses cosigned.
pub fn newest(desk: &Desk, count: usize) -> Result<Option<String>, Fault> {
    let all = made(desk, 0)?;
    let found = all.into_iter().rev().find(|one| one.count >= count);
    Ok(found.map(|one| one.note))
}

/// Of the checkpoints over more than `index` entries, the one with the most cosignatures, and of those the newest. None
/// where no witness cosigned one.
pub fn best(desk: &Desk, index: u64) -> Result<Option<(u64, String)>, Fault> {
    let all = made(desk, index.saturating_add(1))?;
    let best = all.into_iter().max_by_key(|one| (one.count, one.size));
    Ok(best.map(|one| (one.size, one.note)))
}

/// Who cosigned one size, and the lines.
type Lines<'a> = Vec<(&'a Witness, String)>;

/// A checkpoint with at least one cosignature.
struct Made {
    size: u64,
    note: String,
    count: usize,
}

/// What is kept is lines alone: the checkpoint is made anew from the tree, so that none is given out over another one.
fn made(desk: &Desk, from: u64) -> Result<Vec<Made>, Fault> {
    let (mut all, kept) = (Vec::new(), by_size(desk)?);
    if kept.is_empty() {
        return Ok(all);
    }
    let key = desk.log_key()?;
    let end = desk.tree.size().saturating_add(1);
    for (size, lines) in kept.range(from.min(end)..end) {
        let root = desk.tree.root_at(&*desk.history, *size);
        let point = Checkpoint {
            origin: desk.place.origin.clone(),
            size: *size,
            root: root.map_err(|e| Fault::Store(e.to_string()))?,
        };
        let note = point.sign(&key);
        let (note, count) = with(note.map_err(|_| Fault::Damaged("the log key"))?, lines);
        if count > 0 {
            let size = *size;
            all.push(Made { size, note, count });
        }
    }
    Ok(all)
}

/// Adds the lines that hold over this very checkpoint.
fn with(mut note: String, lines: &[(&Witness, String)]) -> (String, usize) {
    let checkpoint = note.clone();
    let mut count = 0;
    for (witness, line) in lines {
        if witness.key.taken(&checkpoint, line).is_ok() {
            note.push_str(line);
            count += 1;
        }
    }
    (note, count)
}

fn by_size(desk: &Desk) -> Result<BTreeMap<u64, Lines<'_>>, Fault> {
    let mut all: BTreeMap<u64, Lines<'_>> = BTreeMap::new();
    for witness in &desk.witnesses.all {
        for one in stored(desk, witness)?.1.cosigned {
            all.entry(one.size).or_default().push((witness, one.line));
        }
    }
    Ok(all)
}

/// How they do, for admins.
pub fn states(desk: &Desk) -> Result<Vec<WitnessState>, Fault> {
    let state = |witness: &Witness| {
        let (health, (_, held)) = (witness.health(), stored(desk, witness)?);
        let newest = held.cosigned.last();
        Ok(WitnessState {
            witness: witness.key.to_string(),
            entries: newest.map(|newest| newest.size),
            cosigned: newest.map(|newest| newest.time),
            failing: health.failing.filter(|_| held.refused.is_none()),
            refused: held.refused,
        })
    };
    desk.witnesses.all.iter().map(state).collect()
}

/// Keeps the metrics.
fn count(desk: &Desk) -> Result<(), Fault> {
    let now = desk.world.now();
    let (mut refusing, mut silent) = (0, 0);
    for witness in &desk.witnesses.all {
        refusing += i64::from(stored(desk, witness)?.1.refused.is_some());
        let failing = witness.health().failing;
        silent += i64::from(failing.is_some_and(|(since, _)| now.since(since) >= SILENT));
    }
    desk.metrics.witnesses_refusing.set(refusing);
    desk.metrics.witnesses_silent.set(silent);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_that_fails_is_asked_less_and_less_often() {
        let seconds: Vec<_> = (0..12).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert_eq!(pause(u32::MAX).as_secs(), 600);
    }
}
