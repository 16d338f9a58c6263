//! A `.crate`: one folder `name-version/` with the Cargo.toml that decides.

use super::manifest::{Manifest, ManifestError};
use crate::registry::archive::{ArchiveError, names::split, tar::Tar};
use std::io::{self, Read, Seek};
use thiserror::Error;

/// The file that decides what the archive is.
const CARGO_TOML: &str = "Cargo.toml";
/// Its length.
const MAX_CARGO_TOML: u64 = 1 << 20;
/// Length of the readme; it goes into the JSON, which may have 1 MiB.
const MAX_README: u64 = 900 << 10;

/// Why a `.crate` was refused.
#[derive(Debug, Error)]
pub enum InspectError {
    /// An archive that unpacks to more than a crate has, or differently here and there.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// No Cargo.toml in the root folder.
    #[error("the archive has no Cargo.toml in its root folder")]
    NoManifest,
    /// The Cargo.toml cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The root folder is not named after crate and version.
    #[error("the archive's folder is not '{0}', as its Cargo.toml says")]
    Folder(String),
    /// The readme that Cargo.toml names is not there, or is no text.
    #[error("the readme that Cargo.toml names is not a text file in the archive")]
    Readme,
    /// The broker's own disk.
    #[error("the archive could not be read")]
    Io(#[source] io::Error),
}

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) manifest: Manifest,
    pub(super) entries: u32,
    pub(super) unpacked: u64,
    /// A build script runs on every machine that builds a crate which depends on this one.
    pub(super) build_script: bool,
}

/// Reads the whole archive of `packed` bytes; the readme's text ends up in the manifest's JSON.
pub(super) fn inspect<R: Read + Seek>(mut archive: R, packed: u64) -> Result<Inside, InspectError> {
    let mut tar = Tar::new(&mut archive, packed, CARGO_TOML);
    let mut manifest = None;
    let mut folder = None;
    let mut build_script = false;
    while let Some(entry) = tar.next()? {
        let parts = split(&entry.name);
        folder = folder.or_else(|| parts.first().map(|root| (*root).to_owned()));
        match parts.as_slice() {
            [_, CARGO_TOML] if !entry.folder => {
                let data = tar.content(MAX_CARGO_TOML, CARGO_TOML)?;
                manifest = Some(Manifest::read(&data)?);
            }
            [_, "build.rs"] => build_script = true,
            _ => {}
        }
    }
    let entries = tar.entries();
    let unpacked = tar.finish()?;
    let mut manifest = manifest.ok_or(InspectError::NoManifest)?;
    let wanted = format!("{}-{}", manifest.name, manifest.version);
    if folder.as_deref() != Some(&wanted) {
        return Err(InspectError::Folder(wanted));
    }
    if let Some(path) = manifest.readme.clone() {
        archive.rewind().map_err(InspectError::Io)?;
        let text = file(&mut archive, packed, &path)?;
        let text = String::from_utf8(text).map_err(|_| InspectError::Readme)?;
        manifest.metadata.insert("readme".to_owned(), text.into());
    }
    Ok(Inside {
        manifest,
        entries,
        unpacked,
        build_script,
    })
}

/// One file's content, by its path below the root folder.
fn file(archive: impl Read, packed: u64, path: &str) -> Result<Vec<u8>, InspectError> {
    let wanted = split(path);
    let mut tar = Tar::new(archive, packed, CARGO_TOML);
    while let Some(entry) = tar.next()? {
        if let [_, below @ ..] = split(&entry.name).as_slice()
            && below == wanted.as_slice()
            && !entry.folder
        {
            return Ok(tar.content(MAX_README, "readme")?);
        }
    }
    Err(InspectError::Readme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        archive::samples::{entry, tgz},
        crates::samples::{MANIFEST, NAME, ROOT, crate_of},
    };
    use std::io::Cursor;

    fn read(bytes: &[u8]) -> Result<Inside, InspectError> {
        inspect(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn a_crate_is_read_with_its_readme() {
        let inside = read(&crate_of(MANIFEST)).unwrap();
        assert_eq!(inside.manifest.name, NAME);
        assert_eq!(inside.manifest.metadata["readme"], "# Left\n");
        assert_eq!(inside.manifest.metadata["readme_file"], "README.md");
        assert!(!inside.build_script);
        let built = tgz(&[
            entry(&format!("{ROOT}/Cargo.toml"), b'0', MANIFEST.as_bytes()),
            entry(&format!("{ROOT}/README.md"), b'0', b"x"),
            entry(&format!("{ROOT}/build.rs"), b'0', b"fn main() {}"),
        ]);
        assert!(read(&built).unwrap().build_script);
    }

    #[test]
    fn attack_13_and_14_a_crate_that_is_not_what_its_manifest_says_is_refused() {
        let toml = |root: &str| entry(&format!("{root}/Cargo.toml"), b'0', MANIFEST.as_bytes());
        let readme = || entry(&format!("{ROOT}/README.md"), b'0', b"x");
        for (why, bytes) in [
            (
                "another folder",
                tgz(&[
                    toml("acme-left-1.4.3"),
                    entry("acme-left-1.4.3/README.md", b'0', b"x"),
                ]),
            ),
            (
                "no folder",
                tgz(&[entry("Cargo.toml", b'0', MANIFEST.as_bytes())]),
            ),
            (
                "two folders",
                tgz(&[toml(ROOT), readme(), entry("x/y", b'0', b"")]),
            ),
            ("two manifests", tgz(&[toml(ROOT), readme(), toml(ROOT)])),
            (
                "a manifest for file systems without case",
                tgz(&[
                    toml(ROOT),
                    readme(),
                    entry(&format!("{ROOT}/cargo.toml"), b'0', b""),
                ]),
            ),
            ("no manifest", tgz(&[readme()])),
            (
                "a deeper manifest",
                tgz(&[toml(&format!("{ROOT}/x")), readme()]),
            ),
            (
                "a link",
                tgz(&[toml(ROOT), readme(), entry(&format!("{ROOT}/a"), b'2', b"")]),
            ),
            (
                "a hard link",
                tgz(&[toml(ROOT), readme(), entry(&format!("{ROOT}/a"), b'1', b"")]),
            ),
            (
                "an escape",
                tgz(&[
                    toml(ROOT),
                    readme(),
                    entry(&format!("{ROOT}/../a"), b'0', b""),
                ]),
            ),
            ("no readme", tgz(&[toml(ROOT)])),
            (
                "a readme that is no text",
                tgz(&[
                    toml(ROOT),
                    entry(&format!("{ROOT}/README.md"), b'0', b"\xff\xfe"),
                ]),
            ),
            ("cut short", {
                let mut b = crate_of(MANIFEST);
                b.truncate(b.len() - 20);
                b
            }),
            ("something behind", {
                let mut b = crate_of(MANIFEST);
                b.extend(crate_of(MANIFEST));
                b
            }),
            ("not gzip", b"x".to_vec()),
        ] {
            assert!(read(&bytes).is_err(), "{why}");
        }
    }
}
