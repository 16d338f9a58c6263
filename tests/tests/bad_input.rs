//! Files that are no package and registries on a bad day, for every kind of registry, by our own client: what
//! the person is told, the exit code, and that nothing is lost or sent twice. Here is the stage of both; the tests are
//! in `files` (what the job hands over) and `registries` (what the registry answers).

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    Output,
    api::{self, Job, Small},
    cargo::{self, Freighter},
    daemon::Daemon,
    gems::{self, Gems, KEY},
    packages,
    parts::{Issuer, Verdaccio},
    proxy::Proxy,
    python::{self, Built, PyPiServer, program, project},
    team::{PUBLISH, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

mod bad_input {
    mod files;
    mod registries;
}

/// A stage over one kind of registry, behind a proxy that spoils what it is told to.
struct Stage<R> {
    kind: &'static str,
    /// How an upload begins.
    upload: &'static str,
    small: Small,
    proxy: Proxy,
    folder: PathBuf,
    registry: R,
}

impl<R> Stage<R> {
    async fn over(
        kind: &'static str,
        upload: &'static str,
        (registry, token): (R, String),
        proxy: Proxy,
        builder: stand::daemon::Builder,
    ) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let builder = builder.issuer("github", "github", &issuer.url, None);
        let small = Small::with_token(builder, issuer, (kind, &token)).await;
        let small = small.unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            kind,
            upload,
            small,
            proxy,
            folder,
            registry,
        }
    }

    /// Clients of Python are in the tests' own environment; npm shall not try again by itself.
    fn env() -> Vec<(String, String)> {
        let venv = program("twine").unwrap();
        let venv = Path::new(&venv).parent().unwrap().display().to_string();
        let path = format!("{venv}:{}", std::env::var("PATH").unwrap());
        vec![
            ("PATH".into(), path),
            ("npm_config_fetch_retries".into(), "0".into()),
        ]
    }

    /// Runs `countersign <args>` to its end as the CI job.
    async fn job(&self, args: &[&str]) -> Output {
        let token = self.small.id_token().await.unwrap();
        let own = [
            ("COUNTERSIGN_BROKER", self.small.daemon.url.as_str()),
            ("COUNTERSIGN_ID_TOKEN", token.as_str()),
        ];
        let more = Self::env();
        let more = more.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let env: Vec<_> = own.into_iter().chain(more).collect();
        let daemon = &self.small.daemon;
        let run = daemon.countersign(args, &env, &self.folder, PUBLISH);
        run.await.unwrap()
    }

    /// Starts a publish; it waits for its approval.
    async fn asks(&self, file: &Path) -> (Waiting, Job) {
        self.asks_with(file, &[]).await
    }

    /// The same with a command that uploads.
    async fn asks_with(&self, file: &Path, command: &[&str]) -> (Waiting, Job) {
        let token = self.small.id_token().await.unwrap();
        let file = text(file);
        let own = ["publish", self.kind, &file, "--out", "request.json"];
        let dashes = if command.is_empty() { &[][..] } else { &["--"] };
        let args = [&own, dashes, command].concat();
        let more = Self::env();
        let more = more.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let env: Vec<_> = [("COUNTERSIGN_ID_TOKEN", token.as_str())]
            .into_iter()
            .chain(more)
            .collect();
        let waiting = Waiting::start(&self.small.daemon, &self.folder, &args, &env).await;
        let waiting = waiting.unwrap();
        let alice = &self.small.alice;
        let job = Job::seen_by(alice, &waiting.id, &waiting.match_code).await;
        (waiting, job.unwrap())
    }

    async fn approve(&self, job: &Job) {
        for device in [&self.small.alice, &self.small.bob] {
            let _: Value = device.approve(job).await.unwrap().ok().unwrap();
        }
    }

    /// How many uploads came through to the registry.
    fn arrived(&self) -> usize {
        let all = self.proxy.watched(self.upload);
        all.iter().filter(|w| !w.up.is_empty()).count()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn told(what: &str, status: Option<i32>, text: &str, exit: i32, words: &[&str]) {
    assert_eq!(status, Some(exit), "{what}:\n{text}");
    for word in words {
        assert!(
            text.contains(word),
            "{what}: {word:?} is missing in\n{text}"
        );
    }
    assert!(!text.contains("panicked"), "{what}:\n{text}");
}

impl Stage<Verdaccio> {
    async fn npm() -> Self {
        let registry = Verdaccio::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let builder = Daemon::builder()
            .registry("npm", "npm", &proxy.url)
            .policy(api::POLICY);
        let token = registry.token.clone();
        Self::over("npm", "PUT /@acme%2f", (registry, token), proxy, builder).await
    }

    fn package(&self, name: &str) -> PathBuf {
        self.package_with(name, b"module.exports = 1;\n")
    }

    fn package_with(&self, name: &str, index: &[u8]) -> PathBuf {
        let manifest = json!({"name": format!("@acme/{name}"), "version": "1.0.0"}).to_string();
        let entries: [(&str, &[u8]); 2] = [
            ("package/package.json", manifest.as_bytes()),
            ("package/index.js", index),
        ];
        let file = self.folder.join(format!("{name}.tgz"));
        fs::write(&file, packages::tarball(&entries).unwrap()).unwrap();
        file
    }
}

impl Stage<PyPiServer> {
    async fn python() -> Self {
        let registry = PyPiServer::start().await.unwrap();
        let upload = registry.upload.trim_end_matches('/');
        let proxy = Proxy::start(upload).await.unwrap();
        let keys = format!("upload_url = \"{}/\"", proxy.url);
        let index = format!("{}/simple/", proxy.url);
        let policy = python::policy(2).replace("\"totp\"", "\"device\", \"totp\"");
        let builder = Daemon::builder()
            .registry_with("pypi", "pypi", &index, &keys)
            .policy(&policy);
        let token = registry.token.clone();
        Self::over("pypi", "POST / ", (registry, token), proxy, builder).await
    }

    async fn built(&self, name: &str) -> Built {
        project(&self.folder, name, "1.0.0").await.unwrap()
    }
}

impl Stage<Freighter> {
    async fn cargo() -> Self {
        let registry = Freighter::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let keys = format!("upload_url = \"{}\"", proxy.url);
        let index = format!("{}/index/", proxy.url);
        let builder = Daemon::builder()
            .registry_with("crates", "crates", &index, &keys)
            .policy(&semver("crates:acme-*"));
        let token = registry.token.clone();
        let upload = "PUT /api/v1/crates/new";
        Self::over("crates", upload, (registry, token), proxy, builder).await
    }

    async fn package(&self, name: &str) -> PathBuf {
        self.package_with(name, &[]).await
    }

    async fn package_with(&self, name: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let folder = cargo::package(&self.folder, name, "1.0.0").unwrap();
        for (file, bytes) in files {
            fs::write(folder.join(file), bytes).unwrap();
        }
        let args = ["package", "--no-verify", "--allow-dirty", "--offline"];
        let packed = cargo::cargo(&folder, &args, &[]).await.unwrap();
        packed.ok().unwrap();
        folder.join(format!("target/package/{name}-1.0.0.crate"))
    }
}

impl Stage<Gems> {
    async fn gems() -> Self {
        let registry = Gems::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let builder = Daemon::builder()
            .registry("gems", "rubygems", &proxy.url)
            .policy(&semver("gems:acme-*"));
        let upload = "POST /api/v1/gems";
        Self::over("gems", upload, (registry, KEY.into()), proxy, builder).await
    }

    async fn gem(&self, name: &str) -> PathBuf {
        let built = gems::build(&self.folder, name, "1.0.0", "").await;
        built.unwrap()
    }
}

/// The policy for registries without tags.
fn semver(packages: &str) -> String {
    api::POLICY.replace("npm:@acme/*", packages).replace(
        "version = \"semver-release\"\ntags = [\"latest\", \"next\"]",
        "version = \"semver\"",
    )
}
