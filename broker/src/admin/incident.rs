//! Looking back in an incident: what left the broker in a time, by whose wish and whose word.

use crate::{
    desk::{Desk, Fault},
    publish::{
        Refusal, ended,
        ledger::{self, BY_SUBJECT},
        state::Record,
    },
};
use proto::{
    api::{Mode, StateName},
    digest::{hex, unhex},
    ids::RequestId,
    stop::{ApprovedBy, PublishedFile, PublishedFiles, PublishedLine, PublishedPage, RegistryLine},
    time::UnixTime,
};

/// Most lines of one page.
const PAGE_MAX: usize = 100;
/// Rows looked at for one page: a page may be short, or empty, and still name a next one.
const LOOK_MAX: usize = 500;
/// Most open requests that are looked at.
const OPEN_MAX: usize = 5_000;
/// Bytes of an id at a key's end.
const ID_BYTES: usize = 16;

/// A page of what left the broker since then: first what is still open, then what ended, newest first.
pub fn published(
    desk: &Desk,
    since: UnixTime,
    after: Option<&str>,
    limit: usize,
) -> Result<PublishedPage, Refusal> {
    let after = after.map(|text| {
        let key = unhex(text).filter(|key| ended::key(key).is_some());
        key.ok_or_else(|| Refusal::BadRequest("`after` is not a page's `next`".to_owned()))
    });
    let after = after.transpose()?;
    let mut requests = match after {
        None => open(desk)?,
        Some(_) => Vec::new(),
    };
    let rows = ended::all(desk, after.as_deref(), LOOK_MAX)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let (more, mut last, mut lines) = (rows.len() == LOOK_MAX, None, 0);
    for row in rows {
        if row.at < since {
            last = None;
            break;
        }
        if lines == limit {
            return Ok(PublishedPage {
                requests,
                next: last,
            });
        }
        last = Some(hex(&row.key));
        if let Some(record) = read(desk, row.id)?
            && left(&record)
        {
            lines += 1;
            requests.push(line(&record, Some(row.at)));
        }
    }
    Ok(PublishedPage {
        requests,
        next: last.filter(|_| more),
    })
}

/// Open requests of which something has left.
fn open(desk: &Desk) -> Result<Vec<PublishedLine>, Fault> {
    let mut lines = Vec::new();
    for (key, _) in desk.live.range(BY_SUBJECT, b"", None, OPEN_MAX)? {
        let at = key.len().saturating_sub(ID_BYTES);
        let Some(id) = key.get(at..).and_then(ledger::id_of) else {
            continue;
        };
        if let Some(held) = ledger::among(desk, id)?
            && left(&held.record)
        {
            lines.push(line(&held.record, None));
        }
    }
    Ok(lines)
}

/// One that is damaged keeps nobody from the others.
fn read(desk: &Desk, id: RequestId) -> Result<Option<Record>, Fault> {
    match ledger::find(desk, id) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(%id, what, "a request's row cannot be believed; it is passed over");
            Ok(None)
        }
        other => other,
    }
}

/// Whether something of it is at a registry, may be, or was given to the job itself.
fn left(record: &Record) -> bool {
    let handed = matches!(record.mode, Mode::Mint | Mode::Reveal) && record.collected.is_some();
    let away = |state| {
        matches!(
            state,
            StateName::Published | StateName::Conflict | StateName::Settling
        )
    };
    let files = record.status().items.into_iter().flat_map(|i| i.files);
    handed || !record.unclear.is_empty() || files.into_iter().any(|f| away(f.state))
}

fn line(record: &Record, ended: Option<UnixTime>) -> PublishedLine {
    let facts = &record.facts;
    let status = record.status();
    let items = facts.items.iter().zip(status.items).map(|(item, told)| {
        let files = item.files.iter().zip(told.files);
        PublishedFiles {
            name: item.name(),
            files: files
                .map(|(file, told)| PublishedFile {
                    name: file.name.clone(),
                    size: file.size,
                    digest: file.digest.clone(),
                    state: told.state,
                })
                .collect(),
        }
    });
    let answers = record.evidence().iter().map(|e| ApprovedBy {
        person: e.person.clone(),
        factor: e.factor,
    });
    let intents = record.counting().map(|e| ApprovedBy {
        person: e.person.clone(),
        factor: e.factor,
    });
    PublishedLine {
        request: facts.id,
        state: status.state,
        mode: record.mode,
        ended,
        items: items.collect(),
        asked_by: format!("{} {}", facts.caller.issuer, facts.caller.subject),
        actor: record.actor.clone(),
        run: facts.caller.run_url.clone(),
        approved_by: answers.chain(intents).collect(),
        announced_by: record.counting().map(|e| e.person.clone()).collect(),
    }
}

/// The configured registries.
pub fn registries(desk: &Desk) -> Vec<RegistryLine> {
    let all = desk.registries.iter();
    all.map(|(name, registry)| RegistryLine {
        registry: name.clone(),
        kind: registry.kind().name().to_owned(),
        web: desk.place.web.get(name).map(ToString::to_string),
    })
    .collect()
}
