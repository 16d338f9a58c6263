//! An older database that was put back: looked at by the admins, who agree to go on with it.
//!
//! Two admins agree who were enrolled when the copy was taken, each in a terminal with a second factor; where there
//! was one alone, he does. Nobody agrees to a copy that another key signed than the one in its vault. Each device
//! sends the last checkpoint that it saw. That can show that something was lost, and never that nothing was: a log
//! goes on after a device has looked. So it is a reason to stop and think, which is overruled by name only, and no
//! key to the broker by itself.

use super::own::{Own, current};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        people::{PEOPLE, Versioned},
        restored::{self, Cause, Mark, Marked},
    },
    notify::About,
    publish::{Refusal, prove::prove_in_terminal, ring},
    store::{Batch, Table},
};
use proto::{
    factors::change,
    ids::{DeviceId, PersonId},
    log::checkpoint::{Checkpoint, LogKey},
    restored::{Agree, Agreed, RestoredState},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Who agreed, by person; authenticated.
const AGREED: Table = Table("restored-agreed");
/// Admins who must agree, where there are as many.
const NEEDED: usize = 2;

#[derive(Serialize, Deserialize)]
struct Yes {
    /// To which restore.
    to: String,
    device: DeviceId,
    lost: u64,
}

/// Whether this is an older copy, and who agreed to go on with it.
pub fn state(desk: &Desk) -> Result<RestoredState, Refusal> {
    let Some(Marked { mark, version }) = desk.restored()? else {
        return Ok(RestoredState::default());
    };
    let Some(mark) = mark else {
        return Ok(RestoredState {
            restored: true,
            ..RestoredState::default()
        });
    };
    ours(desk, &mark)?;
    let may = admins(desk, &mark, version)?;
    let mut agreed = Vec::new();
    for person in &may {
        agreed.extend(yes(desk, person, &mark)?.map(|yes| Agreed {
            person: person.clone(),
            lost: yes.value.lost,
        }));
    }
    Ok(RestoredState {
        restored: true,
        rolled_back: mark.cause == Cause::RolledBack,
        taken: Some(mark.taken),
        since: Some(mark.restored),
        entries: mark.entries,
        needed: needed(&may),
        may,
        agreed,
    })
}

/// An admin agrees. The one that makes them enough takes the mark away.
pub async fn agree(
    desk: &Desk,
    own: Own<'_>,
    given: &Agree,
    now: UnixTime,
) -> Result<RestoredState, Refusal> {
    let Some(Marked { version, mark }) = desk.restored()? else {
        return Err(Refusal::BadRequest(
            "this database was not restored, or it was agreed to already".to_owned(),
        ));
    };
    let mark = mark.ok_or(Fault::Damaged("the mark of a restore"))?;
    ours(desk, &mark)?;
    let by = current(desk, own)?;
    let may = admins(desk, &mark, version)?;
    if !may.contains(own.person) {
        return Err(Refusal::NotAllowed(
            "only who was an admin already when the copy was taken agrees to it".to_owned(),
        ));
    }
    let lost = lost(desk, &mark, given.checkpoint.as_deref()).await?;
    if lost > 0 && !given.despite_loss {
        return Err(Refusal::Lost(lost));
    }
    let object = restored_object(&mark);
    let about = (change::RESTORED, object.as_str());
    let mut batch =
        prove_in_terminal(desk, &by.value, own.device, about, &given.factor, now).await?;
    // Who was removed or changed meanwhile agrees to nothing, and the mark is the one that was looked at.
    batch = batch.require(PEOPLE, own.person.as_str().as_bytes(), by.version);
    let mut events = vec![Event::RestoredAgreed {
        by: own.person.clone(),
        device: own.device.clone(),
        lost,
    }];
    let mut agreed = vec![own.person.clone()];
    for other in may.iter().filter(|p| *p != own.person) {
        if yes(desk, other, &mark)?.is_some() {
            agreed.push(other.clone());
        }
        // They are as many as were counted until this is stored, and each who agreed still has the device.
        let held = desk.person(other)?.ok_or(Refusal::NotFound)?;
        batch = batch.require(PEOPLE, other.as_str().as_bytes(), held.version);
    }
    let (table, key) = restored::row();
    if agreed.len() >= needed(&may) {
        batch = batch.delete(table, key, version);
        for (person, row) in desk
            .live
            .range(AGREED, b"", None, usize::MAX)
            .map_err(Fault::from)?
        {
            batch = batch.delete(AGREED, person, row.version);
        }
        events.push(Event::RestoredAccepted { by: agreed });
    } else {
        batch = batch.require(table, key, version);
        batch = stored(desk, batch, own, &mark, lost)?;
    }
    batch = ring::notice(desk, batch, About::Restored, "", Some(own.person))?;
    desk.commit(batch, &events, now).await?;
    state(desk)
}

/// The backup was signed with the key that lies in the vault it brought. Whoever can read a backup can change it and sign
/// it with a key of his own, but not put that key into the vault.
fn ours(desk: &Desk, mark: &Mark) -> Result<(), Refusal> {
    if mark.cause == Cause::RolledBack && mark.log_key.is_none() {
        // Nobody restored it.
        return Ok(());
    }
    let named = mark.log_key.as_deref().map(str::parse::<LogKey>);
    let own = desk.log_key()?.public();
    // The key alone: the name before it is the host's, which may have changed.
    if named.is_some_and(|named| named.is_ok_and(|named| *named.public() == own)) {
        return Ok(());
    }
    Err(Refusal::NotAllowed(
        "somebody else made this backup: it is signed with another key than the one in its vault, so anything in it may be his; \
         nobody agrees to it: stop this broker, and restore another backup with --log-key"
            .to_owned(),
    ))
}

/// What a second factor is about when somebody agrees.
fn restored_object(mark: &Mark) -> String {
    format!("{} {}", mark.taken.0, mark.entries)
}

fn stored(
    desk: &Desk,
    batch: Batch,
    own: Own<'_>,
    mark: &Mark,
    lost: u64,
) -> Result<Batch, Refusal> {
    let key = own.person.as_str().as_bytes();
    let row = Yes {
        to: mark.id.clone(),
        device: own.device.clone(),
        lost,
    };
    let row = desk.authentic(AGREED, key, &row)?;
    let old = desk.live.get(AGREED, key).map_err(Fault::from)?;
    Ok(batch.put(AGREED, key, old.map(|old| old.version), row))
}

/// A person's yes to this very restore, by a device that he still has.
fn yes(desk: &Desk, person: &PersonId, mark: &Mark) -> Result<Option<Versioned<Yes>>, Fault> {
    let held = desk.authentic_row::<Yes>(AGREED, person.as_str().as_bytes());
    let held = match held {
        // Nobody's yes, and it keeps nobody from saying it again.
        Err(Fault::Damaged(_)) => None,
        held => held?,
    };
    let Some(yes) = held.filter(|yes| yes.value.to == mark.id) else {
        return Ok(None);
    };
    let person = desk.person(person)?;
    let has = person.is_some_and(|p| p.value.device(&yes.value.device).is_some());
    Ok(has.then_some(yes))
}

/// Admins who were enrolled when the copy was taken: whoever was made one since may be anybody's. A row that is
/// older than the mark came with the copy; one that changed since tells it by the person's own date.
fn admins(desk: &Desk, mark: &Mark, marked: u64) -> Result<Vec<PersonId>, Fault> {
    let mut then = Vec::new();
    for person in desk.people()?.iter().filter(|p| p.admin) {
        let held = desk.person(&person.id)?;
        let before = person.since().is_some_and(|since| since < mark.taken);
        if before || held.is_some_and(|held| held.version < marked) {
            then.push(person.id.clone());
        }
    }
    Ok(then)
}

/// Nobody alone where two are there; and never nobody.
fn needed(may: &[PersonId]) -> usize {
    may.len().clamp(1, NEEDED)
}

/// How many entries a device saw that this database does not have. None of it says nothing about what came after
/// the device's last look.
async fn lost(desk: &Desk, mark: &Mark, seen: Option<&str>) -> Result<u64, Refusal> {
    let Some(note) = seen else {
        return Ok(0);
    };
    let key = desk.log_key()?;
    let key = LogKey::new(&desk.place.origin, key.public());
    let key = key.map_err(|_| Fault::Damaged("the log key"))?;
    // Whoever sends what this log never signed sends nothing.
    let Ok(seen) = Checkpoint::open(note, &key) else {
        return Err(Refusal::BadRequest(
            "this device's checkpoint is of another log".to_owned(),
        ));
    };
    let (size, _) = desk.checkpoint().await?;
    if seen.size <= size {
        let root = desk.tree.root_at(&*desk.history, seen.size);
        if root.map_err(|e| Fault::Store(e.to_string()))? == seen.root {
            return Ok(0);
        }
    }
    // This log's key signed it, and it is no part of this log.
    Ok(seen.size.saturating_sub(mark.entries).max(1))
}
