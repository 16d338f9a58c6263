//! Withdrawing a version at its registry: yank, deprecate, and back. An act of the admins' gate.
//!
//! The agreement stores what is to be done, in its own commit; [`sweep`] does it. The call says the same however often it
//! is made, so after a crash, a time-out or an unclear answer it is made again, until the registry shows it.
//!
//! What if an attacker writes here: rows are authenticated, and the inventory lists them. He can delete one, and then
//! nothing is withdrawn. One that he puts back (what was called back, or is done and was undone since) is not believed:
//! nothing of it is sent, and who wants it agrees anew.

mod call_back;

pub use call_back::call_back;

use crate::{
    audit::event::Event,
    desk::{Desk, Fault, inventory::WITHDRAWALS, turns::Turn},
    publish::{
        Refusal, frozen, ledger,
        state::{Progress, Record},
    },
    registry::{
        Sent,
        withdraw::{Mark, Withdraw},
    },
    secret::Secret,
    store::Batch,
    vault::release,
};
use proto::{
    act::Withdrawal,
    ids::PersonId,
    stop::{WithdrawalLine, WithdrawalState},
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest message, in bytes.
const MESSAGE_MAX: usize = 300;
/// Rows that are looked at.
const LOOK_MAX: usize = 500;
/// Calls until it is given up.
const ATTEMPTS_MAX: u32 = 12;
/// How long one call may take.
const WITHIN: Duration = Duration::from_mins(1);
/// Seconds until the first look at the registry after a call; then as many as went by since the call.
const LOOK: u64 = 2;
/// Most requests of a package that are looked at before its document is sent: more than may be open at once.
const OPEN_MAX: usize = 1000;
/// Seconds between two calls after the first, and the most of them: they double.
const PAUSE: (u64, u64) = (5, 3600);
/// Seconds for which it is told how it ended.
const TOLD: u64 = 30 * 24 * 3600;

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    what: Withdrawal,
    by: PersonId,
    confirmed: Vec<PersonId>,
    agreed: UnixTime,
    /// Calls that left, or may have. One of them stands for all those of an agreement before, whose place this one took.
    attempts: u32,
    /// When the last call left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<UnixTime>,
    /// When to look next, or when it ended.
    next: UnixTime,
    state: WithdrawalState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<String>,
}

/// Prepares it: whatever is wrong with it is said before anybody agrees. `agreed` is who asked and who confirmed.
pub(super) async fn put(
    desk: &Desk,
    what: &Withdrawal,
    agreed: (&PersonId, Vec<PersonId>),
    batch: Batch,
    now: UnixTime,
) -> Result<(Batch, Vec<Event>), Refusal> {
    let bad = |why: String| Refusal::BadRequest(why);
    let name = what.name();
    let adapter = checked(desk, what).map_err(bad)?;
    if what.undo && frozen::is_frozen(desk, &what.package_key())? {
        return Err(bad(format!(
            "{name} is frozen: two admins thaw it before it is offered again"
        )));
    }
    let token = token(desk, what, now)?;
    let shown = adapter.shows_mark(mark(what), Some(&token)).await;
    match shown.map_err(|e| Refusal::RegistryDown(e.to_string()))? {
        None => return Err(bad(format!("{name}: the registry does not show it"))),
        Some(true) => return Err(bad(format!("{name}: the registry shows it so already"))),
        Some(false) => {}
    }
    let (by, confirmed) = agreed;
    let key = name.as_bytes();
    // The version first: a call that leaves in between is a conflict, and nobody forgets it.
    let old = desk.live.get(WITHDRAWALS, key).map_err(Fault::from)?;
    let (attempts, sent) = left_before(desk, key)?;
    let row = Stored {
        what: what.clone(),
        by: by.clone(),
        confirmed: confirmed.clone(),
        agreed: now,
        attempts,
        sent,
        next: now,
        state: WithdrawalState::Waiting,
        said: None,
    };
    let event = Event::WithdrawalAgreed {
        name: name.clone(),
        undo: what.undo,
        by: by.clone(),
        confirmed,
    };
    let bytes = desk.authentic(WITHDRAWALS, key, &row)?;
    // A later agreement takes an earlier one's place: it says what is wanted now.
    let batch = batch.put(WITHDRAWALS, key, old.map(|old| old.version), bytes);
    Ok((batch, vec![event]))
}

/// What may have left for the agreement whose place another one takes: a call of it, and when the last one left. That
/// call may still arrive, and so the new agreement cannot be called back as one of which nothing has left.
fn left_before(desk: &Desk, key: &[u8]) -> Result<(u32, Option<UnixTime>), Fault> {
    match desk.authentic_row::<Stored>(WITHDRAWALS, key) {
        Ok(Some(old)) if old.value.state == WithdrawalState::Waiting => {
            Ok((old.value.attempts.min(1), old.value.sent))
        }
        Ok(_) => Ok((0, None)),
        // A row that cannot be believed keeps nobody from agreeing anew; what left for the true one nobody knows.
        Err(Fault::Damaged(_)) => Ok((1, None)),
        Err(other) => Err(other),
    }
}

/// What can be said of it without asking the registry.
fn checked<'a>(desk: &'a Desk, what: &Withdrawal) -> Result<&'a dyn Withdraw, String> {
    let name = what.name();
    let registry = desk.registries.get(&what.registry);
    let registry =
        registry.ok_or_else(|| format!("this broker has no registry '{}'", what.registry))?;
    let canonical = (registry.kind().row().package)(what.package.as_str())?;
    if canonical != what.package {
        return Err(format!("write the package's name as {canonical}"));
    }
    let adapter = adapter(desk, what).map_err(|why| format!("{name}: {why}"))?;
    match &what.message {
        _ if what.undo && !adapter.undoes() => Err(format!(
            "{name}: the registry takes no yank back; release the next version"
        )),
        Some(_) if what.undo || !adapter.tells() => {
            Err(format!("{name}: the registry shows no message here"))
        }
        None if adapter.tells() && !what.undo => {
            Err("say with --message what users are told".to_owned())
        }
        Some(words) => match text::check(words, MESSAGE_MAX) {
            Ok(()) => Ok(adapter),
            Err(why) => Err(format!("the message {why}")),
        },
        None => Ok(adapter),
    }
}

fn adapter<'a>(desk: &'a Desk, what: &Withdrawal) -> Result<&'a dyn Withdraw, &'static str> {
    match desk.upstream(&what.registry) {
        Some(upstream) => upstream.withdraw(),
        None => Err("a secret's name has no versions that anybody could choose"),
    }
}

fn mark(what: &Withdrawal) -> Mark<'_> {
    Mark {
        package: &what.package,
        version: &what.version,
        message: what.message.as_deref(),
        undo: what.undo,
    }
}

/// The stored token that covers the package. It is opened for a question that the broker asks itself, or for the one
/// call that admins agreed to.
fn token(desk: &Desk, what: &Withdrawal, now: UnixTime) -> Result<Secret<String>, Refusal> {
    let (vault, live) = (&desk.vault, &*desk.live);
    let found = release::for_reading(vault, live, &what.registry, &what.package, now);
    found
        .map_err(Fault::from)?
        .ok_or_else(|| Refusal::NoToken(what.package_key()))
}

/// All that was agreed to lately, newest first.
pub fn list(desk: &Desk) -> Result<Vec<WithdrawalLine>, Refusal> {
    let mut lines = Vec::new();
    for (_, _, row) in rows(desk)? {
        lines.push(line(row));
    }
    lines.sort_by_key(|l| std::cmp::Reverse(l.agreed));
    Ok(lines)
}

fn line(row: Stored) -> WithdrawalLine {
    WithdrawalLine {
        ended: (row.state != WithdrawalState::Waiting).then_some(row.next),
        withdrawal: row.what,
        by: row.by,
        confirmed: row.confirmed,
        agreed: row.agreed,
        state: row.state,
        attempts: row.attempts,
        said: row.said,
    }
}

fn rows(desk: &Desk) -> Result<Vec<(Vec<u8>, u64, Stored)>, Fault> {
    let mut all = Vec::new();
    for (key, _) in desk.live.range(WITHDRAWALS, b"", None, LOOK_MAX)? {
        match desk.authentic_row::<Stored>(WITHDRAWALS, &key) {
            Err(Fault::Damaged(what)) => {
                tracing::error!(
                    what,
                    "ALARM: what admins agreed to withdraw cannot be believed"
                );
            }
            row => all.extend(row?.map(|row| (key, row.version, row.value))),
        }
    }
    Ok(all)
}

/// Does what was agreed to, one after the other.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    // What an older copy has may have been taken back since.
    if desk.vault.is_sealed() || desk.restored()?.is_some() {
        return Ok(());
    }
    for (key, version, row) in rows(desk)? {
        let done = match row.state {
            WithdrawalState::Waiting if row.next <= now => one(desk, &key, version, row, now).await,
            WithdrawalState::Waiting => Ok(()),
            _ if now.since(row.next) > TOLD => {
                let gone = Batch::new().delete(WITHDRAWALS, &key, version);
                desk.commit(gone, &[], now).await.map(drop)
            }
            _ => Ok(()),
        };
        match done {
            // Somebody agreed to something else meanwhile: it is looked at again.
            Ok(()) | Err(Fault::Conflict(..)) => {}
            // What cannot be believed keeps no other withdrawal waiting.
            Err(Fault::Damaged(what)) => {
                let name = String::from_utf8_lossy(&key).into_owned();
                tracing::error!(name, what, "ALARM: a version cannot be withdrawn");
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn one(
    desk: &Desk,
    key: &[u8],
    version: u64,
    mut row: Stored,
    now: UnixTime,
) -> Result<(), Fault> {
    let what = row.what.clone();
    let (adapter, token) = match (adapter(desk, &what), token(desk, &what, now)) {
        (Ok(adapter), Ok(token)) => (adapter, token),
        (_, Err(Refusal::Fault(fault))) => return Err(fault),
        (Err(_), _) | (_, Err(_)) => {
            return fails(desk, key, version, row, "no token is stored for it", now).await;
        }
    };
    if what.undo && frozen::is_frozen(desk, &what.package_key())? {
        return fails(desk, key, version, row, "the package was frozen", now).await;
    }
    // After a crash, or an answer that was lost: perhaps it is done.
    if row.attempts > 0 {
        match adapter.shows_mark(mark(&what), Some(&token)).await {
            Ok(Some(true)) => return done(desk, key, version, row, now).await,
            Ok(None) => {
                let why = "the registry does not show the version any more";
                return fails(desk, key, version, row, why, now).await;
            }
            Ok(Some(false)) | Err(_) if !may_send(desk, &row, now) => {
                row.next = now.after(look(&row, now));
                return stored(desk, key, version, &row, &[], now).await;
            }
            Ok(Some(false)) | Err(_) if row.attempts < ATTEMPTS_MAX => {}
            Ok(Some(false)) | Err(_) => {
                let why = "the registry did not show it in time; look at it there";
                return fails(desk, key, version, row, why, now).await;
            }
        }
    }
    let mut turn = None;
    if adapter.rewrites() {
        turn = alone(desk, &what)?;
        if turn.is_none() && row.attempts > 0 {
            row.next = now.after(look(&row, now));
            return stored(desk, key, version, &row, &[], now).await;
        }
        // The first time nothing was asked of the registry, so that the next round looks again.
        if turn.is_none() {
            return Ok(());
        }
    }
    // Durable before the call: whatever happens now, the next look asks the registry first.
    let version = sending(desk, key, version, &mut row, now).await?;
    let sent = adapter.send_mark(mark(&what), &token, WITHIN).await;
    drop((token, turn));
    answered(desk, key, version, sent).await
}

/// The turn of a call that says all of the package again: no version of it may come to the registry between the
/// question and the call, or it would be gone with it. `None`: something is on its way.
fn alone<'a>(desk: &'a Desk, what: &Withdrawal) -> Result<Option<Turn<'a>>, Fault> {
    let package = what.package_key();
    let Some(turn) = desk.turns.alone(&package) else {
        return Ok(None);
    };
    // Those that a crash or an unclear answer left hold no turn any more.
    let open = ledger::of_package(desk, &package, OPEN_MAX)?;
    let on_its_way = |record: &Record| {
        let sent = |at| record.progress(at).is_some_and(Progress::on_its_way);
        record.files().any(sent)
    };
    let busy = open.iter().any(|held| on_its_way(&held.record));
    Ok((!busy).then_some(turn))
}

/// Counts a call that is about to leave. Returns the version of the row that says so.
async fn sending(
    desk: &Desk,
    key: &[u8],
    version: u64,
    row: &mut Stored,
    now: UnixTime,
) -> Result<u64, Fault> {
    row.attempts += 1;
    (row.sent, row.next) = (Some(now), now.after(LOOK));
    let event = Event::WithdrawalSent {
        name: row.what.name(),
        undo: row.what.undo,
        attempt: row.attempts,
    };
    let bytes = desk.authentic(WITHDRAWALS, key, row)?;
    let mut batch = Batch::new().replace(WITHDRAWALS, key, version, bytes);
    if row.what.undo {
        // A freeze beats what offers a version again, up to this commit.
        batch = frozen::unless_package_frozen(batch, row.what.package_key());
    }
    let done = desk.commit(batch, &[event], now).await?;
    Ok(done.version)
}

/// What the registry said to the call that the row of this version counted. Its yes is no more than a reason to look.
async fn answered(desk: &Desk, key: &[u8], version: u64, sent: Sent) -> Result<(), Fault> {
    let held = desk.authentic_row::<Stored>(WITHDRAWALS, key)?;
    // Somebody may have agreed to something meanwhile, or to the same again: this answers none of it.
    let Some(held) = held.filter(|h| h.version == version) else {
        return Ok(());
    };
    let (version, row) = (held.version, held.value);
    let now = desk.world.now();
    match sent {
        Sent::Refused { status, said } => {
            let said = format!("the registry said no ({status}): {said}");
            fails(desk, key, version, row, &said, now).await
        }
        Sent::NeedsFactor(_) => {
            let said = "the registry wants its own second factor: do it with your own login there";
            fails(desk, key, version, row, said, now).await
        }
        // The next look asks it.
        Sent::Accepted | Sent::Unclear | Sent::Staged(_) => Ok(()),
    }
}

/// Whether the registry had the time to show what it was told last; the pause grows with every call.
fn may_send(desk: &Desk, row: &Stored, now: UnixTime) -> bool {
    let lag = desk.upstream(&row.what.registry).map(|u| u.lag().as_secs());
    let pause = pause(row).max(lag.unwrap_or_default());
    row.sent.is_none_or(|sent| now >= sent.after(pause))
}

/// Seconds between the last call and the next, whatever the registry needs.
fn pause(row: &Stored) -> u64 {
    let pause = PAUSE.0.saturating_mul(1 << row.attempts.min(20));
    pause.min(PAUSE.1)
}

/// Seconds until the next look: they double, up to the pause.
fn look(row: &Stored, now: UnixTime) -> u64 {
    let gone = row.sent.map_or(0, |sent| now.since(sent));
    gone.clamp(LOOK, pause(row).max(LOOK))
}

async fn stored(
    desk: &Desk,
    key: &[u8],
    version: u64,
    row: &Stored,
    events: &[Event],
    now: UnixTime,
) -> Result<(), Fault> {
    let bytes = desk.authentic(WITHDRAWALS, key, row)?;
    let batch = Batch::new().replace(WITHDRAWALS, key, version, bytes);
    desk.commit(batch, events, now).await.map(drop)
}

async fn done(
    desk: &Desk,
    key: &[u8],
    version: u64,
    mut row: Stored,
    now: UnixTime,
) -> Result<(), Fault> {
    row.state = WithdrawalState::Done;
    row.said = None;
    let event = Event::WithdrawalDone {
        name: row.what.name(),
        undo: row.what.undo,
    };
    ends(desk, key, version, row, event, now).await
}

async fn fails(
    desk: &Desk,
    key: &[u8],
    version: u64,
    mut row: Stored,
    said: &str,
    now: UnixTime,
) -> Result<(), Fault> {
    tracing::error!(name = row.what.name(), said, "a version was not withdrawn");
    row.state = WithdrawalState::Failed;
    row.said = Some(said.to_owned());
    let event = Event::WithdrawalFailed {
        name: row.what.name(),
        undo: row.what.undo,
    };
    ends(desk, key, version, row, event, now).await
}

async fn ends(
    desk: &Desk,
    key: &[u8],
    version: u64,
    mut row: Stored,
    event: Event,
    now: UnixTime,
) -> Result<(), Fault> {
    row.next = now;
    stored(desk, key, version, &row, &[event], now).await
}
