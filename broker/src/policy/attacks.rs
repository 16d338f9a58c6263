//! The attacks that this room must stop.

use super::{
    evaluate::Verdict,
    file::Policy,
    hours::Hours,
    keys::Unsolicited,
    rules::Why,
    stage_set::{EXAMPLE, OPENED, Set, github, item, outcome, person, text},
};
use proto::{answer::Factor, api::Mode};

#[test]
fn the_examples_are_permitted() {
    for set in [Set::npm(), Set::pypi(), Set::vault()] {
        let admitted = set.open().unwrap();
        let Verdict::Permit(permit) = set.release() else {
            panic!("{:?}", set.release());
        };
        assert_eq!(permit.digest(), &set.request().digest());
        assert_eq!(permit.items(), [set.items[0].name()]);
        assert_eq!(permit.mode(), admitted.mode);
    }
    let admitted = Set::npm().open().unwrap();
    assert_eq!((admitted.quorum, admitted.answers_seconds), (2, 3600));
    assert_eq!(admitted.factors, [Factor::Totp]);
}

#[test]
fn no_match_is_a_no() {
    for (registry, package) in [
        ("npm", "@acme-evil/x"),
        ("npm", "@acme/a/b"),
        ("npm", "left"),
        ("pypi", "@acme/left"),
    ] {
        let set =
            Set::npm().with(|s| s.items = vec![item(registry, package, "1.4.2", Some("latest"))]);
        assert_eq!(set.refused(), "not-allowed", "{registry}:{package}");
    }
    assert_eq!(Set::npm().with(|s| s.items.clear()).refused(), "empty");
    let one_bad = Set::npm().with(|s| s.items.push(item("npm", "other", "1.4.2", Some("latest"))));
    assert_eq!(
        one_bad.refused(),
        "not-allowed",
        "one item that is not allowed denies all"
    );
    let twice = Set::npm().with(|s| s.items.push(s.items[0].clone()));
    assert_eq!(twice.refused(), "item-twice");
}

#[test]
fn the_closest_entry_decides_and_a_tie_is_a_no() {
    let strict = EXAMPLE.replace("pypi:acme-tools", "npm:@acme/left\", \"pypi:acme-tools");
    assert_eq!(
        Set::npm().with(|s| s.policy = strict).refused(),
        "not-allowed",
        "the exact entry has another caller"
    );
    let tied = EXAMPLE.replace("pypi:acme-tools", "npm:@acme/*t\", \"pypi:acme-tools");
    assert_eq!(
        Set::npm().with(|s| s.policy = tied).refused(),
        "ambiguous-policy"
    );
}

#[test]
fn attack_06_another_repository_of_the_same_name() {
    for claims in [
        [("repository_id", "999")],
        [("repository_id", "")],
        [("repository_owner_id", "46")],
        [("repository_owner_id", "")],
    ] {
        assert_eq!(
            Set::npm().with(|s| s.caller = github(&claims)).refused(),
            "not-allowed",
            "{claims:?}"
        );
    }
    assert_eq!(
        Set::npm()
            .with(|s| s.caller.issuer = "gitlab".into())
            .refused(),
        "not-allowed"
    );
}

#[test]
fn attack_07_another_workflow_branch_tag_event_environment() {
    for (key, value) in [
        ("workflow", ".github/workflows/evil.yml"),
        ("workflow", "x/.github/workflows/release.yml"),
        ("workflow", ""),
        ("entry_workflow", ".github/workflows/evil.yml"),
        ("ref", "refs/heads/main"),
        ("ref", "refs/heads/refs/tags/v1"),
        ("ref", "refs/tags/nightly"),
        ("ref", "refs/tags/V1"),
        ("ref", ""),
        ("event", "workflow_dispatch"),
        ("event", "pull_request_target"),
        ("event", "PUSH"),
        ("event", ""),
        ("environment", "staging"),
        ("environment", "release-evil"),
        ("environment", ""),
    ] {
        let set = Set::npm().with(|s| s.caller = github(&[(key, value)]));
        assert_eq!(set.refused(), "other-job", "{key} = {value}");
    }
    let named = Set::pypi().with(|s| {
        s.caller
            .claims
            .insert("environment".into(), "release".into());
    });
    assert_eq!(
        named.refused(),
        "other-job",
        "environment = \"\" is no environment at all"
    );
}

#[test]
fn attack_07_risky_events_are_refused_unless_named() {
    // An entry that may do without `event`, so that only the rule stands in between.
    let document = EXAMPLE.replace("issuer = \"github\", repository_id = 123, owner_id = 45, workflow = \".github/workflows/release.yml\", ref = \"refs/tags/v*\", event = [\"push\"], environment = \"release\"", "issuer = \"github\", subject = 123");
    assert_ne!(document, EXAMPLE);
    let named = document.replace(
        "subject = 123",
        "subject = 123, event = [\"push\", \"workflow_run\", \"pull_request_target\"]",
    );
    for event in ["pull_request_target", "workflow_run"] {
        for claim in ["event", "event_name"] {
            let set = Set::npm().with(|s| {
                s.policy.clone_from(&document);
                s.caller = github(&[("event", ""), (claim, event)]);
            });
            assert_eq!(set.refused(), "other-job", "{event}");
            assert_eq!(
                set.with(|s| s.policy.clone_from(&named)).refused(),
                "permit",
                "{event}"
            );
        }
    }
}

#[test]
fn attack_11_a_client_key_for_another_package() {
    assert_eq!(
        Set::vault().with(|s| s.key_packages = None).refused(),
        "other-package"
    );
    assert_eq!(
        Set::vault()
            .with(|s| s.key_packages = Some(vec!["vault:other".into()]))
            .refused(),
        "other-package"
    );
    assert_eq!(
        Set::vault()
            .with(|s| s.caller.subject = "other".into())
            .refused(),
        "not-allowed"
    );
    assert_eq!(
        Set::vault()
            .with(|s| s.caller.issuer = "github".into())
            .refused(),
        "not-allowed"
    );
}

#[test]
fn attack_15_approvals_of_another_request_decide_nothing() {
    let set = Set::npm();
    let policy = Policy::parse(&set.policy, "policy.toml").unwrap();
    for other in [
        Set::npm().with(|s| s.items[0].version = text("1.4.3")),
        Set::npm().with(|s| s.items[0].tag = Some(text("next"))),
        Set::npm().with(|s| s.items[0].files[0].size = 2),
    ] {
        let mut approvals = other.approvals();
        assert_eq!(outcome(&set.release_by(&policy, &approvals)), "facts");
        approvals.extend(set.approvals());
        assert_eq!(outcome(&set.release_by(&policy, &approvals)), "facts");
    }
    assert_eq!(
        outcome(&set.release_by(&policy, &set.approvals())),
        "permit"
    );
}

#[test]
fn attack_18_an_older_version_or_the_same_again() {
    let of = |version: &str, tag: &str, published: &[&str]| {
        Set::npm()
            .with(|s| {
                s.items = vec![item("npm", "@acme/left", version, Some(tag))];
                s.published = Some(published.iter().map(|v| text(v)).collect());
            })
            .refused()
    };
    assert_eq!(of("1.4.1", "latest", &["1.4.1"]), "version-exists");
    assert_eq!(of("1.4.1+evil", "latest", &["1.4.1"]), "version-exists");
    assert_eq!(of("1.4.0", "latest", &["1.3.0", "1.4.1"]), "version-older");
    assert_eq!(of("1.10.0", "latest", &["1.9.0"]), "permit");
    assert_eq!(
        of("1.4.2", "latest", &["2.0.0-next.1", "1.4.1"]),
        "permit",
        "a release beside a pre-release"
    );
    assert_eq!(
        of("2.0.0-next.1", "next", &["2.0.0", "1.4.1"]),
        "version-older"
    );
    assert_eq!(
        of("2.0.0-next.2", "next", &["2.0.0-next.10"]),
        "version-older"
    );
    assert_eq!(of("2.0.0-next.2", "next", &["1.4.1"]), "permit");
    assert_eq!(of("2.0.0-next.2", "latest", &["1.4.1"]), "prerelease");
    for form in ["1.4", "v1.4.2", "01.4.2", "latest"] {
        assert_eq!(of(form, "latest", &[]), "version-form", "{form}");
    }
    assert_eq!(
        Set::pypi()
            .with(|s| s.published = Some(vec![text("2.0")]))
            .refused(),
        "version-exists"
    );
}

#[test]
fn a_tag_must_be_named_and_allowed() {
    let tagged = |tag: Option<&str>| {
        Set::npm()
            .with(|s| s.items[0].tag = tag.map(text))
            .refused()
    };
    assert_eq!(tagged(None), "no-tag");
    assert_eq!(tagged(Some("stable")), "tag-not-allowed");
    assert_eq!(tagged(Some("next")), "permit");
    assert_eq!(
        Set::pypi()
            .with(|s| s.items[0].tag = Some(text("latest")))
            .refused(),
        "tag-unknown"
    );
    let without = EXAMPLE.replace("tags = [\"latest\", \"next\"]\n", "");
    assert_eq!(
        Set::npm().with(|s| s.policy = without).refused(),
        "tag-not-allowed"
    );
}

#[test]
fn attack_28_too_late_and_attack_48_the_clock_set_back() {
    assert_eq!(Set::npm().with(|s| s.now = s.expires).refused(), "expired");
    assert_eq!(
        Set::npm().with(|s| s.now = s.expires - 1).refused(),
        "permit"
    );
    assert_eq!(
        Set::npm().with(|s| s.now = OPENED - 3600).refused(),
        "clock"
    );
}

/// Until when it is held back, in seconds from the opening, and why.
fn held_back(set: &Set) -> Option<(u64, Why)> {
    match set.release() {
        Verdict::Later(later) => Some((later.until.0 - OPENED, later.why)),
        Verdict::Permit(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_approved_waits_for_the_veto_and_for_the_hours() {
    let at = |now: u64, approved: Option<u64>| {
        Set::npm().with(|s| {
            s.now = OPENED + now;
            s.expires = s.now + 10;
            s.approved = approved.map(|a| OPENED + a);
        })
    };
    // The example: ten minutes, and 08:00 to 18:00 in Berlin; it is opened at 09:00 on a Friday.
    assert_eq!(held_back(&at(100, Some(100))), Some((700, Why::Veto)));
    assert_eq!(held_back(&at(699, Some(100))), Some((700, Why::Veto)));
    assert_eq!(held_back(&at(700, Some(100))), None);
    assert_eq!(
        held_back(&at(100, None)),
        Some((700, Why::Veto)),
        "as with the last answer"
    );
    // Until 18:00 are nine hours; until Monday 08:00 are 71.
    let (evening, monday) = (9 * 3600, 71 * 3600);
    assert_eq!(held_back(&at(evening - 1, Some(0))), None);
    assert_eq!(held_back(&at(evening, Some(0))), Some((monday, Why::Hours)));
    assert_eq!(held_back(&at(monday, Some(0))), None);
    // A veto that ends in the evening goes out on Monday.
    let late = at(evening - 60, Some(evening - 60));
    assert_eq!(held_back(&late), Some((monday, Why::Hours)));
    // Opening and too few answers are another matter: nobody is told to wait for the clock.
    assert!(late.open().is_ok());
    assert_eq!(outcome(&late.with(|s| s.answers.clear()).release()), "wait");
}

#[test]
fn attack_29_what_the_policy_said_of_time_when_people_were_asked_is_never_weakened() {
    let weaker = EXAMPLE
        .replace("veto = \"10m\"", "veto = \"none\"")
        .replace(
            "hours = \"Mon-Fri 08:00-18:00 Europe/Berlin\"",
            "hours = \"always\"",
        );
    let opened = Set::npm().open().unwrap();
    assert_eq!(opened.terms.veto_seconds, 600);
    let set = Set::npm().with(|s| {
        s.policy = weaker.clone();
        s.at_open.terms = opened.terms.clone();
        s.approved = Some(s.now);
    });
    assert_eq!(held_back(&set), Some((700, Why::Veto)));
    let sunday = set.with(|s| {
        s.now = OPENED + 2 * 24 * 3600;
        s.expires = s.now + 10;
        s.approved = Some(OPENED);
    });
    assert_eq!(held_back(&sunday), Some((71 * 3600, Why::Hours)));
    // Hours that are never open together let nothing out.
    let never = sunday.with(|s| {
        s.at_open.terms.hours = vec![
            Hours::parse(&["Mon 08:00-09:00 UTC"]).unwrap(),
            Hours::parse(&["Tue 08:00-09:00 UTC"]).unwrap(),
        ];
    });
    assert_eq!(outcome(&never.release()), "never-open");
}

#[test]
fn attack_24_what_nobody_announced_is_refused_where_the_policy_says_so() {
    let refuses = EXAMPLE.replace("unsolicited = \"ring\"", "unsolicited = \"refuse\"");
    let set = Set::npm().with(|s| s.policy = refuses.clone());
    assert_eq!(set.open().unwrap_err().reason.name(), "unsolicited");
    assert!(set.clone().with(|s| s.intended = true).open().is_ok());
    let stranger = set.with(|s| s.caller = github(&[("repository_id", "999")]));
    assert_eq!(
        stranger.refused(),
        "not-allowed",
        "a stranger learns nothing of it"
    );
    let queues = EXAMPLE.replace("unsolicited = \"ring\"", "unsolicited = \"queue\"");
    let set = Set::npm().with(|s| s.policy = queues);
    assert_eq!(set.open().unwrap().terms.unsolicited, Unsolicited::Queue);
}

#[test]
fn attack_29_one_human_twice_the_requester_and_changes_meanwhile() {
    let answers = |a: &[(&'static str, u8, Factor)]| Set::npm().with(|s| s.answers = a.to_vec());
    let (t, d) = (Factor::Totp, Factor::Device);
    assert_eq!(
        answers(&[("alice", 1, t), ("alice", 9, t)]).refused(),
        "wait",
        "two devices, one human"
    );
    assert_eq!(
        answers(&[("alice", 1, t), ("carol", 3, t)]).refused(),
        "wait",
        "carol started the job"
    );
    assert_eq!(
        answers(&[("alice", 1, t), ("dave", 4, t)]).refused(),
        "wait",
        "dave is in another group"
    );
    assert_eq!(
        answers(&[("alice", 1, t), ("bob", 2, d)]).refused(),
        "wait",
        "a factor that is not accepted"
    );
    assert_eq!(
        answers(&[("alice", 1, t), ("mallory", 2, t)]).refused(),
        "wait",
        "not enrolled"
    );
    assert_eq!(answers(&[]).refused(), "wait");
    let twice = Set::npm().with(|s| {
        s.people.push(person("alice", &["release"], &[]));
        s.answers = vec![("alice", 1, t)];
    });
    assert_eq!(twice.refused(), "wait", "a list with a person in it twice");

    let gone = Set::npm().with(|s| s.people.retain(|p| p.id.as_str() != "bob"));
    assert_eq!(outcome(&gone.release()), "wait", "removed meanwhile");
    assert_eq!(gone.open().unwrap_err().reason.name(), "too-few-approvers");
    let moved = Set::npm().with(|s| s.people[1] = person("bob", &["python"], &[]));
    assert_eq!(
        outcome(&moved.release()),
        "wait",
        "left the group meanwhile"
    );
    let became = Set::npm().with(|s| s.people[1].actors.push("github:7".into()));
    assert_eq!(
        outcome(&became.release()),
        "wait",
        "known as the requester meanwhile"
    );

    let raised = EXAMPLE.replace("quorum = 2", "quorum = 3");
    assert_eq!(outcome(&Set::npm().release_under(&raised)), "wait");
    let lowered = EXAMPLE.replace("quorum = 2", "quorum = 1");
    let one = answers(&[("alice", 1, t)]).with(|s| s.at_open = s.open().unwrap());
    assert_eq!(
        outcome(&one.release_under(&lowered)),
        "wait",
        "asked for two, lowered to one"
    );
    let wider = EXAMPLE.replace("factors = [\"totp\"]", "factors = [\"totp\", \"device\"]");
    let weak = answers(&[("alice", 1, t), ("bob", 2, d)]).with(|s| s.at_open = s.open().unwrap());
    assert_eq!(
        outcome(&weak.release_under(&wider)),
        "wait",
        "asked for a code, weakened to none"
    );
    let other = EXAMPLE.replace("factors = [\"totp\"]", "factors = [\"device\"]");
    assert_eq!(outcome(&weak.release_under(&other)), "no-factor");
    let reveal = EXAMPLE.replace("answers = \"1h\"", "mode = \"reveal\"");
    assert_eq!(outcome(&weak.release_under(&reveal)), "mode-changed");
    assert_eq!(
        Set::npm().with(|s| s.at_open.mode = Mode::Reveal).refused(),
        "mode-changed"
    );
}

#[test]
fn the_requester_counts_only_where_the_policy_says_so() {
    let carol = Set::npm().with(|s| s.answers[1] = ("carol", 3, Factor::Totp));
    let allowed = EXAMPLE.replace(
        "requester_may_approve = false",
        "requester_may_approve = true",
    );
    assert_eq!(carol.with(|s| s.policy = allowed).refused(), "permit");
}

#[test]
fn attack_52_approved_then_frozen() {
    assert_eq!(Set::npm().with(|s| s.frozen = true).refused(), "frozen");
}

#[test]
fn a_batch_takes_the_strictest_of_its_items() {
    let policy = EXAMPLE.replace("pypi:acme-tools", "npm:@acme/right").replace("repository_id = 124, owner_id = 45, workflow = \".github/workflows/pypi.yml\", ref = \"refs/heads/main\", event = [\"workflow_dispatch\"], environment = \"\"", "repository_id = 123, owner_id = 45, workflow = \".github/workflows/release.yml\", ref = \"refs/tags/v*\", event = \"push\", environment = \"*\"").replace("quorum = 1", "quorum = 1\ntags = [\"latest\"]\nanswers = \"15m\"");
    let batch = Set::npm().with(|s| {
        s.policy = policy;
        s.items
            .push(item("npm", "@acme/right", "1.4.2", Some("latest")));
    });
    let admitted = batch.open().unwrap();
    assert_eq!((admitted.quorum, admitted.answers_seconds), (2, 900));
    assert_eq!(admitted.factors, [Factor::Totp]);
    assert_eq!(batch.refused(), "permit");
    let one = batch.clone().with(|s| s.answers.truncate(1));
    assert_eq!(
        one.refused(),
        "wait",
        "enough for one item is not enough for both"
    );
    let mixed = batch.clone().with(|s| {
        s.policy = s
            .policy
            .replace("quorum = 1\n", "quorum = 1\nmode = \"reveal\"\n");
    });
    // What reads like a publish never hands out the secret itself.
    assert_eq!(mixed.open().unwrap_err().reason.name(), "reveals-no-files");
    let mixed = mixed.with(|s| s.items[1].files.clear());
    assert_eq!(mixed.open().unwrap_err().reason.name(), "mixed-modes");
}

#[test]
fn attack_37_a_secret_is_never_revealed_under_the_name_of_a_publish() {
    let reveals = EXAMPLE.replace("answers = \"1h\"", "mode = \"reveal\"");
    let publish = Set::npm().with(|s| s.policy = reveals);
    assert_eq!(
        publish.open().unwrap_err().reason.name(),
        "reveals-no-files"
    );
    // What the job says that it will publish is no publish; and where the broker publishes, it is nothing.
    let announced = publish.with(|s| s.items[0].files[0].size = 0);
    assert_eq!(announced.open().unwrap().mode, Mode::Reveal);
    let secret = announced.with(|s| s.items[0].files.clear());
    assert_eq!(secret.open().unwrap().mode, Mode::Reveal);
    let forward = Set::npm().with(|s| s.items[0].files[0].size = 0);
    assert_eq!(forward.open().unwrap_err().reason.name(), "announced-only");
}
