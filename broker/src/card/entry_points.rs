//! Entry points that setuptools runs while it builds, from the metadata of whatever lies where Python looks: the
//! archive's own root, too, when `setup.py` runs.

/// Whether what stands under this name runs at a build.
pub(super) fn builds(group: &str) -> bool {
    let group = group.trim();
    group.starts_with("setuptools.")
        || group.starts_with("distutils.")
        || group == "egg_info.writers"
}

/// What an `entry_points.txt` says of such groups, and what it names there.
pub(super) fn building(text: &str) -> (String, Vec<String>) {
    let (mut told, mut named) = (String::new(), Vec::new());
    let mut group = "";
    // Wherever Python ends a line.
    let ends = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    for line in text.split(ends).map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            group = name.split(']').next().unwrap_or(name);
        }
        if !builds(group) || line.is_empty() {
            continue;
        }
        told.push_str(line);
        told.push('\n');
        if let Some((_, value)) = line.split_once('=') {
            let value = value.split(['[', ' ']).find(|part| !part.is_empty());
            named.extend(value.map(str::to_owned));
        }
    }
    (told, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_at_a_build_is_told_and_what_becomes_a_command_is_not() {
        let text = "[console_scripts]\nleft = left:main\n";
        assert_eq!(building(text).0, "");
        for (end, group) in [
            ("\n", "setuptools.finalize_distribution_options"),
            ("\r", "distutils.commands"),
            ("\u{2028}", "egg_info.writers"),
        ] {
            let (told, named) = building(&format!("{text}{end} [ {group} ] {end}x = left.a:f [y]"));
            assert!(told.contains("left.a:f"), "{told}");
            assert_eq!(named, ["left.a:f"]);
        }
    }
}
