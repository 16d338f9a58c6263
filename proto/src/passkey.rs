//! What a passkey signs, and how anybody verifies it again without a broker.
//!
//! A broker checks a fresh assertion with a WebAuthn library. What is kept of it is checked here: by the
//! broker each time it counts, and by whoever verifies a receipt (WebAuthn Level 3 §7.2, the steps that
//! need no session).

use crate::{answer::Decision, canonical::Canonical, digest::unhex};
use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
        RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a challenge's nonce.
pub const NONCE_BYTES: usize = 32;
/// Longest stored part of an assertion, in characters of base64url.
const PART_MAX: usize = 8192;
/// User present and user verified (WebAuthn §6.1).
const PRESENT_AND_VERIFIED: u8 = 0b101;

/// What a passkey is asked to sign for. An assertion for one act is never one for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A yes to a request; about its digest.
    Approve,
    /// A no.
    Deny,
    /// A no that freezes the packages.
    DenyAndFreeze,
    /// An announcement; about the digest of its canonical bytes.
    Intend,
    /// A device or factor added or removed; about [`change_digest`].
    ChangeFactors,
}

impl Act {
    /// As it stands in the challenge.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::DenyAndFreeze => "deny-and-freeze",
            Self::Intend => "intend",
            Self::ChangeFactors => "change-factors",
        }
    }
}

impl From<Decision> for Act {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Approve => Self::Approve,
            Decision::Deny => Self::Deny,
            Decision::DenyAndFreeze => Self::DenyAndFreeze,
        }
    }
}

/// What [`Act::ChangeFactors`] is about: the change (`add-device`, `remove-passkey`, …) and its object.
/// Tag `countersign/change/v1`.
pub fn change_digest(change: &str, object: &str) -> [u8; 32] {
    Canonical::new("countersign/change/v1")
        .text(change)
        .text(object)
        .sha256()
}

/// The challenge that a passkey signs for one act: what kind of act, which one, and a nonce of the broker.
/// Tag `countersign/passkey/v1`; `proto/vectors/passkey.json` pins it.
pub fn challenge(act: Act, digest: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> [u8; 32] {
    Canonical::new("countersign/passkey/v1")
        .text(act.name())
        .bytes(digest)
        .bytes(nonce)
        .sha256()
}

/// A passkey's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "alg", deny_unknown_fields)]
pub enum PasskeyPublic {
    /// ECDSA over P-256 with SHA-256: the uncompressed point, hex.
    ES256 {
        /// 65 bytes, hex.
        point: String,
    },
    /// ECDSA over P-384 with SHA-384: the uncompressed point, hex.
    ES384 {
        /// 97 bytes, hex.
        point: String,
    },
    /// RSA PKCS #1 v1.5 with SHA-256: modulus and exponent, hex.
    RS256 {
        /// Modulus.
        n: String,
        /// Exponent.
        e: String,
    },
}

impl PasskeyPublic {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = |hex: &str| unhex(hex).unwrap_or_default();
        match self {
            Self::ES256 { point: p } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point(p)).verify(message, signature)
            }
            Self::ES384 { point: p } => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point(p)).verify(message, signature)
            }
            Self::RS256 { n, e } => RsaPublicKeyComponents {
                n: point(n),
                e: point(e),
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        }
        .is_ok()
    }
}

/// For whom passkeys sign: the broker's host name and origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelyingParty {
    /// The host name.
    pub id: String,
    /// Scheme, host and port, as browsers write it.
    pub origin: String,
}

/// What is kept of an assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The credential's id, base64url.
    pub credential: String,
    /// Its public key at that time.
    pub public_key: PasskeyPublic,
    /// The broker's nonce, hex.
    pub nonce: String,
    /// `clientDataJSON`, base64url.
    pub client_data: String,
    /// `authenticatorData`, base64url.
    pub authenticator_data: String,
    /// The signature, base64url.
    pub signature: String,
}

/// Why an assertion does not hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotAsserted {
    /// Not of the form.
    #[error("the assertion is malformed")]
    Malformed,
    /// Made for something else: another act, request, decision or nonce.
    #[error("the assertion is about something else")]
    OtherChallenge,
    /// Made at another site.
    #[error("the assertion was made for another site")]
    OtherSite,
    /// Nobody was asked for a finger, face or PIN.
    #[error("the authenticator did not verify its user")]
    NotVerified,
    /// The signature is not the key's.
    #[error("the passkey's signature does not hold")]
    Signature,
}

/// The members of `clientDataJSON` that decide; browsers may add others (WebAuthn §5.8.1).
#[derive(Deserialize)]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default, rename = "crossOrigin")]
    cross_origin: bool,
}

impl Assertion {
    /// Verifies it for one act at one site.
    pub fn verify(
        &self,
        act: Act,
        about: &[u8; 32],
        site: &RelyingParty,
    ) -> Result<(), NotAsserted> {
        let nonce: [u8; NONCE_BYTES] = unhex(&self.nonce)
            .and_then(|n| n.try_into().ok())
            .ok_or(NotAsserted::Malformed)?;
        let client_data = part(&self.client_data)?;
        let authenticator = part(&self.authenticator_data)?;
        let said: ClientData =
            serde_json::from_slice(&client_data).map_err(|_| NotAsserted::Malformed)?;
        if said.r#type != "webauthn.get" {
            return Err(NotAsserted::Malformed);
        }
        let wanted = challenge(act, about, &nonce);
        if URL_SAFE_NO_PAD.decode(&said.challenge).ok().as_deref() != Some(&wanted[..]) {
            return Err(NotAsserted::OtherChallenge);
        }
        if said.origin != site.origin || said.cross_origin {
            return Err(NotAsserted::OtherSite);
        }
        // §6.1: 32 bytes of the site's hash, flags, four bytes of counter.
        let (Some(site_hash), Some(flags), true) = (
            authenticator.get(..32),
            authenticator.get(32),
            authenticator.len() >= 37,
        ) else {
            return Err(NotAsserted::Malformed);
        };
        if site_hash != digest(&SHA256, site.id.as_bytes()).as_ref() {
            return Err(NotAsserted::OtherSite);
        }
        if flags & PRESENT_AND_VERIFIED != PRESENT_AND_VERIFIED {
            return Err(NotAsserted::NotVerified);
        }
        let mut signed = authenticator;
        signed.extend_from_slice(digest(&SHA256, &client_data).as_ref());
        if self.public_key.verify(&signed, &part(&self.signature)?) {
            Ok(())
        } else {
            Err(NotAsserted::Signature)
        }
    }
}

fn part(text: &str) -> Result<Vec<u8>, NotAsserted> {
    if text.len() > PART_MAX {
        return Err(NotAsserted::Malformed);
    }
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| NotAsserted::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::hex;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
    };

    fn site() -> RelyingParty {
        RelyingParty {
            id: "broker.example".into(),
            origin: "https://broker.example".into(),
        }
    }

    struct Made {
        origin: &'static str,
        id: &'static str,
        kind: &'static str,
        cross: bool,
        flags: u8,
        act: Act,
        about: [u8; 32],
    }

    impl Default for Made {
        fn default() -> Self {
            Self {
                origin: "https://broker.example",
                id: "broker.example",
                kind: "webauthn.get",
                cross: false,
                flags: 0b1_1101,
                act: Act::Approve,
                about: [7; 32],
            }
        }
    }

    fn made(how: &Made) -> Assertion {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
        let nonce = [9; 32];
        let text = URL_SAFE_NO_PAD.encode(challenge(how.act, &how.about, &nonce));
        let client_data = format!(
            r#"{{"type":"{}","challenge":"{text}","origin":"{}","crossOrigin":{},"extra":1}}"#,
            how.kind, how.origin, how.cross
        );
        let mut authenticator = digest(&SHA256, how.id.as_bytes()).as_ref().to_vec();
        authenticator.push(how.flags);
        authenticator.extend_from_slice(&[0; 4]);
        let mut signed = authenticator.clone();
        signed.extend_from_slice(digest(&SHA256, client_data.as_bytes()).as_ref());
        let signature = pair.sign(&random, &signed).unwrap();
        Assertion {
            credential: "Y3JlZA".into(),
            public_key: PasskeyPublic::ES256 {
                point: hex(pair.public_key().as_ref()),
            },
            nonce: hex(&nonce),
            client_data: URL_SAFE_NO_PAD.encode(client_data),
            authenticator_data: URL_SAFE_NO_PAD.encode(authenticator),
            signature: URL_SAFE_NO_PAD.encode(signature.as_ref()),
        }
    }

    #[test]
    fn attack_30_an_assertion_holds_for_one_act_at_one_site_alone() {
        let judged = |how: Made| made(&how).verify(Act::Approve, &[7; 32], &site());
        assert_eq!(judged(Made::default()), Ok(()));
        for (how, why) in [
            (
                Made {
                    act: Act::Deny,
                    ..Made::default()
                },
                NotAsserted::OtherChallenge,
            ),
            (
                Made {
                    about: [8; 32],
                    ..Made::default()
                },
                NotAsserted::OtherChallenge,
            ),
            (
                Made {
                    origin: "https://evil.example",
                    ..Made::default()
                },
                NotAsserted::OtherSite,
            ),
            (
                Made {
                    origin: "http://broker.example",
                    ..Made::default()
                },
                NotAsserted::OtherSite,
            ),
            (
                Made {
                    cross: true,
                    ..Made::default()
                },
                NotAsserted::OtherSite,
            ),
            (
                Made {
                    id: "evil.example",
                    ..Made::default()
                },
                NotAsserted::OtherSite,
            ),
            (
                Made {
                    kind: "webauthn.create",
                    ..Made::default()
                },
                NotAsserted::Malformed,
            ),
            // Present and not verified; verified and not present; neither.
            (
                Made {
                    flags: 0b1,
                    ..Made::default()
                },
                NotAsserted::NotVerified,
            ),
            (
                Made {
                    flags: 0b100,
                    ..Made::default()
                },
                NotAsserted::NotVerified,
            ),
            (
                Made {
                    flags: 0,
                    ..Made::default()
                },
                NotAsserted::NotVerified,
            ),
        ] {
            assert_eq!(judged(how), Err(why));
        }
        // Another nonce, another key, cut or changed parts.
        let good = made(&Made::default());
        let other = made(&Made::default());
        let bad = |change: &dyn Fn(&mut Assertion)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed.verify(Act::Approve, &[7; 32], &site()).unwrap_err()
        };
        assert_eq!(
            bad(&|a| a.nonce = hex(&[1; 32])),
            NotAsserted::OtherChallenge
        );
        assert_eq!(bad(&|a| a.nonce = hex(&[9; 31])), NotAsserted::Malformed);
        assert_eq!(
            bad(&|a| a.public_key = other.public_key.clone()),
            NotAsserted::Signature
        );
        assert_eq!(
            bad(&|a| a.signature = other.signature.clone()),
            NotAsserted::Signature
        );
        assert_eq!(
            bad(&|a| a.authenticator_data.truncate(48)),
            NotAsserted::Malformed
        );
        assert_eq!(
            bad(&|a| a.client_data = "e30".into()),
            NotAsserted::Malformed
        );
    }

    #[test]
    fn the_challenge_is_pinned() {
        let pinned: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/passkey.json")).unwrap();
        let bytes = |name: &str| unhex(pinned[name].as_str().unwrap()).unwrap();
        let made = challenge(
            serde_json::from_value(pinned["scope"].clone()).unwrap(),
            &bytes("digest").try_into().unwrap(),
            &bytes("nonce").try_into().unwrap(),
        );
        assert_eq!(hex(&made), pinned["challenge"].as_str().unwrap());
    }
}
