use super::*;
use crate::registry::{
    Address, Timeouts, Upstream as _,
    fake::{Seen, answering},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::api::ProofOutcome::{self, Proved, Refused, Unproved};

/// A macaroon of the public form: format, location, identifier, no caveat, signature.
fn macaroon() -> String {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut bytes = b"\x02\x01\x0dindex.example\x02\x02id\0\0\x06\x20".to_vec();
    bytes.extend([7; 32]);
    format!("pypi-{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn index(url: &url::Url, user: Option<&str>) -> PyPi {
    let address = Address {
        upload: Some(url.join("legacy/").unwrap()),
        user: user.map(str::to_owned),
        ..Address::at(url.join("simple").unwrap())
    };
    PyPi::new(address, Timeouts::default()).unwrap()
}

/// Asks about a password, where it is answered in one way and any other in another.
async fn by_form(good: u16, other: u16) -> (Option<ProofOutcome>, Vec<Seen>) {
    let known = STANDARD.encode("maint:the-password");
    let words = format!("no {known}");
    let (url, log) = answering(&[(&known, (good, &words)), ("", (other, "no"))]).await;
    let token = Secret::new("the-password".to_owned());
    let index = index(&url, Some("maint"));
    let proof = index.prove(&token, Trial::default()).await.ok();
    if let Some(proof) = &proof {
        assert!(!proof.detail.contains(&known), "{}", proof.detail);
    }
    let seen = log.lock().unwrap().clone();
    (proof.map(|p| p.outcome), seen)
}

#[tokio::test]
async fn a_form_that_asks_for_nothing_tells_a_known_password_from_others() {
    for (good, other, want, calls) in [
        (400, 401, Some(Proved), 2),
        (400, 403, Some(Proved), 2),
        (401, 401, Some(Refused), 2),
        // A token for one project alone, which no form named.
        (403, 401, Some(Unproved), 2),
        // Whoever names no project is refused, with any token.
        (403, 403, Some(Unproved), 2),
        // It looks at the form first, and says so to everybody.
        (400, 400, Some(Unproved), 2),
        (200, 401, Some(Unproved), 1),
        (503, 401, None, 1),
    ] {
        let (outcome, seen) = by_form(good, other).await;
        assert_eq!((outcome, seen.len()), (want, calls), "{good} {other}");
        // The invented one is shown beside a user that is nobody: no account's tries are used up.
        for (at, seen) in seen.iter().enumerate() {
            let shown = seen.headers["authorization"].to_str().unwrap();
            let pair = STANDARD.decode(shown.strip_prefix("Basic ").unwrap());
            let pair = String::from_utf8(pair.unwrap()).unwrap();
            let user = if at == 0 {
                "maint:"
            } else {
                "countersign-probe:"
            };
            assert!(pair.starts_with(user), "{pair}");
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            assert!(!body.contains("file_upload"), "{body}");
        }
    }
}

/// Asks about a macaroon, for a project that the index shows or not.
async fn by_caveat(shown: bool, status: u16, said: &str) -> (ProofOutcome, Vec<Seen>) {
    let page = r#"{"meta":{"api-version":"1.1"},"name":"acme-demo","files":[{"filename":"acme_demo-1.0.tar.gz","url":"x","hashes":{}}]}"#;
    let page = if shown { (200, page) } else { (404, "") };
    let (url, log) = answering(&[("Basic", (status, said)), ("", page)]).await;
    let package = "acme-demo".parse().unwrap();
    let trial = Trial {
        package: Some(&package),
        present: None,
    };
    let (index, token) = (index(&url, None), Secret::new(macaroon()));
    let proof = index.prove(&token, trial).await.unwrap();
    let seen = log.lock().unwrap().clone();
    (proof.outcome, seen)
}

#[tokio::test]
async fn a_macaroon_is_shown_with_an_end_in_the_past_alone_and_to_a_project_that_is_there() {
    let expired = "<html><title>403 Invalid API Token: token is expired</title>";
    let unknown = "<html><title>403 Invalid or non-existent authentication information.</title>";
    for (status, said, want) in [
        (403, expired, Proved),
        (403, unknown, Refused),
        (403, "project-scoped", Unproved),
        (400, expired, Unproved),
        (200, "", Unproved),
    ] {
        let (outcome, seen) = by_caveat(true, status, said).await;
        assert_eq!(outcome, want, "{status} {said}");
        let [_, upload] = seen.as_slice() else {
            panic!("{seen:?}");
        };
        let shown = upload.headers["authorization"].to_str().unwrap();
        let pair = STANDARD.decode(shown.strip_prefix("Basic ").unwrap());
        let pair = String::from_utf8(pair.unwrap()).unwrap();
        assert!(!pair.contains(&macaroon()), "it is never shown as it is");
        assert!(macaroon::narrow(&Secret::new(pair.replace("__token__:", "")), &[]).is_ok());
        // Whatever happens to it, it is no upload that an index takes.
        let body = String::from_utf8_lossy(&upload.body).into_owned();
        assert!(body.contains("filename=\"countersign-probe\"") && body.contains(NO_DIGEST));
    }
    let (outcome, seen) = by_caveat(false, 403, unknown).await;
    assert_eq!((outcome, seen.len()), (Unproved, 1), "nothing was sent");
    let (url, log) = answering(&[("", (403, unknown))]).await;
    let (index, token) = (index(&url, None), Secret::new(macaroon()));
    let proof = index.prove(&token, Trial::default()).await.unwrap();
    assert_eq!(proof.outcome, Unproved);
    assert!(log.lock().unwrap().is_empty());
}
