//! Secrets inside: what looks like one by [`super::secret_rules`]. The secret itself stands nowhere in the card.

use super::{
    Case,
    secret_rules::{RULES, is_secret},
};
use proto::card::{Finding, FindingKind, Risk, shown};
use regex_automata::{
    Input,
    meta::{Config, Regex},
    util::syntax,
};
use std::collections::BTreeMap;

/// Files of one rule that are named.
const NAMED: usize = 5;
/// Memory of one compiled program, in bytes.
const PROGRAM_MAX: usize = 16 << 20;

/// The rules, ready to be looked for.
pub(in crate::card) struct Rules(Option<Regex>);

impl Rules {
    pub(in crate::card) fn new() -> Self {
        let patterns: Vec<_> = RULES.iter().map(|rule| rule.pattern).collect();
        let built = Regex::builder()
            .configure(
                Config::new()
                    .nfa_size_limit(Some(PROGRAM_MAX))
                    .utf8_empty(false),
            )
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .build_many(&patterns);
        // A test builds them: this is never empty.
        Self(built.ok())
    }
}

/// Looks through one file, piece by piece.
pub(in crate::card) struct Search<'r> {
    rules: Option<&'r Rules>,
    /// Rule to line.
    found: BTreeMap<usize, u64>,
    /// Line breaks in all that was seen.
    lines: u64,
}

impl<'r> Search<'r> {
    pub(in crate::card) const fn new(rules: Option<&'r Rules>) -> Self {
        Self {
            rules,
            found: BTreeMap::new(),
            lines: 0,
        }
    }

    /// Sees a piece whose first `old` bytes were seen before.
    pub(in crate::card) fn see(&mut self, piece: &[u8], old: usize) {
        let Some(regex) = self.rules.and_then(|r| r.0.as_ref()) else {
            return;
        };
        let breaks = |bytes: &[u8]| bytes.split(|b| *b == b'\n').skip(1).count() as u64;
        let (before, new) = piece.split_at_checked(old).unwrap_or((&[], piece));
        for found in regex.find_iter(Input::new(piece)) {
            if found.end() <= old {
                continue;
            }
            let rule = found.pattern().as_usize();
            let text = piece.get(found.range()).unwrap_or_default();
            if !is_secret(text) {
                continue;
            }
            let at = piece.get(..found.start()).unwrap_or_default();
            let line = (self.lines + breaks(at)).saturating_sub(breaks(before)) + 1;
            self.found.entry(rule).or_insert(line);
        }
        self.lines += breaks(new);
    }

    pub(in crate::card) fn finish(self) -> Vec<(usize, u64)> {
        self.found.into_iter().collect()
    }
}

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let mut places: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (name, leaf) in &case.now.files {
        for (rule, line) in &leaf.secrets {
            let all = places.entry(*rule).or_default();
            all.push(format!("{} line {line}", shown(name)));
        }
    }
    let mut out = Vec::new();
    for (rule, all) in places {
        let Some(rule) = RULES.get(rule) else {
            continue;
        };
        let more = all.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        let first: Vec<_> = all.into_iter().take(NAMED).collect();
        out.push(Finding {
            kind: FindingKind::Secrets,
            risk: Risk::Critical,
            what: format!("looks like {}: {}{more}", rule.name, first.join(", ")),
            why: "Whatever is published can be read by everybody, for ever: revoke it, take it out, and build again."
                .to_owned(),
        });
    }
    out
}
