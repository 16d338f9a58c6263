//! Attacks 4, 5, 6, 7 and 10, over every kind of issuer and for what only one kind has.

use super::{bent, refused};
use crate::caller::{
    Alg, CallerRefused, Issuers, Kind,
    samples::{SAMPLES, Sample, U},
    testkit::*,
};
use serde_json::{Value, json};

fn sample(kind: Kind) -> &'static Sample {
    SAMPLES.iter().find(|s| s.kind == kind).unwrap()
}

#[tokio::test]
async fn attack_04_a_token_is_burnt_whatever_its_kind() {
    let server = Server::honest().await;
    for sample in &SAMPLES {
        let mut config = server.config(sample.kind);
        config.algorithms = vec![Alg::Rs256, Alg::Es256];
        let issuers = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
        let burn = async |token: String| issuers.verify(&token, NOW).await.unwrap().burn();
        let claims = (sample.claims)();
        let first = burn(rs256(&claims)).await;
        assert_eq!(first, burn(rs256(&claims)).await, "{:?}", sample.kind);
        let exp = claims["exp"].as_u64().unwrap();
        assert_eq!(first.keep_until.0, exp + 30, "kept as long as it counts");
        // Two ECDSA signatures over one text are one token.
        let signed = [es256(&claims), es256(&claims)];
        assert_ne!(signed[0], signed[1]);
        let [one, two] = signed;
        assert_eq!(burn(one).await, burn(two).await);
        // The next token of the same job is another one.
        let next = if sample.has_jti {
            bent(claims, "jti", json!("two"))
        } else {
            // One with the same second and claims is the same token; and no `jti` that somebody
            // could repeat takes the text's place.
            let with_jti = burn(rs256(&bent(claims.clone(), "jti", json!("a")))).await;
            let other = bent(claims.clone(), "jti", json!("a"));
            let other = bent(other, "iat", json!(NOW.0 + 1));
            assert_ne!(with_jti.key, burn(rs256(&other)).await.key);
            bent(claims, "iat", json!(NOW.0 + 1))
        };
        assert_ne!(first.key, burn(rs256(&next)).await.key, "{:?}", sample.kind);
    }
}

#[tokio::test]
async fn attack_05_a_token_lives_as_long_as_its_kind_may_and_the_entry_says() {
    let server = Server::honest().await;
    for sample in &SAMPLES {
        let hour = matches!(
            sample.kind,
            Kind::Gitlab | Kind::Circleci | Kind::Kubernetes
        );
        let life = |minutes: Option<u64>, seconds: u64| {
            let mut config = server.config(sample.kind);
            config.life_minutes = minutes;
            let issuers = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
            let claims = bent((sample.claims)(), "exp", json!(NOW.0 + seconds));
            async move { issuers.verify(&rs256(&claims), NOW).await.err() }
        };
        let at_most = if sample.kind == Kind::Kubernetes {
            3610
        } else if hour {
            3600
        } else {
            900
        };
        assert_eq!(life(None, at_most).await, None);
        let too_long = Some(CallerRefused::TooLong);
        assert_eq!(life(None, at_most + 1).await, too_long);
        assert_eq!(life(Some(5), 300).await, None);
        assert_eq!(life(Some(5), 301).await, too_long);
        assert_eq!(life(Some(120), 7200).await, None);
    }
    for minutes in [0, 24 * 60 + 1, u64::MAX] {
        let mut config = server.config(Kind::Gitlab);
        config.life_minutes = Some(minutes);
        assert!(config.check().is_err(), "{minutes}");
    }
}

#[tokio::test]
async fn attack_06_the_id_identifies_and_never_the_name() {
    let server = Server::honest().await;
    for sample in &SAMPLES {
        let issuers = server.issuers(sample.kind);
        let caller = issuers
            .verify(&rs256(&(sample.claims)()), NOW)
            .await
            .unwrap();
        assert_eq!(caller.facts().subject, sample.id.1, "{:?}", sample.kind);
        // The same names over another id: somebody else.
        let mut claims = (sample.claims)();
        *claims.pointer_mut(sample.id.0).unwrap() = json!(sample.other_id);
        for name in ["sub", "job_project_id"] {
            if let Some(Value::String(text)) = claims.get_mut(name) {
                *text = text.replace(sample.id.1, sample.other_id);
            }
        }
        let other = issuers.verify(&rs256(&claims), NOW).await.unwrap();
        assert_eq!(other.facts().subject, sample.other_id, "{:?}", sample.kind);
        if sample.kind == Kind::Oidc {
            continue; // its id is whatever the configuration says
        }
        // An id has one spelling.
        for bad in [
            format!(" {}", sample.id.1),
            format!("{} ", sample.id.1),
            format!("+{}", sample.id.1),
            format!("{}/", sample.id.1),
            "0x7b".to_owned(),
            "１２３".to_owned(),
            "00000000-0000-1000-8000-00000000000A".to_owned(),
            "00000000000010008000000000000002".to_owned(),
        ] {
            let mut claims = (sample.claims)();
            *claims.pointer_mut(sample.id.0).unwrap() = json!(bad);
            if let Some(Value::String(sub)) = claims.get_mut("sub") {
                *sub = sub.replace(sample.id.1, &bad);
            }
            refused(&issuers, &rs256(&claims), &bad).await;
        }
    }
}

#[tokio::test]
async fn the_facts_have_the_names_that_policies_use() {
    let server = Server::honest().await;
    let uuid = |n: usize| U[n].to_owned();
    for (kind, actor, run_url, wanted) in [
        (
            Kind::Gitlab,
            Some("github:5".to_owned()),
            Some("https://issuer.example/acme/tools/left/-/jobs/1123".to_owned()),
            vec![
                ("project_id", "28".to_owned()),
                ("namespace_id", "72".to_owned()),
                ("workflow", ".gitlab-ci.yml".to_owned()),
                ("ref", "refs/tags/v1".to_owned()),
                ("ref_protected", "true".to_owned()),
                ("event", "push".to_owned()),
                ("environment", "release".to_owned()),
                ("repository", "acme/tools/left".to_owned()),
            ],
        ),
        (
            Kind::Circleci,
            Some(format!("github:{}", U[3])),
            Some(format!(
                "https://app.circleci.com/pipelines/workflows/{}",
                U[5]
            )),
            vec![
                ("circleci_project_id", uuid(2)),
                ("org_id", uuid(1)),
                ("pipeline_definition_id", uuid(4)),
                ("origin", "github.com/acme/left".to_owned()),
                ("ref", "refs/tags/v1".to_owned()),
                ("context", uuid(0)),
            ],
        ),
        (
            Kind::Buildkite,
            None,
            Some(format!(
                "https://buildkite.com/acme/left/builds/12#{}",
                U[3]
            )),
            vec![
                ("pipeline_id", uuid(2)),
                ("organization_id", uuid(1)),
                ("ref", "refs/tags/v1".to_owned()),
                ("event", "webhook".to_owned()),
                ("step", "release".to_owned()),
            ],
        ),
        (
            Kind::Kubernetes,
            None,
            None,
            vec![
                ("service_account_uid", uuid(2)),
                ("namespace", "release".to_owned()),
                ("service_account", "publisher".to_owned()),
                ("pod_uid", uuid(3)),
            ],
        ),
    ] {
        let issuers = server.issuers(kind);
        let token = rs256(&(sample(kind).claims)());
        let caller = issuers.verify(&token, NOW).await.unwrap();
        assert_eq!(caller.actor(), actor.as_deref(), "{kind:?}");
        assert_eq!(caller.facts().run_url, run_url, "{kind:?}");
        for (name, value) in wanted {
            assert_eq!(caller.facts().claims.get(name), Some(&value), "{kind:?}");
        }
        assert!(!caller.facts().claims.contains_key("ssh-rerun"));
    }
}

#[tokio::test]
async fn attack_07_a_foreign_or_look_alike_pipeline_file_keeps_its_project() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Gitlab);
    for uri in [
        "issuer.example/evil/left//.gitlab-ci.yml@refs/tags/v1",
        "issuer.example/acme/tools/left2//.gitlab-ci.yml@refs/tags/v1",
        "evil.example/acme/tools/left//.gitlab-ci.yml@refs/tags/v1",
        "issuer.example/acme/tools/left//.gitlab-ci.yml@refs/heads/v1",
        "issuer.example/acme/tools/left//.gitlab-ci.yml@refs/tags/v1@refs/tags/v1",
        "issuer.example/acme/tools/left//.gitlab-ci.yml",
        "issuer.example/acme/tools/left//x//.gitlab-ci.yml@refs/tags/v1",
        "https://issuer.example/acme/tools/left//.gitlab-ci.yml@refs/tags/v1",
        ".gitlab-ci.yml@refs/tags/v1",
    ] {
        let claims = bent(
            (sample(Kind::Gitlab).claims)(),
            "ci_config_ref_uri",
            json!(uri),
        );
        let caller = issuers.verify(&rs256(&claims), NOW).await.unwrap();
        assert_ne!(caller.facts().claims["workflow"], ".gitlab-ci.yml", "{uri}");
    }
    // A tag with an `@` in it, as monorepos have them, is a ref like any other.
    let tagged = bent(
        (sample(Kind::Gitlab).claims)(),
        "ref",
        json!("@acme/left@1.4.2"),
    );
    let uri = "issuer.example/acme/tools/left//.gitlab-ci.yml@refs/tags/@acme/left@1.4.2";
    let tagged = bent(tagged, "ci_config_ref_uri", json!(uri));
    let caller = issuers.verify(&rs256(&tagged), NOW).await.unwrap();
    assert_eq!(caller.facts().claims["workflow"], ".gitlab-ci.yml");
    assert_eq!(caller.facts().claims["ref"], "refs/tags/@acme/left@1.4.2");
    // A branch called like a tag is a branch.
    let branch = bent((sample(Kind::Gitlab).claims)(), "ref_type", json!("branch"));
    let caller = issuers.verify(&rs256(&branch), NOW).await.unwrap();
    assert_eq!(caller.facts().claims["ref"], "refs/heads/v1");
}

#[tokio::test]
async fn attack_07_a_strangers_code_or_hands_are_refused_unless_named() {
    let server = Server::honest().await;
    for (kind, claim, value, event) in [
        (
            Kind::Github,
            "event_name",
            json!("pull_request_target"),
            "pull_request_target",
        ),
        (
            Kind::Github,
            "event_name",
            json!("workflow_run"),
            "workflow_run",
        ),
        (
            Kind::Gitlab,
            "pipeline_source",
            json!("merge_request_event"),
            "merge_request_event",
        ),
        (
            Kind::Gitlab,
            "pipeline_source",
            json!("external_pull_request_event"),
            "external_pull_request_event",
        ),
        (
            Kind::Circleci,
            "oidc.circleci.com/ssh-rerun",
            json!(true),
            "ssh-rerun",
        ),
    ] {
        let token = rs256(&bent((sample(kind).claims)(), claim, value));
        let issuers = server.issuers(kind);
        assert_eq!(refused(&issuers, &token, event).await, CallerRefused::Event);
        let mut config = server.config(kind);
        config.events_named = vec![event.to_owned()];
        let naming = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
        let caller = naming.verify(&token, NOW).await.unwrap();
        assert_eq!(caller.facts().claims["event"], event);
    }
    // A merge request's pipeline in which the fork's ids and the project's stand beside each other.
    let mut config = server.config(Kind::Gitlab);
    config.events_named = vec!["merge_request_event".to_owned()];
    let naming = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
    for home in [json!("29"), json!(29)] {
        let fork = bent(
            (sample(Kind::Gitlab).claims)(),
            "job_project_id",
            home.clone(),
        );
        let why = refused(&naming, &rs256(&fork), &home.to_string()).await;
        assert_eq!(why, CallerRefused::Event);
    }
    // What is not refused cannot be named: a typing error would look like a permission.
    let mut config = server.config(Kind::Gitlab);
    config.events_named = vec!["merge_request".to_owned()];
    assert!(config.check().is_err());
}

#[tokio::test]
async fn attack_10_no_claim_leads_the_run_link_elsewhere() {
    let server = Server::honest().await;
    for (kind, claim, values) in [
        (
            Kind::Gitlab,
            "project_path",
            vec![
                "acme",
                "acme/../evil",
                "acme/left?x",
                "a@evil.example/x",
                "acme//left",
                "/acme/left",
                "acme/left#",
                "acme/left/",
            ],
        ),
        (Kind::Gitlab, "job_id", vec!["../1", "1?x", "-1", "1e3"]),
        (
            Kind::Circleci,
            "oidc.circleci.com/workflow-id",
            vec!["../x", "00000000-0000-1000-8000-00000000000/"],
        ),
        (
            Kind::Buildkite,
            "organization_slug",
            vec!["..", "a/b", "a?b", "a#b", "a@evil.example"],
        ),
        (Kind::Buildkite, "pipeline_slug", vec!["..", "a/b", "a%2fb"]),
        (Kind::Buildkite, "build_number", vec!["1/..", "01", "+1"]),
        (Kind::Buildkite, "job_id", vec!["x"]),
    ] {
        let issuers = server.issuers(kind);
        for value in values {
            let claims = bent((sample(kind).claims)(), claim, json!(value));
            refused(&issuers, &rs256(&claims), &format!("{claim} = {value}")).await;
        }
    }
}

#[tokio::test]
async fn attack_05_what_lies_inside_the_clusters_claim_is_typed_too() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Kubernetes);
    for at in [
        "/kubernetes.io/namespace",
        "/kubernetes.io/serviceaccount",
        "/kubernetes.io/serviceaccount/name",
        "/kubernetes.io/serviceaccount/uid",
        "/kubernetes.io/pod",
        "/kubernetes.io/pod/name",
        "/kubernetes.io/node/uid",
    ] {
        for bad in [
            json!(null),
            json!(7),
            json!([]),
            json!(""),
            json!("a\u{202E}b"),
            json!(["release"]),
        ] {
            let mut claims = (sample(Kind::Kubernetes).claims)();
            *claims.pointer_mut(at).unwrap() = bad.clone();
            refused(&issuers, &rs256(&claims), &format!("{at} = {bad}")).await;
        }
    }
    // The two places that name the service account must agree.
    for sub in [
        "system:serviceaccount:release:other",
        "system:serviceaccount:other:publisher",
        "system:serviceaccount:release:publisher:x",
        "system:node:worker-1",
        "publisher",
    ] {
        let claims = bent((sample(Kind::Kubernetes).claims)(), "sub", json!(sub));
        refused(&issuers, &rs256(&claims), sub).await;
    }
    // Not bound to a pod: nothing that a policy could need is missing.
    let mut claims = (sample(Kind::Kubernetes).claims)();
    claims["kubernetes.io"]
        .as_object_mut()
        .unwrap()
        .remove("pod");
    let caller = issuers.verify(&rs256(&claims), NOW).await.unwrap();
    assert!(!caller.facts().claims.contains_key("pod"));
}
