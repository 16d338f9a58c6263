//! Client keys for CI without OIDC: their theft lets somebody ask, never publish.

use crate::{
    audit::event::Event,
    caller::ClientKeys,
    desk::{Desk, Fault},
    publish::Refusal,
    store::{Batch, Store, Table},
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

const CLIENT_KEYS: Table = Table("client-key");
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
    let row = desk
        .live
        .get(CLIENT_KEYS, id)
        .map_err(Fault::from)?
        .ok_or(Refusal::NotFound)?;
    let event = Event::ClientKeyRemoved {
        name: name.clone(),
        by: by.clone(),
    };
    desk.commit(
        Batch::new().delete(CLIENT_KEYS, id, row.version),
        &[event],
        now,
    )
    .await?;
    Ok(())
}

/// All keys.
pub fn list(desk: &Desk) -> Result<Vec<ClientKeyLine>, Refusal> {
    let mut out = Vec::new();
    for (id, _) in desk
        .live
        .range(CLIENT_KEYS, b"", None, KEYS_MAX)
        .map_err(Fault::from)?
    {
        if let Some(stored) = desk.authentic_row::<Stored>(CLIENT_KEYS, &id)? {
            let Stored { key, added } = stored.value;
            out.push(ClientKeyLine {
                name: key.name,
                packages: key.packages,
                added,
            });
        }
    }
    Ok(out)
}

/// The keys as they are registered right now: nothing is cached, so that a removed key's next token
/// is refused (attack 11).
pub struct Registered {
    live: Arc<dyn Store>,
    vault: Arc<Vault>,
}

impl Registered {
    /// Over the live store and the vault that authenticates its rows.
    pub fn new(live: Arc<dyn Store>, vault: Arc<Vault>) -> Self {
        Self { live, vault }
    }
}

impl ClientKeys for Registered {
    fn find(&self, name: &ClientKeyId) -> Option<(DevicePublic, Vec<String>)> {
        let key = name.as_str().as_bytes();
        let row = self.live.get(CLIENT_KEYS, key).ok()??;
        let json = rows::check_authentic(&self.vault, CLIENT_KEYS, key, &row.value).ok()?;
        let stored: Stored = serde_json::from_slice(json).ok()?;
        Some((stored.key.public_key, stored.key.packages))
    }
}
