//! Invites and enrolment: how a person and a first device come to be known.

use crate::{
    audit::event::Event,
    challenge::totp::{self, NoCode, TotpState},
    desk::{
        Desk, Fault,
        people::{DEVICES, Device, INVITES, PEOPLE, Person, TOTP},
    },
    publish::Refusal,
    secret::Secret,
    store::Batch,
};
use proto::{
    api::{EnrollRequest, Enrolled, InviteRequest, Invited},
    bearer::{Bearer, Kind},
    device::{DevicePublic, enrolment_bytes},
    digest::unhex,
    ids::PersonId,
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

mod first;
pub use first::{may_unseal, unseal_first};

/// Seconds that an invite works.
pub const INVITE_SECONDS: u64 = 24 * 3600;
/// Invites looked at.
const INVITES_MAX: usize = 1000;
/// Wrong first codes that an invite takes.
const FIRST_CODES_MAX: u8 = 5;

/// An invite as stored: authenticated, single use.
#[derive(Serialize, Deserialize)]
struct Invite {
    asked: InviteRequest,
    expires: UnixTime,
    /// Set at stage 1: the device that claimed it and the TOTP secret made for it.
    claimed: Option<Claim>,
    wrong: u8,
}

#[derive(Serialize, Deserialize)]
struct Claim {
    public_key: DevicePublic,
    totp: Vec<u8>,
}

/// Makes an invite. `by` is absent for the first admin's, made when the broker was created.
pub async fn invite(
    desk: &Desk,
    asked: InviteRequest,
    by: Option<&PersonId>,
    now: UnixTime,
) -> Result<Invited, Refusal> {
    for actor in &asked.actors {
        text::check(actor, 100).map_err(|e| Refusal::BadRequest(format!("an actor {e}")))?;
    }
    if desk.person(&asked.person)?.is_some() {
        return Err(Refusal::BadRequest(format!(
            "{} is enrolled; adding a device or resetting factors is not in this version",
            asked.person
        )));
    }
    let bearer = Bearer::from_entropy(Kind::Invite, desk.world.random().map_err(Fault::from)?);
    let key = bearer.hash().0;
    let expires = now.after(INVITE_SECONDS);
    let person = asked.person.clone();
    let invite = Invite {
        asked,
        expires,
        claimed: None,
        wrong: 0,
    };
    let row = desk.authentic(INVITES, &key, &invite)?;
    let event = Event::InviteMade {
        person,
        by: by.cloned(),
    };
    desk.commit(
        Batch::new().create(INVITES, key.as_slice(), row),
        &[event],
        now,
    )
    .await?;
    Ok(Invited {
        invite: bearer.expose(),
        expires,
    })
}

/// Enrols: stage 1 claims the invite for a device and makes a TOTP secret; stage 2 proves with a
/// first code that the secret was stored, and makes the person.
pub async fn enroll(desk: &Desk, given: EnrollRequest, now: UnixTime) -> Result<Enrolled, Refusal> {
    let unknown = || Refusal::NotAllowed("this invite is unknown, used or expired".to_owned());
    let bearer = Bearer::parse(Kind::Invite, &given.invite).map_err(|_| unknown())?;
    let key = bearer.hash().0;
    let held = desk
        .authentic_row::<Invite>(INVITES, &key)?
        .ok_or_else(unknown)?;
    let mut invite = held.value;
    if now >= invite.expires {
        return Err(unknown());
    }
    text::check(&given.device_name, 60)
        .map_err(|e| Refusal::BadRequest(format!("the device's name {e}")))?;
    let person = invite.asked.person.clone();
    if !signed_by_device(&given, &key) {
        return Err(Refusal::NotAllowed(
            "the device's signature does not hold".to_owned(),
        ));
    }
    // Whoever claims first has it: a second device with the same invite is told that it is used.
    if invite
        .claimed
        .as_ref()
        .is_some_and(|c| c.public_key != given.public_key)
    {
        return Err(unknown());
    }
    let device = given.public_key.id();
    match (&given.totp, invite.claimed.take()) {
        (None, claimed) => {
            let (totp, secret) = if let Some(c) = claimed {
                // The reply to stage 1 was lost: the same secret again.
                let secret = desk.open_totp(&person, &c.totp)?;
                (c.totp, secret)
            } else {
                let fresh: [u8; totp::SECRET_BYTES] = desk.world.random().map_err(Fault::from)?;
                let secret = Secret::new(fresh.to_vec());
                (desk.seal_totp(&person, &secret)?, secret)
            };
            invite.claimed = Some(Claim {
                public_key: given.public_key,
                totp,
            });
            let row = desk.authentic(INVITES, &key, &invite)?;
            desk.commit(
                Batch::new().replace(INVITES, key.as_slice(), held.version, row),
                &[],
                now,
            )
            .await?;
            let otpauth =
                totp::otpauth(&secret, person.as_str()).ok_or(Fault::Damaged("a TOTP secret"))?;
            Ok(Enrolled {
                person,
                device,
                otpauth: Some(otpauth),
                done: false,
            })
        }
        (Some(_), None) => Err(Refusal::BadRequest(
            "ask for the TOTP secret first".to_owned(),
        )),
        (Some(_), Some(_)) if desk.world.clock_suspect() => Err(Refusal::ClockSuspect),
        (Some(code), Some(claim)) => {
            let secret = desk.open_totp(&person, &claim.totp)?;
            match totp::judge(&secret, code, &TotpState::default(), 0, now) {
                Ok(good) => {
                    let enrolled = Person {
                        id: person.clone(),
                        groups: invite.asked.groups.clone(),
                        admin: invite.asked.admin,
                        actors: invite.asked.actors.clone(),
                        devices: vec![Device {
                            id: device.clone(),
                            public_key: given.public_key,
                            name: given.device_name.clone(),
                            enrolled: now,
                        }],
                        totp: claim.totp,
                    };
                    let id = person.as_str().as_bytes();
                    let batch = Batch::new()
                        .delete(INVITES, key.as_slice(), held.version)
                        .create(PEOPLE, id, desk.authentic(PEOPLE, id, &enrolled)?)
                        .create(DEVICES, device.as_str().as_bytes(), id);
                    let batch = first_totp(desk, batch, &person, &good.state)?;
                    let event = Event::PersonEnrolled {
                        person: person.clone(),
                        device: device.clone(),
                    };
                    desk.commit(batch, &[event], now).await?;
                    Ok(Enrolled {
                        person,
                        device,
                        otpauth: None,
                        done: true,
                    })
                }
                Err(NoCode::Malformed) => Err(Refusal::BadRequest(
                    "a code has exactly six digits".to_owned(),
                )),
                Err(_) => {
                    invite.claimed = Some(claim);
                    invite.wrong += 1;
                    let batch = if invite.wrong >= FIRST_CODES_MAX {
                        Batch::new().delete(INVITES, key.as_slice(), held.version)
                    } else {
                        let row = desk.authentic(INVITES, &key, &invite)?;
                        Batch::new().replace(INVITES, key.as_slice(), held.version, row)
                    };
                    desk.commit(batch, &[], now).await?;
                    Err(Refusal::FactorWrong)
                }
            }
        }
    }
}

/// Whether the device proves its key for this invite.
fn signed_by_device(given: &EnrollRequest, invite: &[u8; 32]) -> bool {
    let proof = enrolment_bytes(invite, given.device_name.as_str());
    unhex(&given.signature).is_some_and(|s| given.public_key.verify(&proof, &s))
}

/// Adds the deletion of a person's open invites: who was removed does not come back by a leftover one.
pub fn forget_invites(desk: &Desk, mut batch: Batch, person: &PersonId) -> Result<Batch, Fault> {
    for (key, row) in desk.live.range(INVITES, b"", None, INVITES_MAX)? {
        let invite = desk.authentic_row::<Invite>(INVITES, &key)?;
        if invite.is_some_and(|i| i.value.asked.person == *person) {
            batch = batch.delete(INVITES, key, row.version);
        }
    }
    Ok(batch)
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
