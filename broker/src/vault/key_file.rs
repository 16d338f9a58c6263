//! The key file: a random key-encryption key, wrapped once per unseal method as an age file
//! (c2sp.org/age), and the data key wrapped under it; while the vault is re-keyed, the data key before as well.
//!
//! age does not mix a passphrase with other recipients, so each method has an age file of its own:
//! any **one** of them unseals.
//!
//! What if an attacker writes here? With a passphrase he can destroy the file and no more. With an
//! identity whose public key he knows he can put a vault of his own in its place; it opens none of
//! the sealed rows and authenticates none of the people, so the daemon releases nothing.

use super::keys::{KEY_BYTES, Keyring, Old};
use crate::{secret::Secret, world::World};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use data_key::{Role, unwrapped, wrapped};
use methods::{by_identity, by_passphrase, public_keys, recipient, unwrap_kek, wrap_for};
use proto::{canonical::Canonical, ids::PersonId, time::UnixTime};
use serde::{Deserialize, Serialize};
use shared::Shared;

mod data_key;
mod error;
mod methods;
mod plugin;
mod shared;

pub use error::{InitError, UnsealError};
pub use methods::{MAX_WORK_FACTOR, Unseal, UnsealMethod, WORK_FACTOR};
pub use plugin::{Plugin, PluginError};
pub use shared::{Holder, Offer, ShareOf};

/// Bytes of a key file at most.
const MAX_FILE_BYTES: usize = 256 * 1024;
const MAX_METHODS: usize = 16;
/// The newest format: a plugin opens it. A vault that was re-keyed is format 3, shares are format 2, else it is format 1.
const V: u32 = 4;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    v: u32,
    generation: u32,
    files: Vec<Wrapped>,
    /// Nonce and wrapped data key, base64.
    data_key: String,
    /// Since when it is the current one; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<UnixTime>,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<OldKey>,
    /// SHA-256 over the rest, base64. It tells a damaged file from a wrong passphrase; it is no
    /// protection, since who writes the file can write this too.
    check: String,
}

/// The data key before the current one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldKey {
    generation: u32,
    /// Nonce and wrapped data key, base64.
    data_key: String,
    /// Whether what it authenticated is believed no more.
    retired: bool,
}

/// A generation's number and data key.
pub(super) type Generation = (u32, Secret<[u8; KEY_BYTES]>);

/// The data keys that a key file shall hold.
pub(super) struct KeySet {
    pub(super) current: Generation,
    pub(super) since: Option<UnixTime>,
    /// The one before, and whether it is retired.
    pub(super) old: Option<(Generation, bool)>,
}

/// The key-encryption key for one method. Age files are base64.
#[derive(Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
enum Wrapped {
    Passphrase { age: String },
    Identity { age: String },
    Plugin { age: String },
    Shares(Shared),
}

impl Wrapped {
    const fn name(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Identity { .. } => "identity",
            Self::Plugin { .. } => "plugin",
            Self::Shares(_) => "shares",
        }
    }

    /// All of it, for the file's checksum.
    fn told(&self, to: Canonical) -> Canonical {
        let to = to.text(self.name());
        match self {
            Self::Passphrase { age } | Self::Identity { age } | Self::Plugin { age } => {
                to.text(age)
            }
            Self::Shares(shared) => shared.told(to),
        }
    }
}

/// What holders of shares are shown; none where the key file knows no shares.
pub fn offer(key_file: &[u8]) -> Result<Option<Offer>, UnsealError> {
    Ok(KeyFile::read(key_file)?.shared().map(Shared::offer))
}

/// By which methods a key file is opened.
pub fn methods(key_file: &[u8]) -> Result<Vec<&'static str>, UnsealError> {
    let file = KeyFile::read(key_file)?;
    Ok(file.files.iter().map(Wrapped::name).collect())
}

/// Whether this is the share that a person was dealt.
pub fn check_share(key_file: &[u8], person: &PersonId, share: &[u8]) -> Result<(), UnsealError> {
    let file = KeyFile::read(key_file)?;
    let shared = file.shared().ok_or_else(|| file.no_such("shares"))?;
    shared.place(person, share).map(drop)
}

/// Whether this is a public key that shares can be encrypted to.
pub fn is_recipient(text: &str) -> bool {
    recipient(text).is_some()
}

/// The public keys of an identity file.
pub fn recipients_of(text: &Secret<String>) -> Result<Vec<String>, UnsealError> {
    public_keys(text)
}

/// Makes a new key file with new keys.
pub(super) fn create(world: &World, methods: &[UnsealMethod]) -> Result<Vec<u8>, InitError> {
    let first = KeySet {
        current: (1, Secret::new(world.random::<KEY_BYTES>()?)),
        since: None,
        old: None,
    };
    Ok(wrap(world, methods, &first)?.bytes)
}

/// A key file that was just made.
pub struct NewFile {
    /// As it is stored.
    pub bytes: Vec<u8>,
    /// The shares in it, open, so that it can be tried before it is relied on.
    pub shares: Vec<ShareOf>,
    /// Its key-encryption key.
    pub(super) kek: Secret<[u8; KEY_BYTES]>,
}

impl NewFile {
    /// Every group of as many shares as are needed.
    pub(super) fn groups(&self) -> Result<Vec<Unseal>, UnsealError> {
        let needed = offer(&self.bytes)?.map_or(0, |offer| offer.needed);
        let groups = 0..1_u32 << self.shares.len();
        let chosen = |group: u32| {
            let bits = self.shares.iter().enumerate();
            let own = bits.filter(move |(at, _)| group >> at & 1 == 1);
            own.map(|(_, (p, s))| (p.clone(), Secret::new(s.expose().clone())))
        };
        let groups = groups.filter(|g| needed > 0 && g.count_ones() as usize == needed);
        Ok(groups
            .map(|g| Unseal::Shares(chosen(g).collect()))
            .collect())
    }
}

/// Wraps data keys under a new key-encryption key, and that for every method.
pub(super) fn wrap(
    world: &World,
    methods: &[UnsealMethod],
    set: &KeySet,
) -> Result<NewFile, InitError> {
    if methods.is_empty() || methods.len() > MAX_METHODS {
        return Err(InitError::Methods);
    }
    let kek = Secret::new(world.random::<KEY_BYTES>()?);
    let mut shares = Vec::new();
    let files = methods
        .iter()
        .map(|m| wrap_for(world, m, kek.expose(), &mut shares))
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = filled(world, files, kek.expose(), set)?;
    Ok(NewFile { bytes, shares, kek })
}

/// The same key file with other data keys: whatever opened it opens it still.
pub(super) fn with_keys(
    world: &World,
    key_file: &[u8],
    kek: &[u8; KEY_BYTES],
    set: &KeySet,
) -> Result<Vec<u8>, InitError> {
    let file = KeyFile::read(key_file).map_err(|_| InitError::Refused)?;
    // One of another time, or of another vault, would be opened by what opens nothing here.
    file.keys_under(kek).map_err(|_| InitError::Refused)?;
    filled(world, file.files, kek, set)
}

fn filled(
    world: &World,
    files: Vec<Wrapped>,
    kek: &[u8; KEY_BYTES],
    set: &KeySet,
) -> Result<Vec<u8>, InitError> {
    let has = |method| files.iter().any(|f| f.name() == method);
    let v = match set.since {
        _ if has("plugin") => V,
        Some(_) => 3,
        None if has("shares") => 2,
        None => 1,
    };
    let (generation, data) = &set.current;
    let current = Role::Current(set.since);
    let mut file = KeyFile {
        v,
        generation: *generation,
        files,
        data_key: wrapped(world, kek, (*generation, current), data.expose())?,
        since: set.since,
        old: None,
        check: String::new(),
    };
    if let Some(((generation, data), retired)) = &set.old {
        let role = Role::Old { retired: *retired };
        file.old = Some(OldKey {
            generation: *generation,
            data_key: wrapped(world, kek, (*generation, role), data.expose())?,
            retired: *retired,
        });
    }
    file.check = file.checksum();
    serde_json::to_vec_pretty(&file).map_err(|_| InitError::Refused)
}

/// Opens a key file with the key-encryption key itself.
pub(super) fn open_under(
    key_file: &[u8],
    kek: &[u8; KEY_BYTES],
) -> Result<Box<Keyring>, UnsealError> {
    KeyFile::read(key_file)?.keys_under(kek)
}

/// Opens a key file.
pub(super) fn open(key_file: &[u8], secret: &Unseal) -> Result<Box<Keyring>, UnsealError> {
    let file = KeyFile::read(key_file)?;
    let (method, identities) = match secret {
        Unseal::Passphrase(passphrase) => ("passphrase", by_passphrase(passphrase)),
        Unseal::Identity(text) => ("identity", by_identity(text)?),
        Unseal::Plugin(plugin) => ("plugin", vec![Box::new(plugin.clone()) as _]),
        Unseal::Shares(shares) => {
            let shared = file.shared().ok_or_else(|| file.no_such("shares"))?;
            return file.keys_under(shared.join(shares)?.expose());
        }
    };
    let mut failed = None;
    for wrapped in file.files.iter().filter(|f| f.name() == method) {
        let (Wrapped::Passphrase { age } | Wrapped::Identity { age } | Wrapped::Plugin { age }) =
            wrapped
        else {
            continue;
        };
        match unwrap_kek(age, &identities) {
            Ok(kek) => return file.keys_under(kek.expose()),
            // It did not answer, and is not asked for each of them.
            Err(UnsealError::Plugin(e)) => return Err(e.into()),
            // The file is whole, as its checksum says: another key came out of the plugin.
            Err(UnsealError::Damaged) if method == "plugin" => {
                return Err(UnsealError::WrongSecret);
            }
            // Another file of the same method may be the one for this secret.
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    Err(failed.unwrap_or_else(|| file.no_such(method)))
}

impl KeyFile {
    fn read(bytes: &[u8]) -> Result<Self, UnsealError> {
        #[derive(Deserialize)]
        struct Format {
            v: u32,
        }
        if bytes.len() > MAX_FILE_BYTES {
            return Err(UnsealError::Damaged);
        }
        match serde_json::from_slice::<Format>(bytes) {
            Ok(Format { v: 1..=V }) => {}
            Ok(Format { v }) => return Err(UnsealError::Newer(v)),
            Err(_) => return Err(UnsealError::Damaged),
        }
        let file: Self = serde_json::from_slice(bytes).map_err(|_| UnsealError::Damaged)?;
        if file.check != file.checksum() || file.files.len() > MAX_METHODS {
            return Err(UnsealError::Damaged);
        }
        Ok(file)
    }

    fn shared(&self) -> Option<&Shared> {
        self.files.iter().find_map(|f| match f {
            Wrapped::Shares(shared) => Some(shared),
            _ => None,
        })
    }

    fn no_such(&self, method: &'static str) -> UnsealError {
        let known: Vec<_> = self.files.iter().map(Wrapped::name).collect();
        UnsealError::NoSuchMethod(method, known.join(", "))
    }

    fn keys_under(&self, kek: &[u8; KEY_BYTES]) -> Result<Box<Keyring>, UnsealError> {
        let current = Role::Current(self.since);
        let old = self.old.as_ref().map(|old| {
            let role = Role::Old {
                retired: old.retired,
            };
            let keys = unwrapped(kek, (old.generation, role), &old.data_key)?;
            Ok::<_, UnsealError>(Old {
                keys,
                retired: old.retired,
            })
        });
        Ok(Box::new(Keyring {
            kek: Some(Secret::new(*kek)),
            current: unwrapped(kek, (self.generation, current), &self.data_key)?,
            since: self.since,
            old: old.transpose()?,
        }))
    }

    fn checksum(&self) -> String {
        let start = Canonical::new("countersign/key-file/v1")
            .number(u64::from(self.v))
            .number(u64::from(self.generation))
            .number(self.files.len() as u64);
        let all = self.files.iter().fold(start, |c, file| file.told(c));
        let mut all = all.text(&self.data_key);
        if let Some(since) = self.since {
            all = all.number(since.0);
        }
        if let Some(old) = &self.old {
            all = all
                .number(u64::from(old.generation))
                .text(&old.data_key)
                .number(u64::from(old.retired));
        }
        STANDARD.encode(all.sha256())
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::KeyFile;

    /// A file that somebody wrote, with its checksum made right.
    pub(in crate::vault) fn checked(bytes: &[u8]) -> Vec<u8> {
        let mut file: KeyFile = serde_json::from_slice(bytes).unwrap();
        file.check = file.checksum();
        serde_json::to_vec(&file).unwrap()
    }
}
