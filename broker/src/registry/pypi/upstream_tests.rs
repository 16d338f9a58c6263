use super::*;
use crate::registry::{
    ReadBack,
    archive::samples::{entry, tgz},
    fake::fake,
    pypi::{
        read,
        samples::{CONTENT_TYPE, METADATA, SDIST, WHEEL, fields, form, wheel},
    },
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::{
    digest::{Algorithm, Digest},
    request::File,
};

const LIMIT: Duration = Duration::from_secs(10);

fn token() -> Secret<String> {
    Secret::new("pypi-SECRET".to_owned())
}

fn address(url: &Url) -> Address {
    Address {
        upload: Some(url.join("legacy/").unwrap()),
        endpoint: "https://broker.example".parse().unwrap(),
        ..Address::at(url.join("simple").unwrap())
    }
}

fn upstream(url: &Url) -> PyPi {
    PyPi::new(address(url), Timeouts::default()).unwrap()
}

fn sample(file: &[u8], name: &str) -> Publish {
    let kind = if name == WHEEL {
        "bdist_wheel"
    } else {
        "sdist"
    };
    let body = form(&fields(file, kind), name, file);
    read(
        &body[..],
        CONTENT_TYPE,
        &std::env::temp_dir(),
        Attestations::Refuse,
    )
    .unwrap()
}

async fn sent(status: u16, headers: &[(&'static str, String)], body: &str) -> Sent {
    let (url, _) = fake(status, headers, body).await;
    let mut publish = sample(&wheel(), WHEEL);
    upstream(&url).publish(&mut publish, &token(), LIMIT).await
}

#[tokio::test]
async fn an_upload_is_rebuilt_and_means_the_same() {
    let (url, log) = fake(200, &[], "").await;
    let mut noise = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let large = tgz(&[
        entry("acme_demo-1.0.0/PKG-INFO", b'0', METADATA.as_bytes()),
        entry("acme_demo-1.0.0/noise", b'0', &noise),
    ]);
    for (file, name) in [(wheel(), WHEEL), (large, SDIST)] {
        let mut publish = sample(&file, name);
        let upstream = upstream(&url);
        // Twice: the second attempt sends the same bytes.
        for _ in 0..2 {
            assert_eq!(
                upstream.publish(&mut publish, &token(), LIMIT).await,
                Sent::Accepted
            );
        }
        let seen = log.lock().unwrap().split_off(0);
        assert_eq!(
            (seen[0].method.as_str(), seen[0].path.as_str()),
            ("POST", "/legacy/")
        );
        let basic = format!("Basic {}", STANDARD.encode("__token__:pypi-SECRET"));
        assert_eq!(seen[0].headers["authorization"], basic);
        assert_eq!(
            seen[0].headers["content-length"],
            seen[0].body.len().to_string()
        );
        assert!(!seen[0].headers.contains_key("transfer-encoding"));
        for seen in &seen {
            // What we write, we would read; and it is the same publish.
            let kind = seen.headers["content-type"].to_str().unwrap();
            let again = read(
                &seen.body[..],
                kind,
                &std::env::temp_dir(),
                Attestations::Refuse,
            )
            .unwrap();
            assert_eq!(again.digest(), publish.digest());
            assert_eq!(again.name(), Some(name));
            let text = String::from_utf8_lossy(&seen.body);
            assert!(
                !text.contains("blake2") && !text.contains("--b0\r\n"),
                "nothing of the client's form"
            );
        }
    }
}

#[tokio::test]
async fn the_token_goes_to_the_upload_address_alone() {
    let json = [(
        "content-type",
        "application/vnd.pypi.simple.v1+json".to_owned(),
    )];
    let (url, log) = fake(200, &json, r#"{"files":[]}"#).await;
    let (elsewhere, index_log) = fake(200, &json, r#"{"files":[]}"#).await;
    let package: PackageName = "acme-demo".parse().unwrap();
    upstream(&url)
        .shows(&package, Some(&token()))
        .await
        .unwrap();
    let seen = log.lock().unwrap().pop().unwrap();
    assert!(
        seen.headers.contains_key("authorization"),
        "the same server"
    );
    assert!(
        seen.path.starts_with("/simple/acme-demo/?read-back="),
        "{}",
        seen.path
    );
    let apart = Address {
        url: elsewhere,
        ..address(&url)
    };
    let apart = PyPi::new(apart, Timeouts::default()).unwrap();
    apart.shows(&package, Some(&token())).await.unwrap();
    let seen = index_log.lock().unwrap().pop().unwrap();
    assert!(
        !seen.headers.contains_key("authorization"),
        "another server"
    );
}

#[tokio::test]
async fn a_token_is_narrowed_to_the_project_where_the_configuration_says_so() {
    let (url, log) = fake(200, &[], "").await;
    let narrowing = Address {
        narrow: true,
        ..address(&url)
    };
    let upstream = PyPi::new(narrowing, Timeouts::default()).unwrap();
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("macaroon_vectors.json")).unwrap();
    let stored = vectors["vectors"][0]["token"].as_str().unwrap();
    let mut publish = sample(&wheel(), WHEEL);
    let token = Secret::new(stored.to_owned());
    assert_eq!(
        upstream.publish(&mut publish, &token, LIMIT).await,
        Sent::Accepted
    );
    let seen = log.lock().unwrap().pop().unwrap();
    let basic = seen.headers["authorization"].to_str().unwrap();
    let pair = STANDARD
        .decode(basic.strip_prefix("Basic ").unwrap())
        .unwrap();
    let sent = String::from_utf8(pair).unwrap();
    assert!(!sent.contains(stored), "the stored token stays here");
    assert!(sent.starts_with("__token__:pypi-AgEN"));
    let caveats = |sent: &str| {
        let text = URL_SAFE_NO_PAD.decode(sent.split_once(":pypi-").unwrap().1);
        String::from_utf8_lossy(&text.unwrap()).into_owned()
    };
    let name = r#"[1,["acme-demo"]]"#;
    assert!(caveats(&sent).contains(name) && !caveats(&sent).contains("[2,"));
    // Any other token cannot be narrowed, and so goes nowhere.
    let other = upstream.publish(&mut publish, &self::token(), LIMIT).await;
    assert!(matches!(other, Sent::Refused { said, .. } if said.contains("no macaroon")));
    assert!(log.lock().unwrap().is_empty());
    // With the project's id in the configuration, by that as well.
    let id = "0b6cf8a4-5a1d-4d4e-8f57-2f2f0b3f9d10";
    let ids = serde_json::json!({ "acme-demo": id });
    let by_id = Address {
        narrow: true,
        project_ids: Some(serde_json::from_value(ids).unwrap()),
        ..address(&url)
    };
    let upstream = PyPi::new(by_id, Timeouts::default()).unwrap();
    upstream.publish(&mut publish, &token, LIMIT).await;
    let seen = log.lock().unwrap().pop().unwrap();
    let basic = seen.headers["authorization"].to_str().unwrap();
    let pair = STANDARD
        .decode(basic.strip_prefix("Basic ").unwrap())
        .unwrap();
    let sent = caveats(&String::from_utf8(pair).unwrap());
    let by_id = format!(r#"[2,["{id}"]]"#);
    assert!(sent.contains(name) && sent.contains(&by_id), "{sent}");
}

#[tokio::test]
async fn replies_are_told_in_words() {
    let html = |text: &str| {
        format!(
            "<html>\n <head>\n  <title>400 {text}</title>\n </head>\n <body>\n  <h1>400 {text}</h1>\n The server could not comply\n </body></html>"
        )
    };
    let refused = |sent: Sent| match sent {
        Sent::Refused { status, said } => (status, said),
        other => panic!("{other:?}"),
    };
    let exists = html("File already exists (&#x27;acme_demo-1.0.0.whl&#x27;).");
    let (status, said) = refused(sent(400, &[], &exists).await);
    assert_eq!(status, 400);
    assert_eq!(said, "File already exists ('acme_demo-1.0.0.whl').");
    for (status, body, want) in [
        (403, "Invalid API Token".to_owned(), "stored token cover"),
        (
            403,
            html("Read-only mode: Uploads are temporarily disabled."),
            "Read-only mode",
        ),
        (429, "slow down".to_owned(), "try again later"),
        (409, "exists".to_owned(), "exists"),
        (413, String::new(), "Payload Too Large"),
        (
            400,
            r#"{"message":"older than 14 days"}"#.to_owned(),
            "older than 14 days",
        ),
        (
            400,
            "Use another token than pypi-SECRET".to_owned(),
            "[token]",
        ),
    ] {
        let (got, said) = refused(sent(status, &[], &body).await);
        assert_eq!(got, status);
        assert!(said.contains(want), "{said}");
        assert!(!said.contains("pypi-SECRET"));
    }
    for (status, body) in [(500, "x"), (502, "x"), (503, "x"), (408, "x"), (204, "")] {
        assert_eq!(sent(status, &[], body).await, Sent::Unclear, "{status}");
    }
}

#[tokio::test]
async fn attack_39_a_redirect_takes_the_token_nowhere() {
    let (elsewhere, log) = fake(200, &[], "").await;
    for status in [301, 302, 303, 307, 308] {
        let headers = [("location", elsewhere.to_string())];
        let sent = sent(status, &headers, "").await;
        assert!(matches!(sent, Sent::Refused { said, .. } if said.contains("upload_url")));
    }
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_shown_is_read_file_by_file() {
    let digest = Digest::of(Algorithm::Sha256, b"a");
    let hex = hex(digest.as_bytes());
    let page =
        format!(r#"<a href="x#sha256={hex}">{WHEEL}</a><a href="x">acme_demo-0.9.tar.gz</a>"#);
    let (url, _) = fake(200, &[("content-type", "text/html".to_owned())], &page).await;
    let package = "acme-demo".parse().unwrap();
    let shows = upstream(&url).shows(&package, None).await.unwrap();
    let file = |name: &str| File {
        name: name.to_owned(),
        size: 1,
        digest: digest.clone(),
    };
    let version = "1.0.0".parse().unwrap();
    assert_eq!(
        shows.file(&version, &file(WHEEL)).unwrap(),
        ReadBack::Shows(digest.clone())
    );
    assert_eq!(
        shows.file(&version, &file(SDIST)).unwrap(),
        ReadBack::Absent
    );
    assert!(
        shows
            .file(&"0.9".parse().unwrap(), &file("acme_demo-0.9.tar.gz"))
            .is_err()
    );
    let (url, _) = fake(404, &[], "").await;
    assert!(
        upstream(&url)
            .shows(&package, None)
            .await
            .unwrap()
            .versions
            .is_empty()
    );
    let (url, _) = fake(500, &[], "").await;
    assert!(upstream(&url).shows(&package, None).await.is_err());
}

#[test]
fn an_address_is_a_plain_one() {
    let good: Url = "https://registry.example/".parse().unwrap();
    assert!(PyPi::new(address(&good), Timeouts::default()).is_ok());
    for bad in [
        "https://user@registry.example/",
        "https://registry.example/?x",
    ] {
        let other = Address {
            upload: Some(bad.parse().unwrap()),
            ..address(&good)
        };
        assert!(PyPi::new(other, Timeouts::default()).is_err(), "{bad}");
    }
    let none = Address {
        upload: None,
        ..address(&good)
    };
    assert!(PyPi::new(none, Timeouts::default()).is_err());
}

#[tokio::test]
async fn attack_41_a_server_that_repeats_the_requests_headers_does_not_put_the_token_into_the_jobs_output()
 {
    let basic = STANDARD.encode("__token__:pypi-SECRET");
    for words in [
        format!("403: authorization: Basic {basic}"),
        format!(
            "<pre>Authorization: Basic {}</pre>",
            basic.trim_end_matches('=')
        ),
        "no pypi-SECRET here".to_owned(),
    ] {
        let Sent::Refused { said, .. } = sent(403, &[], &words).await else {
            panic!("not refused");
        };
        assert!(said.contains("[token]"), "{said}");
        assert!(!said.contains(basic.trim_end_matches('=')), "{said}");
        assert!(!said.contains("SECRET"), "{said}");
    }
}
