//! Gathers what the policy may see, and asks it. Asked before anybody is rung, with every answer,
//! when the credential is collected, and again before bytes leave.

use super::{
    Refusal,
    ledger::{self, FROZEN},
    state::Record,
};
use crate::{
    caller::Caller,
    challenge::approval::Approval,
    desk::{Desk, Fault, Registry},
    policy::{self, Admitted, ItemNow, Now, Verdict},
    registry::npm::Published,
    store::Batch,
    vault::{Domain, release as vault},
};
use proto::{
    answer::Evidence,
    canonical::Canonical,
    digest::unhex,
    ids::VersionText,
    request::{Item, RequestFacts},
    time::UnixTime,
};

/// Whether a request may be opened and rung for.
pub async fn admit(
    desk: &Desk,
    facts: &RequestFacts,
    caller: &Caller,
    now: UnixTime,
) -> Result<Admitted, Refusal> {
    let mut published = Vec::new();
    for item in &facts.items {
        // A registry that does not answer does not stop the question: the decision is taken again
        // before bytes leave, and then it must answer.
        published.push(published_versions(desk, item).await.ok());
    }
    let items = items_now(desk, facts, &published)?;
    policy::admissible(
        facts,
        &desk.policy.load(),
        &Now {
            now,
            opened: now,
            // The time for answers is the policy's; it starts now.
            expires: now.after(1),
            actor: caller.actor(),
            client_key_packages: caller.limits(),
            approvals: &[],
            people: &people(desk)?,
            items: &items,
        },
    )
    .map_err(Refusal::Policy)
}

/// What the policy says of a stored request with this evidence.
pub fn judge(
    desk: &Desk,
    record: &Record,
    evidence: &[Evidence],
    published: &[Option<Vec<VersionText>>],
    now: UnixTime,
) -> Result<Verdict, Refusal> {
    let mut approvals = Vec::new();
    for e in evidence {
        let person = desk.person(&e.person)?;
        let key = person
            .as_ref()
            .and_then(|p| p.value.key_of(&e.statement.device));
        match Approval::verify(e, &record.digest, key, |e| totp_mac_holds(desk, e)) {
            Ok(approval) => approvals.push(approval),
            Err(why) => {
                tracing::info!(request = %record.facts.id, person = %e.person, %why, "an answer does not count");
            }
        }
    }
    let at_open = Admitted {
        quorum: record.quorum,
        factors: record.factors.clone(),
        answers_seconds: record.answers_seconds,
        mode: record.mode,
    };
    let items = items_now(desk, &record.facts, published)?;
    Ok(policy::evaluate(
        &record.facts,
        &desk.policy.load(),
        &at_open,
        &Now {
            now,
            opened: record.opened,
            expires: record.expires(),
            actor: record.actor.as_deref(),
            client_key_packages: record.limits.as_deref(),
            approvals: &approvals,
            people: &people(desk)?,
            items: &items,
        },
    ))
}

fn people(desk: &Desk) -> Result<Vec<policy::Person>, Fault> {
    let human = |p: crate::desk::people::Person| policy::Person {
        id: p.id,
        groups: p.groups,
        actors: p.actors,
    };
    Ok(desk.people()?.into_iter().map(human).collect())
}

fn items_now<'a>(
    desk: &Desk,
    facts: &RequestFacts,
    published: &'a [Option<Vec<VersionText>>],
) -> Result<Vec<ItemNow<'a>>, Fault> {
    facts
        .items
        .iter()
        .zip(published)
        .map(|(item, published)| {
            Ok(ItemNow {
                frozen: ledger::freeze(desk, &item.package_key())?.is_some(),
                has_tags: matches!(
                    desk.registries.get(&item.registry),
                    Some(Registry::Npm { .. })
                ),
                published: published.as_deref(),
            })
        })
        .collect()
}

/// Makes a commit fail when one of the packages gets frozen before it: a freeze beats an approved
/// request (attack 52).
pub fn unless_frozen(mut batch: Batch, facts: &RequestFacts) -> Batch {
    for item in &facts.items {
        batch = batch.require_absent(FROZEN, item.package_key().into_bytes());
    }
    batch
}

/// The bytes whose MAC stays as evidence of an accepted TOTP step.
pub fn totp_evidence(evidence: &Evidence, step: u64) -> Vec<u8> {
    Canonical::new("countersign/totp/v1")
        .text(evidence.person.as_str())
        .bytes(&evidence.statement.canonical())
        .number(step)
        .finish()
}

/// `<step>.<mac>` as stored in the evidence.
fn totp_mac_holds(desk: &Desk, evidence: &Evidence) -> bool {
    let Some((step, mac)) = evidence.totp_mac.as_deref().and_then(|m| m.split_once('.')) else {
        return false;
    };
    let (Ok(step), Some(mac)) = (step.parse::<u64>(), unhex(mac)) else {
        return false;
    };
    desk.vault
        .mac_holds(Domain::Totp, &totp_evidence(evidence, step), &mac)
        .unwrap_or(false)
}

/// The versions that the registry serves.
pub async fn published_versions(desk: &Desk, item: &Item) -> Result<Vec<VersionText>, Refusal> {
    match desk.registries.get(&item.registry) {
        Some(Registry::Npm { .. }) => Ok(read(desk, item).await?.versions.into_keys().collect()),
        Some(Registry::Secrets) | None => Ok(Vec::new()),
    }
}

/// What the registry serves of an item's package.
pub async fn read(desk: &Desk, item: &Item) -> Result<Published, Refusal> {
    let Some(Registry::Npm { upstream, .. }) = desk.registries.get(&item.registry) else {
        return Ok(Published::default());
    };
    let token = vault::for_reading(&desk.vault, &*desk.live, item, desk.world.now())
        .map_err(Fault::from)?;
    upstream
        .versions(&item.package, token.as_ref())
        .await
        .map_err(|e| Refusal::RegistryDown(e.to_string()))
}
