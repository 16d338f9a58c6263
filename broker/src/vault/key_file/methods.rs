//! The ways to unseal: what wraps the key-encryption key in an age file, and what opens it again.

use super::{
    InitError, UnsealError, Wrapped,
    plugin::{self, Plugin},
    shared::{Holder, ShareOf, Shared},
};
use crate::{secret::Secret, vault::keys::KEY_BYTES, world::World};
use age::{DecryptError, EncryptError, secrecy::SecretString};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::io::Read as _;

/// scrypt's N is 2 to this; about a second and 256 MiB.
pub const WORK_FACTOR: u8 = 18;
/// What a key file may ask for; more is refused, since a file that somebody planted could otherwise
/// use up the machine.
pub const MAX_WORK_FACTOR: u8 = 22;
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
    /// What a plugin of age wraps.
    Plugin(Plugin),
    /// Shares of admins, so many of which unseal.
    Shares {
        /// How many.
        needed: usize,
        /// Who has one.
        holders: Vec<Holder>,
    },
}

/// What unseals.
pub enum Unseal {
    /// The passphrase.
    Passphrase(Secret<String>),
    /// The text of an identity file: `AGE-SECRET-KEY-1…` lines, comments with `#`.
    Identity(Secret<String>),
    /// The plugin's program and its identities.
    Plugin(Plugin),
    /// The shares of so many admins.
    Shares(Vec<ShareOf>),
}

pub(super) fn wrap_for(
    world: &World,
    method: &UnsealMethod,
    kek: &[u8; KEY_BYTES],
    dealt: &mut Vec<ShareOf>,
) -> Result<Wrapped, InitError> {
    Ok(match method {
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
            let age = STANDARD.encode(age_encrypt(&[&to], kek)?);
            Wrapped::Passphrase { age }
        }
        UnsealMethod::Identity { recipients } => {
            let to = recipients
                .iter()
                .enumerate()
                .map(|(i, text)| recipient(text).ok_or(InitError::Recipient(i + 1)))
                .collect::<Result<Vec<_>, _>>()?;
            if to.is_empty() {
                return Err(InitError::Methods);
            }
            let to: Vec<&dyn age::Recipient> = to.iter().map(|r| r as _).collect();
            let age = STANDARD.encode(age_encrypt(&to, kek)?);
            Wrapped::Identity { age }
        }
        UnsealMethod::Plugin(plugin) => {
            let age = STANDARD.encode(age_encrypt(&[plugin], kek)?);
            Wrapped::Plugin { age }
        }
        UnsealMethod::Shares { needed, holders } => {
            let (shared, shares) = Shared::deal(world, *needed, holders, kek)?;
            dealt.extend(shares);
            Wrapped::Shares(shared)
        }
    })
}

pub(super) fn recipient(text: &str) -> Option<age::x25519::Recipient> {
    text.trim().parse().ok()
}

pub(super) fn age_encrypt(to: &[&dyn age::Recipient], plain: &[u8]) -> Result<Vec<u8>, InitError> {
    use std::io::Write as _;
    let failed = |e| match e {
        EncryptError::Io(e) => plugin::failure(&e).map_or(InitError::Refused, InitError::Plugin),
        _ => InitError::Refused,
    };
    let encryptor = age::Encryptor::with_recipients(to.iter().copied()).map_err(failed)?;
    let mut out = Vec::new();
    encryptor
        .wrap_output(&mut out)
        .and_then(|mut writer| writer.write_all(plain).and_then(|()| writer.finish()))
        .map_err(|_| InitError::Refused)?;
    Ok(out)
}

pub(super) fn by_passphrase(passphrase: &Secret<String>) -> Vec<Box<dyn age::Identity>> {
    let mut identity = age::scrypt::Identity::new(for_age(passphrase));
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    vec![Box::new(identity)]
}

pub(super) fn by_identity(
    text: &Secret<String>,
) -> Result<Vec<Box<dyn age::Identity>>, UnsealError> {
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

/// The public halves of an identity file's keys.
pub(super) fn public_keys(text: &Secret<String>) -> Result<Vec<String>, UnsealError> {
    let lines = text.expose().lines();
    let found = lines.filter_map(|line| line.trim().parse::<age::x25519::Identity>().ok());
    let found: Vec<_> = found.map(|i| i.to_public().to_string()).collect();
    if found.is_empty() {
        return Err(UnsealError::NotAnIdentity);
    }
    Ok(found)
}

pub(super) fn unwrap_kek(
    age: &str,
    identities: &[Box<dyn age::Identity>],
) -> Result<Secret<[u8; KEY_BYTES]>, UnsealError> {
    let sealed = STANDARD.decode(age).map_err(|_| UnsealError::Damaged)?;
    let mut reader = age::Decryptor::new_buffered(&sealed[..])
        .and_then(|file| file.decrypt(identities.iter().map(AsRef::as_ref)))
        .map_err(|e| match e {
            DecryptError::NoMatchingKeys
            | DecryptError::DecryptionFailed
            | DecryptError::KeyDecryptionFailed => UnsealError::WrongSecret,
            DecryptError::ExcessiveWork { required, .. } => UnsealError::TooSlow(required),
            DecryptError::Io(e) => {
                plugin::failure(&e).map_or(UnsealError::Damaged, UnsealError::Plugin)
            }
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

/// age wants a type of its own. The copy has its exact size, so nothing is moved and left behind.
fn for_age(text: &Secret<String>) -> SecretString {
    SecretString::from(text.expose().to_owned())
}
