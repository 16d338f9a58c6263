//! What a Python text imports. A name too many does no harm; what could be a name and is not understood is told as
//! such.

use super::{
    follow::{WORD_MAX, quoted},
    modules::PARTS_MAX,
};
use std::collections::BTreeSet;

/// Names that one text may import.
const NAMES_MAX: usize = 5_000;

/// What a text imports.
#[derive(Default)]
pub(super) struct Imports {
    /// Modules, dotted.
    pub(super) names: BTreeSet<String>,
    /// Whether something could be a name and is not understood: too long, too many, or written in letters that
    /// Python takes for others (PEP 3131).
    pub(super) strange: bool,
    /// What reading it took, in bytes.
    pub(super) work: usize,
}

impl Imports {
    /// Takes every place for a statement in which one could stand, also in texts within the text.
    pub(super) fn of(text: &str) -> Self {
        let mut out = Self::default();
        let most = text.len().saturating_mul(16).saturating_add(4096);
        let mut steps = most;
        let mut own = BTreeSet::new();
        for at in identifiers(text, "from") {
            let mut reader = Reader::new(text, at + "from".len(), steps);
            let module = reader.dotted();
            reader.skip();
            if reader.peek() == "import" {
                // A comment may end with a backslash: then the next line is a statement of its own.
                if !reader.crossed {
                    own.insert(reader.at);
                }
                reader.at += "import".len();
                out.names.insert(module.clone());
                reader.list(Some(&module), &mut out);
                out.strange |= reader.strange;
            }
            steps = reader.steps;
        }
        for at in identifiers(text, "import").filter(|at| !own.contains(at)) {
            let mut reader = Reader::new(text, at + "import".len(), steps);
            reader.list(None, &mut out);
            out.strange |= reader.strange;
            steps = reader.steps;
        }
        out.strange |= steps == 0;
        out.work = text.len() + most - steps;
        out
    }
}

/// Reads a statement, char by char.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    steps: usize,
    /// Within brackets, where lines go on.
    open: bool,
    /// Whether it went over the end of a line.
    crossed: bool,
    strange: bool,
}

impl<'t> Reader<'t> {
    const fn new(text: &'t str, at: usize, steps: usize) -> Self {
        Self {
            text,
            at,
            steps,
            open: false,
            crossed: false,
            strange: false,
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize) {
        self.steps = self.steps.saturating_sub(bytes);
        self.at = if self.steps == 0 {
            self.text.len()
        } else {
            self.at + bytes
        };
    }

    /// Goes over what Python does not read.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return };
            match c {
                '\\' if rest.get(1..).is_some_and(|r| r.starts_with(['\n', '\r'])) => {
                    self.crossed = true;
                    self.take(2);
                    if self.rest().starts_with('\n') {
                        self.take(1);
                    }
                }
                '#' if self.open => self.take(rest.find(['\n', '\r']).unwrap_or(rest.len())),
                '\n' | '\r' if !self.open => return,
                c if c.is_whitespace() => self.take(c.len_utf8()),
                _ => return,
            }
        }
    }

    /// The identifier that stands here.
    fn peek(&self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    /// `a.b.c`, however it is spaced; nothing if it is none.
    fn dotted(&mut self) -> String {
        let mut out = String::new();
        loop {
            self.skip();
            if self.rest().starts_with('.') {
                out.push('.');
                self.take(1);
            } else {
                let part = self.peek();
                let fits = out.is_empty() || out.ends_with('.');
                if part.is_empty() || !fits || matches!(part, "import" | "as") {
                    break;
                }
                self.strange |= !part.is_ascii();
                self.take(part.len());
                if part.len() <= WORD_MAX {
                    out.push_str(part);
                } else {
                    self.strange = true;
                }
            }
            if out.len() > WORD_MAX {
                self.strange = true;
                return String::new();
            }
        }
        out
    }

    /// What stands behind `import`.
    fn list(&mut self, module: Option<&str>, out: &mut Imports) {
        self.skip();
        if self.rest().starts_with('(') {
            self.open = true;
            self.take(1);
        }
        loop {
            let name = self.dotted();
            if name.is_empty() {
                return;
            }
            if out.names.len() >= NAMES_MAX {
                self.strange = true;
                return;
            }
            let dot = if module.is_some_and(|m| !m.ends_with('.')) {
                "."
            } else {
                ""
            };
            let whole = format!("{}{dot}{name}", module.unwrap_or_default());
            self.strange |= whole.len() > WORD_MAX || whole.matches('.').count() >= PARTS_MAX;
            out.names.insert(whole);
            self.skip();
            if self.peek() == "as" {
                self.take(2);
                self.skip();
                self.take(self.peek().len());
                self.skip();
            }
            if !self.rest().starts_with(',') {
                return;
            }
            self.take(1);
        }
    }
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where an identifier stands in a text.
fn identifiers<'t>(text: &'t str, name: &'static str) -> impl Iterator<Item = usize> + use<'t> {
    text.match_indices(name).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let behind = text.get(at + name.len()..)?.chars().next();
        let apart = !before.is_some_and(is_part) && !behind.is_some_and(is_part);
        apart.then_some(at)
    })
}

/// What a call loads that is no import.
pub(super) enum Load<'t> {
    /// A module.
    Module(&'t str),
    /// Perhaps a file.
    File(&'t str),
    /// It is not written there.
    Unknown,
}

/// What Python loads without an import.
pub(super) fn loads(text: &str) -> impl Iterator<Item = Load<'_>> {
    use Names::{File, Module, SecondFile};
    const CALLS: [(&str, Names); 9] = [
        ("__import__", Module),
        ("import_module", Module),
        ("run_module", Module),
        ("exec", File),
        ("execfile", File),
        ("run_path", File),
        ("load_source", SecondFile),
        ("SourceFileLoader", SecondFile),
        ("spec_from_file_location", SecondFile),
    ];
    CALLS.iter().flat_map(move |(call, names)| {
        identifiers(text, call).filter_map(move |at| {
            let behind = text.get(at + call.len()..)?;
            let behind = behind.trim_start_matches([' ', '\t', '\\', '\n', '\r']);
            let Some(handed) = behind.strip_prefix('(') else {
                // Under another name it could be called unseen.
                let renamed = behind.starts_with("as ") || !is_imported(text, at);
                return (*call != "exec" && renamed).then_some(Load::Unknown);
            };
            let plain = |text| quoted(text).filter(|text| !text.contains('\\'));
            let named = match names {
                // A module's name, and then its file.
                SecondFile => plain(handed).and_then(|_| plain(handed.split_once(',')?.1)),
                Module | File => plain(handed),
            };
            Some(match named {
                Some(name) if *names == Module => Load::Module(name),
                Some(name) => Load::File(name),
                None => Load::Unknown,
            })
        })
    })
}

/// What a call's words name.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Module,
    File,
    /// The second one does.
    SecondFile,
}

/// Whether a name stands in the line of an import.
fn is_imported(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    let line = line.trim_start();
    line.starts_with("from ") || line.starts_with("import ")
}

/// Whether Python reads the text as something else than it is here (PEP 263).
pub(super) fn is_encoded(text: &str) -> bool {
    let end = text
        .match_indices('\n')
        .nth(1)
        .map_or(text.len(), |(at, _)| at);
    let head = text.get(..end).unwrap_or_default();
    head.match_indices("coding").any(|(at, word)| {
        let behind = head.get(at + word.len()..).unwrap_or_default();
        let Some(name) = behind.strip_prefix([':', '=']) else {
            return false;
        };
        let name = name.trim_start_matches([' ', '\t']);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
        let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
        let name = name.to_ascii_lowercase().replace('_', "-");
        let plain = [
            "",
            "utf8",
            "ascii",
            "us-ascii",
            "latin-1",
            "latin1",
            "iso-8859-1",
            "cp1252",
        ];
        !name.starts_with("utf-8") && !plain.contains(&name.as_str())
    })
}

/// Whether a text states its version and describes itself so plainly that no tool has to run it: a docstring, then
/// nothing but simple imports, then the version in quotes.
pub(super) fn states_version(text: &str) -> bool {
    let described = text
        .lines()
        .find(|line| !line.starts_with('#') && !line.is_empty());
    described.is_some_and(|line| line.starts_with(['"', '\''])) && states(text, "__version__")
}

/// The same of any name, with or without a docstring.
pub(super) fn states(text: &str, name: &str) -> bool {
    let only = text.matches(name).count() == 1;
    if !only || text.contains(['\\', '\r', '\u{c}']) || is_encoded(text) {
        return false;
    }
    let mut rest = text;
    while rest.starts_with(['#', '\n']) {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let quote = ["\"\"\"", "'''"].into_iter().find(|q| rest.starts_with(q));
    if let Some(quote) = quote {
        let Some((about, behind)) = rest.strip_prefix(quote).and_then(|r| r.split_once(quote))
        else {
            return false;
        };
        if about.trim().is_empty() || !behind.starts_with('\n') {
            return false;
        }
        rest = behind;
    }
    for line in rest.split('\n') {
        let value = line.strip_prefix(name);
        if let Some(value) = value.and_then(|v| v.strip_prefix(" = ")) {
            let end = value.trim_end();
            let inner = ['"', '\'']
                .iter()
                .find_map(|q| end.strip_prefix(*q)?.strip_suffix(*q));
            let plain = |c: char| c.is_ascii_alphanumeric() || ".+!-_".contains(c);
            return inner.is_some_and(|version| !version.is_empty() && version.chars().all(plain));
        }
        let import = line.starts_with("import ") || line.starts_with("from ");
        let simple = import && !line.contains([';', '(', '#']);
        if !(line.is_empty() || line.starts_with('#') || simple) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let all = Imports::of(text);
        assert!(!all.strange, "{text}");
        all.names.into_iter().collect()
    }

    #[test]
    fn attack_53_whatever_an_import_looks_like_it_is_seen() {
        for text in [
            "import evil.mod",
            "x = 1; import evil.mod",
            "try: import evil.mod",
            "import os, evil.mod as m",
            "import evil . mod",
            "import \\\n evil.mod",
            "import\tevil.mod\r",
            "from evil import (\n  # a, b)\n  one, # two\n  mod,\n)",
            "from evil import one as two, \\\r\n mod",
            "# from x \\\nimport evil.mod",
            "exec('import evil.mod')",
        ] {
            assert!(names(text).contains(&"evil.mod".to_owned()), "{text:?}");
        }
        assert_eq!(names("from . import a"), [".", ".a"]);
        assert_eq!(names("from .import a"), [".", ".a"]);
        assert_eq!(names("from ..b.c import *"), ["..b.c"]);
        assert_eq!(names("important = fromage"), [""; 0]);
        for text in ["import ｅvil", &format!("import {}", "a.".repeat(200))] {
            assert!(Imports::of(text).strange, "{text}");
        }
    }

    #[test]
    fn attack_53_names_without_end_take_no_time() {
        let dots = format!("import {}", "a.".repeat(500_000));
        let comments = format!("from a import ({}", "from a import (#".repeat(60_000));
        let long = format!("from {} import {}", "m".repeat(290), "a,".repeat(500_000));
        let many: Vec<String> = (0..200_000).map(|n| format!("a{n}")).collect();
        let many = format!("import {}", many.join(","));
        for text in [dots, comments, many] {
            assert!(Imports::of(&text).strange);
        }
        assert_eq!(Imports::of(&long).names.len(), 2);
    }

    #[test]
    fn attack_53_what_is_loaded_by_name_is_seen_or_told() {
        let told = |text: &str| {
            let one = |load| match load {
                Load::Module(name) => format!("module {name}"),
                Load::File(name) => format!("file {name}"),
                Load::Unknown => "unknown".to_owned(),
            };
            loads(text).map(one).collect::<Vec<_>>()
        };
        for text in ["__import__(\"dyn\")", "importlib.import_module (\n 'dyn')"] {
            assert_eq!(told(text), ["module dyn"], "{text}");
        }
        assert_eq!(told("run_path('tool')"), ["file tool"]);
        let second = "SourceFileLoader('gen', 'data/gen.dat').load_module()";
        assert_eq!(told(second), ["file data/gen.dat"]);
        for text in [
            "__import__('d' 'yn')",
            "import_module('\\x64yn')",
            "exec(open('x').read())",
            "load = __import__",
            "from importlib import import_module as load",
            "load = importlib.import_module",
            "SourceFileLoader('gen')",
        ] {
            assert_eq!(told(text), ["unknown"], "{text}");
        }
        assert_eq!(
            told("from importlib import import_module\nos.execv(x)"),
            [""; 0]
        );
        assert!(is_encoded("#!x\n# -*- coding: unicode_escape -*-\n"));
        assert!(!is_encoded("# -*- coding: utf-8 -*-\n"));
    }

    #[test]
    fn attack_53_a_version_is_plain_or_the_module_runs() {
        let plain = "# x\n\"\"\"About.\n\nMore.\"\"\"\n\nimport os\n__version__ = '1.0'\nrun()\n";
        assert!(states_version(plain));
        for other in [
            plain.replace("'1.0'", "get()"),
            plain.replace("'1.0'", "'1' + get()"),
            plain.replace("About.", "About.\"\"\"; run(); \"\"\""),
            plain.replace("import os", "f("),
            plain.replace("import os", "'''"),
            plain.replace("run()", "__version__ = run()"),
            plain.replace("About.\n\nMore.", ""),
            plain.replace("\"\"\"About.\n\nMore.\"\"\"", ""),
        ] {
            assert_ne!(other, plain);
            assert!(!states_version(&other), "{other}");
        }
    }
}
