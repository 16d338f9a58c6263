//! An issuer as the configuration describes it.

use super::kinds::{RISKY_EVENTS, row};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use thiserror::Error;
use url::{Host, Url};

/// Longest life that a configuration may allow tokens, in minutes: a day.
const LIFE_MINUTES_MAX: u64 = 24 * 60;

/// `[[issuer]]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What policy calls it: 1 to 39 lower-case letters, digits and hyphens.
    pub name: String,
    /// Whose claims its tokens carry.
    pub kind: Kind,
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// Where its keys are; without it, `<issuer>/.well-known/openid-configuration` says.
    #[serde(default, deserialize_with = "url")]
    pub jwks_url: Option<Url>,
    /// Signature algorithms that its tokens may have.
    #[serde(default = "rs256")]
    pub algorithms: Vec<Alg>,
    /// For `oidc`: the claim that holds the immutable id of who asks.
    #[serde(default = "sub")]
    pub subject: String,
    /// For `oidc`: further claims, as `name in the policy = "name in the token"`.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// For `oidc`: the claim that holds the immutable id of the person who started the job.
    #[serde(default)]
    pub actor: Option<String>,
    /// Events of [`super::RISKY_EVENTS`] that are taken all the same.
    #[serde(default)]
    pub events_named: Vec<String>,
    /// Where links to runs lead; without it, where the kind's own do.
    #[serde(default)]
    pub server: Option<String>,
    /// How long its tokens may live, in minutes: 1 to 1440. Without it, as long as the kind's do: 60
    /// for `gitlab`, `circleci` and `kubernetes`, 15 for the others.
    #[serde(default)]
    pub life_minutes: Option<u64>,
}

/// Whose claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// CircleCI.
    Circleci,
    /// Buildkite.
    Buildkite,
    /// Service accounts of a Kubernetes cluster.
    Kubernetes,
    /// Any other; the configuration maps its claims.
    Oidc,
}

/// A signature algorithm (RFC 7518 §3.1, RFC 8037). Closed: no `none`, no shared-secret one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Alg {
    /// By the exact name that a token's header uses.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// Why a configured issuer cannot be used.
#[derive(Debug, Error)]
pub enum BadIssuer {
    /// The entry itself is wrong.
    #[error("issuer '{name}': {why}")]
    Config {
        /// The entry's name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No HTTPS client could be made.
    #[error("no HTTPS client could be made; are the system's CA certificates installed?")]
    Client,
}

fn rs256() -> Vec<Alg> {
    vec![Alg::Rs256]
}

fn sub() -> String {
    "sub".to_owned()
}

fn url<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(d)?;
    Url::parse(&text).map(Some).map_err(de::Error::custom)
}

impl IssuerConfig {
    /// Refuses what could never work, or would work too well.
    pub fn check(&self) -> Result<(), BadIssuer> {
        let bad = |why| {
            Err(BadIssuer::Config {
                name: self.name.clone(),
                why,
            })
        };
        let slug = |s: &str| {
            (1..=39).contains(&s.len())
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !slug(&self.name) {
            return bad("a name is 1 to 39 lower-case letters, digits and hyphens");
        }
        // Client keys are a kind of their own; an issuer of that name could speak for them.
        if self.name == super::client_key::ISSUER {
            return bad("the name `client-key` is taken");
        }
        if !Url::parse(&self.issuer).is_ok_and(|u| may_fetch(&u)) {
            return bad("`issuer` must be an https URL");
        }
        if self.jwks_url.as_ref().is_some_and(|u| !may_fetch(u)) {
            return bad("`jwks_url` must be an https URL (http on loopback only)");
        }
        if self.algorithms.is_empty() {
            return bad("`algorithms` must not be empty");
        }
        if self.subject.is_empty()
            || self
                .claims
                .iter()
                .any(|(k, v)| k.is_empty() || v.is_empty())
        {
            return bad("a claim's name must not be empty");
        }
        let server = self.server.as_ref();
        if server.is_some_and(|s| !Url::parse(s).is_ok_and(|u| may_fetch(&u))) {
            return bad("`server` must be an https URL");
        }
        if self
            .life_minutes
            .is_some_and(|m| !(1..=LIFE_MINUTES_MAX).contains(&m))
        {
            return bad("`life_minutes` must be 1 to 1440");
        }
        let unknown = |event: &String| !RISKY_EVENTS.contains(&event.as_str());
        if self.events_named.iter().any(unknown) {
            return bad("`events_named` names an event that is not refused anyway");
        }
        // A key that the kind does not read would be believed to narrow something.
        let mapped = !self.claims.is_empty() || self.actor.is_some() || self.subject != sub();
        if self.kind != Kind::Oidc && mapped {
            return bad("`subject`, `claims` and `actor` are for the kind `oidc`");
        }
        Ok(())
    }

    /// Longest life of its tokens, in seconds.
    pub(super) fn life(&self) -> u64 {
        self.life_minutes.map_or(row(self.kind).life, |m| m * 60)
    }

    /// Where links to runs lead, without a slash at the end.
    pub(super) fn server(&self) -> &str {
        let of_kind = || row(self.kind).server.unwrap_or(&self.issuer);
        self.server
            .as_deref()
            .unwrap_or_else(of_kind)
            .trim_end_matches('/')
    }
}

/// Whether a configured address may be asked for keys: https, or http on the same machine. Whoever
/// sits on the path to a plain-http key server could hand out keys of his own.
pub(super) fn may_fetch(url: &Url) -> bool {
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain
        && match url.scheme() {
            "https" => url.host().is_some(),
            "http" => is_loopback(url),
            _ => false,
        }
}

/// Whether the address names this machine by number, or as `localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(a)) => a.is_loopback(),
        Some(Host::Ipv6(a)) => a.is_loopback(),
        Some(Host::Domain(d)) => d == "localhost",
        None => false,
    }
}
