//! How a row is sealed: AES-256-GCM-SIV (RFC 8452), bound to the one place where it may stand.
//!
//! A sealed row is: format version (1 byte), key generation (4 bytes, big-endian), nonce (12 bytes),
//! ciphertext, tag (16 bytes). GCM-SIV, since a repeated nonce (a virtual machine that was cloned
//! while running) then tells that two rows are equal and nothing more.

use super::keys::{KEY_BYTES, Keyring, Keys};
use crate::{
    secret::Secret,
    world::{NoEntropy, World},
};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use proto::canonical::Canonical;
use thiserror::Error;
use zeroize::Zeroize;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Format, generation and nonce.
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// The one place where a sealed row may stand, and what it is for. All of it is authenticated, so a
/// row that was swapped, planted or replayed elsewhere does not open (attack 44). The schema's
/// version and the key's generation are added by the vault.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub record: &'a [u8],
    /// What the secret is for, like `registry token` or `totp seed`.
    pub purpose: &'static str,
    /// The registry, if it is about one.
    pub registry: Option<&'a str>,
    /// The token's scope, if it has one.
    pub scope: Option<&'a str>,
    /// The secret's own version; 0 where there is only ever one.
    pub version: u64,
}

/// Why a row was not sealed.
#[derive(Debug, Error)]
pub enum SealRowError {
    /// The vault is sealed.
    #[error(transparent)]
    Sealed(#[from] super::seal::Sealed),
    /// No nonce.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// The cipher refused: more bytes than it can take.
    #[error("the row could not be encrypted")]
    Refused,
}

/// Why a row was not opened.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenRowError {
    /// The vault is sealed.
    #[error(transparent)]
    Sealed(#[from] super::seal::Sealed),
    /// It was written under another generation of the data key.
    #[error(
        "the row was sealed under key generation {found}, the vault holds {held}: the database and the key file are not of the same time, restore both from one backup"
    )]
    OtherGeneration {
        /// The row's.
        found: u32,
        /// The vault's.
        held: u32,
    },
    /// It is damaged, or does not belong here.
    #[error(
        "the row is damaged or was moved here from another place; restore the database from a backup and look at who can write it"
    )]
    NotAuthentic,
}

/// Binds to `binding` and seals.
pub(super) fn seal(
    keys: &Keys,
    world: &World,
    binding: &Binding<'_>,
    plain: &[u8],
) -> Result<Vec<u8>, SealRowError> {
    let nonce = world.random::<NONCE_BYTES>()?;
    // Room for everything from the start: a vector that grows leaves the plain bytes behind.
    let mut body = Vec::with_capacity(plain.len().saturating_add(AES_256_GCM_SIV.tag_len()));
    body.extend_from_slice(plain);
    let aad = binding.aad(keys.generation);
    if !encrypt(&keys.rows, nonce, &aad, &mut body) {
        body.zeroize();
        return Err(SealRowError::Refused);
    }
    let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
    out.push(FORMAT);
    out.extend_from_slice(&keys.generation.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    Ok(out)
}

/// Opens a row that [`seal`] made for the same binding.
pub(super) fn open(
    ring: &Keyring,
    binding: &Binding<'_>,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, OpenRowError> {
    let bad = OpenRowError::NotAuthentic;
    let Some((_, rest)) = sealed.split_first_chunk::<5>() else {
        return Err(bad);
    };
    let Some((nonce, body)) = rest.split_first_chunk::<NONCE_BYTES>() else {
        return Err(bad);
    };
    let found = generation(sealed).ok_or(OpenRowError::NotAuthentic)?;
    let Some(keys) = ring.of(found) else {
        let held = ring.current.generation;
        return Err(OpenRowError::OtherGeneration { found, held });
    };
    decrypt(&keys.rows, *nonce, &binding.aad(found), body).ok_or(bad)
}

/// Which key generation sealed a row; none where it is no sealed row.
pub(super) fn generation(sealed: &[u8]) -> Option<u32> {
    let [format, generation @ ..] = sealed.first_chunk::<5>()?;
    (*format == FORMAT).then(|| u32::from_be_bytes(*generation))
}

impl Binding<'_> {
    fn aad(&self, generation: u32) -> Vec<u8> {
        Canonical::new("countersign/sealed-row/v1")
            .number(u64::from(FORMAT))
            .number(u64::from(generation))
            .text(self.table)
            .bytes(self.record)
            .text(self.purpose)
            .maybe(self.registry)
            .maybe(self.scope)
            .number(self.version)
            .finish()
    }
}

/// Encrypts in place and appends the tag; false if the cipher refused.
pub(super) fn encrypt(
    key: &[u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    body: &mut Vec<u8>,
) -> bool {
    UnboundKey::new(&AES_256_GCM_SIV, key)
        .and_then(|key| {
            LessSafeKey::new(key).seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                body,
            )
        })
        .is_ok()
}

/// Decrypts; `None` if key, nonce, associated data or bytes are not the ones of [`encrypt`].
pub(super) fn decrypt(
    key: &[u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    body: &[u8],
) -> Option<Secret<Vec<u8>>> {
    let mut plain = body.to_vec();
    let length = UnboundKey::new(&AES_256_GCM_SIV, key)
        .and_then(|key| {
            LessSafeKey::new(key)
                .open_in_place(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(aad),
                    &mut plain,
                )
                .map(|opened| opened.len())
        })
        .ok();
    if let Some(length) = length {
        plain.truncate(length);
        Some(Secret::new(plain))
    } else {
        plain.zeroize();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::seal::fixtures::open_vault;

    fn at(record: &[u8], version: u64) -> Binding<'_> {
        Binding {
            table: "token",
            record,
            purpose: "registry token",
            registry: Some("npm"),
            scope: Some("@acme/*"),
            version,
        }
    }

    #[test]
    fn attack_44_no_row_opens_in_the_place_of_another() {
        let vault = open_vault();
        let keys: Vec<Vec<u8>> = (0..200_u32).map(|i| i.to_be_bytes().to_vec()).collect();
        let sealed: Vec<Vec<u8>> = keys
            .iter()
            .map(|k| vault.seal_row(&at(k, 1), k).unwrap())
            .collect();
        for (i, key) in keys.iter().enumerate() {
            for (j, row) in sealed.iter().enumerate() {
                let opened = vault.open_row(&at(key, 1), row);
                assert_eq!(opened.is_ok(), i == j, "row {j} in place {i}");
                assert!(opened.is_err() || opened.is_ok_and(|p| p.expose() == key));
            }
        }
    }

    #[test]
    fn attack_44_every_part_of_the_binding_counts() {
        let vault = open_vault();
        let here = at(b"r", 1);
        let row = vault.seal_row(&here, b"canary").unwrap();
        let others = [
            Binding {
                table: "device",
                ..here
            },
            Binding {
                record: b"r2",
                ..here
            },
            Binding {
                purpose: "totp seed",
                ..here
            },
            Binding {
                registry: Some("pypi"),
                ..here
            },
            Binding {
                registry: None,
                ..here
            },
            Binding {
                scope: Some("*"),
                ..here
            },
            Binding {
                scope: None,
                ..here
            },
            Binding { version: 2, ..here },
            // The same letters, divided otherwise.
            Binding {
                registry: Some("npm@acme"),
                scope: Some("/*"),
                ..here
            },
        ];
        for other in others {
            let result = vault.open_row(&other, &row).err();
            assert_eq!(result, Some(OpenRowError::NotAuthentic), "{other:?}");
        }
    }

    #[test]
    fn attack_44_every_flipped_bit_and_every_cut_is_noticed() {
        let vault = open_vault();
        let row = vault.seal_row(&at(b"r", 1), b"canary").unwrap();
        for bit in 0..row.len() * 8 {
            let mut other = row.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(vault.open_row(&at(b"r", 1), &other).is_err(), "bit {bit}");
        }
        for length in 0..row.len() {
            assert!(vault.open_row(&at(b"r", 1), &row[..length]).is_err());
        }
    }

    #[test]
    fn two_sealings_of_one_text_differ() {
        let vault = open_vault();
        let one = vault.seal_row(&at(b"r", 1), b"same").unwrap();
        assert_ne!(one, vault.seal_row(&at(b"r", 1), b"same").unwrap());
    }
}
