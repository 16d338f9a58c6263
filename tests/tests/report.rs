//! An access review of a broker that published: what a reader finds in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::Value;
use stand::team::Team;
use std::fs;

#[tokio::test]
async fn a_review_says_who_can_approve_what_and_who_did() {
    let team = Team::start().await.unwrap();
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let invite = ["--json", "admin", "invite", "idle", "--group", "release"];
    team.admin(&invite).await.unwrap().ok().unwrap();

    let shown = team
        .admin(&["admin", "report"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let text = &shown.stdout;
    for part in [
        "# Access review,",
        "## Who can approve what",
        "| alice, bob | 2 |",
        "nobody can be missing, of 2 who can approve",
        "there is one admin",
        "## Tokens",
        "| npm:* | 1 |",
        "invite-made, by robin, person idle",
        "npm:@acme/left@1.4.2 | alice, bob |",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let file = team.folder().join("review.json").display().to_string();
    let args = ["--json", "admin", "report", "--since", "1h", "--out", &file];
    team.admin(&args).await.unwrap().ok().unwrap();
    let review: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let alice = &review["people"][0];
    assert_eq!(
        (&alice["person"], &alice["answers"]),
        (&"alice".into(), &1.into())
    );
    assert_eq!(alice["idle_devices"], serde_json::json!([]));
    assert_eq!(review["policy"]["entries"][0]["quorum"], 2);
    // Before it was made, nothing happened: everybody is idle, and nothing was published.
    let long_ago = team.admin(&["--json", "admin", "report", "--month", "2001-01"]);
    let long_ago = long_ago.await.unwrap().ok().unwrap();
    let review: Value = serde_json::from_str(&long_ago.stdout).unwrap();
    assert_eq!(review["publishes"], serde_json::json!([]));
    let warnings = review["warnings"].to_string();
    assert!(
        warnings.contains("bob did nothing in this time"),
        "{warnings}"
    );
    for bad in [["--month", "2026"], ["--quarter", "2026-Q7"]] {
        let args = [&["admin", "report"], &bad[..]].concat();
        let refused = team.admin(&args).await.unwrap();
        assert_eq!(refused.status, Some(2), "{refused}");
    }
}
