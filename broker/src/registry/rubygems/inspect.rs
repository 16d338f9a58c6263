//! A gem: a tar archive of `metadata.gz`, `data.tar.gz` and `checksums.yaml.gz`.

use crate::registry::archive::{ArchiveError, tar::Tar};
use flate2::bufread::GzDecoder;
use proto::{
    digest::{Algorithm, Digest, Hasher},
    gem::{Gem, GemError},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};
use thiserror::Error;

/// Length of `metadata.gz`, packed and unpacked: it lists every file.
const MAX_METADATA: u64 = 8 << 20;
/// Length of `checksums.yaml.gz`, packed and unpacked.
const MAX_CHECKSUMS: u64 = 16 << 10;

const METADATA: &str = "metadata.gz";
const DATA: &str = "data.tar.gz";
const CHECKSUMS: &str = "checksums.yaml.gz";

/// Why a gem was refused.
#[derive(Debug, Error)]
pub enum GemFileError {
    /// An archive that unpacks to more than a gem has, or differently here and there.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A part that is missing, unknown, or not of the format.
    #[error("the gem has no usable {0}")]
    Part(&'static str),
    /// Something beside the three parts and their signatures.
    #[error("the gem has a part that no gem has")]
    Unknown,
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] GemError),
    /// A part is not what the checksums say.
    #[error("the gem's {0} is not the one that its checksums name")]
    Checksum(&'static str),
    /// The gem is too large.
    #[error("the gem is larger than 320 MiB")]
    TooLarge,
    /// The broker's own disk.
    #[error("the gem could not be kept")]
    Io(#[source] io::Error),
}

/// What a gem holds.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) gem: Gem,
    pub(super) entries: u32,
    pub(super) unpacked: u64,
    /// A native extension is built on every machine that installs the gem.
    pub(super) extensions: bool,
}

/// The digests of one part.
type Digests = [Digest; 2];

/// Reads the whole gem of `packed` bytes.
pub(super) fn inspect(gem: impl Read, packed: u64) -> Result<Inside, GemFileError> {
    let mut tar = Tar::plain(gem, packed);
    let (mut metadata, mut checksums) = (None, None);
    let mut data = None;
    let mut digests: BTreeMap<&'static str, Digests> = BTreeMap::new();
    while let Some(entry) = tar.next()? {
        match entry.name.as_str() {
            METADATA => {
                let bytes = tar.content(MAX_METADATA, METADATA)?;
                digests.insert(METADATA, both(&bytes));
                metadata = Some(unpacked(&bytes, MAX_METADATA, METADATA)?);
            }
            CHECKSUMS => {
                let bytes = tar.content(MAX_CHECKSUMS, CHECKSUMS)?;
                checksums = Some(unpacked(&bytes, MAX_CHECKSUMS, CHECKSUMS)?);
            }
            DATA => {
                let mut part = Hashed::new(tar.stream());
                let mut inner = Tar::files(&mut part, entry.size);
                let mut extensions = false;
                while let Some(file) = inner.next()? {
                    extensions |= file.name.ends_with("extconf.rb");
                }
                let entries = inner.entries();
                let unpacked = inner.finish()?;
                digests.insert(DATA, part.finish());
                data = Some((entries, unpacked, extensions));
            }
            "metadata.gz.sig" | "data.tar.gz.sig" | "checksums.yaml.gz.sig" => {}
            _ => return Err(GemFileError::Unknown),
        }
    }
    tar.finish()?;
    let metadata = metadata.ok_or(GemFileError::Part(METADATA))?;
    let (entries, unpacked, extensions) = data.ok_or(GemFileError::Part(DATA))?;
    let checksums = checksums.ok_or(GemFileError::Part(CHECKSUMS))?;
    agree(&checksums, &digests)?;
    Ok(Inside {
        gem: Gem::read(&metadata)?,
        entries,
        unpacked,
        extensions,
    })
}

fn both(bytes: &[u8]) -> Digests {
    [
        Digest::of(Algorithm::Sha256, bytes),
        Digest::of(Algorithm::Sha512, bytes),
    ]
}

/// One gzip member and nothing behind it, as text.
fn unpacked(bytes: &[u8], max: u64, what: &'static str) -> Result<String, GemFileError> {
    let bad = |_| GemFileError::Part(what);
    let mut text = Vec::new();
    let mut gzip = GzDecoder::new(bytes);
    (&mut gzip)
        .take(max + 1)
        .read_to_end(&mut text)
        .map_err(bad)?;
    if text.len() as u64 > max || !gzip.into_inner().is_empty() {
        return Err(GemFileError::Part(what));
    }
    String::from_utf8(text).map_err(|_| GemFileError::Part(what))
}

/// Every line of the checksums must be true of the parts, and both parts must be named by one of the algorithms
/// that we know.
fn agree(checksums: &str, digests: &BTreeMap<&'static str, Digests>) -> Result<(), GemFileError> {
    let bad = || GemFileError::Part(CHECKSUMS);
    let mut lines = checksums.lines();
    if lines.next() != Some("---") {
        return Err(bad());
    }
    let mut algorithm = None;
    let mut proved = std::collections::BTreeSet::new();
    for line in lines {
        match line {
            "SHA256:" => algorithm = Some(0),
            "SHA512:" => algorithm = Some(1),
            // Old tools write it beside the others; it proves nothing today.
            "SHA1:" => algorithm = None,
            _ => {
                let entry = line.strip_prefix("  ").ok_or_else(bad)?;
                let (name, hex) = entry.split_once(": ").ok_or_else(bad)?;
                let hex = hex.trim_matches('\'');
                let part = [METADATA, DATA].into_iter().find(|p| *p == name);
                let part = part.ok_or_else(bad)?;
                let Some(algorithm) = algorithm else {
                    continue;
                };
                let digest: Option<&Digest> = digests.get(part).and_then(|d| d.get(algorithm));
                let text = digest.map(ToString::to_string).unwrap_or_default();
                if text.split_once(':').map(|(_, own)| own) != Some(hex) {
                    return Err(GemFileError::Checksum(part));
                }
                proved.insert(part);
            }
        }
    }
    if proved.len() == 2 {
        Ok(())
    } else {
        Err(bad())
    }
}

/// Computes the digests of what is read through it.
struct Hashed<R> {
    inner: R,
    hashers: [Hasher; 2],
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hashers: [
                Hasher::new(Algorithm::Sha256),
                Hasher::new(Algorithm::Sha512),
            ],
        }
    }

    fn finish(self) -> Digests {
        self.hashers.map(Hasher::finish)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        for hasher in &mut self.hashers {
            hasher.update(out.get(..n).unwrap_or_default());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        archive::samples::{entry, gzip, tgz},
        rubygems::samples::{Parts, Sums, spec},
    };
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn read(bytes: &[u8]) -> Result<Inside, GemFileError> {
        inspect(bytes, bytes.len() as u64)
    }

    #[test]
    fn a_gem_is_read() {
        let inside = read(&Parts::new("acme-left", "1.4.2").gem()).unwrap();
        assert_eq!(inside.gem.file_name(), "acme-left-1.4.2.gem");
        assert_eq!(inside.entries, 1);
        assert!(!inside.extensions);
        let mut native = Parts::new("acme-left", "1.4.2");
        native.data = tgz(&[entry("ext/x/extconf.rb", b'0', b"x")]);
        assert!(read(&native.gem()).unwrap().extensions);
    }

    #[test]
    fn attack_13_and_14_a_gem_whose_parts_do_not_agree_is_refused() {
        type Change = fn(&mut Parts);
        let cases: [(&str, Change); 14] = [
            ("other data", |p| p.claimed_data = Some(tgz(&[]))),
            ("other metadata", |p| p.claimed_metadata = Some(gzip(b"x"))),
            ("no checksums", |p| p.checksums = Sums::Missing),
            ("empty checksums", |p| p.checksums = Sums::Other("---\n")),
            ("another algorithm alone", |p| {
                let text = "---\nSHA1:\n  metadata.gz: 00\n  data.tar.gz: 00\n";
                p.checksums = Sums::Other(text);
            }),
            ("metadata twice", |p| {
                let evil = gzip(spec("evil", "1.0.0").as_bytes());
                p.more.push(entry("metadata.gz", b'0', &evil));
            }),
            ("data twice", |p| {
                p.more.push(entry("data.tar.gz", b'0', &tgz(&[])));
            }),
            ("metadata under another spelling", |p| {
                p.more.push(entry("./metadata.gz", b'0', b"x"));
            }),
            ("metadata not packed, beside", |p| {
                p.more.push(entry("metadata", b'0', b"x"));
            }),
            ("a link", |p| p.data = tgz(&[entry("lib/x", b'2', b"")])),
            ("an escape", |p| p.data = tgz(&[entry("../x", b'0', b"")])),
            ("a file twice", |p| {
                p.data = tgz(&[entry("a", b'0', b""), entry("A", b'0', b"")]);
            }),
            ("something behind the data", |p| p.data.extend(tgz(&[]))),
            ("something behind the metadata", |p| {
                p.metadata.extend(gzip(b"name: evil"));
            }),
        ];
        for (why, change) in cases {
            let mut parts = Parts::new("acme-left", "1.4.2");
            change(&mut parts);
            assert!(read(&parts.gem()).is_err(), "{why}");
        }
        let good = Parts::new("acme-left", "1.4.2").gem();
        for cut in [0, 100, 600, good.len() / 2, good.len() - 1025] {
            assert!(read(&good[..cut]).is_err(), "{cut}");
        }
        let mut behind = good.clone();
        behind.extend_from_slice(&good);
        assert!(read(&behind).is_err());
        assert!(read(b"<html>").is_err());
    }

    #[test]
    fn attack_53_a_gem_that_unpacks_to_too_much_is_refused() {
        let mut bomb = Parts::new("acme-left", "1.4.2");
        let zeros = entry("zeros", b'0', &vec![0; 12 << 20]);
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&zeros).unwrap();
        bomb.data = packer.finish().unwrap();
        assert!(matches!(
            read(&bomb.gem()),
            Err(GemFileError::Archive(ArchiveError::TooLarge(_)))
        ));
        let mut wide = Parts::new("acme-left", "1.4.2");
        wide.metadata = gzip(&vec![b' '; 9 << 20]);
        assert!(matches!(
            read(&wide.gem()),
            Err(GemFileError::Part(METADATA))
        ));
    }
}
