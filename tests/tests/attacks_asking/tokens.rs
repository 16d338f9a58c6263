//! Rows 1 to 5 and 8: tokens that are not what they say.

use super::upstream::{TOKEN, Upstream};
use aws_lc_rs::hmac;
use axum::{Json, Router, extract::State, response::Redirect, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::{problem::Code, request::Item};
use serde_json::{Map, Value, json};
use stand::{
    api::{self, Api, Packed, Reply, Small},
    daemon::Daemon,
    parts::Issuer,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

fn items() -> Vec<Item> {
    let left = Packed::new("@acme/left", "1.4.2").unwrap();
    vec![left.item("latest").unwrap()]
}

async fn start(upstream: &Upstream) -> Small {
    Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap()
}

/// The token opens nothing, as one that nobody can verify.
async fn unknown(small: &Small, token: &str, why: &str) {
    let reply = small.open_raw(token, &items()).await.unwrap();
    assert_eq!(reply.status, 401, "{why}: {}", reply.text);
    assert_eq!(reply.code(), Some(Code::Unauthenticated), "{why}");
    assert!(!reply.text.contains("cst_"), "{why}");
}

/// Nothing waits, and the honest token still opens: the refusals above were not for another reason.
async fn honest_alone(small: &Small) {
    assert_eq!(small.waiting().await.unwrap(), 0);
    small.open(&items()).await.unwrap();
    assert_eq!(small.waiting().await.unwrap(), 1);
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Definite-length DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n if n < 128 => out.push(n.try_into().unwrap()),
        n => {
            out.push(0x82);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// The forms in which an RSA public key could have been taken for an HMAC key.
fn forms(jwk: &Value) -> Vec<Vec<u8>> {
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        der(2, &[&[0][..], &bytes].concat())
    };
    let rsa = der(0x30, &[number("n"), number("e")].concat());
    let algorithm = der(
        0x30,
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00",
    );
    let bits = der(3, &[&[0][..], &rsa].concat());
    let spki = der(0x30, &[algorithm, bits].concat());
    let pem = |name: &str, bytes: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut out = format!("-----BEGIN {name}-----\n");
        for line in text.as_bytes().chunks(64) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        out.extend([format!("-----END {name}-----\n")]);
        out.into_bytes()
    };
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    vec![
        pem("PUBLIC KEY", &spki),
        pem("RSA PUBLIC KEY", &rsa),
        spki,
        rsa,
        modulus,
        jwk.to_string().into_bytes(),
        Vec::new(),
    ]
}

#[tokio::test]
async fn attack_01_algorithms_headers_and_shapes_that_lie() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let good = small.id_token().await.unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();

    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS256", "RS512", "PS256",
    ] {
        for signature in ["", "AA", parts[2]] {
            let head = part(&json!({"alg": alg, "typ": "JWT", "kid": header["kid"]}));
            let token = format!("{head}.{}.{signature}", parts[1]);
            unknown(&small, &token, &format!("alg {alg:?}, {signature:.4}")).await;
        }
    }

    let keys = reqwest::get(small.issuer.jwks_url()).await.unwrap();
    let keys: Value = keys.json().await.unwrap();
    let all = keys["keys"].as_array().unwrap();
    let rsa = all.iter().find(|k| k["kty"] == "RSA").unwrap();
    for (i, key) in forms(rsa).iter().enumerate() {
        let head = part(&json!({"alg": "HS256", "typ": "JWT", "kid": rsa["kid"]}));
        let signed = format!("{head}.{}", parts[1]);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac));
        unknown(
            &small,
            &token,
            &format!("HMAC with the public key, form {i}"),
        )
        .await;
    }

    // Each of these is signed by the right key: the header alone is why it is refused.
    let keys_here = format!("{}/jwks", upstream.url);
    for extra in [
        json!({"jku": keys_here}),
        json!({"x5u": keys_here}),
        json!({"jwk": rsa}),
        json!({"x5c": ["MIIB"]}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
        json!({"cty": "JWT"}),
        json!({"typ": "at+jwt"}),
        json!({"typ": "dpop+jwt"}),
        json!({"kid": null}),
        json!({"kid": ""}),
        json!({"kid": "../../../../dev/null"}),
        json!({"kid": keys_here}),
        json!({"kid": ["a"]}),
        json!({"alg": ["RS256"]}),
    ] {
        let order = json!({"claims": small.claims(), "header": extra});
        let token = small.mint(&order).await.unwrap();
        unknown(&small, &token, &extra.to_string()).await;
    }
    assert!(upstream.seen().iter().all(|s| s.path != "/jwks"));

    let nested = json!({"claims": format!("\"{good}\""), "header": {}});
    let nested = small.mint(&nested).await.unwrap();
    let filled = small
        .token_with(&json!({"x": "x".repeat(9000)}))
        .await
        .unwrap();
    let mut other = small.claims();
    other["iss"] = json!(small.issuer.url);
    other["jti"] = json!("other");
    other["iat"] = json!(stand::now().unwrap());
    other["exp"] = json!(stand::now().unwrap() + 300);
    let mut deep = json!(1);
    for _ in 0..30 {
        deep = json!([deep]);
    }
    let deep = small.token_with(&json!({"x": deep})).await.unwrap();
    let general = json!({"payload": parts[1], "signatures": [
        {"protected": parts[0], "signature": parts[2]},
        {"protected": parts[0], "signature": parts[2]},
    ]});
    let flat = json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]});
    for (why, token) in [
        ("nested", nested),
        ("oversized", filled),
        ("deep", deep),
        ("two signatures", general.to_string()),
        ("flattened JSON", flat.to_string()),
        ("four parts", format!("{good}.{}", parts[2])),
        ("five parts", format!("{good}.x.y")),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("padded", format!("{good}=")),
        ("two tokens", format!("{good} {good}")),
        ("two tokens with a comma", format!("{good}, Bearer {good}")),
        ("a cut", good[..good.len() - 1].to_owned()),
        (
            "another signature",
            format!(
                "{}.{}.{}",
                parts[0],
                parts[1],
                URL_SAFE_NO_PAD.encode([7; 256])
            ),
        ),
        (
            "other claims under the same signature",
            format!("{}.{}.{}", parts[0], part(&other), parts[2]),
        ),
        ("nothing", String::new()),
    ] {
        unknown(&small, &token, why).await;
    }
    let twice = format!("Bearer {good}");
    let headers = [("authorization", twice.as_str()), ("authorization", &twice)];
    let (body, _) = api::asking(&items(), "twice");
    let api = Api::of(&small.daemon).unwrap();
    let reply = api
        .call("POST", "/v1/requests", &headers, body.to_string())
        .await
        .unwrap();
    assert_eq!(reply.code(), Some(Code::Unauthenticated), "two headers");
    honest_alone(&small).await;
}

#[tokio::test]
async fn attack_02_a_foreign_or_look_alike_issuer() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let ours = small.issuer.url.clone();
    // Signed by the right key: the name alone is why it is refused.
    for iss in [
        format!("{ours}/"),
        format!("{ours}/."),
        format!("{ours}#"),
        format!(" {ours}"),
        ours.replace("http://", "https://"),
        ours.replace("http://", "HTTP://"),
        ours.replace("127.0.0.1", "localhost"),
        ours.replace("127.0.0.1", "127.0.0.1@evil.example"),
        format!("{ours}.evil.example"),
        format!("https://evil.example/{ours}"),
        "client-key".to_owned(),
        "github".to_owned(),
    ] {
        let token = small.token_with(&json!({"iss": iss})).await.unwrap();
        unknown(&small, &token, &iss).await;
    }
    let other = Issuer::start().await.unwrap();
    let honest: Value = {
        let token = small.id_token().await.unwrap();
        let head = token.split('.').next().unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap()
    };
    let mut claims = small.claims();
    let own = other.mint(claims.clone()).await.unwrap();
    unknown(&small, &own, "another issuer in its own name").await;
    claims["iss"] = json!(ours);
    let lie = other.mint(claims.clone()).await.unwrap();
    unknown(&small, &lie, "another issuer in our issuer's name").await;
    let order = json!({"claims": claims, "header": {"kid": honest["kid"]}});
    let lie = other.mint_with(order).await.unwrap();
    unknown(&small, &lie, "and with its key's id").await;
    honest_alone(&small).await;
}

#[tokio::test]
async fn attack_03_a_token_made_for_another_audience() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let ours = small.daemon.url.clone();
    for aud in [
        json!([ours]),
        json!([ours, "https://evil.example"]),
        json!([[ours]]),
        json!({"0": ours}),
        json!(format!("{ours}/")),
        json!(ours[..ours.len() - 1]),
        json!(format!("{ours}0")),
        json!(format!("{ours} https://evil.example")),
        json!(format!("{ours},https://evil.example")),
        json!(ours.replace("http", "HTTP")),
        json!(ours.replace("127.0.0.1", "localhost")),
        json!(small.daemon.registry_url),
        json!("npm:127.0.0.1"),
        json!("https://github.com/acme"),
        json!("sigstore"),
        json!("*"),
        json!(""),
        json!(true),
        Value::Null,
    ] {
        let token = small.token_with(&json!({"aud": aud})).await.unwrap();
        unknown(&small, &token, &aud.to_string()).await;
    }
    honest_alone(&small).await;
}

fn count(replies: &[Reply], code: Option<Code>) -> usize {
    replies.iter().filter(|r| r.code() == code).count()
}

#[tokio::test]
async fn attack_04_one_token_opens_one_request() {
    let upstream = Upstream::start().await;
    let mut small = start(&upstream).await;

    let twice = small.id_token().await.unwrap();
    let first = small.open_raw(&twice, &items()).await.unwrap();
    assert!(first.good(), "{}", first.text);
    let again = small.open_raw(&twice, &items()).await.unwrap();
    assert_eq!(again.code(), Some(Code::TokenReplayed), "{}", again.text);
    assert_eq!(small.waiting().await.unwrap(), 1);

    let many = small.id_token().await.unwrap();
    let api = Api::of(&small.daemon).unwrap();
    let calls: Vec<_> = (0..100)
        .map(|i| {
            let (api, many) = (api.clone(), many.clone());
            tokio::spawn(async move {
                let (body, _) = api::asking(&items(), &format!("race-{i}"));
                api.bearer("POST", "/v1/requests", &many, &body)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut replies = Vec::new();
    for call in calls {
        replies.push(call.await.unwrap());
    }
    assert_eq!(count(&replies, None), 1);
    assert_eq!(count(&replies, Some(Code::TokenReplayed)), 99);
    assert_eq!(small.waiting().await.unwrap(), 2);

    // Past its end, but inside the leeway: it opens once more than nothing, and then never again.
    let now = stand::now().unwrap();
    let late = json!({"iat": now - 300, "exp": now - 5});
    let late = small.token_with(&late).await.unwrap();
    assert!(small.open_raw(&late, &items()).await.unwrap().good());
    let again = small.open_raw(&late, &items()).await.unwrap();
    assert_eq!(again.code(), Some(Code::TokenReplayed), "{}", again.text);
    let over = json!({"iat": now - 300, "exp": now - 31});
    unknown(
        &small,
        &small.token_with(&over).await.unwrap(),
        "past the leeway",
    )
    .await;

    // One that the policy refused is used up as well.
    let refused = small.id_token().await.unwrap();
    let foreign = Packed::new("@foreign/left", "1.4.2").unwrap();
    let foreign = [foreign.item("latest").unwrap()];
    let reply = small.open_raw(&refused, &foreign).await.unwrap();
    assert_eq!(reply.code(), Some(Code::PolicyDenied), "{}", reply.text);
    let again = small.open_raw(&refused, &items()).await.unwrap();
    assert_eq!(again.code(), Some(Code::TokenReplayed), "{}", again.text);

    // Another token with the id of a used one is the same token.
    let claims = twice.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let twin = json!({"jti": claims["jti"], "exp": claims["exp"], "run_id": "1"});
    let twin = small.token_with(&twin).await.unwrap();
    let reply = small.open_raw(&twin, &items()).await.unwrap();
    assert_eq!(reply.code(), Some(Code::TokenReplayed), "{}", reply.text);

    small.daemon.kill9();
    small.daemon.restart().await.unwrap();
    for used in [&twice, &many] {
        let reply = small.open_raw(used, &items()).await.unwrap();
        assert_eq!(reply.code(), Some(Code::TokenReplayed), "{}", reply.text);
    }
    assert_eq!(small.waiting().await.unwrap(), 3);
    small.open(&items()).await.unwrap();
}

/// Every claim that the broker reads.
const READ: [&str; 21] = [
    "iss",
    "aud",
    "sub",
    "jti",
    "exp",
    "iat",
    "repository",
    "repository_id",
    "repository_owner_id",
    "actor",
    "actor_id",
    "event_name",
    "ref",
    "environment",
    "workflow_ref",
    "job_workflow_ref",
    "sha",
    "run_id",
    "run_number",
    "run_attempt",
    "runner_environment",
];

#[tokio::test]
async fn attack_05_every_claim_absent_null_mistyped_and_twice() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let now = stand::now().unwrap();
    let full = |i: usize| -> Map<String, Value> {
        let mut claims = small.claims();
        claims["iss"] = json!(small.issuer.url);
        claims["jti"] = json!(format!("matrix-{i}"));
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        claims.as_object().unwrap().clone()
    };
    let mut tried = Vec::new();
    let unread: Vec<_> = full(0)
        .keys()
        .filter(|k| !READ.contains(&k.as_str()))
        .cloned()
        .collect();
    for name in READ {
        let right = full(0)[name].clone();
        let mut wrong = vec![
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!([right]),
            json!({"0": right}),
            json!(""),
            json!(-1),
            json!(1.5),
            json!("x".repeat(600)),
        ];
        // These two are never shown: one is hashed, the other not used. All else may not mislead a reader.
        if !["sub", "jti"].contains(&name) {
            wrong.push(json!("\u{202e}x\u{0}"));
        }
        if ["exp", "iat"].contains(&name) {
            wrong.extend([
                json!(now.to_string()),
                json!(1e300),
                json!(u64::MAX),
                json!(0),
            ]);
            wrong.push(json!(f64::from(u32::try_from(now).unwrap()) + 0.5));
        } else if right
            .as_str()
            .is_some_and(|s| s.bytes().all(|b| b.is_ascii_digit()))
        {
            wrong.push(json!(right.as_str().unwrap().parse::<u64>().unwrap()));
        }
        for value in wrong {
            let mut claims = full(tried.len());
            claims.insert(name.to_owned(), value.clone());
            tried.push((
                format!("{name} = {value}"),
                Value::Object(claims).to_string(),
            ));
        }
        let mut claims = full(tried.len());
        claims.remove(name);
        tried.push((format!("{name} absent"), Value::Object(claims).to_string()));
    }
    for name in READ
        .into_iter()
        .chain(unread.iter().map(String::as_str))
        .chain(["nbf"])
    {
        let claims = full(tried.len());
        let value = claims.get(name).cloned().unwrap_or(json!(now));
        let text = Value::Object(claims).to_string();
        let more = format!("{{\"{name}\":{value},\"{name}\":{value},");
        tried.push((format!("{name} twice"), text.replacen('{', &more, 1)));
    }
    for (why, changes) in [
        ("not yet", json!({"nbf": now + 120})),
        ("nbf null", json!({"nbf": null})),
        ("nbf text", json!({"nbf": now.to_string()})),
        ("nbf list", json!({"nbf": [now]})),
        (
            "made in the future",
            json!({"iat": now + 120, "exp": now + 300}),
        ),
        ("over", json!({"iat": now - 600, "exp": now - 60})),
        (
            "ends before it begins",
            json!({"iat": now + 20, "exp": now + 10}),
        ),
        ("lives too long", json!({"exp": now + 901})),
    ] {
        let mut claims = full(tried.len());
        claims.extend(changes.as_object().unwrap().clone());
        tried.push((why.to_owned(), Value::Object(claims).to_string()));
    }
    let known = [Code::Unauthenticated, Code::ClockWrong, Code::PolicyDenied];
    for (why, claims) in &tried {
        let order = json!({"claims": claims});
        let token = small.mint(&order).await.unwrap();
        let reply = small.open_raw(&token, &items()).await.unwrap();
        let refused = reply.code().is_some_and(|c| known.contains(&c));
        assert!(refused, "{why}: {} {}", reply.status, reply.text);
    }
    assert!(tried.len() > 250, "{}", tried.len());

    // The control: the same document without a change.
    let order = json!({"claims": Value::Object(full(tried.len())).to_string()});
    let token = small.mint(&order).await.unwrap();
    assert_eq!(small.waiting().await.unwrap(), 0);
    assert!(small.open_raw(&token, &items()).await.unwrap().good());
}

#[derive(Clone, Default)]
struct Counted {
    honest: Arc<AtomicUsize>,
    slow: Arc<AtomicUsize>,
    redirected: Arc<AtomicUsize>,
}

/// A key server that counts, with doors that behave badly.
async fn key_server(keys: Value) -> (String, Counted) {
    let counted = Counted::default();
    let huge = keys.clone();
    let page = keys.to_string();
    let app = Router::new()
        .route(
            "/jwks",
            get({
                let keys = keys.clone();
                move |State(c): State<Counted>| async move {
                    c.honest.fetch_add(1, SeqCst);
                    Json(keys)
                }
            }),
        )
        .route(
            "/redirect",
            get(|| async { Redirect::temporary("/target") }),
        )
        .route(
            "/target",
            get({
                let keys = keys.clone();
                move |State(c): State<Counted>| async move {
                    c.redirected.fetch_add(1, SeqCst);
                    Json(keys)
                }
            }),
        )
        .route("/html", get(|| async { axum::response::Html(page) }))
        .route(
            "/huge",
            get(|| async move {
                let mut keys = huge;
                keys["x"] = json!("x".repeat(1 << 20));
                Json(keys)
            }),
        )
        .route(
            "/slow",
            get(|State(c): State<Counted>| async move {
                c.slow.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }),
        )
        .with_state(counted.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, counted)
}

#[tokio::test]
async fn attack_08_unknown_key_ids_and_a_hostile_key_server() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start().await.unwrap();
    let keys = reqwest::get(issuer.jwks_url()).await.unwrap();
    let (url, counted) = key_server(keys.json().await.unwrap()).await;
    let mut builder = Daemon::builder().registry("npm", "npm", &upstream.url);
    builder = builder.issuer(
        "github",
        "github",
        &issuer.url,
        Some(&format!("{url}/jwks")),
    );
    let hostile = ["redirect", "html", "huge", "slow"];
    for name in hostile {
        let (iss, jwks) = (format!("{}/{name}", issuer.url), format!("{url}/{name}"));
        builder = builder.issuer(name, "github", &iss, Some(&jwks));
    }
    let small = Small::with(
        builder.policy(
            api::POLICY
                .split("[[package]]\nmatch = [\"secrets")
                .next()
                .unwrap(),
        ),
        issuer,
        TOKEN,
    )
    .await
    .unwrap();

    small.open(&items()).await.unwrap();
    let flood: Vec<_> = {
        let mut tokens = Vec::new();
        for i in 0..100 {
            let order = json!({"claims": small.claims(), "header": {"kid": format!("flood-{i}")}});
            tokens.push(small.mint(&order).await.unwrap());
        }
        tokens
    };
    let api = Api::of(&small.daemon).unwrap();
    let calls: Vec<_> = flood
        .into_iter()
        .map(|token| {
            let api = api.clone();
            tokio::spawn(async move {
                let (body, _) = api::asking(&items(), &token[token.len() - 40..]);
                api.bearer("POST", "/v1/requests", &token, &body)
                    .await
                    .unwrap()
            })
        })
        .collect();
    small.open(&items()).await.unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 401);
    }
    let fetched = counted.honest.load(SeqCst);
    assert!(
        (1..=2).contains(&fetched),
        "{fetched} fetches within a minute"
    );

    // Right claims and a right signature; the keys alone cannot be had.
    for name in hostile {
        let began = std::time::Instant::now();
        let iss = format!("{}/{name}", small.issuer.url);
        for _ in 0..3 {
            let token = small.token_with(&json!({"iss": iss})).await.unwrap();
            unknown(&small, &token, name).await;
        }
        assert!(began.elapsed().as_secs() < 10, "{name}");
    }
    assert_eq!(
        counted.redirected.load(SeqCst),
        0,
        "a redirect was followed"
    );
    assert_eq!(counted.slow.load(SeqCst), 1);
    assert_eq!(small.waiting().await.unwrap(), 2);
}
