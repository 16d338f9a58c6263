//! The policy in force. The file on the disk is what somebody wishes; in force is what lies authenticated in the
//! database, and what allows more than that needs two admins and a day.
//!
//! What if an attacker writes the policy file, or removes the row? Then his policy waits for two admins, and what is
//! in force stays, or nothing is.

use super::{
    ID_BYTES, LIFE_SECONDS,
    waiting::{READ_MAX, Stored, asked, waits, was_there},
};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        inventory::{ACTS, POLICY},
        people::Versioned,
    },
    policy::{
        Entry, Policy,
        callers::CallerEntry,
        compare::{compare, is_weaker},
    },
    publish::Refusal,
    store::Batch,
};
use proto::{
    act::{Act, Change, Direction},
    digest::hex,
    policy::{PolicyEntry, PolicyShown},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The one row of the policy in force.
const IN_FORCE: &[u8] = b"in-force";
/// Seconds after a broker was made in which its policy is written, and every one that is read holds at once.
const SETUP_SECONDS: u64 = 12 * 3600;
/// Tries to settle while others agree or object at the same moment.
const RACES_MAX: u32 = 10;

#[derive(Serialize, Deserialize)]
struct InForce {
    document: String,
    setup_until: UnixTime,
}

type Held = Versioned<Stored>;

/// What became of the policy that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is in force.
    InForce,
    /// It waits, and the one before stays.
    Waits,
}

/// The first policy, part of the commit that makes the broker.
pub fn first(desk: &Desk, batch: Batch, policy: &Policy, now: UnixTime) -> Result<Batch, Fault> {
    let row = InForce {
        document: policy.document().to_owned(),
        setup_until: now.after(SETUP_SECONDS),
    };
    let row = desk.authentic(POLICY, IN_FORCE, &row)?;
    Ok(batch.create(POLICY, IN_FORCE, row))
}

/// Decides between the policy that was read and the one in force: at every unseal, and when it is read again.
pub async fn settle(desk: &Desk, now: UnixTime) -> Result<Settled, Fault> {
    let mut left = RACES_MAX;
    loop {
        match once(desk, now).await {
            // Somebody objected, or agreed, at this moment.
            Err(Fault::Conflict(..)) if left > 0 => left -= 1,
            Err(fault) => {
                // What is in force is not known to be: nothing is allowed.
                desk.policy.store(Arc::new(Policy::nothing()));
                return Err(fault);
            }
            settled => return settled,
        }
    }
}

async fn once(desk: &Desk, now: UnixTime) -> Result<Settled, Fault> {
    let _one = desk.policing.lock().await;
    let given = desk.given.load_full();
    let held = in_force(desk)?;
    let before = held
        .as_ref()
        .map_or_else(Policy::nothing, |h| read(&h.value));
    let setting_up = held.as_ref().is_some_and(|h| now < h.value.setup_until);
    let changes = compare(&before, &given);
    for change in &changes {
        let (direction, words) = (change.direction.text(), &change.words);
        tracing::info!(direction, words, "the policy that was read differs");
    }
    let same = before.digest() == given.digest();
    if !same && is_weaker(&changes) && !setting_up {
        desk.policy.store(Arc::new(before));
        wait(desk, &given, now).await?;
        tracing::warn!(
            digest = %given.digest(),
            "the policy file allows more than the policy in force, which stays; admins confirm it: countersign admin acts"
        );
        return Ok(Settled::Waits);
    }
    let mut batch = Batch::new();
    if let Some(held) = held.filter(|_| !same) {
        let row = InForce {
            document: given.document().to_owned(),
            ..held.value
        };
        let row = desk.authentic(POLICY, IN_FORCE, &row)?;
        batch = batch.replace(POLICY, IN_FORCE, held.version, row);
    }
    for (key, held) in waiting(desk)? {
        batch = batch.delete(ACTS, key, held.version);
    }
    let event = Event::PolicyLoaded {
        digest: given.digest().clone(),
    };
    desk.commit(batch, &[event], now).await?;
    desk.policy.store(given);
    Ok(Settled::InForce)
}

/// Orders what waits for the admins, unless this very document waits already.
async fn wait(desk: &Desk, given: &Policy, now: UnixTime) -> Result<(), Fault> {
    let act = Act::Policy {
        digest: given.digest().clone(),
    };
    let Some(batch) = superseded(desk, &act, now)? else {
        return Ok(());
    };
    let stored = Stored {
        act,
        by: None,
        asked: now,
        expires: now.after(LIFE_SECONDS),
        confirmed: Vec::new(),
        ready: None,
        token: None,
        document: Some(given.document().to_owned()),
    };
    let id = hex(&desk.world.random::<ID_BYTES>()?);
    let batch = waits(desk, batch, &id, &stored)?;
    desk.commit(batch, &[asked(&id, &stored)], now)
        .await
        .map(drop)
}

/// The operations that forget what the file said before, which is nobody's wish any more; none where this very
/// document waits already.
fn superseded(desk: &Desk, act: &Act, now: UnixTime) -> Result<Option<Batch>, Fault> {
    let people = desk.people()?;
    let admins: Vec<_> = people.iter().filter(|p| p.admin).collect();
    // One that was asked for before today's admins were there could be confirmed by nobody.
    let able = |h: &Stored| admins.is_empty() || admins.iter().any(|p| was_there(p, h));
    let mut batch = Batch::new();
    for (key, Held { version, value }) in waiting(desk)? {
        if value.act == *act && now < value.expires && able(&value) {
            return Ok(None);
        }
        batch = batch.delete(ACTS, key, version);
    }
    Ok(Some(batch))
}

/// Every act that would put a policy in force, by its row's key.
fn waiting(desk: &Desk) -> Result<Vec<(Vec<u8>, Held)>, Fault> {
    let mut found = Vec::new();
    for (key, _) in desk.live.range(ACTS, b"", None, READ_MAX)? {
        let held = desk.authentic_row::<Stored>(ACTS, &key).ok().flatten();
        let policy = held.filter(|h| matches!(h.value.act, Act::Policy { .. }));
        found.extend(policy.map(|held| (key, held)));
    }
    Ok(found)
}

/// The operations that put a policy in force that waited.
pub(super) fn put(
    desk: &Desk,
    document: Option<&str>,
    batch: Batch,
) -> Result<(Batch, Vec<Event>, Policy), Refusal> {
    let damaged = || Fault::Damaged("a policy that waits");
    let document = document.ok_or_else(damaged)?;
    let policy = Policy::parse(document, "the policy that waits").map_err(|why| {
        tracing::error!(%why, "a policy that waits cannot be read");
        damaged()
    })?;
    let held = in_force(desk)?;
    let row = InForce {
        document: document.to_owned(),
        setup_until: held.as_ref().map_or(UnixTime(0), |h| h.value.setup_until),
    };
    let row = desk.authentic(POLICY, IN_FORCE, &row)?;
    let old = desk.live.get(POLICY, IN_FORCE).map_err(Fault::from)?;
    let batch = batch.put(POLICY, IN_FORCE, old.map(|old| old.version), row);
    let event = Event::PolicyLoaded {
        digest: policy.digest().clone(),
    };
    Ok((batch, vec![event], policy))
}

/// The policy in force, with who can approve by it now.
pub fn shown(desk: &Desk) -> Result<PolicyShown, Refusal> {
    let policy = desk.policy.load();
    let people = desk.people()?;
    let entry = |e: &Entry| {
        let able = people
            .iter()
            .filter(|p| p.groups.iter().any(|g| e.approvers.contains(g)));
        PolicyEntry {
            matches: e.matches.iter().map(|m| m.as_str().to_owned()).collect(),
            callers: e.callers.iter().map(CallerEntry::words).collect(),
            approvers: e.approvers.clone(),
            people: able.map(|p| p.id.clone()).collect(),
            quorum: e.quorum,
            factors: e.factors.clone(),
            mode: e.mode,
            requester_may_approve: e.requester_may_approve,
            veto_seconds: e.veto_seconds,
        }
    };
    Ok(PolicyShown {
        digest: policy.digest().clone(),
        entries: policy.entries().iter().map(entry).collect(),
    })
}

/// What a document would change, the weaker first.
pub(super) fn changes(desk: &Desk, document: Option<&str>) -> Vec<Change> {
    let policy = document.and_then(|d| Policy::parse(d, "policy").ok());
    let Some(policy) = policy else {
        return Vec::new();
    };
    let mut changes = compare(&desk.policy.load(), &policy);
    changes.sort_by_key(|c| c.direction != Direction::Weaker);
    changes
}

/// The row. One that is gone or cannot be believed allows nothing: absence is a no.
fn in_force(desk: &Desk) -> Result<Option<Versioned<InForce>>, Fault> {
    match desk.authentic_row::<InForce>(POLICY, IN_FORCE) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(what, "ALARM: the policy in force cannot be believed");
            Ok(None)
        }
        held => {
            let held = held?;
            if held.is_none() {
                tracing::error!("ALARM: the policy in force is gone");
            }
            Ok(held)
        }
    }
}

/// A document of an earlier version that this one cannot read allows nothing.
fn read(row: &InForce) -> Policy {
    Policy::parse(&row.document, "the policy in force").unwrap_or_else(|why| {
        tracing::error!(%why, "the policy in force cannot be read: nothing is allowed until another one is confirmed");
        Policy::nothing()
    })
}
