//! What a `setup.cfg` says. setuptools reads it when it packs a source distribution, adds two values of its own, and
//! writes it anew, without the comments: the bytes are others than in the source, and nothing else may be.

/// The section that setuptools adds.
const OWN: &str = "[egg_info]";

/// What it says line by line, without setuptools' own two values and however the rest is written. Files that say the
/// same are read the same by Python's `configparser`.
pub(super) fn said(text: &str) -> String {
    // Python ends a line there too: nothing may hide behind a comment.
    let text = text.replace('\r', "\n");
    let mut out = String::new();
    // Within the own section, and whether its name was taken over.
    let (mut own, mut named) = (false, true);
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            own = bare == OWN;
            named = !own;
            if named {
                push(&mut out, bare);
            }
            continue;
        }
        let continues = line.starts_with(char::is_whitespace);
        let pair = bare.split_once(['=', ':']).filter(|_| !continues);
        let pair = pair.map(|(key, value)| (key.trim_end(), value.trim_start()));
        if own && matches!(pair, Some(("tag_build" | "tag_date", value)) if is_tag(value)) {
            continue;
        }
        if !named {
            named = true;
            push(&mut out, OWN);
        }
        match pair {
            Some((key, value)) => push(&mut out, &format!("{key}={value}")),
            None if continues => push(&mut out, &format!("\t{bare}")),
            None => push(&mut out, bare),
        }
    }
    out
}

/// What it tells a build, line by line, without the version and without the sections of tools that build nothing; and what it names that a build imports.
pub(super) fn told(text: &str) -> (String, Vec<String>) {
    // Python ends a line there too.
    let text = text.replace('\r', "\n");
    let lines: Vec<&str> = text.split('\n').collect();
    let (mut out, mut named) = (String::new(), Vec::new());
    let (mut section, mut key) = ("", "");
    for (n, line) in lines.iter().enumerate() {
        let bare = line.trim();
        if bare.starts_with('[') {
            // Anything but the plain form may be read as another section.
            section = if bare == *line { bare } else { "" };
            key = "";
        }
        if bare.is_empty() || is_other(section) {
            continue;
        }
        let continues = line.starts_with(char::is_whitespace);
        let pair = line.split_once(['=', ':']).filter(|_| !continues);
        let (own, value) = pair.map_or(("", bare), |(key, value)| (key.trim(), value.trim()));
        if !continues {
            key = own;
        }
        let version = matches!(
            (section, own),
            ("[metadata]", "version") | (OWN, "tag_date" | "tag_build")
        );
        // What goes on in the next line is no plain version, and would stand behind another key.
        if version && is_tag(value) && !goes_on(lines.get(n + 1..)) {
            continue;
        }
        push(&mut out, line);
        if bare.starts_with(['#', ';']) {
            continue;
        }
        named.extend(after_attr(bare));
        if key == "cmdclass" {
            // `name = module.Class`, in lines of its own or behind the key.
            let class = bare.rsplit('=').next().unwrap_or_default().trim();
            let is_class = class.contains('.') && is_tag(class);
            named.extend(is_class.then(|| class.to_owned()));
        }
    }
    (out, named)
}

/// Whether a section is for a tool that builds nothing.
fn is_other(section: &str) -> bool {
    const TOOLS: [&str; 15] = [
        "bumpversion",
        "check-manifest",
        "coverage",
        "doc8",
        "flake8",
        "isort",
        "mypy",
        "pep8",
        "pycodestyle",
        "pydocstyle",
        "pylint",
        "pytest",
        "tool:pytest",
        "tox",
        "yapf",
    ];
    let name = section.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
    let name = name.unwrap_or_default();
    let own = |tool: &&str| {
        let rest = name.strip_prefix(*tool);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '-']))
    };
    TOOLS.iter().any(own)
}

/// Whether the next line that says something belongs to the one before.
fn goes_on(lines: Option<&[&str]>) -> bool {
    let all = lines.into_iter().flatten();
    let mut said =
        all.filter(|line| !line.trim().is_empty() && !line.trim().starts_with(['#', ';']));
    said.next()
        .is_some_and(|line| line.starts_with(char::is_whitespace))
}

/// What stands behind `attr:`.
fn after_attr(line: &str) -> Option<String> {
    let (_, behind) = line.split_once("attr:")?;
    let word = behind.split_whitespace().next()?;
    Some(word.to_owned())
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// What ends a version, as `.dev` does.
fn is_tag(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    value.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "# ours\n[metadata]\nname=left\n\n[options]\ninstall_requires =\n    a\n    b\n";

    #[test]
    fn what_setuptools_writes_says_what_the_source_says() {
        let packed = "[metadata]\nname = left\n\n[options]\ninstall_requires = \n\ta\n\tb\n\n\
                      [egg_info]\ntag_build = \ntag_date = 0\n\n";
        assert_eq!(said(packed), said(SOURCE));
        assert_eq!(said("[egg_info]\ntag_build = \ntag_date = 0\n\n"), "");
        assert_eq!(said("[egg_info]\ntag_build = .dev1\ntag_date = 0\n"), "");
    }

    #[test]
    fn attack_53_nothing_hides_behind_a_version() {
        let base = "[metadata]\nname = left\nversion = 1.0\n[options]\nzip_safe = no\n";
        let now = base.replace("1.0", "1.1");
        assert_eq!(told(&now), told(base));
        for (from, to) in [
            (
                "1.0",
                "1.1\r[options]\rcmdclass =\r  egg_info = evil.mod.Build",
            ),
            ("1.0", "1.1\n  attr: evil.mod.Build"),
            ("1.0", "1.1\n\n # x\n  attr: evil.mod.Build"),
            ("1.0", "attr: evil.mod.Build"),
            (
                "zip_safe = no",
                "zip_safe = no\ncmdclass =\n  version = evil.mod.Build",
            ),
            (
                "zip_safe = no",
                "zip_safe = no\ncmdclass = version = evil.mod.Build",
            ),
            (
                "zip_safe = no",
                "zip_safe = no\n [options]\ncmdclass =\n  x = evil.mod.Build",
            ),
        ] {
            let (text, named) = told(&base.replace(from, to));
            assert!(text.contains("evil.mod.Build"), "{to:?}: {text}");
            assert_eq!(named, ["evil.mod.Build"], "{to:?}");
        }
        // What a linter is told counts for nothing, and hides nothing.
        let linted = format!("{base}[flake8]\nignore = evil.mod\n");
        assert_eq!(told(&linted), told(base));
        for hidden in ["  [options]\n  cmdclass =\n", "[options]\ncmdclass =\n"] {
            let (text, _) = told(&format!("{linted}{hidden}    x = evil.mod.Build\n"));
            assert!(text.contains("evil.mod.Build"), "{hidden:?}: {text}");
        }
        let entry = base.replace("[options]", "[x]\nversion = evil.mod");
        assert!(told(&entry).0.contains("evil.mod"));
    }

    #[test]
    fn nothing_else_hides_in_what_setuptools_writes() {
        for more in [
            "[egg_info]\ntag_build = \ntag_svn_revision = 1\n",
            "[egg_info]\ntag_build =\n\tevil\n",
            "[egg_info]\ntag_build = a b\n",
            "[egg_info]\n# hidden\rsetup_hooks = evil\n",
            "[options.entry_points]\n",
            "    c\n",
            "tag_build = \n",
            "[build_ext]\ntag_date = 0\n",
        ] {
            assert_ne!(said(&format!("{SOURCE}{more}")), said(SOURCE), "{more:?}");
        }
    }
}
