//! What is stored of a card, and how it comes out again: what decides in one row, and what is only looked at in another, so
//! that a judgement reads little.
//!
//! If an attacker writes here: both rows are authenticated, and bound to the digest of the file that they are about.

use super::{format, item_and_file, store_beside, within};
use crate::{
    card::Inspection,
    desk::{Desk, Fault, people::Person},
    policy::Entry,
    publish::{
        Refusal, ledger, question,
        state::{FileAt, Record},
    },
    store::{Batch, Table},
};
use proto::{
    card::{Card, Diff, Finding, Inside, Line, Outcome, Previous},
    digest::Digest,
    ids::RequestId,
    request::Item,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What decides: id, item and file (both big-endian); authenticated.
const CARDS: Table = Table("card-said");
/// Lists and differences, by the same keys; authenticated.
const DETAILS: Table = Table("card-detail");
/// Room that the lists and differences of one request take, in bytes: each file has the same part of it.
const ROOM: usize = 4 << 20;
/// Findings of one kind that are kept where a request has many files: the worst.
const FEW: usize = 2;
/// More files than this are many.
const MANY: usize = 40;
/// Rows that are read at once.
const PAGE: usize = 500;

/// A card that was made.
pub(super) struct Made {
    pub(super) outcome: Outcome,
    pub(super) previous: Previous,
    pub(super) inspection: Option<Inspection>,
}

impl Made {
    /// One that says only how it came out.
    pub(super) const fn only(outcome: Outcome) -> Self {
        Self {
            outcome,
            previous: Previous::Unknown,
            inspection: None,
        }
    }
}

/// What decides.
#[derive(Serialize, Deserialize)]
struct Said {
    /// Of the bytes that it was made of.
    digest: Digest,
    outcome: Outcome,
    previous: Previous,
    /// Without the list.
    inside: Option<Inside>,
    findings: Vec<Finding>,
}

/// What is only looked at.
#[derive(Serialize, Deserialize)]
struct Details {
    /// Of the bytes that it was made of.
    digest: Digest,
    lines: Vec<Line>,
    diffs: Vec<Diff>,
}

/// Whether there is a card already.
pub fn has_card(desk: &Desk, id: RequestId, at: FileAt) -> Result<bool, Fault> {
    Ok(desk.live.get(CARDS, &key(id, at))?.is_some())
}

/// Stores the card of a file that has none.
pub(super) async fn store(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    made: Made,
) -> Result<(), Refusal> {
    let (_, file) = item_and_file(record, at).ok_or(Refusal::NotFound)?;
    let files = within(desk, record).len();
    let (mut said, mut details) = (
        Said {
            digest: file.digest.clone(),
            outcome: made.outcome,
            previous: made.previous,
            inside: None,
            findings: Vec::new(),
        },
        Details {
            digest: file.digest.clone(),
            lines: Vec::new(),
            diffs: Vec::new(),
        },
    );
    if let Some(mut inspection) = made.inspection {
        bounded(&mut inspection, files);
        details.lines = std::mem::take(&mut inspection.inside.lines);
        details.diffs = inspection.diffs;
        said.inside = Some(inspection.inside);
        said.findings = inspection.findings;
        details.fit(ROOM / files.max(1));
    }
    let id = record.facts.id;
    let key = key(id, at);
    let row = desk.authentic(CARDS, &key, &said)?;
    let detail = desk.authentic(DETAILS, &key, &details)?;
    let rows = [(CARDS, &*key, row), (DETAILS, &*key, detail)];
    store_beside(desk, id, rows).await.map(drop)
}

impl Details {
    /// Leaves out what there is no room for: differences first, the last one first, then the list.
    fn fit(&mut self, room: usize) {
        let length = |of: &Self| serde_json::to_vec(of).map_or(usize::MAX, |json| json.len());
        while !self.diffs.is_empty() && length(self) > room {
            let last = u32::try_from(self.diffs.len() - 1).ok();
            self.diffs.pop();
            for line in self.lines.iter_mut().filter(|l| l.difference == last) {
                line.difference = None;
            }
        }
        if length(self) > room {
            self.lines.clear();
        }
    }
}

/// The process that found it is not believed: what it says is cut to what it may say.
fn bounded(inspection: &mut Inspection, files: usize) {
    let cut = |text: &mut String, most: usize| {
        if text.chars().count() > most {
            *text = text.chars().take(most).collect();
        }
        *text = proto::text::harmless(text);
    };
    inspection.inside.lines.truncate(proto::card::LINES_MAX);
    for line in &mut inspection.inside.lines {
        cut(&mut line.name, proto::card::NAME_MAX);
    }
    let findings = &mut inspection.findings;
    findings.sort_by_key(|f| std::cmp::Reverse(f.risk));
    if files > MANY {
        // Of each kind: a policy may forbid any of them, and a flood of one must not hide another.
        let mut seen = BTreeMap::<_, usize>::new();
        findings.retain(|f| {
            let count = seen.entry(f.kind).or_default();
            *count += 1;
            *count <= FEW
        });
    }
    findings.truncate(100);
    for finding in findings {
        cut(&mut finding.what, 1000);
        cut(&mut finding.why, 300);
    }
    for diff in &mut inspection.diffs {
        cut(&mut diff.name, proto::card::NAME_MAX);
        let lines = diff.text.lines().map(proto::text::harmless);
        diff.text = lines.map(|line| line + "\n").collect();
    }
}

/// The card of each file, as far as there is one. `kept` says whether the broker has the bytes of a file.
pub fn cards(
    desk: &Desk,
    record: &Record,
    kept: impl Fn(FileAt) -> Result<bool, Fault>,
) -> Result<Vec<Card>, Fault> {
    let mut cards = said(desk, record, record.files(), kept)?;
    for (at, card) in &mut cards {
        let details = row::<Details>(desk, record, *at, DETAILS, |d| &d.digest)?;
        if let (Some(inside), Some(details)) = (&mut card.inside, details) {
            inside.lines = details.lines;
        }
    }
    Ok(cards.into_iter().map(|(_, card)| card).collect())
}

/// The same without lists.
fn said(
    desk: &Desk,
    record: &Record,
    files: impl Iterator<Item = FileAt>,
    kept: impl Fn(FileAt) -> Result<bool, Fault>,
) -> Result<Vec<(FileAt, Card)>, Fault> {
    let mut cards = Vec::new();
    // What is announced only is never seen; and cards end with their request.
    let ended = record.name().is_final();
    let within: std::collections::BTreeSet<_> = within(desk, record)
        .into_iter()
        .map(FileAt::numbers)
        .collect();
    for at in files {
        let Some((item, file)) = item_and_file(record, at).filter(|(_, f)| !f.is_announced())
        else {
            continue;
        };
        let (item_number, number) = at.numbers();
        let only = |outcome| Card::only(item_number, number, &file.name, outcome);
        let card = match row::<Said>(desk, record, at, CARDS, |s| &s.digest)? {
            Some(said) => Card {
                previous: said.previous,
                inside: said.inside,
                findings: said.findings,
                ..only(said.outcome)
            },
            None if ended => continue,
            None if format(desk, item, file).is_none() => only(Outcome::NotAnArchive),
            None if !within.contains(&at.numbers()) => only(Outcome::LeftOut),
            None if kept(at)? => only(Outcome::Waiting),
            None => only(Outcome::NotGiven),
        };
        cards.push((at, card));
    }
    Ok(cards)
}

/// The cards that the policy judges by, for each item; none where it does not look at them.
pub fn cards_by_item(desk: &Desk, record: &Record) -> Result<Vec<Vec<Card>>, Fault> {
    let policy = desk.policy.load();
    let looks = |item: &Item| {
        let entry = policy.entry(&item.registry, &item.package).ok();
        entry.is_some_and(Entry::looks_at_cards)
    };
    let items = &record.facts.items;
    let looked_at: Vec<bool> = items.iter().map(looks).collect();
    let mut by_item = vec![Vec::new(); items.len()];
    if !looked_at.contains(&true) {
        return Ok(by_item);
    }
    let files = record
        .files()
        .filter(|at| looked_at.get(at.item).copied().unwrap_or_default());
    // What is kept and not looked into yet is as unknown as what is not kept.
    for (at, card) in said(desk, record, files, |_| Ok(false))? {
        if let Some(of_item) = by_item.get_mut(at.item) {
            of_item.push(card);
        }
    }
    Ok(by_item)
}

/// A row about the bytes that the request has.
fn row<T: serde::de::DeserializeOwned>(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    table: Table,
    digest: impl Fn(&T) -> &Digest,
) -> Result<Option<T>, Fault> {
    let found = desk.authentic_row::<T>(table, &key(record.facts.id, at))?;
    let own = item_and_file(record, at).map(|(_, file)| &file.digest);
    Ok(found
        .map(|row| row.value)
        .filter(|row| Some(digest(row)) == own))
}

/// How the text of one file inside changed, if that was kept.
pub fn diff(
    desk: &Desk,
    id: RequestId,
    person: &Person,
    at: FileAt,
    number: usize,
) -> Result<Diff, Refusal> {
    let record = ledger::find(desk, id)?
        .filter(|r| question::concerns(desk, r, person))
        .ok_or(Refusal::NotFound)?;
    let details = row::<Details>(desk, &record, at, DETAILS, |d| &d.digest)?;
    let mut diffs = details.ok_or(Refusal::NotFound)?.diffs.into_iter();
    diffs.nth(number).ok_or(Refusal::NotFound)
}

/// Drops the cards of a request that has ended, and what its source was.
pub fn dropped(desk: &Desk, mut batch: Batch, id: RequestId) -> Result<Batch, Fault> {
    for table in [CARDS, DETAILS] {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = desk
                .live
                .range(table, id.0.as_bytes(), after.as_deref(), PAGE)?;
            after = page.last().map(|(key, _)| key.clone());
            let count = page.len();
            for (key, row) in page {
                batch = batch.delete(table, key, row.version);
            }
            if count < PAGE {
                break;
            }
        }
    }
    super::source::dropped(desk, batch, id)
}

pub(super) fn key(id: RequestId, at: FileAt) -> Vec<u8> {
    let mut key = id.0.as_bytes().to_vec();
    let (item, file) = at.numbers();
    key.extend_from_slice(&item.to_be_bytes());
    key.extend_from_slice(&file.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::card::{Change, FindingKind, Risk};

    fn inspection() -> Inspection {
        let line = |n: u32| Line {
            change: Change::Changed,
            name: format!("{n}.js"),
            size: 1,
            before: Some(2),
            difference: (n < 3).then_some(n),
        };
        let finding = |kind, risk| Finding {
            kind,
            risk,
            what: "what".to_owned(),
            why: "why".to_owned(),
        };
        let mut findings = vec![finding(FindingKind::Binaries, Risk::Low)];
        findings.extend((0..90).map(|_| finding(FindingKind::Secrets, Risk::Critical)));
        Inspection {
            compared: true,
            inside: Inside {
                lines: (0..100).map(line).collect(),
                ..Inside::default()
            },
            findings,
            diffs: (0..3)
                .map(|n| Diff {
                    name: format!("{n}.js"),
                    text: "x\n".repeat(2000),
                })
                .collect(),
        }
    }

    #[test]
    fn attack_53_a_flood_of_one_kind_of_finding_hides_no_other() {
        let mut many = inspection();
        bounded(&mut many, 400);
        let kinds: Vec<_> = many.findings.iter().map(|f| f.kind).collect();
        assert_eq!(
            kinds,
            [
                FindingKind::Secrets,
                FindingKind::Secrets,
                FindingKind::Binaries
            ]
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_from_the_end() {
        let of = |room| {
            let all = inspection();
            let mut details = Details {
                digest: Digest::of(proto::digest::Algorithm::Sha256, b""),
                lines: all.inside.lines,
                diffs: all.diffs,
            };
            details.fit(room);
            let stars = details.lines.iter().filter(|l| l.difference.is_some());
            (details.lines.len(), details.diffs.len(), stars.count())
        };
        assert_eq!(of(1 << 20), (100, 3, 3));
        assert_eq!(of(20_000), (100, 2, 2));
        assert_eq!(of(14_000), (100, 1, 1));
        assert_eq!(of(10_000), (100, 0, 0));
        assert_eq!(of(1000), (0, 0, 0));
    }
}
