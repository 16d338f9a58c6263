//! Distributions and forms for the tests of this folder, right by default and wrong on demand.

use crate::registry::archive::samples::{Zipped, entry, tgz, zip};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::digest::{Algorithm, Digest, hex};
use std::fmt::Write as _;

pub(super) const WHEEL: &str = "acme_demo-1.0.0-py3-none-any.whl";
pub(super) const SDIST: &str = "acme_demo-1.0.0.tar.gz";
pub(super) const INFO: &str = "acme_demo-1.0.0.dist-info";
pub(super) const METADATA: &str = "Metadata-Version: 2.4\nName: acme-demo\nVersion: 1.0.0\nSummary: A demo\n\
    Requires-Dist: idna\nRequires-Dist: six; extra == 'x'\nRequires-Python: >=3.9\n\n# Demo\n";

/// The files of a usual wheel, without its RECORD.
pub(super) fn files() -> Vec<(String, Vec<u8>)> {
    let file = |name: &str, data: &str| (name.to_owned(), data.as_bytes().to_vec());
    vec![
        file("acme_demo/__init__.py", "print('hello')\n"),
        file(&format!("{INFO}/METADATA"), METADATA),
        file(
            &format!("{INFO}/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
    ]
}

/// RECORD of these files.
pub(super) fn record(files: &[(String, Vec<u8>)]) -> String {
    let mut out = String::new();
    for (name, data) in files {
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, data));
        writeln!(out, "{name},sha256={hash},{}", data.len()).unwrap();
    }
    out + &format!("{INFO}/RECORD,,\n")
}

/// A wheel of these files with this RECORD.
pub(super) fn wheel_of(files: &[(String, Vec<u8>)], record: &str) -> Vec<u8> {
    let mut all: Vec<_> = files.iter().map(|(n, d)| Zipped::new(n, d)).collect();
    all.push(Zipped::new(&format!("{INFO}/RECORD"), record.as_bytes()));
    zip(&all)
}

/// A usual wheel.
pub(super) fn wheel() -> Vec<u8> {
    wheel_of(&files(), &record(&files()))
}

/// A usual sdist.
pub(super) fn sdist() -> Vec<u8> {
    tgz(&[
        entry("acme_demo-1.0.0/PKG-INFO", b'0', METADATA.as_bytes()),
        entry("acme_demo-1.0.0/pyproject.toml", b'0', b"[project]\n"),
    ])
}

/// A form on its way to a test.
pub(super) type Fields = Vec<(&'static str, String)>;

/// The fields that twine writes beside a file of acme-demo 1.0.0.
pub(super) fn fields(file: &[u8], filetype: &str) -> Fields {
    let text = |s: &str| s.to_owned();
    vec![
        ("metadata_version", text("2.4")),
        ("name", text("acme-demo")),
        ("version", text("1.0.0")),
        ("summary", text("A demo")),
        ("requires_dist", text("six; extra == 'x'")),
        ("requires_dist", text("idna")),
        ("requires_python", text(">=3.9")),
        ("description", text("# Demo\n")),
        ("filetype", text(filetype)),
        ("pyversion", text("py3")),
        (
            "sha256_digest",
            hex(Digest::of(Algorithm::Sha256, file).as_bytes()),
        ),
        ("blake2_256_digest", "0".repeat(64)),
        (":action", text("file_upload")),
        ("protocol_version", text("1")),
    ]
}

/// The `Content-Type` of [`form`].
pub(super) const CONTENT_TYPE: &str = "multipart/form-data; boundary=b0";

/// The form of these fields and this file.
pub(super) fn form(fields: &Fields, name: &str, file: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in fields {
        out.extend_from_slice(
            format!("--b0\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n")
                .as_bytes(),
        );
    }
    out.extend_from_slice(
        format!(
            "--b0\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .as_bytes(),
    );
    out.extend_from_slice(file);
    out.extend_from_slice(b"\r\n--b0--\r\n");
    out
}
