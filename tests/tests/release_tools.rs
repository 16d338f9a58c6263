//! Release tools that publish a monorepo by themselves, as the command of our own client.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    api::{self, Job, POLICY, Packed, Small},
    daemon::Daemon,
    packages::{npm_package, npmrc},
    parts::{self, Issuer, Verdaccio},
    run,
    team::{PUBLISH, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

struct Stage {
    registry: Verdaccio,
    small: Small,
    root: PathBuf,
}

impl Stage {
    /// A monorepo in git, with the settings that changesets wants.
    async fn start() -> Self {
        let registry = Verdaccio::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", &registry.url)
            .policy(POLICY);
        let small = Small::with_token(builder, issuer, ("npm", &registry.token))
            .await
            .unwrap();
        let root = small.daemon.dir().join("monorepo");
        fs::create_dir_all(root.join(".changeset")).unwrap();
        let manifest = json!({"name": "monorepo", "private": true, "workspaces": ["packages/*"]});
        fs::write(root.join("package.json"), manifest.to_string()).unwrap();
        fs::write(root.join("package-lock.json"), "{}").unwrap();
        let config = json!({"access": "public", "baseBranch": "main", "privatePackages": false});
        fs::write(root.join(".changeset/config.json"), config.to_string()).unwrap();
        Self {
            registry,
            small,
            root,
        }
    }

    fn package(&self, name: &str, version: &str, extra: &Value) {
        let folder = self.root.join("packages").join(name.replace('/', "+"));
        npm_package(&folder, name, version, extra).unwrap();
    }

    async fn git(&self, args: &[&str]) -> String {
        let who = ["-c", "user.name=ci", "-c", "user.email=ci@example.org"];
        let args = [&who[..], args].concat();
        let out = run("git", &args, &[], &self.root, PUBLISH).await.unwrap();
        out.ok().unwrap().stdout
    }

    async fn published_before(&self, name: &str, version: &str) {
        let folder = self.small.daemon.dir().join("before");
        npm_package(&folder, name, version, &json!({})).unwrap();
        npmrc(&folder, &self.registry.url, &self.registry.token).unwrap();
        let out = run("npm", &["publish"], &[], &folder, PUBLISH).await;
        out.unwrap().ok().unwrap();
    }

    async fn publish(&self, args: &[&str], path: &str) -> (Waiting, Job) {
        let token = self.small.id_token().await.unwrap();
        let all: Vec<&str> = [&["publish", "npm", "--workspaces"], args].concat();
        let env = [("COUNTERSIGN_ID_TOKEN", token.as_str()), ("PATH", path)];
        let waiting = Waiting::start(&self.small.daemon, &self.root, &all, &env).await;
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
}

fn path_with(program: &Path) -> String {
    let folder = program.parent().unwrap().display();
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

#[tokio::test]
async fn changesets_publishes_what_was_approved_and_tags_it() {
    let stage = Stage::start().await;
    stage.published_before("@acme/old", "1.0.0").await;
    stage.package("@acme/old", "1.0.0", &json!({}));
    stage.published_before("@acme/left", "1.0.0").await;
    stage.package(
        "@acme/left",
        "1.1.0",
        &json!({"dependencies": {"@acme/new": "^1.0.0"}}),
    );
    stage.package("@acme/new", "1.0.0", &json!({}));
    stage.package("@acme/site", "1.0.0", &json!({"private": true}));
    stage.git(&["init", "-q", "-b", "main"]).await;
    stage.git(&["add", "."]).await;
    stage.git(&["commit", "-q", "-m", "release"]).await;

    let path = path_with(&parts::client("changeset").unwrap());
    let (mut waiting, job) = stage.publish(&["--", "changeset", "publish"], &path).await;
    assert_eq!(job.facts.items.len(), 2);
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let text = waiting.text();
    // It saw what is there, and tried nothing that was not approved.
    for told in [
        "@acme/old is not being published because version 1.0.0 is already published",
        "packages published successfully",
    ] {
        assert!(text.contains(told), "{told}:\n{text}");
    }
    assert!(!text.contains("failed to publish"), "{text}");
    for (name, version) in [("@acme/left", "1.1.0"), ("@acme/new", "1.0.0")] {
        let shown = stage.registry.integrity(name, version).await.unwrap();
        assert!(shown.is_some(), "{name}");
    }
    let tags = stage.git(&["tag"]).await;
    assert_eq!(
        tags.lines().collect::<Vec<_>>(),
        ["@acme/left@1.1.0", "@acme/new@1.0.0"]
    );
}

#[tokio::test]
async fn attack_20_reading_tells_a_live_credential_which_versions_there_are_and_nobody_else_anything()
 {
    let stage = Stage::start().await;
    for name in ["@acme/left", "@acme/old", "@other/secret"] {
        stage.published_before(name, "1.0.0").await;
    }
    let small = &stage.small;
    let package = Packed::new("@acme/left", "1.1.0").unwrap();
    let other = Packed::new("@acme/new", "1.0.0").unwrap();
    let items = [&package, &other].map(|p| p.item("latest").unwrap());
    let job = small.open(&items).await.unwrap();
    let endpoint = small.endpoint().unwrap();
    let read = async |name: &str, bearer: Option<&str>| {
        let path = api::path_of(name);
        let header = bearer.map(|b| ("authorization", format!("Bearer {b}")));
        let headers: Vec<_> = header.iter().map(|(n, v)| (*n, v.as_str())).collect();
        endpoint.call("GET", &path, &headers, "").await.unwrap()
    };
    let id_token = small.id_token().await.unwrap();
    let registry_token = stage.registry.token.clone();
    for bearer in [
        None,
        Some(&job.ticket),
        Some(&id_token),
        Some(&registry_token),
    ] {
        let reply = read("@acme/old", bearer.map(String::as_str)).await;
        assert_eq!(reply.status, 404, "{}", reply.text);
    }
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    let told = read("@acme/old", Some(&credential)).await;
    let least = json!({
        "name": "@acme/old", "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "@acme/old", "version": "1.0.0", "dist": {}}},
    });
    assert_eq!(told.json(), least);
    // Not of what the policy does not let this caller ask for, nor of what is nowhere.
    for name in [
        "@other/secret",
        "@acme/none",
        "@acme/left/../old",
        "-/whoami",
    ] {
        let reply = read(name, Some(&credential)).await;
        assert_eq!(reply.status, 404, "{name}: {}", reply.text);
    }
    // Its own version is not told, so that an upload that is repeated gets its recorded outcome.
    let document = package.document("latest").unwrap();
    let reply = endpoint
        .put("@acme/left", &credential, document)
        .await
        .unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let told = read("@acme/left", Some(&credential)).await.json();
    let versions: Vec<_> = told["versions"].as_object().unwrap().keys().collect();
    assert_eq!(versions, ["1.0.0"]);
    assert_eq!(told["dist-tags"]["latest"], "1.0.0");
    // The approval is spent.
    let document = other.document("latest").unwrap();
    let reply = endpoint
        .put("@acme/new", &credential, document)
        .await
        .unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let reply = read("@acme/old", Some(&credential)).await;
    assert_eq!(reply.status, 404, "{}", reply.text);
}
