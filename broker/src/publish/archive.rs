//! Finished requests leave the live store in batches, so that start-up, memory and every operation
//! cost the same with a million old requests behind them.

use super::{
    close, ended, habits, inspect,
    ledger::{self, APPROVED, CREDENTIALS, DUE, FINISHED, IDEMPOTENCY, REQUESTS},
};
use crate::{
    desk::{Desk, Fault},
    store::{Batch, CommitError, Committed, history},
};
use proto::{api::StateName, digest::unhex, time::UnixTime};

/// A finished request stays in the live store for this long, in seconds: whoever waits reads it there.
const LINGER: u64 = 2;
/// Requests moved in one commit.
const CHUNK: usize = 256;
/// Leaves that stay in the live store.
const LEAVES_KEPT: u64 = 2000;

/// Moves what is finished. Idempotent: a crash between the two stores leaves both, and the next
/// round finishes.
pub async fn archive(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    // A backup looks at both stores; nothing moves between its two looks.
    let _moving = desk.backups.moving.lock().await;
    // What is remembered of a release needs the key. While it is away nothing is asked, so that little waits here.
    let mut full = !desk.vault.is_sealed();
    while full {
        full = chunk(desk, now).await? == CHUNK;
    }
    // Only leaves that the tree has taken in: it reads the live store alone.
    let len = desk.live.log_len()?;
    let keep = LEAVES_KEPT.max(len.saturating_sub(desk.tree.size()));
    let oldest = desk.live.log_read(0, 1)?.first().map_or(len, |(i, _)| *i);
    if len.saturating_sub(oldest) > keep.saturating_mul(2) {
        history::move_log(&*desk.live, &*desk.history, keep)
            .await
            .map_err(|e| Fault::Store(e.to_string()))?;
    }
    Ok(())
}

async fn chunk(desk: &Desk, now: UnixTime) -> Result<usize, Fault> {
    let mut rows = Vec::new();
    let (mut drop_too, mut markers) = (Batch::new(), Batch::new());
    let mut count = 0;
    for (key, marker) in desk.live.range(FINISHED, b"", None, CHUNK)? {
        let Some((at, id)) = ledger::untimed(&key) else {
            continue;
        };
        if now.since(at) < LINGER {
            break;
        }
        count += 1;
        markers = markers.delete(FINISHED, &key, marker.version);
        // With the marker and not before: what is remembered of a release is learnt from its source, again after a crash.
        markers = inspect::dropped(desk, markers, id)?;
        let (Some(row), Some(held)) = (
            desk.live.get(REQUESTS, id.0.as_bytes())?,
            ledger::among(desk, id)?,
        ) else {
            continue;
        };
        let record = held.record;
        if record.name() == StateName::Published {
            close::end_left_rivals(desk, &record, now).await?;
            habits::learn(desk, &record, now).await?;
        }
        for item in &record.facts.items {
            // The registry itself remembers what is published; the claim of one that ended
            // otherwise frees the version.
            if let Some(r) = desk.live.get(APPROVED, item.name().as_bytes())?
                && r.value == id.0.as_bytes()
                && record.name() != StateName::Conflict
            {
                drop_too = drop_too.delete(APPROVED, item.name().as_bytes(), r.version);
            }
        }
        let credential = record
            .credential
            .as_deref()
            .and_then(unhex)
            .map(|k| (CREDENTIALS, k));
        let idempotency = unhex(&record.idempotency).map(|k| (IDEMPOTENCY, k));
        for (table, key) in [credential, idempotency].into_iter().flatten() {
            if let Some(r) = desk.live.get(table, &key)? {
                rows.push((table, key, r));
            }
        }
        for (table, key) in ended::rows(&record, at) {
            if let Some(r) = desk.live.get(table, &key)? {
                rows.push((table, key, r));
            }
        }
        // Nothing is due any more; where the sweep has moved the row on, it will drop it itself.
        let due = ledger::timed(record.facts.expires, id);
        if let Some(r) = desk.live.get(DUE, &due)? {
            drop_too = drop_too.delete(DUE, due, r.version);
        }
        rows.push((REQUESTS, id.0.as_bytes().to_vec(), row));
    }
    if count == 0 {
        return Ok(0);
    }
    // Indexes first, the markers last: a crash between leaves a marker, and the next round finishes.
    tolerate(desk.live.commit(drop_too).await)?;
    history::move_rows(&*desk.live, &*desk.history, rows)
        .await
        .map_err(|e| Fault::Store(e.to_string()))?;
    tolerate(desk.live.commit(markers).await)?;
    Ok(count)
}

/// Whoever was faster did the same.
fn tolerate(result: Result<Committed, CommitError>) -> Result<(), Fault> {
    match result {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
