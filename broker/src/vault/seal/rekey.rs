//! Re-keying: each step makes a key file, which the caller puts into the place of the one before and then has taken in.
//!
//! A fresh data key becomes the current one, and the one before stays beside it: the rows that it sealed and
//! authenticated are written anew meanwhile. Then it is retired, and nothing that it authenticated is believed any more.
//! When nothing of it is left, it goes.

use super::{Sealed, Vault, same};
use crate::{
    secret::Secret,
    vault::{
        key_file::{self, InitError, KeySet, UnsealError},
        keys::{KEY_BYTES, Keys},
    },
    world::NoEntropy,
};
use proto::{
    digest::{Algorithm, Digest},
    time::UnixTime,
};
use std::sync::{PoisonError, atomic::Ordering};

impl Vault {
    /// A fresh data key.
    pub fn fresh_key(&self) -> Result<Secret<[u8; KEY_BYTES]>, NoEntropy> {
        Ok(Secret::new(self.world.random::<KEY_BYTES>()?))
    }

    /// Since when things are derived from the current key; none for the first.
    pub fn derives_since(&self) -> Result<Option<UnixTime>, Sealed> {
        self.ring(|ring| ring.since)
    }

    /// The key file in which a fresh data key is the current one, and the one of now the old one.
    pub fn next_file(
        &self,
        key_file: &[u8],
        fresh: &Secret<[u8; KEY_BYTES]>,
        since: UnixTime,
    ) -> Result<Vec<u8>, InitError> {
        self.other_file(key_file, |set| {
            let next = set.current.0.checked_add(1).filter(|_| set.old.is_none());
            let current = (
                next.ok_or(InitError::Refused)?,
                Secret::new(*fresh.expose()),
            );
            Ok(KeySet {
                old: Some((set.current, false)),
                since: Some(since),
                current,
            })
        })
    }

    /// The key file in which nothing is believed any more that the old key authenticated.
    pub fn retired_file(&self, key_file: &[u8]) -> Result<Vec<u8>, InitError> {
        self.other_file(key_file, |set| {
            let old = set.old.map(|(old, _)| (old, true));
            Ok(KeySet { old, ..set })
        })
    }

    /// The key file without the old key.
    pub fn cleared_file(&self, key_file: &[u8]) -> Result<Vec<u8>, InitError> {
        self.other_file(key_file, |set| Ok(KeySet { old: None, ..set }))
    }

    fn other_file(
        &self,
        key_file: &[u8],
        change: impl FnOnce(KeySet) -> Result<KeySet, InitError>,
    ) -> Result<Vec<u8>, InitError> {
        self.ring(|ring| {
            let kek = ring.kek.as_ref().ok_or(InitError::Refused)?;
            let set = change(ring.set())?;
            key_file::with_keys(&self.world, key_file, kek.expose(), &set)
        })?
    }

    /// Takes in the keys of a key file that is in its place now: of this vault, and made by it. One that was made before
    /// the vault was opened last has another key-encryption key, which only opening it gives: then the keys in use stay,
    /// and nothing is known of the file until the next unseal.
    pub fn take_in(&self, key_file: &[u8]) -> Result<(), UnsealError> {
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let now = held.as_mut().ok_or(UnsealError::OtherVault)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let print = Digest::of(Algorithm::Sha256, key_file);
        let made = made.take_if(|(of, _)| *of == print).map(|(_, kek)| kek);
        let Some(kek) = made.or_else(|| now.kek.take()) else {
            return Err(UnsealError::OtherVault);
        };
        let mut next = key_file::open_under(key_file, kek.expose())?;
        // The key in use is the current one, or the one before.
        let known = |keys: &Keys| same(&now.current, keys);
        if !known(&next.current) && !next.old.as_ref().is_some_and(|old| known(&old.keys)) {
            return Err(UnsealError::OtherVault);
        }
        next.kek = Some(kek);
        *held = Some(next);
        // What was authenticated before may be believed no more.
        self.era.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the key file can be made anew for other data keys.
    pub fn knows_its_file(&self) -> Result<bool, Sealed> {
        self.ring(|ring| ring.kek.is_some())
    }

    /// The generation of the current key; that of the one before, and whether it is retired.
    pub fn generations(&self) -> Result<(u32, Option<(u32, bool)>), Sealed> {
        self.ring(|ring| {
            let old = ring.old.as_ref();
            let old = old.map(|old| (old.keys.generation, old.retired));
            (ring.current.generation, old)
        })
    }
}
