//! What runs of a wheel without being called. Nothing of it runs when it is installed; but some files run at each
//! start of Python, and scripts become commands.

use super::{
    Hook, ends,
    modules::{Reach, python_files},
    texts::Texts,
};
use proto::card::shown;
use std::collections::BTreeMap;

/// Modules that Python loads at its start, whatever kind of file they are; the last two are loaded by files of
/// virtual environments and of setuptools.
const STARTED: [&str; 4] = [
    "sitecustomize",
    "usercustomize",
    "_virtualenv",
    "_distutils_hack",
];

pub(super) fn hooks(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let names = texts.tree.files.keys();
    let paths = names.clone().any(|name| is_started(at_root(name)));
    let mut out = BTreeMap::new();
    for name in names {
        // Commands run when somebody calls them.
        if name.starts_with(".data/scripts/") || name.starts_with(".data/data/") {
            let hook = Hook::these(format!("runs {name}"), [name.clone()]);
            out.insert(shown(name), hook);
            continue;
        }
        // What Python starts with runs always, and all that it imports.
        if is_started(at_root(name)) {
            let mut hook = Hook::of(texts, name);
            if ends(name, ".start") {
                started(texts, name, &mut hook);
            }
            out.insert(shown(name), hook);
        } else if let Some(module) = module(name, paths) {
            let hook = out
                .entry(shown(module))
                .or_insert_with(|| Hook::these(format!("runs {module}"), []));
            hook.runs.file(texts, name);
            // What such a file loads cannot be read.
            let ends = [".pyc", ".so", ".pyd", ".dll", ".dylib"];
            if ends.iter().any(|end| name.ends_with(end)) {
                hook.runs.lost.insert(format!("what {name} loads"));
            }
        }
    }
    out
}

/// A name as Python will see it where packages are installed.
fn at_root(name: &str) -> &str {
    let data = name
        .strip_prefix(".data/purelib/")
        .or(name.strip_prefix(".data/platlib/"));
    data.unwrap_or(name)
}

/// Files that Python reads at its start: with lines that it runs, or with functions that it calls (PEP 829).
fn is_started(name: &str) -> bool {
    !name.contains('/') && (ends(name, ".pth") || ends(name, ".start"))
}

/// The path of a module that Python loads at its start, if a file belongs to one. A `.pth` file may add any folder
/// to those where Python looks.
fn module(name: &str, anywhere: bool) -> Option<&str> {
    let mut end = name.len() - at_root(name).len();
    for (depth, part) in at_root(name).split('/').enumerate() {
        end += part.len() + usize::from(depth > 0);
        let stem = part.split('.').next().unwrap_or(part);
        if STARTED
            .iter()
            .any(|module| stem.eq_ignore_ascii_case(module))
        {
            return name.get(..end);
        }
        if !anywhere {
            break;
        }
    }
    None
}

/// Follows the functions that such a file names, `module:name` a line.
fn started(texts: Texts<'_>, name: &str, hook: &mut Hook) {
    let lines = texts.text(name).unwrap_or_default().lines();
    for line in lines.map(str::trim).filter(|l| !l.starts_with('#')) {
        let module = line.split(':').next().unwrap_or(line).trim();
        if hook.runs.is_name(module) {
            for file in python_files(texts, "", module, Reach::Everywhere) {
                hook.runs.file(texts, &file);
            }
        }
    }
}
