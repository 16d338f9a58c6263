//! Each runbook of docs/RUNBOOKS.md, walked with the commands that stand there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::Value;
use stand::{
    Output,
    daemon::Daemon,
    http,
    parts::{Clock, Issuer, Verdaccio},
    people::publish_document,
    runbook::Walk,
    team::{POLICY, Person, Team},
};
use std::{fs, path::Path};

const LEFT: &str = "@acme/left";
const DAY: i64 = 24 * 3600;

/// A team with a second admin.
async fn staffed() -> (Team, Person) {
    let team = Team::start().await.unwrap();
    let dora = team.hire("dora", &["--admin"]).await.unwrap();
    (team, dora)
}

/// A whole publish, approved by both maintainers.
async fn publish(team: &Team, name: &str, version: &str) -> String {
    let dir = team.package(name, version).unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(shown(team, name, version).await, "{}", job.text());
    job.id.clone()
}

async fn shown(team: &Team, name: &str, version: &str) -> bool {
    let shown = team.registry.integrity(name, version).await.unwrap();
    shown.is_some()
}

/// Publishes past the broker.
async fn past(registry: &Verdaccio, token: &str, name: &str, version: &str) {
    let bytes = stand::packages::with_readme(name, version).unwrap();
    let document = publish_document(name, version, &registry.url, &bytes);
    let url = format!("{}/{}", registry.url, name.replace('/', "%2f"));
    let put = http().unwrap().put(url).bearer_auth(token).json(&document);
    let reply = put.send().await.unwrap();
    assert!(reply.status().is_success(), "{reply:?}");
}

/// What `countersign --json …` says.
async fn told(team: &Team, person: &Person, words: &[&str]) -> Value {
    let out = team.run(person, &[&["--json"], words].concat(), &[]).await;
    serde_json::from_str(&out.unwrap().ok().unwrap().stdout).unwrap()
}

/// The id of what waits for another admin.
async fn act(team: &Team) -> String {
    let acts = told(team, &team.admin, &["admin", "acts"]).await;
    acts["acts"][0]["id"].as_str().unwrap().to_owned()
}

fn ok(out: anyhow::Result<Output>) -> Output {
    out.unwrap().ok().unwrap()
}

#[tokio::test]
async fn a_stolen_token_of_the_forge() {
    let (team, dora) = staffed().await;
    let (robin, alice) = (&team.admin, &team.maintainers[0]);
    let mut walk = Walk::of("A stolen token of the forge").unwrap();
    // The thief has a perfect token of the release job.
    let dir = team.package(LEFT, "6.6.6").unwrap();
    let mut thief = team.publish(&[&dir.display().to_string()]).await.unwrap();
    let inbox = ok(walk
        .run(&team, alice, "alice$ countersign inbox", &[])
        .await);
    assert!(inbox.stdout.contains("@acme/left@6.6.6"), "{inbox}");
    let line = "alice$ countersign deny REQUEST --freeze --reason 'nobody of us started this'";
    ok(walk
        .run(&team, alice, line, &[("REQUEST", &thief.id)])
        .await);
    assert_eq!(thief.end().await.unwrap(), Some(3), "{}", thief.text());
    let line = "robin$ countersign admin audit find --package npm:@acme/left --since 7d";
    let found = ok(walk.run(&team, robin, line, &[]).await);
    assert!(found.stdout.contains("request-opened"), "{found}");
    let line = "robin$ countersign admin incident --since 7d";
    let incident = ok(walk.run(&team, robin, line, &[]).await);
    assert!(incident.stdout.contains("0 request(s)"), "{incident}");
    let line = "robin$ countersign admin watch --now";
    ok(walk.run(&team, robin, line, &[]).await);
    for (who, line) in [
        (robin, "robin$ countersign admin thaw npm:@acme/left"),
        (&dora, "dora$ countersign admin thaw npm:@acme/left"),
    ] {
        ok(walk.run(&team, who, line, &[]).await);
    }
    walk.ends().unwrap();
    assert!(!shown(&team, LEFT, "6.6.6").await);
    publish(&team, LEFT, "1.0.0").await;
}

#[tokio::test]
async fn a_stolen_phone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let builder = clock.env(Daemon::builder());
    let builder = builder.registry("npm", "npm", &registry.url).policy(POLICY);
    let builder = builder.registry("secrets", "generic", "");
    let issuer = Issuer::start().await.unwrap();
    let token = registry.token.clone();
    let team = Team::assemble(registry, issuer, builder, ("npm", &token), "").await;
    let mut team = team.unwrap();
    let dora = team.hire("dora", &["--admin"]).await.unwrap();
    let mut walk = Walk::of("A stolen phone").unwrap();

    // His other device stands for the phone.
    let bob = &team.maintainers[1];
    let line = "countersign --json devices add";
    let invited = ok(walk.beside(&team, bob, line).await).stdout;
    let invited: Value = serde_json::from_str(&invited).unwrap();
    let phone = team.with_home("bob", "phone");
    team.enroll(&phone, invited["invite"].as_str().unwrap())
        .await
        .unwrap();
    let devices = told(&team, &phone, &["devices"]).await;
    let mut device = devices["devices"].as_array().unwrap().iter();
    let device = device.find(|d| d["this"] == true).unwrap();
    let device = device["id"].as_str().unwrap().to_owned();
    ok(walk.run(&team, bob, "bob$ countersign devices", &[]).await);
    let line = "bob$ countersign devices remove DEVICE";
    ok(walk.run(&team, bob, line, &[("DEVICE", &device)]).await);
    let gone = team.run(&phone, &["inbox"], &[]).await.unwrap();
    assert_eq!(gone.status, Some(5), "{gone}");

    // It was the only one, say.
    let robin = &team.admin;
    let line = "robin$ countersign admin change-person bob";
    ok(walk.run(&team, robin, line, &[]).await);
    let line = "dora$ countersign admin confirm ACT";
    let id = act(&team).await;
    ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    let line = "robin$ countersign recover ask bob";
    ok(walk.run(&team, robin, line, &[]).await);
    let line = "dora$ countersign recover ask bob";
    ok(walk.run(&team, &dora, line, &[]).await);
    // Everybody's clock, the broker's and the people's.
    team.daemon.kill9();
    clock.set(DAY + 3600).unwrap();
    team.env = clock.variables().to_vec();
    team.daemon.restart().await.unwrap();
    let line = "robin$ countersign recover invite bob";
    let invite = ok(walk.run(&team, &team.admin, line, &[]).await);
    walk.ends().unwrap();
    let invite = invite.stdout.lines().find(|l| !l.contains("://")).unwrap();
    let fresh = team.with_home("bob", "fresh");
    team.enroll(&fresh, invite.trim()).await.unwrap();
    let old = team.run(&team.maintainers[1], &["inbox"], &[]).await;
    assert_eq!(
        old.unwrap().status,
        Some(5),
        "what was there before is gone"
    );
}

#[tokio::test]
async fn a_stolen_laptop() {
    let (team, dora) = staffed().await;
    let (robin, alice) = (&team.admin, &team.maintainers[0]);
    let mut walk = Walk::of("A stolen laptop").unwrap();
    let dir = team.package(LEFT, "1.0.0").unwrap();
    let mut waiting = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve_both(&waiting).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let dir = team.package(LEFT, "1.1.0").unwrap();
    let mut waiting = team.publish(&[&dir.display().to_string()]).await.unwrap();

    let line =
        "robin$ countersign admin panic --since 24h --reason 'the laptop of alice was stolen'";
    let panic = ok(walk.run(&team, robin, line, &[]).await);
    for word in [
        "everything is frozen since",
        "ended: 1 requests",
        "npm:@acme/left@1.0.0",
        "approved by alice (totp), bob (totp)",
        "countersign receipt ",
        "countersign admin token rotate npm '*' --token-file FILE",
        "npm's website, Access Tokens",
    ] {
        assert!(panic.stdout.contains(word), "{word}: {panic}");
    }
    assert_eq!(waiting.end().await.unwrap(), Some(3), "{}", waiting.text());
    assert!(
        waiting.text().contains("stopped everything"),
        "{}",
        waiting.text()
    );
    let line = "robin$ countersign admin audit find --person alice --since 7d";
    let found = ok(walk.run(&team, robin, line, &[]).await);
    assert!(found.stdout.contains("answer-accepted"), "{found}");
    let line = "robin$ countersign admin acts";
    ok(walk.run(&team, robin, line, &[]).await);
    let line = "robin$ countersign admin remove-person alice";
    ok(walk.run(&team, robin, line, &[]).await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    let gone = team.run(alice, &["inbox"], &[]).await.unwrap();
    assert_eq!(gone.status, Some(5), "{gone}");
    let status = ok(team.admin(&["admin", "status"]).await);
    assert!(status.stdout.contains("EVERYTHING IS FROZEN"), "{status}");

    for (who, line) in [
        (robin, "robin$ countersign admin thaw --all"),
        (&dora, "dora$ countersign admin thaw --all"),
    ] {
        ok(walk.run(&team, who, line, &[]).await);
    }
    let line = "robin$ countersign admin invite alice --group release";
    ok(walk.run(&team, robin, line, &[]).await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    let invite = ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    walk.ends().unwrap();
    let invite = invite
        .stdout
        .lines()
        .find(|l| l.starts_with("csi_"))
        .unwrap();
    let fresh = team.with_home("alice", "alices-new-laptop");
    team.enroll(&fresh, invite.trim()).await.unwrap();
    let mut team = team;
    team.maintainers[0] = fresh;
    publish(&team, LEFT, "1.1.0").await;
}

#[tokio::test]
async fn a_leaked_registry_token() {
    let (team, dora) = staffed().await;
    let robin = &team.admin;
    let mut walk = Walk::of("A leaked registry token").unwrap();
    publish(&team, LEFT, "1.0.0").await;
    ok(team.admin(&["admin", "watch", "--now"]).await);
    // The thief publishes past the broker.
    past(&team.registry, &team.registry.token, LEFT, "6.6.6").await;
    let line = "robin$ countersign admin panic --since 24h --reason 'the token was seen'";
    let panic = ok(walk.run(&team, robin, line, &[]).await);
    assert!(panic.stdout.contains("stored: '*' version 1"), "{panic}");
    let file = team.folder().join("new-token").display().to_string();
    fs::write(&file, team.registry.another_token().await.unwrap()).unwrap();
    let line = "robin$ countersign admin token rotate npm '*' --token-file FILE --ends-old";
    ok(walk.run(&team, robin, line, &[("FILE", &file)]).await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    let line = "robin$ countersign admin token check npm '*'";
    ok(walk.run(&team, robin, line, &[]).await);
    let line = "robin$ countersign admin watch --now";
    let watch = walk.run(&team, robin, line, &[]).await.unwrap();
    assert_eq!(watch.status, Some(1), "{watch}");
    let line = "robin$ countersign admin incident --since 7d";
    let incident = ok(walk.run(&team, robin, line, &[]).await);
    let unknown = "version-unknown npm:@acme/left@6.6.6";
    assert!(incident.stdout.contains(unknown), "{incident}");
    for (who, line) in [
        (robin, "robin$ countersign admin thaw --all"),
        (&dora, "dora$ countersign admin thaw --all"),
    ] {
        ok(walk.run(&team, who, line, &[]).await);
    }
    walk.ends().unwrap();
    // The package that the thief touched stays frozen, the others go on, with the new token.
    publish(&team, "@acme/right", "1.0.0").await;
    let tokens = told(&team, robin, &["admin", "token", "list"]).await;
    let newest = tokens.as_array().unwrap().iter().map(|t| &t["version"]);
    assert_eq!(newest.filter_map(Value::as_u64).max(), Some(2));
}

#[tokio::test]
async fn a_stolen_disk() {
    let (team, dora) = staffed().await;
    let robin = &team.admin;
    let mut walk = Walk::of("A stolen disk").unwrap();
    for file in fs::read_dir(team.daemon.dir().join("data")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            assert!(!holds(&path, &team.registry.token), "{}", path.display());
        }
    }
    let line = "robin$ countersign admin unseal-method";
    let method = ok(walk.run(&team, robin, line, &[]).await);
    assert!(method.stdout.contains("identity"), "{method}");
    let file = team.folder().join("secret").display().to_string();
    fs::write(&file, "another-passphrase-of-the-vault").unwrap();
    let before = fs::read(team.daemon.dir().join("data/vault.json")).unwrap();
    let line = "robin$ countersign admin unseal-method passphrase --passphrase-file FILE";
    ok(walk.run(&team, robin, line, &[("FILE", &file)]).await);
    let change = told(&team, robin, &["admin", "unseal-method"]).await;
    let change = change["change"]["id"].as_str().unwrap().to_owned();
    let line = "dora$ countersign admin unseal-method confirm CHANGE";
    ok(walk.run(&team, &dora, line, &[("CHANGE", &change)]).await);
    ok(walk
        .run(&team, robin, "robin$ countersign admin rekey", &[])
        .await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    let line = "robin$ countersign admin token list";
    ok(walk.run(&team, robin, line, &[]).await);
    fs::write(&file, team.registry.another_token().await.unwrap()).unwrap();
    let line = "robin$ countersign admin token rotate npm '*' --token-file FILE";
    ok(walk.run(&team, robin, line, &[("FILE", &file)]).await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    walk.ends().unwrap();
    let now = fs::read(team.daemon.dir().join("data/vault.json")).unwrap();
    assert!(before != now, "another passphrase opens it");
    publish(&team, LEFT, "1.0.0").await;
}

fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[tokio::test]
async fn the_brokers_host_was_taken() {
    let (team, _) = staffed().await;
    let mut walk = Walk::of("The broker's host was taken").unwrap();
    publish(&team, LEFT, "1.0.0").await;
    // What lies elsewhere.
    let export = team.folder().join("log.jsonl").display().to_string();
    let words = ["admin", "audit", "export", "--out", &export];
    ok(team.admin(&words).await);
    let line = "robin$ countersign verify EXPORT";
    ok(walk
        .run(&team, &team.admin, line, &[("EXPORT", &export)])
        .await);

    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let url = registry.url.clone();
    let new = Team::over(registry, issuer, &url, POLICY).await.unwrap();
    walk.by_the_stand("host$ countersignd init --config CONFIG --admin robin")
        .unwrap();
    walk.by_the_stand("host$ countersignd serve --config CONFIG")
        .unwrap();
    new.hire("dora", &["--admin"]).await.unwrap();
    let typed = new.typed();
    for line in [
        "robin$ countersign enroll",
        "robin$ countersign admin invite dora --admin",
        "robin$ countersign admin invite alice --group release",
        "robin$ countersign admin invite bob --group release",
        "robin$ countersign admin token add npm '*' --token-file FILE",
    ] {
        walk.was_typed(line, &typed).unwrap();
    }
    walk.ends().unwrap();
    publish(&new, LEFT, "1.0.1").await;
    // A device of the old broker does not take the new one for it.
    let old = [("COUNTERSIGN_BROKER", new.daemon.url.as_str())];
    let refused = team.run(&team.maintainers[0], &["inbox"], &old).await;
    assert!(!refused.unwrap().success());
}

#[tokio::test]
async fn a_bad_release() {
    let (team, dora) = staffed().await;
    let (robin, alice) = (&team.admin, &team.maintainers[0]);
    let mut walk = Walk::of("A bad release").unwrap();
    let id = publish(&team, LEFT, "1.0.0").await;
    ok(walk
        .run(&team, alice, "alice$ countersign inbox", &[])
        .await);
    let line = "robin$ countersign admin freeze npm:@acme/left";
    ok(walk.run(&team, robin, line, &[]).await);
    let line = "robin$ countersign admin incident --since 7d";
    let incident = ok(walk.run(&team, robin, line, &[]).await);
    assert!(incident.stdout.contains(&id), "{incident}");
    let file = team.folder().join("receipt.json").display().to_string();
    let line = "robin$ countersign receipt REQUEST --out FILE";
    let put = [("REQUEST", id.as_str()), ("FILE", file.as_str())];
    ok(walk.run(&team, robin, line, &put).await);
    let line = "robin$ countersign verify FILE";
    ok(walk.run(&team, robin, line, &[("FILE", &file)]).await);
    let line = "robin$ countersign admin yank npm @acme/left 1.0.0 --message 'broken: do not use'";
    ok(walk.run(&team, robin, line, &[]).await);
    let id = act(&team).await;
    let line = "dora$ countersign admin confirm ACT";
    let yanked = ok(walk.run(&team, &dora, line, &[("ACT", &id)]).await);
    assert!(yanked.stdout.contains("the registry shows it"), "{yanked}");
    let shown = team.registry.package(LEFT).await.unwrap().unwrap();
    assert_eq!(
        shown["versions"]["1.0.0"]["deprecated"],
        "broken: do not use"
    );
    let line = "robin$ countersign admin yank --list";
    let list = ok(walk.run(&team, robin, line, &[]).await);
    assert!(list.stdout.contains("confirmed by dora"), "{list}");
    for (who, line) in [
        (robin, "robin$ countersign admin thaw npm:@acme/left"),
        (&dora, "dora$ countersign admin thaw npm:@acme/left"),
    ] {
        ok(walk.run(&team, who, line, &[]).await);
    }
    walk.ends().unwrap();
    publish(&team, LEFT, "1.0.1").await;
}
