//! Attack 49 and the quorum as properties: over many cases, not over chosen ones.

use super::{
    evaluate::Verdict,
    file::Policy,
    stage_set::{EXAMPLE, OPENED, Set, github, person, text},
};
use crate::challenge::approval::Approval;
use proptest::prelude::*;
use proto::{answer::Factor, api::Mode};

/// Cases near the border: each of the examples, bent in one way or two.
fn cases() -> Vec<Set> {
    let bends: Vec<fn(&mut Set)> = vec![
        |_| {},
        |s| s.caller = github(&[("ref", "refs/heads/main")]),
        |s| s.caller = github(&[("event", "workflow_dispatch")]),
        |s| s.caller = github(&[("environment", "")]),
        |s| s.caller = github(&[("environment", "staging")]),
        |s| {
            s.caller = github(&[
                ("workflow", ".github/workflows/evil.yml"),
                ("entry_workflow", ""),
            ]);
        },
        |s| s.caller = github(&[("repository_owner_id", "46")]),
        |s| s.caller = github(&[("repository_id", "999")]),
        |s| s.caller.issuer = "gitlab".into(),
        |s| s.caller.subject = "other".into(),
        |s| s.answers.truncate(1),
        |s| s.answers.clear(),
        |s| s.answers = vec![("alice", 1, Factor::Device), ("bob", 2, Factor::Device)],
        |s| s.answers = vec![("alice", 1, Factor::Totp), ("carol", 3, Factor::Totp)],
        |s| s.answers = vec![("dave", 4, Factor::Totp)],
        |s| s.items[0].tag = None,
        |s| s.items[0].tag = Some(text("next")),
        |s| s.items[0].tag = Some(text("other")),
        |s| s.items[0].version = text("1.0.0"),
        |s| s.items[0].version = text("2.0.0-rc.1"),
        |s| s.items[0].version = text("not-a-version"),
        |s| s.at_open.mode = Mode::Reveal,
        |s| s.at_open.mode = Mode::Forward,
        |s| s.key_packages = None,
        |s| s.approved = Some(s.now),
        |s| {
            s.now = OPENED + 12 * 3600;
            s.expires = s.now + 1800;
        },
        |s| s.items[0].package = "other".parse().unwrap(),
    ];
    let mut all = Vec::new();
    for base in [Set::npm(), Set::pypi(), Set::vault()] {
        for (i, first) in bends.iter().enumerate() {
            for second in &bends[i..] {
                all.push(base.clone().with(first).with(second));
            }
        }
    }
    all
}

/// A case, its answers, whether the example permits it, and how long it takes answers.
type Judged = (Set, Vec<Approval>, bool, Option<u64>);

/// A document is no wider than the example when it admits and permits nothing that the example does not.
fn no_wider(document: &str, cases: &[Judged], what: &str) -> bool {
    let Ok(policy) = Policy::parse(document, "policy.toml") else {
        return false;
    };
    for (set, approvals, permitted, answers) in cases {
        let now = matches!(set.release_by(&policy, approvals), Verdict::Permit(_));
        assert!(
            !now || *permitted,
            "{what}: permits {:?} {:?}",
            set.items,
            set.caller
        );
        if let Ok(admitted) = set.open_by(&policy) {
            let longer = answers.is_none_or(|a| admitted.answers_seconds > a);
            assert!(!longer, "{what}: asks people more");
        }
    }
    true
}

#[test]
fn attack_49_each_line_removed_allows_nothing_more() {
    let cases: Vec<Judged> = cases()
        .into_iter()
        .map(|set| {
            let approvals = set.approvals();
            let permitted = matches!(set.release(), Verdict::Permit(_));
            let answers = set.open().ok().map(|a| a.answers_seconds);
            (set, approvals, permitted, answers)
        })
        .collect();
    assert!(
        cases.iter().filter(|c| c.2).count() > 10,
        "some cases are permitted"
    );
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let code = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut judged = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, l)| code(l)) {
        let mut rest = lines.clone();
        rest.remove(at);
        judged += u32::from(no_wider(&rest.join("\n"), &cases, line));
        // Each element of the line's list or inline table.
        let inner = line
            .find('{')
            .or_else(|| line.find('['))
            .map_or("", |i| &line[i + 1..]);
        let inner = inner.trim_end_matches([',', ' ', '}', ']']);
        for element in inner.split(", ").filter(|e| !e.is_empty()) {
            let without = line
                .replacen(element, "", 1)
                .replace(", ,", ",")
                .replace("{ ,", "{")
                .replace("[, ", "[")
                .replace(", ]", "]")
                .replace(",  }", " }");
            rest = lines.clone();
            rest[at] = &without;
            judged += u32::from(no_wider(
                &rest.join("\n"),
                &cases,
                &format!("{line} without {element}"),
            ));
        }
    }
    assert!(judged >= 5, "some documents stay valid: {judged}");
}

#[test]
fn attack_49_no_line_of_a_list_that_demands_can_be_lost_alone() {
    let document = |list: &str| {
        let keys = format!("scan = \"show\"\nrequire_unchanged = {list}\nrisky_factors = \"any\"");
        let document =
            EXAMPLE.replacen("answers = \"1h\"", &format!("answers = \"1h\"\n{keys}"), 1);
        assert_ne!(document, EXAMPLE);
        Policy::parse(&document, "policy.toml")
    };
    assert!(document("[\"binaries\", \"install-scripts\"]").is_ok());
    for list in [
        "[\n  \"binaries\",\n  \"install-scripts\",\n]",
        "[\"binaries\",\n  \"install-scripts\"]",
        "[\"binaries\", # why\n]",
    ] {
        let error = document(list).unwrap_err();
        assert_eq!(error.key(), Some("require_unchanged"), "{list}");
    }
}

#[test]
fn attack_49_absence_is_the_shortest_time_for_answers() {
    let seconds = |answers: &str| {
        let document = EXAMPLE.replace("answers = \"1h\"\n", answers);
        assert_ne!(document, EXAMPLE);
        let policy = Policy::parse(&document, "policy.toml").ok()?;
        Some(policy.entries()[0].answers_seconds)
    };
    let mut shortest = None;
    for minutes in (1..=60).rev() {
        shortest = seconds(&format!("answers = \"{minutes}m\"\n")).or(shortest);
    }
    assert_eq!(seconds(""), shortest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_permit_needs_the_quorum_of_distinct_eligible_humans(
        quorum in 1u32..5,
        answers in proptest::collection::vec((0usize..6, 1u8..9, any::<bool>()), 0..8),
        groups in proptest::collection::vec(any::<bool>(), 6),
        actor in 0usize..8,
        may in any::<bool>(),
    ) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let set = Set::npm().with(|s| {
            s.policy = EXAMPLE
                .replacen("quorum = 2", &format!("quorum = {quorum}"), 1)
                .replace("requester_may_approve = false", &format!("requester_may_approve = {may}"));
            s.people = (0..6).map(|i| person(NAMES[i], if groups[i] { &["release"] } else { &["python"] }, &[&format!("github:{i}")])).collect();
            s.actor = Some(format!("github:{actor}"));
            s.answers = answers.iter().map(|(i, seed, totp)| (NAMES[*i], *seed, if *totp { Factor::Totp } else { Factor::Device })).collect();
        });
        let counting = (0..6)
            .filter(|i| groups[*i] && (may || *i != actor))
            .filter(|i| answers.iter().any(|(who, _, totp)| who == i && *totp))
            .count();
        let permitted = matches!(set.release(), Verdict::Permit(_));
        prop_assert_eq!(permitted, counting >= quorum as usize);
    }
}
