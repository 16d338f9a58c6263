//! A restore tried out: whether a backup would really bring the broker back, without touching the one there is.
//!
//! Everything is restored into a folder that goes away again. The log is hashed anew from its first entry and
//! compared with the tree and the signed checkpoint; with what opens the vault, every row is checked, and every
//! token opened.

use super::{
    KEY_FILE,
    format::Head,
    restore::{RestoreError, STORES, Wish, restore},
};
use crate::{
    audit::tree::Tree,
    desk,
    publish::contents::{self, Proof},
    secret::Secret,
    store::{
        Store, StoreError, Table,
        history::whole_log_read,
        redb::{OpenError, Options, Redb},
        snapshot::{Piece, WalkError, split_place},
    },
    vault::{Unseal, UnsealError, Vault, release, tokens},
    world::World,
};
use proto::{
    device::DeviceKey,
    log::{
        checkpoint::{Checkpoint, LogKey},
        merkle::{Frontier, leaf_hash},
    },
    time::UnixTime,
};
use serde::Serialize;
use std::{fs, io, path::Path};
use thiserror::Error;

/// Page cache of each store, in bytes.
const CACHE: usize = 32 << 20;
/// Leaves read at once.
const PAGE: usize = 1000;
/// Findings that are named; the others are counted.
const NAMED_MAX: usize = 20;

/// What a drill found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When the backup was taken.
    pub taken: UnixTime,
    /// By which version of the daemon.
    pub made_by: String,
    /// The log's key, to be compared with the one that was written down.
    pub log_key: String,
    /// Bytes of the backup.
    pub bytes: u64,
    /// Milliseconds until everything was back, durably.
    pub restore_ms: u64,
    /// Milliseconds until the vault was open; none: nothing was named that opens it.
    pub unseal_ms: Option<u64>,
    /// Entries of the log, all hashed anew.
    pub log_entries: u64,
    /// Rows of both stores.
    pub rows: u64,
    /// Rows that proved that this broker wrote them where they are.
    pub rows_proved: u64,
    /// Tokens that were opened.
    pub tokens: u64,
    /// Milliseconds for checking log, rows and tokens.
    pub check_ms: u64,
    /// What is wrong: the first of it by name.
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_count: u64,
}

impl Report {
    fn found(&mut self, what: String) {
        self.findings_count += 1;
        if self.findings.len() < NAMED_MAX {
            self.findings.push(what);
        }
    }
}

/// Why a drill did not come to its end.
#[derive(Debug, Error)]
pub enum DrillError {
    /// The backup does not restore.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The folder for it.
    #[error("the drill's folder: {0}")]
    Folder(#[from] io::Error),
    /// A restored store does not open.
    #[error("a restored store does not open: {0}")]
    Open(#[from] OpenError),
    /// A restored store cannot be read.
    #[error("a restored store cannot be read: {0}")]
    Read(String),
    /// The vault does not open.
    #[error("the restored vault does not open: {0}")]
    Unseal(#[from] UnsealError),
}

impl DrillError {
    /// Whether a newer program made the backup.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Restore(error) if error.is_newer())
    }
}

impl From<StoreError> for DrillError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Restores into a folder of its own below `folder`, checks, and removes it. The wish's own folder is not used.
/// Blocking.
pub fn drill(
    wish: &Wish<'_>,
    folder: &Path,
    unseal: Option<&Unseal>,
    world: &World,
    now: UnixTime,
) -> Result<Report, DrillError> {
    let place = tempfile::Builder::new()
        .prefix("countersign-drill-")
        .tempdir_in(folder)?;
    let data = place.path().join("data");
    let began = world.monotonic_ms();
    let restored = restore(
        &Wish {
            data: &data,
            ..*wish
        },
        world,
        now,
    )?;
    let back = world.monotonic_ms();
    let head = restored.head;
    let mut report = Report {
        taken: head.taken,
        made_by: head.made_by.clone(),
        log_key: head.log_key.clone(),
        bytes: restored.bytes,
        restore_ms: back.saturating_sub(began),
        unseal_ms: None,
        log_entries: 0,
        rows: 0,
        rows_proved: 0,
        tokens: 0,
        check_ms: 0,
        findings: Vec::new(),
        findings_count: 0,
    };
    let open = |name: &str| Redb::open(data.join(name), Options::new(CACHE));
    let (live, past) = (open(STORES.0)?, open(STORES.1)?);
    let vault = Vault::new(world.clone());
    if let Some(secret) = unseal {
        vault.unseal(&fs::read(data.join(KEY_FILE))?, secret)?;
        report.unseal_ms = Some(world.monotonic_ms().saturating_sub(back));
    }
    let checking = world.monotonic_ms();
    log(&mut report, &head, &live, &past)?;
    rows(&mut report, &vault, &[&live, &past])?;
    if !vault.is_sealed() {
        own_key(&mut report, &head, &vault, &live)?;
        tokens(&mut report, &vault, &live);
    }
    report.check_ms = world.monotonic_ms().saturating_sub(checking);
    drop((live, past));
    place.close()?;
    Ok(report)
}

/// Every entry, hashed anew from the first: the checkpoint's tree, and the stored one.
fn log(
    report: &mut Report,
    head: &Head,
    live: &dyn Store,
    past: &dyn Store,
) -> Result<(), DrillError> {
    let key: Option<LogKey> = head.log_key.parse().ok();
    let signed = key.and_then(|key| Checkpoint::open(&head.checkpoint, &key).ok());
    let stored = Tree::load(past).map_err(|e| DrillError::Read(e.to_string()))?;
    let stored = stored.snapshot("");
    let mut wanted = vec![("the tree", stored.size, stored.root)];
    match signed {
        Some(signed) => wanted.push(("the signed checkpoint", signed.size, signed.root)),
        None => report.found("the log's checkpoint is not signed with its key".to_owned()),
    }
    let mut frontier = Frontier::default();
    let length = live.log_len()?;
    while frontier.size() < length {
        let leaves = whole_log_read(live, past, frontier.size(), PAGE)?;
        if leaves.is_empty() {
            break;
        }
        for (index, leaf) in leaves {
            if index != frontier.size() {
                report.found(format!("log entry {} is missing", frontier.size()));
                return Ok(());
            }
            frontier.push(leaf_hash(&leaf));
            wanted.retain(|(what, size, root)| {
                if *size == frontier.size() && *root != frontier.root() {
                    report.found(format!(
                        "the log's first {size} entries are not those of {what}"
                    ));
                }
                *size != frontier.size()
            });
        }
    }
    report.log_entries = frontier.size();
    if frontier.size() != length {
        report.found(format!(
            "the log ends at {}, not at {length}",
            frontier.size()
        ));
    }
    for (what, size, _) in wanted.into_iter().filter(|(_, size, _)| *size > 0) {
        report.found(format!("{what} has {size} entries, more than the log"));
    }
    Ok(())
}

fn rows(report: &mut Report, vault: &Vault, stores: &[&dyn Store]) -> Result<(), DrillError> {
    for store in stores {
        let walked = store.snapshot()?.walk(&mut |piece| {
            if let Piece::Row { place, value, .. } = piece {
                report.rows += 1;
                row(report, vault, place, value);
            }
            Ok(())
        });
        walked.map_err(|error| match error {
            WalkError::Store(error) => DrillError::from(error),
            WalkError::Taker(error) => error.into(),
        })?;
    }
    Ok(())
}

fn row(report: &mut Report, vault: &Vault, place: &[u8], value: &[u8]) {
    if vault.is_sealed() {
        return;
    }
    let Some((table, key)) = split_place(place) else {
        report.found("a row without a table".to_owned());
        return;
    };
    match contents::check(vault, table, key, value) {
        Ok(Proof::Bare) => {}
        Ok(_) => report.rows_proved += 1,
        Err(why) => report.found(why),
    }
}

/// The key that signed the backup is the one that lies in its vault.
fn own_key(
    report: &mut Report,
    head: &Head,
    vault: &Vault,
    live: &dyn Store,
) -> Result<(), DrillError> {
    let row = live.get(Table(desk::log_binding().table), desk::log_binding().record)?;
    let seed = row.and_then(|row| vault.open_row(&desk::log_binding(), &row.value).ok());
    let seed = seed.and_then(|s: Secret<Vec<u8>>| <[u8; 32]>::try_from(s.expose().as_slice()).ok());
    let held = seed.and_then(|seed| DeviceKey::from_seed(seed).ok());
    let named: Option<LogKey> = head.log_key.parse().ok();
    let public = held.map(|key| key.public());
    if public.is_none() || public != named.map(|key| *key.public()) {
        report.found("the backup was signed with another key than its vault's".to_owned());
    }
    Ok(())
}

fn tokens(report: &mut Report, vault: &Vault, live: &dyn Store) {
    match tokens::list(vault, live) {
        Err(why) => report.found(format!("the tokens: {why}")),
        Ok(all) => {
            for token in all {
                match release::for_check(vault, &token) {
                    Ok(_) => report.tokens += 1,
                    Err(_) => report.found(format!(
                        "the token for {} {} does not open",
                        token.record.registry, token.record.scope
                    )),
                }
            }
        }
    }
}
