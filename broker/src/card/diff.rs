//! Which files differ, and how the text of some of them does.

use super::{
    findings::Case,
    tree::{Leaf, Tree, decides},
};
use proto::{
    card::{Change, Diff, Inside, LINES_MAX, Line, shown},
    text::{harmless, misleads},
};
use similar::TextDiff;
use std::{collections::BTreeMap, fmt::Write as _};

/// Lines of a text that is compared: the work grows with their square.
const COMPARED_MAX: usize = 3000;
/// Text differences of one archive, in bytes.
const DIFFS_MAX: usize = 96 << 10;
/// Longest difference of one file, in bytes.
const DIFF_MAX: usize = 24 << 10;
/// Longest line of a difference, in characters.
const LINE_MAX: usize = 300;

/// The files against those before, with the text differences that there is room for: first of what decides.
pub(super) fn inside(case: &Case<'_>) -> (Inside, Vec<Diff>) {
    let (now, before) = (case.now, case.before.tree());
    let mut inside = Inside {
        files: count(now),
        unpacked: now.unpacked,
        before: before.map(|b| (count(b), b.unpacked)),
        ..Inside::default()
    };
    let mut wanted = Vec::new();
    let mut listed = BTreeMap::new();
    let mut fresh: Vec<_> = now.fresh(before).collect();
    // What decides stands first, so that it is listed however much there is.
    fresh.sort_by_key(|(name, _)| !decides(name));
    for (name, leaf) in fresh {
        let old = before.and_then(|b| b.files.get(name));
        let change = if old.is_some() {
            inside.changed += 1;
            Change::Changed
        } else {
            inside.added += 1;
            Change::Added
        };
        listed.insert(name, inside.lines.len());
        push(&mut inside, change, name, leaf, old);
        if let Some(old) = old {
            wanted.push((name, old, leaf));
        }
    }
    for (name, leaf) in before.iter().flat_map(|b| &b.files) {
        if !now.files.contains_key(name) {
            inside.removed += 1;
            push(&mut inside, Change::Removed, name, leaf, None);
        }
    }
    // Only what is listed can be asked for.
    wanted.retain(|(name, ..)| listed.get(name).is_some_and(|at| *at < LINES_MAX));
    wanted.sort_by_key(|(name, ..)| (!decides(name), *name));
    let mut diffs = Vec::new();
    let mut room = DIFFS_MAX;
    for (name, old, new) in wanted {
        let text = old.text.as_deref().zip(new.text.as_deref());
        let Some(text) = text.and_then(|(old, new)| unified(old, new)) else {
            continue;
        };
        let Some(left) = room.checked_sub(text.len()) else {
            break;
        };
        room = left;
        // By its place: two names may look the same when they are cut.
        let number = u32::try_from(diffs.len()).ok();
        if let Some(at) = listed.get(name)
            && let Some(line) = inside.lines.get_mut(*at)
        {
            line.difference = number;
        }
        let name = shown(name);
        diffs.push(Diff { name, text });
    }
    (inside, diffs)
}

fn count(tree: &Tree) -> u32 {
    u32::try_from(tree.files.len()).unwrap_or(u32::MAX)
}

fn push(inside: &mut Inside, change: Change, name: &str, leaf: &Leaf, old: Option<&Leaf>) {
    if inside.lines.len() < LINES_MAX {
        inside.lines.push(Line {
            change,
            name: shown(name),
            size: leaf.size,
            before: old.map(|o| o.size),
            difference: None,
        });
    }
}

/// The difference as `diff -u` writes it. Bounded by counts and never by a clock, so that it is the same each
/// time; what is too long is not compared.
fn unified(old: &str, new: &str) -> Option<String> {
    let long = |text: &str| text.lines().count() > COMPARED_MAX;
    if long(old) || long(new) {
        return None;
    }
    let diff = TextDiff::from_lines(old, new);
    let mut out = String::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        let _ = writeln!(out, "{}", hunk.header());
        for change in hunk.iter_changes() {
            let _ = writeln!(out, "{}{}", change.tag(), line(change.value()));
            if out.len() > DIFF_MAX {
                out.push_str("… the rest is longer than what is shown\n");
                return Some(out);
            }
        }
    }
    Some(out)
}

/// One line without what hides or repaints (attack 10); tabs are blanks. A change that cannot be seen is made
/// visible: what misleads is written as its number.
fn line(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let mut out = String::new();
    for c in text.chars().take(LINE_MAX) {
        match c {
            '\t' => out.push_str("    "),
            c if misleads(c) => {
                let _ = write!(out, "<U+{:04X}>", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if text.chars().nth(LINE_MAX).is_some() {
        out.push('…');
    }
    // Nothing is left of them; what stands on a screen passes here in any case.
    harmless(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_10_a_difference_shows_what_hides() {
        let text = unified("a\nb\nc\n", "a\nb\u{202e}\u{1b}[2Jx\nc\n").unwrap();
        assert!(text.contains("-b\n"), "{text}");
        assert!(text.contains("+b<U+202E><U+001B>[2Jx\n"), "{text}");
        for line in text.lines() {
            assert!(!line.chars().any(misleads), "{line:?}");
        }
    }

    #[test]
    fn attack_53_what_is_too_long_is_not_compared_and_not_shown() {
        let long = "a\n".repeat(COMPARED_MAX + 1);
        assert_eq!(unified(&long, "b\n"), None);
        let old = "a\n".repeat(COMPARED_MAX);
        let new = format!("{}\n", "b".repeat(100)).repeat(COMPARED_MAX);
        let text = unified(&old, &new).unwrap();
        assert!(text.len() < DIFF_MAX + 1000, "{}", text.len());
        let wide = unified("", &"x".repeat(100_000)).unwrap();
        assert!(wide.len() < 1000, "{}", wide.len());
    }
}
