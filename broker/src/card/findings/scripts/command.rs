//! What a line for the shell runs, as far as it can be told without running it. Whatever is not understood counts
//! as not followed.

use super::{
    follow::{Followed, Language, join, node_file},
    modules::{Reach, python_files},
    texts::Texts,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Scripts that run others, within each other.
const DEPTH: usize = 20;
/// Programs that run nothing of the package.
const HARMLESS: [&str; 18] = [
    "echo", "printf", "true", "false", "exit", ":", "test", "[", "mkdir", "rmdir", "rm", "cp",
    "mv", "chmod", "touch", "cat", "sleep", "wait",
];
/// Words in front of a program.
const BEFORE: [&str; 16] = [
    "env",
    "cross-env",
    "cross-env-shell",
    "exec",
    "command",
    "nohup",
    "time",
    "if",
    "then",
    "else",
    "elif",
    "while",
    "do",
    "!",
    "{",
    "sudo",
];
/// Words that end what the ones before began.
const AFTER: [&str; 4] = ["fi", "done", "}", "esac"];
/// What Node is told to load first.
const LOADS: [&str; 5] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
];

/// Follows a command, and the package's own scripts that it runs.
pub(super) struct Commands<'t> {
    texts: Texts<'t>,
    scripts: Option<&'t Value>,
    pub(super) followed: Followed,
    /// The package's own scripts that run, with their text.
    pub(super) runs: Vec<(String, String)>,
    /// Their names.
    known: BTreeSet<String>,
}

impl<'t> Commands<'t> {
    pub(super) fn new(texts: Texts<'t>, scripts: Option<&'t Value>) -> Self {
        Self {
            texts,
            scripts,
            followed: Followed::default(),
            runs: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    /// Follows one line.
    pub(super) fn line(&mut self, line: &str) {
        self.line_at(line, DEPTH);
    }

    fn line_at(&mut self, line: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            self.lost("scripts that run scripts");
            return;
        };
        if line.contains("$(") || line.contains('`') {
            self.lost("what a command puts into another");
        }
        let mut folder = String::new();
        for command in commands(line) {
            self.command(&command, &mut folder, depth);
        }
    }

    fn lost(&mut self, what: &str) {
        self.followed.lost.insert(what.to_owned());
    }

    fn command(&mut self, words: &[String], folder: &mut String, depth: usize) {
        let in_front = |word: &&String| {
            BEFORE.contains(&word.as_str()) || AFTER.contains(&word.as_str()) || assigns(word)
        };
        let skipped = words.iter().take_while(in_front).count();
        let Some((program, rest)) = words.get(skipped..).and_then(<[String]>::split_first) else {
            return;
        };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let name = program.rsplit(['/', '\\']).next().unwrap_or(program);
        let name = name.trim_end_matches(".exe").trim_end_matches(".cmd");
        match name {
            "cd" => match rest.first().and_then(|to| join(folder, to)) {
                Some(to) => *folder = to,
                None => self.lost("cd"),
            },
            "node" | "nodejs" | "tsx" | "ts-node" => self.node(&rest, folder),
            "sh" | "bash" | "dash" | "zsh" | "ksh" | "source" | "." => {
                self.shell(&rest, folder, depth);
            }
            "python" | "python2" | "python3" | "ruby" | "perl" => {
                self.interpreter(name, &rest, folder);
            }
            "npm" | "pnpm" | "yarn" | "bun" => self.package_manager(name, &rest, folder, depth),
            "npm-run-all" | "npm-run-all2" | "run-s" | "run-p" => {
                for script in rest.iter().filter(|word| !word.starts_with('-')) {
                    self.script(script, depth);
                }
            }
            // It comes with npm, and reads what lies at the root: that belongs to each hook.
            "node-gyp" => {
                let elsewhere = |arg: &&str| arg.starts_with("-C") || arg.starts_with("--dir");
                if !folder.is_empty() || rest.iter().any(elsewhere) {
                    self.lost("node-gyp in another folder");
                }
            }
            name if HARMLESS.contains(&name) => {}
            _ if program.contains('/') => match node_file(self.texts, folder, program) {
                Some(file) => self.followed.file(self.texts, &file),
                None => self.lost(program),
            },
            _ => self.lost(program),
        }
    }

    /// `node [options] file`.
    fn node(&mut self, args: &[&str], folder: &str) {
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let (option, value) = match arg.split_once('=') {
                Some((option, value)) if arg.starts_with('-') => (option, Some(value)),
                _ => (arg, None),
            };
            if matches!(option, "-e" | "--eval" | "-p" | "--print" | "-pe") {
                let code = value.or_else(|| args.next()).unwrap_or_default();
                let texts = self.texts;
                self.followed
                    .inline(texts, Language::JavaScript, code, folder);
                return;
            }
            if LOADS.contains(&option) {
                let file = value.or_else(|| args.next()).unwrap_or_default();
                // A package that it depends on, or a file of its own.
                if file.starts_with('.') {
                    self.own_file(file, folder);
                }
            } else if !arg.starts_with('-') {
                self.own_file(arg, folder);
                return;
            }
        }
        self.lost("node");
    }

    fn own_file(&mut self, name: &str, folder: &str) {
        match node_file(self.texts, folder, name) {
            Some(file) => self.followed.file(self.texts, &file),
            None => self.lost(name),
        }
    }

    fn shell(&mut self, args: &[&str], folder: &str, depth: usize) {
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            if arg.starts_with('-') && !arg.starts_with("--") && arg.ends_with('c') {
                let line = args.next().unwrap_or_default().to_owned();
                self.line_at(&line, depth);
                return;
            }
            if !arg.starts_with(['-', '+']) {
                self.own_file(arg, folder);
                return;
            }
        }
        self.lost("a shell");
    }

    fn interpreter(&mut self, name: &str, args: &[&str], folder: &str) {
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            match arg {
                "-c" | "-e" | "-E" => {
                    let code = args.next().unwrap_or_default();
                    let language = match name {
                        "ruby" => Language::Ruby,
                        "perl" => Language::Other,
                        _ => Language::Python,
                    };
                    self.followed.inline(self.texts, language, code, folder);
                    return;
                }
                "-m" => {
                    let module = args.next().unwrap_or_default();
                    let main = format!("{module}.__main__");
                    let files = [module, &main].into_iter();
                    let files =
                        files.flat_map(|m| python_files(self.texts, folder, m, Reach::Near));
                    let files: Vec<_> = files.collect();
                    if files.is_empty() {
                        self.lost(&format!("{name} -m {module}"));
                    }
                    for file in files {
                        self.followed.file(self.texts, &file);
                    }
                    return;
                }
                arg if arg.starts_with('-') => {}
                file => {
                    self.own_file(file, folder);
                    return;
                }
            }
        }
        self.lost(name);
    }

    fn package_manager(&mut self, name: &str, args: &[&str], folder: &str, depth: usize) {
        let mut words = args.iter().copied().filter(|arg| !arg.starts_with('-'));
        let verb = words.next().unwrap_or_default();
        let script = match verb {
            "run" | "run-script" | "rum" | "urn" => words.next(),
            "test" | "t" | "tst" => Some("test"),
            "start" | "stop" | "restart" => Some(verb),
            // Bun runs files too, and all but npm run a script by its name alone.
            verb if name == "bun" && node_file(self.texts, folder, verb).is_some() => {
                self.own_file(verb, folder);
                return;
            }
            verb if name != "npm" && self.has_script(verb) => Some(verb),
            _ => None,
        };
        match script {
            // Elsewhere another package.json has the scripts.
            Some(script) if folder.is_empty() => self.script(script, depth),
            _ => self.lost(&format!("{name} {verb}")),
        }
    }

    fn has_script(&self, name: &str) -> bool {
        self.scripts.is_some_and(|s| s.get(name).is_some())
    }

    /// A script of the package, and what npm runs before and after it.
    fn script(&mut self, name: &str, depth: usize) {
        if !self.has_script(name) {
            self.lost(&format!("the script {name}"));
            return;
        }
        for name in [format!("pre{name}"), name.to_owned(), format!("post{name}")] {
            let Some(text) = self.scripts.and_then(|s| s.get(&name)) else {
                continue;
            };
            let text = script_text(text);
            if !self.known.insert(name.clone()) {
                continue;
            }
            self.runs.push((name, text.clone()));
            self.line_at(&text, depth);
        }
    }
}

/// A script as it is written.
pub(super) fn script_text(script: &Value) -> String {
    script
        .as_str()
        .map_or_else(|| script.to_string(), str::to_owned)
}

/// `NAME=value`.
fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The commands of a line, each in its words, without quotes.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    let end_word = |all: &mut Vec<Vec<String>>, word: &mut Option<String>| {
        if let (Some(word), Some(last)) = (word.take(), all.last_mut()) {
            last.push(word);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = chars.next().filter(|inner| *inner != c) {
                    // In double quotes a backslash takes the next one as it is.
                    let escaped = (c == '"' && inner == '\\').then(|| chars.next()).flatten();
                    word.push(escaped.unwrap_or(inner));
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            ';' | '&' | '|' | '\n' | '(' | ')' => {
                end_word(&mut all, &mut word);
                all.push(Vec::new());
            }
            c if c.is_whitespace() => end_word(&mut all, &mut word),
            c => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut all, &mut word);
    // Where output goes is no word of the command.
    for command in &mut all {
        command.retain(|word| !word.starts_with(['>', '<']) && !word.starts_with("2>"));
    }
    all.retain(|command| !command.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_a_shell_does() {
        let line = "A=1 node  'a b.js' && (cd x; sh -c \"npm run \\\"y\\\"\") || true >log 2>&1";
        let all = commands(line);
        let all: Vec<Vec<&str>> = all
            .iter()
            .map(|c| c.iter().map(String::as_str).collect())
            .collect();
        assert_eq!(
            all,
            [
                vec!["A=1", "node", "a b.js"],
                vec!["cd", "x"],
                vec!["sh", "-c", "npm run \"y\""],
                vec!["true"],
                vec!["1"],
            ]
        );
    }
}
