//! The registry shows other bytes than the approved ones for a file: somebody published past this broker. That is an
//! alarm at once, and where the watch would freeze the package for it, so does the commit that records it.

use super::{
    Refusal, alarm, known,
    ledger::Seen,
    settle,
    state::{FileAt, Record},
    trace,
};
use crate::{
    audit::{event::leaf, reason::FreezeCause},
    desk::Desk,
    registry::{Published, ShownFile},
    store::Batch,
};
use proto::digest::Digest;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records that the registry shows this digest, which is not the approved one.
pub(super) async fn saw(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    published: &Published,
    digest: &Digest,
) -> Result<(), Refusal> {
    let item = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
    let (id, package) = (record.facts.id, item.package_key());
    let seen = Seen {
        cause: FreezeCause::Conflict,
        name: item.name(),
    };
    let registry = desk.registries.get(&item.registry);
    let watched = registry.is_some_and(|r| r.kind().shows_versions());
    let is_it = |s: &&ShownFile| s.digest.as_ref() == Some(digest);
    let files = published.versions.get(&item.version);
    let shown = files.and_then(|files| files.iter().find(is_it));
    let freezes = AtomicBool::new(false);
    let made = settle::change_with(
        desk,
        id,
        |r| r.shows(at, digest.clone()),
        |_, now| {
            freezes.store(false, Ordering::Relaxed);
            let (true, Some(shown)) = (watched, shown) else {
                return Ok(Batch::new());
            };
            // What an earlier request published here is no stranger's: the watch would not freeze for it either.
            if trace::ours(desk, &package, &item.version, shown)? {
                return Ok(Batch::new());
            }
            let Some(batch) = known::others(desk, Batch::new(), &package, &item.version, shown)?
            else {
                return Ok(Batch::new());
            };
            freezes.store(true, Ordering::Relaxed);
            let (batch, event) = alarm::freezing(desk, batch, &package, &seen, now)?;
            Ok(batch.append(leaf(&event, now)))
        },
    )
    .await?;
    if made.is_none() {
        return Ok(());
    }
    if freezes.load(Ordering::Relaxed) {
        alarm::frozen(desk, &package, &seen, desk.world.now()).await?;
    } else {
        desk.metrics.alarms.inc();
        tracing::error!(%id, what = %seen.name, "ALARM: {}", seen.cause.text());
    }
    Ok(())
}
