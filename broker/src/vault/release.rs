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
    if mode == Mode::Reveal && !revealable(vault, store, item, now)? {
        return Ok(None);
    }
    open(vault, store, holder, &item.package, now)
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
    Ok(stored.is_some_and(|t| t.record.scope.as_str() == item.package.as_str()))
}

/// The token for asking the registry what it shows: private packages are invisible without it.
pub fn for_reading(
    vault: &Vault,
    store: &dyn Store,
    registry: &RegistryId,
    package: &PackageName,
    now: UnixTime,
) -> Result<Option<Secret<String>>, TokenError> {
    Ok(open(vault, store, registry, package, now)?.map(|(token, _)| token))
}

/// The token for asking the registry whose it is.
pub fn for_check(vault: &Vault, stored: &StoredToken) -> Result<Secret<String>, TokenError> {
    tokens::open(vault, &stored.record).map_err(unreadable)
}

fn open(
    vault: &Vault,
    store: &dyn Store,
    registry: &RegistryId,
    package: &PackageName,
    now: UnixTime,
) -> Result<Option<(Secret<String>, StoredToken)>, TokenError> {
    let Some(stored) = tokens::find(vault, store, registry, package, now)? else {
        return Ok(None);
    };
    Ok(Some((
        tokens::open(vault, &stored.record).map_err(unreadable)?,
        stored,
    )))
}

#[allow(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn unreadable(error: OpenRowError) -> TokenError {
    match error {
        OpenRowError::Sealed(sealed) => TokenError::Sealed(sealed),
        _ => TokenError::Unreadable,
    }
}
