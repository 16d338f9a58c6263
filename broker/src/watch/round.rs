//! One round: every watched package is asked for at its registry, compared, and what came of it recorded.

use super::{
    compare::{Compared, compare},
    tags,
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault, Registry},
    policy::pattern::PackagePattern,
    publish::{
        Refusal, alarm,
        known::{self, KNOWN, Known, Look, PACKAGES_MAX},
        stages,
        trace::{self, LEFT},
    },
    registry::{Kind, ReadError},
    store::Batch,
    vault::release as vault,
};
use futures_util::future::join_all;
use proto::{
    ids::{PackageName, RegistryId},
    time::UnixTime,
};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds without an answer after which that is an alarm of its own. It freezes nothing.
const BLIND: u64 = 6 * 3600;
/// Packages in a row at which a registry may be silent before the rest waits for the next round.
const SILENCES_MAX: u32 = 3;
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

/// What a look at one package gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// The registry showed it.
    Seen,
    /// Nothing could be told of this package.
    Nothing,
    /// The registry itself is silent: asking it for the next package is likely in vain too.
    Silent,
}

/// Looks at all watched packages, or at one of them; says how many registries' answers there were.
/// One round at a time: what one forgets the other may be about to ask for.
pub async fn round(desk: &Desk, only: Option<&str>) -> Result<usize, Fault> {
    let mut rounds = desk.watching.lock().await;
    let mut by_registry: BTreeMap<RegistryId, Vec<PackageName>> = BTreeMap::new();
    for (registry, package) in targets(desk)? {
        if only.is_none_or(|o| *o == format!("{registry}:{package}")) {
            by_registry.entry(registry).or_default().push(package);
        }
    }
    // A registry that hangs holds up nobody but its own packages, and those not twice in the same place.
    for (registry, packages) in &mut by_registry {
        let last = rounds.get(registry);
        let behind = packages.partition_point(|p| last.is_some_and(|last| p <= last));
        packages.rotate_left(behind);
    }
    let all = by_registry.iter().map(|(r, p)| of_registry(desk, r, p));
    let mut answers = 0;
    for (one, registry) in join_all(all).await.into_iter().zip(by_registry.keys()) {
        let (seen, last) = one?;
        answers += seen;
        if let (None, Some(last)) = (only, last) {
            rounds.insert(registry.clone(), last.clone());
        }
    }
    if only.is_none() {
        staged(desk).await?;
    }
    desk.metrics.watch_blind.set(blind(desk)?);
    Ok(answers)
}

/// Who stages a version past this broker needs only one careless yes at the registry: such a stage is an alarm before
/// anybody asks for that version here.
async fn staged(desk: &Desk) -> Result<(), Fault> {
    match stages::all(desk).await {
        Ok(seen) => {
            for why in seen.unknown {
                tracing::warn!(why, "the watch cannot see what is staged");
            }
            Ok(())
        }
        Err(Refusal::Fault(fault)) => Err(fault),
        Err(why) => {
            tracing::warn!(%why, "the watch cannot see what is staged");
            Ok(())
        }
    }
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
        Kind::Oci => Shows::OurTags,
        kind if kind.shows_versions() => Shows::Versions,
        _ => Shows::Nothing,
    }
}

/// Looks at packages of one registry in their order; says how many it showed, and the last one asked for.
async fn of_registry<'a>(
    desk: &Desk,
    registry: &RegistryId,
    packages: &'a [PackageName],
) -> Result<(usize, Option<&'a PackageName>), Fault> {
    let (mut silences, mut answers, mut last) = (0, 0, None);
    for package in packages {
        // Who can break the looks at three packages must not hide the others: the next round begins behind
        // them, and what is passed over now is on its way to the alarm that nobody can look.
        if silences == SILENCES_MAX {
            let words = "the registry was silent, and this package was not asked for";
            note(desk, &format!("{registry}:{package}"), words).await?;
            continue;
        }
        last = Some(package);
        match one(desk, registry, package).await? {
            Looked::Seen => {
                silences = 0;
                answers += 1;
            }
            Looked::Nothing => silences = 0,
            Looked::Silent => silences += 1,
        }
    }
    if silences == SILENCES_MAX {
        tracing::warn!(%registry, "the watch goes on with this registry at the next round");
    }
    Ok((answers, last))
}

/// Looks at one package. What is wrong with one of them is told, and keeps nobody from the others.
async fn one(desk: &Desk, registry: &RegistryId, package: &PackageName) -> Result<Looked, Fault> {
    for _ in 0..RACES_MAX {
        match look(desk, registry, package).await {
            // A person froze it, or was told of it, at this very moment.
            Err(Fault::Conflict(..)) => {}
            Err(Fault::Damaged(what)) => {
                let name = format!("{registry}:{package}");
                tracing::error!(package = %name, what, "the watch cannot look: a row was not written by this broker");
                let words = "a row of the store is damaged";
                note(desk, &name, words).await?;
                return Ok(Looked::Nothing);
            }
            other => return other,
        }
    }
    Ok(Looked::Nothing)
}

async fn look(desk: &Desk, registry: &RegistryId, package: &PackageName) -> Result<Looked, Fault> {
    let name = format!("{registry}:{package}");
    let Some(upstream) = desk.upstream(registry) else {
        return Ok(Looked::Nothing);
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
        Err(why) => {
            failed(desk, &name, &why.to_string(), now).await?;
            return Ok(if is_silence(&why) {
                Looked::Silent
            } else {
                Looked::Nothing
            });
        }
    };
    let known = known::known(desk, &name)?;
    // Nothing under a tag of ours was there before we looked.
    let none = by_tag.then(Known::default);
    let old = known.as_ref().map(|(_, k)| k).or(none.as_ref());
    let ours = |version: &_, file: &_| trace::ours(desk, &name, version, file);
    let Ok(compared) = compare(&name, old, &shown, ours)? else {
        let words = "the registry shows nothing of it any more";
        failed(desk, &name, words, now).await?;
        return Ok(Looked::Nothing);
    };
    record(desk, &name, known, compared, now).await?;
    Ok(Looked::Seen)
}

/// Whether an error is likely to be the whole registry's (429: it has been asked too often), and not one package's.
const fn is_silence(why: &ReadError) -> bool {
    matches!(
        why,
        ReadError::Unreachable | ReadError::TimedOut | ReadError::Status(429)
    )
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
            Some((_, old)) if *old == compared.known => Batch::new(),
            old => {
                let version = old.as_ref().map(|(version, _)| *version);
                Batch::new().put(KNOWN, name.as_bytes(), version, row.clone())
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
async fn failed(desk: &Desk, name: &str, why: &str, now: UnixTime) -> Result<(), Fault> {
    let (version, mut look) = known::look(desk, name)?;
    let before = look.clone();
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
    if look == before {
        // Said already: an outage writes no row a round and package.
        return Ok(());
    }
    let batch = known::put_look(Batch::new(), name, version, &look)?;
    desk.commit(batch, &events, now).await?;
    Ok(())
}

/// As [`failed`], for whom the next round is soon enough when others change the row at this very moment.
async fn note(desk: &Desk, name: &str, why: &str) -> Result<(), Fault> {
    match failed(desk, name, why, desk.world.now()).await {
        Err(Fault::Conflict(..)) => Ok(()),
        other => other,
    }
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
