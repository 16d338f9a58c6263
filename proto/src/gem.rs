//! What a gem says of itself, read so strictly that no reader of YAML can see another name in it.
//!
//! `metadata.gz` is one YAML document, written by Ruby's own library, with one mapping at its top. Only three of its
//! fields count here, and Ruby writes them first. A whole YAML reader is no help: two of them differ, and Ruby's makes
//! objects of it. So the document begins with these very lines at the margin. With them the mapping has begun at the
//! margin for every reader, and nothing stands before them that they could be a part of. What follows is looked at
//! where it stands at the margin: keys that Ruby's tools know, each once and none of them quoted, tagged, merged or an
//! alias. Whatever else a reader makes of the other lines, it sees these names.

use crate::ids::{PackageName, VersionText};
use std::{
    collections::BTreeSet,
    iter::{Enumerate, Peekable},
    str::Split,
};
use thiserror::Error;

/// The document's beginning.
const HEAD: &str = "--- !ruby/object:Gem::Specification";
/// The version's beginning; the version itself is the line behind it.
const VERSION: &str = "!ruby/object:Gem::Version";
/// Longest name, version or platform, in bytes.
const WORD_MAX: usize = 200;
/// The other fields of a specification, of today's tools and of older ones. Ruby makes a variable of its object of
/// every key, also of one that is none of these, and what it does with that is another question in each version.
const KEYS: [&str; 29] = [
    "authors",
    "autorequire",
    "bindir",
    "cert_chain",
    "date",
    "default_executable",
    "dependencies",
    "description",
    "email",
    "executables",
    "extensions",
    "extra_rdoc_files",
    "files",
    "has_rdoc",
    "homepage",
    "licenses",
    "metadata",
    "post_install_message",
    "rdoc_options",
    "require_paths",
    "required_ruby_version",
    "required_rubygems_version",
    "requirements",
    "rubyforge_project",
    "rubygems_version",
    "signing_key",
    "specification_version",
    "summary",
    "test_files",
];

/// Which gem it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gem {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: VersionText,
    /// `ruby`, or the one platform that it is built for.
    pub platform: String,
}

/// Why a gem's metadata were refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GemError {
    /// Not the document that Ruby writes.
    #[error("the gem's metadata are not written as Ruby's own tools write them (line {0})")]
    Shape(usize),
    /// A field that is missing, or not where Ruby writes it.
    #[error("the gem's metadata do not begin with its name, version and platform (no {0} there)")]
    Field(&'static str),
    /// A value that readers read differently.
    #[error("the gem's {0} is not plain")]
    Value(&'static str),
}

impl Gem {
    /// Reads `metadata.gz`, unpacked.
    pub fn read(metadata: &str) -> Result<Self, GemError> {
        let mut lines = metadata.split('\n').enumerate().peekable();
        match lines.next() {
            Some((_, head)) if head.trim_end_matches(' ') == HEAD => {}
            _ => return Err(GemError::Shape(1)),
        }
        let name = word("name", first(&mut lines, "name", "name: ")?)?;
        if first(&mut lines, "version", "version: ")?.trim_end_matches(' ') != VERSION {
            return Err(GemError::Value("version"));
        }
        let version = word("version", first(&mut lines, "version", "  version: ")?)?;
        let platform = word("platform", first(&mut lines, "platform", "platform: ")?)?;
        others(lines)?;
        if !is_name(&name) {
            return Err(GemError::Value("name"));
        }
        if !is_version(&version) {
            return Err(GemError::Value("version"));
        }
        Ok(Self {
            name: name.parse().map_err(|_| GemError::Value("name"))?,
            version: version.parse().map_err(|_| GemError::Value("version"))?,
            platform,
        })
    }

    /// The file's name at a registry: `left-1.4.2.gem`, `left-1.4.2-java.gem`.
    pub fn file_name(&self) -> String {
        file_name(&self.name, &self.version, &self.platform)
    }
}

type Lines<'t> = Peekable<Enumerate<Split<'t, char>>>;

/// What follows on a line that must be the next one and begin so.
fn first<'t>(lines: &mut Lines<'t>, field: &'static str, begin: &str) -> Result<&'t str, GemError> {
    let value = lines.next().and_then(|(_, line)| line.strip_prefix(begin));
    value.ok_or(GemError::Field(field))
}

/// The other fields: a key at the margin, and what belongs to it below.
fn others(lines: Lines<'_>) -> Result<(), GemError> {
    let mut seen = BTreeSet::new();
    for (n, line) in lines {
        let bad = GemError::Shape(n + 1);
        // The only controls are the line ends; others end a line for some readers.
        if line
            .chars()
            .any(|c| c.is_control() || "\u{2028}\u{2029}\u{feff}".contains(c))
        {
            return Err(bad);
        }
        let deeper =
            line.is_empty() || line.starts_with(' ') || line == "-" || line.starts_with("- ");
        if deeper {
            // To the three first fields nothing belongs, not even behind an empty line.
            if seen.is_empty() {
                return Err(bad);
            }
            continue;
        }
        let (key, value) = line.split_once(':').ok_or(GemError::Shape(n + 1))?;
        let ends = value.is_empty() || value.starts_with(' ');
        if !ends || !KEYS.contains(&key) || !seen.insert(key) {
            return Err(bad);
        }
    }
    Ok(())
}

/// The name of a gem's file.
pub fn file_name(name: &PackageName, version: &VersionText, platform: &str) -> String {
    match platform {
        "ruby" => format!("{name}-{version}.gem"),
        other => format!("{name}-{version}-{other}.gem"),
    }
}

/// Letters, digits, `.`, `-`, `_`; a letter among them, and neither a dot nor a dash first, as the public
/// registry wants it.
pub fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(first)
        && name.bytes().any(|b| b.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Parts of letters and digits between dots, the first one digits. Ruby reads a dash as `.pre.`, so that one version
/// would have two spellings: refused.
pub fn is_version(version: &str) -> bool {
    let mut parts = version.split('.');
    parts
        .next()
        .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts.all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Letters, digits, `.`, `-`, `_`.
pub fn is_platform(platform: &str) -> bool {
    platform.starts_with(|c: char| c.is_ascii_alphanumeric())
        && platform
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A text that is a text to every reader: quoted, or plain and neither number, date, truth nor nothing.
fn word(field: &'static str, value: &str) -> Result<String, GemError> {
    let quoted = ['"', '\'']
        .iter()
        .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
    let text = quoted.unwrap_or(value);
    if !is_platform(text.trim_start_matches('_')) || text.len() > WORD_MAX {
        return Err(GemError::Value(field));
    }
    if quoted.is_none() && is_something_else(text) {
        return Err(GemError::Value(field));
    }
    Ok(text.to_owned())
}

/// Whether a plain text means something else than itself in YAML 1.1 or 1.2.
fn is_something_else(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let lower = text.to_ascii_lowercase();
    let numeric = text.starts_with(|c: char| c.is_ascii_digit());
    // `1.4.2` is a text; `1.4`, `14`, `0x1f`, `1e5` and `2026-11-21` may be something else.
    let number = numeric && (text.matches('.').count() < 2 || text.contains('-'));
    number || lower == "null" || WORDS.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "--- !ruby/object:Gem::Specification\nname: acme-left\nversion: !ruby/object:Gem::Version\n  version: 1.4.2\nplatform: ruby\nauthors:\n- Acme\nbindir: bin\ndescription: |-\n  name: evil\n\n  more\ndependencies:\n- !ruby/object:Gem::Dependency\n  name: rake\n  requirement: !ruby/object:Gem::Requirement\n    requirements:\n    - - \">=\"\n      - !ruby/object:Gem::Version\n        version: '0'\nmetadata: {}\nrubygems_version: 3.3.15\n";

    #[test]
    fn what_ruby_writes_is_read() {
        let gem = Gem::read(GOOD).unwrap();
        assert_eq!(
            (gem.name.as_str(), gem.version.as_str()),
            ("acme-left", "1.4.2")
        );
        assert_eq!(gem.file_name(), "acme-left-1.4.2.gem");
        let java = Gem::read(&GOOD.replace("platform: ruby", "platform: java")).unwrap();
        assert_eq!(java.file_name(), "acme-left-1.4.2-java.gem");
        let quoted = Gem::read(&GOOD.replace("version: 1.4.2", "version: '1.4'")).unwrap();
        assert_eq!(quoted.version.as_str(), "1.4");
    }

    #[test]
    fn attack_14_metadata_that_readers_read_differently_are_refused() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replacen(from, to, 1)
        };
        for bad in [
            with("name: acme-left", "name: acme-left\nname: evil"),
            with("name: acme-left", "\"name\": evil\nname: acme-left"),
            with("name: acme-left", "? name\n: evil\nname: acme-left"),
            with("name: acme-left", "<<: *base\nname: acme-left"),
            with("name: acme-left", "!!str name: evil\nname: acme-left"),
            with("name: acme-left", "name: *other"),
            with("name: acme-left", "name: &a acme-left"),
            with("name: acme-left", "name: !ruby/object:Evil acme"),
            with("name: acme-left", "name: \"acme\\x2dleft\""),
            with("name: acme-left", "name: acme-left # evil"),
            with("name: acme-left", "name: |-\n  acme-left"),
            with("name: acme-left", "name: true"),
            with("name: acme-left", "name: null"),
            with("name: acme-left", "name: 0x1f"),
            with("name: acme-left", "name: ../evil"),
            with("name: acme-left", " name: acme-left"),
            with("name: acme-left\n", ""),
            with("name: acme-left", "name: acme-left\r\nname: evil"),
            with("name: acme-left", "name: acme-left\u{85}name: evil"),
            with("name: acme-left", "{name: evil}\nname: acme-left"),
            with("version: 1.4.2", "version: 1.4"),
            with("version: 1.4.2", "version: 14"),
            with("version: 1.4.2", "version: 1.4.2-beta"),
            with("version: 1.4.2", "version: 1.4.2\n  version: 9.9.9"),
            with("version: 1.4.2", "version: 1.4.2\n  prerelease: true"),
            with("!ruby/object:Gem::Version\n  version: 1.4.2", "1.4.2"),
            with(
                "!ruby/object:Gem::Version\n  version: 1.4.2",
                "\n  version: 1.4.2",
            ),
            with(
                "platform: ruby",
                "platform: !ruby/object:Gem::Platform\n  cpu: x86",
            ),
            with("platform: ruby\n", ""),
            with("metadata: {}", "metadata: {}\n---\nname: evil"),
            with("metadata: {}", "metadata: {}\n...\nname: evil"),
            with("metadata: {}", "metadata: {}\nplatform: java"),
            with("--- !ruby", "%YAML 1.1\n--- !ruby"),
            with("Gem::Specification", "Gem::Evil"),
            String::new(),
        ] {
            assert!(Gem::read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attack_14_a_gem_whose_first_key_is_indented_is_refused() {
        let right = "name: acme-left\nversion: !ruby/object:Gem::Version\n  version: 1.4.2\nplatform: ruby\n";
        let evil = "name: acme-core\n version: !ruby/object:Gem::Version\n  version: 9.9.9\n platform: ruby\n";
        // What stands at the margin is a part of a quoted text, for Ruby.
        let hidden = |open: &str, close: &str| {
            format!("{HEAD}\n{open}\n{right}{close} {evil}metadata: {{}}\n")
        };
        for bad in [
            hidden(" description: \"", "  \"\n"),
            hidden(" description: '", "  '\n"),
            hidden(" ? \"", "  \"\n : x\n"),
            hidden(" {description: \"", "  \",\n"),
            hidden("\n description: \"", "  \"\n"),
            hidden("# x\n description: \"", "  \"\n"),
            hidden("authors: \"", "  \"\n"),
        ] {
            assert!(Gem::read(&bad).is_err(), "{bad}");
        }
        for (from, to) in [
            // The field goes on, at once or behind an empty line.
            ("name: acme-left", "name: acme-left\n  -evil"),
            ("name: acme-left", "name: acme-left\n\n  -evil"),
            ("platform: ruby", "platform: x\n  -evil"),
            ("platform: ruby", "platform: x\n\n  -evil"),
            ("version: 1.4.2", "version: 1.4.2\n\n  version: 9.9.9"),
            ("version: 1.4.2", "version: 1.4.2\n# x\n  version: 9.9.9"),
            // Ruby makes a variable of its object of every key.
            ("bindir: bin", "bindir: bin\nfull_name: acme-core-9.9.9"),
            ("bindir: bin", "bindir: bin\nbindir: evil"),
            ("name: acme-left\n", "\nname: acme-left\n"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let bad = GOOD.replacen(from, to, 1);
            assert!(Gem::read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_versions_and_platforms() {
        for good in ["a", "acme-left", "_x", "a.b", "1a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1", "-a", ".a", "a/b", "a b", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
        for good in ["0", "1.4.2", "1.0.rc1", "1.2.pre.3"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "v1", "1..2", "1.", "1-2", "1.2+x"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
