//! Versions as Python's tools compare them (PEP 440, now "Version specifiers").

use pep440_rs::Version;
use std::str::FromStr as _;

/// The normal spelling of a version; `None` when it is none.
pub(super) fn normal(text: &str) -> Option<String> {
    // The parser takes blanks around it, which no name and no URL should have.
    if text.len() > 128 || text.trim() != text || !text.is_ascii() {
        return None;
    }
    Version::from_str(text).ok().map(|v| v.to_string())
}

/// The newest of these versions.
pub(super) fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions
        .filter_map(|v| Some((Version::from_str(v).ok()?, v)))
        .max()
        .map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_has_one_spelling() {
        for (text, want) in [
            ("1.0.0", "1.0.0"),
            ("1.0-RC1", "1.0rc1"),
            ("v1.0.post-2", "1.0.post2"),
            ("1!2.0+Local.7", "1!2.0+local.7"),
            ("01.2", "1.2"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(want), "{text}");
        }
        for bad in ["", " 1.0", "1.0\n", "1..0", "latest", "1.0-", "\u{661}.0"] {
            assert_eq!(normal(bad), None, "{bad:?}");
        }
        assert_eq!(
            newest(["1.9", "1.10rc1", "x", "1.10.dev1"].into_iter()),
            Some("1.10rc1")
        );
    }
}
