//! Builds and starts of Python that are as before, and what they run is not.

use super::{
    Format,
    samples::{built, tgz},
    tests::of,
};
use proto::card::{FindingKind, Risk};

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
fn code_that_runs_when_a_python_package_is_built_is_followed() {
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
}

#[test]
fn attack_53_dependencies_that_stand_in_the_sources_alone_are_told() {
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
