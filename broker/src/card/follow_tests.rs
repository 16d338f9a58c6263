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

#[test]
fn code_that_runs_when_python_and_rust_packages_are_built_is_followed() {
    let changed = |format, root: &str, files: &[(&str, &str)], file: &str| {
        let with = |more: &str| {
            let text = |name: &str, text: &str| {
                let more = if name == file { more } else { "" };
                format!("{text}{more}")
            };
            let files: Vec<_> = files.iter().map(|(n, t)| (*n, text(n, t))).collect();
            let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_bytes())).collect();
            tgz(root, &files)
        };
        let (now, before) = (with("\n# other\n"), with(""));
        let seen = of(format, "left", "1.1.0", &now, Some(&before)).unwrap();
        let mut hooks = seen.findings.into_iter();
        hooks
            .find(|f| f.kind == FindingKind::InstallScripts)
            .map(|f| (f.risk, f.what))
            .unwrap()
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
