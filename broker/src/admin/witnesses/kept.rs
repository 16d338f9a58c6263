//! What is kept of each witness.

use super::given::{Lines, by_size};
use crate::{
    audit::{event::Event, reason::WitnessFinding},
    desk::{Desk, Fault, witnesses::Witness},
    store::{Batch, Table},
};
use proto::{api::WitnessRefusal, log::cosignature::WitnessKey, time::UnixTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Vkey: what it cosigned, and whether it refuses.
pub(super) const WITNESS: Table = Table("witness");
/// Cosignatures that are kept of each, and one more.
const KEPT: usize = 8;
/// Seconds between two alarms of one witness in the log, at least.
const TOLD_SECONDS: u64 = 3_600;

/// What is stored of one witness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// By size, the largest last.
    pub(super) cosigned: Vec<Cosignature>,
    /// While it refuses the log.
    pub(super) refused: Option<WitnessRefusal>,
    /// When the last cosignature came, or the configuration named it first, by this broker's clock.
    pub(super) kept: Option<UnixTime>,
    /// The last alarm of the log.
    told: Option<Told>,
}

/// What the log has of a witness that refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    at: UnixTime,
    /// Until it cosigns again.
    stands: bool,
}

impl Told {
    /// It is over; says whether it stood.
    const fn ends(&mut self) -> bool {
        std::mem::replace(&mut self.stands, false)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cosignature {
    pub(super) size: u64,
    pub(super) time: UnixTime,
    /// The signature line of the note.
    pub(super) line: String,
}

impl Held {
    /// Of a witness that the configuration names since then.
    pub(super) fn named(now: UnixTime) -> Self {
        Self {
            kept: Some(now),
            ..Self::default()
        }
    }

    /// Keeps the newest, and of those before the one that most witnesses cosigned: while one is away the others go on, and
    /// what all of them had is not lost.
    fn shorten(&mut self, lines: &BTreeMap<u64, Lines<'_>>) {
        let surplus = self.cosigned.len().saturating_sub(KEPT);
        let count = |one: &Cosignature| lines.get(&one.size).map_or(0, Vec::len);
        let before = self.cosigned.drain(..surplus);
        let best = before.max_by_key(|one| (count(one), one.size));
        self.cosigned.splice(0..0, best);
    }

    pub(super) fn newest(&self) -> u64 {
        self.cosigned.last().map_or(0, |newest| newest.size)
    }
}

/// A cosignature that was verified: kept, in the commit that ends an alarm.
pub(super) async fn keep(
    desk: &Desk,
    witness: &Witness,
    new: Cosignature,
    now: UnixTime,
) -> Result<(), Fault> {
    let (version, mut held) = stored(desk, witness)?;
    held.cosigned.retain(|old| old.size < new.size);
    held.cosigned.push(new);
    held.kept = Some(now);
    held.shorten(&by_size(desk)?);
    held.refused = None;
    let mut events = Vec::new();
    if held.told.as_mut().is_some_and(Told::ends) {
        let key = witness.key.to_string();
        tracing::warn!(witness = key, "the witness cosigns the log again");
        events.push(Event::WitnessAgreed { witness: key });
    }
    put(desk, witness, version, &held, &events, now).await
}

/// An alarm. Admins see it at once; the log has it once for as long as it stands, and at most once an hour of each: who
/// says yes and no by turns fills no log.
pub(super) async fn refuse(
    desk: &Desk,
    witness: &Witness,
    refusal: WitnessRefusal,
    finding: WitnessFinding,
    now: UnixTime,
) -> Result<(), Fault> {
    let (version, mut held) = stored(desk, witness)?;
    let same = |r: &WitnessRefusal| (r.forked, r.seen) == (refusal.forked, refusal.seen);
    let known = held.refused.as_ref().is_some_and(same);
    let early = |told: &Told| told.stands || now.since(told.at) < TOLD_SECONDS;
    let is_told = held.told.as_ref().is_some_and(early);
    if known && is_told {
        return Ok(());
    }
    let (entries, seen) = (refusal.entries, refusal.seen);
    let since = held.refused.as_ref().map_or(now, |before| before.since);
    held.refused = Some(WitnessRefusal { since, ..refusal });
    let mut events = Vec::new();
    if !is_told {
        let key = witness.key.to_string();
        tracing::error!(
            witness = key,
            entries,
            seen,
            ?finding,
            "ALARM: a witness refuses the log: it was rolled back or rewritten, or the witness lies; see docs/LOG.md"
        );
        held.told = Some(Told {
            at: now,
            stands: true,
        });
        events.push(Event::WitnessRefused {
            witness: key,
            entries,
            seen,
            finding,
        });
    }
    put(desk, witness, version, &held, &events, now).await
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
    let batch = Batch::new().put(WITNESS, key, version, row);
    desk.commit(batch, events, now).await.map(drop)
}

/// What is stored of a witness. A row that this broker did not write counts for nothing.
pub(super) fn stored(desk: &Desk, witness: &Witness) -> Result<(Option<u64>, Held), Fault> {
    let key = witness.key.to_string();
    match desk.authentic_row::<Held>(WITNESS, key.as_bytes()) {
        Ok(row) => Ok(row.map_or_else(Default::default, |r| (Some(r.version), r.value))),
        Err(Fault::Damaged(_)) => {
            let row = desk.live.get(WITNESS, key.as_bytes())?;
            Ok((row.map(|row| row.version), Held::default()))
        }
        Err(fault) => Err(fault),
    }
}

/// Whether this broker wrote what is stored of a witness.
pub(super) fn is_genuine(desk: &Desk, key: &WitnessKey) -> bool {
    let row = desk.authentic_row::<Held>(WITNESS, key.to_string().as_bytes());
    matches!(row, Ok(Some(_)))
}

/// Writes a row anew that cannot be believed; the witness is asked anew.
pub(super) async fn mend(desk: &Desk, witness: &Witness) -> Result<(), Fault> {
    let (version, _) = stored(desk, witness)?;
    if version.is_none() || is_genuine(desk, &witness.key) {
        return Ok(());
    }
    tracing::error!(
        witness = witness.key.name(),
        "what was kept of a witness is damaged; it is asked anew"
    );
    let now = desk.world.now();
    put(desk, witness, version, &Held::named(now), &[], now).await
}
