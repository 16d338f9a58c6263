//! The vault gets a fresh data key, online. Whoever once had a copy of the key file and what opened it then has the
//! key of that time: with it he reads every later copy of the database, until everything in it is written anew under
//! another one. What opens the vault changes by itself (`method`); do that first after a theft.
//!
//! Step by step, each of which a crash leaves whole: the wish is one commit; the key file with a fresh key beside the
//! old one takes its place (in the database the fresh key never is: whoever has the old one reads that); every row is
//! written anew, over and over until a whole round finds nothing to do; the old key is retired, so that nothing is believed that it authenticated; two days
//! later, when no request of its time is left, it goes. Old and new are good until the new one has been verified.

use super::{file, method};
use crate::{
    admin::gate,
    audit::event::Event,
    desk::{
        self, Desk, Fault, bells,
        inventory::{REKEY, is_listed},
        people::{self, Versioned},
    },
    publish::{
        Refusal,
        contents::{self, Proof, TABLES},
        ledger,
    },
    store::{Batch, Table},
    vault::{Binding, Domain, Vault, key_file::InitError, rows, tokens},
};
use proto::{
    custody::{DataKey, Rekeying},
    digest::{hex, unhex},
    ids::PersonId,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// The one row of a re-keying.
const ROW: &[u8] = b"now";
/// Seconds between the making of a key file and the time from which on its key is the one that things are derived
/// from: what is opened meanwhile is derived from the key before.
const LEAD_SECONDS: u64 = 600;
/// Milliseconds after which nobody has bytes in hand that the old key authenticated.
const SETTLE_MS: u64 = 5_000;
/// Seconds that a retired key stays: the longest life of what was derived from it, twice.
const RETIRED_SECONDS: u64 = 2 * 24 * 3600;
/// Rows in one commit.
const CHUNK: usize = 100;

#[derive(Serialize, Deserialize)]
struct Stored {
    /// The fresh key's generation.
    generation: u32,
    step: Rekeying,
    /// Since when it stands at this step.
    since: UnixTime,
}

/// What a round found.
#[derive(Default)]
struct Found {
    /// Rows that were written anew, or must be.
    written: usize,
    /// Rows with something inside that does not open any more.
    damaged: usize,
}

/// The operations that begin it.
pub(in crate::admin) fn begin(
    desk: &Desk,
    by: &PersonId,
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let bad = |why: &str| Err(Refusal::BadRequest(why.to_owned()));
    let (current, old) = desk.vault.generations().map_err(Fault::from)?;
    if old.is_some() || read(desk)?.is_some() {
        return bad(
            "the vault is being re-keyed: wait until the old key is gone (countersign admin unseal-method)",
        );
    }
    if method::is_under_way(desk, now)? {
        return bad(
            "what opens the vault is about to change: confirm that first, or take it back (countersign admin unseal-method)",
        );
    }
    if !desk.vault.knows_its_file().map_err(Fault::from)? {
        return bad(
            "what opens the vault has changed since it was opened: seal it and unseal it first (countersign admin seal)",
        );
    }
    let stored = Stored {
        generation: current
            .checked_add(1)
            .ok_or(Fault::Damaged("the key file"))?,
        step: Rekeying::Agreed,
        since: now,
    };
    let event = Event::RekeyBegun {
        by: by.clone(),
        generation: stored.generation,
    };
    Ok((put(desk, batch, &stored)?, vec![event]))
}

/// Stores it, in the place of a row that nobody believes, where there is one.
fn put(desk: &Desk, batch: Batch, stored: &Stored) -> Result<Batch, Fault> {
    let row = desk.authentic(REKEY, ROW, stored)?;
    let planted = desk.live.get(REKEY, ROW)?;
    Ok(batch.put(REKEY, ROW, planted.map(|row| row.version), row))
}

/// Whether the key file is about to be replaced by it.
pub(super) fn is_near(desk: &Desk) -> Result<bool, Fault> {
    let held = read(desk)?;
    Ok(held.is_some_and(|held| held.value.step != Rekeying::Retired))
}

/// The data key, and what is under way with it.
pub(super) fn state(desk: &Desk) -> Result<DataKey, Fault> {
    let (generation, old) = desk.vault.generations()?;
    let held = read(desk)?;
    let over = |held: &Versioned<Stored>| held.value.since.after(RETIRED_SECONDS);
    Ok(DataKey {
        generation,
        old: old.map(|(generation, _)| generation),
        step: held.as_ref().map(|held| held.value.step),
        until: held
            .filter(|held| held.value.step == Rekeying::Retired)
            .map(|held| over(&held)),
    })
}

/// Does what there is to do of it. `last` is when the present step was seen first, by the monotonic clock.
pub async fn go_on(desk: &Desk, last: &mut Option<(Rekeying, u64)>) -> Result<(), Fault> {
    if desk.vault.is_sealed() || desk.restored()?.is_some() {
        return Ok(());
    }
    // By a wrong clock nothing is derived, and no time has passed.
    if desk.world.clock_suspect() || !desk.vault.knows_its_file()? {
        return Ok(());
    }
    let Some(held) = read(desk)? else {
        *last = None;
        return found_again(desk).await;
    };
    let ms = desk.world.monotonic_ms();
    let step = held.value.step;
    let since = match *last {
        Some((seen, since)) if seen == step => since,
        _ => {
            *last = Some((step, ms));
            ms
        }
    };
    match step {
        Rekeying::Agreed => take_into_use(desk, held).await,
        Rekeying::Writing => {
            let settled = ms.saturating_sub(since) >= SETTLE_MS;
            if rewrite(desk).await?.written == 0 && settled {
                retire(desk, held).await?;
            }
            Ok(())
        }
        Rekeying::Retired => clear(desk, held).await,
    }
}

/// The key file has an old key, and no row tells of it: somebody took the row away, and the old key would be believed for
/// ever.
async fn found_again(desk: &Desk) -> Result<(), Fault> {
    let (generation, Some((_, retired))) = desk.vault.generations()? else {
        return Ok(());
    };
    tracing::error!("ALARM: the row of a re-keying is gone; it goes on all the same");
    let now = desk.world.now();
    let stored = Stored {
        generation,
        step: if retired {
            Rekeying::Retired
        } else {
            Rekeying::Writing
        },
        since: now,
    };
    let batch = put(desk, Batch::new(), &stored)?;
    desk.commit(batch, &[], now).await.map(drop)
}

/// The key file with both keys takes the old one's place.
async fn take_into_use(desk: &Desk, held: Versioned<Stored>) -> Result<(), Fault> {
    let generation = held.value.generation;
    // A crash may have come between the file and the record of it. One that came before it makes another key.
    if desk.vault.generations()?.0 != generation {
        let fresh = desk.vault.fresh_key()?;
        let since = desk.world.now().after(LEAD_SECONDS);
        install(desk, |file| desk.vault.next_file(file, &fresh, since)).await?;
    }
    let event = Event::RekeyInUse { generation };
    next(desk, held, Rekeying::Writing, event).await
}

/// Nothing that the old key authenticated is believed from here on.
async fn retire(desk: &Desk, held: Versioned<Stored>) -> Result<(), Fault> {
    install(desk, |file| desk.vault.retired_file(file)).await?;
    let event = Event::RekeyRetired {
        generation: held.value.generation.saturating_sub(1),
    };
    next(desk, held, Rekeying::Retired, event).await
}

/// The old key goes.
async fn clear(desk: &Desk, held: Versioned<Stored>) -> Result<(), Fault> {
    let (now, retired) = (desk.world.now(), held.value.since);
    // A change of what opens the vault names the file that it replaces: that stays what it is meanwhile.
    if now < retired.after(RETIRED_SECONDS)
        || is_needed(desk, retired)?
        || method::is_under_way(desk, now)?
    {
        return Ok(());
    }
    // What was shown before and set up after it was retired is sealed with it still.
    let found = rewrite(desk).await?;
    if found.damaged > 0 {
        tracing::error!(
            rows = found.damaged,
            "ALARM: the old key stays: there are rows that do not open, and would be lost with it"
        );
    }
    if found.damaged > 0 || found.written > 0 {
        return Ok(());
    }
    install(desk, |file| desk.vault.cleared_file(file)).await?;
    let event = Event::RekeyDone {
        generation: held.value.generation,
    };
    let batch = Batch::new().delete(REKEY, ROW, held.version);
    desk.commit(batch, &[event], now).await.map(drop)
}

/// Whether a request is open whose ticket and match code are derived from the old key.
fn is_needed(desk: &Desk, retired: UnixTime) -> Result<bool, Fault> {
    // By a clock that was far ahead it would be needed for ever.
    let since = desk.vault.derives_since()?.unwrap_or(UnixTime(0));
    let since = since.min(retired.after(LEAD_SECONDS));
    // Ids are ordered by time.
    let oldest = desk.live.range(ledger::REQUESTS, b"", None, 1)?;
    let opened = oldest.first().and_then(|(key, _)| ledger::id_of(key));
    let opened = opened.and_then(|id| id.0.get_timestamp());
    Ok(opened.is_some_and(|at| at.to_unix().0 < since.0))
}

/// Puts another key file in the place of the present one, and takes its keys in.
async fn install(
    desk: &Desk,
    make: impl FnOnce(&[u8]) -> Result<Vec<u8>, InitError>,
) -> Result<(), Fault> {
    // The key file has one writer. Whoever it is will be done in the next round.
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Fault::Conflict(REKEY, ROW.to_vec()));
    };
    let now_there = file::read(desk).await?;
    let bytes = make(now_there.expose()).map_err(|why| {
        tracing::error!(%why, "the vault cannot be re-keyed: the key file is not the one that opened it");
        Fault::Damaged("the key file")
    })?;
    let folder = desk.place.data.clone();
    let work = move || file::install(&folder, &bytes).map(|()| bytes);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(bytes)) => desk.vault.take_in(&bytes).map_err(|why| {
            tracing::error!(%why, "the new key file does not open with the key that it was made with");
            Fault::Damaged("the key file")
        }),
        other => {
            tracing::error!(?other, "the key file was not replaced; the one before is good");
            Err(Fault::Damaged("the key file"))
        }
    }
}

async fn next(
    desk: &Desk,
    held: Versioned<Stored>,
    step: Rekeying,
    event: Event,
) -> Result<(), Fault> {
    let now = desk.world.now();
    let stored = Stored {
        step,
        since: now,
        ..held.value
    };
    let row = desk.authentic(REKEY, ROW, &stored)?;
    let batch = Batch::new().replace(REKEY, ROW, held.version, row);
    desk.commit(batch, &[event], now).await.map(drop)
}

/// The row. One that cannot be believed is none.
fn read(desk: &Desk) -> Result<Option<Versioned<Stored>>, Fault> {
    match desk.authentic_row(REKEY, ROW) {
        Err(Fault::Damaged(_)) => Ok(None),
        held => held,
    }
}

/// Writes anew what the old key sealed or authenticated.
async fn rewrite(desk: &Desk) -> Result<Found, Fault> {
    let mut found = Found::default();
    for (name, proof) in TABLES {
        if proof != Proof::Bare {
            table(desk, Table(name), proof, true, &mut found).await?;
            table(desk, Table(name), proof, false, &mut found).await?;
        }
    }
    Ok(found)
}

async fn table(
    desk: &Desk,
    table: Table,
    proof: Proof,
    is_live: bool,
    found: &mut Found,
) -> Result<(), Fault> {
    let (store, other) = if is_live {
        (&desk.live, &desk.history)
    } else {
        (&desk.history, &desk.live)
    };
    let mut after: Option<Vec<u8>> = None;
    loop {
        // Between the copy into the history and its end in the live store a row must not change.
        let _still = desk.backups.moving.lock().await;
        let rows = store.range(table, b"", after.as_deref(), CHUNK)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        let mut batch = Batch::new();
        for (key, row) in rows {
            // A crash left it in both, and they must stay equal until it has gone from the live store.
            if proof == Proof::Request && other.get(table, &key)?.is_some() {
                found.written += 1;
                continue;
            }
            // One that was put back is not made genuine by this.
            if is_live && is_listed(table) && !desk.inventory()?.has(table, &key, Some(&row.value))
            {
                continue;
            }
            match renewed(&desk.vault, table, proof, &key, &row.value) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    batch = batch.replace(table, &key, row.version, value);
                    found.written += 1;
                }
                // It was so before, and stays what it is.
                Err(Fault::Damaged(what)) => {
                    tracing::error!(table = table.0, what, "a row cannot be written anew");
                    found.damaged += 1;
                }
                Err(fault) => return Err(fault),
            }
        }
        if !batch.is_empty() {
            let done = if is_live {
                desk.commit(batch, &[], desk.world.now()).await.map(drop)
            } else {
                store.commit(batch).await.map(drop).map_err(Fault::from)
            };
            match done {
                // Somebody wrote one of them meanwhile; the next round has the rest.
                Ok(()) | Err(Fault::Conflict(..)) => {}
                Err(fault) => return Err(fault),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// The row as it is written under the current key; none where it is so already, or proves nothing.
fn renewed(
    vault: &Vault,
    table: Table,
    proof: Proof,
    key: &[u8],
    value: &[u8],
) -> Result<Option<Vec<u8>>, Fault> {
    let sealed_anew = |binding: &Binding<'_>| {
        if vault.seal_is_new(value)? {
            return Ok(None);
        }
        let plain = vault.open_row(binding, value)?;
        Ok(Some(vault.seal_row(binding, plain.expose())?))
    };
    match proof {
        Proof::Bare => Ok(None),
        Proof::Channel => sealed_anew(&bells::binding(key)),
        Proof::Key => match contents::own_binding(key) {
            Some(binding) => sealed_anew(&binding),
            None => Ok(None),
        },
        Proof::Request => request(vault, key, value),
        Proof::Mac | Proof::Person | Proof::Freeze => authentic(vault, table, key, value),
    }
}

fn authentic(
    vault: &Vault,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<Option<Vec<u8>>, Fault> {
    let Ok(plain) = rows::check_authentic(vault, table, key, value) else {
        // Made while sealed, or nobody's.
        return Ok(None);
    };
    let inside = match table {
        people::PEOPLE => people::sealed_anew(vault, plain)?,
        tokens::TOKEN => tokens::sealed_anew(vault, plain)?,
        desk::inventory::ACTS => gate::sealed_anew(vault, key, plain)?,
        desk::inventory::CHANGES => method::sealed_anew(vault, plain)?,
        _ => None,
    };
    if inside.is_none() && rows::is_new(vault, table, key, value)? {
        return Ok(None);
    }
    let plain = inside.as_deref().unwrap_or(plain);
    Ok(Some(rows::authentic(vault, table, key, plain)?))
}

fn request(vault: &Vault, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let damaged = Fault::Damaged("a request");
    let Some(id) = ledger::id_of(key) else {
        return Err(damaged);
    };
    let mut record = ledger::decode(id, value)?;
    let beside = record.beside_the_digest();
    let bound = unhex(&record.bound).ok_or(Fault::Damaged("a request"))?;
    if vault.mac_is_new(Domain::Row, &beside, &bound)? {
        return Ok(None);
    }
    if !vault.mac_holds(Domain::Row, &beside, &bound)? {
        return Err(damaged);
    }
    record.bound = hex(&vault.mac(Domain::Row, &beside)?);
    ledger::encode(&record).map(Some)
}
