//! The house keeps its shape: floors that only look down, the entries of the design, no registry's address.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms of broker/src by floor. A room sees itself and the floors below, never its neighbours.
const FLOORS: [&[&str]; 11] = [
    &["secret", "world", "telemetry"],
    &["store"],
    &["audit", "registry", "notify", "caller", "challenge"],
    &["card"],
    &["policy"],
    &["vault"],
    &["desk"],
    &["publish"],
    &["admin", "watch", "backup"],
    &["http"],
    &["config", "main", "start"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Every file under `dir` that git would keep.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            if !["target", "node_modules", "venv", ".git"].contains(&name.to_str().unwrap()) {
                found.extend(files(&entry.path()));
            }
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// The first names after each `crate::` or `super::` of a text: `crate::a::b`, `crate::{a::b, c}`.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for after in code
        .split("crate::")
        .skip(1)
        .chain(code.split("super::").skip(1))
    {
        let Some(group) = after.strip_prefix('{') else {
            rooms.insert(first_name(after));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    rooms.insert(first_name(group[start..at].trim_start()));
                    start = at + 1;
                    if letter == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    rooms
}

fn first_name(path: &str) -> String {
    path.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

#[test]
fn floors_only_look_down() {
    let src = stand::root().join("broker/src");
    let mut wrong = Vec::new();
    for file in files(&src) {
        let inside = file.strip_prefix(&src).unwrap().with_extension("");
        let room = inside.iter().next().unwrap().to_str().unwrap();
        if room == "lib" || file.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let Some(own) = floor(room) else {
            wrong.push(format!("{}: a room without a floor", inside.display()));
            continue;
        };
        let code: String = fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|line| line.split("//").next().unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        for named in rooms_named(&code) {
            if named != room && floor(&named).is_some_and(|other| other >= own) {
                wrong.push(format!("{}: looks at {named}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_paths_sees_groups() {
    let code = "use crate::{a::{b, c}, d};\nlet x = crate::e::f(super::super::g::h, crate::i);";
    let rooms = rooms_named(code);
    for room in ["a", "d", "e", "g", "i"] {
        assert!(rooms.contains(room), "{room} in {rooms:?}");
    }
    assert!(!rooms.contains("c"));
}

#[test]
fn the_top_level_is_the_designs() {
    let wanted = "Cargo.toml README.md broker client deploy docs proto tests";
    // Beside them: the lock, the licence, files for tools, and what a build leaves.
    let beside = ["Cargo.lock", "LICENSE", "rust-toolchain.toml", "target"];
    let found: BTreeSet<String> = fs::read_dir(stand::root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !beside.contains(&name.as_str()))
        .collect();
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found.join(" "), wanted);
}

#[test]
fn the_client_never_sees_the_broker() {
    let manifest = fs::read_to_string(stand::root().join("client/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let names = manifest.get(kind).and_then(toml::Value::as_table);
        for name in names.into_iter().flat_map(toml::Table::keys) {
            assert!(!name.contains("broker"), "{name} in {kind}");
        }
    }
}

#[test]
fn no_registrys_address_is_built_in() {
    // Composed from pieces, so that this file holds none. With `.` or `/` before it, it is a host and not a name.
    let dot = |parts: &[&str]| parts.join(".");
    let hosts = [
        dot(&["npmjs", "org"]),
        dot(&["npmjs", "com"]),
        dot(&["yarnpkg", "com"]),
        dot(&["pypi", "org"]),
        dot(&["pythonhosted", "org"]),
        dot(&["rubygems", "org"]),
        dot(&["", "crates", "io"]),
        dot(&["//crates", "io"]),
        dot(&["ghcr", "io"]),
        dot(&["docker", "io"]),
        dot(&["quay", "io"]),
    ];
    let mut wrong = Vec::new();
    for file in files(&stand::root()) {
        // Cargo's own lock names the index that it was made with; nothing that runs reads it.
        if file.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for host in hosts.iter().filter(|host| text.contains(host.as_str())) {
            wrong.push(format!("{}: {host}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The numbers of a test's attacks: `attack_13_and_14_what_happens`, `attack_28_too_late_and_attack_48_early`.
fn numbers(test: &str) -> Vec<&str> {
    let leading = |part| {
        str::split(part, '_').take_while(|word| *word == "and" || word.parse::<u8>().is_ok())
    };
    let parts = test.split("attack_").skip(1);
    parts
        .flat_map(leading)
        .filter(|word| *word != "and")
        .collect()
}

#[test]
fn the_controls_fit_the_sources() {
    // A line of the list that fits no more takes nothing out; to see that needs no build.
    let root = stand::root();
    let out = std::process::Command::new("node")
        .arg(root.join("tests/controls/run"))
        .arg("--check")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "mend tests/controls/list:\n{said}");
}

#[test]
fn every_attack_test_stands_in_the_rows_of_its_numbers_and_no_other_does() {
    let root = stand::root();
    let mut made = BTreeSet::new();
    for part in ["broker", "client", "proto", "tests"] {
        for file in files(&root.join(part)) {
            if file.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let path = file.strip_prefix(&root).unwrap().display().to_string();
            let code = fs::read_to_string(&file).unwrap();
            for line in code.lines() {
                let Some((before, test)) = line.split_once("fn ") else {
                    continue;
                };
                let plain = ["", "async", "pub", "pub async"].contains(&before.trim());
                if let Some((test, _)) = test.split_once(['(', '<']).filter(|_| plain) {
                    for number in numbers(test) {
                        made.insert(format!("{number}: `{test}` ({path})"));
                    }
                }
            }
        }
    }
    assert!(made.len() > 200, "the reader found {}", made.len());
    let table = fs::read_to_string(root.join("docs/THREAT_MODEL.md")).unwrap();
    let mut told = BTreeSet::new();
    for row in table.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches(['|', ' ']).splitn(3, " | ").collect();
        let [number, _, tests] = cells[..] else {
            continue;
        };
        for test in tests.split("<br>").filter(|t| t.starts_with("`attack_")) {
            let number = number.trim_start_matches('0');
            told.insert(format!("{number:0>2}: {test}"));
        }
    }
    let missing: Vec<_> = made.difference(&told).collect();
    let gone: Vec<_> = told.difference(&made).collect();
    assert!(missing.is_empty(), "no row has: {missing:#?}");
    assert!(gone.is_empty(), "nothing is: {gone:#?}");
}
