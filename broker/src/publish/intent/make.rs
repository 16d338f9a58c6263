//! Announcing: a device signs what is about to be released, with its second factor.

use super::{
    End, INTENTS, Kept, OF_PACKAGE, ends, kept,
    past::{self, PAST, past},
    taken_back, withdrawn,
};
use crate::{
    audit::{event::Event, reason::AnswerRefusal},
    desk::{Desk, Fault, people::Person},
    publish::{
        Refusal, judge, ledger,
        prove::{
            About, Proved, kind_of, prove_in_browser, prove_now, totp_record, totp_record_holds,
        },
    },
    store::Batch,
};
use proto::{
    answer::Factor,
    api::SecondFactor,
    canonical::Canonical,
    device::CALL_WINDOW,
    digest::{Algorithm, Digest},
    factors::change,
    ids::{DeviceId, IntentId, PersonId, RequestId},
    intent::{
        IntendedItem, IntentEvidence, IntentLine, IntentRequest, IntentState, Intents, LIFE_MAX,
        LIFE_MIN,
    },
    passkey::Act,
    time::UnixTime,
};
use std::collections::BTreeMap;

/// Live intents of one person.
const LIVE_MAX: usize = 50;
/// Intents of one person whose time is not over: whoever spends them as fast as he makes them fills the inventory.
const LISTED_MAX: usize = 200;
/// Lines of a list.
const LINES_MAX: usize = 200;
/// How far back a list goes, in seconds.
const LIST_BACK: u64 = 30 * 24 * 60 * 60;
/// Rows looked at for a list.
const LOOK_MAX: usize = 5000;
/// Attempts to end an intent that others spend at the same moment.
const RACES_MAX: usize = 20;

/// Takes an announcement. `person` signed the call with the device that the statement names.
pub async fn intend(
    desk: &Desk,
    person: &Person,
    given: &IntentRequest,
    now: UnixTime,
) -> Result<IntentLine, Refusal> {
    let bad = |why: &str| Refusal::BadRequest(why.to_owned());
    let statement = &given.statement;
    statement.check().map_err(Refusal::BadRequest)?;
    if !desk.world.near(statement.time, now, CALL_WINDOW) {
        return Err(bad("the device's clock is more than a minute off; set it"));
    }
    let life = statement.expires.since(now);
    // The device's clock may be some seconds behind or ahead.
    if life.saturating_add(CALL_WINDOW) < LIFE_MIN || life > LIFE_MAX.saturating_add(CALL_WINDOW) {
        return Err(bad("an intent lives 1 minute to 24 hours"));
    }
    // What is announced may count as an approval.
    judge::serves(desk)?;
    let accepted = may_announce(desk, person, &statement.items)?;
    let Some(public_key) = person.key_of(&statement.device) else {
        return Err(Refusal::NotAllowed(
            "this device is not enrolled".to_owned(),
        ));
    };
    let (live, listed) = own_of(desk, &person.id, now)?;
    if listed >= LISTED_MAX {
        return Err(Refusal::NotAllowed(format!(
            "{} announced {LISTED_MAX} releases whose time is not over; announce again when some are",
            person.id
        )));
    }
    if live >= LIVE_MAX {
        return Err(Refusal::NotAllowed(format!(
            "{} has {LIVE_MAX} live intents already; withdraw some",
            person.id
        )));
    }
    let mut evidence = IntentEvidence {
        id: desk.world.intent_id().map_err(Fault::from)?,
        person: person.id.clone(),
        factor: Factor::Device,
        statement: statement.clone(),
        public_key: *public_key,
        signature: given.signature.clone(),
        totp_mac: None,
        assertion: None,
        made: now,
    };
    if !evidence.signature_holds() {
        desk.metrics.answers_refused.inc();
        let event = refusal(person, AnswerRefusal::Signature);
        desk.commit(Batch::new(), &[event], now).await?;
        return Err(Refusal::NotAllowed(
            "the statement's signature does not hold".to_owned(),
        ));
    }
    if !accepted.contains(&kind_of(&given.factor)) {
        return Err(Refusal::FactorMissing);
    }
    let proved = second_factor(desk, person, given, now).await?;
    evidence.factor = proved.factor;
    evidence.assertion = proved.assertion;
    if let Some(step) = proved.step {
        let bytes = totp_evidence(&evidence, step);
        evidence.totp_mac = Some(totp_record(desk, &bytes, step)?);
    }
    past::sweep(desk, now).await?;
    let batch = proved.spent;
    store(desk, person, evidence, batch, now).await
}

/// Whether this person may announce these; returns the factors that all of them accept.
fn may_announce(
    desk: &Desk,
    person: &Person,
    items: &[IntendedItem],
) -> Result<Vec<Factor>, Refusal> {
    let policy = desk.policy.load();
    let mut accepted = vec![Factor::Device, Factor::Totp, Factor::Passkey];
    for item in items {
        let entry = policy
            .entry(&item.registry, &item.package)
            .ok()
            .filter(|e| e.approvers.iter().any(|g| person.groups.contains(g)))
            .ok_or_else(|| {
                Refusal::NotAllowed(format!(
                    "the policy does not name you as an approver of {}",
                    item.package_key()
                ))
            })?;
        accepted.retain(|f| entry.factors.contains(f));
    }
    Ok(accepted)
}

/// The second factor of an announcement: charged before it is compared, and spent in the commit that takes
/// it (attacks 21, 22).
async fn second_factor(
    desk: &Desk,
    person: &Person,
    given: &IntentRequest,
    now: UnixTime,
) -> Result<Proved, Refusal> {
    let about = About {
        act: Act::Intend,
        digest: &given.statement.digest().0,
        device: &given.statement.device,
        wrong: 0,
    };
    let recorded = |reason| {
        desk.metrics.answers_refused.inc();
        refusal(person, reason)
    };
    prove_now(desk, person, about, &given.factor, recorded, now).await
}

/// The bytes whose MAC stays as evidence of an accepted TOTP step.
fn totp_evidence(evidence: &IntentEvidence, step: u64) -> Vec<u8> {
    Canonical::new("countersign/totp-intent/v1")
        .text(evidence.person.as_str())
        .bytes(evidence.id.0.as_bytes())
        .bytes(&evidence.statement.canonical())
        .number(evidence.made.0)
        .number(step)
        .finish()
}

/// Whether the record of an intent's second factor is this broker's.
pub(super) fn totp_mac_holds(desk: &Desk, evidence: &IntentEvidence) -> bool {
    totp_record_holds(desk, evidence.totp_mac.as_deref(), |step| {
        totp_evidence(evidence, step)
    })
}

async fn store(
    desk: &Desk,
    person: &Person,
    evidence: IntentEvidence,
    mut batch: Batch,
    now: UnixTime,
) -> Result<IntentLine, Refusal> {
    let id = evidence.id;
    let statement = &evidence.statement;
    let event = Event::IntentMade {
        intent: id,
        person: person.id.clone(),
        device: statement.device.clone(),
        factor: evidence.factor,
        items: statement.items.iter().map(IntendedItem::name).collect(),
        names: statement.names(),
        statement: Digest::of(Algorithm::Sha256, &statement.canonical()),
        expires: statement.expires,
    };
    for item in &statement.items {
        let package = item.package_key();
        batch = forget_over(desk, batch, &package, now)?;
        batch = batch.create(OF_PACKAGE, index(&package, id), Vec::new());
    }
    let row = Kept {
        evidence,
        end: None,
    };
    let bytes = desk.authentic(INTENTS, id.0.as_bytes(), &row)?;
    let batch = batch.create(INTENTS, id.0.as_bytes(), bytes);
    desk.commit(batch, &[event], now).await?;
    Ok(line(&row, person, now))
}

/// Takes those out of a package's index that nothing can fit any more.
fn forget_over(
    desk: &Desk,
    mut batch: Batch,
    package: &str,
    now: UnixTime,
) -> Result<Batch, Fault> {
    let prefix = ledger::prefix(&[package]);
    for (key, row) in desk.live.range(OF_PACKAGE, &prefix, None, LOOK_MAX)? {
        let id = key.get(prefix.len()..).and_then(intent_of);
        let over = match id.map(|id| kept(desk, id)).transpose()?.flatten() {
            None => true,
            Some(row) => now >= row.value.evidence.statement.expires,
        };
        if over {
            batch = batch.delete(OF_PACKAGE, key, row.version);
        }
    }
    Ok(batch)
}

/// A key of [`OF_PACKAGE`].
fn index(package: &str, id: IntentId) -> Vec<u8> {
    ledger::index(&[package], RequestId(id.0))
}

/// An id from its 16 bytes.
pub(super) fn intent_of(bytes: &[u8]) -> Option<IntentId> {
    ledger::id_of(bytes).map(|id| IntentId(id.0))
}

/// How many live intents a person has, and how many whose time is not over, spent ones too.
fn own_of(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<(usize, usize), Fault> {
    let rows = desk.listed_rows::<Kept>(INTENTS)?;
    let own = rows.iter().map(|row| &row.value);
    let own = own.filter(|row| row.evidence.person == *person);
    let listed = own.filter(|row| now < row.evidence.statement.expires);
    let live = |row: &&Kept| row.state(now) == IntentState::Live;
    Ok((listed.clone().filter(live).count(), listed.count()))
}

/// Intents that were made since, oldest first.
fn since_then(desk: &Desk, since: UnixTime) -> Result<Vec<Kept>, Fault> {
    // In this order: one that is taken back meanwhile is seen twice, and as what it became.
    let rows = desk.listed_rows::<Kept>(INTENTS)?.into_iter();
    let mut all: BTreeMap<_, _> = rows
        .map(|row| row.value)
        .filter(|kept| kept.evidence.made >= since)
        .map(|kept| (kept.evidence.id.0, kept))
        .collect();
    // Ids begin with the milliseconds since 1970, in 48 bits.
    let ms = since.0.saturating_mul(1000).to_be_bytes();
    let after = ms.get(2..).unwrap_or_default();
    for (key, _) in desk.live.range(PAST, b"", Some(after), LOOK_MAX)? {
        let kept = intent_of(&key).map(|id| past(desk, id)).transpose()?;
        all.extend(kept.flatten().map(|kept| (kept.evidence.id.0, kept)));
    }
    Ok(all.into_values().collect())
}

/// Intents of this person, and of the packages that he approves: newest first.
pub fn list(desk: &Desk, person: &Person, now: UnixTime) -> Result<Intents, Refusal> {
    let all = since_then(desk, now.before(LIST_BACK))?;
    let own = all.iter().rev().filter(|row| concerns(desk, row, person));
    Ok(Intents {
        intents: own
            .take(LINES_MAX)
            .map(|row| line(row, person, now))
            .collect(),
    })
}

/// Whether an intent is any business of this person's.
fn concerns(desk: &Desk, row: &Kept, person: &Person) -> bool {
    let approves = |item: &IntendedItem| approves_package(desk, item, person);
    person.admin
        || row.evidence.person == person.id
        || row.evidence.statement.items.iter().any(approves)
}

/// Whether a person approves what is announced, by today's policy.
pub(super) fn approves_package(desk: &Desk, item: &IntendedItem, person: &Person) -> bool {
    let policy = desk.policy.load();
    let entry = policy.entry(&item.registry, &item.package);
    entry.is_ok_and(|e| e.approvers.iter().any(|g| person.groups.contains(g)))
}

/// Ends an intent. Whoever made it may, and, as with a denial, anybody of an approving group and any admin.
/// To everybody else it does not exist (attack 25).
pub async fn withdraw(
    desk: &Desk,
    id: IntentId,
    (person, device): (&Person, &DeviceId),
    factor: &SecondFactor,
    now: UnixTime,
) -> Result<IntentLine, Refusal> {
    let (what, event) = (id.to_string(), [withdrawn(id, &person.id)]);
    for _ in 0..RACES_MAX {
        let Some(row) = kept(desk, id)? else {
            // Whose it is nobody can read any more. It serves nobody from now on, whatever is put back.
            if let Some(batch) = taken_back(desk, Batch::new(), id, None, &person.id)? {
                desk.commit(batch, &event, now).await?;
            }
            let over = past(desk, id)?.filter(|row| concerns(desk, row, person));
            let over = over.ok_or(Refusal::NotFound)?;
            return Ok(line(&over, person, now));
        };
        if !concerns(desk, &row.value, person) {
            return Err(Refusal::NotFound);
        }
        let end = End::Withdrawn {
            by: person.id.clone(),
        };
        let after = Kept {
            end: Some(end.clone()),
            ..row.value.clone()
        };
        // Anew in each attempt: what lost its race spent nothing.
        let about = (change::WITHDRAW_INTENT, what.as_str());
        let spent = prove_in_browser(desk, person, device, about, factor, now).await?;
        let batch = ends(desk, spent, row, end)?;
        match desk.commit(batch, &event, now).await {
            // A request was approved with it at this very moment: it is looked at again.
            Err(Fault::Conflict(..)) => {}
            other => {
                other?;
                return Ok(line(&after, person, now));
            }
        }
    }
    Err(Refusal::Busy)
}

fn refusal(person: &Person, reason: AnswerRefusal) -> Event {
    Event::IntentRefused {
        person: person.id.clone(),
        reason,
    }
}

fn line(row: &Kept, person: &Person, now: UnixTime) -> IntentLine {
    let evidence = &row.evidence;
    let (ended_by, request) = match &row.end {
        None => (None, None),
        Some(End::Spent { request }) => (None, Some(*request)),
        Some(End::Withdrawn { by }) => (Some(by.clone()), None),
    };
    IntentLine {
        id: evidence.id,
        person: evidence.person.clone(),
        items: evidence.statement.items.clone(),
        commit: evidence.statement.commit.clone(),
        names: evidence.statement.names(),
        made: evidence.made,
        expires: evidence.statement.expires,
        state: row.state(now),
        ended_by,
        request,
        mine: evidence.person == person.id,
    }
}
