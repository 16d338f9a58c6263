//! Witnesses of the log: who they are, what they are shown, and how they did since the start.

use super::{Desk, Fault};
use proto::{log::cosignature::WitnessKey, time::UnixTime};
use reqwest::Client;
use std::sync::{Mutex, PoisonError};
use url::Url;

/// Milliseconds between two checkpoints for witnesses, at least: a busy log is cosigned every few seconds, not at every
/// entry.
const PAUSE_MS: u64 = 5_000;

/// One witness of the configuration.
pub struct Witness {
    /// Its key.
    pub key: WitnessKey,
    /// Where checkpoints go.
    pub place: Url,
    /// Connects there alone.
    pub client: Client,
    health: Mutex<Health>,
}

/// How a witness did since the start.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Tries in vain, in a row.
    pub in_vain: u32,
    /// Since when there is no cosignature, and why.
    pub failing: Option<(UnixTime, String)>,
    /// Entries that it has seen, by its own word.
    pub seen: Option<u64>,
    /// When it cosigned last, by the monotonic clock in milliseconds.
    pub cosigned_ms: Option<u64>,
}

impl Witness {
    /// From parts.
    pub fn new(key: WitnessKey, place: Url, client: Client) -> Self {
        Self {
            key,
            place,
            client,
            health: Mutex::default(),
        }
    }

    /// How it did.
    pub fn health(&self) -> Health {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone()
    }

    /// It cosigned so many entries.
    pub fn well(&self, entries: u64, now_ms: u64) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health {
            seen: Some(entries),
            cosigned_ms: Some(now_ms),
            ..Health::default()
        };
    }

    /// It did not cosign; returns how often in a row.
    pub fn failed(&self, why: &str, seen: Option<u64>, now: UnixTime) -> u32 {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let since = health.failing.take().map_or(now, |(since, _)| since);
        health.failing = Some((since, why.to_owned()));
        health.seen = seen.or(health.seen);
        health.in_vain = health.in_vain.saturating_add(1);
        health.in_vain
    }
}

/// All of them, and what they are shown.
#[derive(Default)]
pub struct Witnesses {
    /// In the order of the configuration.
    pub all: Vec<Witness>,
    shown: tokio::sync::Mutex<Option<Shown>>,
}

/// A checkpoint that all of them are shown: if each got another one, none would have two cosignatures.
struct Shown {
    at_ms: u64,
    size: u64,
    note: String,
}

impl Witnesses {
    /// These.
    pub fn new(all: Vec<Witness>) -> Self {
        Self {
            all,
            shown: tokio::sync::Mutex::default(),
        }
    }
}

impl Desk {
    /// The checkpoint that witnesses are shown now, with its size.
    pub async fn for_witnesses(&self) -> Result<(u64, String), Fault> {
        let mut held = self.witnesses.shown.lock().await;
        let now = self.world.monotonic_ms();
        if let Some(shown) = &*held {
            let early = now.saturating_sub(shown.at_ms) < PAUSE_MS;
            if early || shown.size == self.tree.size() {
                return Ok((shown.size, shown.note.clone()));
            }
        }
        let (size, note) = self.checkpoint().await?;
        *held = Some(Shown {
            at_ms: now,
            size,
            note: note.clone(),
        });
        Ok((size, note))
    }
}
