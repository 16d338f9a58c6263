//! GitLab CI: what the claims of its `id_tokens` mean, and which of them can be relied on.
//!
//! `sub` is not read: maintainers of a project set its form. Paths are kept for people to read; what
//! identifies is the id beside each (attack 6).

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    refused::CallerRefused,
    shape::{NAME_MAX, REF_MAX, commit, is_path, missing, number, shaped},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::collections::BTreeMap;

pub(super) const ROW: Row = Row {
    // A token lives as long as the job may run, an hour unless the project says otherwise.
    life: 60 * 60,
    audience_list: false,
    once: Once::Jti,
    server: None,
    facts,
};

fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let project_id = number(claims, "project_id")?;
    let path = shaped(claims, "project_path", REF_MAX, is_path)?;
    // In the pipeline of a fork's merge request the ids above are the fork's and this one is the
    // project's whose runners and protected variables it uses. Neither may pass for the other.
    if let Some(home) = claims.integer("job_project_id")?
        && home != project_id
    {
        return Err(CallerRefused::Event);
    }
    let full_ref = full_ref(claims)?;
    let run_id = number(claims, "pipeline_id")?;
    let job_id = number(claims, "job_id")?;
    let user_id = number(claims, "user_id")?;
    let run_url = format!("{}/{path}/-/jobs/{job_id}", config.server());

    let mut map = BTreeMap::from([
        ("project_id", project_id.clone()),
        ("namespace_id", number(claims, "namespace_id")?),
        ("sha", commit(claims, "sha")?),
        ("event", claims.required("pipeline_source", NAME_MAX)?),
        ("runner", claims.required("runner_environment", NAME_MAX)?),
        ("ref_protected", claims.required("ref_protected", NAME_MAX)?),
        ("actor", claims.required("user_login", NAME_MAX)?),
        ("run_id", run_id),
        ("job_id", job_id),
    ]);
    // The file that defines the pipeline; only where it lies in a repository of this GitLab.
    if let Some(uri) = claims.optional_or_null("ci_config_ref_uri", REF_MAX)? {
        map.insert("workflow", seen_from(config, &path, &full_ref, uri));
    }
    if claims
        .optional_or_null("ci_config_sha", NAME_MAX)?
        .is_some()
    {
        map.insert("ci_config_sha", commit(claims, "ci_config_sha")?);
    }
    for name in ["environment", "environment_protected", "deployment_tier"] {
        if let Some(value) = claims.optional_or_null(name, NAME_MAX)? {
            map.insert(name, value);
        }
    }
    map.insert("repository", path);
    map.insert("ref", full_ref);
    let actor = format!("{}:{user_id}", config.name);
    map.insert("actor_id", user_id);

    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: project_id,
        claims: map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        run_url: Some(run_url),
    };
    Ok((facts, Some(actor)))
}

/// A branch and a tag of one name are two things: the kind is part of the ref, as elsewhere.
fn full_ref(claims: &UnverifiedClaims) -> Result<String, CallerRefused> {
    let short = claims.required("ref", REF_MAX)?;
    match claims.required("ref_type", NAME_MAX)?.as_str() {
        "branch" => Ok(format!("refs/heads/{short}")),
        "tag" => Ok(format!("refs/tags/{short}")),
        _ => Err(missing("ref_type")),
    }
}

/// `gitlab.example.org/acme/left//.gitlab-ci.yml@refs/tags/v1` without host, project and ref when they
/// are the job's own. Anything else is kept whole, so that a policy which names a local file never
/// matches another project's (attack 7).
fn seen_from(config: &IssuerConfig, path: &str, full_ref: &str, uri: String) -> String {
    let issuer = config.issuer.trim_end_matches('/');
    let host = issuer.split_once("://").map_or(issuer, |(_, host)| host);
    uri.strip_prefix(host)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(path))
        .and_then(|rest| rest.strip_prefix("//"))
        .and_then(|rest| rest.strip_suffix(full_ref))
        .and_then(|rest| rest.strip_suffix('@'))
        .map(str::to_owned)
        // What has two slashes is a foreign file; a local one with two would look like it.
        .filter(|file| !file.contains("//") && !file.is_empty())
        .unwrap_or(uri)
}
