//! Code of Python packages that runs at a build or a start, where somebody could hope that nobody looks.

use super::{
    Format,
    samples::{built, tgz},
    tests::{npm, of},
};
use crate::registry::archive::samples::{Zipped, zip};
use proto::card::{FindingKind, Risk};

const ABOUT: &str = "Metadata-Version: 2.1\nName: left\nVersion: 1.1.0\n";
const SETUP: &str = "from setuptools import setup\nsetup()\n";
const SETTINGS: &str = "[metadata]\nname = left\nversion = 1.0\n";

type Files<'f> = [(&'f str, &'f str)];

/// What is told of what runs, when the one follows the other.
fn told(format: Format, now: &[u8], before: &[u8]) -> Vec<(Risk, String)> {
    let seen = of(format, "left", "1.1.0", now, Some(before)).unwrap();
    let hooks = seen.findings.into_iter();
    let hooks = hooks.filter(|f| f.kind == FindingKind::InstallScripts);
    hooks.map(|f| (f.risk, f.what)).collect()
}

fn sdist(now: &Files<'_>, before: &Files<'_>) -> Vec<(Risk, String)> {
    let pack = |files: &Files<'_>| {
        let about = [("PKG-INFO", ABOUT)];
        let all = about.iter().chain(files);
        let all: Vec<_> = all.map(|(n, t)| (*n, t.as_bytes())).collect();
        tgz("left-1.1.0", &all)
    };
    told(Format::Sdist, &pack(now), &pack(before))
}

fn wheel(now: &Files<'_>, before: &Files<'_>) -> Vec<(Risk, String)> {
    let pack = |files: &Files<'_>| {
        let about = [("left-1.1.0.dist-info/METADATA", ABOUT)];
        let all = about.iter().chain(files);
        let all: Vec<_> = all.map(|(n, t)| Zipped::new(n, t.as_bytes())).collect();
        zip(&all)
    };
    told(Format::Wheel, &pack(now), &pack(before))
}

/// One that says more than that all is as before.
#[track_caller]
fn says(told: &[(Risk, String)], risk: Risk, what: &str) {
    let found = told.iter().any(|(r, w)| *r == risk && w.contains(what));
    assert!(found, "{risk:?} {what:?} in {told:?}");
}

#[track_caller]
fn calm(told: &[(Risk, String)]) {
    assert!(told.iter().all(|(r, _)| *r == Risk::Note), "{told:?}");
}

fn backend(name: &str) -> String {
    format!("[build-system]\nrequires = []\nbuild-backend = \"{name}\"\n")
}

#[test]
fn attack_53_no_setting_hides_from_the_card_that_python_reads() {
    let with = |settings: &str| {
        let seen = |before: &str| {
            let files = |text| {
                [
                    ("setup.py", SETUP),
                    ("setup.cfg", text),
                    ("evil/mod.py", "1"),
                ]
            };
            let (now, before) = (settings.to_owned(), before.to_owned());
            sdist(&files(&now), &files(&before))
        };
        (seen(SETTINGS), seen(settings))
    };
    let hidden = "1.1\r[options]\rcmdclass =\r  egg_info = evil.mod.Build";
    let (new, same) = with(&SETTINGS.replace("1.0", hidden));
    says(&new, Risk::High, "setup.cfg");
    says(&new, Risk::High, "evil/mod.py");
    calm(&same);
    calm(&with(&SETTINGS.replace("1.0", "1.1")).0);
    // What cannot be read is not as before.
    let long = format!("# {}\n{SETTINGS}", "x".repeat(1 << 20));
    for unread in [SETTINGS.replace("left", "left\n# \0"), long] {
        let (new, same) = with(&unread);
        says(&new, Risk::High, "setup.cfg");
        says(&same, Risk::Medium, "could not be followed: setup.cfg");
    }
    // Where the case of names does not count, it is read too.
    let files = [("setup.py", SETUP), ("Setup.CFG", "[options]\n")];
    says(&sdist(&files, &files), Risk::Medium, "Setup.CFG");
}

#[test]
fn attack_53_a_build_that_names_no_backend_is_told_as_what_it_is() {
    let evil =
        "[project]\nname = \"left\"\n[tool.setuptools.cmdclass]\negg_info = \"evil.mod.Build\"\n";
    let plain = "[project]\nname = \"left\"\n";
    let hatch = backend("hatchling.build");
    let of = |now: &str, before: &str| {
        let files = |text| [("pyproject.toml", text), ("evil/mod.py", "1")];
        let (now, before) = (now.to_owned(), before.to_owned());
        sdist(&files(&now), &files(&before))
    };
    for before in [plain, &hatch] {
        says(&of(evil, before), Risk::High, "build backend");
    }
    let new = of(evil, plain);
    says(&new, Risk::High, "evil/mod.py");
    says(&new, Risk::High, "pyproject.toml");
    calm(&of(evil, evil));
    let empty = "[build-system]\nrequires = []\n";
    says(
        &of(&format!("{empty}{evil}"), empty),
        Risk::High,
        "evil/mod.py",
    );
}

#[test]
fn attack_53_a_hook_that_is_gone_is_told() {
    let with = |scripts: &str| {
        let json = super::samples::package_json("1.1.0", scripts);
        tgz("package", &[("package.json", json.as_bytes())])
    };
    let before = with(r#","scripts":{"postinstall":"node check"}"#);
    let seen = npm(&with(""), Some(&before)).findings;
    let gone: Vec<_> = seen.iter().map(|f| (f.risk, f.what.as_str())).collect();
    assert_eq!(
        gone,
        [(Risk::Low, "no longer there: postinstall (was: node check)")]
    );
    let pyproject = [("setup.py", SETUP), ("pyproject.toml", "")];
    let gone = sdist(&[("setup.py", SETUP)], &pyproject);
    says(&gone, Risk::Low, "no longer there: build backend");
}

#[test]
fn attack_53_backends_read_files_of_their_own() {
    let hatch = backend("hatchling.build");
    let own = "[build.hooks.custom]\npath = \"left.py\"\n";
    let files = [
        ("pyproject.toml", hatch.as_str()),
        ("hatch.toml", own),
        ("left.py", "1\n"),
    ];
    says(&sdist(&files, &files[..1]), Risk::High, "hatch.toml");
    says(&sdist(&files, &files[..1]), Risk::High, "left.py");
    calm(&sdist(&files, &files));
    let (_, what) = built(Format::Sdist, "left-1.1.0", &files, ("left.py", "2\n"));
    assert!(what.contains("left.py"), "{what}");
    for unread in ["= broken", "# \0"] {
        let mut files = files;
        files[1].1 = unread;
        let lost = sdist(&files, &files);
        says(&lost, Risk::Medium, "could not be followed: hatch.toml");
    }
    // A script needs no end.
    let poetry = backend("poetry.core.masonry.api");
    let poetry = format!("{poetry}[tool.poetry.build]\nscript = \"builder\"\n");
    let before = [("pyproject.toml", poetry.as_str()), ("builder", "1")];
    let now = [before[0], ("builder", "import evil"), ("evil.py", "1")];
    says(&sdist(&now, &before), Risk::High, "builder");
    says(&sdist(&now, &before), Risk::High, "evil.py");
    // What nobody here knows, may.
    let joined = hatch.replace("[]", "[\"hatchling\", \"setuptools_rust>=1\"]");
    let files = [("pyproject.toml", joined.as_str())];
    says(&sdist(&files, &files), Risk::Medium, "setuptools_rust");
    let usual = hatch.replace("[]", "[\"Hatchling>=1\", \"hatch-vcs\"]");
    let files = [("pyproject.toml", usual.as_str())];
    calm(&sdist(&files, &files));
}

#[test]
fn attack_53_whatever_kind_of_file_python_starts_with_is_told() {
    let plain = [("left/__init__.py", "1")];
    for file in [
        "sitecustomize.py",
        "sitecustomize/__init__.py",
        "sitecustomize.pyc",
        "usercustomize.cpython-311-x86_64-linux-gnu.so",
        "sitecustomize.pyd",
        "left-1.1.0.data/purelib/usercustomize/__init__.py",
        "left.pth",
        "left.start",
        "_virtualenv.py",
    ] {
        let now = [plain[0], (file, "1")];
        says(&wheel(&now, &plain), Risk::High, "is new");
        let changed = [plain[0], (file, "2")];
        says(&wheel(&changed, &now), Risk::High, "what it runs changed");
    }
    // What it loads cannot be read there.
    let opaque = [("sitecustomize.pyc", "\0")];
    says(
        &wheel(&opaque, &opaque),
        Risk::Medium,
        "sitecustomize.pyc loads",
    );
    // A `.pth` file adds folders in which Python looks.
    let paths = [("left.pth", "left/deep\nimport evil\n")];
    for file in ["left/deep/sitecustomize.py", "left/deep/evil.py"] {
        let now = [paths[0], (file, "1")];
        says(&wheel(&now, &paths), Risk::High, file);
    }
    let start = [("left.start", "left.deep:f\n"), ("left/deep.py", "1")];
    let now = [start[0], ("left/deep.py", "2")];
    says(&wheel(&now, &start), Risk::High, "left/deep.py");
    let other = [("left/sitecustomize.py", "1"), ("sitecustom.py", "1")];
    assert_eq!(wheel(&other, &plain), []);
}

#[test]
fn attack_53_entry_points_that_run_at_a_build_are_told() {
    let points = "left.egg-info/entry_points.txt";
    let group = "[setuptools.finalize_distribution_options]\nx = left:f\n";
    let commands = "[console_scripts]\nleft = left:main\n";
    for pyproject in [None, Some("")] {
        let first = [
            Some(("setup.py", SETUP)),
            pyproject.map(|text| ("pyproject.toml", text)),
        ];
        let with = |points: &[(&'static str, &'static str)]| {
            let first: Vec<_> = first.iter().copied().flatten().collect();
            [&first[..], points].concat()
        };
        let plain = with(&[(points, commands), ("left.py", "1")]);
        let evil = with(&[(points, group), ("left.py", "1")]);
        says(&sdist(&evil, &plain), Risk::High, points);
        says(&sdist(&evil, &plain), Risk::High, "left.py");
        calm(&sdist(&plain, &with(&[("left.py", "1")])));
        calm(&sdist(
            &plain,
            &with(&[(points, commands), ("left.py", "2")]),
        ));
    }
    // The first step of a build writes them, the second one runs them.
    let project = "[project.entry-points.\"distutils.commands\"]\nx = \"left:f\"\n";
    let files = |text| [("pyproject.toml", text), ("left.py", "1")];
    says(&sdist(&files(project), &files("")), Risk::High, "left.py");
}

#[test]
fn attack_53_a_build_script_names_what_it_runs_in_many_ways() {
    for (script, file) in [
        ("setup(cffi_modules=[\"build_ffi.py:ffi\"])", "build_ffi.py"),
        ("setup(cffi_modules=[\"build_ffi:ffi\"])", "build_ffi"),
        ("from tools import (\n    hook,\n)", "tools/hook.py"),
        ("__import__(\"dyn\")", "dyn.py"),
        (
            "import importlib\nimportlib.import_module(\"dyn\")",
            "dyn.py",
        ),
        ("runpy.run_path(\"tool\")", "tool"),
        (
            "try: import one\nexcept ImportError: pass",
            "one/__init__.py",
        ),
        ("import one . two", "one/two.py"),
        ("sys.path.insert(0, 'lib')\nimport three", "lib/three.py"),
        ("import three", "three.pyc"),
    ] {
        let before = [("setup.py", script), (file, "1")];
        let now = [before[0], (file, "2")];
        says(&sdist(&now, &before), Risk::High, file);
    }
    for script in [
        "import ｅvil",
        "# coding: unicode_escape\nimport os",
        "run = __import__",
        "__import__('d' 'yn')",
    ] {
        let files = [("setup.py", script)];
        says(
            &sdist(&files, &files),
            Risk::Medium,
            "could not be followed",
        );
    }
    let files = [("setup.py", "import os, io"), ("left/io.py", "1")];
    calm(&sdist(&files, &[files[0], ("left/io.py", "2")]));
}

#[test]
fn attack_53_what_a_backend_imports_is_followed_or_told_as_lost() {
    let pdm = backend("pdm.backend");
    let pdm = format!("{pdm}[tool.pdm.version]\nsource = \"call\"\ngetter = \"buildver:get\"\n");
    let lib = "[tool.setuptools]\npackage-dir = {\"\" = \"lib\"}\n[tool.setuptools.dynamic]\nversion = {attr = \"left.ver.get\"}\n";
    let renamed = lib.replace("\"\" = \"lib\"", "\"left\" = \"lib/core\"");
    let flit = |more: &str| {
        format!(
            "{}[project]\nname = \"le-ft\"\n{more}",
            backend("flit_core.buildapi")
        )
    };
    let dynamic = flit("dynamic = [\"version\"]\n");
    let cases = [
        (pdm.as_str(), "buildver.py"),
        (lib, "lib/left/ver.py"),
        (&renamed, "lib/core/ver.py"),
        (&dynamic, "src/le_ft/__init__.py"),
    ];
    for (project, file) in cases {
        let before = [("pyproject.toml", project), (file, "1")];
        let now = [before[0], (file, "2")];
        says(&sdist(&now, &before), Risk::High, file);
        let none = [before[0]];
        says(
            &sdist(&none, &none),
            Risk::Medium,
            "could not be followed: where",
        );
    }
    // Flit reads what is written there plainly.
    let plain = "\"\"\"About.\"\"\"\n__version__ = \"1.0\"\n";
    let with = |project: &str, text: &str| {
        let seen = |before: &str| {
            let files = |text| [("pyproject.toml", project), ("le_ft.py", text)];
            let (now, before) = (text.to_owned(), before.to_owned());
            sdist(&files(&now), &files(&before))
        };
        seen(plain)
    };
    calm(&with(&dynamic, &plain.replace("1.0", "1.1")));
    let other = plain.replace("\"1.0\"", "get()");
    says(&with(&dynamic, &other), Risk::High, "le_ft.py");
    calm(&with(&flit("version = \"1.0\"\n"), &other));
}

#[test]
fn attack_53_a_name_without_end_is_lost_and_nothing_else_with_it() {
    let dots = "a.".repeat(30_000);
    let script = format!("import {dots}\n");
    let settings = format!("[options]\nx = {dots}b\n");
    for files in [
        [("setup.py", script.as_str()), ("setup.cfg", SETTINGS)],
        [("setup.py", SETUP), ("setup.cfg", settings.as_str())],
    ] {
        let lost = sdist(&files, &files);
        says(&lost, Risk::Medium, "could not be followed");
    }
}

#[test]
fn a_release_by_a_usual_backend_says_no_more_than_that_its_version_is_another() {
    let hatch = format!(
        "{}[tool.hatch.version]\npath = \"src/left/about.py\"\n",
        backend("hatchling.build")
    );
    let pdm = format!(
        "{}[tool.pdm.version]\nsource = \"file\"\npath = \"src/left/about.py\"\n",
        backend("pdm.backend")
    );
    let scm = format!(
        "{}[tool.setuptools_scm]\nversion_file = \"src/left/about.py\"\n",
        backend("setuptools.build_meta")
    );
    let attr = format!(
        "{}[tool.setuptools.dynamic]\nversion = {{ attr = \"left.about.__version__\" }}\n",
        backend("setuptools.build_meta")
    );
    let uv = backend("uv_build").replace("[]", "[\"uv_build>=0.8\"]");
    let differ = |text: &str, now: &str, before: &str| {
        let (text, now, before) = (text.to_owned(), now.to_owned(), before.to_owned());
        let files = |about| [("pyproject.toml", &*text), ("src/left/about.py", about)];
        sdist(&files(&*now), &files(&*before))
    };
    for text in [&hatch, &pdm, &scm, &attr, &uv] {
        calm(&differ(
            text,
            "__version__ = \"1.1\"\n",
            "__version__ = \"1.0\"\n",
        ));
    }
    // One that has to be run for its version is followed.
    says(
        &differ(&attr, "__version__ = get()\n", "__version__ = \"1.0\"\n"),
        Risk::High,
        "about.py",
    );
    let code = hatch.replace("path =", "source = \"code\"\npath =");
    says(
        &differ(&code, "__version__ = \"1.1\"\n", "__version__ = \"1.0\"\n"),
        Risk::High,
        "about.py",
    );
}

#[test]
fn attack_53_a_module_in_the_place_of_pythons_own_is_told() {
    let before = [("setup.py", SETUP)];
    for module in ["tarfile.py", "packaging/__init__.py", "json.so"] {
        says(
            &sdist(&[("setup.py", SETUP), (module, "1")], &before),
            Risk::High,
            module,
        );
    }
}

#[test]
fn attack_53_what_a_build_script_starts_is_followed() {
    for (script, file) in [
        (
            "import subprocess\nsubprocess.check_call([\"make\"])\n",
            "Makefile",
        ),
        (
            "import os\nos.system('cmake ..')\n",
            "native/CMakeLists.txt",
        ),
        (
            "import subprocess, sys\nsubprocess.run([sys.executable, \"-m\", \"tools.gen\"])\n",
            "tools/gen.py",
        ),
        (
            "from importlib.machinery import SourceFileLoader\nSourceFileLoader(\"gen\", \"data/gen.dat\").load_module()\n",
            "data/gen.dat",
        ),
    ] {
        let files = |text| [("setup.py", script), (file, text)];
        says(&sdist(&files("2"), &files("1")), Risk::High, file);
        calm(&sdist(&files("1"), &files("1")));
    }
    let renamed = "import importlib\nload = importlib.import_module\nload('tools.' + 'gen')\n";
    let files = [("setup.py", renamed)];
    says(
        &sdist(&files, &files),
        Risk::Medium,
        "could not be followed",
    );
}

#[test]
fn attack_53_many_short_hooks_and_long_names_take_no_time() {
    let long = ".b".repeat(145);
    let big: Vec<_> = (0..210).map(|n| format!("import a{n}{long}")).collect();
    let big = big.join("\n");
    let names: Vec<_> = (0..600).map(|n| format!("left{n}.pth")).collect();
    let mut files: Vec<_> = names.iter().map(|n| (n.as_str(), "import big\n")).collect();
    files.push(("big.py", &big));
    says(
        &wheel(&files, &files),
        Risk::Medium,
        "could not be followed",
    );
}
