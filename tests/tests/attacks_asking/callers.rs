//! Rows 6, 7, 9 and 11: callers who are somebody, but not the one whom the policy names.

use super::upstream::{TOKEN, Upstream};
use proto::{device::DeviceKey, problem::Code};
use serde_json::{Value, json};
use stand::{
    api::{self, Device, Packed, Small},
    packages,
};
use std::time::Duration;

#[tokio::test]
async fn attack_06_another_repository_under_the_same_name() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let items = [Packed::new("@acme/left", "1.4.2")
        .unwrap()
        .item("latest")
        .unwrap()];
    for changes in [
        json!({"repository_id": "999"}),
        json!({"repository_id": "0123"}),
        json!({"repository_id": "1234"}),
        json!({"repository_owner_id": "46"}),
        json!({"repository_id": "45", "repository_owner_id": "123"}),
    ] {
        let token = small.token_with(&changes).await.unwrap();
        let reply = small.open_raw(&token, &items).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::PolicyDenied),
            "{changes}: {}",
            reply.text
        );
    }
    assert_eq!(small.waiting().await.unwrap(), 0);
    // Renamed: the ids stay, and they are what counts.
    let file = "acme/renamed/.github/workflows/release.yml@refs/tags/v1.4.2";
    let renamed =
        json!({"repository": "acme/renamed", "workflow_ref": file, "job_workflow_ref": file});
    let token = small.token_with(&renamed).await.unwrap();
    let reply = small.open_raw(&token, &items).await.unwrap();
    assert!(reply.good(), "{}", reply.text);
}

#[tokio::test]
async fn attack_07_another_workflow_ref_event_or_environment() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let items = [Packed::new("@acme/left", "1.4.2")
        .unwrap()
        .item("latest")
        .unwrap()];
    let file = |path: &str, at: &str| format!("{path}@{at}");
    let (ours, tag) = (
        "acme/left/.github/workflows/release.yml",
        "refs/tags/v1.4.2",
    );
    let both = |f: String| json!({"workflow_ref": f, "job_workflow_ref": f});
    for (changes, code) in [
        (
            both(file("acme/left/.github/workflows/evil.yml", tag)),
            Code::PolicyDenied,
        ),
        (
            both(file("acme/left/.github/workflows/Release.yml", tag)),
            Code::PolicyDenied,
        ),
        (
            both(file("acme/left/.github/workflows/release.yml.yml", tag)),
            Code::PolicyDenied,
        ),
        (
            both(file("evil/left/.github/workflows/release.yml", tag)),
            Code::PolicyDenied,
        ),
        // A reusable workflow of others has the steps, or another file of ours calls the right one.
        (
            json!({"job_workflow_ref": file("evil/x/.github/workflows/release.yml", tag)}),
            Code::PolicyDenied,
        ),
        (
            json!({"workflow_ref": file("acme/left/.github/workflows/evil.yml", tag)}),
            Code::PolicyDenied,
        ),
        (json!({"ref": "refs/heads/main"}), Code::PolicyDenied),
        (json!({"ref": "refs/heads/v1.4.2"}), Code::PolicyDenied),
        (json!({"ref": "refs/tags/x1"}), Code::PolicyDenied),
        (json!({"ref": "refs/tags/V1"}), Code::PolicyDenied),
        (json!({"ref": "xrefs/tags/v1"}), Code::PolicyDenied),
        (json!({"ref": "refs/pull/7/merge"}), Code::PolicyDenied),
        (
            json!({"event_name": "workflow_dispatch"}),
            Code::PolicyDenied,
        ),
        (json!({"event_name": "Push"}), Code::PolicyDenied),
        (json!({"event_name": "pull_request"}), Code::PolicyDenied),
        (
            json!({"event_name": "pull_request_target"}),
            Code::Unauthenticated,
        ),
        (json!({"event_name": "workflow_run"}), Code::Unauthenticated),
        (json!({"environment": "staging"}), Code::PolicyDenied),
        (json!({"environment": "Release"}), Code::PolicyDenied),
        (json!({"environment": null}), Code::PolicyDenied),
    ] {
        let token = small.token_with(&changes).await.unwrap();
        let reply = small.open_raw(&token, &items).await.unwrap();
        assert_eq!(reply.code(), Some(code), "{changes}: {}", reply.text);
        assert_eq!(code.exit() as u8, 5);
    }
    assert_eq!(small.waiting().await.unwrap(), 0);
    let token = small.token_with(&both(file(ours, tag))).await.unwrap();
    assert!(small.open_raw(&token, &items).await.unwrap().good());

    // Our own command line ends with 5, and publishes nothing.
    let dir = small.daemon.dir().join("package");
    packages::npm_package(&dir, "@acme/left", "1.4.2", &json!({})).unwrap();
    let token = small
        .token_with(&json!({"ref": "refs/heads/main"}))
        .await
        .unwrap();
    let env = [
        ("COUNTERSIGN_BROKER", small.daemon.url.as_str()),
        ("COUNTERSIGN_ID_TOKEN", &token),
    ];
    let folder = dir.display().to_string();
    let args = ["--json", "publish", "npm", &folder];
    let limit = Duration::from_mins(1);
    let out = small
        .daemon
        .countersign(&args, &env, &dir, limit)
        .await
        .unwrap();
    assert_eq!(out.status, Some(5), "{out}");
    assert!(upstream.writes().is_empty());
}

#[tokio::test]
async fn attack_09_a_perfect_token_alone_gets_nothing() {
    let small = Small::start(api::POLICY).await.unwrap();
    let secret = "canary-deploy-key";
    let stored = small
        .robin
        .add_token("secrets", "deploy-key", secret)
        .await
        .unwrap();
    assert!(stored.good(), "{}", stored.text);
    let registry = small.registry.as_ref().unwrap();
    let left = Packed::new("@acme/left", "1.4.2").unwrap();
    let publish = small.open(&[left.item("latest").unwrap()]).await.unwrap();
    let reveal = small
        .open(&[api::secret_item("deploy-key").unwrap()])
        .await
        .unwrap();
    let endpoint = small.endpoint().unwrap();
    let thief = Device::fresh(&small.daemon).unwrap();
    let mut said = String::new();

    for round in 0..2 {
        for job in [&publish, &reveal] {
            if round == 1 && job.id == reveal.id {
                continue;
            }
            let collect = job.collect_raw().await.unwrap();
            assert_eq!(collect.code(), Some(Code::NotApproved), "{}", collect.text);
            // He has the match code; an answer takes a device that somebody enrolled.
            let answer = thief.approve(job).await.unwrap();
            assert_eq!(
                answer.code(),
                Some(Code::Unauthenticated),
                "{}",
                answer.text
            );
            let path = job.path("/answer");
            let body = thief
                .answering(job, proto::answer::Decision::Approve, &job.match_code, None)
                .unwrap();
            let body = serde_json::to_value(body).unwrap();
            let bare = job
                .api
                .bearer("POST", &path, &job.ticket, &body)
                .await
                .unwrap();
            assert_eq!(bare.status, 401, "{}", bare.text);
            let question = thief.question(job.id).await.unwrap();
            assert_eq!(question.status, 401, "{}", question.text);
            let receipt = job
                .api
                .bearer("GET", &job.path("/receipt"), &job.ticket, &Value::Null)
                .await
                .unwrap();
            assert!(!receipt.good(), "{}", receipt.text);
            let status = job.status().await.unwrap();
            assert_eq!(job.state().await.unwrap(), "pending");
            for reply in [collect, answer, bare, question, receipt, status] {
                said.push_str(&reply.text);
            }
        }
        let token = small.id_token().await.unwrap();
        let guess = proto::bearer::Bearer::from_entropy(
            proto::bearer::Kind::Credential,
            api::random().unwrap(),
        );
        for credential in [&publish.ticket, &token, &guess.expose(), "", "canary"] {
            let document = left.document("latest").unwrap();
            let put = endpoint
                .put("@acme/left", credential, document)
                .await
                .unwrap();
            assert_eq!(put.status, 403, "{}", put.text);
            said.push_str(&put.text);
        }
        // One of two is no better than none.
        if round == 0 {
            assert!(small.alice.approve(&publish).await.unwrap().good());
        }
    }
    assert!(registry.package("@acme/left").await.unwrap().is_none());
    for secret in [secret, registry.token.as_str(), "csc_", "canary-"] {
        assert!(!said.contains(secret), "{secret}");
    }
    // The control: with the second answer both come out.
    assert!(small.bob.approve(&publish).await.unwrap().good());
    assert!(small.bob.approve(&reveal).await.unwrap().good());
    let credential = publish.credential().await.unwrap();
    let document = left.document("latest").unwrap();
    let put = endpoint
        .put("@acme/left", &credential, document)
        .await
        .unwrap();
    assert!(put.good(), "{}", put.text);
    assert!(
        registry
            .integrity("@acme/left", "1.4.2")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        reveal.collect().await.unwrap().secret.as_deref(),
        Some(secret)
    );
}

#[tokio::test]
async fn attack_11_a_client_key_for_another_package_and_after_its_removal() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let key = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    let other = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    for (name, key) in [("old-ci", &key), ("other-ci", &other)] {
        let added = small
            .robin
            .add_client_key(name, key, &["npm:@acme/left"])
            .await
            .unwrap();
        assert!(added.good(), "{}", added.text);
    }
    let item = |name: &str| Packed::new(name, "1.4.2").unwrap().item("latest").unwrap();
    let (left, right) = (item("@acme/left"), item("@acme/right"));
    let token = |key: &DeviceKey, name: &str, more: Value| {
        api::client_key_token(key, name, &small.daemon.url, &more).unwrap()
    };
    let honest = token(&key, "old-ci", json!({}));
    let opened = small
        .open_raw(&honest, std::slice::from_ref(&left))
        .await
        .unwrap();
    assert!(opened.good(), "{}", opened.text);
    let again = small
        .open_raw(&honest, std::slice::from_ref(&left))
        .await
        .unwrap();
    assert_eq!(again.code(), Some(Code::TokenReplayed), "{}", again.text);

    let claims = json!({"repository_id": "123", "repository_owner_id": "45", "packages": ["npm:@acme/right"]});
    for (why, token, items, code) in [
        (
            "another package",
            token(&key, "old-ci", json!({})),
            vec![right.clone()],
            Code::PolicyDenied,
        ),
        (
            "one of two",
            token(&key, "old-ci", json!({})),
            vec![left.clone(), right.clone()],
            Code::PolicyDenied,
        ),
        (
            "claims of its own",
            token(&key, "old-ci", claims),
            vec![right.clone()],
            Code::PolicyDenied,
        ),
        (
            "a key that the policy does not name",
            token(&other, "other-ci", json!({})),
            vec![left.clone()],
            Code::PolicyDenied,
        ),
        (
            "another key in its name",
            token(&other, "old-ci", json!({})),
            vec![left.clone()],
            Code::Unauthenticated,
        ),
        (
            "another subject",
            token(&other, "other-ci", json!({"sub": "old-ci"})),
            vec![left.clone()],
            Code::Unauthenticated,
        ),
        (
            "the issuer's name",
            token(&key, "old-ci", json!({"iss": small.issuer.url})),
            vec![left.clone()],
            Code::Unauthenticated,
        ),
        (
            "another broker",
            token(&key, "old-ci", json!({"aud": "https://other.example"})),
            vec![left.clone()],
            Code::Unauthenticated,
        ),
    ] {
        let reply = small.open_raw(&token, &items).await.unwrap();
        assert_eq!(reply.code(), Some(code), "{why}: {}", reply.text);
    }
    let kept = token(&key, "old-ci", json!({}));
    assert!(
        small
            .robin
            .remove_client_key("old-ci")
            .await
            .unwrap()
            .good()
    );
    for late in [kept, token(&key, "old-ci", json!({}))] {
        let reply = small
            .open_raw(&late, std::slice::from_ref(&left))
            .await
            .unwrap();
        assert_eq!(reply.code(), Some(Code::Unauthenticated), "{}", reply.text);
    }
    assert_eq!(small.waiting().await.unwrap(), 1);
}
