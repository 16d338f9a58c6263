//! CircleCI: what the claims of its tokens mean, and which of them can be relied on.
//!
//! The token in `CIRCLE_OIDC_TOKEN` has the organisation's id as its audience, so whoever a job shows
//! it to could show it to others: it is refused like any foreign audience. The job asks for one of
//! its own with `circleci run oidc get`.

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    shape::{REF_MAX, is_uuid, missing, uuid},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::collections::BTreeMap;

pub(super) const ROW: Row = Row {
    // Always an hour.
    life: 60 * 60,
    audience_list: false,
    once: Once::SignedText,
    server: Some("https://app.circleci.com"),
    facts,
};

fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let org_id = uuid(claims, "oidc.circleci.com/org-id")?;
    let project_id = uuid(claims, "oidc.circleci.com/project-id")?;
    let workflow_id = uuid(claims, "oidc.circleci.com/workflow-id")?;
    let user = user(&claims.sub, &org_id, &project_id).ok_or_else(|| missing("sub"))?;
    let run_url = format!("{}/pipelines/workflows/{workflow_id}", config.server());

    let mut map = BTreeMap::from([
        ("org_id", org_id),
        ("circleci_project_id", project_id.clone()),
        (
            "pipeline_definition_id",
            uuid(claims, "oidc.circleci.com/pipeline-definition-id")?,
        ),
        ("run_id", workflow_id),
        ("actor_id", user.to_owned()),
    ]);
    // Somebody has a shell in such a job: whatever its steps say, his hands run.
    if claims.flag("oidc.circleci.com/ssh-rerun")? {
        map.insert("event", "ssh-rerun".to_owned());
    }
    // Absent when a custom webhook started the pipeline; a policy that names them then says no.
    // The origin tells a fork's build from the project's own.
    for (name, claim) in [
        ("origin", "oidc.circleci.com/vcs-origin"),
        ("ref", "oidc.circleci.com/vcs-ref"),
    ] {
        if let Some(value) = claims.optional(claim, REF_MAX)? {
            map.insert(name, value);
        }
    }
    // One context gives the job its secrets; of several, none could stand for all.
    if let [context] = claims
        .strings("oidc.circleci.com/context-ids", 36)?
        .as_slice()
    {
        map.insert("context", context.clone());
    }
    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: project_id,
        claims: map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        run_url: Some(run_url),
    };
    let actor = format!("{}:{user}", config.name);
    Ok((facts, Some(actor)))
}

/// The user in `org/O/project/P/user/U` and in `org/O/project/P/user/U/vcs-origin/…`. Without it a
/// requester could approve his own request, so there is no token without.
fn user<'s>(sub: &'s str, org_id: &str, project_id: &str) -> Option<&'s str> {
    let rest = sub.strip_prefix("org/")?.strip_prefix(org_id)?;
    let rest = rest.strip_prefix("/project/")?.strip_prefix(project_id)?;
    let rest = rest.strip_prefix("/user/")?;
    let user = match rest.split_once('/') {
        None => rest,
        Some((user, more)) => more.starts_with("vcs-origin/").then_some(user)?,
    };
    is_uuid(user).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requester_is_read_from_both_forms_of_sub_and_from_nothing_else() {
        let (o, p, u) = (
            "00000000-0000-1000-8000-000000000001",
            "00000000-0000-1000-8000-000000000002",
            "00000000-0000-1000-8000-000000000003",
        );
        let good = format!("org/{o}/project/{p}/user/{u}");
        let long = format!("{good}/vcs-origin/github.com/acme/left/vcs-ref/refs/heads/main");
        assert_eq!(user(&good, o, p), Some(u));
        assert_eq!(user(&long, o, p), Some(u));
        for bad in [
            String::new(),
            format!("org/{p}/project/{o}/user/{u}"),
            format!("org/{o}/project/{p}/user/"),
            format!("org/{o}/project/{p}/user/{u}x"),
            format!("org/{o}/project/{p}/user/{u}/user/{o}"),
            format!("x{good}"),
            good.to_uppercase(),
        ] {
            assert_eq!(user(&bad, o, p), None, "{bad}");
        }
    }
}
