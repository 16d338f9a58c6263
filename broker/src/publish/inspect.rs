//! The card: what an approver sees about the bytes of each file, computed here from the bytes.
//!
//! A deposit is looked into as soon as it is kept; in the other modes the job's client hands its files over for
//! that alone, and they are gone afterwards. The card is stored with the digest that it was made of, under the
//! vault's key: whoever writes the database cannot write one.

use super::{
    Refusal,
    ledger::{self, REQUESTS},
    previous::{self, Before},
    question,
    state::{FileAt, Record},
};
use crate::{
    card::{
        Format, Inspection, Job,
        run::{NotInspected, pack},
    },
    desk::{Desk, Fault, Registry, inspections::Busy, people::Person},
    policy::Entry,
    store::{Batch, Table},
};
use proto::{
    api::{Mode, StateName},
    card::{Card, Diff, FILE_MAX, Inside, Outcome, Previous},
    digest::{Algorithm, Digest, Hasher},
    ids::RequestId,
    request::{File, Item},
};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read as _, Seek as _},
    sync::Arc,
};
use tempfile::SpooledTempFile;

/// Cards: id, item and file (both big-endian); authenticated.
pub const CARDS: Table = Table("card");
/// Room that the cards of one request take with lists and differences, in bytes; what comes then is stored
/// with its findings alone.
const ROOM: usize = 4 << 20;
/// Cards that are read at once.
const CARDS_MAX: usize = 5000;
/// Attempts to store a card while the request changes.
const RACES_MAX: usize = 20;

/// One card as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Of the bytes that it was made of.
    digest: Digest,
    outcome: Outcome,
    previous: Previous,
    #[serde(default)]
    inspection: Option<Inspection>,
}

/// Claims a file that has no card: whoever has the claim may look into it, and nobody else meanwhile.
pub fn claim(desk: &Desk, id: RequestId, at: FileAt) -> Result<Option<Claim>, Fault> {
    let busy = desk.inspections.begin(&key(id, at));
    if has_card(desk, id, at)? {
        return Ok(None);
    }
    Ok(busy.map(|busy| Claim {
        id,
        at,
        _busy: busy,
    }))
}

/// A file that is being looked into.
pub struct Claim {
    id: RequestId,
    at: FileAt,
    _busy: Busy,
}

/// Looks into one file of a request and stores its card. Whatever goes wrong with the archive is a card too. The
/// caller has waited for a place before he read the archive, so that few of them lie around.
pub async fn look(
    desk: &Arc<Desk>,
    claim: &Claim,
    archive: SpooledTempFile,
) -> Result<(), Refusal> {
    let (id, at) = (claim.id, claim.at);
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    let (item, file) = item_and_file(&record, at).ok_or(Refusal::NotFound)?;
    let stored = made(desk, item, file, archive).await;
    store(desk, id, &key(id, at), stored).await
}

/// Stores that a file could not be had: nobody tries again, and people are told.
pub async fn failed(desk: &Desk, claim: &Claim) -> Result<(), Refusal> {
    let record = ledger::find(desk, claim.id)?.ok_or(Refusal::NotFound)?;
    let (_, file) = item_and_file(&record, claim.at).ok_or(Refusal::NotFound)?;
    let stored = Stored {
        digest: file.digest.clone(),
        outcome: Outcome::Failed,
        previous: Previous::Unknown,
        inspection: None,
    };
    store(desk, claim.id, &key(claim.id, claim.at), stored).await
}

/// Whether anybody wants to see what is in an item's files.
pub fn is_wanted(desk: &Desk, item: &Item) -> bool {
    let policy = desk.policy.load();
    let entry = policy.entry(&item.registry, &item.package);
    entry.is_ok_and(Entry::wants_cards)
}

/// The files that the job should hand over to be looked into: the archives that the broker would not get before the
/// approval otherwise.
pub fn asked_for(desk: &Desk, record: &Record) -> Vec<Digest> {
    let mode = matches!(record.mode, Mode::Forward | Mode::Mint);
    if !mode || record.name() != StateName::Pending {
        return Vec::new();
    }
    let mut all = Vec::new();
    for item in record.facts.items.iter().filter(|i| is_wanted(desk, i)) {
        let kind = desk.registries.get(&item.registry).map(Registry::kind);
        let archive = |f: &&File| {
            let format = kind.and_then(|kind| Format::of(kind, &f.name));
            format.is_some() && !f.is_announced() && f.size <= FILE_MAX
        };
        all.extend(item.files.iter().filter(archive).map(|f| f.digest.clone()));
    }
    all
}

/// A file of a request that its ticket's holder may hand over, with its size; nothing where it has a card already.
pub fn wanted(
    desk: &Desk,
    record: &Record,
    digest: &Digest,
) -> Result<Option<(Claim, File)>, Refusal> {
    if !asked_for(desk, record).contains(digest) {
        return Err(Refusal::BadRequest(
            "this file is not wanted for inspection".to_owned(),
        ));
    }
    for at in record.files() {
        let found = item_and_file(record, at).filter(|(_, f)| f.digest == *digest);
        let Some((_, file)) = found else { continue };
        if let Some(claim) = claim(desk, record.facts.id, at)? {
            return Ok(Some((claim, file.clone())));
        }
        if !has_card(desk, record.facts.id, at)? {
            // Somebody hands it over at this very moment.
            return Err(Refusal::Busy);
        }
    }
    Ok(None)
}

/// Looks into a file that the job has handed over, if it is the one that it says (attack 12).
pub async fn handed_over(
    desk: &Arc<Desk>,
    claim: &Claim,
    file: &File,
    mut body: SpooledTempFile,
) -> Result<(), Refusal> {
    let algorithm = file.digest.algorithm();
    let hashed = tokio::task::spawn_blocking(move || {
        let digest = digest_of(&mut body, algorithm)?;
        Ok::<_, std::io::Error>((digest, body))
    });
    let hashed = hashed.await.map_err(|_| Fault::Damaged("an upload"))?;
    let ((size, digest), body) = hashed.map_err(|_| Fault::Damaged("an upload"))?;
    if digest != file.digest || size != file.size {
        return Err(Refusal::BytesDiffer(
            "these are not the bytes of the request's file".to_owned(),
        ));
    }
    let place = desk.inspections.inspector.place().await;
    let _place = place.map_err(|_| Refusal::Busy)?;
    look(desk, claim, body).await
}

fn digest_of(body: &mut SpooledTempFile, algorithm: Algorithm) -> std::io::Result<(u64, Digest)> {
    body.rewind()?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let n = body.read(&mut buffer)?;
        let Some(piece) = buffer.get(..n).filter(|p| !p.is_empty()) else {
            return Ok((size, hasher.finish()));
        };
        hasher.update(piece);
        size += n as u64;
    }
}

/// Whether there is a card already.
pub fn has_card(desk: &Desk, id: RequestId, at: FileAt) -> Result<bool, Fault> {
    Ok(desk.live.get(CARDS, &key(id, at))?.is_some())
}

async fn made(desk: &Arc<Desk>, item: &Item, file: &File, archive: SpooledTempFile) -> Stored {
    let mut stored = Stored {
        digest: file.digest.clone(),
        outcome: Outcome::NotAnArchive,
        previous: Previous::Unknown,
        inspection: None,
    };
    let kind = desk.registries.get(&item.registry).map(Registry::kind);
    let Some(format) = kind.and_then(|kind| Format::of(kind, &file.name)) else {
        return stored;
    };
    match inspected(desk, item, file, format, archive).await {
        Ok((previous, inspection)) => {
            stored.outcome = Outcome::Inspected;
            stored.previous = previous;
            stored.inspection = Some(inspection);
        }
        Err(why) => {
            tracing::warn!(name = %item.name(), %why, "a file could not be inspected");
            stored.outcome = Outcome::Failed;
        }
    }
    stored
}

async fn inspected(
    desk: &Arc<Desk>,
    item: &Item,
    file: &File,
    format: Format,
    mut archive: SpooledTempFile,
) -> Result<(Previous, Inspection), NotInspected> {
    let Before { shown, bytes } = previous::of(desk, item, file).await;
    let job = Job {
        format,
        package: item.package.to_string(),
        version: item.version.to_string(),
        length: file.size,
        previous: bytes.as_ref().map(|(_, length)| *length),
    };
    let folder = desk.place.spool.clone();
    let packed = tokio::task::spawn_blocking(move || {
        archive.rewind()?;
        pack(&job, archive, bytes.map(|(file, _)| file), &folder)
    });
    let packed = packed.await.map_err(|_| NotInspected::Ended)??;
    let mut inspection = desk.inspections.inspector.inspect(packed).await?;
    // It was there, and could not be read: nothing was compared.
    let compared = inspection.compared || shown == Previous::First;
    let previous = if compared { shown } else { Previous::Unknown };
    bounded(&mut inspection);
    Ok((previous, inspection))
}

/// The process that found it is not believed: what it says is cut to what it may say.
fn bounded(inspection: &mut Inspection) {
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
    inspection.findings.truncate(100);
    for finding in &mut inspection.findings {
        cut(&mut finding.what, 1000);
        cut(&mut finding.why, 300);
    }
    inspection
        .findings
        .sort_by_key(|f| std::cmp::Reverse(f.risk));
    for diff in &mut inspection.diffs {
        cut(&mut diff.name, proto::card::NAME_MAX);
        let lines = diff.text.lines().map(proto::text::harmless);
        diff.text = lines.map(|line| line + "\n").collect();
    }
}

async fn store(desk: &Desk, id: RequestId, key: &[u8], mut stored: Stored) -> Result<(), Refusal> {
    let taken = desk.live.range(CARDS, id.0.as_bytes(), None, CARDS_MAX);
    let taken = taken.map_err(Fault::from)?;
    let taken: usize = taken.iter().map(|(_, row)| row.value.len()).sum();
    if let Some(inspection) = stored.inspection.as_mut().filter(|_| taken > ROOM) {
        inspection.inside = Inside {
            lines: Vec::new(),
            ..std::mem::take(&mut inspection.inside)
        };
        inspection.diffs.clear();
    }
    let row = desk.authentic(CARDS, key, &stored)?;
    for _ in 0..RACES_MAX {
        let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
        if held.record.name().is_final() {
            return Err(Refusal::State(held.record.name(), None));
        }
        // In a commit with the request as it is: nothing is left of one that ends meanwhile.
        let batch = Batch::new()
            .require(REQUESTS, id.0.as_bytes(), held.version)
            .create(CARDS, key, row.clone());
        match desk.commit(batch, &[], desk.world.now()).await {
            Ok(_) | Err(Fault::Conflict(CARDS, _)) => return Ok(()),
            Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(Refusal::Busy)
}

/// The card of each file, as far as there is one. `kept` says whether the broker has the bytes of a file.
pub fn cards(
    desk: &Desk,
    record: &Record,
    kept: impl Fn(FileAt) -> Result<bool, Fault>,
) -> Result<Vec<Card>, Fault> {
    let mut cards = Vec::new();
    // What is announced only is never seen; and cards end with their request.
    let ended = record.name().is_final() && record.name() != StateName::Published;
    for at in record.files() {
        let Some((_, file)) = item_and_file(record, at).filter(|(_, f)| !f.is_announced()) else {
            continue;
        };
        match stored(desk, record, at)? {
            Some(found) => cards.push(card(at, file, found)),
            None if ended || record.name() == StateName::Published => {}
            None => {
                let outcome = if kept(at)? {
                    Outcome::Waiting
                } else {
                    Outcome::NotGiven
                };
                let (item, number) = at.numbers();
                cards.push(Card::only(item, number, &file.name, outcome));
            }
        }
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
    let mut by_item = vec![Vec::new(); record.facts.items.len()];
    if !record.facts.items.iter().any(looks) {
        return Ok(by_item);
    }
    // What is kept and not looked into yet is as unknown as what is not kept.
    for card in cards(desk, record, |_| Ok(false))? {
        let item = usize::try_from(card.item).ok();
        if let Some(of_item) = item.and_then(|n| by_item.get_mut(n)) {
            of_item.push(card);
        }
    }
    Ok(by_item)
}

fn stored(desk: &Desk, record: &Record, at: FileAt) -> Result<Option<Stored>, Fault> {
    let found = desk.authentic_row::<Stored>(CARDS, &key(record.facts.id, at))?;
    let digest = item_and_file(record, at).map(|(_, file)| &file.digest);
    Ok(found
        .map(|row| row.value)
        .filter(|s| Some(&s.digest) == digest))
}

fn card(at: FileAt, file: &File, stored: Stored) -> Card {
    let (item, number) = at.numbers();
    let mut card = Card::only(item, number, &file.name, stored.outcome);
    card.previous = stored.previous;
    if let Some(inspection) = stored.inspection {
        card.inside = Some(inspection.inside);
        card.findings = inspection.findings;
    }
    card
}

/// How the text of one file inside changed, if that was kept.
///
/// Without a place, of the first file that has one of this name.
pub fn diff(
    desk: &Desk,
    id: RequestId,
    person: &Person,
    at: Option<FileAt>,
    name: &str,
) -> Result<Diff, Refusal> {
    let record = ledger::find(desk, id)?
        .filter(|r| question::concerns(desk, r, person))
        .ok_or(Refusal::NotFound)?;
    for here in record
        .files()
        .filter(|here| at.is_none_or(|at| at == *here))
    {
        let inspection = stored(desk, &record, here)?.and_then(|s| s.inspection);
        let mut diffs = inspection.into_iter().flat_map(|i| i.diffs);
        if let Some(diff) = diffs.find(|d| d.name == name) {
            return Ok(diff);
        }
    }
    Err(Refusal::NotFound)
}

/// Drops the cards of a request that has ended.
pub fn dropped(desk: &Desk, mut batch: Batch, id: RequestId) -> Result<Batch, Fault> {
    for (key, row) in desk.live.range(CARDS, id.0.as_bytes(), None, CARDS_MAX)? {
        batch = batch.delete(CARDS, key, row.version);
    }
    Ok(batch)
}

fn item_and_file(record: &Record, at: FileAt) -> Option<(&Item, &File)> {
    let item = record.facts.items.get(at.item)?;
    Some((item, item.files.get(at.file)?))
}

fn key(id: RequestId, at: FileAt) -> Vec<u8> {
    let mut key = id.0.as_bytes().to_vec();
    let (item, file) = at.numbers();
    key.extend_from_slice(&item.to_be_bytes());
    key.extend_from_slice(&file.to_be_bytes());
    key
}
