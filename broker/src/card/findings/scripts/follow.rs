//! Which files of an archive run when one of them runs, as far as their text tells. It rather names a file too many
//! than one too few: a file that is not named could change unseen.

use super::{
    ends,
    imports::{Imports, Load, is_encoded, loads as python_loads},
    modules::{Reach, python_files},
    texts::{Texts, is_one},
};
use std::collections::BTreeSet;

/// Bytes of text that are as much work as a name.
const PIECE: usize = 16;

/// Files that are followed from one hook.
const FILES_MAX: usize = 500;
/// Names that stand nowhere in the archive and are looked for by their end, from one hook.
const SOUGHT_MAX: usize = 200;
/// Longest name that is looked for, in bytes.
pub(super) const WORD_MAX: usize = 300;
/// What a word must end with to be taken for a file that runs, unless it says where it lies (`./x`).
const CODE: [&str; 28] = [
    ".js", ".cjs", ".mjs", ".ts", ".node", ".py", ".pyd", ".so", ".rb", ".rs", ".sh", ".bash",
    ".pl", ".ps1", ".bat", ".cmd", ".exe", ".gyp", ".gypi", ".c", ".cc", ".cpp", ".cxx", ".h",
    ".hpp", ".m", ".mm", ".wasm",
];
/// How a Python text starts commands.
const STARTS: [&str; 4] = ["subprocess", "os.system", "popen", "spawn"];
/// What Node tries behind a name, in its order.
const NODE: [&str; 7] = ["", ".js", ".json", ".node", ".cjs", ".mjs", ".ts"];

/// What was found on the way.
#[derive(Default)]
pub(super) struct Followed {
    /// Files that run.
    pub(super) files: BTreeSet<String>,
    /// What runs and could not be followed, for people.
    pub(super) lost: BTreeSet<String>,
    /// Whether something that runs reads `package.json`.
    pub(super) reads_manifest: bool,
    /// How many names were looked for by their end.
    pub(super) sought: usize,
}

impl Followed {
    /// Follows a file and all that it names.
    pub(super) fn file(&mut self, texts: Texts<'_>, name: &str) {
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            if !texts.has(&name) || !self.files.insert(name.clone()) {
                continue;
            }
            if self.files.len() > FILES_MAX {
                self.lost.insert(format!("more than {FILES_MAX} files"));
                return;
            }
            match texts.text(&name) {
                Some(text) => todo.extend(self.named(texts, Language::of(&name), text, &name)),
                // Machine code is all in one file; other files are too long for their text to be kept.
                None if texts
                    .tree
                    .files
                    .get(&name)
                    .is_some_and(|l| is_one(&name, l)) => {}
                None => {
                    self.lost.insert(name);
                }
            }
        }
    }

    /// Follows what stands in a command itself.
    pub(super) fn inline(
        &mut self,
        texts: Texts<'_>,
        language: Language,
        text: &str,
        folder: &str,
    ) {
        let place = join(folder, "-").unwrap_or_default();
        for file in self.named(texts, language, text, &place) {
            self.file(texts, &file);
        }
    }

    /// Follows a file that is run as such a language, whatever its name ends with, if it is there.
    pub(super) fn script(
        &mut self,
        texts: Texts<'_>,
        language: Language,
        folder: &str,
        name: &str,
    ) {
        let Some(at) = join(folder, name).filter(|at| texts.has(at)) else {
            return;
        };
        if let Some(text) = texts.text(&at) {
            for file in self.named(texts, language, text, &at) {
                self.file(texts, &file);
            }
        }
        self.file(texts, &at);
    }

    /// Whether a word can be looked for; one that is too long is told.
    pub(super) fn is_name(&mut self, word: &str) -> bool {
        let fits = word.len() <= WORD_MAX;
        if !fits {
            self.lost.insert(format!("a name of {} bytes", word.len()));
        }
        fits
    }

    /// The files that a text names, which lies at `place`.
    fn named(
        &mut self,
        texts: Texts<'_>,
        language: Language,
        text: &str,
        place: &str,
    ) -> Vec<String> {
        let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut out = Vec::new();
        if !texts.spend(text.len() / PIECE + 1) {
            return out;
        }
        // What describes the package changes with each version; what it runs and pulls in is told by itself.
        let described = |name: &String| name.rsplit('/').next() == Some("package.json");
        let mut take = |found: Option<String>| out.extend(found.filter(|name| !described(name)));
        self.reads_manifest |= text.contains("package.json");
        for word in words(text) {
            let relative = word.starts_with("./") || word.starts_with("../");
            let code = CODE.iter().any(|end| word.ends_with(end));
            if word.len() > WORD_MAX {
                if relative || code {
                    let what = format!("a name of {} bytes in {place}", word.len());
                    self.lost.insert(what);
                }
            } else if relative {
                take(node_file(texts, folder, word));
            } else if code {
                // A variable stands for a folder: what is behind it is looked for beside the file.
                let tail = word.rsplit(['$', '}']).next().unwrap_or(word);
                let tail = tail.split_once('/').map_or(tail, |(_, tail)| tail);
                let here = [word, tail].iter().find_map(|word| {
                    let at = [folder, ""].into_iter().filter_map(|f| join(f, word));
                    at.into_iter().find(|name| texts.has(name))
                });
                if here.is_some() {
                    take(here);
                    continue;
                }
                // Its folder is put together while it runs.
                let found = if word.contains(':') {
                    // Its parts are looked for by themselves.
                    Vec::new()
                } else {
                    self.ending(texts, tail)
                };
                if found.is_empty() && word.contains('$') {
                    self.lost.insert(format!("{word} in {place}"));
                }
                for name in found {
                    take(Some(name));
                }
            }
        }
        match language {
            Language::JavaScript => {
                for loaded in loads(text, &["require(", "import("]) {
                    match loaded {
                        Some(name) if name.starts_with('.') => {
                            take(node_file(texts, folder, name));
                        }
                        Some(name) if !name.starts_with('#') => {
                            for file in bundled(texts, name) {
                                take(Some(file));
                            }
                        }
                        // Chosen while it runs, or by a table in package.json.
                        _ => drop(self.lost.insert(format!("what {place} loads"))),
                    }
                }
            }
            Language::Python => {
                for name in self.imported(texts, text, place, folder) {
                    take(Some(name));
                }
            }
            Language::Ruby => {
                let after = text.split("require_relative").skip(1);
                for name in after.filter_map(quoted) {
                    for end in ["", ".rb"] {
                        let at = join(folder, &format!("{name}{end}"));
                        take(at.filter(|name| texts.has(name)));
                    }
                }
            }
            Language::Rust => {
                // `mod b;` in `a.rs` is `a/b.rs`.
                let below = place.trim_end_matches(".rs");
                for name in rust_modules(text) {
                    for folder in [folder, below] {
                        for end in [".rs", "/mod.rs"] {
                            let at = join(folder, &format!("{name}{end}"));
                            take(at.filter(|name| texts.has(name)));
                        }
                    }
                }
            }
            Language::Other => {}
        }
        out
    }

    /// The files that a Python text imports or loads.
    fn imported(&mut self, texts: Texts<'_>, text: &str, place: &str, folder: &str) -> Vec<String> {
        let imports = Imports::of(text);
        if imports.strange || is_encoded(text) {
            self.lost.insert(format!("what {place} imports"));
        }
        if !texts.spend(imports.work / PIECE + 1) {
            return Vec::new();
        }
        let moved = ["sys.path", "addsitedir", "import path"];
        let reach = if ends(place, ".pth") || moved.iter().any(|way| text.contains(way)) {
            Reach::Everywhere
        } else {
            Reach::Near
        };
        let mut out = Vec::new();
        for module in &imports.names {
            out.extend(python_files(texts, folder, module, reach));
        }
        for load in python_loads(text) {
            match load {
                Load::Module(name) if name.is_ascii() => {
                    out.extend(python_files(texts, folder, name, reach));
                }
                Load::File(name) => {
                    let at = [folder, ""].into_iter().filter_map(|f| join(f, name));
                    let there: Vec<_> = at.filter(|name| texts.has(name)).collect();
                    if there.is_empty() {
                        self.lost.insert(format!("what {place} loads"));
                    }
                    out.extend(there);
                }
                _ => drop(self.lost.insert(format!("what {place} loads"))),
            }
        }
        // Commands that it may start, and what those read by its name.
        if STARTS.iter().any(|way| text.contains(way)) {
            out.extend(texts.tree.files.keys().filter(|f| is_built_by(f)).cloned());
            let modules = words(text).filter(|w| w.contains('.') && w.len() <= WORD_MAX);
            let as_module =
                text.contains("\"-m\"") || text.contains("'-m'") || text.contains(" -m ");
            for module in modules.filter(|_| as_module) {
                out.extend(python_files(texts, folder, module, reach));
            }
        }
        // `file:name`: what a build runs by its name.
        for word in words(text) {
            let file = word.split_once(':').map(|(file, _)| file);
            let at = file.and_then(|file| join(folder, file));
            out.extend(at.filter(|name| texts.has(name)));
        }
        out
    }

    /// The files whose names end so, in whatever folder.
    fn ending(&mut self, texts: Texts<'_>, name: &str) -> Vec<String> {
        let name = name.trim_start_matches(['.', '/']);
        self.sought += 1;
        if !texts.spend(texts.tree.files.len()) {
            return Vec::new();
        }
        if self.sought > SOUGHT_MAX {
            self.lost.insert(format!("more than {SOUGHT_MAX} names"));
            return Vec::new();
        }
        let all = texts.tree.files.keys();
        let ends = |file: &&String| {
            let before = file.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        all.filter(ends).cloned().collect()
    }
}

/// How a file names others.
#[derive(Clone, Copy)]
pub(super) enum Language {
    JavaScript,
    Python,
    Ruby,
    Rust,
    Other,
}

impl Language {
    fn of(name: &str) -> Self {
        match name.rsplit('/').next().unwrap_or(name).rsplit_once('.') {
            Some((_, "js" | "cjs" | "mjs" | "ts" | "jsx")) | None => Self::JavaScript,
            Some((_, "py" | "pyw" | "pth")) => Self::Python,
            Some((_, "rb")) => Self::Ruby,
            Some((_, "rs")) => Self::Rust,
            Some(_) => Self::Other,
        }
    }
}

/// Whether a file at the root, or anywhere for CMake, says what a usual command builds.
fn is_built_by(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let root = !name.contains('/');
    file == "CMakeLists.txt"
        || ends(file, ".cmake")
        || (root
            && (file.starts_with("Makefile")
                || matches!(
                    file,
                    "makefile" | "GNUmakefile" | "configure" | "meson.build"
                )))
}

/// The file that Node runs for a name: the file itself, with one of its ends, or what a folder says.
pub(super) fn node_file(texts: Texts<'_>, folder: &str, name: &str) -> Option<String> {
    let at = join(folder, name)?;
    let ends = |at: &str| {
        let mut names = NODE.iter().map(|end| format!("{at}{end}"));
        names.find(|name| texts.has(name))
    };
    if let Some(file) = ends(&at) {
        return Some(file);
    }
    let json = texts.text(&join(&at, "package.json")?).unwrap_or_default();
    if !texts.spend(json.len() / PIECE + 1) {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let main = json.get("main").and_then(serde_json::Value::as_str);
    let main = main.and_then(|main| join(&at, main));
    let main = main.and_then(|main| ends(&main).or_else(|| ends(&join(&main, "index")?)));
    main.or_else(|| ends(&join(&at, "index")?))
}

/// All files of a dependency that lies in the archive: which of them run, its own tables say.
fn bundled(texts: Texts<'_>, name: &str) -> impl Iterator<Item = String> {
    let parts = if name.starts_with('@') { 2 } else { 1 };
    let package: Vec<_> = name.split('/').take(parts).collect();
    let inside = format!("node_modules/{}/", package.join("/"));
    let all = texts.tree.files.keys();
    let most = if texts.spend(all.len()) { all.len() } else { 0 };
    let all = all.take(most);
    let within = move |file: &&String| {
        let at = file.find(&inside);
        at.is_some_and(|at| at == 0 || file.get(..at).is_some_and(|before| before.ends_with('/')))
    };
    all.filter(within).cloned()
}

/// The modules that a Rust text has in files of their own.
fn rust_modules(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("mod ").filter_map(|(at, keyword)| {
        let before = text.get(..at)?.chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let rest = text.get(at + keyword.len()..)?.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '#')?;
        let (name, behind) = rest.split_at_checked(end)?;
        behind
            .trim_start()
            .starts_with(';')
            .then(|| name.trim_start_matches("r#"))
    })
}

/// A name seen from a folder, without `.` and `..`; nothing outside of the archive.
pub(super) fn join(folder: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Everything in a text that could name a file. Not by pairs of quotes: an apostrophe in a comment would turn
/// all of them around. `a:b` is three such words: both, and the whole.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`;,&|()[]<>={".contains(c))
        .flat_map(|word| {
            let parts = word.split(':').filter(move |part| part.len() < word.len());
            std::iter::once(word).chain(parts)
        })
        .filter(|word| word.len() >= 3)
}

/// What the calls of such functions name: `None` where it is not written there.
fn loads<'t>(text: &'t str, calls: &'static [&str]) -> impl Iterator<Item = Option<&'t str>> {
    calls.iter().flat_map(move |call| {
        text.match_indices(call).filter_map(move |(at, _)| {
            let before = text.get(..at)?.chars().next_back();
            // Another function whose name ends so.
            if before.is_some_and(|c| c.is_alphanumeric() || "_$".contains(c)) {
                return None;
            }
            Some(quoted(text.get(at + call.len()..)?))
        })
    })
}

/// The text in quotes that stands here and is all of what is handed over, if there is one.
pub(super) fn quoted(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '(']);
    let quote = text.chars().next().filter(|c| "\"'`".contains(*c))?;
    let (inner, behind) = text.get(1..)?.split_once(quote)?;
    let next = behind.trim_start_matches([' ', '\t']);
    let whole = next.is_empty() || next.starts_with([')', ',', '\n', '\r', ';']);
    (whole && inner.len() <= WORD_MAX && !inner.contains("${")).then_some(inner)
}
