//! The source of a release, which a job may hand in: what is kept of it is a list of its files.
//!
//! If an attacker writes here: it is the job's word in any case, and every place that shows it says so.

use super::{Stored, account, hashed, is_wanted, store_beside};
use crate::{
    card::{
        run::{NotInspected, pack_source},
        source::Listing,
    },
    desk::{Desk, Fault},
    publish::{Refusal, state::Record},
    store::{Batch, Table},
};
use proto::{
    api::StateName,
    card::SOURCE_MAX,
    digest::{Algorithm, Digest},
    ids::RequestId,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tempfile::SpooledTempFile;

/// By id: that a source was handed in, and what decides of it; authenticated.
const SOURCES: Table = Table("source");
/// By id: which files it has; authenticated, and read only where a file is compared with it.
const LISTS: Table = Table("source-files");

#[derive(Serialize, Deserialize)]
struct Source {
    /// Of the archive.
    digest: Digest,
    /// Of the caller's workflow in it, if it is in it.
    workflow: Option<String>,
}

/// Whether the source of a request is wanted: as long as somebody may still look.
pub fn wanted(desk: &Desk, record: &Record) -> Result<(), Refusal> {
    let looks = record.facts.items.iter().any(|item| is_wanted(desk, item));
    if looks && record.name() == StateName::Pending {
        return Ok(());
    }
    let why = "nobody asks for the source of this request".to_owned();
    Err(Refusal::BadRequest(why))
}

/// Lists what the job hands in, once: another archive would turn what people have read into something else.
pub async fn handed_in(
    desk: &Arc<Desk>,
    record: &Record,
    archive: SpooledTempFile,
) -> Result<(), Refusal> {
    let id = record.facts.id;
    let turn = desk.inspections.turn(account(record)).await;
    let turn = turn.ok_or(Refusal::Busy)?;
    let (size, digest, archive) = hashed(archive, Algorithm::Sha256).await?;
    if let Some(known) = stored(desk, id)? {
        return same(&known, &digest);
    }
    let place = desk.inspections.place(turn).await;
    let place = place.map_err(|_| Refusal::Busy)?;
    let folder = desk.place.spool.clone();
    let packed =
        tokio::task::spawn_blocking(move || pack_source(archive, size.min(SOURCE_MAX), &folder));
    let packed = packed.await.map_err(|_| Fault::Damaged("an upload"))?;
    let packed = packed.map_err(|_| Fault::Damaged("an upload"))?;
    let files = place.list(packed).await.map_err(|why| match why {
        NotInspected::Io(_) => Refusal::Busy,
        why => Refusal::BadRequest(format!(
            "the source must be a .tar.gz as `git archive` makes it, of at most 20,000 files: {why}"
        )),
    })?;
    let workflow = record.facts.caller.claims.get("workflow");
    let workflow = workflow.and_then(|path| files.at(path));
    let source = Source {
        digest: digest.clone(),
        workflow: workflow.map(str::to_owned),
    };
    let key = id.0.as_bytes();
    let row = desk.authentic(SOURCES, key, &source)?;
    let list = desk.authentic(LISTS, key, &files)?;
    if store_beside(desk, id, [(SOURCES, key, row), (LISTS, key, list)]).await? == Stored::Now {
        return Ok(());
    }
    stored(desk, id)?.map_or(Err(Refusal::Busy), |known| same(&known, &digest))
}

fn same(known: &Source, digest: &Digest) -> Result<(), Refusal> {
    if known.digest == *digest {
        return Ok(());
    }
    let why = "another source was handed in for this request already".to_owned();
    Err(Refusal::BadRequest(why))
}

fn stored(desk: &Desk, id: RequestId) -> Result<Option<Source>, Fault> {
    let row = desk.authentic_row::<Source>(SOURCES, id.0.as_bytes())?;
    Ok(row.map(|row| row.value))
}

/// The files of a request's source, if the job handed it in.
pub(super) fn of(desk: &Desk, id: RequestId) -> Result<Option<Listing>, Fault> {
    let row = desk.authentic_row::<Listing>(LISTS, id.0.as_bytes())?;
    Ok(row.map(|row| row.value))
}

/// The digest of the caller's workflow in the source, if the job handed in one that has it.
pub(in crate::publish) fn workflow(desk: &Desk, id: RequestId) -> Result<Option<String>, Fault> {
    Ok(stored(desk, id)?.and_then(|source| source.workflow))
}

/// Drops it with the request.
pub(super) fn dropped(desk: &Desk, mut batch: Batch, id: RequestId) -> Result<Batch, Fault> {
    for table in [SOURCES, LISTS] {
        if let Some(row) = desk.live.get(table, id.0.as_bytes())? {
            batch = batch.delete(table, id.0.as_bytes(), row.version);
        }
    }
    Ok(batch)
}
