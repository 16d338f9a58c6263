use super::*;
use crate::registry::{
    fake::fake,
    oci::{self, read_back::DIGEST},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::digest::{Algorithm, Digest};
use std::io::Write as _;

fn token() -> Secret<String> {
    Secret::new("oci-canary".to_owned())
}

fn upstream(url: &Url, tokens: Option<&Url>) -> Oci {
    let address = Address {
        user: Some("robot".to_owned()),
        tokens: tokens.cloned(),
        ..Address::at(url.clone())
    };
    Oci::new(address, Timeouts::default()).unwrap()
}

/// A blob on its way.
fn blob(bytes: &[u8]) -> Publish {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let mut body = tempfile::spooled_tempfile(1 << 20);
    body.write_all(bytes).unwrap();
    let head = registry::Head {
        package: Some("acme/app".parse().unwrap()),
        version: Some("1.0".parse().unwrap()),
        file: Some(format!("blobs/{digest}")),
        ..registry::Head::default()
    };
    oci::read(&mut body, &head).unwrap()
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn attack_39_an_upload_that_is_sent_elsewhere_gets_neither_token_nor_bytes() {
    let (other, log) = fake(201, &[], "{}").await;
    for status in [202, 302, 307] {
        let to = [("location", other.to_string())];
        let (url, _) = fake(status, &to, "").await;
        let sent = upstream(&url, None);
        let sent = sent.publish(&mut blob(b"x"), &token(), LIMIT).await;
        assert!(matches!(sent, Sent::Refused { .. }), "{sent:?}");
    }
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn attack_39_the_password_goes_to_no_realm_that_the_configuration_does_not_name() {
    let (other, log) = fake(200, &[], r#"{"token":"t"}"#).await;
    let challenge = format!("Bearer realm=\"{other}\",service=\"s\"");
    let (url, seen) = fake(401, &[("www-authenticate", challenge)], "{}").await;
    let configured: Url = "http://127.0.0.1:9/token".parse().unwrap();
    let broker = upstream(&url, Some(&configured));
    let sent = broker.publish(&mut blob(b"x"), &token(), LIMIT).await;
    let Sent::Refused { said, .. } = sent else {
        panic!("{sent:?}");
    };
    assert!(said.contains("token_url"), "{said}");
    assert!(
        broker
            .shows(&"acme/app".parse().unwrap(), Some(&token()))
            .await
            .is_err()
    );
    assert!(log.lock().unwrap().is_empty());
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.iter()
            .all(|s| !s.headers.contains_key("authorization"))
    );

    // The one that it does name gets it, and the registry never does.
    let named = upstream(&url, Some(&other));
    let (package, token) = ("acme/app".parse().unwrap(), token());
    let shown = named.shown_as(&package, "pull", Some(&token)).await;
    assert_eq!(shown.unwrap().unwrap(), "Bearer t");
    let log = log.lock().unwrap();
    assert!(
        log[0]
            .path
            .contains("service=s&scope=repository%3Aacme%2Fapp%3Apull")
    );
    assert!(log[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_manifest_counts_by_its_bytes_and_its_header_must_agree() {
    let package: PackageName = "acme/app".parse().unwrap();
    let body = "{}";
    let digest = Digest::of(Algorithm::Sha256, body.as_bytes());
    for (named, want) in [
        (None, Some(digest.clone())),
        (Some(digest.to_string()), Some(digest.clone())),
        (Some(Digest::of(Algorithm::Sha256, b"x").to_string()), None),
    ] {
        let headers: Vec<_> = named.into_iter().map(|n| (DIGEST, n)).collect();
        let (url, _) = fake(200, &headers, body).await;
        let got = upstream(&url, None).manifest(&package, "1.0", &None).await;
        assert_eq!(got.ok().flatten(), want);
    }
    for (status, good) in [(404, true), (401, false), (500, false), (302, false)] {
        let (url, _) = fake(status, &[], "x").await;
        let got = upstream(&url, None).manifest(&package, "1.0", &None).await;
        assert_eq!(got.is_ok(), good, "{status}");
    }
}

#[tokio::test]
async fn attack_42_a_redirect_to_a_login_page_is_no_blob() {
    let bytes = b"blob";
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let file = File {
        name: format!("blobs/{digest}"),
        size: bytes.len() as u64,
        digest: digest.clone(),
    };
    let item = Item {
        registry: "oci".parse().unwrap(),
        package: "acme/app".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        tag: None,
        files: vec![file.clone()],
    };
    let storage = "https://storage.example/";
    let has = async |status: u16, headers: &[(&'static str, String)], body: &str| {
        let (url, _) = fake(status, headers, body).await;
        let address = Address {
            user: Some("robot".to_owned()),
            downloads: vec![storage.parse().unwrap()],
            ..Address::at(url)
        };
        let oci = Oci::new(address, Timeouts::default()).unwrap();
        oci.has_blob(&item.package, &file, &None).await
    };
    let to = |place: &str| vec![("location", place.to_owned())];
    assert!(!has(404, &[], "").await.unwrap());
    assert!(has(200, &[], "blob").await.unwrap());
    let named = [(DIGEST, digest.to_string())];
    assert!(has(200, &named, "blob").await.unwrap());
    for status in [302, 307] {
        assert!(
            has(status, &to("https://storage.example/b?sig=1"), "")
                .await
                .unwrap()
        );
    }
    // Another length or digest, a page, a place that nobody named, a move for ever.
    assert!(has(200, &[], "a page").await.is_err());
    let other = Digest::of(Algorithm::Sha256, b"x").to_string();
    assert!(has(200, &[(DIGEST, other)], "blob").await.is_err());
    assert!(has(206, &[], "blob").await.is_err());
    assert!(has(302, &[], "").await.is_err());
    for place in [
        "/login",
        "https://login.example/",
        "http://storage.example/",
    ] {
        assert!(has(302, &to(place), "").await.is_err(), "{place}");
    }
    for status in [300, 301, 303, 308] {
        assert!(has(status, &to(storage), "").await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn attack_42_and_52_a_slow_login_sends_nothing_after_its_time_or_a_freeze() {
    // The server of short tokens answers when the time of the whole attempt is over.
    let slow = axum::Router::new().fallback(async || {
        tokio::time::sleep(LIMIT / 4).await;
        r#"{"token":"t"}"#
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tokens: Url = format!("http://{}/token", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move { axum::serve(listener, slow).await });
    let challenge = format!("Bearer realm=\"{tokens}\",service=\"s\"");
    let (url, log) = fake(401, &[("www-authenticate", challenge)], "{}").await;
    let broker = upstream(&url, Some(&tokens));
    let sent = broker.publish(&mut blob(b"x"), &token(), LIMIT / 10).await;
    assert!(matches!(sent, Sent::Refused { .. }), "{sent:?}");
    let log = log.lock().unwrap();
    assert!(log.iter().all(|seen| seen.method == "GET"), "{log:?}");
}

/// A 401 or 403 is told to the admins as a refusal of the token.
#[tokio::test]
async fn a_login_that_is_not_answered_is_no_refusal_of_the_token() {
    let gone: Url = "http://127.0.0.1:9/token".parse().unwrap();
    let (refusing, _) = fake(401, &[], "").await;
    let (broken, _) = fake(200, &[], "no token").await;
    for (tokens, expected) in [(gone, 502), (broken, 502), (refusing, 401)] {
        let challenge = format!("Bearer realm=\"{tokens}\",service=\"s\"");
        let (url, log) = fake(401, &[("www-authenticate", challenge)], "{}").await;
        let broker = upstream(&url, Some(&tokens));
        let sent = broker.publish(&mut blob(b"x"), &token(), LIMIT).await;
        let Sent::Refused { status, .. } = sent else {
            panic!("{sent:?}");
        };
        assert_eq!(status, expected, "{tokens}");
        let log = log.lock().unwrap();
        assert!(log.iter().all(|seen| seen.method == "GET"), "{log:?}");
    }
}

#[tokio::test]
async fn the_next_page_of_tags_is_of_the_same_list() {
    let package: PackageName = "acme/app".parse().unwrap();
    let (url, _) = fake(
        200,
        &[],
        r#"{"name":"x","tags":["1.0","v1.2.0","1.10.0","latest"]}"#,
    )
    .await;
    let shown = upstream(&url, None).shows(&package, None).await.unwrap();
    assert_eq!(shown.versions.len(), 4);
    assert_eq!(shown.newest.unwrap().as_str(), "1.10.0");
    let (other, log) = fake(200, &[], "{}").await;
    for link in [
        format!("<{other}>; rel=\"next\""),
        "</v2/acme/other/tags/list?last=x>; rel=\"next\"".to_owned(),
        "nonsense".to_owned(),
    ] {
        let (url, _) = fake(200, &[("link", link)], r#"{"tags":[]}"#).await;
        assert!(upstream(&url, None).shows(&package, None).await.is_err());
    }
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn attack_41_a_registry_that_repeats_the_requests_headers_does_not_put_the_password_into_the_jobs_output()
 {
    let basic = STANDARD.encode("robot:oci-canary");
    let basic = basic.trim_end_matches('=');
    for words in [
        format!("authorization: Basic {basic}=="),
        "oci-canary".to_owned(),
    ] {
        let reply = serde_json::json!({"errors": [{"code": "DENIED", "message": words}]});
        let (url, _) = fake(403, &[], &reply.to_string()).await;
        let sent = upstream(&url, None);
        let sent = sent.publish(&mut blob(b"x"), &token(), LIMIT).await;
        let Sent::Refused { said, .. } = sent else {
            panic!("{sent:?}");
        };
        assert!(said.contains("[token]"), "{said}");
        assert!(!said.contains(basic) && !said.contains("canary"), "{said}");
    }
}
