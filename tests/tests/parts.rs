//! The stand itself: the real parts start, and do what every other test takes for granted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::{Value, json};
use stand::{
    packages::{npm_package, npmrc},
    parts::{Issuer, Verdaccio, client, github_claims},
    run,
};
use std::{path::Path, time::Duration};

const LIMIT: Duration = Duration::from_mins(2);

async fn publish(program: &Path, args: &[&str], dir: &Path) -> stand::Output {
    // A publish from a CI job that has its own identity would try an exchange first.
    let env = [("GITHUB_ACTIONS", ""), ("ACTIONS_ID_TOKEN_REQUEST_URL", "")];
    run(program, args, &env, dir, LIMIT).await.unwrap()
}

#[tokio::test]
async fn npm_and_pnpm_publish_to_the_real_registry() {
    let registry = Verdaccio::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, program, args) in [
        ("@acme/by-npm", "npm".into(), &["publish"][..]),
        (
            "@acme/by-pnpm",
            client("pnpm").unwrap(),
            &["publish", "--no-git-checks"][..],
        ),
    ] {
        assert_eq!(registry.integrity(name, "1.0.0").await.unwrap(), None);
        let package = dir.path().join(name);
        npm_package(&package, name, "1.0.0", &json!({ "keywords": ["k"] })).unwrap();
        npmrc(&package, &registry.url, "wrong").unwrap();
        let refused = publish(&program, args, &package).await;
        assert!(!refused.success(), "{refused}");
        assert_eq!(registry.integrity(name, "1.0.0").await.unwrap(), None);

        npmrc(&package, &registry.url, &registry.token).unwrap();
        publish(&program, args, &package).await.ok().unwrap();
        let integrity = registry.integrity(name, "1.0.0").await.unwrap().unwrap();
        assert!(integrity.starts_with("sha512-"), "{integrity}");
    }
}

#[tokio::test]
async fn the_issuer_signs_what_it_is_told() {
    let issuer = Issuer::start().await.unwrap();
    let keys: JwkSet = stand::http()
        .unwrap()
        .get(issuer.jwks_url())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    for alg in [Algorithm::RS256, Algorithm::ES256] {
        let order = json!({ "claims": github_claims("aud-1"), "alg": format!("{alg:?}") });
        let token = issuer.mint_with(order).await.unwrap();
        let header = decode_header(&token).unwrap();
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(alg);
        validation.set_audience(&["aud-1"]);
        validation.set_issuer(&[&issuer.url]);
        let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
        assert_eq!(claims["repository_id"], "123");
        assert!(claims["jti"].is_string());
    }
    let bare = json!({ "iss": "x", "exp": 1, "jti": null, "iat": null });
    let token = issuer.mint(bare).await.unwrap();
    assert_eq!(claims(&token), json!({ "iss": "x", "exp": 1 }));
    assert_eq!(decode_header(&token).unwrap().alg, Algorithm::RS256);

    let kid = issuer.add_key("RS256").await.unwrap();
    let token = issuer.mint(json!({})).await.unwrap();
    assert_eq!(decode_header(&token).unwrap().kid, Some(kid));
}

#[tokio::test]
async fn the_runners_token_address_wants_its_bearer() {
    let issuer = Issuer::start().await.unwrap();
    issuer
        .set_actions_claims(&github_claims("replaced"))
        .unwrap();
    let ask = async |bearer: &str| {
        let url = format!("{}&audience=https://broker.example", issuer.actions_url());
        let request = stand::http().unwrap().get(url).bearer_auth(bearer);
        request.send().await.unwrap()
    };
    assert_eq!(ask("wrong").await.status(), 401);
    let answer: Value = ask(&issuer.actions_bearer).await.json().await.unwrap();
    let claims = claims(answer["value"].as_str().unwrap());
    assert_eq!(claims["aud"], "https://broker.example");
    assert_eq!(claims["repository"], "acme/left");
}

#[tokio::test]
async fn a_part_is_gone_when_its_value_is_dropped() {
    let issuer = Issuer::start().await.unwrap();
    let (id, url) = (issuer.id(), issuer.jwks_url());
    drop(issuer);
    assert!(!Path::new(&format!("/proc/{id}")).exists());
    assert!(stand::http().unwrap().get(url).send().await.is_err());
}

fn claims(token: &str) -> Value {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
