//! Sealed and unsealed. Every key lives in one allocation behind one lock, and every use of a key
//! goes through [`Vault`]; while it is sealed, each of them answers [`Sealed`].

use super::{
    envelope::{self, Binding, OpenRowError, SealRowError},
    key_file::{self, InitError, NewFile, Plugin, Unseal, UnsealError, UnsealMethod},
    keys::{KEY_BYTES, Keyring, Keys},
};
use crate::{secret::Secret, world::World};
use aws_lc_rs::{constant_time, hmac};
use proto::{
    digest::{Algorithm, Digest},
    time::UnixTime,
};
use std::sync::{
    Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use thiserror::Error;

mod rekey;

/// The vault is sealed: status and freeze work, nothing can be released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the vault is sealed; an admin unseals it with `countersign admin unseal`")]
pub struct Sealed;

/// What a MAC is for; each has a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// Rows that are plain and authentic.
    Row,
    /// The stored proof that a TOTP step was answered.
    Totp,
    /// Match codes.
    MatchCode,
    /// Tickets.
    Ticket,
    /// Credentials for handing files over.
    Deposit,
    /// Guest tokens.
    Guest,
    /// The fingerprint by which people tell tokens apart.
    TokenFingerprint,
}

/// Holds the keys while unsealed. Shared as an `Arc`.
pub struct Vault {
    world: World,
    keys: RwLock<Option<Box<Keyring>>>,
    /// The key-encryption key of the key file that was made last, by its digest: here alone, since whoever has an old data
    /// key reads what lies sealed under that.
    made: Mutex<Option<(Digest, Secret<[u8; KEY_BYTES]>)>>,
    /// How often keys were taken in.
    era: AtomicU64,
    /// How often it was sealed.
    seals: AtomicU64,
    /// Plugins that may run.
    plugins: Mutex<Vec<Plugin>>,
}

/// The keys of a key file that was opened, before they are taken in.
pub struct Opened {
    keys: Box<Keyring>,
    /// How often the vault had been sealed when the opening began.
    seals: u64,
}

impl Vault {
    /// Makes the key file of a new vault. Nothing is unsealed by it.
    pub fn init(world: &World, methods: &[UnsealMethod]) -> Result<Vec<u8>, InitError> {
        key_file::create(world, methods)
    }

    /// A sealed vault.
    pub const fn new(world: World) -> Self {
        Self {
            world,
            keys: RwLock::new(None),
            made: Mutex::new(None),
            era: AtomicU64::new(0),
            seals: AtomicU64::new(0),
            plugins: Mutex::new(Vec::new()),
        }
    }

    /// Unseals: [`Vault::open`] and [`Vault::enter`].
    pub fn unseal(&self, key_file: &[u8], secret: &Unseal) -> Result<(), UnsealError> {
        self.enter(self.open(key_file, secret)?)
    }

    /// Opens a key file. Blocks for about a second with a passphrase, and with a plugin for as long as somebody takes to
    /// touch a key: call it on a blocking thread, and one at a time, since a passphrase takes 256 MiB.
    pub fn open(&self, key_file: &[u8], secret: &Unseal) -> Result<Opened, UnsealError> {
        let seals = self.seals.load(Ordering::SeqCst);
        if let Unseal::Plugin(plugin) = secret {
            self.may_run(plugin);
        }
        let keys = key_file::open(key_file, secret)?;
        Ok(Opened { keys, seals })
    }

    /// Takes the keys in. An unsealed vault stays as it is. So does one that was sealed since the opening began: that is
    /// an admin's later word.
    pub fn enter(&self, opened: Opened) -> Result<(), UnsealError> {
        let Opened { keys, seals } = opened;
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if self.seals.load(Ordering::SeqCst) != seals {
            return Err(UnsealError::SealedMeanwhile);
        }
        match held.as_ref() {
            // Swapping the key file under a running daemon must not swap the keys (attack 44).
            Some(now) if !same(&now.current, &keys.current) => Err(UnsealError::OtherVault),
            Some(_) => Ok(()),
            None => {
                *held = Some(keys);
                self.era.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Ends the plugins that run, and with them what waits for their answers.
    pub fn end_plugins(&self) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.drain(..).for_each(|plugin| plugin.end());
    }

    /// A plugin that is about to run.
    fn may_run(&self, plugin: &Plugin) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.retain(|plugin| !plugin.is_left());
        plugins.push(plugin.clone());
    }

    /// Wipes the keys, and what would open them again now.
    pub fn seal(&self) {
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        self.seals.fetch_add(1, Ordering::SeqCst);
        drop(held);
        self.end_plugins();
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether it is sealed.
    pub fn is_sealed(&self) -> bool {
        self.with(|_| ()).is_err()
    }

    /// Which unsealing this is: what was authenticated in another one was so under another key,
    /// perhaps.
    pub fn era(&self) -> Result<u64, Sealed> {
        self.with(|_| self.era.load(Ordering::Relaxed))
    }

    /// A new key file for the same data keys: other methods, or another passphrase. The old file keeps
    /// working until it is destroyed, so a crash between the two leaves the vault usable. Blocking.
    pub fn rewrap(&self, methods: &[UnsealMethod]) -> Result<NewFile, InitError> {
        for method in methods {
            if let UnsealMethod::Plugin(plugin) = method {
                self.may_run(plugin);
            }
        }
        // A passphrase takes a second and a plugin a minute: nobody who wants to seal waits for that.
        let set = self.ring(Keyring::set)?;
        let made = key_file::wrap(&self.world, methods, &set)?;
        let print = Digest::of(Algorithm::Sha256, &made.bytes);
        let kek = Secret::new(*made.kek.expose());
        // Not where it was sealed meanwhile: none is kept then.
        self.ring(|_| {
            *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some((print, kek));
        })?;
        Ok(made)
    }

    /// Whether a key file that was just made opens as it should, before it is relied on: with `secret`, where it
    /// has one, with every group of its shares, and each time with the very keys that are in use. Blocking.
    pub fn try_out(&self, made: &NewFile, secret: Option<&Unseal>) -> Result<(), UnsealError> {
        for group in made.groups()? {
            self.tried(&made.bytes, &group)?;
        }
        secret.map_or(Ok(()), |secret| self.tried(&made.bytes, secret))
    }

    fn tried(&self, file: &[u8], secret: &Unseal) -> Result<(), UnsealError> {
        let keys = key_file::open(file, secret)?;
        match self.with(|now| same(now, &keys.current)) {
            Ok(true) => Ok(()),
            _ => Err(UnsealError::OtherVault),
        }
    }

    /// Seals a row for the place that the binding names.
    pub fn seal_row(&self, binding: &Binding<'_>, plain: &[u8]) -> Result<Vec<u8>, SealRowError> {
        self.with(|keys| envelope::seal(keys, &self.world, binding, plain))?
    }

    /// Opens a row that was sealed for this place. Inside the house only: what is opened leaves it by
    /// `release` alone.
    pub(crate) fn open_row(
        &self,
        binding: &Binding<'_>,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, OpenRowError> {
        self.ring(|ring| envelope::open(ring, binding, sealed))?
    }

    /// HMAC-SHA256 with the domain's key. Several fields go in as `Canonical` bytes.
    pub fn mac(&self, domain: Domain, bytes: &[u8]) -> Result<[u8; 32], Sealed> {
        self.with(|keys| tag(keys, domain, bytes))
    }

    /// The same for what was first made at that time: it stays what it was while the vault is re-keyed.
    pub fn mac_of(&self, domain: Domain, time: UnixTime, bytes: &[u8]) -> Result<[u8; 32], Sealed> {
        self.ring(|ring| tag(ring.at(time), domain, bytes))
    }

    /// Whether `mac` is what [`Vault::mac`] gives, in constant time; or gave before the vault was re-keyed, while that is
    /// believed.
    pub fn mac_holds(&self, domain: Domain, bytes: &[u8], mac: &[u8]) -> Result<bool, Sealed> {
        self.ring(|ring| {
            let holds = |keys| hmac::verify(&mac_key(keys, domain), bytes, mac).is_ok();
            // Which step was answered is evidence, and lets nothing through by itself.
            let believed = |retired: bool| !retired || domain == Domain::Totp;
            let old = ring.old.as_ref().filter(|old| believed(old.retired));
            holds(&ring.current) || old.is_some_and(|old| holds(&old.keys))
        })
    }

    /// Whether it is what [`Vault::mac`] gives now.
    pub fn mac_is_new(&self, domain: Domain, bytes: &[u8], mac: &[u8]) -> Result<bool, Sealed> {
        self.with(|keys| hmac::verify(&mac_key(keys, domain), bytes, mac).is_ok())
    }

    /// Whether it was sealed with the current key.
    pub fn seal_is_new(&self, sealed: &[u8]) -> Result<bool, Sealed> {
        self.with(|keys| envelope::generation(sealed) == Some(keys.generation))
    }

    fn with<T>(&self, use_keys: impl FnOnce(&Keys) -> T) -> Result<T, Sealed> {
        self.ring(|ring| use_keys(&ring.current))
    }

    fn ring<T>(&self, use_keys: impl FnOnce(&Keyring) -> T) -> Result<T, Sealed> {
        let held = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        held.as_deref().map(use_keys).ok_or(Sealed)
    }
}

/// Whether these are the same data key.
fn same(one: &Keys, other: &Keys) -> bool {
    constant_time::verify_slices_are_equal(&one.data, &other.data).is_ok()
}

fn tag(keys: &Keys, domain: Domain, bytes: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&mac_key(keys, domain), bytes);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

fn mac_key(keys: &Keys, domain: Domain) -> hmac::Key {
    let key = match domain {
        Domain::Row => &keys.row_mac,
        Domain::Totp => &keys.totp_mac,
        Domain::MatchCode => &keys.match_code,
        Domain::Ticket => &keys.ticket,
        Domain::Deposit => &keys.deposit,
        Domain::Guest => &keys.guest,
        Domain::TokenFingerprint => &keys.fingerprint,
    };
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;
    use crate::store::{Batch, CommitError, Committed, Store, redb::Redb};
    use age::secrecy::ExposeSecret as _;

    pub(in crate::vault) fn phrase(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    pub(in crate::vault) fn by_passphrase(text: &str) -> UnsealMethod {
        UnsealMethod::Passphrase {
            passphrase: phrase(text),
            work_factor: 10,
        }
    }

    pub(in crate::vault) fn open_vault() -> Vault {
        let vault = Vault::new(World::system());
        let identity = age::x25519::Identity::generate();
        let recipients = vec![identity.to_public().to_string()];
        let file = Vault::init(&vault.world, &[UnsealMethod::Identity { recipients }]).unwrap();
        let text = Secret::new(identity.to_string().expose_secret().to_owned());
        vault.unseal(&file, &Unseal::Identity(text)).unwrap();
        vault
    }

    pub(in crate::vault) fn empty_store() -> (tempfile::TempDir, Redb) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Redb::create(&path, 1 << 20).unwrap();
        (dir, store)
    }

    pub(in crate::vault) fn commit(
        store: &dyn Store,
        batch: Batch,
    ) -> Result<Committed, CommitError> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(store.commit(batch))
    }
}

#[cfg(test)]
mod tests;
