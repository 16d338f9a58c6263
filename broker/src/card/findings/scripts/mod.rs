//! Code that runs on other people's machines when the package is installed or built: new, changed, or as it was.

mod command;
mod follow;

use super::Case;
use crate::card::{
    Format,
    tree::{Tree, named},
};
use command::{Commands, script_text};
use follow::{Followed, Texts, join};
use proto::card::{Finding, FindingKind, Risk, shown};
use serde_json::Value;
use std::collections::BTreeMap;

const WHY: &str = "It runs on every machine that installs or builds the package, with that person's rights: it is \
     the usual way in which a package is poisoned.";
const WHY_SAME: &str = "It ran in the previous version too, with the same bytes.";

const WHY_LOST: &str = "Its text is the same, but what it runs lies elsewhere or is chosen while it runs: it may be \
     something else now.";

/// What `node-gyp` builds, or is told by.
const NATIVE: [&str; 12] = [
    ".gyp", ".gypi", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".m", ".mm", ".S", ".asm",
];
/// Scripts that npm runs when a package is installed from a registry.
const NPM: [&str; 3] = ["preinstall", "install", "postinstall"];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let tree = case.before.tree();
    let now = Texts {
        tree: case.now,
        other: tree,
    };
    let now = hooks(case.format, now);
    let before = tree.map(|tree| Texts {
        tree,
        other: Some(case.now),
    });
    let before = before.map(|texts| hooks(case.format, texts));
    let mut out = Vec::new();
    let mut same = Vec::new();
    for (name, hook) in &now {
        let text = shown(&hook.text);
        let old = before.as_ref().map(|b| b.get(name));
        let what = match old {
            None if case.before.is_first() => format!("{name}: {text}"),
            None => format!("{name}, and whether it is new is not known: {text}"),
            Some(None) => format!("{name} is new: {text}"),
            Some(Some(old)) if old.text != hook.text => {
                format!("{name} changed from “{}” to “{text}”", shown(&old.text))
            }
            Some(Some(old)) => {
                // What ran before and is gone is a change, too.
                let files = hook.runs.files.union(&old.runs.files);
                let changed: Vec<_> = files.filter(|f| differs(case, f)).collect();
                if !changed.is_empty() {
                    let files = named(changed.into_iter().map(String::as_str));
                    format!("{name} is as before, but what it runs changed: {files}")
                } else if hook.runs.lost.is_empty() {
                    same.push(name.as_str());
                    continue;
                } else {
                    let lost = named(hook.runs.lost.iter().map(String::as_str));
                    let what =
                        format!("{name} is as before; what it runs could not be followed: {lost}");
                    out.push(finding(Risk::Medium, what, WHY_LOST));
                    continue;
                }
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
    /// Files of the archive that it runs.
    runs: Followed,
}

impl Hook {
    /// One that runs a file, and what that file names.
    fn of(texts: Texts<'_>, name: &str) -> Self {
        let mut runs = Followed::default();
        runs.file(texts, name);
        Self {
            text: format!("runs {name}"),
            runs,
        }
    }

    /// One that runs these files, whatever they name.
    fn these(text: String, files: impl IntoIterator<Item = String>) -> Self {
        let runs = Followed {
            files: files.into_iter().collect(),
            ..Followed::default()
        };
        Self { text, runs }
    }
}

fn hooks(format: Format, texts: Texts<'_>) -> BTreeMap<String, Hook> {
    match format {
        Format::Npm => npm(texts),
        Format::Sdist => sdist(texts),
        Format::Wheel => wheel(texts),
        Format::Crate => cargo(texts),
        Format::Gem => gem(texts),
    }
}

fn npm(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let json = texts.tree.text("package.json").unwrap_or_default();
    let json: Value = serde_json::from_str(json).unwrap_or_default();
    let scripts = json.get("scripts");
    for name in NPM {
        if let Some(script) = scripts.and_then(|s| s.get(name)) {
            let mut text = script_text(script);
            let mut commands = Commands::new(texts, scripts);
            commands.line(&text);
            for (name, script) in &commands.runs {
                text = format!("{text} [{name}: {script}]");
            }
            let runs = commands.followed;
            out.insert(name.to_owned(), Hook { text, runs });
        }
    }
    let gyp = |f: &&String| !f.contains('/') && ends(f, ".gyp");
    if !texts.tree.files.keys().any(|f| gyp(&f)) {
        return out;
    }
    let own = out.contains_key("install") || out.contains_key("preinstall");
    if !own && json.get("gypfile") != Some(&Value::Bool(false)) {
        let text = "node-gyp rebuild (npm adds it for a package with a .gyp file)".to_owned();
        out.insert("install".to_owned(), Hook::these(text, []));
    }
    // Whatever a hook is called, it can be what builds them.
    let built = |f: &&String| NATIVE.iter().any(|end| ends(f, end));
    for hook in out.values_mut() {
        for file in texts.tree.files.keys().filter(built) {
            hook.runs.files.insert(file.clone());
        }
        for file in texts.tree.files.keys().filter(gyp) {
            // Its text names what it builds, and scripts that it runs meanwhile.
            hook.runs.files.remove(file);
            hook.runs.file(texts, file);
        }
    }
    out
}

/// A source distribution is built by its own code: `setup.py`, or the backend that `pyproject.toml` names.
fn sdist(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let tree = texts.tree;
    let mut out = BTreeMap::new();
    if texts.has("setup.py") {
        out.insert("setup.py".to_owned(), Hook::of(texts, "setup.py"));
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
        let files = tree.files.keys().filter(|f| backend_file(system, f));
        let hook = Hook::these(text, files.cloned());
        out.insert("build backend".to_owned(), hook);
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
fn wheel(texts: Texts<'_>) -> BTreeMap<String, Hook> {
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
    let hook = |name: &String| {
        // Commands run when somebody calls them; what Python starts with runs always, and all that it imports.
        if name.starts_with(".data/scripts/") || name.starts_with(".data/data/") {
            Hook::these(format!("runs {name}"), [name.clone()])
        } else {
            Hook::of(texts, name)
        }
    };
    let names = texts.tree.files.keys().filter(|name| runs(name));
    names.map(|name| (shown(name), hook(name))).collect()
}

fn cargo(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let text = texts.tree.text("Cargo.toml").unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_default();
    let build = manifest.get("package").and_then(|p| p.get("build"));
    let script = match build {
        Some(toml::Value::Boolean(false)) => None,
        Some(toml::Value::String(path)) => join("", path),
        _ => texts.has("build.rs").then(|| "build.rs".to_owned()),
    };
    if let Some(script) = script {
        let mut hook = Hook::of(texts, &script);
        if !texts.has(&script) {
            hook.runs.lost.insert(script);
        }
        out.insert("build script".to_owned(), hook);
    }
    let lib = manifest.get("lib");
    let flag = |key| lib.and_then(|l| l.get(key)).and_then(toml::Value::as_bool);
    if flag("proc-macro").or(flag("proc_macro")) == Some(true) {
        let sources = texts.tree.files.keys().filter(|f| f.starts_with("src/"));
        let text = "the crate is a procedural macro".to_owned();
        out.insert("macro".to_owned(), Hook::these(text, sources.cloned()));
    }
    out
}

fn gem(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    // The list of `extensions` in the metadata, at the margin as Ruby writes it.
    let metadata = texts.tree.text("metadata").unwrap_or_default();
    let lines = metadata.lines().skip_while(|l| *l != "extensions:").skip(1);
    let listed = lines.map_while(|line| line.trim_start().strip_prefix("- "));
    let hook = |name: String| {
        let mut hook = Hook::of(texts, &name);
        // Its makefile builds what lies beside it.
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = |f: &&String| f.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
        let files = texts.tree.files.keys().filter(beside);
        let native = files.filter(|f| NATIVE.iter().any(|end| ends(f, end)));
        hook.runs.files.extend(native.cloned());
        (format!("extension {}", shown(&name)), hook)
    };
    listed
        .map(|name| name.trim_matches(['"', '\'']).to_owned())
        .map(hook)
        .collect()
}

/// As the tools compare that run it: the case counts.
fn ends(name: &str, with: &str) -> bool {
    name.ends_with(with)
}

/// Whether a file has other bytes than before; one that was not there, or is gone, has.
fn differs(case: &Case<'_>, name: &str) -> bool {
    let digest = |tree: &Tree| tree.files.get(name).map(|leaf| leaf.digest);
    let before = case.before.tree();
    before.is_none_or(|before| digest(before) != digest(case.now))
}
