//! No client of ours in the job: uv as it is, with the broker as its index. A release is several files, and uv
//! uploads them one by one.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::digest::hex;
use serde_json::{Value, json};
use stand::{
    Output,
    api::{self, Job, Small},
    authority::Authority,
    daemon::Daemon,
    http,
    index::{Dist, Index, TOKEN, post},
    parts::{self, Issuer},
    python::{self, PyPiServer, program, project},
    run,
    team::{PUBLISH, Team},
};
use std::path::Path;

/// One approval by a device: these tests are about what is asked.
fn policy(mode: &str) -> String {
    let policy = python::policy(1).replace("\"totp\"", "\"device\"");
    format!("{policy}mode = \"{mode}\"\n")
}

/// An organisation over pypiserver, behind the broker's own TLS: uv takes nothing else for the exchange.
async fn team(mode: &str) -> Team<PyPiServer> {
    let registry = PyPiServer::start().await.unwrap();
    let authority = Authority::new().unwrap();
    let (chain, key) = authority.sign().unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let builder = Daemon::builder()
        .registry_with("pypi", "pypi", &registry.index, &keys)
        .policy(&policy(mode))
        .tls(&chain, &key);
    let token = registry.token.clone();
    let issuer = Issuer::start().await.unwrap();
    let token = ("pypi", token.as_str());
    Team::assemble(registry, issuer, builder, token, &authority.pem)
        .await
        .unwrap()
}

/// Runs `uv publish` in a job of the release workflow. It has no token and no Countersign.
async fn uv(team: &Team<PyPiServer>, run_id: &str, files: &[&Path]) -> Output {
    let mut claims = parts::github_claims("");
    claims["run_id"] = run_id.into();
    claims.as_object_mut().unwrap().remove("aud");
    team.issuer.set_actions_claims(&claims).unwrap();
    let ca = team.folder().join("ca.pem").display().to_string();
    let mut env = team.issuer.actions_env();
    let url = format!("{}/legacy/", team.daemon.registry_url);
    env.extend([
        ("CI", "true".to_owned()),
        ("SSL_CERT_FILE", ca),
        ("UV_PUBLISH_URL", url),
        ("UV_NO_CONFIG", "1".to_owned()),
        ("NO_COLOR", "1".to_owned()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
    ]);
    let env: Vec<_> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut args = vec!["publish", "--trusted-publishing", "always"];
    let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    args.extend(files.iter().map(String::as_str));
    run(program("uv").unwrap(), &args, &env, team.folder(), PUBLISH)
        .await
        .unwrap()
}

/// The request's id and match code, as the job's log shows them.
fn asked(text: &str) -> (String, String) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
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

fn refused(out: &Output) -> (String, String) {
    assert!(!out.success(), "{out}");
    asked(&format!("{}{}", out.stdout, out.stderr))
}

async fn approve(team: &Team<PyPiServer>, id: &str, match_code: &str) -> Output {
    let args = ["approve", id, "--match-code", match_code];
    team.run(&team.maintainers[0], &args, &[]).await.unwrap()
}

async fn shown(team: &Team<PyPiServer>, name: &str) -> Vec<String> {
    let shown = python::shown(&team.registry.index, name).await.unwrap();
    shown.into_iter().map(|(name, _)| name).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn plain_uv_asks_for_a_release_and_publishes_it_after_the_approval() {
    let team = team("forward").await;
    // Every file in a call of its own, as the documentation says: the request grows, and there is one approval.
    let built = project(team.folder(), "acme-plain", "1.0.0").await.unwrap();
    let (wheel, sdist) = (built.wheel.as_path(), built.sdist.as_path());
    let (first, old_code) = refused(&uv(&team, "1", &[wheel]).await);
    let (id, code) = refused(&uv(&team, "1", &[sdist]).await);
    assert_ne!(first, id);
    // Run again before anybody answered: the same request.
    assert_eq!(refused(&uv(&team, "1", &[wheel, sdist]).await).0, id);
    let late = approve(&team, &first, &old_code).await;
    assert!(!late.success(), "the shorter request is over: {late}");
    approve(&team, &id, &code).await.ok().unwrap();
    assert!(
        shown(&team, "acme-plain").await.is_empty(),
        "nobody has uploaded yet"
    );
    uv(&team, "1", &[wheel, sdist]).await.ok().unwrap();
    assert_eq!(shown(&team, "acme-plain").await, [name(wheel), name(sdist)]);
    // Another attempt of the run is told the same; another run is, too: it is out.
    uv(&team, "1", &[wheel, sdist]).await.ok().unwrap();
    uv(&team, "2", &[wheel, sdist]).await.ok().unwrap();

    // All files in one call: uv stops at the first that waits, so that each costs an approval.
    let built = project(team.folder(), "acme-slow", "1.0.0").await.unwrap();
    let files = [built.wheel.as_path(), built.sdist.as_path()];
    let (id, code) = refused(&uv(&team, "1", &files).await);
    approve(&team, &id, &code).await.ok().unwrap();
    let (second, code) = refused(&uv(&team, "1", &files).await);
    let [one] = shown(&team, "acme-slow").await.try_into().unwrap();
    let screen = team
        .run(&team.maintainers[0], &["show", &second], &[])
        .await
        .unwrap();
    let out = format!("{one} is out already");
    assert!(screen.stdout.contains(&out), "{screen}");
    approve(&team, &second, &code).await.ok().unwrap();
    uv(&team, "1", &files).await.ok().unwrap();
    assert_eq!(shown(&team, "acme-slow").await.len(), 2);
}

#[tokio::test]
async fn plain_uv_hands_a_release_over_and_the_broker_publishes_it() {
    let team = team("deposit").await;
    let built = project(team.folder(), "acme-kept", "1.0.0").await.unwrap();
    let first = uv(&team, "1", &[&built.wheel]).await;
    let text = format!("{}{}", first.stdout, first.stderr);
    assert!(!first.success() && text.contains("handed over"), "{text}");
    // What was handed over goes with the longer request.
    let (id, code) = refused(&uv(&team, "1", &[&built.sdist]).await);
    approve(&team, &id, &code).await.ok().unwrap();
    until_out(&team, "acme-kept", 2).await;
    // The job, run again, is told that it is published.
    uv(&team, "1", &[&built.wheel, &built.sdist])
        .await
        .ok()
        .unwrap();
}

/// Waits until the index shows so many files, with nobody running anything.
async fn until_out(team: &Team<PyPiServer>, project: &str, files: usize) {
    let start = std::time::Instant::now();
    while shown(team, project).await.len() < files {
        assert!(start.elapsed() < PUBLISH, "{}", team.daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn attack_16_a_deposit_adds_to_a_release_that_is_half_out() {
    let team = team("deposit").await;
    let built = project(team.folder(), "acme-added", "1.0.0").await.unwrap();
    let files = [built.wheel.as_path(), built.sdist.as_path()];
    // uv stops at the first file, which is approved and published alone.
    let (id, code) = refused(&uv(&team, "1", &files).await);
    approve(&team, &id, &code).await.ok().unwrap();
    until_out(&team, "acme-added", 1).await;
    // Run again it passes that one over, and hands over the second: people are asked about both.
    let (second, code) = refused(&uv(&team, "1", &files).await);
    assert_ne!(id, second);
    approve(&team, &second, &code).await.ok().unwrap();
    until_out(&team, "acme-added", 2).await;
    uv(&team, "1", &files).await.ok().unwrap();

    // The same, where everything that reaches the index can be counted.
    let index = Index::start().await.unwrap();
    let small = small_with(&index, "github", "deposit").await;
    let [one, two, three, four] = ["py3", "py2", "cp311", "cp312"]
        .map(|python| Dist::wheel("acme-left", "1.0").tagged(python));
    index.has(&one.name, &one.bytes);
    let job = small.open(&[two.item(&[&one]).unwrap()]).await.unwrap();
    let credential = job.deposit.clone().unwrap();
    goes_out(&small, &credential, &two).await;
    assert_eq!(index.writes().len(), 0, "nobody has approved");
    assert!(small.alice.approve(&job).await.unwrap().good());
    small.until(&job, "published").await.unwrap();
    assert_eq!(index.writes().len(), 1);

    // What is neither handed over nor out is waited for: not one byte leaves before.
    let more = [&one, &two, &four];
    let job = small.open(&[three.item(&more).unwrap()]).await.unwrap();
    let credential = job.deposit.clone().unwrap();
    goes_out(&small, &credential, &three).await;
    assert!(small.alice.approve(&job).await.unwrap().good());
    let start = std::time::Instant::now();
    let missing = format!("{} was not handed over yet", four.name);
    while !small.daemon.log().contains(&missing) {
        assert_eq!(index.writes().len(), 1, "half of it left");
        assert!(start.elapsed() < PUBLISH, "{}", small.daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(index.writes().len(), 1);
    assert_eq!(job.state().await.unwrap(), "approved");
    goes_out(&small, &credential, &four).await;
    small.until(&job, "published").await.unwrap();
    assert_eq!(index.writes().len(), 3);
}

/// A small organisation over an index that writes down everything.
async fn small(index: &Index) -> Small {
    small_with(index, "github", "forward").await
}

/// The same, whose issuer names no run.
async fn nameless(index: &Index) -> Small {
    small_with(index, "oidc", "forward").await
}

async fn small_with(index: &Index, kind: &str, mode: &str) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}/legacy/\"", index.url);
    let policy = policy(mode).replacen(
        "callers = [",
        "callers = [{ issuer = \"oidc\", subject = \"acme/left\" }, ",
        1,
    );
    let builder = Daemon::builder()
        .issuer(kind, kind, &issuer.url, None)
        .registry_with("pypi", "pypi", &format!("{}/simple/", index.url), &keys)
        .policy(&policy);
    Small::with_token(builder, issuer, ("pypi", TOKEN))
        .await
        .unwrap()
}

/// The audience that this origin names.
async fn audience(small: &Small) -> String {
    let url = format!("{}/_/oidc/audience", small.daemon.registry_url);
    let reply: Value = http()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    reply["audience"].as_str().unwrap().to_owned()
}

async fn id_token(small: &Small, audience: &str, run: &str) -> String {
    small
        .token_with(&json!({"aud": audience, "run_id": run}))
        .await
        .unwrap()
}

async fn call(small: &Small, what: &str, token: &str) -> (u16, Value) {
    let url = format!("{}/_/oidc/{what}", small.daemon.registry_url);
    let body = json!({"token": token}).to_string();
    let reply = http().unwrap().post(url).body(body).send().await.unwrap();
    let status = reply.status().as_u16();
    (status, reply.json().await.unwrap_or_default())
}

async fn mint(small: &Small, token: &str) -> Result<String, (u16, Value)> {
    let (status, reply) = call(small, "mint-token", token).await;
    if status != 200 {
        return Err((status, reply));
    }
    assert_eq!(reply["success"], true);
    assert!(reply["expires"].as_u64().unwrap() <= 30 * 60, "{reply}");
    Ok(reply["token"].as_str().unwrap().to_owned())
}

/// A guest of this run.
async fn guest(small: &Small, run: &str) -> String {
    let audience = audience(small).await;
    mint(small, &id_token(small, &audience, run).await)
        .await
        .unwrap()
}

/// Uploads as a guest; refused, and the index hears nothing.
async fn waits(small: &Small, index: &Index, guest: &str, dist: &Dist) -> String {
    let before = index.writes().len();
    let sent = post(&small.daemon.registry_url, guest, dist.form());
    let (status, text) = sent.await.unwrap();
    assert!((400..500).contains(&status), "{status} {text}");
    assert_eq!(index.writes().len(), before, "{text}");
    text
}

/// Uploads what is approved, or out.
async fn goes_out(small: &Small, token: &str, dist: &Dist) {
    let sent = post(&small.daemon.registry_url, token, dist.form());
    let (status, text) = sent.await.unwrap();
    assert_eq!(status, 200, "{text}");
}

async fn approved(small: &Small, text: &str) -> bool {
    let (id, code) = asked(text);
    match Job::seen_by(&small.alice, &id, &code).await {
        Ok(job) => small.alice.approve(&job).await.unwrap().good(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn attack_03_and_09_the_exchange_of_an_index_takes_its_own_audience_and_no_stranger() {
    let index = Index::start().await.unwrap();
    let small = small(&index).await;
    let right = audience(&small).await;
    let port = small.daemon.registry_url.rsplit(':').next().unwrap();
    assert_eq!(right, format!("pypi:127.0.0.1:{port}"));
    let good = id_token(&small, &right, "1").await;
    assert!(mint(&small, &good).await.is_ok(), "the control");
    for wrong in [
        small.daemon.url.as_str(),
        "pypi",
        "pypi:127.0.0.1",
        "pypi:127.0.0.1:1",
        "PYPI:127.0.0.1",
        "npm:127.0.0.1",
        "",
    ] {
        let token = id_token(&small, wrong, "1").await;
        let (status, reply) = mint(&small, &token).await.unwrap_err();
        assert_eq!(status, 422, "{wrong:?}: {reply}");
        assert!(reply["errors"][0]["description"].is_string(), "{reply}");
    }
    // The API does not take a token that was made for the exchange.
    let opened = small
        .open_raw(&good, &[Dist::wheel("acme-left", "1.0").item(&[]).unwrap()])
        .await
        .unwrap();
    assert!(!opened.good(), "{}", opened.text);
    // A job that no package names gets nothing, and neither does a good job's other workflow.
    for other in [
        json!({"aud": right, "repository_id": "666"}),
        json!({"aud": right, "ref": "refs/heads/main"}),
        json!({"aud": right, "environment": "staging"}),
    ] {
        let stranger = small.token_with(&other).await.unwrap();
        let (status, reply) = mint(&small, &stranger).await.unwrap_err();
        assert_eq!(status, 422, "{reply}");
    }
    for body in [
        "",
        "{}",
        "[]",
        "{\"token\": 1}",
        "{\"token\": \"x\", \"token\": \"y\"}",
    ] {
        let url = format!("{}/_/oidc/mint-token", small.daemon.registry_url);
        let reply = http().unwrap().post(url).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 422, "{body}");
    }
    // Who may ask for one package may not upload another.
    let other = Dist::wheel("other-left", "1.0");
    let text = waits(&small, &index, &guest(&small, "1").await, &other).await;
    assert!(text.contains("policy-denied"), "{text}");
    assert_eq!(small.waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn attack_04_an_index_guest_asks_once_and_is_over_when_he_says_so() {
    let index = Index::start().await.unwrap();
    let small = small(&index).await;
    let right = audience(&small).await;
    let token = id_token(&small, &right, "1").await;
    let guest = mint(&small, &token).await.unwrap();
    // uv hands the same token in again when an answer was lost.
    for _ in 0..20 {
        assert_eq!(mint(&small, &token).await.unwrap(), guest);
    }
    waits(&small, &index, &guest, &Dist::wheel("acme-left", "1.0")).await;
    let text = waits(&small, &index, &guest, &Dist::wheel("acme-other", "1.0")).await;
    assert!(text.contains("used before"), "{text}");
    assert_eq!(small.waiting().await.unwrap(), 1);
    // He says that he is done: neither what he holds nor his id token opens anything any more.
    for _ in 0..2 {
        assert_eq!(call(&small, "burn-token", &guest).await.0, 202);
    }
    assert_eq!(call(&small, "burn-token", "pypi-nobody").await.0, 202);
    let text = waits(&small, &index, &guest, &Dist::wheel("acme-left", "1.0")).await;
    assert!(!text.contains("match code"), "{text}");
    let (status, reply) = mint(&small, &token).await.unwrap_err();
    assert_eq!(status, 422, "{reply}");
    // Nobody is ended by what is no guest's: a one-shot credential goes on.
    let dist = Dist::wheel("acme-right", "1.0");
    let job = small.open(&[dist.item(&[]).unwrap()]).await.unwrap();
    assert!(small.alice.approve(&job).await.unwrap().good());
    let credential = job.credential().await.unwrap();
    assert_eq!(call(&small, "burn-token", &credential).await.0, 202);
    goes_out(&small, &credential, &dist).await;
}

#[tokio::test]
async fn attack_12_16_and_17_a_file_is_never_slipped_into_what_people_said_yes_to() {
    let index = Index::start().await.unwrap();
    let small = small(&index).await;
    let (one, two, three) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-left", "1.0").tagged("py2"),
        Dist::wheel("acme-left", "1.0").tagged("cp311"),
    );
    let first = waits(&small, &index, &guest(&small, "1").await, &one).await;
    let both = waits(&small, &index, &guest(&small, "1").await, &two).await;
    // The shorter request is over: a yes to it is none to the longer one, whatever codes are given.
    assert!(!approved(&small, &first).await);
    let (first_id, _) = asked(&first);
    let (id, code) = asked(&both);
    assert_ne!(first_id, id);
    assert_eq!(small.waiting().await.unwrap(), 1);
    // The same file with other bytes, from the same run: what people see is the last word.
    let evil = Dist::named("acme-left", "1.0", "acme-left", "1.0", |files| {
        files[0].1 = b"evil".to_vec();
    });
    // Another run adds nothing to it: it asks on its own.
    let other = waits(&small, &index, &guest(&small, "2").await, &evil).await;
    assert_ne!(asked(&other).0, id);
    let job = Job::seen_by(&small.alice, &id, &code).await.unwrap();
    let shown: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let files = shown["facts"]["items"][0]["files"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(files.len(), 2, "{shown}");
    assert!(small.alice.approve(&job).await.unwrap().good());
    // Approved: nothing is added, and other bytes are refused.
    for dist in [&three, &evil] {
        let text = waits(&small, &index, &guest(&small, "1").await, dist).await;
        assert!(text.contains("answered already"), "{text}");
    }
    for dist in [&one, &two] {
        goes_out(&small, &guest(&small, "1").await, dist).await;
    }
    assert_eq!(index.writes().len(), 2);
    // Out: the third one is a request of its own, over all three, and the first two are not sent again.
    let rest = waits(&small, &index, &guest(&small, "1").await, &three).await;
    let evil_again = waits(&small, &index, &guest(&small, "1").await, &evil).await;
    assert!(evil_again.contains("other bytes"), "{evil_again}");
    assert!(approved(&small, &rest).await);
    for dist in [&one, &two, &three] {
        goes_out(&small, &guest(&small, "1").await, dist).await;
    }
    assert_eq!(index.writes().len(), 3);
    assert_eq!(index.file(&one.name), Some(one.bytes.clone()));
}

#[tokio::test]
async fn attack_16_a_release_that_is_half_out_is_asked_for_again_only_with_what_is_there() {
    let index = Index::start().await.unwrap();
    let small = small(&index).await;
    let (one, two) = (
        Dist::wheel("acme-half", "1.0"),
        Dist::wheel("acme-half", "1.0").tagged("py2"),
    );
    let open = async |items| {
        let token = small.id_token().await.unwrap();
        small.open_raw(&token, &[items]).await.unwrap()
    };
    index.has(&one.name, &one.bytes);
    // All of it is out; nothing of it is named; it is named with other bytes.
    let evil = Dist::named("acme-half", "1.0", "acme-half", "1.0", |files| {
        files[0].1 = b"evil".to_vec();
    });
    let lie = evil.item(&[&two]).unwrap();
    for (why, item) in [
        ("whole", one.item(&[]).unwrap()),
        ("without what is there", two.item(&[]).unwrap()),
        ("other bytes", lie),
    ] {
        let reply = open(item).await;
        assert_eq!(
            reply.code(),
            Some(proto::problem::Code::VersionTaken),
            "{why}: {}",
            reply.text
        );
    }
    // With what is there: people see it, and only the absent file is sent.
    let job = small.open(&[two.item(&[&one]).unwrap()]).await.unwrap();
    let shown: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let warnings = shown["warnings"].to_string();
    assert!(
        warnings.contains(&format!("{} is out already", one.name)),
        "{warnings}"
    );
    assert!(small.alice.approve(&job).await.unwrap().good());
    let credential = job.credential().await.unwrap();
    for dist in [&one, &two] {
        goes_out(&small, &credential, dist).await;
    }
    assert_eq!(index.writes().len(), 1);
    assert_eq!(job.state().await.unwrap(), "published");
    // Somebody else's file came in between: nothing more is sent.
    let (three, four) = (
        Dist::wheel("acme-half", "1.0").tagged("cp311"),
        Dist::wheel("acme-half", "1.0").tagged("cp312"),
    );
    let job = small
        .open(&[three.item(&[&one, &two]).unwrap()])
        .await
        .unwrap();
    assert!(small.alice.approve(&job).await.unwrap().good());
    index.has(&four.name, &four.bytes);
    let credential = job.credential().await.unwrap();
    let sent = post(&small.daemon.registry_url, &credential, three.form());
    assert!(sent.await.unwrap().0 >= 400);
    assert_eq!(index.writes().len(), 1);
}

/// A token of the issuer that names no run.
async fn of_no_run(small: &Small, audience: &str) -> String {
    let jti = hex(&api::random::<8>().unwrap());
    let claims = json!({"sub": "acme/left", "aud": audience, "jti": jti});
    small.mint(&json!({ "claims": claims })).await.unwrap()
}

/// A guest of no run.
async fn nobodys(small: &Small) -> String {
    let token = of_no_run(small, &audience(small).await).await;
    mint(small, &token).await.unwrap()
}

#[tokio::test]
async fn attack_17_where_no_run_is_named_a_release_with_more_files_is_not_taken_for_the_jobs_own() {
    let index = Index::start().await.unwrap();
    let small = nameless(&index).await;
    let (genuine, evil) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-left", "1.0").tagged("cp311"),
    );
    // Who stole the subject asks for the genuine file, which anybody can build, and one more.
    let stolen = of_no_run(&small, &small.daemon.url).await;
    let items = [genuine.item(&[&evil]).unwrap()];
    let theirs = Job::open(&small.daemon, &stolen, &items, "k")
        .await
        .unwrap();
    // The genuine job's log shows a question of its own.
    let told = waits(&small, &index, &nobodys(&small).await, &genuine).await;
    let (id, code) = asked(&told);
    assert_ne!(id, theirs.id.to_string());
    let job = Job::seen_by(&small.alice, &id, &code).await.unwrap();
    let shown: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let files = shown["facts"]["items"][0]["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{shown}");
    // What is one file alone is these bytes, whoever asked: the job, run again, is led to it.
    let again = waits(&small, &index, &nobodys(&small).await, &genuine).await;
    assert_eq!(asked(&again).0, id);
    assert!(approved(&small, &told).await);
    goes_out(&small, &nobodys(&small).await, &genuine).await;
}

#[tokio::test]
async fn attack_54_without_a_run_a_denied_question_locks_no_version_and_ends_nobody_elses() {
    let index = Index::start().await.unwrap();
    let small = nameless(&index).await;
    let (genuine, junk) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-left", "1.0").tagged("cp311"),
    );
    // A maintainer denies what a thief asked for, as he should.
    let told = waits(&small, &index, &nobodys(&small).await, &junk).await;
    let (id, code) = asked(&told);
    let job = Job::seen_by(&small.alice, &id, &code).await.unwrap();
    assert!(small.alice.deny(&job).await.unwrap().good());
    // While the genuine question waits, another upload of the subject neither ends nor lengthens it.
    let told = waits(&small, &index, &nobodys(&small).await, &genuine).await;
    let beside = waits(&small, &index, &nobodys(&small).await, &junk).await;
    let ids = [&told, &beside].map(|t| asked(t).0);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(small.waiting().await.unwrap(), 2);
    assert!(approved(&small, &told).await, "it is still there");
    goes_out(&small, &nobodys(&small).await, &genuine).await;
    assert_eq!(index.writes().len(), 1);
}

#[tokio::test]
async fn attack_29_who_built_a_part_of_a_release_is_the_requester_of_all_of_it() {
    let index = Index::start().await.unwrap();
    let small = small(&index).await;
    let (one, two) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-left", "1.0").tagged("py2"),
    );
    let right = audience(&small).await;
    let by = async |actor: &str, name: &str| {
        let claims = json!({"aud": right, "run_id": "1", "actor_id": actor, "actor": name});
        mint(&small, &small.token_with(&claims).await.unwrap())
            .await
            .unwrap()
    };
    let told = waits(&small, &index, &by("77", "alice").await, &one).await;
    // A colleague's job of the same run adds nothing: alice would count as an approver of her own file.
    let other = waits(&small, &index, &by("78", "bob").await, &two).await;
    assert!(other.contains("another person's job"), "{other}");
    assert_eq!(small.waiting().await.unwrap(), 1);
    let longer = waits(&small, &index, &by("77", "alice").await, &two).await;
    assert_ne!(asked(&longer).0, asked(&told).0);
    assert_eq!(small.waiting().await.unwrap(), 1);
}
