//! Which rows there must be of those that say who may do what: people, invites, recoveries, what waits at the admins'
//! gate, what they agreed to withdraw, the policy in force. One authenticated row holds the hash of each of them, and
//! is written in every commit that changes one.
//!
//! A MAC says that the broker wrote a row once, and nothing of when. Here it shows that a row is gone, or is an
//! older one that was put back: who has one admin and writes the database would delete the other admins and be the
//! only one, or revive an act that was vetoed, or a withdrawal that was called back (attacks 44, 50).
//!
//! What if an attacker writes here? Nothing holds then: rows that are not listed as they stand are not believed. He can
//! put back an older inventory with all the rows of its time; its number tells, which lies outside the
//! database as well (`admin/anchor.rs`).

use super::{
    Desk, Fault,
    people::{INVITES, PEOPLE},
};
use crate::{
    store::{Batch, Committed, Row, Table},
    vault::rows,
};
use proto::digest::{Algorithm, Digest, hex};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What waits at the admins' gate, by its id.
pub const ACTS: Table = Table("act");
/// The policy in force.
pub const POLICY: Table = Table("policy");
/// Recoveries under way, by person.
pub const RECOVERIES: Table = Table("recovery");
/// A change of what opens the vault.
pub const CHANGES: Table = Table("unseal-change");

/// A re-keying of the vault.
pub const REKEY: Table = Table("rekey");
/// What is to be withdrawn at a registry, by `registry:package@version`. The broker itself notes each call and the end
/// here; that is a few changes for each time that admins agree.
pub const WITHDRAWALS: Table = Table("withdrawal");

/// The tables whose rows are listed. They change when people do something about people, or two of them agree, and so
/// rarely that all of them can have one row.
const LISTED: [Table; 8] = [
    PEOPLE,
    INVITES,
    RECOVERIES,
    ACTS,
    POLICY,
    CHANGES,
    REKEY,
    WITHDRAWALS,
];

const INVENTORY: Table = Table("inventory");
const ROW: &[u8] = b"all";
/// Tries while others change listed rows at the same moment.
const RACES_MAX: u32 = 100;

/// What is listed.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Inventory {
    /// Grows by one with every change.
    number: u64,
    /// By table and key, the hash of the row's bytes.
    rows: BTreeMap<String, Digest>,
}

/// The inventory at one moment.
pub struct Listed {
    version: u64,
    held: Arc<Inventory>,
}

/// The inventory as it was authenticated last: the same bytes under the same key are not checked again.
#[derive(Default)]
pub struct Known(Mutex<Option<Read>>);

struct Read {
    era: u64,
    stored: Vec<u8>,
    held: Arc<Inventory>,
}

impl Listed {
    /// How many changes it has seen.
    pub fn number(&self) -> u64 {
        self.held.number
    }

    /// Whether this is the row that must stand there; none where there must be none.
    pub fn has(&self, table: Table, key: &[u8], row: Option<&[u8]>) -> bool {
        self.held.rows.get(&name(table, key)) == row.map(hash).as_ref()
    }

    /// Whether a hash is that of the row that must stand there.
    pub fn has_hash(&self, table: Table, key: &[u8], hash: &Digest) -> bool {
        self.held.rows.get(&name(table, key)) == Some(hash)
    }

    /// How many rows of a table there must be.
    pub fn count(&self, table: Table) -> usize {
        let prefix = name(table, b"");
        let from = self.held.rows.range(prefix.clone()..);
        from.take_while(|(name, _)| name.starts_with(&prefix))
            .count()
    }
}

/// Whether the rows of this table are listed.
pub fn is_listed(table: Table) -> bool {
    LISTED.contains(&table)
}

/// Whether a batch changes a listed row.
pub fn changes(batch: &Batch) -> bool {
    let mut changed = false;
    batch.each_write(|table, _, _| changed |= is_listed(table));
    changed
}

/// The number in the row, before anything can be authenticated; none where there is no such row.
pub fn number_unauthenticated(desk: &Desk) -> Result<Option<u64>, Fault> {
    let row = desk.live.get(INVENTORY, ROW)?;
    let held: Option<Inventory> = row.and_then(|row| {
        rows::unauthenticated(&row.value).and_then(|json| serde_json::from_slice(json).ok())
    });
    Ok(held.map(|held| held.number))
}

impl Desk {
    /// The first inventory, when the broker is created: it lists nothing.
    pub async fn make_inventory(&self) -> Result<(), Fault> {
        let row = self.authentic(INVENTORY, ROW, &Inventory::default())?;
        let batch = Batch::new().create(INVENTORY, ROW, row);
        Ok(self.live.commit(batch).await.map(drop)?)
    }

    /// What must be there now.
    pub fn inventory(&self) -> Result<Listed, Fault> {
        let era = self.vault.era()?;
        let row = self.live.get(INVENTORY, ROW)?;
        let Row { version, value } = row.ok_or_else(|| {
            tracing::error!("ALARM: the inventory of people and policies is gone");
            Fault::Damaged("the inventory of people and policies")
        })?;
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = known.as_ref().filter(|r| r.era == era && r.stored == value) {
            let held = Arc::clone(&read.held);
            return Ok(Listed { version, held });
        }
        let json = rows::check_authentic(&self.vault, INVENTORY, ROW, &value)?;
        let held = serde_json::from_slice(json);
        let held: Arc<Inventory> = Arc::new(held.map_err(|_| Fault::Damaged("the inventory"))?);
        *known = Some(Read {
            era,
            stored: value,
            held: Arc::clone(&held),
        });
        Ok(Listed { version, held })
    }

    /// Whether what was just read is listed so. A commit in between is no attack: then it is read again, by `look`.
    pub(super) fn as_listed<T>(
        &self,
        mut look: impl FnMut(&Listed) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let mut listed = self.inventory()?;
        for _ in 0..RACES_MAX {
            if let Some(found) = look(&listed)? {
                return Ok(found);
            }
            let again = self.inventory()?;
            if again.version == listed.version {
                tracing::error!(
                    "ALARM: a row of people or policies is gone, or is an older one that was put back: look at who can write the database"
                );
                return Err(Fault::Damaged("what people and policies there are"));
            }
            listed = again;
        }
        Err(Fault::Conflict(INVENTORY, ROW.to_vec()))
    }

    /// Commits a batch, and with it what it changes in the inventory.
    pub(super) async fn commit_listed(&self, batch: Batch) -> Result<Committed, Fault> {
        let mut left = RACES_MAX;
        loop {
            let listed = self.inventory()?;
            let mut next = Inventory::clone(&listed.held);
            next.number += 1;
            batch.each_write(|table, key, value| {
                if is_listed(table) {
                    match value {
                        Some(value) => next.rows.insert(name(table, key), hash(value)),
                        None => next.rows.remove(&name(table, key)),
                    };
                }
            });
            let row = self.authentic(INVENTORY, ROW, &next)?;
            let whole = batch.clone().replace(INVENTORY, ROW, listed.version, row);
            match self.live.commit(whole).await.map_err(Fault::from) {
                // Another listed row was changed at this moment.
                Err(Fault::Conflict(table, _)) if table == INVENTORY && left > 0 => left -= 1,
                done => return done,
            }
        }
    }
}

/// What is listed of a row.
pub fn hash(row: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, row)
}

fn name(table: Table, key: &[u8]) -> String {
    format!("{}/{}", table.0, hex(key))
}
