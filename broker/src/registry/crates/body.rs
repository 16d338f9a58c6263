//! The body of `PUT /api/v1/crates/new`, read and written: JSON behind its length, archive behind its
//! length, both lengths 32 bits, little-endian (The Cargo Book, "Web API", Publish).

use super::{
    Envelope, MAX_CRATE, file_name,
    inspect::{InspectError, inspect},
};
use crate::registry::{
    self, Contents, IN_MEMORY, Publish,
    npm::json::{self, JsonError},
    pieces::Frame,
};
use proto::digest::{Algorithm, Hasher};
use serde_json::{Map, Value};
use std::{
    io::{self, Read, Seek as _, Write as _},
    path::Path,
};
use tempfile::{SpooledTempFile, spooled_tempfile_in};
use thiserror::Error;

/// Longest JSON, in bytes; the public registry's own limit.
const MAX_JSON: u32 = 1 << 20;
const CHUNK: usize = 16 << 10;

/// Why an upload was refused.
#[derive(Debug, Error)]
pub enum CrateError {
    /// The lengths do not fit the bytes.
    #[error("the upload is not one JSON text and one archive")]
    Shape,
    /// Not strict JSON.
    #[error("the upload's JSON {0}")]
    Json(#[from] JsonError),
    /// The JSON is not what the archive says of itself.
    #[error("the upload's JSON has another '{0}' than the archive's Cargo.toml")]
    Differs(&'static str),
    /// The archive is too large.
    #[error("the archive is larger than 10 MiB")]
    TooLarge,
    /// The archive is not acceptable.
    #[error(transparent)]
    Inside(#[from] InspectError),
    /// The broker's own disk.
    #[error("the archive could not be kept")]
    Io(#[source] io::Error),
}

/// Reads what `cargo publish` sends. Blocking; the archive goes to a temporary file in `spool` that has
/// no name.
pub(super) fn read_body(mut input: impl Read, spool: &Path) -> Result<Publish, CrateError> {
    let length = length(&mut input)?;
    if length > MAX_JSON {
        return Err(CrateError::Shape);
    }
    let mut text = Vec::new();
    (&mut input)
        .take(length.into())
        .read_to_end(&mut text)
        .map_err(CrateError::Io)?;
    if text.len() as u64 != u64::from(length) {
        return Err(CrateError::Shape);
    }
    let said = json::object(text.as_slice(), length.into())?;
    let size = self::length(&mut input)?;
    let publish = read_file(input, Some(size.into()), spool)?;
    let registry::Envelope::Crates(envelope) = &publish.envelope else {
        return Err(CrateError::Shape);
    };
    agree(&said, &envelope.metadata)?;
    Ok(publish)
}

/// Reads a bare `.crate`, of `size` bytes where that is known. Blocking, as above.
pub(super) fn read_file(
    mut input: impl Read,
    size: Option<u64>,
    spool: &Path,
) -> Result<Publish, CrateError> {
    let mut file = spooled_tempfile_in(IN_MEMORY, spool);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut taken = 0u64;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = input.read(&mut buffer).map_err(CrateError::Io)?;
        let Some(piece) = buffer.get(..n).filter(|p| !p.is_empty()) else {
            break;
        };
        taken += n as u64;
        if taken > MAX_CRATE {
            return Err(CrateError::TooLarge);
        }
        hasher.update(piece);
        file.write_all(piece).map_err(CrateError::Io)?;
    }
    if size.is_some_and(|size| size != taken) {
        return Err(CrateError::Shape);
    }
    publish(file, taken, hasher)
}

fn publish(mut file: SpooledTempFile, size: u64, hasher: Hasher) -> Result<Publish, CrateError> {
    file.rewind().map_err(CrateError::Io)?;
    let inside = inspect(&mut file, size)?;
    let manifest = inside.manifest;
    let shape = |_| CrateError::Shape;
    Ok(Publish {
        package: manifest.name.parse().map_err(shape)?,
        version: manifest.version.parse().map_err(|_| CrateError::Shape)?,
        tag: None,
        name: Some(file_name(&manifest.name, &manifest.version)),
        digest: hasher.finish(),
        size,
        contents: Contents {
            entries: inside.entries,
            unpacked: inside.unpacked,
            install_scripts: inside
                .build_script
                .then_some("build.rs")
                .into_iter()
                .collect(),
        },
        file,
        envelope: registry::Envelope::Crates(Envelope {
            metadata: manifest.metadata,
        }),
    })
}

fn length(input: &mut impl Read) -> Result<u32, CrateError> {
    let mut bytes = [0; 4];
    input
        .read_exact(&mut bytes)
        .map_err(|_| CrateError::Shape)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Attack 14: people see what the Cargo.toml says. A registry might believe the JSON instead, and it is
/// written anew for it; but a client whose JSON says something else is not an honest one.
fn agree(said: &Map<String, Value>, made: &Map<String, Value>) -> Result<(), CrateError> {
    for field in ["name", "vers", "features", "links"] {
        if said.get(field).unwrap_or(&Value::Null) != made.get(field).unwrap_or(&Value::Null) {
            return Err(CrateError::Differs(field));
        }
    }
    let said = dependencies(said).ok_or(CrateError::Differs("deps"))?;
    let made = dependencies(made).ok_or(CrateError::Differs("deps"))?;
    if said == made {
        Ok(())
    } else {
        Err(CrateError::Differs("deps"))
    }
}

/// The dependencies in one order. Where each comes from is left out: cargo writes there what the publishing
/// machine calls the registries.
fn dependencies(metadata: &Map<String, Value>) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for dependency in metadata.get("deps")?.as_array()? {
        let field = |name: &str| dependency.get(name).cloned().unwrap_or_default();
        let mut features: Vec<String> = field("features")
            .as_array()?
            .iter()
            .map(|f| f.as_str().map(str::to_owned))
            .collect::<Option<_>>()?;
        features.sort();
        let requirement = field("version_req");
        let requirement = semver::VersionReq::parse(requirement.as_str()?).ok()?;
        // cargo sets its own blanks into `cfg(…)`.
        let target = field("target").to_string().replace(char::is_whitespace, "");
        out.push(format!(
            "{} {requirement} {features:?} {} {} {target} {} {}",
            field("name"),
            field("optional"),
            field("default_features"),
            field("kind"),
            field("explicit_name_in_toml"),
        ));
    }
    out.sort();
    Some(out)
}

/// The body for the registry. A dependency from one of `own` is one from this very registry, and there the
/// field is null: the public registry refuses anything else as a dependency on another registry.
pub(super) fn frame(metadata: &Map<String, Value>, size: u64, own: &[String]) -> Option<Frame> {
    let mut metadata = metadata.clone();
    for dependency in metadata.get_mut("deps")?.as_array_mut()? {
        let from = dependency.get("registry").and_then(Value::as_str);
        if from.is_some_and(|from| own.iter().any(|o| same_index(o, from))) {
            dependency["registry"] = Value::Null;
        }
    }
    let json = Value::Object(metadata).to_string();
    let mut head = u32::try_from(json.len()).ok()?.to_le_bytes().to_vec();
    head.extend_from_slice(json.as_bytes());
    head.extend_from_slice(&u32::try_from(size).ok()?.to_le_bytes());
    Some(Frame {
        length: head.len() as u64 + size,
        head,
        tail: Vec::new(),
        encode: <[u8]>::to_vec,
    })
}

fn same_index(a: &str, b: &str) -> bool {
    let bare = |text: &str| {
        let text = text.strip_prefix("sparse+").unwrap_or(text);
        text.trim_end_matches('/').to_owned()
    };
    bare(a) == bare(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::crates::samples::{MANIFEST, NAME, VERSION, body, crate_of};
    use serde_json::json;

    fn spool() -> std::path::PathBuf {
        std::env::temp_dir()
    }

    /// What cargo writes for the sample: its own order, defaults spelled out, the broker's name for the default
    /// registry.
    fn cargo_json() -> Value {
        json!({
            "name": NAME, "vers": VERSION,
            "deps": [
                {"optional": false, "default_features": true, "name": "serde", "features": ["derive"],
                 "version_req": "^1.0", "target": null, "kind": "normal",
                 "registry": "https://index.example/git", "explicit_name_in_toml": null},
                {"optional": false, "default_features": true, "name": "acme-right", "features": [],
                 "version_req": "^0.2", "target": null, "kind": "normal"},
            ],
            "features": {"default": []}, "authors": [], "description": "Pads.", "documentation": null,
            "homepage": null, "readme": "# Left\n", "readme_file": "README.md", "keywords": [],
            "categories": [], "license": "MIT", "license_file": null, "repository": null,
            "badges": {}, "links": null, "rust_version": null,
        })
    }

    #[test]
    fn cargos_upload_is_read_and_written_anew() {
        let archive = crate_of(MANIFEST);
        let sent = body(&cargo_json().to_string(), &archive);
        let mut publish = read_body(sent.as_slice(), &spool()).unwrap();
        assert_eq!(publish.package().as_str(), NAME);
        assert_eq!(publish.version().as_str(), VERSION);
        assert_eq!(publish.name(), Some("acme-left-1.4.2.crate"));
        assert_eq!(
            publish.digest(),
            &proto::digest::Digest::of(Algorithm::Sha256, &archive)
        );
        let bare = read_file(archive.as_slice(), None, &spool()).unwrap();
        assert_eq!(bare.digest(), publish.digest());
        let mut kept = Vec::new();
        publish.file().unwrap().read_to_end(&mut kept).unwrap();
        assert_eq!(kept, archive);

        let registry::Envelope::Crates(envelope) = &publish.envelope else {
            panic!("another registry's envelope");
        };
        let own = ["https://broker.example/index".to_owned()];
        let frame = frame(&envelope.metadata, publish.size(), &own).unwrap();
        assert_eq!(frame.length, frame.head.len() as u64 + publish.size());
        let length = u32::from_le_bytes(frame.head[..4].try_into().unwrap()) as usize;
        let json: Value = serde_json::from_slice(&frame.head[4..4 + length]).unwrap();
        assert_eq!(json["readme"], "# Left\n");
        for dependency in json["deps"].as_array().unwrap() {
            assert_eq!(dependency["registry"], Value::Null, "{dependency}");
        }
        assert_eq!(
            frame.head[4 + length..],
            u32::try_from(archive.len()).unwrap().to_le_bytes()
        );
        // What comes from elsewhere stays so: the registry shall say whether it takes it.
        let kept = super::frame(&envelope.metadata, 1, &[]).unwrap();
        assert!(String::from_utf8_lossy(&kept.head).contains("broker.example"));
    }

    #[test]
    fn attack_13_and_14_json_that_is_not_the_archives_is_refused() {
        let archive = crate_of(MANIFEST);
        let refused = |json: &str, why: &str| {
            assert!(
                read_body(body(json, &archive).as_slice(), &spool()).is_err(),
                "{why}"
            );
        };
        let with = |field: &str, value: Value| {
            let mut json = cargo_json();
            json[field] = value;
            json.to_string()
        };
        refused(&with("name", json!("acme-right")), "another crate");
        refused(&with("vers", json!("1.4.3")), "another version");
        refused(
            &with("features", json!({"default": ["x"]})),
            "other features",
        );
        refused(&with("links", json!("z")), "links");
        refused(&with("deps", json!([])), "no dependencies");
        for (field, value) in [
            ("name", json!("evil")),
            ("version_req", json!("=9.9.9")),
            ("features", json!([])),
            ("kind", json!("dev")),
            ("target", json!("cfg(unix)")),
            ("optional", json!(true)),
            ("default_features", json!(false)),
            ("explicit_name_in_toml", json!("x")),
            ("version_req", json!(1)),
        ] {
            let mut json = cargo_json();
            json["deps"][0][field] = value;
            refused(&json.to_string(), field);
        }
        let twice = cargo_json()
            .to_string()
            .replacen('{', "{\"name\":\"acme-left\",", 1);
        refused(&twice, "a name twice");
        refused("[]", "no object");
        refused("", "no JSON");
    }

    #[test]
    fn attack_14_lengths_that_do_not_fit_are_refused() {
        let archive = crate_of(MANIFEST);
        let good = body(&cargo_json().to_string(), &archive);
        assert!(read_body(good.as_slice(), &spool()).is_ok());
        let mut longer = good.clone();
        longer.push(0);
        assert!(read_body(longer.as_slice(), &spool()).is_err());
        for cut in [0, 3, 4, 100, good.len() - archive.len() - 2, good.len() - 1] {
            assert!(read_body(&good[..cut], &spool()).is_err(), "{cut}");
        }
        // The archive is whole, and said to have another length.
        let at = good.len() - archive.len() - 4;
        for said in [archive.len() - 1, archive.len() + 1] {
            let mut lied = good.clone();
            lied[at..at + 4].copy_from_slice(&u32::try_from(said).unwrap().to_le_bytes());
            assert!(read_body(lied.as_slice(), &spool()).is_err(), "{said}");
        }
        let mut huge = good;
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read_body(huge.as_slice(), &spool()).is_err());
        let flood = vec![0; usize::try_from(MAX_CRATE).unwrap() + 1];
        let why = read_file(flood.as_slice(), None, &spool()).unwrap_err();
        assert!(matches!(why, CrateError::TooLarge));
    }
}
