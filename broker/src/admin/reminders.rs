//! Tokens that are to be rotated: counted, and told to the admins, once for each step of each version. And old ones that
//! are to be revoked at their registries, or are kept until the new ones were accepted: told again every week.
//!
//! If an attacker writes here: the admins are told once more, or not; the list and the metrics do not read these rows.

use super::tokens;
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    publish::{Refusal, ring},
    store::{Batch, Row, Table},
    vault::tokens::left,
};
use proto::{
    api::{Rotation, TokenLine},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `registry:scope`: what was told last.
const REMINDED: Table = Table("token-reminded");
/// The row of what is to be revoked at registries; no token's key is without a colon.
const LEFT: &[u8] = b"left";
/// The row of what is kept.
const KEPT: &[u8] = b"kept";
/// Seconds between two reminders of these; the first one is told when the token is destroyed, and where it is rotated.
const WEEK: u64 = 7 * 24 * 3600;
/// Rows read at once.
const PAGE: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reminded {
    version: u64,
    rotation: Rotation,
}

/// Looks at every token's age and expiry. What has come a step nearer is told in the commit that remembers it.
pub async fn sweep(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let all = match tokens::list(desk, now) {
        Ok(all) => all,
        Err(Refusal::Fault(fault)) => return Err(fault),
        Err(_) => return Ok(()),
    };
    let some_kept = all.iter().any(|t| t.held);
    let present = all.into_iter().filter(TokenLine::is_present);
    let mut known = reminded(desk)?;
    let (mut soon, mut due) = (0, 0);
    let some_left = !left::all(&desk.vault, &*desk.live)?.is_empty();
    let left = (LEFT, known.remove(LEFT));
    let (batch, told_left) = weekly(Batch::new(), some_left, left, now);
    let kept = (KEPT, known.remove(KEPT));
    let (mut batch, told_kept) = weekly(batch, some_kept, kept, now);
    let mut again = told_left || told_kept;
    let mut events = Vec::new();
    for token in present {
        match token.rotation {
            Rotation::Later => {}
            Rotation::Soon => soon += 1,
            Rotation::Now => due += 1,
        }
        let key = format!("{}:{}", token.registry, token.scope);
        let old = known.remove(key.as_bytes());
        let told = old.as_ref().and_then(|row| of_version(row, token.version));
        if token.rotation <= told.unwrap_or_default() {
            continue;
        }
        let value = Reminded {
            version: token.version,
            rotation: token.rotation,
        };
        let value = serde_json::to_vec(&value).map_err(|_| Fault::Damaged("a reminder"))?;
        batch = batch.put(REMINDED, key.as_bytes(), old.map(|old| old.version), value);
        tracing::warn!(registry = %token.registry, scope = token.scope, version = token.version,
            percent = token.age_percent, "a registry token is to be rotated");
        events.push(event(&token));
    }
    desk.metrics.tokens_rotate_soon.set(soon);
    desk.metrics.tokens_rotate_now.set(due);
    // Those of tokens that are gone.
    for (key, row) in known {
        batch = batch.delete(REMINDED, key, row.version);
    }
    if batch.is_empty() {
        return Ok(());
    }
    again |= !events.is_empty();
    if again {
        batch = ring::notice(desk, batch, About::Token, "", None)?;
    }
    match desk.commit(batch, &events, now).await {
        Ok(_) => {
            desk.bells.ask();
            Ok(())
        }
        // Whatever changed meanwhile is looked at in the next round.
        Err(Fault::Conflict(..)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Remembers that there is something to do, and whether admins are told of it once more.
fn weekly(
    batch: Batch,
    some: bool,
    (key, row): (&'static [u8], Option<Row>),
    now: UnixTime,
) -> (Batch, bool) {
    let told = row.as_ref().and_then(|row| {
        let bytes = row.value.as_slice().try_into();
        bytes.map(|b| UnixTime(u64::from_be_bytes(b))).ok()
    });
    let value = now.0.to_be_bytes();
    match (some, row) {
        (false, None) => (batch, false),
        (false, Some(row)) => (batch.delete(REMINDED, key, row.version), false),
        (true, None) => (batch.create(REMINDED, key, value), false),
        (true, Some(_)) if told.is_some_and(|told| now < told.after(WEEK)) => (batch, false),
        (true, Some(row)) => (batch.replace(REMINDED, key, row.version, value), true),
    }
}

fn event(token: &TokenLine) -> Event {
    Event::TokenAged {
        registry: token.registry.clone(),
        scope: token.scope.clone(),
        version: token.version,
        rotation: token.rotation,
    }
}

/// What was told of this version. A row that cannot be read is told anew.
fn of_version(row: &Row, version: u64) -> Option<Rotation> {
    let told: Reminded = serde_json::from_slice(&row.value).ok()?;
    (told.version == version).then_some(told.rotation)
}

fn reminded(desk: &Desk) -> Result<BTreeMap<Vec<u8>, Row>, Fault> {
    let mut all = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(REMINDED, b"", after.as_deref(), PAGE)?;
        let more = rows.len() == PAGE;
        after = rows.last().map(|(key, _)| key.clone());
        all.extend(rows);
        if !more {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_an_admin_is_told_again_every_week() {
        let row = |at: u64| {
            Some(Row {
                version: 1,
                value: at.to_be_bytes().to_vec(),
            })
        };
        let told = |some, row, at| {
            let (batch, told) = weekly(Batch::new(), some, (KEPT, row), UnixTime(at));
            (!batch.is_empty(), told)
        };
        assert_eq!(told(false, None, 5), (false, false));
        assert_eq!(told(true, None, 5), (true, false), "told where it began");
        assert_eq!(told(true, row(5), 4 + WEEK), (false, false));
        assert_eq!(told(true, row(5), 5 + WEEK), (true, true));
        assert_eq!(told(false, row(5), 5 + WEEK), (true, false));
    }
}
