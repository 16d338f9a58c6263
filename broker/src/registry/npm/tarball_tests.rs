use super::*;
use crate::registry::npm::samples::{PACKAGE_JSON, entry, gzip, header, pax, sum, tgz};

fn read(archive: &[u8]) -> Result<Inside, TarballError> {
    inspect(archive, archive.len() as u64)
}

fn main_entry() -> Vec<u8> {
    entry("package/package.json", b'0', PACKAGE_JSON.as_bytes())
}

fn with(entries: &[Vec<u8>]) -> Result<Inside, TarballError> {
    let mut all = vec![main_entry()];
    all.extend_from_slice(entries);
    read(&tgz(&all))
}

#[test]
fn a_usual_archive_is_read() {
    let inside = with(&[
        entry("package/lib", b'5', b""),
        entry("package/lib/a.js", b'0', &vec![b'x'; 70_000]),
        entry("package/binding.gyp", b'\0', b"{}"),
    ])
    .unwrap();
    assert_eq!(inside.package_json["name"], "@acme/left");
    assert_eq!(inside.entries, 4);
    assert!(inside.gyp);
}

#[test]
fn long_names_of_the_usual_clients_are_read() {
    let long = format!("package/{}/a.js", "d".repeat(150));
    // node-tar: the header has the beginning; tar-stream: the header is called PaxHeader.
    for short in [&long[..99], "PaxHeader"] {
        let all = [
            pax(&[("path", &long), ("mtime", "1.5"), ("size", "1")]),
            entry(short, b'0', b"x"),
        ];
        assert!(with(&all).is_ok(), "{short}");
    }
    // GNU tar.
    let gnu = entry("././@LongLink", b'L', format!("{long}\0").as_bytes());
    assert!(with(&[gnu, entry(&long[..100], b'0', b"x")]).is_ok());
    // pnpm 12: the same with a beginning in the prefix too.
    let mut both = entry(&long[..100], b'0', b"x");
    both[345..400].copy_from_slice(&long.as_bytes()[..55]);
    sum(&mut both[..512]);
    let gnu = entry("././@LongLink", b'L', format!("{long}\0").as_bytes());
    assert!(with(&[gnu, both]).is_ok());
    // ustar's own prefix.
    let mut split = header("a.js", b'0', 0);
    split[345..353].copy_from_slice(b"package/");
    split[352] = 0;
    sum(&mut split);
    assert!(with(&[split]).is_ok());
}

#[test]
fn attack_14_names_and_headers_that_disagree_are_refused() {
    let long = format!("package/{}/a.js", "d".repeat(150));
    let gnu = |name: &str| entry("././@LongLink", b'L', name.as_bytes());
    let changed = |at: usize, bytes: &[u8]| {
        let mut h = header("package/x", b'0', 0);
        h[at..at + bytes.len()].copy_from_slice(bytes);
        sum(&mut h);
        vec![h]
    };
    let file = |name: &str| entry(name, b'0', b"x");
    let cases = [
        (
            "other name in pax",
            vec![pax(&[("path", "package/evil.js")]), file("package/good.js")],
        ),
        (
            "package.json by pax",
            vec![pax(&[("path", "package/package.json")]), file("PaxHeader")],
        ),
        (
            "package.json under pax",
            vec![
                pax(&[("path", "package/package.json.bak")]),
                file("package/package.json"),
            ],
        ),
        (
            "two paths",
            vec![
                pax(&[("path", &long), ("path", "package/b")]),
                file("PaxHeader"),
            ],
        ),
        (
            "pax size",
            vec![pax(&[("size", "4096")]), file("package/a")],
        ),
        (
            "pax linkpath",
            vec![pax(&[("linkpath", "/etc")]), file("package/a")],
        ),
        (
            "sparse",
            vec![pax(&[("GNU.sparse.name", "package/b")]), file("package/a")],
        ),
        (
            "escaping pax",
            vec![pax(&[("path", "package/../../x")]), file("PaxHeader")],
        ),
        (
            "global path",
            vec![entry("g", b'g', b"16 path=package/\n"), file("package/a")],
        ),
        ("other gnu name", vec![gnu(&long), file("package/good.js")]),
        (
            "short gnu name",
            vec![gnu("package/evil.js\0"), file("package/")],
        ),
        (
            "gnu and pax",
            vec![gnu(&long), pax(&[("path", &long)]), file(&long[..100])],
        ),
        ("extension alone", vec![pax(&[("path", &long)])]),
        ("bytes behind the name", changed(10, b"hidden")),
        (
            "base-256 size",
            changed(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ),
        ("blank before size", changed(124, b" 0000000000\0")),
        (
            "prefix without ustar",
            changed(257, &[0; 8])
                .into_iter()
                .map(|mut h| {
                    h[345] = b'x';
                    sum(&mut h);
                    h
                })
                .collect(),
        ),
        (
            "wrong checksum",
            vec![{
                let mut h = header("package/x", b'0', 0);
                h[0] = b'q';
                h
            }],
        ),
        ("not UTF-8", changed(8, b"\xff")),
    ];
    for (what, entries) in cases {
        assert!(with(&entries).is_err(), "{what}");
    }
}

#[test]
fn attack_14_duplicate_escaping_and_absolute_names_are_refused() {
    for name in [
        "/package/x",
        "package/../../x",
        "package/package.json",
        "package/./package.json",
        "package/PACKAGE.json",
        "other/x",
        "Package/x",
        "x",
        "package/a\\..\\b",
        "package/dir/",
    ] {
        assert!(with(&[entry(name, b'0', b"{}")]).is_err(), "{name}");
    }
}

#[test]
fn attack_14_links_devices_and_unknown_kinds_are_refused() {
    for kind in *b"123467SDKMNVZ" {
        assert!(
            with(&[entry("package/x", kind, b"")]).is_err(),
            "{}",
            kind as char
        );
    }
    assert!(with(&[entry("package/x", b'5', b"data")]).is_err());
}

#[test]
fn attack_14_nothing_may_follow_the_end() {
    let mut tar = main_entry();
    tar.resize(tar.len() + 1024, 0);
    let usual = gzip(&tar);
    assert!(read(&usual).is_ok());
    let more = gzip(&[entry("package/evil.js", b'0', b"x"), vec![0; 1024]].concat());
    assert!(matches!(
        read(&[usual.clone(), more].concat()),
        Err(TarballError::Archive(ArchiveError::AfterEnd))
    ));
    assert!(matches!(
        read(&[usual.clone(), vec![0]].concat()),
        Err(TarballError::Archive(ArchiveError::AfterEnd))
    ));
    let hidden = gzip(&[tar, entry("package/evil.js", b'0', b"x"), vec![0; 1024]].concat());
    assert!(matches!(
        read(&hidden),
        Err(TarballError::Archive(ArchiveError::AfterEnd))
    ));
    assert!(read(&usual[..usual.len() - 1]).is_err());
    assert!(read(&gzip(&main_entry())).is_err(), "no end");
    assert!(read(b"PK\x03\x04").is_err());
}

#[test]
fn attack_53_an_archive_bomb_is_refused() {
    // 12 MiB of zeros in some 12 kB: above the free size, and above the ratio.
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for part in [
        main_entry(),
        entry("package/z", b'0', &vec![0; 12 << 20]),
        vec![0; 1024],
    ] {
        std::io::Write::write_all(&mut gz, &part).unwrap();
    }
    let bomb = gz.finish().unwrap();
    assert!(bomb.len() < (12 << 20) / 200, "{}", bomb.len());
    assert!(matches!(
        read(&bomb),
        Err(TarballError::Archive(ArchiveError::TooLarge(_)))
    ));
}

#[test]
fn the_package_json_is_read_strictly() {
    let inner = |text: &str| {
        read(&tgz(&[entry(
            "package/package.json",
            b'0',
            text.as_bytes(),
        )]))
    };
    assert!(inner(r#"{"name":"a","version":"1.0.0"}"#).is_ok());
    for bad in [
        r#"{"name":"a","name":"b"}"#,
        "{} {}",
        "[]",
        "",
        "\u{feff}{}",
    ] {
        assert!(inner(bad).is_err(), "{bad:?}");
    }
    assert!(inner(&format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20))).is_err());
    assert!(matches!(
        read(&tgz(&[entry("package/lib/package.json", b'0', b"{}")])),
        Err(TarballError::NoPackageJson)
    ));
}
