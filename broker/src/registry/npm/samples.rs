//! Archives and documents for the tests of this folder, right by default and wrong on demand.

pub(super) use crate::registry::archive::samples::{entry, gzip, header, pax, sum, tgz};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::digest::{Algorithm, Digest, hex};
use serde_json::{Value, json};

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
