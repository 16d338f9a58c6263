//! Mode `mint`: the job gets a token of the registry's own, narrowed to its project and a few minutes. The
//! index of these tests believes the reference library about tokens, and nobody else.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::api::{Mode, SealedRelease};
use serde_json::{Value, json};
use stand::{
    api::{Job, Small},
    daemon::Daemon,
    index::{Dist, Index, post},
    parts::Issuer,
    python::{self, program, project},
    team::Team,
};
use std::{fs, path::Path};

/// One approval by a device.
fn policy(more: &str) -> String {
    let policy = python::policy(1).replace("\"totp\"", "\"device\"");
    format!("{policy}mode = \"mint\"\n{more}\n")
}

fn builder(index: &Index, policy: &str) -> stand::daemon::Builder {
    builder_with(index, policy, "")
}

fn builder_with(index: &Index, policy: &str, more: &str) -> stand::daemon::Builder {
    let keys = format!("upload_url = \"{}/legacy/\"\n{more}", index.url);
    Daemon::builder()
        .registry_with("pypi", "pypi", &format!("{}/simple/", index.url), &keys)
        .policy(policy)
}

async fn small(index: &Index, policy: &str) -> Small {
    let token = index.takes_macaroons().unwrap();
    small_with(index, &token, policy, "").await
}

/// A broker in front of an index that knows this token, with more lines about the registry.
async fn small_with(index: &Index, token: &str, policy: &str, more: &str) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let builder = builder_with(index, policy, more).issuer("github", "github", &issuer.url, None);
    Small::with_token(builder, issuer, ("pypi", token))
        .await
        .unwrap()
}

async fn approved(small: &Small, dist: &Dist) -> Job {
    let job = small.open(&[dist.item(&[]).unwrap()]).await.unwrap();
    let answer = small.alice.approve(&job).await.unwrap();
    assert!(answer.good(), "{}", answer.text);
    job
}

#[tokio::test]
async fn twine_publishes_past_the_broker_with_a_minted_token() {
    let index = Index::start().await.unwrap();
    let token = index.takes_macaroons().unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = builder(&index, &policy("mint_life = \"5m\""));
    let team = Team::assemble(index, issuer, builder, ("pypi", &token), "")
        .await
        .unwrap();
    let built = project(team.folder(), "acme-minted", "1.0.0")
        .await
        .unwrap();
    let dist = built.folder.join("dist").display().to_string();
    let twine = program("twine").unwrap();
    let venv = Path::new(&twine).parent().unwrap().display().to_string();
    let path = format!("{venv}:{}", std::env::var("PATH").unwrap());
    let id_token = team.id_token().await.unwrap();
    let env = [("COUNTERSIGN_ID_TOKEN", id_token.as_str()), ("PATH", &path)];
    let mut job = team
        .job_as(&["publish", "pypi", &dist], &env)
        .await
        .unwrap();
    let screen = team
        .run(&team.maintainers[0], &["show", &job.id], &[])
        .await;
    let screen = screen.unwrap().stdout;
    assert!(screen.contains("ANY files of this project"), "{screen}");
    let args = ["approve", &job.id, "--match-code", &job.match_code];
    team.run(&team.maintainers[0], &args, &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let text = job.text();
    assert!(text.contains("minted a token of the registry"), "{text}");
    assert!(
        !text.contains("pypi-AgE"),
        "a token in the job's log: {text}"
    );
    for file in [&built.wheel, &built.sdist] {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(team.registry.file(name), Some(fs::read(file).unwrap()));
    }
    let writes = team.registry.writes();
    assert!(
        writes.iter().all(|w| w.token),
        "uploads went past the broker"
    );
}

#[tokio::test]
async fn attack_38_a_minted_token_is_for_one_project_and_its_few_minutes() {
    let index = Index::start().await.unwrap();
    let small = small(&index, &policy("")).await;
    let (left, other) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-other", "1.0"),
    );
    let job = approved(&small, &left).await;
    let mut release: SealedRelease = job.collect().await.unwrap();
    assert!(release.credential.is_none() && release.secret.is_none());
    let minted = release.minted.take().unwrap();
    assert_eq!(minted.upload_url, format!("{}/legacy/", index.url));
    // The policy says nothing of its life: it is the shortest.
    let left_over = minted.expires.0.abs_diff(stand::now().unwrap());
    assert!(left_over <= 120, "{left_over}");
    for (project, later, good) in [
        ("acme-left", 0, true),
        ("acme-left", -30, true),
        ("acme-left", 121, false),
        ("acme-left", -120, false),
        ("acme-other", 0, false),
        ("acme-lef", 0, false),
        ("acme-left-x", 0, false),
    ] {
        let holds = index.holds(&minted.token, project, later).unwrap();
        assert_eq!(holds, good, "{project} in {later} s");
    }
    // The same at the index, by HTTP.
    let (status, text) = post(&index.url, &minted.token, other.form()).await.unwrap();
    assert_eq!(status, 403, "{text}");
    index.ahead(121);
    let (status, text) = post(&index.url, &minted.token, left.form()).await.unwrap();
    assert_eq!(status, 403, "{text}");
    index.ahead(0);
    // At the broker's own endpoint it is nothing.
    let (status, text) = post(&small.daemon.registry_url, &minted.token, left.form())
        .await
        .unwrap();
    assert_eq!(status, 403, "{text}");
    let (status, text) = post(&index.url, &minted.token, left.form()).await.unwrap();
    assert_eq!(status, 200, "the control: {text}");
    small.until(&job, "published").await.unwrap();
}

async fn minted(small: &Small, dist: &Dist) -> String {
    let job = approved(small, dist).await;
    let mut release: SealedRelease = job.collect().await.unwrap();
    let minted = release.minted.take().unwrap();
    minted.token.clone()
}

#[tokio::test]
async fn attack_38_a_token_minted_by_id_makes_no_project_and_fits_no_namesake() {
    let index = Index::start().await.unwrap();
    let stored = index.takes_macaroons().unwrap();
    let (left, gone) = (
        Dist::wheel("acme-left", "1.0"),
        Dist::wheel("acme-gone", "1.0"),
    );
    let ids = ["acme-left", "acme-gone", "acme-other"].map(|p| index.registers(p).unwrap());
    let [left_id, gone_id, other_id] = &ids;
    let more = format!(
        "project_ids = {{ acme-left = \"{left_id}\", acme-gone = \"{gone_id}\", acme-wrong = \"{other_id}\" }}"
    );
    let small = small_with(&index, &stored, &policy(""), &more).await;
    let token = minted(&small, &left).await;
    assert!(index.holds(&token, "acme-left", 0).unwrap(), "the control");
    assert!(!index.holds(&token, "acme-other", 0).unwrap());
    assert!(!index.holds(&token, "acme-left", 121).unwrap());
    let (status, text) = post(&index.url, &token, left.form()).await.unwrap();
    assert_eq!(status, 200, "the control: {text}");

    // The project was deleted, and whoever uploads to its name makes another one: by its name alone that would do.
    let token = minted(&small, &gone).await;
    assert!(index.holds(&token, "acme-gone", 0).unwrap());
    assert_ne!(&index.registers("acme-gone").unwrap(), gone_id);
    let (status, text) = post(&index.url, &token, gone.form()).await.unwrap();
    assert_eq!(status, 403, "{text}");

    // The id of another project, written by mistake: good for neither.
    let token = minted(&small, &Dist::wheel("acme-wrong", "1.0")).await;
    for project in ["acme-wrong", "acme-other"] {
        assert!(!index.holds(&token, project, 0).unwrap(), "{project}");
    }

    // No line, no token: said before anybody is asked.
    let job = small.id_token().await.unwrap();
    let item = Dist::wheel("acme-lost", "1.0").item(&[]).unwrap();
    let reply = small.open_raw(&job, &[item]).await.unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.text.contains("project_ids"), "{}", reply.text);

    // What a name alone allows, so that the refusal above is the id's doing.
    let by_name = small_with(&index, &stored, &policy(""), "").await;
    let new = Dist::wheel("acme-gone", "1.1");
    let token = minted(&by_name, &new).await;
    let (status, text) = post(&index.url, &token, new.form()).await.unwrap();
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn attack_36_a_hundred_collects_mint_one_token() {
    let index = Index::start().await.unwrap();
    let small = small(&index, &policy("mint_life = \"15m\"")).await;
    let job = approved(&small, &Dist::wheel("acme-left", "1.0")).await;
    let all = (0..100).map(|_| job.collect_raw());
    let all = futures_util::future::join_all(all).await;
    let sealed: std::collections::BTreeSet<String> = all
        .into_iter()
        .map(|reply| {
            let reply = reply.unwrap();
            assert!(reply.good(), "{}", reply.text);
            let reply: Value = reply.json();
            assert_eq!(reply["mode"], serde_json::to_value(Mode::Mint).unwrap());
            reply["sealed"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(sealed.len(), 1);
}

#[tokio::test]
async fn a_token_that_cannot_be_narrowed_is_not_minted_from() {
    // The stored token is no macaroon, and good all the same.
    let index = Index::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let builder = builder(&index, &policy("")).issuer("github", "github", &issuer.url, None);
    let small = Small::with_token(builder, issuer, ("pypi", stand::index::TOKEN))
        .await
        .unwrap();
    let job = approved(&small, &Dist::wheel("acme-left", "1.0")).await;
    let reply = job.collect_raw().await.unwrap();
    assert!(!reply.good(), "{}", reply.text);
    assert!(reply.text.contains("no macaroon"), "{}", reply.text);
    // Two projects are two questions.
    let token = small.id_token().await.unwrap();
    let items = [
        Dist::wheel("acme-left", "1.1").item(&[]).unwrap(),
        Dist::wheel("acme-right", "1.0").item(&[]).unwrap(),
    ];
    let reply = small.open_raw(&token, &items).await.unwrap();
    assert!(!reply.good(), "{}", reply.text);
}

#[tokio::test]
async fn a_minted_token_is_told_in_an_incident_after_its_request_has_ended() {
    let index = Index::start().await.unwrap();
    let small = small(&index, &policy("")).await;
    let dist = Dist::wheel("acme-left", "1.0");
    let job = approved(&small, &dist).await;
    let mut release: SealedRelease = job.collect().await.unwrap();
    let minted = release.minted.take().unwrap();
    let (status, text) = post(&index.url, &minted.token, dist.form()).await.unwrap();
    assert!(status < 300, "{text}");
    small.until(&job, "published").await.unwrap();
    let path = "/v1/admin/panic";
    let stopped = small.robin.call("POST", path, &json!({})).await;
    let stopped: Value = stopped.unwrap().ok().unwrap();
    assert!(stopped.get("handed_out").is_none(), "{stopped}");
    let path = "/v1/admin/published?since=0";
    let page = small.robin.call("GET", path, &Value::Null).await.unwrap();
    let page: Value = page.ok().unwrap();
    let line = &page["given"][0];
    assert_eq!(line["request"], job.id.to_string(), "{page}");
    assert_eq!(
        (&line["kind"], &line["state"]),
        (&json!("minted"), &json!("published"))
    );
    assert_eq!(
        (&line["until"], &line["left"]),
        (&json!(minted.expires), &json!(1))
    );
    assert!(line["ended"].is_u64());
}
