//! What admins and maintainers see: the broker while it is sealed, the whole inbox, a registry's block.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    now,
    parts::Verdaccio,
    people::{Office, archive},
    team::Team,
};
use std::{collections::BTreeSet, fs};

const CALLERS: &str = r#"callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "semver-release"
tags = ["latest"]
"#;

#[tokio::test]
async fn the_inbox_shows_what_runs_out_first_and_every_page_of_it() {
    let registry = Verdaccio::start().await.unwrap();
    let policy = format!(
        "[[package]]\nmatch = [\"npm:@acme/slow\"]\nanswers = \"2h\"\n{CALLERS}\n\
         [[package]]\nmatch = [\"npm:@acme/*\"]\nanswers = \"20m\"\n{CALLERS}"
    );
    let office = Office::start(&policy, &registry.url).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let stranger = office
        .hire("mallory", &["others"], false, &[])
        .await
        .unwrap();
    let mut opened = BTreeSet::new();
    for name in ["@acme/slow", "@acme/a", "@acme/b", "@acme/c", "@acme/d"] {
        let bytes = archive(name, "1.0.0").unwrap();
        let job = office.open(name, "1.0.0", &bytes).await.unwrap();
        opened.insert(job.opened.id.to_string());
    }

    let mut path = "/v1/inbox?limit=2".to_owned();
    let (mut seen, mut ends, mut titles) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page: Value = alice.get(&path).await.unwrap().ok().unwrap();
        let lines = page["requests"].as_array().unwrap();
        assert!(lines.len() <= 2, "{page}");
        for line in lines {
            seen.push(line["id"].as_str().unwrap().to_owned());
            ends.push(line["expires"].as_u64().unwrap());
            titles.push(line["title"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/inbox?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), opened);
    assert!(ends.is_sorted(), "{ends:?}");
    // It was asked first, and may wait longest.
    assert!(
        titles.last().unwrap().starts_with("npm:@acme/slow@"),
        "{titles:?}"
    );

    let bad = alice.get("/v1/inbox?after=00ff").await.unwrap();
    assert_eq!(bad.code(), "bad-request");
    let others: Value = stranger.get("/v1/inbox").await.unwrap().ok().unwrap();
    assert_eq!(others["requests"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn attack_25_what_ended_is_shown_to_those_whom_it_concerns() {
    let registry = Verdaccio::start().await.unwrap();
    let policy = format!("[[package]]\nmatch = [\"npm:@acme/*\"]\nanswers = \"20m\"\n{CALLERS}");
    let office = Office::start(&policy, &registry.url).await.unwrap();
    office.store(&registry.token).await.unwrap();
    let alice = office.hire("alice", &["release"], false, &[]).await;
    let alice = alice.unwrap();
    let mallory = office.hire("mallory", &["others"], false, &[]).await;
    let mallory = mallory.unwrap();

    let bytes = archive("@acme/a", "1.0.0").unwrap();
    let job = office.open("@acme/a", "1.0.0", &bytes).await.unwrap();
    let id = job.opened.id.to_string();
    let waiting = format!("/v1/requests/{id}?wait=1");
    assert_eq!(mallory.get(&waiting).await.unwrap().code(), "not-found");
    let status: Value = alice
        .get(&format!("/v1/requests/{id}"))
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(status["state"], "pending");
    let code = alice.code(0).unwrap();
    assert!(alice.approve(&job, Some(&code)).await.unwrap().success());
    let collected = job.collect().await.unwrap();
    let credential = job.open(&collected).unwrap();
    let put = job.put(&credential, &bytes).await.unwrap();
    assert!(put.success(), "{}", put.body);
    for name in ["@acme/b", "@acme/c"] {
        let bytes = archive(name, "1.0.0").unwrap();
        let job = office.open(name, "1.0.0", &bytes).await.unwrap();
        assert!(alice.deny(&job, false).await.unwrap().success());
    }

    // Meanwhile the rows move to the history: nothing is missing and nothing comes twice at any moment.
    let until = now().unwrap() + 6;
    while now().unwrap() < until {
        let (mut titles, mut path) = (Vec::new(), "/v1/history?limit=1".to_owned());
        loop {
            let page: Value = alice.get(&path).await.unwrap().ok().unwrap();
            for line in page["requests"].as_array().unwrap() {
                titles.push(line["title"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/history?limit=1&after={next}");
        }
        titles.sort();
        let all = [
            "npm:@acme/a@1.0.0",
            "npm:@acme/b@1.0.0",
            "npm:@acme/c@1.0.0",
        ];
        assert_eq!(titles, all);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let packages: Value = alice.get("/v1/packages").await.unwrap().ok().unwrap();
    let left = &packages["packages"][0];
    assert_eq!(left["package"], "npm:@acme/a", "{packages}");
    assert_eq!(left["published"][0]["approvals"][0], "alice");
    assert_eq!(left["published"][0]["state"], "published");

    let others: Value = mallory.get("/v1/history").await.unwrap().ok().unwrap();
    assert_eq!(others, json!({"requests": []}));
    let others: Value = mallory.get("/v1/packages").await.unwrap().ok().unwrap();
    assert_eq!(others, json!({"packages": []}));
    let bad = alice.get("/v1/history?after=00ff").await.unwrap();
    assert_eq!(bad.code(), "bad-request");
}

#[tokio::test]
async fn admins_see_a_sealed_broker_and_add_a_registry_without_knowing_its_address() {
    let team = Team::start().await.unwrap();
    team.admin(&["admin", "seal"]).await.unwrap().ok().unwrap();
    let status = team.admin(&["admin", "status"]).await.unwrap();
    assert_eq!(status.status, Some(6), "{status}");
    for word in ["sealed", "admin unseal", "admin freeze", "works now"] {
        assert!(status.stdout.contains(word), "{word}: {status}");
    }
    let json = team.admin(&["--json", "admin", "status"]).await.unwrap();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["broker"]["sealed"], Value::Bool(true));

    // The installed npm says where packages go; our own settings do not reach it here.
    let npm = [("npm_config_registry", team.registry.url.as_str())];
    let add = |config: Option<String>| {
        let mut args: Vec<String> = [
            "admin",
            "registry",
            "add",
            "work",
            "--listen",
            "127.0.0.1:1",
            "--public-url",
            "https://work.broker.example",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(config.into_iter().flat_map(|c| ["--config".to_owned(), c]));
        args
    };
    let words = add(None);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let printed = team
        .run(&team.admin, &words, &npm)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let block: toml::Table = printed.stdout.parse().unwrap();
    assert_eq!(
        block["registry"][0]["url"].as_str(),
        Some(team.registry.url.as_str())
    );

    let config = team.daemon.config_path();
    let words = add(Some(config.display().to_string()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    team.run(&team.admin, &words, &npm)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let again = team.run(&team.admin, &words, &npm).await.unwrap();
    assert_eq!(again.status, Some(2), "{again}");
    let check = ["check", "--config", &config.display().to_string()];
    let limit = stand::team::PUBLISH;
    let checked = stand::run(
        &team.daemon.bins.countersignd,
        &check,
        &[],
        team.folder(),
        limit,
    );
    let checked = checked.await.unwrap().ok().unwrap();
    assert!(checked.stdout.contains("3 registries"), "{checked}");
    assert!(fs::read_to_string(config).unwrap().contains("\"work\""));
}
