//! What is given out: checkpoints with the cosignatures that hold over them.

use super::kept::stored;
use crate::desk::{Desk, Fault, witnesses::Witness};
use proto::log::checkpoint::Checkpoint;
use std::collections::BTreeMap;

/// A checkpoint with the cosignatures there are over it.
pub fn cosigned(desk: &Desk, size: u64, note: String) -> Result<String, Fault> {
    let lines = by_size(desk)?.remove(&size).unwrap_or_default();
    Ok(with(note, &lines).0)
}

/// The newest checkpoint that at least so many witnesses cosigned.
pub fn newest(desk: &Desk, count: usize) -> Result<Option<String>, Fault> {
    let all = made(desk, 0)?;
    let found = all.into_iter().rev().find(|one| one.count >= count);
    Ok(found.map(|one| one.note))
}

/// Of the checkpoints over more than `index` entries, the one with the most cosignatures, and of those the newest. None
/// where no witness cosigned one.
pub fn best(desk: &Desk, index: u64) -> Result<Option<(u64, String)>, Fault> {
    let all = made(desk, index.saturating_add(1))?;
    let best = all.into_iter().max_by_key(|one| (one.count, one.size));
    Ok(best.map(|one| (one.size, one.note)))
}

/// Who cosigned one size, and the lines.
pub(super) type Lines<'a> = Vec<(&'a Witness, String)>;

/// A checkpoint with at least one cosignature.
struct Made {
    size: u64,
    note: String,
    count: usize,
}

/// What is kept is lines alone: the checkpoint is made anew from the tree, so that none is given out over another one.
fn made(desk: &Desk, from: u64) -> Result<Vec<Made>, Fault> {
    let (mut all, kept) = (Vec::new(), by_size(desk)?);
    if kept.is_empty() {
        return Ok(all);
    }
    let key = desk.log_key()?;
    let end = desk.tree.size().saturating_add(1);
    for (size, lines) in kept.range(from.min(end)..end) {
        let root = match desk.tree.root_at(&*desk.history, *size) {
            Ok(root) => root,
            Err(why) => {
                tracing::error!(%why, size, "the log's tree is damaged: no checkpoint of this size");
                continue;
            }
        };
        let point = Checkpoint {
            origin: desk.place.origin.clone(),
            size: *size,
            root,
        };
        let note = point.sign(&key);
        let (note, count) = with(note.map_err(|_| Fault::Damaged("the log key"))?, lines);
        if count > 0 {
            let size = *size;
            all.push(Made { size, note, count });
        }
    }
    Ok(all)
}

/// Adds the lines that hold over this very checkpoint.
fn with(mut note: String, lines: &[(&Witness, String)]) -> (String, usize) {
    let checkpoint = note.clone();
    let mut count = 0;
    for (witness, line) in lines {
        if witness.key.taken(&checkpoint, line).is_ok() {
            note.push_str(line);
            count += 1;
        }
    }
    (note, count)
}

pub(super) fn by_size(desk: &Desk) -> Result<BTreeMap<u64, Lines<'_>>, Fault> {
    let mut all: BTreeMap<u64, Lines<'_>> = BTreeMap::new();
    for witness in &desk.witnesses.all {
        for one in stored(desk, witness)?.1.cosigned {
            all.entry(one.size).or_default().push((witness, one.line));
        }
    }
    Ok(all)
}
