//! The archive's Cargo.toml, and the registry's JSON made from it.
//!
//! cargo writes the Cargo.toml of a `.crate` anew: no inheritance, no paths, one spelling. What the
//! registry needs to know of the crate is all in it, so the JSON that a client sends is only compared.

use proto::text;
use semver::{Version, VersionReq};
use serde_json::{Map, Value, json};
use thiserror::Error;
use toml::{Table, Value as Toml};

/// Most dependencies of one crate.
const MAX_DEPENDENCIES: usize = 2000;

/// Why a Cargo.toml was refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not TOML.
    #[error("the archive's Cargo.toml is not TOML")]
    Syntax,
    /// Something missing or of the wrong type.
    #[error("the archive's Cargo.toml has no usable '{0}'")]
    Shape(String),
    /// A dependency that no registry takes.
    #[error("the dependency '{0}' in the archive's Cargo.toml is not one on a registry")]
    Dependency(String),
    /// The package says that it must not be published.
    #[error("the archive's Cargo.toml says `publish = false`")]
    Private,
}

/// What is read of a Cargo.toml.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) version: String,
    /// The file whose text goes into the JSON, by its path below the root folder.
    pub(super) readme: Option<String>,
    pub(super) metadata: Map<String, Value>,
}

impl Manifest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Syntax)?;
        let table: Table = text.parse().map_err(|_| ManifestError::Syntax)?;
        let package = table
            .get("package")
            .and_then(Toml::as_table)
            .ok_or_else(|| shape("package"))?;
        let name = text_of(package, "name")?.ok_or_else(|| shape("name"))?;
        let version = text_of(package, "version")?.ok_or_else(|| shape("version"))?;
        if !super::is_name(&name) || Version::parse(&version).is_err() {
            return Err(shape("name or version"));
        }
        match package.get("publish") {
            Some(Toml::Boolean(false)) => return Err(ManifestError::Private),
            Some(Toml::Array(only)) if only.is_empty() => return Err(ManifestError::Private),
            _ => {}
        }
        // `readme = false` is no readme.
        let readme = match package.get("readme") {
            None | Some(Toml::Boolean(false)) => None,
            Some(Toml::String(path)) => Some(path.clone()),
            Some(_) => return Err(shape("readme")),
        };
        let metadata = Map::from_iter(
            [
                ("name", json!(name)),
                ("vers", json!(version)),
                ("deps", json!(dependencies(&table)?)),
                ("features", features(&table)?),
                ("authors", json!(texts_of(package, "authors")?)),
                ("description", json!(text_of(package, "description")?)),
                ("documentation", json!(text_of(package, "documentation")?)),
                ("homepage", json!(text_of(package, "homepage")?)),
                ("readme", Value::Null),
                ("readme_file", json!(readme)),
                ("keywords", json!(texts_of(package, "keywords")?)),
                ("categories", json!(texts_of(package, "categories")?)),
                ("license", json!(text_of(package, "license")?)),
                ("license_file", json!(text_of(package, "license-file")?)),
                ("repository", json!(text_of(package, "repository")?)),
                ("badges", json!({})),
                ("links", json!(text_of(package, "links")?)),
                ("rust_version", json!(text_of(package, "rust-version")?)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(Self {
            name,
            version,
            readme,
            metadata,
        })
    }
}

fn shape(what: &str) -> ManifestError {
    ManifestError::Shape(text::harmless(what))
}

fn text_of(table: &Table, name: &str) -> Result<Option<String>, ManifestError> {
    match table.get(name) {
        None => Ok(None),
        Some(Toml::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(shape(name)),
    }
}

fn texts_of(table: &Table, name: &str) -> Result<Vec<String>, ManifestError> {
    let bad = || shape(name);
    let Some(value) = table.get(name) else {
        return Ok(Vec::new());
    };
    let list = value.as_array().ok_or_else(bad)?;
    list.iter()
        .map(|v| v.as_str().map(str::to_owned).ok_or_else(bad))
        .collect()
}

fn flag_of(table: &Table, name: &str) -> Result<Option<bool>, ManifestError> {
    match table.get(name) {
        None => Ok(None),
        Some(Toml::Boolean(flag)) => Ok(Some(*flag)),
        Some(_) => Err(shape(name)),
    }
}

fn features(table: &Table) -> Result<Value, ManifestError> {
    let Some(features) = table.get("features") else {
        return Ok(json!({}));
    };
    let features = features.as_table().ok_or_else(|| shape("features"))?;
    let mut out = Map::new();
    for name in features.keys() {
        out.insert(name.clone(), json!(texts_of(features, name)?));
    }
    Ok(Value::Object(out))
}

/// Every dependency, of all kinds and targets.
fn dependencies(table: &Table) -> Result<Vec<Value>, ManifestError> {
    let mut out = of_tables(table, None)?;
    if let Some(targets) = table.get("target") {
        let targets = targets.as_table().ok_or_else(|| shape("target"))?;
        for (target, tables) in targets {
            let tables = tables.as_table().ok_or_else(|| shape("target"))?;
            out.extend(of_tables(tables, Some(target))?);
        }
    }
    if out.len() > MAX_DEPENDENCIES {
        return Err(shape("number of dependencies"));
    }
    Ok(out)
}

fn of_tables(table: &Table, target: Option<&str>) -> Result<Vec<Value>, ManifestError> {
    let kinds = [
        ("dependencies", "normal"),
        ("dev-dependencies", "dev"),
        ("build-dependencies", "build"),
    ];
    // Older spellings that cargo reads, and no longer writes into a `.crate`.
    for old in ["dev_dependencies", "build_dependencies"] {
        if table.contains_key(old) {
            return Err(shape(old));
        }
    }
    let mut out = Vec::new();
    for (section, kind) in kinds {
        let Some(found) = table.get(section) else {
            continue;
        };
        let found = found.as_table().ok_or_else(|| shape(section))?;
        for (name, value) in found {
            out.push(dependency(name, value, kind, target)?);
        }
    }
    Ok(out)
}

fn dependency(
    key: &str,
    value: &Toml,
    kind: &str,
    target: Option<&str>,
) -> Result<Value, ManifestError> {
    let bad = || ManifestError::Dependency(text::harmless(key));
    let plain;
    let table = match value {
        Toml::String(version) => {
            plain = Table::from_iter([("version".to_owned(), Toml::String(version.clone()))]);
            &plain
        }
        Toml::Table(table) => table,
        _ => return Err(bad()),
    };
    // These would be resolved elsewhere than on a registry; `registry` names one by a name of the
    // publisher's machine, and cargo replaces it by `registry-index`.
    if ["git", "path", "registry", "workspace", "base"]
        .iter()
        .any(|k| table.contains_key(*k))
    {
        return Err(bad());
    }
    let requirement = text_of(table, "version")?.unwrap_or_else(|| "*".to_owned());
    let requirement = VersionReq::parse(&requirement).map_err(|_| bad())?;
    let package = text_of(table, "package")?;
    let name = package.as_deref().unwrap_or(key);
    if !super::is_name(name) {
        return Err(bad());
    }
    Ok(json!({
        "name": name,
        "version_req": requirement.to_string(),
        "features": texts_of(table, "features")?,
        "optional": flag_of(table, "optional")?.unwrap_or(false),
        "default_features": flag_of(table, "default-features")?.unwrap_or(true),
        "target": target,
        "kind": kind,
        "registry": text_of(table, "registry-index")?,
        "explicit_name_in_toml": package.as_ref().map(|_| key),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
[package]
edition = "2024"
name = "acme-left"
version = "1.4.2"
authors = ["A <a@example.org>"]
description = "Pads."
readme = "README.md"
keywords = ["pad"]
categories = ["text-processing"]
license = "MIT"
repository = "https://git.example.org/left"
links = "left"
rust-version = "1.85"

[features]
default = ["std"]
std = ["dep:serde"]

[dependencies.serde]
version = "1.0"
features = ["derive"]
optional = true
default-features = false

[dependencies.other]
version = "=0.2.1"
package = "acme-right"
registry-index = "sparse+https://broker.example/index/"

[dev-dependencies.tempfile]
version = "3"

[build-dependencies]
cc = "1"

[target."cfg(windows)".dependencies.winapi]
version = "0.3"
"#;

    #[test]
    fn the_json_is_what_cargo_makes_of_the_manifest() {
        let manifest = Manifest::read(FULL.as_bytes()).unwrap();
        assert_eq!(manifest.readme.as_deref(), Some("README.md"));
        let json = Value::Object(manifest.metadata);
        assert_eq!(json["name"], "acme-left");
        assert_eq!(
            json["features"],
            json!({"default": ["std"], "std": ["dep:serde"]})
        );
        assert_eq!(json["license_file"], Value::Null);
        assert_eq!(json["links"], "left");
        let deps = json["deps"].as_array().unwrap();
        let find = |name: &str| deps.iter().find(|d| d["name"] == name).unwrap();
        assert_eq!(
            find("serde"),
            &json!({
                "name": "serde", "version_req": "^1.0", "features": ["derive"], "optional": true,
                "default_features": false, "target": null, "kind": "normal", "registry": null,
                "explicit_name_in_toml": null,
            })
        );
        assert_eq!(find("acme-right")["explicit_name_in_toml"], "other");
        assert_eq!(
            find("acme-right")["registry"],
            "sparse+https://broker.example/index/"
        );
        assert_eq!(find("tempfile")["kind"], "dev");
        assert_eq!(find("cc")["version_req"], "^1");
        assert_eq!(find("winapi")["target"], "cfg(windows)");
        assert_eq!(deps.len(), 5);
    }

    #[test]
    fn attack_14_what_cargo_would_read_differently_is_refused() {
        let bend = |from: &str, to: &str| {
            let text = FULL.replacen(from, to, 1);
            assert_ne!(text, FULL, "{from}");
            Manifest::read(text.as_bytes())
        };
        for (from, to) in [
            ("name = \"acme-left\"", "name = \"acme/left\""),
            ("name = \"acme-left\"", "name.workspace = true"),
            ("version = \"1.4.2\"", "version = \"1.4\""),
            (
                "version = \"1.4.2\"",
                "version = \"1.4.2\"\nversion = \"1.4.3\"",
            ),
            (
                "version = \"1.4.2\"",
                "version = \"1.4.2\"\npublish = false",
            ),
            ("version = \"1.4.2\"", "version = \"1.4.2\"\npublish = []"),
            ("cc = \"1\"", "cc = { path = \"../cc\" }"),
            ("cc = \"1\"", "cc = { git = \"https://x.example\" }"),
            (
                "cc = \"1\"",
                "cc = { version = \"1\", registry = \"evil\" }",
            ),
            ("cc = \"1\"", "cc = 1"),
            ("cc = \"1\"", "cc = \"one\""),
            ("cc = \"1\"", "\"../cc\" = \"1\""),
            ("optional = true", "optional = \"yes\""),
            ("[dev-dependencies.tempfile]", "[dev_dependencies.tempfile]"),
            ("[package]", "[project]"),
            ("readme = \"README.md\"", "readme = [\"README.md\"]"),
        ] {
            assert!(bend(from, to).is_err(), "{to}");
        }
        assert!(Manifest::read(b"\xff").is_err());
        assert!(Manifest::read(b"").is_err());
    }
}
