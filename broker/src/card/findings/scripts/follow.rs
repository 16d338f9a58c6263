//! Which files of an archive run when one of them runs, as far as their text tells. It rather names a file too many
//! than one too few: a file that is not named could change unseen.

use super::super::super::tree::Tree;
use std::collections::BTreeSet;

/// Files that are followed from one hook.
const FILES_MAX: usize = 500;
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
                if here.is_none() && word.contains('$') {
                    self.lost.insert(format!("{word} in {place}"));
                }
                take(here);
            }
        }
        match language {
            Language::JavaScript => {
                for loaded in loads(text, &["require(", "import("]) {
                    match loaded {
                        Some(name) => take(node_file(texts, folder, name)),
                        None => drop(self.lost.insert(format!("what {place} loads"))),
                    }
                }
            }
            Language::Python => {
                for module in modules(text) {
                    for root in [folder, ""] {
                        for end in [".py", "/__init__.py"] {
                            let at = format!("{}{end}", module.trim_matches('.').replace('.', "/"));
                            take(join(root, &at).filter(|name| texts.has(name)));
                        }
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
                let module = |line: &str| {
                    let line = line.trim().trim_start_matches("pub ");
                    Some(
                        line.strip_prefix("mod ")?
                            .strip_suffix(';')?
                            .trim()
                            .to_owned(),
                    )
                };
                for name in text.lines().filter_map(module) {
                    for end in [".rs", "/mod.rs"] {
                        let at = join(folder, &format!("{name}{end}"));
                        take(at.filter(|name| texts.has(name)));
                    }
                }
            }
            Language::Other => {}
        }
        out
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
                out.extend(names.map(|name| format!("{module}.{name}")));
            }
            _ => {}
        }
    }
    out
}
