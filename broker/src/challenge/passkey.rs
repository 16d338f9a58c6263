//! Passkeys (WebAuthn Level 3), through webauthn-rs.
//!
//! The library draws its own random challenges. Ours must say what is approved, so it goes in through the
//! library's serialised state: [`proto::passkey::challenge`] over act, digest and a fresh nonce of 256 bits,
//! which keeps it unpredictable. Every place that knows the state's shape is in this file, and a test of its
//! own pins the shape.
//!
//! The library takes the same assertion twice against the same state (synced passkeys have no counter), so
//! whoever calls [`Passkeys::verify`] deletes the nonce's row in the commit that uses the answer (attack 30).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::{
    digest::hex,
    passkey::{Assertion, NONCE_BYTES, PasskeyPublic, RelyingParty},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;
use url::Url;
use uuid::Uuid;
use webauthn_rs::prelude::{
    COSEAlgorithm, COSEKey, COSEKeyType, Passkey, PasskeyAuthentication, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, Webauthn, WebauthnBuilder, WebauthnError,
};

/// How long a browser lets its person think.
const BROWSER_WAITS: Duration = Duration::from_mins(5);
/// Longest credential id that is taken, in bytes (WebAuthn §4 allows 1023).
const CREDENTIAL_MAX: usize = 512;

/// The broker's side of passkeys, for one site.
pub struct Passkeys {
    webauthn: Webauthn,
    site: RelyingParty,
}

/// A registered passkey as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The credential's id, base64url.
    pub id: String,
    /// Its public key.
    pub public_key: PasskeyPublic,
    /// The library's record of it.
    pub record: Value,
}

impl Registered {
    /// The authenticator's counter when it was registered.
    pub fn first_counter(&self) -> u32 {
        let counter = self.record.get("cred").and_then(|c| c.get("counter"));
        let counter = counter.and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(counter).unwrap_or(u32::MAX)
    }
}

/// Why a passkey was not taken.
#[derive(Debug, Error)]
pub enum NotTaken {
    /// Not what a browser sends.
    #[error("the passkey's reply is malformed")]
    Malformed,
    /// The library refuses it.
    #[error("the passkey's reply does not hold: {0:?}")]
    Refused(WebauthnError),
    /// A kind of key that is not offered.
    #[error("the passkey has a kind of key that was not asked for")]
    Kind,
    /// The library's state has another shape than this version's: a fault of the broker.
    #[error("the passkey library's state has another shape")]
    Shape,
}

impl From<WebauthnError> for NotTaken {
    fn from(why: WebauthnError) -> Self {
        Self::Refused(why)
    }
}

/// An assertion that holds, and the counter to store with its use.
pub struct Asserted {
    /// What is kept.
    pub assertion: Assertion,
    /// The authenticator's counter; 0 where it has none.
    pub counter: u32,
}

impl Passkeys {
    /// For the broker's public URL. None where browsers have no passkeys: at an address instead of a name, or
    /// without TLS (but for `localhost`).
    pub fn at(public_url: &Url) -> Option<Self> {
        let name = public_url.domain()?;
        if public_url.scheme() != "https" && name != "localhost" {
            return None;
        }
        let webauthn = WebauthnBuilder::new(name, public_url)
            .ok()?
            .rp_name("Countersign")
            .timeout(BROWSER_WAITS)
            .build()
            .ok()?;
        Some(Self {
            webauthn,
            site: RelyingParty {
                id: name.to_owned(),
                origin: public_url.origin().ascii_serialization(),
            },
        })
    }

    /// The site that assertions are made for.
    pub const fn site(&self) -> &RelyingParty {
        &self.site
    }

    /// Options for `navigator.credentials.create`, and the state to keep until the reply.
    pub fn begin(&self, person: &str, known: &[Registered]) -> Result<(Value, Value), NotTaken> {
        let ids = known
            .iter()
            .filter_map(|k| URL_SAFE_NO_PAD.decode(&k.id).ok())
            .collect();
        let user = self.user(person);
        let (options, state) =
            self.webauthn
                .start_passkey_registration(user, person, person, Some(ids))?;
        let json = |v| serde_json::to_value(v).map_err(|_| NotTaken::Shape);
        let options = json(options)?;
        let state = serde_json::to_value(state).map_err(|_| NotTaken::Shape)?;
        Ok((
            options.get("publicKey").cloned().ok_or(NotTaken::Shape)?,
            state,
        ))
    }

    /// The new passkey in a browser's reply.
    pub fn register(&self, given: &Value, state: &Value) -> Result<Registered, NotTaken> {
        let given =
            RegisterPublicKeyCredential::deserialize(given).map_err(|_| NotTaken::Malformed)?;
        let state = PasskeyRegistration::deserialize(state).map_err(|_| NotTaken::Shape)?;
        let passkey = self.webauthn.finish_passkey_registration(&given, &state)?;
        let id: &[u8] = passkey.cred_id().as_ref();
        if id.is_empty() || id.len() > CREDENTIAL_MAX {
            return Err(NotTaken::Malformed);
        }
        Ok(Registered {
            id: URL_SAFE_NO_PAD.encode(id),
            public_key: public(passkey.get_public_key()).ok_or(NotTaken::Kind)?,
            record: serde_json::to_value(&passkey).map_err(|_| NotTaken::Shape)?,
        })
    }

    /// Options for `navigator.credentials.get` with our challenge.
    pub fn options(&self, known: &[Registered], challenge: &[u8; 32]) -> Result<Value, NotTaken> {
        let (options, _) = self
            .webauthn
            .start_passkey_authentication(&records(known)?)?;
        let options = serde_json::to_value(options).map_err(|_| NotTaken::Shape)?;
        let mut options = options.get("publicKey").cloned().ok_or(NotTaken::Shape)?;
        *options.get_mut("challenge").ok_or(NotTaken::Shape)? =
            URL_SAFE_NO_PAD.encode(challenge).into();
        Ok(options)
    }

    /// Verifies a browser's reply: by one of these passkeys, over this challenge, made for this site by a
    /// verified user, with a counter beyond the stored one. `nonce` is what the challenge was made with.
    pub fn verify(
        &self,
        given: &Value,
        known: &[(Registered, u32)],
        challenge: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Asserted, NotTaken> {
        let reply = PublicKeyCredential::deserialize(given).map_err(|_| NotTaken::Malformed)?;
        let state = self.state(known, challenge)?;
        let result = self
            .webauthn
            .finish_passkey_authentication(&reply, &state)?;
        let id: &[u8] = result.cred_id().as_ref();
        let id = URL_SAFE_NO_PAD.encode(id);
        let (used, _) = known
            .iter()
            .find(|(k, _)| k.id == id)
            .ok_or(NotTaken::Malformed)?;
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let assertion = Assertion {
            credential: id,
            public_key: used.public_key.clone(),
            nonce: hex(nonce),
            client_data: part(reply.response.client_data_json.as_ref()),
            authenticator_data: part(reply.response.authenticator_data.as_ref()),
            signature: part(reply.response.signature.as_ref()),
        };
        Ok(Asserted {
            assertion,
            counter: result.counter(),
        })
    }

    /// The same person is the same user for every authenticator; the id says nothing of the name.
    fn user(&self, person: &str) -> Uuid {
        let name = format!("{}/{person}", self.site.origin);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Uuid::from_bytes(id)
    }

    /// The library's state as if it had drawn our challenge.
    fn state(
        &self,
        known: &[(Registered, u32)],
        challenge: &[u8; 32],
    ) -> Result<PasskeyAuthentication, NotTaken> {
        let plain: Vec<Registered> = known.iter().map(|(k, _)| k.clone()).collect();
        let (_, drawn) = self
            .webauthn
            .start_passkey_authentication(&records(&plain)?)?;
        let mut state = serde_json::to_value(drawn).map_err(|_| NotTaken::Shape)?;
        let inside = state.get_mut("ast").ok_or(NotTaken::Shape)?;
        *inside.get_mut("challenge").ok_or(NotTaken::Shape)? =
            URL_SAFE_NO_PAD.encode(challenge).into();
        let credentials = inside.get_mut("credentials").and_then(Value::as_array_mut);
        for (credential, (_, counter)) in credentials.ok_or(NotTaken::Shape)?.iter_mut().zip(known)
        {
            *credential.get_mut("counter").ok_or(NotTaken::Shape)? = (*counter).into();
        }
        PasskeyAuthentication::deserialize(&state).map_err(|_| NotTaken::Shape)
    }
}

fn records(known: &[Registered]) -> Result<Vec<Passkey>, NotTaken> {
    known
        .iter()
        .map(|k| Passkey::deserialize(&k.record).map_err(|_| NotTaken::Shape))
        .collect()
}

/// The key in the form in which it is kept and verified again.
fn public(key: &COSEKey) -> Option<PasskeyPublic> {
    let point = |x: &[u8], y: &[u8]| format!("04{}{}", hex(x), hex(y));
    match (&key.type_, &key.key) {
        (COSEAlgorithm::ES256, COSEKeyType::EC_EC2(k)) if k.x.len() == 32 && k.y.len() == 32 => {
            Some(PasskeyPublic::ES256 {
                point: point(&k.x, &k.y),
            })
        }
        (COSEAlgorithm::ES384, COSEKeyType::EC_EC2(k)) if k.x.len() == 48 && k.y.len() == 48 => {
            Some(PasskeyPublic::ES384 {
                point: point(&k.x, &k.y),
            })
        }
        (COSEAlgorithm::RS256, COSEKeyType::RSA(k)) => Some(PasskeyPublic::RS256 {
            n: hex(&k.n),
            e: hex(&k.e),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn passkeys_are_offered_where_browsers_have_them() {
        for (text, offered) in [
            ("https://broker.example", true),
            ("https://broker.example:8443", true),
            ("http://localhost:8440", true),
            ("http://broker.example", false),
            ("http://127.0.0.1:8440", false),
            ("https://192.0.2.1", false),
        ] {
            assert_eq!(Passkeys::at(&url(text)).is_some(), offered, "{text}");
        }
        let site = Passkeys::at(&url("https://broker.example:8443/")).unwrap();
        assert_eq!(site.site().origin, "https://broker.example:8443");
        assert_eq!(site.site().id, "broker.example");
    }

    /// What this file assumes of the library's state. When an upgrade changes it, this fails first.
    #[test]
    fn the_librarys_state_has_the_shape_of_the_pinned_version() {
        let passkeys = Passkeys::at(&url("https://broker.example")).unwrap();
        let (options, state) = passkeys.begin("alice", &[]).unwrap();
        assert_eq!(
            options["authenticatorSelection"]["userVerification"],
            "required"
        );
        assert_eq!(options["attestation"], "none");
        assert_eq!(options["rp"]["id"], "broker.example");
        assert_eq!(state["rs"]["challenge"], options["challenge"]);
        assert!(PasskeyRegistration::deserialize(&state).is_ok());
    }
}
