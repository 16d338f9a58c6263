//! What admins are shown of the watch, and the alarms that people see wherever they look.

use super::round;
use crate::{
    desk::{Desk, Fault},
    publish::{
        Refusal, frozen,
        known::{self, By, Known},
    },
    store::Batch,
};
use proto::{
    ids::VersionText,
    stop::{EVERYTHING, Standstill},
    time::UnixTime,
    watch::{WatchLine, WatchReport},
};
use std::{sync::Arc, time::Duration};

/// Versions that are named in one line.
const NAMED_MAX: usize = 100;
/// How long a call waits for a round that it asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks now, and reports. A round that takes longer than a call goes on by itself.
pub async fn now(desk: &Arc<Desk>, only: Option<String>) -> Result<WatchReport, Refusal> {
    if let Some(only) = &only {
        let watched = round::targets(desk)?;
        if !watched.iter().any(|(r, p)| *only == format!("{r}:{p}")) {
            return Err(Refusal::BadRequest(format!(
                "{only} is not watched: the policy does not name it exactly and nothing of it was published here, or its \
                 registry shows no list of versions with digests (oci, http)"
            )));
        }
    }
    let own = Arc::clone(desk);
    let work = tokio::spawn(async move { round::round(&own, only.as_deref()).await });
    if let Ok(done) = tokio::time::timeout(PATIENCE, work).await {
        done.unwrap_or(Err(Fault::Damaged("a round of the watch")))?;
    } else {
        tracing::info!("a round of the watch goes on");
    }
    report(desk, desk.world.now()).await
}

/// The state of the watch. What was there before a package was watched is named to admins once.
pub async fn report(desk: &Desk, now: UnixTime) -> Result<WatchReport, Refusal> {
    let mut packages = Vec::new();
    let mut told = Batch::new();
    for (registry, package) in round::targets(desk)? {
        let name = format!("{registry}:{package}");
        let known = match known::known(desk, &name) {
            Err(Fault::Damaged(_)) => None,
            other => other?.map(|(_, known)| known),
        };
        let (version, mut look) = known::look(desk, &name)?;
        let frozen = frozen::above(desk, &name)?;
        let mut line = WatchLine {
            looked: look.looked,
            problem: look.failing.as_ref().map(|(_, why)| why.clone()),
            problem_since: look.failing.as_ref().map(|(since, _)| *since),
            frozen: frozen.is_some(),
            alarm: frozen.and_then(|f| f.seen).map(|s| s.words()),
            ..WatchLine::of(name.clone())
        };
        if let Some(known) = known {
            describe(&mut line, &known);
            if !look.told {
                line.first_shown = named(&known, |v| v.by == By::Before);
                look.told = true;
                told = known::put_look(told, &name, version, &look)?;
            }
        }
        packages.push(line);
    }
    if !told.is_empty() {
        match desk.commit(told, &[], now).await {
            // Somebody looked meanwhile: it is told once more.
            Ok(_) | Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let stopped = frozen::freeze(desk, EVERYTHING)?.map(|(_, freeze)| Standstill {
        by: freeze.by,
        since: freeze.since,
        reason: freeze.stop.and_then(|stop| stop.reason),
        thawing: freeze.thawing,
    });
    Ok(WatchReport {
        every: desk.place.watch_every,
        stopped,
        packages,
    })
}

fn describe(line: &mut WatchLine, known: &Known) {
    let count = |by| known.versions.values().filter(|v| v.by == by).count();
    line.before = count(By::Before);
    line.published = count(By::Broker);
    line.others = named(known, |v| v.by == By::Others);
    line.gone = named(known, |v| v.gone);
    line.withdrawn = named(known, |v| v.withdrawn);
    line.latest.clone_from(&known.latest);
}

fn named(known: &Known, which: impl Fn(&known::Version) -> bool) -> Vec<VersionText> {
    let found = known.versions.iter().filter(|(_, v)| which(v));
    found.map(|(v, _)| v.clone()).take(NAMED_MAX).collect()
}
