//! What good tokens become, and attack 11: client keys.

use super::{refused, with};
use crate::caller::{Alg, Caller, CallerRefused, Issuers, Kind, client_key, testkit::*};
use proto::{
    device::{DeviceKey, DevicePublic},
    ids::ClientKeyId,
};
use serde_json::json;
use std::sync::{Arc, Mutex};

#[tokio::test]
async fn a_github_token_becomes_a_caller() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    let caller = issuers.verify(&rs256(&github_claims()), NOW).await.unwrap();
    let facts = caller.facts();
    assert_eq!(
        (facts.issuer.as_str(), facts.subject.as_str()),
        ("github", "123")
    );
    assert_eq!(facts.claims["workflow"], ".github/workflows/release.yml");
    assert_eq!(facts.claims["runner"], "github-hosted");
    assert_eq!(facts.claims["event"], "push");
    assert_eq!(
        facts.run_url.as_deref(),
        Some("https://github.com/acme/left/actions/runs/9001/attempts/2")
    );
    assert_eq!(caller.actor(), Some("github:77"));
    assert_eq!(caller.limits(), None);
    assert_eq!(caller.burn().keep_until.0, NOW.0 + 330);
    // The next one asks nobody.
    let again = issuers
        .verify(&rs256(&with("jti", json!("two"))), NOW)
        .await
        .unwrap();
    assert_ne!(again.burn().key, caller.burn().key);
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_reusable_workflow_keeps_its_repository_and_the_event_is_judged() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    let claims = with(
        "job_workflow_ref",
        json!("org/ci/.github/workflows/p.yml@refs/tags/v1"),
    );
    let caller = issuers.verify(&rs256(&claims), NOW).await.unwrap();
    assert_eq!(
        caller.facts().claims["workflow"],
        "org/ci/.github/workflows/p.yml"
    );
    assert_eq!(
        caller.facts().claims["entry_workflow"],
        ".github/workflows/release.yml"
    );

    let mut config = server.config(Kind::Github);
    config.events_named = vec!["workflow_run".into()];
    let naming = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
    for event in ["pull_request_target", "workflow_run"] {
        let token = rs256(&with("event_name", json!(event)));
        assert_eq!(refused(&issuers, &token, event).await, CallerRefused::Event);
        assert_eq!(
            naming.verify(&token, NOW).await.is_ok(),
            event == "workflow_run"
        );
    }
}

#[tokio::test]
async fn any_oidc_issuer_is_mapped_and_each_algorithm_works_only_where_allowed() {
    let server = Server::honest().await;
    let claims = json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "jti": "x", "sub": "job", "iat": NOW.0,
        "exp": NOW.0 + 60, "project_id": "9", "user_id": "5",
    });
    let mut config = server.config(Kind::Oidc);
    config.name = "gitlab".into();
    config.subject = "project_id".into();
    config.actor = Some("user_id".into());
    let rs_only = Issuers::new(vec![config.clone()], AUDIENCE.into()).unwrap();
    config.algorithms = vec![Alg::Rs256, Alg::Es256, Alg::EdDsa];
    let all = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
    for token in [rs256(&claims), es256(&claims), eddsa(&claims)] {
        let caller = all.verify(&token, NOW).await.unwrap();
        assert_eq!(caller.facts().subject, "9");
        assert_eq!(caller.facts().claims["project"], "9");
        assert_eq!(caller.actor(), Some("gitlab:5"));
    }
    for token in [es256(&claims), eddsa(&claims)] {
        assert_eq!(
            refused(&rs_only, &token, "alg").await,
            CallerRefused::Algorithm
        );
    }
    let mut without = claims.clone();
    without.as_object_mut().unwrap().remove("user_id");
    let why = refused(&all, &rs256(&without), "no actor").await;
    assert_eq!(why, CallerRefused::ClaimMissing("user_id".into()));
}

fn client(key: &DeviceKey, kid: &str, sub: &str, typ: &str) -> String {
    let claims = json!({"iss": "client-key", "sub": sub, "aud": AUDIENCE, "jti": "j", "iat": NOW.0, "exp": NOW.0 + 60});
    key.sign_jwt(typ, kid, &claims)
}

#[tokio::test]
async fn attack_11_client_keys_speak_for_themselves_and_end_when_removed() {
    let (mine, other) = (
        DeviceKey::from_seed([1; 32]).unwrap(),
        DeviceKey::from_seed([2; 32]).unwrap(),
    );
    let registered: Arc<Mutex<Vec<(&str, DevicePublic)>>> = Arc::new(Mutex::new(vec![
        ("mine", mine.public()),
        ("other", other.public()),
    ]));
    let table = Arc::clone(&registered);
    let find = move |name: &ClientKeyId| {
        let table = table.lock().unwrap();
        let found = table.iter().find(|(n, _)| *n == name.as_str());
        found.map(|(n, key)| (*key, vec![format!("npm:@acme/{n}")]))
    };
    let issuers = Issuers::new(vec![], AUDIENCE.into()).unwrap();
    let good = client(&mine, "mine", "mine", client_key::TYPE);
    assert_eq!(
        refused(&issuers, &good, "no client keys").await,
        CallerRefused::UnknownKey
    );

    let issuers = issuers.with_client_keys(Arc::new(find));
    let caller: Caller = issuers.verify(&good, NOW).await.unwrap();
    assert_eq!(caller.facts().issuer, "client-key");
    assert_eq!(caller.facts().subject, "mine");
    assert_eq!(caller.limits(), Some(&["npm:@acme/mine".to_owned()][..]));
    assert_eq!(caller.actor(), None);
    let others = issuers
        .verify(&client(&other, "other", "other", client_key::TYPE), NOW)
        .await
        .unwrap();
    assert_ne!(others.burn().key, caller.burn().key, "same jti, other key");

    for (token, want) in [
        (
            client(&mine, "other", "other", client_key::TYPE),
            CallerRefused::Signature,
        ),
        (
            client(&mine, "mine", "other", client_key::TYPE),
            CallerRefused::ClaimMissing("sub".into()),
        ),
        (
            client(&mine, "nobody", "nobody", client_key::TYPE),
            CallerRefused::UnknownKey,
        ),
        (
            client(&mine, "Mine", "Mine", client_key::TYPE),
            CallerRefused::UnknownKey,
        ),
        (
            client(&mine, "mine", "mine", "dpop+jwt"),
            CallerRefused::Algorithm,
        ),
        (
            client(&mine, "mine", "mine", "JWT"),
            CallerRefused::Algorithm,
        ),
        (
            hs256(&mine.public().0, "mine", &with("iss", json!("client-key"))),
            CallerRefused::Algorithm,
        ),
    ] {
        assert_eq!(refused(&issuers, &token, "client").await, want);
    }
    assert_eq!(
        issuers.verify(&good, NOW.after(90)).await.err(),
        Some(CallerRefused::Expired)
    );
    let long = json!({"iss": "client-key", "sub": "mine", "aud": AUDIENCE, "jti": "j", "iat": NOW.0, "exp": NOW.0 + 901});
    let long = mine.sign_jwt(client_key::TYPE, "mine", &long);
    assert_eq!(
        refused(&issuers, &long, "long").await,
        CallerRefused::TooLong
    );

    registered
        .lock()
        .unwrap()
        .retain(|(name, _)| *name != "mine");
    assert_eq!(
        refused(&issuers, &good, "removed").await,
        CallerRefused::UnknownKey
    );
}
