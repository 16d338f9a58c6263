//! `admin report`: an access review. Who can approve what, what each person and device did in a time, tokens and
//! their age, what changed, and what was published by whose word; as Markdown, or as JSON.

use super::{
    audit::find::{since, until},
    token as tokens,
};
use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
};
use proto::{
    api::{ClientKeyLine, Found, LeftToken, PersonLine, Rotation, TokenLine},
    ids::RequestId,
    log::find::Entry,
    policy::{PolicyEntry, PolicyShown},
    text::harmless,
    time::UnixTime,
};
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

/// Most entries of the log that a report reads.
const ENTRIES_MAX: usize = 200_000;
/// Types of events that change who may do what.
const CHANGES: [&str; 49] = [
    "policy-loaded",
    "act-asked",
    "act-confirmed",
    "act-vetoed",
    "act-expired",
    "invite-made",
    "person-enrolled",
    "person-changed",
    "person-removed",
    "person-recovered",
    "recovery-asked",
    "recovery-cancelled",
    "recovery-invited",
    "device-added",
    "device-removed",
    "passkey-added",
    "passkey-removed",
    "totp-set",
    "token-stored",
    "token-rotated",
    "token-back",
    "token-tried",
    "token-removed",
    "token-refused",
    "token-destroyed",
    "token-ended",
    "token-revoked",
    "token-emptied",
    "token-aged",
    "client-key-added",
    "client-key-removed",
    "frozen",
    "frozen-by-broker",
    "thaw-asked",
    "thawed",
    "everything-stopped",
    "invite-ended",
    "withdrawal-agreed",
    "withdrawal-done",
    "withdrawal-failed",
    "withdrawal-called-back",
    "sealed",
    "share-key-set",
    "unseal-method-asked",
    "unseal-method-agreed",
    "unseal-method-changed",
    "restored-accepted",
    "rekey-begun",
    "rekey-done",
];

/// An access review of a time.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin report                                             # the last 30 days
  countersign admin report --month 2026-10 --out review-2026-10.md
  countersign admin report --quarter 2026-Q3 --json > review.json
  countersign admin report --since 2026-11-01 --until 2026-11-15

Who can approve what, people and tokens are those of now; changes, publishes and what each person did are those of \
the time. What the log says is the broker's own word: countersign admin audit export, countersign verify.")]
pub(crate) struct Args {
    /// A month: 2026-10
    #[arg(long, value_name = "MONTH", value_parser = month, conflicts_with_all = ["quarter", "since", "until"])]
    month: Option<Period>,
    /// A quarter: 2026-Q3
    #[arg(long, value_name = "QUARTER", value_parser = quarter, conflicts_with_all = ["since", "until"])]
    quarter: Option<Period>,
    /// Not before: a day, a moment, or so long ago (30 days when absent)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixTime>,
    /// Not after: the same
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<UnixTime>,
    /// Write it to this file
    #[arg(long)]
    out: Option<PathBuf>,
}

/// From, and to its last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Period {
    since: UnixTime,
    until: UnixTime,
}

/// What is reported.
#[derive(Serialize)]
struct Report {
    period: Period,
    made: UnixTime,
    policy: PolicyShown,
    warnings: Vec<String>,
    people: Vec<Who>,
    tokens: Vec<TokenLine>,
    /// Old tokens that may still be good at their registries.
    left: Vec<LeftToken>,
    client_keys: Vec<ClientKeyLine>,
    changes: Vec<Told>,
    publishes: Vec<Publish>,
}

/// A person, and what the log says of the time.
#[derive(Serialize)]
struct Who {
    #[serde(flatten)]
    line: PersonLine,
    /// Entries of what the person did: not what was done to him, nor that he was rung.
    entries: usize,
    /// Answers that counted.
    answers: usize,
    /// Devices by which nothing was done.
    idle_devices: Vec<String>,
}

/// An entry in one line.
#[derive(Serialize)]
struct Told {
    time: UnixTime,
    what: String,
}

/// A version that went out.
#[derive(Serialize)]
struct Publish {
    time: UnixTime,
    request: Option<RequestId>,
    items: Vec<String>,
    approved_by: BTreeSet<String>,
}

/// `countersign admin report`
pub(crate) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let device = context.device()?;
    let now = edge::now();
    let period = args.month.or(args.quarter).unwrap_or(Period {
        since: args.since.unwrap_or(now.before(30 * 86_400)),
        until: args.until.unwrap_or(now),
    });
    if period.since >= period.until {
        return Err(Failure::usage(
            "The time ends before it begins.",
            "Give --since a time before --until.",
        ));
    }
    let broker = &device.broker;
    let policy = broker.get("/v1/admin/policy", device.proof()).await?;
    let people = broker.get("/v1/admin/people", device.proof()).await?;
    let tokens = broker.get("/v1/admin/tokens", device.proof()).await?;
    let left = tokens::list::left(&device).await?;
    let keys = broker.get("/v1/admin/client-keys", device.proof()).await?;
    let entries = entries(context, &device, period).await?;
    let report = report(
        period,
        now,
        (policy, people, (tokens, left), keys),
        &entries,
    );
    if context.out.json && args.out.is_none() {
        return context.out.json(&report);
    }
    let text = if context.out.json {
        serde_json::to_string_pretty(&report).unwrap_or_default()
    } else {
        markdown(&report)
    };
    match &args.out {
        None => context.out.line(text.trim_end()),
        Some(path) => {
            edge::write_private(path, text.as_bytes())?;
            let value = serde_json::json!({"file": path});
            context.out.result(&value, &format!("{}", path.display()))
        }
    }
}

/// The log's entries of the time.
async fn entries(
    context: &Context,
    device: &Device,
    period: Period,
) -> Result<Vec<Entry>, Failure> {
    let (since, until) = (period.since.0, period.until.0);
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/log/find?since={since}&until={until}&from={from}&limit=500");
        let found: Found = device.broker.get(&path, device.proof()).await?;
        all.extend(found.entries.iter().filter_map(|l| Entry::read(&l.leaf)));
        if all.len() > ENTRIES_MAX {
            return Err(Failure::failed(
                format!("The log has more than {ENTRIES_MAX} entries of this time."),
                "Report a shorter time: --since, --until.",
            ));
        }
        match found.next {
            None => return Ok(all),
            Some(next) if next <= from => {
                return Err(Failure::refused(
                    "The broker's log turns in a circle.",
                    "Tell the broker's admin.",
                ));
            }
            Some(next) => from = next,
        }
        context.out.progress(&format!("read {} entries", all.len()));
    }
}

type Lists = (
    PolicyShown,
    Vec<PersonLine>,
    (Vec<TokenLine>, Vec<LeftToken>),
    Vec<ClientKeyLine>,
);

fn report(period: Period, made: UnixTime, lists: Lists, entries: &[Entry]) -> Report {
    let (policy, people, (tokens, left), client_keys) = lists;
    let people: Vec<_> = people.into_iter().map(|p| who(p, entries)).collect();
    let changed = entries.iter().filter(|e| CHANGES.contains(&e.kind()));
    let mut report = Report {
        period,
        made,
        warnings: Vec::new(),
        changes: changed.map(told).collect(),
        publishes: publishes(entries),
        policy,
        people,
        tokens,
        left,
        client_keys,
    };
    report.warnings = warnings(&report);
    report
}

fn who(line: PersonLine, entries: &[Entry]) -> Who {
    let name = line.person.as_str();
    let own = entries.iter().filter(|e| e.actors().any(|p| p == name));
    let answers = own.clone().filter(|e| e.kind() == "answer-accepted");
    // A device that was added or taken away did nothing by that, and a refusal may be a thief's. What an admin does is
    // told of the person and not of the device.
    let nothing = |e: &Entry| {
        e.kind().ends_with("-refused") || ["device-added", "device-removed"].contains(&e.kind())
    };
    let done = entries.iter().filter(|e| !nothing(e));
    let used: BTreeSet<_> = done.filter_map(|e| e.text("device")).collect();
    let idle = line
        .enrolled
        .iter()
        .filter(|d| !used.contains(d.id.as_str()));
    Who {
        entries: own.count(),
        answers: answers.count(),
        idle_devices: idle.map(|d| d.name.clone()).collect(),
        line,
    }
}

/// An event's type and what it names: `person-changed bob by alice`.
fn told(entry: &Entry) -> Told {
    let mut what = entry.kind().to_owned();
    for (member, value) in &entry.event {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(all) => {
                let texts = all.iter().filter_map(|v| v.as_str());
                texts.collect::<Vec<_>>().join(" ")
            }
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(is) => is.to_string(),
            _ => continue,
        };
        if member != "type" && !text.is_empty() {
            what.extend([format!(", {member} {}", harmless(&text))]);
        }
    }
    Told {
        time: entry.time,
        what,
    }
}

/// What went out, with those whose answers or announcements counted.
fn publishes(entries: &[Entry]) -> Vec<Publish> {
    let mut announced: HashMap<&str, &str> = HashMap::new();
    let mut by: HashMap<RequestId, BTreeSet<String>> = HashMap::new();
    for entry in entries {
        let intent = entry.text("intent");
        let person = match entry.kind() {
            "answer-accepted" if entry.text("decision") == Some("approve") => entry.text("person"),
            "intent-made" => {
                announced.extend(intent.zip(entry.text("person")));
                None
            }
            // One that was announced before the time has nobody's name here.
            "intent-spent" => {
                intent.map(|i| announced.get(i).copied().unwrap_or("an announcement"))
            }
            _ => None,
        };
        if let (Some(id), Some(person)) = (entry.request(), person) {
            by.entry(id).or_default().insert(person.to_owned());
        }
    }
    let out = entries.iter().filter(|e| e.kind() == "request-published");
    out.map(|entry| Publish {
        time: entry.time,
        request: entry.request(),
        items: entry.packages().map(harmless).collect(),
        approved_by: entry
            .request()
            .and_then(|id| by.get(&id).cloned())
            .unwrap_or_default(),
    })
    .collect()
}

/// What a reviewer should look at first.
fn warnings(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    for entry in &report.policy.entries {
        let able = u32::try_from(entry.people.len()).unwrap_or(u32::MAX);
        let names = entry.matches.join(", ");
        if able < entry.quorum {
            all.push(format!(
                "{names}: {} approvals are needed, and {able} can approve",
                entry.quorum
            ));
        } else if able == entry.quorum {
            all.push(format!(
                "{names}: nobody can be missing, of {able} who can approve"
            ));
        }
        if entry.requester_may_approve {
            all.push(format!("{names}: who asks may approve"));
        }
    }
    let admins = report.people.iter().filter(|w| w.line.admin).count();
    if admins < 2 {
        all.push(
            "there is one admin: nobody thaws a package, and nobody agrees to his acts".to_owned(),
        );
    }
    for who in &report.people {
        if who.entries == 0 {
            all.push(format!("{} did nothing in this time", who.line.person));
        }
    }
    for token in &report.tokens {
        let name = format!("{}:{}", token.registry, harmless(&token.scope));
        match token.rotation {
            Rotation::Now => all.push(format!("{name} is to be rotated now")),
            Rotation::Soon => all.push(format!("{name} is to be rotated soon")),
            Rotation::Later => {}
        }
        if token.used.is_none_or(|u| u < report.period.since) {
            all.push(format!("{name} was not used in this time"));
        }
        if token.emptied.is_none() && token.is_present() {
            let print = harmless(&token.fingerprint);
            all.push(format!(
                "of {name} ({print}) nobody said that it is nowhere else"
            ));
        }
    }
    for left in &report.left {
        all.push(format!(
            "{}:{} version {} ({}) may still be good at the registry",
            left.registry,
            harmless(&left.scope),
            left.version,
            harmless(&left.fingerprint)
        ));
    }
    all
}

fn markdown(report: &Report) -> String {
    let day = |at: UnixTime| at.rfc3339().chars().take(10).collect::<String>();
    let mut out = format!(
        "# Access review, {} to {}\n\nMade {}. Policy in force: `{}`.\n",
        day(report.period.since),
        day(report.period.until),
        report.made.rfc3339(),
        report.policy.digest
    );
    let mut part = |title: &str, head: &str, rows: Vec<String>| {
        out.extend([format!("\n## {title}\n\n")]);
        if rows.is_empty() {
            return out.push_str("None.\n");
        }
        if !head.is_empty() {
            let columns = head.matches('|').count().saturating_sub(1);
            out.extend([format!("{head}\n|{}\n", "---|".repeat(columns))]);
        }
        for row in rows {
            out.push_str(&row);
            out.push('\n');
        }
    };
    let bullets = |all: Vec<String>| all.into_iter().map(|l| format!("- {l}")).collect();
    part("To look at", "", bullets(report.warnings.clone()));
    let head = "| packages | asked for by | groups | people | needed | by | mode |";
    let rows = report.policy.entries.iter().map(allowed).collect();
    part("Who can approve what", head, rows);
    let head = "| person | groups | admin | devices | devices without an answer | acts | answers |";
    part("People", head, report.people.iter().map(person).collect());
    let head = "| token | version | stored | age | expires | used | registry |";
    part(
        "Tokens",
        head,
        report.tokens.iter().map(|t| token(t, day)).collect(),
    );
    let keys = report.client_keys.iter();
    let keys = keys.map(|k| {
        format!(
            "| {} | {} | {} |",
            k.name,
            cell(&k.packages.join(", ")),
            day(k.added)
        )
    });
    part("Client keys", "| name | packages | added |", keys.collect());
    let changes = report.changes.iter();
    let changes = changes.map(|c| format!("| {} | {} |", c.time.rfc3339(), cell(&c.what)));
    part("Changes", "| when | what |", changes.collect());
    let head = "| when | what | approved by | request |";
    part(
        "Publishes",
        head,
        report.publishes.iter().map(publish).collect(),
    );
    out
}

fn allowed(entry: &PolicyEntry) -> String {
    let factors = entry.factors.iter().map(|f| f.name());
    let callers: Vec<_> = entry.callers.iter().map(|c| cell(c)).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        cell(&entry.matches.join(", ")),
        callers.join("<br>"),
        joined(&entry.approvers),
        joined(&entry.people),
        entry.quorum,
        factors.collect::<Vec<_>>().join(", "),
        format!("{:?}", entry.mode).to_lowercase()
    )
}

fn person(who: &Who) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        who.line.person,
        joined(&who.line.groups),
        if who.line.admin { "yes" } else { "" },
        who.line.devices,
        cell(&who.idle_devices.join(", ")),
        who.entries,
        who.answers
    )
}

fn token(t: &TokenLine, day: impl Fn(UnixTime) -> String) -> String {
    format!(
        "| {} | {} | {} | {} % | {} | {} | {} |",
        cell(&format!("{}:{}", t.registry, t.scope)),
        t.version,
        day(t.stored),
        t.age_percent,
        t.expires.map_or("-".to_owned(), &day),
        t.used.map_or("never".to_owned(), &day),
        t.proof.as_ref().map_or("-", |p| tokens::word(p.outcome))
    )
}

fn publish(p: &Publish) -> String {
    let by: Vec<_> = p.approved_by.iter().map(|b| cell(b)).collect();
    let id = p.request.map_or(String::new(), |id| id.to_string());
    let items = cell(&p.items.join(", "));
    format!(
        "| {} | {items} | {} | {id} |",
        p.time.rfc3339(),
        by.join(", ")
    )
}

fn joined<T: ToString>(all: &[T]) -> String {
    let texts: Vec<_> = all.iter().map(T::to_string).collect();
    texts.join(", ")
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    harmless(text).replace('|', "\\|")
}

fn month(text: &str) -> Result<Period, String> {
    let bad = || "is no month like 2026-10".to_owned();
    let first: jiff::civil::Date = format!("{text}-01").parse().map_err(|_| bad())?;
    months(first, 1).ok_or_else(bad)
}

fn quarter(text: &str) -> Result<Period, String> {
    let bad = || "is no quarter like 2026-Q3".to_owned();
    let (year, quarter) = text.split_once("-Q").ok_or_else(bad)?;
    let number: u8 = quarter
        .parse()
        .ok()
        .filter(|q| (1..=4).contains(q))
        .ok_or_else(bad)?;
    let first = format!("{year}-{:02}-01", number * 3 - 2);
    months(first.parse().map_err(|_| bad())?, 3).ok_or_else(bad)
}

/// So many months from a day on, in UTC.
fn months(first: jiff::civil::Date, count: i32) -> Option<Period> {
    use jiff::{ToSpan as _, tz::TimeZone};
    let second = |day: jiff::civil::Date| {
        let at = day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        u64::try_from(at).ok()
    };
    let end = first.checked_add(count.months()).ok()?;
    Some(Period {
        since: UnixTime(second(first)?),
        until: UnixTime(second(end)?.checked_sub(1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_quarters() {
        let october = month("2026-10").unwrap();
        assert_eq!(october.since.rfc3339(), "2026-10-01T00:00:00Z");
        assert_eq!(october.until.rfc3339(), "2026-10-31T23:59:59Z");
        let fourth = quarter("2026-Q4").unwrap();
        assert_eq!(
            (fourth.since, fourth.until.rfc3339().as_str()),
            (october.since, "2026-12-31T23:59:59Z")
        );
        for bad in ["2026", "2026-13", "2026-1", "x"] {
            assert!(month(bad).is_err(), "{bad}");
        }
        for bad in ["2026-Q5", "2026-Q0", "2026-3", "Q3"] {
            assert!(quarter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_others_wrote_stays_in_its_cell() {
        assert_eq!(cell("a|b\u{1b}[2J").matches("\\|").count(), 1);
        assert!(!cell("a\u{1b}[2J").contains('\u{1b}'));
    }
}
