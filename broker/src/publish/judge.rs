//! Gathers what the policy may see, and asks it. Asked before anybody is rung, with every answer,
//! when the credential is collected, and again before bytes leave.

use super::{Refusal, inspect, intent, ledger, prove::totp_record_holds, state::Record};
use crate::{
    caller::Caller,
    challenge::{
        approval::{Approval, Enrolled},
        passkey::Passkeys,
    },
    desk::{Desk, Fault, people::Person},
    policy::{self, Admitted, ItemNow, Now, Verdict, is_risky},
    registry::Published,
    vault::{Domain, release as vault},
};
use futures_util::StreamExt as _;
use proto::{
    answer::{Evidence, Factor},
    canonical::Canonical,
    card::Card,
    device::DeviceKind,
    digest::unhex,
    ids::{DeviceId, VersionText},
    passkey::Assertion,
    request::{Item, RequestFacts},
    time::UnixTime,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long opening waits for what the registries serve.
const READ_BUDGET: Duration = Duration::from_secs(3);
/// The same where the answer says which items are left out: what is not known then is a refusal.
const LEAVE_OUT_BUDGET: Duration = Duration::from_secs(20);
/// Packages of one request that a registry is asked for at the same time.
const READS_AT_ONCE: usize = 32;

/// Whether a request may be opened and rung for. With `leave_out`, items that are published already are
/// taken out of it first.
pub async fn admit(
    desk: &Desk,
    facts: &mut RequestFacts,
    leave_out: bool,
    caller: &Caller,
    now: UnixTime,
) -> Result<Admitted, Refusal> {
    // First without the registry: a stranger's wish must not make the broker ask anybody (attack 53).
    let unknown = vec![None; facts.items.len()];
    admit_knowing(desk, facts, caller, &unknown, now)?;
    // A registry that does not answer does not stop the question: the decision is taken again before
    // bytes leave, and then it must answer. All are asked within one budget of time.
    let budget = if leave_out {
        LEAVE_OUT_BUDGET
    } else {
        READ_BUDGET
    };
    let until = Instant::now() + budget;
    let reads = facts
        .items
        .iter()
        .map(|item| async move {
            tokio::time::timeout_at(until, read(desk, item))
                .await
                .ok()?
                .ok()
        })
        .collect::<Vec<_>>();
    let reads = futures_util::stream::iter(reads).buffered(READS_AT_ONCE);
    let mut shown: Vec<Option<Published>> = reads.collect().await;
    if leave_out {
        shown = left(&mut facts.items, shown)?;
    }
    let shown = facts.items.iter().zip(shown);
    let published: Vec<_> = shown.map(|(item, p)| Some(p?.when_asked(item))).collect();
    admit_knowing(desk, facts, caller, &published, now)
}

/// Takes out what is published already. What is not known is no reason to leave an item out, nor to ask for
/// it: a version that turns out to be there would end the whole request as a conflict.
fn left(
    items: &mut Vec<Item>,
    shown: Vec<Option<Published>>,
) -> Result<Vec<Option<Published>>, Refusal> {
    let mut kept = Vec::with_capacity(items.len());
    for (item, shown) in std::mem::take(items).into_iter().zip(shown) {
        let Some(shown) = shown else {
            return Err(Refusal::RegistryDown(format!(
                "it did not say which versions of {} it has",
                item.package
            )));
        };
        if !shown.has(&item) {
            items.push(item);
            kept.push(Some(shown));
        }
    }
    if items.is_empty() {
        return Err(Refusal::AllPublished);
    }
    Ok(kept)
}

fn admit_knowing(
    desk: &Desk,
    facts: &RequestFacts,
    caller: &Caller,
    published: &[Option<Vec<VersionText>>],
    now: UnixTime,
) -> Result<Admitted, Refusal> {
    // Nobody has the bytes yet.
    let items = items_now(desk, facts, published, &[])?;
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
            approved: None,
            intended: !intent::fitting(desk, facts, now)?.is_empty(),
            approvals: &[],
            people: &people(desk, now)?,
            items: &items,
        },
    )
    .map_err(Refusal::Policy)
}

/// Whether a stored request is one that this broker took, and what decides about it is as it was then.
pub fn is_as_opened(desk: &Desk, record: &Record) -> Result<bool, Fault> {
    let bound = unhex(&record.bound).unwrap_or_default();
    let vault = &desk.vault;
    Ok(vault.mac_holds(Domain::Row, &record.beside_the_digest(), &bound)?)
}

/// Whether anything may be approved or released at all. Whoever lets something through asks this, here or by way
/// of [`judge`]: a database that was put back knows nothing of what was decided after it (attack 45).
pub fn serves(desk: &Desk) -> Result<(), Refusal> {
    match desk.restored()? {
        None => Ok(()),
        Some(_) => Err(Refusal::Restored),
    }
}

/// What the policy says of a stored request with this evidence.
pub fn judge(
    desk: &Desk,
    record: &Record,
    evidence: &[Evidence],
    published: &[Option<Vec<VersionText>>],
    now: UnixTime,
) -> Result<Verdict, Refusal> {
    serves(desk)?;
    if !is_as_opened(desk, record)? {
        return Err(Fault::Damaged("a request").into());
    }
    let mut approvals = Vec::new();
    for e in evidence {
        let person = desk.person(&e.person)?;
        let (device, assertion) = (&e.statement.device, e.assertion.as_ref());
        let enrolled = person
            .as_ref()
            .and_then(|p| enrolled(desk, &p.value, device, assertion));
        match Approval::verify(e, &record.digest, enrolled, |e| {
            totp_record_holds(desk, e.totp_mac.as_deref(), |step| totp_evidence(e, step))
        }) {
            Ok(approval) => approvals.push(approval),
            Err(why) => {
                tracing::info!(request = %record.facts.id, person = %e.person, %why, "an answer does not count");
            }
        }
    }
    approvals.extend(intent::approvals(desk, record)?);
    let at_open = Admitted {
        quorum: record.quorum,
        factors: record.factors.clone(),
        answers_seconds: record.answers_seconds,
        mode: record.mode,
        mint_seconds: record.mint_seconds,
        terms: record.terms.clone(),
    };
    let cards = inspect::cards_by_item(desk, record)?;
    let items = items_now(desk, &record.facts, published, &cards)?;
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
            approved: record.approved_at(),
            intended: !record.intents.is_empty(),
            approvals: &approvals,
            people: &people(desk, record.opened)?,
            items: &items,
        },
    ))
}

/// What of some evidence is enrolled for this person now.
pub(super) fn enrolled<'a>(
    desk: &'a Desk,
    person: &'a Person,
    device: &DeviceId,
    assertion: Option<&Assertion>,
) -> Option<Enrolled<'a>> {
    let device = person.device(device)?;
    let passkey = assertion.and_then(|a| person.passkey(&a.credential));
    Some(Enrolled {
        device: &device.public_key,
        browser: device.kind == DeviceKind::Browser,
        passkey: passkey.map(|p| &p.registered.public_key),
        site: desk.passkeys.as_ref().map(Passkeys::site),
    })
}

/// The proofs that count for a request as it is now: fewer where the bytes are a risk.
pub fn factors(desk: &Desk, record: &Record) -> Result<Vec<Factor>, Fault> {
    let cards = inspect::cards_by_item(desk, record)?;
    let policy = desk.policy.load();
    let mut factors = record.factors.clone();
    for (item, cards) in record.facts.items.iter().zip(&cards) {
        let entry = policy.entry(&item.registry, &item.package).ok();
        if let Some(strong) = entry
            .and_then(|e| e.risky_factors.as_ref())
            .filter(|_| is_risky(cards))
        {
            factors.retain(|f| strong.contains(f));
        }
    }
    Ok(factors)
}

/// People who can count: enrolled before the request was opened, so that nobody is made up for it.
pub(super) fn people(desk: &Desk, opened: UnixTime) -> Result<Vec<policy::Person>, Fault> {
    let people = desk.people()?;
    let people = people.iter();
    let before = people.filter(|p| p.devices.iter().any(|d| d.enrolled <= opened));
    Ok(before
        .map(|p| policy::Person {
            id: p.id.clone(),
            groups: p.groups.clone(),
            actors: p.actors.clone(),
        })
        .collect())
}

fn items_now<'a>(
    desk: &Desk,
    facts: &RequestFacts,
    published: &'a [Option<Vec<VersionText>>],
    cards: &'a [Vec<Card>],
) -> Result<Vec<ItemNow<'a>>, Fault> {
    facts
        .items
        .iter()
        .zip(published)
        .enumerate()
        .map(|(n, (item, published))| {
            Ok(ItemNow {
                frozen: ledger::is_frozen(desk, &item.package_key())?,
                has_tags: desk
                    .registries
                    .get(&item.registry)
                    .is_some_and(|r| r.kind().row().tags),
                published: published.as_deref(),
                cards: cards.get(n).map_or(&[], Vec::as_slice),
            })
        })
        .collect()
}

/// The bytes whose MAC stays as evidence of an accepted TOTP step.
pub fn totp_evidence(evidence: &Evidence, step: u64) -> Vec<u8> {
    Canonical::new("countersign/totp/v1")
        .text(evidence.person.as_str())
        .bytes(&evidence.statement.canonical())
        .number(step)
        .finish()
}

/// What the registry serves of an item's package.
pub async fn read(desk: &Desk, item: &Item) -> Result<Published, Refusal> {
    let Some(upstream) = desk.upstream(&item.registry) else {
        return Ok(Published::default());
    };
    let token = vault::for_reading(
        &desk.vault,
        &*desk.live,
        &item.registry,
        &item.package,
        desk.world.now(),
    )
    .map_err(Fault::from)?;
    upstream
        .versions(&item.package, token.as_ref())
        .await
        .map_err(|e| Refusal::RegistryDown(e.to_string()))
}
