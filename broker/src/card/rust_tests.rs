//! Build scripts and macros that are as before, and what they run is not.

use super::{Format, samples::built};
use proto::card::Risk;

#[test]
fn attack_53_a_rust_build_and_a_macro_are_followed_however_they_name_their_files() {
    let krate = [
        (
            "Cargo.toml",
            "[package]\nname = \"left\"\nversion = \"1.1.0\"\n",
        ),
        (
            "build.rs",
            "pub(crate) mod a;\n#[cfg(unix)] mod b; // c\nfn main() {}\n",
        ),
        ("a.rs", "mod deep;\n"),
        ("a/deep.rs", "1\n"),
        ("b.rs", "1\n"),
    ];
    for file in ["a.rs", "a/deep.rs", "b.rs"] {
        let (risk, what) = built(Format::Crate, "left-1.1.0", &krate, (file, "2\n"));
        assert_eq!(risk, Risk::High, "{file}: {what}");
    }
    let lib = |path: &str| {
        format!(
            "[package]\nname = \"left\"\nversion = \"1.1.0\"\n[lib]\nproc-macro = true\npath = \"{path}\"\n"
        )
    };
    let manifest = lib("x/lib.rs");
    let files = [
        ("Cargo.toml", manifest.as_str()),
        ("x/lib.rs", "1\n"),
        ("tests/t.rs", "1\n"),
    ];
    let (risk, what) = built(Format::Crate, "left-1.1.0", &files, ("x/lib.rs", "2\n"));
    assert_eq!(risk, Risk::High, "{what}");
    let (risk, what) = built(Format::Crate, "left-1.1.0", &files, ("tests/t.rs", "2\n"));
    assert_eq!(risk, Risk::Note, "{what}");
}

#[test]
fn code_that_runs_when_a_rust_package_is_built_is_followed() {
    let changed = |format, root: &str, files: &[(&str, &str)], file: &str| {
        built(format, root, files, (file, "\n# other\n"))
    };
    let krate = [
        (
            "Cargo.toml",
            "[package]\nname = \"left\"\nversion = \"1.1.0\"\nbuild = \"./build/main.rs\"\n",
        ),
        (
            "build/main.rs",
            "mod helper;\nfn main() { cc(\"src/native.c\") }\n",
        ),
        ("build/helper.rs", "fn x() {}\n"),
        ("src/native.c", "int x;\n"),
    ];
    for file in ["build/main.rs", "build/helper.rs", "src/native.c"] {
        let (risk, what) = changed(Format::Crate, "left-1.1.0", &krate, file);
        assert_eq!(risk, Risk::High, "{file}: {what}");
        assert!(what.contains(file), "{what}");
    }
    assert_eq!(
        changed(Format::Crate, "left-1.1.0", &krate, "none").0,
        Risk::Note
    );
}
