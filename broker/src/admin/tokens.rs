//! Registry tokens: they go in, and never come out.

use crate::{
    audit::event::{Event, TokenFacts},
    desk::{Desk, Fault},
    publish::Refusal,
    registry::Account,
    secret::Secret,
    store::Batch,
    vault::{
        release,
        tokens::{self, NewToken, Scope, StoredToken, TokenError, TokenRecord},
    },
};
use proto::{
    act::TokenPlace,
    api::{Rotation, TokenChecked, TokenLine, TokenName},
    ids::{PersonId, RegistryId},
    time::UnixTime,
};

/// A token that is to be stored.
pub(super) struct Put<'a> {
    /// Where.
    pub(super) at: &'a TokenPlace,
    /// The token.
    pub(super) token: &'a Secret<String>,
    /// Whether it is the next version of one.
    pub(super) rotates: bool,
}

/// Prepares a token's first or next version. The old one serves requests in flight for a while; the new one is proved
/// with the registry first, since a mistyped token must not replace one that works.
pub(super) async fn put(
    desk: &Desk,
    put: Put<'_>,
    by: &PersonId,
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Event, TokenLine), Refusal> {
    let Put { at, token, rotates } = put;
    if !desk.registries.contains_key(&at.registry) {
        return Err(Refusal::BadRequest(format!(
            "this broker has no registry '{}'",
            at.registry
        )));
    }
    let scope = scope(&at.scope)?;
    if rotates {
        prove(desk, &at.registry, token).await?;
    }
    let wanted = NewToken {
        registry: &at.registry,
        scope: &scope,
        token,
        expires: at.expires,
    };
    let (vault, live) = (&desk.vault, &*desk.live);
    let put = if rotates {
        tokens::rotate(vault, live, batch, &wanted, now)
    } else {
        tokens::add(vault, live, batch, &wanted, now)
    };
    let (batch, record) = put.map_err(refusal)?;
    let event = if rotates {
        Event::TokenRotated(facts(&record, by))
    } else {
        Event::TokenStored(facts(&record, by))
    };
    Ok((batch, event, line(desk, &record, now)))
}

async fn prove(desk: &Desk, registry: &RegistryId, token: &Secret<String>) -> Result<(), Refusal> {
    let Some(upstream) = desk.upstream(registry) else {
        return Ok(());
    };
    match upstream.whoami(token).await {
        Ok(Account::Named(_) | Account::CannotAsk) => Ok(()),
        Ok(Account::Unknown) => Err(Refusal::BadRequest(
            "the registry does not know this token; the old one stays".to_owned(),
        )),
        Err(why) => Err(Refusal::RegistryDown(why.to_string())),
    }
}

/// Whether a token that is stored already is for some of what one at this place would be for: the new one would take
/// its place there.
pub(super) fn is_covered(desk: &Desk, at: &TokenPlace) -> Result<bool, Refusal> {
    let wanted = scope(&at.scope)?;
    let all = tokens::list(&desk.vault, &*desk.live).map_err(refusal)?;
    let here = all.iter().filter(|t| t.record.registry == at.registry);
    Ok(here.into_iter().any(|t| t.record.scope.overlaps(&wanted)))
}

/// All tokens, without their secrets.
pub fn list(desk: &Desk, now: UnixTime) -> Result<Vec<TokenLine>, Refusal> {
    let all = tokens::list(&desk.vault, &*desk.live).map_err(refusal)?;
    Ok(all.iter().map(|t| line(desk, &t.record, now)).collect())
}

/// Asks the registry whose the token is.
pub async fn check(
    desk: &Desk,
    name: &TokenName,
    by: &PersonId,
    now: UnixTime,
) -> Result<TokenChecked, Refusal> {
    let stored = newest(desk, name)?;
    let cannot = || {
        Refusal::BadRequest(format!(
            "'{}' has no way to ask whose a token is",
            name.registry
        ))
    };
    let upstream = desk.upstream(&name.registry).ok_or_else(cannot)?;
    let token = release::for_check(&desk.vault, &stored).map_err(refusal)?;
    let account = upstream
        .whoami(&token)
        .await
        .map_err(|e| Refusal::RegistryDown(e.to_string()))?;
    drop(token);
    let account = match account {
        Account::Named(name) => Some(name),
        Account::Unknown => None,
        Account::CannotAsk => return Err(cannot()),
    };
    desk.commit(
        Batch::new(),
        &[Event::TokenChecked(facts(&stored.record, by))],
        now,
    )
    .await?;
    let detail = if account.is_some() {
        "the registry knows the token"
    } else {
        "the registry does not know the token (any more): rotate it"
    };
    Ok(TokenChecked {
        works: account.is_some(),
        account,
        detail: detail.to_owned(),
    })
}

/// Prepares the destruction of all versions of a token.
pub(super) fn remove(
    desk: &Desk,
    name: &TokenName,
    by: &PersonId,
    batch: Batch,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let scope = scope(&name.scope)?;
    let (batch, records) =
        tokens::remove(&desk.vault, &*desk.live, batch, &name.registry, &scope).map_err(refusal)?;
    let events = records
        .iter()
        .map(|r| Event::TokenRemoved(facts(r, by)))
        .collect();
    Ok((batch, events))
}

/// Destroys rotated tokens whose window is over.
pub async fn destroy_expired(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let (batch, gone) = match tokens::destroy_expired(&desk.vault, &*desk.live, Batch::new(), now) {
        Ok(found) => found,
        Err(TokenError::Sealed(_)) => return Ok(()),
        Err(e) => return Err(fault(e)),
    };
    if !gone.is_empty() {
        for record in &gone {
            tracing::warn!(registry = %record.registry, scope = record.scope.as_str(), version = record.version,
                "a rotated token was destroyed here; revoke it at the registry");
        }
        desk.commit(batch, &[], now).await?;
    }
    Ok(())
}

fn scope(text: &str) -> Result<Scope, Refusal> {
    text.parse()
        .map_err(|e: tokens::ScopeError| Refusal::BadRequest(e.to_string()))
}

fn newest(desk: &Desk, name: &TokenName) -> Result<StoredToken, Refusal> {
    let scope = scope(&name.scope)?;
    tokens::list(&desk.vault, &*desk.live)
        .map_err(refusal)?
        .into_iter()
        .filter(|t| t.record.registry == name.registry && t.record.scope == scope)
        .max_by_key(|t| t.record.version)
        .ok_or_else(|| Refusal::NoToken(format!("{}:{}", name.registry, scope.as_str())))
}

fn facts(record: &TokenRecord, by: &PersonId) -> TokenFacts {
    TokenFacts {
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        by: by.clone(),
    }
}

fn line(desk: &Desk, record: &TokenRecord, now: UnixTime) -> TokenLine {
    let allowed = desk.place.token_max_age_days.max(1) * 86_400;
    let mut line = TokenLine {
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        stored: record.stored,
        expires: record.expires,
        used: record.used,
        overlap_until: record.overlap_until,
        age_percent: now.since(record.stored) * 100 / allowed,
        exposed: record.exposed,
        rotation: Rotation::default(),
    };
    line.rotation = line.rotation(now);
    line
}

fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::Exists(..)
        | TokenError::Missing(..)
        | TokenError::NotAToken
        | TokenError::Same => Refusal::BadRequest(error.to_string()),
        other => fault(other).into(),
    }
}

fn fault(error: TokenError) -> Fault {
    Fault::from(error)
}
