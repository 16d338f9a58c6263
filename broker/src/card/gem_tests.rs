//! Gems, whose metadata tell what runs.

use super::{Format, tests::of};
use proto::card::{FindingKind, Risk};

/// A gem with this metadata and these files.
fn gem(metadata: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(metadata.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let mut inner = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let mut outer = tar::Builder::new(Vec::new());
    let header = |bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header
    };
    for (name, bytes) in files {
        inner.append_data(&mut header(bytes), name, *bytes).unwrap();
    }
    let inner = inner.into_inner().unwrap().finish().unwrap();
    for (name, bytes) in [("metadata.gz", &packed), ("data.tar.gz", &inner)] {
        outer
            .append_data(&mut header(bytes), name, bytes.as_slice())
            .unwrap();
    }
    outer.into_inner().unwrap()
}

#[test]
fn attack_14_no_file_hides_behind_another_of_its_name() {
    let metadata = "--- !ruby/object:Gem::Specification\nname: left\n";
    let seen =
        |files: &[(&str, &[u8])]| of(Format::Gem, "left", "1.1.0", &gem(metadata, files), None);
    assert!(seen(&[("lib/left.rb", b"1")]).is_ok());
    assert!(seen(&[("lib/left.rb", b"1"), ("metadata", b"name: left")]).is_err());
}

#[test]
fn attack_53_a_gems_metadata_that_is_not_as_ruby_writes_it_is_told() {
    let about = |more: &str| {
        format!("--- !ruby/object:Gem::Specification\nname: left\n{more}\nfiles: []\n")
    };
    let files: [(&str, &[u8]); 1] = [("ext/extconf.rb", b"1")];
    let before = gem(&about("dependencies: []\nextensions: []"), &files);
    for (more, told) in [
        (
            "extensions:\n- ext/extconf.rb",
            "extension ext/extconf.rb is new",
        ),
        ("extensions: [ext/extconf.rb]", "extensions is new"),
        ("extensions: \n- ext/extconf.rb", "extensions is new"),
        ("extensions: # x\n- ext/extconf.rb", "extensions is new"),
        ("extensions:\n- ext/extconf.rb # x", "extensions is new"),
        ("extensions:\n- &a ext/extconf.rb", "extensions is new"),
        ("extensions:\n  ? x", "extensions is new"),
    ] {
        let now = gem(&about(&format!("dependencies: []\n{more}")), &files);
        let seen = of(Format::Gem, "left", "1.1.0", &now, Some(&before)).unwrap();
        let hook = seen
            .findings
            .iter()
            .find(|f| f.kind == FindingKind::InstallScripts);
        let hook = hook.unwrap_or_else(|| panic!("{more}: {:?}", seen.findings));
        assert!(
            hook.what.contains(told) && hook.risk == Risk::High,
            "{more}: {hook:?}"
        );
    }
    for more in ["dependencies: [x]", "dependencies: # x"] {
        let now = gem(&about(&format!("{more}\nextensions: []")), &files);
        let seen = of(Format::Gem, "left", "1.1.0", &now, Some(&before)).unwrap();
        let told = seen
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::Dependencies);
        assert!(told, "{more}: {:?}", seen.findings);
    }
}
