//! Guests: callers who exchanged their id token at a registry origin, as npm, pnpm, Yarn, uv and pdm do by
//! themselves. What a guest holds lets him ask, and hand over bytes that were approved; nothing else.
//!
//! They live in memory alone. After a restart of the broker a client is told to run again, which
//! gets it a new token.

use super::uploads::Slot;
use crate::caller::{Burn, Caller};
use proto::{
    bearer::BearerHash,
    ids::{PackageName, RegistryId, RequestId},
    time::UnixTime,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Seconds that a guest may upload.
pub const GUEST_SECONDS: u64 = 15 * 60;
/// Guests of one project at once. A run that publishes many packages is one for each.
const PER_SUBJECT: usize = 200;
/// Guests of one CI account at once: whoever stole it leaves places to its project's other people, as
/// among the open requests.
const PER_ACCOUNT: usize = 160;
/// Guests beyond all these limits, of packages whose release somebody announced.
const ANNOUNCED: usize = 20;
/// Guests at once.
const ALL: usize = 10_000;

/// One guest.
pub struct Guest {
    /// Who: verified at the exchange.
    pub caller: Caller,
    /// The origin where he is.
    pub registry: RegistryId,
    /// The package that he named, where the exchange names one.
    pub package: Option<PackageName>,
    /// Where his uploads are counted.
    pub slot: Slot,
    /// Until when.
    pub until: UnixTime,
    /// The use of his id token, remembered until nobody can be its guest any more.
    pub burn: Burn,
    /// The request that became of it.
    pub request: OnceLock<RequestId>,
    /// Set when he said that he is done.
    pub over: AtomicBool,
}

/// Whether one was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// He is in, perhaps since before.
    Yes,
    /// Too many are in already, and none of them is put out for him.
    Full,
    /// He has said that he is done.
    Over,
}

/// The guests, by the hash of what they hold.
#[derive(Default)]
pub struct Guests(Mutex<HashMap<[u8; 32], Arc<Guest>>>);

impl Guests {
    /// Lets one in; the same token again is the same guest. Whose release was announced finds a place though a
    /// thief of his project has taken all others (attack 54).
    #[must_use]
    pub fn enter(
        &self,
        token: BearerHash,
        guest: Guest,
        announced: bool,
        now: UnixTime,
    ) -> Entered {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, g| now < g.until);
        if let Some(known) = map.get(&token.0) {
            return if known.over.load(Ordering::Acquire) {
                Entered::Over
            } else {
                Entered::Yes
            };
        }
        let facts = guest.caller.facts();
        let same = |g: &&Arc<Guest>| {
            let other = g.caller.facts();
            other.issuer == facts.issuer && other.subject == facts.subject
        };
        let own = |g: &&Arc<Guest>| same(g) && g.caller.actor() == guest.caller.actor();
        let all_own = match guest.caller.actor() {
            Some(_) => map.values().filter(own).count(),
            // This issuer does not say whose jobs they are.
            None => 0,
        };
        let more = if announced { ANNOUNCED } else { 0 };
        if map.len() >= ALL + more
            || map.values().filter(same).count() >= PER_SUBJECT + more
            || all_own >= PER_ACCOUNT + more
        {
            return Entered::Full;
        }
        map.insert(token.0, Arc::new(guest));
        Entered::Yes
    }

    /// The guest with this token.
    pub fn find(&self, token: BearerHash, now: UnixTime) -> Option<Arc<Guest>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = |g: &&Arc<Guest>| now < g.until && !g.over.load(Ordering::Acquire);
        map.get(&token.0).filter(inside).cloned()
    }

    /// Ends all of them, and says how many were in.
    pub fn end_all(&self, now: UnixTime) -> usize {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = map.values().filter(|g| now < g.until);
        inside
            .filter(|g| !g.over.swap(true, Ordering::AcqRel))
            .count()
    }

    /// Ends one. He stays known until his time is over, so that his id token does not let him in again.
    pub fn end(&self, token: BearerHash) {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guest) = map.get(&token.0) {
            guest.over.store(true, Ordering::Release);
        }
    }
}
