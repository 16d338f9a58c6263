//! Manifests, read for what they refer to and never changed: their bytes are what people approve.
//!
//! Registries and engines read them with parsers that forgive: the last of two equal keys, keys in any case,
//! a list of manifests beside a list of layers. Whatever two of them could read differently is refused here.

use crate::registry::{
    Need,
    npm::json::{self, JsonError},
};
use proto::{digest::Digest, request::FILES_MAX, text};
use serde_json::{Map, Value};
use thiserror::Error;

/// Images, and lists of them, by their media types. Older forms are refused: their digest is not that of
/// their bytes.
const IMAGE: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEX: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// What is asked for when a manifest is read back.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Keys that mean something to a registry, in the one spelling that they have.
const KEYS: [&str; 11] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "blobs",
    "fsLayers",
    "digest",
    "size",
    "urls",
    "subject",
];

/// Why a manifest was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Another form, or another than the upload's head says.
    #[error("is not of the media type '{0}', or that is none that is passed on")]
    MediaType(String),
    /// Not JSON that is read in one way only.
    #[error("{0}")]
    Json(String),
    /// A key in a spelling that some parsers forgive.
    #[error("spells '{0}' in another way than the specification")]
    Spelling(String),
    /// Something that the specification demands is missing, or of another type.
    #[error("has no good '{0}'")]
    Missing(&'static str),
    /// Something that does not belong into a manifest of this type.
    #[error("has '{0}', which does not belong there")]
    Extra(&'static str),
    /// More than a request can have.
    #[error("refers to more than {FILES_MAX} files")]
    TooMany,
}

impl From<JsonError> for ManifestError {
    fn from(e: JsonError) -> Self {
        Self::Json(e.to_string())
    }
}

/// Whether it is that of a list of manifests.
pub(super) fn is_index(media_type: &str) -> bool {
    INDEX.contains(&media_type)
}

/// The media type, and what the manifest refers to.
pub(super) fn read(
    bytes: &[u8],
    media_type: &str,
) -> Result<(&'static str, Vec<Need>), ManifestError> {
    let mut known = IMAGE.iter().chain(&INDEX);
    let known = known.find(|known| **known == media_type);
    let other = || ManifestError::MediaType(text::harmless(media_type));
    let media_type: &'static str = known.ok_or_else(other)?;
    let map = &json::object(bytes, super::MANIFEST_MAX)?;
    spelled(map)?;
    if map.get("schemaVersion") != Some(&Value::from(2)) {
        return Err(ManifestError::Missing("schemaVersion"));
    }
    // A manifest that could be taken for another type is two manifests, and the head is the job's word: where the
    // manifest itself is silent, it is one of the specification that allows that.
    let good = match map.get("mediaType") {
        Some(named) => named == media_type,
        None => [IMAGE[0], INDEX[0]].contains(&media_type),
    };
    if !good {
        return Err(other());
    }
    let foreign: &[&'static str] = if is_index(media_type) {
        &["config", "layers", "blobs", "fsLayers"]
    } else {
        &["manifests", "blobs", "fsLayers"]
    };
    if let Some(extra) = foreign.iter().find(|key| map.contains_key(**key)) {
        return Err(ManifestError::Extra(extra));
    }
    let mut needs = Vec::new();
    if is_index(media_type) {
        for child in list(map, "manifests")? {
            let kind = child.get("mediaType").and_then(Value::as_str);
            // An index in an index is more than anybody reads on a question's page.
            if !kind.is_some_and(|kind| IMAGE.contains(&kind)) {
                return Err(ManifestError::Missing("mediaType"));
            }
            add(&mut needs, "manifests", child)?;
        }
    } else {
        let config = map.get("config").ok_or(ManifestError::Missing("config"))?;
        add(&mut needs, "blobs", config)?;
        for layer in list(map, "layers")? {
            add(&mut needs, "blobs", layer)?;
        }
    }
    // Registries list it beside the image that it says it is about: a signature, a bill of materials (attack 19).
    if let Some(subject) = map.get("subject") {
        add(&mut needs, "manifests", subject)?;
    }
    Ok((media_type, needs))
}

fn list<'v>(map: &'v Map<String, Value>, key: &'static str) -> Result<&'v [Value], ManifestError> {
    let list = map.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice).ok_or(ManifestError::Missing(key))
}

/// Takes one descriptor. The same content may stand in an image twice.
fn add(needs: &mut Vec<Need>, folder: &str, value: &Value) -> Result<(), ManifestError> {
    let map = value.as_object().ok_or(ManifestError::Missing("digest"))?;
    spelled(map)?;
    // What is fetched from elsewhere was approved by nobody.
    if map.contains_key("urls") {
        return Err(ManifestError::Extra("urls"));
    }
    let digest: Option<Digest> = map
        .get("digest")
        .and_then(Value::as_str)
        .and_then(super::sha256);
    let digest = digest.ok_or(ManifestError::Missing("digest"))?;
    let size = map.get("size").and_then(Value::as_u64);
    let need = Need {
        name: format!("{folder}/{digest}"),
        size: size.ok_or(ManifestError::Missing("size"))?,
        digest,
    };
    match needs.iter().find(|n| n.name == need.name) {
        Some(same) if same.size == need.size => Ok(()),
        Some(_) => Err(ManifestError::Missing("size")),
        None if needs.len() >= FILES_MAX => Err(ManifestError::TooMany),
        None => {
            needs.push(need);
            Ok(())
        }
    }
}

/// Go's reader folds more than ASCII: `ſ` is an `s` to it, and the Kelvin sign a `k`. No key of the specification
/// has such letters, so none is passed on.
fn spelled(map: &Map<String, Value>) -> Result<(), ManifestError> {
    let bad = map.keys().find(|key| {
        let folded = |known: &&str| known != key && known.eq_ignore_ascii_case(key);
        !key.is_ascii() || KEYS.iter().any(folded)
    });
    match bad {
        Some(key) => Err(ManifestError::Spelling(text::harmless(key))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::digest::Algorithm;
    use serde_json::json;

    fn descriptor(kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(Algorithm::Sha256, bytes).to_string();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": IMAGE[0],
            "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [descriptor("x", b"one"), descriptor("x", b"two"), descriptor("x", b"one")],
        })
    }

    fn index() -> Value {
        json!({"schemaVersion": 2, "manifests": [descriptor(IMAGE[0], b"child")]})
    }

    fn needs(value: &Value, kind: &str) -> Result<usize, ManifestError> {
        read(value.to_string().as_bytes(), kind).map(|(_, needs)| needs.len())
    }

    #[test]
    fn an_image_needs_its_blobs_and_an_index_its_manifests() {
        assert_eq!(needs(&image(), IMAGE[0]), Ok(3));
        assert_eq!(needs(&index(), INDEX[0]), Ok(1));
        let mut list = index();
        list["mediaType"] = json!(INDEX[1]);
        assert_eq!(needs(&list, INDEX[1]), Ok(1));
    }

    #[test]
    fn attack_14_a_manifest_key_with_a_long_s_is_refused() {
        // Go's reader takes U+017F for an s and U+212A for a k.
        for (key, value) in [
            ("layer\u{17f}", json!([])),
            ("manife\u{17f}ts", json!([])),
            ("ſubject", json!({})),
            ("ä", json!(1)),
        ] {
            let mut bad = image();
            bad[key] = value.clone();
            assert!(needs(&bad, IMAGE[0]).is_err(), "{key}");
        }
        for key in ["dige\u{17f}t", "\u{17f}ize", "mar\u{212a}"] {
            let mut bad = image();
            bad["layers"][0][key] = json!("x");
            assert!(needs(&bad, IMAGE[0]).is_err(), "{key}");
            let mut bad = index();
            bad["manifests"][0][key] = json!("x");
            assert!(needs(&bad, INDEX[0]).is_err(), "{key}");
        }
        // What people write beside it is theirs.
        let mut good = image();
        good["annotations"] = json!({"größe": "ß"});
        assert_eq!(needs(&good, IMAGE[0]), Ok(3));
    }

    #[test]
    fn attack_19_what_a_manifest_is_about_must_be_approved_with_it() {
        let mut about = image();
        about["subject"] = descriptor(IMAGE[0], b"another image");
        let (_, needs_of) = read(about.to_string().as_bytes(), IMAGE[0]).unwrap();
        let other = Digest::of(Algorithm::Sha256, b"another image");
        let name = format!("manifests/{other}");
        assert!(needs_of.iter().any(|need| need.name == name));
        for bad in [json!(null), json!({}), json!("sha256:00")] {
            about["subject"] = bad;
            assert!(needs(&about, IMAGE[0]).is_err());
        }
    }

    #[test]
    fn attack_14_a_manifest_that_two_parsers_read_differently_is_refused() {
        for kind in ["", "application/json", INDEX[0], IMAGE[1]] {
            assert!(needs(&image(), kind).is_err(), "{kind}");
        }
        let bends: [fn(&mut Value); 13] = [
            |v| v["schemaVersion"] = json!(1),
            |v| v["manifests"] = json!([]),
            |v| v["Layers"] = json!([]),
            |v| v["MANIFESTS"] = json!([]),
            |v| v["fsLayers"] = json!([]),
            |v| v["mediatype"] = json!("x"),
            |v| v["config"] = json!(null),
            |v| v["layers"] = json!({}),
            |v| v["layers"][0]["urls"] = json!(["https://elsewhere.example/x"]),
            |v| v["layers"][0]["Digest"] = json!("sha256:00"),
            |v| v["layers"][0]["digest"] = json!("sha512:00"),
            |v| v["layers"][0]["size"] = json!(-1),
            |v| v["layers"][2]["size"] = json!(4),
        ];
        for (n, bend) in bends.iter().enumerate() {
            let mut bad = image();
            bend(&mut bad);
            assert!(needs(&bad, IMAGE[0]).is_err(), "{n}");
        }
        // Without a type of its own it is what the specification says: only the newer one allows that.
        let mut silent = image();
        silent.as_object_mut().unwrap().remove("mediaType");
        assert_eq!(needs(&silent, IMAGE[0]), Ok(3));
        assert!(needs(&silent, IMAGE[1]).is_err());
        assert!(needs(&index(), INDEX[1]).is_err());
        let mut nested = index();
        nested["manifests"][0]["mediaType"] = json!(INDEX[0]);
        assert!(needs(&nested, INDEX[0]).is_err());
        let twice = image().to_string().replacen('{', r#"{"layers":[],"#, 1);
        assert!(read(twice.as_bytes(), IMAGE[0]).is_err());
        let behind = format!("{} x", image());
        assert!(read(behind.as_bytes(), IMAGE[0]).is_err());
    }
}
