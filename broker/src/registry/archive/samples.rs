//! Archives for the tests of the adapters, right by default and wrong on demand.

use flate2::{Compression, write::GzEncoder};
use std::io::Write as _;

/// One block of a tar header: ustar, with the checksum right.
pub(in crate::registry) fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut h = vec![0; 512];
    let n = name.len().min(100);
    h[..n].copy_from_slice(&name.as_bytes()[..n]);
    h[100..108].copy_from_slice(b"0000644\0");
    h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    h[136..148].copy_from_slice(b"00000000000\0");
    h[156] = kind;
    h[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut h);
    h
}

/// Sets the checksum again after a change.
pub(in crate::registry) fn sum(h: &mut [u8]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An entry with its padding.
pub(in crate::registry) fn entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, data.len());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// A pax extension header.
pub(in crate::registry) fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = String::new();
    for (k, v) in records {
        let rest = format!(" {k}={v}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        data = format!("{data}{length}{rest}");
    }
    entry("PaxHeader/x", b'x', data.as_bytes())
}

/// gzip.
pub(in crate::registry) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(data).unwrap();
    gz.finish().unwrap()
}

/// The entries, the end-of-archive blocks, gzip.
pub(in crate::registry) fn tgz(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1024, 0);
    gzip(&tar)
}

/// One file of a ZIP archive, with everything that a test may want to get wrong.
#[derive(Clone)]
pub(crate) struct Zipped {
    pub(in crate::registry) name: Vec<u8>,
    pub(in crate::registry) data: Vec<u8>,
    pub(in crate::registry) flags: u16,
    pub(in crate::registry) deflate: bool,
    /// Unix mode, in the upper half.
    pub(in crate::registry) attributes: u32,
    pub(in crate::registry) extra: Vec<u8>,
    /// Changes the finished local header.
    pub(in crate::registry) local: fn(&mut Vec<u8>),
    /// Changes the finished central header.
    pub(in crate::registry) central: fn(&mut Vec<u8>),
}

impl Zipped {
    pub(crate) fn new(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            data: data.to_vec(),
            flags: if name.is_ascii() { 0 } else { 1 << 11 },
            deflate: true,
            attributes: 0o100_644 << 16,
            extra: Vec::new(),
            local: |_| {},
            central: |_| {},
        }
    }
}

/// A ZIP archive of these files.
pub(crate) fn zip(files: &[Zipped]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for file in files {
        let packed = if file.deflate {
            let mut d = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
            d.write_all(&file.data).unwrap();
            d.finish().unwrap()
        } else {
            file.data.clone()
        };
        let mut crc = flate2::Crc::new();
        crc.update(&file.data);
        let mut same = Vec::new();
        same.extend_from_slice(&20u16.to_le_bytes());
        same.extend_from_slice(&file.flags.to_le_bytes());
        same.extend_from_slice(&if file.deflate { 8u16 } else { 0 }.to_le_bytes());
        same.extend_from_slice(&[0, 0, 0x21, 0x54]);
        same.extend_from_slice(&crc.sum().to_le_bytes());
        same.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        same.extend_from_slice(&u32::try_from(file.data.len()).unwrap().to_le_bytes());
        same.extend_from_slice(&u16::try_from(file.name.len()).unwrap().to_le_bytes());
        same.extend_from_slice(&u16::try_from(file.extra.len()).unwrap().to_le_bytes());
        let at = u32::try_from(out.len()).unwrap();
        let mut local = [b"PK\x03\x04", &same[..], &file.name, &file.extra].concat();
        (file.local)(&mut local);
        out.extend_from_slice(&local);
        out.extend_from_slice(&packed);
        let mut central = [b"PK\x01\x02\x14\x03", &same[..]].concat();
        central.extend_from_slice(&[0; 6]);
        central.extend_from_slice(&file.attributes.to_le_bytes());
        central.extend_from_slice(&at.to_le_bytes());
        central.extend_from_slice(&file.name);
        central.extend_from_slice(&file.extra);
        (file.central)(&mut central);
        directory.extend_from_slice(&central);
    }
    let at = u32::try_from(out.len()).unwrap();
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[count, count].concat());
    out.extend_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}
