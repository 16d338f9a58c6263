//! Any OIDC issuer: the configuration says which claim means what.

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::{borrow::Cow, collections::BTreeMap};

/// Longest claim that is kept, in bytes.
const CLAIM_MAX: usize = 512;

pub(super) const ROW: Row = Row {
    life: 15 * 60,
    audience_list: false,
    once: Once::Jti,
    server: None,
    facts,
};

/// A mapped claim that is absent stays absent, and
/// policy reads that as "no"; subject and actor have to be there, since without the actor a
/// requester could approve his own request.
fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let owned = |name: &str| Cow::<'static, str>::Owned(name.to_owned());
    let mut mapped = BTreeMap::new();
    for (name, claim) in &config.claims {
        if let Some(value) = claims.optional(owned(claim), CLAIM_MAX)? {
            mapped.insert(name.clone(), value);
        }
    }
    let actor = match &config.actor {
        Some(claim) => Some(format!(
            "{}:{}",
            config.name,
            claims.required(owned(claim), CLAIM_MAX)?
        )),
        None => None,
    };
    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: claims.required(owned(&config.subject), CLAIM_MAX)?,
        claims: mapped,
        run_url: None,
    };
    Ok((facts, actor))
}
