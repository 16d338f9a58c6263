//! The key-encryption key in shares of admins, each an age file to one of them.

use super::{
    InitError, UnsealError,
    methods::{age_encrypt, recipient},
};
use crate::{
    secret::Secret,
    vault::{keys::KEY_BYTES, shares::Plan},
    world::World,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    canonical::Canonical,
    digest::{hex, unhex},
    ids::PersonId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Bytes that name a deal of shares.
const DEAL_BYTES: usize = 16;
/// An admin who holds a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub person: PersonId,
    /// His public key for shares, `age1…`.
    pub recipient: String,
}

/// One admin's share, open.
pub type ShareOf = (PersonId, Secret<Vec<u8>>);

/// The key-encryption key in shares.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shared {
    /// Names this one deal, hex: shares of another are not taken.
    deal: String,
    needed: usize,
    holders: Vec<Held>,
    /// Of each part, hex.
    checks: Vec<String>,
}

/// One admin's share, encrypted to him.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    person: PersonId,
    recipient: String,
    age: String,
}

/// What the holders of shares are shown.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Names this one deal, hex.
    pub deal: String,
    /// How many are needed.
    pub needed: usize,
    /// Everybody who has one.
    pub holders: Vec<Holder>,
    /// Each holder's share in an age file, base64, in their order.
    pub shares: Vec<String>,
}

impl Offer {
    /// A person's own share.
    pub fn of(&self, person: &PersonId) -> Option<&str> {
        let place = self.holders.iter().position(|h| h.person == *person)?;
        self.shares.get(place).map(String::as_str)
    }
}

impl Shared {
    pub(super) fn deal(
        world: &World,
        needed: usize,
        holders: &[Holder],
        kek: &[u8; KEY_BYTES],
    ) -> Result<(Self, Vec<ShareOf>), InitError> {
        let names: BTreeSet<_> = holders.iter().map(|h| &h.person).collect();
        let plan = Plan::new(needed, holders.len()).filter(|_| names.len() == holders.len());
        let plan = plan.ok_or(InitError::Holders)?;
        let deal = hex(&world.random::<DEAL_BYTES>()?);
        let dealt = plan.deal(world, kek, deal.as_bytes())?;
        let held = |(at, (holder, share)): (usize, (&Holder, &Secret<Vec<u8>>))| {
            let to = recipient(&holder.recipient).ok_or(InitError::Recipient(at + 1))?;
            Ok::<_, InitError>(Held {
                person: holder.person.clone(),
                recipient: holder.recipient.clone(),
                age: STANDARD.encode(age_encrypt(&[&to], share.expose())?),
            })
        };
        let shared = Self {
            needed,
            holders: holders
                .iter()
                .zip(&dealt.shares)
                .enumerate()
                .map(held)
                .collect::<Result<_, _>>()?,
            checks: dealt.checks.iter().map(|c| hex(c)).collect(),
            deal,
        };
        let people = holders.iter().map(|h| h.person.clone());
        Ok((shared, people.zip(dealt.shares).collect()))
    }

    /// All of it, for the file's checksum.
    pub(super) fn told(&self, to: Canonical) -> Canonical {
        let to = to.text(&self.deal).number(self.needed as u64);
        let to = to.number(self.holders.len() as u64);
        let to = self.holders.iter().fold(to, |to, held| {
            to.text(held.person.as_str())
                .text(&held.recipient)
                .text(&held.age)
        });
        self.checks.iter().fold(to, |to, check| to.text(check))
    }

    pub(super) fn offer(&self) -> Offer {
        let holder = |h: &Held| Holder {
            person: h.person.clone(),
            recipient: h.recipient.clone(),
        };
        Offer {
            deal: self.deal.clone(),
            needed: self.needed,
            holders: self.holders.iter().map(holder).collect(),
            shares: self.holders.iter().map(|h| h.age.clone()).collect(),
        }
    }

    fn plan(&self) -> Result<Plan, UnsealError> {
        Plan::new(self.needed, self.holders.len()).ok_or(UnsealError::Damaged)
    }

    /// Which holder this is, if the share is what he was dealt.
    pub(super) fn place(&self, person: &PersonId, share: &[u8]) -> Result<usize, UnsealError> {
        let place = self.holders.iter().position(|h| h.person == *person);
        let checks = (self.checks.iter()).map(|c| unhex(c).and_then(|c| c.try_into().ok()));
        let checks: Vec<_> = checks.collect::<Option<_>>().ok_or(UnsealError::Damaged)?;
        let plan = self.plan()?;
        place
            .filter(|at| plan.is_genuine(*at, share, &checks, self.deal.as_bytes()))
            .ok_or_else(|| UnsealError::WrongShare(person.clone()))
    }

    pub(super) fn join(&self, shares: &[ShareOf]) -> Result<Secret<[u8; KEY_BYTES]>, UnsealError> {
        let placed = |(person, share): &ShareOf| self.place(person, share.expose());
        let places = shares.iter().map(placed).collect::<Result<Vec<_>, _>>()?;
        let shares: Vec<_> = places
            .into_iter()
            .zip(shares.iter().map(|(_, s)| s.expose().as_slice()))
            .collect();
        self.plan()?
            .join(&shares)
            .ok_or(UnsealError::TooFewShares(self.needed))
    }
}
