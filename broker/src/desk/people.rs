//! People, their devices and second factors.
//!
//! If an attacker writes here: every row is authenticated under the vault's key and bound to its
//! place, so he can remove people (and is noticed), but not add a phone.

use crate::{
    challenge::{passkey::Registered, totp::TotpState},
    desk::{
        Desk, Fault,
        inventory::{self, Listed},
    },
    secret::Secret,
    store::{Batch, Row, Table},
    vault::{Binding, Domain, Vault, rows},
};
use proto::{
    device::{DeviceKind, DevicePublic},
    digest::Digest,
    ids::{DeviceId, GroupName, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Rows of people.
pub const PEOPLE: Table = Table("person");
/// From a device's id to its person; a hint that is checked against the person's own row.
pub const DEVICES: Table = Table("device");
/// TOTP budgets and last used steps; authenticated. Everybody who was ever enrolled has one.
pub const TOTP: Table = Table("totp");
/// Counters and last uses of passkeys, by credential id; authenticated.
pub const PASSKEYS: Table = Table("passkey");
/// Open invites.
pub const INVITES: Table = Table("invite");

/// A person as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Who.
    pub id: PersonId,
    /// Groups that the policy names.
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    pub admin: bool,
    /// Accounts at CI issuers, like `github:12345`.
    pub actors: Vec<String>,
    /// When first enrolled; absent in rows from before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled: Option<UnixTime>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Passkeys.
    #[serde(default)]
    pub passkeys: Vec<PersonPasskey>,
    /// The TOTP secret, sealed; empty when this person never set one up.
    pub totp: Vec<u8>,
}

/// A person's passkey. It may be synced, so it is no device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PersonPasskey {
    /// What was registered.
    #[serde(flatten)]
    pub registered: Registered,
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub enrolled: UnixTime,
}

/// What changes with every use of a passkey; beside the person's row, which every decision reads.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PasskeyUse {
    /// The authenticator's counter; it never goes back.
    pub counter: u32,
    /// When it answered last.
    pub last: Option<UnixTime>,
}

/// An enrolled device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its key.
    pub public_key: DevicePublic,
    /// Its name.
    pub name: String,
    /// When it was enrolled.
    pub enrolled: UnixTime,
    /// What it is.
    #[serde(default)]
    pub kind: DeviceKind,
}

impl Person {
    /// Since when this person is enrolled, whatever devices came and went.
    pub fn since(&self) -> Option<UnixTime> {
        self.enrolled
            .or_else(|| self.devices.iter().map(|d| d.enrolled).min())
    }

    /// A device, if this person has it.
    pub fn device(&self, device: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == *device)
    }

    /// The key of a device, if this person has it.
    pub fn key_of(&self, device: &DeviceId) -> Option<&DevicePublic> {
        self.device(device).map(|d| &d.public_key)
    }

    /// What the library keeps of the passkeys.
    pub fn registered(&self) -> Vec<Registered> {
        self.passkeys.iter().map(|p| p.registered.clone()).collect()
    }

    /// A passkey by its credential's id, if this person has it.
    pub fn passkey(&self, credential: &str) -> Option<&PersonPasskey> {
        self.passkeys.iter().find(|p| p.registered.id == credential)
    }
}

/// A row together with the version that a replacement must name.
#[derive(Debug)]
pub struct Versioned<T> {
    /// The store's version.
    pub version: u64,
    /// The value.
    pub value: T,
}

/// People's rows that were authenticated before. Every decision reads every person's row, so that
/// somebody removed meanwhile counts no more (attack 29); but the same bytes in the same place under
/// the same key are not checked and decoded again.
#[derive(Default)]
pub struct Roster(Mutex<HashMap<Vec<u8>, Known>>);

struct Known {
    /// Which unsealing the key is of.
    era: u64,
    stored: Vec<u8>,
    hash: Digest,
    person: Arc<Person>,
}

/// A person, and the hash of the row.
type Read = (Arc<Person>, Digest);

impl Roster {
    fn known(&self, era: u64, key: &[u8], stored: &[u8]) -> Option<Read> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rows.get(key)?;
        let same = known.era == era && known.stored == stored;
        same.then(|| (Arc::clone(&known.person), known.hash.clone()))
    }

    fn learn(&self, era: u64, key: Vec<u8>, stored: Vec<u8>, (person, hash): &Read) {
        let (person, hash) = (Arc::clone(person), hash.clone());
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // People come and go; what is forgotten is checked again.
        if rows.len() >= PEOPLE_MAX && !rows.contains_key(&key) {
            rows.clear();
        }
        rows.insert(
            key,
            Known {
                era,
                stored,
                hash,
                person,
            },
        );
    }
}

impl Desk {
    /// A person, authenticated.
    pub fn person(&self, id: &PersonId) -> Result<Option<Versioned<Arc<Person>>>, Fault> {
        let key = id.as_str().as_bytes();
        if self.vault.is_sealed() {
            let row = self.live.get(PEOPLE, key)?;
            return row.map_or(Ok(None), |_| Err(Fault::Sealed));
        }
        self.as_listed((PEOPLE, key), |listed| {
            let Some(row) = self.live.get(PEOPLE, key)? else {
                return Ok(listed.has(PEOPLE, key, None).then_some(None));
            };
            let version = row.version;
            let person = self.person_in(listed, key.to_vec(), row)?;
            Ok(person.map(|value| Some(Versioned { version, value })))
        })
    }

    /// The person in a row; none where another row must stand there.
    fn person_in(
        &self,
        listed: &Listed,
        key: Vec<u8>,
        row: Row,
    ) -> Result<Option<Arc<Person>>, Fault> {
        let era = self.vault.era()?;
        let is_listed = |hash: &Digest| listed.has_hash(PEOPLE, &key, hash);
        if let Some((person, hash)) = self.roster.known(era, &key, &row.value) {
            return Ok(is_listed(&hash).then_some(person));
        }
        let person = Arc::new(self.check_row::<Person>(PEOPLE, &key, &row)?);
        let read = (person, inventory::hash(&row.value));
        let known = is_listed(&read.1);
        self.roster.learn(era, key, row.value, &read);
        Ok(known.then_some(read.0))
    }

    /// The person who has this device, authenticated.
    pub fn person_of_device(
        &self,
        device: &DeviceId,
    ) -> Result<Option<Versioned<Arc<Person>>>, Fault> {
        let Some(row) = self.live.get(DEVICES, device.as_str().as_bytes())? else {
            return Ok(None);
        };
        let Some(id) = String::from_utf8(row.value)
            .ok()
            .and_then(|s| s.parse::<PersonId>().ok())
        else {
            return Ok(None);
        };
        Ok(self
            .person(&id)?
            .filter(|p| p.value.key_of(device).is_some()))
    }

    /// The person who seems to have this device, while the vault is sealed and rows cannot be
    /// authenticated. Good only for acts that make things stricter, and for the unseal, which needs
    /// the passphrase and checks the person afterwards.
    pub fn person_unauthenticated(&self, device: &DeviceId) -> Result<Option<Person>, Fault> {
        let Some(row) = self.live.get(DEVICES, device.as_str().as_bytes())? else {
            return Ok(None);
        };
        let Some(row) = self.live.get(PEOPLE, &row.value)? else {
            return Ok(None);
        };
        let person: Option<Person> =
            rows::unauthenticated(&row.value).and_then(|json| serde_json::from_slice(json).ok());
        Ok(person.filter(|p| p.key_of(device).is_some()))
    }

    /// Everybody, in name order.
    pub fn people(&self) -> Result<Vec<Arc<Person>>, Fault> {
        self.as_listed((PEOPLE, b""), |listed| {
            let there = listed.count(PEOPLE);
            let rows = self
                .live
                .range(PEOPLE, b"", None, there.saturating_add(1))?;
            if rows.len() != there {
                return Ok(None);
            }
            let person = |(key, row)| self.person_in(listed, key, row);
            rows.into_iter().map(person).collect()
        })
    }

    /// Everybody whose row can be believed: for telling people, where one damaged row must not keep the others from it.
    pub fn people_believed(&self) -> Result<Vec<Arc<Person>>, Fault> {
        match self.people() {
            Err(Fault::Damaged(_)) => {}
            people => return people,
        }
        let listed = self.inventory()?;
        let rows = self.live.range(PEOPLE, b"", None, PEOPLE_MAX)?;
        let person = |(key, row)| match self.person_in(&listed, key, row) {
            Ok(None) | Err(Fault::Damaged(_)) => {
                tracing::error!("ALARM: a person's row cannot be believed");
                None
            }
            Ok(Some(person)) => Some(Ok(person)),
            Err(fault) => Some(Err(fault)),
        };
        rows.into_iter().filter_map(person).collect()
    }

    /// The bytes to store for an authenticated row.
    pub fn authentic(
        &self,
        table: Table,
        key: &[u8],
        value: &impl Serialize,
    ) -> Result<Vec<u8>, Fault> {
        let json = serde_json::to_vec(value).map_err(|_| Fault::Damaged("a row"))?;
        Ok(rows::authentic(&self.vault, table, key, &json)?)
    }

    /// An authenticated row.
    pub fn authentic_row<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Versioned<T>>, Fault> {
        let row = if inventory::is_listed(table) {
            self.known.row(table, key)?
        } else {
            self.live.get(table, key)?
        };
        let checked = |row: Row| {
            let value = self.check_row(table, key, &row)?;
            let version = row.version;
            Ok(Versioned { version, value })
        };
        row.map(checked).transpose()
    }

    /// What stands in a row that this broker wrote there.
    pub(super) fn check_row<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
        row: &Row,
    ) -> Result<T, Fault> {
        let json = rows::check_authentic(&self.vault, table, key, &row.value)?;
        serde_json::from_slice(json).map_err(|_| Fault::Damaged("a row"))
    }

    /// Seals a TOTP secret for a person.
    pub fn seal_totp(&self, person: &PersonId, secret: &Secret<Vec<u8>>) -> Result<Vec<u8>, Fault> {
        Ok(self
            .vault
            .seal_row(&totp_binding(person), secret.expose())?)
    }

    /// Opens a person's TOTP secret.
    pub fn open_totp(&self, person: &PersonId, sealed: &[u8]) -> Result<Secret<Vec<u8>>, Fault> {
        Ok(self.vault.open_row(&totp_binding(person), sealed)?)
    }

    /// A person's TOTP budget and last step. An enrolled person without one was not written by this
    /// broker: a deleted row must not be a fresh budget and no used steps (attacks 21, 22, 44).
    pub fn totp_state(&self, person: &PersonId) -> Result<Versioned<TotpState>, Fault> {
        self.authentic_row(TOTP, person.as_str().as_bytes())?
            .ok_or(Fault::Damaged("a TOTP state"))
    }

    /// Adds the write of a person's TOTP state: a new row, or in place of the version that was read.
    pub fn store_totp(
        &self,
        batch: Batch,
        person: &PersonId,
        version: Option<u64>,
        state: &TotpState,
    ) -> Result<Batch, Fault> {
        let key = person.as_str().as_bytes();
        let row = self.authentic(TOTP, key, state)?;
        Ok(batch.put(TOTP, key, version, row))
    }

    /// MAC of an accepted TOTP step: what stays as evidence.
    pub fn totp_mac(&self, bytes: &[u8]) -> Result<[u8; 32], Fault> {
        Ok(self.vault.mac(Domain::Totp, bytes)?)
    }
}

/// Adds the operations that store a person with the device index beside it.
pub fn index_devices(mut batch: Batch, person: &Person) -> Batch {
    for device in &person.devices {
        batch = batch.create(
            DEVICES,
            device.id.as_str().as_bytes(),
            person.id.as_str().as_bytes(),
        );
    }
    batch
}

/// Most people of one broker.
pub const PEOPLE_MAX: usize = 1000;

/// The plain bytes of a person's row whose secret is sealed with the current key; none where it is already.
pub(crate) fn sealed_anew(vault: &Vault, plain: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let damaged = Fault::Damaged("a person's row");
    let Ok(mut person) = serde_json::from_slice::<Person>(plain) else {
        return Err(damaged);
    };
    if person.totp.is_empty() || vault.seal_is_new(&person.totp)? {
        return Ok(None);
    }
    let secret = vault.open_row(&totp_binding(&person.id), &person.totp)?;
    person.totp = vault.seal_row(&totp_binding(&person.id), secret.expose())?;
    serde_json::to_vec(&person).map(Some).map_err(|_| damaged)
}

pub(crate) fn totp_binding(person: &PersonId) -> Binding<'_> {
    Binding {
        table: "person",
        record: person.as_str().as_bytes(),
        purpose: "totp secret",
        registry: None,
        scope: None,
        version: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_44_what_was_authenticated_says_nothing_of_other_bytes_places_or_keys() {
        let roster = Roster::default();
        let person = Arc::new(Person {
            id: "alice".parse().unwrap(),
            groups: Vec::new(),
            admin: true,
            actors: Vec::new(),
            enrolled: None,
            devices: Vec::new(),
            passkeys: Vec::new(),
            totp: Vec::new(),
        });
        let read = (person, inventory::hash(b"row"));
        roster.learn(1, b"alice".to_vec(), b"row".to_vec(), &read);
        let known = |era, key: &[u8], stored: &[u8]| roster.known(era, key, stored).is_some();
        assert!(known(1, b"alice", b"row"));
        assert!(!known(1, b"alice", b"roW"));
        assert!(!known(1, b"alice", b"ro"));
        assert!(!known(1, b"bob", b"row"));
        assert!(!known(2, b"alice", b"row"));
    }

    #[test]
    fn the_roster_is_bounded() {
        let roster = Roster::default();
        let json = br#"{"id":"a","groups":[],"admin":false,"actors":[],"devices":[],"totp":[]}"#;
        let person: Person = serde_json::from_slice(json).unwrap();
        let read = (Arc::new(person), inventory::hash(json));
        for n in 0..2 * PEOPLE_MAX {
            roster.learn(1, n.to_be_bytes().to_vec(), Vec::new(), &read);
        }
        assert!(roster.0.lock().unwrap().len() <= PEOPLE_MAX);
    }
}
