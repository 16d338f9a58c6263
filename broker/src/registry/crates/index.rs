//! The sparse index: where a crate's file lies in it, and what the file says (The Cargo Book, "Index format").

use crate::registry::{Published, ReadError, ShownFile};
use proto::{
    digest::{Algorithm, Digest, hex},
    ids::{PackageName, VersionText},
};
use semver::Version;
use serde::Deserialize;

/// One version, one line. What only resolving needs is left out.
#[derive(Deserialize)]
struct Line {
    name: String,
    vers: String,
    cksum: String,
    #[serde(default)]
    yanked: bool,
}

/// A crate's place: `1/a`, `2/ab`, `3/a/abc`, `ab/cd/abcdef`; in lower case. `None` for what is no name.
pub fn path(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if !super::is_name(&name) {
        return None;
    }
    Some(match name.len() {
        1 => format!("1/{name}"),
        2 => format!("2/{name}"),
        3 => format!("3/{}/{name}", name.get(..1)?),
        _ => format!("{}/{}/{name}", name.get(..2)?, name.get(2..4)?),
    })
}

/// An archive's address by the template in the index's settings (The Cargo Book, "Index configuration").
pub(super) fn download(
    template: &str,
    name: &str,
    version: &str,
    digest: &Digest,
) -> Option<String> {
    let place = path(name)?;
    let (lower, _) = place.rsplit_once('/')?;
    // The markers' prefix keeps the name's own case; the file's place does not.
    let prefix = match name.len() {
        3 => format!("3/{}", name.get(..1)?),
        n if n > 3 => format!("{}/{}", name.get(..2)?, name.get(2..4)?),
        _ => lower.to_owned(),
    };
    let markers = [
        ("{crate}", name),
        ("{version}", version),
        ("{prefix}", &prefix),
        ("{lowerprefix}", lower),
        ("{sha256-checksum}", &hex(digest.as_bytes())),
    ];
    if !markers.iter().any(|(marker, _)| template.contains(marker)) {
        let template = template.trim_end_matches('/');
        return Some(format!("{template}/{name}/{version}/download"));
    }
    let fill = |text: String, (marker, value): &(&str, &str)| text.replace(marker, value);
    Some(markers.iter().fold(template.to_owned(), fill))
}

/// Reads a crate's file. Yanked versions count: they are there, and cannot be published again.
pub(super) fn read(bytes: &[u8], package: &PackageName) -> Result<Published, ReadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ReadError::NotUnderstood)?;
    let mut published = Published::default();
    let mut newest: Option<Version> = None;
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|_| ReadError::NotUnderstood)?;
        // Another spelling of the name is another crate's file, or another answer than was asked for.
        if line.name != package.as_str() {
            return Err(ReadError::NotUnderstood);
        }
        let version: VersionText = line.vers.parse().map_err(|_| ReadError::NotUnderstood)?;
        let digest = format!("{}:{}", Algorithm::Sha256.name(), line.cksum);
        let digest: Digest = digest.parse().map_err(|_| ReadError::NotUnderstood)?;
        let shown = ShownFile {
            name: None,
            digest: Some(digest),
        };
        if line.yanked {
            published.withdrawn.insert(version.clone());
        }
        // A version that stands twice would be two answers to one question.
        if published.versions.insert(version, vec![shown]).is_some() {
            return Err(ReadError::NotUnderstood);
        }
        if let Ok(version) = Version::parse(&line.vers) {
            newest = newest.max(Some(version));
        }
    }
    published.newest = newest.and_then(|v| v.to_string().parse().ok());
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crates_place_follows_its_length() {
        for (name, place) in [
            ("a", "1/a"),
            ("ab", "2/ab"),
            ("abc", "3/a/abc"),
            ("abcd", "ab/cd/abcd"),
            ("Inflector", "in/fl/inflector"),
            ("acme_left", "ac/me/acme_left"),
        ] {
            assert_eq!(path(name).as_deref(), Some(place));
        }
        for bad in ["", "..", "a/b", "a%2fb", "ä", "1a", "config.json"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_download_follows_the_template() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let sum = hex(digest.as_bytes());
        for (template, want) in [
            (
                "https://h/dl",
                "https://h/dl/AcMe/1.0.0/download".to_owned(),
            ),
            (
                "https://h/{crate}-{version}.crate",
                "https://h/AcMe-1.0.0.crate".to_owned(),
            ),
            (
                "https://h/{prefix}/{lowerprefix}",
                "https://h/Ac/Me/ac/me".to_owned(),
            ),
            ("https://h/{sha256-checksum}", format!("https://h/{sum}")),
        ] {
            assert_eq!(download(template, "AcMe", "1.0.0", &digest), Some(want));
        }
        assert_eq!(download("https://h", "..", "1.0.0", &digest), None);
    }

    #[test]
    fn a_file_is_read_and_a_misleading_one_refused() {
        let package: PackageName = "left".parse().unwrap();
        let cksum = "ab".repeat(32);
        let line = |name: &str, vers: &str| {
            format!(
                r#"{{"name":"{name}","vers":"{vers}","deps":[],"cksum":"{cksum}","features":{{}},"yanked":true,"v":2}}"#
            )
        };
        let text = format!("{}\n{}\n\n", line("left", "1.10.0"), line("left", "1.9.0"));
        let published = read(text.as_bytes(), &package).unwrap();
        assert_eq!(published.versions.len(), 2);
        assert_eq!(published.newest.unwrap().as_str(), "1.10.0");
        assert_eq!(read(b"", &package).unwrap(), Published::default());
        for bad in [
            line("Left", "1.0.0"),
            format!("{}\n{}", line("left", "1.0.0"), line("left", "1.0.0")),
            line("left", "1.0.0").replace(&cksum, "abc"),
            line("left", "1.0.0").replace(r#""name":"left""#, r#""name":"left","name":"left""#),
            "<html>".to_owned(),
            "[]".to_owned(),
        ] {
            assert!(read(bad.as_bytes(), &package).is_err(), "{bad}");
        }
    }
}
