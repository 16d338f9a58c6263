//! An npm tarball: whose it is, and its digest.

use crate::{edge, fail::Failure};
use flate2::read::GzDecoder;
use proto::{
    digest::{Algorithm, Digest, Hasher},
    ids::{PackageName, RegistryId, VersionText},
    request::{File, Item},
    text::harmless,
};
use serde_json::Value;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Most bytes of a package.json.
const MANIFEST_MAX: u64 = 4 << 20;
/// Most bytes that a tarball may unpack to before its package.json is given up.
const UNPACKED_MAX: u64 = 4 << 30;

/// A tarball that was read.
#[derive(Debug)]
pub(crate) struct Tarball {
    /// Where it lies, absolute.
    pub(crate) path: PathBuf,
    /// What it publishes.
    pub(crate) item: Item,
    /// Its package.json.
    pub(crate) manifest: Value,
}

impl Tarball {
    /// Reads name, version and digest.
    pub(crate) fn read(
        path: &Path,
        registry: &RegistryId,
        tag: Option<&str>,
    ) -> Result<Self, Failure> {
        let path = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
        let (size, digest) = digest_of(&path, Algorithm::Sha512)?;
        let manifest = manifest_of(&path)?;
        let bad = |why: String| {
            Failure::usage(
                format!("{}: {why}", path.display()),
                "Correct package.json and pack it again.",
            )
        };
        let field = |name: &str| {
            manifest
                .get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| bad(format!("its package.json has no \"{name}\".")))
        };
        let package: PackageName = field("name")?
            .parse()
            .map_err(|e| bad(format!("its {e}.")))?;
        let version: VersionText = field("version")?
            .parse()
            .map_err(|e| bad(format!("its {e}.")))?;
        if manifest.get("private").and_then(Value::as_bool) == Some(true) {
            return Err(bad("its package.json says \"private\": true.".to_owned()));
        }
        let tag = tag_of(&manifest, &version, tag)?;
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        proto::text::check(&name, 255).map_err(|e| bad(format!("its file name {e}.")))?;
        Ok(Self {
            item: Item {
                registry: registry.clone(),
                package,
                version,
                tag: Some(tag),
                files: vec![File { name, size, digest }],
            },
            path,
            manifest,
        })
    }

    /// `@acme` of `@acme/left`.
    pub(crate) fn scope(&self) -> Option<&str> {
        scope_of(self.item.package.as_str())
    }
}

/// `@acme` of `@acme/left`.
pub(crate) fn scope_of(package: &str) -> Option<&str> {
    package
        .split_once('/')
        .map(|(scope, _)| scope)
        .filter(|s| s.starts_with('@'))
}

/// The flag, else `publishConfig.tag`, else `latest`, which no prerelease gets by accident.
fn tag_of(
    manifest: &Value,
    version: &VersionText,
    flag: Option<&str>,
) -> Result<VersionText, Failure> {
    let set = manifest
        .pointer("/publishConfig/tag")
        .and_then(Value::as_str);
    let tag = match flag.or(set) {
        Some(tag) => tag,
        None if version
            .as_str()
            .split('+')
            .next()
            .is_some_and(|v| v.contains('-')) =>
        {
            return Err(Failure::usage(
                format!("{version} is a prerelease and no tag is given."),
                "Add --tag next (or another tag); --tag latest where it is really meant.",
            ));
        }
        None => "latest",
    };
    tag.parse().map_err(|_| {
        Failure::usage(
            format!("'{}' is no tag.", harmless(tag)),
            "Use a tag like next.",
        )
    })
}

/// Size and digest, in one pass and bounded memory.
pub(crate) fn digest_of(path: &Path, algorithm: Algorithm) -> Result<(u64, Digest), Failure> {
    let fail = |e| Failure::file(path, &e);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut hasher = Hasher::new(algorithm);
    let (mut buffer, mut size) = (vec![0; 64 * 1024], 0);
    loop {
        let n = file.read(&mut buffer).map_err(fail)?;
        if n == 0 {
            return Ok((size, hasher.finish()));
        }
        size += n as u64;
        hasher.update(buffer.get(..n).unwrap_or_default());
    }
}

fn manifest_of(path: &Path) -> Result<Value, Failure> {
    let bad = |why: &str| {
        Failure::usage(
            format!("{} is no npm tarball: {why}.", path.display()),
            if path.extension().is_some_and(|e| e == "tgz") {
                "Give a .tgz made by `npm pack`, or the package's folder."
            } else {
                "Give a .tgz made by `npm pack`, a wheel or a source archive (.whl, .tar.gz), a .crate, a .gem, or a \
                 package's folder."
            },
        )
    };
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut archive =
        tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)).take(UNPACKED_MAX));
    let mut found = None;
    for entry in archive
        .entries()
        .map_err(|_| bad("it is not a gzipped tar"))?
    {
        let entry = entry.map_err(|_| bad("it is not a gzipped tar"))?;
        if entry.path_bytes().as_ref() != b"package/package.json" {
            continue;
        }
        let mut text = Vec::new();
        entry
            .take(MANIFEST_MAX)
            .read_to_end(&mut text)
            .map_err(|_| bad("it is cut off"))?;
        // Two of them mean that two readers may see two packages.
        if found.replace(text).is_some() {
            return Err(bad("it holds package/package.json twice"));
        }
    }
    let text = found.ok_or_else(|| bad("it holds no package/package.json"))?;
    serde_json::from_slice(&text).map_err(|_| bad("its package.json is not JSON"))
}

/// The package.json of a folder.
pub(crate) fn folder_manifest(folder: &Path) -> Result<Value, Failure> {
    let path = folder.join("package.json");
    let bytes = edge::read_capped(&path, MANIFEST_MAX)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::usage(
            format!("{} is not JSON: {e}.", path.display()),
            "Correct it.",
        )
    })
}

/// Test tarballs.
#[cfg(test)]
pub(crate) fn pack(path: &Path, files: &[(&str, &str)]) {
    let out = std::fs::File::create(path).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        out,
        flate2::Compression::fast(),
    ));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)], tag: Option<&str>) -> Result<Tarball, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left-1.4.2.tgz");
        pack(&path, files);
        Tarball::read(&path, &"npm".parse().unwrap(), tag)
    }

    #[test]
    fn name_version_tag_and_digest_are_read() {
        let json = r#"{"name":"@acme/left","version":"1.4.2"}"#;
        let t = read(
            &[("package/a.js", "x"), ("package/package.json", json)],
            None,
        )
        .unwrap();
        assert_eq!(t.item.name(), "npm:@acme/left@1.4.2");
        assert_eq!(t.item.tag.as_ref().unwrap().as_str(), "latest");
        assert_eq!(t.item.files[0].digest.algorithm(), Algorithm::Sha512);
        assert_eq!(t.scope(), Some("@acme"));
    }

    #[test]
    fn what_cannot_be_published_is_refused_with_usage() {
        let prerelease = r#"{"name":"a","version":"1.0.0-rc.1"}"#;
        for files in [
            vec![("package/package.json", r#"{"version":"1.0.0"}"#)],
            vec![("package/package.json", r#"{"name":"a"}"#)],
            vec![(
                "package/package.json",
                r#"{"name":"a","version":"1","private":true}"#,
            )],
            vec![("package/package.json", "nonsense")],
            vec![("other/package.json", r#"{"name":"a","version":"1.0.0"}"#)],
            vec![("package/package.json", prerelease)],
            vec![
                ("package/package.json", prerelease),
                ("package/package.json", prerelease),
            ],
        ] {
            assert_eq!(read(&files, None).unwrap_err().exit as u8, 2, "{files:?}");
        }
        let t = read(&[("package/package.json", prerelease)], Some("next")).unwrap();
        assert_eq!(t.item.tag.unwrap().as_str(), "next");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tgz");
        std::fs::write(&path, "not gzip").unwrap();
        assert!(Tarball::read(&path, &"npm".parse().unwrap(), None).is_err());
    }
}
