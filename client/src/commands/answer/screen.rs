//! One screen about one request, most important first. Everything passes `harmless`: the screen is
//! where somebody decides (attack 10).

use super::card;
use crate::{
    commands::inbox::confirm_lines,
    out::{Out, size, span},
};
use proto::{
    answer::Factor,
    api::{Mode, Question},
    ids::VersionText,
    intent::{Intended, Names},
    request::Item,
    text::harmless,
    time::UnixTime,
};
use std::fmt::Write as _;

/// Items that are shown in full; of the others only the name.
const FULL_ITEMS: usize = 20;

/// Draws it.
pub(crate) fn draw(out: &Out, q: &Question, now: UnixTime) -> String {
    let mut s = String::new();
    for (n, item) in q.facts.items.iter().enumerate() {
        let previous = q
            .previous
            .get(n)
            .and_then(Option::as_ref)
            .map(VersionText::as_str);
        draw_item(&mut s, out, item, q.mode, previous, n < FULL_ITEMS);
        let cards = q.cards.iter().filter(|c| usize::try_from(c.item) == Ok(n));
        card::draw(&mut s, out, cards, now);
    }
    if q.mode == Mode::Deposit {
        s.push_str("  the broker holds the files already, and publishes them as soon as enough people approve\n");
    }
    for line in confirm_lines(&q.confirm, now) {
        let _ = writeln!(s, "  {}", out.warning(&line));
    }
    if q.will_confirm && q.confirm.is_empty() && !q.state.is_final() {
        s.push_str("  the registry will want its own second factor afterwards: its page is shown here and in the inbox\n");
    }
    if q.mode == Mode::Mint {
        let life = span(q.mint_seconds.unwrap_or_default());
        let line = format!(
            "! weaker: the job gets a token of the registry for {life}, good for ANY files of this project"
        );
        let _ = writeln!(s, "  {}", out.warning(&line));
    }
    for line in intended(q, now) {
        let _ = writeln!(s, "  {line}");
    }
    for warning in &q.warnings {
        let _ = writeln!(s, "  {}", out.warning(&format!("! {}", harmless(warning))));
    }
    for rival in &q.rivals {
        let line = format!(
            "! request {rival} also wants one of these versions; approving this one ends it"
        );
        let _ = writeln!(s, "  {}", out.warning(&line));
    }
    draw_caller(&mut s, q);
    if let Some(note) = &q.note {
        let _ = writeln!(s, "\n  unverified words of the job: {}", harmless(note));
    }
    let factors = q
        .factors
        .iter()
        .map(|f| factor(*f))
        .collect::<Vec<_>>()
        .join(" or ");
    let by = q
        .approvals
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let by = if by.is_empty() {
        by
    } else {
        format!(" ({by})")
    };
    let left = match q.facts.expires.since(now) {
        0 => "too late".to_owned(),
        left => format!("{} left", span(left)),
    };
    let _ = writeln!(s, "\n  {:<10} {}, {left}", "state", q.state.text());
    let _ = writeln!(
        s,
        "  {:<10} {} of {}{by}, by {factors}",
        "approvals",
        q.approvals.len(),
        q.quorum
    );
    let _ = writeln!(s, "  {:<10} {}", "request", q.facts.id);
    let _ = write!(s, "  {:<10} {}", "digest", q.facts.digest());
    s
}

/// What was announced before the job asked, and that this is it.
fn intended(q: &Question, now: UnixTime) -> Vec<String> {
    let line = |i: &Intended| {
        let what = match i.names {
            Names::Versions => "version",
            Names::Commit => "version, commit",
            Names::Bytes => "version, these very files",
        };
        let counts = if i.counts {
            "counts as an approval"
        } else {
            "counts as no approval"
        };
        format!(
            "{:<10} by {} {} ago: {what}; {counts}",
            "announced",
            i.person,
            span(now.since(i.made))
        )
    };
    q.intents.iter().map(line).collect()
}

fn draw_item(
    s: &mut String,
    out: &Out,
    item: &Item,
    mode: Mode,
    previous: Option<&str>,
    full: bool,
) {
    let tag = item
        .tag
        .as_ref()
        .map(|t| format!(" as {}", harmless(t.as_str())))
        .unwrap_or_default();
    let _ = writeln!(s, "{}{tag}", out.bold(&harmless(&item.name())));
    if !full {
        return;
    }
    let previous = previous.map_or("none, or not known".to_owned(), harmless);
    let _ = writeln!(s, "  {:<10} {previous}", "before");
    if mode == Mode::Reveal {
        let _ = writeln!(
            s,
            "  {}",
            out.warning("! the stored secret itself is revealed to the job")
        );
    }
    for file in &item.files {
        let (head, size) = if file.is_announced() {
            (
                "announced",
                "what the job says that it will publish".to_owned(),
            )
        } else {
            ("file", size(file.size))
        };
        let _ = writeln!(s, "  {head:<10} {}, {size}", harmless(&file.name));
        let digest = file.digest.to_string();
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("", &digest));
        for (n, line) in grouped(hex, 64).iter().enumerate() {
            let head = if n == 0 { algorithm } else { "" };
            let _ = writeln!(s, "  {head:<10} {line}");
        }
    }
}

/// The verified claims that people know by name come first, then all others.
fn draw_caller(s: &mut String, q: &Question) {
    const FIRST: [(&str, &str); 9] = [
        ("repository", "repository"),
        ("origin", "repository"),
        ("sha", "commit"),
        ("ref", "ref"),
        ("workflow", "workflow"),
        ("job_workflow_ref", "file at"),
        ("event_name", "event"),
        ("actor", "started by"),
        ("environment", "environment"),
    ];
    let caller = &q.facts.caller;
    let _ = writeln!(s);
    let _ = writeln!(
        s,
        "  {:<10} {} {}",
        "asked by",
        harmless(&caller.issuer),
        harmless(&caller.subject)
    );
    for (claim, label) in FIRST {
        if let Some(value) = caller.claims.get(claim) {
            let _ = writeln!(s, "  {label:<10} {}", harmless(value));
        }
    }
    if let Some(url) = &caller.run_url {
        let _ = writeln!(s, "  {:<10} {}", "run", harmless(url));
    }
    for (claim, value) in &caller.claims {
        if !FIRST.iter().any(|(c, _)| c == claim) {
            let _ = writeln!(s, "  {:<10} {}: {}", "", harmless(claim), harmless(value));
        }
    }
}

const fn factor(f: Factor) -> &'static str {
    match f {
        Factor::Device => "device",
        Factor::Totp => "device + authenticator code (weakest)",
        Factor::Passkey => "passkey (in the web app)",
    }
}

/// Hex in groups of 8, `width` digits a line: people compare groups.
fn grouped(hex: &str, width: usize) -> Vec<String> {
    let chars: Vec<char> = hex.chars().collect();
    chars
        .chunks(width)
        .map(|line| {
            line.chunks(8)
                .map(|g| g.iter().collect::<String>())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
