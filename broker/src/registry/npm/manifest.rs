//! Compares the manifest in the request with the package.json in the archive.
//!
//! The registry answers installs from the manifest, and the machine runs the archive ("manifest
//! confusion"): a difference in what is run or fetched would show the approver one package and
//! install another (attacks 13, 14). What npm itself changes between the two is allowed, and only that.

use super::tarball::Inside;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Scripts that run when the package is installed from a registry.
pub(super) const INSTALL_SCRIPTS: [&str; 3] = ["preinstall", "install", "postinstall"];
/// What npm adds for a native package without an install script of its own.
const GYP_SCRIPT: &str = "node-gyp rebuild";

/// The field in which manifest and package.json differ.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the request's manifest and the archive's package.json differ in '{0}'")]
pub struct Disagreement(pub &'static str);

/// Fields that clients pass on unchanged.
const JUDGED: [&str; 6] = [
    "deprecated",
    "os",
    "cpu",
    "libc",
    "engines",
    "peerDependenciesMeta",
];

/// Fields in which a manifest must agree with the archive, and keeps its client's form; `scripts` is another matter.
pub(super) const AGREED: [&str; 13] = [
    "name",
    "version",
    "dependencies",
    "optionalDependencies",
    "peerDependencies",
    "bundleDependencies",
    "bin",
    "deprecated",
    "os",
    "cpu",
    "libc",
    "engines",
    "peerDependenciesMeta",
];

type Texts = BTreeMap<String, String>;

/// Whether both describe the same package.
pub(super) fn agree(manifest: &Map<String, Value>, inside: &Inside) -> Result<(), Disagreement> {
    let inner = &inside.package_json;
    for field in ["name", "version"] {
        let outer = manifest.get(field).and_then(Value::as_str);
        if outer.is_none() || outer != inner.get(field).and_then(Value::as_str) {
            return Err(Disagreement(field));
        }
    }
    for field in ["dependencies", "optionalDependencies", "peerDependencies"] {
        same(
            field,
            dependencies(manifest, field),
            dependencies(inner, field),
        )?;
    }
    // What decides where and how it is installed, and whether it is (npm's `deprecated` on a version
    // tells everybody to use something else): none of it may say more than the archive does.
    for field in JUDGED {
        let value = |map: &Map<String, Value>| map.get(field).filter(|v| !v.is_null()).cloned();
        if value(manifest) != value(inner) {
            return Err(Disagreement(field));
        }
    }
    same("bundleDependencies", bundled(manifest), bundled(inner))?;
    let mut scripts = install_scripts(inner);
    let outer = install_scripts(manifest);
    if let Some(s) = scripts.as_mut()
        && inside.gyp
        && !s.contains_key("install")
        && !s.contains_key("preinstall")
        && inner.get("gypfile") != Some(&Value::Bool(false))
        && outer.as_ref().is_some_and(|o| o.contains_key("install"))
    {
        s.insert("install".to_owned(), GYP_SCRIPT.to_owned());
    }
    same("scripts", outer, scripts)?;
    bins(manifest, inner)
}

/// The install scripts that a manifest names.
pub(super) fn named_install_scripts(manifest: &Map<String, Value>) -> Vec<&'static str> {
    let scripts = install_scripts(manifest).unwrap_or_default();
    INSTALL_SCRIPTS
        .into_iter()
        .filter(|s| scripts.contains_key(*s))
        .collect()
}

/// Both must be understood and equal.
fn same<T: PartialEq>(field: &'static str, a: Option<T>, b: Option<T>) -> Result<(), Disagreement> {
    match (a, b) {
        (Some(a), Some(b)) if a == b => Ok(()),
        _ => Err(Disagreement(field)),
    }
}

/// An object of strings; absent and null are empty; anything else is not understood.
fn texts(map: &Map<String, Value>, field: &str) -> Option<Texts> {
    match map.get(field) {
        None | Some(Value::Null) => Some(Texts::new()),
        Some(Value::Object(o)) => o
            .iter()
            .map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect(),
        Some(_) => None,
    }
}

/// Optional dependencies win over others of the same name; some clients write them into both.
fn dependencies(map: &Map<String, Value>, field: &str) -> Option<Texts> {
    let mut all = texts(map, field)?;
    if field == "dependencies" {
        let optional = texts(map, "optionalDependencies")?;
        all.retain(|name, _| !optional.contains_key(name));
    }
    Some(all)
}

/// Dependencies whose files lie in the archive: nobody fetches them. Two spellings; `true` is all of them.
fn bundled(map: &Map<String, Value>) -> Option<BTreeSet<String>> {
    let named = ["bundleDependencies", "bundledDependencies"].map(|n| map.get(n));
    match named.into_iter().flatten().find(|v| !v.is_null()) {
        None | Some(Value::Bool(false)) => Some(BTreeSet::new()),
        Some(Value::Bool(true)) => Some(texts(map, "dependencies")?.into_keys().collect()),
        Some(Value::Object(o)) => Some(o.keys().cloned().collect()),
        Some(Value::Array(a)) => {
            let names = a.iter().map(|v| v.as_str().map(str::to_owned));
            names.collect()
        }
        Some(_) => None,
    }
}

/// npm cuts a leading `node_modules/.bin/` off, since scripts find it anyway.
fn install_scripts(map: &Map<String, Value>) -> Option<Texts> {
    let scripts = match map.get("scripts") {
        None | Some(Value::Null) => return Some(Texts::new()),
        Some(Value::Object(o)) => o,
        Some(_) => return None,
    };
    let mut out = Texts::new();
    for name in INSTALL_SCRIPTS {
        match scripts.get(name) {
            None => {}
            Some(Value::String(s)) => {
                let s = s.strip_prefix("./").unwrap_or(s);
                let s = s.strip_prefix("node_modules/.bin/").unwrap_or(s);
                out.insert(name.to_owned(), s.to_owned());
            }
            Some(_) => return None,
        }
    }
    Some(out)
}

fn bins(manifest: &Map<String, Value>, inner: &Map<String, Value>) -> Result<(), Disagreement> {
    let outer = bin(manifest);
    let directory = inner
        .get("directories")
        .and_then(|d| d.get("bin"))
        .and_then(Value::as_str);
    match (outer, bin(inner), directory) {
        // npm lists the files of `directories.bin` in the manifest by their names.
        (Some(outer), Some(inner), Some(directory)) if inner.is_empty() => {
            let directory = normal(directory);
            let listed = |(name, path): (&String, &String)| {
                let file = path
                    .strip_prefix(&directory)
                    .and_then(|p| p.strip_prefix('/'));
                file.is_some_and(|f| f.rsplit('/').next() == Some(name.as_str()))
            };
            outer
                .iter()
                .all(listed)
                .then_some(())
                .ok_or(Disagreement("bin"))
        }
        (outer, inner, _) => same("bin", outer, inner),
    }
}

/// Commands and their files; a single string stands for the package's own name.
fn bin(map: &Map<String, Value>) -> Option<Texts> {
    let all = match map.get("bin") {
        Some(Value::String(path)) => {
            let name = map.get("name").and_then(Value::as_str)?;
            Texts::from([(name.to_owned(), path.clone())])
        }
        _ => texts(map, "bin")?,
    };
    let count = all.len();
    let out: Texts = all
        .into_iter()
        .map(|(name, path)| {
            let name = name.rsplit('/').next().unwrap_or_default();
            (name.to_owned(), normal(&path))
        })
        .collect();
    // Two names that become one are ambiguous.
    (out.len() == count).then_some(out)
}

/// A path as npm writes it: relative, without `.` and `..`.
fn normal(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(outer: Value, inner: Value, gyp: bool) -> Result<(), Disagreement> {
        let object = |v: Value, name: &str, version: &str| {
            let mut map = v.as_object().unwrap().clone();
            map.entry("name").or_insert(json!(name));
            map.entry("version").or_insert(json!(version));
            map
        };
        let inside = Inside {
            package_json: object(inner, "@a/left", "1.0.0"),
            gyp,
            shrinkwrap: false,
            entries: 1,
            unpacked: 1,
        };
        agree(&object(outer, "@a/left", "1.0.0"), &inside)
    }

    #[test]
    fn what_npm_itself_changes_is_allowed() {
        for (outer, inner) in [
            (
                json!({"bin": {"left": "cli.js"}}),
                json!({"bin": "./cli.js"}),
            ),
            (
                json!({"bin": {"l": "bin/p.js"}}),
                json!({"bin": {"l": "./bin/p.js"}}),
            ),
            (
                json!({"bin": {"p": "tools/p"}}),
                json!({"directories": {"bin": "./tools"}}),
            ),
            (
                json!({"scripts": {"install": "x"}}),
                json!({"scripts": {"install": "node_modules/.bin/x", "prepack": "y"}}),
            ),
            (
                json!({"optionalDependencies": {"f": "1"}}),
                json!({"dependencies": {"f": "1"}, "optionalDependencies": {"f": "1"}}),
            ),
            (json!({"dependencies": {}}), json!({})),
            (
                json!({"dependencies": {"d": "1"}, "bundleDependencies": ["d"]}),
                json!({"dependencies": {"d": "1"}, "bundledDependencies": true}),
            ),
        ] {
            assert_eq!(check(outer.clone(), inner, false), Ok(()), "{outer}");
        }
        let gyp = json!({"scripts": {"install": "node-gyp rebuild"}, "gypfile": true});
        assert_eq!(check(gyp.clone(), json!({}), true), Ok(()));
        assert!(check(gyp, json!({}), false).is_err());
    }

    #[test]
    fn attack_13_and_14_a_manifest_that_is_not_the_archives_is_refused() {
        for (outer, inner, field) in [
            (json!({"name": "@a/right"}), json!({}), "name"),
            (json!({}), json!({"version": "2.0.0"}), "version"),
            (json!({}), json!({"version": "v1.0.0"}), "version"),
            (
                json!({}),
                json!({"scripts": {"postinstall": "evil"}}),
                "scripts",
            ),
            (
                json!({"scripts": {"postinstall": "evil"}}),
                json!({}),
                "scripts",
            ),
            (
                json!({"scripts": {"install": "a"}}),
                json!({"scripts": {"install": "b"}}),
                "scripts",
            ),
            (
                json!({"dependencies": {"e": "1"}}),
                json!({}),
                "dependencies",
            ),
            (
                json!({}),
                json!({"dependencies": {"e": "1"}}),
                "dependencies",
            ),
            (
                json!({"dependencies": {"e": "1"}}),
                json!({"dependencies": {"e": "2"}}),
                "dependencies",
            ),
            (
                json!({"dependencies": ["e"]}),
                json!({"dependencies": ["e"]}),
                "dependencies",
            ),
            (
                json!({}),
                json!({"optionalDependencies": {"e": "1"}}),
                "optionalDependencies",
            ),
            (
                json!({}),
                json!({"peerDependencies": {"e": "1"}}),
                "peerDependencies",
            ),
            (
                json!({"bundleDependencies": ["e"]}),
                json!({}),
                "bundleDependencies",
            ),
            (
                json!({"bundledDependencies": false}),
                json!({"bundleDependencies": ["e"]}),
                "bundleDependencies",
            ),
            (json!({"bin": {"ls": "x"}}), json!({}), "bin"),
            (
                json!({"bin": {"ls": "x"}}),
                json!({"bin": {"ls": "y"}}),
                "bin",
            ),
            (
                json!({"bin": {"ls": "lib/x"}}),
                json!({"directories": {"bin": "tools"}}),
                "bin",
            ),
            (
                json!({"bin": {"ls": "tools/x"}}),
                json!({"directories": {"bin": "tools"}}),
                "bin",
            ),
        ] {
            assert_eq!(
                check(outer.clone(), inner.clone(), false),
                Err(Disagreement(field)),
                "{outer} {inner}"
            );
        }
    }
}
