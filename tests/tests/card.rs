//! The card: what an approver sees of the bytes, computed by the broker from the bytes.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::Question,
    card::{Card, Change, FindingKind, Outcome, Previous, Risk},
};
use serde_json::json;
use stand::{
    packages,
    team::{POLICY, Team, Waiting},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

async fn team(more: &str) -> Team {
    let policy = POLICY.replacen("quorum = 2", &format!("quorum = 2\n{more}"), 1);
    Team::with_policy(&policy).await.unwrap()
}

/// A job that asks, hands its file over, and ends.
async fn hand_over(team: &Team, what: &Path) -> Waiting {
    let token = team.id_token().await.unwrap();
    let out = team
        .folder()
        .join(format!("{}.json", stand::free_port().unwrap()));
    let (what, out) = (what.display().to_string(), out.display().to_string());
    let args = ["request", "npm", &what, "--out", &out, "--hand-over"];
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let mut job = team.job_as(&args, &env).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    job
}

/// The question as a program gets it, once no card of it is being made any more.
async fn question(team: &Team, id: &str) -> Question {
    let start = Instant::now();
    loop {
        let shown = team
            .run(&team.maintainers[0], &["show", id, "--json"], &[])
            .await;
        let question: Question =
            serde_json::from_str(&shown.unwrap().ok().unwrap().stdout).unwrap();
        if question.cards.iter().all(|c| c.outcome != Outcome::Waiting) {
            return question;
        }
        assert!(start.elapsed() < LIMIT, "{:?}", question.cards);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn card(team: &Team, id: &str) -> Card {
    let [card] = question(team, id).await.cards.try_into().unwrap();
    card
}

#[tokio::test]
async fn a_deposit_is_looked_into_and_compared_with_what_is_published() {
    let team = team("mode = \"deposit\"").await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let first = hand_over(&team, &dir).await;
    let seen = card(&team, &first.id).await;
    assert_eq!(
        (seen.outcome, &seen.previous),
        (Outcome::Inspected, &Previous::First)
    );
    team.approve_both(&first).await.unwrap();
    let start = Instant::now();
    while team
        .registry
        .integrity("@acme/left", "1.0.0")
        .await
        .unwrap()
        .is_none()
    {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let dir = team.package("@acme/left", "1.1.0").unwrap();
    let extra = json!({"scripts": {"postinstall": "node index.js"}});
    packages::npm_package(&dir, "@acme/left", "1.1.0", &extra).unwrap();
    let second = hand_over(&team, &dir).await;
    let seen = card(&team, &second.id).await;
    let Previous::Version { version, published } = &seen.previous else {
        panic!("{seen:?}");
    };
    assert_eq!(version, "1.0.0");
    assert!(published.is_some(), "the registry says when");
    let inside = seen.inside.as_ref().unwrap();
    assert_eq!((inside.added, inside.changed, inside.removed), (0, 2, 0));
    assert!(
        inside
            .lines
            .iter()
            .all(|l| l.change == Change::Changed && l.diff)
    );
    assert_eq!(seen.findings[0].kind, FindingKind::InstallScripts);
    assert_eq!(seen.findings[0].risk, Risk::High);

    let shown = team
        .run(&team.maintainers[0], &["show", &second.id], &[])
        .await
        .unwrap();
    let text = shown.ok().unwrap().stdout;
    for part in [
        "against    version 1.0.0, published 20",
        "HIGH       install-scripts: postinstall is new: node index.js",
        "~ package.json",
        "3 files",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let diff = |name: &'static str| {
        let (team, id) = (&team, second.id.as_str());
        async move {
            let args = ["show", id, "--diff", name];
            team.run(&team.maintainers[0], &args, &[]).await.unwrap()
        }
    };
    let text = diff("package.json").await.ok().unwrap().stdout;
    assert!(
        text.contains("+    \"postinstall\": \"node index.js\""),
        "{text}"
    );
    assert_eq!(diff("README.md").await.status, Some(5), "it did not change");
}
