//! The key file: a random key-encryption key, wrapped once per unseal method as an age file
//! (c2sp.org/age), and the data key wrapped under it.
//!
//! age does not mix a passphrase with other recipients, so each method has an age file of its own:
//! any **one** of them unseals.
//!
//! What if an attacker writes here? With a passphrase he can destroy the file and no more. With an
//! identity whose public key he knows he can put a vault of his own in its place; it opens none of
//! the sealed rows and authenticates none of the people, so the daemon releases nothing.

use super::{
    envelope::{decrypt, encrypt},
    keys::{KEY_BYTES, Keys},
};
use crate::{secret::Secret, world::World};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use methods::{by_identity, by_passphrase, public_keys, recipient, unwrap_kek, wrap_for};
use proto::{canonical::Canonical, ids::PersonId};
use serde::{Deserialize, Serialize};
use shared::Shared;
use zeroize::Zeroize;

mod error;
mod methods;
mod shared;

pub use error::{InitError, UnsealError};
pub use methods::{MAX_WORK_FACTOR, Unseal, UnsealMethod, WORK_FACTOR};
pub use shared::{Holder, Offer, ShareOf};

/// Bytes of a key file at most.
const MAX_FILE_BYTES: usize = 256 * 1024;
const MAX_METHODS: usize = 16;
const NONCE_BYTES: usize = 12;
/// The newest format. One without shares is written as format 1, which older brokers read.
const V: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    v: u32,
    generation: u32,
    files: Vec<Wrapped>,
    /// Nonce and wrapped data key, base64.
    data_key: String,
    /// SHA-256 over the rest, base64. It tells a damaged file from a wrong passphrase; it is no
    /// protection, since who writes the file can write this too.
    check: String,
}

/// The key-encryption key for one method. Age files are base64.
#[derive(Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
enum Wrapped {
    Passphrase { age: String },
    Identity { age: String },
    Shares(Shared),
}

impl Wrapped {
    const fn name(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Identity { .. } => "identity",
            Self::Shares(_) => "shares",
        }
    }

    /// All of it, for the file's checksum.
    fn told(&self, to: Canonical) -> Canonical {
        let to = to.text(self.name());
        match self {
            Self::Passphrase { age } | Self::Identity { age } => to.text(age),
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
    let data = Secret::new(world.random::<KEY_BYTES>()?);
    Ok(wrap(world, methods, 1, data.expose())?.bytes)
}

/// A key file that was just made.
pub struct NewFile {
    /// As it is stored.
    pub bytes: Vec<u8>,
    /// The shares in it, open, so that it can be tried before it is relied on.
    pub shares: Vec<ShareOf>,
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

/// Wraps a data key under a new key-encryption key, and that for every method.
pub(super) fn wrap(
    world: &World,
    methods: &[UnsealMethod],
    generation: u32,
    data: &[u8; KEY_BYTES],
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
    let nonce = world.random::<NONCE_BYTES>()?;
    let mut body = Vec::with_capacity(KEY_BYTES + 16);
    body.extend_from_slice(data);
    if !encrypt(kek.expose(), nonce, &data_key_aad(generation), &mut body) {
        body.zeroize();
        return Err(InitError::Refused);
    }
    let mut file = KeyFile {
        v: if shares.is_empty() { 1 } else { V },
        generation,
        files,
        data_key: STANDARD.encode([&nonce[..], &body].concat()),
        check: String::new(),
    };
    file.check = file.checksum();
    let bytes = serde_json::to_vec_pretty(&file).map_err(|_| InitError::Refused)?;
    Ok(NewFile { bytes, shares })
}

/// Opens a key file.
pub(super) fn open(key_file: &[u8], secret: &Unseal) -> Result<Box<Keys>, UnsealError> {
    let file = KeyFile::read(key_file)?;
    let (method, identities) = match secret {
        Unseal::Passphrase(passphrase) => ("passphrase", by_passphrase(passphrase)),
        Unseal::Identity(text) => ("identity", by_identity(text)?),
        Unseal::Shares(shares) => {
            let shared = file.shared().ok_or_else(|| file.no_such("shares"))?;
            return file.keys(&shared.join(shares)?);
        }
    };
    let mut failed = None;
    for wrapped in file.files.iter().filter(|f| f.name() == method) {
        let (Wrapped::Passphrase { age } | Wrapped::Identity { age }) = wrapped else {
            continue;
        };
        match unwrap_kek(age, &identities) {
            Ok(kek) => return file.keys(&kek),
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

    fn keys(&self, kek: &Secret<[u8; KEY_BYTES]>) -> Result<Box<Keys>, UnsealError> {
        let bad = UnsealError::Damaged;
        let Ok(bytes) = STANDARD.decode(&self.data_key) else {
            return Err(bad);
        };
        let Some((nonce, body)) = bytes.split_first_chunk::<NONCE_BYTES>() else {
            return Err(bad);
        };
        let aad = data_key_aad(self.generation);
        let data = decrypt(kek.expose(), *nonce, &aad, body).ok_or(bad)?;
        Keys::derive(self.generation, |key| {
            let data = data.expose().as_slice();
            *key = *data.first_chunk().ok_or(UnsealError::Damaged)?;
            Ok(())
        })
    }

    fn checksum(&self) -> String {
        let start = Canonical::new("countersign/key-file/v1")
            .number(u64::from(self.v))
            .number(u64::from(self.generation))
            .number(self.files.len() as u64);
        let all = self.files.iter().fold(start, |c, file| file.told(c));
        STANDARD.encode(all.text(&self.data_key).sha256())
    }
}

/// The generation is bound, so an old generation's data key cannot be passed off as the new one.
fn data_key_aad(generation: u32) -> Vec<u8> {
    Canonical::new("countersign/data-key/v1")
        .number(u64::from(generation))
        .finish()
}
