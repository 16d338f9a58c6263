//! Writes a publish again for the registry: the same bytes for the same publish, in one order.

use super::Envelope;
use crate::registry::{Publish, pieces::Frame};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use url::Url;

/// The document for a registry at `base`.
///
/// `dist.tarball` is set to the registry's own address: npm's registry overwrites what a client
/// wrote there, but not every other one does, and it would send installs to a stranger's host.
pub(super) fn frame(publish: &Publish, envelope: &Envelope, base: &Url) -> Frame {
    let (package, version) = (publish.package.as_str(), publish.version.as_str());
    let archive = format!("{package}-{version}.tgz");
    let mut metadata = envelope.metadata.clone();
    let mut manifest = metadata.remove("manifest").unwrap_or_default();
    if let Some(Value::Object(dist)) = manifest.get_mut("dist") {
        let address = format!("{base}{package}/-/{archive}");
        dist.insert("tarball".to_owned(), Value::String(address));
    }
    let access = metadata.remove("access").unwrap_or_default();
    let mut parts = vec![
        member("_id", &json!(package)),
        member("name", &json!(package)),
        member("access", &access),
        member(
            "dist-tags",
            &one(
                publish.tag.as_ref().map_or("latest", |t| t.as_str()),
                json!(version),
            ),
        ),
        member("versions", &one(version, manifest)),
    ];
    parts.extend(metadata.iter().map(|(name, value)| member(name, value)));
    let head = format!(
        r#"{{{},"_attachments":{{{}:{{"content_type":"application/octet-stream","data":""#,
        parts.join(","),
        json!(archive)
    );
    let bundle = envelope.attestation.as_ref().map_or_else(String::new, |a| {
        let bundle = json!({"content_type": a.content_type, "data": a.text, "length": a.length});
        format!(
            ",{}",
            member(&format!("{package}-{version}.sigstore"), &bundle)
        )
    });
    let tail = format!(r#"","length":{}}}{bundle}}}}}"#, publish.size);
    let base64 = publish.size.div_ceil(3) * 4;
    let length = head.len() as u64 + base64 + tail.len() as u64;
    Frame {
        head: head.into_bytes(),
        tail: tail.into_bytes(),
        encode: |piece| STANDARD.encode(piece).into_bytes(),
        length,
    }
}

fn one(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

fn member(name: &str, value: &Value) -> String {
    format!("{}:{value}", json!(name))
}
