//! Reads what an index shows of a project: PEP 691's JSON, or PEP 503's HTML where a server knows only that.

use super::version;
use crate::registry::{Published, ReadError, ShownFile};
use proto::{digest::Digest, distribution::Distribution, ids::VersionText, time::UnixTime};
use serde::Deserialize;

/// What the broker asks for, best first.
pub(super) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// A project's page, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    files: Vec<File>,
    /// PEP 700: versions without files, too.
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    hashes: Hashes,
    /// PEP 700.
    #[serde(default, rename = "upload-time")]
    upload_time: Option<String>,
    /// `true`, or the reason in words.
    #[serde(default)]
    yanked: serde_json::Value,
}

#[derive(Default, Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// Reads a page of the kind that its `Content-Type` says.
pub(super) fn read(content_type: &str, page: &[u8]) -> Result<Published, ReadError> {
    let mut out = Published::default();
    if content_type.contains("json") {
        let page: Page = serde_json::from_slice(page).map_err(|_| ReadError::NotUnderstood)?;
        for text in &page.versions {
            if let Some(version) = parsed(text) {
                out.versions.entry(version).or_default();
            }
        }
        for file in page.files {
            let sha256 = file.hashes.sha256;
            let version = add(&mut out, &file.filename, sha256.as_deref(), &file.url);
            let time = file
                .upload_time
                .and_then(|t| t.parse::<jiff::Timestamp>().ok());
            let time = time.and_then(|t| u64::try_from(t.as_second()).ok());
            if let (Some(version), Some(time)) = (&version, time) {
                let first = out.times.entry(version.clone()).or_insert(UnixTime(time));
                *first = (*first).min(UnixTime(time));
            }
            let yanked = file.yanked.is_string() || file.yanked == true;
            out.withdrawn.extend(version.filter(|_| yanked));
        }
    } else if content_type.contains("html") {
        let page = std::str::from_utf8(page).map_err(|_| ReadError::NotUnderstood)?;
        for (name, href) in anchors(page) {
            let (place, fragment) = href.split_once('#').unwrap_or((href, ""));
            let sha256 = fragment.strip_prefix("sha256=");
            add(&mut out, name, sha256, &place.replace("&amp;", "&"));
        }
    } else {
        return Err(ReadError::NotUnderstood);
    }
    out.newest =
        version::newest(out.versions.keys().map(VersionText::as_str)).and_then(|v| v.parse().ok());
    Ok(out)
}

/// Adds a file to its version. A file that nobody could name in a request still makes its version known.
fn add(out: &mut Published, name: &str, sha256: Option<&str>, place: &str) -> Option<VersionText> {
    let text = match Distribution::parse(name) {
        Ok(named) => named.version,
        Err(_) => old_version(name).to_owned(),
    };
    let version = parsed(&text)?;
    let digest = sha256.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
    let files = out.versions.entry(version.clone()).or_default();
    files.push(ShownFile {
        name: Some(name.to_owned()),
        digest,
    });
    let places = out.places.entry(version.clone()).or_default();
    places.insert(name.to_owned(), place.to_owned());
    Some(version)
}

fn parsed(text: &str) -> Option<VersionText> {
    version::normal(text)?.parse().ok()
}

/// The version in a name that older tools wrote: `Acme-Demo-1.0.zip`, `Acme.Demo-1.0-py3-none-any.whl`.
fn old_version(name: &str) -> &str {
    if let Some(body) = name
        .strip_suffix(".whl")
        .or_else(|| name.strip_suffix(".egg"))
    {
        return body.split('-').nth(1).unwrap_or_default();
    }
    let body = [".tar.gz", ".zip", ".tar.bz2", ".tgz"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or_default();
    body.rsplit_once('-').map_or("", |(_, version)| version)
}

/// Every anchor's text and address. An index page holds nothing else of interest (PEP 503: "the text of the
/// anchor tag MUST match the final path component (the filename) of the URL").
fn anchors(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("<a").skip(1).filter_map(|rest| {
        let (tag, rest) = rest.split_once('>')?;
        if !tag.starts_with(char::is_whitespace) {
            return None;
        }
        let (_, value) = tag.split_once("href=")?;
        let quote = value.chars().next().filter(|q| ['"', '\''].contains(q))?;
        let href = value.get(1..)?.split(quote).next()?;
        let text = rest.split('<').next()?.trim();
        Some((text, href))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6cd8a150782a429f07b805d0a9225843a5cc33ffabb8add72cdc4efabb203a16";

    fn digest() -> Digest {
        format!("sha256:{HEX}").parse().unwrap()
    }

    #[test]
    fn json_and_html_say_the_same() {
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"acme-demo","versions":["0.9","1.0.0","1.10","1.9"],"files":[
            {{"filename":"acme_demo-1.0.0.tar.gz","url":"x","hashes":{{"sha256":"{HEX}"}},"yanked":false}},
            {{"filename":"acme_demo-1.9-py3-none-any.whl","url":"x","hashes":{{}}}},
            {{"filename":"Acme.Demo-1.10.zip","url":"x","hashes":{{"md5":"0"}}}}]}}"#
        );
        let html = format!(
            "<!DOCTYPE html><html><body><h1>Links</h1>\n<a href=\"../../packages/acme_demo-1.0.0.tar.gz#sha256={HEX}\" \
             data-requires-python=\"&gt;=3.9\">acme_demo-1.0.0.tar.gz</a><br/>\n<a\n href='acme_demo-1.9-py3-none-any.whl'>\
             acme_demo-1.9-py3-none-any.whl</a><abbr href=\"x-7.zip\">x-7.zip</abbr>\
             <a href=\"Acme.Demo-1.10.zip#md5=0\">Acme.Demo-1.10.zip</a> <a href=\"Acme-0.9.egg\">Acme-0.9.egg</a></body></html>"
        );
        for (kind, page) in [
            ("application/vnd.pypi.simple.v1+json", &json),
            ("text/html; charset=utf-8", &html),
        ] {
            let read = read(kind, page.as_bytes()).unwrap();
            let versions: Vec<_> = read.versions.keys().map(VersionText::as_str).collect();
            assert_eq!(versions, ["0.9", "1.0.0", "1.10", "1.9"], "{kind}");
            assert_eq!(read.newest.as_ref().map(VersionText::as_str), Some("1.10"));
            let one = &read.versions[&"1.0.0".parse().unwrap()][0];
            assert_eq!(one.name.as_deref(), Some("acme_demo-1.0.0.tar.gz"));
            assert_eq!(one.digest, Some(digest()));
            assert!(
                read.place(&"1.0.0".parse().unwrap(), "acme_demo-1.0.0.tar.gz")
                    .is_some()
            );
            assert_eq!(read.versions[&"1.9".parse().unwrap()][0].digest, None);
        }
    }

    #[test]
    fn what_is_no_index_is_not_read_as_an_empty_one() {
        assert!(read("application/json", b"<html>").is_err());
        assert!(read("text/plain", b"").is_err());
        assert!(read("text/html", b"\xff").is_err());
        let damaged = format!(
            "<a href=\"x#sha256={}\">acme-1.0.tar.gz</a>",
            "g".repeat(64)
        );
        let read = read("text/html", damaged.as_bytes()).unwrap();
        assert_eq!(read.versions[&"1.0".parse().unwrap()][0].digest, None);
    }
}
