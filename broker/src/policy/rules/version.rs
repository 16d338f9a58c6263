//! A version must have the demanded form, and be newer than what is published (attack 18).

use super::Finding;
use crate::policy::{case::Case, keys::VersionForm, reason::Reason};
use pep440_rs::Version as Pep440;
use semver::Version;
use std::str::FromStr as _;

/// The tag that clients install when nobody names one.
const LATEST: &str = "latest";

pub(super) fn rule(case: &Case<'_>) -> Finding {
    let text = case.item.version.as_str();
    let published = case.here.published.unwrap_or_default();
    if published.iter().any(|v| v.as_str() == text) {
        return Finding::Deny(Reason::Exists);
    }
    if case.entry.version == VersionForm::Any {
        return Finding::Pass;
    }
    if case.entry.version == VersionForm::Pep440 {
        let Ok(version) = Pep440::from_str(text) else {
            return Finding::Deny(Reason::VersionForm);
        };
        return newer_python(
            &version,
            published
                .iter()
                .filter_map(|v| Pep440::from_str(v.as_str()).ok()),
        );
    }
    let Ok(version) = Version::parse(text) else {
        return Finding::Deny(Reason::VersionForm);
    };
    let under_latest = case.item.tag.as_ref().is_none_or(|t| t.as_str() == LATEST);
    if case.entry.version == VersionForm::SemverRelease && !version.pre.is_empty() && under_latest {
        return Finding::Deny(Reason::Prerelease);
    }
    newer(
        &version,
        published
            .iter()
            .filter_map(|v| Version::parse(v.as_str()).ok()),
    )
}

/// Newer by SemVer 2.0.0 §11, where build metadata does not count: registries drop it, so that
/// `1.0.0+evil` would be `1.0.0`. A release is compared with releases, a pre-release with all.
fn newer(version: &Version, published: impl Iterator<Item = Version>) -> Finding {
    let newest = published
        .filter(|v| {
            version.cmp_precedence(v).is_eq() || !version.pre.is_empty() || v.pre.is_empty()
        })
        .max_by(Version::cmp_precedence);
    match newest {
        Some(newest) if version.cmp_precedence(&newest).is_eq() => Finding::Deny(Reason::Exists),
        Some(newest) if version.cmp_precedence(&newest).is_lt() => Finding::Deny(Reason::Older {
            newest: newest.to_string(),
        }),
        _ => Finding::Pass,
    }
}

/// Newer by PEP 440, where `1.0` and `1.0.0` are one version. A final or post release is compared with
/// such, a pre-release or development release with all.
fn newer_python(version: &Pep440, published: impl Iterator<Item = Pep440>) -> Finding {
    let newest = published
        .filter(|v| v == version || version.any_prerelease() || !v.any_prerelease())
        .max();
    match newest {
        Some(newest) if newest == *version => Finding::Deny(Reason::Exists),
        Some(newest) if newest > *version => Finding::Deny(Reason::Older {
            newest: newest.to_string(),
        }),
        _ => Finding::Pass,
    }
}
