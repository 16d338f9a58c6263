//! Python distributions: which release each file belongs to, and its digest.
//!
//! Name and version come from the file name alone; the broker looks inside, and publishes nothing whose
//! inside says otherwise.

use super::tarball::digest_of;
use crate::fail::Failure;
use flate2::read::GzDecoder;
use proto::{
    digest::Algorithm,
    distribution::Distribution,
    ids::{RegistryId, VersionText},
    request::{self, Item},
    text::harmless,
};
use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Most bytes that a source archive may unpack to before its end is given up.
const UNPACKED_MAX: u64 = 4 << 30;
/// How far from its end a ZIP archive has its last record, in bytes: that record with the longest comment.
const ZIP_END_MAX: u64 = (64 << 10) + 22;
/// How that record begins.
const ZIP_END: &[u8] = b"PK\x05\x06";

/// Whether a path is a distribution, or a folder with some.
pub(crate) fn is_python(path: &Path) -> bool {
    if path.is_dir() {
        !path.join("package.json").exists() && folder(path).is_some()
    } else {
        is_distribution(path)
    }
}

/// Whether a file is named like a wheel or a source archive.
pub(crate) fn is_distribution(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    [".whl", ".tar.gz"].iter().any(|end| name.ends_with(end))
}

/// One item for each release that the files belong to, with its files' paths in the same order.
pub(crate) fn releases(
    paths: &[PathBuf],
    registry: &RegistryId,
) -> Result<Vec<(Item, Vec<PathBuf>)>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(folder(path).unwrap_or_default());
        } else {
            files.push(path.clone());
        }
    }
    let mut out: Vec<(Item, Vec<PathBuf>)> = Vec::new();
    for path in files {
        let path = std::path::absolute(&path).map_err(|e| Failure::file(&path, &e))?;
        let bad = |why: String| {
            Failure::usage(
                format!("{}: {why}.", path.display()),
                "Build it again with a current tool (python -m build, uv build, …).",
            )
        };
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let named = Distribution::parse(name).map_err(|e| bad(e.to_string()))?;
        let version: VersionText = named
            .version
            .parse()
            .map_err(|_| bad(format!("'{}' is no version", harmless(&named.version))))?;
        if !is_whole(&path)? {
            return Err(bad("it is cut off, or no archive".to_owned()));
        }
        let (size, digest) = digest_of(&path, Algorithm::Sha256)?;
        let file = request::File {
            name: name.to_owned(),
            size,
            digest,
        };
        let same = |(item, _): &&mut (Item, Vec<PathBuf>)| {
            item.package == named.project && item.version == version
        };
        match out.iter_mut().find(same) {
            Some((item, paths)) => {
                if item.files.iter().any(|f| f.name == file.name) {
                    return Err(Failure::usage(
                        format!("{name} is given twice."),
                        "Give every file once.",
                    ));
                }
                item.files.push(file);
                paths.push(path);
            }
            None => out.push((
                Item {
                    registry: registry.clone(),
                    package: named.project,
                    version,
                    tag: None,
                    files: vec![file],
                },
                vec![path],
            )),
        }
    }
    Ok(out)
}

/// Whether an archive has its end: people must not be asked about half a file. Nothing more is looked at here.
fn is_whole(path: &Path) -> Result<bool, Failure> {
    let fail = |e| Failure::file(path, &e);
    let mut file = File::open(path).map_err(fail)?;
    if path.extension().is_some_and(|e| e == "gz") {
        let mut unpacked = GzDecoder::new(BufReader::new(file)).take(UNPACKED_MAX);
        return Ok(std::io::copy(&mut unpacked, &mut std::io::sink()).is_ok());
    }
    let size = file.metadata().map_err(fail)?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(ZIP_END_MAX)))
        .map_err(fail)?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).map_err(fail)?;
    Ok(end.windows(4).any(|w| w == ZIP_END))
}

/// The distributions in a folder, or in its `dist`, by name; `None` when there are none.
fn folder(path: &Path) -> Option<Vec<PathBuf>> {
    [path.to_owned(), path.join("dist")].iter().find_map(|dir| {
        let mut found: Vec<_> = std::fs::read_dir(dir)
            .ok()?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.is_file() && is_distribution(p))
            .collect();
        found.sort();
        (!found.is_empty()).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ends like an archive of this name.
    fn archive(name: &str) -> Vec<u8> {
        if Path::new(name).extension() != Some("gz".as_ref()) {
            return [name.as_bytes(), ZIP_END, &[0; 18]].concat();
        }
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, name.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn half_a_file_is_refused_before_anybody_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["acme_demo-1.0.0-py3-none-any.whl", "acme_demo-1.0.0.tar.gz"] {
            let (path, bytes) = (dir.path().join(name), archive(name));
            std::fs::write(&path, &bytes).unwrap();
            assert!(is_whole(&path).unwrap(), "{name}");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert!(!is_whole(&path).unwrap(), "{name}");
            let refused = releases(&[path], &"pypi".parse().unwrap()).unwrap_err();
            assert_eq!(refused.exit as u8, 2);
        }
    }

    #[test]
    fn files_are_grouped_to_releases() {
        let dir = tempfile::tempdir().unwrap();
        let dist = dir.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        for name in [
            "acme_demo-1.0.0-py3-none-any.whl",
            "acme_demo-1.0.0.tar.gz",
            "acme_other-2.0.tar.gz",
            "notes.txt",
        ] {
            std::fs::write(dist.join(name), archive(name)).unwrap();
        }
        assert!(is_python(dir.path()) && is_python(&dist));
        let registry = "pypi".parse().unwrap();
        let releases = releases(&[dir.path().to_owned()], &registry).unwrap();
        let told: Vec<_> = releases
            .iter()
            .map(|(i, p)| (i.name(), i.files.len(), p.len()))
            .collect();
        assert_eq!(
            told,
            [
                ("pypi:acme-demo@1.0.0".to_owned(), 2, 2),
                ("pypi:acme-other@2.0".to_owned(), 1, 1)
            ]
        );
        let digest = &releases[0].0.files[1].digest;
        let want = proto::digest::Digest::of(Algorithm::Sha256, &archive("acme_demo-1.0.0.tar.gz"));
        assert_eq!(*digest, want);

        let sdist = dist.join("acme_demo-1.0.0.tar.gz");
        for bad in [
            vec![sdist.clone(), sdist],
            vec![dist.join("notes.txt")],
            vec![dist.join("Acme.Demo-1.0.tar.gz")],
        ] {
            assert_eq!(
                super::releases(&bad, &registry).unwrap_err().exit as u8,
                2,
                "{bad:?}"
            );
        }
        std::fs::write(dir.path().join("package.json"), "{}").unwrap();
        assert!(!is_python(dir.path()), "an npm package with a dist folder");
    }
}
