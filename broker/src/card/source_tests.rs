use super::*;
use crate::card::samples::tgz;

fn listing(archive: &[u8]) -> Result<Listing, ArchiveError> {
    Listing::read(archive, archive.len() as u64)
}

#[test]
fn a_file_is_found_by_its_path_with_and_without_a_root_folder() {
    let path = ".github/workflows/release.yml";
    let under_root = listing(&tgz("left-1.0.0", &[(path, b"on: push"), ("a.js", b"1")])).unwrap();
    assert_eq!(under_root.files.len(), 2);
    let digest = under_root.at(path).unwrap().to_owned();
    let flat = listing(&tgz(".", &[(path, b"on: push"), ("a.js", b"1")])).unwrap();
    assert_eq!(flat.at(path), Some(digest.as_str()));
    assert_eq!(flat.at("b.js"), None);
}

/// Refused because of how many there are, and not for another reason.
fn too_many(names: impl Iterator<Item = String>) -> bool {
    let names: Vec<String> = names.collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    match listing(&tgz("x", &files)) {
        Ok(list) => {
            assert_eq!(list.files.len(), names.len());
            assert!(list.is_sound());
            false
        }
        Err(ArchiveError::Broken(why)) => {
            assert_eq!(why.to_string(), "too many files");
            true
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn attack_53_a_source_of_too_many_files_is_refused() {
    assert!(listing(b"no archive").is_err());
    // Names that pack badly, as an archive that unpacks to much more is refused for that.
    let short = |n: usize| digest(&mut n.to_string().as_bytes(), &mut [0; 8]).unwrap();
    assert!(!too_many((0..FILES_MAX).map(short)));
    assert!(too_many((0..=FILES_MAX).map(short)));
    let long = |n: usize| format!("{n}/{}", format!("{}/", "d".repeat(199)).repeat(5) + "f");
    assert!(!too_many((0..1000).map(long)));
    assert!(too_many((0..1100).map(long)));
}
