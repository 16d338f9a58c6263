//! Shares: each admin's own key for them, and how admins open the vault together.
//!
//! What if an attacker writes the database? While the vault is sealed nobody can be authenticated, so he can
//! make a device of his count as an admin's. That device is shown age files which the disk holds anyway, and
//! hands in what the key file's own checks know to be wrong. Once the vault is open, everybody who handed in is
//! authenticated, and it is sealed again if one of them is nobody.

use super::{file, open, refused};
use crate::{
    admin::{
        own::{Own, current},
        signed::SignedBy,
    },
    audit::event::Event,
    desk::{
        Desk, Fault,
        offered::{Given, KEPT},
        people::PEOPLE,
    },
    publish::{Refusal, prove::prove_in_terminal},
    secret::Secret,
    store::{Batch, Table},
    vault::{
        Unseal,
        key_file::{self, Holder},
    },
};
use proto::{
    custody::{ShareKey, ShareRound, Unsealing},
    factors::change,
    ids::{DeviceId, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Admins' public keys for shares, by person; authenticated.
const SHARE_KEYS: Table = Table("share-key");
/// What a wrong share costs the next try.
pub(super) const WRONG: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Key {
    recipient: String,
    /// The device that made it. Its secret half lies there: it is lost, or stolen, with it.
    device: DeviceId,
}

/// How the vault is opened, and how far that is.
pub async fn state(desk: &Desk, person: &PersonId) -> Result<Unsealing, Refusal> {
    let file = file::read(desk).await?;
    let methods = key_file::methods(file.expose()).map_err(|e| refused(&e))?;
    let offer = key_file::offer(file.expose()).map_err(|e| refused(&e))?;
    let round = offer.map(|offer| ShareRound {
        needed: offer.needed,
        given: (desk.offered).people(&offer.deal, desk.world.monotonic_ms()),
        own: offer.of(person).map(str::to_owned),
        holders: offer.holders.into_iter().map(|h| h.person).collect(),
    });
    Ok(Unsealing {
        sealed: desk.vault.is_sealed(),
        methods: methods.into_iter().map(str::to_owned).collect(),
        shares: round,
    })
}

/// Takes an admin's share; the one that makes them enough opens the vault.
pub async fn hand_in(
    desk: &Arc<Desk>,
    by: SignedBy,
    share: Secret<Vec<u8>>,
    now: UnixTime,
) -> Result<Unsealing, Refusal> {
    let is_open = || Refusal::BadRequest("the vault is open".to_owned());
    if !desk.vault.is_sealed() {
        return Err(is_open());
    }
    let file = file::read(desk).await?;
    let offer = key_file::offer(file.expose()).map_err(|e| refused(&e))?;
    // Before the one place is taken, and waiting for it: who tries wrong ones all the time holds up nobody else.
    genuine(desk, file.expose(), &by.person, &share, now).await?;
    let _one = desk.unsealing.acquire().await;
    if !desk.vault.is_sealed() {
        return Err(is_open());
    }
    let offer = offer.ok_or(Fault::Damaged("the key file"))?;
    let event = Event::ShareGiven {
        person: by.person.clone(),
        device: by.device.clone(),
    };
    desk.commit(Batch::new(), &[event], now).await?;
    let given = Given {
        person: by.person.clone(),
        device: by.device,
        share,
    };
    let at = desk.world.monotonic_ms();
    if let Some(all) = desk.offered.take(&offer.deal, offer.needed, given, at) {
        let mut signers = Vec::new();
        let mut shares = Vec::new();
        for given in all {
            signers.push(SignedBy {
                person: given.person.clone(),
                device: given.device,
            });
            shares.push((given.person, given.share));
        }
        open(desk, Unseal::Shares(shares), &signers, now).await?;
    } else {
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            desk.offered.forget_old(desk.world.monotonic_ms());
        });
    }
    state(desk, &by.person).await
}

/// Whether a share is the one that a person was dealt. A wrong one is recorded, and costs its author a while. (It
/// is no passphrase: nobody guesses it.)
pub(super) async fn genuine(
    desk: &Desk,
    key_file: &[u8],
    person: &PersonId,
    share: &Secret<Vec<u8>>,
    now: UnixTime,
) -> Result<(), Refusal> {
    let Err(why) = key_file::check_share(key_file, person, share.expose()) else {
        return Ok(());
    };
    tokio::time::sleep(WRONG).await;
    let event = Event::ShareRefused {
        person: person.clone(),
    };
    desk.commit(Batch::new(), &[event], now).await?;
    Err(refused(&why))
}

/// Registers the key that an admin's shares are encrypted to, from the next deal on.
pub async fn set_key(
    desk: &Desk,
    own: Own<'_>,
    given: &ShareKey,
    now: UnixTime,
) -> Result<(), Refusal> {
    if !key_file::is_recipient(&given.recipient) {
        return Err(Refusal::BadRequest(
            "a share key is an age public key (age1…)".to_owned(),
        ));
    }
    let held = current(desk, own)?;
    for other in desk.people()?.iter().filter(|p| p.id != *own.person) {
        let theirs = desk.authentic_row::<Key>(SHARE_KEYS, other.id.as_str().as_bytes())?;
        // One machine with two people's shares would be two of them.
        if theirs.is_some_and(|k| k.value.recipient == given.recipient) {
            return Err(Refusal::BadRequest(
                "this is somebody else's share key; make your own".to_owned(),
            ));
        }
    }
    let about = (change::SHARE_KEY, given.recipient.as_str());
    let spent = prove_in_terminal(desk, &held.value, own.device, about, &given.factor, now).await?;
    let key = own.person.as_str().as_bytes();
    let row = Key {
        recipient: given.recipient.clone(),
        device: own.device.clone(),
    };
    let row = desk.authentic(SHARE_KEYS, key, &row)?;
    let old = desk.live.get(SHARE_KEYS, key).map_err(Fault::from)?;
    let batch = spent.put(SHARE_KEYS, key, old.map(|old| old.version), row);
    // Who was removed in between registers nothing.
    let person = own.person.as_str().as_bytes();
    let batch = batch.require(PEOPLE, person, held.version);
    let event = Event::ShareKeySet {
        person: own.person.clone(),
        device: own.device.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// An admin as a holder of shares; none without a share key of a device that he still has.
pub(super) fn holder(desk: &Desk, person: &PersonId) -> Result<Option<Holder>, Fault> {
    let Some(held) = desk.person(person)?.filter(|p| p.value.admin) else {
        return Ok(None);
    };
    let key = desk.authentic_row::<Key>(SHARE_KEYS, person.as_str().as_bytes())?;
    let key = key.filter(|k| held.value.device(&k.value.device).is_some());
    Ok(key.map(|k| Holder {
        person: person.clone(),
        recipient: k.value.recipient,
    }))
}
