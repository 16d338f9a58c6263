//! Package names by npm's rules, and the one way from a request's path to a name.

use proto::{
    ids::{PackageName, VersionText},
    text,
};
use thiserror::Error;

/// Longest name that the registry takes, scope included.
const MAX_NAME: usize = 214;

/// Why a name or path was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Not a name that may be published.
    #[error(
        "'{0}' is not an npm package name: lower-case letters, digits, '-', '_' and '.', with at most one @scope/"
    )]
    Name(String),
    /// A path that is not one package's.
    #[error("the path '{0}' is not that of a package")]
    Path(String),
}

/// The package of a request's path, with or without its one leading slash.
///
/// Clients write `@scope%2fname`, `@scope%2Fname` or `@scope/name`. Any other percent-encoding is
/// refused instead of decoded: broker and registry might decode it differently, and a path approved
/// for one package would publish another (attack 14).
pub fn from_path(path: &str) -> Result<PackageName, NameError> {
    let bad = || NameError::Path(shown(path));
    let name = path.strip_prefix('/').unwrap_or(path);
    let name = match name.split_once('%') {
        None => name.to_owned(),
        Some((scope, rest)) => {
            let rest = rest
                .strip_prefix("2f")
                .or_else(|| rest.strip_prefix("2F"))
                .ok_or_else(bad)?;
            if !scope.starts_with('@') || scope.contains('/') || rest.contains(['%', '/']) {
                return Err(bad());
            }
            format!("{scope}/{rest}")
        }
    };
    parse(&name).map_err(|_| bad())
}

/// A name by the rules for new packages.
///
/// Upper case is refused: the registry folds case for some comparisons, so that `Left` might be
/// approved and `left` be published.
pub fn parse(name: &str) -> Result<PackageName, NameError> {
    let bad = || NameError::Name(shown(name));
    let ok = name.len() <= MAX_NAME
        && match name.strip_prefix('@') {
            None => part(name),
            Some(scoped) => scoped
                .split_once('/')
                .is_some_and(|(scope, name)| part(scope) && part(name)),
        };
    if !ok {
        return Err(bad());
    }
    name.parse().map_err(|_| bad())
}

/// The name as one path segment, as npm's clients write it.
pub fn escaped(name: &PackageName) -> String {
    name.as_str().replace('/', "%2f")
}

/// The name that npm's own `npm pack` gives an archive; shown to people, never compared.
pub fn file_name(name: &PackageName, version: &VersionText) -> String {
    let flat = name.as_str().trim_start_matches('@').replace('/', "-");
    format!("{flat}-{version}.tgz")
}

/// A leading dot would make `..`, a leading hyphen a route (`/-/`) or a command's option.
fn part(s: &str) -> bool {
    !s.is_empty()
        && !s.starts_with(['.', '_', '-'])
        && !["node_modules", "favicon.ico"].contains(&s)
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

fn shown(s: &str) -> String {
    text::harmless(&s.chars().take(MAX_NAME).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_meaning() {
        for path in [
            "/@acme%2fleft",
            "/@acme%2Fleft",
            "/@acme/left",
            "@acme/left",
        ] {
            assert_eq!(from_path(path).unwrap().as_str(), "@acme/left", "{path}");
        }
        assert_eq!(from_path("/left-pad.js").unwrap().as_str(), "left-pad.js");
        assert_eq!(escaped(&"@acme/left".parse().unwrap()), "@acme%2fleft");
    }

    #[test]
    fn attack_14_paths_that_parsers_read_differently_are_refused() {
        for path in [
            "",
            "/",
            "//left",
            "/left/",
            "/left//",
            "/../left",
            "/@acme/..",
            "/@acme%2f..",
            "/@acme%2f%2e%2e",
            "/%40acme%2fleft",
            "/l%65ft",
            "/@acme%252fleft",
            "/@acme%2fleft%2fx",
            "/@acme/left/x",
            "/@acme%5cleft",
            "/@acme\\left",
            "/left?x",
            "/left#x",
            "/left%00",
            "/left%0a",
            "/Left",
            "/@Acme/left",
            "/-/npm",
            "/-",
            "/@acme",
            "/@/left",
            "/@acme/",
            "/.left",
            "/_left",
            "/lëft",
            "/left pad",
            "/a/b",
            "/a%2fb",
            "/@a%2fb/-rev/1",
            "/@a/@b/c",
            "/node_modules",
            "/@a%2f@b%2fc",
        ] {
            assert!(from_path(path).is_err(), "{path:?}");
        }
        assert!(from_path(&"a".repeat(215)).is_err());
        assert!(from_path(&"a".repeat(214)).is_ok());
    }
}
