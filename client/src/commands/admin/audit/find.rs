//! `admin audit find`: entries about a package, by a person, of a kind, in a time.

use super::not_understood;
use crate::{context::Context, edge, fail::Failure};
use proto::{
    api::{Found, LogLine},
    ids::PersonId,
    log::find::Entry,
    text::harmless,
    time::UnixTime,
};

/// What is looked for.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin audit find --package npm:@acme/left --since 7d
  countersign admin audit find --person alice --event answer-accepted --since 2026-11-01
  countersign admin audit find --event frozen --json | jq .entries

What the broker finds is its own word. To be sure that nothing is left out, search a verified \
export: `admin audit export`, then `countersign verify`.")]
pub(crate) struct Args {
    /// Entries about this package, like npm:@acme/left, and about requests for it
    #[arg(long, value_name = "REGISTRY:PACKAGE")]
    package: Option<String>,
    /// Entries that name this person
    #[arg(long)]
    person: Option<PersonId>,
    /// Entries of this type, like request-denied
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Not before: a day, a moment, or so long ago (2026-11-01, 2026-11-01T12:00:00Z, 7d, 12h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixTime>,
    /// Not after: the same; a day with all its hours
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<UnixTime>,
    /// At most so many entries; then the place is said where to go on
    #[arg(long, default_value_t = 200, value_name = "N")]
    limit: usize,
    /// Go on at this entry
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
}

pub(in super::super) fn since(text: &str) -> Result<UnixTime, String> {
    moment(text, "T00:00:00Z", edge::now())
}

pub(in super::super) fn until(text: &str) -> Result<UnixTime, String> {
    moment(text, "T23:59:59Z", edge::now())
}

/// A day with this time, a moment, or so long before now.
fn moment(text: &str, of_day: &str, now: UnixTime) -> Result<UnixTime, String> {
    let ago = [('d', 86_400), ('h', 3_600), ('m', 60)];
    for (unit, seconds) in ago {
        let number = text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number {
            return Ok(now.before(number.saturating_mul(seconds)));
        }
    }
    let whole = if text.len() == 10 {
        format!("{text}{of_day}")
    } else {
        text.to_owned()
    };
    let at: jiff::Timestamp = whole
        .parse()
        .map_err(|_| "is no time like 2026-11-01, 2026-11-01T12:00:00Z, 7d or 12h".to_owned())?;
    u64::try_from(at.as_second())
        .map(UnixTime)
        .map_err(|_| "is before 1970".to_owned())
}

/// Runs it.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let device = context.device()?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let times = [("since", args.since), ("until", args.until)];
    for (name, time) in times {
        if let Some(time) = time {
            query.append_pair(name, &time.0.to_string());
        }
    }
    let texts = [
        ("package", args.package.clone()),
        ("person", args.person.as_ref().map(ToString::to_string)),
        ("event", args.event.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            query.append_pair(name, &text);
        }
    }
    let query = query.finish();
    let mut entries: Vec<LogLine> = Vec::new();
    let mut from = args.from;
    // Each call reads a piece of the log, and may find nothing in it.
    let next = loop {
        let limit = args.limit.saturating_sub(entries.len());
        if limit == 0 {
            break Some(from);
        }
        let path = format!("/v1/log/find?{query}&from={from}&limit={limit}");
        let found: Found = device.broker.get(&path, device.proof()).await?;
        let least = found.entries.last().map_or(from, |last| last.index + 1);
        entries.extend(found.entries);
        match found.next {
            // A broker that turns in a circle would keep us for ever.
            Some(next) if next <= from || next < least => return Err(not_understood()),
            Some(next) => {
                from = next;
                context.out.progress(&format!("looked at {next} entries"));
            }
            None => break None,
        }
    };
    shown(context, &entries, next)
}

fn shown(context: &Context, entries: &[LogLine], next: Option<u64>) -> Result<(), Failure> {
    if context.out.json {
        let entry = |line: &LogLine| match Entry::read(&line.leaf) {
            Some(entry) => serde_json::json!({
                "index": line.index, "time": entry.time, "event": entry.event,
            }),
            None => serde_json::json!({"index": line.index, "leaf": line.leaf}),
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let value = serde_json::json!({"entries": entries, "next": next});
        return context.out.json(&value);
    }
    if entries.is_empty() && next.is_none() {
        return context.out.line("nothing is found");
    }
    for line in entries {
        context.out.line(&drawn(line))?;
    }
    if let Some(next) = next {
        context
            .out
            .note(&format!("There may be more: --from {next}."));
    }
    Ok(())
}

/// Index, time, type, and the members as they stand in the entry.
fn drawn(line: &LogLine) -> String {
    let Some(entry) = Entry::read(&line.leaf) else {
        return format!("{:>7}  {}", line.index, harmless(&line.leaf));
    };
    let members = entry.event.iter().filter(|(name, _)| *name != "type");
    let members = members.map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        format!(" {name}={}", harmless(&text))
    });
    let members: String = members.collect();
    let (time, kind) = (entry.time.rfc3339(), harmless(entry.kind()));
    format!("{:>7}  {time}  {kind}{members}", line.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_moments_or_ages() {
        let now = UnixTime(1_000_000);
        let at = |text: &str| moment(text, "T23:59:59Z", now);
        assert_eq!(at("1d"), Ok(UnixTime(1_000_000 - 86_400)));
        assert_eq!(at("12h"), Ok(UnixTime(1_000_000 - 43_200)));
        assert_eq!(at("1970-01-02"), Ok(UnixTime(2 * 86_400 - 1)));
        assert_eq!(at("1970-01-01T00:01:00Z"), Ok(UnixTime(60)));
        for bad in ["", "d", "-1d", "yesterday", "2026-13-01"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_is_one_line_and_nothing_in_it_repaints_the_terminal() {
        let line = LogLine {
            index: 7,
            leaf:
                r#"{"v":1,"time":0,"event":{"type":"frozen","package":"a\u001b[2Jb","by":"alice"}}"#
                    .into(),
        };
        let text = drawn(&line);
        assert!(text.contains("1970-01-01T00:00:00Z  frozen"), "{text}");
        assert!(
            text.contains(" by=alice") && !text.contains('\u{1b}'),
            "{text}"
        );
        let odd = LogLine {
            index: 8,
            leaf: "\u{1b}x".into(),
        };
        assert!(!drawn(&odd).contains('\u{1b}'));
    }
}
