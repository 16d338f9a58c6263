//! Reads the body of `POST /legacy/`: a form with one file and what the client says of it.
//!
//! The client's fields are compared with the archive's own metadata, and then forgotten: what is sent on is
//! written from the archive alone. Clients write the fields in different orders, so that everything is read
//! before anything is judged.

use super::{
    inspect::{self, DistributionError},
    metadata::{self, MetadataError, Values},
    multipart::{Form, FormError},
    version,
};
use crate::registry::{self, IN_MEMORY, Publish};
use proto::{
    digest::{Algorithm, Digest, Hasher, hex},
    distribution::{self, Distribution, FileNameError},
};
use serde::Deserialize;
use std::{
    io::{self, Read, Seek as _, Write as _},
    path::Path,
};
use tempfile::{SpooledTempFile, spooled_tempfile_in};
use thiserror::Error;

/// All text fields together, in bytes. A long description has some hundred kB.
const MAX_FIELDS: u64 = 4 << 20;
/// How many fields.
const MAX_COUNT: usize = 4096;
/// The archive. The public index takes 100 MiB unless asked for more.
const MAX_ARCHIVE: u64 = 240 << 20;
const CHUNK: usize = 16 << 10;

/// What becomes of attestations (PEP 740). The index refuses them beside an API token: it wants them from
/// the trusted publisher that signed them, which the broker is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attestations {
    /// The upload is refused, and says so.
    #[default]
    Refuse,
    /// They are left out of what is sent on.
    Drop,
}

/// Why an upload was refused.
#[derive(Debug, Error)]
pub enum UploadError {
    /// No form.
    #[error(transparent)]
    Form(#[from] FormError),
    /// Another call of the same route, or of another time.
    #[error("the upload's {0} is not that of a publish; the broker passes on nothing else")]
    NotAPublish(&'static str),
    /// A field that a publish does not have.
    #[error("the upload has a field '{0}', which a publish does not have")]
    Extra(String),
    /// A field twice that may stand there once.
    #[error("the upload has the field '{0}' twice")]
    Twice(&'static str),
    /// A field that is missing.
    #[error("the upload has no field '{0}'")]
    Missing(&'static str),
    /// More than a publish has.
    #[error("the upload is too large ({0})")]
    TooLarge(&'static str),
    /// Attestations, where the configuration does not drop them.
    #[error(
        "the upload has attestations, which the registry refuses beside an API token; switch them off in the client, or set attestations = \"drop\" for this registry"
    )]
    Attestations,
    /// A digest of other bytes.
    #[error("the upload's {0} is not that of the file")]
    Digest(&'static str),
    /// The file's name.
    #[error(transparent)]
    FileName(#[from] FileNameError),
    /// A version in another spelling than the index's.
    #[error("the file name writes its version as '{0}'; its normal form is '{1}'")]
    Version(String, String),
    /// The archive.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// The form's metadata are not the archive's.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The broker's own disk.
    #[error("the file could not be kept")]
    Io(#[source] io::Error),
}

/// The form as it came.
#[derive(Default)]
struct Envelope {
    action: Option<String>,
    protocol: Option<String>,
    filetype: Option<String>,
    sha256: Option<String>,
    /// Digests that the broker does not pass on; the SHA-256 fixes the bytes.
    others: Vec<&'static str>,
    python: Option<String>,
    comment: Option<String>,
    metadata: Values,
    content: Option<Content>,
}

struct Content {
    name: String,
    file: SpooledTempFile,
    size: u64,
    digest: Digest,
}

/// Reads an upload whose `Content-Type` is given. Blocking; the file goes to a temporary file in `spool` that
/// has no name.
pub fn read(
    input: impl Read,
    content_type: &str,
    spool: &Path,
    attestations: Attestations,
) -> Result<Publish, UploadError> {
    let boundary = super::multipart::boundary(content_type)?;
    let envelope = envelope(Form::new(input, &boundary), spool, attestations)?;
    if envelope.action.as_deref() != Some("file_upload") {
        return Err(UploadError::NotAPublish(":action"));
    }
    if envelope.protocol.as_deref() != Some("1") {
        return Err(UploadError::NotAPublish("protocol_version"));
    }
    let mut content = envelope.content.ok_or(UploadError::Missing("content"))?;
    let named = Distribution::parse(&content.name)?;
    let normal = version::normal(&named.version).unwrap_or_default();
    if normal != named.version {
        return Err(UploadError::Version(named.version, normal));
    }
    let filetype = match named.form {
        distribution::Form::Wheel => "bdist_wheel",
        distribution::Form::Sdist => "sdist",
    };
    if envelope.filetype.as_deref() != Some(filetype) {
        return Err(UploadError::NotAPublish("filetype"));
    }
    let sha256 = hex(content.digest.as_bytes());
    match envelope.sha256 {
        None => return Err(UploadError::Missing("sha256_digest")),
        Some(given) if given != sha256 => return Err(UploadError::Digest("sha256_digest")),
        Some(_) => {}
    }

    content.file.rewind().map_err(UploadError::Io)?;
    let inside = inspect::inspect(&mut content.file, content.size, &named)?;
    metadata::agree(&metadata::said(envelope.metadata), &inside.metadata)?;
    let mut fields = vec![
        (":action", "file_upload".to_owned()),
        ("protocol_version", "1".to_owned()),
        ("filetype", filetype.to_owned()),
        ("pyversion", named.python),
        ("sha256_digest", sha256),
    ];
    for (name, values) in inside.metadata {
        fields.extend(values.into_iter().map(|value| (name, value)));
    }
    let bad_version = || UploadError::Version(normal.clone(), normal.clone());
    Ok(Publish {
        package: named.project,
        version: normal.parse().map_err(|_| bad_version())?,
        tag: None,
        name: Some(content.name),
        digest: content.digest,
        size: content.size,
        contents: inside.contents,
        file: content.file,
        envelope: registry::Envelope::PyPi(super::Envelope { fields }),
    })
}

/// Reads the form, part by part; nothing is compared yet.
fn envelope(
    mut form: Form<impl Read>,
    spool: &Path,
    attestations: Attestations,
) -> Result<Envelope, UploadError> {
    let mut out = Envelope::default();
    let (mut left, mut count) = (MAX_FIELDS, 0);
    while let Some(name) = form.next()? {
        count += 1;
        if count > MAX_COUNT {
            return Err(UploadError::TooLarge("fields"));
        }
        if let Some(file) = name.file {
            if name.field != "content" {
                return Err(UploadError::Extra(metadata::shown(&name.field)));
            }
            if out.content.is_some() {
                return Err(UploadError::Twice("content"));
            }
            out.content = Some(keep(&mut form, file, spool)?);
            continue;
        }
        let text = text(&mut form, &mut left)?;
        let slot = match name.field.as_str() {
            ":action" => (":action", &mut out.action),
            "protocol_version" => ("protocol_version", &mut out.protocol),
            "filetype" => ("filetype", &mut out.filetype),
            "pyversion" => ("pyversion", &mut out.python),
            "comment" => ("comment", &mut out.comment),
            "sha256_digest" => ("sha256_digest", &mut out.sha256),
            "md5_digest" => {
                other_digest("md5_digest", 32, &text, &mut out.others)?;
                continue;
            }
            "blake2_256_digest" => {
                other_digest("blake2_256_digest", 64, &text, &mut out.others)?;
                continue;
            }
            "attestations" => match attestations {
                Attestations::Refuse => return Err(UploadError::Attestations),
                Attestations::Drop => continue,
            },
            other => {
                let (field, once) = metadata::field(other)
                    .ok_or_else(|| UploadError::Extra(metadata::shown(other)))?;
                let values = out.metadata.entry(field).or_default();
                if once && !values.is_empty() {
                    return Err(UploadError::Twice(field));
                }
                values.push(text);
                continue;
            }
        };
        if slot.1.replace(text).is_some() {
            return Err(UploadError::Twice(slot.0));
        }
    }
    Ok(out)
}

/// A digest of another kind: it must be one, and stand there once.
fn other_digest(
    field: &'static str,
    digits: usize,
    text: &str,
    seen: &mut Vec<&'static str>,
) -> Result<(), UploadError> {
    if seen.contains(&field) {
        return Err(UploadError::Twice(field));
    }
    seen.push(field);
    let hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    // Some clients send the field empty instead of leaving it out.
    if hex || text.is_empty() {
        Ok(())
    } else {
        Err(UploadError::Digest(field))
    }
}

fn text(form: &mut Form<impl Read>, left: &mut u64) -> Result<String, UploadError> {
    let mut out = Vec::new();
    (&mut *form)
        .take(*left + 1)
        .read_to_end(&mut out)
        .map_err(broke)?;
    *left = left
        .checked_sub(out.len() as u64)
        .ok_or(UploadError::TooLarge("fields"))?;
    String::from_utf8(out)
        .map_err(|_| UploadError::Form(FormError::Shape("a text that is not UTF-8")))
}

fn keep(form: &mut Form<impl Read>, name: String, spool: &Path) -> Result<Content, UploadError> {
    let mut file = spooled_tempfile_in(IN_MEMORY, spool);
    let mut sha256 = Hasher::new(Algorithm::Sha256);
    let mut size = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = form.read(&mut buffer).map_err(broke)?;
        let part = buffer.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        size += n as u64;
        if size > MAX_ARCHIVE {
            return Err(UploadError::TooLarge("file"));
        }
        sha256.update(part);
        file.write_all(part).map_err(UploadError::Io)?;
    }
    Ok(Content {
        name,
        file,
        size,
        digest: sha256.finish(),
    })
}

fn broke(e: io::Error) -> UploadError {
    UploadError::Form(match e.kind() {
        io::ErrorKind::UnexpectedEof => FormError::Shape("it is cut short"),
        _ => FormError::Io(e),
    })
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
