//! Stopping everything: one admin, one call, no code, since it only makes things stricter.
//!
//! The freeze of everything is one commit with its event, and comes first: from it on nothing is opened, approved, given
//! out or sent. What was open ends after it, piece by piece. A crash in between leaves the freeze, and the next start
//! goes on ([`sweep`]); so does the thaw before it thaws. Works while sealed, but for what only open keys can read.

use super::{freeze, invites};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    publish::{
        Refusal,
        frozen::{self, FROZEN, Freeze, Stop},
        intent, ring, stop,
    },
    store::Batch,
};
use proto::{
    ids::PersonId,
    stop::{EVERYTHING, REASON_MAX, Stopped},
    text,
    time::UnixTime,
};

/// Attempts to freeze what others freeze or thaw at the same moment.
const RACES_MAX: usize = 20;

/// Stops everything.
pub async fn panic(
    desk: &Desk,
    by: &PersonId,
    reason: &str,
    now: UnixTime,
) -> Result<Stopped, Refusal> {
    let reason = match reason {
        "" => None,
        words => {
            text::check(words, REASON_MAX)
                .map_err(|e| Refusal::BadRequest(format!("the reason {e}")))?;
            Some(words.to_owned())
        }
    };
    let stop = Stop { at: now, reason };
    let since = freeze_all(desk, by, &stop, now).await?;
    desk.metrics.alarms.inc();
    tracing::error!(%by, "ALARM: an admin stopped everything");
    // From here on nothing is released, whatever becomes of this call; and a fault below leaves no job its session.
    let sessions = desk.guests.end_all(now);
    let mut told = ended(desk, Some(by), now, now).await?;
    (told.frozen, told.since, told.sessions) = (true, since, sessions);
    // People cannot be believed while the vault is sealed; nor is their list a reason to tell nothing of all this.
    if !desk.vault.is_sealed() {
        told.thawers = freeze::thawers(desk, since).ok();
    }
    Ok(told)
}

/// The freeze, in one commit with its event and the order to tell everybody. Returns since when all is frozen.
async fn freeze_all(
    desk: &Desk,
    by: &PersonId,
    stop: &Stop,
    now: UnixTime,
) -> Result<UnixTime, Refusal> {
    let key = EVERYTHING.as_bytes();
    for _ in 0..RACES_MAX {
        let old = frozen::freeze(desk, EVERYTHING)?;
        let since = old.as_ref().map_or(now, |(_, f)| f.since);
        // Stopped again: a thaw that was under way starts anew.
        let row = Freeze {
            stop: Some(stop.clone()),
            ..Freeze::new(Some(by.clone()), since)
        };
        let row = frozen::freeze_row(desk, EVERYTHING, &row)?;
        let batch = Batch::new().put(FROZEN, key, old.map(|(version, _)| version), row);
        let batch = ring::notice(desk, batch, About::Stopped, "", Some(by))?;
        let event = Event::EverythingStopped { by: by.clone() };
        match desk.commit(batch, &[event], now).await {
            Err(Fault::Conflict(..)) => {}
            other => {
                other?;
                desk.bells.ask();
                return Ok(since);
            }
        }
    }
    Err(Fault::Conflict(FROZEN, key.to_vec()).into())
}

/// Ends all that was open at `until`.
async fn ended(
    desk: &Desk,
    by: Option<&PersonId>,
    until: UnixTime,
    now: UnixTime,
) -> Result<Stopped, Fault> {
    let mut told = stop::requests(desk, now).await?;
    if desk.vault.is_sealed() {
        // These rows cannot be read; they serve nobody before the vault is open, and the sweep ends them then.
        told.more = true;
        return Ok(told);
    }
    if let Some(by) = by {
        told.intents = intent::withdraw_all(desk, by, until, now).await?;
    }
    told.invites = invites::end_open(desk, until, now).await?;
    Ok(told)
}

/// Goes on with what a crash, or the sealed vault, left.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    match frozen::freeze(desk, EVERYTHING)? {
        None => Ok(()),
        Some((_, freeze)) => finish(desk, &freeze, now).await,
    }
}

/// Ends what was open when everything was stopped; before a thaw, all of it.
pub(super) async fn finish(desk: &Desk, freeze: &Freeze, now: UnixTime) -> Result<(), Fault> {
    let until = freeze.stop.as_ref().map_or(freeze.since, |stop| stop.at);
    for _ in 0..RACES_MAX {
        let told = ended(desk, freeze.by.as_ref(), until, now).await?;
        if !told.more || desk.vault.is_sealed() {
            break;
        }
    }
    Ok(())
}
