//! Sealing and unsealing. [`shares`]: by several admins together. [`method`]: what opens the vault changes. [`rekey`]: what
//! it opens does.

pub mod file;
pub mod method;
pub mod rekey;
pub mod shares;

use super::{
    gate,
    signed::{SignedBy, is_admin},
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    publish::Refusal,
    store::Batch,
    vault::{Unseal, UnsealError},
};
pub use file::KEY_FILE;
use proto::time::UnixTime;
use std::sync::Arc;

/// Wipes the keys from memory; nothing is released until somebody unseals. Shares that were handed in since stay: one
/// admin's device, or one that was planted, would keep all others from unsealing.
pub async fn seal(desk: &Desk, now: UnixTime) -> Result<(), Refusal> {
    desk.vault.seal();
    desk.commit(Batch::new(), &[Event::Sealed], now).await?;
    Ok(())
}

/// Unseals with a passphrase or identity. scrypt takes a second and 256 MB: it runs on its own
/// thread, one at a time. The signers could not be authenticated against the database while it was
/// sealed: if one of their rows turns out not to be ours, the vault is sealed again.
pub async fn unseal(
    desk: &Arc<Desk>,
    secret: Unseal,
    signers: &[SignedBy],
    now: UnixTime,
) -> Result<(), Refusal> {
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Refusal::Busy);
    };
    open(desk, secret, signers, now).await
}

/// The same for who has the one place already.
async fn open(
    desk: &Arc<Desk>,
    secret: Unseal,
    signers: &[SignedBy],
    now: UnixTime,
) -> Result<(), Refusal> {
    let file = file::read(desk).await?;
    let own = Arc::clone(desk);
    let work = move || own.vault.open(file.expose(), &secret);
    let opened = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::Damaged("the key file"))?;
    // Somebody may have looked for a key to touch.
    let now = now.max(desk.world.now());
    if desk.vault.is_sealed() {
        // Before the keys are there: nothing that people could not answer meanwhile is over by then.
        desk.bells.opened(now);
    }
    if let Err(why) = opened.and_then(|opened| desk.vault.enter(opened)) {
        // Held while the next attempt waits: guessing through this door is slow.
        tokio::time::sleep(shares::WRONG).await;
        desk.commit(Batch::new(), &[Event::UnsealFailed], now)
            .await?;
        return Err(refused(&why));
    }
    desk.offered.forget();
    desk.commit(Batch::new(), &[Event::Unsealed], now).await?;
    if !signers.iter().all(|s| is_admin(desk, s)) {
        seal(desk, now).await?;
        return Err(Refusal::NotAllowed(
            "this device's enrolment was not written by this broker".to_owned(),
        ));
    }
    gate::policy::settle(desk, now).await?;
    // A change that everybody confirmed, and that a crash kept from its end.
    if let Err(why) = method::finish(desk, now).await {
        tracing::error!(%why, "the key file is still the old one");
    }
    Ok(())
}

fn refused(why: &UnsealError) -> Refusal {
    Refusal::NotAllowed(why.to_string())
}
