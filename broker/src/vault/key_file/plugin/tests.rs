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
        ("hangs", "echo $$ > \"$0.pid\"; exec sleep 30"),
        // Its child keeps the pipes.
        ("leaves", "sleep 30 & wait"),
        ("ends", "exit 0"),
        ("nonsense", "echo nonsense; exec cat >/dev/null"),
        ("unasked", "echo '-> file-key 0'; echo 'AAAA'; exit 0"),
        (
            "short",
            "printf -- '-> file-key 0\\nAAAA\\n-> done\\n\\n'; exec cat >/dev/null",
        ),
        ("closes", "exec <&- >&-; exec sleep 30"),
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
    is_gone(&dir.path().join("hangs.pid"));
}

/// Waits until the process is no more whose number is in this file.
fn is_gone(pid: &Path) {
    let pid = fs::read_to_string(pid).unwrap();
    let begun = Instant::now();
    while Path::new("/proc").join(pid.trim()).exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it runs on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn attack_44_a_plugin_that_is_ended_by_a_seal_runs_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "waits", "echo $$ > \"$0.pid\"; exec sleep 30");
    let text = Secret::new("AGE-PLUGIN-BOX-1QQQ".to_owned());
    let plugin = Plugin::new(&program, &text).unwrap();
    let own = plugin.clone();
    let asked = thread::spawn(move || own.unwrapped(&[stanza()]).err());
    let pid = dir.path().join("waits.pid");
    let begun = Instant::now();
    while !fs::read(&pid).is_ok_and(|pid| pid.ends_with(b"\n")) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(10));
    }
    plugin.end();
    assert_eq!(asked.join().unwrap(), Some(PluginError::Ended));
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it was waited for"
    );
    is_gone(&pid);
    fs::remove_file(&pid).unwrap();
    assert_eq!(
        plugin.unwrapped(&[stanza()]).err(),
        Some(PluginError::Ended)
    );
    assert!(!pid.exists(), "it was run once more");
}

#[test]
fn attack_44_a_plugin_that_others_can_replace_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let ran = dir.join("ran");
    let folder = dir.join("folder");
    fs::create_dir(&folder).unwrap();
    let program = script(&folder, "own", &format!("touch {}", ran.display()));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = |program: &Path| plugin(program).unwrapped(&[stanza()]).err();
    for wrong in [0o775, 0o757, 0o644] {
        mode(&program, wrong);
        assert_eq!(
            refused(&program),
            Some(PluginError::Unsafe(program.clone()))
        );
    }
    mode(&program, 0o755);
    // Whoever can write a folder on the way puts another program there; a link hides none.
    let link = dir.join("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    for wrong in [0o775, 0o757] {
        mode(&folder, wrong);
        for way in [&program, &link.join("own")] {
            assert_eq!(refused(way), Some(PluginError::Unsafe(folder.clone())));
        }
    }
    mode(&folder, 0o755);
    if geteuid().is_root() {
        // Another user's: he can make it writable whenever he likes.
        for place in [&program, &folder] {
            std::os::unix::fs::chown(place, Some(65_534), None).unwrap();
            assert_eq!(refused(&program), Some(PluginError::Unsafe(place.clone())));
            std::os::unix::fs::chown(place, Some(0), None).unwrap();
        }
    }
    assert_eq!(refused(&dir), Some(PluginError::Unsafe(dir.clone())));
    // Never one by a name: what runs is what the configuration names, and no text of an identity.
    let named = refused(Path::new("age-plugin-box"));
    assert!(matches!(named, Some(PluginError::NotStarted(..))));
    assert!(!ran.exists());
    assert!(refused(&program).is_some());
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
