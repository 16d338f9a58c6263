//! OCI registries: container images and other artifacts, by the distribution protocol.
//!
//! What is published is a tag. Its files are everything that the tag's manifest stands for: the manifest itself,
//! the manifests that an index lists, and their blobs. Each is approved by its digest and named after its place
//! under `/v2/<repository>/`: `manifests/1.4.2`, `manifests/sha256:…`, `blobs/sha256:…`. So a blob needs no
//! trust of its own: whatever was not approved is refused before a byte of it leaves, and no more disk is taken
//! than the approved sizes say.
//!
//! [`read`] takes one of them apart; [`Oci`] sends it and reads it back.

mod login;
mod manifest;
mod prove;
mod read_back;
mod upstream;

pub use manifest::ManifestError;
pub use upstream::Oci;

use super::{Contents, Head, Kind, KindRow, Need, Publish, pieces};
use proto::{
    digest::{Algorithm, Digest},
    ids::{PackageName, VersionText},
    request::Item,
    text,
};
use std::{collections::BTreeSet, io, io::Read as _, sync::Arc};
use tempfile::SpooledTempFile;
use thiserror::Error;

/// Longest manifest, in bytes; what registries take.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Longest blob, in bytes. It is spooled, and passed on in one request.
pub const BLOB_MAX: u64 = 1 << 30;
/// Longest name of a repository, in bytes.
const NAME_MAX: usize = 214;

/// The row of OCI registries.
pub const ROW: KindRow = KindRow {
    kind: Kind::Oci,
    name: "oci",
    algorithm: Algorithm::Sha256,
    tags: false,
    package,
    item: check_item,
    read: Some(|body, head, _| read(body, head).map_err(|e| e.to_string())),
    connect: Some(|address, timeouts| Ok(Arc::new(Oci::new(address, timeouts)?))),
};

/// A file's place in its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `blobs/sha256:…`
    Blob(Digest),
    /// `manifests/sha256:…`
    Manifest(Digest),
    /// `manifests/<tag>`
    Tag(VersionText),
}

impl Place {
    /// Reads a file's name; `None` for anything that is no such place.
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once('/')? {
            ("blobs", digest) => sha256(digest).map(Self::Blob),
            ("manifests", reference) if reference.contains(':') => {
                sha256(reference).map(Self::Manifest)
            }
            ("manifests", tag) => is_tag(tag).then(|| tag.parse().ok().map(Self::Tag))?,
            _ => None,
        }
    }

    /// The name of the file in this place.
    pub fn name(&self) -> String {
        match self {
            Self::Blob(digest) => format!("blobs/{digest}"),
            Self::Manifest(digest) => format!("manifests/{digest}"),
            Self::Tag(tag) => format!("manifests/{tag}"),
        }
    }
}

/// What goes with a file on its way to the registry.
pub enum Envelope {
    /// A blob.
    Blob,
    /// A manifest.
    Manifest {
        /// Its media type.
        media_type: &'static str,
        /// Whether it is the one that the tag will point to.
        tagged: bool,
        /// What must be at the registry before it.
        needs: Vec<Need>,
    },
}

/// Why an upload was refused.
#[derive(Debug, Error)]
pub enum PushError {
    /// The address does not say what it is.
    #[error("an upload needs an address under /v2/<repository>/")]
    NoPlace,
    /// Longer than registries take.
    #[error("a manifest is larger than 4 MiB")]
    TooLarge,
    /// An index that no tag would point to.
    #[error("an index is pushed as a tag; below an index there are images alone")]
    IndexBelow,
    /// The manifest cannot be understood in one way only.
    #[error("the manifest {0}")]
    Manifest(#[from] ManifestError),
    /// The spool failed.
    #[error("the upload could not be read")]
    Io(#[from] io::Error),
}

/// Reads an upload: hashes it, and takes a manifest apart.
fn read(body: &mut SpooledTempFile, head: &Head) -> Result<Publish, PushError> {
    let (Some(package), Some(version), Some(name)) = (&head.package, &head.version, &head.file)
    else {
        return Err(PushError::NoPlace);
    };
    let place = Place::parse(name).ok_or(PushError::NoPlace)?;
    let mut file = tempfile::spooled_tempfile(0);
    let (size, digest) = pieces::digest_of(body, Algorithm::Sha256)?;
    let envelope = if let Place::Blob(_) = place {
        Envelope::Blob
    } else {
        if size > MANIFEST_MAX {
            return Err(PushError::TooLarge);
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        let media_type = head.media_type.as_deref().unwrap_or_default();
        let (media_type, needs) = manifest::read(&bytes, media_type)?;
        // What an index lists are images, and so they must be when they come.
        if matches!(place, Place::Manifest(_)) && manifest::is_index(media_type) {
            return Err(PushError::IndexBelow);
        }
        Envelope::Manifest {
            media_type,
            tagged: matches!(place, Place::Tag(_)),
            needs,
        }
    };
    io::Seek::rewind(body)?;
    // The body is the file: it moves, and nothing is copied.
    std::mem::swap(&mut file, body);
    Ok(Publish {
        package: package.clone(),
        version: version.clone(),
        tag: None,
        name: Some(place.name()),
        digest,
        size,
        contents: Contents {
            entries: 0,
            unpacked: 0,
            install_scripts: Vec::new(),
        },
        file,
        envelope: super::Envelope::Oci(envelope),
    })
}

/// A digest in the one form and algorithm that is passed on.
fn sha256(text: &str) -> Option<Digest> {
    let digest: Digest = text.parse().ok()?;
    (digest.algorithm() == Algorithm::Sha256).then_some(digest)
}

/// OCI distribution specification 1.1, "Pulling manifests": `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A repository's name, by the same place: path components of lower-case letters and digits, between which one
/// `.`, one or two `_`, or any number of `-` may stand. No upper case, no empty component, no `..`.
fn is_name(name: &str) -> bool {
    let component = |c: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let mut bytes = c.bytes();
        let good = edge(bytes.next()) && edge(c.bytes().next_back());
        good && c
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
            })
    };
    name.len() <= NAME_MAX && name.split('/').all(component)
}

fn package(name: &str) -> Result<PackageName, String> {
    let bad = || format!("'{}' is not a repository's name", text::harmless(name));
    if is_name(name) {
        name.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// The manifest of the tag, and whatever else is named by its own digest.
fn check_item(item: &Item) -> Result<(), String> {
    let name = item.name();
    if !is_tag(item.version.as_str()) {
        return Err(format!("{} is not a tag", item.version));
    }
    if item.tag.is_some() {
        return Err(format!("{name}: its version is its tag; it has no other"));
    }
    let (mut names, mut tagged) = (BTreeSet::new(), false);
    for file in &item.files {
        if file.digest.algorithm() != Algorithm::Sha256 {
            return Err(format!("{name}: this registry's digests are sha256"));
        }
        let most = match Place::parse(&file.name) {
            Some(Place::Blob(digest)) if digest == file.digest => BLOB_MAX,
            Some(Place::Manifest(digest)) if digest == file.digest => MANIFEST_MAX,
            Some(Place::Tag(tag)) if tag == item.version => {
                tagged = true;
                MANIFEST_MAX
            }
            _ => {
                return Err(format!(
                    "{name}: '{}' is neither manifests/{}, nor manifests/ or blobs/ with the file's own digest",
                    file.name, item.version
                ));
            }
        };
        if file.size > most {
            return Err(format!(
                "{name}: {} is larger than {} MiB",
                file.name,
                most >> 20
            ));
        }
        if !names.insert(&file.name) {
            return Err(format!("{name} has {} twice", file.name));
        }
    }
    if tagged {
        Ok(())
    } else {
        Err(format!("{name} needs the file manifests/{}", item.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::request::File;

    fn file(name: &str, bytes: &[u8]) -> File {
        File {
            name: name.to_owned(),
            size: bytes.len() as u64,
            digest: Digest::of(Algorithm::Sha256, bytes),
        }
    }

    fn item() -> Item {
        let blob = Digest::of(Algorithm::Sha256, b"blob");
        let child = Digest::of(Algorithm::Sha256, b"child");
        Item {
            registry: "oci".parse().unwrap(),
            package: "acme/app".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: None,
            files: vec![
                file(&format!("blobs/{blob}"), b"blob"),
                file(&format!("manifests/{child}"), b"child"),
                file("manifests/1.4.2", b"index"),
            ],
        }
    }

    #[test]
    fn attack_16_an_item_is_one_tags_manifest_and_what_its_digests_name() {
        assert_eq!(check_item(&item()), Ok(()));
        let bends: [fn(&mut Item); 10] = [
            |i| i.files.clear(),
            |i| drop(i.files.pop()),
            |i| i.files.push(i.files[0].clone()),
            |i| i.files[0].digest = Digest::of(Algorithm::Sha256, b"other"),
            |i| i.files[1].digest = Digest::of(Algorithm::Sha256, b"other"),
            |i| i.files[2].digest = Digest::of(Algorithm::Sha512, b"index"),
            |i| i.files.push(file("manifests/latest", b"index")),
            |i| i.files.push(file("uploads/x", b"x")),
            |i| i.files[2].size = MANIFEST_MAX + 1,
            |i| i.tag = Some("latest".parse().unwrap()),
        ];
        for (n, bend) in bends.iter().enumerate() {
            let mut bad = item();
            bend(&mut bad);
            assert!(check_item(&bad).is_err(), "{n}");
        }
    }

    #[test]
    fn attack_14_a_child_of_another_media_type_than_its_index_says_is_refused() {
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        let read_as = |name: String, kind: &str| {
            let mut body = tempfile::spooled_tempfile(1 << 20);
            io::Write::write_all(&mut body, index).unwrap();
            let head = Head {
                package: Some("acme/app".parse().unwrap()),
                version: Some("1.4.2".parse().unwrap()),
                file: Some(name),
                media_type: Some(kind.to_owned()),
                ..Head::default()
            };
            read(&mut body, &head).map(drop)
        };
        let oci = "application/vnd.oci.image.index.v1+json";
        let image = "application/vnd.oci.image.manifest.v1+json";
        assert!(read_as("manifests/1.4.2".to_owned(), oci).is_ok());
        // Only the tag stands for an index: what an index lists are images.
        let digest = Digest::of(Algorithm::Sha256, index);
        for kind in [oci, image, "application/vnd.oci.image.config.v1+json"] {
            assert!(
                read_as(format!("manifests/{digest}"), kind).is_err(),
                "{kind}"
            );
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for good in ["a", "acme/app", "acme/a-b__c.d_e--f/0", "library/x"] {
            assert!(package(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "a/../b", "..", "a..b", "A/b", "a_-b", "a___b", "-a",
            "a-", "a b", "a:b", "a@b", "a%2fb", "ä",
        ] {
            assert!(package(bad).is_err(), "{bad:?}");
        }
        assert!(package(&"a".repeat(215)).is_err());
        for bad in [
            "blobs/1.0",
            "blobs/sha512:00",
            "manifests/",
            "manifests/-x",
            "manifests/a/b",
            "manifests/sha256:AA",
            "1.0",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        assert_eq!(Place::parse("manifests/v1").unwrap().name(), "manifests/v1");
    }
}
