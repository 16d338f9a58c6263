//! Reads what a registry shows of a package: `GET /{package}`, as a stream.

use super::json::{JsonError, Strict};
use crate::registry::{Published, ShownFile};
use proto::{
    digest::{Algorithm, Digest},
    ids::VersionText,
    time::UnixTime,
};
use std::{collections::BTreeMap, io::Read};

/// Longest tag that is looked at, in bytes.
const TAG_MAX: usize = 214;

/// Reads a package document, full or abbreviated.
pub(super) fn read(input: impl Read, max: u64) -> Result<Published, JsonError> {
    let mut json = Strict::skimming(input, max);
    let mut out = Published::default();
    json.object(|json, name| match name {
        "versions" => json.object(|json, version| {
            let dist = version_dist(json)?;
            // A version that nobody could name in a request is of no concern here.
            if let Ok(version) = version.parse() {
                let file = ShownFile {
                    name: None,
                    digest: dist.digest,
                };
                if let Some(place) = dist.tarball {
                    let places = BTreeMap::from([(String::new(), place)]);
                    out.places.insert(VersionText::clone(&version), places);
                }
                out.versions.insert(version, vec![file]);
            }
            Ok(())
        }),
        "dist-tags" => json.object(|json, tag| {
            let version = json.text()?;
            // A tag that nobody could name in a request is of no concern either.
            if let (true, Ok(version)) = (tag.len() <= TAG_MAX, version.parse()) {
                out.tags.insert(tag.to_owned(), version);
            }
            Ok(())
        }),
        "time" => json.object(|json, version| {
            let time = json.text()?.parse::<jiff::Timestamp>().ok();
            let time = time.and_then(|t| u64::try_from(t.as_second()).ok());
            if let (Some(time), Ok(version)) = (time, version.parse()) {
                out.times.insert(version, UnixTime(time));
            }
            Ok(())
        }),
        _ => json.skip(),
    })?;
    json.finish()?;
    out.latest = out.tags.get("latest").cloned();
    out.newest = newest(out.versions.keys());
    Ok(out)
}

/// What matters of one version's `dist`.
struct Dist {
    digest: Option<Digest>,
    tarball: Option<String>,
}

/// `dist.integrity` and `dist.tarball` of one version.
fn version_dist<R: Read>(json: &mut Strict<R>) -> Result<Dist, JsonError> {
    let mut integrity = None;
    let mut tarball = None;
    json.object(|json, field| match field {
        "dist" => json.object(|json, field| match field {
            "integrity" => {
                integrity = Some(json.text()?);
                Ok(())
            }
            "tarball" => {
                tarball = Some(json.text()?);
                Ok(())
            }
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    let all = integrity.unwrap_or_default();
    // Several hashes may stand there; two of the same kind would leave a choice.
    let mut found = all
        .split_ascii_whitespace()
        .filter_map(|sri| Digest::from_sri(sri).ok())
        .filter(|d| d.algorithm() == Algorithm::Sha512);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(JsonError::Syntax),
        (digest, None) => Ok(Dist { digest, tarball }),
    }
}

/// The highest version by semver's order, pre-releases included.
fn newest<'a>(versions: impl Iterator<Item = &'a VersionText>) -> Option<VersionText> {
    versions
        .filter_map(|v| Some((v.as_str().parse::<semver::Version>().ok()?, v)))
        .max()
        .map(|(_, v)| v.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_and_the_newest() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let text = format!(
            r#"{{"name":"a","versions":{{"1.9.0":{{"dist":{{"integrity":"{}","shasum":"x"}}}},
               "1.10.0":{{"dist":{{"shasum":"x"}}}},"not a version":{{}}}},
               "dist-tags":{{"latest":"1.9.0"}},"readme":"{}"}}"#,
            digest.sri(),
            "x".repeat(100_000)
        );
        let read = read(text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(read.newest.as_ref().unwrap().as_str(), "1.10.0");
        assert_eq!(read.versions.len(), 2);
        assert_eq!(read.tags["latest"].as_str(), "1.9.0");
        let shown = |version: &str| read.versions[&version.parse().unwrap()][0].digest.clone();
        assert_eq!(shown("1.9.0"), Some(digest));
        assert_eq!(shown("1.10.0"), None);
    }

    #[test]
    fn a_document_with_a_choice_is_refused() {
        let (a, b) = (
            Digest::of(Algorithm::Sha512, b"a").sri(),
            Digest::of(Algorithm::Sha512, b"b").sri(),
        );
        for dist in [
            format!(r#"{{"integrity":"{a} {b}"}}"#),
            format!(r#"{{"integrity":"{a}","integrity":"{b}"}}"#),
        ] {
            let text = format!(r#"{{"versions":{{"1.0.0":{{"dist":{dist}}}}}}}"#);
            assert!(read(text.as_bytes(), 1 << 20).is_err(), "{text}");
        }
        assert!(read(&b"<html>"[..], 1 << 20).is_err());
        let long = format!("{{}}{}", " ".repeat(200_000));
        assert!(matches!(
            read(long.as_bytes(), 10_000),
            Err(JsonError::TooLarge)
        ));
    }
}
