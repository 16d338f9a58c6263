//! People: listed and removed.

use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        people::{Device, PASSKEYS, PEOPLE, PasskeyUse, Person, PersonPasskey},
    },
    publish::Refusal,
    store::Batch,
};
use proto::{
    api::{DeviceLine, Devices, PasskeyLine, PersonLine},
    ids::{DeviceId, PersonId},
    time::UnixTime,
};
use std::sync::Arc;

/// Everybody.
pub fn list(desk: &Desk) -> Result<Vec<PersonLine>, Refusal> {
    let line = |p: &Arc<Person>| PersonLine {
        person: p.id.clone(),
        groups: p.groups.clone(),
        admin: p.admin,
        devices: p.devices.len(),
        actors: p.actors.clone(),
    };
    Ok(desk.people()?.iter().map(line).collect())
}

/// Removes a person. Effective at once: stored answers of his are judged again at release and count
/// no more (attack 29).
pub async fn remove(desk: &Desk, id: &PersonId, by: &Person, now: UnixTime) -> Result<(), Refusal> {
    let people = desk.people()?;
    let Some(held) = desk.person(id)? else {
        return Err(Refusal::NotFound);
    };
    if held.value.admin && people.iter().filter(|p| p.admin).count() == 1 {
        return Err(Refusal::NotAllowed(
            "the last admin cannot be removed; invite another one first".to_owned(),
        ));
    }
    let mut batch = super::invites::forget_invites(desk, Batch::new(), id)?;
    // Another admin must still be there when this is stored: two admins who remove each other at
    // once do not leave none.
    if held.value.admin {
        let other = people.iter().find(|p| p.admin && p.id != *id);
        let other = other.map(|p| desk.person(&p.id)).transpose()?.flatten();
        let Some(other) = other else {
            return Err(Refusal::NotFound);
        };
        batch = batch.require(PEOPLE, other.value.id.as_str().as_bytes(), other.version);
    }
    batch = batch.delete(PEOPLE, id.as_str().as_bytes(), held.version);
    batch = super::enroll::without_factors(desk, batch, &held.value)?;
    batch = desk.forget_bells(batch, id)?;
    batch = super::recovery::forget(desk, batch, id)?;
    // The TOTP state stays: who is enrolled again later does not get a fresh budget or an old step.
    let event = Event::PersonRemoved {
        person: id.clone(),
        by: by.id.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// A person's own devices and factors.
pub fn devices(desk: &Desk, person: &Person, this: &DeviceId) -> Result<Devices, Refusal> {
    let line = |d: &Device| DeviceLine {
        id: d.id.clone(),
        name: d.name.clone(),
        kind: d.kind,
        enrolled: d.enrolled,
        this: d.id == *this,
    };
    let passkey = |p: &PersonPasskey| {
        let used = desk.authentic_row::<PasskeyUse>(PASSKEYS, p.registered.id.as_bytes())?;
        Ok(PasskeyLine {
            id: p.registered.id.clone(),
            name: p.name.clone(),
            enrolled: p.enrolled,
            last_used: used.and_then(|u| u.value.last),
        })
    };
    let passkeys: Result<Vec<_>, Fault> = person.passkeys.iter().map(passkey).collect();
    Ok(Devices {
        person: person.id.clone(),
        groups: person.groups.clone(),
        admin: person.admin,
        devices: person.devices.iter().map(line).collect(),
        passkeys: passkeys?,
        totp: !person.totp.is_empty(),
    })
}
