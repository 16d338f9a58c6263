//! The compact index: one text for each gem, one line for each version and platform.
//!
//! `1.4.2-java dep:>= 1.0|checksum:<sha256>,ruby:>= 2.7` behind a line `---`. The format is RubyGems' "Compact Index API".

use crate::registry::{Published, ReadError, ShownFile};
use proto::{
    digest::{Algorithm, Digest},
    gem::{file_name, is_version},
    ids::{PackageName, VersionText},
};

/// Reads a gem's text.
pub(super) fn read(bytes: &[u8], package: &PackageName) -> Result<Published, ReadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ReadError::NotUnderstood)?;
    let mut lines = text.lines();
    if lines.next() != Some("---") {
        return Err(ReadError::NotUnderstood);
    }
    let mut published = Published::default();
    for line in lines {
        let (head, _) = line.split_once(' ').ok_or(ReadError::NotUnderstood)?;
        let (number, platform) = head.split_once('-').unwrap_or((head, "ruby"));
        if !is_version(number) {
            return Err(ReadError::NotUnderstood);
        }
        let version: VersionText = number.parse().map_err(|_| ReadError::NotUnderstood)?;
        // Everything behind the bar is `key:value` between commas.
        let (_, facts) = line.rsplit_once('|').ok_or(ReadError::NotUnderstood)?;
        let mut sums = facts.split(',').filter_map(|f| f.strip_prefix("checksum:"));
        let digest = match (sums.next(), sums.next()) {
            (None, _) => None,
            (Some(hex), None) => {
                let text = format!("{}:{hex}", Algorithm::Sha256.name());
                Some(
                    text.parse::<Digest>()
                        .map_err(|_| ReadError::NotUnderstood)?,
                )
            }
            (Some(_), Some(_)) => return Err(ReadError::NotUnderstood),
        };
        let name = file_name(package, &version, platform);
        let files = published.versions.entry(version.clone()).or_default();
        // A file that stands twice would be two answers to one question.
        if files.iter().any(|f| f.name.as_deref() == Some(&name)) {
            return Err(ReadError::NotUnderstood);
        }
        files.push(ShownFile {
            name: Some(name),
            digest,
        });
        // They stand in the order in which they came.
        published.newest = Some(version);
    }
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_platforms_and_checksums_are_read() {
        let package = "acme-left".parse().unwrap();
        let sum = "ab".repeat(32);
        let text = format!(
            "---\n1.0.0 |checksum:{sum}\n1.4.2 rake:>= 1.0&< 3,x:= 1|checksum:{sum},ruby:>= 2.7\n1.4.2-java |checksum:{sum}\n"
        );
        let published = read(text.as_bytes(), &package).unwrap();
        assert_eq!(published.versions.len(), 2);
        let newest = published.newest.clone().unwrap();
        let files = &published.versions[&newest];
        assert_eq!(files[1].name.as_deref(), Some("acme-left-1.4.2-java.gem"));
        assert_eq!(
            files[0].digest.as_ref().unwrap().to_string(),
            format!("sha256:{sum}")
        );
        for bad in [
            "<html>",
            "---\n<html>\n",
            "---\n1.0.0 |checksum:zz\n",
            &format!("---\n1.0.0 |checksum:{sum}\n1.0.0 |checksum:{sum}\n"),
            &format!("---\n1.0.0 |checksum:{sum},checksum:{sum}\n"),
        ] {
            assert!(read(bad.as_bytes(), &package).is_err(), "{bad}");
        }
    }
}
