//! Core metadata: what a distribution says of itself (METADATA in a wheel, PKG-INFO in an sdist), and what
//! the upload's form says of it. The index is filled from the form, so both must say the same (attack 13).
//!
//! Source: PyPA specification "Core metadata specifications", versions 1.0 to 2.5.

use super::version;
use proto::{distribution::project_name, text};
use std::collections::BTreeMap;
use thiserror::Error;

/// Length of METADATA or PKG-INFO.
pub(super) const MAX_METADATA: u64 = 4 << 20;

/// Why a distribution's own metadata were refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// Not of the format.
    #[error("the archive's metadata are damaged: {0}")]
    Shape(&'static str),
    /// A field that may stand there once stands there twice.
    #[error("the archive's metadata have '{0}' twice")]
    Twice(&'static str),
    /// The form says something else than the archive.
    #[error("the upload's '{0}' is not what the archive's metadata say")]
    Differs(&'static str),
}

/// How often a field may stand there, and how its values are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Many {
    One,
    /// Words between commas.
    Words,
    Several,
}

/// A field: its name in the form, its header, and how many.
struct Field {
    form: &'static str,
    /// Another name that some clients write.
    alias: Option<&'static str>,
    header: &'static str,
    many: Many,
}

const fn one(form: &'static str, header: &'static str) -> Field {
    Field {
        form,
        alias: None,
        header,
        many: Many::One,
    }
}

const fn several(form: &'static str, alias: Option<&'static str>, header: &'static str) -> Field {
    Field {
        form,
        alias,
        header,
        many: Many::Several,
    }
}

/// The one table of metadata fields.
const FIELDS: [Field; 32] = [
    one("metadata_version", "metadata-version"),
    one("name", "name"),
    one("version", "version"),
    one("summary", "summary"),
    one("description", "description"),
    one("description_content_type", "description-content-type"),
    Field {
        form: "keywords",
        alias: None,
        header: "keywords",
        many: Many::Words,
    },
    one("home_page", "home-page"),
    one("download_url", "download-url"),
    one("author", "author"),
    one("author_email", "author-email"),
    one("maintainer", "maintainer"),
    one("maintainer_email", "maintainer-email"),
    one("license", "license"),
    one("license_expression", "license-expression"),
    one("requires_python", "requires-python"),
    several("classifiers", Some("classifier"), "classifier"),
    several("platform", Some("platforms"), "platform"),
    several(
        "supported_platform",
        Some("supported_platforms"),
        "supported-platform",
    ),
    several("requires_dist", None, "requires-dist"),
    several("requires_external", None, "requires-external"),
    several("provides_dist", None, "provides-dist"),
    several("obsoletes_dist", None, "obsoletes-dist"),
    several("project_urls", Some("project_url"), "project-url"),
    several("provides_extra", Some("provides_extras"), "provides-extra"),
    several("license_file", Some("license_files"), "license-file"),
    several("dynamic", None, "dynamic"),
    several("import_name", Some("import_names"), "import-name"),
    several(
        "import_namespace",
        Some("import_namespaces"),
        "import-namespace",
    ),
    several("requires", None, "requires"),
    several("provides", None, "provides"),
    several("obsoletes", None, "obsoletes"),
];

/// Every field's values by its name in the form.
pub(super) type Values = BTreeMap<&'static str, Vec<String>>;

/// The form's field of this name: the table's name for it, and whether it may stand there once only.
pub(super) fn field(name: &str) -> Option<(&'static str, bool)> {
    FIELDS
        .iter()
        .find(|f| f.form == name || f.alias == Some(name))
        .map(|f| (f.form, f.many != Many::Several))
}

/// Reads METADATA or PKG-INFO: headers, and perhaps the description as the body.
pub(super) fn read(bytes: &[u8]) -> Result<Values, MetadataError> {
    let bad = MetadataError::Shape;
    let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
    if text.contains('\0') || text.starts_with('\u{feff}') {
        return Err(bad("a NUL or a byte order mark"));
    }
    let text = text.replace("\r\n", "\n");
    let (head, body) = text
        .split_once("\n\n")
        .unwrap_or((text.strip_suffix('\n').unwrap_or(&text), ""));
    if head.contains('\r') {
        return Err(bad("a bare carriage return"));
    }
    let mut out = Values::new();
    let mut current: Option<&'static str> = None;
    for line in head.split('\n') {
        if line.starts_with([' ', '\t']) {
            let form = current.ok_or(bad("a continued line without a header"))?;
            if let Some(value) = out.get_mut(form).and_then(|v| v.last_mut()) {
                value.push('\n');
                value.push_str(line);
            }
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(bad("a line without a colon"))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(bad("a header's name"));
        }
        let name = name.to_ascii_lowercase();
        // A header that the index does not know is of no concern here; its continued lines go nowhere.
        let known = FIELDS.iter().find(|f| f.header == name);
        let form = known.map_or("", |f| f.form);
        let values = out.entry(form).or_default();
        if known.is_some_and(|f| f.many != Many::Several) && !values.is_empty() {
            return Err(MetadataError::Twice(form));
        }
        values.push(value.trim().to_owned());
        current = Some(form);
    }
    out.remove("");
    if !body.trim().is_empty() {
        let before = out.insert("description", vec![body.to_owned()]);
        if before.is_some() {
            return Err(MetadataError::Twice("description"));
        }
    }
    for values in out.values_mut() {
        values.retain(|v| !is_nothing(v));
    }
    out.retain(|_, values| !values.is_empty());
    Ok(out)
}

/// The one value of a field that must be there.
pub(super) fn required<'a>(
    values: &'a Values,
    field: &'static str,
) -> Result<&'a str, MetadataError> {
    match values.get(field).map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => Err(MetadataError::Shape(
            "name, version or metadata version is missing",
        )),
    }
}

/// Whether the form says nothing that the archive does not say. What it leaves out is taken from the archive.
pub(super) fn agree(form: &Values, archive: &Values) -> Result<(), MetadataError> {
    for field in &FIELDS {
        let Some(said) = form.get(field.form).filter(|v| !v.is_empty()) else {
            continue;
        };
        let there = archive.get(field.form).map_or(&[][..], Vec::as_slice);
        if !same(field, said, there) {
            return Err(MetadataError::Differs(field.form));
        }
    }
    Ok(())
}

fn same(field: &Field, said: &[String], there: &[String]) -> bool {
    let each = |values: &[String], of: fn(&str) -> String| -> Vec<String> {
        let mut all: Vec<_> = values.iter().map(|v| of(v)).collect();
        all.sort();
        all
    };
    match (field.form, field.many) {
        ("name", _) => match (said, there) {
            ([a], [b]) => project_name(a).is_some() && project_name(a) == project_name(b),
            _ => false,
        },
        ("version", _) => match (said, there) {
            ([a], [b]) => version::normal(a).is_some() && version::normal(a) == version::normal(b),
            _ => false,
        },
        // What flit's form has beside its archive's own: an older number of the format, and the project as what it
        // provides (of PEP 314, and obsolete). Nobody is told of either, and neither is sent on.
        ("metadata_version", _) => {
            matches!(said, [v] if v.split('.').all(|n| n.parse::<u8>().is_ok()))
        }
        ("provides", _) => there.is_empty() || each(said, plain) == each(there, plain),
        (_, Many::Words) => words(said) == words(there),
        // Clients indent, trim and quote; they do not reword.
        ("requires_dist", _) => each(said, requirement) == each(there, requirement),
        _ => each(said, plain) == each(there, plain),
    }
}

/// Keywords, as old and new tools separate them.
fn words(values: &[String]) -> Vec<&str> {
    let mut all: Vec<&str> = values
        .iter()
        .flat_map(|v| {
            if v.contains(',') {
                v.split(',').collect::<Vec<_>>()
            } else {
                v.split_whitespace().collect()
            }
        })
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect();
    all.sort_unstable();
    all
}

/// Without the indentation of continued lines (`|` marks them in old metadata) and blank differences.
fn plain(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for line in value.lines() {
        let line = line.trim_start();
        for word in line.strip_prefix('|').unwrap_or(line).split_whitespace() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
    out
}

/// A requirement without blanks, and with one kind of quotes.
fn requirement(value: &str) -> String {
    value
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if c == '"' { '\'' } else { c })
        .collect()
}

/// Old tools write this where there is nothing to say.
fn is_nothing(value: &str) -> bool {
    let value = value.trim();
    value.is_empty() || value == "UNKNOWN"
}

/// The form's values without those that say nothing.
pub(super) fn said(mut form: Values) -> Values {
    for values in form.values_mut() {
        values.retain(|v| !is_nothing(v));
    }
    form
}

/// A field's name in a form that a message may show.
pub(super) fn shown(name: &str) -> String {
    text::harmless(&name.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "Metadata-Version: 2.5\nName: acme-demo\nVersion: 1.0.0\nSummary: A demo, \u{e9}\n\
        Project-URL: Home, https://example.org\nAuthor-email: Ann <ann@example.org>\nKeywords: a,b c\n\
        Classifier: Typing :: Typed\nClassifier: Programming Language :: Python\nRequires-Python: >=3.9\n\
        Requires-Dist: idna\nRequires-Dist: six; extra == 'x'\nX-Odd: folded\n  away\n\n# Demo\n\nText\n";

    fn form(fields: &[(&'static str, &str)]) -> Values {
        let mut out = Values::new();
        for (name, value) in fields {
            out.entry(name).or_default().push((*value).to_owned());
        }
        out
    }

    #[test]
    fn every_field_stands_once_in_the_table() {
        let mut names = std::collections::BTreeSet::new();
        for f in &FIELDS {
            assert!(names.insert(f.form), "{}", f.form);
            assert!(f.alias.is_none_or(|a| names.insert(a)), "{}", f.form);
            assert_eq!(f.header, f.header.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_usual_file_is_read_and_agrees_with_what_clients_write() {
        let read = read(USUAL.as_bytes()).unwrap();
        assert_eq!(required(&read, "name"), Ok("acme-demo"));
        assert_eq!(read["classifiers"].len(), 2);
        assert_eq!(read["description"], ["# Demo\n\nText\n"]);
        let twine = form(&[
            ("metadata_version", "1.0"),
            ("provides", "acme-demo"),
            ("name", "acme-demo"),
            ("version", "1.0.0"),
            ("keywords", "a, b c"),
            ("summary", "A demo, \u{e9}"),
            ("requires_dist", "six ; extra == \"x\""),
            ("requires_dist", "idna"),
            ("description", "# Demo\r\n\r\nText"),
        ]);
        assert_eq!(agree(&twine, &read), Ok(()));
        assert_eq!(
            agree(
                &said(form(&[("license", "UNKNOWN"), ("author", "")])),
                &read
            ),
            Ok(())
        );
        let crlf = USUAL.replace('\n', "\r\n");
        assert_eq!(super::read(crlf.as_bytes()).unwrap()["name"], ["acme-demo"]);
    }

    #[test]
    fn old_metadata_have_the_description_in_a_header() {
        let old = "Metadata-Version: 1.1\nName: a\nVersion: 1\nDescription: First\n        \n        |Second line\nLicense: UNKNOWN\n";
        let read = read(old.as_bytes()).unwrap();
        assert!(!read.contains_key("license"));
        let client = form(&[("description", "First\n\nSecond line")]);
        assert_eq!(agree(&client, &read), Ok(()));
    }

    #[test]
    fn attack_13_the_form_says_something_else_than_the_archive() {
        let read = read(USUAL.as_bytes()).unwrap();
        for (field, value) in [
            ("name", "acme-evil"),
            ("version", "1.0.1"),
            ("metadata_version", "new"),
            ("summary", "Another"),
            ("description", "# Demo"),
            ("requires_dist", "evil"),
            ("requires_python", ">=2"),
            ("project_urls", "Home, https://evil.example"),
            ("keywords", "a"),
            ("license", "MIT"),
            ("author_email", "eve@example.org"),
            ("classifiers", "Typing :: Typed"),
        ] {
            let lie = form(&[(field, value)]);
            assert_eq!(agree(&lie, &read), Err(MetadataError::Differs(field)));
        }
        let more = form(&[
            ("requires_dist", "idna"),
            ("requires_dist", "six; extra=='x'"),
            ("requires_dist", "evil"),
        ]);
        assert!(agree(&more, &read).is_err());
    }

    #[test]
    fn attack_14_metadata_that_parsers_read_differently_are_refused() {
        for bad in [
            "Name: a\nName: b\n",
            "Name: a\nNAME: a\n",
            "Name: a\nnot a header\n",
            " Name: a\n",
            "Name : a\n",
            "N\u{e4}me: a\n",
            "Name: a\rVersion: 1\n",
            "Name: a\0\n",
            "\u{feff}Name: a\n",
            ": a\n",
            "Description: a\n\nb\n",
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(read(b"Name: \xff\n").is_err());
        // A line of blanks is a continued one, not the end of the headers.
        let hidden = read(b"Name: a\n \nVersion: 1\n").unwrap();
        assert_eq!(hidden["version"], ["1"]);
    }
}
