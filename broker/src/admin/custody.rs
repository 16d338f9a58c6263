//! Sealing and unsealing.

use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    publish::Refusal,
    secret::Secret,
    store::Batch,
    vault::{Unseal, UnsealError},
};
use proto::time::UnixTime;
use std::time::Duration;

/// The vault's key file, in the data folder.
pub const KEY_FILE: &str = "vault.json";

/// Wipes the keys from memory; nothing is released until somebody unseals.
pub async fn seal(desk: &Desk, now: UnixTime) -> Result<(), Refusal> {
    desk.vault.seal();
    desk.commit(Batch::new(), &[Event::Sealed], now).await?;
    Ok(())
}

/// Unseals with a passphrase or identity. scrypt takes a second and 256 MB: it runs on its own
/// thread, one at a time.
pub async fn unseal(
    desk: &std::sync::Arc<Desk>,
    secret: Unseal,
    now: UnixTime,
) -> Result<(), Refusal> {
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Refusal::Busy);
    };
    if desk.vault.is_sealed() {
        // Before the keys are there: nothing that people could not answer meanwhile is over by then.
        desk.bells.opened(now);
    }
    let path = desk.place.data.join(KEY_FILE);
    let own = std::sync::Arc::clone(desk);
    let work = move || {
        let file = Secret::new(std::fs::read(path).map_err(|_| UnsealError::Damaged)?);
        own.vault.unseal(file.expose(), &secret)
    };
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::Damaged("the key file"))?;
    match done {
        Ok(()) => {
            desk.commit(Batch::new(), &[Event::Unsealed], now).await?;
            Ok(())
        }
        Err(why) => {
            // Held while the next attempt waits: guessing through this door is slow.
            tokio::time::sleep(Duration::from_secs(2)).await;
            desk.commit(Batch::new(), &[Event::UnsealFailed], now)
                .await?;
            Err(Refusal::NotAllowed(why.to_string()))
        }
    }
}
