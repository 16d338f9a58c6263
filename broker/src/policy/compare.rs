//! Whether another policy would allow more. What cannot be compared counts as weaker: a change that waits a day
//! for nothing is a nuisance, one that is taken for harmless is a hole (attack 50).

use super::{
    file::{Entry, Policy},
    keys::{Scan, Unsolicited, VersionForm},
    pattern::PackagePattern,
};
use proto::{
    act::{Change, Direction},
    answer::Factor,
    api::Mode,
};
use std::{collections::BTreeSet, fmt::Display};

/// What becomes different, the weaker first; nothing where the two mean the same.
pub fn compare(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut all = Differences::default();
    for (pattern, entry) in patterns(new) {
        all.appeared(old, pattern, entry);
    }
    for (pattern, entry) in patterns(old) {
        if !patterns(new).any(|(p, _)| p.as_str() == pattern.as_str()) {
            all.disappeared(new, pattern, entry);
        }
    }
    all.fights(old, new);
    all.found.into_iter().collect()
}

/// Whether any of them allows more.
pub fn is_weaker(changes: &[Change]) -> bool {
    changes.iter().any(|c| c.direction == Direction::Weaker)
}

fn patterns(policy: &Policy) -> impl Iterator<Item = (&PackagePattern, &Entry)> {
    let entries = policy.entries().iter();
    entries.flat_map(|e| e.matches.iter().map(move |p| (p, e)))
}

/// Globs of different tables that are equally close, and may name the same package.
fn fights(policy: &Policy) -> impl Iterator<Item = (&PackagePattern, &PackagePattern)> {
    let entries = policy.entries();
    let pairs = entries.iter().enumerate().flat_map(move |(at, entry)| {
        let later = entries.iter().skip(at + 1);
        later.flat_map(move |other| {
            let ones = entry.matches.iter();
            ones.flat_map(move |one| other.matches.iter().map(move |two| (one, two)))
        })
    });
    let globs = |p: &PackagePattern| p.exact().is_none();
    pairs.filter(move |(a, b)| globs(a) && globs(b) && a.overlaps(b) && a.as_close_as(b))
}

fn same(a: &PackagePattern, b: &PackagePattern) -> bool {
    a.as_str() == b.as_str()
}

#[derive(Default)]
struct Differences {
    found: BTreeSet<Change>,
}

impl Differences {
    /// A pattern of the new policy, against what decided before about what it names.
    fn appeared(&mut self, old: &Policy, pattern: &PackagePattern, new: &Entry) {
        if let Some((_, before)) = patterns(old).find(|(p, _)| p.as_str() == pattern.as_str()) {
            return self.entries(pattern, before, new);
        }
        if let Some(name) = pattern.exact() {
            match old.entry(pattern.registry(), &name) {
                Ok(before) => self.entries(pattern, before, new),
                Err(_) => self.can_be_published(pattern, new),
            }
            return;
        }
        if !patterns(old).any(|(p, _)| p.covers(pattern)) {
            return self.can_be_published(pattern, new);
        }
        for (_, before) in patterns(old).filter(|(p, _)| p.overlaps(pattern)) {
            self.entries(pattern, before, new);
        }
    }

    /// A pattern that is gone, against what decides now about what it named.
    fn disappeared(&mut self, new: &Policy, pattern: &PackagePattern, before: &Entry) {
        if let Some(name) = pattern.exact() {
            match new.entry(pattern.registry(), &name) {
                Ok(now) => self.entries(pattern, before, now),
                Err(_) => self.put(Direction::Stronger, pattern, "is published no more"),
            }
            return;
        }
        let mut rest = false;
        for (_, now) in patterns(new).filter(|(p, _)| p.overlaps(pattern)) {
            rest = true;
            self.entries(pattern, before, now);
        }
        if !rest {
            self.put(Direction::Stronger, pattern, "is published no more");
        }
    }

    /// Two patterns of different tables that are equally close are a no for the names of both. Whatever ends such a
    /// fight lets these names through, also where all else is the same.
    fn fights(&mut self, old: &Policy, new: &Policy) {
        let fought: Vec<_> = fights(old).collect();
        for (one, two) in fought {
            let still = fights(new).any(|(a, b)| same(a, one) && same(b, two));
            let closer = |p: &PackagePattern| {
                let known = patterns(old).any(|(known, _)| same(known, p));
                !known && p.exact().is_none() && p.overlaps(one) && p.overlaps(two)
            };
            if !still || patterns(new).any(|(p, _)| closer(p)) {
                let words = format!("is no longer in the way of {}", two.as_str());
                self.put(Direction::Weaker, one, &words);
            }
        }
    }

    fn can_be_published(&mut self, pattern: &PackagePattern, new: &Entry) {
        let groups: Vec<_> = new.approvers.iter().map(ToString::to_string).collect();
        let words = format!(
            "can be published, approved by {} of {}",
            new.quorum,
            groups.join(" or ")
        );
        self.put(Direction::Weaker, pattern, &words);
    }

    fn entries(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        self.callers(at, old, new);
        self.people(at, old, new);
        self.releases(at, old, new);
        self.times(at, old, new);
        self.contents(at, old, new);
    }

    fn callers(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        for caller in &new.callers {
            if !old.callers.iter().any(|known| caller.within(known)) {
                let words = format!("may be asked for by {}", caller.words());
                self.put(Direction::Weaker, at, &words);
            }
        }
        for caller in &old.callers {
            if !new.callers.iter().any(|left| caller.within(left)) {
                let words = format!("is no longer asked for by all of {}", caller.words());
                self.put(Direction::Stronger, at, &words);
            }
        }
    }

    fn people(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        self.list(at, "approvers", &old.approvers, &new.approvers);
        let (was, is) = (old.quorum.into(), new.quorum.into());
        self.number(at, "quorum", was, is, true);
        // A passkey in addition makes nobody's answer weaker.
        let kinds = |factors: &[Factor]| -> Vec<String> {
            let names = factors.iter().filter(|f| **f != Factor::Passkey);
            names.map(|f| f.name().to_owned()).collect()
        };
        self.list(at, "factors", &kinds(&old.factors), &kinds(&new.factors));
        let passkeys = |e: &Entry| e.factors.contains(&Factor::Passkey);
        if passkeys(old) != passkeys(new) {
            let word = if passkeys(new) {
                "are taken"
            } else {
                "are no longer taken"
            };
            self.put(Direction::Neutral, at, &format!("passkeys {word}"));
        }
        let (was, is) = (old.requester_may_approve, new.requester_may_approve);
        self.flag(at, "requester_may_approve", was, is);
        let risky = |e: &Entry| {
            let all = e.risky_factors.as_ref().unwrap_or(&e.factors);
            all.iter().map(|f| f.name().to_owned()).collect::<Vec<_>>()
        };
        if old.risky_factors.is_some() || new.risky_factors.is_some() {
            self.list(at, "risky_factors", &risky(old), &risky(new));
        }
    }

    fn releases(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        let stricter = |form: VersionForm| match form {
            VersionForm::SemverRelease => 3,
            VersionForm::Semver => 2,
            VersionForm::Pep440 => 1,
            VersionForm::Any => 0,
        };
        if old.version != new.version {
            // Python's versions and semantic ones are no part of each other.
            let pep = [old.version, new.version].contains(&VersionForm::Pep440)
                && new.version != VersionForm::Any
                && old.version != VersionForm::Any;
            let weaker = pep || stricter(new.version) < stricter(old.version);
            self.changed(at, "version", weaker, "another form");
        }
        self.list(at, "tags", &old.tags, &new.tags);
        let power = |mode: Mode| match mode {
            Mode::Forward | Mode::Deposit => 0,
            Mode::Mint => 1,
            Mode::Reveal => 2,
        };
        let (was, is) = (power(old.mode), power(new.mode));
        if was != is {
            self.changed(at, "mode", is > was, &format!("now {:?}", new.mode));
        } else if old.mode != new.mode {
            self.put(Direction::Neutral, at, &format!("mode: now {:?}", new.mode));
        }
        // An intent counts for what is forwarded, and not for a token or a secret.
        if was > 0 && is == 0 && new.commit_counts {
            self.changed(at, "intent", true, "counts from now on");
        }
        let (was, is) = (old.mint_seconds, new.mint_seconds);
        self.number(at, "mint_life in seconds", was, is, false);
        self.flag(at, "intent = commit", old.commit_counts, new.commit_counts);
        let rank = |u: Unsolicited| u as u8;
        let (was, is) = (rank(old.unsolicited), rank(new.unsolicited));
        if was != is {
            let words = format!("now {:?}", new.unsolicited);
            self.changed(at, "unsolicited", is < was, &words);
        }
    }

    fn times(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        let (was, is) = (old.answers_seconds, new.answers_seconds);
        self.number(at, "answers in seconds", was, is, false);
        let (was, is) = (old.veto_seconds, new.veto_seconds);
        self.number(at, "veto in seconds", was, is, true);
        if old.hours != new.hours {
            // Two windows are not compared: one that is another one may be open at night.
            let stricter = old.hours.is_none();
            self.changed(at, "hours", !stricter, "other hours");
        }
    }

    fn contents(&mut self, at: &PackagePattern, old: &Entry, new: &Entry) {
        let strict = |scan: Scan| match scan {
            Scan::Block => 3,
            Scan::IfSeen => 2,
            Scan::Show => 1,
            Scan::Off => 0,
        };
        let (was, is) = (strict(old.scan), strict(new.scan));
        if was != is {
            self.changed(at, "scan", is < was, &format!("now {:?}", new.scan));
        }
        // What must be unchanged demands: fewer of it is weaker.
        let names = |e: &Entry| e.unchanged.iter().map(ToString::to_string).collect();
        let (was, is): (Vec<String>, Vec<String>) = (names(old), names(new));
        self.lost_and_found(at, "require_unchanged", &was, &is, true);
    }

    /// A list whose elements allow.
    fn list<T: Display + PartialEq>(
        &mut self,
        at: &PackagePattern,
        key: &str,
        old: &[T],
        new: &[T],
    ) {
        self.lost_and_found(at, key, old, new, false);
    }

    fn lost_and_found<T: Display + PartialEq>(
        &mut self,
        at: &PackagePattern,
        key: &str,
        old: &[T],
        new: &[T],
        demands: bool,
    ) {
        for one in new.iter().filter(|n| !old.contains(n)) {
            self.changed(at, key, !demands, &format!("{one} came in"));
        }
        for one in old.iter().filter(|o| !new.contains(o)) {
            self.changed(at, key, demands, &format!("{one} went out"));
        }
    }

    /// A number; `more_is_stricter` says what more of it does.
    fn number(
        &mut self,
        at: &PackagePattern,
        key: &str,
        old: u64,
        new: u64,
        more_is_stricter: bool,
    ) {
        if old != new {
            let weaker = (new < old) == more_is_stricter;
            self.changed(at, key, weaker, &format!("{old} to {new}"));
        }
    }

    /// What allows more when it is on.
    fn flag(&mut self, at: &PackagePattern, key: &str, old: bool, new: bool) {
        if old != new {
            self.changed(at, key, new, if new { "on" } else { "off" });
        }
    }

    fn changed(&mut self, at: &PackagePattern, key: &str, weaker: bool, words: &str) {
        let direction = if weaker {
            Direction::Weaker
        } else {
            Direction::Stronger
        };
        self.put(direction, at, &format!("{key}: {words}"));
    }

    fn put(&mut self, direction: Direction, at: &PackagePattern, words: &str) {
        let words = format!("{} {words}", at.as_str());
        self.found.insert(Change { direction, words });
    }
}
