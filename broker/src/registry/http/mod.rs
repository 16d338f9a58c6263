//! Servers that take a file as the body of one request: an artifact store, WebDAV, an upload call of one's own.
//!
//! Nothing of their protocol is known here. The configuration says where a file goes, which header carries the
//! token, and where the file is read back; the file's bytes are what was approved, and the server must show the
//! same bytes before the request counts as published.

mod shape;
mod upstream;

pub use shape::{Shape, ShapeError};
pub use upstream::Server;

use super::{Contents, Head, Kind, KindRow, Publish, pieces};
use proto::{digest::Algorithm, ids::PackageName, request::Item, text};
use std::{collections::BTreeSet, io, sync::Arc};
use tempfile::SpooledTempFile;

/// The row of such servers.
pub const ROW: KindRow = KindRow {
    kind: Kind::Http,
    name: "http",
    algorithm: Algorithm::Sha256,
    tags: false,
    package,
    item: check_item,
    read: Some(|body, head, _| read(body, head)),
    connect: Some(|address, timeouts| Ok(Arc::new(Server::new(address, timeouts)?))),
};

/// Hashes an upload. What is inside is nobody's business but the approver's.
fn read(body: &mut SpooledTempFile, head: &Head) -> Result<Publish, String> {
    let (Some(package), Some(version), Some(name)) = (&head.package, &head.version, &head.file)
    else {
        return Err("an upload needs an address that names package, version and file".to_owned());
    };
    let unreadable = |_: io::Error| "the upload could not be read".to_owned();
    let (size, digest) = pieces::digest_of(body, Algorithm::Sha256).map_err(unreadable)?;
    // The body is the file: it moves, and nothing is copied.
    let file = std::mem::replace(body, tempfile::spooled_tempfile(0));
    Ok(Publish {
        package: package.clone(),
        version: version.clone(),
        tag: None,
        name: Some(name.clone()),
        digest,
        size,
        contents: Contents {
            entries: 0,
            unpacked: 0,
            install_scripts: Vec::new(),
        },
        file,
        envelope: super::Envelope::Http,
    })
}

/// A part of a path: it means the same on every server, decoded or not.
fn is_segment(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.~@+=,".contains(&b);
    !text.is_empty() && text.len() <= 200 && text != "." && text != ".." && text.bytes().all(good)
}

fn package(name: &str) -> Result<PackageName, String> {
    let bad = || {
        format!(
            "'{}' is not a name of letters, digits and -_.~@, with / between its parts",
            text::harmless(name)
        )
    };
    if name.split('/').all(is_segment) {
        name.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// Files whose names can stand in a path, each once.
fn check_item(item: &Item) -> Result<(), String> {
    let name = item.name();
    if item.files.is_empty() {
        return Err(format!("{name} has no files"));
    }
    if item.tag.is_some() {
        return Err(format!("{name} has a tag; this registry has none"));
    }
    if !is_segment(item.version.as_str()) {
        return Err(format!("{} cannot stand in a path", item.version));
    }
    let mut names = BTreeSet::new();
    for file in &item.files {
        if file.digest.algorithm() != Algorithm::Sha256 {
            return Err(format!("{name}: this registry's digests are sha256"));
        }
        if !is_segment(&file.name) {
            return Err(format!(
                "{name}: the file name '{}' cannot stand in a path",
                file.name
            ));
        }
        // Some file systems keep one file for two spellings.
        if !names.insert(file.name.to_ascii_lowercase()) {
            return Err(format!("{name} has {} twice", file.name));
        }
    }
    Ok(())
}

/// What `…/<package>/<version>/<file>` names; nothing is decoded.
pub fn place(path: &str) -> Option<(PackageName, proto::ids::VersionText, String)> {
    let (rest, file) = path.rsplit_once('/')?;
    let (name, version) = rest.rsplit_once('/')?;
    let good = is_segment(file) && is_segment(version);
    good.then(|| Some((package(name).ok()?, version.parse().ok()?, file.to_owned())))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{digest::Digest, request::File};

    fn item(files: &[&str]) -> Item {
        let file = |name: &&str| File {
            name: (*name).to_owned(),
            size: 1,
            digest: Digest::of(Algorithm::Sha256, b"x"),
        };
        Item {
            registry: "files".parse().unwrap(),
            package: "acme/app".parse().unwrap(),
            version: "1.0+a".parse().unwrap(),
            tag: None,
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn attack_40_names_stand_in_a_path_in_one_way_only() {
        assert_eq!(check_item(&item(&["app.tgz", "app.sig"])), Ok(()));
        for bad in [
            &[][..],
            &["a", "a"],
            &["a", "A"],
            &[".."],
            &["a/b"],
            &["a b"],
            &["a%2f"],
            &["a?b"],
            &["ä"],
        ] {
            assert!(check_item(&item(bad)).is_err(), "{bad:?}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "a/../b", "a/./b", "a:b", "a%2fb", "a b",
        ] {
            assert!(package(bad).is_err(), "{bad}");
        }
        let (package, version, file) = place("acme/app/1.0/x.tgz").unwrap();
        assert_eq!(
            (package.as_str(), version.as_str(), file.as_str()),
            ("acme/app", "1.0", "x.tgz")
        );
        for bad in [
            "acme/app",
            "a/../1.0/x",
            "a/1.0/..",
            "a/1.0/",
            "a//x",
            "/1.0/x",
        ] {
            assert!(place(bad).is_none(), "{bad}");
        }
    }
}
