//! What the package pulls in: added, changed, and what comes from elsewhere than the registry.

use super::Case;
use crate::card::{
    Format,
    tree::{Tree, named},
};
use proto::card::{Finding, FindingKind, Risk, shown};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// Name (with its group, where that is not the usual one) to what is wanted of it.
type Wanted = BTreeMap<String, String>;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let now = wanted(case.format, case.now);
    let before = case.before.tree().map(|tree| wanted(case.format, tree));
    let old = |name: &String| before.as_ref().and_then(|b| b.get(name));
    let mut out = Vec::new();
    let mut push = |risk, what: String, why: &str| {
        out.push(Finding {
            kind: FindingKind::Dependencies,
            risk,
            what,
            why: why.to_owned(),
        });
    };
    let line = |(name, spec): (&String, &String)| format!("{name} {spec}");
    let foreign: Vec<_> = now
        .iter()
        .filter(|(name, spec)| elsewhere(spec) && old(name) != Some(spec))
        .map(line)
        .collect();
    if !foreign.is_empty() {
        push(
            Risk::High,
            format!("from elsewhere than a registry: {}", list(&foreign)),
            "What lies at such an address can change after the approval, and nobody watches it.",
        );
    }
    if case.before.is_unknown() && !now.is_empty() {
        let all: Vec<_> = now.iter().map(line).collect();
        push(
            Risk::Medium,
            format!("which of them are new is not known: {}", list(&all)),
            "There was nothing to compare with: any of them may have been added now.",
        );
    }
    // npm obeys it in a published package: it says for each dependency, and theirs, what is installed from where.
    let pins = "npm-shrinkwrap.json";
    if case.format == Format::Npm && case.now.fresh(case.before.tree()).any(|(f, _)| f == pins) {
        push(
            Risk::Medium,
            format!("{pins} is new or changed"),
            "It decides which versions are installed of everything that is pulled in, and from where.",
        );
    }
    // In a first release everything is added: that is no news.
    if let Some(before) = &before {
        let added: Vec<_> = now
            .iter()
            .filter(|(n, _)| !before.contains_key(*n))
            .map(line)
            .collect();
        if !added.is_empty() {
            push(
                Risk::Medium,
                format!("added: {}", list(&added)),
                "Its code, and whatever it pulls in, runs where this package does.",
            );
        }
        let changed: Vec<_> = now
            .iter()
            .filter_map(|(name, spec)| {
                let old = before.get(name).filter(|o| *o != spec)?;
                Some(format!("{name} {old} → {spec}"))
            })
            .collect();
        if !changed.is_empty() {
            push(
                Risk::Low,
                format!("changed: {}", list(&changed)),
                "Other versions of it may now be installed.",
            );
        }
        let gone: Vec<_> = before
            .keys()
            .filter(|n| !now.contains_key(*n))
            .cloned()
            .collect();
        if !gone.is_empty() {
            push(
                Risk::Note,
                format!("no longer needed: {}", list(&gone)),
                "Less is pulled in than before.",
            );
        }
    }
    out
}

fn list(all: &[String]) -> String {
    named(all.iter().map(String::as_str))
}

/// A specification that names a place instead of versions.
fn elsewhere(spec: &str) -> bool {
    let spec = spec.trim();
    ["git", "http:", "https:", "file:", "link:", "github:", "gitlab:", "bitbucket:", "gist:", "@ "]
        .iter()
        .any(|start| spec.starts_with(start))
        || spec.contains("://")
        // npm's short form of a GitHub repository: `owner/name`.
        || (spec.contains('/') && !spec.starts_with("npm:") && !spec.contains(' '))
}

fn wanted(format: Format, tree: &Tree) -> Wanted {
    match format {
        Format::Npm => npm(tree.text("package.json").unwrap_or_default()),
        Format::Sdist => sdist(tree),
        Format::Wheel => python(tree.text(".dist-info/METADATA").unwrap_or_default()),
        Format::Crate => cargo(tree.text("Cargo.toml").unwrap_or_default()),
        Format::Gem => gem(tree.text("metadata").unwrap_or_default()),
    }
}

fn npm(text: &str) -> Wanted {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let mut out = Wanted::new();
    for (group, after) in [
        ("dependencies", ""),
        ("optionalDependencies", " (optional)"),
        ("peerDependencies", " (peer)"),
    ] {
        for (name, spec) in json
            .get(group)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let spec = spec
                .as_str()
                .map_or_else(|| spec.to_string(), str::to_owned);
            // `npm:other@1` is another package under this name: a changed target is a new dependency.
            let target = spec.strip_prefix("npm:").map(|t| match t.rfind('@') {
                Some(at) if at > 0 => t.get(..at).unwrap_or(t),
                _ => t,
            });
            let is = target.map_or_else(String::new, |t| format!(" (is {})", shown(t)));
            add(&mut out, format!("{}{is}{after}", shown(name)), spec);
        }
    }
    out
}

/// One name may be wanted several times, and installers obey every line: none may hide behind another.
fn add(out: &mut Wanted, name: String, spec: String) {
    match out.entry(name) {
        Entry::Vacant(place) => {
            place.insert(spec);
        }
        Entry::Occupied(mut known) => known.get_mut().extend([" and ", &spec]),
    }
}

/// Header lines, unfolded: what goes on behind a line break belongs to the line before (RFC 5322 §2.2.3).
fn unfolded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Both that its metadata says and that its sources say: an installer makes the metadata anew from them.
fn sdist(tree: &Tree) -> Wanted {
    let document: toml::Table = (tree.text("pyproject.toml").unwrap_or_default())
        .parse()
        .unwrap_or_default();
    let project = document.get("project");
    let plain = project.and_then(|p| p.get("dependencies")?.as_array());
    let extras = project.and_then(|p| p.get("optional-dependencies")?.as_table());
    let line = |after: &str, spec: &toml::Value| {
        let spec = spec.as_str()?.replace(['\r', '\n'], " ");
        Some(format!("Requires-Dist: {spec}{after}\n"))
    };
    let plain = plain
        .into_iter()
        .flatten()
        .filter_map(|spec| line("", spec));
    let extras = extras.into_iter().flatten().flat_map(|(extra, specs)| {
        let after = format!(" ; extra == '{}'", shown(extra));
        let specs = specs.as_array().into_iter().flatten();
        specs
            .filter_map(move |spec| line(&after, spec))
            .collect::<Vec<_>>()
    });
    let mut out = python(tree.text("PKG-INFO").unwrap_or_default());
    let stated: BTreeSet<_> = out
        .iter()
        .map(|(name, spec)| (tight(name), tight(spec)))
        .collect();
    for (name, spec) in python(&plain.chain(extras).collect::<String>()) {
        if !stated.contains(&(tight(&name), tight(&spec))) {
            add(&mut out, format!("{name} (by pyproject.toml)"), spec);
        }
    }
    out
}

/// A specification as it is compared: however it is spaced, put in brackets, quoted and ordered.
fn tight(spec: &str) -> String {
    let plain = spec
        .replace('"', "'")
        .replace([' ', '(', ')'], "")
        .to_lowercase();
    let mut parts: Vec<_> = plain.split(',').collect();
    parts.sort_unstable();
    parts.join(",").replace(['_', '.'], "-")
}

/// `Requires-Dist: name[extra] (>=1); marker` in the headers of core metadata.
fn python(text: &str) -> Wanted {
    let headers = unfolded(text);
    let wanted = headers.iter().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("requires-dist")
            .then(|| value.trim())
    });
    let mut out = Wanted::new();
    for one in wanted {
        let end = one.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
        let (name, rest) = one
            .split_at_checked(end.unwrap_or(one.len()))
            .unwrap_or((one, ""));
        let (spec, marker) = rest.split_once(';').unwrap_or((rest, ""));
        let after = if marker.contains("extra ==") || marker.contains("extra==") {
            format!(" (optional; {})", marker.trim())
        } else {
            String::new()
        };
        add(
            &mut out,
            format!("{}{}", shown(name), shown(&after)),
            spec.trim().to_owned(),
        );
    }
    out
}

fn cargo(text: &str) -> Wanted {
    let manifest: toml::Table = text.parse().unwrap_or_default();
    let mut out = Wanted::new();
    let mut tables = vec![(String::new(), &manifest)];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    for (target, table) in targets.into_iter().flatten() {
        tables.extend(
            table
                .as_table()
                .map(|t| (format!(" on {}", shown(target)), t)),
        );
    }
    for (on, table) in tables {
        for (group, after) in [
            ("dependencies", ""),
            ("build-dependencies", " (when built)"),
        ] {
            let group = table.get(group).and_then(toml::Value::as_table);
            for (name, spec) in group.into_iter().flatten() {
                let version = spec.get("version").unwrap_or(spec);
                let version = version
                    .as_str()
                    .map_or_else(|| spec.to_string(), str::to_owned);
                let package = spec.get("package").and_then(toml::Value::as_str);
                let named = package.map_or_else(String::new, |p| format!(" (is {})", shown(p)));
                out.insert(format!("{}{named}{after}{on}", shown(name)), version);
            }
        }
    }
    out
}

/// The list of `dependencies` in a gem's metadata, as Ruby writes it.
fn gem(text: &str) -> Wanted {
    let mut lines = text.lines().skip_while(|l| !l.starts_with("dependencies"));
    let head = lines.next().unwrap_or_default();
    let lines = lines.take_while(|l| l.starts_with([' ', '-']));
    let mut out = Wanted::new();
    if !["", "dependencies:", "dependencies: []"].contains(&head) {
        // Not as Ruby writes it: whoever reads YAML may see more there.
        out.insert(shown(head), String::new());
    }
    let mut name = None;
    for line in lines {
        if let Some(is) = line.strip_prefix("  name: ") {
            name = Some(shown(is.trim()));
            out.entry(shown(is.trim())).or_default();
        } else if let (Some(name), Some(version)) = (&name, line.trim().strip_prefix("version: ")) {
            let spec = out.entry(name.clone()).or_default();
            if !spec.is_empty() {
                spec.push(' ');
            }
            spec.push_str(version.trim_matches('\''));
        }
    }
    out
}
