//! The log, given out: exports, bundles, receipts.

use super::witnesses;
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    publish::{Refusal, state::Record},
    store::history::whole_log_read,
};
use proto::{
    api::{LogLine, Mode, ReceiptBody, StateName},
    digest::hex,
    log::{
        receipt,
        tile::{self, Place},
    },
};

/// Most leaves in one page of an export.
pub const PAGE_MAX: usize = 1000;

/// Leaves from an index on: first what was moved to history, then the live ones.
pub fn export(desk: &Desk, from: u64, limit: usize) -> Result<Vec<LogLine>, Refusal> {
    let limit = limit.clamp(1, PAGE_MAX);
    let leaves = whole_log_read(&*desk.live, &*desk.history, from, limit).map_err(Fault::from)?;
    leaves
        .into_iter()
        .map(|(index, leaf)| line(index, leaf))
        .collect()
}

/// A bundle of entries that the tree has: a tile of C2SP tlog-tiles.
pub fn bundle(desk: &Desk, place: Place) -> Result<Vec<u8>, Refusal> {
    let there = place.end().is_some_and(|end| end <= desk.tree.size());
    if !there {
        return Err(Refusal::NotFound);
    }
    let width = usize::try_from(place.width).unwrap_or(0);
    let leaves = whole_log_read(&*desk.live, &*desk.history, place.start(), width);
    let leaves = leaves.map_err(Fault::from)?;
    if leaves.len() != width {
        return Err(Fault::Damaged("the log: an entry is missing").into());
    }
    let bundle = tile::bundle(leaves.iter().map(|(_, leaf)| leaf.as_slice()));
    bundle.ok_or_else(|| {
        let why = "an entry of this bundle is longer than the format holds: read /v1/log/export";
        Refusal::BadRequest(why.to_owned())
    })
}

fn line(index: u64, leaf: Vec<u8>) -> Result<LogLine, Refusal> {
    let leaf = String::from_utf8(leaf).map_err(|_| Fault::Damaged("a leaf"))?;
    Ok(LogLine { index, leaf })
}

/// The signed, offline-verifiable bundle about one publish: a DSSE envelope.
pub async fn receipt(desk: &Desk, record: &Record) -> Result<String, Refusal> {
    if record.name() != StateName::Published {
        return Err(Refusal::State(record.name(), record.status().reason));
    }
    if record.mode == Mode::Reveal {
        // The broker published nothing, so there is no publish of its own to prove offline.
        let why = "a secret was handed out and the broker published nothing; the log has who approved it, and what was read back";
        return Err(Refusal::BadRequest(why.to_owned()));
    }
    let (size, checkpoint) = desk.checkpoint().await?;
    let (index, leaf) = published_leaf(desk, record, size)?;
    // An older tree that witnesses cosigned proves the same, and says more.
    let cosigned = witnesses::best(desk, index)?;
    let (size, checkpoint) = cosigned.unwrap_or((size, checkpoint));
    let inclusion = desk
        .tree
        .inclusion(&*desk.history, index, size)
        .map_err(|e| Fault::Store(e.to_string()))?;
    let body = ReceiptBody {
        facts: record.facts.clone(),
        request_digest: record.digest,
        evidence: record.evidence().to_vec(),
        intents: record.counting().cloned().collect(),
        items: record.status().items,
        leaf: line(index, leaf)?,
        site: desk.passkeys.as_ref().map(|p| p.site().clone()),
        inclusion: inclusion.iter().map(|h| hex(&h.0)).collect(),
        checkpoint,
    };
    receipt::sign_receipt(&body, &desk.place.origin, &desk.log_key()?)
        .map_err(|_| Fault::Damaged("a receipt").into())
}

fn read(leaf: &str) -> Option<Event> {
    #[derive(serde::Deserialize)]
    struct Leaf {
        event: Event,
    }
    serde_json::from_str::<Leaf>(leaf).ok().map(|l| l.event)
}

/// The leaf that says that this request was published: the record tells where to look, and only
/// what was committed at the same moment lies between.
fn published_leaf(desk: &Desk, record: &Record, size: u64) -> Result<(u64, Vec<u8>), Refusal> {
    let id = record.facts.id;
    let mut from = record.leaf_from.unwrap_or(0);
    while from < size {
        for l in export(desk, from, PAGE_MAX)? {
            from = l.index + 1;
            if let Some(Event::RequestPublished { request, .. }) = read(&l.leaf)
                && request == id
            {
                return Ok((l.index, l.leaf.into_bytes()));
            }
        }
    }
    Err(Fault::Damaged("the log: a publish is not in it").into())
}
