//! What the configuration says about such a server: the request that uploads a file, and where it is read back.

use super::is_segment;
use crate::secret::Secret;
use proto::ids::{PackageName, VersionText};
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use std::fmt::Write as _;
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

/// Headers that are the connection's own, or another meaning's.
const NOT_FOR_TOKENS: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "upgrade",
    "expect",
];

/// A server's upload call.
#[derive(Clone, Debug)]
pub struct Shape {
    pub(super) method: Method,
    pub(super) path: Template,
    pub(super) read_path: Template,
    header: HeaderName,
    /// What stands before and behind the token.
    around: (String, String),
}

/// Why the configuration describes no such call.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("key `{key}`: {why}")]
pub struct ShapeError {
    /// The key.
    pub key: &'static str,
    why: &'static str,
}

/// A path whose segments are words or one of `{package}`, `{version}`, `{file}`.
///
/// A placeholder is a whole segment, or else package `a1` with version `2` would be package `a` with version `12`
/// (attack 15).
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Word(String),
    Package,
    Version,
    File,
}

impl Shape {
    /// From the configuration's words; what is absent is `PUT`, the upload's own path, and
    /// `Authorization: Bearer {token}`.
    pub fn parse(
        method: Option<&str>,
        path: &str,
        read_path: Option<&str>,
        token_header: Option<&str>,
    ) -> Result<Self, ShapeError> {
        let method = match method.unwrap_or("PUT") {
            "PUT" => Method::PUT,
            "POST" => Method::POST,
            _ => return bad("method", "is `PUT` or `POST`"),
        };
        let path = Template::whole("path", path)?;
        let read_path = read_path.map(|read| Template::whole("read_path", read));
        let read_path = read_path.transpose()?.unwrap_or_else(|| path.clone());
        let text = token_header.unwrap_or("Authorization: Bearer {token}");
        let key = "token_header";
        let Some((name, value)) = text.split_once(':') else {
            return bad(key, "is like `Authorization: Bearer {token}`");
        };
        let header: HeaderName = name.parse().map_err(|_| ShapeError {
            key,
            why: "has no header's name before the colon",
        })?;
        if NOT_FOR_TOKENS.contains(&header.as_str()) {
            return bad(key, "this header is not for tokens");
        }
        let around = match value.trim().split("{token}").collect::<Vec<_>>().as_slice() {
            [before, behind] => ((*before).to_owned(), (*behind).to_owned()),
            _ => return bad(key, "holds `{token}` once"),
        };
        if HeaderValue::from_str(&format!("{}{}", around.0, around.1)).is_err() {
            return bad(key, "has characters that no header has");
        }
        Ok(Self {
            method,
            path,
            read_path,
            header,
            around,
        })
    }

    /// The header that carries the token; `None` when it cannot stand in one.
    pub(super) fn token(&self, token: &Secret<String>) -> Option<(HeaderName, HeaderValue)> {
        let (before, behind) = &self.around;
        let text = Zeroizing::new(format!("{before}{}{behind}", token.expose()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some((self.header.clone(), value))
    }
}

impl Template {
    /// One that says which file of which package it is. An address for all would leave that to the bytes, which
    /// nobody reads here: what people approved would be a claim beside them (attacks 13 and 15).
    fn whole(key: &'static str, text: &str) -> Result<Self, ShapeError> {
        let template = Self::parse(key, text)?;
        let parts = [Part::Package, Part::Version, Part::File];
        if !parts.iter().all(|part| template.0.contains(part)) {
            return bad(key, "must name {package}, {version} and {file}");
        }
        Ok(template)
    }

    fn parse(key: &'static str, text: &str) -> Result<Self, ShapeError> {
        let Some(rest) = text.strip_prefix('/') else {
            return bad(key, "begins with a slash");
        };
        let mut parts = Vec::new();
        for segment in rest.split('/') {
            let part = match segment {
                "{package}" => Part::Package,
                "{version}" => Part::Version,
                "{file}" => Part::File,
                word if is_segment(word) => Part::Word(word.to_owned()),
                _ => {
                    return bad(
                        key,
                        "has segments of letters, digits and -_.~@+=, or {package}, {version} and {file} as whole segments; no query",
                    );
                }
            };
            if !matches!(part, Part::Word(_)) && parts.contains(&part) {
                return bad(key, "names a placeholder twice");
            }
            parts.push(part);
        }
        Ok(Self(parts))
    }

    /// The address under a base that ends with a slash.
    pub(super) fn fill(
        &self,
        base: &Url,
        package: &PackageName,
        version: &VersionText,
        file: &str,
    ) -> Option<Url> {
        let mut path = String::new();
        for part in &self.0 {
            let text = match part {
                Part::Word(word) => word.as_str(),
                // Its slashes separate segments; it is the only placeholder that may have some.
                Part::Package => package.as_str(),
                Part::Version => version.as_str(),
                Part::File => file,
            };
            let segments = match part {
                Part::Package => text.split('/').collect(),
                _ => vec![text],
            };
            for segment in segments {
                if !is_segment(segment) {
                    return None;
                }
                path.push('/');
                encode(segment, &mut path);
            }
        }
        // `./` since a name may not be read as a scheme.
        base.join(&format!(".{path}")).ok()
    }
}

/// Percent-encoding of everything but the unreserved characters (RFC 3986 §2.3).
fn encode(text: &str, out: &mut String) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
}

const fn bad<T>(key: &'static str, why: &'static str) -> Result<T, ShapeError> {
    Err(ShapeError { key, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/store/{package}/{version}/{file}";

    #[test]
    fn a_template_is_filled_with_encoded_segments_and_nothing_climbs_out() {
        let shape = Shape::parse(None, PATH, None, None).unwrap();
        let base = "https://files.example/base/".parse().unwrap();
        let fill = |package: &str, version: &str, file: &str| {
            let (package, version) = (package.parse().unwrap(), version.parse().unwrap());
            shape.path.fill(&base, &package, &version, file)
        };
        assert_eq!(
            fill("@acme/app", "1.0+a", "x.tgz").unwrap().as_str(),
            "https://files.example/base/store/%40acme/app/1.0%2Ba/x.tgz"
        );
        for (package, version, file) in [
            ("a/../b", "1", "x"),
            ("a", "..", "x"),
            ("a", "1", ".."),
            ("a", "1", "x/y"),
            ("a", "1", "x?y"),
            ("a//b", "1", "x"),
        ] {
            assert_eq!(
                fill(package, version, file),
                None,
                "{package} {version} {file}"
            );
        }
    }

    #[test]
    fn attack_15_a_template_that_could_mix_up_two_packages_is_refused() {
        for bad in [
            "",
            "store/{package}/{version}/{file}",
            "/{package}-{version}/{file}/{version}",
            "/{package}/{version}{file}",
            "/{package}/{package}/{version}/{file}",
            "/../{package}/{version}/{file}",
            "/{package}/{version}/{file}/",
            "/{package}/{version}/{file}?x=1",
            "/{package}/{version}",
            "/{file}",
            "/{token}/{package}/{version}/{file}",
        ] {
            assert!(Shape::parse(None, bad, None, None).is_err(), "{bad}");
        }
        assert!(Shape::parse(Some("DELETE"), PATH, None, None).is_err());
    }

    #[test]
    fn attack_13_and_15_an_upload_address_that_names_no_package_is_refused() {
        // Where such a server puts the bytes is said by the bytes alone, and nobody has read them.
        for bad in [
            "/api/publish",
            "/{package}/{version}",
            "/{package}/{file}",
            "/{version}/{file}",
        ] {
            assert!(
                Shape::parse(Some("POST"), bad, Some(PATH), None).is_err(),
                "{bad}"
            );
        }
        let other = "/upload/{file}/{version}/{package}";
        assert!(Shape::parse(Some("POST"), other, Some(PATH), None).is_ok());
    }

    #[test]
    fn the_token_stands_in_its_header_once() {
        let token = Secret::new("canary".to_owned());
        let header = |text: &str| {
            let shape = Shape::parse(None, PATH, None, Some(text)).ok()?;
            let (name, value) = shape.token(&token)?;
            assert!(value.is_sensitive());
            Some(format!("{name}: {}", value.to_str().ok()?))
        };
        assert_eq!(header("X-Api-Key: {token}").unwrap(), "x-api-key: canary");
        assert_eq!(
            header("Authorization: Token t={token};").unwrap(),
            "authorization: Token t=canary;"
        );
        for bad in [
            "X-Api-Key",
            "X-Api-Key: ",
            "X-Api-Key: {token}{token}",
            "Host: {token}",
            "Content-Length: {token}",
            "X Y: {token}",
            "X-Y: {token}\r\nHost: evil",
        ] {
            assert_eq!(header(bad), None, "{bad}");
        }
    }
}
