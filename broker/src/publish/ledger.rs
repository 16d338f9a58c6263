//! Requests in the store: the one place that reads and writes them.

pub use super::frozen::{FROZEN, Freeze, Seen, freeze, freeze_row, is_frozen};
use super::{
    ended,
    state::{Record, Step},
};
use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table, history},
    vault::Domain,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use proto::{
    api::StateName,
    bearer::{Bearer, BearerHash},
    digest::{hex, unhex},
    ids::RequestId,
    time::UnixTime,
};

/// Live requests; in history the same table holds finished ones.
pub const REQUESTS: Table = Table("request");
/// From a credential's hash to its request.
pub const CREDENTIALS: Table = Table("credential");
/// `registry:package` NUL id: open requests of a package.
pub const BY_PACKAGE: Table = Table("by-package");
/// `registry:package` NUL issuer NUL subject NUL id: open requests of one project for a package.
pub const BY_PACKAGE_ASKER: Table = Table("by-package-asker");
/// issuer NUL subject NUL id: open requests of a project.
pub const BY_SUBJECT: Table = Table("by-subject");
/// issuer NUL subject NUL actor NUL id: open requests of one CI account's jobs.
pub const BY_ACTOR: Table = Table("by-actor");
/// intent NUL id: open requests that fit an intent.
pub const BY_INTENT: Table = Table("by-intent");
/// `registry:package@version`: the one approved request.
pub const APPROVED: Table = Table("approved");
/// Idempotency keys.
pub const IDEMPOTENCY: Table = Table("idempotency");
/// Spent tokens of callers, by when they may be forgotten.
pub const BURNT: Table = Table("burnt");
/// When to look at a request again: seconds (big-endian) and id.
pub const DUE: Table = Table("due");
/// Finished requests, to be moved to history: seconds (big-endian) and id.
pub const FINISHED: Table = Table("finished");

/// A request with the version that a replacement must name.
#[derive(Debug)]
pub struct Held {
    /// The store's version.
    pub version: u64,
    /// The request.
    pub record: Record,
}

/// A live request.
pub fn live(desk: &Desk, id: RequestId) -> Result<Option<Held>, Fault> {
    match desk.live.get(REQUESTS, id.0.as_bytes())? {
        None => Ok(None),
        Some(row) => Ok(Some(Held {
            version: row.version,
            record: decode(id, &row.value)?,
        })),
    }
}

/// A live request, looked at among many: one that is damaged is named in the log, and keeps nobody from the others.
pub fn among(desk: &Desk, id: RequestId) -> Result<Option<Held>, Fault> {
    match live(desk, id) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(%id, what, "a request's row cannot be believed; it is passed over");
            Ok(None)
        }
        other => other,
    }
}

/// A request, live or finished long ago.
pub fn find(desk: &Desk, id: RequestId) -> Result<Option<Record>, Fault> {
    if let Some(held) = live(desk, id)? {
        return Ok(Some(held.record));
    }
    match desk.history.get(REQUESTS, id.0.as_bytes())? {
        None => Ok(None),
        Some(row) => Ok(Some(decode(id, &row.value)?)),
    }
}

/// Whether the ticket is this request's. Constant time.
pub fn ticket_fits(record: &Record, ticket: &Bearer) -> bool {
    unhex(&record.ticket).is_some_and(|h| verify_slices_are_equal(&h, &ticket.hash().0).is_ok())
}

/// The request that a credential belongs to, live or finished: a client that repeats its upload
/// later gets the recorded outcome.
pub fn of_credential(desk: &Desk, credential: BearerHash) -> Result<Option<Record>, Fault> {
    let row = history::find(&*desk.live, &*desk.history, CREDENTIALS, &credential.0)?;
    match row.as_deref().and_then(id_of) {
        Some(id) => find(desk, id),
        None => Ok(None),
    }
}

/// Stores a new request with its indexes, and in the same commit the step that ends the one in whose
/// place it comes (its version, the step); fails when somebody touched that one meanwhile.
pub async fn create(
    desk: &Desk,
    step: Step,
    ended: Option<(u64, Step)>,
    batch: Batch,
    now: UnixTime,
) -> Result<Record, Fault> {
    let (mut record, mut events) = step.into_parts();
    record.bound = hex(&desk.vault.mac(Domain::Row, &record.beside_the_digest())?);
    let id = record.facts.id;
    let mut batch = batch
        .create(REQUESTS, id.0.as_bytes(), encode(&record)?)
        .create(DUE, timed(record.expires(), id), Vec::new());
    for (table, key) in indexes(&record) {
        batch = batch.create(table, key, Vec::new());
    }
    let mut told = None;
    if let Some((version, step)) = ended {
        let (before, more) = step.into_parts();
        batch = replaced(desk, version, &before, batch, now)?;
        events.extend(more);
        told = Some(before);
    }
    desk.commit(batch, &events, now).await?;
    for record in told.iter().chain([&record]) {
        desk.waiters.notify(record.facts.id, record.revision);
    }
    Ok(record)
}

/// Stores a transition; fails when somebody else was faster. `batch` holds what belongs to the same
/// commit. After it: whoever waits is told, and a crash changes nothing any more.
pub async fn persist(
    desk: &Desk,
    version: u64,
    step: Step,
    batch: Batch,
    now: UnixTime,
) -> Result<Record, Fault> {
    let (mut record, events) = step.into_parts();
    let id = record.facts.id;
    if record.name() == StateName::Published {
        // The leaf of the publish is at or just behind this place: a receipt finds it at once.
        record.leaf_from = Some(desk.live.log_len()?);
    }
    let batch = replaced(desk, version, &record, batch, now)?;
    desk.commit(batch, &events, now).await?;
    desk.waiters.notify(id, record.revision);
    Ok(record)
}

/// The rows of a transition.
fn replaced(
    desk: &Desk,
    version: u64,
    record: &Record,
    batch: Batch,
    now: UnixTime,
) -> Result<Batch, Fault> {
    let id = record.facts.id;
    let mut batch = batch.replace(REQUESTS, id.0.as_bytes(), version, encode(record)?);
    if record.name().is_final() {
        batch = batch.create(FINISHED, timed(now, id), Vec::new());
        for (table, key) in ended::rows(record, now) {
            batch = batch.create(table, key, Vec::new());
        }
        // The indexes are of open requests: whoever walks them reads no finished one.
        for (table, key) in indexes(record) {
            if let Some(row) = desk.live.get(table, &key)? {
                batch = batch.delete(table, key, row.version);
            }
        }
    }
    // An approved request may end before the time for answers does.
    let due = timed(record.expires(), id);
    let earlier = record.expires() < record.facts.expires || record.stopped.is_some();
    let earlier = earlier && !record.name().is_final();
    if earlier && desk.live.get(DUE, &due)?.is_none() {
        batch = batch.create(DUE, due, Vec::new());
    }
    Ok(batch)
}

/// The index rows of an open request.
fn indexes(record: &Record) -> Vec<(Table, Vec<u8>)> {
    let id = record.facts.id;
    let caller = &record.facts.caller;
    let mut rows = vec![(BY_SUBJECT, index(&[&caller.issuer, &caller.subject], id))];
    if let Some(actor) = &record.actor {
        let key = index(&[&caller.issuer, &caller.subject, actor], id);
        rows.push((BY_ACTOR, key));
    }
    for fit in &record.intents {
        rows.push((BY_INTENT, index(&[&fit.evidence.id.to_string()], id)));
    }
    let mut seen = std::collections::BTreeSet::new();
    for item in &record.facts.items {
        let key = item.package_key();
        if seen.insert(key.clone()) {
            let asker = index(&[&key, &caller.issuer, &caller.subject], id);
            rows.push((BY_PACKAGE_ASKER, asker));
            rows.push((BY_PACKAGE, index(&[&key], id)));
        }
    }
    rows
}

/// Open requests of a package.
pub fn of_package(desk: &Desk, package: &str, limit: usize) -> Result<Vec<Held>, Fault> {
    others_of_package(desk, package, None, limit)
}

/// Open requests of a package but this one.
pub fn others_of_package(
    desk: &Desk,
    package: &str,
    but: Option<RequestId>,
    limit: usize,
) -> Result<Vec<Held>, Fault> {
    let mut out = Vec::new();
    let prefix = prefix(&[package]);
    for (key, _) in desk.live.range(BY_PACKAGE, &prefix, None, limit)? {
        if let Some(held) = key
            .get(prefix.len()..)
            .and_then(id_of)
            .filter(|id| but != Some(*id))
            .map(|id| among(desk, id))
            .transpose()?
        {
            out.extend(held);
        }
    }
    Ok(out)
}

/// The ids of open requests of a package.
pub fn ids_of_package(desk: &Desk, package: &str, limit: usize) -> Result<Vec<RequestId>, Fault> {
    let prefix = prefix(&[package]);
    let rows = desk.live.range(BY_PACKAGE, &prefix, None, limit)?;
    let ids = rows.iter();
    Ok(ids
        .filter_map(|(key, _)| id_of(key.get(prefix.len()..)?))
        .collect())
}

/// A key of parts ending in NUL each, then the id. No part holds a NUL: names and claims are checked.
pub fn index(parts: &[&str], id: RequestId) -> Vec<u8> {
    let mut key = prefix(parts);
    key.extend_from_slice(id.0.as_bytes());
    key
}

/// The prefix of [`index`].
pub fn prefix(parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

/// A key ordered by time.
pub fn timed(at: UnixTime, id: RequestId) -> Vec<u8> {
    let mut key = at.0.to_be_bytes().to_vec();
    key.extend_from_slice(id.0.as_bytes());
    key
}

/// The time and id of [`timed`].
pub fn untimed(key: &[u8]) -> Option<(UnixTime, RequestId)> {
    let (time, id) = key.split_first_chunk::<8>()?;
    Some((UnixTime(u64::from_be_bytes(*time)), id_of(id)?))
}

/// An id from its 16 bytes.
pub fn id_of(bytes: &[u8]) -> Option<RequestId> {
    Some(RequestId(uuid::Uuid::from_bytes(bytes.try_into().ok()?)))
}

/// The bytes of a request's row.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(record).map_err(|_| Fault::Damaged("a request"))
}

/// Reads a row as the request that its key names. Evidence signs the digest, and everything else is
/// judged by the facts: a row whose digest is not its facts' own would carry one request's approvals
/// over to another's bytes (attack 15, by whoever writes the database).
pub(crate) fn decode(id: RequestId, bytes: &[u8]) -> Result<Record, Fault> {
    let record: Record = serde_json::from_slice(bytes).map_err(|_| Fault::Damaged("a request"))?;
    if record.facts.id == id && record.facts.digest() == record.digest {
        Ok(record)
    } else {
        Err(Fault::Damaged("a request"))
    }
}
