//! One round: every watched package is asked for at its registry, compared, and what came of it recorded.

use super::{
    compare::{Compared, compare},
    known::{self, KNOWN, Known, Look, PACKAGES_MAX},
    tags,
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault, Registry},
    policy::pattern::PackagePattern,
    publish::{
        alarm,
        trace::{self, LEFT},
    },
    registry::Kind,
    store::Batch,
    vault::release as vault,
};
use proto::{
    ids::{PackageName, RegistryId},
    time::UnixTime,
};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds without an answer after which that is an alarm of its own. It freezes nothing.
const BLIND: u64 = 6 * 3600;
/// Packages in a row that a registry may leave unanswered before the rest waits for the next round.
const FAILURES_MAX: u32 = 3;
/// Tries at one package while others change its rows.
const RACES_MAX: usize = 5;
/// Seconds that a trace is kept at least: whoever compares meanwhile must find it.
const TRACE_KEPT: u64 = 24 * 3600;
/// Seconds that the trace of a publish that never showed up is kept.
const TRACE_LOST: u64 = 30 * 24 * 3600;
/// Traces of one package looked at in one round.
const TRACES_MAX: usize = 1000;

/// A watched package.
type Target = (RegistryId, PackageName);

/// Looks at all watched packages, or at one of them; says how many registries' answers there were.
/// One round at a time: what one forgets the other may be about to ask for.
pub async fn round(desk: &Desk, only: Option<&str>) -> Result<usize, Fault> {
    let _one = desk.watching.lock().await;
    let mut by_registry: BTreeMap<RegistryId, Vec<PackageName>> = BTreeMap::new();
    for (registry, package) in targets(desk)? {
        if only.is_none_or(|o| *o == format!("{registry}:{package}")) {
            by_registry.entry(registry).or_default().push(package);
        }
    }
    // A registry that hangs holds up nobody but its own packages.
    let all = by_registry.iter().map(|(r, p)| of_registry(desk, r, p));
    let mut answers = 0;
    for one in futures_util::future::join_all(all).await {
        answers += one?;
    }
    desk.metrics.watch_blind.set(blind(desk)?);
    Ok(answers)
}

/// What is watched: packages that the policy names exactly, those of which something left this broker,
/// and all that were ever looked at.
pub fn targets(desk: &Desk) -> Result<BTreeSet<Target>, Fault> {
    let mut names: BTreeSet<String> = known::packages(desk)?.into_iter().collect();
    names.extend(trace::packages(desk, PACKAGES_MAX)?);
    let kind = |registry: &RegistryId| desk.registries.get(registry).map(Registry::kind);
    let watched = |name: &String| target(name, kind);
    let mut found: BTreeSet<Target> = names.iter().filter_map(watched).map(|t| t.0).collect();
    for entry in desk.policy.load().entries() {
        let exact = entry.matches.iter().map(PackagePattern::as_str);
        let exact = exact.filter(|p| !p.contains('*'));
        let listed = exact.filter_map(|p| target(p, kind));
        // Where only our own tags are looked at, there is nothing to see before the first of them.
        let listed = listed.filter(|(_, shows)| *shows == Shows::Versions);
        found.extend(listed.map(|t| t.0));
    }
    Ok(found.into_iter().take(PACKAGES_MAX).collect())
}

/// What a look at a package tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// Its versions, with digests: also what others publish beside ours.
    Versions,
    /// The tags that we published, each by itself.
    OurTags,
    /// Nothing. A watch that always says "all as it was", or "nobody can look", would be worse than none.
    Nothing,
}

/// The package of that name, where its registry is one that a look tells something of.
fn target(name: &str, kind: impl Fn(&RegistryId) -> Option<Kind>) -> Option<(Target, Shows)> {
    let (registry, package) = name.split_once(':')?;
    let registry: RegistryId = registry.parse().ok()?;
    let kind = kind(&registry)?;
    let package = (kind.row().package)(package).ok()?;
    let shows = shows(kind);
    (shows != Shows::Nothing).then_some(((registry, package), shows))
}

const fn shows(kind: Kind) -> Shows {
    match kind {
        Kind::Npm | Kind::PyPi | Kind::Crates | Kind::RubyGems => Shows::Versions,
        Kind::Oci => Shows::OurTags,
        Kind::Http | Kind::Generic => Shows::Nothing,
    }
}

async fn of_registry(
    desk: &Desk,
    registry: &RegistryId,
    packages: &[PackageName],
) -> Result<usize, Fault> {
    let (mut failures, mut answers) = (0, 0);
    for package in packages {
        if failures == FAILURES_MAX {
            tracing::warn!(%registry, "the watch goes on with this registry at the next round");
            break;
        }
        if one(desk, registry, package).await? {
            failures = 0;
            answers += 1;
        } else {
            failures += 1;
        }
    }
    Ok(answers)
}

/// Looks at one package. What is wrong with one of them is told, and keeps nobody from the others.
async fn one(desk: &Desk, registry: &RegistryId, package: &PackageName) -> Result<bool, Fault> {
    for _ in 0..RACES_MAX {
        match look(desk, registry, package).await {
            // A person froze it, or was told of it, at this very moment.
            Err(Fault::Conflict(..)) => {}
            Err(Fault::Damaged(what)) => {
                let name = format!("{registry}:{package}");
                tracing::error!(package = %name, what, "the watch cannot look: a row was not written by this broker");
                return failed(
                    desk,
                    &name,
                    "a row of the store is damaged",
                    desk.world.now(),
                )
                .await;
            }
            other => return other,
        }
    }
    Ok(false)
}

/// Looks at one package; false when nothing could be seen.
async fn look(desk: &Desk, registry: &RegistryId, package: &PackageName) -> Result<bool, Fault> {
    let name = format!("{registry}:{package}");
    let Some(upstream) = desk.upstream(registry) else {
        return Ok(false);
    };
    let now = desk.world.now();
    let token = vault::for_reading(&desk.vault, &*desk.live, registry, package, now)?;
    let kind = desk.registries.get(registry).map(Registry::kind);
    let by_tag = kind.is_some_and(|kind| shows(kind) == Shows::OurTags);
    let shown = if by_tag {
        let known = known::known(desk, &name)?.map(|(_, known)| known);
        let tags = tags::ours(desk, &name, known.as_ref(), TRACES_MAX)?;
        upstream.shows_tags(package, &tags, token.as_ref()).await
    } else {
        upstream.shows(package, token.as_ref()).await
    };
    drop(token);
    let now = desk.world.now();
    let shown = match shown {
        Ok(shown) => shown,
        Err(why) => return failed(desk, &name, &why.to_string(), now).await,
    };
    let known = known::known(desk, &name)?;
    // Nothing under a tag of ours was there before we looked.
    let none = by_tag.then(Known::default);
    let old = known.as_ref().map(|(_, k)| k).or(none.as_ref());
    let ours = |version: &_, file: &_| trace::ours(desk, &name, version, file);
    let Ok(compared) = compare(&name, old, &shown, ours)? else {
        let words = "the registry shows nothing of it any more";
        return failed(desk, &name, words, now).await;
    };
    record(desk, &name, known, compared, now).await?;
    Ok(true)
}

/// What came of a look, in one commit: what is known now, when it was looked, the events, the freeze.
async fn record(
    desk: &Desk,
    name: &str,
    old: Option<(u64, Known)>,
    compared: Compared,
    now: UnixTime,
) -> Result<(), Fault> {
    let (look_version, look) = known::look(desk, name)?;
    let seen = Look {
        looked: Some(now),
        failing: None,
        blind: false,
        told: look.told,
    };
    let row = desk.authentic(KNOWN, name.as_bytes(), &compared.known)?;
    let traces = trace::of_package(desk, name, TRACES_MAX)?;
    let batch = || {
        let mut batch = match &old {
            None => Batch::new().create(KNOWN, name.as_bytes(), row.clone()),
            Some((_, old)) if *old == compared.known => Batch::new(),
            Some((version, _)) => {
                Batch::new().replace(KNOWN, name.as_bytes(), *version, row.clone())
            }
        };
        for trace in &traces {
            let known = trace.version.parse().ok();
            let known = known.is_some_and(|v| compared.known.versions.contains_key(&v));
            let kept = if known { TRACE_KEPT } else { TRACE_LOST };
            if now.since(trace.since) > kept {
                batch = batch.delete(LEFT, &trace.key, trace.row);
            }
        }
        known::put_look(batch, name, look_version, &seen)
    };
    // Made once here, so that what cannot be written is told as what it is.
    let first = batch()?;
    for event in &compared.events {
        tell(event);
    }
    match &compared.alarm {
        None => {
            desk.commit(first, &compared.events, now).await?;
        }
        Some(alarm) => {
            let more = || batch().unwrap_or_default();
            alarm::freeze(desk, name, alarm, &compared.events, more, now).await?;
        }
    }
    Ok(())
}

fn tell(event: &Event) {
    match event {
        Event::PackageWatched { package, before } => {
            tracing::info!(package, before, "the package is watched from now on");
        }
        other => tracing::warn!(?other, "the watch saw a change at the registry"),
    }
}

/// Nothing could be seen: noted, told after long, never a freeze.
async fn failed(desk: &Desk, name: &str, why: &str, now: UnixTime) -> Result<bool, Fault> {
    let (version, mut look) = known::look(desk, name)?;
    let since = look.failing.as_ref().map_or(now, |(since, _)| *since);
    look.failing = Some((since, why.to_owned()));
    let mut events = Vec::new();
    if now.since(since) >= BLIND && !look.blind {
        look.blind = true;
        desk.metrics.alarms.inc();
        tracing::error!(
            package = name,
            why,
            "ALARM: nobody can look at the package at its registry"
        );
        events.push(Event::WatchBlind {
            package: name.to_owned(),
        });
    }
    let batch = known::put_look(Batch::new(), name, version, &look)?;
    desk.commit(batch, &events, now).await?;
    Ok(false)
}

/// Packages at which nobody could look for long. Those that are watched no longer do not count: no look would ever end it.
fn blind(desk: &Desk) -> Result<i64, Fault> {
    let mut count = 0;
    for (registry, package) in targets(desk)? {
        let name = format!("{registry}:{package}");
        count += i64::from(known::look(desk, &name)?.1.blind);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_nothing_is_never_looked_at_and_so_never_an_alarm() {
        let kind = |registry: &RegistryId| Kind::parse(registry.as_str());
        let watched = |name: &str| target(name, kind).map(|(_, shows)| shows);
        for name in [
            "npm:@acme/left",
            "pypi:acme-left",
            "crates:acme-left",
            "rubygems:acme-left",
        ] {
            assert_eq!(watched(name), Some(Shows::Versions), "{name}");
        }
        assert_eq!(watched("oci:acme/app"), Some(Shows::OurTags));
        // Neither is what stands in no configuration, or is no name.
        for name in [
            "http:acme/app",
            "generic:deploy-key",
            "gone:acme-left",
            "npm:NO NAME",
            "acme-left",
            ":",
        ] {
            assert_eq!(watched(name), None, "{name}");
        }
    }
}
