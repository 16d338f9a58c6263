//! An authenticator of the test's own, which also does what no honest one would.

use anyhow::Context as _;
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// User present, user verified, attested credential data (WebAuthn §6.1).
const PRESENT: u8 = 0b1;
const VERIFIED: u8 = 0b100;
const ATTESTED: u8 = 0b100_0000;

/// One credential.
pub struct Authenticator {
    pair: EcdsaKeyPair,
    /// Its id.
    pub id: Vec<u8>,
    /// Scheme, host and port that it writes into client data.
    pub origin: String,
    /// The host name that it hashes.
    pub site: String,
    /// Whether it says that it verified its user.
    pub verifies: bool,
    /// What it counts; 0 for ever when there is none.
    pub counter: u32,
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Authenticator {
    /// For a broker's address.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref())?;
        let url: url::Url = url.parse()?;
        Ok(Self {
            pair,
            id: crate::people::random::<16>()?.to_vec(),
            origin: url.origin().ascii_serialization(),
            site: url.host_str().context("a host")?.to_owned(),
            verifies: true,
            counter: 0,
        })
    }

    fn data(&self, more: u8) -> Vec<u8> {
        let mut data = digest(&SHA256, self.site.as_bytes()).as_ref().to_vec();
        data.push(PRESENT | more | if self.verifies { VERIFIED } else { 0 });
        data.extend_from_slice(&self.counter.to_be_bytes());
        data
    }

    fn client_data(&self, kind: &str, challenge: &str) -> String {
        let origin = &self.origin;
        json!({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false})
            .to_string()
    }

    /// What a browser sends after `navigator.credentials.create`.
    pub fn register(&self, options: &Value) -> anyhow::Result<Value> {
        let challenge = options["challenge"].as_str().context("a challenge")?;
        let client_data = self.client_data("webauthn.create", challenge);
        let point = self.pair.public_key().as_ref();
        let mut data = self.data(ATTESTED);
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(&u16::try_from(self.id.len())?.to_be_bytes());
        data.extend_from_slice(&self.id);
        // COSE_Key in CBOR: {1: 2, 3: -7, -1: 1, -2: x, -3: y} (RFC 9053 §7.1.1).
        data.extend_from_slice(&[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend_from_slice(point.get(1..33).context("x")?);
        data.extend_from_slice(&[0x22, 0x58, 0x20]);
        data.extend_from_slice(point.get(33..65).context("y")?);
        // {"fmt": "none", "attStmt": {}, "authData": …}
        let mut object = vec![0xa3, 0x63];
        object.extend_from_slice(b"fmt");
        object.push(0x64);
        object.extend_from_slice(b"none");
        object.push(0x67);
        object.extend_from_slice(b"attStmt");
        object.push(0xa0);
        object.push(0x68);
        object.extend_from_slice(b"authData");
        object.extend_from_slice(&[0x58, u8::try_from(data.len())?]);
        object.extend_from_slice(&data);
        Ok(json!({
            "id": text(&self.id), "rawId": text(&self.id), "type": "public-key",
            "clientExtensionResults": {},
            "response": {"clientDataJSON": text(client_data.as_bytes()), "attestationObject": text(&object)},
        }))
    }

    /// What a browser sends after `navigator.credentials.get`.
    pub fn assert(&mut self, options: &Value) -> anyhow::Result<Value> {
        if self.counter > 0 {
            self.counter += 1;
        }
        let challenge = options["challenge"].as_str().context("a challenge")?;
        let client_data = self.client_data("webauthn.get", challenge);
        let data = self.data(0);
        let mut signed = data.clone();
        signed.extend_from_slice(digest(&SHA256, client_data.as_bytes()).as_ref());
        let signature = self.pair.sign(&SystemRandom::new(), &signed)?;
        Ok(json!({
            "id": text(&self.id), "rawId": text(&self.id), "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": text(client_data.as_bytes()),
                "authenticatorData": text(&data),
                "signature": text(signature.as_ref()),
            },
        }))
    }
}
