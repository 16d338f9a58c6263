//! What a job with an approval is told of the registry: which versions of a package there are.
//!
//! Tools that publish a whole monorepo (changesets, `pnpm -r publish`, lerna) ask this first, and try whatever they
//! believe to be missing. It is no door to a private registry: only the holder of a live credential is told,
//! only of packages that the policy lets its caller ask for, and version numbers alone. Whether a version
//! exists is also what opening a request for it says.

use super::{judge, ledger, state::State};
use crate::{desk::Desk, registry::Published};
use proto::{
    bearer::BearerHash,
    ids::{PackageName, RegistryId},
};

/// What the registry shows of a package, but for the versions that this very approval is about: a client that
/// repeats an upload must not be told that there is nothing left to do, for its outcome is the record's to say.
/// `None` tells nothing: not this credential, not this package, no such package, no answer.
pub async fn shown(
    desk: &Desk,
    registry: &RegistryId,
    credential: BearerHash,
    package: &PackageName,
) -> Option<Published> {
    let record = ledger::of_credential(desk, credential).ok()??;
    let now = desk.world.now();
    match &record.state {
        State::Releasing { until, .. } if now < *until => {}
        _ => return None,
    }
    let policy = desk.policy.load();
    policy
        .may_ask(registry, package, &record.facts.caller)
        .ok()?;
    // A stolen credential must not make us flood the registry (attack 53).
    if !desk.lookups.take(now) {
        return None;
    }
    let mut asked = record.facts.items.first()?.clone();
    asked.registry = registry.clone();
    asked.package = package.clone();
    let mut shown = judge::read(desk, &asked).await.ok()?;
    for item in &record.facts.items {
        if item.registry == *registry && item.package == *package {
            shown.versions.remove(&item.version);
        }
    }
    (!shown.versions.is_empty()).then_some(shown)
}
