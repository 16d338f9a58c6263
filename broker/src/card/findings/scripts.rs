//! Code that runs on other people's machines when the package is installed or built: new, changed, or as it was.

use super::Case;
use crate::card::{
    Format,
    tree::{Tree, named},
};
use proto::card::{Finding, FindingKind, Risk, shown};
use serde_json::Value;
use std::collections::BTreeMap;

const WHY: &str = "It runs on every machine that installs or builds the package, with that person's rights: it is \
     the usual way in which a package is poisoned.";
const WHY_SAME: &str = "It ran in the previous version too, with the same bytes.";

/// Scripts that npm runs when a package is installed from a registry.
const NPM: [&str; 3] = ["preinstall", "install", "postinstall"];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let now = hooks(case.format, case.now);
    let before = case.before.map(|tree| hooks(case.format, tree));
    let mut out = Vec::new();
    let mut same = Vec::new();
    for (name, hook) in &now {
        let old = before.as_ref().and_then(|b| b.get(name));
        let what = match old {
            None if case.before.is_some() => format!("{name} is new: {}", shown(&hook.text)),
            None => format!("{name}: {}", shown(&hook.text)),
            Some(old) if old.text != hook.text => format!(
                "{name} changed from “{}” to “{}”",
                shown(&old.text),
                shown(&hook.text)
            ),
            Some(_) => {
                let changed: Vec<_> = hook.files.iter().filter(|f| differs(case, f)).collect();
                if changed.is_empty() {
                    same.push(name.as_str());
                    continue;
                }
                let files = named(changed.into_iter().map(String::as_str));
                format!("{name} is as before, but what it runs changed: {files}")
            }
        };
        out.push(finding(Risk::High, what, WHY));
    }
    if !same.is_empty() {
        let what = format!("as before: {}", named(same));
        out.push(finding(Risk::Note, what, WHY_SAME));
    }
    out
}

fn finding(risk: Risk, what: String, why: &str) -> Finding {
    Finding {
        kind: FindingKind::InstallScripts,
        risk,
        what,
        why: why.to_owned(),
    }
}

/// Something that runs.
struct Hook {
    /// How it is written.
    text: String,
    /// Files of the archive that it names.
    files: Vec<String>,
}

fn hooks(format: Format, tree: &Tree) -> BTreeMap<String, Hook> {
    match format {
        Format::Npm => npm(tree),
        Format::Sdist => sdist(tree),
        Format::Wheel => wheel(tree),
        Format::Crate => cargo(tree),
        Format::Gem => gem(tree),
    }
}

fn npm(tree: &Tree) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let json = tree.text("package.json").unwrap_or_default();
    let json: Value = serde_json::from_str(json).unwrap_or_default();
    let scripts = json.get("scripts");
    for name in NPM {
        if let Some(script) = scripts.and_then(|s| s.get(name)) {
            let text = script
                .as_str()
                .map_or_else(|| script.to_string(), str::to_owned);
            let files = files_named(tree, &text);
            out.insert(name.to_owned(), Hook { text, files });
        }
    }
    let gyp: Vec<String> = tree
        .files
        .keys()
        .filter(|f| !f.contains('/') && ends(f, ".gyp"))
        .cloned()
        .collect();
    let own = out.contains_key("install") || out.contains_key("preinstall");
    if !gyp.is_empty() && !own && json.get("gypfile") != Some(&Value::Bool(false)) {
        let text = "node-gyp rebuild (npm adds it for a package with a .gyp file)".to_owned();
        out.insert("install".to_owned(), Hook { text, files: gyp });
    }
    out
}

/// A source distribution is built by its own code: `setup.py`, or the backend that `pyproject.toml` names.
fn sdist(tree: &Tree) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    if tree.files.contains_key("setup.py") {
        out.insert("setup.py".to_owned(), file_hook("setup.py"));
    }
    let text = tree.text("pyproject.toml").unwrap_or_default();
    let document: toml::Table = text.parse().unwrap_or_default();
    if let Some(system) = document.get("build-system") {
        let text = [
            ("build-backend", ""),
            ("backend-path", " in "),
            ("requires", ", after "),
        ]
        .iter()
        .filter_map(|(key, before)| Some(format!("{before}{}", system.get(key)?)))
        .collect::<String>();
        let files = tree
            .files
            .keys()
            .filter(|f| backend_file(system, f))
            .cloned()
            .collect();
        out.insert("build backend".to_owned(), Hook { text, files });
    }
    out
}

/// Whether a file belongs to a backend that lies in the archive itself.
fn backend_file(system: &toml::Value, file: &str) -> bool {
    let paths = system.get("backend-path").and_then(toml::Value::as_array);
    paths
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .any(|path| {
            let path = path.trim_start_matches("./").trim_end_matches('/');
            path.is_empty()
                || path == "."
                || file
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
}

/// A wheel runs nothing when it is installed; but `.pth` files run at each start of Python, and scripts
/// become commands.
fn wheel(tree: &Tree) -> BTreeMap<String, Hook> {
    let runs = |name: &str| {
        let data = name
            .strip_prefix(".data/purelib/")
            .or(name.strip_prefix(".data/platlib/"));
        let at_root = data.unwrap_or(name);
        (!at_root.contains('/')
            && (ends(at_root, ".pth")
                || at_root == "sitecustomize.py"
                || at_root == "usercustomize.py"))
            || name.starts_with(".data/scripts/")
            || name.starts_with(".data/data/")
    };
    let names = tree.files.keys().filter(|name| runs(name));
    names.map(|name| (shown(name), file_hook(name))).collect()
}

fn cargo(tree: &Tree) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let text = tree.text("Cargo.toml").unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_default();
    let build = manifest.get("package").and_then(|p| p.get("build"));
    let script = match build {
        Some(toml::Value::Boolean(false)) => None,
        Some(toml::Value::String(path)) => Some(path.as_str()),
        _ => tree.files.contains_key("build.rs").then_some("build.rs"),
    };
    if let Some(script) = script {
        out.insert("build script".to_owned(), file_hook(script));
    }
    let lib = manifest.get("lib");
    let flag = |key| lib.and_then(|l| l.get(key)).and_then(toml::Value::as_bool);
    if flag("proc-macro").or(flag("proc_macro")) == Some(true) {
        let sources = tree.files.keys().filter(|f| f.starts_with("src/"));
        let text = "the crate is a procedural macro".to_owned();
        let files = sources.cloned().collect();
        out.insert("macro".to_owned(), Hook { text, files });
    }
    out
}

fn gem(tree: &Tree) -> BTreeMap<String, Hook> {
    // The list of `extensions` in the metadata, at the margin as Ruby writes it.
    let metadata = tree.text("metadata").unwrap_or_default();
    let lines = metadata.lines().skip_while(|l| *l != "extensions:").skip(1);
    let listed = lines.map_while(|line| line.trim_start().strip_prefix("- "));
    listed
        .map(|name| name.trim_matches(['"', '\'']).to_owned())
        .map(|name| (format!("extension {}", shown(&name)), file_hook(&name)))
        .collect()
}

/// As the tools compare that run it: the case counts.
fn ends(name: &str, with: &str) -> bool {
    name.ends_with(with)
}

fn file_hook(name: &str) -> Hook {
    Hook {
        text: format!("runs {name}"),
        files: vec![name.to_owned()],
    }
}

/// The files of the archive that a command names: `node scripts/build` runs `scripts/build.js`.
fn files_named(tree: &Tree, command: &str) -> Vec<String> {
    let words = command.split(|c: char| c.is_whitespace() || "\"'`;&|()=".contains(c));
    let mut out: Vec<String> = words
        .map(|word| word.trim_start_matches("./"))
        .filter(|word| !word.is_empty())
        .flat_map(|word| ["", ".js", ".cjs", ".mjs", "/index.js"].map(|end| format!("{word}{end}")))
        .filter(|name| tree.files.contains_key(name))
        .collect();
    out.sort();
    out.dedup();
    out
}

/// Whether a file has other bytes than before; one that was not there has.
fn differs(case: &Case<'_>, name: &str) -> bool {
    let digest = |tree: &Tree| tree.files.get(name).map(|leaf| leaf.digest);
    case.before
        .is_none_or(|before| digest(before) != digest(case.now))
}
