//! No client of ours in the job: npm, pnpm and Yarn as they are, with the broker as their registry.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    canonical::Canonical,
    digest::{Algorithm, Digest, hex},
    request::Item,
};
use serde_json::{Value, json};
use stand::{
    Output, api,
    daemon::Daemon,
    http, packages, parts, run,
    team::{POLICY, PUBLISH, Team},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

/// The claims of the release job, for whatever audience its client asks.
fn claims(run: &str) -> Value {
    let mut claims = parts::github_claims("");
    claims["run_id"] = run.into();
    // Of a public repository npm would make a provenance statement, with a service that is not here.
    claims["repository_visibility"] = "private".into();
    claims.as_object_mut().unwrap().remove("aud");
    claims
}

/// Runs a client in a job of the release workflow. It has no token and no Countersign.
async fn job(team: &Team, run_id: &str, words: &[&str], folder: &Path) -> Output {
    team.issuer.set_actions_claims(&claims(run_id)).unwrap();
    let mut env = team.issuer.actions_env();
    env.extend([
        ("CI", "true".to_owned()),
        ("npm_config_registry", team.daemon.registry_url.clone()),
        ("npm_config_fetch_retries", "0".to_owned()),
        ("npm_config_userconfig", "/dev/null".to_owned()),
        ("YARN_NPM_REGISTRY_SERVER", team.daemon.registry_url.clone()),
        ("YARN_UNSAFE_HTTP_WHITELIST", "127.0.0.1".to_owned()),
        ("YARN_ENABLE_TELEMETRY", "0".to_owned()),
    ]);
    let env: Vec<_> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    run(Path::new(words[0]), &words[1..], &env, folder, PUBLISH)
        .await
        .unwrap()
}

/// pnpm breaks long lines, also behind a hyphen, and draws a bar beside them.
fn in_one_line(text: &str) -> String {
    let text = text.replace('│', " ");
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace("- ", "-")
}

/// The request's id and match code, as the job's log shows them.
fn asked(out: &Output) -> (String, String) {
    let text = format!("{}{}", out.stdout, out.stderr);
    assert!(!out.success(), "{text}");
    let text = in_one_line(&text);
    let after = |what: &str| {
        let rest = text
            .split_once(what)
            .unwrap_or_else(|| panic!("no {what}: {text}"))
            .1;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    (after("request "), after("match code "))
}

async fn approve(team: &Team, id: &str, match_code: &str) {
    for person in &team.maintainers {
        for _ in 0..3 {
            let code = team.code(person).await.unwrap();
            let args = ["approve", id, "--match-code", match_code, "--totp", &code];
            let out = team.run(person, &args, &[]).await.unwrap();
            if out.success() {
                break;
            }
            // The code of this half minute was used before.
            assert!(out.stderr.contains("used before"), "{out}");
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
    }
}

async fn shown(team: &Team, name: &str) -> Option<String> {
    team.registry.integrity(name, "1.0.0").await.unwrap()
}

/// A package for each client, with the words that publish it.
struct Plain {
    name: &'static str,
    words: Vec<String>,
    folder: PathBuf,
}

impl Plain {
    /// Publishes in a job of run 1.
    async fn publish(&self, team: &Team) -> Output {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        job(team, "1", &words, &self.folder).await
    }
}

async fn npm_pnpm_and_yarn(team: &Team) -> Vec<Plain> {
    let pnpm = parts::client("pnpm").unwrap().display().to_string();
    let yarn = parts::client("yarn").unwrap().display().to_string();
    let clients: [(&str, Vec<&str>); 3] = [
        ("@acme/by-npm", vec!["npm", "publish"]),
        ("@acme/by-pnpm", vec![&pnpm, "publish", "--no-git-checks"]),
        ("@acme/by-yarn", vec![&yarn, "npm", "publish"]),
    ];
    let mut all = Vec::new();
    for (name, words) in clients {
        let folder = team.package(name, "1.0.0").unwrap();
        // Without a token; pnpm reads its registry from here.
        let settings = format!("registry={}/\n", team.daemon.registry_url);
        std::fs::write(folder.join(".npmrc"), settings).unwrap();
        if name.ends_with("yarn") {
            std::fs::write(folder.join("yarn.lock"), "").unwrap();
            let offline = [
                ("YARN_ENABLE_TELEMETRY", "0"),
                ("YARN_ENABLE_IMMUTABLE_INSTALLS", "0"),
            ];
            let installed = run(&yarn, &["install"], &offline, &folder, PUBLISH).await;
            installed.unwrap().ok().unwrap();
        }
        all.push(Plain {
            name,
            words: words.into_iter().map(str::to_owned).collect(),
            folder,
        });
    }
    all
}

#[tokio::test]
async fn plain_npm_pnpm_and_yarn_ask_at_the_first_run_and_publish_at_the_second() {
    let team = Team::start().await.unwrap();
    let mut waiting = Vec::new();
    for plain in npm_pnpm_and_yarn(&team).await {
        let (id, code) = asked(&plain.publish(&team).await);
        // Run again before anybody answered: the same request.
        assert_eq!(asked(&plain.publish(&team).await).0, id);
        assert_eq!(shown(&team, plain.name).await, None);
        waiting.push((plain, id, code));
    }
    for (plain, id, code) in waiting {
        approve(&team, &id, &code).await;
        let name = plain.name;
        assert_eq!(shown(&team, name).await, None, "nobody has uploaded yet");
        plain.publish(&team).await.ok().unwrap();
        assert!(shown(&team, name).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn plain_npm_pnpm_and_yarn_hand_over_at_the_first_run_and_need_no_second() {
    let policy = POLICY
        .replacen("quorum = 2", "quorum = 1\nmode = \"deposit\"", 1)
        .replacen(r#"factors = ["totp"]"#, r#"factors = ["device"]"#, 1);
    let team = Team::with_policy(&policy).await.unwrap();
    for plain in npm_pnpm_and_yarn(&team).await {
        let name = plain.name;
        let first = plain.publish(&team).await;
        let (id, code) = asked(&first);
        let text = in_one_line(&format!("{}{}", first.stdout, first.stderr));
        let page = format!("{}/r/{id}", team.daemon.url);
        for word in ["403", "handed over", &page] {
            assert!(text.contains(word), "{name}: {word} is missing in {text}");
        }
        // Run again before anybody answered: the same request.
        assert_eq!(asked(&plain.publish(&team).await).0, id);
        assert_eq!(shown(&team, name).await, None, "nobody has approved");
        let args = ["approve", &id, "--match-code", &code];
        let approved = team.run(&team.maintainers[0], &args, &[]).await.unwrap();
        approved.ok().unwrap();
        // Nothing runs again.
        let start = Instant::now();
        while shown(&team, name).await.is_none() {
            assert!(start.elapsed() < LIMIT, "{}", team.daemon.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // And a job that does is told that it is published.
        plain.publish(&team).await.ok().unwrap();
    }
}

/// A guest token as npm gets it.
async fn exchange(team: &Team, token: &str, package: &str) -> Result<String, u16> {
    let url = format!(
        "{}/-/npm/v1/oidc/token/exchange/package/{}",
        team.daemon.registry_url,
        package.replace('/', "%2f")
    );
    let reply = http().unwrap().post(url).bearer_auth(token).send().await;
    let reply = reply.unwrap();
    let status = reply.status().as_u16();
    if status != 201 {
        return Err(status);
    }
    let reply: Value = reply.json().await.unwrap();
    Ok(reply["token"].as_str().unwrap().to_owned())
}

async fn id_token(team: &Team, audience: &str, run: &str) -> String {
    let mut claims = claims(run);
    claims["aud"] = audience.into();
    team.issuer.mint(claims).await.unwrap()
}

#[tokio::test]
async fn attack_03_a_token_for_one_door_opens_no_other() {
    let team = Team::start().await.unwrap();
    let port = team.daemon.registry_url.rsplit(':').next().unwrap();
    for right in ["npm:127.0.0.1".to_owned(), format!("npm:127.0.0.1:{port}")] {
        let token = id_token(&team, &right, "1").await;
        assert!(exchange(&team, &token, "@acme/left").await.is_ok());
    }
    for wrong in [
        team.daemon.url.as_str(),
        "npm:127.0.0.1:1",
        "npm:127.0.0.10",
        "NPM:127.0.0.1",
        "npm:localhost",
        "npm:127.0.0.1 ",
        "npm:",
        "",
    ] {
        let token = id_token(&team, wrong, "1").await;
        let refused = exchange(&team, &token, "@acme/left").await;
        assert!(refused.is_err(), "{wrong:?}");
    }
    // The API does not take a token that was made for the registry's origin.
    let token = id_token(&team, "npm:127.0.0.1", "1").await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let out = team.publish_as(&[&dir.display().to_string()], &env).await;
    assert!(format!("{:#}", out.err().unwrap()).contains("audience"));
    // Nor does a job that the policy does not name get anything, nor one for another package.
    let mut stranger = claims("1");
    stranger["aud"] = "npm:127.0.0.1".into();
    stranger["repository_id"] = "666".into();
    let stranger = team.issuer.mint(stranger).await.unwrap();
    assert_eq!(exchange(&team, &stranger, "@acme/left").await, Err(403));
    let token = id_token(&team, "npm:127.0.0.1", "1").await;
    assert_eq!(exchange(&team, &token, "@other/left").await, Err(403));
}

#[tokio::test]
async fn attack_09_12_37_a_guest_publishes_nothing_but_what_was_approved_for_his_run() {
    let team = Team::start().await.unwrap();
    let name = "@acme/left";
    let (ours, evil) = (
        packages::with_readme(name, "ours").unwrap(),
        packages::with_readme(name, "evil").unwrap(),
    );
    let guest = async |run: &str, package: &str| {
        let token = id_token(&team, "npm:127.0.0.1", run).await;
        exchange(&team, &token, package).await.unwrap()
    };
    // A perfect token, and nobody was asked: 403, and the registry sees nothing.
    let token = guest("1", name).await;
    let (status, text) = team.upload(&token, name, &ours).await.unwrap();
    assert_eq!(status, 403, "{text}");
    let (id, code) = asked(&Output {
        status: Some(1),
        stdout: text,
        stderr: String::new(),
    });
    // The same guest with other bytes: refused, and no second question.
    let (status, text) = team.upload(&token, name, &evil).await.unwrap();
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("other bytes"), "{text}");
    // A guest of one package is none of another.
    let (status, _) = team.upload(&token, "@acme/other", &ours).await.unwrap();
    assert_eq!(status, 403);
    approve(&team, &id, &code).await;
    // Approved for run 1: the bytes from run 2 ask again, the other bytes from run 1 too.
    for (run, bytes) in [("2", &ours), ("1", &evil)] {
        let (status, text) = team
            .upload(&guest(run, name).await, name, bytes)
            .await
            .unwrap();
        assert_eq!(status, 403, "{text}");
        assert!(!text.contains(&id), "{text}");
        assert_eq!(shown(&team, name).await, None);
    }
    // Other calls with such a token are refused (attack 20).
    let token = guest("1", name).await;
    for (method, path) in [
        ("DELETE", "/@acme%2fleft/-rev/1"),
        ("PUT", "/-/package/@acme%2fleft/dist-tags/latest"),
        ("GET", "/-/npm/v1/tokens"),
        ("GET", "/-/whoami"),
    ] {
        let url = format!("{}{path}", team.daemon.registry_url);
        let call = http().unwrap().request(method.parse().unwrap(), url);
        let reply = call.bearer_auth(&token).send().await.unwrap();
        assert!(reply.status().is_client_error(), "{method} {path}");
    }
    // The approved bytes, uploaded again by run 1: published; sent again: the recorded outcome.
    for _ in 0..2 {
        let (status, text) = team.upload(&token, name, &ours).await.unwrap();
        assert_eq!(status, 201, "{text}");
    }
    assert!(shown(&team, name).await.is_some());
    // A later attempt of the same run (another package of it failed, say) is told the same.
    let (status, text) = team
        .upload(&guest("1", name).await, name, &ours)
        .await
        .unwrap();
    assert_eq!(status, 201, "{text}");
}

#[tokio::test]
async fn attack_04_one_id_token_is_one_guest_and_asks_once() {
    let team = Team::start().await.unwrap();
    let name = "@acme/left";
    let token = id_token(&team, "npm:127.0.0.1", "1").await;
    let guest = exchange(&team, &token, name).await.unwrap();
    for _ in 0..300 {
        assert_eq!(exchange(&team, &token, name).await.unwrap(), guest);
    }
    let (status, text) = team
        .upload(&guest, name, &packages::with_readme(name, "ours").unwrap())
        .await
        .unwrap();
    assert_eq!(status, 403, "{text}");
    // Of another package it is another guest, and the token has asked already.
    let other = exchange(&team, &token, "@acme/other").await.unwrap();
    assert_ne!(other, guest);
    let bytes = packages::with_readme("@acme/other", "ours").unwrap();
    let (status, text) = team.upload(&other, "@acme/other", &bytes).await.unwrap();
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("used before"), "{text}");
    let asked = team
        .run(&team.maintainers[0], &["inbox"], &[])
        .await
        .unwrap();
    assert!(!asked.stdout.contains("@acme/other"), "{asked}");
}

/// The key under which a guest's request is remembered, as anybody can compute it who knows run and bytes.
fn guest_key(run: &str, item: &Item) -> String {
    let file = &item.files[0];
    let wish = Canonical::new("countersign/unannounced/v1")
        .maybe(Some(run))
        .text(&item.name())
        .maybe(Some("latest"))
        .text(&file.digest.to_string())
        .number(file.size)
        .sha256();
    format!("unannounced-0-{}", hex(&wish))
}

#[tokio::test]
async fn attack_15_17_no_key_of_the_api_makes_a_jobs_output_lead_to_another_request() {
    let team = Team::start().await.unwrap();
    let name = "@acme/left";
    let (ours, evil) = (
        packages::with_readme(name, "ours").unwrap(),
        packages::with_readme(name, "evil").unwrap(),
    );
    let item = |bytes: &[u8]| -> Item {
        serde_json::from_value(json!({
            "registry": "npm", "package": name, "version": "1.0.0", "tag": "latest",
            "files": [{"name": "left-1.0.0.tgz", "size": bytes.len(),
                "digest": Digest::of(Algorithm::Sha512, bytes).to_string()}],
        }))
        .unwrap()
    };
    // The thief has seen that run 1 has begun, and knows what it will pack. He asks for other bytes, under the
    // key that run 1 will have.
    let stolen = id_token(&team, &team.daemon.url, "666").await;
    let key = guest_key("1", &item(&ours));
    let theirs = api::Job::open(&team.daemon, &stolen, &[item(&evil)], &key)
        .await
        .unwrap();

    let token = id_token(&team, "npm:127.0.0.1", "1").await;
    let token = exchange(&team, &token, name).await.unwrap();
    let (status, text) = team.upload(&token, name, &ours).await.unwrap();
    assert_eq!(status, 403, "{text}");
    assert!(!text.contains(&theirs.id.to_string()), "{text}");
    let (id, code) = asked(&Output {
        status: Some(1),
        stdout: text,
        stderr: String::new(),
    });
    approve(&team, &id, &code).await;
    assert_eq!(theirs.state().await.unwrap(), "denied", "a rival ends");
    let (status, text) = team.upload(&token, name, &ours).await.unwrap();
    assert_eq!(status, 201, "{text}");
}

/// A guest token of a job that this CI account started.
async fn guest_of(
    team: &Team,
    actor: &str,
    run: &str,
    names: &[String],
) -> Vec<Result<String, u16>> {
    let mut claims = claims(run);
    claims["aud"] = "npm:127.0.0.1".into();
    claims["actor_id"] = actor.into();
    let token = team.issuer.mint(claims).await.unwrap();
    let mut out = Vec::new();
    for name in names {
        out.push(exchange(team, &token, name).await);
    }
    out
}

#[tokio::test]
async fn attack_54_one_account_takes_neither_all_guests_nor_all_uploads_of_its_project() {
    let team = Team::start().await.unwrap();
    let names: Vec<_> = (0..200).map(|n| format!("@acme/x{n}")).collect();
    let thief = guest_of(&team, "666", "1", &names).await;
    assert_eq!(thief.iter().filter(|g| g.is_ok()).count(), 160);
    assert_eq!(thief.last(), Some(&Err(429)));
    let thief = thief[0].as_ref().unwrap();

    let bytes = |name: &str| packages::with_readme(name, "x").unwrap();
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(team.slow_upload(thief, &names[0]).await.unwrap());
    }
    let full = async || {
        let (status, _) = team
            .upload(thief, &names[0], &bytes(&names[0]))
            .await
            .unwrap();
        status == 429
    };
    let start = Instant::now();
    while !full().await {
        assert!(start.elapsed() < LIMIT, "the thief's uploads have no limit");
    }
    // The project's other people: a guest, and an upload.
    let name = "@acme/left".to_owned();
    let sam = guest_of(&team, "8", "2", std::slice::from_ref(&name)).await;
    let sam = sam[0].as_ref().unwrap();
    let (status, text) = team.upload(sam, &name, &bytes(&name)).await.unwrap();
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("waits for approval"), "{text}");
    drop(held);

    // The rest of the project's places goes to further accounts; an announced release finds one nonetheless.
    let more: Vec<_> = (0..60).map(|n| format!("@acme/y{n}")).collect();
    let others = guest_of(&team, "667", "3", &more).await;
    assert_eq!(others.last(), Some(&Err(429)));
    let right = "@acme/right".to_owned();
    let late = guest_of(&team, "9", "4", std::slice::from_ref(&right)).await;
    assert_eq!(late[0], Err(429));
    let announced = ["npm:@acme/right@1.0.0"];
    let announced = team.intend(&team.maintainers[0], &announced).await.unwrap();
    announced.ok().unwrap();
    let late = guest_of(&team, "9", "5", std::slice::from_ref(&right)).await;
    assert!(late[0].is_ok(), "{late:?}");
}

#[tokio::test]
async fn attack_17_where_no_run_is_named_a_batch_with_more_in_it_is_not_taken_for_the_jobs_own() {
    let issuer = parts::Issuer::start().await.unwrap();
    let policy = api::policy_of_one().replacen(
        "callers = [",
        "callers = [\n    { issuer = \"plain\", subject = \"acme/left\" },",
        1,
    );
    // Nobody is asked for a version: nothing listens there.
    let builder = Daemon::builder()
        .issuer("plain", "oidc", &issuer.url, None)
        .registry("npm", "npm", "http://127.0.0.1:1")
        .policy(&policy);
    let small = api::Small::with(builder, issuer, "npm_token")
        .await
        .unwrap();
    let mint = async |audience: &str| {
        let claims =
            json!({"sub": "acme/left", "aud": audience, "jti": hex(&api::random::<8>().unwrap())});
        small.mint(&json!({ "claims": claims })).await.unwrap()
    };
    let [left, evil] = ["@acme/left", "@acme/evil"].map(|n| api::Packed::new(n, "1.0.0").unwrap());
    let items = [&left, &evil].map(|p| p.item("latest").unwrap());
    let stolen = mint(&small.daemon.url).await;
    let theirs = api::Job::open(&small.daemon, &stolen, &items, "k")
        .await
        .unwrap();

    let door = small.endpoint().unwrap();
    let path = format!(
        "/-/npm/v1/oidc/token/exchange/package/{}",
        left.name.replace('/', "%2f")
    );
    let guest = door
        .bearer("POST", &path, &mint("npm:127.0.0.1").await, &Value::Null)
        .await
        .unwrap();
    let guest: Value = guest.ok().unwrap();
    let document = left.document("latest").unwrap();
    let token = guest["token"].as_str().unwrap();
    let told = door.put(&left.name, token, document).await.unwrap();
    assert_eq!(told.status, 403, "{}", told.text);
    assert!(told.text.contains("/r/"), "{}", told.text);
    assert!(!told.text.contains(&theirs.id.to_string()), "{}", told.text);
    assert_eq!(small.waiting().await.unwrap(), 2, "each its own question");
}
