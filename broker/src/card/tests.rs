use super::samples::{package_json, tgz};
use super::*;
use proto::card::{Change, FindingKind, Risk};
use std::io::Cursor;

pub(super) fn npm(now: &[u8], before: Option<&[u8]>) -> Inspection {
    of(Format::Npm, "left", "1.1.0", now, before).unwrap()
}

pub(super) fn of(
    format: Format,
    package: &str,
    version: &str,
    now: &[u8],
    before: Option<&[u8]>,
) -> Result<Inspection, crate::registry::archive::ArchiveError> {
    let against = before.map_or(Against::First, |b| Against::Bytes(b.len() as u64));
    let job = Job {
        format,
        package: package.to_owned(),
        version: version.to_owned(),
        length: now.len() as u64,
        previous: against,
        source: None,
    };
    inspect(
        &Rules::new(),
        &job,
        Cursor::new(now),
        before.map(Cursor::new),
        None,
    )
}

fn kinds(inspection: &Inspection) -> Vec<(FindingKind, Risk)> {
    let findings = inspection.findings.iter();
    findings.map(|f| (f.kind, f.risk)).collect()
}

#[test]
fn files_that_differ_are_listed_with_their_sizes_and_their_text() {
    let (old, new) = (package_json("1.0.0", ""), package_json("1.1.0", ""));
    let before = tgz(
        "package",
        &[
            ("package.json", old.as_bytes()),
            ("a.js", b"one\ntwo\n"),
            ("gone.js", b"x"),
            ("same.js", b"same"),
        ],
    );
    let now = tgz(
        "package",
        &[
            ("package.json", new.as_bytes()),
            ("a.js", b"one\n2\n"),
            ("new.js", b"xyz"),
            ("same.js", b"same"),
        ],
    );
    let seen = npm(&now, Some(&before));
    let lines: Vec<_> = seen
        .inside
        .lines
        .iter()
        .map(|l| (l.change, l.name.as_str(), l.size, l.before, l.difference))
        .collect();
    assert_eq!(
        lines,
        [
            (
                Change::Changed,
                "package.json",
                new.len() as u64,
                Some(old.len() as u64),
                Some(0)
            ),
            (Change::Changed, "a.js", 6, Some(8), Some(1)),
            (Change::Added, "new.js", 3, None, None),
            (Change::Removed, "gone.js", 1, None, None),
        ]
    );
    assert_eq!(
        (
            seen.inside.files,
            seen.inside.added,
            seen.inside.removed,
            seen.inside.changed
        ),
        (4, 1, 1, 2)
    );
    assert!(
        seen.compared && seen.findings.is_empty(),
        "{:?}",
        seen.findings
    );
    let diff = &seen.diffs[1];
    assert!(diff.text.contains("-two\n+2\n"), "{}", diff.text);
    assert_eq!(
        seen,
        npm(&now, Some(&before)),
        "the same bytes, the same card"
    );
    // A broken previous archive is no reason for no card; a broken new one is.
    assert!(!npm(&now, Some(b"broken")).compared);
    assert!(of(Format::Npm, "left", "1.1.0", b"broken", None).is_err());
}

#[test]
fn install_scripts_are_told_when_they_are_new_changed_or_run_something_else() {
    let with = |version: &str, script: &str, file: &[u8]| {
        let json = package_json(version, &format!(r#","scripts":{{{script}}}"#));
        tgz(
            "package",
            &[("package.json", json.as_bytes()), ("setup.js", file)],
        )
    };
    let hook = r#""postinstall":"node setup""#;
    let none = with("1.0.0", r#""test":"x""#, b"1");
    let some = with("1.1.0", hook, b"1");
    let told = |now: &[u8], before: Option<&[u8]>| {
        let seen = npm(now, before);
        assert_eq!(seen.findings.len(), 1, "{:?}", seen.findings);
        (seen.findings[0].risk, seen.findings[0].what.clone())
    };
    assert_eq!(
        told(&some, Some(&none)),
        (Risk::High, "postinstall is new: node setup".to_owned())
    );
    assert_eq!(told(&some, None).0, Risk::High);
    let (risk, what) = told(
        &with("1.1.0", r#""postinstall":"node x""#, b"1"),
        Some(&some),
    );
    assert_eq!(
        (risk, what.as_str()),
        (
            Risk::High,
            "postinstall changed from “node setup” to “node x”"
        )
    );
    let (risk, what) = told(&with("1.1.0", hook, b"2"), Some(&some));
    assert_eq!(risk, Risk::High);
    assert!(what.contains("what it runs changed: setup.js"), "{what}");
    assert_eq!(told(&some, Some(&some)).0, Risk::Note);
    let json = package_json("1.1.0", "");
    let gyp = tgz(
        "package",
        &[("package.json", json.as_bytes()), ("binding.gyp", b"{}")],
    );
    assert!(told(&gyp, Some(&none)).1.contains("node-gyp rebuild"));
}

#[test]
fn attack_53_a_flood_of_secrets_hides_no_install_script() {
    let json = package_json("1.1.0", r#","scripts":{"postinstall":"node x"}"#);
    // Of forty and more kinds, so that each is a finding of its own.
    let text: Vec<String> = findings::secret_rules::samples();
    assert!(text.len() > 50);
    let text = text.join("\n");
    let files = [
        ("package.json", json.as_bytes()),
        ("s.txt", text.as_bytes()),
    ];
    let before = tgz(
        "package",
        &[("package.json", package_json("1.0.0", "").as_bytes())],
    );
    let seen = npm(&tgz("package", &files), Some(&before));
    let told = |kind| seen.findings.iter().filter(|f| f.kind == kind).count();
    assert!(told(FindingKind::Secrets) >= 10, "{:?}", kinds(&seen));
    assert_eq!(told(FindingKind::InstallScripts), 1, "{:?}", kinds(&seen));
}

#[test]
fn attack_10_two_names_that_look_the_same_have_a_difference_each() {
    let names = ["a", "b"].map(|c| format!("{}{c}{}", "x/".repeat(45), "y".repeat(90)));
    let of = |version: &str, texts: [&[u8]; 2]| {
        let json = package_json(version, "");
        let [a, b] = texts;
        tgz(
            "package",
            &[
                ("package.json", json.as_bytes()),
                (&names[0], a),
                (&names[1], b),
            ],
        )
    };
    let seen = npm(
        &of("1.1.0", [b"2\n", b"4\n"]),
        Some(&of("1.0.0", [b"1\n", b"3\n"])),
    );
    let [_, a, b] = seen.inside.lines.as_slice() else {
        panic!("{:?}", seen.inside.lines);
    };
    assert_eq!(a.name, b.name, "they are cut alike");
    let text = |line: &proto::card::Line| {
        let at = usize::try_from(line.difference.unwrap()).unwrap();
        seen.diffs[at].text.clone()
    };
    assert!(text(a).contains("+2") && text(b).contains("+4"));
}

#[test]
fn that_nothing_is_known_of_a_version_before_is_neither_calm_nor_a_first_release() {
    let json = package_json(
        "1.1.0",
        r#","dependencies":{"a":"^1"},"scripts":{"install":"node x"}"#,
    );
    let minified = "a=b;".repeat(2000);
    let now = tgz(
        "package",
        &[
            ("package.json", json.as_bytes()),
            ("x.node", b"\x7fELF\0\0"),
            ("m.js", minified.as_bytes()),
        ],
    );
    let against = |previous, bytes: Option<&[u8]>| {
        let job = Job {
            format: Format::Npm,
            package: "left".to_owned(),
            version: "1.1.0".to_owned(),
            length: now.len() as u64,
            previous,
            source: None,
        };
        let seen = inspect(
            &Rules::new(),
            &job,
            Cursor::new(now.as_slice()),
            bytes.map(Cursor::new),
            None,
        );
        seen.unwrap()
    };
    let first = against(Against::First, None);
    let unknown = against(Against::Unknown, None);
    assert_eq!(against(Against::Bytes(6), Some(b"broken")), unknown);
    assert_eq!(
        kinds(&first),
        [
            (FindingKind::InstallScripts, Risk::High),
            (FindingKind::Binaries, Risk::Medium),
            (FindingKind::Opaque, Risk::Low),
        ]
    );
    assert_eq!(
        kinds(&unknown),
        [
            (FindingKind::InstallScripts, Risk::High),
            (FindingKind::Binaries, Risk::High),
            (FindingKind::Opaque, Risk::Medium),
            (FindingKind::Dependencies, Risk::Medium),
        ]
    );
    let told: Vec<_> = unknown.findings.iter().map(|f| f.what.as_str()).collect();
    assert!(
        told[0].contains("whether it is new is not known"),
        "{told:?}"
    );
    assert!(told[1].starts_with("perhaps new: x.node"), "{told:?}");
    assert!(told[3].contains("is not known: a ^1"), "{told:?}");
}

#[test]
fn what_is_not_in_the_source_is_told() {
    let json = package_json("1.1.0", "");
    let source = tgz(
        "left-1.1.0",
        &[
            ("packages/left/package.json", json.as_bytes()),
            ("packages/left/a.js", b"a"),
            ("packages/left/b.js", b"b"),
            ("packages/right/c.js", b"c"),
            ("packages/right/a.js", b"evil"),
        ],
    );
    let source = Listing::read(source.as_slice(), source.len() as u64).unwrap();
    let now = |files: &[(&str, &[u8])]| {
        let mut all = vec![("package.json", json.as_bytes())];
        all.extend_from_slice(files);
        tgz("package", &all)
    };
    let before = now(&[("dist.js", b"0")]);
    let seen = |now: &[u8]| {
        let job = Job {
            format: Format::Npm,
            package: "left".to_owned(),
            version: "1.1.0".to_owned(),
            length: now.len() as u64,
            previous: Against::Bytes(before.len() as u64),
            source: None,
        };
        let [now, before] = [now, &before].map(Cursor::new);
        let seen = inspect(&Rules::new(), &job, now, Some(before), Some(&source)).unwrap();
        let told = seen
            .findings
            .into_iter()
            .filter(|f| f.kind == FindingKind::Source);
        let told: Vec<_> = told.map(|f| (f.risk, f.what)).collect();
        let counts = seen.inside.source.unwrap();
        (told, (counts.same, counts.differ, counts.absent))
    };
    assert_eq!(
        seen(&now(&[("a.js", b"a"), ("b.js", b"b")])),
        (vec![], (3, 0, 0))
    );
    let (told, counts) = seen(&now(&[
        ("a.js", b"evil"),
        ("b.js", b"b"),
        ("c.js", b"c"),
        ("dist.js", b"1"),
        ("new.js", b"2"),
    ]));
    assert_eq!(
        told,
        [
            (
                Risk::Medium,
                "other bytes than in the source: a.js".to_owned()
            ),
            (Risk::Medium, "not in the source: new.js".to_owned()),
            (
                Risk::Low,
                "not in the source, as files of these names before: dist.js".to_owned()
            ),
            (Risk::Low, "elsewhere in the source: c.js".to_owned()),
        ]
    );
    assert_eq!(counts, (3, 1, 2));
}

#[test]
fn python_and_rust_tell_what_runs_when_they_are_built() {
    let sdist = |files: &[(&str, &[u8])]| {
        let mut all: Vec<(&str, &[u8])> = vec![(
            "PKG-INFO",
            b"Metadata-Version: 2.1\nName: Acme.Demo\nVersion: 1.1.0\n",
        )];
        all.extend_from_slice(files);
        tgz("acme_demo-1.1.0", &all)
    };
    let plain = sdist(&[(
        "pyproject.toml",
        b"[build-system]\nrequires=[\"x\"]\nbuild-backend=\"x\"",
    )]);
    let own = sdist(&[
        (
            "pyproject.toml",
            b"[build-system]\nrequires=[\"x\"]\nbuild-backend=\"b\"\nbackend-path=[\".\"]",
        ),
        ("b.py", b"import os"),
        ("setup.py", b"import os"),
    ]);
    let seen = of(Format::Sdist, "acme-demo", "1.1", &own, Some(&plain)).unwrap();
    let whats: Vec<_> = seen
        .findings
        .iter()
        .map(|f| (f.kind, f.what.as_str()))
        .collect();
    assert!(
        whats.iter().all(|(k, _)| *k == FindingKind::InstallScripts),
        "{whats:?}"
    );
    assert!(
        whats[0].1.contains("build backend changed") && whats[1].1.contains("setup.py is new"),
        "{whats:?}"
    );

    let krate = |build: &[u8]| {
        let toml = b"[package]\nname = \"left\"\nversion = \"1.1.0\"\n";
        tgz("left-1.1.0", &[("Cargo.toml", toml), ("build.rs", build)])
    };
    let (a, b) = (krate(b"fn main(){}"), krate(b"fn main(){ net() }"));
    let seen = of(Format::Crate, "left", "1.1.0", &b, Some(&a)).unwrap();
    assert_eq!(kinds(&seen), [(FindingKind::InstallScripts, Risk::High)]);
    let seen = of(Format::Crate, "left", "1.1.0", &a, Some(&a)).unwrap();
    assert_eq!(kinds(&seen), [(FindingKind::InstallScripts, Risk::Note)]);
}

#[test]
fn dependencies_binaries_opaque_code_secrets_and_jumps_are_told() {
    let old = package_json("1.0.0", r#","dependencies":{"a":"^1","b":"^1","c":"^1"}"#);
    let new = package_json(
        "1.1.0",
        r#","dependencies":{"a":"^1","b":"^2","d":"github:x/y","e":"1"}"#,
    );
    let before = tgz("package", &[("package.json", old.as_bytes())]);
    let secret = format!("x\ny = 'npm_{}'", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xLaB3d");
    let encoded = format!("const a = '{}';", "QUJD".repeat(1000));
    let minified = "a=b;".repeat(2000);
    let filler = vec![b'\n'; 400 << 10];
    let now = tgz(
        "package",
        &[
            ("package.json", new.as_bytes()),
            ("x.node", b"\x7fELF\0\0"),
            ("e.js", encoded.as_bytes()),
            ("m.js", minified.as_bytes()),
            ("s.js", secret.as_bytes()),
            ("filler.txt", &filler),
        ],
    );
    let seen = npm(&now, Some(&before));
    assert_eq!(
        kinds(&seen),
        [
            (FindingKind::Secrets, Risk::Critical),
            (FindingKind::Binaries, Risk::High),
            (FindingKind::Opaque, Risk::High),
            (FindingKind::Dependencies, Risk::High),
            (FindingKind::Opaque, Risk::Medium),
            (FindingKind::Dependencies, Risk::Medium),
            (FindingKind::Size, Risk::Medium),
            (FindingKind::Dependencies, Risk::Low),
            (FindingKind::Dependencies, Risk::Note),
        ],
        "{:#?}",
        seen.findings
    );
    assert_eq!(
        seen.findings[0].what,
        "looks like an npm token: s.js line 2"
    );
    let all = serde_json::to_string(&seen).unwrap();
    assert!(!all.contains("aB3dE6"), "the secret itself stands nowhere");
}

#[test]
fn attack_13_the_archive_of_another_package_is_told_before_anybody_approves() {
    for json in [
        package_json("1.1.1", ""),
        r#"{"name":"right","version":"1.1.0"}"#.to_owned(),
        "{}".to_owned(),
        "broken".to_owned(),
    ] {
        let now = tgz("package", &[("package.json", json.as_bytes())]);
        assert_eq!(
            kinds(&npm(&now, None)),
            [(FindingKind::Manifest, Risk::Critical)],
            "{json}"
        );
    }
}

#[test]
fn attack_10_names_inside_cannot_mislead() {
    let json = package_json(
        "1.1.0",
        r#","scripts":{"install":"a\u001b[2J\u202eb"},"dependencies":{"x\u202e\n":"\u001b"}"#,
    );
    let before = tgz(
        "package",
        &[("package.json", package_json("1.0.0", "").as_bytes())],
    );
    let now = tgz("package", &[("package.json", json.as_bytes())]);
    let seen = npm(&now, Some(&before));
    for finding in &seen.findings {
        assert!(
            !finding.what.chars().any(proto::text::misleads),
            "{finding:?}"
        );
    }
    for diff in &seen.diffs {
        let bad = diff
            .text
            .chars()
            .any(|c| c != '\n' && proto::text::misleads(c));
        assert!(!bad, "{diff:?}");
    }
    // Names of files that mislead are refused by the reader, whole.
    let bad = tgz(
        "package",
        &[("package.json", json.as_bytes()), ("a\u{202e}b", b"")],
    );
    assert!(of(Format::Npm, "left", "1.1.0", &bad, None).is_err());
}

#[test]
fn attack_53_a_card_is_small_whatever_is_inside() {
    let names: Vec<String> = (0..400)
        .map(|n| format!("{}/{n}.node", "d".repeat(90)))
        .collect();
    let json = package_json("1.1.0", "");
    let mut files: Vec<(&str, &[u8])> = vec![("package.json", json.as_bytes())];
    files.extend(names.iter().map(|n| (n.as_str(), &b"\x7fELF\0"[..])));
    let seen = npm(&tgz("package", &files), None);
    assert_eq!(seen.inside.files, 401);
    let length = serde_json::to_vec(&seen).unwrap().len();
    assert!(length < 100 << 10, "{length}");
    // A bomb is refused by the reader.
    let bomb = tgz(
        "package",
        &[("package.json", json.as_bytes()), ("z", &vec![0; 12 << 20])],
    );
    assert!(of(Format::Npm, "left", "1.1.0", &bomb, None).is_err());
}
