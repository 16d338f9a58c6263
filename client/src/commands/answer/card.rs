//! The card on the screen: what is inside each file, the worst first. All of it was chosen by whoever built the
//! archive, so it passes `harmless` once more (attack 10).

use crate::{
    context::{Context, Device},
    fail::Failure,
    out::{Out, size, span},
};
use proto::{
    api::Question,
    card::{Card, Change, Diff, Inside, Line, Outcome, Previous, Risk},
    ids::RequestId,
    text::harmless,
    time::UnixTime,
};
use std::fmt::Write as _;

/// Files that are listed; how many there are is said in any case.
const LISTED: usize = 15;
/// Cards that are drawn in full; of the others what stands out.
const FULL: usize = 20;

/// Shows how the text of one file inside changed.
pub(super) async fn diff(
    context: &Context,
    device: &Device,
    id: RequestId,
    name: &str,
) -> Result<(), Failure> {
    let path = format!("/v1/requests/{id}/question");
    let question: Question = device.broker.get(&path, device.proof()).await?;
    // Names are cut for people, so several may look the same: all of them are shown, each with its place.
    let mut diffs = Vec::new();
    for card in &question.cards {
        let lines = card.inside.iter().flat_map(|inside| &inside.lines);
        for line in lines.filter(|line| line.name == name) {
            if let Some(number) = line.difference {
                let place = format!("item={}&file={}&difference={number}", card.item, card.file);
                let path = format!("/v1/requests/{id}/diff?{place}");
                let diff: Diff = device.broker.get(&path, device.proof()).await?;
                diffs.push((&card.name, diff));
            }
        }
    }
    if diffs.is_empty() {
        return Err(Failure::refused(
            "There is no text difference of that file.",
            "Name one that `countersign show` lists with a star, as it stands there.",
        ));
    }
    if context.out.json {
        let diffs: Vec<_> = diffs.into_iter().map(|(_, diff)| diff).collect();
        return match diffs.as_slice() {
            [one] => context.out.json(one),
            all => context.out.json(&all),
        };
    }
    let several = diffs.len() > 1;
    for (file, diff) in diffs {
        if several {
            context.out.line(&format!("in {}:", harmless(file)))?;
        }
        for line in diff.text.lines() {
            context.out.line(&harmless(line))?;
        }
    }
    Ok(())
}

/// Draws the cards of one item.
pub(super) fn draw<'c>(
    s: &mut String,
    out: &Out,
    cards: impl Iterator<Item = &'c Card>,
    now: UnixTime,
) {
    for (n, card) in cards.enumerate() {
        let _ = writeln!(s, "\n  {:<10} {}", "inside", harmless(&card.name));
        match card.outcome {
            Outcome::Inspected => inspected(s, out, card, n < FULL, now),
            Outcome::Failed | Outcome::LeftOut => {
                let line = format!("! {}", card.outcome.words());
                let _ = writeln!(s, "  {:<10} {}", "", out.warning(&line));
            }
            other => {
                let _ = writeln!(s, "  {:<10} {}", "", other.words());
            }
        }
    }
}

fn inspected(s: &mut String, out: &Out, card: &Card, full: bool, now: UnixTime) {
    let against = match &card.previous {
        Previous::First => "nothing: the package is new".to_owned(),
        Previous::Unknown => {
            "! nothing: the previous version could not be had, so what is new is not known"
                .to_owned()
        }
        Previous::Version { version, published } => {
            let age = published.map_or_else(String::new, |at| {
                format!(", published {} ({} ago)", at.rfc3339(), span(now.since(at)))
            });
            format!("version {}{age}", harmless(version))
        }
    };
    let _ = writeln!(s, "  {:<10} {against}", "against");
    if let Some(inside) = &card.inside {
        counts(s, inside);
    }
    for finding in card.findings.iter().filter(|f| full || f.risk > Risk::Low) {
        let line = format!(
            "{:<10} {}: {}",
            risk(finding.risk),
            finding.kind,
            harmless(&finding.what)
        );
        let line = if finding.risk >= Risk::High {
            out.warning(&line)
        } else {
            line
        };
        let _ = writeln!(s, "  {line}");
        if finding.risk > Risk::Low {
            let _ = writeln!(s, "  {:<10} {}", "", harmless(&finding.why));
        }
    }
    if let Some(inside) = card.inside.as_ref().filter(|_| full) {
        for line in inside.lines.iter().take(LISTED) {
            file(s, line);
        }
        let all = inside.added + inside.removed + inside.changed;
        let listed = inside.lines.len().min(LISTED);
        let more = usize::try_from(all)
            .unwrap_or(usize::MAX)
            .saturating_sub(listed);
        if listed == 0 && more > 0 {
            let why = "the list is left out: the request has too many files for all lists";
            let _ = writeln!(s, "  {:<10} {why}", "");
        } else if more > 0 {
            let _ = writeln!(s, "  {:<10} … and {more} more (--json has up to 200)", "");
        }
        if inside
            .lines
            .iter()
            .take(LISTED)
            .any(|line| line.difference.is_some())
        {
            let _ = writeln!(
                s,
                "  {:<10} * the text difference: countersign show REQUEST --diff FILE",
                ""
            );
        }
    }
}

fn counts(s: &mut String, inside: &Inside) {
    let before = inside.before.map_or_else(String::new, |(files, bytes)| {
        format!(" (before: {files} files, {})", size(bytes))
    });
    let _ = writeln!(
        s,
        "  {:<10} {} files, {} unpacked{before}",
        "files",
        inside.files,
        size(inside.unpacked)
    );
    if inside.before.is_some() {
        let _ = writeln!(
            s,
            "  {:<10} {} added, {} changed, {} removed",
            "", inside.added, inside.changed, inside.removed
        );
    }
    let source = inside.source.map_or_else(
        || "not compared: the job handed none in".to_owned(),
        |s| {
            format!(
                "as the job handed it in: {} the same, {} with other bytes, {} not in it",
                s.same, s.differ, s.absent
            )
        },
    );
    let _ = writeln!(s, "  {:<10} {source}", "source");
}

fn file(s: &mut String, line: &Line) {
    let sign = match line.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    };
    let sizes = match line.before {
        Some(before) if before != line.size => format!("{} → {}", size(before), size(line.size)),
        _ => size(line.size),
    };
    let star = if line.difference.is_some() { " *" } else { "" };
    let _ = writeln!(
        s,
        "  {:<10} {sign} {}, {sizes}{star}",
        "",
        harmless(&line.name)
    );
}

const fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Critical => "CRITICAL",
        Risk::High => "HIGH",
        Risk::Medium => "medium",
        Risk::Low => "low",
        Risk::Note => "note",
    }
}
