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
    ids::{DeviceId, GroupName, PersonId},
};
use std::sync::Arc;

/// Everybody.
pub fn list(desk: &Desk) -> Result<Vec<PersonLine>, Refusal> {
    let line = |p: &Arc<Person>| PersonLine {
        person: p.id.clone(),
        groups: p.groups.clone(),
        admin: p.admin,
        devices: p.devices.len(),
        enrolled: p.devices.iter().map(|d| device_line(d, false)).collect(),
        actors: p.actors.clone(),
    };
    Ok(desk.people()?.iter().map(line).collect())
}

/// Prepares the removal of a person. Effective with the commit: stored answers of his are judged again at release and count
/// no more (attack 29).
pub fn remove(
    desk: &Desk,
    id: &PersonId,
    by: &PersonId,
    batch: Batch,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let held = desk.person(id)?.ok_or(Refusal::NotFound)?;
    let mut batch = super::invites::forget_invites(desk, batch, id)?;
    if held.value.admin {
        batch = another_stays(desk, id, batch)?;
    }
    batch = batch.delete(PEOPLE, id.as_str().as_bytes(), held.version);
    batch = super::enroll::without_factors(desk, batch, &held.value)?;
    batch = desk.forget_bells(batch, id)?;
    batch = super::recovery::forget(desk, batch, id)?;
    // The TOTP state stays: who is enrolled again later does not get a fresh budget or an old step.
    let event = Event::PersonRemoved {
        person: id.clone(),
        by: by.clone(),
    };
    Ok((batch, vec![event]))
}

/// Prepares that a person has these groups and this role.
pub(super) fn change(
    desk: &Desk,
    id: &PersonId,
    (groups, admin): (&[GroupName], bool),
    by: &PersonId,
    batch: Batch,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let held = desk.person(id)?.ok_or(Refusal::NotFound)?;
    let mut person = Person::clone(&held.value);
    if person.groups == groups && person.admin == admin {
        return Err(Refusal::BadRequest(format!(
            "{id} has these groups and this role already"
        )));
    }
    // What was invited with the rights of before is invited anew.
    let mut batch = super::invites::forget_invites(desk, batch, id)?;
    if person.admin && !admin {
        batch = another_stays(desk, id, batch)?;
    }
    person.groups = groups.to_vec();
    person.admin = admin;
    let event = Event::PersonChanged {
        person: id.clone(),
        groups: person.groups.clone(),
        admin,
        by: by.clone(),
    };
    let batch = super::own::replaced(desk, batch, held.version, &person)?;
    Ok((batch, vec![event]))
}

/// Another admin must still be there when this is stored: two admins who remove each other at once do not leave none.
fn another_stays(desk: &Desk, id: &PersonId, batch: Batch) -> Result<Batch, Refusal> {
    let people = desk.people()?;
    let other = people.iter().find(|p| p.admin && p.id != *id);
    let other = other.map(|p| desk.person(&p.id)).transpose()?.flatten();
    let other = other.ok_or_else(|| {
        Refusal::NotAllowed("the last admin stays one; invite another one first".to_owned())
    })?;
    Ok(batch.require(PEOPLE, other.value.id.as_str().as_bytes(), other.version))
}

/// A person's own devices and factors.
pub fn devices(desk: &Desk, person: &Person, this: &DeviceId) -> Result<Devices, Refusal> {
    let line = |d: &Device| device_line(d, d.id == *this);
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

fn device_line(device: &Device, this: bool) -> DeviceLine {
    DeviceLine {
        id: device.id.clone(),
        name: device.name.clone(),
        kind: device.kind,
        enrolled: device.enrolled,
        this,
    }
}
