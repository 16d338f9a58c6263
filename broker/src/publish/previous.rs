//! The file of the previous version that a file is compared with, downloaded from its registry.

use super::{
    known::{By, known},
    trace,
};
use crate::{
    desk::{Desk, Fault},
    registry::{Fetched, Kind, Published, ShownFile},
    vault::release as vault,
};
use pep440_rs::Version as Pep440;
use proto::{
    card::Previous,
    ids::VersionText,
    request::{File, Item},
    time::UnixTime,
};
use std::{str::FromStr as _, time::Duration};

/// Largest file that is downloaded, in bytes.
const MOST: u64 = 64 << 20;
/// Longest time for asking and downloading: the card does without it then.
const WITHIN: Duration = Duration::from_secs(30);

/// What a file is compared with.
pub(super) struct Before {
    /// As it is shown.
    pub(super) shown: Previous,
    /// Its bytes and how many they are.
    pub(super) bytes: Option<(std::fs::File, u64)>,
}

impl Before {
    const fn only(shown: Previous) -> Self {
        Self { shown, bytes: None }
    }
}

/// Finds and downloads it. The registry's word says where it lies and what its digest is, so what is compared with
/// is what everybody else gets.
pub(super) async fn of(desk: &Desk, item: &Item, file: &File) -> Before {
    let found = tokio::time::timeout(WITHIN, find(desk, item, file)).await;
    found
        .ok()
        .flatten()
        .unwrap_or_else(|| Before::only(Previous::Unknown))
}

async fn find(desk: &Desk, item: &Item, file: &File) -> Option<Before> {
    let registry = desk.registries.get(&item.registry)?;
    let upstream = registry.upstream()?;
    let now = desk.world.now();
    let token = vault::for_reading(&desk.vault, &*desk.live, &item.registry, &item.package, now);
    let token = token.ok()?;
    let mut shows = upstream.shows(&item.package, token.as_ref()).await.ok()?;
    shows.withdrawn.extend(of_others(desk, item, &shows).ok()?);
    let Some(version) = version(registry.kind(), &shows, &item.version) else {
        let only_own = shows.versions.keys().all(|v| *v == item.version);
        return only_own.then(|| Before::only(Previous::First));
    };
    let of_version = shows.versions.get(&version)?;
    // A gem's name says its platform behind its version.
    let named = file
        .name
        .replacen(&*item.version.to_string(), version.as_str(), 1);
    let same_name = of_version
        .iter()
        .find(|f| f.name.as_deref() == Some(&named));
    let other = match registry.kind() {
        Kind::RubyGems => same_name?,
        _ => counterpart(&file.name, of_version)?,
    };
    let wanted = File {
        name: other.name.clone().unwrap_or_default(),
        size: MOST,
        digest: other.digest.clone()?,
    };
    let kept = tempfile::tempfile_in(&desk.place.spool).ok()?;
    let mut kept = tokio::fs::File::from_std(kept);
    let fetched = upstream.fetch(
        &item.package,
        &version,
        &wanted,
        Some(&mut kept),
        token.as_ref(),
    );
    if fetched.await.ok()? != Fetched::Same {
        return None;
    }
    let length = kept.metadata().await.ok()?.len();
    let mut bytes = kept.into_std().await;
    std::io::Seek::rewind(&mut bytes).ok()?;
    Some(Before {
        shown: Previous::Version {
            published: shows.times.get(&version).copied().map(|t: UnixTime| t),
            version: version.to_string(),
        },
        bytes: Some((bytes, length)),
    })
}

/// Versions that somebody published past the broker: those that the watch knows as such, and those that are new since
/// it looked and did not leave here.
fn of_others(desk: &Desk, item: &Item, shows: &Published) -> Result<Vec<VersionText>, Fault> {
    let package = item.package_key();
    let Some((_, seen)) = known(desk, &package)? else {
        return Ok(Vec::new());
    };
    let mut of_others = Vec::new();
    for (version, files) in &shows.versions {
        let ours = match seen.versions.get(version) {
            Some(seen) => seen.by != By::Others,
            None => any_ours(desk, &package, version, files)?,
        };
        if !ours {
            of_others.push(version.clone());
        }
    }
    Ok(of_others)
}

fn any_ours(
    desk: &Desk,
    package: &str,
    version: &VersionText,
    files: &[ShownFile],
) -> Result<bool, Fault> {
    for file in files {
        if trace::ours(desk, package, version, file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The newest version below this one; where there is none, or versions have no order, the newest. One that was taken
/// back or that others published, is none to compare with: what is in it may be the very reason.
fn version(kind: Kind, shows: &Published, own: &VersionText) -> Option<VersionText> {
    let others = shows
        .versions
        .iter()
        .filter(|(v, files)| *v != own && !files.is_empty() && !shows.withdrawn.contains(*v));
    let others = others.map(|(v, _)| v);
    let below = if kind == Kind::PyPi {
        let own = Pep440::from_str(own.as_str()).ok()?;
        let known = others.filter_map(|v| Some((Pep440::from_str(v.as_str()).ok()?, v)));
        known.filter(|(v, _)| *v < own).max().map(|(_, v)| v)
    } else {
        let own = semver::Version::parse(own.as_str()).ok();
        let known = others.filter_map(|v| Some((semver::Version::parse(v.as_str()).ok()?, v)));
        let below = known.filter(|(v, _)| own.as_ref().is_some_and(|own| v < own));
        below.max().map(|(_, v)| v)
    };
    let newest = shows.newest.as_ref();
    let newest = newest.filter(|v| *v != own && !shows.withdrawn.contains(*v));
    below.or(newest).cloned()
}

/// The file that takes the same place in another version: the only one, or the one with the same end of its name (a
/// wheel's tags, `.tar.gz`).
fn counterpart<'f>(name: &str, files: &'f [ShownFile]) -> Option<&'f ShownFile> {
    let mut same = files.iter().filter(|shown| {
        let Some(other) = &shown.name else {
            return true;
        };
        end(other) == end(name)
    });
    same.next()
}

fn end(name: &str) -> Vec<&str> {
    match name.strip_suffix(".whl") {
        Some(stem) => stem.rsplit('-').take(3).chain([".whl"]).collect(),
        None if name.ends_with(".tar.gz") => vec![".tar.gz"],
        None => vec![name.rsplit('.').next().unwrap_or_default()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(versions: &[&str], newest: &str) -> Published {
        let file = ShownFile {
            name: None,
            digest: None,
        };
        Published {
            versions: versions
                .iter()
                .map(|v| (v.parse().unwrap(), vec![file.clone()]))
                .collect(),
            newest: newest.parse().ok(),
            ..Published::default()
        }
    }

    #[test]
    fn it_is_the_version_below_or_the_newest() {
        for (kind, own, want) in [
            (Kind::Npm, "1.9.1", Some("1.9.0")),
            (Kind::Npm, "3.0.0", Some("2.0.0")),
            (Kind::Npm, "0.1.0", Some("2.0.0")),
            (Kind::PyPi, "1.9.1", Some("1.9.0")),
        ] {
            let shows = shows(&["1.9.0", "1.10.0", "2.0.0"], "2.0.0");
            let found = version(kind, &shows, &own.parse().unwrap());
            assert_eq!(found.as_ref().map(VersionText::as_str), want, "{own}");
        }
        let only_own = shows(&["1.0.0"], "1.0.0");
        assert_eq!(
            version(Kind::Npm, &only_own, &"1.0.0".parse().unwrap()),
            None
        );
    }

    #[test]
    fn attack_53_what_was_taken_back_is_nothing_to_compare_with() {
        let mut shows = shows(&["1.0.0", "1.0.1"], "1.0.1");
        let below = |shows: &Published, own: &str| {
            let found = version(Kind::PyPi, shows, &own.parse().unwrap());
            found.map(|v| v.to_string())
        };
        assert_eq!(below(&shows, "1.0.2").as_deref(), Some("1.0.1"));
        shows.withdrawn.insert("1.0.1".parse().unwrap());
        assert_eq!(below(&shows, "1.0.2").as_deref(), Some("1.0.0"));
        shows.withdrawn.insert("1.0.0".parse().unwrap());
        assert_eq!(below(&shows, "1.0.2"), None);
    }

    #[test]
    fn wheels_are_compared_with_wheels_of_the_same_tags() {
        let names = [
            "a-1-py3-none-any.whl",
            "a-1-cp312-cp312-linux.whl",
            "a-1.tar.gz",
        ];
        let files: Vec<_> = names
            .iter()
            .map(|n| ShownFile {
                name: Some((*n).to_owned()),
                digest: None,
            })
            .collect();
        for (name, want) in [
            ("a-2-cp312-cp312-linux.whl", Some(names[1])),
            ("a-2-1-py3-none-any.whl", Some(names[0])),
            ("a-2.tar.gz", Some(names[2])),
            ("a-2-cp313-cp313-linux.whl", None),
        ] {
            let found = counterpart(name, &files);
            assert_eq!(found.and_then(|f| f.name.as_deref()), want, "{name}");
        }
    }
}
