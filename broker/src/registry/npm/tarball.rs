//! Reads a package's archive as a stream, and refuses every archive that two programs could unpack
//! differently: what the approver sees inside must be what the user's machine gets (attacks 13, 14).
//!
//! Format: gzip (RFC 1952) around POSIX.1-2017 pax interchange, ustar, or GNU tar's long names.

use super::{
    json::{self, JsonError},
    names::{Names, NamesError, split},
};
use flate2::bufread::GzDecoder;
use proto::text;
use serde_json::{Map, Value};
use std::io::{self, BufReader, Read};
use tar::{EntryType, Header};
use thiserror::Error;

/// Bytes after unpacking.
const MAX_UNPACKED: u64 = 512 << 20;
/// Files and folders.
const MAX_ENTRIES: u32 = 100_000;
/// Length of the inner package.json.
const MAX_PACKAGE_JSON: u64 = 1 << 20;
/// Length of one extension header.
const MAX_EXTENSION: u64 = 16 << 10;
/// An archive may grow by this factor; above [`RATIO_FREE`] bytes more is a bomb (attack 53).
const MAX_RATIO: u64 = 200;
const RATIO_FREE: u64 = 8 << 20;
const BLOCK: usize = 512;

/// Why an archive was refused.
#[derive(Debug, Error)]
pub enum TarballError {
    /// Not gzip, or cut short.
    #[error("the archive cannot be unpacked")]
    Broken(#[source] io::Error),
    /// More than a package has.
    #[error("the archive unpacks to more than is allowed ({0})")]
    TooLarge(&'static str),
    /// A header that tar programs read differently.
    #[error("the archive has an ambiguous header: {0}")]
    Header(&'static str),
    /// Not a file and not a folder.
    #[error("'{0}' in the archive is neither a file nor a folder")]
    NotAFile(String),
    /// A name that tar programs unpack differently.
    #[error(transparent)]
    Name(#[from] NamesError),
    /// Bytes behind the archive's end.
    #[error("the archive goes on after its end")]
    AfterEnd,
    /// No package.json in the root folder.
    #[error("the archive has no package.json in its root folder")]
    NoPackageJson,
    /// The package.json is not strict JSON.
    #[error("the archive's package.json {0}")]
    PackageJson(#[source] JsonError),
}

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Inside {
    /// The parsed package.json.
    pub package_json: Map<String, Value>,
    /// Whether the root folder holds a `*.gyp` file: npm then adds an install script by itself.
    pub gyp: bool,
    /// Files and folders.
    pub entries: u32,
    /// Bytes after unpacking.
    pub unpacked: u64,
}

/// A name that an extension header gives to the next entry.
enum LongName {
    Pax(String),
    Gnu(String),
}

/// Reads the whole archive of `packed` bytes.
pub(super) fn inspect(archive: impl Read, packed: u64) -> Result<Inside, TarballError> {
    let limit = MAX_UNPACKED.min(RATIO_FREE.max(packed.saturating_mul(MAX_RATIO)));
    let mut tar = Tar {
        gzip: GzDecoder::new(BufReader::with_capacity(32 << 10, archive)),
        left: limit,
        limit,
    };
    let mut names = Names::default();
    let mut package_json = None;
    let mut gyp = false;
    let mut entries = 0;
    let mut long: Option<LongName> = None;
    let mut long_size = None;
    while let Some(header) = tar.header()? {
        let size = strict_size(&header)?;
        match header.entry_type() {
            EntryType::XHeader | EntryType::GNULongName => {
                if long.is_some() || long_size.is_some() {
                    return Err(TarballError::Header("two extensions for one entry"));
                }
                let data = tar.extension(size)?;
                long = if header.entry_type() == EntryType::XHeader {
                    let (path, size) = pax(&data, true)?;
                    long_size = size;
                    path.map(LongName::Pax)
                } else {
                    Some(LongName::Gnu(gnu(data)?))
                };
            }
            EntryType::XGlobalHeader => {
                let data = tar.extension(size)?;
                pax(&data, false)?;
            }
            kind => {
                if long_size.take().is_some_and(|s| s != size) {
                    return Err(TarballError::Header("two sizes"));
                }
                entries += 1;
                if entries > MAX_ENTRIES {
                    return Err(TarballError::TooLarge("entries"));
                }
                let name = full_name(&header, long.take())?;
                let folder = match kind {
                    EntryType::Regular => false,
                    EntryType::Directory if size == 0 => true,
                    _ => return Err(TarballError::NotAFile(text::harmless(&name))),
                };
                names.add(&name, folder)?;
                let inner = split(&name);
                match inner.as_slice() {
                    [_, "package.json"] if !folder => {
                        if size > MAX_PACKAGE_JSON {
                            return Err(TarballError::TooLarge("package.json"));
                        }
                        let data = tar.body(size)?;
                        // The meter counts what is read ahead, so it gets the exact length.
                        let read = json::object(data.as_slice(), size);
                        package_json = Some(read.map_err(TarballError::PackageJson)?);
                    }
                    path => {
                        gyp |= matches!(path, [_, file] if file.rsplit('.').next() == Some("gyp"));
                        tar.skip(size)?;
                    }
                }
            }
        }
    }
    if long.is_some() || long_size.is_some() {
        return Err(TarballError::Header("an extension without an entry"));
    }
    let unpacked = tar.finish()?;
    Ok(Inside {
        package_json: package_json.ok_or(TarballError::NoPackageJson)?,
        gyp,
        entries,
        unpacked,
    })
}

/// The blocks of the archive.
struct Tar<R: Read> {
    gzip: GzDecoder<BufReader<R>>,
    left: u64,
    limit: u64,
}

impl<R: Read> Tar<R> {
    /// The next header, or `None` at the end-of-archive block.
    fn header(&mut self) -> Result<Option<Header>, TarballError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // Unsigned sum with the checksum field as blanks (POSIX pax, "ustar header block").
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(TarballError::Header("wrong checksum"));
        }
        Ok(Some(header))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), TarballError> {
        self.left = self
            .left
            .checked_sub(out.len() as u64)
            .ok_or(TarballError::TooLarge("bytes"))?;
        self.gzip.read_exact(out).map_err(TarballError::Broken)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarballError> {
        if size > MAX_EXTENSION {
            return Err(TarballError::TooLarge("extension header"));
        }
        self.body(size)
    }

    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarballError> {
        let mut data = vec![0; usize::try_from(size).map_err(|_| TarballError::TooLarge("entry"))?];
        self.fill(&mut data)?;
        self.skip_padding(size)?;
        Ok(data)
    }

    fn skip(&mut self, size: u64) -> Result<(), TarballError> {
        let mut buffer = [0; 8 << 10];
        let mut left = size;
        while left > 0 {
            let n = usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
            let (part, _) = buffer.split_at_mut(n);
            self.fill(part)?;
            left -= n as u64;
        }
        self.skip_padding(size)
    }

    fn skip_padding(&mut self, size: u64) -> Result<(), TarballError> {
        let used = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let mut block = [0; BLOCK];
        if used > 0 {
            let (padding, _) = block.split_at_mut(BLOCK - used);
            self.fill(padding)?;
        }
        Ok(())
    }

    /// After the first zero block only zeros may come, and after the first gzip member nothing:
    /// some programs go on reading there, and would unpack what nobody approved.
    fn finish(mut self) -> Result<u64, TarballError> {
        let mut buffer = [0; 8 << 10];
        loop {
            let n = self.gzip.read(&mut buffer).map_err(TarballError::Broken)?;
            if n == 0 {
                break;
            }
            self.left = self
                .left
                .checked_sub(n as u64)
                .ok_or(TarballError::TooLarge("bytes"))?;
            if buffer.iter().take(n).any(|b| *b != 0) {
                return Err(TarballError::AfterEnd);
            }
        }
        let mut rest = self.gzip.into_inner();
        match rest.read(&mut [0]) {
            Ok(0) => Ok(self.limit - self.left),
            Ok(_) => Err(TarballError::AfterEnd),
            Err(e) => Err(TarballError::Broken(e)),
        }
    }
}

/// The size field as plain octal digits; programs disagree about anything else.
fn strict_size(header: &Header) -> Result<u64, TarballError> {
    let bad = TarballError::Header("size");
    let Some(field) = header.as_bytes().get(124..136) else {
        return Err(bad);
    };
    let digits = field
        .iter()
        .take_while(|b| (b'0'..=b'7').contains(b))
        .count();
    let (digits, rest) = field.split_at(digits);
    if digits.is_empty() || rest.iter().any(|b| *b != 0 && *b != b' ') {
        return Err(bad);
    }
    Ok(digits
        .iter()
        .fold(0, |size, digit| size << 3 | u64::from(digit - b'0')))
}

/// The entry's name, with every way of writing it in agreement.
fn full_name(header: &Header, long: Option<LongName>) -> Result<String, TarballError> {
    let short = header_name(header)?;
    let (full, long) = match long {
        None => return Ok(short),
        // What tar-stream (pnpm, Yarn) puts into the header that follows its pax header.
        Some(LongName::Pax(full)) if short == "PaxHeader" => {
            return unlike_package_json(full, &short);
        }
        Some(LongName::Pax(full)) => (full, false),
        Some(LongName::Gnu(full)) => (full, true),
    };
    // Otherwise the header must hold the beginning of the long name: a program that ignores the
    // extension would unpack another file.
    let cut = short.trim_end_matches('/');
    // pnpm 12 leaves a beginning in both fields, prefix and name.
    let twice = long
        && short
            .split_at_checked(short.len().saturating_sub(100))
            .is_some_and(|(prefix, name)| {
                full.starts_with(name) && full.starts_with(prefix.trim_end_matches('/'))
            });
    if !(full.starts_with(cut) || twice) || cut.is_empty() || (long && full.len() < 100) {
        return Err(TarballError::Header("name and long name differ"));
    }
    unlike_package_json(full, &short)
}

/// The one file that decides must not be reached through an extension that changes its name.
fn unlike_package_json(full: String, short: &str) -> Result<String, TarballError> {
    let decides = |name: &str| matches!(split(name).as_slice(), [_, file] if file.eq_ignore_ascii_case("package.json"));
    if full != short && (decides(&full) || decides(short)) {
        return Err(TarballError::Header("package.json under a long name"));
    }
    Ok(full)
}

fn header_name(header: &Header) -> Result<String, TarballError> {
    let bytes = header.as_bytes();
    let field = |range: std::ops::Range<usize>| text_field(bytes.get(range).unwrap_or_default());
    let name = field(0..100)?;
    let posix = bytes.get(257..265) == Some(b"ustar\x0000");
    // Only POSIX gives these bytes to the name; some programs read them as a name in any case.
    if !posix
        && bytes
            .get(345..500)
            .is_some_and(|b| b.iter().any(|b| *b != 0))
    {
        return Err(TarballError::Header("prefix outside of the ustar format"));
    }
    let prefix = if posix {
        field(345..500)?
    } else {
        String::new()
    };
    if !field(157..257)?.is_empty() {
        return Err(TarballError::Header("a link's target"));
    }
    Ok(if prefix.is_empty() {
        name
    } else {
        format!("{prefix}/{name}")
    })
}

/// A NUL-padded UTF-8 field; bytes hidden behind the NUL are refused.
fn text_field(field: &[u8]) -> Result<String, TarballError> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (name, padding) = field.split_at(end);
    if padding.iter().any(|b| *b != 0) {
        return Err(TarballError::Header("bytes behind a name"));
    }
    utf8(name.to_vec())
}

fn utf8(bytes: Vec<u8>) -> Result<String, TarballError> {
    String::from_utf8(bytes).map_err(|_| TarballError::Header("a name that is not UTF-8"))
}

/// GNU long name: the name and one NUL.
fn gnu(mut data: Vec<u8>) -> Result<String, TarballError> {
    if data.last() == Some(&0) {
        data.pop();
    }
    utf8(data)
}

type PathAndSize = (Option<String>, Option<u64>);

/// Reads pax records, `<length> <key>=<value>\n`, and returns the path and size if they are there. A global
/// header (`local` false) may only hold a comment.
fn pax(mut data: &[u8], local: bool) -> Result<PathAndSize, TarballError> {
    let bad = || TarballError::Header("pax record");
    let (mut path, mut size) = (None, None);
    while !data.is_empty() {
        let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let (digits, _) = data.split_at(space);
        if !digits.iter().all(u8::is_ascii_digit) || digits.first() == Some(&b'0') {
            return Err(bad());
        }
        let length: usize = std::str::from_utf8(digits)
            .ok()
            .and_then(|d| d.parse().ok())
            .ok_or_else(bad)?;
        let record = data.get(space + 1..length).ok_or_else(bad)?;
        data = data.get(length..).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let record = std::str::from_utf8(record).map_err(|_| bad())?;
        let (key, value) = record.split_once('=').ok_or_else(bad)?;
        match key {
            "comment" => {}
            "path" if local && path.is_none() => path = Some(value.to_owned()),
            // node-tar writes the size again; it must be the header's.
            "size" if local && size.is_none() => {
                size = Some(value.parse().map_err(|_| bad())?);
            }
            // Nothing else that names or shapes a file: `linkpath`, `hdrcharset`, GNU.sparse, a
            // second `path`.
            "mtime" | "atime" | "ctime" | "uid" | "gid" | "uname" | "gname" if local => {}
            _ if local
                && ["SCHILY.", "LIBARCHIVE.", "NODETAR."]
                    .iter()
                    .any(|p| key.starts_with(p))
                && !["SCHILY.realsize", "SCHILY.filetype"].contains(&key) => {}
            _ => return Err(TarballError::Header("pax record of another kind")),
        }
    }
    Ok((path, size))
}

#[cfg(test)]
#[path = "tarball_tests.rs"]
mod tests;
