//! Answering: an enrolled device's signed statement becomes evidence, a charge, or (in [`deny`]) a
//! denial.

use super::{
    Refusal, close, deny, frozen, intent, judge,
    ledger::{self, APPROVED, Held},
    prove::{About, Proved, Unproved, kind_of, not_taken, prove, totp_record},
    state::{MATCH_TRIES, Record, State, Tries},
    veto,
};
use crate::{
    audit::{event::Event, reason::AnswerRefusal},
    desk::{Desk, Fault, people::Person},
    policy::Verdict,
    store::Batch,
    vault::match_code::match_code_holds,
};
use proto::{
    answer::{Decision, Evidence, Factor},
    api::{AnswerRequest, Answered, StateName},
    device::{CALL_WINDOW, DeviceKind},
    ids::RequestId,
    request::Item,
    text,
    time::UnixTime,
};

/// Attempts to store an answer when others answer at the same moment.
const RACES_MAX: usize = 100;
/// Longest reason of a denial, in bytes.
const REASON_MAX: usize = 300;

/// Takes an answer. `person` signed the call with the device that the statement names.
pub async fn answer(
    desk: &Desk,
    id: RequestId,
    person: &Person,
    given: &AnswerRequest,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    if let Some(reason) = &given.reason {
        text::check(reason, REASON_MAX)
            .map_err(|e| Refusal::BadRequest(format!("the reason {e}")))?;
    }
    for _ in 0..RACES_MAX {
        let Some(held) = ledger::live(desk, id)? else {
            return Err(gone(desk, id)?);
        };
        match once(desk, held, person, given, now).await {
            // Somebody else was faster: the same answer is judged again against the new state.
            Err(Refusal::Fault(Fault::Conflict(table, key))) if table != APPROVED => {
                tracing::debug!(%id, table = table.0, key_len = key.len(), "answer raced");
            }
            other => return other,
        }
    }
    Err(Refusal::Busy)
}

fn gone(desk: &Desk, id: RequestId) -> Result<Refusal, Fault> {
    Ok(match ledger::find(desk, id)? {
        Some(record) => Refusal::State(record.name(), record.status().reason),
        None => Refusal::NotFound,
    })
}

async fn once(
    desk: &Desk,
    held: Held,
    person: &Person,
    given: &AnswerRequest,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    let evidence = evidence(desk, &held.record, person, given, now).await?;
    let decision = given.statement.decision;
    if decision == Decision::Approve {
        return approve(desk, held, person, given, evidence, now).await;
    }
    // A no from a browser is proved like a yes, without the match code: whoever has a stolen session could
    // freeze whatever he likes otherwise (attack 32). A terminal's key was given by its person just now.
    let browser = person
        .device(&given.statement.device)
        .is_none_or(|d| d.kind == DeviceKind::Browser);
    let mut spent = Batch::new();
    if browser {
        match second_factor(desk, &held.record, person, given, now) {
            Ok(proved) => spent = proved.spent,
            Err(unproved) => return unproven(desk, held, person, unproved, now).await,
        }
    }
    let freeze = decision == Decision::DenyAndFreeze;
    deny::deny(desk, held, evidence, given, freeze, spent, now).await
}

/// The second factor that came with an answer, checked for this decision about this request.
fn second_factor(
    desk: &Desk,
    record: &Record,
    person: &Person,
    given: &AnswerRequest,
    now: UnixTime,
) -> Result<Proved, Unproved> {
    let wrong = match &record.state {
        State::Pending { tries, .. } => tries.get(&person.id).map_or(0, |t| t.totp),
        _ => 0,
    };
    let about = About {
        act: given.statement.decision.into(),
        digest: &record.digest.0,
        device: &given.statement.device,
        wrong,
    };
    prove(desk, person, about, &given.factor, now)
}

/// Charges and records a second factor that did not hold.
async fn unproven(
    desk: &Desk,
    held: Held,
    person: &Person,
    why: Unproved,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    let record = &held.record;
    match why {
        Unproved::WrongCode(charged) if record.name() == StateName::Pending => {
            let add = Tries {
                match_code: 0,
                totp: 1,
            };
            let why = AnswerRefusal::FactorWrong;
            charge(desk, held, person, add, why, charged, now).await
        }
        Unproved::WrongCode(charged) => {
            let event = Event::AnswerRefused {
                request: record.facts.id,
                person: person.id.clone(),
                reason: AnswerRefusal::FactorWrong,
            };
            desk.commit(charged, &[event], now).await?;
            Err(Refusal::FactorWrong)
        }
        Unproved::Exhausted => {
            note(desk, record, person, AnswerRefusal::FactorExhausted, now).await?;
            Err(Refusal::FactorExhausted)
        }
        Unproved::Passkey(why) => {
            note(desk, record, person, AnswerRefusal::FactorWrong, now).await?;
            Err(not_taken(&why))
        }
        Unproved::Refused(refusal) => Err(refusal),
    }
}

/// The statement is about this request, by this device, recent, and its signature holds.
async fn evidence(
    desk: &Desk,
    record: &Record,
    person: &Person,
    given: &AnswerRequest,
    now: UnixTime,
) -> Result<Evidence, Refusal> {
    let refuse = |why: &str| Refusal::BadRequest(why.to_owned());
    let statement = &given.statement;
    // Every attribute is checked again although the call was signed: the statement is what stays.
    if statement.request_digest != record.digest {
        return Err(refuse("the statement is about another request"));
    }
    if !desk.world.near(statement.time, now, CALL_WINDOW) {
        return Err(refuse(
            "the device's clock is more than a minute off; set it",
        ));
    }
    if statement.nonce.len() != 32 {
        return Err(refuse("the statement's nonce has not 128 bits"));
    }
    let Some(public_key) = person.key_of(&statement.device) else {
        return Err(Refusal::NotAllowed(
            "this device is not enrolled".to_owned(),
        ));
    };
    let evidence = Evidence {
        person: person.id.clone(),
        factor: Factor::Device,
        statement: statement.clone(),
        public_key: *public_key,
        signature: given.signature.clone(),
        totp_mac: None,
        assertion: None,
    };
    if !evidence.signature_holds() {
        note(desk, record, person, AnswerRefusal::Signature, now).await?;
        return Err(Refusal::NotAllowed(
            "the statement's signature does not hold".to_owned(),
        ));
    }
    Ok(evidence)
}

async fn approve(
    desk: &Desk,
    held: Held,
    person: &Person,
    given: &AnswerRequest,
    mut evidence: Evidence,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    // Before any factor is looked at: nothing is spent or charged for what cannot count.
    judge::serves(desk)?;
    let record = &held.record;
    let State::Pending {
        evidence: before,
        tries,
    } = &record.state
    else {
        // The same person's answer again, because the reply was lost, is no error; when nothing comes
        // of it any more, he is told so.
        let over = record.name() == StateName::Expired;
        if !over && record.evidence().iter().any(|e| e.person == person.id) {
            return answered(desk, record, Decision::Approve);
        }
        return Err(Refusal::State(record.name(), record.status().reason));
    };
    if record.overdue(now) {
        return Err(Refusal::State(StateName::Expired, None));
    }
    if before.iter().any(|e| e.person == person.id) {
        return answered(desk, record, Decision::Approve);
    }
    let mine = tries.get(&person.id).copied().unwrap_or_default();
    if mine.match_code >= MATCH_TRIES {
        return Err(Refusal::FactorExhausted);
    }
    let holds = match_code_holds(&desk.vault, record.facts.id, &given.match_code);
    if !holds.map_err(Fault::from)? {
        let add = Tries {
            match_code: 1,
            totp: 0,
        };
        return charge(
            desk,
            held,
            person,
            add,
            AnswerRefusal::MatchCode,
            Batch::new(),
            now,
        )
        .await;
    }

    if !record.factors.contains(&kind_of(&given.factor)) {
        return Err(Refusal::FactorMissing);
    }
    let proved = match second_factor(desk, record, person, given, now) {
        Ok(proved) => proved,
        Err(unproved) => return unproven(desk, held, person, unproved, now).await,
    };
    evidence.factor = proved.factor;
    evidence.assertion = proved.assertion;
    if let Some(step) = proved.step {
        let bytes = judge::totp_evidence(&evidence, step);
        evidence.totp_mac = Some(totp_record(desk, &bytes, step)?);
    }
    accept(desk, held, evidence, proved.spent, now).await
}

async fn accept(
    desk: &Desk,
    held: Held,
    evidence: Evidence,
    mut batch: Batch,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    let mut all = held.record.evidence().to_vec();
    all.push(evidence.clone());
    let verdict = judge::judge(desk, &held.record, &all, &unknown(&held.record), now)?;
    let before = || {
        let before = held.record.evidence();
        judge::judge(desk, &held.record, before, &unknown(&held.record), now)
    };
    let enough = match (&verdict, matches!(verdict, Verdict::Wait(_)).then(before)) {
        (Verdict::Deny(reason), _) => return Err(Refusal::Policy(reason.clone())),
        (Verdict::Permit(_) | Verdict::Later(_), _) => true,
        (_, Some(Err(refusal))) => return Err(refusal),
        // An answer that brings the request no nearer (not an approver, the requester, the wrong
        // factor) is told so instead of being stored.
        (Verdict::Wait(after), Some(Ok(Verdict::Wait(before)))) if after.gap >= before.gap => {
            let person = evidence.person.clone();
            let why = format!("an approval by {person} does not count here: {after}");
            return Err(Refusal::NotAllowed(why));
        }
        (Verdict::Wait(_), _) => false,
    };
    let later = match verdict {
        Verdict::Later(later) => Some(later),
        _ => None,
    };
    let Held {
        version,
        mut record,
    } = held;
    if enough {
        batch = claim(desk, batch, &record)?;
        let (spending, spent) = intent::spend(desk, batch, &record, now)?;
        batch = spending;
        record = record.resting_on(&spent);
        if later.is_some() {
            batch = veto::held_back(batch, &record);
        }
    }
    let id = record.facts.id;
    let step = record.approve(evidence, enough, later, now)?;
    let record = match ledger::persist(desk, version, step, batch, now).await {
        Err(fault) => return Err(taken(desk, fault, id)?),
        Ok(record) => record,
    };
    desk.metrics.answers.inc();
    if enough {
        desk.bells.ask();
        // Approved and durable. A crash from here on leaves rivals pending; they can no longer be
        // approved, and they expire.
        close::end_rivals(desk, &record, now).await?;
    }
    answered(desk, &record, Decision::Approve)
}

/// What an approval needs beside its state: every version is this request's alone, and no package is frozen.
pub(super) fn claim(desk: &Desk, mut batch: Batch, record: &Record) -> Result<Batch, Refusal> {
    for item in &record.facts.items {
        batch = claim_version(desk, batch, item, record.facts.id)?;
    }
    Ok(frozen::unless_frozen(batch, &record.facts))
}

/// From approval on there is one request for a version.
fn claim_version(desk: &Desk, batch: Batch, item: &Item, id: RequestId) -> Result<Batch, Refusal> {
    let name = &item.name();
    let Some(row) = desk
        .live
        .get(APPROVED, name.as_bytes())
        .map_err(Fault::from)?
    else {
        return Ok(batch.create(APPROVED, name.as_bytes(), id.0.as_bytes()));
    };
    let holder = ledger::id_of(&row.value)
        .map(|h| ledger::find(desk, h))
        .transpose()?
        .flatten();
    match holder {
        // Another answer to this very request was faster: it is judged again.
        Some(r) if r.facts.id == id => Err(raced(id).into()),
        Some(r) if !r.name().is_final() && !r.overdue(desk.world.now()) => Err(taken_by(name)),
        // What was published stays: another request may only add to it, and says so (attack 16).
        Some(r) if r.name() == StateName::Published && !adds_to(item, &r) => Err(taken_by(name)),
        _ => Ok(batch.replace(APPROVED, name.as_bytes(), row.version, id.0.as_bytes())),
    }
}

/// Whether an item has every file that a published request has of it, and more.
pub(super) fn adds_to(item: &Item, published: &Record) -> bool {
    let same = |i: &&Item| i.name() == item.name();
    let before = published.facts.items.iter().find(same);
    before.is_some_and(|before| {
        item.files.len() > before.files.len()
            && before.files.iter().all(|file| item.files.contains(file))
    })
}

fn taken(desk: &Desk, fault: Fault, id: RequestId) -> Result<Refusal, Fault> {
    match fault {
        Fault::Conflict(table, key) if table == APPROVED => {
            let row = desk.live.get(APPROVED, &key)?;
            if row.is_some_and(|r| ledger::id_of(&r.value) == Some(id)) {
                return Ok(raced(id).into());
            }
            Ok(taken_by(&String::from_utf8_lossy(&key)))
        }
        other => Ok(other.into()),
    }
}

fn raced(id: RequestId) -> Fault {
    Fault::Conflict(ledger::REQUESTS, id.0.as_bytes().to_vec())
}

fn taken_by(name: &str) -> Refusal {
    Refusal::VersionTaken(format!("another request for {name} was approved"))
}

async fn charge(
    desk: &Desk,
    held: Held,
    person: &Person,
    add: Tries,
    why: AnswerRefusal,
    batch: Batch,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    let event = Event::AnswerRefused {
        request: held.record.facts.id,
        person: person.id.clone(),
        reason: why,
    };
    let step = held.record.charge(&person.id, add, event)?;
    // Charged and durable before anybody learns that the code was wrong.
    let record = ledger::persist(desk, held.version, step, batch, now).await?;
    desk.metrics.answers_refused.inc();
    if add.totp > 0 {
        return Err(Refusal::FactorWrong);
    }
    let used = match &record.state {
        State::Pending { tries, .. } => tries.get(&person.id).map_or(0, |t| t.match_code),
        _ => MATCH_TRIES,
    };
    Err(Refusal::MatchCodeWrong {
        left: MATCH_TRIES.saturating_sub(used),
    })
}

async fn note(
    desk: &Desk,
    record: &Record,
    person: &Person,
    reason: AnswerRefusal,
    now: UnixTime,
) -> Result<(), Fault> {
    desk.metrics.answers_refused.inc();
    let event = Event::AnswerRefused {
        request: record.facts.id,
        person: person.id.clone(),
        reason,
    };
    desk.commit(Batch::new(), &[event], now).await?;
    Ok(())
}

pub(super) fn answered(
    desk: &Desk,
    record: &Record,
    decision: Decision,
) -> Result<Answered, Refusal> {
    let status = intent::status_at(desk, record, desk.world.now())?;
    Ok(Answered {
        state: status.state,
        approvals: status.approvals,
        quorum: status.quorum,
        decision,
    })
}

/// What is published is not asked for here: it is decided when the request is opened and before
/// bytes leave.
fn unknown(record: &Record) -> Vec<Option<Vec<proto::ids::VersionText>>> {
    vec![None; record.facts.items.len()]
}
