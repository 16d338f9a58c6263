//! An age plugin opens the vault: a program of its own, made with the library that real ones are made with.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{daemon::Daemon, people::Office, run, team::POLICY};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const NO_REGISTRY: &str = "http://127.0.0.1:1";
const COMMAND: Duration = Duration::from_mins(1);
const METHOD: &str = "/v1/admin/unseal-method";
const PASSPHRASE: &str = "of-the-vault-itself-1234";

/// What holds the key, in place of a security key.
struct Plugged {
    dir: TempDir,
    program: PathBuf,
    identity: String,
}

impl Plugged {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("age-plugin-box");
        fs::copy(env!("CARGO_BIN_EXE_age-plugin-box"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let folder = dir.path().display().to_string();
        let made = run(&program, &["--new", &folder], &[], dir.path(), COMMAND).await;
        let identity = made.unwrap().ok().unwrap().stdout;
        assert!(identity.contains("\nAGE-PLUGIN-BOX-1"), "{identity}");
        Self {
            dir,
            program,
            identity,
        }
    }

    fn builder(&self) -> stand::daemon::Builder {
        Daemon::builder().plugin(&self.identity, &self.program)
    }

    async fn office(&self) -> Office {
        let office = Office::start_as(self.builder(), POLICY, NO_REGISTRY).await;
        office.unwrap()
    }

    /// How it behaves from now on.
    fn mode(&self, mode: Option<&str>) {
        let path = self.dir.path().join("mode");
        match mode {
            Some(mode) => fs::write(path, mode).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }

    fn unplug(&self) {
        fs::rename(self.key(), self.dir.path().join("kept")).unwrap();
    }

    fn plug_in(&self) {
        fs::rename(self.dir.path().join("kept"), self.key()).unwrap();
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("key")
    }
}

async fn sealed(office: &Office) -> bool {
    let status = office.admin.get("/v1/status").await.unwrap();
    status.ok::<Value>().unwrap()["sealed"] == true
}

async fn change(office: &Office, to: &str, passphrase: Option<&str>) -> Value {
    let mut body = json!({"to": {"method": to}});
    if let Some(text) = passphrase {
        body["passphrase"] = text.into();
    }
    let done = office.admin.with_code(METHOD, body).await.unwrap();
    assert!(done.success(), "{}", done.body);
    done.body
}

#[tokio::test]
async fn an_age_plugin_opens_the_vault_at_the_start_and_nothing_else_does() {
    let plugged = Plugged::new().await;
    let mut office = plugged.office().await;
    assert!(!sealed(&office).await);
    // What opens it changes, and changes back, while the broker serves.
    let custody = change(&office, "passphrase", Some(PASSPHRASE)).await;
    assert_eq!(custody["methods"], json!(["passphrase"]));
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&office).await);
    let log = office.daemon.log();
    assert!(log.contains("names a plugin, and the key file is opened by: passphrase"));
    let given = json!({"passphrase": PASSPHRASE});
    let opened = office.admin.post("/v1/admin/unseal", given).await.unwrap();
    assert!(opened.success(), "{}", opened.body);
    let custody = change(&office, "plugin", None).await;
    assert_eq!(custody["methods"], json!(["plugin"]));
    office.daemon.restart().await.unwrap();
    assert!(!sealed(&office).await);

    office.terminal("alice", true).await.unwrap();
    let shown = office.run("alice", &["admin", "unseal-method"], &[]);
    let shown = shown.await.unwrap();
    assert!(shown.stdout.contains("opened by: plugin"), "{shown}");
    plugged.unplug();
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&office).await);
    let log = office.daemon.log();
    assert!(log.contains("the box is not plugged in"), "{log}");
    let typed = office.run("alice", &["admin", "unseal"], &[]);
    let typed = typed.await.unwrap();
    assert_eq!(typed.status, Some(2), "{typed}");
    assert!(typed.stderr.contains("Start countersignd again"), "{typed}");
    plugged.plug_in();
    office.daemon.restart().await.unwrap();

    // Another box is another key.
    let other = Plugged::new().await;
    let named = office.daemon.dir().join("unseal.age");
    let own = fs::read(&named).unwrap();
    fs::write(&named, &other.identity).unwrap();
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&office).await);
    fs::write(&named, own).unwrap();

    let key = fs::read_to_string(plugged.key()).unwrap();
    let file = fs::read_to_string(office.daemon.dir().join("data/vault.json")).unwrap();
    for text in [office.daemon.log(), file] {
        assert!(!text.contains(&key) && !text.contains("AGE-PLUGIN-BOX-1"));
    }
}

#[tokio::test]
async fn an_identity_gives_way_to_a_plugin_with_no_passphrase_between() {
    let plugged = Plugged::new().await;
    let office = Office::start_as(Daemon::builder(), POLICY, NO_REGISTRY).await;
    let mut office = office.unwrap();
    // The file has both lines meanwhile, and the configuration names the plugin.
    let named = office.daemon.dir().join("unseal.age");
    let both = fs::read_to_string(&named).unwrap() + "\n" + &plugged.identity;
    fs::write(&named, both).unwrap();
    let path = office.daemon.config_path();
    let config = fs::read_to_string(&path).unwrap();
    let plugin = format!("[unseal]\nplugin = {:?}\n", plugged.program);
    fs::write(&path, config.replace("[unseal]\n", &plugin)).unwrap();
    office.daemon.restart().await.unwrap();
    let custody = change(&office, "plugin", None).await;
    assert_eq!(custody["methods"], json!(["plugin"]));
    fs::write(&named, &plugged.identity).unwrap();
    office.daemon.restart().await.unwrap();
    assert!(!sealed(&office).await);
}

#[tokio::test]
async fn attack_44_a_plugin_that_waits_or_asks_keeps_no_broker_from_serving_sealed() {
    let plugged = Plugged::new().await;
    let mut office = plugged.office().await;
    plugged.mode(Some("touch"));
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&office).await);
    let package = json!({"package": "npm:@acme/left", "reason": "looked into"});
    let frozen = office.admin.post("/v1/admin/freeze", package).await;
    assert!(frozen.unwrap().success());
    // Somebody touches it.
    plugged.mode(None);
    let begun = Instant::now();
    while sealed(&office).await {
        assert!(begun.elapsed() < COMMAND, "{}", office.daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = office.daemon.log();
    assert!(log.contains("touch the \u{FFFD}[31mbox"), "{log}");

    // An admin's word is the last one: what is touched after it opens nothing.
    plugged.mode(Some("touch"));
    office.daemon.restart_sealed().await.unwrap();
    let sealing = office.admin.post("/v1/admin/seal", json!({})).await;
    assert!(sealing.unwrap().success());
    plugged.mode(None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(sealed(&office).await);
    assert!(office.daemon.log().contains("sealed meanwhile"));

    plugged.mode(Some("other"));
    office.daemon.restart_sealed().await.unwrap();
    assert!(
        office
            .daemon
            .log()
            .contains("this does not unseal the vault")
    );
    assert!(sealed(&office).await);

    plugged.mode(Some("pin"));
    office.daemon.restart_sealed().await.unwrap();
    assert!(office.daemon.log().contains("asks for a PIN"));
    assert!(sealed(&office).await);

    plugged.mode(Some("hang"));
    office.daemon.restart_sealed().await.unwrap();
    assert!(sealed(&office).await);
    let program = plugged.program.display().to_string();
    assert_eq!(running(&program), 1);
    assert_eq!(office.daemon.terminate().await.unwrap(), Some(0));
    assert_eq!(
        running(&program),
        0,
        "the plugin runs on without the broker"
    );
}

/// How many processes there are of a program.
fn running(program: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).ok();
    let of = |line: &String| line.split('\0').next() == Some(program);
    all.filter_map(line).filter(of).count()
}

#[tokio::test]
async fn attack_44_the_keys_that_a_plugin_hands_over_are_not_printed() {
    let plugged = Plugged::new().await;
    let debugged = plugged.builder().env("AGEDEBUG", "plugin");
    let refused = Office::start_as(debugged, POLICY, NO_REGISTRY).await;
    let why = format!("{:#}", refused.err().unwrap());
    assert!(why.contains("unset it"), "{why}");
}
