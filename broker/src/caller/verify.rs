//! The one place where a token becomes a [`Caller`].
//!
//! A leaf: no other file can see a `Caller`'s fields, so none can make one. Cheap checks come before
//! the signature, so that a flood costs little; nothing is believed before it.
//!
//! ```compile_fail
//! fn forge(facts: proto::request::CallerFacts) -> broker::caller::Caller {
//!     broker::caller::Caller { facts, actor: None, burn: todo!(), limits: None }
//! }
//! ```
//! ```compile_fail
//! fn twice(caller: &broker::caller::Caller) -> broker::caller::Caller { caller.clone() }
//! ```

use super::{
    client_key::{self, ClientKeys, NoClientKeys},
    issuer::{Alg, BadIssuer, IssuerConfig},
    keys::{Keys, PinnedKey},
    kinds::{Once, RISKY_EVENTS, row},
    refused::CallerRefused,
    token::{UnverifiedAudience, UnverifiedClaims, UnverifiedToken},
};
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use proto::{canonical::Canonical, request::CallerFacts, time::UnixTime};
use std::{collections::HashSet, sync::Arc};

/// Longest life of a client key's token, in seconds. Of an issuer's, its kind and entry say.
const LIFE_MAX: u64 = 15 * 60;
/// How far the issuer's clock and ours may differ, in seconds.
pub const LEEWAY: u64 = 30;

/// Who asks, verified just now. Private fields, no `Clone`, no `Deserialize`: whoever holds one has
/// called [`Issuers::verify`].
#[derive(Debug)]
pub struct Caller {
    facts: CallerFacts,
    actor: Option<String>,
    burn: Burn,
    limits: Option<Vec<String>>,
}

/// What makes a token single-use: the verb that accepts the caller creates this row in its own
/// commit, and a row that exists already is a replay (attack 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burn {
    /// SHA-256 over issuer and `jti`, or over issuer and signed text where there is no `jti`.
    pub key: [u8; 32],
    /// The row may go at this time: the token is expired, leeway included.
    pub keep_until: UnixTime,
}

impl Caller {
    /// What was verified; goes into the request.
    pub const fn facts(&self) -> &CallerFacts {
        &self.facts
    }

    /// The person who started the job, by an id that never changes hands, like `github:12345`.
    pub fn actor(&self) -> Option<&str> {
        self.actor.as_deref()
    }

    /// To be created in the commit that acts for this caller.
    pub const fn burn(&self) -> Burn {
        self.burn
    }

    /// The packages that a client key may ask for, like `npm:@acme/left`; `None`: only policy limits.
    pub fn limits(&self) -> Option<&[String]> {
        self.limits.as_deref()
    }
}

/// The issuers in the configuration, with their keys, and the audience that tokens must have.
#[derive(Clone)]
pub struct Issuers {
    configured: Arc<[Issuer]>,
    client_keys: Arc<dyn ClientKeys>,
    audience: String,
}

struct Issuer {
    config: IssuerConfig,
    keys: Arc<Keys>,
}

impl Issuers {
    /// Fetches nothing yet. `audience` is the broker's public URL, exactly as tokens must name it.
    pub fn new(configs: Vec<IssuerConfig>, audience: String) -> Result<Self, BadIssuer> {
        let (mut names, mut urls) = (HashSet::new(), HashSet::new());
        let mut issuers = Vec::with_capacity(configs.len());
        for config in configs {
            config.check()?;
            // Two entries for one issuer, or one name for two, and it would depend on their order
            // which claims count.
            if !names.insert(config.name.clone()) || !urls.insert(config.issuer.clone()) {
                return Err(BadIssuer::Config {
                    name: config.name,
                    why: "another entry has the same name or the same `issuer`",
                });
            }
            issuers.push(Issuer {
                keys: Keys::new(&config)?,
                config,
            });
        }
        Ok(Self {
            configured: issuers.into(),
            client_keys: Arc::new(NoClientKeys),
            audience,
        })
    }

    /// The same issuers, and client keys too.
    #[must_use]
    pub fn with_client_keys(mut self, keys: Arc<dyn ClientKeys>) -> Self {
        self.client_keys = keys;
        self
    }

    /// The same issuers and cached keys for another audience, such as `npm:<host>` at the exchange
    /// endpoint of a registry's own host.
    #[must_use]
    pub fn for_audience(&self, audience: String) -> Self {
        Self {
            audience,
            ..self.clone()
        }
    }

    /// Verifies a token; the only constructor of [`Caller`].
    pub async fn verify(&self, token: &str, now: UnixTime) -> Result<Caller, CallerRefused> {
        let token = UnverifiedToken::parse(token)?;
        if token.claims.iss == client_key::ISSUER {
            return self.by_client_key(&token, now);
        }
        // Exact strings, no pattern: the issuer decides which keys count (CVE-2026-22772).
        let issuer = self
            .configured
            .iter()
            .find(|i| i.config.issuer == token.claims.iss)
            .ok_or(CallerRefused::UnknownIssuer)?;
        let alg = Alg::named(&token.header.alg)
            .filter(|alg| issuer.config.algorithms.contains(alg))
            .ok_or(CallerRefused::Algorithm)?;
        // ID tokens say `JWT` or nothing. A token made for another use must not pass (RFC 8725 §3.11).
        if token
            .header
            .typ
            .as_deref()
            .is_some_and(|t| !t.eq_ignore_ascii_case("JWT"))
        {
            return Err(CallerRefused::Algorithm);
        }
        let row = row(issuer.config.kind);
        self.check_audience(&token.claims, row.audience_list)?;
        check_times(&token.claims, issuer.config.life(), now)?;

        let key = issuer.keys.find(&token.header.kid, now).await?;
        check_signature(&token, alg, &key, &issuer.config.issuer, &self.audience)?;

        // From here on the claims are the issuer's word.
        let (facts, actor) = (row.facts)(&token.claims, &issuer.config)?;
        if let Some(event) = facts.claims.get("event")
            && RISKY_EVENTS.contains(&event.as_str())
            && !issuer.config.events_named.contains(event)
        {
            return Err(CallerRefused::Event);
        }
        let burn = burn(&issuer.config.issuer, row.once, &token)?;
        Ok(Caller {
            facts,
            actor,
            burn,
            limits: None,
        })
    }

    fn by_client_key(
        &self,
        token: &UnverifiedToken<'_>,
        now: UnixTime,
    ) -> Result<Caller, CallerRefused> {
        if Alg::named(&token.header.alg) != Some(Alg::EdDsa)
            || token.header.typ.as_deref() != Some(client_key::TYPE)
        {
            return Err(CallerRefused::Algorithm);
        }
        self.check_audience(&token.claims, false)?;
        check_times(&token.claims, LIFE_MAX, now)?;
        let (facts, packages) = client_key::check(token, self.client_keys.as_ref())?;
        // With the key's name, or one key could burn another's ids. No name has a colon.
        let burn = burn(
            &format!("{}:{}", client_key::ISSUER, facts.subject),
            Once::Jti,
            token,
        )?;
        Ok(Caller {
            facts,
            actor: None,
            burn,
            limits: Some(packages),
        })
    }

    /// The whole string, case included; no prefix, and a list only of one and only from an issuer
    /// that writes lists (attack 3).
    fn check_audience(&self, claims: &UnverifiedClaims, list: bool) -> Result<(), CallerRefused> {
        let named = match &claims.aud {
            UnverifiedAudience::Text(text) => Some(text),
            UnverifiedAudience::ListOfOne(text) => Some(text).filter(|_| list),
        };
        if named == Some(&self.audience) {
            Ok(())
        } else {
            Err(CallerRefused::Audience)
        }
    }
}

/// `exp`, `iat`, `nbf`: all typed integers already.
fn check_times(claims: &UnverifiedClaims, life: u64, now: UnixTime) -> Result<(), CallerRefused> {
    let lives = claims
        .exp
        .checked_sub(claims.iat)
        .ok_or(CallerRefused::Expired)?;
    if lives > life {
        return Err(CallerRefused::TooLong);
    }
    let latest = now.after(LEEWAY).0;
    if claims.iat > latest || claims.nbf.is_some_and(|nbf| nbf > latest) {
        return Err(CallerRefused::NotYetValid);
    }
    if now >= expiry(claims) {
        return Err(CallerRefused::Expired);
    }
    Ok(())
}

/// The first second at which the token counts no more.
const fn expiry(claims: &UnverifiedClaims) -> UnixTime {
    UnixTime(claims.exp).after(LEEWAY)
}

fn burn(issuer: &str, once: Once, token: &UnverifiedToken<'_>) -> Result<Burn, CallerRefused> {
    let key = match once {
        Once::Jti => {
            let jti = token.claims.jti.as_ref();
            let jti = jti.ok_or(CallerRefused::ClaimMissing("jti".into()))?;
            Canonical::new("countersign/jti/v1").text(issuer).text(jti)
        }
        // Without the signature: of ECDSA there are many for one text. Its base64 was read strictly,
        // so the text has one spelling.
        Once::SignedText => {
            let (signed, _) = token.raw.rsplit_once('.').ok_or(CallerRefused::Signature)?;
            Canonical::new("countersign/signed-text/v1")
                .text(issuer)
                .text(signed)
        }
    };
    Ok(Burn {
        key: key.sha256(),
        keep_until: expiry(&token.claims),
    })
}

/// Checks the signature with a key that is pinned to the algorithm.
fn check_signature(
    token: &UnverifiedToken<'_>,
    alg: Alg,
    key: &PinnedKey,
    issuer: &str,
    audience: &str,
) -> Result<(), CallerRefused> {
    // The key says which algorithm it is for, never the token (attack 1: HS256 with a public key).
    if key.alg != alg {
        return Err(CallerRefused::Algorithm);
    }
    let algorithm = match alg {
        Alg::Rs256 => Algorithm::RS256,
        Alg::Es256 => Algorithm::ES256,
        Alg::EdDsa => Algorithm::EdDSA,
    };
    // Every setting, without `..`: its defaults are holes, and a setting that a new version adds
    // must stop the build until somebody has thought about it.
    let validation = Validation {
        // The default is HS256.
        algorithms: vec![algorithm],
        // By default only `exp` is required, so a token without issuer or audience passes.
        required_spec_claims: ["exp", "iss", "aud", "sub"].map(str::to_owned).into(),
        // By default any issuer passes. This repeats our own exact comparison.
        iss: Some(HashSet::from([issuer.to_owned()])),
        // Without a set every audience would have to be absent. It would accept a list that
        // contains ours; our own check has refused lists already.
        validate_aud: true,
        aud: Some(HashSet::from([audience.to_owned()])),
        // `sub` is judged by the issuer's mapping.
        sub: None,
        // The library reads the system's clock, which tests and the broker's guarded clock cannot
        // see, defaults to 60 s of leeway and does not look at `nbf`. Times were checked above.
        validate_exp: false,
        validate_nbf: false,
        leeway: 0,
        reject_tokens_expiring_in_less_than: 0,
    };
    match jsonwebtoken::decode::<serde::de::IgnoredAny>(token.raw, &key.key, &validation) {
        Ok(_) => Ok(()),
        Err(e) => Err(match e.kind() {
            ErrorKind::InvalidAlgorithm => CallerRefused::Algorithm,
            ErrorKind::InvalidAudience => CallerRefused::Audience,
            ErrorKind::InvalidIssuer => CallerRefused::UnknownIssuer,
            _ => CallerRefused::Signature,
        }),
    }
}
