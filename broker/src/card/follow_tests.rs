//! Hooks of npm packages whose own text is as before, and what they run is not.

use super::samples::{package_json, tgz};
use super::tests::npm;
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
}
