//! Which intents a request fits, and what becomes of it.

use super::{
    End, Kept, OF_PACKAGE, Standing, ends, kept,
    make::{approves_package, intent_of, totp_mac_holds},
    past::past,
    taken_back, withdrawn,
};
use crate::{
    audit::event::{Event, leaf},
    challenge::approval::Approval,
    desk::{Desk, Fault, people::Person},
    policy::{Later, Verdict, Why},
    publish::{
        Refusal, answer, close, judge,
        ledger::{self, BY_INTENT},
        state::{Fit, Record, State},
        veto,
    },
    store::Batch,
};
use proto::{
    api::{Mode, StateName, Status},
    ids::{IntentId, PackageName, PersonId, RegistryId, RequestId},
    intent::{COMMIT_CLAIM, Intended, IntentEvidence, Names},
    request::{CallerFacts, Item, RequestFacts},
    time::UnixTime,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most intents that one request fits.
const FITS_MAX: usize = 20;
/// Intents that are looked at for a package, or for all parts of a request.
const LOOK_MAX: usize = 1000;
/// Open requests outside every quota for one intent. An intent that names no digests can be fitted by a thief
/// of the CI account too, and what he opens beyond these places is counted as everybody's.
const PLACES: usize = 20;
/// Bytes of an id at a key's end.
const ID_BYTES: usize = 16;
/// Attempts to approve when others answer at the same moment.
const RACES_MAX: usize = 100;

/// The live intents that a request fits, which is opened now: of people who are enrolled and approve all of it.
/// Of each person the one that says most.
pub fn fitting(
    desk: &Desk,
    facts: &RequestFacts,
    now: UnixTime,
) -> Result<Vec<IntentEvidence>, Fault> {
    let mut best: Vec<IntentEvidence> = Vec::new();
    for row in of_first_package(desk, facts)? {
        let evidence = &row.evidence;
        if !evidence.lived_at(now)
            || !evidence.statement.fits(facts)
            || row.standing(desk, None)? == Standing::Over
            || !stands_for(desk, evidence)?
        {
            continue;
        }
        if let Some(known) = best.iter_mut().find(|e| e.person == evidence.person) {
            if known.statement.names() < evidence.statement.names() {
                *known = row.evidence;
            }
        } else if best.len() < FITS_MAX {
            best.push(row.evidence);
        }
    }
    Ok(best)
}

/// Whether a part of these items is what somebody announced, and has a place left: the others may be published
/// already, and are left out then. Each intent is looked at once, however many of the packages it names.
pub fn fits_in_part(desk: &Desk, facts: &RequestFacts, now: UnixTime) -> Result<bool, Fault> {
    let items: BTreeMap<String, &Item> = facts.items.iter().map(|i| (i.name(), i)).collect();
    let mut seen = BTreeSet::new();
    for item in &facts.items {
        for id in ids_of_package(desk, &item.package_key())? {
            if seen.len() == LOOK_MAX {
                return Ok(false);
            }
            let row = if seen.insert(id) {
                kept(desk, id)?
            } else {
                None
            };
            let Some(row) = row else { continue };
            let evidence = &row.value.evidence;
            let meant = evidence.statement.items.iter();
            let meant: Option<Vec<Item>> = meant
                .map(|m| items.get(&m.name()).map(|i| Item::clone(i)))
                .collect();
            let Some(items) = meant else { continue };
            let part = RequestFacts {
                items,
                caller: facts.caller.clone(),
                policy: facts.policy.clone(),
                job_key: facts.job_key.clone(),
                ..*facts
            };
            if evidence.lived_at(now)
                && evidence.statement.fits(&part)
                && row.value.standing(desk, None)? != Standing::Over
                && stands_for(desk, evidence)?
                && outside_quotas(desk, std::slice::from_ref(evidence))?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A request's items are exactly an intent's: those about its first package are all that could fit.
fn of_first_package(desk: &Desk, facts: &RequestFacts) -> Result<Vec<Kept>, Fault> {
    let Some(item) = facts.items.first() else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for id in ids_of_package(desk, &item.package_key())? {
        all.extend(kept(desk, id)?.map(|row| row.value));
    }
    Ok(all)
}

fn ids_of_package(desk: &Desk, package: &str) -> Result<Vec<IntentId>, Fault> {
    let prefix = ledger::prefix(&[package]);
    let rows = desk.live.range(OF_PACKAGE, &prefix, None, LOOK_MAX)?;
    let id = |key: &[u8]| key.get(prefix.len()..).and_then(intent_of);
    Ok(rows.iter().filter_map(|(key, _)| id(key)).collect())
}

/// Whether who made an intent still has that device and approves all of it (attacks 28, 29).
fn stands_for(desk: &Desk, evidence: &IntentEvidence) -> Result<bool, Fault> {
    let person = desk.person(&evidence.person)?;
    Ok(person.is_some_and(|p| {
        let items = &evidence.statement.items;
        p.value.key_of(&evidence.statement.device) == Some(&evidence.public_key)
            && items.iter().all(|i| approves_package(desk, i, &p.value))
    }))
}

/// What a record keeps of the intents that it fits.
pub fn described(
    desk: &Desk,
    facts: &RequestFacts,
    (actor, mode, commit_counts): (Option<&str>, Mode, bool),
    fitting: Vec<IntentEvidence>,
) -> Result<Vec<Fit>, Fault> {
    let policy = desk.policy.load();
    let mut fits = Vec::new();
    for evidence in fitting {
        let person = desk.person(&evidence.person)?;
        let asks = |p: &Person| p.actors.iter().any(|a| Some(a.as_str()) == actor);
        let requester = person.is_some_and(|p| asks(&p.value));
        let may = facts.items.iter().all(|i| {
            let entry = policy.entry(&i.registry, &i.package);
            entry.is_ok_and(|e| {
                (e.requester_may_approve || !requester) && e.factors.contains(&evidence.factor)
            })
        });
        let enough = match evidence.statement.names() {
            Names::Bytes => true,
            Names::Commit => commit_counts,
            Names::Versions => false,
        };
        let counts = may && enough && matches!(mode, Mode::Forward | Mode::Deposit);
        fits.push(Fit { evidence, counts });
    }
    Ok(fits)
}

/// Whether somebody announced a release of this package (or of any, where a registry's exchange names none) from the
/// commit of this caller: what he will upload is not known yet.
pub fn about(
    desk: &Desk,
    (registry, package): (&RegistryId, Option<&PackageName>),
    caller: &CallerFacts,
    now: UnixTime,
) -> Result<bool, Fault> {
    let prefix = match package {
        Some(package) => ledger::prefix(&[&format!("{registry}:{package}")]),
        None => format!("{registry}:").into_bytes(),
    };
    for (key, _) in desk.live.range(OF_PACKAGE, &prefix, None, LOOK_MAX)? {
        let at = key.len().saturating_sub(ID_BYTES);
        let id = key.get(at..).and_then(intent_of);
        let Some(row) = id.map(|id| kept(desk, id)).transpose()?.flatten() else {
            continue;
        };
        let evidence = &row.value.evidence;
        let commit = evidence.statement.commit.as_ref();
        if evidence.lived_at(now)
            && row.value.end.is_none()
            && commit.is_none_or(|c| caller.claims.get(COMMIT_CLAIM) == Some(c))
            && stands_for(desk, evidence)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether one of these intents has a place left for a request outside every quota (attack 54).
pub fn outside_quotas(desk: &Desk, fitting: &[IntentEvidence]) -> Result<bool, Fault> {
    for evidence in fitting {
        let prefix = ledger::prefix(&[&evidence.id.to_string()]);
        if desk.live.range(BY_INTENT, &prefix, None, PLACES)?.len() < PLACES {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The approvals among the intents of a request, verified now.
pub fn approvals(desk: &Desk, record: &Record) -> Result<Vec<Approval>, Fault> {
    let holding = holding(desk, record)?.into_iter();
    Ok(holding.map(|(_, approval)| approval).collect())
}

/// The intents that count for a request, but of those who answered nonetheless. While it can be taken back, those
/// that still hold; then those that it was approved with.
pub fn counting<'r>(desk: &Desk, record: &'r Record) -> Result<Vec<&'r IntentEvidence>, Fault> {
    let mut counting: Vec<_> = record.counting().collect();
    let open = matches!(record.name(), StateName::Pending | StateName::Approved);
    if open && !counting.is_empty() {
        let holding = holding(desk, record)?;
        counting.retain(|e| holding.iter().any(|(id, _)| *id == e.id));
    }
    Ok(counting)
}

/// How a request stands, for whoever holds its ticket: with the people whose yes counts now.
pub fn status_at(desk: &Desk, record: &Record, now: UnixTime) -> Result<Status, Fault> {
    let mut status = record.status_at(now);
    if let Some(until) = veto::until(desk, record, now)? {
        let later = Later {
            until,
            why: Why::Veto,
        };
        status.not_before = Some(until);
        status.reason.get_or_insert_with(|| later.to_string());
    }
    match counting(desk, record) {
        Ok(counting) => {
            let people = record.evidence().len() + counting.len();
            status.approvals = u32::try_from(people).unwrap_or(u32::MAX);
        }
        // It is said all the same how a request stands: as it stood.
        Err(Fault::Sealed) => {}
        Err(other) => return Err(other),
    }
    Ok(status)
}

/// Those intents that are approvals now, each verified. The row decides whether an intent is still there: no row, no
/// approval.
fn holding(desk: &Desk, record: &Record) -> Result<Vec<(IntentId, Approval)>, Fault> {
    let mut holding = Vec::new();
    for Fit { evidence, .. } in &record.intents {
        let Some(row) = kept(desk, evidence.id)? else {
            continue;
        };
        // What the request's row holds must be what was announced.
        if row.value.evidence != *evidence
            || row.value.standing(desk, Some(record.facts.id))? != Standing::Free
        {
            continue;
        }
        let person = desk.person(&evidence.person)?;
        let (device, assertion) = (&evidence.statement.device, evidence.assertion.as_ref());
        let enrolled = person
            .as_ref()
            .and_then(|p| judge::enrolled(desk, &p.value, device, assertion));
        match Approval::intended(evidence, &record.facts, record.opened, enrolled, |e| {
            totp_mac_holds(desk, e)
        }) {
            Ok(approval) => holding.push((evidence.id, approval)),
            Err(why) => {
                tracing::debug!(request = %record.facts.id, intent = %evidence.id, %why, "an intent does not count");
            }
        }
    }
    Ok(holding)
}

/// Approves a pending request whose intents are enough, if they are. Asked when it was opened, and again
/// whenever its job asks how it stands: the version may have been another request's for a while.
pub async fn approve(desk: &Desk, id: RequestId, now: UnixTime) -> Result<(), Refusal> {
    // Nothing is approved by itself either; whoever asks how it stands is told all the same.
    if desk.restored()?.is_some() {
        return Ok(());
    }
    for _ in 0..RACES_MAX {
        let Some(held) = ledger::live(desk, id)? else {
            return Ok(());
        };
        let record = &held.record;
        let pending = matches!(record.state, State::Pending { .. });
        if !pending || record.overdue(now) || !record.intents.iter().any(|fit| fit.counts) {
            return Ok(());
        }
        let unknown = vec![None; record.facts.items.len()];
        let verdict = judge::judge(desk, record, record.evidence(), &unknown, now)?;
        let later = match verdict {
            Verdict::Permit(_) => None,
            Verdict::Later(later) => Some(later),
            Verdict::Wait(_) | Verdict::Deny(_) => return Ok(()),
        };
        let batch = match answer::claim(desk, Batch::new(), record) {
            Ok(batch) => batch,
            // Another one has the version; this one's turn may come.
            Err(Refusal::VersionTaken(_)) => return Ok(()),
            Err(other) => return Err(other),
        };
        let (mut batch, spent) = spend(desk, batch, record, now)?;
        if later.is_some() {
            batch = veto::held_back(batch, record);
        }
        let version = held.version;
        let step = held
            .record
            .resting_on(&spent)
            .approve_intended(later, now)?;
        match ledger::persist(desk, version, step, batch, now).await {
            // Somebody answered, took it back or froze it: it is judged again.
            Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other.into()),
            Ok(record) => {
                desk.metrics.answers.inc();
                desk.bells.ask();
                close::end_rivals(desk, &record, now).await?;
                return Ok(());
            }
        }
    }
    Err(Refusal::Busy)
}

/// Spends the intents that count for a request, in the commit that approves it: of two requests for one
/// intent, one is approved (attack 27). Says which: one that does not hold any more is none of them.
pub fn spend(
    desk: &Desk,
    mut batch: Batch,
    record: &Record,
    now: UnixTime,
) -> Result<(Batch, Vec<IntentId>), Fault> {
    let request = record.facts.id;
    let holding = holding(desk, record)?;
    let mut spent = Vec::new();
    for Fit { evidence, .. } in record.intents.iter().filter(|fit| fit.counts) {
        if !holding.iter().any(|(id, _)| *id == evidence.id) {
            continue;
        }
        let Some(row) = kept(desk, evidence.id)? else {
            continue;
        };
        spent.push(evidence.id);
        let event = Event::IntentSpent {
            intent: evidence.id,
            request,
        };
        batch = ends(desk, batch, row, End::Spent { request })?.append(leaf(&event, now));
    }
    Ok((batch, spent))
}

/// A denied request's intents are over, where they had approved it or would have: else the next request with
/// these bytes would be approved by them at once. What merely rang goes on.
pub fn ended_by_denial(
    desk: &Desk,
    mut batch: Batch,
    record: &Record,
    by: &PersonId,
    now: UnixTime,
) -> Result<Batch, Fault> {
    for Fit { evidence, .. } in record.intents.iter().filter(|fit| fit.counts) {
        let id = evidence.id;
        let row = kept(desk, id)?;
        if let Some(row) = &row
            && row.value.standing(desk, Some(record.facts.id))? != Standing::Free
        {
            continue;
        }
        if let Some(without) = taken_back(desk, batch.clone(), id, row, by)? {
            batch = without.append(leaf(&withdrawn(id, by), now));
        }
    }
    Ok(batch)
}

/// What the question shows of the intents that a request fits.
pub fn shown(record: &Record) -> Vec<Intended> {
    let fits = record.intents.iter();
    fits.map(|fit| Intended {
        id: fit.evidence.id,
        person: fit.evidence.person.clone(),
        made: fit.evidence.made,
        names: fit.evidence.statement.names(),
        counts: fit.counts,
    })
    .collect()
}

/// Intents about one of a request's versions that it does not fit, one sentence each: somebody announced it, and
/// this is something else.
pub fn unlike(desk: &Desk, record: &Record) -> Result<Vec<String>, Fault> {
    let mut lines = Vec::new();
    for item in &record.facts.items {
        let prefix = ledger::prefix(&[&item.package_key()]);
        for (key, _) in desk.live.range(OF_PACKAGE, &prefix, None, LOOK_MAX)? {
            let id: Option<IntentId> = key.get(prefix.len()..).and_then(intent_of);
            let Some(row) = id.map(|id| known(desk, id)).transpose()?.flatten() else {
                continue;
            };
            let evidence = &row.evidence;
            let same = |i: &proto::intent::IntendedItem| i.name() == item.name();
            if evidence.lived_at(record.opened)
                && !matches!(row.end, Some(End::Withdrawn { .. }))
                && evidence.statement.items.iter().any(same)
                && !evidence.statement.fits(&record.facts)
            {
                lines.push(format!(
                    "{} announced {}, and this is NOT what was announced (other commit, files, tag or packages)",
                    evidence.person,
                    item.name()
                ));
            }
        }
    }
    lines.dedup();
    Ok(lines)
}

/// An intent, also one whose time is over: a request that came in its time is compared with it.
fn known(desk: &Desk, id: IntentId) -> Result<Option<Kept>, Fault> {
    match kept(desk, id)? {
        None => past(desk, id),
        Some(row) => Ok(Some(row.value)),
    }
}
