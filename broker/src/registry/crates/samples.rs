//! Crates for the tests of this adapter.

use crate::registry::archive::samples::{entry, tgz};

pub(super) const NAME: &str = "acme-left";
pub(super) const VERSION: &str = "1.4.2";
pub(super) const ROOT: &str = "acme-left-1.4.2";
pub(super) const MANIFEST: &str = r#"
[package]
edition = "2024"
name = "acme-left"
version = "1.4.2"
description = "Pads."
readme = "README.md"
license = "MIT"

[dependencies.serde]
version = "1.0"
features = ["derive"]

[dependencies.acme-right]
version = "0.2"
registry-index = "sparse+https://broker.example/index/"

[features]
default = []
"#;

/// A `.crate` as cargo packs it, with this Cargo.toml.
pub(super) fn crate_of(manifest: &str) -> Vec<u8> {
    tgz(&[
        entry(&format!("{ROOT}/Cargo.toml"), b'0', manifest.as_bytes()),
        entry(&format!("{ROOT}/Cargo.toml.orig"), b'0', b"[package]"),
        entry(&format!("{ROOT}/README.md"), b'0', b"# Left\n"),
        entry(&format!("{ROOT}/src/lib.rs"), b'0', b"pub fn pad() {}\n"),
    ])
}

/// The body of `cargo publish`: JSON and archive, each behind its length.
pub(super) fn body(json: &str, archive: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&u32::try_from(json.len()).unwrap().to_le_bytes());
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(&u32::try_from(archive.len()).unwrap().to_le_bytes());
    out.extend_from_slice(archive);
    out
}
