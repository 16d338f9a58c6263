//! Rows that everybody may read and nobody but the broker can write: people, devices, client keys,
//! groups, tokens' metadata. The MAC comes first, then the plain bytes.
//!
//! It is bound to table and key, so a device's row cannot be copied to another person. It does not
//! show that a row was deleted or replaced by its own older copy; the audit log's checkpoints do.

use super::seal::{Domain, Sealed, Vault};
use crate::store::Table;
use proto::canonical::Canonical;
use thiserror::Error;

const MAC_BYTES: usize = 32;

/// Why a row is not believed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RowError {
    /// The vault is sealed.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// The broker did not write it there.
    #[error(
        "a row of table '{0}' was not written by this broker, or not there; look at who can write the database"
    )]
    NotAuthentic(&'static str),
}

/// The bytes to store for `plain` at this place.
pub fn authentic(vault: &Vault, table: Table, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, Sealed> {
    let mac = vault.mac(Domain::Row, &bound(table, key, plain))?;
    let mut out = Vec::with_capacity(MAC_BYTES.saturating_add(plain.len()));
    out.extend_from_slice(&mac);
    out.extend_from_slice(plain);
    Ok(out)
}

/// The plain bytes of a row read from this place, if the broker wrote them there.
pub fn check_authentic<'a>(
    vault: &Vault,
    table: Table,
    key: &[u8],
    stored: &'a [u8],
) -> Result<&'a [u8], RowError> {
    // A row without room for a MAC is checked against an empty one, so that a sealed vault is
    // always answered as sealed.
    let (mac, plain) = stored.split_at_checked(MAC_BYTES).unwrap_or((&[], stored));
    if vault.mac_holds(Domain::Row, &bound(table, key, plain), mac)? {
        Ok(plain)
    } else {
        Err(RowError::NotAuthentic(table.0))
    }
}

/// Whether a row was authenticated with the current key.
pub fn is_new(vault: &Vault, table: Table, key: &[u8], stored: &[u8]) -> Result<bool, Sealed> {
    let (mac, plain) = stored.split_at_checked(MAC_BYTES).unwrap_or((&[], stored));
    vault.mac_is_new(Domain::Row, &bound(table, key, plain), mac)
}

/// The plain bytes of a row that nobody has authenticated.
pub fn unauthenticated(stored: &[u8]) -> Option<&[u8]> {
    stored.get(MAC_BYTES..)
}

fn bound(table: Table, key: &[u8], plain: &[u8]) -> Vec<u8> {
    Canonical::new("countersign/authentic-row/v1")
        .text(table.0)
        .bytes(key)
        .bytes(plain)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::seal::fixtures::open_vault;

    const DEVICE: Table = Table("device");

    #[test]
    fn attack_44_who_writes_the_database_cannot_add_a_phone() {
        let (vault, thief) = (open_vault(), open_vault());
        let row = authentic(&vault, DEVICE, b"alice", b"{\"key\":1}").unwrap();
        assert_eq!(
            check_authentic(&vault, DEVICE, b"alice", &row),
            Ok(&b"{\"key\":1}"[..])
        );
        let mut changed = row.clone();
        changed[40] ^= 1;
        let foreign = authentic(&thief, DEVICE, b"alice", b"{\"key\":2}").unwrap();
        for (table, key, bytes) in [
            (DEVICE, &b"mallory"[..], &row[..]),
            (Table("person"), b"alice", &row),
            (DEVICE, b"alice", &changed),
            (DEVICE, b"alice", &foreign),
            (DEVICE, b"alice", b"{\"key\":2}"),
            (DEVICE, b"alice", b""),
            (DEVICE, b"alice", &row[..31]),
        ] {
            let result = check_authentic(&vault, table, key, bytes);
            assert_eq!(result, Err(RowError::NotAuthentic(table.0)));
        }
    }
}
