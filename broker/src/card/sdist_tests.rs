//! A Python source distribution against the source that it was made of.

use super::{
    Against, Format, Inspection, Job, findings::secrets::Rules, inspect, samples::tgz,
    source::Listing,
};
use proto::card::{FindingKind, Risk};
use std::io::Cursor;

const SETTINGS: &str = "# ours\n[metadata]\nname = left\n";
const REWRITTEN: &str = "[metadata]\nname = left\n\n[egg_info]\ntag_build = \ntag_date = 0\n\n";

fn seen(source: &[(&str, &str)], now: &[(&str, &str)]) -> Inspection {
    let archive = |root: &str, files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_bytes())).collect();
        tgz(root, &files)
    };
    let source = archive("src", source);
    let source = Listing::read(source.as_slice(), source.len() as u64).unwrap();
    let now = archive("left-1.0", now);
    let job = Job {
        format: Format::Sdist,
        package: "left".to_owned(),
        version: "1.0".to_owned(),
        length: now.len() as u64,
        previous: Against::First,
        source: None,
    };
    inspect(&Rules::new(), &job, Cursor::new(now), None, Some(&source)).unwrap()
}

fn told(source: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<(Risk, String)> {
    let findings = seen(source, now).findings.into_iter();
    let findings = findings.filter(|f| f.kind == FindingKind::Source);
    findings.map(|f| (f.risk, f.what)).collect()
}

#[test]
fn what_setuptools_makes_is_a_note_and_nothing_else_in_its_places() {
    let source = [("left.py", "x"), ("setup.cfg", SETTINGS)];
    let usual = [
        ("left.py", "x"),
        ("PKG-INFO", "Name: left"),
        ("setup.cfg", REWRITTEN),
        ("left.egg-info/PKG-INFO", "Name: left"),
        ("left.egg-info/SOURCES.txt", "left.py"),
    ];
    let note = |files: &str| (Risk::Note, format!("made when it was packed: {files}"));
    let made = "PKG-INFO, left.egg-info/PKG-INFO, left.egg-info/SOURCES.txt";
    assert_eq!(told(&source, &usual), [note(&format!("{made}, setup.cfg"))]);
    // A hook, in the settings and in the folder that setuptools makes.
    let hook = format!("{REWRITTEN}[build_ext]\nforce = 1\n");
    let mut evil = usual.to_vec();
    evil[2].1 = &hook;
    evil.push(("left.egg-info/evil.py", "import os"));
    assert_eq!(
        told(&source, &evil),
        [
            (
                Risk::Medium,
                "other bytes than in the source: setup.cfg".to_owned()
            ),
            (
                Risk::Medium,
                "not in the source: left.egg-info/evil.py".to_owned()
            ),
            note(made),
        ]
    );
    // Without one in the source, setuptools' own words alone.
    let new = told(&source[..1], &usual);
    assert_eq!(new[0].1, "not in the source: setup.cfg");
    let mut own = usual;
    own[2].1 = "[egg_info]\ntag_build = \ntag_date = 0\n\n";
    assert_eq!(told(&source[..1], &own).len(), 1);
}

#[test]
fn attack_53_entry_points_of_a_build_are_not_what_was_made_when_it_was_packed() {
    let source = [("left.py", "x")];
    let points = "left.egg-info/entry_points.txt";
    let with = |text: &str| told(&source, &[("left.py", "x"), (points, text)]);
    let commands = "[console_scripts]\nleft = left:main\n";
    assert_eq!(with(commands)[0].0, Risk::Note);
    let build = format!("{commands}[setuptools.finalize_distribution_options]\nx = left:f\n");
    let new = (Risk::Medium, format!("not in the source: {points}"));
    assert_eq!(with(&build), [new]);
}
