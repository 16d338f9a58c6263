//! The provenance bundle beside an archive (Sigstore bundle around an in-toto statement).
//!
//! The broker does not verify who signed it: the registry and the package's users do. It refuses a
//! bundle that speaks about other bytes (attack 19).

use super::{Attestation, json};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    digest::{Digest, hex},
    ids::{PackageName, VersionText},
    text,
};
use serde_json::Value;

/// Longest bundle.
pub(super) const MAX_BUNDLE: u64 = 256 << 10;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// Whether the bundle has exactly one subject: this package, version and archive.
pub(super) fn about(
    bundle: &Attestation,
    package: &PackageName,
    version: &VersionText,
    digest: &Digest,
) -> bool {
    if !bundle.content_type.starts_with(MEDIA_TYPE)
        || text::check(&bundle.content_type, 100).is_err()
    {
        return false;
    }
    let characters = bundle.text.encode_utf16().count() as u64;
    if bundle.length != characters && bundle.length != bundle.text.len() as u64 {
        return false;
    }
    subject(&bundle.text, package, version, digest).is_some()
}

fn subject(
    bundle: &str,
    package: &PackageName,
    version: &VersionText,
    digest: &Digest,
) -> Option<()> {
    let bundle = json::object(bundle.as_bytes(), MAX_BUNDLE).ok()?;
    let payload = bundle.get("dsseEnvelope")?.get("payload")?.as_str()?;
    let payload = STANDARD.decode(payload).ok()?;
    let statement = json::object(payload.as_slice(), MAX_BUNDLE).ok()?;
    let [subject] = statement.get("subject")?.as_array()?.as_slice() else {
        return None;
    };
    let purl = format!("pkg:npm/{}@{version}", package.as_str().replace('@', "%40"));
    let digests = subject.get("digest")?.as_object()?;
    let named = subject.get("name").and_then(Value::as_str) == Some(&purl);
    let hashed = digests.len() == 1
        && digests.get("sha512").and_then(Value::as_str) == Some(&hex(digest.as_bytes()));
    (named && hashed).then_some(())
}
