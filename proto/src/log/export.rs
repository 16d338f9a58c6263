//! Verifies an exported log: JSON lines of [`LogLine`] from index 0, then one last line
//! `{"checkpoint":"…"}`. Reads as a stream; memory does not grow with the log.

use super::{
    checkpoint::{Checkpoint, LogKey, NoteError},
    merkle::{Frontier, TreeHash, leaf_hash},
};
use crate::api::LogLine;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read as _};
use thiserror::Error;

/// Longest line that is read, in bytes.
pub const LINE_MAX: u64 = 1024 * 1024;

/// The last line of an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointLine {
    /// The signed checkpoint over all lines before it.
    pub checkpoint: String,
}

/// What the reader knows already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The log's key. Without it, the export is only shown to agree with itself.
    pub key: Option<&'a LogKey>,
    /// A checkpoint seen earlier (verified by whoever kept it): the export must begin with its tree,
    /// so that a log cut or rewritten together with its checkpoint is found.
    pub seen: Option<&'a Checkpoint>,
}

/// What a valid export proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: TreeHash,
    /// Whether the checkpoint's signature was checked with a key that the reader named.
    pub pinned: bool,
    /// The checkpoint itself, for who demands witnesses' cosignatures on it.
    #[serde(skip)]
    pub checkpoint: String,
}

/// Why an export is not valid. Lines are counted from 1.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Reading failed.
    #[error("line {line}: {source}")]
    Io {
        /// Where.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// Longer than any entry.
    #[error("line {0} is longer than {LINE_MAX} bytes")]
    TooLong(u64),
    /// The file ends inside a line, or before the checkpoint.
    #[error("line {0}: the export ends here, before its checkpoint; it was cut")]
    Cut(u64),
    /// Not an entry as the broker writes it.
    #[error("line {0} is not an entry as the broker writes it; it was edited")]
    Form(u64),
    /// An entry is missing, repeated or moved.
    #[error("line {line} has entry {found}, but entry {expected} belongs there")]
    Order {
        /// Where.
        line: u64,
        /// What belongs there.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The checkpoint was refused.
    #[error("line {line}, the checkpoint: {why}")]
    Checkpoint {
        /// Where.
        line: u64,
        /// Why.
        why: NoteError,
    },
    /// Entries are missing, or there are too many.
    #[error(
        "line {line}: the checkpoint is over {signed} entries, but {found} lines stand before it"
    )]
    Size {
        /// Where.
        line: u64,
        /// What the checkpoint says.
        signed: u64,
        /// What was read.
        found: u64,
    },
    /// Some entry was edited.
    #[error("line {0}: the checkpoint's root is not that of the lines before it; one was edited")]
    Root(u64),
    /// The log is not the one that was seen earlier.
    #[error("the first {0} entries are not the log that was seen earlier; it was rewritten")]
    Rewritten(u64),
    /// The log is shorter than it was.
    #[error("the log has {found} entries, but had {seen} before; it was cut or rolled back")]
    Shrunk {
        /// Earlier.
        seen: u64,
        /// Now.
        found: u64,
    },
    /// Something follows the checkpoint.
    #[error("line {0} follows the checkpoint; nothing may")]
    Trailing(u64),
}

/// Verifies an export: any bit flipped, any line edited, cut, repeated or moved is found.
pub fn verify_export(
    mut reader: impl BufRead,
    known: Known<'_>,
) -> Result<ExportReport, ExportError> {
    let mut frontier = Frontier::default();
    let mut buffer = Vec::new();
    let mut line = 0;
    check_seen(&frontier, known)?;
    loop {
        line += 1;
        read_line(&mut reader, line, &mut buffer)?;
        if buffer.starts_with(b"{\"checkpoint\"") {
            break;
        }
        take_entry(&mut frontier, &buffer, line)?;
        check_seen(&frontier, known)?;
    }
    let last: CheckpointLine = exact(&buffer, line)?;
    let report = check_end(&last.checkpoint, &frontier, line, known)?;
    match reader.fill_buf() {
        Ok([]) => Ok(report),
        Ok(_) => Err(ExportError::Trailing(line + 1)),
        Err(source) => Err(ExportError::Io {
            line: line + 1,
            source,
        }),
    }
}

/// Adds the entry of a line to the tree.
fn take_entry(frontier: &mut Frontier, buffer: &[u8], line: u64) -> Result<(), ExportError> {
    let entry: LogLine = exact(buffer, line)?;
    if entry.index != frontier.size() {
        return Err(ExportError::Order {
            line,
            expected: frontier.size(),
            found: entry.index,
        });
    }
    frontier.push(leaf_hash(entry.leaf.as_bytes()));
    Ok(())
}

/// Reads one line without its line feed.
fn read_line(
    reader: &mut impl BufRead,
    line: u64,
    buffer: &mut Vec<u8>,
) -> Result<(), ExportError> {
    buffer.clear();
    let read = reader
        .take(LINE_MAX)
        .read_until(b'\n', buffer)
        .map_err(|source| ExportError::Io { line, source })?;
    if buffer.pop_if(|b| *b == b'\n').is_some() {
        return Ok(());
    }
    Err(if read as u64 == LINE_MAX {
        ExportError::TooLong(line)
    } else {
        ExportError::Cut(line)
    })
}

/// Reads a line that is, byte for byte, what the broker writes for its value: a flip that JSON does
/// not mind (white space, another escape of the same character) is an edit still.
fn exact<T: Serialize + for<'a> Deserialize<'a>>(
    buffer: &[u8],
    line: u64,
) -> Result<T, ExportError> {
    let form = |_| ExportError::Form(line);
    let value: T = serde_json::from_slice(buffer).map_err(form)?;
    let again = serde_json::to_vec(&value).map_err(form)?;
    (again == buffer)
        .then_some(value)
        .ok_or(ExportError::Form(line))
}

fn check_seen(frontier: &Frontier, known: Known<'_>) -> Result<(), ExportError> {
    match known.seen {
        Some(seen) if seen.size == frontier.size() && seen.root != frontier.root() => {
            Err(ExportError::Rewritten(seen.size))
        }
        _ => Ok(()),
    }
}

fn check_end(
    note: &str,
    frontier: &Frontier,
    line: u64,
    known: Known<'_>,
) -> Result<ExportReport, ExportError> {
    let opened = match known.key {
        Some(key) => Checkpoint::open(note, key),
        None => Checkpoint::read_unverified(note),
    };
    let point = opened.map_err(|why| ExportError::Checkpoint { line, why })?;
    if point.size != frontier.size() {
        return Err(ExportError::Size {
            line,
            signed: point.size,
            found: frontier.size(),
        });
    }
    if point.root != frontier.root() {
        return Err(ExportError::Root(line));
    }
    if let Some(seen) = known.seen {
        if seen.origin != point.origin {
            let why = NoteError::Origin;
            return Err(ExportError::Checkpoint { line, why });
        }
        if seen.size > point.size {
            return Err(ExportError::Shrunk {
                seen: seen.size,
                found: point.size,
            });
        }
    }
    Ok(ExportReport {
        origin: point.origin,
        size: point.size,
        root: point.root,
        pinned: known.key.is_some(),
        checkpoint: note.to_owned(),
    })
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
