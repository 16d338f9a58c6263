//! The keys of an unsealed vault: a random data key and what is derived from it; while the vault is re-keyed, the one
//! before as well.

use super::key_file::KeySet;
use crate::secret::Secret;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use proto::time::UnixTime;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes in every key.
pub(super) const KEY_BYTES: usize = 32;

/// One allocation, filled in place and wiped on drop, so that no copy stays on a stack or in a
/// reallocated vector (attack 41).
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Keys {
    pub(super) generation: u32,
    pub(super) data: [u8; KEY_BYTES],
    pub(super) rows: [u8; KEY_BYTES],
    pub(super) row_mac: [u8; KEY_BYTES],
    pub(super) totp_mac: [u8; KEY_BYTES],
    pub(super) match_code: [u8; KEY_BYTES],
    pub(super) ticket: [u8; KEY_BYTES],
    pub(super) deposit: [u8; KEY_BYTES],
    pub(super) guest: [u8; KEY_BYTES],
    pub(super) fingerprint: [u8; KEY_BYTES],
}

/// The library refused a derivation whose lengths are constants.
#[derive(Debug, Error)]
#[error("the keys could not be derived")]
pub(super) struct NotDerived;

impl Keys {
    /// Derives every key; `data` is written in place by `fill`.
    pub(super) fn derive<E: From<NotDerived>>(
        generation: u32,
        fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>,
    ) -> Result<Box<Self>, E> {
        let zero = [0; KEY_BYTES];
        let mut keys = Box::new(Self {
            generation,
            data: zero,
            rows: zero,
            row_mac: zero,
            totp_mac: zero,
            match_code: zero,
            ticket: zero,
            deposit: zero,
            guest: zero,
            fingerprint: zero,
        });
        fill(&mut keys.data)?;
        let root = Salt::new(HKDF_SHA256, b"countersign/vault/v1").extract(&keys.data);
        for (name, key) in [
            ("row sealing", &mut keys.rows),
            ("row authentication", &mut keys.row_mac),
            ("totp", &mut keys.totp_mac),
            ("match code", &mut keys.match_code),
            ("ticket", &mut keys.ticket),
            ("deposit", &mut keys.deposit),
            ("guest", &mut keys.guest),
            ("token fingerprint", &mut keys.fingerprint),
        ] {
            // The name keeps the purposes apart: a MAC that a match code shows in part says nothing
            // about a ticket, and no ticket can be used to forge a person's row.
            root.expand(&[b"countersign/", name.as_bytes(), b"/v1"], Bytes32)
                .and_then(|okm| okm.fill(key))
                .map_err(|_| NotDerived)?;
        }
        Ok(keys)
    }
}

/// All keys that an unsealed vault holds.
pub(super) struct Keyring {
    /// Wraps the data keys in the key file; none where that was replaced by one whose key is not known here.
    pub(super) kek: Option<Secret<[u8; KEY_BYTES]>>,
    /// What seals and authenticates from now on.
    pub(super) current: Box<Keys>,
    /// What is older was derived from the key before; none for the first.
    pub(super) since: Option<UnixTime>,
    /// The one before, while there is something of it.
    pub(super) old: Option<Old>,
}

/// The generation before.
pub(super) struct Old {
    pub(super) keys: Box<Keys>,
    /// Nothing that is authenticated with it is believed any more; what it sealed still opens.
    pub(super) retired: bool,
}

impl Keyring {
    /// The keys of this generation, if it is one of those that are held.
    pub(super) fn of(&self, generation: u32) -> Option<&Keys> {
        let old = self.old.as_ref().map(|old| &*old.keys);
        [Some(&*self.current), old]
            .into_iter()
            .flatten()
            .find(|keys| keys.generation == generation)
    }

    /// The keys from which something is derived that was first derived at that time.
    pub(super) fn at(&self, time: UnixTime) -> &Keys {
        match &self.old {
            Some(old) if self.since.is_some_and(|since| time < since) => &old.keys,
            _ => &self.current,
        }
    }

    /// The data keys, to be wrapped.
    pub(super) fn set(&self) -> KeySet {
        let of = |keys: &Keys| (keys.generation, Secret::new(keys.data));
        KeySet {
            current: of(&self.current),
            since: self.since,
            old: self.old.as_ref().map(|old| (of(&old.keys), old.retired)),
        }
    }
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_differ_from_each_other_and_with_the_data_key() {
        let make = |byte| {
            Keys::derive::<NotDerived>(1, |k| {
                *k = [byte; KEY_BYTES];
                Ok(())
            })
            .unwrap_or_else(|_| unreachable!())
        };
        let (a, b) = (make(1), make(2));
        let all: std::collections::BTreeSet<[u8; 32]> = [&a, &b]
            .into_iter()
            .flat_map(|k| {
                [
                    k.data,
                    k.rows,
                    k.row_mac,
                    k.totp_mac,
                    k.match_code,
                    k.ticket,
                    k.deposit,
                    k.guest,
                    k.fingerprint,
                ]
            })
            .collect();
        assert_eq!(all.len(), 18);
    }
}
