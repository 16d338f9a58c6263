//! A loopback key server and real keys, for the tests of this room.

use super::{Alg, IssuerConfig, Issuers, Kind};
use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use axum::{Router, response::IntoResponse, response::Response, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::time::UnixTime;
use serde_json::{Value, json};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(super) const AUDIENCE: &str = "https://broker.example";

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One key of each kind, made once for all tests.
pub(super) struct TestKeys {
    pub(super) rsa: RsaKeyPair,
    pub(super) foreign_rsa: RsaKeyPair,
    pub(super) ec: EcdsaKeyPair,
    pub(super) ed: Ed25519KeyPair,
}

pub(super) fn keys() -> &'static TestKeys {
    static KEYS: OnceLock<TestKeys> = OnceLock::new();
    KEYS.get_or_init(|| TestKeys {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        foreign_rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        ec: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        ed: Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap(),
    })
}

pub(super) fn rsa_public_der() -> Vec<u8> {
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = keys().rsa.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

pub(super) fn rsa_jwk(kid: &str) -> Value {
    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(keys().rsa.public_key());
    json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(parts.n), "e": b64(parts.e)})
}

/// The key set of the honest issuer: `rsa`, `ec`, `ed`, and keys that must be dropped.
pub(super) fn jwks() -> Value {
    let ec = keys().ec.public_key().as_ref();
    let mut for_encryption = rsa_jwk("enc");
    for_encryption["use"] = json!("enc");
    let mut misfit = rsa_jwk("misfit");
    misfit["alg"] = json!("ES256");
    json!({"keys": [
        rsa_jwk("rsa"),
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": b64(&ec[1..33]), "y": b64(&ec[33..])},
        {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(keys().ed.public_key())},
        {"kty": "oct", "kid": "oct", "k": b64([7; 32])},
        for_encryption,
        misfit,
    ]})
}

fn signed(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", b64(header), b64(payload));
    let signature = sign(text.as_bytes());
    format!("{text}.{}", b64(signature))
}

pub(super) fn sign_rsa(pair: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; pair.public_modulus_len()];
    pair.sign(
        &signature::RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut out,
    )
    .unwrap();
    out
}

/// Signed by the honest RSA key, whatever header and payload say.
pub(super) fn rs256_raw(header: &str, payload: &str) -> String {
    signed(header, payload, |m| sign_rsa(&keys().rsa, m))
}

pub(super) fn rs256(claims: &Value) -> String {
    rs256_raw(
        r#"{"alg":"RS256","typ":"JWT","kid":"rsa","x5t":"abc"}"#,
        &claims.to_string(),
    )
}

pub(super) fn foreign(claims: &Value) -> String {
    signed(r#"{"alg":"RS256","kid":"rsa"}"#, &claims.to_string(), |m| {
        sign_rsa(&keys().foreign_rsa, m)
    })
}

pub(super) fn es256(claims: &Value) -> String {
    signed(r#"{"alg":"ES256","kid":"ec"}"#, &claims.to_string(), |m| {
        keys()
            .ec
            .sign(&SystemRandom::new(), m)
            .unwrap()
            .as_ref()
            .to_vec()
    })
}

pub(super) fn eddsa(claims: &Value) -> String {
    signed(r#"{"alg":"EdDSA","kid":"ed"}"#, &claims.to_string(), |m| {
        keys().ed.sign(m).as_ref().to_vec()
    })
}

pub(super) fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    use aws_lc_rs::hmac;
    signed(
        &format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#),
        &claims.to_string(),
        |m| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), m)
                .as_ref()
                .to_vec()
        },
    )
}

/// A loopback server that counts its requests.
pub(super) struct Server {
    pub(super) base: String,
    hits: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Serves `answer(path, nth request)` for every path.
    pub(super) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(String, usize) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        let app = Router::new().fallback(get(move |uri: http::Uri| {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            answer(uri.path().to_owned(), nth)
        }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base, hits }
    }

    /// An honest issuer with discovery at its root and keys at `/keys`.
    pub(super) async fn honest() -> Self {
        Self::start(|_, _| async { axum::Json(jwks()).into_response() }).await
    }

    pub(super) fn config(&self, kind: Kind) -> IssuerConfig {
        let mapped = [("project".to_owned(), "project_id".to_owned())];
        IssuerConfig {
            name: "github".into(),
            kind,
            issuer: "https://issuer.example".into(),
            jwks_url: Some(format!("{}/keys", self.base).parse().unwrap()),
            algorithms: vec![Alg::Rs256],
            subject: "sub".into(),
            claims: mapped.into_iter().filter(|_| kind == Kind::Oidc).collect(),
            actor: None,
            events_named: vec![],
            server: None,
            life_minutes: None,
        }
    }

    pub(super) fn issuers(&self, kind: Kind) -> Issuers {
        Issuers::new(vec![self.config(kind)], AUDIENCE.into()).unwrap()
    }
}

/// What GitHub puts into a token, shortened to what is read and a little more.
pub(super) fn github_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "jti": "one", "sub": "repo:acme/left:x",
        "iat": NOW.0, "exp": NOW.0 + 300, "nbf": NOW.0 - 600,
        "repository": "acme/left", "repository_id": "123", "repository_owner_id": "45",
        "workflow_ref": "acme/left/.github/workflows/release.yml@refs/tags/v1",
        "job_workflow_ref": "acme/left/.github/workflows/release.yml@refs/tags/v1",
        "job_workflow_sha": "9876543210987654321098765432109876543210",
        "ref": "refs/tags/v1", "sha": "0123456789012345678901234567890123456789",
        "event_name": "push", "environment": "release", "runner_environment": "github-hosted",
        "actor": "alice", "actor_id": "77", "run_id": "9001", "run_attempt": "2",
        "run_number": "12", "head_ref": "", "repository_visibility": "public",
    })
}
