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
    keys::{KEY_BYTES, Keys, NotDerived},
};
use crate::{
    secret::Secret,
    world::{NoEntropy, World},
};
use age::{DecryptError, secrecy::SecretString};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::canonical::Canonical;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use thiserror::Error;
use zeroize::Zeroize;

/// scrypt's N is 2 to this; about a second and 256 MiB.
pub const WORK_FACTOR: u8 = 18;
/// What a key file may ask for; more is refused, since a file that somebody planted could otherwise
/// use up the machine.
pub const MAX_WORK_FACTOR: u8 = 22;
/// Bytes of a key file at most.
const MAX_FILE_BYTES: usize = 256 * 1024;
const MAX_METHODS: usize = 16;
const NONCE_BYTES: usize = 12;
const V: u32 = 1;

/// A way to unseal that a new key file shall have.
pub enum UnsealMethod {
    /// A passphrase that somebody types. It is guessed offline by whoever steals the key file:
    /// let it be generated, with 80 bits or more.
    Passphrase {
        /// What is typed.
        passphrase: Secret<String>,
        /// scrypt's work factor, 1 to [`MAX_WORK_FACTOR`]; [`WORK_FACTOR`] unless a test is in a hurry.
        work_factor: u8,
    },
    /// age identities that the daemon reads from a file or a systemd credential at start.
    Identity {
        /// The identities' public keys, `age1…`; each of them unseals.
        recipients: Vec<String>,
    },
}

/// What unseals.
pub enum Unseal {
    /// The passphrase.
    Passphrase(Secret<String>),
    /// The text of an identity file: `AGE-SECRET-KEY-1…` lines, comments with `#`.
    Identity(Secret<String>),
}

/// Why no key file was made.
#[derive(Debug, Error)]
pub enum InitError {
    /// No random bytes.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Nothing could ever unseal it.
    #[error("name 1 to {MAX_METHODS} ways to unseal: a passphrase or an age identity")]
    Methods,
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The work factor is out of range.
    #[error("the work factor must be 1 to {MAX_WORK_FACTOR}; {WORK_FACTOR} takes about a second")]
    WorkFactor,
    /// Not a public key.
    #[error("recipient {0} is not an age public key (age1…, as age-keygen prints it)")]
    Recipient(usize),
    /// The vault is sealed, so there is nothing to wrap anew.
    #[error(transparent)]
    Sealed(#[from] super::seal::Sealed),
    /// A library refused what it should take.
    #[error("the keys could not be wrapped")]
    Refused,
}

/// Why the vault stays sealed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UnsealError {
    /// The passphrase or identity is another one.
    #[error(
        "this does not unseal the vault: check the passphrase, or that the identity file belongs to this broker"
    )]
    WrongSecret,
    /// The identity's text has no identity in it.
    #[error("no age identity found: expected a line that begins with AGE-SECRET-KEY-1")]
    NotAnIdentity,
    /// The key file knows no such method.
    #[error("the key file has no {0} method; it can be unsealed by: {1}")]
    NoSuchMethod(&'static str, String),
    /// It cannot be read.
    #[error("the key file is damaged; restore it from a backup")]
    Damaged,
    /// Written by a newer broker.
    #[error("the key file has format {0}, this broker reads format {V}; use a newer broker")]
    Newer(u32),
    /// It asks for too much work.
    #[error(
        "the key file asks for scrypt work factor {0}, at most {MAX_WORK_FACTOR} is allowed; restore it from a backup"
    )]
    TooSlow(u8),
    /// The vault is open with other keys.
    #[error("the vault is open with another key file; seal it first")]
    OtherVault,
}

impl From<NotDerived> for InitError {
    fn from(_: NotDerived) -> Self {
        Self::Refused
    }
}

impl From<NotDerived> for UnsealError {
    fn from(_: NotDerived) -> Self {
        Self::Damaged
    }
}

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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    method: Method,
    /// An age file, base64.
    age: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Passphrase,
    Identity,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Identity => "identity",
        }
    }
}

/// Makes a new key file with new keys.
pub(super) fn create(world: &World, methods: &[UnsealMethod]) -> Result<Vec<u8>, InitError> {
    let data = Secret::new(world.random::<KEY_BYTES>()?);
    wrap(world, methods, 1, data.expose())
}

/// Wraps a data key under a new key-encryption key, and that for every method.
pub(super) fn wrap(
    world: &World,
    methods: &[UnsealMethod],
    generation: u32,
    data: &[u8; KEY_BYTES],
) -> Result<Vec<u8>, InitError> {
    if methods.is_empty() || methods.len() > MAX_METHODS {
        return Err(InitError::Methods);
    }
    let kek = Secret::new(world.random::<KEY_BYTES>()?);
    let files = methods
        .iter()
        .map(|m| wrap_for(m, kek.expose()))
        .collect::<Result<_, _>>()?;
    let nonce = world.random::<NONCE_BYTES>()?;
    let mut body = Vec::with_capacity(KEY_BYTES + 16);
    body.extend_from_slice(data);
    if !encrypt(kek.expose(), nonce, &data_key_aad(generation), &mut body) {
        body.zeroize();
        return Err(InitError::Refused);
    }
    let mut file = KeyFile {
        v: V,
        generation,
        files,
        data_key: STANDARD.encode([&nonce[..], &body].concat()),
        check: String::new(),
    };
    file.check = file.checksum();
    serde_json::to_vec_pretty(&file).map_err(|_| InitError::Refused)
}

fn wrap_for(method: &UnsealMethod, kek: &[u8]) -> Result<Wrapped, InitError> {
    let (method, sealed) = match method {
        UnsealMethod::Passphrase {
            passphrase,
            work_factor,
        } => {
            if passphrase.expose().is_empty() {
                return Err(InitError::EmptyPassphrase);
            }
            if !(1..=MAX_WORK_FACTOR).contains(work_factor) {
                return Err(InitError::WorkFactor);
            }
            let mut to = age::scrypt::Recipient::new(for_age(passphrase));
            to.set_work_factor(*work_factor);
            (Method::Passphrase, age_encrypt(&[&to], kek)?)
        }
        UnsealMethod::Identity { recipients } => {
            let to = recipients
                .iter()
                .enumerate()
                .map(|(i, text)| {
                    text.trim()
                        .parse::<age::x25519::Recipient>()
                        .map_err(|_| InitError::Recipient(i + 1))
                })
                .collect::<Result<Vec<_>, _>>()?;
            if to.is_empty() {
                return Err(InitError::Methods);
            }
            let to: Vec<&dyn age::Recipient> = to.iter().map(|r| r as _).collect();
            (Method::Identity, age_encrypt(&to, kek)?)
        }
    };
    Ok(Wrapped {
        method,
        age: STANDARD.encode(sealed),
    })
}

fn age_encrypt(to: &[&dyn age::Recipient], plain: &[u8]) -> Result<Vec<u8>, InitError> {
    use std::io::Write as _;
    let encryptor =
        age::Encryptor::with_recipients(to.iter().copied()).map_err(|_| InitError::Refused)?;
    let mut out = Vec::new();
    encryptor
        .wrap_output(&mut out)
        .and_then(|mut writer| writer.write_all(plain).and_then(|()| writer.finish()))
        .map_err(|_| InitError::Refused)?;
    Ok(out)
}

/// Opens a key file.
pub(super) fn open(key_file: &[u8], secret: &Unseal) -> Result<Box<Keys>, UnsealError> {
    let file = KeyFile::read(key_file)?;
    let method = match secret {
        Unseal::Passphrase(_) => Method::Passphrase,
        Unseal::Identity(_) => Method::Identity,
    };
    let identities = identities(secret)?;
    let mut failed = None;
    for wrapped in file.files.iter().filter(|f| f.method == method) {
        match unwrap_kek(wrapped, &identities) {
            Ok(kek) => return file.keys(&kek),
            // Another file of the same method may be the one for this secret.
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    Err(failed.unwrap_or_else(|| {
        let known: Vec<_> = file.files.iter().map(|f| f.method.name()).collect();
        UnsealError::NoSuchMethod(method.name(), known.join(", "))
    }))
}

fn identities(secret: &Unseal) -> Result<Vec<Box<dyn age::Identity>>, UnsealError> {
    match secret {
        Unseal::Passphrase(passphrase) => {
            let mut identity = age::scrypt::Identity::new(for_age(passphrase));
            identity.set_max_work_factor(MAX_WORK_FACTOR);
            Ok(vec![Box::new(identity)])
        }
        Unseal::Identity(text) => {
            let found: Vec<Box<dyn age::Identity>> = text
                .expose()
                .lines()
                .filter_map(|line| line.trim().parse::<age::x25519::Identity>().ok())
                .map(|identity| Box::new(identity) as _)
                .collect();
            if found.is_empty() {
                return Err(UnsealError::NotAnIdentity);
            }
            Ok(found)
        }
    }
}

fn unwrap_kek(
    wrapped: &Wrapped,
    identities: &[Box<dyn age::Identity>],
) -> Result<Secret<[u8; KEY_BYTES]>, UnsealError> {
    let sealed = STANDARD
        .decode(&wrapped.age)
        .map_err(|_| UnsealError::Damaged)?;
    let mut reader = age::Decryptor::new_buffered(&sealed[..])
        .and_then(|file| file.decrypt(identities.iter().map(AsRef::as_ref)))
        .map_err(|e| match e {
            DecryptError::NoMatchingKeys
            | DecryptError::DecryptionFailed
            | DecryptError::KeyDecryptionFailed => UnsealError::WrongSecret,
            DecryptError::ExcessiveWork { required, .. } => UnsealError::TooSlow(required),
            _ => UnsealError::Damaged,
        })?;
    let mut kek = [0; KEY_BYTES];
    let read = reader.read_exact(&mut kek);
    let kek = Secret::new(kek);
    // Reading to the end also checks the last chunk's mark: a cut or longer file is noticed.
    match read.and_then(|()| reader.read(&mut [0])) {
        Ok(0) => Ok(kek),
        _ => Err(UnsealError::Damaged),
    }
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
            Ok(Format { v: V }) => {}
            Ok(Format { v }) => return Err(UnsealError::Newer(v)),
            Err(_) => return Err(UnsealError::Damaged),
        }
        let file: Self = serde_json::from_slice(bytes).map_err(|_| UnsealError::Damaged)?;
        if file.check != file.checksum() || file.files.len() > MAX_METHODS {
            return Err(UnsealError::Damaged);
        }
        Ok(file)
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
        let all = self
            .files
            .iter()
            .fold(start, |c, file| c.text(file.method.name()).text(&file.age));
        STANDARD.encode(all.text(&self.data_key).sha256())
    }
}

/// The generation is bound, so an old generation's data key cannot be passed off as the new one.
fn data_key_aad(generation: u32) -> Vec<u8> {
    Canonical::new("countersign/data-key/v1")
        .number(u64::from(generation))
        .finish()
}

/// age wants a type of its own. The copy has its exact size, so nothing is moved and left behind.
fn for_age(text: &Secret<String>) -> SecretString {
    SecretString::from(text.expose().to_owned())
}
