//! Which rows there must be of those that say who may do what: people, invites, recoveries, what waits at the admins'
//! gate, what they agreed to withdraw, the policy in force, client keys, announcements that may count. One
//! authenticated row holds the hash of each of them, and is written in every commit that changes one.
//!
//! A MAC says that the broker wrote a row once, and nothing of when. Here it shows that a row is gone, or is an
//! older one that was put back: who has one admin and writes the database would delete the other admins and be the
//! only one, or revive an act that was vetoed, or a withdrawal that was called back, or an announcement or a client
//! key that was taken back (attacks 44, 50).
//!
//! What if an attacker writes here? Nothing holds then: rows that are not listed as they stand are not believed. He can
//! put back an older inventory with all the rows of its time; its number tells, which lies outside the
//! database as well (`admin/anchor.rs`).

use super::{
    Desk, Fault,
    people::{INVITES, PEOPLE, Versioned},
};
use crate::{
    store::{Batch, Committed, Row, Store, Table},
    vault::{Vault, rows},
};
use proto::digest::{Algorithm, Digest, hex, unhex};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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
/// Keys of CI without OIDC, by name: some hundred bytes in the inventory for each, and 1000 of them at most.
pub const CLIENT_KEYS: Table = Table("client-key");
/// Announcements that may count for a request, by their time-ordered ids: at most 200 of each person, 50 live ones and
/// those of about a day that were spent. One that is taken back leaves this table at once, and one whose time is over
/// when the next one is announced (`publish/intent/past.rs`), so that the inventory stays small.
pub const INTENTS: Table = Table("intent");

/// The tables whose rows are listed. They change when people do something about people or announce a release, when
/// two of them agree, and when a request is approved by what was announced: so rarely that all of them can have one row.
const LISTED: [Table; 10] = [
    PEOPLE,
    INVITES,
    RECOVERIES,
    ACTS,
    POLICY,
    CHANGES,
    REKEY,
    WITHDRAWALS,
    CLIENT_KEYS,
    INTENTS,
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

/// Reads listed rows. The inventory is kept as it was authenticated last: the same bytes under the same key are not
/// checked again.
pub struct Known {
    live: Arc<dyn Store>,
    vault: Arc<Vault>,
    last: Mutex<Option<Read>>,
}

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

    /// Whether there must be such a row, whatever stands there.
    pub fn lists(&self, table: Table, key: &[u8]) -> bool {
        self.held.rows.contains_key(&name(table, key))
    }

    /// How many rows of a table there must be.
    pub fn count(&self, table: Table) -> usize {
        self.of(&name(table, b"")).count()
    }

    /// The keys of the rows that there must be in a table, in order.
    pub fn keys(&self, table: Table) -> Vec<Vec<u8>> {
        self.of(&name(table, b"")).filter_map(unhex).collect()
    }

    fn of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.held.rows.range(prefix.to_owned()..);
        from.map_while(move |(name, _)| name.strip_prefix(prefix))
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

impl Known {
    /// Over the live store, and the vault that authenticates its rows.
    pub fn new(live: Arc<dyn Store>, vault: Arc<Vault>) -> Self {
        let last = Mutex::default();
        Self { live, vault, last }
    }

    /// A listed row as it must stand; whoever reads it authenticates it.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Fault> {
        // Sealed, what is not there is not there, and nothing else is believed: as for every other row.
        if self.vault.is_sealed() {
            let row = self.live.get(table, key)?;
            return row.map_or(Ok(None), |_| Err(Fault::Sealed));
        }
        self.as_listed((table, key), |listed| {
            let row = self.live.get(table, key)?;
            let value = row.as_ref().map(|row| row.value.as_slice());
            Ok(listed.has(table, key, value).then_some(row))
        })
    }

    /// The rows of a listed table as they must stand. What is gone, or another's, is an alarm, and left out.
    fn rows(&self, table: Table) -> Result<Vec<(Vec<u8>, Row)>, Fault> {
        let is_listed =
            |listed: &Listed, key: &[u8], row: &Row| listed.has(table, key, Some(&row.value));
        let whole = self.as_listed((table, b""), |listed| {
            let there = listed.count(table);
            let rows = self.live.range(table, b"", None, there.saturating_add(1))?;
            let all = rows.iter().all(|(key, row)| is_listed(listed, key, row));
            Ok((all && rows.len() == there).then_some(rows))
        });
        match whole {
            Err(Fault::Damaged(_)) => {}
            other => return other,
        }
        // One by one: however many were planted, each of those that must stand is found, and the log names those that do not.
        let mut all = Vec::new();
        for key in self.inventory()?.keys(table) {
            match self.row(table, &key) {
                Ok(row) => all.extend(row.map(|row| (key, row))),
                Err(Fault::Damaged(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(all)
    }

    /// What must be there now.
    fn inventory(&self) -> Result<Listed, Fault> {
        let era = self.vault.era()?;
        let row = self.live.get(INVENTORY, ROW)?;
        let Row { version, value } = row.ok_or_else(|| {
            tracing::error!("ALARM: the inventory of people and policies is gone");
            Fault::Damaged("the inventory of people and policies")
        })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = last.as_ref().filter(|r| r.era == era && r.stored == value) {
            let held = Arc::clone(&read.held);
            return Ok(Listed { version, held });
        }
        let json = rows::check_authentic(&self.vault, INVENTORY, ROW, &value)?;
        let held = serde_json::from_slice(json);
        let held: Arc<Inventory> = Arc::new(held.map_err(|_| Fault::Damaged("the inventory"))?);
        *last = Some(Read {
            era,
            stored: value,
            held: Arc::clone(&held),
        });
        Ok(Listed { version, held })
    }

    /// Whether what was just read is listed so. A commit in between is no attack: then it is read again, by `look`.
    fn as_listed<T>(
        &self,
        (table, key): (Table, &[u8]),
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
                    table = table.0,
                    key = %key.escape_ascii(),
                    "ALARM: a row of people, policies, announcements or client keys is gone, or is an older one that was put back: look at who can write the database"
                );
                return Err(Fault::Damaged("what people and policies there are"));
            }
            listed = again;
        }
        Err(Fault::Conflict(INVENTORY, ROW.to_vec()))
    }
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
        self.known.inventory()
    }

    /// Whether what was just read is listed so; the key is for the alarm.
    pub(super) fn as_listed<T>(
        &self,
        at: (Table, &[u8]),
        look: impl FnMut(&Listed) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        self.known.as_listed(at, look)
    }

    /// All rows of a listed table, in the order of their keys. What cannot be believed is an alarm, and left out.
    pub fn listed_rows<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<Versioned<T>>, Fault> {
        if self.vault.is_sealed() {
            let one = self.live.range(table, b"", None, 1)?;
            return one.first().map_or(Ok(Vec::new()), |_| Err(Fault::Sealed));
        }
        let mut all = Vec::new();
        for (key, row) in self.known.rows(table)? {
            let value = self.check_row(table, &key, &row)?;
            let version = row.version;
            all.push(Versioned { version, value });
        }
        Ok(all)
    }

    /// Takes a row away that must stand there and cannot be read: what was hidden while somebody took it back would
    /// count again when it is put back. None where there must be no such row.
    pub fn unlisted(&self, batch: Batch, table: Table, key: &[u8]) -> Result<Option<Batch>, Fault> {
        if !self.inventory()?.lists(table, key) {
            return Ok(None);
        }
        let there = self.live.get(table, key)?.map(|row| row.version);
        Ok(Some(batch.clear(table, key, there)))
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
