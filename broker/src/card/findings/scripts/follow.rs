//! Which files of an archive run when one of them runs, as far as their text tells. It rather names a file too many
//! than one too few: a file that is not named could change unseen.

use super::super::super::tree::Tree;
use std::collections::BTreeSet;

/// Files that are followed from one hook.
const FILES_MAX: usize = 500;
/// Names that stand nowhere in the archive and are looked for by their end, from one hook.
const SOUGHT_MAX: usize = 200;
/// Longest name that is looked for, in bytes.
const WORD_MAX: usize = 300;
/// What a word must end with to be taken for a file that runs, unless it says where it lies (`./x`).
const CODE: [&str; 28] = [
    ".js", ".cjs", ".mjs", ".ts", ".node", ".py", ".pyd", ".so", ".rb", ".rs", ".sh", ".bash",
    ".pl", ".ps1", ".bat", ".cmd", ".exe", ".gyp", ".gypi", ".c", ".cc", ".cpp", ".cxx", ".h",
    ".hpp", ".m", ".mm", ".wasm",
];
/// What Python runs without an import.
const LOADED_BY_NAME: [&str; 5] = [
    "exec(",
    "execfile(",
    "__import__(",
    "import_module(",
    "run_path(",
];
/// What Node tries behind a name, in its order.
const NODE: [&str; 7] = ["", ".js", ".json", ".node", ".cjs", ".mjs", ".ts"];

/// An archive, and the other of the two: of a file that is the same in both, the text is kept in one of them.
#[derive(Clone, Copy)]
pub(super) struct Texts<'t> {
    pub(super) tree: &'t Tree,
    pub(super) other: Option<&'t Tree>,
}

impl<'t> Texts<'t> {
    pub(super) fn has(self, name: &str) -> bool {
        self.tree.files.contains_key(name)
    }

    fn text(self, name: &str) -> Option<&'t str> {
        let leaf = self.tree.files.get(name)?;
        let same = || {
            let other = self.other?.files.get(name)?;
            (other.digest == leaf.digest)
                .then_some(other.text.as_deref())
                .flatten()
        };
        leaf.text.as_deref().or_else(same)
    }
}

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
                None if texts.tree.files.get(&name).is_some_and(|l| l.shape.nul) => {}
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
        // What describes the package changes with each version; what it runs and pulls in is told by itself.
        let described = |name: &String| name.rsplit('/').next() == Some("package.json");
        let mut take = |found: Option<String>| out.extend(found.filter(|name| !described(name)));
        self.reads_manifest |= text.contains("package.json");
        for word in words(text) {
            let relative = word.starts_with("./") || word.starts_with("../");
            if relative {
                take(node_file(texts, folder, word));
            } else if CODE.iter().any(|end| word.ends_with(end)) {
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
                let found = self.ending(texts, tail);
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
                for module in modules(text) {
                    let files = python_files(texts, folder, &module);
                    for name in files {
                        take(Some(name));
                    }
                }
                if loads(text, &LOADED_BY_NAME).any(|loaded| loaded.is_none()) {
                    self.lost.insert(format!("what {place} loads"));
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

    /// The files whose names end so, in whatever folder.
    fn ending(&mut self, texts: Texts<'_>, name: &str) -> Vec<String> {
        let name = name.trim_start_matches(['.', '/']);
        self.sought += 1;
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
            Some((_, "py" | "pth")) => Self::Python,
            Some((_, "rb")) => Self::Ruby,
            Some((_, "rs")) => Self::Rust,
            Some(_) => Self::Other,
        }
    }
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
    let within = move |file: &&String| {
        let at = file.find(&inside);
        at.is_some_and(|at| at == 0 || file.get(..at).is_some_and(|before| before.ends_with('/')))
    };
    all.filter(within).cloned()
}

/// The files that Python runs for a module: its own, and those of the packages that it lies in.
pub(super) fn python_files(texts: Texts<'_>, folder: &str, module: &str) -> Vec<String> {
    let name = module.trim_start_matches('.');
    let dots = module.len() - name.len();
    let up = "../".repeat(dots.saturating_sub(1));
    let roots = if dots == 0 {
        vec![
            Some(folder.to_owned()),
            Some(String::new()),
            Some("src".to_owned()),
        ]
    } else {
        vec![join(folder, &up)]
    };
    let parts: Vec<_> = name.split('.').filter(|part| !part.is_empty()).collect();
    let mut out = Vec::new();
    for root in roots.into_iter().flatten() {
        let mut names = Vec::new();
        if dots > 0 {
            names.push("__init__.py".to_owned());
        }
        for end in 1..=parts.len() {
            let package = parts.get(..end).unwrap_or_default().join("/");
            names.push(format!("{package}/__init__.py"));
            names.push(format!("{package}.py"));
        }
        let files = names.iter().filter_map(|name| join(&root, name));
        out.extend(files.filter(|name| texts.has(name)));
    }
    out
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
/// all of them around.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`;,&|()[]<>={".contains(c))
        .filter(|word| (3..=WORD_MAX).contains(&word.len()))
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
fn quoted(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t', '(']);
    let quote = text.chars().next().filter(|c| "\"'`".contains(*c))?;
    let (inner, behind) = text.get(1..)?.split_once(quote)?;
    let whole = behind.trim_start().starts_with([')', ',', '\n', ';']) || behind.trim().is_empty();
    (whole && inner.len() <= WORD_MAX && !inner.contains("${")).then_some(inner)
}

/// What a Python text imports, dotted.
fn modules(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines().flat_map(|line| line.split(';')) {
        let mut words = line
            .split([' ', '\t', ',', '(', ')'])
            .filter(|w| !w.is_empty());
        match words.next() {
            Some("import") => out.extend(words.filter(|w| *w != "as").map(str::to_owned)),
            Some("from") => {
                let module = words.next().unwrap_or_default();
                out.push(module.to_owned());
                let names = words.filter(|w| !matches!(*w, "import" | "as" | "*" | "\\"));
                let dot = if module.ends_with('.') { "" } else { "." };
                out.extend(names.map(|name| format!("{module}{dot}{name}")));
            }
            _ => {}
        }
    }
    out
}
