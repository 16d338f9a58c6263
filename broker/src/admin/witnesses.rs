//! Witnesses of the log: each is shown the log's checkpoints with the proof that they continue what it has seen, and
//! cosigns them. It is somebody else's machine, so it notices what no device of the house may be left to notice: a
//! database that was rolled back, and a log of which two versions are shown.
//!
//! No witness decides anything, and nobody waits for one. What it says is believed where it is its own cosignature over
//! this log's checkpoint, and each is verified again over the tree as it is before it is given out.
//!
//! If an attacker writes here: he can have cosignatures forgotten, which witnesses give again, and an alarm told again.
//! That the log was rolled back is known to the witness, and not here.

mod given;
mod kept;
mod post;

use crate::{
    audit::{event::Event, reason::WitnessFinding},
    desk::{Desk, Fault, passable, witnesses::Witness},
    store::Batch,
};
pub use given::{best, cosigned, newest};
use kept::{Cosignature, Held, WITNESS, is_genuine, keep, mend, refuse, stored};
use post::{NotCosigned, Reply, post};
use proto::{
    api::{WitnessRefusal, WitnessState},
    log::cosignature::WitnessKey,
    time::UnixTime,
};
use std::time::Duration;

/// Rows read at once; the configuration has fewer.
const ROWS: usize = 1_000;
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
/// Seconds by which a witness's clock may differ from this one.
const CLOCK_SECONDS: u64 = 3_600;

/// What a try came to.
enum Said {
    Cosigned(UnixTime, String),
    Refuses(WitnessFinding, u64),
    Nothing(NotCosigned),
}

/// Records which witnesses the configuration names, and no longer names; once, when the vault is open.
pub async fn settle(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let (mut batch, mut events) = (Batch::new(), Vec::new());
    for witness in &desk.witnesses.all {
        let key = witness.key.to_string();
        // Each by its own name: who plants other rows hides none.
        if desk.live.get(WITNESS, key.as_bytes())?.is_none() {
            let row = desk.authentic(WITNESS, key.as_bytes(), &Held::named(now))?;
            batch = batch.create(WITNESS, key.as_bytes(), row);
            events.push(Event::WitnessNamed { witness: key });
        }
    }
    if !events.is_empty() {
        desk.commit(batch, &events, now).await?;
    }
    if let Err(why) = clear(desk, now).await {
        tracing::error!(%why, "rows of witnesses that the configuration does not name stay");
    }
    count(desk)
}

/// Takes away what is kept of witnesses that the configuration does not name, or that never were any.
async fn clear(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let (mut batch, mut events) = (Batch::new(), Vec::new());
    for (key, row) in desk.live.range(WITNESS, b"", None, ROWS)? {
        let named = str::from_utf8(&key).ok();
        let named = named.and_then(|key| key.parse::<WitnessKey>().ok());
        let own = |key: &WitnessKey| desk.witnesses.all.iter().any(|one| one.key == *key);
        if named.as_ref().is_some_and(own) {
            continue;
        }
        batch = batch.delete(WITNESS, &key, row.version);
        // What somebody else wrote there gets no line of the log.
        if let Some(key) = named.filter(|key| is_genuine(desk, key)) {
            let witness = key.to_string();
            tracing::warn!(witness, "the configuration names this witness no longer");
            events.push(Event::WitnessDropped { witness });
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    desk.commit(batch, &events, now).await.map(drop)
}

/// Shows a witness the log, if it has grown; says when to look again. One call is on its way at a time. That nothing could
/// be asked is told as if nothing was answered.
pub async fn look(desk: &Desk, witness: &Witness) -> Result<Duration, Fault> {
    if desk.vault.is_sealed() {
        return Ok(LOOK);
    }
    match shown(desk, witness).await {
        Err(Fault::Sealed) => Err(Fault::Sealed),
        Err(why) => {
            tracing::error!(%why, witness = witness.key.name(), "a witness is not asked");
            let why = "the broker could not ask it: look into its log";
            let in_vain = witness.failed(why, None, desk.world.now());
            count(desk)?;
            Ok(pause(in_vain))
        }
        done => done,
    }
}

async fn shown(desk: &Desk, witness: &Witness) -> Result<Duration, Fault> {
    mend(desk, witness).await?;
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
        Said::Cosigned(time, _) if time.0.abs_diff(now.0) > CLOCK_SECONDS => {
            tracing::warn!(witness = witness.key.name(), time = time.0, "its clock");
            let why = "its clock differs from this broker's by more than an hour";
            witness.failed(why, Some(size), now)
        }
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
    let mut unproved = false;
    for _ in 0..CALLS {
        let mut proof = Vec::new();
        if old > 0 {
            match desk.tree.consistency(&*desk.history, old, size) {
                Ok(made) => proof = made,
                // Somebody damaged the tree, perhaps so that nobody is asked. With nothing to prove, the witness still says
                // how much it has seen.
                Err(why) if !unproved => {
                    tracing::error!(%why, "ALARM: the log's tree is damaged: what a witness has seen cannot be proved to it");
                    (unproved, old) = (true, 0);
                }
                Err(_) => return Ok(Said::Nothing(NotCosigned::Unproved)),
            }
        }
        match post(witness, old, &proof, note).await {
            Err(why) => return Ok(Said::Nothing(why)),
            Ok(Reply::Cosigned(time, line)) => return Ok(Said::Cosigned(time, line)),
            Ok(Reply::Forked) => return Ok(Said::Refuses(WitnessFinding::Forked, old)),
            // Something in between may have answered; the witness itself names what it has seen.
            Ok(Reply::Has(None)) if old > 0 => old = 0,
            Ok(Reply::Has(None)) => break,
            // As many entries as were shown, and other ones.
            Ok(Reply::Has(Some(seen))) if seen == old && old == size => {
                return Ok(Said::Refuses(WitnessFinding::Forked, seen));
            }
            Ok(Reply::Has(Some(seen))) if seen == old => break,
            Ok(Reply::Has(Some(seen))) if seen <= size => old = seen,
            // What was shown may be some seconds old; the log itself is not.
            Ok(Reply::Has(Some(seen))) if seen <= desk.tree.size() => {
                return Ok(Said::Nothing(NotCosigned::Older));
            }
            Ok(Reply::Has(Some(seen))) => return Ok(Said::Refuses(WitnessFinding::Shorter, seen)),
        }
    }
    Ok(Said::Nothing(NotCosigned::NotUnderstood))
}

/// How they do, for admins.
pub fn states(desk: &Desk) -> Result<Vec<WitnessState>, Fault> {
    let state = |witness: &Witness| {
        let (health, (_, held)) = (witness.health(), stored(desk, witness)?);
        let newest = held.cosigned.last();
        let failing = health.failing.filter(|_| held.refused.is_none());
        Ok(WitnessState {
            witness: witness.key.to_string(),
            entries: newest.map(|newest| newest.size),
            cosigned: newest.map(|newest| newest.time),
            failing: failing.map(|(since, why)| (silent_since(&held, since), why)),
            refused: held.refused,
        })
    };
    desk.witnesses.all.iter().map(state).collect()
}

/// Since when a witness that fails is silent: a restart of the broker is no word of the witness.
fn silent_since(held: &Held, failing: UnixTime) -> UnixTime {
    held.kept.map_or(failing, |kept| kept.min(failing))
}

/// Keeps the metrics.
fn count(desk: &Desk) -> Result<(), Fault> {
    let now = desk.world.now();
    let (mut refusing, mut silent) = (0, 0);
    for witness in &desk.witnesses.all {
        let (_, held) = stored(desk, witness)?;
        refusing += i64::from(held.refused.is_some());
        let failing = witness.health().failing.filter(|_| held.refused.is_none());
        let long = |(since, _): &(UnixTime, String)| now.since(silent_since(&held, *since));
        silent += i64::from(failing.as_ref().is_some_and(|one| long(one) >= SILENT));
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
