//! Archives for the tests of this room.

use super::{Format, tests::of};
use flate2::{Compression, write::GzEncoder};
use proto::card::{FindingKind, Risk};

/// A `.tgz` with these files under one root folder.
pub(super) fn tgz(root: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let name = format!("{root}/{name}");
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A `package.json` of `left` with more members.
pub(super) fn package_json(version: &str, more: &str) -> String {
    format!(r#"{{"name":"left","version":"{version}"{more}}}"#)
}

/// What is told first of what runs at a build, when this is added to one file.
pub(super) fn built(
    format: Format,
    root: &str,
    files: &[(&str, &str)],
    (file, more): (&str, &str),
) -> (Risk, String) {
    let with = |more: &str| {
        let text = |name: &str, text: &str| {
            let more = if name == file { more } else { "" };
            format!("{text}{more}")
        };
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, text(n, t))).collect();
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_bytes())).collect();
        tgz(root, &files)
    };
    let (now, before) = (with(more), with(""));
    let seen = of(format, "left", "1.1.0", &now, Some(&before)).unwrap();
    let mut hooks = seen.findings.into_iter();
    hooks
        .find(|f| f.kind == FindingKind::InstallScripts)
        .map(|f| (f.risk, f.what))
        .unwrap()
}
