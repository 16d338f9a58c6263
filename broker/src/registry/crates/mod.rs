//! cargo's registry protocol: the publish body, the `.crate` inside it, and the sparse index.
//!
//! [`body`] parses what `cargo publish` sends, and a bare `.crate`, into a [`super::Publish`]; [`Crates`] builds the body for the registry from the archive's own Cargo.toml, and
//! reads the index back. Of what the client sent, the archive's bytes alone are passed on.

mod body;
mod doors;
mod index;
mod inspect;
mod manifest;
mod prove;
mod upstream;
mod withdraw;

pub use body::CrateError;
pub use index::path as index_path;
pub use inspect::InspectError;
pub use manifest::ManifestError;
pub use upstream::Crates;

use super::{Kind, KindRow};
use body::{read_body, read_file};
use proto::{digest::Algorithm, ids::PackageName, request::Item, text};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Longest `.crate`, in bytes; the public registry's own limit.
pub const MAX_CRATE: u64 = 10 << 20;
/// The media type of a bare `.crate`; without it an upload is what `cargo publish` sends.
pub const FILE_TYPE: &str = "application/x-crate";
/// Longest name, in bytes; the public registry's own limit.
const MAX_NAME: usize = 64;

/// The row of cargo's protocol in the table of registries.
pub const ROW: KindRow = KindRow {
    kind: Kind::Crates,
    name: "crates",
    algorithm: Algorithm::Sha256,
    tags: false,
    package,
    item: check_item,
    read: Some(|body, head, spool| {
        let read = if head.media_type.as_deref() == Some(FILE_TYPE) {
            read_file(body, None, spool)
        } else {
            read_body(body, spool)
        };
        read.map_err(|e| e.to_string())
    }),
    connect: Some(|address, timeouts| Ok(Arc::new(Crates::new(address, timeouts)?))),
};

/// The JSON that stands before the archive, made from its Cargo.toml.
pub struct Envelope {
    metadata: Map<String, Value>,
}

fn package(name: &str) -> Result<PackageName, String> {
    let bad = || format!("'{}' is not a crate's name", text::harmless(name));
    if is_name(name) {
        name.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// ASCII letters, digits, `-` and `_`, a letter first.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// One file, named after crate and version, with the index's own digest.
fn check_item(item: &Item) -> Result<(), String> {
    let name = item.name();
    let [file] = item.files.as_slice() else {
        return Err(format!("{name} has exactly one file, its .crate"));
    };
    if file.digest.algorithm() != Algorithm::Sha256 {
        return Err(format!("{name}: this registry's digests are sha256"));
    }
    if file.name != file_name(item.package.as_str(), item.version.as_str()) {
        return Err(format!("{} is not the file of {name}", file.name));
    }
    if file.size > MAX_CRATE {
        return Err(format!("{name} is larger than 10 MiB"));
    }
    if item.tag.is_some() {
        return Err(format!("{name} has a tag; this registry has none"));
    }
    match semver::Version::parse(item.version.as_str()) {
        // Build metadata is not part of what the index tells apart.
        Ok(version) if version.build.is_empty() => Ok(()),
        Ok(_) => Err(format!(
            "{name}: a version without build metadata is needed"
        )),
        Err(_) => Err(format!("{name}: not a version by semver.org 2.0.0")),
    }
}

fn file_name(package: &str, version: &str) -> String {
    format!("{package}-{version}.crate")
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{digest::Digest, request::File};

    fn item() -> Item {
        Item {
            registry: "crates".parse().unwrap(),
            package: "acme-left".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: None,
            files: vec![File {
                name: "acme-left-1.4.2.crate".into(),
                size: 1,
                digest: Digest::of(Algorithm::Sha256, b"x"),
            }],
        }
    }

    #[test]
    fn an_item_is_one_crate_file_of_its_name_and_version() {
        assert_eq!(check_item(&item()), Ok(()));
        let bends: [fn(&mut Item); 9] = [
            |i| i.files.clear(),
            |i| i.files.push(i.files[0].clone()),
            |i| i.files[0].name = "acme-left-1.4.3.crate".into(),
            |i| i.files[0].size = MAX_CRATE + 1,
            |i| i.files[0].digest = Digest::of(Algorithm::Sha512, b"x"),
            |i| i.tag = Some("latest".parse().unwrap()),
            |i| i.version = "1.4".parse().unwrap(),
            |i| i.version = "1.4.2+build".parse().unwrap(),
            |i| i.package = "acme-right".parse().unwrap(),
        ];
        for (n, bend) in bends.iter().enumerate() {
            let mut bad = item();
            bend(&mut bad);
            assert!(check_item(&bad).is_err(), "{n}");
        }
        for bad in [
            "",
            "1a",
            "-a",
            "a.b",
            "@acme/left",
            "a b",
            "ä",
            "a/b",
            &"a".repeat(65),
        ] {
            assert!(package(bad).is_err(), "{bad}");
        }
        assert_eq!(package("Inflector_2").unwrap().as_str(), "Inflector_2");
    }
}
