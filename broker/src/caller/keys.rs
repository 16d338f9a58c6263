//! The issuers' public keys: fetched from configured addresses, kept, refreshed at most once a minute.
//!
//! What if the key server is hostile or broken? It may be slow, huge, HTML, or answer with a redirect:
//! each is a failed fetch, and the last good keys stay. What if strangers send unknown key ids? They
//! cause one fetch a minute together, and wait for it together.

use super::{
    issuer::{Alg, BadIssuer, IssuerConfig, is_loopback, may_fetch},
    refused::CallerRefused,
};
use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use proto::time::UnixTime;
use serde::{Deserialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;
use url::Url;

/// Longest key set or discovery document, in bytes.
const BODY_MAX: usize = 100 * 1024;
/// Most keys that an issuer may have.
const KEYS_MAX: usize = 64;
/// Time for one whole refresh, discovery included.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// Seconds between two refreshes, successful or not.
const REFRESH_PAUSE: u64 = 60;
/// Seconds after which keys are refreshed though nobody missed one, so that a key which the issuer
/// has withdrawn does not live on here.
const FRESH: u64 = 60 * 60;

/// A public key, pinned to the one algorithm that it is for.
pub(super) struct PinnedKey {
    kid: String,
    pub(super) alg: Alg,
    pub(super) key: DecodingKey,
}

/// One issuer's keys.
pub(super) struct Keys {
    source: Source,
    issuer: String,
    client: reqwest::Client,
    known: ArcSwap<Known>,
    /// Held during a fetch, so that there is one at a time.
    fetches: Mutex<Fetches>,
}

enum Source {
    Jwks(Url),
    Discovery(Url),
}

#[derive(Default)]
struct Known {
    keys: Vec<Arc<PinnedKey>>,
    fetched: Option<UnixTime>,
}

impl Known {
    fn find(&self, kid: &str) -> Option<Arc<PinnedKey>> {
        self.keys.iter().find(|k| k.kid == kid).cloned()
    }
}

#[derive(Default)]
struct Fetches {
    last: Option<UnixTime>,
    last_failed: bool,
}

impl Fetches {
    /// A clock that was set back does not stop refreshes.
    fn due(&self, now: UnixTime) -> bool {
        self.last
            .is_none_or(|last| now < last || now.since(last) >= REFRESH_PAUSE)
    }
}

impl Keys {
    pub(super) fn new(config: &IssuerConfig) -> Result<Arc<Self>, BadIssuer> {
        let source = match &config.jwks_url {
            Some(url) => Source::Jwks(url.clone()),
            None => Source::Discovery(discovery_url(config)?),
        };
        let (Source::Jwks(first) | Source::Discovery(first)) = &source;
        let client = reqwest::Client::builder()
            // A redirect would let somebody else's server name the keys (CVE-2026-49478).
            .redirect(reqwest::redirect::Policy::none())
            // Proxy variables in the environment must not choose who answers.
            .no_proxy()
            .https_only(!is_loopback(first))
            .timeout(FETCH_TIME)
            .build()
            .map_err(|_| BadIssuer::Client)?;
        Ok(Arc::new(Self {
            source,
            issuer: config.issuer.clone(),
            client,
            known: ArcSwap::default(),
            fetches: Mutex::default(),
        }))
    }

    /// The key of this id. Asks the issuer only when the id is unknown.
    pub(super) async fn find(
        self: &Arc<Self>,
        kid: &str,
        now: UnixTime,
    ) -> Result<Arc<PinnedKey>, CallerRefused> {
        let known = self.known.load();
        if let Some(key) = known.find(kid) {
            if known.fetched.is_none_or(|t| now.since(t) >= FRESH) {
                // Beside the request, which goes on with the key that it has.
                drop(tokio::spawn(Arc::clone(self).refresh(None, now)));
            }
            return Ok(key);
        }
        drop(known);
        // In a task of its own: a caller who hangs up must not cut off the one fetch of this minute,
        // or he could keep the broker from ever learning a new key.
        tokio::spawn(Arc::clone(self).refresh(Some(kid.to_owned()), now))
            .await
            .unwrap_or(Err(CallerRefused::KeysUnavailable))?
            .ok_or(CallerRefused::UnknownKey)
    }

    /// Fetches if a fetch is due and nobody has brought `wanted` meanwhile.
    async fn refresh(
        self: Arc<Self>,
        wanted: Option<String>,
        now: UnixTime,
    ) -> Result<Option<Arc<PinnedKey>>, CallerRefused> {
        let mut fetches = self.fetches.lock().await;
        let find = |known: &Known| wanted.as_deref().and_then(|kid| known.find(kid));
        if let Some(key) = find(&self.known.load()) {
            return Ok(Some(key));
        }
        if fetches.due(now) {
            fetches.last = Some(now);
            match tokio::time::timeout(FETCH_TIME, self.fetch()).await {
                Ok(Ok(keys)) => {
                    fetches.last_failed = false;
                    self.known.store(Arc::new(Known {
                        keys,
                        fetched: Some(now),
                    }));
                }
                failed => {
                    // The last good keys stay: an outage of the issuer must not stop releases.
                    fetches.last_failed = true;
                    let why = failed.map_or("took too long", |r| r.err().unwrap_or("failed"));
                    tracing::warn!(issuer = %self.issuer, why, "the issuer's keys were not refreshed");
                }
            }
        }
        match find(&self.known.load()) {
            None if fetches.last_failed => Err(CallerRefused::KeysUnavailable),
            found => Ok(found),
        }
    }

    async fn fetch(&self) -> Result<Vec<Arc<PinnedKey>>, &'static str> {
        let set: KeySet = match &self.source {
            Source::Jwks(url) => self.get(url.clone()).await?,
            Source::Discovery(url) => {
                let found: Discovered = self.get(url.clone()).await?;
                // OpenID Connect Discovery §4.3: a document about another issuer is not ours.
                if found.issuer != self.issuer {
                    return Err("the discovery document names another issuer");
                }
                let keys = Url::parse(&found.jwks_uri)
                    .ok()
                    .filter(may_fetch)
                    // Plain http only where the configured issuer itself is on this machine.
                    .filter(|u| u.scheme() == "https" || is_loopback(url))
                    .ok_or("the discovery document's jwks_uri is not an https URL")?;
                self.get(keys).await?
            }
        };
        set.pinned()
    }

    /// One JSON document, of limited size.
    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, &'static str> {
        let request = self.client.get(url).header("accept", "application/json");
        let mut response = request.send().await.map_err(|_| "no answer")?;
        if response.status() != reqwest::StatusCode::OK {
            return Err("an answer other than 200");
        }
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok());
        let kind = kind
            .and_then(|v| v.split(';').next())
            .unwrap_or_default()
            .trim();
        if kind != "application/json" && !kind.ends_with("+json") {
            return Err("an answer that is not JSON");
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| "an answer cut short")? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err("an answer above 100 KiB");
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| "an answer of another shape")
    }
}

fn discovery_url(config: &IssuerConfig) -> Result<Url, BadIssuer> {
    let text = format!(
        "{}/.well-known/openid-configuration",
        config.issuer.trim_end_matches('/')
    );
    Url::parse(&text).map_err(|_| BadIssuer::Config {
        name: config.name.clone(),
        why: "`issuer` must be an https URL",
    })
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// RFC 7517 §5. Each key is read by itself: one of a kind that we do not know harms no other.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// RFC 7517 §4, the members that decide.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    fn pinned(self) -> Result<Vec<Arc<PinnedKey>>, &'static str> {
        if self.keys.len() > KEYS_MAX {
            return Err("more than 64 keys");
        }
        let mut out: Vec<Arc<PinnedKey>> = Vec::new();
        for value in self.keys {
            let Some(key) = serde_json::from_value::<Jwk>(value)
                .ok()
                .and_then(Jwk::pinned)
            else {
                continue;
            };
            if out.iter().any(|k| k.kid == key.kid) {
                return Err("one key id for two keys");
            }
            out.push(Arc::new(key));
        }
        if out.is_empty() {
            // An empty set would throw away the last good keys.
            return Err("no usable key");
        }
        Ok(out)
    }
}

impl Jwk {
    /// The key, if it is a signature key of a kind that we take. Shared secrets (`oct`) are dropped:
    /// kept as a public key's neighbour, one would make HS256 possible (attack 1).
    fn pinned(self) -> Option<PinnedKey> {
        let for_signing = self.usage.as_deref().is_none_or(|u| u == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|o| o == "verify"));
        if !for_signing || self.kid.is_empty() {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let (alg, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes(&self.n)?, bytes(&self.e)?);
                // Below 2048 bits a modulus can be factored by those who want to.
                if n.len() < 256 {
                    return None;
                }
                (Alg::Rs256, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some("P-256")) if bytes(&self.x)?.len() == 32 && bytes(&self.y)?.len() == 32 => {
                let key = DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?);
                (Alg::Es256, key.ok()?)
            }
            ("OKP", Some("Ed25519")) if bytes(&self.x)?.len() == 32 => (
                Alg::EdDsa,
                DecodingKey::from_ed_components(self.x.as_deref()?).ok()?,
            ),
            _ => return None,
        };
        // An `alg` beside the key must be the one that its type is for (`Ed25519`: RFC 9864).
        let fits = match self.alg.as_deref() {
            None => true,
            Some("Ed25519") => alg == Alg::EdDsa,
            Some(name) => Alg::named(name) == Some(alg),
        };
        fits.then_some(PinnedKey {
            kid: self.kid,
            alg,
            key,
        })
    }
}
