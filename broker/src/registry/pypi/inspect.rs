//! Looks into a distribution: what it is called inside, what it says of itself, and whether a wheel's RECORD
//! is right. The whole archive is read, so that what was approved is also what unpacks (attacks 13, 14).

use super::{
    metadata::{self, MAX_METADATA, MetadataError, Values},
    version,
};
use crate::registry::{
    Contents,
    archive::{ArchiveError, names::split, tar::Tar, zip::Zip},
};
use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::{
    distribution::{Distribution, Form, project_name},
    text,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek},
};
use thiserror::Error;

/// Length of a wheel's RECORD: 100,000 long lines.
const MAX_RECORD: u64 = 24 << 20;
const CHUNK: usize = 16 << 10;

/// Why a distribution was refused.
#[derive(Debug, Error)]
pub enum DistributionError {
    /// Not an archive that unpacks to one thing.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its metadata.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A part that it must have.
    #[error("the archive has no {0}")]
    Missing(&'static str),
    /// A folder or a field that names another project or version than the file name does.
    #[error("the archive is of another project or version than its file name says ({0})")]
    Other(String),
    /// RECORD and content differ.
    #[error("the wheel's RECORD is not right about '{0}'")]
    Record(String),
    /// RECORD is not of the format.
    #[error("the wheel's RECORD is damaged")]
    RecordShape,
}

/// What a distribution holds.
#[derive(Debug)]
pub(super) struct Inside {
    /// Its metadata by the form's field names.
    pub(super) metadata: Values,
    /// For the approver.
    pub(super) contents: Contents,
}

/// Reads the whole archive of `packed` bytes, whose file name is `named`.
pub(super) fn inspect(
    archive: impl Read + Seek,
    packed: u64,
    named: &Distribution,
) -> Result<Inside, DistributionError> {
    let inside = match named.form {
        Form::Wheel => wheel(archive, packed, named)?,
        Form::Sdist => sdist(archive, packed, named)?,
    };
    let name = metadata::required(&inside.metadata, "name")?;
    let stated = metadata::required(&inside.metadata, "version")?;
    metadata::required(&inside.metadata, "metadata_version")?;
    if !is_of(named, name, stated) {
        return Err(other(&format!("{name} {stated}")));
    }
    Ok(inside)
}

fn sdist(
    archive: impl Read,
    packed: u64,
    named: &Distribution,
) -> Result<Inside, DistributionError> {
    let mut tar = Tar::new(archive, packed, "PKG-INFO");
    let mut metadata = None;
    let mut install_scripts = Vec::new();
    while let Some(entry) = tar.next()? {
        let path = split(&entry.name);
        let root = path.first().copied().unwrap_or_default();
        if !root
            .rsplit_once('-')
            .is_some_and(|(name, v)| is_of(named, name, v))
        {
            return Err(other(root));
        }
        match path.as_slice() {
            [_, "PKG-INFO"] if !entry.folder => {
                metadata = Some(metadata::read(&tar.content(MAX_METADATA, "PKG-INFO")?)?);
            }
            [_, "setup.py"] => install_scripts.push("setup.py"),
            _ => {}
        }
    }
    let entries = tar.entries();
    let unpacked = tar.finish()?;
    Ok(Inside {
        metadata: metadata.ok_or(DistributionError::Missing("PKG-INFO in its root folder"))?,
        contents: Contents {
            entries,
            unpacked,
            install_scripts,
        },
    })
}

/// A file of a wheel, as RECORD should list it.
struct Listed {
    sha256: String,
    size: u64,
}

fn wheel(
    archive: impl Read + Seek,
    packed: u64,
    named: &Distribution,
) -> Result<Inside, DistributionError> {
    let mut zip = Zip::new(archive, packed)?;
    let entries = u32::try_from(zip.left()).unwrap_or(u32::MAX);
    let mut folders = BTreeSet::new();
    let mut files = BTreeMap::new();
    let (mut metadata, mut record, mut has_wheel, mut starts) = (None, None, false, false);
    loop {
        let read = zip.next(|entry, data| {
            let max = match split(&entry.name).as_slice() {
                [folder, "METADATA"] if is_info(folder) => MAX_METADATA,
                [folder, "RECORD"] if is_info(folder) => MAX_RECORD,
                _ => 0,
            };
            let (listed, kept) = take(data, max)?;
            Ok((entry.name.clone(), entry.folder, listed, kept))
        })?;
        let Some((name, is_folder, listed, kept)) = read else {
            break;
        };
        let path = split(&name);
        if let Some(first) = path.first().filter(|f| is_info(f)) {
            folders.insert((*first).to_owned());
        }
        if is_folder {
            continue;
        }
        match path.as_slice() {
            [folder, file] if is_info(folder) => match *file {
                "METADATA" => metadata = Some(kept),
                "RECORD" => record = Some(kept),
                "WHEEL" => has_wheel = true,
                _ => {}
            },
            // Python runs such a file at every start.
            [file] => starts |= file.to_ascii_lowercase().ends_with(".pth"),
            _ => {}
        }
        files.insert(name, listed);
    }
    let mut folders = folders.into_iter();
    let (Some(info), None) = (folders.next(), folders.next()) else {
        return Err(DistributionError::Missing("single .dist-info folder"));
    };
    let stem = info.strip_suffix(".dist-info").unwrap_or_default();
    if !stem
        .rsplit_once('-')
        .is_some_and(|(name, v)| is_of(named, name, v))
    {
        return Err(other(&info));
    }
    if !has_wheel {
        return Err(DistributionError::Missing("WHEEL in its .dist-info folder"));
    }
    let metadata = metadata.ok_or(DistributionError::Missing(
        "METADATA in its .dist-info folder",
    ))?;
    let record = record.ok_or(DistributionError::Missing(
        "RECORD in its .dist-info folder",
    ))?;
    let metadata = metadata::read(&whole(metadata, "METADATA")?)?;
    check_record(&whole(record, "RECORD")?, &info, files)?;
    Ok(Inside {
        metadata,
        contents: Contents {
            entries,
            unpacked: zip.unpacked(),
            install_scripts: if starts { vec!["*.pth"] } else { Vec::new() },
        },
    })
}

/// Whether a folder is one of the kind that installers look into. Some compare without case.
fn is_info(folder: &str) -> bool {
    folder.to_ascii_lowercase().ends_with(".dist-info")
}

/// Hashes a file's content, and keeps up to `max` bytes of it; `None` where there are more.
fn take(data: &mut dyn Read, max: u64) -> io::Result<(Listed, Option<Vec<u8>>)> {
    let mut context = Context::new(&SHA256);
    let (mut kept, mut size) = (Some(Vec::new()), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = data.read(&mut buffer)?;
        let part = buffer.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        context.update(part);
        size += n as u64;
        if size > max {
            kept = None;
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(part);
        }
    }
    let sha256 = URL_SAFE_NO_PAD.encode(context.finish());
    Ok((Listed { sha256, size }, kept))
}

fn whole(kept: Option<Vec<u8>>, what: &'static str) -> Result<Vec<u8>, ArchiveError> {
    kept.ok_or(ArchiveError::TooLarge(what))
}

/// RECORD lists every file once, with its SHA-256; itself and its signatures without (PyPA "Recording
/// installed projects"). Installers go by it, so a file that it does not list is one that nobody sees.
fn check_record(
    record: &[u8],
    info: &str,
    mut files: BTreeMap<String, Listed>,
) -> Result<(), DistributionError> {
    let record = std::str::from_utf8(record).map_err(|_| DistributionError::RecordShape)?;
    let wrong = |name: &str| DistributionError::Record(shown(name));
    let unhashed = ["RECORD", "RECORD.jws", "RECORD.p7s"].map(|f| format!("{info}/{f}"));
    for line in record.lines().filter(|l| !l.is_empty()) {
        let row = fields(line).ok_or(DistributionError::RecordShape)?;
        let [name, hash, size] = row.as_slice() else {
            return Err(DistributionError::RecordShape);
        };
        let listed = files.remove(name).ok_or_else(|| wrong(name))?;
        if unhashed.contains(name) {
            if !hash.is_empty() {
                return Err(wrong(name));
            }
            continue;
        }
        let size_ok = size.is_empty() || *size == listed.size.to_string();
        if hash.strip_prefix("sha256=") != Some(&listed.sha256) || !size_ok {
            return Err(wrong(name));
        }
    }
    match files.keys().find(|name| !unhashed.contains(name)) {
        Some(name) => Err(wrong(name)),
        None => Ok(()),
    }
}

/// One line of comma-separated values (RFC 4180); quoted where a name has commas.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let mut value = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) = quoted.split_once('"')?;
                value.push_str(part);
                if let Some(after) = after.strip_prefix('"') {
                    value.push('"');
                    quoted = after;
                } else {
                    rest = after;
                    break;
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            if part.contains('"') {
                return None;
            }
            value.push_str(part);
            rest = after;
        }
        out.push(value);
        if rest.is_empty() {
            return Some(out);
        }
        rest = rest.strip_prefix(',')?;
    }
}

/// Whether name and version, however they are spelt, are those of the file name.
fn is_of(named: &Distribution, name: &str, stated: &str) -> bool {
    project_name(name).as_deref() == Some(named.project.as_str())
        && version::normal(stated).as_deref() == Some(&named.version)
}

fn other(what: &str) -> DistributionError {
    DistributionError::Other(shown(what))
}

fn shown(what: &str) -> String {
    text::harmless(&what.chars().take(200).collect::<String>())
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
