//! Where the modules of Python lie in an archive.

use super::{
    follow::{WORD_MAX, join},
    stdlib::is_pythons,
    texts::Texts,
};
use crate::card::tree::Tree;
use std::collections::BTreeMap;

/// Ends of what Python loads as a module.
const LOADED: [&str; 5] = [".py", ".pyw", ".pyc", ".so", ".pyd"];
/// Parts of a module's name: each is one more place to look.
pub(super) const PARTS_MAX: usize = 20;

/// The modules of an archive, by the last part of their path.
pub(super) struct Modules<'t>(BTreeMap<&'t str, Vec<(&'t str, &'t str)>>);

impl<'t> Modules<'t> {
    pub(super) fn of(tree: &'t Tree) -> Self {
        let mut out = BTreeMap::<_, Vec<_>>::new();
        for name in tree.files.keys() {
            if !LOADED.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
            let stem = file.split('.').next().unwrap_or(file);
            let path = if stem == "__init__" {
                folder
            } else {
                let end = file.len() - stem.len();
                name.get(..name.len() - end).unwrap_or(name)
            };
            let last = path.rsplit('/').next().unwrap_or(path);
            out.entry(last).or_default().push((path, name.as_str()));
        }
        Self(out)
    }
}

/// Where a module is looked for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reach {
    /// Where Python looks by itself; elsewhere if nothing lies there.
    Near,
    /// In any folder: somebody may have told Python to look there.
    Everywhere,
    /// Each part of its name in any folder: a package may lie in a folder of another name.
    Parts,
}

/// The files that Python runs for a module: its own, and those of the packages that it lies in.
pub(super) fn python_files(
    texts: Texts<'_>,
    folder: &str,
    module: &str,
    reach: Reach,
) -> Vec<String> {
    let name = module.trim_start_matches('.');
    let dots = module.len() - name.len();
    let parts: Vec<_> = name.split('.').filter(|part| !part.is_empty()).collect();
    let mut out = Vec::new();
    if module.len() > WORD_MAX || parts.len() > PARTS_MAX {
        return out;
    }
    let prefixes = (1..=parts.len()).filter_map(|end| Some(parts.get(..end)?.join("/")));
    let prefixes: Vec<String> = prefixes.collect();
    let near = |root: &str, out: &mut Vec<String>| {
        for prefix in &prefixes {
            if !texts.spend(root.len() + prefix.len()) {
                return;
            }
            if let Some(path) = join(root, prefix) {
                found(texts, &path, &path, out);
            }
        }
    };
    if dots > 0 {
        if let Some(root) = join(folder, &"../".repeat(dots - 1)) {
            found(texts, &root, &root, &mut out);
            near(&root, &mut out);
        }
        return out;
    }
    for root in [folder, "", "src"] {
        near(root, &mut out);
    }
    let pythons = parts.first().is_some_and(|part| is_pythons(part));
    if reach != Reach::Near || (out.is_empty() && !pythons) {
        for prefix in &prefixes {
            found(texts, prefix, &format!("/{prefix}"), &mut out);
        }
    }
    if reach == Reach::Parts {
        for part in &parts {
            found(texts, part, &format!("/{part}"), &mut out);
        }
    }
    out
}

/// Whether a module that must be in the archive is found there, or the one that a name in it belongs to.
pub(super) fn is_found(texts: Texts<'_>, named: &str, reach: Reach) -> bool {
    // `module:name`, `module.name`.
    let (module, whole) = match named.split_once(':') {
        Some((module, _)) => (module, true),
        None => (named, false),
    };
    let above = module.rsplit_once('.').map(|(above, _)| above);
    let wanted = if whole { None } else { above };
    let modules = [Some(module), wanted].into_iter().flatten();
    modules
        .into_iter()
        .any(|module| !own_files(texts, module, reach).is_empty())
}

/// The files of a module itself, without those of the packages that it lies in.
pub(super) fn own_files(texts: Texts<'_>, module: &str, reach: Reach) -> Vec<String> {
    let own = module.rsplit('.').next().unwrap_or(module);
    let mut files = python_files(texts, "", module, reach);
    files.retain(|file| {
        let path = LOADED.iter().find_map(|end| file.strip_suffix(end));
        let path = path.unwrap_or(file).trim_end_matches("/__init__");
        path.rsplit('/').next() == Some(own)
    });
    files
}

/// Adds the files of the module at a path, or of those whose path ends so.
fn found(texts: Texts<'_>, path: &str, end: &str, out: &mut Vec<String>) {
    let last = path.rsplit('/').next().unwrap_or(path);
    let all = texts.modules.0.get(last).map_or(&[][..], Vec::as_slice);
    if !texts.spend(all.len() + 1) {
        return;
    }
    let here = |at: &str| at == path || (end != path && at.ends_with(end));
    let files = all.iter().filter(|(at, _)| here(at));
    out.extend(files.map(|(_, file)| (*file).to_owned()));
}
