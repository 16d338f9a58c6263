//! Archives and documents for the tests of this folder, right by default and wrong on demand.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use proto::digest::{Algorithm, Digest, hex};
use serde_json::{Value, json};
use std::io::Write as _;

/// One block of a tar header: ustar, with the checksum right.
pub(super) fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
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
pub(super) fn sum(h: &mut [u8]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An entry with its padding.
pub(super) fn entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, data.len());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// A pax extension header.
pub(super) fn pax(records: &[(&str, &str)]) -> Vec<u8> {
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
pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(data).unwrap();
    gz.finish().unwrap()
}

/// The entries, the end-of-archive blocks, gzip.
pub(super) fn tgz(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1024, 0);
    gzip(&tar)
}

/// `@acme/left` 1.0.0.
pub(super) const PACKAGE_JSON: &str = r#"{"name":"@acme/left","version":"1.0.0","bin":"./cli.js","scripts":{"postinstall":"node x"}}"#;

/// An archive of it.
pub(super) fn archive() -> Vec<u8> {
    tgz(&[
        entry("package/package.json", b'0', PACKAGE_JSON.as_bytes()),
        entry("package/cli.js", b'0', b"#!/usr/bin/env node\n"),
    ])
}

/// The document that npm 11 writes for an archive of `@acme/left` 1.0.0.
pub(super) fn document(archive: &[u8]) -> Value {
    json!({
        "_id": "@acme/left",
        "name": "@acme/left",
        "description": "d",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {
            "name": "@acme/left", "version": "1.0.0", "bin": {"left": "cli.js"},
            "scripts": {"postinstall": "node x"}, "readme": "# r\n",
            "_id": "@acme/left@1.0.0", "_nodeVersion": "20.20.2", "_npmVersion": "11.19.1",
            "dist": {
                "integrity": Digest::of(Algorithm::Sha512, archive).sri(),
                "shasum": hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, archive).as_ref()),
                "tarball": "http://broker.test/@acme/left/-/@acme/left-1.0.0.tgz"
            }
        }},
        "access": null,
        "_attachments": {"@acme/left-1.0.0.tgz": {
            "content_type": "application/octet-stream",
            "data": STANDARD.encode(archive),
            "length": archive.len()
        }}
    })
}

/// A provenance bundle as npm writes it, about the given bytes.
pub(super) fn bundle(archive: &[u8], purl: &str) -> String {
    let sha512 = hex(Digest::of(Algorithm::Sha512, archive).as_bytes());
    let statement = json!({"_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": purl, "digest": {"sha512": sha512}}], "predicate": {}});
    let payload = STANDARD.encode(statement.to_string());
    format!(r#"{{ "mediaType":"x","dsseEnvelope":{{"payload":"{payload}","signatures":[]}} }}"#)
}
