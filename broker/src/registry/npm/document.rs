//! Reads the body of `PUT /{package}`: one JSON object that carries the archive as base64.
//!
//! It is read as a stream, since the archive may have hundreds of megabytes, and clients write its
//! members in different orders. Only the shape of a publish is accepted: the same request without
//! attachments rewrites a package's metadata, which is how deprecating works (attack 20).

use super::{
    Attestation, attestation,
    json::{JsonError, Strict},
    manifest::{self, Disagreement},
    tarball::{self, TarballError},
    told,
};
use crate::registry::{Contents, Envelope, IN_MEMORY, Publish};
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::{engine::general_purpose::STANDARD, read::DecoderReader};
use proto::{
    digest::{Algorithm, Digest, Hasher, hex},
    ids::{PackageName, VersionText},
    text,
};
use serde_json::{Map, Value};
use std::{
    io::{self, Read, Seek as _, Write as _},
    path::Path,
};
use tempfile::{SpooledTempFile, spooled_tempfile_in};
use thiserror::Error;

/// Everything but the archive and the provenance bundle, in bytes of JSON.
const MAX_METADATA: u64 = 1 << 20;
/// The archive, packed. The registry itself stops somewhere above 200 MB.
const MAX_ARCHIVE: u64 = 240 << 20;
const CHUNK: usize = 16 << 10;

/// Why a publish document was refused.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Not strict JSON.
    #[error("the document {0}")]
    Json(#[from] JsonError),
    /// No attachment: this would change metadata, not publish.
    #[error("the document has no archive; the broker passes on nothing but a publish")]
    NotAPublish,
    /// A member that a publish does not have.
    #[error("the document has a member '{0}', which a publish does not have")]
    Extra(String),
    /// Something missing, of the wrong type, or there more than once.
    #[error("the document's {0} is not that of a publish")]
    Shape(&'static str),
    /// Two places that must say the same do not.
    #[error("{0} is not what the rest of the request says")]
    Differs(&'static str),
    /// The archive is too large.
    #[error("the archive is larger than {MAX_ARCHIVE} bytes")]
    TooLarge,
    /// The archive is not acceptable.
    #[error(transparent)]
    Archive(#[from] TarballError),
    /// The archive's inside is not what the request says.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The broker's own disk.
    #[error("the archive could not be kept")]
    Io(#[source] io::Error),
}

/// The archive as it came.
struct Archive {
    key: String,
    file: SpooledTempFile,
    size: u64,
    digest: Digest,
    shasum: String,
}

/// What stands around the archive.
#[derive(Default)]
struct Document {
    members: Map<String, Value>,
    archive: Option<Archive>,
    attestation: Option<(String, Attestation)>,
}

/// Reads a publish of `package` (the name in the path). Blocking; the archive goes to a temporary
/// file in `spool` that has no name.
pub fn read(
    input: impl Read,
    package: &PackageName,
    spool: &Path,
) -> Result<Publish, DocumentError> {
    let document = document(input, spool)?;
    let Some(archive) = document.archive else {
        return Err(DocumentError::NotAPublish);
    };
    let mut members = document.members;
    for field in ["_id", "name"] {
        if members.remove(field) != Some(Value::from(package.as_str())) {
            return Err(DocumentError::Differs("the document's name"));
        }
    }
    let (version, manifest) = only(&mut members, "versions")?;
    let (tag, tagged) = only(&mut members, "dist-tags")?;
    if tagged.as_str() != Some(&version) {
        return Err(DocumentError::Differs("the version of the dist-tag"));
    }
    let Value::Object(manifest) = manifest else {
        return Err(DocumentError::Shape("manifest"));
    };
    let version = parse_version(&version)?;
    let tag = parse_tag(&tag)?;
    check_manifest(&manifest, package, &version, &archive)?;
    if archive.key != format!("{package}-{version}.tgz") {
        return Err(DocumentError::Differs("the archive's name"));
    }
    let attestation = match document.attestation {
        None => None,
        Some((key, bundle)) => {
            let about = key == format!("{package}-{version}.sigstore")
                && attestation::about(&bundle, package, &version, &archive.digest);
            if !about {
                return Err(DocumentError::Differs("the provenance bundle"));
            }
            Some(bundle)
        }
    };

    let mut file = archive.file;
    file.rewind().map_err(DocumentError::Io)?;
    let inside = tarball::inspect(&mut file, archive.size)?;
    manifest::agree(&manifest, &inside)?;
    let contents = Contents {
        entries: inside.entries,
        unpacked: inside.unpacked,
        install_scripts: manifest::named_install_scripts(&manifest),
    };
    let manifest = told::told(manifest, &inside);
    members.insert("manifest".to_owned(), Value::Object(manifest));
    Ok(Publish {
        package: package.clone(),
        version,
        tag: Some(tag),
        name: None,
        digest: archive.digest,
        size: archive.size,
        contents,
        file,
        envelope: Envelope::Npm(super::Envelope {
            metadata: members,
            attestation,
        }),
    })
}

/// Reads the document, member by member; nothing is compared yet.
fn document(input: impl Read, spool: &Path) -> Result<Document, DocumentError> {
    let mut out = Document::default();
    let mut json = Strict::new(input, MAX_METADATA);
    json.object(|json, name| {
        match name {
            "_attachments" => json.object(|json, key| attachment(json, key, spool, &mut out))?,
            "_id" | "name" | "dist-tags" | "versions" => {
                out.members.insert(name.to_owned(), json.value()?);
            }
            "description" | "readme" | "readmeFilename" => match json.value()? {
                Value::Null => {}
                Value::String(s) => {
                    out.members.insert(name.to_owned(), Value::String(s));
                }
                _ => return Err(DocumentError::Shape("description")),
            },
            "access" => match json.value()? {
                Value::Null => {}
                Value::String(s) if ["public", "restricted"].contains(&s.as_str()) => {
                    out.members.insert(name.to_owned(), Value::String(s));
                }
                _ => return Err(DocumentError::Shape("access")),
            },
            // `maintainers`, `time`, `_rev`, `users`: they would change the package, not publish.
            _ => return Err(DocumentError::Extra(shown(name))),
        }
        Ok(())
    })?;
    json.finish()?;
    Ok(out)
}

/// Reads one attachment: the archive or the provenance bundle, each at most once. The registry takes
/// the first of several archives, so that a second one would be a choice.
fn attachment<R: Read>(
    json: &mut Strict<R>,
    key: &str,
    spool: &Path,
    out: &mut Document,
) -> Result<(), DocumentError> {
    let is_archive = extension(key) == Some("tgz") && out.archive.is_none();
    let is_bundle = extension(key) == Some("sigstore") && out.attestation.is_none();
    if !is_archive && !is_bundle {
        return Err(DocumentError::Extra(shown(key)));
    }
    let (mut content_type, mut length) = (None, None);
    let (mut archive, mut bundle) = (None, None);
    json.object(|json, field| {
        match field {
            "content_type" => content_type = Some(json.text()?),
            "length" => length = json.value()?.as_u64(),
            "data" if is_archive => archive = Some(json.stream(|data| keep(data, key, spool))?),
            "data" => bundle = Some(json.stream(read_bundle)?),
            _ => return Err(DocumentError::Extra(shown(field))),
        }
        Ok(())
    })?;
    let (Some(content_type), Some(length)) = (content_type, length) else {
        return Err(DocumentError::Shape("attachment"));
    };
    if let Some(archive) = archive {
        if content_type != "application/octet-stream" {
            return Err(DocumentError::Shape("attachment"));
        }
        if length != archive.size {
            return Err(DocumentError::Differs("the archive's length"));
        }
        out.archive = Some(archive);
    } else if let Some(text) = bundle {
        let bundle = Attestation {
            content_type,
            text,
            length,
        };
        out.attestation = Some((key.to_owned(), bundle));
    } else {
        return Err(DocumentError::Shape("attachment"));
    }
    Ok(())
}

/// Decodes the archive into a temporary file, and computes both digests on the way.
fn keep(data: &mut dyn Read, key: &str, spool: &Path) -> Result<Archive, DocumentError> {
    let mut decoder = DecoderReader::new(data, &STANDARD);
    let mut file = spooled_tempfile_in(IN_MEMORY, spool);
    let mut sha512 = Hasher::new(Algorithm::Sha512);
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    let mut size = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = decoder
            .read(&mut buffer)
            .map_err(|_| DocumentError::Shape("archive"))?;
        let part = buffer.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        size += n as u64;
        if size > MAX_ARCHIVE {
            return Err(DocumentError::TooLarge);
        }
        sha512.update(part);
        sha1.update(part);
        file.write_all(part).map_err(DocumentError::Io)?;
    }
    Ok(Archive {
        key: key.to_owned(),
        file,
        size,
        digest: sha512.finish(),
        shasum: hex(sha1.finish().as_ref()),
    })
}

fn read_bundle(data: &mut dyn Read) -> Result<String, DocumentError> {
    let mut text = String::new();
    data.take(attestation::MAX_BUNDLE + 1)
        .read_to_string(&mut text)
        .map_err(|_| DocumentError::Shape("provenance bundle"))?;
    if text.len() as u64 > attestation::MAX_BUNDLE {
        return Err(DocumentError::Shape("provenance bundle"));
    }
    Ok(text)
}

/// The only member of the object `field`.
fn only(
    members: &mut Map<String, Value>,
    field: &'static str,
) -> Result<(String, Value), DocumentError> {
    let Some(Value::Object(object)) = members.remove(field) else {
        return Err(DocumentError::Shape(field));
    };
    let mut all = object.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(DocumentError::Shape(field)),
    }
}

/// The registry drops build metadata, so that two texts would be one version: it is refused.
fn parse_version(text: &str) -> Result<VersionText, DocumentError> {
    let version: semver::Version = text.parse().map_err(|_| DocumentError::Shape("version"))?;
    if !version.build.is_empty() || version.to_string() != text {
        return Err(DocumentError::Shape("version"));
    }
    text.parse().map_err(|_| DocumentError::Shape("version"))
}

/// npm refuses tags that read as a version range, since `npm install x@1` must not mean a tag.
fn parse_tag(text: &str) -> Result<VersionText, DocumentError> {
    let bad = || DocumentError::Shape("dist-tags");
    let digits = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let range = digits.starts_with(|c: char| c.is_ascii_digit())
        || text.starts_with(['-', '.', '~'])
        || ["x", "X"].contains(&text)
        || text.parse::<semver::VersionReq>().is_ok();
    if range {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

/// The manifest's own name, version and digests against what was received.
fn check_manifest(
    manifest: &Map<String, Value>,
    package: &PackageName,
    version: &VersionText,
    archive: &Archive,
) -> Result<(), DocumentError> {
    let is = |value: Option<&Value>, text: &str| value.and_then(Value::as_str) == Some(text);
    if !is(manifest.get("name"), package.as_str()) {
        return Err(DocumentError::Differs("the manifest's name"));
    }
    if !is(manifest.get("version"), version.as_str()) {
        return Err(DocumentError::Differs("the manifest's version"));
    }
    if !is(manifest.get("_id"), &format!("{package}@{version}")) {
        return Err(DocumentError::Differs("the manifest's _id"));
    }
    let Some(dist) = manifest.get("dist").and_then(Value::as_object) else {
        return Err(DocumentError::Shape("manifest"));
    };
    // `signatures` and `attestations` are the registry's to write.
    let known = [
        "integrity",
        "shasum",
        "tarball",
        "fileCount",
        "unpackedSize",
    ];
    if let Some(extra) = dist.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(DocumentError::Extra(shown(extra)));
    }
    if !is(dist.get("integrity"), &archive.digest.sri()) {
        return Err(DocumentError::Differs("the archive's sha512"));
    }
    if !is(dist.get("shasum"), &archive.shasum) {
        return Err(DocumentError::Differs("the archive's sha1"));
    }
    Ok(())
}

/// The text behind the last dot.
fn extension(key: &str) -> Option<&str> {
    key.rsplit_once('.').map(|(_, extension)| extension)
}

fn shown(name: &str) -> String {
    text::harmless(&name.chars().take(100).collect::<String>())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
