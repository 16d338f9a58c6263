//! Reads a tar archive (gzipped, or as it is) as a stream, and refuses every archive that two programs could unpack
//! differently: what the approver sees inside must be what the user's machine gets (attacks 13, 14).
//!
//! Format: gzip (RFC 1952) around POSIX.1-2017 pax interchange, ustar, or GNU tar's long names.

use super::{
    ArchiveError, Budget, MAX_ENTRIES,
    names::{Names, split},
};
use flate2::bufread::GzDecoder;
use proto::text;
use std::io::{self, BufReader, Read};
use tar::{EntryType, Header};

/// Length of one extension header.
const MAX_EXTENSION: u64 = 16 << 10;
const BLOCK: usize = 512;

/// A file or folder in the archive.
#[derive(Debug)]
pub(in crate::registry) struct Entry {
    /// Its whole name, root folder included.
    pub(in crate::registry) name: String,
    /// Whether it is a folder.
    pub(in crate::registry) folder: bool,
    /// Its length in bytes.
    pub(in crate::registry) size: u64,
}

/// A name that an extension header gives to the next entry.
enum LongName {
    Pax(String),
    Gnu(String),
}

/// Where the archive's bytes come from.
enum Source<R: Read> {
    Gzip(Box<GzDecoder<BufReader<R>>>),
    Plain(BufReader<R>),
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.read(out),
            Self::Plain(plain) => plain.read(out),
        }
    }
}

/// A tar archive, entry by entry.
pub(in crate::registry) struct Tar<R: Read> {
    source: Source<R>,
    budget: Budget,
    names: Names,
    /// The file whose content decides what the archive is, by its name below the root folder.
    decides: Option<&'static str>,
    /// Whether extension headers are read at all.
    extensions: bool,
    /// Whether links are passed over instead of refused.
    links: bool,
    /// What is left of the entry that was given last.
    pending: u64,
    padding: u64,
    entries: u32,
}

impl<R: Read> Tar<R> {
    /// Starts with an archive of `packed` bytes. `decides` is the one file in the root folder that must not
    /// be reached through an extension that changes its name.
    pub(in crate::registry) fn new(archive: R, packed: u64, decides: &'static str) -> Self {
        Self {
            names: Names::in_one_folder(),
            decides: Some(decides),
            ..Self::files(archive, packed)
        }
    }

    /// An archive of files that lie where it is unpacked; none of them decides anything.
    pub(in crate::registry) fn files(archive: R, packed: u64) -> Self {
        let archive = BufReader::with_capacity(32 << 10, archive);
        Self {
            source: Source::Gzip(Box::new(GzDecoder::new(archive))),
            budget: Budget::of(packed),
            names: Names::anywhere(),
            decides: None,
            extensions: true,
            links: false,
            pending: 0,
            padding: 0,
            entries: 0,
        }
    }

    /// A source archive, with links in it.
    pub(in crate::registry) fn source(archive: R, packed: u64) -> Self {
        Self {
            links: true,
            ..Self::files(archive, packed)
        }
    }

    /// An archive that is not packed, whose entries all decide: no extension may change the name of one.
    pub(in crate::registry) fn plain(archive: R, packed: u64) -> Self {
        let archive = BufReader::with_capacity(32 << 10, archive);
        Self {
            source: Source::Plain(archive),
            budget: Budget::of(packed),
            names: Names::anywhere(),
            decides: None,
            extensions: false,
            links: false,
            pending: 0,
            padding: 0,
            entries: 0,
        }
    }

    /// Files and folders so far.
    pub(in crate::registry) const fn entries(&self) -> u32 {
        self.entries
    }

    /// The next file or folder; what is left of the one before is passed over.
    pub(in crate::registry) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.pass()?;
        let mut long: Option<LongName> = None;
        let mut long_size = None;
        // The target of a link that is passed over, where it is too long for the header.
        let mut target = false;
        while let Some(header) = self.header()? {
            let size = strict_size(&header)?;
            match header.entry_type() {
                EntryType::XHeader | EntryType::GNULongName | EntryType::XGlobalHeader
                    if !self.extensions =>
                {
                    return Err(ArchiveError::Header("an extension"));
                }
                EntryType::XHeader | EntryType::GNULongName => {
                    if long.is_some() || long_size.is_some() || target {
                        return Err(ArchiveError::Header("two extensions for one entry"));
                    }
                    let data = self.extension(size)?;
                    long = if header.entry_type() == EntryType::XHeader {
                        let told = pax(&data, true)?;
                        long_size = told.size;
                        target = told.target;
                        told.path.map(LongName::Pax)
                    } else {
                        Some(LongName::Gnu(gnu(data)?))
                    };
                }
                EntryType::XGlobalHeader => {
                    let data = self.extension(size)?;
                    pax(&data, false)?;
                }
                kind => {
                    if long_size.take().is_some_and(|s| s != size) {
                        return Err(ArchiveError::Header("two sizes"));
                    }
                    self.entries += 1;
                    if self.entries > MAX_ENTRIES {
                        return Err(ArchiveError::TooLarge("entries"));
                    }
                    let link = self.links && kind == EntryType::Symlink;
                    if std::mem::take(&mut target) && !link {
                        return Err(ArchiveError::Header("a link's target"));
                    }
                    let name = self.full_name(&header, long.take(), link)?;
                    let folder = match kind {
                        EntryType::Regular => false,
                        EntryType::Directory if size == 0 => true,
                        _ if link && size == 0 => continue,
                        _ => return Err(ArchiveError::NotAFile(text::harmless(&name))),
                    };
                    self.names.add(&name, folder)?;
                    (self.pending, self.padding) = (size, padding(size));
                    return Ok(Some(Entry { name, folder, size }));
                }
            }
        }
        if long.is_some() || long_size.is_some() || target {
            return Err(ArchiveError::Header("an extension without an entry"));
        }
        Ok(None)
    }

    /// The content of the entry that was given last; `what` names it where it is longer than `max` bytes.
    pub(in crate::registry) fn content(
        &mut self,
        max: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, ArchiveError> {
        if self.pending > max {
            return Err(ArchiveError::TooLarge(what));
        }
        let size = std::mem::take(&mut self.pending);
        let data = self.bytes(size)?;
        self.pass()?;
        Ok(data)
    }

    /// The content of the entry that was given last, piece by piece.
    pub(in crate::registry) fn stream(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
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
            return Err(ArchiveError::Header("wrong checksum"));
        }
        Ok(Some(header))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), ArchiveError> {
        self.budget.take(out.len())?;
        self.source.read_exact(out).map_err(ArchiveError::Broken)
    }

    fn bytes(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let size = usize::try_from(size).map_err(|_| ArchiveError::TooLarge("entry"))?;
        let mut data = vec![0; size];
        self.fill(&mut data)?;
        Ok(data)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::TooLarge("extension header"));
        }
        let data = self.bytes(size)?;
        self.padding = padding(size);
        self.pass()?;
        Ok(data)
    }

    /// Passes over what is left of an entry and its padding.
    fn pass(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = [0; 8 << 10];
        let mut left = std::mem::take(&mut self.pending) + std::mem::take(&mut self.padding);
        while left > 0 {
            let n = usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
            let (part, _) = buffer.split_at_mut(n);
            self.fill(part)?;
            left -= n as u64;
        }
        Ok(())
    }

    /// After the first zero block only zeros may come, and after the first gzip member nothing:
    /// some programs go on reading there, and would unpack what nobody approved. Returns the
    /// unpacked bytes.
    pub(in crate::registry) fn finish(mut self) -> Result<u64, ArchiveError> {
        let mut buffer = [0; 8 << 10];
        loop {
            let n = self
                .source
                .read(&mut buffer)
                .map_err(ArchiveError::Broken)?;
            if n == 0 {
                break;
            }
            self.budget.take(n)?;
            if buffer.iter().take(n).any(|b| *b != 0) {
                return Err(ArchiveError::AfterEnd);
            }
        }
        let mut rest = match self.source {
            Source::Gzip(gzip) => gzip.into_inner(),
            Source::Plain(plain) => plain,
        };
        match rest.read(&mut [0]) {
            Ok(0) => Ok(self.budget.spent()),
            Ok(_) => Err(ArchiveError::AfterEnd),
            Err(e) => Err(ArchiveError::Broken(e)),
        }
    }

    /// The entry's name, with every way of writing it in agreement.
    fn full_name(
        &self,
        header: &Header,
        long: Option<LongName>,
        link: bool,
    ) -> Result<String, ArchiveError> {
        let short = header_name(header, link)?;
        let full = match long {
            None => return Ok(short),
            Some(long) => agreed(long, &short)?,
        };
        // The one file that decides must not be reached through an extension that changes its name.
        let decides = |name: &str| matches!(split(name).as_slice(), [_, file] if self.decides.is_some_and(|d| file.eq_ignore_ascii_case(d)));
        if full != short && (decides(&full) || decides(&short)) {
            return Err(ArchiveError::Header(
                "the file that decides under a long name",
            ));
        }
        Ok(full)
    }
}

/// One entry's content.
pub(in crate::registry) struct Content<'t, R: Read>(&'t mut Tar<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.0.pending).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        let out = out.get_mut(..most).unwrap_or_default();
        if out.is_empty() {
            return Ok(0);
        }
        let n = self.0.source.read(out)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.budget.take(n).map_err(io::Error::other)?;
        self.0.pending -= n as u64;
        Ok(n)
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// The size field as plain octal digits; programs disagree about anything else.
fn strict_size(header: &Header) -> Result<u64, ArchiveError> {
    let bad = ArchiveError::Header("size");
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

/// The long name, once the header's own name agrees with it: a program that ignores the extension would
/// unpack another file.
fn agreed(long: LongName, short: &str) -> Result<String, ArchiveError> {
    let (full, gnu) = match long {
        // What tar-stream (pnpm, Yarn) puts into the header that follows its pax header.
        LongName::Pax(full) if short == "PaxHeader" => return Ok(full),
        LongName::Pax(full) => (full, false),
        LongName::Gnu(full) => (full, true),
    };
    let cut = short.trim_end_matches('/');
    // Python's tarfile writes a question mark there for every character that is not ASCII.
    let plain: String = full
        .chars()
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect();
    // pnpm 12 leaves a beginning in both fields, prefix and name.
    let twice = gnu
        && short
            .split_at_checked(short.len().saturating_sub(100))
            .is_some_and(|(prefix, name)| {
                full.starts_with(name) && full.starts_with(prefix.trim_end_matches('/'))
            });
    let begins = full.starts_with(cut) || (!gnu && plain.starts_with(cut));
    if !(begins || twice) || cut.is_empty() || (gnu && full.len() < 100) {
        return Err(ArchiveError::Header("name and long name differ"));
    }
    Ok(full)
}

fn header_name(header: &Header, link: bool) -> Result<String, ArchiveError> {
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
        return Err(ArchiveError::Header("prefix outside of the ustar format"));
    }
    let prefix = if posix {
        field(345..500)?
    } else {
        String::new()
    };
    if !link && !field(157..257)?.is_empty() {
        return Err(ArchiveError::Header("a link's target"));
    }
    Ok(if prefix.is_empty() {
        name
    } else {
        format!("{prefix}/{name}")
    })
}

/// A NUL-padded UTF-8 field; bytes hidden behind the NUL are refused.
fn text_field(field: &[u8]) -> Result<String, ArchiveError> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (name, padding) = field.split_at(end);
    if padding.iter().any(|b| *b != 0) {
        return Err(ArchiveError::Header("bytes behind a name"));
    }
    utf8(name.to_vec())
}

fn utf8(bytes: Vec<u8>) -> Result<String, ArchiveError> {
    String::from_utf8(bytes).map_err(|_| ArchiveError::Header("a name that is not UTF-8"))
}

/// GNU long name: the name and one NUL.
fn gnu(mut data: Vec<u8>) -> Result<String, ArchiveError> {
    if data.last() == Some(&0) {
        data.pop();
    }
    utf8(data)
}

/// What pax records say of the next entry.
#[derive(Default)]
struct Told {
    path: Option<String>,
    size: Option<u64>,
    /// Whether it is a link, to a target that nobody reads.
    target: bool,
}

/// Reads pax records, `<length> <key>=<value>\n`, and returns what is needed of them. A global header (`local` false)
/// may only hold a comment.
fn pax(mut data: &[u8], local: bool) -> Result<Told, ArchiveError> {
    let bad = || ArchiveError::Header("pax record");
    let mut told = Told::default();
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
            "path" if local && told.path.is_none() => told.path = Some(value.to_owned()),
            // Refused at whatever is no link that is passed over.
            "linkpath" if local && !told.target => told.target = true,
            // node-tar writes the size again; it must be the header's.
            "size" if local && told.size.is_none() => {
                told.size = Some(value.parse().map_err(|_| bad())?);
            }
            // Nothing else that names or shapes a file: `hdrcharset`, GNU.sparse, a second `path`.
            "mtime" | "atime" | "ctime" | "uid" | "gid" | "uname" | "gname" if local => {}
            _ if local
                && ["SCHILY.", "LIBARCHIVE.", "NODETAR."]
                    .iter()
                    .any(|p| key.starts_with(p))
                && !["SCHILY.realsize", "SCHILY.filetype"].contains(&key) => {}
            _ => return Err(ArchiveError::Header("pax record of another kind")),
        }
    }
    Ok(told)
}
