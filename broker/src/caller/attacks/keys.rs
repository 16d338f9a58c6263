//! Attack 8: hostile key servers and floods of unknown key ids.

use super::{refused, with};
use crate::caller::{CallerRefused, IssuerConfig, Issuers, Kind, testkit::*};
use axum::response::IntoResponse as _;
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

#[tokio::test]
async fn discovery_must_name_the_same_issuer() {
    let base = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&base);
    let server = Server::start(move |path, _| {
        let base = told.lock().unwrap().clone();
        async move {
            axum::Json(match path.as_str() {
                "/right/.well-known/openid-configuration"
                | "/wrong/.well-known/openid-configuration" => {
                    json!({"issuer": format!("{base}/right"), "jwks_uri": format!("{base}/keys")})
                }
                _ => jwks(),
            })
            .into_response()
        }
    })
    .await;
    base.lock().unwrap().clone_from(&server.base);
    for (name, good) in [("right", true), ("wrong", false)] {
        let mut config = server.config(Kind::Github);
        config.issuer = format!("{}/{name}", server.base);
        config.jwks_url = None;
        let token = rs256(&with("iss", json!(config.issuer)));
        let issuers = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
        assert_eq!(issuers.verify(&token, NOW).await.is_ok(), good, "{name}");
    }
}

#[tokio::test]
async fn attack_08_unknown_key_ids_cause_one_fetch_a_minute() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    let unknown = |n: usize| {
        rs256_raw(
            &format!(r#"{{"alg":"RS256","kid":"k{n}"}}"#),
            &github_claims().to_string(),
        )
    };
    let flood = async |from: usize| {
        let calls = (from..from + 200).map(|n| {
            let (issuers, token) = (issuers.clone(), unknown(n));
            tokio::spawn(async move { issuers.verify(&token, NOW).await.err() })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), Some(CallerRefused::UnknownKey));
        }
    };
    flood(0).await;
    flood(200).await;
    assert_eq!(server.hits(), 1);
    // The honest job is not held up, before or after.
    assert!(issuers.verify(&rs256(&github_claims()), NOW).await.is_ok());
    assert_eq!(server.hits(), 1);
    let mut later = github_claims();
    later["exp"] = json!(NOW.0 + 400);
    let token = rs256_raw(r#"{"alg":"RS256","kid":"k"}"#, &later.to_string());
    let _ = issuers.verify(&token, NOW.after(59)).await;
    assert_eq!(server.hits(), 1);
    let _ = issuers.verify(&token, NOW.after(60)).await;
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn attack_08_hostile_key_servers_and_the_last_good_keys() {
    // First answer good, then one hostile answer each: the good keys stay.
    for kind in [
        "html",
        "html-as-json",
        "huge",
        "redirect",
        "slow",
        "error",
        "empty",
        "many",
        "same-id",
        "cut",
    ] {
        let honest = Server::honest().await;
        let elsewhere = format!("{}/keys", honest.base);
        let server = Server::start(move |_, nth| {
            let elsewhere = elsewhere.clone();
            async move {
                if nth == 1 {
                    return axum::Json(jwks()).into_response();
                }
                let json = [("content-type", "application/json")];
                match kind {
                    "html" => axum::response::Html("<p>hello</p>").into_response(),
                    "html-as-json" => (json, "<p>hello</p>").into_response(),
                    "huge" => {
                        let mut set = jwks();
                        set["padding"] = json!("x".repeat(200 * 1024));
                        axum::Json(set).into_response()
                    }
                    "redirect" => axum::response::Redirect::temporary(&elsewhere).into_response(),
                    "slow" => {
                        tokio::time::sleep(Duration::from_secs(30)).await;
                        axum::Json(jwks()).into_response()
                    }
                    "error" => (http::StatusCode::NOT_FOUND, axum::Json(jwks())).into_response(),
                    "empty" => axum::Json(json!({"keys": []})).into_response(),
                    "many" => {
                        let all: Vec<_> = (0..65).map(|n| rsa_jwk(&format!("k{n}"))).collect();
                        axum::Json(json!({"keys": all})).into_response()
                    }
                    "same-id" => {
                        axum::Json(json!({"keys": [rsa_jwk("k"), rsa_jwk("k")]})).into_response()
                    }
                    _ => (json, "{\"keys\":[").into_response(),
                }
            }
        })
        .await;
        let issuers = server.issuers(Kind::Github);
        let good = rs256(&github_claims());
        let why = refused(&issuers, &good, kind).await;
        assert_eq!(why, CallerRefused::KeysUnavailable, "{kind}");
        assert_eq!(honest.hits(), 0, "{kind}: followed a redirect");
        assert!(issuers.verify(&good, NOW.after(60)).await.is_ok(), "{kind}");
        let strange = rs256_raw(r#"{"alg":"RS256","kid":"k"}"#, &github_claims().to_string());
        let why = issuers.verify(&strange, NOW.after(120)).await.err();
        assert_eq!(why, Some(CallerRefused::KeysUnavailable), "{kind}");
        assert!(
            issuers.verify(&good, NOW.after(120)).await.is_ok(),
            "{kind}: good keys went"
        );
        assert_eq!(server.hits(), 3, "{kind}");
    }
}

#[tokio::test]
async fn attack_08_who_hangs_up_does_not_cut_off_the_fetch() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        axum::Json(jwks()).into_response()
    })
    .await;
    let issuers = server.issuers(Kind::Github);
    let good = rs256(&github_claims());
    let short = tokio::time::timeout(Duration::from_millis(100), issuers.verify(&good, NOW)).await;
    assert!(short.is_err());
    assert!(issuers.verify(&good, NOW).await.is_ok());
    assert_eq!(server.hits(), 1);
}

#[test]
fn keys_come_from_configured_https_addresses_only() {
    let toml = |jwks: &str| {
        let text =
            format!("name = 'x'\nkind = 'oidc'\nissuer = 'https://i.example'\njwks_url = '{jwks}'");
        toml::from_str::<IssuerConfig>(&text)
            .ok()
            .is_some_and(|c| Issuers::new(vec![c], AUDIENCE.into()).is_ok())
    };
    assert!(toml("https://i.example/keys"));
    assert!(toml("http://127.0.0.1:8/keys"));
    for bad in [
        "http://i.example/keys",
        "http://127.0.0.1.evil.example/",
        "file:///etc/passwd",
        "http://10.0.0.1/",
        "https://user:word@i.example/",
        "keys",
        "",
        "http://[::ffff:10.0.0.1]/",
        "data:application/json,{}",
    ] {
        assert!(!toml(bad), "{bad}");
    }
}
