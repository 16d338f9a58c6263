use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// A program in the shell that is started as a plugin.
fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn plugin(program: &Path) -> Plugin {
    let text = Secret::new("# a slot\nAGE-PLUGIN-BOX-1QQQ\n".to_owned());
    Plugin::within(program, &text, Duration::from_secs(1)).unwrap()
}

fn stanza() -> Stanza {
    Stanza {
        tag: "box".to_owned(),
        args: vec![],
        body: vec![0; 32],
    }
}

/// What a plugin that follows no rules comes to: never a key, and in time.
#[test]
fn attack_44_a_plugin_that_hangs_dies_or_talks_nonsense_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("hangs", "exec sleep 1000"),
        // Its child keeps the pipes.
        ("leaves", "sleep 100 & wait"),
        ("ends", "exit 0"),
        ("nonsense", "echo nonsense; exec cat >/dev/null"),
        ("unasked", "echo '-> file-key 0'; echo 'AAAA'; exit 0"),
        (
            "short",
            "printf -- '-> file-key 0\\nAAAA\\n-> done\\n\\n'; exec cat >/dev/null",
        ),
        ("closes", "exec <&- >&-; exec sleep 1000"),
    ];
    for (name, text) in cases {
        let program = script(dir.path(), name, text);
        let begun = Instant::now();
        let opened = plugin(&program).unwrapped(&[stanza()]);
        assert!(!matches!(opened, Ok(Some(_))), "{name}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
        let key = FileKey::init_with_mut(|key| *key = [7; 16]);
        assert!(plugin(&program).wrapped(&key).is_err(), "{name}");
    }
    let slow = plugin(&dir.path().join("hangs")).unwrapped(&[stanza()]);
    assert_eq!(slow.err(), Some(PluginError::Slow(1)));
}

#[test]
fn attack_44_a_plugin_that_others_can_replace_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let program = script(dir.path(), "own", &format!("touch {}", ran.display()));
    for mode in [0o775, 0o757, 0o644] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let refused = plugin(&program).unwrapped(&[stanza()]).err();
        assert_eq!(refused, Some(PluginError::Unsafe(program.clone())));
    }
    let folder = plugin(dir.path()).unwrapped(&[stanza()]).err();
    assert_eq!(folder, Some(PluginError::Unsafe(dir.path().into())));
    // Never one by a name: what runs is what the configuration names, and no text of an identity.
    let name = Path::new("age-plugin-box");
    let refused = Plugin::check(name).err();
    assert!(matches!(refused, Some(PluginError::NotStarted(..))));
    assert!(!ran.exists());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(plugin(&program).unwrapped(&[stanza()]).is_err());
    assert!(ran.exists(), "the very program runs once it is safe");
}

#[test]
fn a_plugins_identity_is_told_from_other_text() {
    for text in [
        "",
        "# AGE-PLUGIN-BOX-1QQQ",
        "AGE-SECRET-KEY-1QQQ",
        "AGE-PLUGIN-BOX 1",
    ] {
        let made = Plugin::new(Path::new("/bin/true"), &Secret::new(text.to_owned()));
        assert_eq!(made.err(), Some(PluginError::NoIdentity), "{text}");
    }
}
