//! A key in shares, of which any m of n bring it back and any m − 1 say nothing at all.
//!
//! Replicated secret sharing (Ito, Saito and Nishizeki, 1987): for every group of m − 1 holders there is a random
//! part that all others have and this group has not; the key is the XOR of all parts. Any m holders have every part
//! between them, since no group of m − 1 covers them all; m − 1 holders lack the one part that is kept from them, and
//! without it every key is as likely as every other. There is no field arithmetic that could be biased or timed, and
//! for eight holders no share is longer than 35 parts.
//!
//! A share may be wrong by mistake or on purpose. Each part has a check (a hash of 256 random bits, which gives
//! nothing away), so that a wrong one is refused when it is handed in, by name.

use super::keys::KEY_BYTES;
use crate::{
    secret::Secret,
    world::{NoEntropy, World},
};
use aws_lc_rs::constant_time;
use proto::canonical::Canonical;
use zeroize::Zeroize as _;

/// Most holders.
pub const HOLDERS_MAX: usize = 8;
/// Bytes of a part's check.
const CHECK_BYTES: usize = 32;

/// How a key is shared, without the key: what is written down beside the shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    holders: usize,
    needed: usize,
}

/// A key in shares.
pub(super) struct Dealt {
    /// One for each holder, in their order.
    pub(super) shares: Vec<Secret<Vec<u8>>>,
    /// One for each part.
    pub(super) checks: Vec<[u8; CHECK_BYTES]>,
}

impl Plan {
    /// `needed` of `holders`; none where that makes no sense.
    pub(super) fn new(needed: usize, holders: usize) -> Option<Self> {
        let good = (1..=HOLDERS_MAX).contains(&holders) && (1..=holders).contains(&needed);
        good.then_some(Self { holders, needed })
    }

    /// Who lacks each part: a bit for each holder, `needed - 1` of them set.
    fn without(&self) -> impl Iterator<Item = u32> {
        let fewer = self.needed.saturating_sub(1);
        (0..1_u32 << self.holders).filter(move |group| group.count_ones() as usize == fewer)
    }

    /// The positions of the parts that a holder has.
    fn parts_of(&self, holder: usize) -> impl Iterator<Item = usize> {
        let lacks = move |group: u32| group >> holder & 1 == 1;
        let all = self.without().enumerate();
        all.filter(move |(_, group)| !lacks(*group))
            .map(|(at, _)| at)
    }

    /// How many parts there are.
    fn parts(&self) -> usize {
        self.without().count()
    }

    /// Shares a key. `about` names the one key file that the checks belong to.
    pub(super) fn deal(
        &self,
        world: &World,
        key: &[u8; KEY_BYTES],
        about: &[u8],
    ) -> Result<Dealt, NoEntropy> {
        let mut parts: Vec<Secret<[u8; KEY_BYTES]>> = Vec::with_capacity(self.parts());
        let mut last = *key;
        for _ in 1..self.parts() {
            let part = Secret::new(world.random::<KEY_BYTES>()?);
            xor(&mut last, part.expose());
            parts.push(part);
        }
        parts.push(Secret::new(last));
        last.zeroize();
        let share = |holder| {
            // Room for all of it from the start: a vector that grows leaves bytes behind.
            let mut share = Vec::with_capacity(self.parts() * KEY_BYTES);
            for at in self.parts_of(holder) {
                share.extend_from_slice(parts.get(at).map_or(&[][..], |p| p.expose()));
            }
            Secret::new(share)
        };
        Ok(Dealt {
            shares: (0..self.holders).map(share).collect(),
            checks: (parts.iter().enumerate())
                .map(|(at, part)| check(about, at, part.expose()))
                .collect(),
        })
    }

    /// Whether this is what the holder was dealt.
    pub(super) fn is_genuine(
        &self,
        holder: usize,
        share: &[u8],
        checks: &[[u8; CHECK_BYTES]],
        about: &[u8],
    ) -> bool {
        let (parts, rest) = share.as_chunks::<KEY_BYTES>();
        let places: Vec<_> = self.parts_of(holder).collect();
        let right = |(at, part): (&usize, &[u8; KEY_BYTES])| {
            let wanted = checks.get(*at);
            wanted.is_some_and(|w| {
                constant_time::verify_slices_are_equal(w, &check(about, *at, part)).is_ok()
            })
        };
        holder < self.holders
            && rest.is_empty()
            && parts.len() == places.len()
            && places.iter().zip(parts).all(right)
    }

    /// The key, from the shares of `needed` holders or more; none where they are too few. They are genuine, each.
    pub(super) fn join(&self, shares: &[(usize, &[u8])]) -> Option<Secret<[u8; KEY_BYTES]>> {
        let mut key = [0; KEY_BYTES];
        let mut missing: Vec<usize> = (0..self.parts()).collect();
        for (holder, share) in shares {
            let (parts, _) = share.as_chunks::<KEY_BYTES>();
            for (at, part) in self.parts_of(*holder).zip(parts) {
                if let Some(place) = missing.iter().position(|m| *m == at) {
                    missing.swap_remove(place);
                    xor(&mut key, part);
                }
            }
        }
        let joined = missing.is_empty().then(|| Secret::new(key));
        key.zeroize();
        joined
    }
}

fn xor(into: &mut [u8; KEY_BYTES], with: &[u8; KEY_BYTES]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}

fn check(about: &[u8], at: usize, part: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    Canonical::new("countersign/share-part/v1")
        .bytes(about)
        .number(at as u64)
        .bytes(part)
        .sha256()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &[u8] = b"a key file";

    /// Every group of holders, as bits.
    fn groups(holders: usize) -> impl Iterator<Item = Vec<usize>> {
        (0..1_u32 << holders).map(move |bits| (0..holders).filter(|h| bits >> h & 1 == 1).collect())
    }

    /// All (m, n) up to eight, and every group of holders: those of m and more have the key, no smaller one does.
    #[test]
    fn attack_44_any_m_of_n_have_the_key_and_no_fewer() {
        let world = World::system();
        for holders in 1..=HOLDERS_MAX {
            for needed in 1..=holders {
                let plan = Plan::new(needed, holders).unwrap();
                let key = world.random::<KEY_BYTES>().unwrap();
                let dealt = plan.deal(&world, &key, ABOUT).unwrap();
                for group in groups(holders) {
                    let shares: Vec<_> = group
                        .iter()
                        .map(|h| (*h, dealt.shares[*h].expose().as_slice()))
                        .collect();
                    let joined = plan.join(&shares);
                    assert_eq!(
                        joined.is_some(),
                        group.len() >= needed,
                        "{needed} of {holders}: {group:?}"
                    );
                    assert!(joined.is_none_or(|k| *k.expose() == key));
                }
            }
        }
        for (needed, holders) in [(0, 3), (4, 3), (1, 0), (2, HOLDERS_MAX + 1)] {
            assert!(Plan::new(needed, holders).is_none());
        }
    }

    /// The part that a group of m − 1 lacks decides every bit of the key: with what they have, each key is possible.
    #[test]
    fn attack_44_fewer_than_m_shares_fit_every_key() {
        let world = World::system();
        for holders in 2..=HOLDERS_MAX {
            for needed in 2..=holders {
                let plan = Plan::new(needed, holders).unwrap();
                for group in groups(holders).filter(|g| g.len() == needed - 1) {
                    let had: std::collections::BTreeSet<usize> =
                        group.iter().flat_map(|h| plan.parts_of(*h)).collect();
                    assert_eq!(
                        had.len(),
                        plan.parts() - 1,
                        "one part is missing: {group:?}"
                    );
                }
            }
        }
        // And a dealt share looks like nothing: over many deals of one key, each bit of each share is set half the time.
        let plan = Plan::new(2, 3).unwrap();
        let mut set = [0_u32; 2 * KEY_BYTES * 8];
        for _ in 0..4000 {
            let dealt = plan.deal(&world, &[0xff; KEY_BYTES], ABOUT).unwrap();
            for (at, count) in set.iter_mut().enumerate() {
                *count += u32::from(dealt.shares[0].expose()[at / 8] >> (at % 8) & 1);
            }
        }
        // Six standard deviations of 4000 fair throws.
        assert!(set.iter().all(|n| n.abs_diff(2000) < 190), "{set:?}");
    }

    #[test]
    fn attack_50_a_wrong_share_is_known_by_whose_it_is() {
        let world = World::system();
        let plan = Plan::new(3, 5).unwrap();
        let key = world.random::<KEY_BYTES>().unwrap();
        let dealt = plan.deal(&world, &key, ABOUT).unwrap();
        for holder in 0..5 {
            let share = dealt.shares[holder].expose();
            assert!(plan.is_genuine(holder, share, &dealt.checks, ABOUT));
            for other in (0..6).filter(|o| *o != holder) {
                assert!(!plan.is_genuine(other, share, &dealt.checks, ABOUT));
            }
            assert!(!plan.is_genuine(holder, share, &dealt.checks, b"another file"));
            assert!(!plan.is_genuine(holder, share, &[], ABOUT));
            for bit in 0..share.len() * 8 {
                let mut bent = share.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    !plan.is_genuine(holder, &bent, &dealt.checks, ABOUT),
                    "{bit}"
                );
            }
            for length in 0..share.len() {
                assert!(!plan.is_genuine(holder, &share[..length], &dealt.checks, ABOUT));
            }
        }
    }
}
