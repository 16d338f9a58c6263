use super::*;
use crate::registry::archive::samples::{Zipped, zip};
use std::io::Cursor;

type Twist = fn(&mut Zipped);

/// All names with their contents.
fn read(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let mut zip = Zip::new(Cursor::new(archive), archive.len() as u64)?;
    let mut out = Vec::new();
    while let Some(file) = zip.next(|entry, data| {
        let mut content = Vec::new();
        data.read_to_end(&mut content)?;
        Ok((entry.name.clone(), content))
    })? {
        out.push(file);
    }
    Ok(out)
}

fn two() -> [Zipped; 2] {
    [Zipped::new("a/b.py", b"print()"), Zipped::new("c.txt", b"")]
}

#[test]
fn a_usual_archive_is_read() {
    let mut files = two().to_vec();
    files.push(Zipped {
        deflate: false,
        ..Zipped::new("\u{e9}.txt", b"stored")
    });
    files.push(Zipped {
        deflate: false,
        attributes: 0o040_755 << 16,
        ..Zipped::new("d/", b"")
    });
    // The time of Info-ZIP, as zip(1) writes it.
    files[0].extra = b"UT\x01\0\0".to_vec();
    let read = read(&zip(&files)).unwrap();
    assert_eq!(read[0], ("a/b.py".to_owned(), b"print()".to_vec()));
    assert_eq!(read[2], ("\u{e9}.txt".to_owned(), b"stored".to_vec()));
    assert_eq!(read.len(), 4);
    assert!(self::read(&zip(&[])).unwrap().is_empty());
}

#[test]
fn content_that_nobody_reads_is_checked_all_the_same() {
    let archive = zip(&two());
    let mut zip = Zip::new(Cursor::new(&archive), archive.len() as u64).unwrap();
    assert_eq!(zip.left(), 2);
    while zip.next(|_, _| Ok(())).unwrap().is_some() {}
    assert_eq!(zip.unpacked(), 7);
    let mut bad = two();
    bad[0].local = |h| h[14] ^= 1;
    bad[0].central = |h| h[16] ^= 1;
    assert!(read(&super::super::samples::zip(&bad)).is_err(), "checksum");
}

#[test]
fn attack_14_local_and_central_headers_must_agree() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 8] = [
        ("name", |h| h[30] = b'x'),
        ("longer name", |h| {
            h[26] += 1;
            h.push(b'y');
        }),
        ("flags", |h| h[6] = 2),
        ("method", |h| h[8] = 0),
        ("checksum", |h| h[14] ^= 1),
        ("packed size", |h| h[18] += 1),
        ("size", |h| h[22] += 1),
        ("signature", |h| h[2] = 7),
    ];
    for (what, change) in cases {
        let mut files = two();
        files[0].local = change;
        assert!(read(&zip(&files)).is_err(), "{what}");
    }
}

#[test]
fn attack_14_nothing_may_lie_between_before_or_behind() {
    let archive = zip(&two());
    assert!(read(&archive).is_ok());
    assert!(read(&[b"x", &archive[..]].concat()).is_err(), "before");
    assert!(read(&[&archive[..], b"x"].concat()).is_err(), "behind");
    assert!(
        read(&[archive.clone(), archive.clone()].concat()).is_err(),
        "two archives"
    );
    assert!(read(&archive[..archive.len() - 1]).is_err(), "cut");
    assert!(read(b"").is_err());
    // A file that no central header names.
    let hidden = zip(&two()[..1]);
    let length = hidden.len();
    let offset = u32::from_le_bytes(hidden[length - 6..length - 2].try_into().unwrap()) as usize;
    let mut with = [&hidden[..offset], &hidden[..offset], &hidden[offset..]].concat();
    let at = with.len() - 6;
    with[at..at + 4].copy_from_slice(&u32::try_from(offset * 2).unwrap().to_le_bytes());
    assert!(read(&with).is_err(), "a hidden file");
    // Two central headers share one local header.
    let mut twice = two();
    twice[1] = Zipped::new("a/b.py", b"");
    assert!(read(&zip(&twice)).is_err(), "one name twice");
    // The stream ends before the packed size does.
    let mut padded = two();
    padded[0].local = |h| h[18] += 2;
    padded[0].central = |h| h[20] += 2;
    let mut archive = zip(&padded);
    let data = 30 + 6;
    archive.splice(data + 9..data + 9, [0, 0]);
    assert!(read(&archive).is_err(), "bytes behind the data");
}

#[test]
fn attack_14_formats_that_programs_read_differently() {
    let with = |change: Twist| {
        let mut files = two();
        change(&mut files[0]);
        read(&zip(&files))
    };
    let cases: [(&str, Twist); 12] = [
        ("a symbolic link", |f| f.attributes = 0o120_777 << 16),
        ("a device", |f| f.attributes = 0o060_644 << 16),
        ("a folder's mode", |f| f.attributes = 0o040_755 << 16),
        ("a folder with content", |f| f.name = b"d/".to_vec()),
        ("data descriptor", |f| f.flags = 8),
        ("encryption", |f| f.flags = 1),
        ("code page", |f| f.name = b"\x82".to_vec()),
        ("not UTF-8", |f| {
            f.name = b"\xff".to_vec();
            f.flags = 1 << 11;
        }),
        ("unicode path", |f| {
            f.extra = b"up\x06\0\x01\0\0\0\0e".to_vec();
        }),
        ("zip64", |f| f.extra = b"\x01\0\0\0".to_vec()),
        ("half an extra field", |f| f.extra = b"UT\x05\0".to_vec()),
        ("a comment", |f| {
            f.central = |h| {
                h[32] = 1;
                h.push(b'c');
            };
        }),
    ];
    for (what, change) in cases {
        assert!(with(change).is_err(), "{what}");
    }
    for name in [
        "/a", "../a", "a/../b", "a\\b", "C:/a", "a//b/..", "c.txt", "C.TXT", "c.txt/x", "",
    ] {
        let mut files = two();
        files[0].name = name.as_bytes().to_vec();
        assert!(read(&zip(&files)).is_err(), "{name:?}");
    }
}

#[test]
fn attack_53_a_zip_bomb_is_refused() {
    let bomb = zip(&[Zipped::new("z", &vec![0; 12 << 20])]);
    assert!(bomb.len() < (12 << 20) / 200);
    assert!(matches!(read(&bomb), Err(ArchiveError::TooLarge(_))));
    // The headers say less than there is.
    let mut liar = Zipped::new("z", &[0; 4000]);
    liar.local = |h| h[22..26].copy_from_slice(&9u32.to_le_bytes());
    liar.central = |h| h[24..28].copy_from_slice(&9u32.to_le_bytes());
    assert!(read(&zip(&[liar])).is_err());
}
