//! Where a RegistryToken leaves its row: for a permit, for reading back, for a check. Nowhere else.

use super::{
    envelope::OpenRowError,
    seal::Vault,
    tokens::{self, StoredToken, TokenError},
};
use crate::{policy::Permit, secret::Secret, store::Store};
use proto::{
    api::Mode,
    ids::{PackageName, RegistryId},
    request::Item,
    time::UnixTime,
};

/// The token for one publish of one permitted item. The permit is spent by it: it is taken by value, and
/// another publish needs another decision. `holder` is the registry under whose name the token is stored:
/// the item's own, or the one that the configuration names for another step of the same publish.
pub fn release(
    vault: &Vault,
    store: &dyn Store,
    permit: Permit,
    (item, holder): (&Item, &RegistryId),
    mode: Mode,
    now: UnixTime,
) -> Result<Option<(Secret<String>, StoredToken)>, TokenError> {
    let permitted = permit.mode() == mode && permit.items().contains(&item.name());
    drop(permit);
    if !permitted {
        return Ok(None);
    }
    // One read for the check and for the token: what is rotated between two would not be what was checked.
    match tokens::find(vault, store, holder, &item.package, now)? {
        Some(stored) if mode == Mode::Reveal && !is_exact(&stored, item) => Ok(None),
        stored => stored.map(|stored| opened(vault, stored)).transpose(),
    }
}

/// Whether the token for this item was stored for exactly its package. One for more would open to the job what
/// nobody was asked about (attack 37): it is never revealed.
pub fn revealable(
    vault: &Vault,
    store: &dyn Store,
    item: &Item,
    now: UnixTime,
) -> Result<bool, TokenError> {
    let stored = tokens::find(vault, store, &item.registry, &item.package, now)?;
    Ok(stored.is_some_and(|stored| is_exact(&stored, item)))
}

fn is_exact(stored: &StoredToken, item: &Item) -> bool {
    stored.record.scope.as_str() == item.package.as_str()
}

/// The token for asking the registry what it shows: private packages are invisible without it.
pub fn for_reading(
    vault: &Vault,
    store: &dyn Store,
    registry: &RegistryId,
    package: &PackageName,
    now: UnixTime,
) -> Result<Option<Secret<String>>, TokenError> {
    let stored = tokens::find(vault, store, registry, package, now)?;
    stored.map(|stored| for_check(vault, &stored)).transpose()
}

/// The token for asking the registry whose it is.
pub fn for_check(vault: &Vault, stored: &StoredToken) -> Result<Secret<String>, TokenError> {
    tokens::open(vault, &stored.record).map_err(unreadable)
}

fn opened(vault: &Vault, stored: StoredToken) -> Result<(Secret<String>, StoredToken), TokenError> {
    Ok((for_check(vault, &stored)?, stored))
}

#[allow(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn unreadable(error: OpenRowError) -> TokenError {
    match error {
        OpenRowError::Sealed(sealed) => TokenError::Sealed(sealed),
        _ => TokenError::Unreadable,
    }
}
