//! The first admin's enrolment at a sealed broker.
//!
//! Enrolling needs the vault, and unsealing it needs an enrolled admin. For the very first one the
//! enrolment itself carries the passphrase that `countersignd init` printed. The door is open to
//! whoever shows the first admin's invite (256 bits), to nobody else, and only until somebody is
//! enrolled. So a stranger cannot make the broker work (attack 53), learn that it is there (attack
//! 55) or guess: tries are charged before they are compared, and run one at a time.

use super::{INVITES, Invite, PEOPLE, enroll, signed_by_device};
use crate::{
    admin::custody,
    audit::event::Event,
    desk::{Desk, Fault},
    publish::Refusal,
    secret::Secret,
    store::Batch,
    vault::{Unseal, rows},
};
use proto::{
    api::{EnrollRequest, Enrolled, UnsealFirst},
    bearer::{Bearer, Kind},
    time::UnixTime,
};
use std::sync::Arc;

/// Whether this enrolment may carry the passphrase. Nothing here is authenticated, since the vault is
/// sealed: whoever planted the invite's row still needs the passphrase, and is found out after it.
pub fn may_unseal(desk: &Desk, given: &EnrollRequest, now: UnixTime) -> Result<bool, Fault> {
    if !desk.vault.is_sealed() || !desk.live.range(PEOPLE, b"", None, 1)?.is_empty() {
        return Ok(false);
    }
    let Ok(bearer) = Bearer::parse(Kind::Invite, &given.invite) else {
        return Ok(false);
    };
    let key = bearer.hash().0;
    let Some(row) = desk.live.get(INVITES, &key)? else {
        return Ok(false);
    };
    let invite: Option<Invite> =
        rows::unauthenticated(&row.value).and_then(|json| serde_json::from_slice(json).ok());
    Ok(invite.is_some_and(|i| i.asked.admin && now < i.expires) && signed_by_device(given, &key))
}

/// Unseals with the passphrase and begins the enrolment. The vault is sealed again if the invite
/// turns out not to be this broker's.
pub async fn unseal_first(
    desk: &Arc<Desk>,
    given: UnsealFirst,
    now: UnixTime,
) -> Result<Enrolled, Refusal> {
    let mut enrolment = given.enrolment;
    let passphrase = Secret::new(given.passphrase);
    if !may_unseal(desk, &enrolment, now)? {
        return Err(Refusal::NotAllowed(
            "only the first admin's invite unseals, while nobody is enrolled".to_owned(),
        ));
    }
    if !desk.first_tries.charge() {
        return Err(Refusal::NotAllowed(
            "too many wrong passphrases; start the broker again to try on".to_owned(),
        ));
    }
    match custody::unseal(desk, Unseal::Passphrase(passphrase), &[], now).await {
        Err(Refusal::Busy) => {
            desk.first_tries.refund();
            return Err(Refusal::Busy);
        }
        wrong @ Err(_) => wrong?,
        Ok(()) => desk.first_tries.refund(),
    }
    enrolment.totp = None;
    let enrolled = enroll(desk, enrolment, now).await;
    if enrolled.is_err() {
        desk.vault.seal();
        desk.commit(Batch::new(), &[Event::Sealed], now).await?;
    }
    enrolled
}
