//! Invites: made, and forgotten when they are of no use any more.

use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        people::{INVITES, Person},
    },
    publish::Refusal,
    store::Batch,
};
use proto::{
    api::{InviteRequest, Invited},
    bearer::{Bearer, Kind},
    device::DevicePublic,
    ids::PersonId,
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Seconds that an invite works.
pub const INVITE_SECONDS: u64 = 24 * 3600;
/// Seconds that an invite for a further device works: it is in the hands of one person.
const DEVICE_INVITE_SECONDS: u64 = 15 * 60;
/// Invites read at once.
const PAGE: usize = 500;

/// An invite as stored: authenticated, single use.
#[derive(Serialize, Deserialize)]
pub(super) struct Invite {
    pub(super) asked: InviteRequest,
    #[serde(default)]
    pub(super) purpose: Purpose,
    /// Who made it: an admin who is none any more invites nobody. Absent for the first admin's.
    #[serde(default)]
    pub(super) by: Option<PersonId>,
    pub(super) expires: UnixTime,
    /// Set at stage 1: the device that claimed it and the TOTP secret made for it.
    pub(super) claimed: Option<Claim>,
    pub(super) wrong: u8,
}

impl Invite {
    /// When it was made.
    const fn made(&self) -> UnixTime {
        let life = match self.purpose {
            Purpose::Device => DEVICE_INVITE_SECONDS,
            Purpose::Person | Purpose::Recovery => INVITE_SECONDS,
        };
        self.expires.before(life)
    }
}

/// What an invite is for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Purpose {
    /// Somebody new.
    #[default]
    Person,
    /// A further device of somebody who is enrolled, and proved it.
    Device,
    /// Somebody who lost all factors.
    Recovery,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) public_key: DevicePublic,
    pub(super) totp: Vec<u8>,
    /// What the passkey's registration is checked against.
    #[serde(default)]
    pub(super) passkey: Option<serde_json::Value>,
}

/// An invite that is made by the commit of `batch` and `event`.
pub struct Made {
    /// The operations.
    pub batch: Batch,
    /// What happened.
    pub event: Event,
    /// What is handed over.
    pub invited: Invited,
}

/// Prepares an invite. `by` is absent for the first admin's, made when the broker was created.
pub fn invite(
    desk: &Desk,
    asked: InviteRequest,
    by: Option<&PersonId>,
    batch: Batch,
    now: UnixTime,
) -> Result<Made, Refusal> {
    for actor in &asked.actors {
        text::check(actor, 100).map_err(|e| Refusal::BadRequest(format!("an actor {e}")))?;
    }
    if desk.person(&asked.person)?.is_some() {
        return Err(Refusal::BadRequest(format!(
            "{} is enrolled: a further device is added with one that is enrolled, and lost factors are recovered by two other people (countersign recover)",
            asked.person
        )));
    }
    let event = Event::InviteMade {
        person: asked.person.clone(),
        by: by.cloned(),
    };
    let life = (Purpose::Person, INVITE_SECONDS);
    made(desk, asked, (life, by.cloned()), batch, event, now)
}

/// An invite for a further device. `spent` is what the proof for it spends.
pub(super) async fn invite_device(
    desk: &Desk,
    person: &Person,
    spent: Batch,
    now: UnixTime,
) -> Result<Invited, Refusal> {
    let event = Event::InviteMade {
        person: person.id.clone(),
        by: Some(person.id.clone()),
    };
    let life = (Purpose::Device, DEVICE_INVITE_SECONDS);
    stored(
        desk,
        made(desk, of_person(person), (life, None), spent, event, now)?,
        now,
    )
    .await
}

/// The invite at the end of a recovery.
pub(super) async fn invite_recovered(
    desk: &Desk,
    person: &Person,
    by: &PersonId,
    spent: Batch,
    now: UnixTime,
) -> Result<Invited, Refusal> {
    let event = Event::RecoveryInvited {
        person: person.id.clone(),
        by: by.clone(),
    };
    let life = (Purpose::Recovery, INVITE_SECONDS);
    stored(
        desk,
        made(desk, of_person(person), (life, None), spent, event, now)?,
        now,
    )
    .await
}

async fn stored(desk: &Desk, made: Made, now: UnixTime) -> Result<Invited, Refusal> {
    desk.commit(made.batch, &[made.event], now).await?;
    Ok(made.invited)
}

fn of_person(person: &Person) -> InviteRequest {
    InviteRequest {
        person: person.id.clone(),
        groups: person.groups.clone(),
        admin: person.admin,
        actors: person.actors.clone(),
    }
}

fn made(
    desk: &Desk,
    asked: InviteRequest,
    ((purpose, seconds), by): ((Purpose, u64), Option<PersonId>),
    batch: Batch,
    event: Event,
    now: UnixTime,
) -> Result<Made, Refusal> {
    let bearer = Bearer::from_entropy(Kind::Invite, desk.world.random().map_err(Fault::from)?);
    let key = bearer.hash().0;
    let expires = now.after(seconds);
    let invite = Invite {
        asked,
        purpose,
        by,
        expires,
        claimed: None,
        wrong: 0,
    };
    let row = desk.authentic(INVITES, &key, &invite)?;
    let batch = batch.create(INVITES, key.as_slice(), row);
    let invite = bearer.expose();
    // Behind the #, so that no server's log has it.
    let link = format!("{}/enroll#{invite}", desk.place.public_url);
    let invited = Invited {
        qr: super::qr::rows(&link),
        link,
        invite,
        expires,
    };
    Ok(Made {
        batch,
        event,
        invited,
    })
}

/// Every invite, in pages, so that however many there are none is passed over; with those that cannot be believed,
/// which nobody can use.
fn each(desk: &Desk, mut see: impl FnMut(Vec<u8>, u64, Option<Invite>)) -> Result<(), Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(INVITES, b"", after.as_deref(), PAGE)?;
        let more = rows.len() == PAGE;
        after = rows.last().map(|(key, _)| key.clone());
        for (key, row) in rows {
            match desk.authentic_row::<Invite>(INVITES, &key) {
                Err(Fault::Damaged(what)) => {
                    tracing::error!(what, "ALARM: an invite's row cannot be believed");
                    see(key, row.version, None);
                }
                invite => {
                    if let Some(invite) = invite? {
                        see(key, invite.version, Some(invite.value));
                    }
                }
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// Adds the deletion of a person's open invites: who was removed does not come back by a leftover one.
pub fn forget_invites(desk: &Desk, batch: Batch, person: &PersonId) -> Result<Batch, Fault> {
    let mut all = Vec::new();
    each(desk, |key, version, invite| {
        if invite.is_some_and(|i| i.asked.person == *person) {
            all.push((key, version));
        }
    })?;
    let gone = all.into_iter();
    Ok(gone.fold(batch, |batch, (key, version)| {
        batch.delete(INVITES, key, version)
    }))
}

/// Ends the invites that were made until `made` and that nobody has used, and says how many. Whoever lost all
/// factors keeps his: two others asked for it, and a day went by. The vault is open.
pub(super) async fn end_open(desk: &Desk, made: UnixTime, now: UnixTime) -> Result<usize, Fault> {
    let mut open = Vec::new();
    each(desk, |key, version, invite| {
        let Some(invite) = invite.filter(|i| i.purpose != Purpose::Recovery) else {
            return;
        };
        if invite.made() <= made && now < invite.expires {
            open.push((key, version, invite.asked.person));
        }
    })?;
    let mut ended = 0;
    for (key, version, person) in open {
        let gone = Batch::new().delete(INVITES, key, version);
        match desk
            .commit(gone, &[Event::InviteEnded { person }], now)
            .await
        {
            Ok(_) => ended += 1,
            // It was used, or ended, at this very moment.
            Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(ended)
}

/// Forgets invites that nobody can use any more.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let mut over = Vec::new();
    each(desk, |key, version, invite| {
        if invite.is_some_and(|i| now >= i.expires) {
            over.push((key, version));
        }
    })?;
    for (key, version) in over {
        let gone = Batch::new().delete(INVITES, key, version);
        match desk.commit(gone, &[], now).await {
            // Somebody forgot it meanwhile.
            Ok(_) | Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}
