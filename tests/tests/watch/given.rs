//! What jobs publish themselves, with a token that was minted for them.

use crate::{count, events, line, look};
use serde_json::{Value, json};
use stand::{
    api::{Job, Small},
    daemon::Daemon,
    index::{Dist, Index, post},
    parts::Issuer,
    python,
};

async fn over(index: &Index) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let token = index.takes_macaroons().unwrap();
    let keys = format!("upload_url = \"{}/legacy/\"", index.url);
    let policy = python::policy(1).replace("\"totp\"", "\"device\"");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("pypi", "pypi", &format!("{}/simple/", index.url), &keys)
        .policy(&format!("{policy}mode = \"mint\"\n"));
    Small::with_token(builder, issuer, ("pypi", &token))
        .await
        .unwrap()
}

/// The token with which the job publishes this past the broker.
async fn given(small: &Small, dist: &Dist) -> String {
    let job: Job = small.open(&[dist.item(&[]).unwrap()]).await.unwrap();
    let answer = small.alice.approve(&job).await.unwrap();
    assert!(answer.good(), "{}", answer.text);
    let release = job.collect().await.unwrap();
    release.minted.as_ref().unwrap().token.clone()
}

async fn send(index: &Index, token: &str, dist: &Dist) {
    let (status, text) = post(&index.url, token, dist.form()).await.unwrap();
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn attack_59_what_was_published_with_a_minted_token_is_ours_and_other_bytes_are_not() {
    let index = Index::start().await.unwrap();
    let small = over(&index).await;
    // The policy names the package by a pattern only: nobody looks before something of it is published.
    assert_eq!(look(&small).await["packages"], json!([]));
    let first = Dist::wheel("acme-left", "1.0");
    let token = given(&small, &first).await;
    send(&index, &token, &first).await;
    let second = Dist::wheel("acme-left", "1.1");
    for round in 0..2 {
        let report = look(&small).await;
        let left = line(&report, "pypi:acme-left");
        assert_eq!(left["published"], 1 + round, "{left}");
        assert!(
            left["frozen"] == false && left["others"].is_null(),
            "{left}"
        );
        if round == 0 {
            let token = given(&small, &second).await;
            send(&index, &token, &second).await;
        }
    }

    // The same token, used for a file that nobody was asked about.
    send(&index, &token, &second.tagged("py2")).await;
    let report = look(&small).await;
    let left = line(&report, "pypi:acme-left");
    assert_eq!(
        (&left["frozen"], &left["others"]),
        (&json!(true), &json!(["1.1"])),
        "{left}"
    );
    let all: Vec<Value> = events(&small).await;
    assert_eq!(count(&all, "version-unknown"), 1);
}
