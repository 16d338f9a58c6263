//! Looking back in an incident: what left the broker in a time, by whose wish and whose word.

use crate::{
    desk::{Desk, Fault},
    publish::{
        Refusal, ended,
        ledger::{self, BY_SUBJECT},
        state::{CREDENTIAL_SECONDS, Record},
    },
};
use proto::{
    api::{Mode, StateName},
    digest::{hex, unhex},
    ids::RequestId,
    request::Item,
    stop::{
        ApprovedBy, GivenKind, GivenLine, PublishedFile, PublishedFiles, PublishedLine,
        PublishedPage, RegistryLine,
    },
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
    let mut page = PublishedPage::default();
    if after.is_none() {
        open(desk, &mut page)?;
    }
    let rows = ended::all(desk, after.as_deref(), LOOK_MAX)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let (more, mut last, mut lines) = (rows.len() == LOOK_MAX, None, 0);
    for row in rows {
        if row.at < since {
            last = None;
            break;
        }
        if lines == limit {
            page.next = last;
            return Ok(page);
        }
        last = Some(hex(&row.key));
        if let Some(record) = read(desk, row.id)? {
            lines += usize::from(told(&record, Some(row.at), &mut page));
        }
    }
    page.next = last.filter(|_| more);
    Ok(page)
}

/// Adds what is to be told of a request; whether there was something.
fn told(record: &Record, ended: Option<UnixTime>, page: &mut PublishedPage) -> bool {
    let given = given(record, ended);
    let any = given.is_some() || left(record);
    if left(record) {
        page.requests.push(line(record, ended));
    }
    page.given.extend(given);
    any
}

/// Open requests of which something has left, or whose job was given something.
fn open(desk: &Desk, page: &mut PublishedPage) -> Result<(), Fault> {
    for (key, _) in desk.live.range(BY_SUBJECT, b"", None, OPEN_MAX)? {
        let at = key.len().saturating_sub(ID_BYTES);
        let Some(id) = key.get(at..).and_then(ledger::id_of) else {
            continue;
        };
        if let Some(held) = ledger::among(desk, id)? {
            told(&held.record, None, page);
        }
    }
    Ok(())
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
    handed || !record.unclear.is_empty() || away(record) > 0
}

/// How many files are at a registry, or may be.
fn away(record: &Record) -> usize {
    let files = record.status().items.into_iter().flat_map(|i| i.files);
    let away = files.filter(|file| {
        matches!(
            file.state,
            StateName::Published | StateName::Conflict | StateName::Settling
        )
    });
    away.count()
}

/// What its job was given. A deposit's job has its credential from the beginning, and gives files alone by it.
fn given(record: &Record, ended: Option<UnixTime>) -> Option<GivenLine> {
    let at = record.collected?;
    let (kind, until) = match record.mode {
        Mode::Forward => (GivenKind::Credential, Some(at.after(CREDENTIAL_SECONDS))),
        Mode::Mint => (GivenKind::Minted, Some(at.after(record.mint_seconds))),
        Mode::Reveal => (GivenKind::Secret, None),
        Mode::Deposit => return None,
    };
    // A credential ends with its request, whatever time it had.
    let until = match (kind, ended) {
        (GivenKind::Credential, Some(ended)) => until.map(|until| until.min(ended)),
        _ => until,
    };
    Some(GivenLine {
        request: record.facts.id,
        names: record.facts.items.iter().map(Item::name).collect(),
        kind,
        at,
        until,
        state: record.name(),
        ended,
        left: away(record).max(record.unclear.len()),
    })
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
