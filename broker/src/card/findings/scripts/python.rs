//! What runs when Python packages are built, installed, or started with.

use super::{
    Hook, ends,
    follow::{Followed, Language, Texts, python_files},
};
use proto::card::shown;
use std::collections::BTreeMap;

/// A source distribution is built by its own code: `setup.py`, or the backend that `pyproject.toml` names.
pub(super) fn sdist(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let tree = texts.tree;
    let mut out = BTreeMap::new();
    if texts.has("setup.py") {
        out.insert("setup.py".to_owned(), Hook::of(texts, "setup.py"));
    }
    let configured = settings(tree.text("setup.cfg").unwrap_or_default());
    if let Some(hook) = out.remove("setup.py") {
        let mut hook: Hook = hook.told_by("setup.cfg", configured.clone());
        imported(&mut hook.runs, texts, &configured);
        out.insert("setup.py".to_owned(), hook);
    }
    if !texts.has("pyproject.toml") {
        return out;
    }
    let read = tree
        .text("pyproject.toml")
        .and_then(|text| text.parse().ok());
    let Some(document): Option<toml::Table> = read else {
        // Python may read it where we cannot.
        let mut hook = Hook::new(
            "pyproject.toml, which could not be read".to_owned(),
            Followed::default(),
        );
        hook.runs.lost.insert("pyproject.toml".to_owned());
        out.insert("build backend".to_owned(), hook);
        return out;
    };
    if let Some(system) = document.get("build-system") {
        let text = [
            ("build-backend", ""),
            ("backend-path", " in "),
            ("requires", ", after "),
        ]
        .iter()
        .filter_map(|(key, before)| Some(format!("{before}{}", system.get(key)?)))
        .collect::<String>();
        let told = format!("{}{configured}", building(&document));
        let mut runs = Followed::default();
        let files = tree.files.keys().filter(|f| backend_file(system, f));
        files
            .chain(BACKEND_FILES.map(String::from).iter())
            .for_each(|file| runs.file(texts, file));
        runs.inline(texts, Language::Other, &told, "");
        imported(&mut runs, texts, &told);
        let backend = system.get("build-backend").and_then(toml::Value::as_str);
        // Without one, setuptools is meant (PEP 517).
        if let Some(other) = backend.filter(|b| !BACKENDS.contains(b)) {
            runs.lost.insert(format!("what {} builds", shown(other)));
        }
        let hook = Hook::new(text, runs).told_by("pyproject.toml or setup.cfg", told);
        out.insert("build backend".to_owned(), hook);
    }
    out
}

/// Backends that run no code of the package but what is followed here.
const BACKENDS: [&str; 7] = [
    "setuptools.build_meta",
    "setuptools.build_meta:__legacy__",
    "hatchling.build",
    "flit_core.buildapi",
    "flit.buildapi",
    "poetry.core.masonry.api",
    "pdm.backend",
];
/// Files that backends run by their name.
const BACKEND_FILES: [&str; 3] = ["hatch_build.py", "pdm_build.py", "setup.py"];
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

/// What `pyproject.toml` tells a backend, but for the project's own description.
fn building(document: &toml::Table) -> String {
    let tools = document.get("tool").and_then(toml::Value::as_table);
    let told = tools
        .into_iter()
        .flatten()
        .filter(|(name, _)| !OTHER_TOOLS.contains(&name.as_str()));
    told.map(|(name, table)| match name.as_str() {
        // These keep the description, or what only developers use, beside it.
        "poetry" => format!("poetry: {:?}\n", table.get("build")),
        "hatch" | "pdm" => {
            let parts = ["build", "version", "metadata"];
            let parts = parts
                .iter()
                .filter_map(|key| Some(format!("{key}: {}\n", table.get(key)?)));
            format!("{name}:\n{}", parts.collect::<String>())
        }
        _ => format!("{name}: {table}\n"),
    })
    .collect()
}

/// What `setup.cfg` tells, without the version.
fn settings(text: &str) -> String {
    let lines = text.lines().filter(|line| {
        let key = line.split(['=', ':']).next().unwrap_or_default().trim();
        !matches!(
            key,
            "version" | "current_version" | "tag_date" | "tag_build"
        ) || line.contains("attr")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Follows what such settings import: `attr: pkg.version`, and classes of commands.
fn imported(runs: &mut Followed, texts: Texts<'_>, told: &str) {
    let dotted = told.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    for word in dotted.filter(|word| word.contains('.') && !ends(word, ".py")) {
        for file in python_files(texts, "", word) {
            runs.file(texts, &file);
        }
    }
}

/// Whether a file belongs to a backend that lies in the archive itself.
fn backend_file(system: &toml::Value, file: &str) -> bool {
    let paths = system.get("backend-path").and_then(toml::Value::as_array);
    paths
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .any(|path| {
            let path = path.trim_start_matches("./").trim_end_matches('/');
            path.is_empty()
                || path == "."
                || file
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
}

/// A wheel runs nothing when it is installed; but `.pth` files run at each start of Python, and scripts
/// become commands.
pub(super) fn wheel(texts: Texts<'_>) -> BTreeMap<String, Hook> {
    let runs = |name: &str| {
        let data = name
            .strip_prefix(".data/purelib/")
            .or(name.strip_prefix(".data/platlib/"));
        let at_root = data.unwrap_or(name);
        (!at_root.contains('/')
            && (ends(at_root, ".pth")
                || at_root == "sitecustomize.py"
                || at_root == "usercustomize.py"))
            || name.starts_with(".data/scripts/")
            || name.starts_with(".data/data/")
    };
    let hook = |name: &String| {
        // Commands run when somebody calls them; what Python starts with runs always, and all that it imports.
        if name.starts_with(".data/scripts/") || name.starts_with(".data/data/") {
            Hook::these(format!("runs {name}"), [name.clone()])
        } else {
            Hook::of(texts, name)
        }
    };
    let names = texts.tree.files.keys().filter(|name| runs(name));
    names.map(|name| (shown(name), hook(name))).collect()
}
