//! What a registry says of a token, asked without publishing anything.
//!
//! It is asked before a token is stored, so that a mistyped one takes no good one's place, and whenever an admin likes. A no
//! is recorded, and the token is not stored. Where nobody can tell, that is what is stored beside it and shown.

use super::{facts, present, refusal, scope, versions};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault, Registry},
    publish::{Refusal, known},
    registry::{Proof, ReadError, Trial, Upstream},
    secret::Secret,
    store::Batch,
    vault::{
        release,
        tokens::{self, Scope},
    },
};
use proto::{
    act::{TokenPlace, TokenReturn},
    api::{ProofOutcome, TokenName, TokenProof},
    ids::{PackageName, PersonId, RegistryId},
    time::UnixTime,
};
use std::{collections::BTreeSet, time::Duration};

/// Time for all questions about one token.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the answer is written again, where uses of the token come between.
pub(super) const TRIES: u32 = 8;

/// A token that is to be stored, with what its registry says of it.
pub(in crate::admin) struct Given {
    pub(super) token: Secret<String>,
    pub(super) proof: TokenProof,
}

impl Given {
    /// Whether nobody could prove it, and a publish will show: until then the version before is kept. What no registry of
    /// the configuration takes is never shown to be good.
    pub(super) fn may_be_useless(&self, desk: &Desk, registry: &RegistryId) -> bool {
        self.proof.outcome == ProofOutcome::Unproved && asked_at(desk, registry).is_some()
    }

    /// The token, to be sealed while it waits for another admin.
    pub(in crate::admin) const fn token(&self) -> &Secret<String> {
        &self.token
    }
}

/// Asks the registry about a token that is to be stored. The next version of one is stored only where the registry was
/// asked: the present one works, as far as anybody knows.
pub(in crate::admin) async fn given(
    desk: &Desk,
    at: &TokenPlace,
    token: Secret<String>,
    rotates: bool,
    by: &PersonId,
    now: UnixTime,
) -> Result<Given, Refusal> {
    let place = scope(&at.scope)?;
    let name = TokenName {
        registry: at.registry.clone(),
        scope: at.scope.clone(),
    };
    let stored = match present(desk, &name) {
        Ok(stored) => Some(release::for_check(&desk.vault, &stored).map_err(refusal)?),
        Err(Refusal::NoToken(_)) => None,
        Err(other) => return Err(other),
    };
    let asked = ask(desk, &at.registry, &place, &token, stored.as_ref()).await;
    let proof = match asked {
        Ok(proof) => proof,
        Err(why) if rotates => return Err(Refusal::RegistryDown(why)),
        Err(why) => Proof::unproved(why),
    };
    if proof.outcome == ProofOutcome::Refused {
        return Err(refused(desk, &name, proof, by, now).await?);
    }
    let proof = dated(proof, now);
    Ok(Given { token, proof })
}

/// Asks the registry about the version that is kept, before it takes its place again. One that is refused too is nobody's
/// way back; a registry that does not answer is in nobody's way, since that version worked.
pub(in crate::admin) async fn kept(
    desk: &Desk,
    to: &TokenReturn,
    by: &PersonId,
    now: UnixTime,
) -> Result<(), Refusal> {
    let name = &TokenName {
        registry: to.registry.clone(),
        scope: to.scope.clone(),
    };
    let all = versions(desk, name)?;
    // Where there is none, the act itself says so.
    let Some(stored) = all.iter().rfind(|t| t.record.is_kept()) else {
        return Ok(());
    };
    let token = release::for_check(&desk.vault, stored).map_err(refusal)?;
    let of = &stored.record;
    match ask(desk, &of.registry, &of.scope, &token, None).await {
        Ok(proof) if proof.outcome == ProofOutcome::Refused => {
            Err(refused(desk, name, proof, by, now).await?)
        }
        _ => Ok(()),
    }
}

/// Records that a registry does not take a token.
async fn refused(
    desk: &Desk,
    name: &TokenName,
    proof: Proof,
    by: &PersonId,
    now: UnixTime,
) -> Result<Refusal, Refusal> {
    let event = Event::TokenRefused {
        registry: name.registry.clone(),
        scope: name.scope.clone(),
        by: by.clone(),
    };
    desk.commit(Batch::new(), &[event], now).await?;
    Ok(Refusal::TokenRefused(proof.detail))
}

/// Asks the registry about a stored token, and keeps the answer beside it.
pub async fn check(
    desk: &Desk,
    name: &TokenName,
    by: &PersonId,
    now: UnixTime,
) -> Result<TokenProof, Refusal> {
    let stored = present(desk, name)?;
    let token = release::for_check(&desk.vault, &stored).map_err(refusal)?;
    let of = &stored.record;
    let proof = ask(desk, &of.registry, &of.scope, &token, None).await;
    let proof = dated(proof.map_err(Refusal::RegistryDown)?, now);
    drop(token);
    for _ in 1..TRIES {
        match note(desk, name, of.version, &proof, by, now).await {
            Err(Refusal::Fault(Fault::Conflict(..))) => {}
            done => return done.map(|()| proof),
        }
    }
    note(desk, name, of.version, &proof, by, now).await?;
    Ok(proof)
}

/// Writes the answer down, where that version is still the present one.
async fn note(
    desk: &Desk,
    name: &TokenName,
    version: u64,
    proof: &TokenProof,
    by: &PersonId,
    now: UnixTime,
) -> Result<(), Refusal> {
    let mut stored = present(desk, name)?;
    if stored.record.version != version {
        return Err(Refusal::BadRequest(
            "it was rotated meanwhile: check it again".to_owned(),
        ));
    }
    stored.record.proof = Some(proof.clone());
    let event = Event::TokenChecked(facts(&stored.record, by));
    let (vault, live) = (&desk.vault, &*desk.live);
    let batch = tokens::note_proof(vault, live, Batch::new(), stored, proof.clone());
    desk.commit(batch.map_err(refusal)?, &[event], now).await?;
    Ok(())
}

/// Asks; why nobody could, otherwise.
pub(super) async fn ask(
    desk: &Desk,
    registry: &RegistryId,
    scope: &Scope,
    token: &Secret<String>,
    present: Option<&Secret<String>>,
) -> Result<Proof, String> {
    let Some(upstream) = asked_at(desk, registry) else {
        return Ok(Proof::unproved(
            "the broker keeps this secret, and speaks no protocol with its registry",
        ));
    };
    let package = package(desk, registry, scope);
    let trial = Trial {
        package: package.as_ref(),
        present,
    };
    match tokio::time::timeout(PATIENCE, upstream.prove(token, trial)).await {
        Ok(Ok(proof)) => Ok(proof),
        // It is there, and knows no such question.
        Ok(Err(why @ (ReadError::Status(404 | 405 | 410 | 501) | ReadError::NotUnderstood))) => {
            Ok(Proof::unproved(format!("it has no such question: {why}")))
        }
        Ok(Err(why)) => Err(why.to_string()),
        Err(_) => Err(ReadError::TimedOut.to_string()),
    }
}

/// Who is asked about a registry's tokens: itself, or the one whose stages a token of this name approves.
fn asked_at<'a>(desk: &'a Desk, registry: &RegistryId) -> Option<&'a dyn Upstream> {
    let approves = |(name, entry): (&RegistryId, &'a Registry)| {
        let own = desk.approve_token(name) == registry;
        entry.upstream().filter(|_| own)
    };
    let own = desk.upstream(registry);
    own.or_else(|| desk.registries.iter().find_map(approves))
}

/// A package that the token should be good for: the one that it is stored for, or one that was published here and that no
/// narrower token serves. A wide token need not be good for what another one is for.
fn package(desk: &Desk, registry: &RegistryId, scope: &Scope) -> Option<PackageName> {
    if let Ok(package) = scope.as_str().parse::<PackageName>() {
        return Some(package);
    }
    let start = format!("{registry}:");
    let names = known::packages(desk).ok()?;
    let stored = tokens::list(&desk.vault, &*desk.live).ok()?;
    let stored = stored.iter().map(|t| &t.record);
    let taken: BTreeSet<_> = stored
        .filter(|t| t.registry == *registry)
        .map(|t| &t.scope)
        .collect();
    let names = names.iter().filter_map(|name| name.strip_prefix(&start));
    let mut packages = names.filter_map(|name| name.parse::<PackageName>().ok());
    packages.find(|package| {
        let mut scopes = Scope::candidates(package).into_iter();
        scopes.find(|s| s == scope || taken.contains(s)).as_ref() == Some(scope)
    })
}

fn dated(proof: Proof, at: UnixTime) -> TokenProof {
    TokenProof {
        outcome: proof.outcome,
        account: proof.account,
        detail: proof.detail,
        package: None,
        at,
    }
}
