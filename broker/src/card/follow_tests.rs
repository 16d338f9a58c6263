//! Hooks whose own text is as before, and what they run is not.

use super::samples::{package_json, tgz};
use super::tests::{npm, of};
use super::*;
use proto::card::{FindingKind, Risk};

/// A package with these scripts and files.
fn package(version: &str, scripts: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let json = package_json(
        version,
        &format!(r#","main":"lib/main.js","scripts":{{{scripts}}}"#),
    );
    let mut all = vec![("package.json", json.as_bytes())];
    all.extend(files.iter().map(|(name, text)| (*name, text.as_bytes())));
    tgz("package", &all)
}

/// What is told of hooks when one file of a package gets other bytes.
fn told(scripts: &str, files: &[(&str, &str)], changed: &str) -> (Risk, String) {
    let before = package("1.0.0", scripts, files);
    let other = |(name, text): &(&str, &str)| {
        let text = if *name == changed {
            format!("{text}\n// other")
        } else {
            (*text).to_owned()
        };
        ((*name).to_owned(), text)
    };
    let files: Vec<(String, String)> = files.iter().map(other).collect();
    let files: Vec<_> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let seen = npm(&package("1.1.0", scripts, &files), Some(&before));
    let mut hooks = seen
        .findings
        .into_iter()
        .filter(|f| f.kind == FindingKind::InstallScripts);
    let first = hooks.next().map(|f| (f.risk, f.what));
    assert!(hooks.next().is_none());
    first.unwrap()
}

#[test]
fn attack_53_a_hook_is_not_as_before_when_a_file_that_it_runs_changed() {
    let deep = [
        ("setup.js", "const x = require('./lib/x');"),
        ("lib/x.js", "import y from \"./y.mjs\""),
        ("lib/y.mjs", "spawn('sh', ['lib/z.sh'])"),
        ("lib/z.sh", "true"),
        ("lib/other.js", "1"),
    ];
    for file in ["setup.js", "lib/x.js", "lib/y.mjs", "lib/z.sh"] {
        let (risk, what) = told(r#""postinstall":"node setup""#, &deep, file);
        assert_eq!(risk, Risk::High, "{file}: {what}");
        assert!(
            what.contains(&format!("what it runs changed: {file}")),
            "{what}"
        );
    }
    let (risk, what) = told(r#""postinstall":"node setup""#, &deep, "lib/other.js");
    assert_eq!(
        (risk, what.as_str()),
        (Risk::Note, "as before: postinstall")
    );

    for (script, file) in [
        ("node .", "lib/main.js"),
        ("node ./lib", "lib/index.js"),
        ("sh build.sh", "build.sh"),
        ("bash -c 'sh ./build.sh'", "build.sh"),
        ("./build.sh", "build.sh"),
        ("cd lib && node main", "lib/main.js"),
        ("npm run -s build", "built.js"),
        ("yarn build", "built.js"),
        ("npm test", "built.js"),
        ("A=1 node --require ./pre.js lib/main", "pre.js"),
        ("node -e \\\"require('./pre')\\\"", "pre.js"),
        ("python3 tool.py", "mod/__init__.py"),
        ("node-gyp rebuild", "src/a.cc"),
        ("node-gyp rebuild", "src/a.h"),
        ("node-gyp rebuild", "binding.gyp"),
        ("node-gyp rebuild", "pre.js"),
        ("prebuild-install || node-gyp rebuild", "src/a.cc"),
        ("echo x", "src/a.cc"),
    ] {
        let scripts = format!(
            r#""install":"{script}","build":"true","postbuild":"node built","test":"npm run build""#
        );
        let files = [
            ("lib/main.js", "1"),
            ("lib/index.js", "1"),
            ("build.sh", "true"),
            ("built.js", "1"),
            ("pre.js", "1"),
            ("tool.py", "import mod"),
            ("mod/__init__.py", "1"),
            ("src/a.cc", "#include <a.h>"),
            ("src/a.h", "1"),
            (
                "binding.gyp",
                "{'sources': ['src/a.cc'], 'x': '<!(node pre.js)'}",
            ),
        ];
        let (risk, what) = told(&scripts, &files, file);
        assert_eq!(risk, Risk::High, "{script}: {what}");
        assert!(what.contains(file), "{script}: {what}");
    }
}

#[test]
fn attack_53_the_implicit_build_of_a_gyp_file_follows_its_sources() {
    let files = [("binding.gyp", "{'sources': ['a.cc']}"), ("a.cc", "1")];
    for file in ["binding.gyp", "a.cc"] {
        let (risk, what) = told(r#""test":"x""#, &files, file);
        assert_eq!(risk, Risk::High, "{file}: {what}");
    }
    assert_eq!(told(r#""test":"x""#, &files, "none").0, Risk::Note);
}

#[test]
fn a_hook_that_cannot_be_followed_is_told_so() {
    for (script, lost) in [
        ("husky install", "husky"),
        ("node dist/setup", "dist/setup"),
        ("npx something", "npx"),
        ("npm run nothing", "the script nothing"),
        ("npm install", "npm install"),
        ("node dynamic.js", "what dynamic.js loads"),
        ("sh $(cat x)", "what a command puts into another"),
    ] {
        let scripts = format!(r#""postinstall":"{script}""#);
        let files = [("dynamic.js", "require(process.env.X)")];
        let (risk, what) = told(&scripts, &files, "none");
        assert_eq!(risk, Risk::Medium, "{script}: {what}");
        assert!(what.contains("could not be followed"), "{what}");
        assert!(what.contains(lost), "{script}: {what}");
    }
    for script in ["echo thanks", "node setup.js", "exit 0"] {
        let scripts = format!(r#""postinstall":"{script}""#);
        let (risk, what) = told(&scripts, &[("setup.js", "require('fs')")], "none");
        assert_eq!(risk, Risk::Note, "{script}: {what}");
    }
}

#[test]
fn attack_53_scripts_that_run_each_other_end() {
    let scripts = r#""postinstall":"npm run a","a":"npm run b","b":"npm run a && node x""#;
    let (risk, what) = told(
        scripts,
        &[("x.js", "require('./y')"), ("y.js", "require('./x')")],
        "y.js",
    );
    assert_eq!(risk, Risk::High, "{what}");
}

/// What is told first of what runs at a build, when this is added to one file.
fn built(
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

const ABOUT: &str = "Metadata-Version: 2.1\nName: left\nVersion: 1.1.0\n";

#[test]
fn attack_53_a_python_build_runs_whole_packages_and_what_its_settings_name() {
    let files = [
        ("PKG-INFO", ABOUT),
        (
            "setup.py",
            "from pkg.version import v\nimport tools.sub.b\n",
        ),
        (
            "setup.cfg",
            "[metadata]\nname = left\nversion = attr: other.about.v\n",
        ),
        ("pkg/__init__.py", "1\n"),
        ("pkg/version.py", "v = 1\n"),
        ("tools/a.py", "1\n"),
        ("tools/sub/__init__.py", "1\n"),
        ("tools/sub/b.py", "from ..a import x\nfrom . import c\n"),
        ("tools/sub/c.py", "1\n"),
        ("other/__init__.py", "1\n"),
        ("other/about.py", "v = 1\n"),
        ("left/apart.py", "1\n"),
    ];
    for (file, _) in files
        .iter()
        .filter(|(f, _)| !["PKG-INFO", "left/apart.py"].contains(f))
    {
        let (risk, what) = built(Format::Sdist, "left-1.1.0", &files, (file, "\nx = 1\n"));
        assert_eq!(risk, Risk::High, "{file}: {what}");
        assert!(what.contains(file), "{file}: {what}");
    }
    for (file, more) in [("left/apart.py", "2\n"), ("setup.cfg", "version = 2\n")] {
        let (risk, what) = built(Format::Sdist, "left-1.1.0", &files, (file, more));
        assert_eq!(risk, Risk::Note, "{file}: {what}");
    }
}

#[test]
fn attack_53_a_build_backend_is_as_before_when_all_that_it_is_told_is() {
    let project = "[build-system]\nrequires = [\"hatchling\"]\nbuild-backend = \"hatchling.build\"\n[project]\nname = \"left\"\nversion = \"1.1.0\"\n[tool.hatch.build.hooks.custom]\npath = \"tools/hook.py\"\n";
    let files = [
        ("PKG-INFO", ABOUT),
        ("pyproject.toml", project),
        ("hatch_build.py", "1\n"),
        ("tools/hook.py", "1\n"),
        ("left.py", "1\n"),
    ];
    let hatch = |change| built(Format::Sdist, "left-1.1.0", &files, change);
    for change in [
        ("hatch_build.py", "2\n"),
        ("tools/hook.py", "2\n"),
        ("pyproject.toml", "[tool.hatch.build.hooks.other]\nx = 1\n"),
        ("pyproject.toml", "[tool.unheard-of]\nx = 1\n"),
        // Our reader refuses it, and Python's does not.
        ("pyproject.toml", "[tool.x]\nn = 99999999999999999999\n"),
    ] {
        let (risk, what) = hatch(change);
        assert_eq!(risk, Risk::High, "{change:?}: {what}");
    }
    for change in [
        ("left.py", "2\n"),
        ("pyproject.toml", "[tool.ruff]\nx = 1\n"),
    ] {
        let (risk, what) = hatch(change);
        assert_eq!(risk, Risk::Note, "{change:?}: {what}");
    }
    let other = [
        ("PKG-INFO", ABOUT),
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"x\"]\nbuild-backend = \"x.y\"\n",
        ),
    ];
    let (risk, what) = built(Format::Sdist, "left-1.1.0", &other, ("none", ""));
    assert_eq!(risk, Risk::Medium, "{what}");
}

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
fn attack_53_a_node_hook_is_followed_into_bundled_packages_and_by_the_ends_of_names() {
    let files = [
        (
            "setup.js",
            "require('dep'); require('@a/b/c'); fork(path.join(__dirname, 'lib', 'run.js'))",
        ),
        ("lib/run.js", "1"),
        ("node_modules/dep/x/main.js", "1"),
        ("node_modules/@a/b/c.js", "1"),
        ("node_modules/apart/main.js", "1"),
    ];
    for file in [
        "lib/run.js",
        "node_modules/dep/x/main.js",
        "node_modules/@a/b/c.js",
    ] {
        let (risk, what) = told(r#""postinstall":"node setup""#, &files, file);
        assert_eq!(risk, Risk::High, "{file}: {what}");
        assert!(what.contains(file), "{what}");
    }
    let apart = told(
        r#""postinstall":"node setup""#,
        &files,
        "node_modules/apart/main.js",
    );
    assert_eq!(apart.0, Risk::Note, "{}", apart.1);
    for (script, text) in [
        ("node setup", "require('#inner')"),
        ("cd native && node-gyp rebuild", ""),
        ("node-gyp rebuild --directory=native", ""),
    ] {
        let (risk, what) = told(
            &format!(r#""postinstall":"{script}""#),
            &[("setup.js", text)],
            "none",
        );
        assert_eq!(risk, Risk::Medium, "{script}: {what}");
    }
}

#[test]
fn attack_53_what_package_json_tells_a_hook_counts_as_what_it_runs() {
    let with = |version: &str, more: &str, script: &str| {
        let json = package_json(
            version,
            &format!(r#","scripts":{{"postinstall":"{script}"}}{more}"#),
        );
        let files: [(&str, &[u8]); 4] = [
            ("package.json", json.as_bytes()),
            ("get.js", b"const { from } = require('./package.json')"),
            ("one.js", b"1"),
            ("two.js", b"2"),
        ];
        tgz("package", &files)
    };
    let seen = |before: &[u8], now: &[u8]| {
        let all = npm(now, Some(before)).findings;
        let first = all
            .into_iter()
            .find(|f| f.kind == FindingKind::InstallScripts);
        first.map(|f| (f.risk, f.what)).unwrap()
    };
    let old = with("1.0.0", r#","from":"here""#, "node get");
    let (risk, what) = seen(&old, &with("1.1.0", r#","from":"there""#, "node get"));
    assert_eq!(risk, Risk::High, "{what}");
    assert!(what.contains("package.json"), "{what}");
    let (risk, what) = seen(
        &old,
        &with(
            "1.1.0",
            r#","from":"here","devDependencies":{"a":"1"}"#,
            "node get",
        ),
    );
    assert_eq!(risk, Risk::Note, "{what}");
    // Another file that was there all along.
    let old = with("1.0.0", r#","main":"one.js""#, "node .");
    let (risk, what) = seen(&old, &with("1.1.0", r#","main":"two.js""#, "node ."));
    assert_eq!(risk, Risk::High, "{what}");
}

#[test]
fn code_that_runs_when_python_and_rust_packages_are_built_is_followed() {
    let changed = |format, root: &str, files: &[(&str, &str)], file: &str| {
        built(format, root, files, (file, "\n# other\n"))
    };
    let sdist = [
        (
            "PKG-INFO",
            "Metadata-Version: 2.1\nName: left\nVersion: 1.1.0\n",
        ),
        ("setup.py", "from tools.build import x\n"),
        ("tools/build.py", "exec(open('about.py').read())\n"),
        ("about.py", "1\n"),
    ];
    for file in ["setup.py", "tools/build.py", "about.py"] {
        let (risk, what) = changed(Format::Sdist, "left-1.1.0", &sdist, file);
        assert_eq!(risk, Risk::High, "{file}: {what}");
        assert!(what.contains(file), "{what}");
    }
    let (risk, what) = changed(Format::Sdist, "left-1.1.0", &sdist, "none");
    assert_eq!(risk, Risk::Medium, "{what}");

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

#[test]
fn attack_53_what_an_installer_takes_besides_the_list_of_dependencies_is_told() {
    let kinds = |before: &[(&str, &[u8])], now: &[(&str, &[u8])]| {
        let whole = |version: &str, files: &[(&str, &[u8])]| {
            let json = package_json(version, "");
            let first: [(&str, &[u8]); 1] = [("package.json", json.as_bytes())];
            tgz("package", &[&first[..], files].concat())
        };
        let seen = npm(&whole("1.1.0", now), Some(&whole("1.0.0", before)));
        seen.findings
            .into_iter()
            .map(|f| (f.kind, f.what))
            .collect::<Vec<_>>()
    };
    let pins = "npm-shrinkwrap.json";
    for before in [&[][..], &[(pins, &b"1"[..])]] {
        let told = kinds(before, &[(pins, b"2")]);
        assert!(
            told.iter().any(|(k, _)| *k == FindingKind::Dependencies),
            "{told:?}"
        );
    }
    let old: [(&str, &[u8]); 3] = [
        ("src/chalk/x.js", b"1"),
        ("node_modules/dep/x.js", b"1"),
        ("node_modules/@a/b/x.js", b"1"),
    ];
    assert_eq!(kinds(&old, &old), []);
    for (file, told) in [
        ("node_modules/chalk/x.js", "chalk"),
        ("node_modules/dep/x.js", "dep"),
        ("node_modules/@a/c/x.js", "@a/c"),
    ] {
        let mut now: Vec<(&str, &[u8])> = old.iter().copied().filter(|(f, _)| *f != file).collect();
        now.push((file, b"2"));
        let all = kinds(&old, &now);
        let found = all
            .iter()
            .any(|(k, what)| *k == FindingKind::Manifest && what.contains(told));
        assert!(found, "{file}: {all:?}");
    }
    // What pip makes of the sources, whatever the metadata beside them says.
    let sdist = |pyproject: &str| {
        let files = [
            ("PKG-INFO", ABOUT.as_bytes()),
            ("pyproject.toml", pyproject.as_bytes()),
        ];
        tgz("left-1.1.0", &files)
    };
    let (before, now) = (
        sdist("[project]\n"),
        sdist("[project]\ndependencies = [\"evil>=1\"]\n"),
    );
    let seen = of(Format::Sdist, "left", "1.1.0", &now, Some(&before)).unwrap();
    let added = seen
        .findings
        .iter()
        .find(|f| f.kind == FindingKind::Dependencies);
    assert!(
        added.is_some_and(|f| f.what.contains("evil")),
        "{:?}",
        seen.findings
    );
}
