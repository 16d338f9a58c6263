//! What a maintainer is shown.

use super::{
    Refusal, confirm, deposit, habits, inspect, intent, judge, ledger, stages, state::Record, veto,
};
use crate::{
    desk::{Desk, Fault, people::Person},
    registry::{Published, ReadBack},
};
use proto::{
    api::{Mode, Question, StateName},
    card::{BYTES_MAX, Card, FILES_MAX, Outcome},
    ids::{GroupName, PersonId, RequestId},
    request::Item,
    time::UnixTime,
};
use std::{collections::BTreeSet, time::Duration};

/// Cards that say that a file was not read.
const LEFT_OUT_SHOWN: usize = 20;
/// Most rivals that are looked at.
const RIVALS_MAX: usize = 100;
/// How long the question waits for what the registry serves.
const PREVIOUS_MAX: Duration = Duration::from_secs(3);

/// Whether a request is any business of this person's.
pub fn concerns(desk: &Desk, record: &Record, person: &Person) -> bool {
    person.admin
        || record
            .facts
            .items
            .iter()
            .any(|item| approves(desk, item, &person.groups))
}

/// Whether people of these groups approve an item, by today's policy.
pub fn approves(desk: &Desk, item: &Item, groups: &[GroupName]) -> bool {
    let policy = desk.policy.load();
    policy
        .entry(&item.registry, &item.package)
        .is_ok_and(|entry| entry.approvers.iter().any(|g| groups.contains(g)))
}

/// A request, for a person whom it concerns now; to everybody else it does not exist (attack 25).
pub fn of_person(desk: &Desk, id: RequestId, person: &PersonId) -> Result<Record, Refusal> {
    let person = desk.person(person)?.ok_or(Refusal::NotFound)?.value;
    ledger::find(desk, id)?
        .filter(|r| concerns(desk, r, &person))
        .ok_or(Refusal::NotFound)
}

/// One request, for somebody whom it concerns; to everybody else it does not exist (attack 25).
pub async fn question(
    desk: &Desk,
    id: RequestId,
    person: &Person,
    now: UnixTime,
) -> Result<Question, Refusal> {
    let record = ledger::find(desk, id)?
        .filter(|r| concerns(desk, r, person))
        .ok_or(Refusal::NotFound)?;
    let mut previous = Vec::new();
    let mut warnings = Vec::new();
    // All registries at once, within one budget of time: a batch has 200 items.
    let items = &record.facts.items;
    let reads = items.iter().map(|item| async {
        let both =
            futures_util::future::join(judge::read(desk, item), stages::warnings(desk, item));
        let both = tokio::time::timeout(PREVIOUS_MAX, both).await;
        let (read, staged) = both.ok()?;
        Some((read.ok()?, staged.unwrap_or_default()))
    });
    let reads = futures_util::future::join_all(reads).await;
    for (item, read) in items.iter().zip(reads) {
        previous.push(if let Some((published, staged)) = read {
            warnings.extend(out_already(&record, item, &published));
            warnings.extend(staged);
            if published.versions.is_empty() && !item.files.is_empty() {
                warnings.push(format!("{} would be a new package", item.package_key()));
            }
            published.newest
        } else {
            warnings.push(format!("the registry '{}' does not answer", item.registry));
            None
        });
        if ledger::is_frozen(desk, &item.package_key())? {
            warnings.insert(0, format!("{} is frozen", item.package_key()));
        }
    }
    let announces = record.facts.items.iter().flat_map(|i| &i.files);
    if record.mode == Mode::Reveal && announces.count() > 0 {
        warnings.insert(
            0,
            "the stored token itself goes to the job, which publishes by itself: the digest is what the job \
             says, and the broker only reads the registry afterwards"
                .to_owned(),
        );
    }
    warnings.splice(0..0, intent::unlike(desk, &record)?);
    if matches!(record.name(), StateName::Pending | StateName::Approved) {
        warnings.extend(habits::firsts(desk, &record)?);
    }
    warnings.dedup();
    let rivals = rivals(desk, &record)?;
    if !rivals.is_empty() {
        warnings.insert(
            0,
            format!(
                "{} other open requests want this very version; approving one ends the others",
                rivals.len()
            ),
        );
    }
    if record.facts.policy != *desk.policy.load().digest() {
        warnings.push("the policy has changed since this was opened".to_owned());
    }
    if record.mode == Mode::Mint {
        warnings.insert(
            0,
            format!(
                "a yes hands the job a token of the registry: for {} s it uploads ANY files of this project, also others than these",
                record.mint_seconds
            ),
        );
    }
    if record.overdue(now) {
        warnings.insert(0, "the time for answers is over".to_owned());
    }
    warnings.extend(record.later(now).map(|l| l.to_string()));
    let confirm = confirm::lines(desk, &record);
    let staging = |i: &Item| {
        desk.upstream(&i.registry)
            .is_some_and(|u| u.staging().is_some())
    };
    let mut cards = inspect::cards(desk, &record, |at| deposit::is_kept(desk, id, at))?;
    let left_out = left_out(&mut cards);
    if left_out > 0 {
        warnings.insert(
            0,
            format!(
                "{left_out} files were NOT read: the broker looks into the first {FILES_MAX} archives of a request, and {} MiB in all",
                BYTES_MAX >> 20
            ),
        );
    }
    let will_confirm = record.facts.items.iter().any(staging);
    Ok(Question {
        request_digest: record.digest,
        mode: record.mode,
        mint_seconds: (record.mode == Mode::Mint).then_some(record.mint_seconds),
        state: record.name(),
        opened: record.opened,
        note: record.note.clone(),
        factors: judge::factors(desk, &record)?,
        approvals: approved_by(desk, &record)?,
        intents: intent::shown(&record),
        not_before: veto::until(desk, &record, now)?,
        quorum: record.quorum,
        facts: record.facts,
        previous,
        rivals,
        warnings,
        will_confirm,
        confirm,
        cards,
    })
}

/// How many files were not read for want of room; only the first of them keep a card that says so.
fn left_out(cards: &mut Vec<Card>) -> usize {
    let mut count = 0;
    cards.retain(|card| {
        count += usize::from(card.outcome == Outcome::LeftOut);
        card.outcome != Outcome::LeftOut || count <= LEFT_OUT_SHOWN
    });
    count
}

/// Who has said yes: by an answer, or by an intent that counts.
fn approved_by(desk: &Desk, record: &Record) -> Result<Vec<PersonId>, Fault> {
    let mut people: Vec<_> = record.evidence().iter().map(|e| e.person.clone()).collect();
    let announced = intent::counting(desk, record)?;
    people.extend(announced.into_iter().map(|intent| intent.person.clone()));
    Ok(people)
}

/// Which files of a release that is half out are there, while it is still asked for.
fn out_already(record: &Record, item: &Item, published: &Published) -> Vec<String> {
    if !matches!(record.name(), StateName::Pending | StateName::Approved) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for file in &item.files {
        match published.file(&item.version, file) {
            Ok(ReadBack::Shows(digest)) if digest == file.digest => lines.push(format!(
                "{} is out already, with these very bytes; it is not sent again",
                file.name
            )),
            Ok(ReadBack::Shows(_)) => {
                lines.insert(
                    0,
                    format!("the registry shows OTHER bytes of {}", file.name),
                );
            }
            _ => {}
        }
    }
    lines
}

/// Other pending requests for one of its versions.
fn rivals(desk: &Desk, record: &Record) -> Result<Vec<RequestId>, Fault> {
    let mut ids = BTreeSet::new();
    let packages: BTreeSet<_> = record.facts.items.iter().map(Item::package_key).collect();
    for package in packages {
        ids.extend(ledger::ids_of_package(desk, &package, RIVALS_MAX)?);
    }
    ids.remove(&record.facts.id);
    let names: BTreeSet<_> = record.facts.items.iter().map(Item::name).collect();
    let mut rivals = Vec::new();
    for id in ids.into_iter().take(RIVALS_MAX) {
        let rival = ledger::live(desk, id)?.map(|held| held.record);
        let same = |r: &Record| {
            r.name() == StateName::Pending
                && r.facts.items.iter().any(|i| names.contains(&i.name()))
        };
        rivals.extend(rival.filter(same).map(|_| id));
    }
    Ok(rivals)
}
