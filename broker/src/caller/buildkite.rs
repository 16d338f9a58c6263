//! Buildkite: what the claims of its tokens mean, and which of them can be relied on.
//!
//! Slugs can be given to another pipeline, so the two ids have to be in the token; the job asks for
//! them (`--claim organization_id,pipeline_id`). Branch, tag and commit are what whoever made the build
//! said. For a build by `webhook` that is the forge, for one by `ui` or `api` a person. No claim says
//! who it was, so nobody can be left out of the approvers as the requester.

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    shape::{NAME_MAX, REF_MAX, is_commit, is_segment, missing, shaped, uuid},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::collections::BTreeMap;

pub(super) const ROW: Row = Row {
    life: 15 * 60,
    audience_list: false,
    once: Once::SignedText,
    server: Some("https://buildkite.com"),
    facts,
};

fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let pipeline_id = uuid(claims, "pipeline_id")?;
    let organization = shaped(claims, "organization_slug", NAME_MAX, is_segment)?;
    let pipeline = shaped(claims, "pipeline_slug", NAME_MAX, is_segment)?;
    let number = claims
        .integer("build_number")?
        .ok_or_else(|| missing("build_number"))?;
    let job_id = uuid(claims, "job_id")?;
    let run_url = format!(
        "{}/{organization}/{pipeline}/builds/{number}#{job_id}",
        config.server()
    );

    let mut map = BTreeMap::from([
        ("pipeline_id", pipeline_id.clone()),
        ("organization_id", uuid(claims, "organization_id")?),
        ("event", claims.required("build_source", NAME_MAX)?),
        ("runner", claims.required("runner_environment", NAME_MAX)?),
        ("run_id", number),
        ("job_id", job_id),
        ("agent_id", uuid(claims, "agent_id")?),
    ]);
    let branch = claims.required("build_branch", REF_MAX)?;
    let full_ref = match claims.optional_or_null("build_tag", REF_MAX)? {
        Some(tag) => format!("refs/tags/{tag}"),
        None => format!("refs/heads/{branch}"),
    };
    map.insert("ref", full_ref);
    // `HEAD` until an agent has found out what it is.
    let commit = claims.required("build_commit", REF_MAX)?;
    if is_commit(&commit) {
        map.insert("sha", commit);
    }
    if let Some(step) = claims.optional_or_null("step_key", NAME_MAX)? {
        map.insert("step", step);
    }
    map.insert("pipeline", format!("{organization}/{pipeline}"));

    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: pipeline_id,
        claims: map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        run_url: Some(run_url),
    };
    Ok((facts, None))
}
