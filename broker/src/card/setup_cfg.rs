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
