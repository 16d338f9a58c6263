//! Answering from a phone: a real browser, with a virtual authenticator.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::json;
use stand::{browser::Browser, daemon::Daemon, people::Office};

/// A port that nothing listens on: these tests stop before anything is sent.
const NO_REGISTRY: &str = "http://127.0.0.1:1";

const POLICY: &str = r#"
[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["passkey", "totp"]
version = "semver-release"
tags = ["latest"]
answers = "30m"
"#;

async fn office() -> Office {
    Office::start_as(Daemon::builder().named(), POLICY, NO_REGISTRY)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_phone_enrols_with_a_passkey_and_approves_what_it_is_shown() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    phone.sees("Nothing waits for you").await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    let said = phone.sees("Publish exactly this?").await.unwrap();
    for shown in ["@acme/left@1.4.2", "package.tgz", "refs/tags/v1.4.2"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    phone
        .fill("Match code", &job.opened.match_code)
        .await
        .unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    let collected = job.collect().await.unwrap();
    assert!(collected.success(), "{}", collected.body);
    let said = phone.console().await.unwrap();
    assert_eq!(said, Vec::<String>::new());
    let events = office.events().await.unwrap();
    let answered = events.iter().find(|e| e["type"] == "answer-accepted");
    assert_eq!(answered.unwrap()["factor"], json!("passkey"));
}
