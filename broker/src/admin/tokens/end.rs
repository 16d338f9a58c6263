//! The end of a token. A rotated one is kept, sealed, for [`tokens::OVERLAP_SECONDS`]: uploads that are on their way
//! hold it, and what was minted from it lives no longer. New uploads take its successor from the commit of the rotation on.
//! Then it is ended at the registry, where that has a call for it, and destroyed here; what may still be good there an
//! admin is reminded of, until he says that it is revoked.
//!
//! A crash before the commit leaves the token where it was, and all of it is done again: a registry that has ended it
//! does not know it then. After the commit nothing is left to do here.

use super::{Refusal, facts, fault, prove, refusal};
use crate::{
    admin::own::{Own, current},
    audit::event::{Event, TokenEnding},
    desk::{Desk, Fault, passable, people::PEOPLE},
    notify::About,
    publish::{prove::prove_in_terminal, ring},
    secret::Secret,
    store::Batch,
    vault::{
        release,
        tokens::{
            self, StoredToken, TokenRecord,
            left::{self, Left},
        },
    },
};
use proto::{
    api::{LeftToken, TokenEnd, TokenName, TokenPrint, TokenRevoked},
    factors::change,
    ids::PersonId,
    time::UnixTime,
};
use std::time::Duration;

/// Time for all questions about one token that ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends what is over, and counts what is left to do.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    // What an older copy holds may have been stored in another place since.
    if desk.vault.is_sealed() || desk.restored()?.is_some() {
        return Ok(());
    }
    // A row that cannot be believed keeps none of the others from its end.
    let all = tokens::believed(&desk.vault, &*desk.live).map_err(fault)?;
    let left = left::believed(&desk.vault, &*desk.live).map_err(fault)?;
    count(desk, &all, left.len());
    // A clock that jumped has let no time pass.
    if desk.world.clock_suspect() {
        return Ok(());
    }
    for stored in all.iter().filter(|t| !t.record.serves(now)) {
        passable(end(desk, stored, now).await)?;
    }
    for stored in &left {
        // A date that was over when the registry still knew the token was a wrong one.
        let since = stored.left.since;
        if stored
            .left
            .expires
            .is_some_and(|at| since < at && at <= now)
        {
            let event = Event::TokenEnded(ending(&stored.left, TokenEnd::Expired));
            let batch = left::settle(Batch::new(), stored);
            passable(desk.commit(batch, &[event], now).await.map(drop))?;
        }
    }
    Ok(())
}

fn count(desk: &Desk, all: &[StoredToken], left: usize) {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let full = |t: &&StoredToken| t.record.emptied.is_none() && t.record.is_present();
    let not_emptied = all.iter().filter(full).count();
    desk.metrics.tokens_to_revoke.set(count(left));
    desk.metrics.tokens_not_emptied.set(count(not_emptied));
    let kept = all.iter().filter(|t| t.record.is_kept()).count();
    desk.metrics.tokens_kept.set(count(kept));
}

/// Ends one, and destroys it whatever its registry says.
async fn end(desk: &Desk, stored: &StoredToken, now: UnixTime) -> Result<(), Fault> {
    let record = &stored.record;
    let how = how(desk, stored, now).await;
    let mut batch = tokens::destroy(Batch::new(), stored);
    if how == TokenEnd::Open {
        batch = left::leave(&desk.vault, batch, record, now).map_err(fault)?;
        batch = ring::notice(desk, batch, About::Token, "", None)?;
        tracing::warn!(registry = %record.registry, scope = record.scope.as_str(), version = record.version,
            fingerprint = record.fingerprint,
            "a rotated token was destroyed here and may still be good: revoke it at the registry");
    }
    let event = Event::TokenDestroyed(TokenEnding {
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
        fingerprint: record.fingerprint.clone(),
        end: how,
    });
    desk.commit(batch, &[event], now).await?;
    desk.bells.ask();
    Ok(())
}

/// How the token ends at its registry. Whatever is not certain is an admin's. When it expires somebody typed in: the
/// registry is asked all the same.
async fn how(desk: &Desk, stored: &StoredToken, now: UnixTime) -> TokenEnd {
    let record = &stored.record;
    let Ok(token) = release::for_check(&desk.vault, stored) else {
        return TokenEnd::Open;
    };
    // Read here, right before the call: an admin may have stored it in another place a moment ago.
    match is_in_use(desk, record, std::slice::from_ref(stored), &token, now) {
        Ok(true) => return TokenEnd::InUse,
        Ok(false) => {}
        Err(_) => return TokenEnd::Open,
    }
    let asking = async {
        let upstream = desk.upstream(&record.registry)?;
        if matches!(upstream.revoke(&token).await, Ok(true)) {
            return Some(TokenEnd::Revoked);
        }
        let asked = prove::ask(desk, &record.registry, &record.scope, &token, None).await;
        let gone = match record.expires {
            Some(at) if at <= now => TokenEnd::Expired,
            _ => TokenEnd::Unknown,
        };
        asked.is_ok_and(|proof| proof.unknown).then_some(gone)
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.ok().flatten().unwrap_or(TokenEnd::Open)
}

/// Whether the same token serves in a row that does not go with it: to end it would end that as well. A version that
/// serves no more is none: two such would each wait for the other, and nobody would end the token.
fn is_in_use(
    desk: &Desk,
    record: &TokenRecord,
    going: &[StoredToken],
    token: &Secret<String>,
    now: UnixTime,
) -> Result<bool, Fault> {
    let all = tokens::list(&desk.vault, &*desk.live).map_err(fault)?;
    let print = |t: &Secret<String>| tokens::fingerprint(&desk.vault, &record.registry, t);
    let own = print(token)?;
    // Another version of the same place counts: who goes back has the token of before under a new number, and a row of
    // before that somebody puts back would end it.
    let key = |t: &StoredToken| t.record.key();
    let stays = |other: &&StoredToken| !going.iter().any(|t| key(t) == key(other));
    let serving = all.iter().filter(|other| other.record.serves(now));
    for other in serving.filter(stays) {
        let held = release::for_check(&desk.vault, other).map_err(fault)?;
        if print(&held)? == own {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds what is left to do about tokens that an admin removes: nobody waits for a registry then.
pub(super) fn removed(
    desk: &Desk,
    mut batch: Batch,
    gone: &[StoredToken],
    now: UnixTime,
) -> Result<Batch, Refusal> {
    for stored in gone {
        let record = &stored.record;
        let token = release::for_check(&desk.vault, stored).map_err(refusal)?;
        // Nobody can say so where another row cannot be read: then it is left, too.
        let used = match is_in_use(desk, record, gone, &token, now) {
            Err(Fault::Damaged(_)) => false,
            other => other?,
        };
        if !used {
            batch = left::leave(&desk.vault, batch, record, now).map_err(refusal)?;
        }
    }
    Ok(batch)
}

/// Takes away what is left to do about a token that is stored again.
pub(super) fn again(desk: &Desk, mut batch: Batch, record: &TokenRecord) -> Result<Batch, Refusal> {
    for stored in left::all(&desk.vault, &*desk.live).map_err(refusal)? {
        if stored.left.registry == record.registry && stored.left.fingerprint == record.fingerprint
        {
            batch = left::settle(batch, &stored);
        }
    }
    Ok(batch)
}

/// What is to be revoked at registries.
pub fn list(desk: &Desk) -> Result<Vec<LeftToken>, Refusal> {
    let all = left::all(&desk.vault, &*desk.live).map_err(refusal)?;
    Ok(all.iter().map(|stored| line(&stored.left)).collect())
}

/// An admin says that a token is revoked at its registry. Nobody can see that from here any more, so it is his word. One
/// that is kept here is kept no longer: it ends as old ones do. That is the end of a way back, so whoever says it shows
/// a second factor: one admin's stolen machine would else leave a house with a token that works nowhere.
pub async fn revoked(
    desk: &Desk,
    own: Own<'_>,
    of: &TokenRevoked,
    now: UnixTime,
) -> Result<Vec<LeftToken>, Refusal> {
    let mut all = left::all(&desk.vault, &*desk.live).map_err(refusal)?;
    all.retain(|stored| stored.left.fingerprint == of.fingerprint);
    let mut kept = tokens::believed(&desk.vault, &*desk.live).map_err(refusal)?;
    kept.retain(|t| t.record.is_kept() && t.record.fingerprint == of.fingerprint);
    if all.is_empty() && kept.is_empty() {
        return Err(Refusal::BadRequest(format!(
            "no token {} is left to revoke: countersign admin token list shows those that are",
            of.fingerprint
        )));
    }
    let mut batch = Batch::new();
    if !kept.is_empty() {
        let by = current(desk, own)?;
        let about = (change::TOKEN_REVOKED, of.fingerprint.as_str());
        let spent = prove_in_terminal(desk, &by.value, own.device, about, &of.factor, now).await?;
        batch = spent.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    }
    let mut events = Vec::new();
    let mut told: Vec<_> = all.iter().map(|stored| stored.left.clone()).collect();
    told.extend(kept.iter().map(|stored| left::of(&stored.record, now)));
    for left in &told {
        events.push(Event::TokenRevoked {
            registry: left.registry.clone(),
            scope: left.scope.as_str().to_owned(),
            version: left.version,
            fingerprint: left.fingerprint.clone(),
            by: own.person.clone(),
        });
    }
    for stored in &all {
        batch = left::settle(batch, stored);
    }
    for stored in kept {
        batch = tokens::unheld(&desk.vault, batch, stored).map_err(refusal)?;
    }
    desk.commit(batch, &events, now).await?;
    Ok(told.iter().map(line).collect())
}

/// An admin says that a stored token is nowhere but here.
pub async fn emptied(
    desk: &Desk,
    of: &TokenPrint,
    by: &PersonId,
    now: UnixTime,
) -> Result<Vec<TokenName>, Refusal> {
    let mut last = Err(Refusal::NotFound);
    for _ in 0..prove::TRIES {
        last = empty(desk, of, by, now).await;
        if !matches!(last, Err(Refusal::Fault(Fault::Conflict(..)))) {
            break;
        }
    }
    last
}

async fn empty(
    desk: &Desk,
    of: &TokenPrint,
    by: &PersonId,
    now: UnixTime,
) -> Result<Vec<TokenName>, Refusal> {
    let mut all = tokens::list(&desk.vault, &*desk.live).map_err(refusal)?;
    all.retain(|t| t.record.fingerprint == of.fingerprint);
    if all.is_empty() {
        return Err(Refusal::BadRequest(format!(
            "no token {} is stored: countersign admin token list shows those that are",
            of.fingerprint
        )));
    }
    let (mut batch, mut events, mut names) = (Batch::new(), Vec::new(), Vec::new());
    for stored in all {
        events.push(Event::TokenEmptied(facts(&stored.record, by)));
        names.push(TokenName {
            registry: stored.record.registry.clone(),
            scope: stored.record.scope.as_str().to_owned(),
        });
        batch = tokens::note_emptied(&desk.vault, batch, stored, now).map_err(refusal)?;
    }
    desk.commit(batch, &events, now).await?;
    Ok(names)
}

fn ending(left: &Left, end: TokenEnd) -> TokenEnding {
    TokenEnding {
        registry: left.registry.clone(),
        scope: left.scope.as_str().to_owned(),
        version: left.version,
        fingerprint: left.fingerprint.clone(),
        end,
    }
}

fn line(left: &Left) -> LeftToken {
    LeftToken {
        registry: left.registry.clone(),
        scope: left.scope.as_str().to_owned(),
        version: left.version,
        fingerprint: left.fingerprint.clone(),
        since: left.since,
        expires: left.expires,
    }
}
