//! Files that are being looked into.

use super::uploads::Slot;
use crate::card::{
    Inspection,
    run::{Inspector, NotInspected},
    source::Listing,
};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// One look a file at a time.
#[derive(Default)]
pub struct Inspections {
    /// Starts the process that looks: for whoever has a place.
    inspector: Inspector,
    busy: Mutex<BTreeSet<Vec<u8>>>,
    turns: Mutex<HashMap<Slot, Weak<Semaphore>>>,
}

impl Inspections {
    /// Looks into files with another program.
    pub fn with(inspector: Inspector) -> Self {
        Self {
            inspector,
            ..Self::default()
        }
    }

    /// Waits for the turn of an account: one file of each at a time, so that nobody's flood of slow archives keeps
    /// others from their cards (attack 54). The places behind it are given in the order in which they are asked for.
    pub async fn turn(&self, slot: Slot) -> Option<Turn> {
        let turns = {
            let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turns| turns.strong_count() > 0);
            let known = all.get(&slot).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turns = Arc::new(Semaphore::new(1));
                all.insert(slot, Arc::downgrade(&turns));
                turns
            })
        };
        turns.acquire_owned().await.ok().map(Turn)
    }

    /// Waits for a place among the few that are looked into. Only whoever has the turn of its account gets one.
    pub async fn place(&self, turn: Turn) -> Result<Place<'_>, NotInspected> {
        Ok(Place {
            _permit: self.inspector.place().await?,
            inspector: &self.inspector,
            _turn: turn,
        })
    }

    /// Whether the caller may look into this file; it is busy as long as what is returned lives.
    #[must_use]
    pub fn begin(self: &Arc<Self>, key: &[u8]) -> Option<Busy> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let new = busy.insert(key.to_vec());
        new.then(|| Busy {
            all: Arc::clone(self),
            key: key.to_vec(),
        })
    }
}

/// The turn of an account; it is over when this is dropped.
pub struct Turn(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// A place among what is looked into, with the turn that it was given for.
pub struct Place<'i> {
    inspector: &'i Inspector,
    _permit: SemaphorePermit<'i>,
    _turn: Turn,
}

impl Place<'_> {
    /// Looks into a packed job.
    pub async fn inspect(self, packed: File) -> Result<Inspection, NotInspected> {
        self.inspector.inspect(packed).await
    }

    /// Lists the files of a packed source.
    pub async fn list(self, packed: File) -> Result<Listing, NotInspected> {
        self.inspector.list(packed).await
    }
}

/// A file that is being looked into.
pub struct Busy {
    all: Arc<Inspections>,
    key: Vec<u8>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let busy = &self.all.busy;
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::RequestId;

    #[tokio::test]
    async fn attack_54_one_account_has_one_turn_and_others_have_theirs() {
        let all = Inspections::default();
        let slot = |n| Slot::Request(RequestId(uuid::Uuid::from_u128(n)));
        let first = all.turn(slot(1)).await.unwrap();
        let second = all.turn(slot(1));
        let mut second = std::pin::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("two turns at once"),
            other = all.turn(slot(2)) => assert!(other.is_some()),
        }
        // It goes on as long as something is looked into.
        let place = all.place(first).await.unwrap();
        tokio::select! {
            biased;
            _ = &mut second => panic!("two turns at once"),
            () = std::future::ready(()) => {}
        }
        drop(place);
        assert!(second.await.is_some());
        let _third = all.turn(slot(3)).await.unwrap();
        let known = all.turns.lock().unwrap().len();
        assert_eq!(known, 1, "what is over is forgotten");
    }
}
