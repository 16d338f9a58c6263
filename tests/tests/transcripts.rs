//! What each real client sends to the broker, and what the broker sends to the registry for it, compared with the
//! texts in `tests/transcripts`. A client that changes its words, or a broker that does, is seen here first.

#![allow(
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::Value;
use stand::{
    api::{self, Job, Small},
    cargo::{self, Freighter},
    command::run,
    daemon::{Builder, Daemon},
    free_port,
    gems::{self, Gems, KEY},
    nginx::Nginx,
    oci::{self, DockerRegistry, IMAGE, Image, USER},
    packages,
    parts::{self, Issuer, Verdaccio},
    proxy::Proxy,
    python::{self, PyPiServer, program, project},
    team::{PUBLISH, Waiting},
    transcript,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A broker with a recorder before it and another one behind it.
struct Stage {
    kind: &'static str,
    small: Small,
    front: Proxy,
    back: Proxy,
    folder: PathBuf,
}

impl Stage {
    async fn over(kind: &'static str, token: &str, back: Proxy, broker: Builder) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let port = free_port().unwrap();
        let broker = broker
            .issuer("github", "github", &issuer.url, None)
            .behind(port);
        let small = Small::with_token(broker, issuer, (kind, token))
            .await
            .unwrap();
        let front = Proxy::at(port, &small.daemon.registry_listen)
            .await
            .unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            kind,
            small,
            front,
            back,
            folder,
        }
    }

    /// One publish by a client, and both of its transcripts.
    async fn publishes(&self, client: &str, program: &str, what: &[&str], command: &[&str]) {
        let version = run(program, &["--version"], &[], &self.folder, PUBLISH).await;
        let version = version.unwrap().ok().unwrap().stdout;
        let word = version
            .split_whitespace()
            .find(|w| w.contains('.'))
            .unwrap();
        let version = format!("{client} {}", word.trim_start_matches('v'));

        let token = self.small.id_token().await.unwrap();
        let dashes = if command.is_empty() { &[][..] } else { &["--"] };
        let args = [&["publish", self.kind], what, dashes, command].concat();
        let path = std::env::var("PATH").unwrap();
        let venv = python::program("twine").unwrap();
        let venv = Path::new(&venv).parent().unwrap().display().to_string();
        let path = format!("{venv}:{path}");
        let env = [
            ("COUNTERSIGN_ID_TOKEN", token.as_str()),
            ("PATH", path.as_str()),
            ("SOURCE_DATE_EPOCH", "1700000000"),
        ];
        let daemon = &self.small.daemon;
        let waiting = Waiting::start(daemon, &self.folder, &args, &env).await;
        let mut waiting = waiting.unwrap();
        // What was asked before the question, and what the last client sent, is not this client's.
        self.back.watch_all();
        self.front.watch_all();
        let alice = &self.small.alice;
        let job = Job::seen_by(alice, &waiting.id, &waiting.match_code).await;
        let _: Value = alice.approve(&job.unwrap()).await.unwrap().ok().unwrap();
        let end = waiting.end().await.unwrap();
        assert_eq!(end, Some(0), "{}", waiting.text());

        let sent = transcript::written(&self.front.arrived(), |_| true).unwrap();
        assert!(!sent.is_empty(), "{}", waiting.text());
        if transcript::is_of(self.kind, client, &version)
            || std::env::var_os(transcript::RECORD).is_some()
        {
            transcript::compare(self.kind, client, &version, &sent).unwrap();
        } else {
            eprintln!(
                "{version} is another version than the transcript's: what it sends is not compared"
            );
        }
        // A client that was sent on to the registry reads there itself; when the broker fetches what is out, and when it
        // looks once more at what the last client published, is its own affair.
        let others = ["-npm", "-pnpm", "-yarn", "-twine", "-uv"].map(|name| (name, &name[1..]));
        let ours = |head: &str| {
            let line = head.lines().next().unwrap_or_default();
            head.contains("user-agent: countersign/")
                && !head.contains("accept-encoding: identity")
                && !others
                    .iter()
                    .any(|(name, of)| *of != client && line.contains(name))
        };
        let passed = transcript::written(&self.back.arrived(), ours).unwrap();
        let name = format!("{client}.upstream");
        transcript::compare(self.kind, &name, "the broker", &passed).unwrap();
    }
}

#[tokio::test]
async fn npm_pnpm_and_yarn_say_what_they_said() {
    let registry = Verdaccio::start().await.unwrap();
    let back = Proxy::start(&registry.url).await.unwrap();
    let broker = Daemon::builder()
        .registry("npm", "npm", &back.url)
        .policy(&api::policy_of_one());
    let stage = Stage::over("npm", &registry.token, back, broker).await;
    let package = |name: &str| {
        let folder = stage.folder.join(name);
        let name = format!("@acme/by-{name}");
        packages::npm_package(&folder, &name, "1.0.0", &serde_json::json!({})).unwrap();
        text(&folder)
    };
    let npm = package("npm");
    stage
        .publishes("npm", "npm", &[&npm], &["npm", "publish"])
        .await;
    let pnpm = parts::client("pnpm").unwrap().display().to_string();
    let command = [pnpm.as_str(), "publish", "--no-git-checks"];
    stage
        .publishes("pnpm", &pnpm, &[&package("pnpm")], &command)
        .await;

    let yarn = parts::client("yarn").unwrap().display().to_string();
    let folder = package("yarn");
    fs::write(Path::new(&folder).join("yarn.lock"), "").unwrap();
    let offline = [
        ("YARN_ENABLE_TELEMETRY", "0"),
        ("YARN_ENABLE_IMMUTABLE_INSTALLS", "0"),
    ];
    let installed = run(&yarn, &["install"], &offline, Path::new(&folder), PUBLISH).await;
    installed.unwrap().ok().unwrap();
    stage
        .publishes("yarn", &yarn, &[&folder], &[&yarn, "npm", "publish"])
        .await;
}

#[tokio::test]
async fn twine_and_uv_say_what_they_said() {
    let registry = PyPiServer::start().await.unwrap();
    let back = Proxy::start(registry.upload.trim_end_matches('/'))
        .await
        .unwrap();
    let keys = format!("upload_url = \"{}/\"", back.url);
    let index = format!("{}/simple/", back.url);
    let policy = python::policy(1).replace("\"totp\"", "\"device\"");
    let broker = Daemon::builder()
        .registry_with("pypi", "pypi", &index, &keys)
        .policy(&policy);
    let stage = Stage::over("pypi", &registry.token, back, broker).await;
    for (client, command) in [("twine", ["twine", "upload"]), ("uv", ["uv", "publish"])] {
        let built = project(&stage.folder, &format!("acme-{client}"), "1.0.0").await;
        let built = built.unwrap();
        let path = program(client).unwrap();
        stage
            .publishes(client, &path, &[&text(&built.folder)], &command)
            .await;
    }
}

#[tokio::test]
async fn cargo_says_what_it_said() {
    let registry = Freighter::start().await.unwrap();
    let back = Proxy::start(&registry.url).await.unwrap();
    let keys = format!("upload_url = \"{}\"", back.url);
    let index = format!("{}/index/", back.url);
    let policy = policy("crates:acme-*", "semver");
    let broker = Daemon::builder()
        .registry_with("crates", "crates", &index, &keys)
        .policy(&policy);
    let stage = Stage::over("crates", &registry.token, back, broker).await;
    let folder = cargo::package(&stage.folder, "acme-cargo", "1.0.0").unwrap();
    let command = ["cargo", "publish"];
    stage
        .publishes("cargo", "cargo", &[&text(&folder)], &command)
        .await;
}

#[tokio::test]
async fn gem_says_what_it_said() {
    let registry = Gems::start().await.unwrap();
    let back = Proxy::start(&registry.url).await.unwrap();
    let broker = Daemon::builder()
        .registry("rubygems", "rubygems", &back.url)
        .policy(&policy("rubygems:acme-*", "semver"));
    let stage = Stage::over("rubygems", KEY, back, broker).await;
    let file = gems::build(&stage.folder, "acme-gem", "1.0.0", "").await;
    let file = text(&file.unwrap());
    let command = ["gem", "push", &file];
    stage.publishes("gem", "gem", &[&file], &command).await;
}

/// An image of one layer: several would be pushed at once, in whatever order.
#[tokio::test]
async fn skopeo_says_what_it_said() {
    oci::program("skopeo").unwrap();
    let registry = DockerRegistry::start().await.unwrap();
    let back = Proxy::start(&registry.url).await.unwrap();
    let keys = format!("user = \"{USER}\"");
    let broker = Daemon::builder()
        .registry_with("oci", "oci", &back.url, &keys)
        .policy(&policy("oci:acme/*", "any"));
    let stage = Stage::over("oci", &registry.password, back, broker).await;
    let image = Image::new(b"layer");
    let [config, layer] = image.blobs();
    let contents = [config, layer, &image.manifest];
    oci::layout(&stage.folder.join("image"), &contents, IMAGE).unwrap();
    let what = ["acme/app:1.0", "--layout", "image"];
    stage.publishes("skopeo", "skopeo", &what, &[]).await;
}

#[tokio::test]
async fn curl_says_what_it_said() {
    let server = Nginx::start().await.unwrap();
    let back = Proxy::start(&server.url).await.unwrap();
    let keys =
        "path = \"/store/{package}/{version}/{file}\"\ntoken_header = \"X-Api-Key: {token}\"";
    let broker = Daemon::builder()
        .registry_with("http", "http", &back.url, keys)
        .policy(&policy("http:acme/*", "any"));
    let stage = Stage::over("http", &server.token, back, broker).await;
    fs::write(stage.folder.join("app.tgz"), [7; 1000]).unwrap();
    let what = ["app.tgz", "--as", "acme/app@1.0"];
    let command = ["sh", "-c", "curl -sS -T app.tgz \"$UPLOAD_URL/\""];
    stage.publishes("curl", "curl", &what, &command).await;
}

/// One person says yes to these packages, whose versions are of this form.
fn policy(packages: &str, version: &str) -> String {
    api::policy_of_one()
        .replace("npm:@acme/*", packages)
        .replace(
            "version = \"semver-release\"\ntags = [\"latest\", \"next\"]",
            &format!("version = \"{version}\""),
        )
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
