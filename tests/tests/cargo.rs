//! Crates: a real registry, the real cargo, through the broker.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    digest::{Algorithm, Digest, hex},
    request::{File, Item},
};
use serde_json::{Value, json};
use stand::{
    api::{Job, Small},
    cargo::{self, Freighter, cargo},
    daemon::{self, Daemon},
    parts::Issuer,
    team::Waiting,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const POLICY: &str = r#"
[[package]]
match = ["crates:acme-*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device", "totp"]
version = "semver"
"#;

struct Stage {
    registry: Freighter,
    small: Small,
    folder: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        Self::with_policy(POLICY).await
    }

    async fn with_policy(policy: &str) -> Self {
        let registry = Freighter::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let keys = format!("upload_url = \"{}\"", registry.url);
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry_with("crates", "crates", &registry.index, &keys)
            .policy(policy);
        let token = registry.token.clone();
        let small = Small::with_token(builder, issuer, ("crates", &token))
            .await
            .unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            registry,
            small,
            folder,
        }
    }

    /// Starts `countersign publish crates <args>` as the CI job.
    async fn publish(&self, args: &[&str]) -> anyhow::Result<(Waiting, Job)> {
        let token = self.small.id_token().await?;
        let all: Vec<&str> = ["publish", "crates"].iter().chain(args).copied().collect();
        let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
        let waiting = Waiting::start(&self.small.daemon, &self.folder, &all, &env).await?;
        let job = Job::seen_by(&self.small.alice, &waiting.id, &waiting.match_code).await?;
        Ok((waiting, job))
    }
}

fn sha256(path: &Path) -> String {
    hex(Digest::of(Algorithm::Sha256, &fs::read(path).unwrap()).as_bytes())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_crate_is_published_only_after_two_people_approved() {
    let stage = Stage::start().await;
    let dir = cargo::package(&stage.folder, "acme-left", "1.4.2").unwrap();
    let (mut waiting, job) = stage.publish(&[&text(&dir)]).await.unwrap();
    let approved = &job.facts.items[0].files[0];
    assert_eq!(approved.name, "acme-left-1.4.2.crate");
    for device in [&stage.small.alice, &stage.small.bob] {
        assert!(stage.registry.lines("acme-left").await.unwrap().is_empty());
        let _: Value = device.approve(&job).await.unwrap().ok().unwrap();
    }
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage
        .registry
        .cksum("acme-left", "1.4.2")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(format!("sha256:{shown}"), approved.digest.to_string());
    assert_eq!(sha256(&stage.registry.stored("acme-left", "1.4.2")), shown);

    // The same version again is refused before anybody is asked.
    let token = stage.small.id_token().await.unwrap();
    let reply = stage
        .small
        .open_raw(&token, &job.facts.items)
        .await
        .unwrap();
    assert_eq!(
        reply.code(),
        Some(proto::problem::Code::VersionTaken),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn plain_cargo_publish_goes_through_the_brokers_own_index() {
    let stage = Stage::start().await;
    let dir = cargo::package(&stage.folder, "acme-plain", "0.1.0").unwrap();
    let args = [text(&dir), "--".into(), "cargo".into(), "publish".into()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (mut waiting, job) = stage.publish(&args).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage
        .registry
        .cksum("acme-plain", "0.1.0")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        format!("sha256:{shown}"),
        job.facts.items[0].files[0].digest.to_string()
    );
    assert!(
        waiting.text().contains("Published acme-plain"),
        "{}",
        waiting.text()
    );
}

/// Packing builds the crate, and the build scripts of whatever it depends on run in that.
#[tokio::test]
async fn attack_41_a_build_script_sees_neither_the_jobs_identity_nor_a_client_key() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("acme-nosy");
    cargo::write(&dir, "acme-nosy", "0.1.0", "build = \"build.rs\"\n").unwrap();
    let nosy = r#"fn main() {
    for (name, _) in std::env::vars() {
        let ours = name.starts_with("COUNTERSIGN_") || name.starts_with("ACTIONS_ID_TOKEN_");
        assert!(!ours, "a build script sees {name}");
    }
}
"#;
    fs::write(dir.join("build.rs"), nosy).unwrap();
    let bins = daemon::bins().await.unwrap();
    // It packs before it asks anybody: nobody is there to be asked.
    let env = [
        ("COUNTERSIGN_BROKER", "http://127.0.0.1:1"),
        ("COUNTERSIGN_ID_TOKEN", "canary-id-token"),
        ("COUNTERSIGN_CLIENT_KEY", "canary-client-key"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "canary-request-token"),
    ];
    let args = ["publish", "crates", &text(&dir)];
    let limit = stand::team::PUBLISH;
    let out = stand::run(&bins.countersign, &args, &env, folder.path(), limit)
        .await
        .unwrap();
    assert!(!out.stderr.contains("a build script sees"), "{out}");
    assert_eq!(out.status, Some(6), "{out}");
}

/// Dependencies of every kind, and names that need an extension of the archive's format: what cargo writes of
/// them, in JSON and in Cargo.toml, must be one thing to the broker.
#[tokio::test]
async fn what_cargo_says_twice_of_a_crate_is_read_as_one() {
    let stage = Stage::start().await;
    let broker = format!("sparse+{}/index/", stage.small.daemon.registry_url);
    let settings = stage.folder.join(".cargo");
    fs::create_dir(&settings).unwrap();
    let config = format!("[registries.countersign]\nindex = \"{broker}\"\n");
    fs::write(settings.join("config.toml"), config).unwrap();
    let base = packed(&stage, "acme-base", "[features]\nextra = []\n").await;
    let (_, credential) = collected(&stage, "acme-base", &base).await;
    let origin = stage.small.endpoint().unwrap();
    let headers = [("authorization", credential.as_str())];
    let bytes = fs::read(&base).unwrap();
    let reply = origin
        .call("PUT", "/files/crate", &headers, bytes)
        .await
        .unwrap();
    assert!(reply.good(), "{}", reply.text);

    let dir = stage.folder.join("acme-user");
    let more = r#"links = "acme"
build = "build.rs"
keywords = ["one", "two"]

[features]
default = ["renamed"]
renamed = ["dep:renamed", "acme-base/extra"]

[dependencies]
acme-base = { version = "1", registry = "countersign" }
renamed = { package = "acme-base", version = "=1.0.0", registry = "countersign", optional = true, default-features = false, features = ["extra"] }

[build-dependencies]
acme-base = { version = ">=1, <2", registry = "countersign" }

[dev-dependencies]
acme-base = { version = "*", registry = "countersign" }

[target.'cfg(all(unix,not( windows )))'.dependencies]
acme-base = { version = "1.0", registry = "countersign" }
"#;
    cargo::write(&dir, "acme-user", "2.0.0", more).unwrap();
    fs::write(dir.join("build.rs"), "fn main() {}\n").unwrap();
    let deep = dir.join("data").join("d".repeat(90)).join("e".repeat(90));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("long.txt"), "x").unwrap();
    let folder = text(&dir);
    let args = [
        folder.as_str(),
        "--no-verify",
        "--",
        "cargo",
        "publish",
        "--no-verify",
    ];
    let (mut waiting, job) = stage.publish(&args).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let lines = stage.registry.lines("acme-user").await.unwrap();
    let deps = lines[0]["deps"].as_array().unwrap();
    assert_eq!(deps.len(), 5, "{deps:?}");
    // They are from this very registry, whatever the machine that published calls it.
    assert!(deps.iter().all(|d| d["registry"].is_null()), "{deps:?}");
    assert_eq!(lines[0]["features"]["renamed"][1], "acme-base/extra");

    // And a user of the registry, who knows no broker, can build with it.
    let user = stage.folder.join("user");
    let index = format!("sparse+{}", stage.registry.index);
    let on = "[dependencies]\nacme-user = { version = \"2\", default-features = false, registry = \"fr\" }\n";
    cargo::write(&user, "user", "0.1.0", on).unwrap();
    let env = [("CARGO_REGISTRIES_FR_INDEX", index.as_str())];
    cargo(&user, &["check"], &env).await.unwrap().ok().unwrap();
}

/// A crate on the public registry's packages, where the company's own registry stands in for that one: cargo calls the
/// dependency another registry's when it publishes with `--registry`, and a registry takes that at its word.
#[tokio::test]
async fn a_dependency_on_the_replaced_public_registry_is_one_on_the_same_registry() {
    let stage = Stage::start().await;
    let index = format!("sparse+{}", stage.registry.index);
    let settings = stage.folder.join(".cargo");
    fs::create_dir(&settings).unwrap();
    let config = format!(
        "[source.crates-io]\nreplace-with = \"mirror\"\n\n[source.mirror]\nregistry = \"{index}\"\n"
    );
    fs::write(settings.join("config.toml"), config).unwrap();
    let base = packed(&stage, "acme-base", "").await;
    let (_, credential) = collected(&stage, "acme-base", &base).await;
    let origin = stage.small.endpoint().unwrap();
    let headers = [("authorization", credential.as_str())];
    let bytes = fs::read(&base).unwrap();
    let reply = origin.call("PUT", "/files/crate", &headers, bytes).await;
    let reply = reply.unwrap();
    assert!(reply.good(), "{}", reply.text);
    let on_base = "[dependencies]\nacme-base = \"1\"\n";

    // Without the broker: cargo names the public registry, and the index says so.
    let past = stage.folder.join("acme-past");
    cargo::write(&past, "acme-past", "1.0.0", on_base).unwrap();
    let env = [
        ("CARGO_REGISTRIES_FR_INDEX", index.as_str()),
        ("CARGO_REGISTRIES_FR_TOKEN", stage.registry.token.as_str()),
    ];
    let args = ["publish", "--registry", "fr", "--allow-dirty"];
    cargo(&past, &args, &env).await.unwrap().ok().unwrap();
    let lines = stage.registry.lines("acme-past").await.unwrap();
    assert!(lines[0]["deps"][0]["registry"].is_string(), "{lines:?}");

    // With it: a dependency without an address is one on the registry that it stands in.
    let dir = stage.folder.join("acme-user");
    cargo::write(&dir, "acme-user", "1.0.0", on_base).unwrap();
    let args = [&text(&dir), "--", "cargo", "publish"];
    let (mut waiting, job) = stage.publish(&args).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let lines = stage.registry.lines("acme-user").await.unwrap();
    assert_eq!(lines[0]["deps"][0]["name"], "acme-base", "{lines:?}");
    assert_eq!(lines[0]["deps"][0]["registry"], Value::Null, "{lines:?}");

    // Somebody whose public registry is the real one (nothing of it can be reached here) builds with it.
    let user = tempfile::tempdir().unwrap();
    let on = "[dependencies]\nacme-user = { version = \"1\", registry = \"fr\" }\n";
    cargo::write(user.path(), "user", "0.1.0", on).unwrap();
    let env = [("CARGO_REGISTRIES_FR_INDEX", index.as_str())];
    let built = cargo(user.path(), &["check"], &env).await.unwrap();
    built.ok().unwrap();
}

/// Three crates: one depends on another that stands behind it, one may not be published.
fn workspace(folder: &Path) -> PathBuf {
    let root = folder.join("ws");
    fs::create_dir_all(&root).unwrap();
    // The names are in the wrong order, the dependencies are not.
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"acme-alpha\", \"acme-beta\", \"acme-inner\"]\n";
    fs::write(root.join("Cargo.toml"), members).unwrap();
    let on = |name: &str| {
        format!("\n[dependencies]\n{name} = {{ path = \"../{name}\", version = \"1.0.0\" }}\n")
    };
    cargo::write(
        &root.join("acme-alpha"),
        "acme-alpha",
        "1.0.0",
        &on("acme-beta"),
    )
    .unwrap();
    cargo::write(&root.join("acme-beta"), "acme-beta", "1.0.0", "").unwrap();
    cargo::write(
        &root.join("acme-inner"),
        "acme-inner",
        "1.0.0",
        "publish = false\n",
    )
    .unwrap();
    root
}

#[tokio::test]
async fn a_workspace_is_published_in_order_by_one_approval() {
    let stage = Stage::start().await;
    let root = workspace(&stage.folder);
    let (mut waiting, job) = stage.publish(&[&text(&root)]).await.unwrap();
    let names: Vec<_> = job.facts.items.iter().map(|i| i.package.as_str()).collect();
    assert_eq!(names, ["acme-beta", "acme-alpha"]);
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    for name in names {
        assert!(
            stage.registry.cksum(name, "1.0.0").await.unwrap().is_some(),
            "{name}"
        );
    }
    let alpha = stage.registry.lines("acme-alpha").await.unwrap();
    assert_eq!(alpha[0]["deps"][0]["name"], "acme-beta");
    assert_eq!(alpha[0]["deps"][0]["registry"], Value::Null);
}

#[tokio::test]
async fn a_workspace_is_handed_over_and_published_when_the_job_is_gone() {
    let stage = Stage::with_policy(&format!("{POLICY}mode = \"deposit\"\n")).await;
    let root = workspace(&stage.folder);
    let token = stage.small.id_token().await.unwrap();
    let (root, out) = (text(&root), text(&stage.folder.join("request.json")));
    let args = [
        "request",
        "crates",
        &root,
        "--no-verify",
        "--out",
        &out,
        "--hand-over",
    ];
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let daemon = &stage.small.daemon;
    let mut waiting = Waiting::start(daemon, &stage.folder, &args, &env)
        .await
        .unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let job = Job::seen_by(&stage.small.alice, &waiting.id, &waiting.match_code)
        .await
        .unwrap();
    assert!(stage.registry.lines("acme-beta").await.unwrap().is_empty());
    stage.small.approve(&job).await.unwrap();
    let args = ["wait", "--published", "--ticket-file", &out];
    let limit = stand::team::PUBLISH;
    let ended = daemon
        .countersign(&args, &[], &stage.folder, limit)
        .await
        .unwrap();
    assert!(ended.success(), "{ended}");
    for item in &job.facts.items {
        let shown = stage
            .registry
            .cksum(item.package.as_str(), "1.0.0")
            .await
            .unwrap();
        assert_eq!(
            shown.map(|s| format!("sha256:{s}")),
            Some(item.files[0].digest.to_string())
        );
    }
}

/// A request for one `.crate`, approved and collected.
async fn collected(stage: &Stage, name: &str, file: &Path) -> (Job, String) {
    let bytes = fs::read(file).unwrap();
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let item = Item {
        registry: "crates".parse().unwrap(),
        package: name.parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        tag: None,
        files: vec![File {
            name: format!("{name}-1.0.0.crate"),
            size: bytes.len() as u64,
            digest,
        }],
    };
    let job = stage.small.open(&[item]).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    (job, credential)
}

/// Packs a crate with the real cargo.
async fn packed(stage: &Stage, name: &str, more: &str) -> PathBuf {
    let dir = stage.folder.join(format!("{name}-src"));
    cargo::write(&dir, name, "1.0.0", more).unwrap();
    let target = stage.folder.join("target");
    let args = [
        "package",
        "--no-verify",
        "--offline",
        "--allow-dirty",
        "--target-dir",
    ];
    let target_text = text(&target);
    let args: Vec<&str> = args.iter().copied().chain([target_text.as_str()]).collect();
    cargo(&dir, &args, &[]).await.unwrap().ok().unwrap();
    target.join("package").join(format!("{name}-1.0.0.crate"))
}

#[tokio::test]
async fn attack_12_13_and_20_only_the_approved_crate_passes_and_nothing_else() {
    let stage = Stage::start().await;
    let good = packed(&stage, "acme-good", "").await;
    let evil = packed(&stage, "acme-evil", "").await;
    let (_, credential) = collected(&stage, "acme-good", &good).await;
    let origin = stage.small.endpoint().unwrap();
    let put = async |path: &str, credential: &str, body: Vec<u8>| {
        let headers = [("authorization", credential)];
        origin.call("PUT", path, &headers, body).await.unwrap()
    };
    let bytes = fs::read(&good).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut swapped = bytes.clone();
        swapped[at] ^= 1;
        let reply = put("/files/crate", &credential, swapped).await;
        assert!(!reply.good(), "{at}: {}", reply.text);
        assert!(
            reply.json()["errors"][0]["detail"].is_string(),
            "{}",
            reply.text
        );
    }
    let reply = put("/files/crate", &credential, fs::read(&evil).unwrap()).await;
    assert!(!reply.good(), "{}", reply.text);
    assert!(reply.text.contains("acme-evil"), "{}", reply.text);
    // The right archive behind JSON that says something else.
    let mut lying = Vec::new();
    let json = json!({"name": "acme-good", "vers": "1.0.0", "deps": [], "features": {"evil": []}, "links": null});
    let json = json.to_string();
    lying.extend_from_slice(&u32::try_from(json.len()).unwrap().to_le_bytes());
    lying.extend_from_slice(json.as_bytes());
    lying.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    lying.extend_from_slice(&bytes);
    let reply = put("/api/v1/crates/new", &credential, lying).await;
    assert!(
        !reply.good() && reply.text.contains("features"),
        "{}",
        reply.text
    );
    // Without or with another credential, and every other call of the API.
    for (method, path) in [("PUT", "/files/crate"), ("PUT", "/api/v1/crates/new")] {
        for other in ["", "csc_AAAA", stage.registry.token.as_str()] {
            let headers = [("authorization", other)];
            let reply = origin
                .call(method, path, &headers, bytes.clone())
                .await
                .unwrap();
            assert!(
                !reply.good(),
                "{method} {path} with {other}: {}",
                reply.text
            );
        }
    }
    for (method, path) in [
        ("DELETE", "/api/v1/crates/acme-good/1.0.0/yank"),
        ("PUT", "/api/v1/crates/acme-good/1.0.0/unyank"),
        ("PUT", "/api/v1/crates/acme-good/owners"),
        ("DELETE", "/api/v1/crates/acme-good/owners"),
        ("PUT", "/api/v1/me/tokens"),
        ("GET", "/api/v1/me"),
        ("PUT", "/api/v1/crates/new/"),
        ("PUT", "//api/v1/crates/new"),
        ("POST", "/api/v1/crates/new"),
        ("GET", "/index/../api/v1/me"),
        ("GET", "/index/ac/me/acme-other%2f..%2f..%2fx"),
        ("GET", "/index/ac/xx/acme-good"),
    ] {
        let headers = [("authorization", credential.as_str())];
        let reply = origin
            .call(method, path, &headers, Vec::new())
            .await
            .unwrap();
        assert!(
            !reply.good() && !(300..400).contains(&reply.status),
            "{method} {path}: {}",
            reply.status
        );
    }
    for name in ["acme-good", "acme-evil"] {
        assert!(
            stage.registry.lines(name).await.unwrap().is_empty(),
            "{name}"
        );
    }
    // And then the right one, twice: the second gets the recorded outcome.
    for _ in 0..2 {
        let reply = put("/files/crate", &credential, bytes.clone()).await;
        assert!(reply.good(), "{}", reply.text);
    }
    let shown = stage
        .registry
        .cksum("acme-good", "1.0.0")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shown, sha256(&good));
}

#[tokio::test]
async fn the_registrys_no_is_relayed_and_the_approval_stays_usable() {
    let stage = Stage::start().await;
    // Somebody else owns the name at the registry.
    let theirs = stage.folder.join("theirs");
    cargo::write(&theirs, "acme-taken", "0.9.0", "").unwrap();
    cargo::publish_past(&stage.registry, &theirs, &stage.registry.other)
        .await
        .unwrap();
    let dir = cargo::package(&stage.folder, "acme-taken", "1.0.0").unwrap();
    let (mut waiting, job) = stage.publish(&[&text(&dir), "--no-verify"]).await.unwrap();
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(1), "{}", waiting.text());
    let said = waiting.text();
    assert!(
        said.contains("403") && said.contains("does the stored token cover this crate"),
        "{said}"
    );
    assert!(
        !said.contains(&stage.registry.token),
        "the token is never shown"
    );
    assert!(
        stage
            .registry
            .cksum("acme-taken", "1.0.0")
            .await
            .unwrap()
            .is_none()
    );
}
