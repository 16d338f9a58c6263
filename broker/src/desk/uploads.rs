//! How many uploads arrive at once: neither one credential nor one account may fill the disk.

use crate::caller::Caller;
use proto::{ids::RequestId, request::CallerFacts};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Uploads of one slot at once: a batch publishes several packages side by side.
const PER_SLOT: u32 = 16;

/// What uploads are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// An approved request has places of its own.
    Request(RequestId),
    /// What nobody has approved yet: all of one CI account of a project together, however many requests it
    /// opens. Its colleagues have their own places (attack 54).
    Account(String, String, Option<String>),
}

impl Slot {
    /// Of whoever asked.
    pub fn account(facts: &CallerFacts, actor: Option<&str>) -> Self {
        Self::Account(
            facts.issuer.clone(),
            facts.subject.clone(),
            actor.map(str::to_owned),
        )
    }

    /// Of a caller.
    pub fn of(caller: &Caller) -> Self {
        Self::account(caller.facts(), caller.actor())
    }
}

/// Counts uploads on their way.
#[derive(Default, Clone)]
pub struct Uploads(Arc<Mutex<HashMap<Slot, u32>>>);

/// A place taken; given back when dropped.
pub struct Place {
    uploads: Uploads,
    slot: Slot,
}

impl Uploads {
    /// Takes a place, if there is one.
    pub fn enter(&self, slot: Slot) -> Option<Place> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(slot.clone()).or_default();
        if *count >= PER_SLOT {
            return None;
        }
        *count += 1;
        Some(Place {
            uploads: self.clone(),
            slot,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut map = self
            .uploads
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.slot);
            }
        }
    }
}
