//! Python packages: real indexes, the real twine, uv and hatch, unmodified, through the broker.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::digest::{Algorithm, Digest, hex};
use stand::{
    daemon::Daemon,
    parts::Issuer,
    python::{self, Built, Devpi, PyPiServer, program, project},
    team::{Team, Waiting},
};
use std::{fs, path::Path};

/// An organisation over pypiserver.
async fn over_pypiserver() -> Team<PyPiServer> {
    over_pypiserver_with(&python::policy(2)).await
}

async fn over_pypiserver_with(policy: &str) -> Team<PyPiServer> {
    let registry = PyPiServer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let builder = Daemon::builder()
        .registry_with("pypi", "pypi", &registry.index, &keys)
        .policy(policy);
    let token = registry.token.clone();
    let issuer = Issuer::start().await.unwrap();
    Team::assemble(registry, issuer, builder, ("pypi", &token), "")
        .await
        .unwrap()
}

/// Starts `countersign publish pypi <args>` as the CI job.
async fn publish<R>(team: &Team<R>, args: &[&str]) -> anyhow::Result<Waiting> {
    let token = team.id_token().await?;
    let all: Vec<&str> = ["publish", "pypi"].iter().chain(args).copied().collect();
    let path = std::env::var("PATH")?;
    let venv = Path::new(&program("twine")?)
        .parent()
        .unwrap()
        .display()
        .to_string();
    let path = format!("{venv}:{path}");
    team.job_as(&all, &[("COUNTERSIGN_ID_TOKEN", &token), ("PATH", &path)])
        .await
}

fn sha256(path: &Path) -> String {
    hex(Digest::of(Algorithm::Sha256, &fs::read(path).unwrap()).as_bytes())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// What an index must show of a release.
fn expected(built: &Built) -> Vec<(String, String)> {
    let mut all: Vec<_> = [&built.wheel, &built.sdist]
        .iter()
        .map(|p| (name(p), sha256(p)))
        .collect();
    all.sort();
    all
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn twine_and_uv_publish_a_release_only_after_two_people_approved() {
    let team = over_pypiserver().await;
    let index = team.registry.index.clone();
    for (project_name, client) in [("acme-twine", vec![]), ("acme-uv", vec!["uv", "publish"])] {
        let built = project(team.folder(), project_name, "1.0.0").await.unwrap();
        let folder = text(&built.folder);
        let mut args = vec![folder.as_str()];
        if !client.is_empty() {
            args.push("--");
            args.extend(&client);
        }
        let mut job = publish(&team, &args).await.unwrap();
        team.approve(&team.maintainers[0], &job)
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert!(
            python::shown(&index, project_name)
                .await
                .unwrap()
                .is_empty(),
            "one of two"
        );
        team.approve(&team.maintainers[1], &job)
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
        let shown = python::shown(&index, project_name).await.unwrap();
        assert_eq!(shown, expected(&built), "{}", job.text());
        // The bytes are the approved ones, and nothing else of the job's is there.
        assert_eq!(
            team.registry.file(&name(&built.wheel)),
            Some(fs::read(&built.wheel).unwrap())
        );
        assert!(!job.text().contains(&team.registry.token));
    }
}

#[tokio::test]
async fn hatch_publishes_by_its_own_settings() {
    let team = over_pypiserver().await;
    let built = project(team.folder(), "acme-hatch", "1.0.0").await.unwrap();
    let folder = text(&built.folder);
    let job = publish(&team, &[&folder, "--", "hatch", "publish", "-n"])
        .await
        .unwrap();
    team.approve_both(&job).await.unwrap();
    let mut job = job;
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = python::shown(&team.registry.index, "acme-hatch")
        .await
        .unwrap();
    assert_eq!(shown, expected(&built));
}

#[tokio::test]
async fn devpi_takes_a_project_scoped_token_from_the_broker() {
    let registry = Devpi::start().await.unwrap();
    let keys = format!(
        "upload_url = \"{}\"\nuser = \"{}\"",
        registry.upload, registry.user
    );
    let builder = Daemon::builder()
        .registry_with("pypi", "pypi", &registry.index, &keys)
        .policy(&python::policy(2));
    let token = registry.token("acme-scoped").await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let team = Team::assemble(registry, issuer, builder, ("pypi", &token), "")
        .await
        .unwrap();
    let built = project(team.folder(), "acme-scoped", "1.0.0")
        .await
        .unwrap();
    let mut job = publish(&team, &[&text(&built.folder)]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = python::shown(&team.registry.index, "acme-scoped")
        .await
        .unwrap();
    assert_eq!(shown, expected(&built));

    // Another project is outside of the token: the registry's words reach the job, and nothing is there.
    let other = project(team.folder(), "acme-other", "1.0.0").await.unwrap();
    let mut job = publish(&team, &[&text(&other.folder)]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_ne!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(
        job.text().contains("does the stored token cover"),
        "{}",
        job.text()
    );
    assert!(
        python::shown(&team.registry.index, "acme-other")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_release_is_handed_over_and_the_broker_publishes_it_after_the_approval() {
    let policy = python::policy(1).replacen("version =", "mode = \"deposit\"\nversion =", 1);
    let team = over_pypiserver_with(&policy).await;
    let built = project(team.folder(), "acme-deposit", "1.0.0")
        .await
        .unwrap();
    let mut job = publish(&team, &[&text(&built.folder)]).await.unwrap();
    let index = team.registry.index.clone();
    team.approve(&team.maintainers[0], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(
        job.text().contains("Nothing is published yet"),
        "{}",
        job.text()
    );
    let shown = python::shown(&index, "acme-deposit").await.unwrap();
    assert_eq!(shown, expected(&built));
}

#[tokio::test]
async fn a_folder_with_files_of_two_projects_is_two_releases_and_one_approval() {
    let policy = python::policy(1).replace("\"totp\"", "\"device\"");
    let team = over_pypiserver_with(&policy).await;
    let dist = team.folder().join("dist");
    fs::create_dir(&dist).unwrap();
    let mut all = Vec::new();
    for (project_name, version) in [("acme-one", "1.0.0"), ("acme-two", "2.1.0")] {
        let built = project(team.folder(), project_name, version).await.unwrap();
        for file in [&built.wheel, &built.sdist] {
            fs::copy(file, dist.join(name(file))).unwrap();
        }
        all.push((project_name, built));
    }
    let mut job = publish(&team, &[&text(&dist)]).await.unwrap();
    let alice = &team.maintainers[0];
    let screen = team.run(alice, &["show", &job.id], &[]).await.unwrap();
    for (project_name, built) in &all {
        assert!(screen.stdout.contains(project_name), "{screen}");
        for file in [&built.wheel, &built.sdist] {
            assert!(screen.stdout.contains(&name(file)), "{screen}");
        }
    }
    let args = ["approve", &job.id, "--match-code", &job.match_code];
    team.run(alice, &args, &[]).await.unwrap().ok().unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    for (project_name, built) in &all {
        let shown = python::shown(&team.registry.index, project_name).await;
        assert_eq!(shown.unwrap(), expected(built), "{}", job.text());
    }
}
