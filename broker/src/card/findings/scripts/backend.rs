//! What runs when the backend builds that `pyproject.toml` names: of the usual ones it is known what they read.

use super::{
    Hook,
    follow::{Followed, Language, join},
    imports::states_version,
    modules::{Reach, python_files},
    sdist::Told,
    texts::Texts,
};
use crate::card::entry_points;
use proto::card::shown;

/// Backends that run no code of the package but what is followed here.
const BACKENDS: [&str; 8] = [
    "setuptools.build_meta",
    "setuptools.build_meta:__legacy__",
    "hatchling.build",
    "flit_core.buildapi",
    "flit.buildapi",
    "poetry.core.masonry.api",
    "pdm.backend",
    "uv_build",
];
/// Files that backends run by their name.
const BACKEND_FILES: [&str; 3] = ["hatch_build.py", "pdm_build.py", "setup.py"];
/// What backends are joined with that reads no file of its own in the package.
const BESIDES: [&str; 24] = [
    "cffi",
    "cython",
    "flit",
    "flit-core",
    "hatch-fancy-pypi-readme",
    "hatch-requirements-txt",
    "hatch-vcs",
    "hatchling",
    "numpy",
    "oldest-supported-numpy",
    "packaging",
    "pdm-backend",
    "pip",
    "poetry-core",
    "pybind11",
    "setuptools",
    "setuptools-scm",
    "toml",
    "tomli",
    "typing-extensions",
    "uv-build",
    "vcs-versioning",
    "versioneer",
    "wheel",
];
/// Tables of tools that build nothing.
const OTHER_TOOLS: [&str; 24] = [
    "bandit",
    "black",
    "bumpversion",
    "bumpver",
    "check-manifest",
    "cibuildwheel",
    "codespell",
    "commitizen",
    "coverage",
    "djlint",
    "flake8",
    "interrogate",
    "isort",
    "mypy",
    "pydocstyle",
    "pylint",
    "pyright",
    "pytest",
    "ruff",
    "rye",
    "semantic_release",
    "towncrier",
    "tox",
    "uv",
];
/// Keys whose value is a file that is run, whatever its name ends with.
const SCRIPTS: [&str; 5] = ["path", "script", "build", "custom-hook", "setup-script"];
/// Keys whose value is a file that is written with the version, and not run.
const WRITTEN: [&str; 4] = ["version_file", "version-file", "write_to", "write-to"];
/// Keys whose value is imported.
const IMPORTED: [&str; 3] = ["attr", "getter", "version_format"];

/// The build by a backend, which is told also what setuptools reads.
pub(super) fn hook(texts: Texts<'_>, setuptools: &Told) -> Hook {
    let text = texts.text("pyproject.toml");
    let document: Option<toml::Table> = match text {
        Some(text) => text.parse().ok(),
        None if texts.has("pyproject.toml") => None,
        None => Some(toml::Table::new()),
    };
    let Some(document) = document else {
        // Python may read it where we cannot.
        let text = "pyproject.toml, which could not be read".to_owned();
        let mut hook = Hook::these(text, []);
        hook.runs.lost.insert("pyproject.toml".to_owned());
        return hook;
    };
    let system = document.get("build-system");
    let get = |key| system.and_then(|s| s.get(key));
    // Without a name, or without the table, setuptools is meant (PEP 517, PEP 518).
    let named = get("build-backend").map_or_else(
        || "setuptools, since no backend is named".to_owned(),
        ToString::to_string,
    );
    let with = [("backend-path", " in "), ("requires", ", after ")].iter();
    let with = with.filter_map(|(key, before)| Some(format!("{before}{}", get(key)?)));
    let mut hook = Hook::new(
        format!("{named}{}", with.collect::<String>()),
        Followed::default(),
    );

    let paths = get("backend-path").and_then(toml::Value::as_array);
    let files = texts.tree.files.keys().filter(|f| in_paths(paths, f));
    let named = BACKEND_FILES.map(String::from);
    files
        .chain(&named)
        .for_each(|file| hook.runs.file(texts, file));

    let mut told = setuptools.clone();
    let mut imported = Vec::new();
    let mut building = building(&document);
    imports(&building, "", &mut imported);
    run(texts, &building, &mut hook);
    told.add(
        "pyproject.toml",
        building.to_string(),
        std::mem::take(&mut imported),
    );
    // What stands there wins over the table.
    if texts.has("hatch.toml") {
        let text = texts.text("hatch.toml");
        match text.and_then(|text| text.parse::<toml::Table>().ok()) {
            Some(own) => {
                building = parts(&own, &["build", "version", "metadata"]);
                forget_read(&mut building);
                run(texts, &building, &mut hook);
                told.add("hatch.toml", building.to_string(), imported);
            }
            None => told.lost("hatch.toml"),
        }
    }
    told.tell(texts, &mut hook);

    let backend = get("build-backend").map(|name| name.as_str().unwrap_or_default());
    if let Some(other) = backend.filter(|name| !BACKENDS.contains(name)) {
        hook.runs
            .lost
            .insert(format!("what {} builds", shown(other)));
    }
    let requires = get("requires").and_then(toml::Value::as_array);
    for other in requires.into_iter().flatten().filter_map(besides) {
        hook.runs.lost.insert(format!("what {other} builds"));
    }
    if backend.is_some_and(|name| name.starts_with("flit")) {
        flit(texts, &document, &mut hook.runs);
    }
    hook
}

/// What `pyproject.toml` tells a backend, but for the project's own description.
fn building(document: &toml::Table) -> toml::Table {
    let mut out = toml::Table::new();
    let tools = document.get("tool").and_then(toml::Value::as_table);
    for (name, table) in tools.into_iter().flatten() {
        let told = match (name.as_str(), table.as_table()) {
            // These keep the description, or what only developers use, beside it.
            ("poetry", Some(table)) => toml::Value::Table(parts(table, &["build"])),
            ("hatch" | "pdm", Some(table)) => {
                toml::Value::Table(parts(table, &["build", "version", "metadata"]))
            }
            (name, _) if OTHER_TOOLS.contains(&name) => continue,
            _ => table.clone(),
        };
        out.insert(name.clone(), told);
    }
    forget_read(&mut out);
    let project = document.get("project");
    let points = project.and_then(|p| p.get("entry-points")?.as_table());
    let points = points.into_iter().flatten();
    // They run at the second step of a build, which finds what the first one wrote.
    for (group, all) in points.filter(|(group, _)| entry_points::builds(group)) {
        out.insert(format!("entry-points {group}"), all.clone());
    }
    out
}

/// Leaves out files that are only read or written for the version: they change with each.
fn forget_read(table: &mut toml::Table) {
    for key in WRITTEN {
        table.remove(key);
    }
    for (name, value) in table.iter_mut() {
        let Some(below) = value.as_table_mut() else {
            continue;
        };
        // hatchling searches it by a pattern, pdm by another, unless told to run it.
        let source = below.get("source").and_then(toml::Value::as_str);
        if name == "version" && matches!(source, None | Some("regex" | "file")) {
            below.remove("path");
        }
        forget_read(below);
    }
}

fn parts(table: &toml::Table, keys: &[&str]) -> toml::Table {
    let all = keys.iter().filter_map(|key| table.get_key_value(*key));
    all.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What such tables import.
fn imports(table: &toml::Table, under: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => imports(table, key, out),
            toml::Value::String(text)
                if IMPORTED.contains(&key.as_str())
                    || under == "cmdclass"
                    || under.starts_with("entry-points ") =>
            {
                let name = text.split(['[', ' ']).next().unwrap_or(text);
                out.push(name.to_owned());
            }
            _ => {}
        }
    }
}

/// Follows the files that such tables have run.
fn run(texts: Texts<'_>, table: &toml::Table, hook: &mut Hook) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => run(texts, table, hook),
            toml::Value::String(file) if SCRIPTS.contains(&key.as_str()) => {
                hook.runs.script(texts, Language::Python, "", file);
            }
            _ => {}
        }
    }
}

/// What is wanted for the build and could read files of its own.
fn besides(required: &toml::Value) -> Option<String> {
    let required = required.as_str().unwrap_or_default();
    let end = required.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    let name = required
        .get(..end.unwrap_or(required.len()))
        .unwrap_or_default();
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    let known = BESIDES.contains(&name.as_str()) && !required.contains('@');
    (!known).then(|| shown(required))
}

/// Flit runs the package's module where it does not find what it wants in its text.
fn flit(texts: Texts<'_>, document: &toml::Table, runs: &mut Followed) {
    let tool = document.get("tool").and_then(|t| t.get("flit"));
    let project = document.get("project");
    let dynamic = project.and_then(|p| p.get("dynamic")?.as_array());
    let wants = |what: &toml::Value| matches!(what.as_str(), Some("version" | "description"));
    if project.is_some() && !dynamic.is_some_and(|all| all.iter().any(wants)) {
        return;
    }
    let own = tool.and_then(|t| t.get("module")?.get("name")?.as_str());
    let old = tool.and_then(|t| t.get("metadata")?.get("module")?.as_str());
    let name = project.and_then(|p| p.get("name")?.as_str());
    let name = own.or(old).or(name).unwrap_or_default().replace('-', "_");
    let path = name.replace('.', "/");
    let files = python_files(texts, "", &name, Reach::Near).into_iter();
    let own = |file: &String| {
        let file = file.trim_start_matches("src/");
        file.strip_prefix(&path)
            .is_some_and(|end| matches!(end, ".py" | "/__init__.py"))
    };
    let files: Vec<_> = files.filter(own).collect();
    if files.is_empty() {
        runs.lost.insert(format!("where {} is", shown(&name)));
    }
    for file in files {
        if !texts.text(&file).is_some_and(states_version) {
            runs.file(texts, &file);
        }
    }
}

/// Whether a file belongs to a backend that lies in the archive itself.
fn in_paths(paths: Option<&toml::value::Array>, file: &str) -> bool {
    let paths = paths.into_iter().flatten().filter_map(toml::Value::as_str);
    paths.into_iter().any(|path| {
        // One that leads out of the archive could be any.
        join("", path).is_none_or(|path| {
            path.is_empty()
                || file
                    .strip_prefix(&*path)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    })
}
