//! Web Push: the message is encrypted to the browser (RFC 8291 over RFC 8188), so that the push service in
//! between sees a size and a time; the broker shows who it is by a key of its own (VAPID, RFC 8292).

use super::{Channel, Pen, Row, Unusable, egress::Post};
use crate::secret::Secret;
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey},
    digest,
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::URL_SAFE_NO_PAD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proto::{notify::ChannelKind, time::UnixTime};
use serde::Serialize;
use thiserror::Error;
use url::Url;

/// The table's row.
pub(super) const ROW: Row = Row {
    kind: ChannelKind::WebPush,
    judge,
    post,
};

/// The one record is at most so long (RFC 8188 `rs`).
const RECORD: u32 = 4096;
/// Every message is padded to so many bytes: its size says nothing.
const PADDED: usize = 256;
/// How long a VAPID token is good, in seconds; RFC 8292 allows a day.
const TOKEN_SECONDS: u64 = 12 * 3600;
/// Longest time that a push service keeps a message, in seconds.
const TTL_MAX: u64 = 24 * 3600;
const POINT_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;

/// Browsers write base64url with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key could not be made or read.
#[derive(Debug, Error)]
#[error("the broker's key for push services could not be made or read")]
pub struct NotMade;

/// The broker's identity at push services: an ECDSA key on P-256.
pub struct Vapid {
    pkcs8: Secret<Vec<u8>>,
    public: String,
}

impl Vapid {
    /// A new key, to be stored.
    pub fn make() -> Result<Secret<Vec<u8>>, NotMade> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        document
            .map(|d| Secret::new(d.as_ref().to_vec()))
            .map_err(|_| NotMade)
    }

    /// A stored key.
    pub fn read(pkcs8: Secret<Vec<u8>>) -> Result<Self, NotMade> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose());
        let pair = pair.map_err(|_| NotMade)?;
        let public = URL_SAFE_NO_PAD.encode(pair.public_key());
        Ok(Self { pkcs8, public })
    }

    /// What a browser subscribes with, base64url.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// RFC 8292: the token is for one push service's origin.
    fn authorization(&self, url: &Url, contact: &str, now: UnixTime) -> Option<HeaderValue> {
        #[derive(Serialize)]
        struct Claims<'a> {
            aud: String,
            exp: u64,
            sub: &'a str,
        }
        let claims = Claims {
            aud: url.origin().ascii_serialization(),
            exp: now.after(TOKEN_SECONDS).0,
            sub: contact,
        };
        let key = EncodingKey::from_ec_der(self.pkcs8.expose());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).ok()?;
        let value = format!("vapid t={token}, k={}", self.public);
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// What a browser's subscription holds.
struct Keys {
    public: Vec<u8>,
    auth: Vec<u8>,
}

fn keys(channel: &Channel) -> Result<Keys, Unusable> {
    let read = |text: &Option<String>| text.as_deref().and_then(|t| LENIENT.decode(t).ok());
    let bad = || Unusable::new("a subscription has p256dh (65 bytes) and auth (16 bytes)");
    let public = read(&channel.key).ok_or_else(bad)?;
    let auth = read(&channel.secret).ok_or_else(bad)?;
    if public.len() != POINT_BYTES || auth.len() != AUTH_BYTES {
        return Err(bad());
    }
    Ok(Keys { public, auth })
}

/// Encrypts once, to nobody: a point that is not on the curve is refused now, and not when it matters.
fn judge(channel: &Channel) -> Result<(), Unusable> {
    let keys = keys(channel)?;
    let own = PrivateKey::generate(&ECDH_P256).ok();
    own.and_then(|own| encrypt(&own, &keys, [0; SALT_BYTES], b"", 0))
        .map(drop)
        .ok_or_else(|| Unusable::new("p256dh is no key on P-256"))
}

fn post(channel: &Channel, pen: &Pen<'_>) -> Result<Post, Unusable> {
    let failed = || Unusable::new("the message could not be encrypted");
    let url = channel.address()?;
    let plain = serde_json::to_vec(&pen.note.payload()).map_err(|_| failed())?;
    let padding = PADDED.saturating_sub(plain.len());
    let own = PrivateKey::generate(&ECDH_P256).map_err(|_| failed())?;
    let salt = pen.world.random().map_err(|_| failed())?;
    let body = encrypt(&own, &keys(channel)?, salt, &plain, padding).ok_or_else(failed)?;
    let vapid = pen.vapid.authorization(&url, pen.contact, pen.now);
    let ttl = pen.note.until.since(pen.now).clamp(60, TTL_MAX);
    let urgency = if pen.note.about.is_urgent() {
        "high"
    } else {
        "normal"
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, vapid.ok_or_else(failed)?);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(
        header::CONTENT_ENCODING,
        HeaderValue::from_static("aes128gcm"),
    );
    headers.insert("ttl", HeaderValue::from(ttl));
    headers.insert("urgency", HeaderValue::from_static(urgency));
    headers.insert("topic", topic(pen).ok_or_else(failed)?);
    Ok(Post { url, headers, body })
}

/// A message that the push service still keeps is replaced by a newer one about the same (RFC 8030 §5.4). A hash,
/// so that the service does not learn the request's id.
fn topic(pen: &Pen<'_>) -> Option<HeaderValue> {
    let mut about = pen.note.about.name().as_bytes().to_vec();
    about.extend(pen.note.request.iter().flat_map(|id| *id.0.as_bytes()));
    let hash = digest::digest(&digest::SHA256, &about);
    let text = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..24)?);
    HeaderValue::from_str(&text).ok()
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Option<[u8; N]> {
    let mut out = [0; N];
    prk.expand(info, Bytes(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// RFC 8291 §3.4, and one record of RFC 8188 §2.
fn encrypt(
    own: &PrivateKey,
    keys: &Keys,
    salt: [u8; SALT_BYTES],
    plain: &[u8],
    padding: usize,
) -> Option<Vec<u8>> {
    let own_public = own.compute_public_key().ok()?;
    let own_public = own_public.as_ref();
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &keys.public);
    let ikm: [u8; 32] = agreement::agree(own, theirs, (), |shared| {
        let prk = Salt::new(HKDF_SHA256, &keys.auth).extract(shared);
        expand(&prk, &[b"WebPush: info\0", &keys.public, own_public]).ok_or(())
    })
    .ok()?;
    let prk = Salt::new(HKDF_SHA256, &salt).extract(&ikm);
    let key: [u8; 16] = expand(&prk, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce: [u8; 12] = expand(&prk, &[b"Content-Encoding: nonce\0"])?;
    let mut body = plain.to_vec();
    // The last record ends in 2, then as many zeros as one likes.
    body.push(2);
    body.resize(body.len().checked_add(padding)?, 0);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut body)
        .ok()?;
    let mut out = salt.to_vec();
    out.extend_from_slice(&RECORD.to_be_bytes());
    out.push(u8::try_from(own_public.len()).ok()?);
    out.extend_from_slice(own_public);
    out.extend_from_slice(&body);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        LENIENT.decode(text).unwrap()
    }

    #[test]
    fn the_example_of_rfc_8291_appendix_a() {
        let own = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let own = PrivateKey::from_private_key(&ECDH_P256, &own).unwrap();
        let keys = Keys {
            public: bytes(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            ),
            auth: bytes("BTBZMqHH6r4Tts7J_aSIgg"),
        };
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let plain = b"When I grow up, I want to be a watermelon";
        let body = encrypt(&own, &keys, salt, plain, 0).unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml\
             mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
             pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn a_key_is_used_again_and_its_token_is_for_one_origin() {
        let stored = Vapid::make().unwrap();
        let again = Secret::new(stored.expose().clone());
        let (one, two) = (Vapid::read(stored).unwrap(), Vapid::read(again).unwrap());
        assert_eq!(one.public(), two.public());
        let url = Url::parse("https://push.example:8443/a/secret").unwrap();
        let value = one.authorization(&url, "mailto:a@b.example", UnixTime(1000));
        let value = value.unwrap();
        let token = value.to_str().unwrap().strip_prefix("vapid t=").unwrap();
        let (token, key) = token.split_once(", k=").unwrap();
        assert_eq!(key, one.public());
        let claims = token.split('.').nth(1).unwrap();
        assert_eq!(
            String::from_utf8(bytes(claims)).unwrap(),
            r#"{"aud":"https://push.example:8443","exp":44200,"sub":"mailto:a@b.example"}"#
        );
        let key = jsonwebtoken::DecodingKey::from_ec_der(&bytes(one.public()));
        let mut rules = jsonwebtoken::Validation::new(Algorithm::ES256);
        rules.set_audience(&["https://push.example:8443"]);
        rules.validate_exp = false;
        jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules).unwrap();
    }

    #[test]
    fn a_subscription_without_a_point_on_the_curve_is_refused() {
        let channel = |key: &[u8], auth: &[u8]| Channel {
            kind: ChannelKind::WebPush,
            name: "x".into(),
            added: UnixTime(1),
            url: "https://push.example/a".into(),
            secret: Some(URL_SAFE_NO_PAD.encode(auth)),
            key: Some(URL_SAFE_NO_PAD.encode(key)),
        };
        let good = PrivateKey::generate(&ECDH_P256).unwrap();
        let good = good.compute_public_key().unwrap().as_ref().to_vec();
        let mut off = good.clone();
        off[64] ^= 1;
        assert_eq!(judge(&channel(&good, &[1; 16])), Ok(()));
        assert!(judge(&channel(&off, &[1; 16])).is_err());
        assert!(judge(&channel(&good[..64], &[1; 16])).is_err());
        assert!(judge(&channel(&good, &[1; 15])).is_err());
        assert!(judge(&channel(&[], &[])).is_err());
    }
}
