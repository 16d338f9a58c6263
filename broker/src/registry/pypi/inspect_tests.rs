use super::*;
use crate::registry::{
    archive::samples::{Zipped, entry, tgz, zip},
    pypi::samples::{INFO, METADATA, SDIST, WHEEL, files, record, sdist, wheel, wheel_of},
};
use std::io::Cursor;

type Files = Vec<(String, Vec<u8>)>;

fn look(archive: &[u8], name: &str) -> Result<Inside, DistributionError> {
    let named = Distribution::parse(name).unwrap();
    inspect(Cursor::new(archive), archive.len() as u64, &named)
}

#[test]
fn usual_distributions_are_read() {
    let inside = look(&wheel(), WHEEL).unwrap();
    assert_eq!(inside.metadata["name"], ["acme-demo"]);
    assert_eq!(inside.contents.entries, 4);
    assert!(inside.contents.install_scripts.is_empty());
    let inside = look(&sdist(), SDIST).unwrap();
    assert_eq!(inside.metadata["requires_dist"].len(), 2);
    let old = tgz(&[
        entry("Acme.Demo-1.0.0/", b'5', b""),
        entry(
            "Acme.Demo-1.0.0/PKG-INFO",
            b'0',
            METADATA.replace("acme-demo", "Acme.Demo").as_bytes(),
        ),
        entry("Acme.Demo-1.0.0/setup.py", b'0', b""),
    ]);
    assert_eq!(
        look(&old, SDIST).unwrap().contents.install_scripts,
        ["setup.py"]
    );
}

#[test]
fn attack_13_an_archive_of_another_project_or_version() {
    for (from, to) in [("acme-demo", "acme-evil"), ("1.0.0", "2.0.0")] {
        let metadata = METADATA.replace(from, to);
        let mut inner = files();
        inner[1].1 = metadata.clone().into_bytes();
        assert!(
            look(&wheel_of(&inner, &record(&inner)), WHEEL).is_err(),
            "{to}"
        );
        let tar = tgz(&[entry("acme_demo-1.0.0/PKG-INFO", b'0', metadata.as_bytes())]);
        assert!(look(&tar, SDIST).is_err(), "{to}");
    }
    assert!(look(&wheel(), "acme_evil-1.0.0-py3-none-any.whl").is_err());
    assert!(look(&wheel(), "acme_demo-1.0.1-py3-none-any.whl").is_err());
    assert!(look(&sdist(), "acme_demo-1.0.tar.gz").is_err());
    let folder = tgz(&[entry("evil-1.0.0/PKG-INFO", b'0', METADATA.as_bytes())]);
    assert!(look(&folder, SDIST).is_err());
    assert!(look(&wheel(), SDIST).is_err(), "a wheel named as sdist");
    assert!(look(&sdist(), WHEEL).is_err());
}

#[test]
fn attack_14_a_wheel_with_two_truths_is_refused() {
    let refused = |what: &str, change: fn(&mut Files)| {
        let mut inner = files();
        change(&mut inner);
        assert!(
            look(&wheel_of(&inner, &record(&inner)), WHEEL).is_err(),
            "{what}"
        );
    };
    refused("a second info folder", |f| {
        f.push(("evil-1.0.0.dist-info/METADATA".into(), METADATA.into()));
    });
    refused("the same in other case", |f| {
        f.push(("ACME_demo-1.0.0.DIST-INFO/x".into(), vec![]));
    });
    refused("no METADATA", |f| {
        f.remove(1);
    });
    refused("no WHEEL", |f| {
        f.remove(2);
    });
    refused("name twice in METADATA", |f| {
        f[1].1 = [b"Name: evil\n", METADATA.as_bytes()].concat();
    });
    let no_record = zip(&files()
        .iter()
        .map(|(n, d)| Zipped::new(n, d))
        .collect::<Vec<_>>());
    assert!(look(&no_record, WHEEL).is_err(), "no RECORD");
    // PKG-INFO in the root folder decides, not one deeper down.
    let deeper = tgz(&[entry(
        "acme_demo-1.0.0/x/PKG-INFO",
        b'0',
        METADATA.as_bytes(),
    )]);
    assert!(look(&deeper, SDIST).is_err());
}

#[test]
fn attack_14_record_must_be_right() {
    let inner = files();
    let right = record(&inner);
    let with = |record: &str| look(&wheel_of(&inner, record), WHEEL);
    assert!(with(&right).is_ok());
    assert!(with(&right.replace('\n', "\r\n")).is_ok());
    let first = right.lines().next().unwrap();
    for (what, bad) in [
        (
            "a file that is not listed",
            right.replacen(&format!("{first}\n"), "", 1),
        ),
        ("a file listed twice", format!("{first}\n{right}")),
        ("a file that is not there", format!("evil.py,,\n{right}")),
        ("another hash", right.replacen("sha256=", "sha256=A", 1)),
        ("a weak hash", right.replacen("sha256=", "md5=", 1)),
        (
            "no hash",
            first
                .split(',')
                .next()
                .map(|n| right.replacen(first, &format!("{n},,"), 1))
                .unwrap(),
        ),
        ("another size", right.replacen(",15\n", ",16\n", 1)),
        ("a line too short", format!("{right}x\n")),
        ("a quote", format!("\"{right}")),
        ("nothing", String::new()),
    ] {
        assert!(with(&bad).is_err(), "{what}");
    }
    // Names with commas and quotes are quoted.
    let mut odd = files();
    odd.push(("acme_demo/a,b.txt".into(), vec![]));
    let quoted = record(&odd).replace("acme_demo/a,b.txt", "\"acme_demo/a,b.txt\"");
    assert!(look(&wheel_of(&odd, &quoted), WHEEL).is_ok());
    let itself = right.replace(
        &format!("{INFO}/RECORD,,"),
        &format!("{INFO}/RECORD,sha256=x,1"),
    );
    assert!(with(&itself).is_err());
}

#[test]
fn what_runs_at_every_start_is_named() {
    let mut inner = files();
    inner.push(("evil.PTH".into(), b"import os".to_vec()));
    let inside = look(&wheel_of(&inner, &record(&inner)), WHEEL).unwrap();
    assert_eq!(inside.contents.install_scripts, ["*.pth"]);
}
