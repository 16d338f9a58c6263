//! Shares that admins handed in to open the vault: in memory alone, wiped after a quarter of an hour, when enough
//! are there, and whenever the vault is opened. A machine that is stolen switched off has none of them (attack 44).

use crate::secret::Secret;
use proto::ids::{DeviceId, PersonId};
use std::{
    mem::take,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a share is kept.
pub const KEPT: Duration = Duration::from_mins(15);

/// The shares that are there.
#[derive(Default)]
pub struct Offered(Mutex<Hand>);

#[derive(Default)]
struct Hand {
    deal: String,
    given: Vec<(u64, Given)>,
}

/// A share, and whose device handed it in.
pub struct Given {
    /// Whose share.
    pub person: PersonId,
    /// By which device; not authenticated while the vault is sealed.
    pub device: DeviceId,
    /// The share, known to be genuine.
    pub share: Secret<Vec<u8>>,
}

impl Offered {
    /// Takes a genuine share of a deal in; an earlier one of the same person goes, and those of another deal.
    /// Gives all of them out, and forgets them, as soon as `needed` people have handed in.
    pub fn take(&self, deal: &str, needed: usize, given: Given, now_ms: u64) -> Option<Vec<Given>> {
        let mut hand = self.hand();
        if hand.deal != deal {
            *hand = Hand {
                deal: deal.to_owned(),
                given: Vec::new(),
            };
        }
        let until = now_ms.saturating_add(u64::try_from(KEPT.as_millis()).unwrap_or(0));
        hand.given
            .retain(|(end, g)| now_ms < *end && g.person != given.person);
        hand.given.push((until, given));
        if hand.given.len() < needed {
            return None;
        }
        let all = take(&mut hand.given);
        Some(all.into_iter().map(|(_, given)| given).collect())
    }

    /// Who has handed in a share of a deal.
    pub fn people(&self, deal: &str, now_ms: u64) -> Vec<PersonId> {
        let hand = self.hand();
        let live = (hand.given.iter()).filter(|(end, _)| hand.deal == deal && now_ms < *end);
        live.map(|(_, given)| given.person.clone()).collect()
    }

    /// Wipes what is too old.
    pub fn forget_old(&self, now_ms: u64) {
        self.hand().given.retain(|(end, _)| now_ms < *end);
    }

    /// Wipes all of them.
    pub fn forget(&self) {
        *self.hand() = Hand::default();
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::device::DeviceKey;

    const MINUTE: u64 = 60_000;

    fn given(person: &str) -> Given {
        Given {
            person: person.parse().unwrap(),
            device: DeviceKey::from_seed([7; 32]).unwrap().public().id(),
            share: Secret::new(person.as_bytes().to_vec()),
        }
    }

    fn names(all: &[Given]) -> Vec<&str> {
        all.iter().map(|g| g.person.as_str()).collect()
    }

    #[test]
    fn attack_50_one_admin_is_one_however_often_he_hands_in() {
        let offered = Offered::default();
        for at in 0..5 {
            assert!(offered.take("a", 2, given("alice"), at).is_none());
        }
        assert_eq!(offered.people("a", 9).len(), 1);
        let all = offered.take("a", 2, given("bob"), 9).unwrap();
        assert_eq!(names(&all), ["alice", "bob"]);
        // Given out once, and forgotten.
        assert!(offered.people("a", 9).is_empty());
        assert!(offered.take("a", 2, given("bob"), 9).is_none());
    }

    #[test]
    fn attack_44_a_share_is_forgotten_after_a_quarter_of_an_hour_and_with_its_deal() {
        let offered = Offered::default();
        assert!(offered.take("a", 2, given("alice"), 0).is_none());
        assert_eq!(offered.people("a", 15 * MINUTE - 1).len(), 1);
        assert!(offered.people("a", 15 * MINUTE).is_empty());
        // Too late, even where nobody swept.
        assert!(offered.take("a", 2, given("bob"), 15 * MINUTE).is_none());
        offered.forget_old(30 * MINUTE);
        assert!(offered.hand().given.is_empty());
        // Shares of two deals make no pair.
        assert!(offered.take("a", 2, given("alice"), 0).is_none());
        assert!(offered.take("b", 2, given("bob"), 0).is_none());
        assert!(offered.people("a", 0).is_empty());
        offered.forget();
        assert!(offered.people("b", 0).is_empty());
    }
}
