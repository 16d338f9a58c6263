//! One round over a gem registry.

use crate::{CALLERS, count, events, line, look};
use serde_json::json;
use stand::{
    api::Small,
    daemon::Daemon,
    gems::{self, Gems, KEY},
    http,
    parts::Issuer,
};
use std::fs;

#[tokio::test]
async fn attack_59_a_gem_that_another_owner_pushed_is_noticed() {
    let registry = Gems::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy =
        format!("[[package]]\nmatch = [\"gems:acme-left\"]\n{CALLERS}version = \"semver\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("gems", "rubygems", &registry.url)
        .policy(&policy);
    let small = Small::with_token(builder, issuer, ("gems", KEY)).await;
    let small = small.unwrap();
    let push = async |version: &str| {
        let gem = gems::build(small.daemon.dir(), "acme-left", version, "");
        let gem = fs::read(gem.await.unwrap()).unwrap();
        let post = http()
            .unwrap()
            .post(format!("{}/api/v1/gems", registry.url));
        let post = post
            .header("authorization", KEY)
            .header("content-type", "application/octet-stream");
        let reply = post.body(gem).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    };
    push("1.0.0").await;
    let report = look(&small).await;
    assert_eq!(line(&report, "gems:acme-left")["before"], 1);
    push("1.1.0").await;
    let report = look(&small).await;
    let left = line(&report, "gems:acme-left");
    assert_eq!(
        (&left["others"], &left["frozen"]),
        (&json!(["1.1.0"]), &json!(true))
    );
    assert_eq!(count(&events(&small).await, "version-unknown"), 1);
}
