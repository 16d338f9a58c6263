//! Registry tokens: they go in, and never come out. [`prove`] asks a registry about one; [`end`] is what becomes of the
//! old ones.

pub mod end;
pub mod prove;

use self::prove::Given;
use crate::{
    audit::event::{Event, TokenFacts},
    desk::{Desk, Fault},
    publish::Refusal,
    secret::Secret,
    store::Batch,
    vault::tokens::{self, Back, NewToken, Scope, StoredToken, TokenError, TokenRecord},
};
use proto::{
    act::{TokenPlace, TokenReturn},
    api::{Rotation, TokenLine, TokenName},
    ids::PersonId,
    time::UnixTime,
};

/// Prepares a token's first or next version. The old one serves requests in flight for a while, and is kept longer where
/// nobody could prove the new one.
pub(super) fn put(
    desk: &Desk,
    at: &TokenPlace,
    given: &Given,
    rotates: bool,
    by: &PersonId,
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Event, TokenLine), Refusal> {
    let scope = scope(&at.scope)?;
    let wanted = NewToken {
        registry: &at.registry,
        scope: &scope,
        token: &given.token,
        expires: at.expires,
        proof: Some(&given.proof),
        emptied: at.emptied,
        keeps_old: rotates && !at.ends_old && given.may_be_useless(desk, &at.registry),
    };
    let (vault, live) = (&desk.vault, &*desk.live);
    let kept = if wanted.keeps_old {
        tokens::would_keep(vault, live, (&at.registry, &scope), now).map_err(refusal)?
    } else {
        None
    };
    let put = if rotates {
        tokens::rotate(vault, live, batch, &wanted, now)
    } else {
        tokens::add(vault, live, batch, &wanted, now)
    };
    let (batch, record) = put.map_err(refusal)?;
    let batch = end::again(desk, batch, &record)?;
    let event = if rotates {
        Event::TokenRotated(facts(&record, by))
    } else {
        Event::TokenStored(facts(&record, by))
    };
    let mut line = line(desk, &record, now);
    line.fallback = kept;
    Ok((batch, event, line))
}

/// Prepares the way back to the version that is kept, where the one in its place is of no use.
pub(super) fn back(
    desk: &Desk,
    to: &TokenReturn,
    by: &PersonId,
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Event, TokenLine), Refusal> {
    let scope = scope(&to.scope)?;
    let wanted = Back {
        registry: &to.registry,
        scope: &scope,
        kept: to.kept,
        present: to.present,
    };
    let back = tokens::back(&desk.vault, &*desk.live, batch, &wanted, now);
    let (batch, record) = back.map_err(refusal)?;
    let event = Event::TokenBack {
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        kept: to.kept,
        ended: to.present,
        by: by.clone(),
    };
    Ok((batch, event, line(desk, &record, now)))
}

/// What is wrong with a token's place or form, before its registry is asked about it.
pub(super) fn fits(
    desk: &Desk,
    at: &TokenPlace,
    token: &Secret<String>,
    rotates: bool,
) -> Result<(), Refusal> {
    if !desk.registries.contains_key(&at.registry) {
        return Err(Refusal::BadRequest(format!(
            "this broker has no registry '{}'",
            at.registry
        )));
    }
    let scope = scope(&at.scope)?;
    let place = (&at.registry, &scope);
    tokens::fits(&desk.vault, &*desk.live, place, token, rotates).map_err(refusal)
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
    let mut lines: Vec<_> = all.iter().map(|t| line(desk, &t.record, now)).collect();
    for kept in all.iter().map(|t| &t.record).filter(|t| t.is_kept()) {
        let own = |l: &&mut TokenLine| {
            l.registry == kept.registry && l.scope == kept.scope.as_str() && l.is_present()
        };
        if let Some(present) = lines.iter_mut().rfind(own) {
            present.fallback = Some(kept.version);
        }
    }
    Ok(lines)
}

/// Prepares the destruction of all versions of a token.
pub(super) fn remove(
    desk: &Desk,
    name: &TokenName,
    by: &PersonId,
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let scope = scope(&name.scope)?;
    let (batch, gone) =
        tokens::remove(&desk.vault, &*desk.live, batch, &name.registry, &scope).map_err(refusal)?;
    let events = gone
        .iter()
        .map(|t| Event::TokenRemoved(facts(&t.record, by)))
        .collect();
    Ok((end::removed(desk, batch, &gone, now)?, events))
}

fn scope(text: &str) -> Result<Scope, Refusal> {
    text.parse()
        .map_err(|e: tokens::ScopeError| Refusal::BadRequest(e.to_string()))
}

fn present(desk: &Desk, name: &TokenName) -> Result<StoredToken, Refusal> {
    let all = versions(desk, name)?;
    tokens::newest(&all)
        .cloned()
        .ok_or_else(|| Refusal::NoToken(format!("{}:{}", name.registry, name.scope)))
}

/// All versions of a place.
fn versions(desk: &Desk, name: &TokenName) -> Result<Vec<StoredToken>, Refusal> {
    let scope = scope(&name.scope)?;
    let mut all = tokens::list(&desk.vault, &*desk.live).map_err(refusal)?;
    all.retain(|t| t.record.registry == name.registry && t.record.scope == scope);
    Ok(all)
}

fn facts(record: &TokenRecord, by: &PersonId) -> TokenFacts {
    TokenFacts {
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        proof: record.proof.as_ref().map(|p| p.outcome),
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
        held: record.is_kept(),
        fallback: None,
        age_percent: now.since(record.stored) * 100 / allowed,
        exposed: record.exposed,
        rotation: Rotation::default(),
        proof: record.proof.clone(),
        emptied: record.emptied,
    };
    line.rotation = line.rotation(now);
    line
}

fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::Exists(..)
        | TokenError::Missing(..)
        | TokenError::NotAToken
        | TokenError::Kept(..)
        | TokenError::NoneKept(..)
        | TokenError::Moved
        | TokenError::Same => Refusal::BadRequest(error.to_string()),
        other => fault(other).into(),
    }
}

fn fault(error: TokenError) -> Fault {
    Fault::from(error)
}
