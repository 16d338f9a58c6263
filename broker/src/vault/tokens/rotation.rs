//! From one version of a token to the next, and back. At each moment one version of a place is the present one. The one
//! before it is old: it ends after its hour, or, where nobody could prove the new one, not before an hour after that was
//! accepted once by its registry. The way back gives the old token the next number: the newest present version serves,
//! and no other.
//!
//! If an attacker writes here: rows are authentic, and each says by itself whether it is old. He can put back one as it
//! was, under its own number. As a present one it is older than the one that serves, and not used for a publish; as a kept
//! one it lies here until a rotation, and admins go back to it only by its number, which the second one reads. Who takes
//! the newest row away as well has the one before serve again, for as long as its registry knows it.

use super::{
    NewToken, OVERLAP_SECONDS, Scope, StoredToken, TokenError, TokenRecord, destroy, fingerprint,
    is_another, open, put, put_next, versions, write,
};
use crate::{
    store::{Batch, Store},
    vault::seal::Vault,
};
use proto::{
    api::{ProofOutcome, TokenProof},
    ids::RegistryId,
    time::UnixTime,
};

/// Stores the next token beside the present one, which serves for [`OVERLAP_SECONDS`] more, or as long as it is kept.
pub fn rotate(
    vault: &Vault,
    store: &dyn Store,
    mut batch: Batch,
    wanted: &NewToken<'_>,
    now: UnixTime,
) -> Result<(Batch, TokenRecord), TokenError> {
    let stored = versions(vault, store, wanted.registry, wanted.scope)?;
    if stored.is_empty() {
        return Err(wanted.refuse(TokenError::Missing));
    }
    is_another(&stored, &fingerprint(vault, wanted.registry, wanted.token)?)?;
    let kept = kept_by(&stored, now).filter(|_| wanted.keeps_old);
    for mut old in stored {
        let before = old.record.clone();
        // One that was rotated before keeps its time: rotating often must not keep an old token alive.
        // One that was kept until now has an hour yet, as after a yes.
        let held = Some(old.record.version) == kept;
        if old.record.is_present() || (old.record.is_kept() && !held) {
            old.record.overlap_until = Some(now.after(OVERLAP_SECONDS));
        }
        old.record.held = held;
        if old.record != before {
            batch = write(vault, batch, &old)?;
        }
    }
    put(vault, store, batch, wanted, now)
}

/// The version that a rotation to a token which nobody could prove would keep.
pub fn would_keep(
    vault: &Vault,
    store: &dyn Store,
    (registry, scope): (&RegistryId, &Scope),
    now: UnixTime,
) -> Result<Option<u64>, TokenError> {
    Ok(kept_by(&versions(vault, store, registry, scope)?, now))
}

/// The one that is kept already, or the present one: after two rotations to tokens that nobody could prove the last one
/// that worked is kept, and no other. One that is over by what is known of it comes after one that may be good. None that
/// was seen: whoever saw it publishes with it for as long as it is good.
fn kept_by(stored: &[StoredToken], now: UnixTime) -> Option<u64> {
    let kept = stored.iter().rfind(|t| t.record.is_kept());
    let present = newest(stored).filter(|t| !t.record.exposed);
    let all = || kept.into_iter().chain(present);
    let one = all().find(|t| !t.record.is_over(now));
    one.or_else(|| all().next()).map(|t| t.record.version)
}

/// The present version among all those of a place: the newest one that is not old.
pub fn newest(stored: &[StoredToken]) -> Option<&StoredToken> {
    let present = stored.iter().filter(|t| t.record.is_present());
    present.max_by_key(|t| t.record.version)
}

/// A way back: the versions that were read when it was asked for.
pub struct Back<'a> {
    /// The registry.
    pub registry: &'a RegistryId,
    /// The packages that it is for.
    pub scope: &'a Scope,
    /// The version that is kept.
    pub kept: u64,
    /// The present one, which becomes an old one.
    pub present: u64,
}

/// Makes the token that is kept the present one again, under the next number; its old row ends in the same batch. The one
/// that had its place is old from then on, and ends as every old one does.
pub fn back(
    vault: &Vault,
    store: &dyn Store,
    mut batch: Batch,
    wanted: &Back<'_>,
    now: UnixTime,
) -> Result<(Batch, TokenRecord), TokenError> {
    let stored = versions(vault, store, wanted.registry, wanted.scope)?;
    let Some(kept) = stored.iter().rfind(|t| t.record.is_kept()).cloned() else {
        let (registry, scope) = (wanted.registry.clone(), wanted.scope.clone());
        return Err(TokenError::NoneKept(registry, scope));
    };
    let present = newest(&stored).map(|t| t.record.version);
    if (kept.record.version, present) != (wanted.kept, Some(wanted.present)) {
        return Err(TokenError::Moved);
    }
    for mut other in stored {
        if other.record.is_present() {
            other.record.overlap_until = Some(now.after(OVERLAP_SECONDS));
            batch = write(vault, batch, &other)?;
        }
    }
    let token = open(vault, &kept.record).map_err(|_| TokenError::Unreadable)?;
    batch = destroy(batch, &kept);
    let mut record = kept.record;
    (record.overlap_until, record.held) = (None, false);
    put_next(vault, store, batch, record, &token)
}

/// Keeps an old version no longer than other old ones.
pub fn unheld(vault: &Vault, batch: Batch, mut token: StoredToken) -> Result<Batch, TokenError> {
    token.record.held = false;
    write(vault, batch, &token)
}

/// Notes what its registry says of it now. Where that is a yes to the present one, no old one is kept for it any more:
/// its last hour begins.
pub fn note_proof(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    mut token: StoredToken,
    proof: TokenProof,
) -> Result<Batch, TokenError> {
    let accepted = proof.outcome == ProofOutcome::Proved && token.record.is_present();
    let ends = proof.at.after(OVERLAP_SECONDS);
    token.record.proof = Some(proof);
    let mut batch = write(vault, batch, &token)?;
    if !accepted {
        return Ok(batch);
    }
    let of = &token.record;
    for mut kept in versions(vault, store, &of.registry, &of.scope)? {
        if kept.record.held {
            (kept.record.held, kept.record.overlap_until) = (false, Some(ends));
            batch = write(vault, batch, &kept)?;
        }
    }
    Ok(batch)
}

/// The stored token that was used, where it still is the present one and an old one is kept for it: its registry has not
/// accepted it yet.
pub fn unaccepted(
    vault: &Vault,
    store: &dyn Store,
    (registry, scope): (&RegistryId, &Scope),
    version: u64,
) -> Result<Option<StoredToken>, TokenError> {
    let stored = versions(vault, store, registry, scope)?;
    if !stored.iter().any(|t| t.record.is_kept()) {
        return Ok(None);
    }
    let present = newest(&stored).filter(|t| t.record.version == version);
    Ok(present.cloned())
}
