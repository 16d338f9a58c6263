//! Enrolment: how a person and a first device come to be known.

use super::{
    invites::{Claim, Invite, Purpose},
    own::{OWN_MAX, new_device, none_here, replaced},
    recovery,
};
use crate::{
    audit::event::Event,
    challenge::totp::{self, NoCode, TotpState},
    desk::{
        Desk, Fault,
        inventory::RECOVERIES,
        people::{
            DEVICES, INVITES, PASSKEYS, PEOPLE, PEOPLE_MAX, PasskeyUse, Person, PersonPasskey,
            TOTP, Versioned,
        },
    },
    notify::About,
    publish::{Refusal, judge, prove::not_taken, ring},
    secret::Secret,
    store::Batch,
};
use proto::{
    api::{EnrollRequest, Enrolled},
    bearer::{Bearer, Kind},
    device::{DeviceKind, enrolment_bytes},
    digest::unhex,
    ids::PersonId,
    text,
    time::UnixTime,
};

mod first;
pub use first::{may_unseal, unseal_first};

/// Wrong first codes that an invite takes.
const FIRST_CODES_MAX: u8 = 5;

/// Enrols: stage 1 claims the invite for a device and makes a TOTP secret; stage 2 proves with a first
/// code that the secret was stored, or brings a new passkey, or both, and makes the person.
pub async fn enroll(desk: &Desk, given: EnrollRequest, now: UnixTime) -> Result<Enrolled, Refusal> {
    let unknown = || Refusal::NotAllowed("this invite is unknown, used or expired".to_owned());
    let bearer = Bearer::parse(Kind::Invite, &given.invite).map_err(|_| unknown())?;
    let key = bearer.hash().0;
    let mut held = desk
        .authentic_row::<Invite>(INVITES, &key)?
        .ok_or_else(unknown)?;
    if now >= held.value.expires {
        return Err(unknown());
    }
    if let Some(by) = &held.value.by {
        let inviter = desk.person(by)?;
        if !inviter.is_some_and(|p| p.value.admin) {
            return Err(unknown());
        }
    }
    text::check(&given.device_name, 60)
        .map_err(|e| Refusal::BadRequest(format!("the device's name {e}")))?;
    if !signed_by_device(&given, &key) {
        return Err(Refusal::NotAllowed(
            "the device's signature does not hold".to_owned(),
        ));
    }
    // Whoever claims first has it: a second device with the same invite is told that it is used.
    let claimed = held.value.claimed.take();
    if claimed
        .as_ref()
        .is_some_and(|c| c.public_key != given.public_key)
    {
        return Err(unknown());
    }
    if held.value.purpose == Purpose::Device {
        return further_device(desk, held, &key, &given, now).await;
    }
    let last = given.totp.is_some() || given.passkey.is_some();
    match (claimed, last) {
        (claimed, false) => claim(desk, held, &key, &given, claimed, now).await,
        (None, true) => Err(Refusal::BadRequest(
            "ask for the TOTP secret first".to_owned(),
        )),
        (Some(claim), true) => finish(desk, held, &key, &given, claim, now).await,
    }
}

/// A further device: one call, since its person proved the invite with the strongest factor. It brings no factor;
/// a passkey is added from it with a proof of its own.
async fn further_device(
    desk: &Desk,
    held: Versioned<Invite>,
    key: &[u8; 32],
    given: &EnrollRequest,
    now: UnixTime,
) -> Result<Enrolled, Refusal> {
    let gone = || Refusal::NotAllowed("this invite is unknown, used or expired".to_owned());
    let known = desk.person(&held.value.asked.person)?.ok_or_else(gone)?;
    let mut person = Person::clone(&known.value);
    let device = new_device(given, now);
    if person.devices.len() >= OWN_MAX || person.device(&device.id).is_some() {
        return Err(gone());
    }
    let id = device.id.clone();
    person.devices.push(device);
    let batch = Batch::new()
        .delete(INVITES, key.as_slice(), held.version)
        .create(
            DEVICES,
            id.as_str().as_bytes(),
            person.id.as_str().as_bytes(),
        );
    let batch = replaced(desk, batch, known.version, &person)?;
    let event = Event::DeviceAdded {
        person: person.id.clone(),
        device: id.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(Enrolled {
        person: person.id,
        device: id,
        otpauth: None,
        qr: None,
        passkey: None,
        done: true,
    })
}

/// Stage 1; again the same secret when its reply was lost.
async fn claim(
    desk: &Desk,
    mut held: Versioned<Invite>,
    key: &[u8; 32],
    given: &EnrollRequest,
    claimed: Option<Claim>,
    now: UnixTime,
) -> Result<Enrolled, Refusal> {
    let person = held.value.asked.person.clone();
    let (totp, secret) = if let Some(c) = claimed {
        let secret = desk.open_totp(&person, &c.totp)?;
        (c.totp, secret)
    } else {
        let fresh: [u8; totp::SECRET_BYTES] = desk.world.random().map_err(Fault::from)?;
        let secret = Secret::new(fresh.to_vec());
        (desk.seal_totp(&person, &secret)?, secret)
    };
    let passkeys = desk.passkeys.as_ref();
    let offer = passkeys.map(|p| p.begin(person.as_str(), &[]));
    let offer = offer.transpose().map_err(|why| not_taken(&why))?;
    let (options, state) = offer.unzip();
    held.value.claimed = Some(Claim {
        public_key: given.public_key,
        totp,
        passkey: state,
    });
    let row = desk.authentic(INVITES, key, &held.value)?;
    let batch = Batch::new().replace(INVITES, key.as_slice(), held.version, row);
    desk.commit(batch, &[], now).await?;
    let otpauth = totp::otpauth(&secret, person.as_str()).ok_or(Fault::Damaged("a TOTP secret"))?;
    let qr = (given.kind == DeviceKind::Browser).then(|| super::qr::rows(&otpauth));
    Ok(Enrolled {
        person,
        device: given.public_key.id(),
        otpauth: Some(otpauth),
        qr: qr.flatten(),
        passkey: options,
        done: false,
    })
}

/// Stage 2.
async fn finish(
    desk: &Desk,
    held: Versioned<Invite>,
    key: &[u8; 32],
    given: &EnrollRequest,
    claim: Claim,
    now: UnixTime,
) -> Result<Enrolled, Refusal> {
    // An older copy has invites that were used, called off or forgotten since.
    judge::serves(desk)?;
    let asked = &held.value.asked;
    let person = asked.person.clone();
    let device = given.public_key.id();
    let mut totp_state = TotpState::default();
    if let Some(code) = &given.totp {
        if desk.world.clock_suspect() {
            return Err(Refusal::ClockSuspect);
        }
        let secret = desk.open_totp(&person, &claim.totp)?;
        match totp::judge(&secret, code, &totp_state, 0, now) {
            Ok(good) => totp_state = good.state,
            Err(NoCode::Malformed) => {
                return Err(Refusal::BadRequest(
                    "a code has exactly six digits".to_owned(),
                ));
            }
            Err(_) => return wrong_first_code(desk, held, key, claim, now).await,
        }
    }
    let passkeys = match &given.passkey {
        None => Vec::new(),
        Some(reply) => vec![new_passkey(desk, reply, &claim, &given.device_name, now)?],
    };
    let mut enrolled = Person {
        id: person.clone(),
        groups: asked.groups.clone(),
        admin: asked.admin,
        actors: asked.actors.clone(),
        enrolled: Some(now),
        devices: vec![new_device(given, now)],
        passkeys,
        // What was never shown to be stored is no factor.
        totp: given.totp.as_ref().map_or(Vec::new(), |_| claim.totp),
    };
    let id = person.as_str().as_bytes();
    let mut batch = Batch::new().delete(INVITES, key.as_slice(), held.version);
    let mut event = Event::PersonEnrolled {
        person: person.clone(),
        device: device.clone(),
    };
    if held.value.purpose == Purpose::Recovery {
        let known = desk.person(&person)?.ok_or(Refusal::NotFound)?;
        let under_way = recovery::ready(desk, &known.value, now)?;
        batch = batch.delete(RECOVERIES, id, under_way);
        batch = without_factors(desk, batch, &known.value)?;
        // Whoever has the lost phone is not told what waits.
        batch = desk.forget_bells(batch, &person)?;
        // Groups and role as they are now, not as they were when the invite was made.
        enrolled.groups.clone_from(&known.value.groups);
        enrolled.actors.clone_from(&known.value.actors);
        enrolled.admin = known.value.admin;
        // Two others vouched for it: this is who was there before, and no newcomer.
        enrolled.enrolled = known.value.since();
        // Everybody hears that it happened: those who did not ask, for the first time with nothing left to call off.
        batch = ring::notice(desk, batch, About::Recovery, "", None)?;
        batch = replaced(desk, batch, known.version, &enrolled)?;
        event = Event::PersonRecovered {
            person: person.clone(),
            device: device.clone(),
        };
    } else {
        if desk.inventory()?.count(PEOPLE) >= PEOPLE_MAX {
            return Err(Refusal::BadRequest(format!(
                "there are {PEOPLE_MAX} people already: remove those who are gone (countersign admin report)"
            )));
        }
        batch = batch.create(PEOPLE, id, desk.authentic(PEOPLE, id, &enrolled)?);
    }
    batch = batch.create(DEVICES, device.as_str().as_bytes(), id);
    let mut events = vec![event];
    for passkey in &enrolled.passkeys {
        batch = first_use(desk, batch, passkey)?;
        events.push(Event::PasskeyAdded {
            person: person.clone(),
            passkey: passkey.registered.id.clone(),
        });
    }
    let batch = first_totp(desk, batch, &person, &totp_state)?;
    desk.commit(batch, &events, now).await?;
    Ok(Enrolled {
        person,
        device,
        otpauth: None,
        qr: None,
        passkey: None,
        done: true,
    })
}

/// Adds the deletion of the rows beside a person's own: devices by their id, counters of passkeys.
pub(super) fn without_factors(
    desk: &Desk,
    mut batch: Batch,
    person: &Person,
) -> Result<Batch, Fault> {
    let devices = person.devices.iter().map(|d| (DEVICES, d.id.as_str()));
    let passkeys = person
        .passkeys
        .iter()
        .map(|p| (PASSKEYS, p.registered.id.as_str()));
    for (table, id) in devices.chain(passkeys) {
        if let Some(row) = desk.live.get(table, id.as_bytes())? {
            batch = batch.delete(table, id.as_bytes(), row.version);
        }
    }
    Ok(batch)
}

async fn wrong_first_code(
    desk: &Desk,
    mut held: Versioned<Invite>,
    key: &[u8; 32],
    claim: Claim,
    now: UnixTime,
) -> Result<Enrolled, Refusal> {
    held.value.claimed = Some(claim);
    held.value.wrong += 1;
    let batch = if held.value.wrong >= FIRST_CODES_MAX {
        Batch::new().delete(INVITES, key.as_slice(), held.version)
    } else {
        let row = desk.authentic(INVITES, key, &held.value)?;
        Batch::new().replace(INVITES, key.as_slice(), held.version, row)
    };
    desk.commit(batch, &[], now).await?;
    Err(Refusal::FactorWrong)
}

fn new_passkey(
    desk: &Desk,
    reply: &serde_json::Value,
    claim: &Claim,
    name: &str,
    now: UnixTime,
) -> Result<PersonPasskey, Refusal> {
    let (Some(passkeys), Some(state)) = (&desk.passkeys, &claim.passkey) else {
        return Err(none_here());
    };
    let registered = passkeys
        .register(reply, state)
        .map_err(|why| not_taken(&why))?;
    Ok(PersonPasskey {
        registered,
        name: name.to_owned(),
        enrolled: now,
    })
}

/// Adds the first row of a passkey's counter. That another person has this very passkey is no
/// enrolment: the row is there already.
pub(super) fn first_use(
    desk: &Desk,
    batch: Batch,
    passkey: &PersonPasskey,
) -> Result<Batch, Fault> {
    let id = passkey.registered.id.as_bytes();
    let first = PasskeyUse {
        counter: passkey.registered.first_counter(),
        last: None,
    };
    let row = desk.authentic(PASSKEYS, id, &first)?;
    Ok(batch.create(PASSKEYS, id, row))
}

/// Whether the device proves its key for this invite.
fn signed_by_device(given: &EnrollRequest, invite: &[u8; 32]) -> bool {
    let proof = enrolment_bytes(invite, given.device_name.as_str());
    unhex(&given.signature).is_some_and(|s| given.public_key.verify(&proof, &s))
}

/// Stores the first TOTP state. Who was removed and comes back finds his wrong tries and his last
/// step again: enrolling anew is no way to a fresh budget (attack 21).
fn first_totp(
    desk: &Desk,
    batch: Batch,
    person: &PersonId,
    fresh: &TotpState,
) -> Result<Batch, Fault> {
    let held = desk.authentic_row::<TotpState>(TOTP, person.as_str().as_bytes())?;
    let Some(held) = held else {
        return desk.store_totp(batch, person, None, fresh);
    };
    let mut state = held.value;
    state.last_step = state.last_step.max(fresh.last_step);
    desk.store_totp(batch, person, Some(held.version), &state)
}
