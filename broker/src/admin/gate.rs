//! Admins' own gate. What changes who may do what, or with which token, needs a fresh second factor of whoever asks
//! and, where another admin is there, that one's as well. A policy that allows more waits a day besides, in
//! which anybody may object. So one admin, or a thief with one admin's machine, changes nothing alone (attack 50).
//!
//! [`effect`] says what each act does; the last agreement, the act and its event are one commit. [`policy`] is what
//! is in force.
//!
//! What if an attacker writes here? The rows are authenticated: he can remove what waits, and nothing else.

mod effect;
pub mod policy;
mod waiting;

use super::own::{Own, current};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
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
use effect::Effect;
use proto::{
    act::{Act, Acted, Acts, AnswerAct, AskAct},
    digest::hex,
    factors::change,
    time::UnixTime,
};
use std::sync::Arc;
use waiting::{
    ACTS, ACTS_MAX, Stored, about_what, all, asked, binding, is_wanted, line, missing, one, opened,
    waits, was_there,
};

/// Random bytes that name an act.
const ID_BYTES: usize = 6;
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
    if waiting.len() >= ACTS_MAX {
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
    // Whatever is wrong with it is said before it costs a code.
    effect::of(desk, &stored, token.as_ref(), Batch::new(), now).await?;
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
    let alone = free || (missing(desk, &stored)? == 0 && stored.ready.is_none());
    if alone {
        let effect = effect::of(desk, &stored, token.as_ref(), spent, now).await?;
        return done(desk, effect, Vec::new(), now).await;
    }
    let id = hex(&desk.world.random::<ID_BYTES>().map_err(Fault::from)?);
    if let Some(token) = &token {
        let sealed = (desk.vault).seal_row(&binding(&id), token.expose().as_bytes());
        stored.token = Some(hex(&sealed.map_err(Fault::from)?));
    }
    let batch = waits(desk, spent, &id, &stored)?;
    desk.commit(batch, &[asked(&id, &stored)], now).await?;
    Ok(Acted {
        done: false,
        act: Some(line(desk, &id, &stored)?),
        invited: None,
        token: None,
    })
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
    if value.act.about() == Some(own.person) {
        return no("it is about you: another admin confirms");
    }
    if value.confirmed.iter().any(|c| c.person == *own.person) {
        return no("you confirmed it already");
    }
    if !was_there(&by.value, &value) {
        return Err(Refusal::NotAllowed(
            "who was enrolled after it was asked for does not confirm it".to_owned(),
        ));
    }
    let about = (change::CONFIRM_ACT, id);
    let spent = prove_in_terminal(desk, &by.value, own.device, about, &given.factor, now).await?;
    let spent = spent.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    value.confirmed.push(own.into());
    let events = vec![Event::ActConfirmed {
        id: id.to_owned(),
        by: own.person.clone(),
    }];
    let agreed = missing(desk, &value)? == 0;
    if agreed && !matches!(value.act, Act::Policy { .. }) {
        let token = opened(desk, id, &value)?;
        let batch = spent.delete(ACTS, id.as_bytes(), version);
        let effect = effect::of(desk, &value, token.as_ref(), batch, now).await?;
        return done(desk, effect, events, now).await;
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
    Ok(Acted {
        done: false,
        act: Some(line(desk, id, &value)?),
        invited: None,
        token: None,
    })
}

/// Somebody objects, or takes back what he asked for. Nothing has happened, and nothing will.
pub async fn veto(
    desk: &Desk,
    own: Own<'_>,
    id: &str,
    given: AnswerAct,
    now: UnixTime,
) -> Result<Acts, Refusal> {
    let by = current(desk, own)?;
    let held = one(desk, id, now)?;
    let concerned =
        matches!(held.value.act, Act::Policy { .. }) || held.value.act.about() == Some(own.person);
    if !by.value.admin && !concerned {
        return Err(Refusal::NotAllowed("only admins object to this".to_owned()));
    }
    let about = (change::VETO_ACT, id);
    let spent = prove_in_browser(desk, &by.value, own.device, about, &given.factor, now).await?;
    let batch = spent.delete(ACTS, id.as_bytes(), held.version).require(
        PEOPLE,
        own.person.as_str().as_bytes(),
        by.version,
    );
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
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let rows = desk.live.range(ACTS, b"", None, ACTS_MAX)?;
    for (key, row) in rows {
        let id = String::from_utf8_lossy(&key).into_owned();
        let held = match desk.authentic_row::<Stored>(ACTS, &key) {
            Err(Fault::Damaged(what)) => {
                tracing::error!(
                    id,
                    what,
                    "ALARM: what an admin asked for cannot be believed"
                );
                continue;
            }
            held => held?,
        };
        let Some(held) = held else { continue };
        if held.value.ready.is_some_and(|ready| ready <= now) && now < held.value.expires {
            timely(desk, &id, &held, now).await?;
        } else if now >= held.value.expires || !is_wanted(desk, &held.value) {
            let batch = Batch::new().delete(ACTS, &key, row.version);
            passable(desk.commit(batch, &[Event::ActExpired { id }], now).await)?;
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
    let short = |why: Refusal| match why {
        Refusal::Fault(fault) => Err(fault),
        why => {
            tracing::warn!(id, %why, "what an admin asked for cannot be done");
            Ok(())
        }
    };
    match missing(desk, stored) {
        Ok(0) => {}
        Ok(_) if !policy && is_wanted(desk, stored) => {}
        Ok(_) => return Ok(()),
        Err(why) => return short(why),
    }
    let batch = Batch::new().delete(ACTS, id.as_bytes(), held.version);
    match effect::of(desk, stored, None, batch, now).await {
        Err(why) => short(why),
        Ok(effect) => match done(desk, effect, Vec::new(), now).await {
            Ok(_) => Ok(()),
            Err(Refusal::Fault(fault)) => passable(Err::<(), _>(fault)),
            Err(why) => short(why),
        },
    }
}

/// Whatever changed meanwhile is looked at in the next round.
fn passable<T>(done: Result<T, Fault>) -> Result<(), Fault> {
    match done {
        Ok(_) | Err(Fault::Conflict(..)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The effect, with the events before it, in one commit.
async fn done(
    desk: &Desk,
    effect: Effect,
    mut events: Vec<Event>,
    now: UnixTime,
) -> Result<Acted, Refusal> {
    events.extend(effect.events);
    // What is in force is in the store and in memory: both change under one lock.
    let _one = desk.policing.lock().await;
    desk.commit(effect.batch, &events, now).await?;
    if let Some(policy) = effect.policy {
        desk.policy.store(Arc::new(policy));
    }
    Ok(Acted {
        done: true,
        act: None,
        invited: effect.invited,
        token: effect.token,
    })
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
        Act::AddToken(at) => Ok(!super::tokens::is_covered(desk, at)?),
        Act::Invite(_) => {
            let alone = !desk.people()?.iter().any(|p| p.admin && p.id != by.id);
            let fresh = by.since().is_some_and(|s| now < s.after(SETUP_SECONDS));
            Ok(alone && fresh)
        }
        _ => Ok(false),
    }
}

/// Whether it ends another admin's role.
fn takes_a_role(desk: &Desk, stored: &Stored) -> Result<bool, Refusal> {
    let keeps = matches!(stored.act, Act::ChangePerson { admin: true, .. });
    let Some(person) = stored.act.about().filter(|_| !keeps) else {
        return Ok(false);
    };
    let asker = stored.by.as_ref().map(|b| &b.person);
    let held = desk.person(person)?;
    Ok(asker != Some(person) && held.is_some_and(|p| p.value.admin))
}
