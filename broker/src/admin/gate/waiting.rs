//! What waits: its row, who must still agree, and how it is told.

use super::policy;
use crate::{
    admin::signed::{SignedBy, is_admin},
    audit::event::Event,
    desk::{
        Desk, Fault,
        inventory::ACTS,
        people::{Person, Versioned},
    },
    notify::About,
    publish::{Refusal, ring},
    secret::Secret,
    store::Batch,
    vault::{Binding, Vault},
};
use proto::{
    act::{Act, ActLine},
    digest::{hex, unhex},
    ids::PersonId,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Most acts that people's asking makes wait.
pub(super) const ACTS_MAX: usize = 100;
/// Most rows that are read: policies come on top.
pub(super) const READ_MAX: usize = 1000;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) act: Act,
    /// Nobody: the broker itself, which read another policy.
    pub(super) by: Option<SignedBy>,
    pub(super) asked: UnixTime,
    pub(super) expires: UnixTime,
    pub(super) confirmed: Vec<SignedBy>,
    /// From then on it holds, if nobody objects.
    pub(super) ready: Option<UnixTime>,
    /// The token that it stores, sealed, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// The policy that it puts in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) document: Option<String>,
}

/// How many admins must still agree. Judged by today's people, like every answer; who was enrolled since it was
/// asked for is no second one, since the asker may have invited him.
pub(super) fn missing(desk: &Desk, stored: &Stored) -> Result<usize, Refusal> {
    let asker = stored.by.as_ref().map(|b| &b.person);
    // Nobody agrees to the end of his own role; of everything else that is about him he is a second one.
    let takes = takes_a_role(desk, stored)?;
    let people = desk.people()?;
    let able: Vec<&Person> = people
        .iter()
        .map(AsRef::as_ref)
        .filter(|p| p.admin && was_there(p, stored))
        .filter(|p| Some(&p.id) != asker && (!takes || Some(&p.id) != stored.act.about()))
        .collect();
    let needed = if asker.is_some() { 1 } else { 2 };
    let agreed = |p: &&&Person| {
        let own = stored.confirmed.iter().filter(|c| c.person == p.id);
        own.clone().any(|c| is_admin(desk, c))
    };
    Ok(needed
        .min(able.len())
        .saturating_sub(able.iter().filter(agreed).count()))
}

/// Whether it ends another admin's role.
pub(super) fn takes_a_role(desk: &Desk, stored: &Stored) -> Result<bool, Refusal> {
    let keeps = matches!(stored.act, Act::ChangePerson { admin: true, .. });
    let Some(person) = stored.act.about().filter(|_| !keeps) else {
        return Ok(false);
    };
    let asker = stored.by.as_ref().map(|b| &b.person);
    let held = desk.person(person)?;
    Ok(asker != Some(person) && held.is_some_and(|p| p.value.admin))
}

pub(super) fn was_there(person: &Person, stored: &Stored) -> bool {
    person.since().is_some_and(|since| since <= stored.asked)
}

/// What somebody wanted who was removed since is nobody's wish.
pub(super) fn is_wanted(desk: &Desk, stored: &Stored) -> bool {
    stored.by.as_ref().is_none_or(|by| is_admin(desk, by))
}

/// Stores what waits, and orders that it is told.
pub(super) fn waits(desk: &Desk, batch: Batch, id: &str, stored: &Stored) -> Result<Batch, Fault> {
    let row = desk.authentic(ACTS, id.as_bytes(), stored)?;
    let batch = batch.create(ACTS, id.as_bytes(), row);
    let by = stored.by.as_ref().map(|b| &b.person);
    ring::notice(desk, batch, about_what(stored), "", by)
}

pub(super) const fn about_what(stored: &Stored) -> About {
    match stored.act {
        Act::Policy { .. } => About::Policy,
        _ => About::Act,
    }
}

pub(super) fn asked(id: &str, stored: &Stored) -> Event {
    Event::ActAsked {
        id: id.to_owned(),
        by: stored.by.as_ref().map(|b| b.person.clone()),
        what: stored.act.object(),
    }
}

/// All that can still come to something.
pub(super) fn all(desk: &Desk, now: UnixTime) -> Result<Vec<(String, Versioned<Stored>)>, Refusal> {
    let rows = desk.live.range(ACTS, b"", None, READ_MAX);
    let mut acts = Vec::new();
    for (key, _) in rows.map_err(Fault::from)? {
        let Ok(id) = String::from_utf8(key) else {
            continue;
        };
        match one(desk, &id, now) {
            Ok(held) => acts.push((id, held)),
            Err(Refusal::NotFound) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(acts)
}

pub(super) fn one(desk: &Desk, id: &str, now: UnixTime) -> Result<Versioned<Stored>, Refusal> {
    read(desk, id)?
        .filter(|h| now < h.value.expires && is_wanted(desk, &h.value))
        .ok_or(Refusal::NotFound)
}

/// A row, over or not. One that cannot be believed is nobody's wish.
pub(super) fn read(desk: &Desk, id: &str) -> Result<Option<Versioned<Stored>>, Fault> {
    match desk.authentic_row::<Stored>(ACTS, id.as_bytes()) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(
                id,
                what,
                "ALARM: what an admin asked for cannot be believed"
            );
            Ok(None)
        }
        held => held,
    }
}

pub(super) fn opened(
    desk: &Desk,
    id: &str,
    stored: &Stored,
) -> Result<Option<Secret<String>>, Fault> {
    let Some(sealed) = &stored.token else {
        return Ok(None);
    };
    let damaged = || Fault::Damaged("a token that waits");
    let sealed = unhex(sealed).ok_or_else(damaged)?;
    let token = desk.vault.open_row(&binding(id), &sealed)?;
    let text = std::str::from_utf8(token.expose()).map_err(|_| damaged())?;
    Ok(Some(Secret::new(text.to_owned())))
}

/// The plain bytes of a row whose token is sealed with the current key; none where there is none, or is so already.
pub(in crate::admin) fn sealed_anew(
    vault: &Vault,
    key: &[u8],
    plain: &[u8],
) -> Result<Option<Vec<u8>>, Fault> {
    let damaged = || Fault::Damaged("a token that waits");
    let id = std::str::from_utf8(key).map_err(|_| damaged())?;
    let mut stored: Stored = serde_json::from_slice(plain).map_err(|_| damaged())?;
    let Some(sealed) = &stored.token else {
        return Ok(None);
    };
    let sealed = unhex(sealed).ok_or_else(damaged)?;
    if vault.seal_is_new(&sealed)? {
        return Ok(None);
    }
    let token = vault.open_row(&binding(id), &sealed)?;
    stored.token = Some(hex(&vault.seal_row(&binding(id), token.expose())?));
    serde_json::to_vec(&stored).map(Some).map_err(|_| damaged())
}

pub(super) fn binding(id: &str) -> Binding<'_> {
    Binding {
        table: ACTS.0,
        record: id.as_bytes(),
        purpose: "token that waits",
        registry: None,
        scope: None,
        version: 0,
    }
}

pub(super) fn line(desk: &Desk, id: &str, stored: &Stored) -> Result<ActLine, Refusal> {
    let people = stored.confirmed.iter().map(|c| c.person.clone());
    let mut confirmed: Vec<PersonId> = people.collect();
    confirmed.sort_unstable();
    Ok(ActLine {
        id: id.to_owned(),
        act: stored.act.clone(),
        changes: policy::changes(desk, stored.document.as_deref()),
        by: stored.by.as_ref().map(|b| b.person.clone()),
        asked: stored.asked,
        confirmed,
        missing: missing(desk, stored)?,
        ready: stored.ready,
        expires: stored.expires,
    })
}
