//! Denying: one signed no ends a request, and may freeze its packages.

use super::{
    Refusal,
    answer::answered,
    close, intent,
    ledger::{self, FROZEN, Freeze, Held},
    question::{approves, concerns},
    ring,
    state::Record,
};
use crate::{
    audit::{
        event::{Event, leaf},
        reason::DenyCause,
    },
    desk::{Desk, Fault},
    notify::About,
    store::Batch,
};
use proto::{
    answer::Evidence,
    api::{AnswerRequest, Answered},
    ids::PersonId,
    request::Item,
    time::UnixTime,
};
use std::collections::BTreeSet;

/// Denies. Anybody of an approving group may, and any admin.
pub(super) async fn deny(
    desk: &Desk,
    held: Held,
    evidence: Evidence,
    given: &AnswerRequest,
    freeze: bool,
    spent: Batch,
    now: UnixTime,
) -> Result<Answered, Refusal> {
    if !may_deny(desk, &held.record, &evidence)? {
        return Err(Refusal::NotAllowed(
            "only people whom the policy names for this package, and admins, deny it".to_owned(),
        ));
    }
    let decision = evidence.statement.decision;
    let (mut batch, mut frozen) = (spent, Vec::new());
    let mut told = BTreeSet::new();
    if freeze {
        (batch, frozen) = freezing(desk, &held.record, &evidence.person, batch, now)?;
    }
    // Somebody said no to what others may be about to approve.
    for package in held.record.facts.items.iter().map(Item::package_key) {
        if told.insert(package.clone()) {
            let by = Some(&evidence.person);
            batch = ring::notice(desk, batch, About::Alarm, &package, by)?;
        }
    }
    let before = held.record.clone();
    batch = intent::ended_by_denial(desk, batch, &held.record, &evidence.person, now)?;
    let answer = match held
        .record
        .deny(Some(&evidence), given.reason.clone(), DenyCause::Person)
    {
        Ok(step) => {
            let record = ledger::persist(desk, held.version, step, batch, now).await?;
            answered(desk, &record, decision)
        }
        // The credential is out, or it ended: the freeze still stops what has not left yet.
        Err(too_late) if frozen.is_empty() => Err(too_late.into()),
        Err(_) => {
            desk.commit(batch, &[], now).await?;
            answered(desk, &before, decision)
        }
    };
    desk.metrics.answers.inc();
    for package in &frozen {
        close::deny_frozen(desk, package, now).await?;
    }
    answer
}

/// Freezes the packages of a request that are this person's business, and no others.
fn freezing(
    desk: &Desk,
    record: &Record,
    by: &PersonId,
    mut batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Vec<String>), Fault> {
    let mut frozen = Vec::new();
    let Some(person) = desk.person(by)? else {
        return Ok((batch, frozen));
    };
    let mine: BTreeSet<String> = record
        .facts
        .items
        .iter()
        .filter(|i| person.value.admin || approves(desk, i, &person.value.groups))
        .map(Item::package_key)
        .collect();
    for package in mine {
        if ledger::freeze(desk, &package)?.is_none() {
            let row = Freeze::new(Some(by.clone()), now);
            let bytes = ledger::freeze_row(desk, &package, &row)?;
            let event = Event::Frozen {
                package: package.clone(),
                by: by.clone(),
            };
            batch = batch
                .create(FROZEN, package.as_bytes(), bytes)
                .append(leaf(&event, now));
            frozen.push(package);
        }
    }
    Ok((batch, frozen))
}

/// Denying is easier than approving: anybody of an approving group, and any admin.
fn may_deny(desk: &Desk, record: &Record, evidence: &Evidence) -> Result<bool, Fault> {
    let Some(person) = desk.person(&evidence.person)? else {
        return Ok(false);
    };
    Ok(concerns(desk, record, &person.value))
}
