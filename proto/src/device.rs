//! Device keys, and API calls signed by them.
//!
//! A call carries `DPoP: <JWT>` (the shape of RFC 9449): method, URL, body hash, time, a nonce that
//! the broker hands out, and a unique id. There is no session to steal.

use crate::{canonical::Canonical, digest::hex, ids::DeviceId};
use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// What a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A machine with the command line; its key lies under a passphrase and signs when a person gave it.
    #[default]
    Terminal,
    /// A browser; its key cannot be taken out of it, but signs whatever the page asks. It shows things; an
    /// answer needs a passkey or a TOTP code beside it.
    Browser,
}

/// How far a call's time may lie from the broker's, in seconds.
pub const CALL_WINDOW: u64 = 60;

/// An Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevicePublic(pub [u8; 32]);

impl DevicePublic {
    /// The device's id: `dev_` and the first 130 bits of the key's SHA-256, base32 in lower case.
    pub fn id(&self) -> DeviceId {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut text = String::from("dev_");
        let (mut bits, mut have) = (0u32, 0);
        for byte in hash.as_ref() {
            bits = bits << 8 | u32::from(*byte);
            have += 8;
            while have >= 5 && text.len() < 30 {
                have -= 5;
                if let Some(c) = ALPHABET.get((bits >> have & 31) as usize) {
                    text.push(char::from(*c));
                }
            }
            bits &= 0xff;
        }
        // The alphabet and length are what `DeviceId` accepts.
        text.parse()
            .unwrap_or_else(|_| unreachable!("a device id is built from its own alphabet"))
    }

    /// Checks a signature over canonical bytes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl From<DevicePublic> for String {
    fn from(k: DevicePublic) -> Self {
        hex(&k.0)
    }
}

impl TryFrom<String> for DevicePublic {
    type Error = &'static str;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        crate::digest::unhex(&s)
            .and_then(|b| <[u8; 32]>::try_from(b).ok())
            .map(Self)
            .ok_or("is not 64 lower-case hex digits")
    }
}

/// A device's private key. Used for people's devices and for CI client keys alike.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

/// Why a key could not be read.
#[derive(Debug, Error)]
#[error("is not an Ed25519 seed")]
pub struct KeyError;

impl DeviceKey {
    /// From 32 bytes of entropy.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| KeyError)?;
        Ok(Self { pair, seed })
    }

    /// The seed, for writing the encrypted key file.
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Its public key.
    pub fn public(&self) -> DevicePublic {
        let mut out = [0; 32];
        out.copy_from_slice(self.pair.public_key().as_ref());
        DevicePublic(out)
    }

    /// Signs canonical bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Signs an API call; the result is the `DPoP` header's value.
    pub fn sign_call(&self, call: &Call<'_>) -> String {
        let claims = CallClaims {
            htm: call.method.to_owned(),
            htu: call.url.to_owned(),
            iat: call.now.0,
            jti: call.jti.to_owned(),
            nonce: call.nonce.to_owned(),
            ath: body_hash(call.body),
        };
        self.sign_jwt("dpop+jwt", self.public().id().as_str(), &claims)
    }

    /// A compact JWS (RFC 7515) by this key with the given `typ`, `kid` and claims.
    pub fn sign_jwt(&self, typ: &str, kid: &str, claims: &impl Serialize) -> String {
        let part = |v: Vec<u8>| URL_SAFE_NO_PAD.encode(v);
        let header = serde_json::json!({"alg": "EdDSA", "typ": typ, "kid": kid});
        let head = part(header.to_string().into_bytes());
        let body = part(serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{head}.{body}");
        let signature = part(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// One API call, about to be signed.
#[derive(Debug)]
pub struct Call<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The broker's public URL with path and query.
    pub url: &'a str,
    /// The body, empty for none.
    pub body: &'a [u8],
    /// The device's clock.
    pub now: crate::time::UnixTime,
    /// Unique.
    pub jti: &'a str,
    /// The nonce that the broker handed out last (`DPoP-Nonce`), or empty.
    pub nonce: &'a str,
}

/// The claims of a signed call (RFC 9449 §4.2; `ath` holds the body's hash here).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallClaims {
    /// Method.
    pub htm: String,
    /// URL.
    pub htu: String,
    /// Time, seconds.
    pub iat: u64,
    /// Unique id.
    pub jti: String,
    /// The broker's nonce.
    pub nonce: String,
    /// SHA-256 of the body, hex.
    pub ath: String,
}

/// SHA-256 of a body, hex.
pub fn body_hash(body: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, body).as_ref())
}

/// Proof that the enrolling device holds the private key: signed over the invite's hash and the
/// device's name.
pub fn enrolment_bytes(invite_hash: &[u8; 32], device_name: &str) -> Vec<u8> {
    Canonical::new("countersign/enrol/v1")
        .bytes(invite_hash)
        .text(device_name)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_stable_and_a_call_verifies() {
        let key = DeviceKey::from_seed([3; 32]).unwrap();
        let id = key.public().id();
        assert_eq!(id.as_str().len(), 30);
        assert_eq!(id, key.public().id());
        let jwt = key.sign_jwt("x", "k", &serde_json::json!({"a": 1}));
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(key.public().verify(signed.as_bytes(), &signature));
    }
}
