use super::*;
use proto::digest::{Algorithm, Digest};
use std::convert::Infallible;

const PACKAGE: &str = "npm:left";

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha512, text.as_bytes())
}

fn shown(versions: &[(&str, &[(&str, &str)])]) -> Published {
    let mut out = Published::default();
    for (version, files) in versions {
        let file = |(name, bytes): &(&str, &str)| ShownFile {
            name: (!name.is_empty()).then(|| (*name).to_owned()),
            digest: (!bytes.is_empty()).then(|| digest(bytes)),
        };
        let files = files.iter().map(file).collect();
        out.versions.insert(version.parse().unwrap(), files);
    }
    out
}

fn run(known: Option<&Known>, now: &Published, ours: &[(&str, &str)]) -> Compared {
    let ours = |v: &VersionText, f: &ShownFile| {
        let same = |(version, bytes): &(&str, &str)| {
            *version == v.as_str() && f.digest.as_ref().is_none_or(|d| *d == digest(bytes))
        };
        Ok::<_, Infallible>(ours.iter().any(same))
    };
    compare(PACKAGE, known, now, ours).unwrap().unwrap()
}

fn base() -> Known {
    let first = run(
        None,
        &shown(&[("1.0.0", &[("", "a")]), ("1.1.0", &[("", "b")])]),
        &[("1.1.0", "b")],
    );
    assert!(first.alarm.is_none());
    assert!(matches!(
        first.events.as_slice(),
        [Event::PackageWatched { before: 1, .. }]
    ));
    first.known
}

#[test]
fn what_left_the_broker_is_known_by_its_digest() {
    let known = base();
    let now = shown(&[
        ("1.0.0", &[("", "a")]),
        ("1.1.0", &[("", "b")]),
        ("1.2.0", &[("", "c")]),
    ]);
    let good = run(Some(&known), &now, &[("1.2.0", "c")]);
    assert!(good.alarm.is_none() && good.events.is_empty(), "{good:?}");
    assert_eq!(
        good.known.versions[&"1.2.0".parse().unwrap()].by,
        By::Broker
    );
    // Nothing is new at the next look, whatever left.
    let again = run(Some(&good.known), &now, &[]);
    assert!(again.alarm.is_none() && again.known == good.known);
}

#[test]
fn attack_59_a_version_a_file_or_a_digest_that_is_not_ours_is_an_alarm_once() {
    let known = base();
    for (why, now, ours, cause) in [
        (
            "a new version",
            shown(&[
                ("1.0.0", &[("", "a")]),
                ("1.1.0", &[("", "b")]),
                ("1.2.0", &[("", "c")]),
            ]),
            None,
            FreezeCause::VersionUnknown,
        ),
        (
            "a version of ours with other bytes",
            shown(&[
                ("1.0.0", &[("", "a")]),
                ("1.1.0", &[("", "b")]),
                ("1.2.0", &[("", "evil")]),
            ]),
            Some(("1.2.0", "c")),
            FreezeCause::VersionUnknown,
        ),
        (
            "other bytes for an old version",
            shown(&[("1.0.0", &[("", "evil")]), ("1.1.0", &[("", "b")])]),
            None,
            FreezeCause::VersionChanged,
        ),
        (
            "other bytes for a version of ours",
            shown(&[("1.0.0", &[("", "a")]), ("1.1.0", &[("", "evil")])]),
            Some(("1.1.0", "b")),
            FreezeCause::VersionChanged,
        ),
        (
            "a new version without a digest",
            shown(&[
                ("1.0.0", &[("", "a")]),
                ("1.1.0", &[("", "b")]),
                ("1.2.0", &[("", "")]),
            ]),
            None,
            FreezeCause::VersionUnknown,
        ),
        (
            "one more file",
            shown(&[
                ("1.0.0", &[("", "a"), ("x.whl", "x")]),
                ("1.1.0", &[("", "b")]),
            ]),
            None,
            FreezeCause::VersionUnknown,
        ),
    ] {
        let ours: Vec<_> = ours.into_iter().collect();
        let got = run(Some(&known), &now, &ours);
        assert_eq!(got.alarm.map(|a| a.cause), Some(cause), "{why}");
        assert_eq!(got.events.len(), 1, "{why}");
        let again = run(Some(&got.known), &now, &ours);
        assert!(again.alarm.is_none() && again.events.is_empty(), "{why}");
    }
}

#[test]
fn silence_and_absence_freeze_nothing() {
    let known = base();
    let nothing = |_: &VersionText, _: &ShownFile| Ok::<_, Infallible>(false);
    for empty in [shown(&[]), shown(&[("1.0.0", &[]), ("1.1.0", &[])])] {
        let got = compare(PACKAGE, Some(&known), &empty, nothing).unwrap();
        assert_eq!(got.unwrap_err(), Emptied);
    }
    // Missing once is an old copy; twice is gone, and told once.
    let now = shown(&[("1.0.0", &[("", "a")])]);
    let once = run(Some(&known), &now, &[]);
    assert!(once.events.is_empty() && once.alarm.is_none());
    let twice = run(Some(&once.known), &now, &[]);
    assert!(
        matches!(twice.events.as_slice(), [Event::VersionGone { name }] if name == "npm:left@1.1.0")
    );
    assert!(twice.alarm.is_none());
    assert!(run(Some(&twice.known), &now, &[]).events.is_empty());
    // A number that was used is never free: other bytes under it are a change.
    let back = shown(&[("1.0.0", &[("", "a")]), ("1.1.0", &[("", "evil")])]);
    let back = run(Some(&twice.known), &back, &[]);
    assert_eq!(back.alarm.unwrap().cause, FreezeCause::VersionChanged);
    // A digest that the registry stops to show says nothing.
    let withheld = shown(&[("1.0.0", &[("", "")]), ("1.1.0", &[("", "b")])]);
    assert!(run(Some(&known), &withheld, &[]).alarm.is_none());
}

#[test]
fn a_yank_and_a_moved_tag_are_told() {
    let mut now = shown(&[("1.0.0", &[("", "a")]), ("1.1.0", &[("", "b")])]);
    now.latest = Some("1.1.0".parse().unwrap());
    let known = run(None, &now, &[]).known;
    now.latest = Some("1.0.0".parse().unwrap());
    now.withdrawn.insert("1.1.0".parse().unwrap());
    let got = run(Some(&known), &now, &[]);
    assert!(got.alarm.is_none());
    assert!(matches!(
        got.events.as_slice(),
        [Event::VersionWithdrawn { .. }, Event::LatestMoved { to: Some(to), .. }] if to.as_str() == "1.0.0"
    ));
    // A publish of ours moves it as it should.
    let mut next = shown(&[
        ("1.0.0", &[("", "a")]),
        ("1.1.0", &[("", "b")]),
        ("1.2.0", &[("", "c")]),
    ]);
    next.withdrawn = now.withdrawn;
    next.latest = Some("1.2.0".parse().unwrap());
    let moved = run(Some(&got.known), &next, &[("1.2.0", "c")]);
    assert!(moved.events.is_empty(), "{moved:?}");
}
