//! Uploads that wait for approval: each lies in a file of its own, encrypted with age (its STREAM
//! cipher, <https://age-encryption.org/v1>) to an identity of its own, which is sealed as a row.

use super::{
    envelope::{Binding, OpenRowError, SealRowError},
    seal::Vault,
};
use age::{secrecy::ExposeSecret as _, x25519::Identity};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use thiserror::Error;

/// Why a payload was not kept or not opened.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// The file.
    #[error("the payload's file: {0}")]
    Io(#[from] io::Error),
    /// Its identity was not sealed.
    #[error(transparent)]
    Seal(#[from] SealRowError),
    /// Its identity does not open here.
    #[error(transparent)]
    Open(#[from] OpenRowError),
    /// The file is not what was kept under this identity.
    #[error("the payload was changed, or is another one")]
    NotAuthentic,
}

/// Encrypts what `from` has into a new file, and flushes it. Returns the sealed identity, which goes
/// into the row that the binding names. Blocking.
pub fn keep(
    vault: &Vault,
    binding: &Binding<'_>,
    from: &mut impl Read,
    path: &Path,
) -> Result<Vec<u8>, PayloadError> {
    let identity = Identity::generate();
    let sealed = vault.seal_row(binding, identity.to_string().expose_secret().as_bytes())?;
    let recipient = identity.to_public();
    let one: &dyn age::Recipient = &recipient;
    let encryptor = age::Encryptor::with_recipients(std::iter::once(one))
        .map_err(|_| PayloadError::NotAuthentic)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut writer = encryptor.wrap_output(file)?;
    io::copy(from, &mut writer)?;
    let file = writer.finish()?;
    file.sync_all()?;
    // The name must be as durable as the bytes.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(sealed)
}

/// Decrypts a payload into `to`. Blocking.
pub fn open(
    vault: &Vault,
    binding: &Binding<'_>,
    sealed: &[u8],
    path: &Path,
    to: &mut impl Write,
) -> Result<(), PayloadError> {
    let text = vault.open_row(binding, sealed)?;
    let text = std::str::from_utf8(text.expose()).map_err(|_| PayloadError::NotAuthentic)?;
    // It wipes itself.
    let identity: Identity = text.parse().map_err(|_| PayloadError::NotAuthentic)?;
    let one: &dyn age::Identity = &identity;
    let decryptor = age::Decryptor::new_buffered(io::BufReader::new(File::open(path)?))
        .map_err(|_| PayloadError::NotAuthentic)?;
    let mut reader = decryptor
        .decrypt(std::iter::once(one))
        .map_err(|_| PayloadError::NotAuthentic)?;
    io::copy(&mut reader, to).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => PayloadError::NotAuthentic,
        _ => PayloadError::Io(e),
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::seal::fixtures::open_vault;

    fn binding(record: &[u8]) -> Binding<'_> {
        Binding {
            table: "deposits",
            record,
            purpose: "payload",
            registry: None,
            scope: None,
            version: 0,
        }
    }

    #[test]
    fn attack_44_a_payload_is_unreadable_and_bound_to_its_place() {
        let (vault, dir) = (open_vault(), tempfile::tempdir().unwrap());
        let path = dir.path().join("p");
        let plain = vec![7; 200_000];
        let sealed = keep(&vault, &binding(b"a"), &mut plain.as_slice(), &path).unwrap();
        let read = |vault: &Vault, place: &[u8], sealed: &[u8]| {
            let mut out = Vec::new();
            open(vault, &binding(place), sealed, &path, &mut out).map(|()| out)
        };
        assert_eq!(read(&vault, b"a", &sealed).unwrap(), plain);
        let stored = std::fs::read(&path).unwrap();
        assert!(!stored.windows(32).any(|w| w == [7; 32]));
        // Another row's identity, another place, another vault, another byte, a cut.
        assert!(read(&vault, b"b", &sealed).is_err());
        assert!(read(&open_vault(), b"a", &sealed).is_err());
        let other = keep(
            &vault,
            &binding(b"a"),
            &mut &b"x"[..],
            &dir.path().join("q"),
        )
        .unwrap();
        assert!(read(&vault, b"a", &other).is_err());
        for (at, len) in [(stored.len() - 1, stored.len()), (150, 100_000)] {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            changed.truncate(len);
            std::fs::write(&path, &changed).unwrap();
            let changed = read(&vault, b"a", &sealed);
            assert!(matches!(changed, Err(PayloadError::NotAuthentic)));
        }
        // Nothing is overwritten.
        assert!(keep(&vault, &binding(b"a"), &mut &b"x"[..], &path).is_err());
    }
}
