//! What waits for a person, most urgent first.

use super::{Refusal, confirm, intent, ledger, question::concerns, state::Record, unseen, veto};
use crate::desk::{Desk, Fault, people::Person};
use proto::{
    api::{Inbox, InboxLine, StateName},
    digest::{hex, unhex},
    request::Item,
    stop::EVERYTHING,
    time::UnixTime,
};
use std::collections::BTreeSet;

/// Most lines of one page.
pub const PAGE_MAX: usize = 200;
/// Most frozen packages that are looked at for alarms.
const ALARMS_MAX: usize = 500;
/// Rows looked at for one page: a page may be short, or empty, and still name a next one.
const LOOK_MAX: usize = 1000;

/// A page of what waits for this person. Who asks first for what runs out first: the rows are walked
/// in the order in which their time for answers ends, so no flood of fresh requests can push one off
/// the list (attack 54). `after` is the `next` of the page before.
pub fn inbox(
    desk: &Desk,
    person: &Person,
    after: Option<&str>,
    limit: usize,
    now: UnixTime,
) -> Result<Inbox, Refusal> {
    let limit = limit.clamp(1, PAGE_MAX);
    let after = after
        .map(|text| {
            unhex(text)
                .filter(|key| ledger::untimed(key).is_some())
                .ok_or_else(|| Refusal::BadRequest("`after` is not a page's `next`".to_owned()))
        })
        .transpose()?;
    let rows = desk
        .live
        .range(ledger::DUE, b"", after.as_deref(), LOOK_MAX)
        .map_err(Fault::from)?;
    let more = rows.len() == LOOK_MAX;
    let mut requests = Vec::new();
    let mut last = None;
    for (key, _) in rows {
        if requests.len() == limit {
            return Ok(Inbox {
                requests,
                alarms: alarms(desk, person)?,
                unseen: unseen(desk, person)?,
                next: last,
            });
        }
        let held = ledger::untimed(&key)
            .map(|(_, id)| ledger::among(desk, id))
            .transpose()?
            .flatten();
        last = Some(hex(&key));
        if let Some(r) = held.map(|h| h.record)
            && (matches!(r.name(), StateName::Pending | StateName::Confirming)
                || veto::until(desk, &r, now)?.is_some())
            && !r.overdue(now)
            && concerns(desk, &r, person)
            // One that was approved has a row for its new deadline beside the first.
            && !requests.iter().any(|l: &InboxLine| l.id == r.facts.id)
        {
            requests.push(line(desk, &r, person, now)?);
        }
    }
    let next = last.filter(|_| more);
    Ok(Inbox {
        requests,
        alarms: alarms(desk, person)?,
        unseen: unseen(desk, person)?,
        next,
    })
}

/// What the broker froze this person's packages for: nobody should have to look for it.
fn alarms(desk: &Desk, person: &Person) -> Result<Vec<String>, Fault> {
    let mut out = Vec::new();
    for (key, _) in desk.live.range(ledger::FROZEN, b"", None, ALARMS_MAX)? {
        let Ok(package) = String::from_utf8(key) else {
            continue;
        };
        let Some((_, freeze)) = ledger::freeze(desk, &package)? else {
            continue;
        };
        if package == EVERYTHING {
            out.insert(0, freeze.stopped_words());
            continue;
        }
        if !answers_for(desk, &package, person) {
            continue;
        }
        if freeze.damaged {
            out.push(format!(
                "{package}: the record of its freeze is damaged; it stays frozen until two admins thaw it"
            ));
        }
        out.extend(freeze.seen.map(|seen| seen.words()));
    }
    Ok(out)
}

/// What was published of this person's packages, perhaps, and nobody can see.
fn unseen(desk: &Desk, person: &Person) -> Result<Vec<String>, Fault> {
    let all = unseen::all(desk)?.into_iter();
    let own = all.filter(|u| answers_for(desk, &u.package, person));
    Ok(own.map(|u| u.words).collect())
}

/// Whether a package (`npm:@acme/left`) is this person's business, by today's policy.
pub(super) fn answers_for(desk: &Desk, package: &str, person: &Person) -> bool {
    let policy = desk.policy.load();
    let approvers = package.split_once(':').and_then(|(registry, name)| {
        let entry = policy.entry(&registry.parse().ok()?, &name.parse().ok()?);
        entry.ok().map(|e| &e.approvers)
    });
    person.admin || approvers.is_some_and(|a| a.iter().any(|g| person.groups.contains(g)))
}

fn line(desk: &Desk, r: &Record, person: &Person, now: UnixTime) -> Result<InboxLine, Fault> {
    let status = intent::status_at(desk, r, now)?;
    Ok(InboxLine {
        id: r.facts.id,
        title: r.facts.items.first().map(Item::name).unwrap_or_default(),
        items: r.facts.items.len(),
        packages: packages(r),
        request_digest: r.digest,
        caller: caller_line(r),
        opened: r.opened,
        expires: r.expires(),
        approvals: (status.approvals, r.quorum),
        not_before: status.not_before,
        answered: r.evidence().iter().any(|e| e.person == person.id),
        intended_by: r
            .intents
            .iter()
            .map(|f| f.evidence.person.clone())
            .collect(),
        confirm: confirm::lines(desk, r),
    })
}

fn packages(record: &Record) -> Vec<String> {
    let items = record.facts.items.iter();
    let packages: BTreeSet<_> = items.map(Item::package_key).collect();
    packages.into_iter().collect()
}

pub(super) fn caller_line(record: &Record) -> String {
    let c = &record.facts.caller;
    let name = c.claims.get("repository").unwrap_or(&c.subject);
    format!("{}: {name}", c.issuer)
}
