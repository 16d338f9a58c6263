//! The archive contradicts the request, or itself. The adapters refuse the same before anything is sent; here it
//! is told before anybody approves.

use super::Case;
use crate::card::{
    Format,
    tree::{Tree, named},
};
use pep440_rs::Version as Pep440;
use proto::{
    card::{Finding, FindingKind, Risk, shown},
    distribution::project_name,
};
use serde_json::Value;
use std::{collections::BTreeSet, str::FromStr as _};

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    match stated(case.format, case.now) {
        None => out.push(finding(
            "the archive does not say which package and version it is".to_owned(),
            "The registry refuses such an archive, or shows another name than the one that is approved.",
        )),
        Some((name, version)) if !same(case, &name, &version) => out.push(finding(
            format!("the archive says that it is {} {}", shown(&name), shown(&version)),
            "What is inside is not what is asked for: it will be refused when it is published.",
        )),
        Some(_) => {}
    }
    if case.format == Format::Npm {
        let fresh = case.now.fresh(case.before.tree());
        let packages: BTreeSet<_> = fresh.filter_map(|(file, _)| bundled(file)).collect();
        if !packages.is_empty() {
            out.push(Finding {
                risk: Risk::Medium,
                ..finding(
                    format!("packages lie in the archive itself, new or changed: {}", named(packages)),
                    "Copies inside are installed as they are, whatever the registry says about those packages.",
                )
            });
        }
    }
    out
}

/// The package that a file belongs to which was put into the archive: `node_modules/a`, `node_modules/@a/b`.
fn bundled(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("node_modules/")?;
    let mut slashes = inside.match_indices('/').map(|(at, _)| at);
    let end = slashes.nth(usize::from(inside.starts_with('@')))?;
    inside.get(..end)
}

fn finding(what: String, why: &str) -> Finding {
    Finding {
        kind: FindingKind::Manifest,
        risk: Risk::Critical,
        what,
        why: why.to_owned(),
    }
}

/// Name and version as the archive says.
fn stated(format: Format, tree: &Tree) -> Option<(String, String)> {
    match format {
        Format::Npm => {
            let json: Value = serde_json::from_str(tree.text("package.json")?).ok()?;
            let text = |key| Some(json.get(key)?.as_str()?.to_owned());
            Some((text("name")?, text("version")?))
        }
        Format::Sdist => headers(tree.text("PKG-INFO")?),
        Format::Wheel => headers(tree.text(".dist-info/METADATA")?),
        Format::Crate => {
            let manifest: toml::Table = tree.text("Cargo.toml")?.parse().ok()?;
            let package = manifest.get("package")?;
            let text = |key| Some(package.get(key)?.as_str()?.to_owned());
            Some((text("name")?, text("version")?))
        }
        Format::Gem => {
            let gem = proto::gem::Gem::read(tree.text("metadata")?).ok()?;
            Some((gem.name.to_string(), gem.version.to_string()))
        }
    }
}

fn headers(text: &str) -> Option<(String, String)> {
    let value = |key: &str| {
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| {
            let (k, v) = line.split_once(':')?;
            k.eq_ignore_ascii_case(key).then(|| v.trim().to_owned())
        })
    };
    Some((value("name")?, value("version")?))
}

fn same(case: &Case<'_>, name: &str, version: &str) -> bool {
    match case.format {
        Format::Sdist | Format::Wheel => {
            let version = Pep440::from_str(version).ok();
            project_name(name).as_deref() == Some(case.package)
                && version.is_some()
                && version == Pep440::from_str(case.version).ok()
        }
        Format::Npm | Format::Crate | Format::Gem => {
            name == case.package && version == case.version
        }
    }
}
