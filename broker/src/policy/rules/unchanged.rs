//! What must be as in the version before is so, as far as the bytes tell.

use super::{Finding, scan::inspected};
use crate::policy::{
    case::{Case, Stage},
    reason::Reason,
};
use proto::card::{FindingKind, Previous, Risk};

/// What nobody compared is not known to be unchanged.
pub(super) fn rule(case: &Case<'_>) -> Finding {
    let kinds = &case.entry.unchanged;
    if case.stage == Stage::Open || kinds.is_empty() {
        return Finding::Pass;
    }
    let looked = inspected(case);
    if looked != Finding::Pass {
        return looked;
    }
    for card in case.here.cards {
        if card.previous == Previous::Unknown {
            return Finding::Deny(Reason::NotCompared);
        }
        let changed = |kind| kinds.contains(&kind);
        let source = card.inside.as_ref().and_then(|inside| inside.source);
        if changed(FindingKind::Source) && source.is_none() {
            return Finding::Deny(Reason::NoSource);
        }
        let mut findings = card.findings.iter();
        if let Some(f) = findings.find(|f| changed(f.kind) && f.risk > Risk::Note) {
            return Finding::Deny(Reason::Changed {
                kind: f.kind,
                what: f.what.clone(),
            });
        }
    }
    Finding::Pass
}

#[cfg(test)]
mod tests {
    use crate::policy::stage_set::{EXAMPLE, Set};
    use proto::{
        answer::Factor,
        card::{AgainstSource, Card, Finding, FindingKind, Inside, Outcome, Previous, Risk},
    };

    fn card(outcome: Outcome, previous: Previous, findings: &[(FindingKind, Risk)]) -> Card {
        let mut card = Card::only(0, 0, "left.tgz", outcome);
        card.previous = previous;
        card.findings = findings
            .iter()
            .map(|(kind, risk)| Finding {
                kind: *kind,
                risk: *risk,
                what: "what".into(),
                why: "why".into(),
            })
            .collect();
        card
    }

    fn before() -> Previous {
        Previous::Version {
            version: "1.0.0".into(),
            published: None,
        }
    }

    /// This line, and the two that stand with it, which demand nothing.
    fn group(line: &str) -> String {
        let all = [
            "scan = \"show\"",
            "require_unchanged = \"nothing\"",
            "risky_factors = \"any\"",
        ];
        let key = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
        let others = all.into_iter().filter(|other| key(other) != key(line));
        let mut lines: Vec<_> = others.collect();
        lines.push(line);
        lines.join("\n")
    }

    /// The outcome of the example with this line and this card.
    fn outcome(line: &str, cards: &[Card]) -> &'static str {
        let keys = if line.is_empty() {
            String::new()
        } else {
            group(line)
        };
        let set = Set::npm().with(|s| {
            s.policy =
                EXAMPLE.replacen("answers = \"1h\"", &format!("answers = \"1h\"\n{keys} "), 1);
            assert_ne!(s.policy, EXAMPLE);
            s.cards = cards.to_vec();
        });
        assert!(set.open().is_ok(), "people are asked in any case");
        set.refused()
    }

    #[test]
    fn a_secret_that_was_seen_is_a_no_unless_the_policy_shows_it() {
        let leak = [card(
            Outcome::Inspected,
            before(),
            &[(FindingKind::Secrets, Risk::Critical)],
        )];
        for (line, want) in [
            ("", "secret"),
            ("scan = \"block\"", "secret"),
            ("scan = \"show\"", "permit"),
            ("scan = \"off\"", "permit"),
        ] {
            assert_eq!(outcome(line, &leak), want, "{line}");
        }
    }

    #[test]
    fn attack_53_what_nobody_could_look_into_is_a_no_where_the_policy_says_block() {
        let of = |o| vec![card(o, Previous::Unknown, &[])];
        for (cards, want) in [
            (Vec::new(), "not-inspected"),
            (of(Outcome::Waiting), "not-inspected"),
            (of(Outcome::NotGiven), "not-inspected"),
            (of(Outcome::Failed), "not-inspectable"),
            (of(Outcome::NotAnArchive), "not-inspectable"),
            (of(Outcome::Inspected), "permit"),
        ] {
            assert_eq!(outcome("scan = \"block\"", &cards), want, "{cards:?}");
            assert_eq!(outcome("", &cards), "permit", "{cards:?}");
        }
        let mut two = of(Outcome::Inspected);
        two.extend(of(Outcome::NotGiven));
        assert_eq!(outcome("scan = \"block\"", &two), "not-inspected");
    }

    #[test]
    fn what_must_be_unchanged_is_compared_or_a_no() {
        let line = "require_unchanged = [\"install-scripts\", \"binaries\"]";
        let seen = |previous, findings: &[_]| vec![card(Outcome::Inspected, previous, findings)];
        let scripts = FindingKind::InstallScripts;
        for (cards, want) in [
            (seen(before(), &[]), "permit"),
            (seen(before(), &[(scripts, Risk::Note)]), "permit"),
            (
                seen(before(), &[(FindingKind::Opaque, Risk::High)]),
                "permit",
            ),
            (seen(before(), &[(scripts, Risk::High)]), "changed"),
            (
                seen(before(), &[(FindingKind::Binaries, Risk::Medium)]),
                "changed",
            ),
            (seen(Previous::First, &[]), "permit"),
            (seen(Previous::First, &[(scripts, Risk::High)]), "changed"),
            (seen(Previous::Unknown, &[]), "not-compared"),
            (Vec::new(), "not-inspected"),
            (
                vec![card(Outcome::Failed, before(), &[])],
                "not-inspectable",
            ),
        ] {
            assert_eq!(outcome(line, &cards), want, "{cards:?}");
        }
    }

    #[test]
    fn what_must_be_as_in_the_source_is_compared_with_one() {
        let line = "require_unchanged = [\"source\"]";
        let none = card(Outcome::Inspected, before(), &[]);
        let with = |findings: &[_]| {
            let mut card = card(Outcome::Inspected, before(), findings);
            card.inside = Some(Inside {
                source: Some(AgainstSource::default()),
                ..Inside::default()
            });
            card
        };
        let source = FindingKind::Source;
        for (card, want) in [
            (none, "no-source"),
            (with(&[]), "permit"),
            (with(&[(source, Risk::Note)]), "permit"),
            (with(&[(source, Risk::Low)]), "changed"),
        ] {
            assert_eq!(outcome(line, &[card]), want);
        }
    }

    #[test]
    fn a_risk_raises_the_factor() {
        let calm = card(
            Outcome::Inspected,
            before(),
            &[(FindingKind::Dependencies, Risk::Medium)],
        );
        let risky = card(
            Outcome::Inspected,
            before(),
            &[(FindingKind::Binaries, Risk::High)],
        );
        let unseen = card(Outcome::NotGiven, Previous::Unknown, &[]);
        for (cards, totp, want) in [
            (vec![calm.clone()], true, "permit"),
            (vec![risky.clone()], true, "wait"),
            (vec![risky], false, "permit"),
            (vec![calm, unseen], true, "wait"),
            (Vec::new(), true, "wait"),
        ] {
            let set = Set::npm().with(|s| {
                s.policy = EXAMPLE.replacen(
                    "factors = [\"totp\"]",
                    &format!(
                        "factors = [\"totp\", \"device\"]\n{}",
                        group("risky_factors = [\"device\"]")
                    ),
                    1,
                );
                s.at_open.factors = vec![Factor::Totp, Factor::Device];
                if !totp {
                    for answer in &mut s.answers {
                        answer.2 = Factor::Device;
                    }
                }
                s.cards.clone_from(&cards);
            });
            assert_eq!(set.refused(), want, "{cards:?}");
        }
    }
}
