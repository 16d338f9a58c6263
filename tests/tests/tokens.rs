//! Stored tokens: what their registries say of them without a publish, and that a refused one takes no good one's place.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    cargo::{self, Freighter},
    daemon::{Builder, Daemon},
    gems::{Gems, KEY},
    nginx::Nginx,
    oci::{DockerRegistry, TokenServer, USER},
    parts::Verdaccio,
    people::{Device, Reply},
    python::{Devpi, PyPiServer},
};
use std::{fs, path::PathBuf};

const POLICY: &str = r#"
[[package]]
match = ["secrets:deploy-key"]
callers = [{ issuer = "client-key", client_key = "old-ci" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "any"
mode = "reveal"
"#;

/// A broker with one admin, and nobody who publishes.
struct House {
    daemon: Daemon,
    admin: Device,
}

impl House {
    async fn start(builder: Builder) -> Self {
        let daemon = builder.policy(POLICY).start().await.unwrap();
        let invite = fs::read_to_string(daemon.invite_path()).unwrap();
        let admin = Device::enroll(&daemon.url, &invite).await.unwrap();
        Self { daemon, admin }
    }

    async fn over(name: &str, kind: &str, url: &str, keys: &str) -> Self {
        let builder = Daemon::builder().registry("secrets", "generic", "");
        Self::start(builder.registry_with(name, kind, url, keys)).await
    }

    async fn act(&self, kind: &str, place: (&str, &str), token: &str) -> Reply {
        let act = json!({"kind": kind, "registry": place.0, "scope": place.1});
        self.admin.act(act, Some(token)).await.unwrap()
    }

    /// The outcome that a stored or rotated token was given.
    async fn put(&self, kind: &str, place: (&str, &str), token: &str) -> String {
        let acted = self.act(kind, place, token).await;
        assert_eq!(acted.body["done"], true, "{}", acted.body);
        let proof = &acted.body["token"]["proof"];
        println!("{place:?} {proof}");
        proof["outcome"].as_str().unwrap().to_owned()
    }

    async fn tokens(&self) -> Vec<Value> {
        let all = self.admin.get("/v1/admin/tokens").await.unwrap();
        all.ok().unwrap()
    }

    async fn check(&self, place: (&str, &str)) -> Value {
        let name = json!({"registry": place.0, "scope": place.1});
        let reply = self.admin.post("/v1/admin/tokens/check", name).await;
        reply.unwrap().ok().unwrap()
    }

    /// A token that the registry refuses is neither rotated to nor stored, and that is in the log.
    async fn refuses(&self, place: (&str, &str), wrong: &str) {
        let before = self.tokens().await;
        let refused = self.act("rotate-token", place, wrong).await;
        assert_eq!(refused.code(), "registry-refused", "{}", refused.body);
        println!("{place:?} {}", refused.body["title"]);
        assert!(!refused.body.to_string().contains(wrong));
        assert_eq!(self.tokens().await, before, "the old one stays");
        let log = self.daemon.log();
        assert!(!log.contains(wrong), "the token is in no log");
    }
}

#[tokio::test]
async fn a_token_that_verdaccio_refuses_takes_no_good_ones_place() {
    let registry = Verdaccio::start().await.unwrap();
    let house = House::over("npm", "npm", &registry.url, "").await;
    let place = ("npm", "@acme/*");
    let refused = house.act("add-token", place, "canary-wrong-token").await;
    assert_eq!(refused.code(), "registry-refused", "{}", refused.body);
    assert!(house.tokens().await.is_empty(), "a first one neither");
    assert_eq!(
        house.put("add-token", place, &registry.token).await,
        "proved"
    );
    house.refuses(place, "canary-wrong-token").await;
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    assert!(checked["account"].is_string() && checked["at"].is_u64());
    let next = registry.another_token().await.unwrap();
    assert_eq!(house.put("rotate-token", place, &next).await, "proved");
    let tokens = house.tokens().await;
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0]["overlap_until"].is_u64() && tokens[1]["version"] == 2);
    // A registry that is away: the present one works, as far as anybody knows, and stays. A first one is stored.
    drop(registry);
    let third = house.act("rotate-token", place, "canary-third").await;
    assert_eq!(third.code(), "registry-down", "{}", third.body);
    assert_eq!(house.tokens().await, tokens);
    let other = ("npm", "@other/*");
    assert_eq!(house.put("add-token", other, "canary-b").await, "unproved");
}

#[tokio::test]
async fn pypiserver_and_devpi_tell_by_a_form_that_asks_for_nothing() {
    let registry = PyPiServer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let house = House::over("pypi", "pypi", &registry.index, &keys).await;
    let place = ("pypi", "acme-demo");
    assert_eq!(
        house.put("add-token", place, &registry.token).await,
        "proved"
    );
    house.refuses(place, "pypi-canary-wrong").await;
    assert_eq!(house.check(place).await["outcome"], "proved");

    let registry = Devpi::start().await.unwrap();
    let token = registry.token("acme-demo").await.unwrap();
    let keys = format!(
        "upload_url = \"{}\"\nuser = \"{}\"",
        registry.upload, registry.user
    );
    let house = House::over("pypi", "pypi", &registry.index, &keys).await;
    assert_eq!(house.put("add-token", place, &token).await, "proved");
    house.refuses(place, "devpi-canary-wrong").await;
    assert_eq!(house.check(place).await["outcome"], "proved");
}

#[tokio::test]
async fn a_cargo_registry_tells_by_a_yank_of_nothing() {
    let registry = Freighter::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.url);
    let house = House::over("crates", "crates", &registry.index, &keys).await;
    let place = ("crates", "acme-left");
    let wrong = house.act("add-token", place, "canary-wrong-token").await;
    // Nobody can tell: this registry looks at an archive's length before it looks at the token, and to yank is a right
    // of its own. The next one is measured by the one that is there.
    println!("{}", wrong.body);
    assert_eq!(wrong.body["token"]["proof"]["outcome"], "unproved");
    let first = house.put("rotate-token", place, &registry.token).await;
    assert_eq!(first, "proved");
    let folder = cargo::package(house.daemon.dir(), "acme-left", "1.0.0").unwrap();
    cargo::publish_past(&registry, &folder, &registry.token)
        .await
        .unwrap();
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    // Another user's token: known to the registry, and of no use.
    house.refuses(place, &registry.other).await;
    house.refuses(place, "canary-wrong-again").await;
    assert_eq!(registry.lines("acme-left").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_gem_registry_tells_by_a_push_of_no_gem() {
    let registry = Gems::start().await.unwrap();
    let house = House::over("gems", "rubygems", &registry.url, "").await;
    let place = ("gems", "*");
    assert_eq!(house.put("add-token", place, KEY).await, "proved");
    house.refuses(place, "rubygems_canary-wrong").await;
    registry.wants_factor(&registry.url);
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    let detail = checked["detail"].as_str().unwrap();
    assert!(detail.contains("second factor"), "{detail}");
    assert!(registry.writes().is_empty(), "no gem was pushed");
}

#[tokio::test]
async fn docker_registry_tells_by_an_upload_that_is_taken_back() {
    let registry = DockerRegistry::start().await.unwrap();
    let keys = format!("user = \"{USER}\"");
    let house = House::over("oci", "oci", &registry.url, &keys).await;
    for place in [("oci", "*"), ("oci", "acme/app")] {
        let stored = house.put("add-token", place, &registry.password).await;
        assert_eq!(stored, "proved", "{place:?}");
        house.refuses(place, "canary-wrong-password").await;
    }
    // It notes that an upload began even after that was taken back, and clears such notes away itself.
    let mut kept = registry.kept();
    kept.retain(|path| !path.components().any(|c| c.as_os_str() == "hashstates"));
    assert_eq!(kept, Vec::<PathBuf>::new());

    let tokens = TokenServer::start().await.unwrap();
    let registry = DockerRegistry::behind(&tokens).await.unwrap();
    let keys = format!("user = \"{USER}\"\ntoken_url = \"{}\"", tokens.url);
    let house = House::over("oci", "oci", &registry.url, &keys).await;
    let place = ("oci", "acme/app");
    assert_eq!(
        house.put("add-token", place, &tokens.password).await,
        "proved"
    );
    house.refuses(place, "canary-wrong-password").await;
}

#[tokio::test]
async fn what_nobody_can_be_asked_about_is_said_and_can_be_rotated() {
    let server = Nginx::start().await.unwrap();
    let keys =
        "path = \"/store/{package}/{version}/{file}\"\ntoken_header = \"X-Api-Key: {token}\"\n";
    let builder = Daemon::builder()
        .registry_with("files", "http", &server.url, keys)
        .registry("secrets", "generic", "");
    let house = House::start(builder).await;
    for place in [("files", "acme/app"), ("secrets", "deploy-key")] {
        let stored = house.put("add-token", place, "canary-first").await;
        assert_eq!(stored, "unproved", "{place:?}");
        let checked = house.check(place).await;
        assert_eq!(checked["outcome"], "unproved", "{checked}");
    }
    let rotated = house.put("rotate-token", ("files", "acme/app"), "canary-second");
    assert_eq!(rotated.await, "unproved");
}
