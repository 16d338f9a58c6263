//! Python's upload protocol, as twine, uv, flit, hatch and poetry speak it, and the simple index.
//!
//! [`read`] parses the form of `POST /legacy/` into a [`super::Publish`] and looks into the file;
//! [`PyPi`] writes the form anew for the registry and reads the index back. Of what the client sent,
//! the file's bytes alone are passed on.

mod doors;
mod index;
mod inspect;
mod macaroon;
mod metadata;
mod multipart;
mod project;
mod prove;
mod upload;
mod upstream;
mod version;

pub use inspect::DistributionError;
pub use macaroon::MacaroonError;
pub use metadata::MetadataError;
pub use multipart::FormError;
pub use project::{NoProjectId, ProjectId, ProjectIds};
pub use upload::{Attestations, UploadError, read};
pub use upstream::PyPi;

use super::{Kind, KindRow};
use proto::{
    digest::Algorithm,
    distribution::{Distribution, project_name},
    ids::PackageName,
    request::Item,
    text,
};
use std::sync::Arc;

/// PyPI's row in the table of registries.
pub const ROW: KindRow = KindRow {
    kind: Kind::PyPi,
    name: "pypi",
    algorithm: Algorithm::Sha256,
    tags: false,
    package,
    item: check_item,
    read: Some(|body, head, folder| {
        let kind = head.media_type.as_deref().unwrap_or_default();
        let attestations = if head.drops_attestations {
            Attestations::Drop
        } else {
            Attestations::Refuse
        };
        read(body, kind, folder, attestations).map_err(|e| e.to_string())
    }),
    connect: Some(|address, timeouts| Ok(Arc::new(PyPi::new(address, timeouts)?))),
};

/// What an upload's form says beside the file, as it will be sent.
pub struct Envelope {
    fields: Vec<(&'static str, String)>,
}

fn package(name: &str) -> Result<PackageName, String> {
    let bad = || {
        format!(
            "'{}' is not the name of a Python project",
            text::harmless(name)
        )
    };
    project_name(name)
        .ok_or_else(bad)?
        .parse()
        .map_err(|_| bad())
}

/// Distributions of this project and this version, each once, with the index's own digest.
fn check_item(item: &Item) -> Result<(), String> {
    let name = item.name();
    let version = item.version.as_str();
    match version::normal(version) {
        None => return Err(format!("{version} is not a version by PEP 440")),
        Some(normal) if normal != version => {
            return Err(format!("write the version {version} as {normal}"));
        }
        Some(_) => {}
    }
    if item.files.is_empty() {
        return Err(format!(
            "{name} has no files; a release is made of wheels and an sdist"
        ));
    }
    if item.tag.is_some() {
        return Err(format!("{name} has a tag; this registry has none"));
    }
    let mut names = std::collections::BTreeSet::new();
    for file in &item.files {
        if file.digest.algorithm() != Algorithm::Sha256 {
            return Err(format!("{name}: this registry's digests are sha256"));
        }
        let named = Distribution::parse(&file.name).map_err(|e| e.to_string())?;
        if named.project != item.package || named.version != version {
            return Err(format!("{} is not a file of {name}", file.name));
        }
        if !names.insert(&file.name) {
            return Err(format!("{name} has {} twice", file.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{digest::Digest, request::File};

    fn item(package: &str, version: &str, files: &[&str]) -> Item {
        let file = |name: &&str| File {
            name: (*name).to_owned(),
            size: 1,
            digest: Digest::of(Algorithm::Sha256, b"x"),
        };
        Item {
            registry: "pypi".parse().unwrap(),
            package: package.parse().unwrap(),
            version: version.parse().unwrap(),
            tag: None,
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn a_release_is_files_of_one_project_and_version() {
        let both = [samples::WHEEL, samples::SDIST];
        assert_eq!(check_item(&item("acme-demo", "1.0.0", &both)), Ok(()));
        for (why, bad) in [
            ("no files", item("acme-demo", "1.0.0", &[])),
            ("another project", item("acme", "1.0.0", &both)),
            ("another version", item("acme-demo", "1.0.1", &both)),
            (
                "one file twice",
                item("acme-demo", "1.0.0", &[samples::SDIST, samples::SDIST]),
            ),
            (
                "no distribution",
                item("acme-demo", "1.0.0", &["acme_demo-1.0.0.zip"]),
            ),
            ("another spelling", item("acme-demo", "v1.0.0", &both)),
            ("no version", item("acme-demo", "latest", &both)),
        ] {
            assert!(check_item(&bad).is_err(), "{why}");
        }
        let mut tagged = item("acme-demo", "1.0.0", &both);
        tagged.tag = Some("latest".parse().unwrap());
        assert!(check_item(&tagged).is_err());
        let mut other = item("acme-demo", "1.0.0", &both);
        other.files[0].digest = Digest::of(Algorithm::Sha512, b"x");
        assert!(check_item(&other).is_err());
        assert_eq!(package("Acme.Demo").unwrap().as_str(), "acme-demo");
        assert!(package("@acme/demo").is_err());
    }
}
