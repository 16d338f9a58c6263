//! Client keys for CI without OIDC: their theft lets somebody ask, never publish.
//!
//! If an attacker writes here: the inventory lists the keys (`desk/inventory.rs`). One that was removed and is put
//! back is refused, and so is one whose row is gone.

use crate::{
    audit::event::Event,
    caller::ClientKeys,
    desk::{
        Desk, Fault,
        inventory::{CLIENT_KEYS, Known},
    },
    publish::Refusal,
    store::Batch,
    vault::{Vault, rows},
};
use proto::{
    api::{ClientKeyLine, ClientKeyRequest},
    device::DevicePublic,
    ids::{ClientKeyId, PackageName, PersonId, RegistryId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most client keys of one broker.
const KEYS_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Stored {
    key: ClientKeyRequest,
    added: UnixTime,
}

/// Registers a key for named packages.
pub async fn add(
    desk: &Desk,
    key: ClientKeyRequest,
    by: &PersonId,
    now: UnixTime,
) -> Result<(), Refusal> {
    if key.packages.is_empty() {
        return Err(Refusal::BadRequest(
            "name the packages it may ask for".to_owned(),
        ));
    }
    for package in &key.packages {
        let good = package.split_once(':').is_some_and(|(r, n)| {
            r.parse::<RegistryId>().is_ok() && n.parse::<PackageName>().is_ok()
        });
        if !good {
            return Err(Refusal::BadRequest(format!(
                "'{}' is not a package like npm:@acme/left",
                proto::text::harmless(package)
            )));
        }
    }
    let name = key.name.clone();
    let id = name.as_str().as_bytes();
    if desk
        .live
        .get(CLIENT_KEYS, id)
        .map_err(Fault::from)?
        .is_some()
    {
        return Err(Refusal::BadRequest(format!(
            "{name} exists; remove it first"
        )));
    }
    if desk.inventory()?.count(CLIENT_KEYS) >= KEYS_MAX {
        return Err(Refusal::BadRequest(format!(
            "there are {KEYS_MAX} client keys; remove those that nobody uses"
        )));
    }
    let row = desk.authentic(CLIENT_KEYS, id, &Stored { key, added: now })?;
    let event = Event::ClientKeyAdded {
        name: name.clone(),
        by: by.clone(),
    };
    desk.commit(Batch::new().create(CLIENT_KEYS, id, row), &[event], now)
        .await?;
    Ok(())
}

/// Removes a key; its next token is refused.
pub async fn remove(
    desk: &Desk,
    name: &ClientKeyId,
    by: &PersonId,
    now: UnixTime,
) -> Result<(), Refusal> {
    let id = name.as_str().as_bytes();
    let batch = match desk.live.get(CLIENT_KEYS, id).map_err(Fault::from)? {
        Some(row) => Batch::new().delete(CLIENT_KEYS, id, row.version),
        // It would be a key again when the row is put back.
        None => desk
            .unlisted(Batch::new(), CLIENT_KEYS, id)?
            .ok_or(Refusal::NotFound)?,
    };
    let event = Event::ClientKeyRemoved {
        name: name.clone(),
        by: by.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// All keys that can be believed.
pub fn list(desk: &Desk) -> Result<Vec<ClientKeyLine>, Refusal> {
    let all = desk.listed_rows::<Stored>(CLIENT_KEYS)?.into_iter();
    Ok(all
        .map(|row| ClientKeyLine {
            name: row.value.key.name,
            packages: row.value.key.packages,
            added: row.value.added,
        })
        .collect())
}

/// The keys as they are registered right now: nothing is cached, so that a removed key's next token
/// is refused (attack 11).
pub struct Registered {
    known: Arc<Known>,
    vault: Arc<Vault>,
}

impl Registered {
    /// Over the rows that must stand, and the vault that authenticates them.
    pub fn new(known: Arc<Known>, vault: Arc<Vault>) -> Self {
        Self { known, vault }
    }
}

impl ClientKeys for Registered {
    fn find(&self, name: &ClientKeyId) -> Option<(DevicePublic, Vec<String>)> {
        let key = name.as_str().as_bytes();
        let row = self.known.row(CLIENT_KEYS, key).ok()??;
        let json = rows::check_authentic(&self.vault, CLIENT_KEYS, key, &row.value).ok()?;
        let stored: Stored = serde_json::from_slice(json).ok()?;
        Some((stored.key.public_key, stored.key.packages))
    }
}
