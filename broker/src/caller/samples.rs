//! One honest token's claims for every kind: the table over which the attack tests run.

use super::{Kind, testkit::*};
use serde_json::{Value, json};

/// A kind, and what may be bent in its tokens without a refusal.
pub(super) struct Sample {
    pub(super) kind: Kind,
    pub(super) claims: fn() -> Value,
    /// The claim (as a JSON pointer) that identifies, and the subject that it becomes.
    pub(super) id: (&'static str, &'static str),
    /// Somebody else's id.
    pub(super) other_id: &'static str,
    /// Claims that nobody reads.
    pub(super) unread: &'static [&'static str],
    /// Claims that may be absent.
    pub(super) optional: &'static [&'static str],
    /// Claims that may be `null` or empty, for absent.
    pub(super) nullable: &'static [&'static str],
    /// Whether the audience is a list.
    pub(super) lists: bool,
    /// Whether a token is burnt by its `jti`.
    pub(super) has_jti: bool,
}

pub(super) const U: [&str; 8] = [
    "00000000-0000-1000-8000-000000000000",
    "00000000-0000-1000-8000-000000000001",
    "00000000-0000-1000-8000-000000000002",
    "00000000-0000-1000-8000-000000000003",
    "00000000-0000-1000-8000-000000000004",
    "00000000-0000-1000-8000-000000000005",
    "00000000-0000-1000-8000-000000000006",
    "00000000-0000-1000-8000-000000000007",
];

pub(super) const SAMPLES: [Sample; 6] = [
    Sample {
        kind: Kind::Github,
        claims: github_claims,
        id: ("/repository_id", "123"),
        other_id: "124",
        unread: &["head_ref", "repository_visibility"],
        optional: &["nbf", "environment", "job_workflow_sha"],
        nullable: &[],
        lists: false,
        has_jti: true,
    },
    Sample {
        kind: Kind::Gitlab,
        claims: gitlab_claims,
        id: ("/project_id", "28"),
        other_id: "29",
        unread: &["user_email", "runner_id", "ref_path"],
        optional: &[
            "nbf",
            "environment",
            "environment_protected",
            "ci_config_ref_uri",
            "ci_config_sha",
            "job_project_id",
        ],
        nullable: &[
            "environment",
            "environment_protected",
            "ci_config_ref_uri",
            "ci_config_sha",
        ],
        lists: false,
        has_jti: true,
    },
    Sample {
        kind: Kind::Circleci,
        claims: circleci_claims,
        id: ("/oidc.circleci.com~1project-id", U[2]),
        other_id: U[7],
        unread: &["oidc.circleci.com/job-id"],
        optional: &[
            "oidc.circleci.com/vcs-origin",
            "oidc.circleci.com/vcs-ref",
            "oidc.circleci.com/context-ids",
        ],
        nullable: &[],
        lists: false,
        has_jti: false,
    },
    Sample {
        kind: Kind::Buildkite,
        claims: buildkite_claims,
        id: ("/pipeline_id", U[2]),
        other_id: U[7],
        unread: &[],
        optional: &["nbf", "build_tag", "step_key"],
        nullable: &["build_tag", "step_key"],
        lists: false,
        has_jti: false,
    },
    Sample {
        kind: Kind::Kubernetes,
        claims: kubernetes_claims,
        id: ("/kubernetes.io/serviceaccount/uid", U[2]),
        other_id: U[7],
        unread: &[],
        optional: &["nbf"],
        nullable: &[],
        lists: true,
        has_jti: true,
    },
    Sample {
        kind: Kind::Oidc,
        claims: oidc_claims,
        id: ("/sub", "job-9"),
        other_id: "job-10",
        unread: &["something"],
        optional: &["nbf", "project_id"],
        nullable: &[],
        lists: false,
        has_jti: true,
    },
];

fn gitlab_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "jti": "one", "iat": NOW.0,
        "exp": NOW.0 + 3600, "nbf": NOW.0 - 5,
        "sub": "project_path:acme/tools/left:ref_type:tag:ref:v1",
        "project_id": "28", "project_path": "acme/tools/left", "namespace_id": "72",
        "namespace_path": "acme/tools", "job_project_id": "28",
        "user_id": "5", "user_login": "alice", "user_email": "alice@example.org",
        "pipeline_id": "455", "pipeline_source": "push", "job_id": "1123",
        "ref": "v1", "ref_type": "tag", "ref_path": "refs/tags/v1", "ref_protected": "true",
        "environment": "release", "environment_protected": "true",
        "runner_id": 1, "runner_environment": "gitlab-hosted",
        "sha": "0123456789012345678901234567890123456789",
        "ci_config_ref_uri": "issuer.example/acme/tools/left//.gitlab-ci.yml@refs/tags/v1",
        "ci_config_sha": "0123456789012345678901234567890123456789",
    })
}

fn circleci_claims() -> Value {
    let sub = format!(
        "org/{}/project/{}/user/{}/vcs-origin/github.com/acme/left/vcs-ref/refs/tags/v1",
        U[1], U[2], U[3]
    );
    json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "iat": NOW.0, "exp": NOW.0 + 3600,
        "sub": sub,
        "oidc.circleci.com/org-id": U[1], "oidc.circleci.com/project-id": U[2],
        "oidc.circleci.com/pipeline-definition-id": U[4],
        "oidc.circleci.com/workflow-id": U[5], "oidc.circleci.com/job-id": U[6],
        "oidc.circleci.com/context-ids": [U[0]], "oidc.circleci.com/ssh-rerun": false,
        "oidc.circleci.com/vcs-origin": "github.com/acme/left",
        "oidc.circleci.com/vcs-ref": "refs/tags/v1",
    })
}

fn buildkite_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "iat": NOW.0, "nbf": NOW.0,
        "exp": NOW.0 + 300,
        "sub": "organization:acme:pipeline:left:ref:refs/tags/v1:commit:0123:step:release",
        "organization_slug": "acme", "pipeline_slug": "left",
        "organization_id": U[1], "pipeline_id": U[2],
        "build_number": 12, "build_branch": "main", "build_tag": "v1",
        "build_commit": "0123456789012345678901234567890123456789",
        "step_key": "release", "job_id": U[3], "agent_id": U[4], "build_source": "webhook",
        "runner_environment": "buildkite-hosted",
    })
}

fn kubernetes_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": [AUDIENCE], "jti": U[6], "iat": NOW.0,
        "nbf": NOW.0, "exp": NOW.0 + 3607,
        "sub": "system:serviceaccount:release:publisher",
        "kubernetes.io": {
            "namespace": "release",
            "node": {"name": "worker-1", "uid": U[4]},
            "pod": {"name": "publish-x7k2p", "uid": U[3]},
            "serviceaccount": {"name": "publisher", "uid": U[2]},
            "warnafter": NOW.0 + 600,
        },
    })
}

fn oidc_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "jti": "one", "sub": "job-9",
        "iat": NOW.0, "exp": NOW.0 + 300, "nbf": NOW.0, "project_id": "9", "something": "else",
    })
}
