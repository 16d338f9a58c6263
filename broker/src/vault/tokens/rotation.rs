//! From one version of a token to the next, and back. At each moment one version of a place is the present one. The one
//! before it is old: it ends after its hour, or, where nobody could prove the new one, not before that was accepted once
//! by its registry.
//!
//! If an attacker writes here: rows are authentic, and each says by itself whether it is old. He can put back one as it
//! was: of two present ones the newest serves, and an old one that is kept again is used for nothing.

use super::{
    NewToken, OVERLAP_SECONDS, Scope, StoredToken, TokenError, TokenRecord, fingerprint,
    is_another, put, versions, write,
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
    let kept = kept_by(&stored).filter(|_| wanted.keeps_old);
    for mut old in stored {
        let before = old.record.clone();
        // One that was rotated before keeps its time: rotating often must not keep an old token alive.
        if old.record.is_present() {
            old.record.overlap_until = Some(now.after(OVERLAP_SECONDS));
        }
        old.record.held = Some(old.record.version) == kept;
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
) -> Result<Option<u64>, TokenError> {
    Ok(kept_by(&versions(vault, store, registry, scope)?))
}

/// The one that is kept already, or the present one: after two rotations to tokens that nobody could prove the last one
/// that worked is kept, and no other.
fn kept_by(stored: &[StoredToken]) -> Option<u64> {
    let kept = stored.iter().rfind(|t| t.record.held);
    let kept = kept.or_else(|| stored.iter().rfind(|t| t.record.is_present()));
    kept.map(|t| t.record.version)
}

/// Makes the version that is kept the present one again. The one that had its place is old from then on, and ends as
/// every old one does.
pub fn back(
    vault: &Vault,
    store: &dyn Store,
    mut batch: Batch,
    (registry, scope): (&RegistryId, &Scope),
    now: UnixTime,
) -> Result<(Batch, TokenRecord), TokenError> {
    let stored = versions(vault, store, registry, scope)?;
    let Some(mut kept) = stored.iter().rfind(|t| t.record.held).cloned() else {
        return Err(TokenError::NoneKept(registry.clone(), scope.clone()));
    };
    for mut other in stored {
        if other.record.is_present() {
            other.record.overlap_until = Some(now.after(OVERLAP_SECONDS));
            batch = write(vault, batch, &other)?;
        }
    }
    (kept.record.overlap_until, kept.record.held) = (None, false);
    Ok((write(vault, batch, &kept)?, kept.record))
}

/// Notes what its registry says of it now. Where that is a yes to the present one, no old one is kept for it any more.
pub fn note_proof(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    mut token: StoredToken,
    proof: TokenProof,
) -> Result<Batch, TokenError> {
    let accepted = proof.outcome == ProofOutcome::Proved && token.record.is_present();
    token.record.proof = Some(proof);
    let mut batch = write(vault, batch, &token)?;
    if !accepted {
        return Ok(batch);
    }
    let of = &token.record;
    for mut kept in versions(vault, store, &of.registry, &of.scope)? {
        if kept.record.held {
            kept.record.held = false;
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
    used: &TokenRecord,
) -> Result<Option<StoredToken>, TokenError> {
    let stored = versions(vault, store, &used.registry, &used.scope)?;
    if !stored.iter().any(|t| t.record.held) {
        return Ok(None);
    }
    let same = |t: &StoredToken| t.record.is_present() && t.record.version == used.version;
    Ok(stored.into_iter().find(same))
}
