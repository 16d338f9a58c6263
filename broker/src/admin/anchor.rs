//! The log's last checkpoint, and the inventory's number, in a file outside the database, so that the broker itself
//! notices an older database that somebody put into its place without `countersignd restore`, or older rows in it.
//!
//! If an attacker writes here: he can delete the file, or put back an old one with the database, and nothing is
//! noticed; the devices' own checkpoints are against that. What he writes that is no checkpoint of this log, or
//! a longer one's, stops the broker until its admins have looked.

use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault, inventory,
        restored::{self, Cause, Mark},
    },
    store::{Batch, history::whole_log_read},
};
use proto::{digest::hex, log::checkpoint::Checkpoint, time::UnixTime};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Milliseconds between two writes, at least. What happened since the last one is not noticed to be gone.
const PAUSE_MS: u64 = 10_000;
/// Before the inventory's number, behind the checkpoint.
const NUMBER: &str = "\ninventory ";
/// Bytes of the file at most.
const FILE_MAX: u64 = 64 << 10;

/// Why the broker does not start.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Something below failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log is whole, and what it tells of is not there.
    #[error(
        "people, policies or what waits for admins are older than the log: somebody put back older rows; look at who can write the \
         database, and restore a backup (countersignd restore). If you have just restored the last backup of a broker that died within seconds of it, remove {} and start again", .0.display()
    )]
    OlderRows(PathBuf),
}

/// Compares the log with what it is known to have been; before anybody is served.
pub async fn check(desk: &Desk, now: UnixTime) -> Result<(), CheckError> {
    let Some(known) = read(&desk.place.anchor) else {
        return Ok(());
    };
    let (note, number) = known.rsplit_once(NUMBER).unwrap_or((&known, "0"));
    let number: Option<u64> = number.trim_end().parse().ok();
    let changes = inventory::number_unauthenticated(desk)?;
    let seen = Checkpoint::read_unverified(note).ok();
    let size = desk.tree.catch_up_into(&*desk.live, &*desk.history).await;
    let size = size.map_err(|e| Fault::Store(e.to_string()))?;
    if let Some(seen) = seen.as_ref().filter(|seen| seen.size <= size) {
        let root = desk.tree.root_at(&*desk.history, seen.size);
        if root.map_err(|e| Fault::Store(e.to_string()))? == seen.root {
            // Who writes a greater number into the row does not know the key: nothing is believed then.
            let whole = number.is_some_and(|seen| seen <= changes.unwrap_or(0));
            // A mark says nothing to it: whoever writes the rows plants one.
            if !whole {
                return Err(CheckError::OlderRows(desk.place.anchor.clone()));
            }
            return Ok(());
        }
    }
    // Restored, and marked already: the admins look at that.
    if desk.restored()?.is_some() {
        return Ok(());
    }
    let id = desk.world.random::<16>().map_err(Fault::from)?;
    let mark = Mark {
        id: hex(&id),
        cause: Cause::RolledBack,
        taken: last_entry(desk, size)?,
        restored: now,
        entries: size,
        log_key: None,
    };
    let (table, key) = restored::row();
    let batch = Batch::new().create(table, key, restored::bytes(&mark)?);
    let event = Event::RolledBack {
        known: seen.map_or(0, |seen| seen.size),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Writes the log's checkpoint if it has grown. `last` is when that was done, and at which size.
pub async fn keep(desk: &Desk, last: &mut (u64, u64)) -> Result<(), Fault> {
    let (at, size) = *last;
    let now = desk.world.monotonic_ms();
    let early = size > 0 && now.saturating_sub(at) < PAUSE_MS;
    if early || desk.tree.size() == size || desk.vault.is_sealed() {
        return Ok(());
    }
    // What it was known to have been is kept until the admins have looked.
    let older = desk.restored()?.is_some();
    if older {
        return Ok(());
    }
    let number = desk.inventory()?.number();
    let (grown, note) = desk.checkpoint().await?;
    let note = format!("{note}{NUMBER}{number}\n");
    let path = desk.place.anchor.clone();
    let work = move || write(&path, &note);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => {}
        other => tracing::error!(
            ?other,
            "the log's checkpoint cannot be kept outside the database: see `anchor` in the configuration"
        ),
    }
    *last = (now, grown);
    Ok(())
}

/// The time of the log's last entry: what the copy knows ends there.
fn last_entry(desk: &Desk, size: u64) -> Result<UnixTime, Fault> {
    #[derive(serde::Deserialize)]
    struct Leaf {
        time: UnixTime,
    }
    let last = size.saturating_sub(1);
    let found = whole_log_read(&*desk.live, &*desk.history, last, 1)?;
    let leaf = found
        .first()
        .and_then(|(_, leaf)| serde_json::from_slice::<Leaf>(leaf).ok());
    Ok(leaf.map_or(UnixTime(0), |leaf| leaf.time))
}

fn read(path: &Path) -> Option<String> {
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.map_or(u64::MAX, |m| m.len()),
    };
    // What is there and cannot be read is no checkpoint, and stops.
    let text = (length <= FILE_MAX).then(|| fs::read_to_string(path).ok());
    Some(text.flatten().unwrap_or_default())
}

fn write(path: &Path, note: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".anchor-")
        .tempfile_in(folder)?;
    file.write_all(note.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}
