//! People's channels: where they lie, and what they are rung with.
//!
//! If an attacker writes here: a channel is sealed to its person and its place, so he can remove one, and not
//! add his own or move another's. He can make quiet what should ring; what waits stands in the inbox all the same.

use super::{Desk, Fault, people::Versioned};
use crate::{
    notify::{Channel, Vapid, egress::Egress, quiet::QuietHours},
    store::{Batch, CommitError, Table},
    vault::Binding,
};
use aws_lc_rs::digest;
use proto::{
    digest::hex,
    ids::{PersonId, RequestId},
    notify::{ChannelFailure, ChannelKind},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Person NUL id: a channel, sealed.
pub const CHANNELS: Table = Table("channel");
/// The same key: how it did, for people.
pub const HEALTH: Table = Table("channel-health");
/// Person: when they tested their channels last, in seconds (big-endian).
pub const TESTED: Table = Table("channel-test");
/// Person: when they added a channel last, in seconds (big-endian). Two at once are one after the other by it.
pub const ADDED: Table = Table("channel-added");
/// Person: quiet hours.
pub const QUIET: Table = Table("quiet-hours");
/// Keys of the broker's own.
const KEYS: Table = Table("key");
/// The key for push services among them.
const VAPID: &[u8] = b"push";

/// Until a request that still waits is looked at again, in seconds.
const AGAIN: u64 = 5;

/// Most channels of one person.
pub const CHANNELS_MAX: usize = 10;

/// What is rung with.
pub struct Bells {
    /// The way out.
    pub egress: Egress,
    /// Whom a push service's operator writes to.
    pub contact: String,
    /// Somebody may have to be rung.
    asked: Notify,
    /// Something is to be delivered.
    queued: Notify,
    /// When each waiting request was looked at last. After a start, all are looked at.
    looked: Mutex<BTreeMap<RequestId, UnixTime>>,
    /// When the broker was unsealed last.
    open_since: Mutex<UnixTime>,
}

impl Bells {
    /// With this way out.
    pub fn new(egress: Egress, contact: String) -> Self {
        Self {
            egress,
            contact,
            asked: Notify::new(),
            queued: Notify::new(),
            looked: Mutex::default(),
            open_since: Mutex::default(),
        }
    }

    /// The broker is unsealed: from now on people can answer.
    pub fn opened(&self, now: UnixTime) {
        *self
            .open_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Since when people can answer.
    pub fn open_since(&self) -> UnixTime {
        *self
            .open_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look again who is to be rung for a waiting request.
    pub fn is_due(&self, id: RequestId, now: UnixTime) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: &UnixTime| *at <= now && now.since(*at) < AGAIN;
        !looked.get(&id).is_some_and(fresh)
    }

    /// These were looked at, and of them those wait no more.
    pub fn looked(&self, these: &[RequestId], over: &[RequestId], now: UnixTime) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.extend(these.iter().map(|id| (*id, now)));
        for id in over {
            looked.remove(id);
        }
    }

    /// Somebody may have to be rung: it is looked at now, and not in a second.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Until somebody may have to be rung.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Something is to be delivered.
    pub fn queue(&self) {
        self.queued.notify_one();
    }

    /// Until something is to be delivered.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }
}

/// How a channel did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// When its server last took a notification.
    pub delivered: Option<UnixTime>,
    /// The last failure since.
    pub failed: Option<ChannelFailure>,
}

/// A channel's id: the same address again is the same channel.
pub fn channel_id(kind: ChannelKind, url: &str) -> String {
    let text = format!("{} {url}", kind.text());
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hex(hash.as_ref().get(..16).unwrap_or_default())
}

/// The key of a channel's rows. No name holds a NUL.
pub fn channel_key(person: &PersonId, id: &str) -> Vec<u8> {
    let mut key = of_person(person);
    key.extend_from_slice(id.as_bytes());
    key
}

fn of_person(person: &PersonId) -> Vec<u8> {
    let mut key = person.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

pub(crate) fn binding(key: &[u8]) -> Binding<'_> {
    Binding {
        table: "channel",
        record: key,
        purpose: "notification channel",
        registry: None,
        scope: None,
        version: 0,
    }
}

pub(crate) const fn vapid_binding() -> Binding<'static> {
    Binding {
        table: "key",
        record: VAPID,
        purpose: "push services' key",
        registry: None,
        scope: None,
        version: 0,
    }
}

impl Desk {
    /// The ids of a person's channels.
    pub fn channel_ids(&self, person: &PersonId) -> Result<Vec<String>, Fault> {
        let prefix = of_person(person);
        let rows = self.live.range(CHANNELS, &prefix, None, CHANNELS_MAX)?;
        let id = |key: &[u8]| String::from_utf8(key.get(prefix.len()..)?.to_vec()).ok();
        Ok(rows.iter().filter_map(|(key, _)| id(key)).collect())
    }

    /// A channel, opened.
    pub fn channel(
        &self,
        person: &PersonId,
        id: &str,
    ) -> Result<Option<Versioned<Channel>>, Fault> {
        let key = channel_key(person, id);
        let Some(row) = self.live.get(CHANNELS, &key)? else {
            return Ok(None);
        };
        Ok(Some(Versioned {
            version: row.version,
            value: self.open_channel(person, id, &row.value)?,
        }))
    }

    /// A channel from the bytes that were stored for it.
    pub fn open_channel(
        &self,
        person: &PersonId,
        id: &str,
        sealed: &[u8],
    ) -> Result<Channel, Fault> {
        let plain = self
            .vault
            .open_row(&binding(&channel_key(person, id)), sealed)?;
        serde_json::from_slice(plain.expose()).map_err(|_| Fault::Damaged("a channel"))
    }

    /// The bytes to store for a channel.
    pub fn seal_channel(&self, key: &[u8], channel: &Channel) -> Result<Vec<u8>, Fault> {
        let plain = serde_json::to_vec(channel).map_err(|_| Fault::Damaged("a channel"))?;
        let plain = crate::secret::Secret::new(plain);
        Ok(self.vault.seal_row(&binding(key), plain.expose())?)
    }

    /// How a channel did.
    pub fn health(&self, key: &[u8]) -> Result<(Option<u64>, Health), Fault> {
        Ok(match self.live.get(HEALTH, key)? {
            None => (None, Health::default()),
            Some(row) => {
                let health = serde_json::from_slice(&row.value).unwrap_or_default();
                (Some(row.version), health)
            }
        })
    }

    /// A person's quiet hours, as they were written.
    pub fn quiet(&self, person: &PersonId) -> Result<Option<String>, Fault> {
        let row = self.live.get(QUIET, person.as_str().as_bytes())?;
        Ok(row.and_then(|r| String::from_utf8(r.value).ok()))
    }

    /// Whether it is quiet for this person now.
    pub fn is_quiet(&self, person: &PersonId, now: UnixTime) -> Result<bool, Fault> {
        let hours = self.quiet(person)?;
        let hours = hours.as_deref().and_then(QuietHours::parse);
        Ok(hours.is_some_and(|h| h.cover(now)))
    }

    /// Adds the deletion of one channel.
    pub fn forget_channel(&self, mut batch: Batch, key: &[u8]) -> Result<Batch, Fault> {
        for table in [CHANNELS, HEALTH] {
            if let Some(row) = self.live.get(table, key)? {
                batch = batch.delete(table, key, row.version);
            }
        }
        Ok(batch)
    }

    /// Adds the deletion of all that a person's notifications consist of.
    pub fn forget_bells(&self, mut batch: Batch, person: &PersonId) -> Result<Batch, Fault> {
        for id in self.channel_ids(person)? {
            batch = self.forget_channel(batch, &channel_key(person, &id))?;
        }
        let key = person.as_str().as_bytes();
        for table in [QUIET, TESTED, ADDED] {
            if let Some(row) = self.live.get(table, key)? {
                batch = batch.delete(table, key, row.version);
            }
        }
        Ok(batch)
    }

    /// The broker's identity at push services: made once, when it is first wanted, and sealed.
    pub async fn vapid(&self) -> Result<Vapid, Fault> {
        let binding = vapid_binding();
        let damaged = || Fault::Damaged("the key for push services");
        if self.live.get(KEYS, VAPID)?.is_none() {
            let fresh = Vapid::make().map_err(|_| damaged())?;
            let sealed = self.vault.seal_row(&binding, fresh.expose())?;
            let made = Batch::new().create(KEYS, VAPID, sealed);
            match self.live.commit(made).await {
                // Whoever was faster made the one that counts.
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let row = self.live.get(KEYS, VAPID)?.ok_or_else(damaged)?;
        let plain = self.vault.open_row(&binding, &row.value)?;
        Vapid::read(plain).map_err(|_| damaged())
    }
}
