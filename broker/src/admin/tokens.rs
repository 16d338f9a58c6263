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
    api::{Rotation, TokenChecked, TokenLine, TokenName, TokenRequest},
    ids::PersonId,
    time::UnixTime,
};

/// Stores a first token for a registry and scope.
pub async fn add(
    desk: &Desk,
    given: TokenRequest,
    by: &PersonId,
    now: UnixTime,
) -> Result<TokenLine, Refusal> {
    let (scope, token) = parse(desk, &given)?;
    let wanted = wanted(&given, &scope, &token);
    let (batch, record) =
        tokens::add(&desk.vault, &*desk.live, Batch::new(), &wanted, now).map_err(refusal)?;
    desk.commit(batch, &[Event::TokenStored(facts(&record, by))], now)
        .await?;
    Ok(line(desk, &record, now))
}

/// Stores the next version beside the old one, which serves requests in flight for a while. The new
/// one is proved with the registry first: a mistyped token must not replace one that works.
pub async fn rotate(
    desk: &Desk,
    given: TokenRequest,
    by: &PersonId,
    now: UnixTime,
) -> Result<TokenLine, Refusal> {
    let (scope, token) = parse(desk, &given)?;
    if let Some(upstream) = desk.upstream(&given.registry) {
        match upstream.whoami(&token).await {
            Ok(Account::Named(_) | Account::CannotAsk) => {}
            Ok(Account::Unknown) => {
                return Err(Refusal::BadRequest(
                    "the registry does not know this token; the old one stays".to_owned(),
                ));
            }
            Err(why) => return Err(Refusal::RegistryDown(why.to_string())),
        }
    }
    let wanted = wanted(&given, &scope, &token);
    let (batch, record) =
        tokens::rotate(&desk.vault, &*desk.live, Batch::new(), &wanted, now).map_err(refusal)?;
    desk.commit(batch, &[Event::TokenRotated(facts(&record, by))], now)
        .await?;
    Ok(line(desk, &record, now))
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

/// Destroys all versions of a token.
pub async fn remove(
    desk: &Desk,
    name: &TokenName,
    by: &PersonId,
    now: UnixTime,
) -> Result<(), Refusal> {
    let scope = scope(&name.scope)?;
    let (batch, records) = tokens::remove(
        &desk.vault,
        &*desk.live,
        Batch::new(),
        &name.registry,
        &scope,
    )
    .map_err(refusal)?;
    let events: Vec<_> = records
        .iter()
        .map(|r| Event::TokenRemoved(facts(r, by)))
        .collect();
    desk.commit(batch, &events, now).await?;
    Ok(())
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

fn parse(desk: &Desk, given: &TokenRequest) -> Result<(Scope, Secret<String>), Refusal> {
    if !desk.registries.contains_key(&given.registry) {
        return Err(Refusal::BadRequest(format!(
            "this broker has no registry '{}'",
            given.registry
        )));
    }
    Ok((scope(&given.scope)?, Secret::new(given.token.clone())))
}

fn wanted<'a>(
    given: &'a TokenRequest,
    scope: &'a Scope,
    token: &'a Secret<String>,
) -> NewToken<'a> {
    NewToken {
        registry: &given.registry,
        scope,
        token,
        expires: given.expires,
    }
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
