//! Python distributions by their file names: what a job asks for, and what the broker compares.
//!
//! Sources: PyPA specifications "Binary distribution format", "Source distribution file name" (PEP 625)
//! and "Names and normalization" (PEP 503).

use crate::{ids::PackageName, text};
use thiserror::Error;

/// Longest file name in bytes.
const MAX_FILE_NAME: usize = 255;

/// What kind of archive a distribution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `name-version-tags.whl`
    Wheel,
    /// `name-version.tar.gz`
    Sdist,
}

/// A distribution's file name, taken apart. Parsing takes the one normal spelling alone, so that one file
/// has one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The project, in the index's spelling (`acme-demo`).
    pub project: PackageName,
    /// The version as it stands in the name; whether it is PEP 440's normal spelling is the broker's to say.
    pub version: String,
    /// What the archive's own folder is called: `acme_demo-1.0.0`.
    pub stem: String,
    /// Its kind.
    pub form: Form,
    /// The interpreters, as the index wants them (`py3`; `source` for an sdist).
    pub python: String,
}

/// Why a file name is not a distribution's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FileNameError {
    /// Neither a wheel nor an sdist.
    #[error("'{0}' is neither a wheel (.whl) nor a source archive (.tar.gz)")]
    Kind(String),
    /// Parts missing, or characters that no part has.
    #[error(
        "'{0}' is not named like acme_demo-1.0.0-py3-none-any.whl or acme_demo-1.0.0.tar.gz; current build tools write such names"
    )]
    Shape(String),
}

impl Distribution {
    /// Takes a file name apart.
    pub fn parse(file: &str) -> Result<Self, FileNameError> {
        let shown = || text::harmless(&file.chars().take(MAX_FILE_NAME).collect::<String>());
        let shape = || FileNameError::Shape(shown());
        let (body, form) = if let Some(body) = file.strip_suffix(".whl") {
            (body, Form::Wheel)
        } else if let Some(body) = file.strip_suffix(".tar.gz") {
            (body, Form::Sdist)
        } else {
            return Err(FileNameError::Kind(shown()));
        };
        if file.len() > MAX_FILE_NAME {
            return Err(shape());
        }
        let parts: Vec<&str> = body.split('-').collect();
        let (name, version, python) = match (form, parts.as_slice()) {
            (Form::Sdist, [name, version]) => (*name, *version, "source"),
            (Form::Wheel, [name, version, python, abi, platform]) => {
                if ![python, abi, platform].iter().all(|t| is_tag(t)) {
                    return Err(shape());
                }
                (*name, *version, *python)
            }
            (Form::Wheel, [name, version, build, python, abi, platform]) => {
                let numbered = build.starts_with(|c: char| c.is_ascii_digit());
                if !numbered || ![build, python, abi, platform].iter().all(|t| is_tag(t)) {
                    return Err(shape());
                }
                (*name, *version, *python)
            }
            _ => return Err(shape()),
        };
        let project = name.replace('_', "-");
        if project_name(&project).as_ref() != Some(&project) || name.contains('.') {
            return Err(shape());
        }
        let version_ok = !version.is_empty()
            && version
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".!+".contains(&b));
        if !version_ok {
            return Err(shape());
        }
        Ok(Self {
            project: project.parse().map_err(|_| shape())?,
            version: version.to_owned(),
            stem: format!("{name}-{version}"),
            form,
            python: python.to_owned(),
        })
    }
}

/// A project's name in the index's spelling: lower case, runs of `-`, `_` and `.` as one hyphen (PEP 503).
/// `None` when it is no project's name.
pub fn project_name(name: &str) -> Option<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric();
    let ends = |b: Option<&u8>| b.is_some_and(|b| ok(*b));
    let bytes = name.as_bytes();
    if !ends(bytes.first())
        || !ends(bytes.last())
        || !bytes.iter().all(|b| ok(*b) || b"-_.".contains(b))
    {
        return None;
    }
    let words = name.split(['-', '_', '.']).filter(|w| !w.is_empty());
    Some(words.collect::<Vec<_>>().join("-").to_ascii_lowercase())
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_taken_apart() {
        let wheel = Distribution::parse("acme_demo-1.0.0-py3-none-any.whl").unwrap();
        assert_eq!(wheel.project.as_str(), "acme-demo");
        assert_eq!(
            (wheel.version.as_str(), wheel.python.as_str()),
            ("1.0.0", "py3")
        );
        assert_eq!(
            (wheel.stem.as_str(), wheel.form),
            ("acme_demo-1.0.0", Form::Wheel)
        );
        let built = "a-1!2.0rc1+local.7-1local-cp311.cp312-abi3-manylinux_2_17_x86_64.whl";
        assert_eq!(Distribution::parse(built).unwrap().python, "cp311.cp312");
        let sdist = Distribution::parse("acme_demo-1.0.0.tar.gz").unwrap();
        assert_eq!((sdist.python.as_str(), sdist.form), ("source", Form::Sdist));
    }

    #[test]
    fn attack_14_a_file_has_one_name() {
        for bad in [
            "acme-demo-1.0.0.tar.gz",
            "Acme_demo-1.0.0.tar.gz",
            "acme.demo-1.0.0.tar.gz",
            "acme__demo-1.0.0.tar.gz",
            "_acme-1.0.0.tar.gz",
            "acme-1.0.0.zip",
            "acme-1.0.0.tar.bz2",
            "acme-1.0.0.TAR.GZ",
            "acme.tar.gz",
            "-1.0.tar.gz",
            "acme-.tar.gz",
            "acme-1.0/../x.tar.gz",
            "../acme-1.0.tar.gz",
            "acme-1.0.0-py3-none.whl",
            "acme-1.0.0-x-py3-none-any.whl",
            "acme-1.0.0-1-py3-none-any-x.whl",
            "acme-1.0.0-py3-none-a%2fb.whl",
            "acme-1.0.0-py3-none-any.whl\n",
            "acme-V1-py3-none-any.whl",
            "",
            ".whl",
        ] {
            assert!(Distribution::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for name in ["Acme.Demo", "acme-demo", "ACME__demo", "acme-_.demo"] {
            assert_eq!(project_name(name).as_deref(), Some("acme-demo"), "{name}");
        }
        for bad in ["", "-a", "a-", "a b", "a/b", "\u{e9}"] {
            assert_eq!(project_name(bad), None, "{bad:?}");
        }
    }
}
