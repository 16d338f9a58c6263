//! What runs when a Python source distribution is built: `setup.py`, or the backend that `pyproject.toml` names.

use super::{
    Hook, backend, ends,
    follow::Language,
    imports::states,
    modules::{Reach, is_found, own_files, python_files},
    stdlib::PYTHONS,
    texts::Texts,
};
use crate::card::{entry_points, setup_cfg};
use std::collections::{BTreeMap, BTreeSet};

/// Files at the root that tools read or run by their name.
const READ: [&str; 6] = [
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "hatch.toml",
    "hatch_build.py",
    "pdm_build.py",
];

pub(super) fn hooks(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let mut out = BTreeMap::new();
    let setuptools = Told::setuptools(texts);
    let script = texts.has("setup.py");
    if script {
        let mut hook = Hook::of(texts, "setup.py");
        setuptools.tell(texts, &mut hook);
        out.insert("setup.py".to_owned(), hook);
    }
    // Without it, installers run `setup.py`; some build from a `setup.cfg` alone.
    if texts.has("pyproject.toml") || (!script && texts.has("setup.cfg")) {
        out.insert(
            "build backend".to_owned(),
            backend::hook(texts, &setuptools),
        );
    }
    // A script's own folder comes first where Python looks: what lies there runs in place of Python's own modules.
    let modules = PYTHONS.into_iter();
    let shadowing: Vec<_> = modules
        .flat_map(|module| python_files(texts, "", module, Reach::Near))
        .collect();
    for hook in out.values_mut() {
        for file in &shadowing {
            hook.runs.file(texts, file);
        }
    }
    // Where the case of names does not count, these are read too.
    let other = |f: &&String| READ.iter().any(|r| f.eq_ignore_ascii_case(r) && f != r);
    for file in texts.tree.files.keys().filter(other) {
        if out.is_empty() {
            out.insert("build".to_owned(), Hook::these(format!("by {file}"), []));
        }
        for hook in out.values_mut() {
            hook.runs.lost.insert(file.clone());
        }
    }
    out
}

/// What files tell those who build.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// By the name of the file, without what changes with each version.
    files: BTreeMap<String, String>,
    /// What is imported for it: `module.name` or `module:name`.
    named: BTreeSet<String>,
    /// Files that could not be read.
    lost: BTreeSet<String>,
}

impl Told {
    /// What setuptools reads besides `pyproject.toml`, and loads by itself.
    fn setuptools(texts: Texts<'_>) -> Self {
        let mut out = Self::default();
        if texts.has("setup.cfg") {
            out.file(texts, "setup.cfg", setup_cfg::told);
        }
        for name in texts.tree.files.keys() {
            if name.ends_with("/entry_points.txt") {
                out.file(texts, name, entry_points::building);
            }
        }
        out
    }

    /// Adds what a file tells.
    fn file(
        &mut self,
        texts: Texts<'_>,
        name: &str,
        read: impl FnOnce(&str) -> (String, Vec<String>),
    ) {
        match texts.text(name) {
            Some(text) => {
                let (told, named) = read(text);
                self.add(name, told, named);
            }
            None => self.lost(name),
        }
    }

    pub(super) fn add(&mut self, file: &str, told: String, named: Vec<String>) {
        if !told.trim().is_empty() {
            self.files.insert(file.to_owned(), told);
        }
        self.named.extend(named);
    }

    pub(super) fn lost(&mut self, file: &str) {
        self.lost.insert(file.to_owned());
    }

    /// Tells a hook of it: it is as before only if this is, and it runs what is named there.
    pub(super) fn tell(&self, texts: Texts<'_>, hook: &mut Hook) {
        hook.told.extend(self.files.clone());
        hook.runs.lost.extend(self.lost.iter().cloned());
        let told = |what: &str| self.files.values().any(|told| told.contains(what));
        let reach = if told("package-dir") || told("package_dir") {
            Reach::Parts
        } else {
            Reach::Everywhere
        };
        for told in self.files.values() {
            hook.runs.inline(texts, Language::Other, told, "");
            for word in dotted(told).chain(before_colon(told)) {
                if !hook.runs.is_name(word) || is_stated(texts, word, reach) {
                    continue;
                }
                for file in python_files(texts, "", word, Reach::Near) {
                    hook.runs.file(texts, &file);
                }
            }
        }
        for named in &self.named {
            let module = named.split(':').next().unwrap_or(named);
            if is_stated(texts, named, reach) {
                continue;
            }
            let reachable = hook.runs.is_name(module) && module.is_ascii();
            if !reachable || !is_found(texts, named, reach) {
                hook.runs.lost.insert(format!("where {named} is"));
                continue;
            }
            for file in python_files(texts, "", module, reach) {
                hook.runs.file(texts, &file);
            }
        }
    }
}

/// Whether a name is a value that its module states plainly: setuptools then reads it without running the module.
fn is_stated(texts: Texts<'_>, named: &str, reach: Reach) -> bool {
    let Some((module, name)) = named.rsplit_once('.') else {
        return false;
    };
    let of = |module: &str| own_files(texts, module, reach);
    let files = of(module);
    let states = |file: &String| texts.text(file).is_some_and(|text| states(text, name));
    !named.contains(':')
        && !name.is_empty()
        && of(named).is_empty()
        && !files.is_empty()
        && files.iter().all(states)
}

/// Words that could be modules: `attr: pkg.version`, and classes of commands.
fn dotted(told: &str) -> impl Iterator<Item = &str> {
    let words = told.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    words.filter(|word| word.contains('.') && !ends(word, ".py"))
}

/// `module` of `module:name`.
fn before_colon(told: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut pieces = told.split(':').peekable();
    std::iter::from_fn(move || {
        let piece = pieces.next()?;
        let named = pieces.peek().is_some_and(|next| next.starts_with(part));
        let start = piece.rfind(|c: char| !part(c) && c != '.');
        let start = start.map_or(0, |at| at + piece.get(at..).map_or(0, first));
        Some(piece.get(start..).filter(|_| named).unwrap_or_default())
    })
    .filter(|word| !word.is_empty())
}

/// Bytes of the first char.
fn first(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}
