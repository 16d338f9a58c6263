use super::*;

const SECRET: &str = "csc_topsecret";

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn target() -> Target<'static> {
    Target {
        registry: "http://127.0.0.1:4873/npm/",
        credential: SECRET,
        packages: vec!["@acme/left"],
        tag: Some("next"),
    }
}

#[test]
fn the_credential_is_never_an_argument_and_own_secrets_do_not_reach_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let user = dir.path().join(".npmrc");
    std::fs::write(
        &user,
        "proxy=http://p\nregistry=https://x\n//x/:_authToken=old\n_auth=abc\n",
    )
    .unwrap();
    let env = Env::from([
        ("COUNTERSIGN_PASSPHRASE", "p"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
        ("NPM_CONFIG_USERCONFIG", user.to_str().unwrap()),
        ("npm_config_//x/:_authToken", "old"),
        ("PATH", "/bin"),
    ]);
    let plans = [
        Plan::npm(Path::new("/x.tgz"), &target(), &env).unwrap(),
        Plan::command(
            &words("pnpm publish --no-git-checks"),
            None,
            &target(),
            &env,
        )
        .unwrap(),
        Plan::command(&words("yarn npm publish --tag=next"), None, &target(), &env).unwrap(),
        Plan::with_secret(&words("deploy"), "TOKEN", SECRET, &env).unwrap(),
    ];
    for plan in &plans {
        assert!(
            !plan
                .args
                .iter()
                .any(|a| a.to_string_lossy().contains(SECRET))
        );
        for gone in [
            "COUNTERSIGN_PASSPHRASE",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "NPM_CONFIG_USERCONFIG",
        ] {
            assert!(plan.remove.iter().any(|r| r == gone), "{gone}");
        }
        assert!(!plan.remove.iter().any(|r| r == "PATH"));
    }
    // A provenance statement needs an id token of the command's own, and nothing else of ours.
    let stated = words("npm publish --provenance");
    let plan = Plan::command(&stated, None, &target(), &env).unwrap();
    assert!(!plan.remove.iter().any(|r| r.starts_with("ACTIONS_")));
    assert!(plan.remove.iter().any(|r| r == "COUNTERSIGN_PASSPHRASE"));
    let text = |p: &Plan| p.args.join(" ".as_ref()).into_string().unwrap();
    assert_eq!(
        text(&plans[0]),
        "publish /x.tgz --registry=http://127.0.0.1:4873/npm/ --@acme:registry=http://127.0.0.1:4873/npm/ --tag next --ignore-scripts"
    );
    assert!(text(&plans[1]).contains("--registry=") && text(&plans[1]).contains("--tag next"));
    assert_eq!(text(&plans[2]), "npm publish --tag=next");
    let whitelist = plans[2]
        .set
        .iter()
        .find(|(k, _)| k == "YARN_UNSAFE_HTTP_WHITELIST");
    assert_eq!(whitelist.unwrap().1, "127.0.0.1");
}

#[test]
fn the_temporary_settings_are_private_keep_the_users_and_go_away() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let user = dir.path().join(".npmrc");
    std::fs::write(
        &user,
        "proxy=http://p\nregistry=https://x\n//x/:_authToken=old\n",
    )
    .unwrap();
    let env = Env::from([("HOME", dir.path().to_str().unwrap())]);
    let plan = Plan::npm(Path::new("/x.tgz"), &target(), &env).unwrap();
    let path = plan
        .set
        .iter()
        .find(|(k, _)| k == "npm_config_userconfig")
        .unwrap()
        .1
        .clone();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("proxy=http://p\n"));
    assert!(text.contains("//127.0.0.1:4873/npm/:_authToken=csc_topsecret\n"));
    assert!(!text.contains("old") && !text.contains("https://x"));
    drop(plan);
    assert!(!Path::new(&path).exists());
}

#[test]
fn packing_uses_the_tool_that_publishes() {
    let pack = |w: &[String]| {
        let p = Plan::pack(w, Path::new("/d"), Path::new("/t"), &Env::default()).unwrap();
        format!(
            "{} {}",
            p.program,
            p.args.join(" ".as_ref()).to_string_lossy()
        )
    };
    assert_eq!(pack(&[]), "npm pack --json --pack-destination /t");
    assert_eq!(
        pack(&words("/opt/pnpm publish")),
        "/opt/pnpm pack --pack-destination /t"
    );
    assert_eq!(
        pack(&words("yarn npm publish")),
        "yarn pack --out /t/package.tgz"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_command_that_does_not_exist_is_a_failure() {
    let plan = Plan::with_secret(&words("/no/such/program"), "X", "y", &Env::default()).unwrap();
    assert_eq!(plan.run(true).await.unwrap_err().exit as u8, 1);
}
