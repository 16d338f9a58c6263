//! The main job with real parts: a real registry, the real npm, pnpm and Yarn, an issuer.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    packages, parts,
    team::{Team, Waiting},
};
use std::fs;

/// Waits for the job's end; it must have published what the registry now shows.
async fn published(team: &Team, mut job: Waiting, name: &str, version: &str) {
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = team.registry.integrity(name, version).await.unwrap();
    assert!(
        shown.is_some_and(|i| i.starts_with("sha512-")),
        "{}",
        job.text()
    );
}

#[tokio::test]
async fn a_package_is_published_only_after_two_people_approved() {
    let team = Team::start().await.unwrap();
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    assert!(team.registry.package("@acme/left").await.unwrap().is_none());

    let inbox = team
        .run(&team.maintainers[0], &["inbox"], &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        inbox.stdout.contains("@acme/left@1.4.2"),
        "{}",
        inbox.stdout
    );
    let show = team
        .run(&team.maintainers[0], &["show", &job.id], &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(show.stdout.contains("@acme/left"), "{}", show.stdout);
    assert!(
        show.stdout.lines().count() <= 40,
        "one screen:\n{}",
        show.stdout
    );

    team.approve(&team.maintainers[0], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        team.registry.package("@acme/left").await.unwrap().is_none(),
        "one of two is not enough"
    );
    team.approve(&team.maintainers[1], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let id = job.id.clone();
    published(&team, job, "@acme/left", "1.4.2").await;

    // What anybody can check afterwards, without the broker.
    let receipt = team.folder().join("receipt.json").display().to_string();
    let out = team
        .run(
            &team.maintainers[0],
            &["receipt", &id, "--out", &receipt],
            &[],
        )
        .await
        .unwrap();
    out.ok().unwrap();
    let team = &team;
    let verify = |file: String| async move {
        let args = ["verify", &file];
        let limit = stand::team::PUBLISH;
        team.daemon
            .countersign(&args, &[], team.folder(), limit)
            .await
            .unwrap()
    };
    let verified = team
        .run(&team.maintainers[1], &["verify", &receipt], &[])
        .await
        .unwrap();
    assert!(verified.success(), "{verified:?}");
    let export = team.folder().join("log.jsonl").display().to_string();
    team.admin(&["admin", "audit", "export", "--out", &export])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(verify(export.clone()).await.success());

    // One letter of the log changed, and it does not verify any more.
    let text = fs::read_to_string(&export)
        .unwrap()
        .replacen("@acme/left", "@acme/lefd", 1);
    fs::write(&export, text).unwrap();
    assert_eq!(verify(export).await.status, Some(1));
}

#[tokio::test]
async fn a_tarball_without_a_scope_is_published_with_a_tag() {
    let team = Team::start().await.unwrap();
    let dir = team.package("left", "2.0.0-rc.1").unwrap();
    let pack = ["pack", "--pack-destination", ".."];
    stand::command::run("npm", &pack, &[], &dir, stand::team::PUBLISH)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let file = team
        .folder()
        .join("left-2.0.0-rc.1.tgz")
        .display()
        .to_string();
    let job = team.publish(&[&file, "--tag", "next"]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    published(&team, job, "left", "2.0.0-rc.1").await;
    let package = team.registry.package("left").await.unwrap().unwrap();
    assert_eq!(package["dist-tags"]["next"], json!("2.0.0-rc.1"));
}

#[tokio::test]
async fn pnpm_and_yarn_publish_what_was_approved() {
    let team = Team::start().await.unwrap();
    let pnpm = parts::client("pnpm").unwrap().display().to_string();
    let yarn = parts::client("yarn").unwrap().display().to_string();
    let one = team.package("@acme/pnpm", "1.0.0").unwrap();
    let two = team.package("@acme/yarn", "1.0.0").unwrap();
    fs::write(two.join("yarn.lock"), "").unwrap();
    let offline = [
        ("YARN_ENABLE_TELEMETRY", "0"),
        ("YARN_ENABLE_IMMUTABLE_INSTALLS", "0"),
    ];
    let installed = stand::command::run(&yarn, &["install"], &offline, &two, stand::team::PUBLISH);
    installed.await.unwrap().ok().unwrap();
    let (one, two) = (one.display().to_string(), two.display().to_string());
    let first = team
        .publish(&[&one, "--", &pnpm, "publish", "--no-git-checks"])
        .await
        .unwrap();
    team.approve_both(&first).await.unwrap();
    published(&team, first, "@acme/pnpm", "1.0.0").await;
    let second = team
        .publish(&[&two, "--", &yarn, "npm", "publish"])
        .await
        .unwrap();
    team.approve_both(&second).await.unwrap();
    published(&team, second, "@acme/yarn", "1.0.0").await;
}

#[tokio::test]
async fn attack_54_one_action_denies_a_flood_and_leaves_the_request_that_is_ours() {
    let team = Team::start().await.unwrap();
    let mut flood = Vec::new();
    for version in ["1.0.0", "1.0.1"] {
        let dir = team.package("@acme/left", version).unwrap();
        let job = team.publish(&[&dir.display().to_string()]).await;
        flood.push(job.unwrap());
    }
    let publish = async |name: &str, version: &str| {
        let dir = team.package(name, version).unwrap();
        team.publish(&[&dir.display().to_string()]).await.unwrap()
    };
    let ours = publish("@acme/left", "1.1.0").await;
    let other = publish("@acme/other", "1.0.0").await;
    let deny = [
        "deny",
        "--all",
        "npm:@acme/left",
        "--but",
        &ours.id,
        "--reason",
        "not ours",
    ];
    let done = team.run(&team.maintainers[0], &deny, &[]).await.unwrap();
    assert_eq!(done.stdout.trim(), "denied 2 requests");
    for job in &mut flood {
        assert_eq!(job.end().await.unwrap(), Some(3), "{}", job.text());
        assert!(job.text().contains("not ours"), "{}", job.text());
    }
    team.approve_both(&ours).await.unwrap();
    published(&team, ours, "@acme/left", "1.1.0").await;
    let inbox = team.run(&team.maintainers[1], &["inbox"], &[]).await;
    let inbox = inbox.unwrap().stdout;
    assert!(inbox.contains(&other.id), "{inbox}");
}

#[tokio::test]
async fn a_denial_tells_the_job_who_and_why_and_a_freeze_needs_two_to_thaw() {
    let team = Team::start().await.unwrap();
    let dir = team
        .package("@acme/left", "1.0.0")
        .unwrap()
        .display()
        .to_string();
    let mut job = team.publish(&[&dir]).await.unwrap();
    let deny = [
        "deny",
        &job.id,
        "--freeze",
        "--reason",
        "nobody started this",
    ];
    team.run(&team.maintainers[0], &deny, &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(job.end().await.unwrap(), Some(3), "{}", job.text());
    assert!(
        job.text().contains("alice") && job.text().contains("nobody started this"),
        "{}",
        job.text()
    );

    // Frozen: nothing of the package is even asked.
    let token = team.id_token().await.unwrap();
    let again = team
        .publish_as(&[&dir], &[("COUNTERSIGN_ID_TOKEN", &token)])
        .await;
    let text = format!("{:#}", again.err().unwrap());
    assert!(text.contains("frozen"), "{text}");
    // One person twice is not two.
    for _ in 0..2 {
        let out = team
            .admin_with_code(&["--json", "admin", "thaw", "npm:@acme/left"])
            .await
            .unwrap()
            .ok()
            .unwrap();
        let status: Value = serde_json::from_str(&out.stdout).unwrap();
        assert_eq!(status["frozen"], json!(true));
    }
}

#[tokio::test]
async fn a_secret_is_revealed_to_the_job_alone_after_approval() {
    let team = Team::start().await.unwrap();
    let secret = "canary-deploy-key-4711";
    let file = team.folder().join("secret");
    fs::write(&file, secret).unwrap();
    let add = [
        "admin",
        "token",
        "add",
        "secrets",
        "deploy-key",
        "--token-file",
        &file.display().to_string(),
    ];
    team.admin(&add).await.unwrap().ok().unwrap();
    let out = team.folder().join("revealed").display().to_string();
    let token = team.id_token().await.unwrap();
    let job = team
        .job_as(
            &["reveal", "secrets:deploy-key", "--out", &out],
            &[("COUNTERSIGN_ID_TOKEN", &token)],
        )
        .await
        .unwrap();
    team.approve(&team.maintainers[0], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let mut job = job;
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert_eq!(fs::read_to_string(&out).unwrap(), secret);
    assert!(!job.text().contains(secret));
    let list = team
        .admin(&["--json", "admin", "token", "list"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let exposed = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| t["exposed"] == json!(true))
        .count();
    assert_eq!(exposed, 1, "{list}");
}

#[tokio::test]
async fn ci_without_oidc_asks_with_a_client_key() {
    let team = Team::start().await.unwrap();
    let key = team.folder().join("ci.key").display().to_string();
    let new = team
        .admin(&[
            "--json",
            "admin",
            "client-key",
            "new",
            "old-ci",
            "--out",
            &key,
        ])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let new: Value = serde_json::from_str(&new.stdout).unwrap();
    let public = new["public_key"].as_str().unwrap();
    team.admin(&[
        "admin",
        "client-key",
        "add",
        "old-ci",
        public,
        "--package",
        "npm:@acme/left",
    ])
    .await
    .unwrap()
    .ok()
    .unwrap();
    let dir = team
        .package("@acme/left", "1.0.0")
        .unwrap()
        .display()
        .to_string();
    let job = team
        .publish_as(&[&dir], &[("COUNTERSIGN_CLIENT_KEY", &key)])
        .await
        .unwrap();
    team.approve_both(&job).await.unwrap();
    published(&team, job, "@acme/left", "1.0.0").await;

    let other = team
        .package("@acme/right", "1.0.0")
        .unwrap()
        .display()
        .to_string();
    let refused = team
        .publish_as(&[&other], &[("COUNTERSIGN_CLIENT_KEY", &key)])
        .await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn bad_input_gets_a_clear_message_and_loses_nothing() {
    let team = Team::start().await.unwrap();
    let token = || team.id_token();
    let ends = |args: Vec<String>, token: String| {
        let team = &team;
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let env = [
                ("COUNTERSIGN_BROKER", team.daemon.url.as_str()),
                ("COUNTERSIGN_ID_TOKEN", token.as_str()),
            ];
            team.daemon
                .countersign(&args, &env, team.folder(), stand::team::PUBLISH)
                .await
                .unwrap()
        }
    };
    let args = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();

    let empty = team.folder().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let no_package = ends(
        args(&["publish", "npm", &empty.display().to_string()]),
        token().await.unwrap(),
    )
    .await;
    assert_ne!(no_package.status, Some(0));
    assert!(
        no_package.stderr.contains("package.json"),
        "{}",
        no_package.stderr
    );

    let dir = team
        .package("@acme/left", "1.0.0")
        .unwrap()
        .display()
        .to_string();
    let unknown = ends(args(&["publish", "nowhere", &dir]), token().await.unwrap()).await;
    assert_ne!(unknown.status, Some(0));
    assert!(unknown.stderr.contains("nowhere"), "{}", unknown.stderr);

    // Already published: said before anybody is asked.
    let there = team.folder().join("there");
    packages::npm_package(&there, "@acme/there", "1.0.0", &json!({})).unwrap();
    packages::npmrc(&there, &team.registry.url, &team.registry.token).unwrap();
    stand::command::run("npm", &["publish"], &[], &there, stand::team::PUBLISH)
        .await
        .unwrap()
        .ok()
        .unwrap();
    fs::remove_file(there.join(".npmrc")).unwrap();
    let taken = ends(
        args(&["publish", "npm", &there.display().to_string()]),
        token().await.unwrap(),
    )
    .await;
    assert_eq!(taken.status, Some(7), "{}", taken.stderr);

    // Sealed: nothing is released, status still answers, exit 6.
    team.admin(&["admin", "seal"]).await.unwrap().ok().unwrap();
    let sealed = ends(args(&["publish", "npm", &dir]), token().await.unwrap()).await;
    assert_eq!(sealed.status, Some(6), "{}", sealed.stderr);
    assert!(sealed.stderr.contains("unseal"), "{}", sealed.stderr);
    let frozen = team
        .admin(&["admin", "freeze", "npm:@acme/left"])
        .await
        .unwrap();
    assert!(frozen.success(), "a freeze works while sealed: {frozen:?}");

    let nobody = [
        ("COUNTERSIGN_BROKER", "http://127.0.0.1:1"),
        ("COUNTERSIGN_ID_TOKEN", "x.y.z"),
    ];
    let limit = stand::team::PUBLISH;
    let gone = team
        .daemon
        .countersign(&["publish", "npm", &dir], &nobody, team.folder(), limit)
        .await
        .unwrap();
    assert_eq!(gone.status, Some(6), "{}", gone.stderr);
}
