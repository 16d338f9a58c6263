use super::{
    compare::{compare, is_weaker},
    file::Policy,
    stage_set::EXAMPLE,
};
use proto::act::Direction;

fn policy(text: &str) -> Policy {
    Policy::parse(text, "policy.toml").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The example, and with this replaced in it.
fn both(from: &str, to: &str) -> (Policy, Policy) {
    let other = EXAMPLE.replacen(from, to, 1);
    assert_ne!(other, EXAMPLE, "{from}");
    (policy(EXAMPLE), policy(&other))
}

/// Edits that allow less; the other way round they allow more.
const STRICTER: [(&str, &str); 17] = [
    (
        "approvers = [\"release\"]\nquorum = 2",
        "approvers = [\"release\"]\nquorum = 3",
    ),
    ("ref = \"refs/tags/v*\"", "ref = \"refs/tags/v1*\""),
    ("ref = \"refs/tags/v*\"", "ref = \"refs/tags/v1\""),
    (
        "event = [\"push\"]",
        "event = [\"push\"], runner = \"github-hosted\"",
    ),
    ("version = \"any\"", "version = \"semver\""),
    (
        "version = \"semver-release\"",
        "version = \"semver-release\"\nmode = \"forward\"",
    ),
    ("tags = [\"latest\", \"next\"]", "tags = [\"latest\"]"),
    ("tags = [\"latest\", \"next\"]\n", ""),
    ("veto = \"10m\"", "veto = \"11m\""),
    (
        "hours = \"always\"",
        "hours = \"Mon-Fri 08:00-18:00 Europe/Berlin\"",
    ),
    ("unsolicited = \"ring\"", "unsolicited = \"queue\""),
    ("unsolicited = \"ring\"", "unsolicited = \"refuse\""),
    ("answers = \"1h\"", "answers = \"30m\""),
    ("answers = \"1h\"\n", ""),
    ("match = [\"npm:@acme/*\"]", "match = [\"npm:@acme/l*\"]"),
    ("match = [\"npm:@acme/*\"]", "match = [\"npm:@acme/left\"]"),
    ("intent = \"commit\"", "intent = \"files\""),
];

fn list() -> impl Iterator<Item = (Policy, Policy, String)> {
    let usable = STRICTER.iter().filter(|(from, _)| EXAMPLE.contains(from));
    usable.map(|(from, to)| {
        let (old, new) = both(from, to);
        (old, new, format!("{from} -> {to}"))
    })
}

#[test]
fn attack_50_an_edit_and_its_reverse_are_told_apart() {
    let mut seen = 0;
    for (loose, strict, what) in list() {
        let there = compare(&loose, &strict);
        assert!(!is_weaker(&there), "{what}: {there:?}");
        let back = compare(&strict, &loose);
        let same = there.is_empty() && back.is_empty();
        assert!(same || is_weaker(&back), "{what}, back: {back:?}");
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_same_policy_in_other_words_is_no_difference() {
    let example = policy(EXAMPLE);
    assert_eq!(
        compare(&example, &policy(&format!("# hello\n{EXAMPLE}"))),
        []
    );
    let nothing = Policy::nothing();
    let all = compare(&nothing, &example);
    assert!(all.iter().all(|c| c.direction == Direction::Weaker) && !all.is_empty());
    let gone = compare(&example, &nothing);
    assert!(gone.iter().all(|c| c.direction == Direction::Stronger) && !gone.is_empty());
}

/// A second table of the same shape for other packages.
fn with(table: &str) -> Policy {
    policy(&format!("{EXAMPLE}\n{table}"))
}

fn table(matches: &str, quorum: u32) -> String {
    let first = EXAMPLE.split("\n[[package]]\n").nth(1).unwrap();
    let lines = first.lines().map(|line| match line.split(' ').next() {
        Some("match") => format!("match = [{matches}]"),
        Some("quorum") => format!("quorum = {quorum}"),
        _ => line.to_owned(),
    });
    format!("[[package]]\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn attack_50_a_pattern_is_compared_with_what_decided_before() {
    let example = policy(EXAMPLE);
    let weaker = |old: &Policy, new: &Policy| is_weaker(&compare(old, new));
    let strict = with(&table("\"npm:@acme/core\"", 3));
    let loose = with(&table("\"npm:@acme/core\"", 1));
    assert!(!weaker(&example, &strict), "one package more strictly");
    assert!(weaker(&example, &loose), "one package more loosely");
    assert!(weaker(&strict, &example), "the strict exception goes");
    assert!(!weaker(&loose, &example), "the loose exception goes");
    let strict = with(&table("\"npm:@acme/core-*\"", 3));
    let loose = with(&table("\"npm:@acme/core-*\"", 1));
    assert!(!weaker(&example, &strict), "a glob inside, more strictly");
    assert!(weaker(&example, &loose), "a glob inside, more loosely");
    assert!(weaker(&strict, &example), "the strict glob goes");
    assert!(!weaker(&loose, &example), "the loose glob goes");
    for new in ["\"npm:other\"", "\"npm:@other/*\"", "\"npm:*\""] {
        assert!(weaker(&example, &with(&table(new, 9))), "{new} is new");
    }
    // Two patterns that fight over a name are a no, until one of them goes, they are one table, or a closer one comes.
    let fight = with(&table("\"npm:@acme/*-x\"", 2));
    assert!(weaker(&fight, &example));
    assert!(!weaker(&example, &fight) && !weaker(&fight, &fight));
    let merged = EXAMPLE.replacen("\"npm:@acme/*\"", "\"npm:@acme/*\", \"npm:@acme/*-x\"", 1);
    assert!(weaker(&fight, &policy(&merged)), "merged");
    let both = table("\"npm:@acme/*-x\"", 2) + &table("\"npm:@acme/y*-x\"", 2);
    assert!(weaker(&fight, &with(&both)), "a closer one");
    let three = table("\"npm:@acme/a*-x\"", 2) + &table("\"npm:@acme/a*-y*\"", 2);
    assert!(weaker(&with(&three), &example), "both gone");
}
