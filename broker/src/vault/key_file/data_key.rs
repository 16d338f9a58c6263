//! A data key as it lies in the key file: wrapped under the key-encryption key, and bound to what it is for.

use super::{InitError, UnsealError};
use crate::{
    vault::{
        envelope::{decrypt, encrypt},
        keys::{KEY_BYTES, Keys},
    },
    world::World,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{canonical::Canonical, time::UnixTime};
use zeroize::Zeroize as _;

const NONCE_BYTES: usize = 12;

/// What a data key is for, bound to it: whoever writes the file, and has an old key, cannot make it the current one
/// again, or one that is believed.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Current(Option<UnixTime>),
    Old { retired: bool },
}

impl Role {
    fn aad(self, generation: u32) -> Vec<u8> {
        let first = Canonical::new("countersign/data-key/v1").number(u64::from(generation));
        let later = Canonical::new("countersign/data-key/v2").number(u64::from(generation));
        match self {
            Self::Current(None) => first,
            Self::Current(Some(since)) => later.text("current").number(since.0),
            Self::Old { retired: false } => later.text("old"),
            Self::Old { retired: true } => later.text("retired"),
        }
        .finish()
    }
}

/// Nonce and wrapped key, base64.
pub(super) fn wrapped(
    world: &World,
    kek: &[u8; KEY_BYTES],
    (generation, role): (u32, Role),
    data: &[u8; KEY_BYTES],
) -> Result<String, InitError> {
    let nonce = world.random::<NONCE_BYTES>()?;
    let mut body = Vec::with_capacity(KEY_BYTES + 16);
    body.extend_from_slice(data);
    if !encrypt(kek, nonce, &role.aad(generation), &mut body) {
        body.zeroize();
        return Err(InitError::Refused);
    }
    Ok(STANDARD.encode([&nonce[..], &body].concat()))
}

pub(super) fn unwrapped(
    kek: &[u8; KEY_BYTES],
    (generation, role): (u32, Role),
    wrapped: &str,
) -> Result<Box<Keys>, UnsealError> {
    let bad = UnsealError::Damaged;
    let Ok(bytes) = STANDARD.decode(wrapped) else {
        return Err(bad);
    };
    let Some((nonce, body)) = bytes.split_first_chunk::<NONCE_BYTES>() else {
        return Err(bad);
    };
    let data = decrypt(kek, *nonce, &role.aad(generation), body).ok_or(bad)?;
    Keys::derive(generation, |key| {
        let data = data.expose().as_slice();
        *key = *data.first_chunk().ok_or(UnsealError::Damaged)?;
        Ok(())
    })
}
