//! GitHub Actions: what its claims mean, and which of them can be relied on.
//!
//! `sub` is not read: its form is set by repository admins. Names (`repository`, `actor`) are kept for
//! people to read; what identifies is the id beside each (attack 6).

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    shape::{NAME_MAX, REF_MAX, commit, is_commit, is_segment, missing, number, shaped},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::collections::BTreeMap;

/// Where workflow files are.
const WORKFLOWS: &str = ".github/workflows/";

pub(super) const ROW: Row = Row {
    life: 15 * 60,
    audience_list: false,
    once: Once::Jti,
    server: Some("https://github.com"),
    facts,
};

fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let repository = shaped(claims, "repository", NAME_MAX, is_repository)?;
    let repository_id = number(claims, "repository_id")?;
    let actor_id = number(claims, "actor_id")?;
    let run_id = number(claims, "run_id")?;
    let run_attempt = number(claims, "run_attempt")?;

    let job_ref = claims.required("job_workflow_ref", REF_MAX)?;
    let job = Workflow::read(&job_ref).ok_or_else(|| missing("job_workflow_ref"))?;
    let entry = claims.required("workflow_ref", REF_MAX)?;
    let entry = Workflow::read(&entry).ok_or_else(|| missing("workflow_ref"))?;

    let mut map = BTreeMap::from([
        // The file that has the job's steps. In another repository it keeps that repository's
        // name, so that a policy which names a local file never matches a foreign one (attack 7).
        ("workflow", job.seen_from(&repository)),
        // The file that started the run; another one when the job is of a reusable workflow.
        ("entry_workflow", entry.seen_from(&repository)),
        (
            "repository_owner_id",
            number(claims, "repository_owner_id")?,
        ),
        ("ref", claims.required("ref", REF_MAX)?),
        ("sha", commit(claims, "sha")?),
        ("event", claims.required("event_name", NAME_MAX)?),
        ("runner", claims.required("runner_environment", NAME_MAX)?),
        ("actor", claims.required("actor", NAME_MAX)?),
        ("run_number", number(claims, "run_number")?),
    ]);
    if let Some(environment) = claims.optional("environment", NAME_MAX)? {
        map.insert("environment", environment);
    }
    // Which commit of the job's file ran. Whoever calls a reusable workflow chooses it, a fork's too,
    // so a policy that trusts another repository's file has to pin it. Old enterprise servers lack it.
    if claims.optional("job_workflow_sha", NAME_MAX)?.is_some() {
        map.insert("job_workflow_sha", commit(claims, "job_workflow_sha")?);
    }
    // Built from checked parts and the configured server: a link from a token could lead anywhere.
    let run_url = format!(
        "{}/{repository}/actions/runs/{run_id}/attempts/{run_attempt}",
        config.server()
    );
    map.insert("job_workflow_ref", job_ref);
    map.insert("repository", repository);
    map.insert("repository_id", repository_id.clone());
    map.insert("run_id", run_id);
    map.insert("run_attempt", run_attempt);
    let actor = format!("{}:{actor_id}", config.name);
    map.insert("actor_id", actor_id);

    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: repository_id,
        claims: map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        run_url: Some(run_url),
    };
    Ok((facts, Some(actor)))
}

/// `owner/repo/.github/workflows/x.yml@refs/heads/main`, taken apart.
struct Workflow<'a> {
    repository: &'a str,
    path: &'a str,
}

impl<'a> Workflow<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // At the first `@`, after which only a full ref or a commit may stand: a file named
        // `release.yml@x.yml` must not pass for `release.yml`.
        let (file, at) = text.split_once('@')?;
        let is_ref = at.strip_prefix("refs/").is_some_and(|r| !r.is_empty());
        if !is_ref && !is_commit(at) {
            return None;
        }
        let (owner, rest) = file.split_once('/')?;
        let (name, path) = rest.split_once('/')?;
        let repository = file.get(..owner.len() + 1 + name.len())?;
        // Workflow files lie directly in the folder.
        let leaf = path.strip_prefix(WORKFLOWS)?;
        (is_repository(repository) && !leaf.is_empty() && !leaf.contains('/'))
            .then_some(Self { repository, path })
    }

    /// Without the repository when it is the caller's own.
    fn seen_from(&self, repository: &str) -> String {
        if self.repository == repository {
            self.path.to_owned()
        } else {
            format!("{}/{}", self.repository, self.path)
        }
    }
}

/// `owner/name`.
fn is_repository(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(owner, name)| is_segment(owner) && is_segment(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_07_a_foreign_or_look_alike_workflow_keeps_its_repository() {
        let seen = |text: &str| Workflow::read(text).map(|w| w.seen_from("acme/left"));
        let local = ".github/workflows/release.yml";
        assert_eq!(
            seen("acme/left/.github/workflows/release.yml@refs/tags/v1").as_deref(),
            Some(local)
        );
        for other in [
            "evil/left/.github/workflows/release.yml@refs/heads/main",
            "acme/left2/.github/workflows/release.yml@refs/heads/main",
            "Acme/left/.github/workflows/release.yml@refs/heads/main",
            "acme/left/.github/workflows/release.yml@x.yml@refs/heads/main",
            "acme/left/.github/workflows/sub/release.yml@refs/heads/main",
            "acme/left/.github/workflows/@refs/heads/main",
            "acme/left/.github/workflows/release.yml@refs/",
            "acme/left/.github/workflows/release.yml",
            "acme/../.github/workflows/release.yml@refs/heads/main",
            "/acme/left/.github/workflows/release.yml@refs/heads/main",
            "",
        ] {
            assert_ne!(seen(other).as_deref(), Some(local), "{other}");
        }
    }
}
