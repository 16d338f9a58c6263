//! Admins' own gate. What changes who may do what, or with which token, needs a fresh second factor of whoever asks
//! and, where another admin is there, that one's as well. A policy that allows more waits a day besides, in
//! which anybody may object. So one admin, or a thief with one admin's machine, changes nothing alone (attack 50).
//!
//! [`waiting`] is what nobody has agreed to yet; [`effect`] says what each act does; the last agreement, the act and
//! its events are one commit. [`policy`] is what is in force.
//!
//! What if an attacker writes here? The rows are authenticated: he can remove what waits, and put back a row that was
//! vetoed, while it would still be good. Who deletes another admin's row makes one admin the only one: each device and
//! every list of people shows it, and nothing here does.

mod effect;
pub mod policy;
mod waiting;

use super::{
    own::{Own, current},
    tokens,
};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        inventory::ACTS,
        passable,
        people::{PEOPLE, Person, Versioned},
    },
    publish::{
        Refusal,
        prove::{prove_in_browser, prove_in_terminal},
        ring,
    },
    secret::Secret,
    store::Batch,
};
use effect::{done, proved};
use proto::{
    act::{Act, Acted, Acts, AnswerAct, AskAct},
    digest::hex,
    factors::change,
    time::UnixTime,
};
pub(super) use waiting::sealed_anew;
use waiting::{
    ACTS_MAX, READ_MAX, Stored, about_what, all, asked, binding, is_wanted, line, missing, one,
    opened, read, takes_a_role, waits, was_there,
};

/// Random bytes that name an act.
const ID_BYTES: usize = 6;
/// Most acts of one person that wait.
const OWN_MAX: usize = 10;
/// Seconds until what nobody agreed to is forgotten.
const LIFE_SECONDS: u64 = 3 * 24 * 3600;
/// Seconds after which an admin loses the role without a second one's word, if nobody objects: where the only other
/// one is gone for good, the rest would be locked out for ever.
const ABSENT_SECONDS: u64 = 14 * 24 * 3600;
/// Seconds after the first admin's enrolment in which it counts as the factor for invites, while nobody else is admin.
const SETUP_SECONDS: u64 = 15 * 60;

/// Asks for an act. It is done at once where nobody else must agree.
pub async fn ask(
    desk: &Desk,
    own: Own<'_>,
    mut given: AskAct,
    now: UnixTime,
) -> Result<Acted, Refusal> {
    let by = current(desk, own)?;
    let token = given.token.take().map(Secret::new);
    let act = given.act.clone();
    check(&act, token.is_some())?;
    let waiting = all(desk, now)?;
    let own_ones = waiting.iter().filter(|(_, held)| {
        let asker = held.value.by.as_ref();
        asker.is_some_and(|by| by.person == *own.person)
    });
    if let Some((id, held)) = waiting.iter().find(|(_, held)| held.value.act == act) {
        let who = held
            .value
            .by
            .as_ref()
            .map_or("somebody", |b| b.person.as_str());
        return Err(Refusal::BadRequest(format!(
            "{who} asked for this already: confirm it (countersign admin confirm {id}), or take it back (countersign admin veto {id})"
        )));
    }
    if own_ones.count() >= OWN_MAX || waiting.len() >= ACTS_MAX {
        return Err(Refusal::BadRequest(
            "too much waits already: countersign admin acts".to_owned(),
        ));
    }
    let mut stored = Stored {
        act,
        by: Some(own.into()),
        asked: now,
        expires: now.after(LIFE_SECONDS),
        confirmed: Vec::new(),
        ready: None,
        token: None,
        document: None,
    };
    let free = is_free(desk, &stored.act, &by.value, now)?;
    let spent = if free {
        Batch::new()
    } else {
        let object = stored.act.object();
        let factor = given.factor.take().unwrap_or_default();
        let about = (change::ACT, object.as_str());
        prove_in_terminal(desk, &by.value, own.device, about, &factor, now).await?
    };
    // Who was removed in between asks for nothing.
    let spent = spent.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    if takes_a_role(desk, &stored)? {
        stored.ready = Some(now.after(ABSENT_SECONDS));
        stored.expires = now.after(ABSENT_SECONDS + LIFE_SECONDS);
    }
    let given = proved(desk, &stored, token, now).await?;
    if free || (missing(desk, &stored)? == 0 && stored.ready.is_none()) {
        return done(desk, &stored, given.as_ref(), (spent, Vec::new()), now).await;
    }
    // Whatever is wrong with it is said now, and costs no code: nothing is spent until it is stored.
    effect::of(desk, &stored, given.as_ref(), Batch::new(), now).await?;
    let id = hex(&desk.world.random::<ID_BYTES>().map_err(Fault::from)?);
    if let Some(given) = &given {
        let sealed = (desk.vault).seal_row(&binding(&id), given.token().expose().as_bytes());
        stored.token = Some(hex(&sealed.map_err(Fault::from)?));
    }
    let batch = waits(desk, spent, &id, &stored)?;
    desk.commit(batch, &[asked(&id, &stored)], now).await?;
    pending(desk, &id, &stored)
}

/// Another admin agrees.
pub async fn confirm(
    desk: &Desk,
    own: Own<'_>,
    id: &str,
    given: AnswerAct,
    now: UnixTime,
) -> Result<Acted, Refusal> {
    let by = current(desk, own)?;
    let Versioned { version, mut value } = one(desk, id, now)?;
    let no = |why: &str| Err(Refusal::BadRequest(why.to_owned()));
    if value.by.as_ref().is_some_and(|b| b.person == *own.person) {
        return no("you asked for it: another admin confirms");
    }
    if takes_a_role(desk, &value)? && value.act.about() == Some(own.person) {
        return no("it is about you: another admin confirms");
    }
    if !was_there(&by.value, &value) {
        return Err(Refusal::NotAllowed(
            "who was enrolled after it was asked for does not confirm it".to_owned(),
        ));
    }
    let about = (change::CONFIRM_ACT, id);
    let spent = prove_in_terminal(desk, &by.value, own.device, about, &given.factor, now).await?;
    let spent = spent.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    // Again, after another device took the first one's place.
    value.confirmed.retain(|c| c.person != *own.person);
    value.confirmed.push(own.into());
    let events = vec![Event::ActConfirmed {
        id: id.to_owned(),
        by: own.person.clone(),
    }];
    let agreed = missing(desk, &value)? == 0;
    if agreed && !matches!(value.act, Act::Policy { .. }) {
        let token = opened(desk, id, &value)?;
        let given = proved(desk, &value, token, now).await?;
        let batch = spent.delete(ACTS, id.as_bytes(), version);
        return done(desk, &value, given.as_ref(), (batch, events), now).await;
    }
    if agreed && value.ready.is_none() {
        // From here on only time is missing.
        let ready = now.after(desk.place.weakening_wait);
        value.ready = Some(ready);
        value.expires = ready.after(LIFE_SECONDS);
    }
    let row = desk.authentic(ACTS, id.as_bytes(), &value)?;
    let batch = spent.replace(ACTS, id.as_bytes(), version, row);
    let batch = ring::notice(desk, batch, about_what(&value), "", Some(own.person))?;
    desk.commit(batch, &events, now).await?;
    pending(desk, id, &value)
}

/// The reply while it waits.
fn pending(desk: &Desk, id: &str, stored: &Stored) -> Result<Acted, Refusal> {
    Ok(Acted {
        done: false,
        act: Some(line(desk, id, stored)?),
        invited: None,
        token: None,
    })
}

/// Somebody objects, with a second factor, or takes back what he asked for. Nothing has happened, and nothing will. Who
/// is to lose the own role ends the two weeks by it, and not what another admin agrees to: a thief with one machine
/// would stop the very act that answers the theft.
pub async fn veto(
    desk: &Desk,
    own: Own<'_>,
    id: &str,
    given: AnswerAct,
    now: UnixTime,
) -> Result<Acts, Refusal> {
    let by = current(desk, own)?;
    let held = one(desk, id, now)?;
    if !by.value.admin && !matches!(held.value.act, Act::Policy { .. }) {
        return Err(Refusal::NotAllowed("only admins object to this".to_owned()));
    }
    let about = (change::VETO_ACT, id);
    let asker = held.value.by.as_ref();
    let spent = if asker.is_some_and(|asker| asker.person == *own.person) {
        prove_in_browser(desk, &by.value, own.device, about, &given.factor, now).await?
    } else {
        prove_in_terminal(desk, &by.value, own.device, about, &given.factor, now).await?
    };
    let key = id.as_bytes();
    let own_role = takes_a_role(desk, &held.value)? && held.value.act.about() == Some(own.person);
    let batch = if own_role && missing(desk, &held.value)? > 0 {
        let mut left = held.value.clone();
        left.ready = None;
        spent.replace(ACTS, key, held.version, desk.authentic(ACTS, key, &left)?)
    } else {
        spent.delete(ACTS, key, held.version)
    };
    let batch = batch.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    let batch = ring::notice(desk, batch, about_what(&held.value), "", Some(own.person))?;
    let event = Event::ActVetoed {
        id: id.to_owned(),
        by: own.person.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    list(desk, now)
}

/// What waits, for everybody who is enrolled: nothing of this kind may go unseen.
pub fn list(desk: &Desk, now: UnixTime) -> Result<Acts, Refusal> {
    let mut lines = Vec::new();
    for (id, held) in all(desk, now)? {
        lines.push(line(desk, &id, &held.value)?);
    }
    lines.sort_by_key(|l| l.asked);
    Ok(Acts {
        acts: lines,
        policy: desk.policy.load().digest().clone(),
    })
}

/// Does what only waited for its time, and forgets what is over.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    // What was vetoed after a copy was taken waits in it again; and a clock that jumped has let no time pass.
    if desk.vault.is_sealed() || desk.restored()?.is_some() || desk.world.clock_suspect() {
        return Ok(());
    }
    let rows = desk.live.range(ACTS, b"", None, READ_MAX)?;
    for (key, row) in rows {
        let id = String::from_utf8_lossy(&key).into_owned();
        let Some(held) = read(desk, &id)? else {
            continue;
        };
        if now >= held.value.expires || !is_wanted(desk, &held.value) {
            let batch = Batch::new().delete(ACTS, &key, row.version);
            passable(desk.commit(batch, &[Event::ActExpired { id }], now).await)?;
        } else if held.value.ready.is_some_and(|ready| ready <= now) {
            // One that cannot be done keeps no other waiting.
            if let Err(why) = timely(desk, &id, &held, now).await {
                tracing::error!(id, %why, "what an admin asked for cannot be done");
            }
        }
    }
    Ok(())
}

/// Its time has come. A policy needs everybody's word until now; who is to lose the role had two weeks to object.
async fn timely(
    desk: &Desk,
    id: &str,
    held: &Versioned<Stored>,
    now: UnixTime,
) -> Result<(), Fault> {
    let stored = &held.value;
    let policy = matches!(stored.act, Act::Policy { .. });
    let gone = || Batch::new().delete(ACTS, id.as_bytes(), held.version);
    let done = match missing(desk, stored) {
        // Without everybody's word until now a policy waits on.
        Ok(left) if left > 0 && policy => return Ok(()),
        Ok(_) => done(desk, stored, None, (gone(), Vec::new()), now)
            .await
            .map(drop),
        Err(why) => Err(why),
    };
    match done {
        Ok(()) => Ok(()),
        Err(Refusal::Fault(fault)) => passable(Err::<(), _>(fault)),
        // Whom it was about is gone, say: it can never be done.
        Err(why) => {
            tracing::warn!(id, %why, "what an admin asked for cannot be done");
            let event = Event::ActExpired { id: id.to_owned() };
            passable(desk.commit(gone(), &[event], now).await)
        }
    }
}

/// Adds that what waits for a time waits so many seconds longer: a clock that is trusted again after a jump has let
/// none of them pass.
pub(super) fn postponed(desk: &Desk, mut batch: Batch, seconds: u64) -> Result<Batch, Fault> {
    if desk.vault.is_sealed() {
        return Ok(batch);
    }
    for (key, row) in desk.live.range(ACTS, b"", None, READ_MAX)? {
        let Ok(Some(held)) = desk.authentic_row::<Stored>(ACTS, &key) else {
            continue;
        };
        let mut stored = held.value;
        stored.ready = stored.ready.map(|ready| ready.after(seconds));
        stored.expires = stored.expires.after(seconds);
        batch = batch.replace(
            ACTS,
            &key,
            row.version,
            desk.authentic(ACTS, &key, &stored)?,
        );
    }
    Ok(batch)
}

/// What nobody can ask for, and what does not fit together.
fn check(act: &Act, token: bool) -> Result<(), Refusal> {
    let stores = matches!(act, Act::AddToken(_) | Act::RotateToken(_));
    let why = match act {
        Act::Policy { .. } => {
            "a policy comes from the broker's own file: write it there, and reload"
        }
        _ if stores && !token => "give the token",
        _ if !stores && token => "this stores no token",
        _ => return Ok(()),
    };
    Err(Refusal::BadRequest(why.to_owned()))
}

/// What needs neither factor nor second admin: a token where nothing is covered by one, and the first admin's
/// invites while he sets the broker up, whose enrolment a moment ago showed his factor.
fn is_free(desk: &Desk, act: &Act, by: &Person, now: UnixTime) -> Result<bool, Refusal> {
    match act {
        Act::AddToken(at) => Ok(!tokens::is_covered(desk, at)?),
        Act::Invite(_) => {
            let alone = !desk.people()?.iter().any(|p| p.admin && p.id != by.id);
            let fresh = by.since().is_some_and(|s| now < s.after(SETUP_SECONDS));
            Ok(alone && fresh)
        }
        _ => Ok(false),
    }
}
