//! Freezing a package because of what its registry shows: nobody asked for it, and two people thaw it
//! as ever. Only what a writer of the registry can cause leads here; no silence and no error page does,
//! or else whoever can disturb a network could lock the maintainers out.

use super::{
    close,
    ledger::{self, FROZEN, Freeze, Seen},
    ring,
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    store::Batch,
};
use proto::time::UnixTime;

/// Attempts to freeze what others freeze or thaw at the same moment.
const RACES_MAX: usize = 20;

/// Adds a freeze to a batch, with the event that says so: part of the commit that records what was seen. A thaw that
/// was under way starts anew: who asked for it did not know of this.
pub fn freezing(
    desk: &Desk,
    batch: Batch,
    package: &str,
    seen: &Seen,
    now: UnixTime,
) -> Result<(Batch, Event), Fault> {
    let old = ledger::freeze(desk, package)?;
    let by = old.as_ref().and_then(|(_, f)| f.by.clone());
    let row = Freeze {
        seen: Some(seen.clone()),
        ..Freeze::new(by, old.as_ref().map_or(now, |(_, f)| f.since))
    };
    let bytes = ledger::freeze_row(desk, package, &row)?;
    let event = Event::FrozenByBroker {
        package: package.to_owned(),
        cause: seen.cause,
        name: seen.name.clone(),
    };
    let version = old.map(|(version, _)| version);
    let batch = batch.put(FROZEN, package.as_bytes(), version, bytes);
    let batch = ring::notice(desk, batch, About::Alarm, package, None)?;
    Ok((batch, event))
}

/// After that commit: it is told, and the package's requests end too; whoever is slower is stopped by the freeze
/// itself.
pub async fn frozen(desk: &Desk, package: &str, seen: &Seen, now: UnixTime) -> Result<(), Fault> {
    desk.metrics.alarms.inc();
    tracing::error!(package, cause = ?seen.cause, what = %seen.name,
        "ALARM: the package is frozen for what its registry shows; look: countersign admin watch");
    close::deny_frozen(desk, package, now).await
}

/// Freezes `package` in one commit with `events`, which say what was seen, and with what `more` adds.
pub async fn freeze(
    desk: &Desk,
    package: &str,
    seen: &Seen,
    events: &[Event],
    more: impl Fn() -> Batch,
    now: UnixTime,
) -> Result<(), Fault> {
    for _ in 0..RACES_MAX {
        let (batch, event) = freezing(desk, more(), package, seen, now)?;
        let mut all = events.to_vec();
        all.push(event);
        match desk.commit(batch, &all, now).await {
            Err(Fault::Conflict(table, _)) if table == FROZEN => {}
            Err(other) => return Err(other),
            Ok(_) => return frozen(desk, package, seen, now).await,
        }
    }
    Err(Fault::Conflict(FROZEN, package.as_bytes().to_vec()))
}
