//! What stands in for registry and issuer, in this process: a registry that takes every publish and
//! shows the newest version of each package, and a key set.

use anyhow::anyhow;
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// Bytes at the front of a publish document that hold version and digest; the archive comes after.
const HEAD: usize = 16 << 10;

type Shown = Arc<Mutex<HashMap<String, Bytes>>>;

/// Serves a router on a port of its own; returns the URL.
async fn serve(router: Router) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

/// A null registry: takes any `PUT`, forgets the bytes, and shows the integrity that it was told.
pub(crate) async fn registry() -> anyhow::Result<String> {
    let shown = Shown::default();
    serve(Router::new().fallback(move |request: Request| answer(Arc::clone(&shown), request))).await
}

async fn answer(shown: Shown, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET {
        let map = shown.lock().unwrap_or_else(PoisonError::into_inner);
        return match map.get(&path) {
            Some(document) => (
                [(header::CONTENT_TYPE, "application/json")],
                document.clone(),
            )
                .into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    let mut head = Vec::new();
    let mut frames = request.into_body().into_data_stream();
    while let Some(frame) = frames.next().await {
        let Ok(frame) = frame else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let room = HEAD.saturating_sub(head.len()).min(frame.len());
        head.extend_from_slice(frame.get(..room).unwrap_or_default());
    }
    let head = String::from_utf8_lossy(&head);
    let between = |from: &str| {
        let (_, rest) = head.split_once(from)?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let (Some(version), Some(integrity)) = (
        between(r#""dist-tags":{"latest":""#),
        between(r#""integrity":""#),
    ) else {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    };
    let document = json!({
        "dist-tags": {"latest": version},
        "versions": {version: {"dist": {"integrity": integrity}}},
    });
    let mut map = shown.lock().unwrap_or_else(PoisonError::into_inner);
    map.insert(path, Bytes::from(document.to_string()));
    drop(map);
    (StatusCode::CREATED, Json(json!({"ok": true}))).into_response()
}

/// An issuer of id tokens with one RS256 key.
pub(crate) struct Issuer {
    /// Its `iss`.
    pub(crate) url: String,
    key: RsaKeyPair,
}

impl Issuer {
    /// Makes a key and serves it.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?;
        let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
        let set = json!({"keys": [{
            "kty": "RSA", "kid": "bench", "use": "sig", "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(parts.n), "e": URL_SAFE_NO_PAD.encode(parts.e),
        }]});
        let keys = get(move || {
            let set = set.clone();
            async move { Json(set) }
        });
        let url = serve(Router::new().route("/jwks", keys)).await?;
        Ok(Self { url, key })
    }

    /// An RS256 token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let head = json!({"alg": "RS256", "typ": "JWT", "kid": "bench"});
        let signed = format!("{}.{}", part(&head), part(claims));
        let signature = self.signature(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                bytes,
                &mut signature,
            )
            .map_err(|_| anyhow!("signing failed"))?;
        Ok(signature)
    }

    /// RS256 verifications per second of one core, here and now.
    pub(crate) fn verify_rate(&self, time: Duration) -> anyhow::Result<f64> {
        let message = [7; 1200];
        let signature = self.signature(&message)?;
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key());
        let start = Instant::now();
        let mut done = 0u32;
        while start.elapsed() < time {
            key.verify(&message, &signature)
                .map_err(|_| anyhow!("the signature does not hold"))?;
            done += 1;
        }
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    }
}
