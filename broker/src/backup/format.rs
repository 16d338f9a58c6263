//! What is inside a backup: a head, the pieces of both stores, some files, and a signature over all of it.
//!
//! The whole stands in one age file (c2sp.org/age), which its own tool opens as well. age notices a cut and any
//! changed byte, but whoever knows the recipients can write such a file. So the head and every byte after it are
//! signed with a key that the head names. Whoever can read a backup can write a changed one and sign that with a key of his
//! own, which he names. So the signature says who made it only to whom knows the log's key (`restore --log-key`); and nobody
//! agrees to a restored backup whose key is not the one in its vault.
//!
//! ```text
//! magic, length (4 bytes, big-endian), head (JSON)
//! frames: kind (1), number (8), length of the place (4), length of the value (4), place, value
//! the last frame: the signature, over the SHA-256 of everything before it
//! ```

use crate::store::snapshot::{Counters, Piece};
use aws_lc_rs::digest::{Context, SHA256};
use proto::{canonical::Canonical, log::checkpoint::LogKey, time::UnixTime};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use thiserror::Error;

/// The first bytes inside.
const MAGIC: &[u8] = b"countersign-backup\n";
/// The newest format that this program reads, and the one that it writes.
pub const FORMAT: u32 = 1;
/// Bytes of a head at most.
const HEAD_MAX: usize = 64 << 10;
/// Bytes of a place, or of a file's name, at most.
const PLACE_MAX: usize = 64 << 10;
/// Bytes of one value at most: a store's largest rows are cards, of half a megabyte.
const VALUE_MAX: usize = 64 << 20;
/// Kind, number, and the lengths of place and value.
const FRAME_BYTES: usize = 17;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The format of what follows.
    pub v: u32,
    /// The daemon's version that made it.
    pub made_by: String,
    /// When it was taken.
    pub taken: UnixTime,
    /// What people and jobs call the broker.
    pub public_url: String,
    /// The log's key, as a vkey.
    pub log_key: String,
    /// The log's signed checkpoint over entries that are all in here.
    pub checkpoint: String,
    /// What the live store counted.
    pub live: Counters,
    /// What the history counted.
    pub history: Counters,
}

/// Which part of a broker a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A row of the live store.
    LiveRow = 1,
    /// A log entry of the live store.
    LiveEntry = 2,
    /// A row of the history.
    PastRow = 3,
    /// A log entry of the history.
    PastEntry = 4,
    /// A file: its name is the place.
    File = 5,
    /// The signature.
    End = 9,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::LiveRow,
        Self::LiveEntry,
        Self::PastRow,
        Self::PastEntry,
        Self::File,
        Self::End,
    ];
}

/// Which of the two stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// What can still change.
    Live,
    /// What is finished.
    Past,
}

/// Why a backup is not read further.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file ends too early, or cannot be read.
    #[error("the backup cannot be read to its end ({0}); it is cut or damaged: take another one")]
    Cut(#[from] io::Error),
    /// Not a backup.
    #[error("this is not a backup of a broker")]
    Foreign,
    /// Of a newer program.
    #[error(
        "the backup has {what} {found}, this program knows {what}s up to {known}: a newer countersignd made it; restore it with that one"
    )]
    Newer {
        /// Format or schema.
        what: &'static str,
        /// Its number.
        found: u64,
        /// The newest that is known here.
        known: u64,
    },
    /// Its parts do not fit each other.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// Not signed, or with another key.
    #[error(
        "the backup's signature does not hold: it was changed after it was made; take another one"
    )]
    Signature,
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    hash: Context,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    pub fn begin(to: W, head: &Head) -> io::Result<Self> {
        let mut writer = Self {
            to,
            hash: Context::new(&SHA256),
        };
        let head = serde_json::to_vec(head)?;
        writer.put(MAGIC)?;
        writer.put(&length(&head)?)?;
        writer.put(&head)?;
        Ok(writer)
    }

    /// Adds a piece of a store.
    pub fn piece(&mut self, of: Which, piece: Piece<'_>) -> io::Result<()> {
        match (of, piece) {
            (
                _,
                Piece::Row {
                    place,
                    version,
                    value,
                },
            ) => {
                let part = if of == Which::Live {
                    Part::LiveRow
                } else {
                    Part::PastRow
                };
                self.frame(part, version, place, value)
            }
            (Which::Live, Piece::Entry { index, value }) => {
                self.frame(Part::LiveEntry, index, b"", value)
            }
            (Which::Past, Piece::Entry { index, value }) => {
                self.frame(Part::PastEntry, index, b"", value)
            }
        }
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.frame(Part::File, 0, name.as_bytes(), bytes)
    }

    /// Ends it with a signature over what is signed of a log.
    pub fn end(mut self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> io::Result<W> {
        let signature = sign(&signed(&self.hash));
        self.frame(Part::End, 0, b"", &signature)?;
        Ok(self.to)
    }

    fn frame(&mut self, part: Part, number: u64, place: &[u8], value: &[u8]) -> io::Result<()> {
        if place.len() > PLACE_MAX || value.len() > VALUE_MAX {
            return Err(io::Error::other("a row is too large for a backup"));
        }
        self.put(&[part as u8])?;
        self.put(&number.to_be_bytes())?;
        self.put(&length(place)?)?;
        self.put(&length(value)?)?;
        self.put(place)?;
        self.put(value)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }
}

/// One frame as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub part: Part,
    number: u64,
    place: Vec<u8>,
    value: Vec<u8>,
}

impl Frame {
    /// It as a piece of a store; none where it is a file.
    pub fn piece(&self) -> Option<(Which, Piece<'_>)> {
        let (number, value) = (self.number, self.value.as_slice());
        let row = Piece::Row {
            place: &self.place,
            version: number,
            value,
        };
        let entry = Piece::Entry {
            index: number,
            value,
        };
        match self.part {
            Part::LiveRow => Some((Which::Live, row)),
            Part::LiveEntry => Some((Which::Live, entry)),
            Part::PastRow => Some((Which::Past, row)),
            Part::PastEntry => Some((Which::Past, entry)),
            Part::File | Part::End => None,
        }
    }

    /// It as a file, by its name.
    pub fn file(&self) -> Option<(&str, &[u8])> {
        let name = std::str::from_utf8(&self.place).ok()?;
        (self.part == Part::File).then_some((name, self.value.as_slice()))
    }
}

/// Reads a backup. Nothing that it hands out may be relied on before it has come to its end.
pub struct Reader<R> {
    from: R,
    hash: Context,
    key: LogKey,
}

impl<R: Read> Reader<R> {
    /// Reads the head; `schema` is the newest layout of a store that is known here.
    pub fn begin(from: R, schema: u64) -> Result<(Head, Self), ReadError> {
        let mut hash = Context::new(&SHA256);
        let mut reader = Plain {
            from,
            hash: &mut hash,
        };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ReadError::Foreign);
        }
        let length = reader.length(HEAD_MAX)?;
        let head = reader.take(length)?;
        let from = reader.from;
        let head = read_head(&head, schema)?;
        let key: LogKey =
            (head.log_key.parse()).map_err(|_| ReadError::Damaged("its log's key"))?;
        Ok((head, Self { from, hash, key }))
    }

    /// The next frame; none when the backup came to its end, and its signature holds.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let before = self.hash.clone();
        let mut reader = Plain {
            from: &mut self.from,
            hash: &mut self.hash,
        };
        let bad = || ReadError::Damaged("a frame");
        let head = reader.take(FRAME_BYTES - 8)?;
        let (kind, number) = head.split_first().ok_or_else(bad)?;
        let part = Part::ALL.into_iter().find(|p| *p as u8 == *kind);
        let number = number.first_chunk().map(|n| u64::from_be_bytes(*n));
        let (part, number) = (part.ok_or_else(bad)?, number.ok_or_else(bad)?);
        let (place, value) = (reader.length(PLACE_MAX)?, reader.length(VALUE_MAX)?);
        let (place, value) = (reader.take(place)?, reader.take(value)?);
        if part != Part::End {
            return Ok(Some(Frame {
                part,
                number,
                place,
                value,
            }));
        }
        // The frame of the signature is not signed itself: there is one spelling of it.
        if number != 0 || !place.is_empty() {
            return Err(bad());
        }
        if !self.key.public().verify(&signed(&before), &value) {
            return Err(ReadError::Signature);
        }
        // age tells only at its own end that nothing was cut off.
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err(ReadError::Damaged("something stands behind its end")),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is read, and hashed.
struct Plain<'a, R> {
    from: R,
    hash: &'a mut Context,
}

impl<R: Read> Plain<'_, R> {
    fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self, max: usize) -> Result<usize, ReadError> {
        let bytes = self.take(4)?;
        let length = bytes.first_chunk().map(|n| u32::from_be_bytes(*n));
        let length = length.and_then(|n| usize::try_from(n).ok());
        length
            .filter(|n| *n <= max)
            .ok_or(ReadError::Damaged("a length"))
    }
}

/// The format is looked at first: what else a newer head says is not ours to judge.
fn read_head(bytes: &[u8], schema: u64) -> Result<Head, ReadError> {
    #[derive(Deserialize)]
    struct Format {
        v: u32,
    }
    let bad = |_| ReadError::Damaged("its head");
    let Format { v } = serde_json::from_slice(bytes).map_err(bad)?;
    let newer = |what, found, known| Err(ReadError::Newer { what, found, known });
    if v > FORMAT {
        return newer("format", v.into(), FORMAT.into());
    }
    let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
    match head.live.schema.max(head.history.schema) {
        found if found > schema => newer("schema", found, schema),
        _ => Ok(head),
    }
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("too long"))?;
    Ok(length.to_be_bytes())
}

/// What the log's key signs: no checkpoint and no receipt begins like this.
fn signed(hash: &Context) -> Vec<u8> {
    Canonical::new("countersign/backup/v1")
        .bytes(hash.clone().finish().as_ref())
        .finish()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
