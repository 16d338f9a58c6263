//! A person's own devices and passkeys. Each change is proved anew, with the strongest factor that the person
//! has: whoever stole a browser's session, or only a code, makes no factor of his own from it (attacks 32, 33).

use super::{enroll::first_use, invites::invite_device};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        people::{DEVICES, Device, PASSKEYS, PEOPLE, Person, PersonPasskey, Versioned},
    },
    publish::{
        Refusal,
        prove::{not_taken, prove_change},
    },
    store::{Batch, Table},
};
use proto::{
    api::Invited,
    factors::{AddPasskey, InviteDevice, PasskeyOptions, RemoveDevice, RemovePasskey, change},
    ids::{DeviceId, PersonId},
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a passkey's registration is checked against, by person; the last one counts.
const REGISTRATIONS: Table = Table("registration");
/// Seconds that a registration may take.
const REGISTRATION_SECONDS: u64 = 5 * 60;
/// Most devices, and most passkeys, of one person.
pub(super) const OWN_MAX: usize = 10;
/// Longest name of a device or passkey, in bytes.
const NAME_MAX: usize = 60;

#[derive(Serialize, Deserialize)]
struct Registration {
    device: DeviceId,
    state: serde_json::Value,
    expires: UnixTime,
}

/// Who makes a change, and with which device.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// The person.
    pub person: &'a PersonId,
    /// The device that signed the call.
    pub device: &'a DeviceId,
}

/// An invite for a further device.
pub async fn invite(
    desk: &Desk,
    own: Own<'_>,
    given: &InviteDevice,
    now: UnixTime,
) -> Result<Invited, Refusal> {
    let held = current(desk, own)?;
    if held.value.devices.len() >= OWN_MAX {
        return Err(Refusal::BadRequest(format!(
            "you have {OWN_MAX} devices; remove one first"
        )));
    }
    let (what, object) = (change::ADD_DEVICE, own.person.as_str());
    let proved = prove_change(
        desk,
        &held.value,
        own.device,
        (what, object),
        &given.factor,
        now,
    )
    .await?;
    invite_device(desk, &held.value, proved.spent, now).await
}

/// Removes one of the own devices; not the one that asks, and so never the last.
pub async fn remove_device(
    desk: &Desk,
    own: Own<'_>,
    given: &RemoveDevice,
    now: UnixTime,
) -> Result<(), Refusal> {
    let held = current(desk, own)?;
    if given.device == *own.device {
        return Err(Refusal::BadRequest(
            "this is the device that asks; remove it from another one".to_owned(),
        ));
    }
    if held.value.device(&given.device).is_none() {
        return Err(Refusal::NotFound);
    }
    let about = (change::REMOVE_DEVICE, given.device.as_str());
    let proved = prove_change(desk, &held.value, own.device, about, &given.factor, now).await?;
    let mut person = Person::clone(&held.value);
    person.devices.retain(|d| d.id != given.device);
    let mut batch = replaced(desk, proved.spent, held.version, &person)?;
    let id = given.device.as_str().as_bytes();
    if let Some(row) = desk.live.get(DEVICES, id).map_err(Fault::from)? {
        batch = batch.delete(DEVICES, id, row.version);
    }
    let event = Event::DeviceRemoved {
        person: person.id.clone(),
        device: given.device.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Options for a new passkey.
pub async fn passkey_options(
    desk: &Desk,
    own: Own<'_>,
    now: UnixTime,
) -> Result<PasskeyOptions, Refusal> {
    let held = current(desk, own)?;
    let passkeys = desk.passkeys.as_ref().ok_or_else(none_here)?;
    if held.value.passkeys.len() >= OWN_MAX {
        return Err(Refusal::BadRequest(format!(
            "you have {OWN_MAX} passkeys; remove one first"
        )));
    }
    let (options, state) = passkeys
        .begin(own.person.as_str(), &held.value.registered())
        .map_err(|why| not_taken(&why))?;
    let row = Registration {
        device: own.device.clone(),
        state,
        expires: now.after(REGISTRATION_SECONDS),
    };
    let key = own.person.as_str().as_bytes();
    let bytes = desk.authentic(REGISTRATIONS, key, &row)?;
    let old = desk.live.get(REGISTRATIONS, key).map_err(Fault::from)?;
    let batch = Batch::new().put(REGISTRATIONS, key, old.map(|old| old.version), bytes);
    desk.commit(batch, &[], now).await?;
    Ok(PasskeyOptions { options })
}

/// Adds a passkey.
pub async fn add_passkey(
    desk: &Desk,
    own: Own<'_>,
    given: &AddPasskey,
    now: UnixTime,
) -> Result<(), Refusal> {
    text::check(&given.name, NAME_MAX)
        .map_err(|e| Refusal::BadRequest(format!("the passkey's name {e}")))?;
    let held = current(desk, own)?;
    let passkeys = desk.passkeys.as_ref().ok_or_else(none_here)?;
    let key = own.person.as_str().as_bytes();
    let begun = desk
        .authentic_row::<Registration>(REGISTRATIONS, key)?
        .filter(|r| now < r.value.expires && r.value.device == *own.device)
        .ok_or_else(|| Refusal::NotAllowed("this registration is unknown or expired".to_owned()))?;
    let registered = passkeys
        .register(&given.credential, &begun.value.state)
        .map_err(|why| not_taken(&why))?;
    if held.value.passkeys.len() >= OWN_MAX || held.value.passkey(&registered.id).is_some() {
        return Err(Refusal::BadRequest(
            "this passkey is enrolled, or you have too many".to_owned(),
        ));
    }
    let about = (change::ADD_PASSKEY, registered.id.as_str());
    let proved = prove_change(desk, &held.value, own.device, about, &given.factor, now).await?;
    let passkey = PersonPasskey {
        registered,
        name: given.name.clone(),
        enrolled: now,
    };
    let event = Event::PasskeyAdded {
        person: own.person.clone(),
        passkey: passkey.registered.id.clone(),
    };
    let batch = proved.spent.delete(REGISTRATIONS, key, begun.version);
    let batch = first_use(desk, batch, &passkey)?;
    let mut person = Person::clone(&held.value);
    person.passkeys.push(passkey);
    let batch = replaced(desk, batch, held.version, &person)?;
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Removes a passkey; the last factor stays.
pub async fn remove_passkey(
    desk: &Desk,
    own: Own<'_>,
    given: &RemovePasskey,
    now: UnixTime,
) -> Result<(), Refusal> {
    let held = current(desk, own)?;
    if held.value.passkey(&given.id).is_none() {
        return Err(Refusal::NotFound);
    }
    if held.value.passkeys.len() == 1 && held.value.totp.is_empty() {
        return Err(Refusal::BadRequest(
            "this is your only factor; add another one first".to_owned(),
        ));
    }
    let about = (change::REMOVE_PASSKEY, given.id.as_str());
    let proved = prove_change(desk, &held.value, own.device, about, &given.factor, now).await?;
    let own_use = proved
        .assertion
        .as_ref()
        .is_some_and(|a| a.credential == given.id);
    let mut person = Person::clone(&held.value);
    person.passkeys.retain(|p| p.registered.id != given.id);
    let mut batch = replaced(desk, proved.spent, held.version, &person)?;
    let id = given.id.as_bytes();
    // A passkey that proves its own removal has its counter in this batch already; the row stays, and nobody
    // reads it again.
    if !own_use && let Some(row) = desk.live.get(PASSKEYS, id).map_err(Fault::from)? {
        batch = batch.delete(PASSKEYS, id, row.version);
    }
    let event = Event::PasskeyRemoved {
        person: person.id.clone(),
        passkey: given.id.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Adds the write of a person's row in place of the version that was read.
pub(super) fn replaced(
    desk: &Desk,
    batch: Batch,
    version: u64,
    person: &Person,
) -> Result<Batch, Fault> {
    let id = person.id.as_str().as_bytes();
    Ok(batch.replace(PEOPLE, id, version, desk.authentic(PEOPLE, id, person)?))
}

/// The person's row as it is now: whoever was removed since the call was signed changes nothing.
pub(super) fn current(desk: &Desk, own: Own<'_>) -> Result<Versioned<Arc<Person>>, Refusal> {
    desk.person(own.person)?
        .filter(|p| p.value.device(own.device).is_some())
        .ok_or(Refusal::NotFound)
}

pub(super) fn none_here() -> Refusal {
    Refusal::BadRequest(
        "this broker has no passkeys: its public URL has no host name, or no TLS".to_owned(),
    )
}

/// A device at its enrolment.
pub(super) fn new_device(given: &proto::api::EnrollRequest, now: UnixTime) -> Device {
    Device {
        id: given.public_key.id(),
        public_key: given.public_key,
        name: given.device_name.clone(),
        enrolled: now,
        kind: given.kind,
    }
}
