//! The card: what an approver sees about the bytes of each file, computed here from the bytes.
//!
//! A deposit is looked into as soon as it is kept; in the other modes the job's client hands its files over for
//! that alone, and they are gone afterwards. The card is stored with the digest that it was made of, under the
//! vault's key: whoever writes the database cannot write one.

pub mod rows;
pub mod source;

pub use rows::{cards, cards_by_item, diff, dropped};

use super::{
    Refusal,
    ledger::{self, REQUESTS},
    previous::{self, Before},
    state::{FileAt, Record},
};
use crate::{
    card::{
        Against, Format, Inspection, Job,
        run::{NotInspected, pack},
        source::Listing,
    },
    desk::{
        Desk, Fault, Registry,
        inspections::{Busy, Turn},
        uploads::Slot,
    },
    policy::Entry,
    store::{Batch, Table},
};
use proto::{
    api::{Mode, StateName},
    card::{BYTES_MAX, FILE_MAX, FILES_MAX, Outcome, Previous},
    digest::{Algorithm, Digest, Hasher},
    ids::RequestId,
    request::{File, Item},
};
use rows::{Made, has_card, key, store};
use std::{
    io::{Read as _, Seek as _},
    sync::Arc,
};
use tempfile::SpooledTempFile;

/// Attempts to store something about a request while it changes.
const RACES_MAX: usize = 20;

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
/// caller has waited for the turn of its account before he read the archive, so that few of them lie around.
pub async fn look(
    desk: &Arc<Desk>,
    claim: &Claim,
    turn: Turn,
    archive: SpooledTempFile,
) -> Result<(), Refusal> {
    let (id, at) = (claim.id, claim.at);
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    let (item, file) = item_and_file(&record, at).ok_or(Refusal::NotFound)?;
    let made = made(desk, id, item, file, turn, archive).await?;
    store(desk, &record, at, made).await
}

/// Stores that a file could not be had: nobody tries again, and people are told.
pub async fn failed(desk: &Desk, claim: &Claim) -> Result<(), Refusal> {
    let record = ledger::find(desk, claim.id)?.ok_or(Refusal::NotFound)?;
    store(desk, &record, claim.at, Made::only(Outcome::Failed)).await
}

/// The files that are looked into, in the request's order as far as there is room: neither a flood of files nor a
/// few large ones keep the broker busy for one request (attack 53).
pub fn within(desk: &Desk, record: &Record) -> Vec<FileAt> {
    let mut left = BYTES_MAX;
    let mut all = Vec::new();
    for at in record.files() {
        let Some((item, file)) = item_and_file(record, at) else {
            continue;
        };
        if file.is_announced() || format(desk, item, file).is_none() {
            continue;
        }
        // What a smaller file behind it would still find room for is not looked for: the first ones, and no others.
        let Some(less) = left
            .checked_sub(file.size)
            .filter(|_| all.len() < FILES_MAX)
        else {
            break;
        };
        left = less;
        all.push(at);
    }
    all
}

/// What an item's file is, if it is an archive that can be looked into.
fn format(desk: &Desk, item: &Item, file: &File) -> Option<Format> {
    let kind = desk.registries.get(&item.registry).map(Registry::kind);
    Format::of(kind?, &file.name)
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
    let within = within(desk, record).into_iter();
    let files = within.filter_map(|at| item_and_file(record, at));
    let wanted = files.filter(|(item, file)| is_wanted(desk, item) && file.size <= FILE_MAX);
    wanted.map(|(_, file)| file.digest.clone()).collect()
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
    turn: Turn,
    body: SpooledTempFile,
) -> Result<(), Refusal> {
    let (size, digest, body) = hashed(body, file.digest.algorithm()).await?;
    if digest != file.digest || size != file.size {
        return Err(Refusal::BytesDiffer(
            "these are not the bytes of the request's file".to_owned(),
        ));
    }
    look(desk, claim, turn, body).await
}

/// Length and digest of what was handed over, which is to be read again from its start.
async fn hashed(
    mut body: SpooledTempFile,
    algorithm: Algorithm,
) -> Result<(u64, Digest, SpooledTempFile), Fault> {
    let work = move || {
        let (size, digest) = digest_of(&mut body, algorithm)?;
        body.rewind()?;
        Ok::<_, std::io::Error>((size, digest, body))
    };
    let hashed = tokio::task::spawn_blocking(work).await;
    let damaged = || Fault::Damaged("an upload");
    hashed.map_err(|_| damaged())?.map_err(|_| damaged())
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

async fn made(
    desk: &Arc<Desk>,
    id: RequestId,
    item: &Item,
    file: &File,
    turn: Turn,
    archive: SpooledTempFile,
) -> Result<Made, Fault> {
    let Some(format) = format(desk, item, file) else {
        return Ok(Made::only(Outcome::NotAnArchive));
    };
    let source = source::of(desk, id)?;
    Ok(
        match inspected(desk, item, file, format, turn, archive, source).await {
            Ok((previous, inspection)) => Made {
                outcome: Outcome::Inspected,
                previous,
                inspection: Some(inspection),
            },
            Err(why) => {
                tracing::warn!(name = %item.name(), %why, "a file could not be inspected");
                Made::only(Outcome::Failed)
            }
        },
    )
}

async fn inspected(
    desk: &Arc<Desk>,
    item: &Item,
    file: &File,
    format: Format,
    turn: Turn,
    mut archive: SpooledTempFile,
    source: Option<Listing>,
) -> Result<(Previous, Inspection), NotInspected> {
    // First what may take long and needs no processor; then the place, of which there are few.
    let Before { shown, bytes } = previous::of(desk, item, file).await;
    let place = desk.inspections.place(turn).await?;
    let job = Job {
        format,
        package: item.package.to_string(),
        version: item.version.to_string(),
        length: file.size,
        previous: match &bytes {
            Some((_, length)) => Against::Bytes(*length),
            None if shown == Previous::First => Against::First,
            None => Against::Unknown,
        },
        source: None,
    };
    let folder = desk.place.spool.clone();
    let packed = tokio::task::spawn_blocking(move || {
        archive.rewind()?;
        let before = bytes.map(|(file, _)| file);
        pack(job, archive, before, source.as_ref(), &folder)
    });
    let packed = packed.await.map_err(|_| NotInspected::Ended)??;
    let inspection = place.inspect(packed).await?;
    // It was there, and could not be read: nothing was compared.
    let compared = inspection.compared || shown == Previous::First;
    let previous = if compared { shown } else { Previous::Unknown };
    Ok((previous, inspection))
}

/// Whose turn a request's files wait for. It is far shorter than the request, and many may wait.
pub fn account(record: &Record) -> Slot {
    Slot::account(&record.facts.caller, record.actor.as_deref())
}

/// Stores rows about a request that is not over yet, unless they are there. In a commit with the request as it is:
/// nothing is left of one that ends meanwhile.
async fn store_beside(
    desk: &Desk,
    id: RequestId,
    rows: [(Table, &[u8], Vec<u8>); 2],
) -> Result<Stored, Refusal> {
    for _ in 0..RACES_MAX {
        let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
        if held.record.name().is_final() {
            return Err(Refusal::State(held.record.name(), None));
        }
        let mut batch = Batch::new().require(REQUESTS, id.0.as_bytes(), held.version);
        for (table, key, row) in &rows {
            batch = batch.create(*table, *key, row.clone());
        }
        match desk.commit(batch, &[], desk.world.now()).await {
            Ok(_) => return Ok(Stored::Now),
            Err(Fault::Conflict(table, _)) if rows.iter().any(|(own, ..)| *own == table) => {
                return Ok(Stored::Before);
            }
            Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(Refusal::Busy)
}

/// When rows were stored.
#[derive(PartialEq, Eq)]
enum Stored {
    Now,
    Before,
}

fn item_and_file(record: &Record, at: FileAt) -> Option<(&Item, &File)> {
    let item = record.facts.items.get(at.item)?;
    Some((item, item.files.get(at.file)?))
}
