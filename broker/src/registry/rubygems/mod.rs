//! The gems protocol, as `gem push` speaks it, and the compact index.
//!
//! [`inspect`] looks into a gem and proves that its parts are what its own checksums say; [`RubyGems`] pushes the very
//! bytes and reads the index back. Of what the client sent, the gem's bytes alone are passed on.

mod doors;
mod factor;
mod index;
mod inspect;
mod prove;
mod upstream;
mod withdraw;

pub use inspect::GemFileError;
pub use upstream::RubyGems;

use super::{Contents, Envelope, IN_MEMORY, Kind, KindRow, Publish};
use inspect::inspect;
use proto::{
    digest::{Algorithm, Hasher},
    gem::{is_name, is_platform, is_version},
    ids::PackageName,
    request::Item,
    text,
};
use std::{
    io::{Read, Seek as _, Write as _},
    path::Path,
    sync::Arc,
};
use tempfile::spooled_tempfile_in;

/// Longest gem, in bytes; the public registry's own limit is 500 MB, the broker's for any upload is less.
const MAX_GEM: u64 = 320 << 20;
const CHUNK: usize = 16 << 10;

/// The row of the gems protocol in the table of registries.
pub const ROW: KindRow = KindRow {
    kind: Kind::RubyGems,
    name: "rubygems",
    algorithm: Algorithm::Sha256,
    tags: false,
    package,
    item: check_item,
    read: Some(|body, _, spool| read(body, spool).map_err(|e| e.to_string())),
    connect: Some(|address, timeouts| Ok(Arc::new(RubyGems::new(address, timeouts)?))),
};

fn package(name: &str) -> Result<PackageName, String> {
    let bad = || format!("'{}' is not a gem's name", text::harmless(name));
    if is_name(name) {
        name.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// One gem for each platform, named as the registry will name it, with the index's own digest.
fn check_item(item: &Item) -> Result<(), String> {
    let name = item.name();
    if !is_version(item.version.as_str()) {
        return Err(format!(
            "{name}: a gem's version is numbers and words between dots, like 1.4.2 or 2.0.0.rc1"
        ));
    }
    if item.files.is_empty() {
        return Err(format!("{name} has no files; name the .gem"));
    }
    if item.tag.is_some() {
        return Err(format!("{name} has a tag; this registry has none"));
    }
    let mut names = std::collections::BTreeSet::new();
    for file in &item.files {
        if file.digest.algorithm() != Algorithm::Sha256 {
            return Err(format!("{name}: this registry's digests are sha256"));
        }
        if file.size > MAX_GEM {
            return Err(format!("{} is larger than 320 MiB", file.name));
        }
        let stem = format!("{}-{}", item.package, item.version);
        let rest = file.name.strip_prefix(&stem);
        let platform = rest.and_then(|rest| rest.strip_suffix(".gem"));
        let named = match platform {
            Some("") => true,
            Some(rest) => rest
                .strip_prefix('-')
                .is_some_and(|p| is_platform(p) && p != "ruby"),
            None => false,
        };
        if !named {
            return Err(format!("{} is not a file of {name}", file.name));
        }
        if !names.insert(&file.name) {
            return Err(format!("{name} has {} twice", file.name));
        }
    }
    Ok(())
}

/// Reads a gem. Blocking; the gem goes to a temporary file in `spool` that has no name.
fn read(mut input: impl Read, spool: &Path) -> Result<Publish, GemFileError> {
    let mut file = spooled_tempfile_in(IN_MEMORY, spool);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut size = 0u64;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = input.read(&mut buffer).map_err(GemFileError::Io)?;
        let Some(piece) = buffer.get(..n).filter(|p| !p.is_empty()) else {
            break;
        };
        size += n as u64;
        if size > MAX_GEM {
            return Err(GemFileError::TooLarge);
        }
        hasher.update(piece);
        file.write_all(piece).map_err(GemFileError::Io)?;
    }
    file.rewind().map_err(GemFileError::Io)?;
    let inside = inspect(&mut file, size)?;
    let name = inside.gem.file_name();
    Ok(Publish {
        package: inside.gem.name,
        version: inside.gem.version,
        tag: None,
        name: Some(name),
        digest: hasher.finish(),
        size,
        contents: Contents {
            entries: inside.entries,
            unpacked: inside.unpacked,
            install_scripts: inside
                .extensions
                .then_some("extconf.rb")
                .into_iter()
                .collect(),
        },
        file,
        envelope: Envelope::RubyGems,
    })
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{digest::Digest, request::File};

    fn item(files: &[&str]) -> Item {
        Item {
            registry: "gems".parse().unwrap(),
            package: "acme-left".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: None,
            files: files
                .iter()
                .map(|name| File {
                    name: (*name).to_owned(),
                    size: 1,
                    digest: Digest::of(Algorithm::Sha256, b"x"),
                })
                .collect(),
        }
    }

    #[test]
    fn an_item_is_one_version_with_a_gem_for_each_platform() {
        assert!(check_item(&item(&["acme-left-1.4.2.gem"])).is_ok());
        let both = item(&["acme-left-1.4.2.gem", "acme-left-1.4.2-x86_64-linux.gem"]);
        assert!(check_item(&both).is_ok());
        for bad in [
            &[][..],
            &["acme-left-1.4.3.gem"],
            &["acme-left-1.4.2-ruby.gem"],
            &["acme-left-1.4.2-.gem"],
            &["acme-left-1.4.2-a/b.gem"],
            &["acme-left-1.4.2.tgz"],
            &["acme-left-1.4.2.gem", "acme-left-1.4.2.gem"],
        ] {
            assert!(check_item(&item(bad)).is_err(), "{bad:?}");
        }
        let mut tagged = item(&["acme-left-1.4.2.gem"]);
        tagged.tag = Some("latest".parse().unwrap());
        assert!(check_item(&tagged).is_err());
        let mut dashed = item(&["acme-left-1.4.2-1.gem"]);
        dashed.version = "1.4.2-1".parse().unwrap();
        assert!(check_item(&dashed).is_err());
    }
}
