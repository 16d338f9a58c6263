//! Every kind of issuer, with a real issuer, the example policies, and our own client in each CI's environment.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{Job, Packed, Small},
    daemon::{Builder, Daemon},
    packages,
    parts::{Issuer, Verdaccio, github_claims},
    team::Waiting,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU64, Ordering},
};

/// The policies that are shipped as examples: what the manual shows is what is tried here.
const POLICY: &str = include_str!("../../deploy/examples/callers.toml");
static SERIAL: AtomicU64 = AtomicU64::new(0);
const SHA: &str = "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e";

/// A kind of issuer, its package in the example, and an honest job's claims.
struct Ci {
    name: &'static str,
    package: &'static str,
    claims: fn(&str) -> Value,
}

const ALL: [Ci; 6] = [
    Ci {
        name: "github",
        package: "@acme/github",
        claims: github_claims,
    },
    Ci {
        name: "github",
        package: "@acme/reusable",
        claims: |audience| {
            let mut claims = github_claims(audience);
            claims["job_workflow_ref"] =
                json!(format!("acme/ci/.github/workflows/publish.yml@{SHA}"));
            claims
        },
    },
    Ci {
        name: "gitlab",
        package: "@acme/gitlab",
        claims: gitlab_claims,
    },
    Ci {
        name: "circleci",
        package: "@acme/circleci",
        claims: circleci_claims,
    },
    Ci {
        name: "buildkite",
        package: "@acme/buildkite",
        claims: buildkite_claims,
    },
    Ci {
        name: "cluster",
        package: "@acme/kubernetes",
        claims: kubernetes_claims,
    },
];

/// The exact `iss` of a kind's tokens. All are signed by the one issuer of the test.
fn iss(name: &str) -> String {
    format!("https://{name}.example")
}

fn gitlab_claims(audience: &str) -> Value {
    json!({
        "iss": iss("gitlab"), "aud": audience, "sub": "project_path:acme/left:ref_type:tag:ref:v1",
        "namespace_id": "72", "namespace_path": "acme", "project_id": "28",
        "project_path": "acme/left", "user_id": "7", "user_login": "robin",
        "user_email": "robin@example.org", "user_access_level": "owner", "pipeline_id": "455",
        "pipeline_source": "push", "job_id": "1123", "ref": "v1.4.2", "ref_type": "tag",
        "ref_path": "refs/tags/v1.4.2", "ref_protected": "true", "environment": "release",
        "environment_protected": "true", "runner_id": 1, "runner_environment": "gitlab-hosted",
        "sha": SHA, "project_visibility": "private", "groups_direct": ["acme"],
        "ci_config_ref_uri": "gitlab.example/acme/left//.gitlab-ci.yml@refs/tags/v1.4.2",
        "ci_config_sha": SHA,
    })
}

fn circleci_claims(audience: &str) -> Value {
    let (org, project) = (
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "6c2d9a1e-1b7c-4c5e-9d0f-2a3b4c5d6e7f",
    );
    json!({
        "iss": iss("circleci"), "aud": audience, "jti": null,
        "sub": format!("org/{org}/project/{project}/user/77777777-7777-4777-8777-777777777777"),
        "oidc.circleci.com/org-id": org, "oidc.circleci.com/project-id": project,
        "oidc.circleci.com/pipeline-definition-id": "11111111-2222-4333-8444-555555555555",
        "oidc.circleci.com/pipeline-id": "22222222-2222-4333-8444-555555555555",
        "oidc.circleci.com/workflow-id": "33333333-2222-4333-8444-555555555555",
        "oidc.circleci.com/job-id": "44444444-2222-4333-8444-555555555555",
        "oidc.circleci.com/context-ids": ["99999999-8888-4777-8666-555555555555"],
        "oidc.circleci.com/ssh-rerun": false,
        "oidc.circleci.com/vcs-origin": "github.com/acme/left",
        "oidc.circleci.com/vcs-ref": "refs/tags/v1.4.2",
    })
}

fn buildkite_claims(audience: &str) -> Value {
    json!({
        "iss": iss("buildkite"), "aud": audience, "jti": null,
        "sub": format!("organization:acme:pipeline:left:ref:refs/tags/v1.4.2:commit:{SHA}:step:release"),
        "organization_slug": "acme", "pipeline_slug": "left", "build_number": 12,
        "organization_id": "0184990a-477b-4fa8-9968-496074483a77",
        "pipeline_id": "0184990a-4782-42b5-afc1-16715b10b1a0",
        "build_branch": "main", "build_tag": "v1.4.2", "build_commit": SHA, "step_key": "release",
        "job_id": "0184990a-477b-4fa8-9968-496074483cee",
        "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
        "build_source": "webhook", "runner_environment": "buildkite-hosted",
    })
}

fn kubernetes_claims(audience: &str) -> Value {
    json!({
        "iss": iss("cluster"), "aud": [audience], "sub": "system:serviceaccount:release:publisher",
        "kubernetes.io": {
            "namespace": "release",
            "node": { "name": "worker-1", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a" },
            "pod": { "name": "publish-x7k2p", "uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8" },
            "serviceaccount": {
                "name": "publisher", "uid": "a709ef71-30e2-489a-bd19-ade97031b9db",
            },
            "warnafter": 1_700_000_000,
        },
    })
}

/// A broker that trusts all kinds at once.
async fn small() -> Small {
    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = issuer.jwks_url();
    let trust = |builder: Builder, (name, kind): (&str, &str)| {
        builder.issuer(name, kind, &iss(name), Some(&keys))
    };
    let kinds = [
        ("gitlab", "gitlab"),
        ("circleci", "circleci"),
        ("buildkite", "buildkite"),
        ("cluster", "kubernetes"),
    ];
    let builder = kinds
        .into_iter()
        .fold(Daemon::builder(), trust)
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &registry.url)
        .policy(POLICY);
    let token = registry.token.clone();
    let mut small = Small::with(builder, issuer, &token).await.unwrap();
    small.registry = Some(registry);
    small
}

async fn mint(small: &Small, ci: &Ci, changes: &Value) -> String {
    let mut claims = (ci.claims)(&small.daemon.url);
    for (pointer, value) in changes.as_object().unwrap() {
        match claims.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => claims[&pointer[1..]] = value.clone(),
        }
    }
    // Each of these is another job's, and jobs are told apart by more than the second.
    claims["serial"] = json!(SERIAL.fetch_add(1, Ordering::Relaxed));
    small.mint(&json!({ "claims": claims })).await.unwrap()
}

#[tokio::test]
async fn attack_06_and_07_every_kind_of_caller_is_matched_in_all_that_its_policy_says() {
    let small = small().await;
    for ci in &ALL {
        let items = [Packed::new(ci.package, "1.4.2")
            .unwrap()
            .item("latest")
            .unwrap()];
        let honest = mint(&small, ci, &json!({})).await;
        let reply = small.open_raw(&honest, &items).await.unwrap();
        assert!(reply.good(), "{}: {}", ci.package, reply.text);
        // Attack 4: the same token asks no second time.
        let again = small.open_raw(&honest, &items).await.unwrap();
        assert_eq!(again.code(), Some(Code::TokenReplayed), "{}", again.text);
        // A perfect job of one CI asks for nothing that belongs to another's.
        for other in ALL.iter().filter(|o| o.package != ci.package) {
            let token = mint(&small, other, &json!({})).await;
            let reply = small.open_raw(&token, &items).await.unwrap();
            assert_eq!(reply.code(), Some(Code::PolicyDenied), "{}", other.package);
        }
    }
    let uuid = "00000000-0000-4000-8000-000000000000";
    let kube = "/kubernetes.io/serviceaccount/uid";
    let fork = format!("acme/ci/.github/workflows/publish.yml@{}", "0".repeat(40));
    for (ci, changes) in [
        // The reusable workflow at another commit: of a branch, of a fork; and called by another file.
        (
            1,
            json!({"/job_workflow_sha": "0".repeat(40), "/job_workflow_ref": fork}),
        ),
        (1, json!({"/job_workflow_sha": null})),
        (
            1,
            json!({"/workflow_ref": "acme/left/.github/workflows/evil.yml@refs/tags/v1.4.2"}),
        ),
        (
            1,
            json!({"/job_workflow_ref": "evil/ci/.github/workflows/publish.yml@refs/tags/v1"}),
        ),
        (0, json!({"/runner_environment": "self-hosted"})),
        (2, json!({"/project_id": "29"})),
        (2, json!({"/namespace_id": "73"})),
        (
            2,
            json!({"/ref": "main", "/ref_type": "branch", "/ci_config_ref_uri": "gitlab.example/acme/left//.gitlab-ci.yml@refs/heads/main"}),
        ),
        (2, json!({"/ref_type": "branch"})),
        (2, json!({"/ref_protected": "false"})),
        (2, json!({"/pipeline_source": "web"})),
        (2, json!({"/environment": "staging"})),
        (2, json!({"/environment": null})),
        (
            2,
            json!({"/ci_config_ref_uri": "gitlab.example/acme/left//evil.yml@refs/tags/v1.4.2"}),
        ),
        (
            2,
            json!({"/ci_config_ref_uri": "gitlab.example/evil/left//.gitlab-ci.yml@refs/tags/v1.4.2"}),
        ),
        (2, json!({"/ci_config_ref_uri": null})),
        (
            3,
            json!({"/oidc.circleci.com~1pipeline-definition-id": uuid}),
        ),
        (
            3,
            json!({"/oidc.circleci.com~1vcs-origin": "github.com/evil/left"}),
        ),
        (3, json!({"/oidc.circleci.com~1vcs-ref": "refs/heads/main"})),
        (3, json!({"/oidc.circleci.com~1vcs-ref": null})),
        (3, json!({"/oidc.circleci.com~1context-ids": []})),
        (
            3,
            json!({"/oidc.circleci.com~1context-ids": [uuid, "99999999-8888-4777-8666-555555555555"]}),
        ),
        (4, json!({"/pipeline_id": uuid})),
        (4, json!({"/organization_id": uuid})),
        (4, json!({"/build_tag": null})),
        (4, json!({"/build_source": "ui"})),
        (4, json!({"/step_key": "evil"})),
        (4, json!({"/step_key": null})),
        (5, json!({kube: uuid})),
    ] {
        let ci: &Ci = &ALL[ci];
        let token = mint(&small, ci, &changes).await;
        let items = [Packed::new(ci.package, "1.4.2")
            .unwrap()
            .item("latest")
            .unwrap()];
        let reply = small.open_raw(&token, &items).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::PolicyDenied),
            "{changes}: {}",
            reply.text
        );
    }
    // What is not even a caller.
    for (ci, changes) in [
        (2, json!({"/pipeline_source": "merge_request_event"})),
        (2, json!({"/job_project_id": "29"})),
        (2, json!({"/jti": null})),
        (3, json!({"/oidc.circleci.com~1ssh-rerun": true})),
        (3, json!({"/aud": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"})),
        (4, json!({"/pipeline_id": null})),
        (4, json!({"/organization_id": null})),
        (5, json!({"/sub": "system:serviceaccount:release:other"})),
        (5, json!({"/aud": ["https://kubernetes.default.svc"]})),
        (
            5,
            json!({"/aud": [small.daemon.url, "https://kubernetes.default.svc"]}),
        ),
    ] {
        let ci: &Ci = &ALL[ci];
        let token = mint(&small, ci, &changes).await;
        let items = [Packed::new(ci.package, "1.4.2")
            .unwrap()
            .item("latest")
            .unwrap()];
        let reply = small.open_raw(&token, &items).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::Unauthenticated),
            "{changes}: {}",
            reply.text
        );
    }
}

#[tokio::test]
async fn each_ci_gives_its_job_a_token_and_the_job_publishes() {
    let small = small().await;
    let folder = small.daemon.dir().to_owned();
    let programs = folder.join("programs");
    fs::create_dir(&programs).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let token_file = |name: &str| folder.join(format!("{name}.token"));
    // The CIs' own programs cannot be had without the CIs. These stand in for them: they give a token only when they
    // are called as their manuals say, for the broker's audience.
    let url = &small.daemon.url;
    for (program, wanted, name) in [
        (
            "circleci",
            format!(r#"run oidc get --claims {{"aud":"{url}"}}"#),
            "circleci",
        ),
        (
            "buildkite-agent",
            format!(
                "oidc request-token --audience {url} --claim organization_id,pipeline_id --lifetime 300"
            ),
            "buildkite",
        ),
    ] {
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = '{wanted}' ] || {{ echo \"called with $*\" >&2; exit 9; }}\ncat '{}'\n",
            token_file(name).display()
        );
        let file = programs.join(program);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for ci in &ALL[2..] {
        let token = mint(&small, ci, &json!({})).await;
        let file = token_file(ci.name);
        fs::write(&file, format!("{token}\n")).unwrap();
        let file = file.display().to_string();
        let env = match ci.name {
            "gitlab" => vec![("GITLAB_CI", "true"), ("COUNTERSIGN_ID_TOKEN", &token)],
            "circleci" => vec![
                ("CIRCLECI", "true"),
                ("CIRCLE_OIDC_TOKEN_V2", "not.this.one"),
            ],
            "buildkite" => vec![("BUILDKITE", "true")],
            _ => vec![("COUNTERSIGN_ID_TOKEN_FILE", file.as_str())],
        };
        let env: Vec<_> = env.into_iter().chain([("PATH", path.as_str())]).collect();
        let dir = folder.join(ci.name);
        packages::npm_package(&dir, ci.package, "1.4.2", &json!({})).unwrap();
        let args = ["publish", "npm", &dir.display().to_string()];
        let mut waiting = Waiting::start(&small.daemon, &folder, &args, &env)
            .await
            .unwrap();
        let job = Job::seen_by(&small.alice, &waiting.id, &waiting.match_code)
            .await
            .unwrap();
        assert_eq!(job.facts.caller.issuer, ci.name);
        let _: Value = small.alice.approve(&job).await.unwrap().ok().unwrap();
        if matches!(ci.name, "buildkite" | "cluster") {
            let _: Value = small.bob.approve(&job).await.unwrap().ok().unwrap();
        }
        assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
        let registry = small.registry.as_ref().unwrap();
        let shown = registry.integrity(ci.package, "1.4.2").await.unwrap();
        assert!(shown.is_some(), "{}", waiting.text());
    }
}

#[tokio::test]
async fn attack_29_who_started_the_job_is_left_out_where_the_ci_says_who() {
    let small = small().await;
    for (ci, actor) in [
        (&ALL[2], "gitlab:7".to_owned()),
        (
            &ALL[3],
            "circleci:77777777-7777-4777-8777-777777777777".to_owned(),
        ),
    ] {
        let name = format!("starter-{}", ci.name);
        let invite = small
            .robin
            .invite(&name, &["release"], false, &[actor.as_str()])
            .await
            .unwrap();
        let starter = stand::api::Device::enroll(&small.daemon, &invite)
            .await
            .unwrap();
        let items = [Packed::new(ci.package, "1.4.2")
            .unwrap()
            .item("latest")
            .unwrap()];
        let token = mint(&small, ci, &json!({})).await;
        let job = Job::open(&small.daemon, &token, &items, &name)
            .await
            .unwrap();
        let reply = starter.approve(&job).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::NotAllowed),
            "{}: {}",
            ci.name,
            reply.text
        );
        let _: Value = small.alice.approve(&job).await.unwrap().ok().unwrap();
        assert_eq!(job.state().await.unwrap(), "approved");
    }
}
