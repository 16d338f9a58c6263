//! Tokens that are no more here, and may still be good at their registry: one row each, until the registry has ended it
//! or an admin says so.
//!
//! If an attacker writes here: the rows are authentic, so he can take reminders away and make none. The log has each.

use super::{TokenError, TokenRecord, prefix};
use crate::{
    store::{Batch, Store, Table},
    vault::{
        rows::{RowError, authentic, check_authentic},
        seal::Vault,
    },
};
use proto::{ids::RegistryId, time::UnixTime};
use serde::{Deserialize, Serialize};

use super::Scope;

/// "registry NUL scope NUL" + version (8 bytes, big-endian) → an authentic [`Left`].
pub const LEFT: Table = Table("token-left");
/// Rows per read.
const PAGE: usize = 256;

/// A token that is no more here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The registry.
    pub registry: RegistryId,
    /// The packages that it was for.
    pub scope: Scope,
    /// Which version of it.
    pub version: u64,
    /// 8 hexadecimal digits, made with a key.
    pub fingerprint: String,
    /// When it was destroyed here.
    pub since: UnixTime,
    /// When the registry lets it expire, if that is known.
    pub expires: Option<UnixTime>,
}

/// One of them and its row's version, for compare and swap.
#[derive(Clone, Debug)]
pub struct StoredLeft {
    /// What it was.
    pub left: Left,
    row_version: u64,
}

impl Left {
    fn key(&self) -> Vec<u8> {
        let mut key = prefix(&self.registry, &self.scope);
        key.extend_from_slice(&self.version.to_be_bytes());
        key
    }
}

/// Adds that this token may still be good at its registry. A version comes once, so its row is new.
pub fn leave(
    vault: &Vault,
    batch: Batch,
    record: &TokenRecord,
    now: UnixTime,
) -> Result<Batch, TokenError> {
    let left = of(record, now);
    let key = left.key();
    let value = serde_json::to_vec(&left).map_err(|_| TokenError::Unreadable)?;
    Ok(batch.create(LEFT, &key, authentic(vault, LEFT, &key, &value)?))
}

/// What is left of a stored token that ends now.
pub fn of(record: &TokenRecord, now: UnixTime) -> Left {
    Left {
        registry: record.registry.clone(),
        scope: record.scope.clone(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        since: now,
        expires: record.expires,
    }
}

/// Takes one away: nothing is left to do.
pub fn settle(batch: Batch, of: &StoredLeft) -> Batch {
    batch.delete(LEFT, of.left.key(), of.row_version)
}

/// All of them, by registry, scope and version.
pub fn all(vault: &Vault, store: &dyn Store) -> Result<Vec<StoredLeft>, TokenError> {
    rows(vault, store, Err)
}

/// The same without the rows that cannot be believed; the log says so.
pub fn believed(vault: &Vault, store: &dyn Store) -> Result<Vec<StoredLeft>, TokenError> {
    rows(vault, store, |why| {
        if matches!(
            why,
            TokenError::Sealed(_) | TokenError::Row(RowError::Sealed(_))
        ) {
            return Err(why);
        }
        tracing::error!(%why, "ALARM: what is left to revoke cannot be believed; it is passed over");
        Ok(())
    })
}

fn rows(
    vault: &Vault,
    store: &dyn Store,
    bad: impl Fn(TokenError) -> Result<(), TokenError>,
) -> Result<Vec<StoredLeft>, TokenError> {
    let mut out = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.range(LEFT, b"", after.as_deref(), PAGE)?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, row) in page {
            let row_version = row.version;
            match read(vault, &key, &row.value) {
                Ok(left) => out.push(StoredLeft { left, row_version }),
                Err(why) => bad(why)?,
            }
        }
        if last {
            return Ok(out);
        }
    }
}

fn read(vault: &Vault, key: &[u8], stored: &[u8]) -> Result<Left, TokenError> {
    let plain = check_authentic(vault, LEFT, key, stored)?;
    let left: Left = serde_json::from_slice(plain).map_err(|_| TokenError::Unreadable)?;
    let own = left.key() == key;
    own.then_some(left).ok_or(TokenError::Unreadable)
}
