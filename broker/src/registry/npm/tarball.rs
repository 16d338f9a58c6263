//! An npm package's archive: its package.json, and what the approver may want to know.

use super::json::{self, JsonError};
use crate::registry::archive::{ArchiveError, names::split, tar::Tar};
use serde_json::{Map, Value};
use std::io::Read;
use thiserror::Error;

/// The file that decides what the archive is.
const PACKAGE_JSON: &str = "package.json";
/// Its length.
const MAX_PACKAGE_JSON: u64 = 1 << 20;

/// Why an archive was refused.
#[derive(Debug, Error)]
pub enum TarballError {
    /// An archive that unpacks to more than a package has, or differently here and there.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// No package.json in the root folder.
    #[error("the archive has no package.json in its root folder")]
    NoPackageJson,
    /// The package.json is not strict JSON.
    #[error("the archive's package.json {0}")]
    PackageJson(#[source] JsonError),
}

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Inside {
    /// The parsed package.json.
    pub package_json: Map<String, Value>,
    /// Whether the root folder holds a `*.gyp` file: npm then adds an install script by itself.
    pub gyp: bool,
    /// Whether the root folder pins dependencies: installers fetch the archive for it only if they are told.
    pub shrinkwrap: bool,
    /// Files and folders.
    pub entries: u32,
    /// Bytes after unpacking.
    pub unpacked: u64,
}

/// Reads the whole archive of `packed` bytes.
pub(super) fn inspect(archive: impl Read, packed: u64) -> Result<Inside, TarballError> {
    let mut tar = Tar::new(archive, packed, PACKAGE_JSON);
    let mut package_json = None;
    let (mut gyp, mut shrinkwrap) = (false, false);
    while let Some(entry) = tar.next()? {
        match split(&entry.name).as_slice() {
            [_, PACKAGE_JSON] if !entry.folder => {
                let data = tar.content(MAX_PACKAGE_JSON, PACKAGE_JSON)?;
                // The meter counts what is read ahead, so it gets the exact length.
                let read = json::object(data.as_slice(), entry.size);
                package_json = Some(read.map_err(TarballError::PackageJson)?);
            }
            [_, file] => {
                gyp |= file.rsplit('.').next() == Some("gyp");
                shrinkwrap |= *file == "npm-shrinkwrap.json";
            }
            _ => {}
        }
    }
    let entries = tar.entries();
    let unpacked = tar.finish()?;
    Ok(Inside {
        package_json: package_json.ok_or(TarballError::NoPackageJson)?,
        gyp,
        shrinkwrap,
        entries,
        unpacked,
    })
}

#[cfg(test)]
#[path = "tarball_tests.rs"]
mod tests;
