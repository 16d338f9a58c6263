//! An access review of a broker that published: what a reader finds in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::time::UnixTime;
use serde_json::{Value, json};
use stand::{
    bells::Hook,
    daemon::Daemon,
    now,
    parts::{Issuer, Verdaccio},
    team::{POLICY, Team},
};
use std::{fs, time::Duration};

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

/// `2026-Q4`
fn quarter_of(at: u64) -> String {
    let text = UnixTime(at).rfc3339();
    let month: u32 = text[5..7].parse().unwrap();
    format!("{}-Q{}", &text[..4], (month - 1) / 3 + 1)
}

async fn said(team: &Team, args: &[&str]) -> Value {
    let out = team.admin(&[&["--json", "admin"], args].concat()).await;
    serde_json::from_str(&out.unwrap().ok().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn who_was_only_rung_and_a_second_device_are_listed_as_unused() {
    let hook = Hook::start().await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = Daemon::builder()
        .registry("npm", "npm", &registry.url)
        .policy(POLICY)
        .extra(&format!("[push]\norigins = [\"{}\"]\n", hook.origin));
    let token = registry.token.clone();
    let team = Team::assemble(registry, issuer, builder, ("npm", &token), "").await;
    let team = team.unwrap();
    let carol = team.hire("carol", &["--group", "release"]).await.unwrap();
    let add = ["notify", "add", "webhook", &hook.at("carol")];
    team.run(&carol, &add, &[]).await.unwrap().ok().unwrap();
    let bob = &team.maintainers[1];
    let invited = loop {
        let code = team.code(bob).await.unwrap();
        let args = ["--json", "devices", "add", "--totp", &code];
        let out = team.run(bob, &args, &[]).await.unwrap();
        if out.success() {
            break out.stdout;
        }
        // The code of this half minute was used at the enrolment: the next one is awaited.
        assert!(out.stderr.contains("factor-wrong"), "{out}");
        tokio::time::sleep(Duration::from_secs(31)).await;
    };
    let invited: Value = serde_json::from_str(&invited).unwrap();
    let second = team.with_home("bob", "second");
    let invite = invited["invite"].as_str().unwrap();
    team.enroll(&second, invite).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = now().unwrap();

    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    // She was rung, and is named in the log for it.
    let rung = ["audit", "find", "--event", "rung", "--person", "carol"];
    let rung = said(&team, &rung).await.to_string();
    assert!(rung.contains("carol"), "{rung}");
    let moment = UnixTime(since).rfc3339();
    let review = said(&team, &["report", "--since", &moment]).await;
    let warnings = review["warnings"].to_string();
    for (name, did_nothing) in [("alice", false), ("bob", false), ("carol", true)] {
        let words = format!("{name} did nothing in this time");
        assert_eq!(warnings.contains(&words), did_nothing, "{warnings}");
    }
    let people = review["people"].as_array().unwrap();
    let of = |name: &str| people.iter().find(|p| p["person"] == name).unwrap();
    assert_eq!(of("carol")["entries"], 0);
    assert_eq!(of("bob")["devices"], 2);
    assert_eq!(of("bob")["idle_devices"].as_array().unwrap().len(), 1);
    assert_eq!(of("alice")["idle_devices"], json!([]));

    let review = said(&team, &["report", "--quarter", &quarter_of(since)]).await;
    let publish = &review["publishes"][0];
    assert_eq!(
        publish["items"],
        json!(["npm:@acme/left@1.4.2"]),
        "{review}"
    );
    assert_eq!(publish["approved_by"], json!(["alice", "bob"]));
    let period = &review["period"];
    let [from, to] = ["since", "until"].map(|t| period[t].as_u64().unwrap());
    assert!(from < since && since < to, "{period}");
}
