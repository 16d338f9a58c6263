//! What a person may look back at: requests that ended, and the packages that are his business.

use super::{
    Refusal, ended, frozen, inbox,
    known::LOOKS,
    ledger::{self, BY_PACKAGE, FROZEN},
    question::concerns,
};
use crate::{
    desk::{Desk, Fault, people::Person},
    store::Table,
};
use proto::{
    api::{FrozenLine, History, HistoryLine, PackageLine, Packages},
    digest::{hex, unhex},
    ids::RequestId,
    request::Item,
    stop::EVERYTHING,
};

/// Most lines of one page.
const PAGE_MAX: usize = 50;
/// Rows looked at for one page: a page may be short, or empty, and still name a next one.
const LOOK_MAX: usize = 500;
/// Publishes shown of one package.
const PUBLISHES_SHOWN: usize = 3;
/// Most open requests that are counted of one package.
const OPEN_MAX: usize = 100;

/// A page of the requests that ended and are this person's business, newest first. Those of others do not exist
/// (attack 25).
pub fn history(
    desk: &Desk,
    person: &Person,
    after: Option<&str>,
    limit: usize,
) -> Result<History, Refusal> {
    let after = after.map(|text| {
        let key = unhex(text).filter(|key| ended::key(key).is_some());
        key.ok_or_else(|| Refusal::BadRequest("`after` is not a page's `next`".to_owned()))
    });
    let rows = ended::all(desk, after.transpose()?.as_deref(), LOOK_MAX)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let more = rows.len() == LOOK_MAX;
    let (mut requests, mut last) = (Vec::new(), None);
    for row in rows {
        if requests.len() == limit {
            return Ok(History {
                requests,
                next: last,
            });
        }
        last = Some(hex(&row.key));
        requests.extend(line(desk, person, &row)?);
    }
    Ok(History {
        requests,
        next: last.filter(|_| more),
    })
}

/// A page of the packages that are this person's business and of which the broker knows: something was asked for or
/// published, it is watched, or it is frozen.
pub fn packages(
    desk: &Desk,
    person: &Person,
    after: Option<&str>,
    limit: usize,
) -> Result<Packages, Refusal> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut last = after.unwrap_or_default().as_bytes().to_vec();
    let mut packages = Vec::new();
    for _ in 0..LOOK_MAX {
        let Some(next) = package_after(desk, &last)? else {
            return Ok(Packages {
                packages,
                next: None,
            });
        };
        if packages.len() == limit {
            return Ok(Packages {
                packages,
                next: String::from_utf8(last).ok(),
            });
        }
        last = next;
        if let Ok(name) = std::str::from_utf8(&last)
            && name != EVERYTHING
            && inbox::answers_for(desk, name, person)
        {
            packages.push(package(desk, person, name)?);
        }
    }
    Ok(Packages {
        packages,
        next: String::from_utf8(last).ok(),
    })
}

fn package(desk: &Desk, person: &Person, name: &str) -> Result<PackageLine, Fault> {
    let mut published = Vec::new();
    for row in ended::published(desk, name, PUBLISHES_SHOWN)? {
        published.extend(line(desk, person, &row)?);
    }
    let frozen = frozen::above(desk, name)?.map(|freeze| FrozenLine {
        by: freeze.by,
        since: freeze.since,
        seen: freeze.seen.map(|seen| seen.words()),
        thawing: freeze.thawing,
    });
    Ok(PackageLine {
        package: name.to_owned(),
        frozen,
        open: ledger::ids_of_package(desk, name, OPEN_MAX)?.len(),
        published,
    })
}

/// The first name behind this one in any table that knows packages: one look at each, however many rows a package has.
fn package_after(desk: &Desk, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let mut found = ended::package_after(desk, name)?;
    let past = [name, &[0], &[0xff; 17]].concat();
    for (table, from) in [(BY_PACKAGE, &past[..]), (FROZEN, name), (LOOKS, name)] {
        let next = first(desk, table, from)?;
        found = match (found, next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(found)
}

fn first(desk: &Desk, table: Table, after: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let row = desk
        .live
        .range(table, b"", Some(after), 1)?
        .into_iter()
        .next();
    Ok(row.and_then(|(key, _)| key.split(|b| *b == 0).next().map(<[u8]>::to_vec)))
}

fn line(desk: &Desk, person: &Person, row: &ended::Ended) -> Result<Option<HistoryLine>, Fault> {
    let Some(r) = found(desk, row.id)?.filter(|r| concerns(desk, r, person)) else {
        return Ok(None);
    };
    Ok(Some(HistoryLine {
        id: row.id,
        title: r.facts.items.first().map(Item::name).unwrap_or_default(),
        items: r.facts.items.len(),
        caller: inbox::caller_line(&r),
        state: r.name(),
        reason: r.status().reason,
        approvals: r.evidence().iter().map(|e| e.person.clone()).collect(),
        opened: r.opened,
        ended: row.at,
    }))
}

/// One that is damaged keeps nobody from the others.
fn found(desk: &Desk, id: RequestId) -> Result<Option<super::state::Record>, Fault> {
    match ledger::find(desk, id) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(%id, what, "a finished request's row cannot be believed; it is passed over");
            Ok(None)
        }
        other => other,
    }
}
