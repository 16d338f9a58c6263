//! What a row of each table must prove, so that a whole database can be checked at once, and written anew.

use super::{
    frozen,
    ledger::{self, id_of},
    state::Record,
};
use crate::{
    desk::{self, bells, people},
    store::Table,
    vault::{Binding, Domain, Vault, rows},
};
use proto::{
    digest::unhex,
    ids::{PersonId, RequestId},
};

/// What a row proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A MAC, bound to its place.
    Mac,
    /// A person: a MAC, and a secret inside that is sealed to that person.
    Person,
    /// A freeze: a MAC, or the mark of one that was made while sealed.
    Freeze,
    /// A request: the digest of its own facts, and a MAC of what stands beside them.
    Request,
    /// A person's channel, sealed to its place.
    Channel,
    /// A key of the broker's own, sealed.
    Key,
    /// Nothing by itself: an index, a budget, a mark, or the log, which its tree proves.
    Bare,
}

use Proof::{Bare, Channel, Freeze, Key, Mac, Person, Request};

/// Every table there is. A test compares it with the sources.
pub const TABLES: [(&str, Proof); 72] = [
    ("act", Mac),
    ("approved", Bare),
    ("burnt", Bare),
    ("by-actor", Bare),
    ("by-intent", Bare),
    ("by-package", Bare),
    ("by-package-asker", Bare),
    ("by-subject", Bare),
    ("card-detail", Mac),
    ("card-said", Mac),
    ("challenge", Mac),
    ("channel", Channel),
    ("channel-added", Bare),
    ("channel-health", Bare),
    ("channel-test", Bare),
    ("client-key", Mac),
    ("confirming", Bare),
    ("credential", Bare),
    ("deposits", Bare),
    ("device", Bare),
    ("due", Bare),
    ("ended", Bare),
    ("fetch", Bare),
    ("finished", Bare),
    ("foreign-stage", Bare),
    ("frozen", Freeze),
    ("habit", Mac),
    ("idempotency", Bare),
    ("intent", Mac),
    ("intent-of-package", Bare),
    ("intent-past", Mac),
    ("inventory", Mac),
    ("invite", Mac),
    ("key", Key),
    ("known", Mac),
    ("left", Mac),
    ("log", Bare),
    ("look", Bare),
    ("notice", Bare),
    ("noticed", Bare),
    ("outbox", Bare),
    ("passkey", Mac),
    ("person", Person),
    ("policy", Mac),
    ("published-of", Bare),
    ("quiet-hours", Bare),
    ("recovery", Mac),
    ("registration", Mac),
    ("rekey", Mac),
    ("request", Request),
    ("restored", Bare),
    ("restored-agreed", Mac),
    ("ring", Bare),
    ("ring-budget", Bare),
    ("ring-veto", Bare),
    ("rung", Bare),
    ("share-key", Mac),
    ("source", Mac),
    ("source-files", Mac),
    ("spent", Bare),
    ("stage", Mac),
    ("token", Mac),
    ("token-left", Mac),
    ("token-reminded", Bare),
    ("token-version", Mac),
    ("totp", Mac),
    ("totp-setup", Mac),
    ("tree", Bare),
    ("unseal-change", Mac),
    ("unseen", Bare),
    ("withdrawal", Mac),
    ("witness", Mac),
];

/// Checks one row; returns what it proved. The vault is open.
pub fn check(vault: &Vault, table: &str, key: &[u8], value: &[u8]) -> Result<Proof, String> {
    let known = TABLES.iter().find(|(name, _)| *name == table);
    let (name, proof) = known.ok_or_else(|| format!("table '{table}' is unknown"))?;
    let bad = |why: &str| Err(format!("a row of table '{table}' {why}"));
    let authentic = rows::check_authentic(vault, Table(name), key, value);
    match proof {
        Mac if authentic.is_err() => bad("was not written by this broker, or not there"),
        Person => match authentic {
            Ok(json) => person(vault, json).map_or_else(bad, |()| Ok(Person)),
            Err(_) => bad("was not written by this broker, or not there"),
        },
        Freeze if authentic.is_err() && !frozen::is_frozen_while_sealed(value) => {
            bad("was not written by this broker, or not there")
        }
        Request => match id_of(key).and_then(|id| request(vault, id, value)) {
            Some(()) => Ok(Request),
            None => bad("is not as it was opened"),
        },
        Channel if vault.open_row(&bells::binding(key), value).is_err() => bad("does not open"),
        Key if !own_key(vault, key, value) => bad("does not open"),
        // A table that is listed as bare, and has proofs, would be checked too little.
        Bare if authentic.is_ok() => bad("is authenticated, and is not checked as such"),
        proof => Ok(*proof),
    }
}

fn person(vault: &Vault, json: &[u8]) -> Result<(), &'static str> {
    let person: people::Person = serde_json::from_slice(json).map_err(|_| "cannot be read")?;
    let id: &PersonId = &person.id;
    if person.totp.is_empty() {
        return Ok(());
    }
    let opened = vault.open_row(&people::totp_binding(id), &person.totp);
    opened
        .map(drop)
        .map_err(|_| "has a secret that does not open")
}

fn request(vault: &Vault, id: RequestId, value: &[u8]) -> Option<()> {
    let record: Record = ledger::decode(id, value).ok()?;
    let bound = unhex(&record.bound)?;
    let holds = vault.mac_holds(Domain::Row, &record.beside_the_digest(), &bound);
    holds.ok()?.then_some(())
}

/// How a key of the broker's own is sealed.
pub(crate) fn own_binding(key: &[u8]) -> Option<Binding<'static>> {
    let bindings = [desk::log_binding(), bells::vapid_binding()];
    bindings.into_iter().find(|b| b.record == key)
}

fn own_key(vault: &Vault, key: &[u8], value: &[u8]) -> bool {
    own_binding(key).is_some_and(|binding| vault.open_row(&binding, value).is_ok())
}
