//! An archive's files: sizes, digests, and what decides about each of them, with bounded memory.

use super::{Format, findings::secrets};
use crate::registry::archive::{ArchiveError, walk};
use aws_lc_rs::digest::{Context, SHA256};
use proto::card::shown;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read},
};

/// Files whose text is kept for comparing, each at most this long, in bytes.
const TEXT_MAX: usize = 64 << 10;
/// Files that decide what is run or fetched may be longer.
const DECIDING_MAX: usize = 1 << 20;
/// Text that is kept of one archive in all.
const KEPT_MAX: usize = 6 << 20;
/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Bytes of a piece that are looked at again with the next: longer than what the rules look for.
const OVERLAP: usize = 512;

/// An archive, read.
pub(super) struct Tree {
    /// Its files, by their names below the root folder.
    pub(super) files: BTreeMap<String, Leaf>,
    /// Bytes after unpacking.
    pub(super) unpacked: u64,
    /// Bytes of text that is kept.
    kept: usize,
}

/// What is needed to judge an archive while it is read.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    /// The previous version.
    pub(super) before: Option<&'a Tree>,
    /// What secrets look like.
    pub(super) rules: &'a secrets::Rules,
}

/// One file.
pub(super) struct Leaf {
    pub(super) size: u64,
    pub(super) digest: [u8; 16],
    pub(super) shape: Shape,
    /// Its text, if it is short enough and kept.
    pub(super) text: Option<String>,
    /// Which rules about secrets it meets, with the line of the first place.
    pub(super) secrets: Vec<(usize, u64)>,
}

/// What a file's bytes look like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// The first bytes.
    pub(super) head: [u8; 8],
    /// Whether a NUL stands in it.
    pub(super) nul: bool,
    /// Lines.
    pub(super) lines: u64,
    /// Longest line.
    pub(super) longest: u64,
    /// Longest run of what base64 and hex are written with.
    pub(super) run: u64,
    /// Whether nearly all of its first [`PIECE`] is ASCII.
    pub(super) ascii: bool,
    /// Bits of information in a byte, of its first [`PIECE`], in hundredths.
    pub(super) entropy: u32,
}

impl Tree {
    /// Reads an archive. In one that is `judged`, secrets are looked for, and text is kept of what differs from
    /// the one before; in any other, of everything that may be compared later.
    pub(super) fn read<F: Read + io::Seek>(
        format: Format,
        archive: F,
        length: u64,
        judged: Option<Judged<'_>>,
    ) -> Result<Self, ArchiveError> {
        let mut tree = Self {
            files: BTreeMap::new(),
            unpacked: 0,
            kept: 0,
        };
        let mut buffer = vec![0; PIECE + OVERLAP];
        walk(format, archive, length, &mut |name, content| {
            let name = below_root(format, name);
            let leaf = tree.leaf(&name, content, judged, &mut buffer)?;
            tree.unpacked += leaf.size;
            match tree.files.insert(name, leaf) {
                None => Ok(()),
                // One would hide the other, and an installer may take either.
                Some(_) => Err(io::Error::other("two files have one name")),
            }
        })?;
        Ok(tree)
    }

    fn leaf(
        &mut self,
        name: &str,
        content: &mut dyn Read,
        judged: Option<Judged<'_>>,
        buffer: &mut [u8],
    ) -> io::Result<Leaf> {
        let most = if decides(name) {
            DECIDING_MAX
        } else {
            TEXT_MAX
        };
        let mut meter = Meter::default();
        let mut hash = Context::new(&SHA256);
        let mut text = Some(Vec::new());
        let mut secrets = secrets::Search::new(judged.map(|j| j.rules));
        // What stays of the last piece.
        let mut over = 0;
        loop {
            let n = fill(content, buffer.get_mut(over..).unwrap_or_default())?;
            let new = buffer.get(over..over + n).unwrap_or_default();
            if n == 0 {
                break;
            }
            hash.update(new);
            meter.see(new);
            if let Some(kept) = &mut text {
                if kept.len() + n > most || meter.shape.nul {
                    text = None;
                } else {
                    kept.extend_from_slice(new);
                }
            }
            let seen = buffer.get(..over + n).unwrap_or_default();
            secrets.see(seen, over);
            let keep = OVERLAP.min(seen.len());
            let from = seen.len() - keep;
            buffer.copy_within(from..from + keep, 0);
            over = keep;
        }
        let (size, shape) = meter.finish();
        let mut digest = [0; 16];
        let whole = hash.finish();
        digest
            .iter_mut()
            .zip(whole.as_ref())
            .for_each(|(to, from)| *to = *from);
        let before = judged.and_then(|j| j.before);
        let before = before.and_then(|tree| tree.files.get(name));
        let wanted = decides(name) || before.is_none_or(|b| b.digest != digest);
        let text = text
            .filter(|_| wanted)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|t| decides(name) || self.kept + t.len() <= KEPT_MAX);
        self.kept += text.as_ref().map_or(0, String::len);
        Ok(Leaf {
            size,
            digest,
            shape,
            text,
            secrets: secrets.finish(),
        })
    }

    /// The text of a file that decides.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.files.get(name)?.text.as_deref()
    }

    /// Files that are new or have other bytes than before; all of them where nothing was before.
    pub(super) fn fresh<'t>(
        &'t self,
        before: Option<&'t Self>,
    ) -> impl Iterator<Item = (&'t str, &'t Leaf)> {
        self.files.iter().filter_map(move |(name, leaf)| {
            let old = before.and_then(|b| b.files.get(name));
            let same = old.is_some_and(|o| o.digest == leaf.digest);
            (!same).then_some((name.as_str(), leaf))
        })
    }
}

/// Whether a file says what is run or fetched when somebody installs or builds the package.
pub(super) fn decides(name: &str) -> bool {
    const ROOT: [&str; 11] = [
        "package.json",
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "hatch.toml",
        "PKG-INFO",
        "Cargo.toml",
        "build.rs",
        "metadata",
        "binding.gyp",
        "npm-shrinkwrap.json",
    ];
    ROOT.contains(&name) || name == ".dist-info/METADATA" || name == ".dist-info/entry_points.txt"
}

/// A name without what changes with each version: the root folder, and a wheel's own folders.
fn below_root(format: Format, name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    if format.in_one_folder() {
        return rest.to_owned();
    }
    for own in [".dist-info", ".data"] {
        if format == Format::Wheel && first.ends_with(own) {
            return format!("{own}/{rest}");
        }
    }
    name.to_owned()
}

/// Reads until the buffer is full or the file ends.
fn fill(content: &mut dyn Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut all = 0;
    while !buffer.is_empty() {
        let n = content.read(buffer)?;
        if n == 0 {
            break;
        }
        all += n;
        buffer = buffer.get_mut(n..).unwrap_or_default();
    }
    Ok(all)
}

/// Measures a file as it goes by.
#[derive(Default)]
struct Meter {
    size: u64,
    shape: Shape,
    line: u64,
    run: u64,
    counted: bool,
}

impl Meter {
    fn see(&mut self, piece: &[u8]) {
        if self.size == 0 {
            let head = self.shape.head.iter_mut();
            head.zip(piece).for_each(|(to, from)| *to = *from);
        }
        self.size += piece.len() as u64;
        self.shape.nul |= piece.contains(&0);
        if !self.counted {
            self.counted = true;
            self.shape.entropy = entropy(piece);
            let others = piece.iter().filter(|b| !b.is_ascii()).count();
            self.shape.ascii = others <= piece.len() / 20;
        }
        for byte in piece {
            if *byte == b'\n' {
                self.shape.lines += 1;
                self.shape.longest = self.shape.longest.max(self.line);
                self.line = 0;
            } else {
                self.line += 1;
            }
            if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
                self.run += 1;
            } else {
                self.shape.run = self.shape.run.max(self.run);
                self.run = 0;
            }
        }
    }

    fn finish(mut self) -> (u64, Shape) {
        self.shape.longest = self.shape.longest.max(self.line);
        self.shape.run = self.shape.run.max(self.run);
        (self.size, self.shape)
    }
}

/// Shannon's entropy of some bytes, in hundredths of a bit a byte.
fn entropy(bytes: &[u8]) -> u32 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1));
    let bits: f64 = counts
        .iter()
        .filter(|c| **c > 0)
        .map(|c| f64::from(*c) / all)
        .map(|p| -p * p.log2())
        .sum();
    // Rounded, so that the same bytes give the same number on every machine.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 800"
    )]
    let hundredths = (bits * 100.0).round() as u32;
    hundredths
}

/// Some names in one line: the first few, and how many more there are.
pub(super) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const FIRST: usize = 5;
    let mut out = String::new();
    let mut more = 0;
    for (n, name) in names.into_iter().enumerate() {
        if n >= FIRST {
            more += 1;
            continue;
        }
        if n > 0 {
            out.push_str(", ");
        }
        out.push_str(&shown(name));
    }
    if more > 0 {
        let _ = write!(out, " and {more} more");
    }
    out
}
