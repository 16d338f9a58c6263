//! The doctor: other doors to a package, shown by a stand-in for the public registries; a real registry is all clear.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Value, json};
use stand::{
    api::Small, daemon::Daemon, http, parts::Issuer, people::publish_document, team::Team,
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

const CALLERS: &str = r#"callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device", "totp"]
version = "semver"
"#;

/// A registry that answers these paths, and writes down which questions carried the token.
struct StandIn {
    answers: BTreeMap<&'static str, Value>,
    with_token: Mutex<Vec<String>>,
}

async fn answer(State(stand_in): State<Arc<StandIn>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if request.headers().contains_key("authorization") {
        stand_in.with_token.lock().unwrap().push(path.clone());
    }
    match stand_in.answers.get(path.as_str()) {
        Some(Value::Number(status)) => {
            let status = u16::try_from(status.as_u64().unwrap()).unwrap();
            StatusCode::from_u16(status).unwrap().into_response()
        }
        Some(body) => axum::Json(body.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn stand_in(answers: &[(&'static str, Value)]) -> (Arc<StandIn>, String) {
    let stand_in = Arc::new(StandIn {
        answers: answers.iter().cloned().collect(),
        with_token: Mutex::default(),
    });
    let router = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&stand_in));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (stand_in, url)
}

/// A broker over one registry of this kind.
async fn over(kind: &str, url: &str, keys: &str, package: &str) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let policy = format!("[[package]]\nmatch = [\"{kind}:{package}\"]\n{CALLERS}");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with(kind, kind, url, keys)
        .policy(&policy);
    let token = "canary-registry-token";
    Small::with_token(builder, issuer, (kind, token))
        .await
        .unwrap()
}

async fn doctor(small: &Small) -> Value {
    let path = "/v1/admin/doctor";
    let reply = small.robin.call("POST", path, &json!({})).await.unwrap();
    reply.ok::<Value>().unwrap()["packages"][0].clone()
}

/// Whether one of the findings says this.
fn finds(checkup: &Value, words: &str) -> bool {
    let findings = checkup["findings"].as_array().unwrap();
    findings.iter().any(|f| {
        assert!(!f["next"].as_str().unwrap().is_empty());
        f["what"].as_str().unwrap().contains(words)
    })
}

#[tokio::test]
async fn attack_56_57_a_trusted_publisher_and_other_owners_are_found_at_npm() {
    let trust = json!([{"id": "1", "type": "github", "claims": {"repository": "acme/left"}}]);
    let latest = json!({
        "maintainers": [{"name": "ours"}, {"name": "mallory"}],
        "_npmUser": {"name": "ours", "trustedPublisher": {"id": "github"}},
    });
    let (_, url) = stand_in(&[
        ("/-/whoami", json!({"username": "ours"})),
        ("/@acme%2fleft/latest", latest),
        ("/-/package/@acme%2fleft/trust", trust),
    ])
    .await;
    let web = "web = \"https://www.npm.example\"";
    let small = over("npm", &url, web, "@acme/left").await;
    let checkup = doctor(&small).await;
    for words in [
        "trusts acme/left to publish",
        "came in by the identity of github",
        "can publish past the broker: mallory.",
    ] {
        assert!(finds(&checkup, words), "{words}: {checkup}");
    }
    let link = "https://www.npm.example/package/@acme/left/access";
    assert_eq!(checkup["checklist"][0]["link"], link);
    let list = checkup["checklist"].to_string();
    assert!(list.contains("No secret of the forge"), "{list}");
}

#[tokio::test]
async fn attack_56_57_a_team_and_trusted_publishing_are_found_at_a_cargo_registry() {
    let owners = json!({"users": [
        {"login": "ours", "kind": "user"}, {"login": "github:acme:release", "kind": "team"}
    ]});
    let configs = json!({"github_configs": [
        {"repository_owner": "acme", "repository_name": "left"}
    ]});
    let (seen, url) = stand_in(&[
        ("/api/v1/crates/acme-left/owners", owners),
        (
            "/api/v1/crates/acme-left",
            json!({"crate": {"trustpub_only": true}}),
        ),
        ("/api/v1/trusted_publishing/github_configs", configs),
        ("/api/v1/trusted_publishing/gitlab_configs", json!(403)),
    ])
    .await;
    let keys = format!("upload_url = \"{url}\"");
    let small = over("crates", &url, &keys, "acme-left").await;
    let checkup = doctor(&small).await;
    for words in [
        "The team github:acme:release can publish",
        "trusts acme/left (github) to publish",
        "takes trusted publishers alone",
    ] {
        assert!(finds(&checkup, words), "{words}: {checkup}");
    }
    // Its own account alone is no finding, and what could not be asked is not called clear.
    assert!(
        !finds(&checkup, "can publish past the broker: ours"),
        "{checkup}"
    );
    assert_eq!(checkup["unasked"].as_array().unwrap().len(), 1, "{checkup}");
    let with_token = seen.with_token.lock().unwrap();
    assert!(
        with_token
            .iter()
            .all(|p| p.starts_with("/api/v1/trusted_publishing/"))
    );
}

#[tokio::test]
async fn attack_56_57_owners_and_a_trusted_publisher_are_found_at_a_gem_registry() {
    let owners = json!([{"id": 1, "handle": "ours"}, {"id": 7, "handle": "mallory"}]);
    let trusted = json!([{"id": 1, "trusted_publisher_type": "OIDC::TrustedPublisher::GitHubAction",
        "trusted_publisher": {"repository_owner": "acme", "repository_name": "left", "workflow_filename": "push.yml"}}]);
    let answers = [
        ("/api/v1/gems/acme-left/owners.json", owners),
        ("/api/v1/gems/acme-left/trusted_publishers", trusted),
    ];
    let (seen, url) = stand_in(&answers).await;
    let web = "web = \"https://gems.example\"";
    let small = over("rubygems", &url, web, "acme-left").await;
    let checkup = doctor(&small).await;
    for words in ["trusts acme/left to publish", "mallory"] {
        assert!(finds(&checkup, words), "{words}: {checkup}");
    }
    let link = "https://gems.example/gems/acme-left/trusted_publishers";
    assert_eq!(checkup["checklist"][0]["link"], link, "{checkup}");
    // The key goes where it is needed, and nowhere else.
    let mut with_token = seen.with_token.lock().unwrap().clone();
    // When it was stored, the registry was asked about it.
    with_token.retain(|path| path != "/api/v1/gems");
    assert_eq!(with_token, ["/api/v1/gems/acme-left/trusted_publishers"]);

    // A key that may push alone may not ask for them: that is told, and no all clear.
    let (_, url) = stand_in(&[
        (
            "/api/v1/gems/acme-left/owners.json",
            json!([{"id": 1, "handle": "ours"}]),
        ),
        ("/api/v1/gems/acme-left/trusted_publishers", json!(403)),
    ])
    .await;
    let small = over("rubygems", &url, "", "acme-left").await;
    let checkup = doctor(&small).await;
    assert_eq!(checkup["findings"], json!([]));
    assert_eq!(checkup["asked"], json!(["the owners"]));
    let unasked = checkup["unasked"][0].as_str().unwrap();
    assert!(unasked.starts_with("the trusted publishers"), "{checkup}");
}

#[tokio::test]
async fn attack_58_nothing_is_all_clear_while_the_registry_does_not_answer_or_the_broker_has_no_token()
 {
    let (_, url) = stand_in(&[
        ("/left/latest", json!(503)),
        ("/-/package/left/trust", json!(401)),
    ])
    .await;
    let small = over("npm", &url, "", "left").await;
    let checkup = doctor(&small).await;
    assert_eq!(checkup["unasked"].as_array().unwrap().len(), 2, "{checkup}");
    assert_eq!(checkup["asked"], json!([]));
    assert!(checkup["checklist"].as_array().unwrap().len() >= 3);
    // A token that lies elsewhere publishes past the broker: the broker having none is a sign of it.
    let gone = json!({"kind": "remove-token", "registry": "npm", "scope": "*"});
    let removed = small.robin.act(gone, None).await.unwrap();
    assert!(removed.good(), "{}", removed.text);
    assert!(finds(&doctor(&small).await, "has no token for npm:left"));
}

#[tokio::test]
async fn a_real_registry_with_one_maintainer_is_all_clear() {
    let team = Team::start().await.unwrap();
    let registry = &team.registry;
    let bytes = stand::packages::with_readme("left", "1.0.0").unwrap();
    let document = publish_document("left", "1.0.0", &registry.url, &bytes);
    let put = http().unwrap().put(format!("{}/left", registry.url));
    let put = put.bearer_auth(&registry.token).json(&document).send();
    assert!(put.await.unwrap().status().is_success());
    let out = team.admin(&["admin", "doctor", "npm:left"]).await.unwrap();
    let out = out.ok().unwrap();
    for words in [
        "npm:left",
        "asked: the maintainers, the trusted publisher",
        "[ ] ",
    ] {
        assert!(out.stdout.contains(words), "{words}: {out}");
    }
    let bad = team.admin(&["admin", "doctor", "left"]).await.unwrap();
    assert_eq!(bad.status, Some(2), "{bad}");
}
