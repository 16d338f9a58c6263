//! Reads a ZIP archive, and refuses every one that two programs could unpack differently: one that goes by
//! the central directory and one that goes by the local headers must see the same files (attack 14).
//!
//! Format: APPNOTE.TXT 6.3.10, without ZIP64, encryption, data descriptors, comments and gaps. No Python
//! build tool needs these for a file that a registry would take, and the public index refuses them as well.

use super::{ArchiveError, Budget, MAX_ENTRIES, names::Names};
use flate2::{Crc, bufread::DeflateDecoder};
use proto::text;
use std::{
    collections::VecDeque,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

/// Length of the central directory.
const MAX_DIRECTORY: u64 = 24 << 20;
/// Signatures (APPNOTE 4.3.7, 4.3.12, 4.3.16).
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
/// Their lengths without names and extra fields.
const LOCAL_LENGTH: usize = 30;
const END_LENGTH: usize = 22;
/// General purpose bits that change nothing about where data lies: deflate's effort, and UTF-8 names.
const HARMLESS_BITS: u16 = 0b1000_0000_0110;
const UTF8_BIT: u16 = 1 << 11;
/// Methods: as it is, and deflate (RFC 1951).
const STORED: u16 = 0;
const DEFLATE: u16 = 8;
/// Extra fields that give an entry another size, name or meaning (APPNOTE 4.5, 4.6).
const DANGEROUS_EXTRA: [u16; 4] = [0x0001, 0x6375, 0x7075, 0x9901];
/// The kinds of a Unix mode: none given, a file, a folder.
const UNIX_KIND: u32 = 0o170_000;
const UNIX_FILE: u32 = 0o100_000;
const UNIX_FOLDER: u32 = 0o040_000;

/// A file or folder in the archive.
#[derive(Debug)]
pub(in crate::registry) struct Entry {
    /// Its whole name.
    pub(in crate::registry) name: String,
    /// Whether it is a folder.
    pub(in crate::registry) folder: bool,
    /// Its length in bytes.
    pub(in crate::registry) size: u64,
    /// What local and central header must agree about.
    same: Same,
    /// Where its local header begins.
    at: u64,
}

/// The bytes of both headers from flags to name length.
#[derive(Debug, PartialEq, Eq)]
struct Same {
    flags: u16,
    method: u16,
    time: u32,
    crc: u32,
    packed: u32,
    size: u32,
    name: Vec<u8>,
}

/// A ZIP archive, entry by entry.
pub(in crate::registry) struct Zip<F> {
    file: F,
    entries: VecDeque<Entry>,
    /// Where the next local header must begin.
    at: u64,
    budget: Budget,
}

impl<F: Read + Seek> Zip<F> {
    /// Reads the directory of an archive of `length` bytes.
    pub(in crate::registry) fn new(mut file: F, length: u64) -> Result<Self, ArchiveError> {
        let end = length
            .checked_sub(END_LENGTH as u64)
            .ok_or(ArchiveError::Header("no end of central directory"))?;
        let mut record = [0; END_LENGTH];
        read_at(&mut file, end, &mut record)?;
        let mut fields = Fields(&record);
        // With a comment the end would stand elsewhere, and a second one could stand in the comment.
        if fields.bytes()? != END || record.get(20..) != Some(&[0, 0]) {
            return Err(ArchiveError::Header(
                "no end of central directory at the very end",
            ));
        }
        let (disk, first_disk) = (fields.u16()?, fields.u16()?);
        let (here, count) = (fields.u16()?, fields.u16()?);
        let (size, offset) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        if disk != 0 || first_disk != 0 || here != count || offset + size != end {
            return Err(ArchiveError::Header("the end of the central directory"));
        }
        if size > MAX_DIRECTORY || u32::from(count) > MAX_ENTRIES {
            return Err(ArchiveError::TooLarge("entries"));
        }
        let mut directory = vec![0; usize::try_from(size).unwrap_or(0)];
        read_at(&mut file, offset, &mut directory)?;
        let mut fields = Fields(&directory);
        let mut names = Names::anywhere();
        let mut entries = VecDeque::with_capacity(usize::from(count));
        for _ in 0..count {
            let entry = central(&mut fields)?;
            names.add(&entry.name, entry.folder)?;
            entries.push_back(entry);
        }
        if !fields.0.is_empty() {
            return Err(ArchiveError::Header("the central directory's length"));
        }
        // The local headers must fill everything before the directory: nothing is hidden between them.
        entries.push_back(Entry {
            name: String::new(),
            folder: true,
            size: 0,
            same: Same::none(),
            at: offset,
        });
        Ok(Self {
            file,
            entries,
            at: 0,
            budget: Budget::of(length),
        })
    }

    /// Files and folders that are still to come.
    pub(in crate::registry) fn left(&self) -> usize {
        self.entries.len().saturating_sub(1)
    }

    /// The next file or folder, in the archive's order. `content` gets what it holds in pieces; what it does
    /// not read is read all the same, so that length and checksum are known to be right.
    pub(in crate::registry) fn next<T>(
        &mut self,
        content: impl FnOnce(&Entry, &mut dyn Read) -> io::Result<T>,
    ) -> Result<Option<T>, ArchiveError> {
        let Some(entry) = self.entries.pop_front() else {
            return Ok(None);
        };
        if entry.at != self.at {
            return Err(ArchiveError::Header("bytes that belong to no file"));
        }
        if self.entries.is_empty() {
            return Ok(None);
        }
        let data = self.local(&entry)?;
        self.at = data + u64::from(entry.same.packed);
        self.file
            .seek(SeekFrom::Start(data))
            .map_err(ArchiveError::Broken)?;
        let packed = (&mut self.file).take(u64::from(entry.same.packed));
        let packed = BufReader::with_capacity(32 << 10, packed);
        let budget = &mut self.budget;
        let out = if entry.same.method == STORED {
            consume(packed, &entry, budget, content)?.0
        } else {
            let (out, inflated) = consume(DeflateDecoder::new(packed), &entry, budget, content)?;
            if inflated.total_in() != u64::from(entry.same.packed) {
                return Err(ArchiveError::Header("bytes behind a file's data"));
            }
            out
        };
        Ok(Some(out))
    }

    /// Bytes unpacked so far.
    pub(in crate::registry) fn unpacked(&self) -> u64 {
        self.budget.spent()
    }

    /// Checks the local header against the central one; returns where the data begins.
    fn local(&mut self, entry: &Entry) -> Result<u64, ArchiveError> {
        let mut head = [0; LOCAL_LENGTH];
        read_at(&mut self.file, entry.at, &mut head)?;
        let mut fields = Fields(&head);
        if fields.bytes()? != LOCAL {
            return Err(ArchiveError::Header(
                "a local header is not where it should be",
            ));
        }
        fields.u16()?; // version needed
        let mut same = Same::read(&mut fields)?;
        let (name, extra) = (fields.u16()?, fields.u16()?);
        let mut rest = vec![0; usize::from(name) + usize::from(extra)];
        let behind = entry.at + LOCAL_LENGTH as u64;
        read_at(&mut self.file, behind, &mut rest)?;
        let (name, extra) = rest
            .split_at_checked(usize::from(name))
            .ok_or(ArchiveError::Header("local header"))?;
        same.name = name.to_vec();
        check_extra(extra)?;
        if same != entry.same {
            return Err(ArchiveError::Header("local and central header differ"));
        }
        Ok(behind + rest.len() as u64)
    }
}

/// Reads one record of the central directory.
fn central(fields: &mut Fields<'_>) -> Result<Entry, ArchiveError> {
    if fields.bytes()? != CENTRAL {
        return Err(ArchiveError::Header("central header"));
    }
    fields.take(4)?; // versions
    let mut same = Same::read(fields)?;
    let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let disk = fields.u16()?;
    fields.u16()?; // internal attributes
    let attributes = fields.u32()?;
    let at = u64::from(fields.u32()?);
    same.name = fields.take(usize::from(name))?.to_vec();
    check_extra(fields.take(usize::from(extra))?)?;
    if comment != 0 || disk != 0 {
        return Err(ArchiveError::Header("a comment or another disk"));
    }
    if same.flags & !HARMLESS_BITS != 0 {
        return Err(ArchiveError::Header("encryption or a data descriptor"));
    }
    // These values mean "see the ZIP64 field".
    if [same.packed, same.size].contains(&u32::MAX) || at == u64::from(u32::MAX) {
        return Err(ArchiveError::Header("ZIP64"));
    }
    // Without the bit such a name is in a code page, and programs guess which.
    if !same.name.is_ascii() && same.flags & UTF8_BIT == 0 {
        return Err(ArchiveError::Header("a name in an unknown code page"));
    }
    let name = String::from_utf8(same.name.clone())
        .map_err(|_| ArchiveError::Header("a name that is not UTF-8"))?;
    let folder = name.ends_with('/');
    let unix = (attributes >> 16) & UNIX_KIND;
    let kind = if folder { UNIX_FOLDER } else { UNIX_FILE };
    if unix != 0 && unix != kind {
        return Err(ArchiveError::NotAFile(text::harmless(&name)));
    }
    let stored = same.method == STORED && same.packed == same.size;
    if !stored && same.method != DEFLATE {
        return Err(ArchiveError::Header("compression"));
    }
    if folder && same.size != 0 {
        return Err(ArchiveError::NotAFile(text::harmless(&name)));
    }
    Ok(Entry {
        name,
        folder,
        size: u64::from(same.size),
        same,
        at,
    })
}

/// Extra fields must be whole, and none may say again what the headers say.
fn check_extra(extra: &[u8]) -> Result<(), ArchiveError> {
    let mut fields = Fields(extra);
    while !fields.0.is_empty() {
        let (id, length) = (fields.u16()?, fields.u16()?);
        fields.take(usize::from(length))?;
        if DANGEROUS_EXTRA.contains(&id) {
            return Err(ArchiveError::Header(
                "an extra field that changes size or name",
            ));
        }
    }
    Ok(())
}

impl Same {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ArchiveError> {
        Ok(Self {
            flags: fields.u16()?,
            method: fields.u16()?,
            time: fields.u32()?,
            crc: fields.u32()?,
            packed: fields.u32()?,
            size: fields.u32()?,
            name: Vec::new(),
        })
    }

    const fn none() -> Self {
        Self {
            flags: 0,
            method: STORED,
            time: 0,
            crc: 0,
            packed: 0,
            size: 0,
            name: Vec::new(),
        }
    }
}

/// Little-endian fields in a row.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], ArchiveError> {
        let (out, rest) = self
            .0
            .split_at_checked(n)
            .ok_or(ArchiveError::Header("a header is cut short"))?;
        self.0 = rest;
        Ok(out)
    }

    fn bytes(&mut self) -> Result<[u8; 4], ArchiveError> {
        let mut out = [0; 4];
        out.copy_from_slice(self.take(4)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16, ArchiveError> {
        let mut out = [0; 2];
        out.copy_from_slice(self.take(2)?);
        Ok(u16::from_le_bytes(out))
    }

    fn u32(&mut self) -> Result<u32, ArchiveError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }
}

/// Gives `content` what a file holds, reads what it leaves, and checks all of it.
fn consume<R: Read, T>(
    inner: R,
    entry: &Entry,
    budget: &mut Budget,
    content: impl FnOnce(&Entry, &mut dyn Read) -> io::Result<T>,
) -> Result<(T, R), ArchiveError> {
    let mut reader = Checked {
        inner,
        budget,
        left: entry.size,
        crc: Crc::new(),
        too_large: false,
    };
    let read = content(entry, &mut reader)
        .and_then(|out| io::copy(&mut reader, &mut io::sink()).map(|_| out));
    if reader.too_large {
        return Err(ArchiveError::TooLarge("bytes"));
    }
    let out = read.map_err(ArchiveError::Broken)?;
    if reader.left != 0 || reader.crc.sum() != entry.same.crc {
        return Err(ArchiveError::Header("a file's length or checksum"));
    }
    Ok((out, reader.inner))
}

/// Counts what is unpacked: against the budget, the header's length and its checksum.
struct Checked<'a, R> {
    inner: R,
    budget: &'a mut Budget,
    left: u64,
    crc: Crc,
    too_large: bool,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        let part = out.get(..n).unwrap_or_default();
        self.crc.update(part);
        if self.budget.take(n).is_err() {
            self.too_large = true;
            return Err(io::Error::other("too large"));
        }
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other("longer than its header says"))?;
        Ok(n)
    }
}

fn read_at(file: &mut (impl Read + Seek), at: u64, out: &mut [u8]) -> Result<(), ArchiveError> {
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_exact(out))
        .map_err(ArchiveError::Broken)
}

#[cfg(test)]
#[path = "zip_tests.rs"]
mod tests;
