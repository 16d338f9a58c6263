//! Code that runs on other people's machines when the package is installed or built: new, changed, or as it was.

mod backend;
mod command;
mod follow;
mod imports;
mod modules;
mod sdist;
mod stdlib;
mod texts;
mod wheel;

use super::Case;
use crate::card::{
    Format,
    tree::{Tree, named},
};
use command::{Commands, script_text};
use follow::{Followed, join};
use modules::Modules;
use proto::card::{Finding, FindingKind, Risk, shown};
use serde_json::Value;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};
use texts::{Texts, WORK_MAX};

const WHY: &str = "It runs on every machine that installs or builds the package, with that person's rights: it is \
     the usual way in which a package is poisoned.";
const WHY_SAME: &str = "It ran in the previous version too, with the same bytes.";

const WHY_LOST: &str = "Its text is the same, but what it runs lies elsewhere or is chosen while it runs: it may be \
     something else now.";

const WHY_GONE: &str = "The package is installed or built in another way than before: what does it instead, if anything \
     does, is told beside this.";

/// What `node-gyp` builds, or is told by.
const NATIVE: [&str; 19] = [
    ".gyp", ".gypi", ".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".inc", ".inl",
    ".ipp", ".m", ".mm", ".s", ".S", ".asm", ".mk",
];
/// Scripts that npm runs when a package is installed from a registry.
const NPM: [&str; 3] = ["preinstall", "install", "postinstall"];

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let tree = case.before.tree();
    let now = hooks(case.format, case.now, tree, WORK_MAX);
    let before = tree.map(|tree| hooks(case.format, tree, Some(case.now), WORK_MAX));
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
                // What runs for the first time is a change, and so is what ran before and does not now.
                let files = hook.runs.files.union(&old.runs.files);
                let both = |f: &String| hook.runs.files.contains(f) && old.runs.files.contains(f);
                let mut changed: Vec<_> = files
                    .filter(|f| !both(f) || differs(case, f))
                    .cloned()
                    .collect();
                if old.told != hook.told {
                    let files: BTreeSet<_> = hook.told.keys().chain(old.told.keys()).collect();
                    let other = |f: &&String| old.told.get(*f) != hook.told.get(*f);
                    changed.extend(files.into_iter().filter(other).cloned());
                    changed.sort_unstable();
                    changed.dedup();
                }
                if !changed.is_empty() {
                    let files = named(changed.iter().map(String::as_str));
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
    let gone = before.iter().flatten();
    let gone: Vec<_> = gone.filter(|(name, _)| !now.contains_key(*name)).collect();
    if let Some((_, first)) = gone.first() {
        let names = named(gone.iter().map(|(name, _)| name.as_str()));
        let what = format!("no longer there: {names} (was: {})", shown(&first.text));
        out.push(finding(Risk::Low, what, WHY_GONE));
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
    /// What it is told by files that change with each version, by their names, without what says the version.
    told: BTreeMap<String, String>,
}

impl Hook {
    /// One that runs a file, and what that file names.
    fn of(texts: Texts<'_>, name: &str) -> Self {
        let mut runs = Followed::default();
        runs.file(texts, name);
        Self::new(format!("runs {name}"), runs)
    }

    /// One that runs these files, whatever they name.
    fn these(text: String, files: impl IntoIterator<Item = String>) -> Self {
        let runs = Followed {
            files: files.into_iter().collect(),
            ..Followed::default()
        };
        Self::new(text, runs)
    }

    const fn new(text: String, runs: Followed) -> Self {
        Self {
            text,
            runs,
            told: BTreeMap::new(),
        }
    }
}

/// What runs of an archive, as far as so much work tells.
fn hooks(format: Format, tree: &Tree, other: Option<&Tree>, work: usize) -> BTreeMap<String, Hook> {
    let texts = Texts {
        tree,
        other,
        modules: &Modules::of(tree),
        left: &Cell::new(work),
    };
    let mut hooks = match format {
        Format::Npm => npm(texts),
        Format::Sdist => sdist::hooks(texts),
        Format::Wheel => wheel::hooks(texts),
        Format::Crate => cargo(texts),
        Format::Gem => gem(texts),
    };
    if texts.left.get() == 0 {
        for hook in hooks.values_mut() {
            hook.runs.lost.insert("all that it could run".to_owned());
        }
    }
    hooks
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
                text.extend([" [", name, ": ", script, "]"]);
            }
            let reads = commands.followed.reads_manifest;
            let mut hook = Hook::new(text, commands.followed);
            if reads {
                hook.told
                    .insert("package.json".to_owned(), described(&json));
            }
            out.insert(name.to_owned(), hook);
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

/// What `package.json` tells a script that reads it: all but what changes with each version or is told elsewhere.
fn described(json: &Value) -> String {
    const ELSEWHERE: [&str; 7] = [
        "version",
        "scripts",
        "dependencies",
        "devDependencies",
        "optionalDependencies",
        "peerDependencies",
        "gitHead",
    ];
    let all = json.as_object().into_iter().flatten();
    let told = all.filter(|(key, _)| !ELSEWHERE.contains(&key.as_str()));
    let lines: Vec<_> = told.map(|(key, value)| format!("{key}: {value}")).collect();
    lines.join("\n")
}

fn cargo(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let text = texts.tree.text("Cargo.toml").unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_default();
    let build = manifest.get("package").and_then(|p| p.get("build"));
    let script = match build {
        Some(toml::Value::Boolean(false)) => None,
        Some(toml::Value::String(path)) => join("", path),
        Some(toml::Value::Array(_)) => Some("several build scripts".to_owned()),
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
        let root = lib
            .and_then(|l| l.get("path")?.as_str())
            .and_then(|path| join("", path));
        let apart = ["tests/", "benches/", "examples/"];
        let source =
            |f: &&String| ends(f, ".rs") && !apart.iter().any(|folder| f.starts_with(folder));
        let mut runs = Followed::default();
        let sources = texts.tree.files.keys().filter(source).chain(root.as_ref());
        sources.for_each(|file| runs.file(texts, file));
        let from = root
            .as_ref()
            .map_or_else(String::new, |path| format!(", from {}", shown(path)));
        let text = format!("the crate is a procedural macro{from}");
        out.insert("macro".to_owned(), Hook::new(text, runs));
    }
    out
}

fn gem(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    // The list of `extensions` in the metadata, at the margin as Ruby writes it.
    let metadata = texts.tree.text("metadata").unwrap_or_default();
    let (listed, strange) = extensions(metadata);
    let listed: BTreeSet<_> = listed.into_iter().collect();
    let hook = |name: String| {
        if !texts.spend(texts.tree.files.len()) {
            return (
                format!("extension {}", shown(&name)),
                Hook::these(String::new(), []),
            );
        }
        let mut hook = Hook::of(texts, &name);
        // Its makefile builds what lies beside it.
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = |f: &&String| f.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
        let files = texts.tree.files.keys().filter(beside);
        let native = files.filter(|f| NATIVE.iter().any(|end| ends(f, end)));
        hook.runs.files.extend(native.cloned());
        (format!("extension {}", shown(&name)), hook)
    };
    let mut out: BTreeMap<_, _> = listed.into_iter().map(hook).collect();
    if let Some(line) = strange {
        let mut hook = Hook::new(shown(&line), Followed::default());
        hook.runs.lost.insert("its extensions".to_owned());
        out.insert("extensions".to_owned(), hook);
    }
    out
}

/// The extensions that a gem's metadata lists, and the first line about them that is not as Ruby writes it.
fn extensions(metadata: &str) -> (Vec<String>, Option<String>) {
    let mut lines = metadata
        .lines()
        .skip_while(|l| !l.starts_with("extensions"));
    match lines.next() {
        None | Some("extensions: []") => (Vec::new(), None),
        Some("extensions:") => {
            let mut listed = Vec::new();
            for line in lines {
                let plain = |name: &&str| !name.contains(['#', '&', '*', '|', '>']);
                match line.trim_start().strip_prefix("- ").filter(plain) {
                    Some(name) => {
                        listed.push(name.trim().trim_matches(['"', '\'']).to_owned());
                    }
                    // The next key.
                    None if line.starts_with(|c: char| c.is_ascii_lowercase()) => break,
                    None => return (listed, Some(line.to_owned())),
                }
            }
            (listed, None)
        }
        Some(line) => (Vec::new(), Some(line.to_owned())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::samples::{package_json, tgz};

    #[test]
    fn attack_53_where_there_is_too_much_to_follow_that_is_told() {
        let json = package_json("1.0.0", r#","scripts":{"install":"node x"}"#);
        let files: [(&str, &[u8]); 3] = [
            ("package.json", json.as_bytes()),
            ("x.js", b"require('a'); require('b')"),
            ("node_modules/b/b.js", b"1"),
        ];
        let archive = tgz("package", &files);
        let length = archive.len() as u64;
        let read = Tree::read(Format::Npm, std::io::Cursor::new(archive), length, None);
        let tree = read.unwrap();
        let lost = |work| {
            let mut hooks = hooks(Format::Npm, &tree, None, work);
            hooks.remove("install").unwrap().runs.lost.len()
        };
        assert_eq!((lost(WORK_MAX), lost(5)), (0, 1));
    }
}
