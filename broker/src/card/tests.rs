use super::samples::{package_json, tgz};
use super::*;
use proto::card::{Change, FindingKind, Risk};
use std::io::Cursor;

fn npm(now: &[u8], before: Option<&[u8]>) -> Inspection {
    of(Format::Npm, "left", "1.1.0", now, before).unwrap()
}

fn of(
    format: Format,
    package: &str,
    version: &str,
    now: &[u8],
    before: Option<&[u8]>,
) -> Result<Inspection, crate::registry::archive::ArchiveError> {
    let job = Job {
        format,
        package: package.to_owned(),
        version: version.to_owned(),
        length: now.len() as u64,
        previous: before.map(|b| b.len() as u64),
    };
    inspect(
        &Rules::new(),
        &job,
        Cursor::new(now),
        before.map(Cursor::new),
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
        .map(|l| (l.change, l.name.as_str(), l.size, l.before, l.diff))
        .collect();
    assert_eq!(
        lines,
        [
            (Change::Changed, "a.js", 6, Some(8), true),
            (Change::Added, "new.js", 3, None, false),
            (
                Change::Changed,
                "package.json",
                new.len() as u64,
                Some(old.len() as u64),
                true
            ),
            (Change::Removed, "gone.js", 1, None, false),
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
    let diff = seen.diffs.iter().find(|d| d.name == "a.js").unwrap();
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
