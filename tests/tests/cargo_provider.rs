//! cargo's credential provider: the real cargo asks, people approve, cargo publishes by itself with the
//! token that it was handed, and the broker reads the registry back.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{Job, Small},
    cargo::{self, Freighter, cargo},
    command::{Output, Running},
    daemon::Daemon,
    parts::Issuer,
    team::PUBLISH,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const POLICY: &str = r#"
[[package]]
match = ["crates:acme-*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device"]
version = "semver"
"#;

struct Stage {
    registry: Freighter,
    small: Small,
    folder: PathBuf,
}

/// A job whose output goes to files.
struct Started {
    running: Running,
    out: PathBuf,
    err: PathBuf,
}

impl Started {
    fn new(command: &mut Command, folder: &Path) -> Self {
        let stamp = stand::free_port().unwrap();
        let place = |end: &str| folder.join(format!("job-{stamp}.{end}"));
        let (out, err) = (place("out"), place("err"));
        command
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap());
        Self {
            running: Running::start(command).unwrap(),
            out,
            err,
        }
    }

    fn text(&self) -> String {
        let read = |p: &Path| fs::read_to_string(p).unwrap();
        format!("{}{}", read(&self.out), read(&self.err))
    }

    /// Waits for what `found` finds in the output.
    async fn until<T>(&mut self, found: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let ended = self.running.ended();
            let text = self.text();
            if let Some(value) = found(&text) {
                return value;
            }
            assert!(
                ended.is_none() && start.elapsed() < PUBLISH,
                "{ended:?}: {text}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The exit code.
    async fn end(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(code) = self.running.status() {
                return code;
            }
            assert!(start.elapsed() < PUBLISH, "{}", self.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The id and the match code, as a person reads them in the job's log.
    async fn asked(&mut self) -> (String, String) {
        self.until(|text| {
            let behind = |mark: &str| text.split_once(mark).map(|(_, rest)| rest.to_owned());
            let code = behind("match code")?;
            let code: String = code.chars().take(20).filter(char::is_ascii_digit).collect();
            let id = behind("countersign approve ")?;
            let (id, _) = id.split_once('\n')?;
            (code.len() == 6).then(|| (id.trim().to_owned(), code))
        })
        .await
    }
}

impl Stage {
    async fn start(mode: &str) -> Self {
        let registry = Freighter::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let keys = format!("upload_url = \"{}\"", registry.url);
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry_with("crates", "crates", &registry.index, &keys)
            .policy(&format!("{POLICY}{mode}"));
        let token = registry.token.clone();
        let small = Small::with_token(builder, issuer, ("crates", &token))
            .await
            .unwrap();
        // What covers more than the package is never revealed.
        let stored = small.robin.add_token("crates", "acme-lent", &token);
        assert!(stored.await.unwrap().good());
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            registry,
            small,
            folder,
        }
    }

    fn index(&self) -> String {
        format!("sparse+{}", self.registry.index)
    }

    /// What stands in cargo's settings behind the program.
    fn settings(&self, more: &str) -> String {
        let kept = self.folder.join("requests").display().to_string();
        format!(
            "cargo-credential crates --index {} --requests {kept}{more}",
            self.index()
        )
    }

    async fn id_token(&self) -> String {
        self.small.id_token().await.unwrap()
    }

    /// `cargo publish`, with the provider in cargo's settings.
    async fn cargo_publish(&self, dir: &Path, more: &str) -> Started {
        let program = self.small.daemon.bins.countersign.display().to_string();
        let mut command = Command::new("cargo");
        command
            .args([
                "publish",
                "--registry",
                "fr",
                "--no-verify",
                "--allow-dirty",
            ])
            .current_dir(dir)
            .env("CARGO_REGISTRIES_FR_INDEX", self.index())
            .env(
                "CARGO_REGISTRIES_FR_CREDENTIAL_PROVIDER",
                format!("{program} {}", self.settings(more)),
            )
            .env("COUNTERSIGN_BROKER", &self.small.daemon.url)
            .env("COUNTERSIGN_ID_TOKEN", self.id_token().await)
            .env_remove("COUNTERSIGN_HOME");
        Started::new(&mut command, &self.folder)
    }

    /// What a job's request is, as alice sees it.
    async fn job(&self, started: &mut Started) -> Job {
        let (id, code) = started.asked().await;
        Job::seen_by(&self.small.alice, &id, &code).await.unwrap()
    }

    /// What the registry shows, by the word of the broker.
    async fn shown(&self, name: &str) -> Output {
        let file = self.folder.join("requests").join(format!("{name}.json"));
        let file = file.display().to_string();
        let args = ["wait", "--published", "--ticket-file", &file];
        let daemon = &self.small.daemon;
        daemon
            .countersign(&args, &[], &self.folder, PUBLISH)
            .await
            .unwrap()
    }

    /// The real provider, and the test in the place of cargo: what `cargo publish` of these bytes would ask.
    async fn ask(&self, cksum: &str) -> Started {
        let mut command = Command::new(&self.small.daemon.bins.countersign);
        command
            .arg("--cargo-plugin")
            .current_dir(&self.folder)
            .env("COUNTERSIGN_BROKER", &self.small.daemon.url)
            .env("COUNTERSIGN_ID_TOKEN", self.id_token().await)
            .env_remove("COUNTERSIGN_HOME");
        let args: Vec<String> = self.settings("").split(' ').map(str::to_owned).collect();
        let line = json!({
            "v": 1, "registry": {"index-url": self.index(), "name": "fr"}, "kind": "get",
            "operation": "publish", "name": "acme-lent", "vers": "1.0.0", "cksum": cksum, "args": args,
        });
        let mut started = Started::new(&mut command, &self.folder);
        started.running.say(&format!("{line}\n")).unwrap();
        started
    }
}

/// The token that the provider gave.
async fn token(started: &mut Started) -> String {
    started
        .until(|text| {
            let line = text.lines().find(|l| l.starts_with(r#"{"Ok""#))?;
            let answer: Value = serde_json::from_str(line).ok()?;
            assert_eq!(answer["Ok"]["cache"], "never", "{line}");
            Some(answer["Ok"]["token"].as_str()?.to_owned())
        })
        .await
}

#[tokio::test]
async fn cargo_publishes_by_itself_after_the_approval_and_the_broker_reads_it_back() {
    let stage = Stage::start("mode = \"reveal\"\n").await;
    let dir = cargo::package(&stage.folder, "acme-lent", "1.0.0").unwrap();
    let mut started = stage.cargo_publish(&dir, "").await;
    let job = stage.job(&mut started).await;
    let file = &job.facts.items[0].files[0];
    assert_eq!(file.name, "acme-lent-1.0.0.crate");
    assert!(file.is_announced());
    // Who is asked is told that this is the weaker way.
    let question: Value = stage
        .small
        .alice
        .question(job.id)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(question["mode"], "reveal");
    let warnings = question["warnings"].to_string();
    assert!(warnings.contains("the stored token itself"), "{warnings}");
    assert!(stage.registry.lines("acme-lent").await.unwrap().is_empty());
    stage.small.approve(&job).await.unwrap();
    assert_eq!(started.end().await, Some(0), "{}", started.text());
    let text = started.text();
    assert!(text.contains("cargo gets the token itself"), "{text}");
    assert!(text.contains("weaker than `countersign publish`"), "{text}");
    assert!(
        !text.contains(&stage.registry.token),
        "the token is never shown"
    );

    let shown = stage.registry.cksum("acme-lent", "1.0.0").await.unwrap();
    assert_eq!(
        shown.map(|s| format!("sha256:{s}")),
        Some(file.digest.to_string())
    );
    let told = stage.shown("acme-lent-1.0.0").await;
    assert!(told.success(), "{told}");
    // Exposed: it must be rotated.
    let tokens: Value = stage
        .small
        .robin
        .call("GET", "/v1/admin/tokens", &Value::Null)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(tokens.to_string().contains("\"exposed\":true"), "{tokens}");
}

/// What the watch says of the crate right now.
async fn watched(stage: &Stage) -> Value {
    let path = "/v1/admin/watch";
    let reply = stage.small.robin.call("POST", path, &json!({})).await;
    let report: Value = reply.unwrap().ok().unwrap();
    report["packages"][0].clone()
}

#[tokio::test]
async fn attack_59_what_was_published_with_a_lent_token_is_ours_and_other_bytes_are_not() {
    let stage = Stage::start("mode = \"reveal\"\n").await;
    // The policy names the crate by a pattern only: nobody looks before something of it is published.
    assert_eq!(watched(&stage).await, Value::Null);
    for (n, version) in ["1.0.0", "1.1.0"].into_iter().enumerate() {
        let dir = cargo::package(&stage.folder, "acme-lent", version).unwrap();
        let mut started = stage.cargo_publish(&dir, "").await;
        let job = stage.job(&mut started).await;
        stage.small.approve(&job).await.unwrap();
        assert_eq!(started.end().await, Some(0), "{}", started.text());
        let left = watched(&stage).await;
        assert_eq!(left["published"], n + 1, "{left}");
        assert!(
            left["frozen"] == false && left["others"].is_null(),
            "{left}"
        );
    }
    // The token that was lent, used for what nobody was asked about.
    let dir = cargo::package(&stage.folder, "acme-lent", "1.2.0").unwrap();
    cargo::publish_past(&stage.registry, &dir, &stage.registry.token)
        .await
        .unwrap();
    let left = watched(&stage).await;
    assert_eq!(
        (&left["frozen"], &left["others"]),
        (&json!(true), &json!(["1.2.0"])),
        "{left}"
    );
}

#[tokio::test]
async fn cargo_fails_with_our_words_when_nobody_says_yes() {
    let stage = Stage::start("mode = \"reveal\"\n").await;
    let dir = cargo::package(&stage.folder, "acme-lent", "1.0.0").unwrap();
    // Denied.
    let mut started = stage.cargo_publish(&dir, "").await;
    let job = stage.job(&mut started).await;
    let _: Value = stage.small.bob.deny(&job).await.unwrap().ok().unwrap();
    assert_eq!(started.end().await, Some(101), "{}", started.text());
    assert!(
        started.text().contains("The request was denied"),
        "{}",
        started.text()
    );
    // Nobody answers.
    let mut started = stage.cargo_publish(&dir, " --timeout 1").await;
    let (id, code) = started.asked().await;
    assert_eq!(started.end().await, Some(101), "{}", started.text());
    assert!(
        started.text().contains("Nobody answered within"),
        "{}",
        started.text()
    );
    // The job again goes on with the request that it kept, and asks nobody anew.
    let mut started = stage.cargo_publish(&dir, "").await;
    started
        .until(|t| t.contains("going on with request").then_some(()))
        .await;
    let job = Job::seen_by(&stage.small.alice, &id, &code).await.unwrap();
    let _: Value = stage.small.bob.deny(&job).await.unwrap().ok().unwrap();
    assert_eq!(started.end().await, Some(101), "{}", started.text());
    // No broker at all.
    let provider = format!(
        "{} --broker http://127.0.0.1:9 {}",
        stage.small.daemon.bins.countersign.display(),
        stage.settings("")
    );
    let index = stage.index();
    let env = [
        ("CARGO_REGISTRIES_FR_INDEX", index.as_str()),
        ("CARGO_REGISTRIES_FR_CREDENTIAL_PROVIDER", provider.as_str()),
        ("COUNTERSIGN_ID_TOKEN", "x"),
    ];
    let args = [
        "publish",
        "--registry",
        "fr",
        "--no-verify",
        "--allow-dirty",
    ];
    let ended = cargo(&dir, &args, &env).await.unwrap();
    assert_eq!(ended.status, Some(101), "{ended}");
    assert!(stage.registry.lines("acme-lent").await.unwrap().is_empty());
}

#[tokio::test]
async fn attack_37_a_policy_that_does_not_reveal_hands_out_no_token() {
    for mode in ["", "mode = \"deposit\"\n"] {
        let stage = Stage::start(mode).await;
        let dir = cargo::package(&stage.folder, "acme-lent", "1.0.0").unwrap();
        let mut started = stage.cargo_publish(&dir, "").await;
        assert_eq!(started.end().await, Some(101), "{}", started.text());
        let text = started.text();
        assert!(text.contains("countersign publish crates"), "{text}");
        assert!(!text.contains("match code"), "nobody was asked: {text}");
        assert_eq!(stage.small.waiting().await.unwrap(), 0);
    }
    // And where it does, whoever asks for a publish by the broker does not get the token.
    let stage = Stage::start("mode = \"reveal\"\n").await;
    let dir = cargo::package(&stage.folder, "acme-lent", "1.0.0").unwrap();
    let token = stage.id_token().await;
    let dir = dir.display().to_string();
    let args = ["--json", "publish", "crates", &dir, "--no-verify"];
    let daemon = &stage.small.daemon;
    let env = [
        ("COUNTERSIGN_ID_TOKEN", token.as_str()),
        ("COUNTERSIGN_BROKER", daemon.url.as_str()),
    ];
    let ended = daemon
        .countersign(&args, &env, &stage.folder, PUBLISH)
        .await
        .unwrap();
    assert_eq!(ended.status, Some(5), "{ended}");
    assert!(ended.stderr.contains("publishes no files"), "{ended}");
    // An announcement is cargo's alone.
    let mut item = stand::api::secret_item("deploy-key").unwrap();
    item.files = serde_json::from_value(json!([
        {"name": "x", "size": 0, "digest": format!("sha256:{}", "0".repeat(64))}
    ]))
    .unwrap();
    let reply = stage
        .small
        .open_raw(&stage.id_token().await, &[item])
        .await
        .unwrap();
    assert_eq!(reply.code(), Some(Code::BadRequest), "{}", reply.text);
}

#[tokio::test]
async fn attack_12_other_bytes_published_with_a_lent_token_are_seen() {
    let stage = Stage::start("mode = \"reveal\"\n").await;
    let mut started = stage.ask(&"ab".repeat(32)).await;
    let job = stage.job(&mut started).await;
    stage.small.approve(&job).await.unwrap();
    let lent = token(&mut started).await;
    assert_eq!(lent, stage.registry.token);
    // The same job again gets the same, and asks nobody.
    let mut again = stage.ask(&"ab".repeat(32)).await;
    assert_eq!(token(&mut again).await, lent);
    assert!(!again.text().contains("match code"), "{}", again.text());

    // A thief in the job publishes his own bytes under the approved name.
    let dir = cargo::package(&stage.folder, "acme-lent", "1.0.0").unwrap();
    cargo::publish_past(&stage.registry, &dir, &lent)
        .await
        .unwrap();
    let told = stage.shown("acme-lent-1.0.0").await;
    assert_eq!(told.status, Some(7), "{told}");
    assert!(told.stderr.contains("other bytes"), "{told}");
}

#[tokio::test]
async fn a_provider_that_cargo_left_takes_its_request_back() {
    let stage = Stage::start("mode = \"reveal\"\n").await;
    let mut started = stage.ask(&"cd".repeat(32)).await;
    let job = stage.job(&mut started).await;
    started.running.hang_up();
    assert_eq!(started.end().await, Some(0), "{}", started.text());
    let reply = stage.small.alice.approve(&job).await.unwrap();
    assert!(!reply.good(), "{}", reply.text);
}
