use super::*;
use crate::card::samples::tgz;

fn listing(archive: &[u8]) -> Result<Listing, ArchiveError> {
    Listing::read(archive, archive.len() as u64)
}

#[test]
fn a_file_is_found_by_its_path_with_and_without_a_root_folder() {
    let path = ".github/workflows/release.yml";
    let under_root = listing(&tgz("left-1.0.0", &[(path, b"on: push"), ("a.js", b"1")])).unwrap();
    assert_eq!(under_root.0.len(), 2);
    let digest = under_root.at(path).unwrap().to_owned();
    let flat = listing(&tgz(".", &[(path, b"on: push"), ("a.js", b"1")])).unwrap();
    assert_eq!(flat.at(path), Some(digest.as_str()));
    assert_eq!(flat.at("b.js"), None);
}

#[test]
fn attack_53_a_source_of_too_many_files_is_refused() {
    let names: Vec<String> = (0..1100)
        .map(|n| {
            format!(
                "{n}/{}",
                "d".repeat(60)
                    .repeat(16)
                    .replace("dddddddddd", "ddddddddd/")
            )
        })
        .collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    assert!(listing(&tgz("x", &files)).is_err());
    assert!(listing(b"no archive").is_err());
}
