//! Signed calls that were taken, so that none is taken twice.
//!
//! A call names the nonce that the broker handed out (RFC 9449 §8). Each nonce keeps its own record of
//! calls, and a call is taken only while its nonce's record is kept: so nothing is taken twice,
//! however the wall clock moves, and what was recorded before a restart is worth nothing after it.
//!
//! Nobody can use up the others' room: a device that has made few calls is always served (attack 53).

use crate::{
    desk::Fault,
    world::{NoEntropy, World},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::ids::DeviceId;
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// Milliseconds that a nonce is handed out; it is taken for as long again.
const TURN: u64 = 60_000;
/// Calls of one device under one nonce: 833 a second.
const DEVICE_MAX: usize = 50_000;
/// Calls of all devices under one nonce; a remembered call takes some 24 bytes.
const ALL_MAX: usize = 400_000;
/// What a device may always make, however busy the others are: a page of the inbox, a question and an
/// answer are three calls.
const RESERVED: usize = 500;
/// Longest id of a call, in bytes.
const ID_MAX: usize = 64;

/// The limits; tests have smaller ones.
#[derive(Clone, Copy)]
struct Limits {
    device: usize,
    all: usize,
    reserved: usize,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the first with this id.
    First,
    /// It was made before, or has no proper id.
    Again,
    /// This device makes too many.
    TooMany,
    /// It names no nonce that is taken; this one is.
    Stale(String),
}

/// The record.
pub struct Seen {
    turns: Mutex<Turns>,
    limits: Limits,
}

struct Turns {
    since: u64,
    current: Turn,
    before: Option<Turn>,
}

struct Turn {
    nonce: String,
    /// By device, the head of each id's SHA-256.
    calls: HashMap<DeviceId, HashSet<[u8; 16]>>,
    count: usize,
}

impl Seen {
    /// With a fresh nonce.
    pub fn new(world: &World) -> Result<Self, Fault> {
        Self::with(
            world,
            Limits {
                device: DEVICE_MAX,
                all: ALL_MAX,
                reserved: RESERVED,
            },
        )
    }

    fn with(world: &World, limits: Limits) -> Result<Self, Fault> {
        let turns = Turns {
            since: world.monotonic_ms(),
            current: Turn::new(world)?,
            before: None,
        };
        Ok(Self {
            turns: Mutex::new(turns),
            limits,
        })
    }

    /// The nonce that is handed out now.
    pub fn nonce(&self, world: &World) -> Result<String, Fault> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.turn(world)?;
        Ok(turns.current.nonce.clone())
    }

    /// Takes a call whose signature holds.
    pub fn take(
        &self,
        world: &World,
        device: &DeviceId,
        nonce: &str,
        id: &str,
    ) -> Result<Taken, Fault> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.turn(world)?;
        let Turns {
            current, before, ..
        } = &mut *turns;
        let turn = if current.nonce == nonce {
            current
        } else {
            match before {
                Some(turn) if turn.nonce == nonce => turn,
                _ => return Ok(Taken::Stale(current.nonce.clone())),
            }
        };
        Ok(turn.take(device, id, self.limits))
    }
}

impl Turns {
    /// Starts the next turn when this one is over. Its calls stay known as long as its nonce is taken.
    fn turn(&mut self, world: &World) -> Result<(), NoEntropy> {
        let now = world.monotonic_ms();
        let passed = now.saturating_sub(self.since);
        if passed >= TURN {
            let old = std::mem::replace(&mut self.current, Turn::new(world)?);
            self.before = (passed < 2 * TURN).then_some(old);
            self.since = now;
        }
        Ok(())
    }
}

impl Turn {
    fn new(world: &World) -> Result<Self, NoEntropy> {
        Ok(Self {
            nonce: URL_SAFE_NO_PAD.encode(world.random::<16>()?),
            calls: HashMap::new(),
            count: 0,
        })
    }

    fn take(&mut self, device: &DeviceId, id: &str, limits: Limits) -> Taken {
        if id.is_empty() || id.len() > ID_MAX {
            return Taken::Again;
        }
        let mut head = [0; 16];
        for (to, from) in head.iter_mut().zip(digest(&SHA256, id.as_bytes()).as_ref()) {
            *to = *from;
        }
        let own = self.calls.entry(device.clone()).or_default();
        if own.contains(&head) {
            return Taken::Again;
        }
        let room = own.len() < limits.device && self.count < limits.all;
        if !room && own.len() >= limits.reserved {
            return Taken::TooMany;
        }
        own.insert(head);
        self.count += 1;
        Taken::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Clock, Entropy};
    use proto::device::DeviceKey;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    #[derive(Default)]
    struct Hands(AtomicU64, AtomicU64);

    impl Clock for Hands {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn monotonic_ms(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }
    }

    struct Counter(AtomicU64);

    impl Entropy for Counter {
        fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            out.fill(0);
            out[..8].copy_from_slice(&n.to_be_bytes());
            Ok(())
        }
    }

    fn world() -> (World, Arc<Hands>) {
        let hands = Arc::new(Hands::default());
        let entropy = Arc::new(Counter(AtomicU64::new(1)));
        (World::new(hands.clone(), entropy), hands)
    }

    fn device(n: u8) -> DeviceId {
        DeviceKey::from_seed([n; 32]).unwrap().public().id()
    }

    fn small(world: &World) -> Seen {
        let limits = Limits {
            device: 50,
            all: 100,
            reserved: 5,
        };
        Seen::with(world, limits).unwrap()
    }

    fn nonce(seen: &Seen, world: &World) -> String {
        match seen.take(world, &device(1), "", "x").unwrap() {
            Taken::Stale(nonce) => nonce,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn attack_53_a_device_that_floods_locks_out_nobody_but_itself() {
        let (world, _) = world();
        let seen = small(&world);
        let nonce = nonce(&seen, &world);
        let calls = |who: u8| {
            let mut taken = 0;
            for n in 0..200 {
                match seen.take(&world, &device(who), &nonce, &format!("{n}")) {
                    Ok(Taken::First) => taken += 1,
                    Ok(Taken::TooMany) => {}
                    other => panic!("{other:?}"),
                }
            }
            taken
        };
        // One may make its own share and no more; three together use up everything.
        assert_eq!(calls(1), 50);
        assert_eq!(calls(2), 50);
        assert_eq!(calls(3), 5);
        // Everybody else still has enough to say no.
        for who in 10..30 {
            assert_eq!(calls(who), 5);
        }
    }

    #[test]
    fn attack_26_a_call_is_taken_once_however_the_wall_clock_moves() {
        let (world, hands) = world();
        let seen = small(&world);
        let first = nonce(&seen, &world);
        let take = |nonce: &str, id: &str| seen.take(&world, &device(1), nonce, id).unwrap();
        assert_eq!(take(&first, "a"), Taken::First);
        for wall in [0, 10_000_000, 5, u64::MAX / 2] {
            hands.0.store(wall, Ordering::Relaxed);
            assert_eq!(take(&first, "a"), Taken::Again);
        }
        // Another device's call of the same id is another call.
        let other = seen.take(&world, &device(2), &first, "a").unwrap();
        assert_eq!(other, Taken::First);

        // The old nonce is taken for one more turn, with its memory; then it is worth nothing.
        hands.1.store(TURN, Ordering::Relaxed);
        assert_eq!(take(&first, "a"), Taken::Again);
        assert_eq!(take(&first, "b"), Taken::First);
        let second = nonce(&seen, &world);
        assert_ne!(first, second);
        hands.1.store(2 * TURN, Ordering::Relaxed);
        assert!(matches!(take(&first, "a"), Taken::Stale(_)));
        assert!(matches!(take(&first, "c"), Taken::Stale(_)));
        assert_eq!(take(&second, "a"), Taken::First);
        // After a long silence nothing old is taken.
        hands.1.store(9 * TURN, Ordering::Relaxed);
        assert!(matches!(take(&second, "d"), Taken::Stale(_)));
    }

    #[test]
    fn an_id_is_there_and_short() {
        let (world, _) = world();
        let seen = small(&world);
        let nonce = nonce(&seen, &world);
        for bad in [String::new(), "x".repeat(ID_MAX + 1)] {
            let taken = seen.take(&world, &device(1), &nonce, &bad).unwrap();
            assert_eq!(taken, Taken::Again);
        }
    }
}
