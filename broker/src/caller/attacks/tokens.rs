//! Attacks 1 to 3: forged shapes and algorithms, foreign issuers, other audiences.

use super::{bent, refused};
use crate::caller::{
    Alg, CallerRefused, Issuers,
    samples::{SAMPLES, Sample},
    testkit::*,
};
use serde_json::json;

#[tokio::test]
async fn attack_01_algorithms_headers_and_shapes() {
    let server = Server::honest().await;
    for sample in &SAMPLES {
        algorithms_headers_and_shapes(&server, sample).await;
    }
}

async fn algorithms_headers_and_shapes(server: &Server, sample: &Sample) {
    let mut config = server.config(sample.kind);
    config.algorithms = vec![Alg::Rs256, Alg::Es256, Alg::EdDsa];
    let issuers = Issuers::new(vec![config], AUDIENCE.into()).unwrap();
    let claims = (sample.claims)();
    let with = |name, value| bent(claims.clone(), name, value);
    let good = rs256(&claims);
    assert!(issuers.verify(&good, NOW).await.is_ok());

    let mut hostile: Vec<String> = Vec::new();
    // No signature, in every spelling.
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let head = b64(format!(r#"{{"alg":"{alg}","kid":"rsa"}}"#));
        let body = b64(claims.to_string());
        hostile.extend(["", "AA", "."].map(|s| format!("{head}.{body}.{s}")));
        hostile.push(rs256_raw(
            &format!(r#"{{"alg":"{alg}","kid":"rsa"}}"#),
            &claims.to_string(),
        ));
    }
    // HS256 with what everybody knows, or with the shared secret in the key set.
    let parts = rsa_jwk("rsa");
    for secret in [
        rsa_public_der(),
        parts["n"].as_str().unwrap().as_bytes().to_vec(),
        parts.to_string().into_bytes(),
        vec![7; 32],
        vec![0],
    ] {
        hostile.extend(["rsa", "ec", "oct"].map(|kid| hs256(&secret, kid, &claims)));
    }
    // The token brings its own key, asks for an extension, is encrypted, or says things twice.
    for extra in [
        r#""jku":"http://127.0.0.1:1/k""#,
        r#""x5u":"http://127.0.0.1:1/k""#,
        r#""jwk":{"kty":"RSA"}"#,
        r#""jwk":null"#,
        r#""x5c":["MIIB"]"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""enc":"A128GCM""#,
        r#""cty":"JWT""#,
        r#""alg":"none""#,
        r#""kid":"ec""#,
        r#""typ":null"#,
        r#""typ":"dpop+jwt""#,
        r#""typ":"countersign-client+jwt""#,
        r#""typ":["JWT"]"#,
        r#""x5t":7"#,
    ] {
        let head = format!(r#"{{"alg":"RS256","kid":"rsa",{extra}}}"#);
        hostile.push(rs256_raw(&head, &claims.to_string()));
    }
    // A key of another kind, use or algorithm; no key id; no header.
    for head in [
        r#"{"alg":"RS256","kid":"ec"}"#,
        r#"{"alg":"RS256","kid":"ed"}"#,
        r#"{"alg":"RS256","kid":"oct"}"#,
        r#"{"alg":"RS256","kid":"enc"}"#,
        r#"{"alg":"RS256","kid":"misfit"}"#,
        r#"{"alg":"ES256","kid":"misfit"}"#,
        r#"{"alg":"ES256","kid":"rsa"}"#,
        r#"{"alg":"EdDSA","kid":"rsa"}"#,
        r#"{"alg":"RS384","kid":"rsa"}"#,
        r#"{"alg":"PS256","kid":"rsa"}"#,
        r#"{"alg":"rs256","kid":"rsa"}"#,
        r#"{"alg":["RS256"],"kid":"rsa"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":""}"#,
        r#"{"alg":"RS256","kid":null}"#,
        r#"{"alg":"RS256","kid":["rsa"]}"#,
        r#"{"kid":"rsa"}"#,
        "[]",
        "null",
        "x",
    ] {
        hostile.push(rs256_raw(head, &claims.to_string()));
    }
    // Two signatures, five parts (an encrypted token), the JSON form, a token in a token, padding.
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    hostile.extend([
        format!("{good}.{signature}"),
        format!("{good}.{head}.{signature}"),
        format!(r#"{{"payload":"{body}","signatures":[{{"protected":"{head}","signature":"{signature}"}}]}}"#),
        rs256_raw(r#"{"alg":"RS256","kid":"rsa"}"#, &format!("\"{good}\"")),
        rs256_raw(r#"{"alg":"RS256","kid":"rsa"}"#, &good),
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("Bearer {good}"),
        signed.to_owned(),
        format!("{signed}."),
        format!(".{body}.{signature}"),
        format!("{head}..{signature}"),
        String::new(),
        "..".to_owned(),
        ".".repeat(8000),
        ".".repeat(1_000_000),
        rs256(&with("filler", json!("x".repeat(9000)))),
        rs256_raw(r#"{"alg":"RS256","kid":"rsa"}"#, &format!(r#"{{"a":{}1{}}}"#, "[".repeat(2000), "]".repeat(2000))),
        rs256(&with("deep", json!([[[[[[[[[1]]]]]]]]]))),
    ]);
    for (n, token) in hostile.iter().enumerate() {
        refused(&issuers, token, &format!("vector {n}: {token:.80}")).await;
    }
    assert!(hostile.len() >= 90, "{}", hostile.len());
    // Every byte of the signature counts.
    for at in (0..signature.len()).step_by(17) {
        let mut bytes = signature.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let token = format!("{signed}.{}", String::from_utf8(bytes).unwrap());
        refused(&issuers, &token, "changed signature").await;
    }
}

#[tokio::test]
async fn attack_02_a_foreign_or_look_alike_issuer() {
    for sample in &SAMPLES {
        foreign_or_look_alike_issuer(sample).await;
    }
}

async fn foreign_or_look_alike_issuer(sample: &Sample) {
    let server = Server::honest().await;
    let issuers = server.issuers(sample.kind);
    let with = |name, value| bent((sample.claims)(), name, value);
    for iss in [
        "https://issuer.example/",
        "http://issuer.example",
        "https://issuer.example.evil.example",
        "https://Issuer.example",
        "HTTPS://issuer.example",
        "https://issuer.example:443",
        "https://evil.example/https://issuer.example",
        "https://issuer.example/acme",
        " https://issuer.example",
        "https://issuer.example\u{0}",
        "https://iss\u{440}er.example",
        "issuer.example",
        "github",
        "client-keys",
        ".*",
    ] {
        let why = refused(&issuers, &rs256(&with("iss", json!(iss))), iss).await;
        assert_eq!(why, CallerRefused::UnknownIssuer, "{iss}");
    }
    // Nothing was fetched for any of them; and a right name with a wrong key is not enough.
    assert_eq!(server.hits(), 0);
    let why = refused(&issuers, &foreign(&(sample.claims)()), "foreign key").await;
    assert_eq!(why, CallerRefused::Signature);
}

#[tokio::test]
async fn attack_03_another_audience() {
    let server = Server::honest().await;
    for sample in &SAMPLES {
        another_audience(&server, sample).await;
    }
}

async fn another_audience(server: &Server, sample: &Sample) {
    let issuers = server.issuers(sample.kind);
    let with = |name, value| bent((sample.claims)(), name, value);
    // A list of one is that one where the issuer writes lists, and a refusal elsewhere.
    let list_of_one = rs256(&with("aud", json!([AUDIENCE])));
    assert_eq!(
        issuers.verify(&list_of_one, NOW).await.is_ok(),
        sample.lists
    );
    for aud in [
        json!([AUDIENCE, AUDIENCE]),
        json!([[AUDIENCE]]),
        json!(["https://broker.example/"]),
        json!([""]),
        json!([null]),
        json!([]),
        json!([AUDIENCE, "https://other.example"]),
        json!(["x", AUDIENCE]),
        json!({AUDIENCE: true}),
        json!(""),
        json!(null),
        json!(7),
        json!(true),
        json!("https://broker.exampl"),
        json!("https://broker.example/"),
        json!("https://broker.example.evil"),
        json!("https://Broker.example"),
        json!("HTTPS://BROKER.EXAMPLE"),
        json!("http://broker.example"),
        json!(" https://broker.example"),
        json!("https://broker.example "),
        json!("https://broker.example,x"),
        json!("npm:broker.example"),
        json!("*"),
    ] {
        let why = refused(
            &issuers,
            &rs256(&with("aud", aud.clone())),
            &aud.to_string(),
        )
        .await;
        assert!(
            matches!(
                why,
                CallerRefused::Audience | CallerRefused::ClaimMissing(_)
            ),
            "{aud}: {why:?}"
        );
    }
    let exchange = issuers.for_audience("npm:broker.example".into());
    refused(
        &exchange,
        &rs256(&(sample.claims)()),
        "the API's token at the exchange",
    )
    .await;
    let token = rs256(&with("aud", json!("npm:broker.example")));
    assert!(exchange.verify(&token, NOW).await.is_ok());
}
