//! Lost factors. Two other people ask, each with a proof of their own; everybody is told; after 24 hours one of
//! them makes the invite by which the person enrols anew. Neither an admin alone nor an e-mail does it
//! (attack 33).

use super::invites::invite_recovered;
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        inventory::RECOVERIES,
        people::{Person, Versioned},
    },
    notify::About,
    publish::{Refusal, judge, prove::prove_change, ring},
    store::Batch,
};
use proto::{
    api::Invited,
    factors::{Recover, Recoveries, RecoveryLine, change},
    ids::{DeviceId, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// People who must ask.
const ASKERS: usize = 2;
/// Seconds between the second asking and the invite.
const WAIT_SECONDS: u64 = 24 * 3600;
/// Seconds from the first asking until it is forgotten.
const LIFE_SECONDS: u64 = 7 * 24 * 3600;
/// Recoveries that are listed.
const LIST_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Recovery {
    asked_by: Vec<PersonId>,
    ready: Option<UnixTime>,
    expires: UnixTime,
}

/// A row, which may be damaged.
enum Held {
    Good(Versioned<Recovery>),
    Damaged(u64),
}

impl Held {
    const fn version(&self) -> u64 {
        match self {
            Self::Good(held) => held.version,
            Self::Damaged(version) => *version,
        }
    }

    fn good(self) -> Option<Recovery> {
        match self {
            Self::Good(held) => Some(held.value),
            Self::Damaged(_) => None,
        }
    }
}

/// A recovery's row. One that is damaged is nobody's recovery, and keeps nobody from the others.
fn read(desk: &Desk, key: &[u8]) -> Result<Option<Held>, Fault> {
    match desk.authentic_row::<Recovery>(RECOVERIES, key) {
        Err(Fault::Damaged(what)) => {
            let person = String::from_utf8_lossy(key);
            tracing::error!(%person, what, "ALARM: a recovery's row cannot be believed");
            let row = desk.live.get(RECOVERIES, key)?;
            Ok(row.map(|row| Held::Damaged(row.version)))
        }
        other => Ok(other?.map(Held::Good)),
    }
}

/// All of them, for everybody who is enrolled: a takeover must not go unseen.
pub fn list(desk: &Desk, now: UnixTime) -> Result<Recoveries, Refusal> {
    let mut recoveries = Vec::new();
    let rows = desk.live.range(RECOVERIES, b"", None, LIST_MAX);
    for (key, _) in rows.map_err(Fault::from)? {
        let person = std::str::from_utf8(&key).ok().and_then(|p| p.parse().ok());
        let held = read(desk, &key)?;
        if let (Some(person), Some(Held::Good(held))) = (person, held)
            && now < held.value.expires
        {
            recoveries.push(RecoveryLine {
                person,
                asked_by: held.value.asked_by,
                ready: held.value.ready,
                expires: held.value.expires,
            });
        }
    }
    Ok(Recoveries { recoveries })
}

/// Asks for a recovery; the second one's asking starts the 24 hours.
pub async fn ask(
    desk: &Desk,
    by: &Person,
    device: &DeviceId,
    given: &Recover,
    now: UnixTime,
) -> Result<Recoveries, Refusal> {
    let person = somebody_else(desk, by, given)?;
    let key = given.person.as_str().as_bytes();
    let held = read(desk, key)?;
    let version = held.as_ref().map(Held::version);
    // One that is damaged begins anew.
    let live = held.and_then(Held::good).filter(|r| now < r.expires);
    let mut recovery = live.unwrap_or_else(|| Recovery {
        asked_by: Vec::new(),
        ready: None,
        expires: now.after(LIFE_SECONDS),
    });
    // Who asked first may have been removed meanwhile: only people who are enrolled now count.
    let askers = enrolled(desk, &recovery)?;
    if recovery.ready.is_some() || askers.iter().any(|p| p.id == by.id) {
        return list(desk, now);
    }
    if !askers.is_empty() && !by.admin && !askers.iter().any(|p| p.admin) {
        return Err(Refusal::NotAllowed(
            "one of the two who ask must be an admin".to_owned(),
        ));
    }
    let about = (change::RECOVER, person.id.as_str());
    let proved = prove_change(desk, by, device, about, &given.factor, now).await?;
    recovery.asked_by = askers.iter().map(|p| p.id.clone()).collect();
    recovery.asked_by.push(by.id.clone());
    if recovery.asked_by.len() >= ASKERS {
        recovery.ready = Some(now.after(WAIT_SECONDS));
    }
    let row = desk.authentic(RECOVERIES, key, &recovery)?;
    let batch = proved.spent.put(RECOVERIES, key, version, row);
    // A takeover must not go unseen.
    let batch = ring::notice(desk, batch, About::Recovery, "", Some(&by.id))?;
    let event = Event::RecoveryAsked {
        person: person.id.clone(),
        by: by.id.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    list(desk, now)
}

/// Calls a recovery off: the person himself, an admin, or one of those who asked.
pub async fn cancel(
    desk: &Desk,
    by: &Person,
    device: &DeviceId,
    given: &Recover,
    now: UnixTime,
) -> Result<Recoveries, Refusal> {
    let key = given.person.as_str().as_bytes();
    let held = read(desk, key)?.ok_or(Refusal::NotFound)?;
    let version = held.version();
    let asked = held.good().is_some_and(|r| r.asked_by.contains(&by.id));
    if by.id != given.person && !by.admin && !asked {
        return Err(Refusal::NotAllowed(
            "only the person, an admin or one of those who asked calls it off".to_owned(),
        ));
    }
    let about = (change::CANCEL_RECOVERY, given.person.as_str());
    let proved = prove_change(desk, by, device, about, &given.factor, now).await?;
    let event = Event::RecoveryCancelled {
        person: given.person.clone(),
        by: by.id.clone(),
    };
    let batch = proved.spent.delete(RECOVERIES, key, version);
    let batch = super::invites::forget_invites(desk, batch, &given.person)?;
    desk.commit(batch, &[event], now).await?;
    list(desk, now)
}

/// The invite at the end, made by one of the two who asked.
pub async fn invite(
    desk: &Desk,
    by: &Person,
    device: &DeviceId,
    given: &Recover,
    now: UnixTime,
) -> Result<Invited, Refusal> {
    // In an older copy nobody is known to be who he was: the recovery may have been called off since.
    judge::serves(desk)?;
    let person = somebody_else(desk, by, given)?;
    let key = person.id.as_str().as_bytes();
    let under_way = read(desk, key)?.and_then(Held::good);
    // The two vouch for whom they hand the invite to; a third one could hand it to himself.
    if under_way.is_some_and(|r| !r.asked_by.contains(&by.id)) {
        return Err(Refusal::NotAllowed(
            "only those who asked for this recovery make its invite".to_owned(),
        ));
    }
    ready(desk, &person, now)?;
    let about = (change::INVITE_RECOVERED, person.id.as_str());
    let proved = prove_change(desk, by, device, about, &given.factor, now).await?;
    // Everybody is told once more, while it can still be called off.
    let batch = ring::notice(desk, proved.spent, About::Recovery, "", Some(&by.id))?;
    invite_recovered(desk, &person, &by.id, batch, now).await
}

/// Whether a recovery of this person may end now; gives the version of its row, which the enrolment deletes.
/// Asked when the invite is made and when it is used: it may have been called off between.
pub(super) fn ready(desk: &Desk, person: &Person, now: UnixTime) -> Result<u64, Refusal> {
    let no = |why: &str| Refusal::NotAllowed(why.to_owned());
    let held = match read(desk, person.id.as_str().as_bytes())? {
        Some(Held::Good(held)) if now < held.value.expires => held,
        _ => return Err(no("nobody asked for this recovery, or it was called off")),
    };
    let askers = enrolled(desk, &held.value)?;
    let Some(ready) = held.value.ready else {
        return Err(no("a second person must ask for it"));
    };
    // Judged by today's people, like every answer.
    if askers.len() < ASKERS || !askers.iter().any(|p| p.admin) {
        return Err(no("one of the two who asked is not enrolled any more"));
    }
    if now < ready || desk.world.clock_suspect() {
        return Err(no(&format!("it waits until {}", ready.rfc3339())));
    }
    Ok(held.version)
}

/// Adds the deletion of a removed person's recovery: whoever is invited under that name later is somebody new.
pub(super) fn forget(desk: &Desk, batch: Batch, person: &PersonId) -> Result<Batch, Fault> {
    let key = person.as_str().as_bytes();
    Ok(match desk.live.get(RECOVERIES, key)? {
        None => batch,
        Some(row) => batch.delete(RECOVERIES, key, row.version),
    })
}

/// Those who asked and are enrolled now.
fn enrolled(desk: &Desk, recovery: &Recovery) -> Result<Vec<Arc<Person>>, Fault> {
    let mut askers = Vec::new();
    for id in &recovery.asked_by {
        askers.extend(desk.person(id)?.map(|p| p.value));
    }
    Ok(askers)
}

/// Somebody else, whom the asker knows: an admin, or of one group with him.
fn somebody_else(desk: &Desk, by: &Person, given: &Recover) -> Result<Person, Refusal> {
    if by.id == given.person {
        return Err(Refusal::NotAllowed("two other people must ask".to_owned()));
    }
    let held = desk.person(&given.person)?.ok_or(Refusal::NotFound)?;
    let person = Person::clone(&held.value);
    let shares = person.groups.iter().any(|g| by.groups.contains(g));
    if by.admin || shares {
        Ok(person)
    } else {
        Err(Refusal::NotFound)
    }
}
