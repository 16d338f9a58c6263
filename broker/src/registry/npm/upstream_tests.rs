use super::*;
use crate::registry::{
    ReadBack, Trial,
    fake::fake,
    npm::{read, samples},
};
use proto::{
    digest::{Algorithm, Digest},
    request::File,
};

fn sample(archive: &[u8]) -> Publish {
    let text = samples::document(archive).to_string();
    read(
        text.as_bytes(),
        &"@acme/left".parse().unwrap(),
        &std::env::temp_dir(),
    )
    .unwrap()
}

fn token() -> Secret<String> {
    Secret::new("npm_SECRET".to_owned())
}

fn upstream(base: &Url) -> Npm {
    let timeouts = Timeouts {
        read: Duration::from_secs(5),
        ..Timeouts::default()
    };
    Npm::new(Address::at(base.clone()), timeouts).unwrap()
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_publish_is_rebuilt_and_means_the_same() {
    let (base, log) = fake(201, &[], "{}").await;
    let mut noise = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let inner = samples::entry(
        "package/package.json",
        b'0',
        samples::PACKAGE_JSON.as_bytes(),
    );
    let large = samples::tgz(&[inner, samples::entry("package/noise", b'0', &noise)]);
    for archive in [samples::archive(), large] {
        let mut publish = sample(&archive);
        let upstream = upstream(&base);
        // Twice: the second attempt sends the same bytes.
        for _ in 0..2 {
            assert_eq!(
                upstream.publish(&mut publish, &token(), LIMIT).await,
                Sent::Accepted
            );
        }
        let seen = log.lock().unwrap().split_off(0);
        assert_eq!(seen[0].body, seen[1].body);
        let seen = &seen[0];
        assert_eq!(
            (seen.method.as_str(), seen.path.as_str()),
            ("PUT", "/r/@acme%2fleft")
        );
        assert_eq!(seen.headers["authorization"], "Bearer npm_SECRET");
        assert_eq!(seen.headers["npm-command"], "publish");
        assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
        assert!(!seen.headers.contains_key("transfer-encoding"));
        assert!(!seen.headers.contains_key("cookie"));
        let mut expected = samples::document(&archive);
        let address = format!("{base}/@acme/left/-/@acme/left-1.0.0.tgz");
        expected["versions"]["1.0.0"]["dist"]["tarball"] = address.into();
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body, expected);
        // What we write, we would read.
        assert!(
            read(
                seen.body.as_slice(),
                publish.package(),
                &std::env::temp_dir()
            )
            .is_ok()
        );
    }
}

#[tokio::test]
async fn a_provenance_bundle_passes_byte_for_byte() {
    let (base, log) = fake(200, &[], "").await;
    let archive = samples::archive();
    let bundle = samples::bundle(&archive, "pkg:npm/%40acme/left@1.0.0");
    let mut document = samples::document(&archive);
    document["_attachments"]["@acme/left-1.0.0.sigstore"] = serde_json::json!({
        "content_type": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "data": bundle, "length": bundle.len()
    });
    let package = "@acme/left".parse().unwrap();
    let text = document.to_string();
    let mut publish = read(text.as_bytes(), &package, &std::env::temp_dir()).unwrap();
    assert_eq!(
        upstream(&base).publish(&mut publish, &token(), LIMIT).await,
        Sent::Accepted
    );
    let body: serde_json::Value = serde_json::from_slice(&log.lock().unwrap()[0].body).unwrap();
    assert_eq!(body["_attachments"], document["_attachments"]);
}

#[tokio::test]
async fn attack_42_only_a_clear_no_is_a_no() {
    for status in [400, 401, 402, 403, 404, 413, 422] {
        let (base, _) = fake(status, &[], r#"{"error":"no \u001b[2J npm_SECRET"}"#).await;
        let sent = upstream(&base)
            .publish(&mut sample(&samples::archive()), &token(), LIMIT)
            .await;
        let said = "no \u{FFFD}[2J [token]".to_owned();
        assert_eq!(sent, Sent::Refused { status, said });
    }
    for status in [202, 204, 408, 409, 429, 500, 502, 503, 504] {
        let (base, _) = fake(status, &[], "").await;
        let sent = upstream(&base)
            .publish(&mut sample(&samples::archive()), &token(), LIMIT)
            .await;
        assert_eq!(sent, Sent::Unclear, "{status}");
    }
    // Nobody there; and somebody who never answers.
    let nobody = "http://127.0.0.1:1/".parse().unwrap();
    let mut publish = sample(&samples::archive());
    assert_eq!(
        upstream(&nobody)
            .publish(&mut publish, &token(), LIMIT)
            .await,
        Sent::Unclear
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", silent.local_addr().unwrap())
        .parse()
        .unwrap();
    let soon = Duration::from_millis(200);
    assert_eq!(
        upstream(&address)
            .publish(&mut publish, &token(), soon)
            .await,
        Sent::Unclear
    );
    // The archive is still there for the next attempt.
    let (base, log) = fake(200, &[], "").await;
    assert_eq!(
        upstream(&base).publish(&mut publish, &token(), LIMIT).await,
        Sent::Accepted
    );
    assert!(!log.lock().unwrap()[0].body.is_empty());
}

#[tokio::test]
async fn attack_39_no_redirect_is_followed() {
    let (thief, stolen) = fake(200, &[], "{}").await;
    for status in [301, 302, 303, 307, 308] {
        let (base, _) = fake(status, &[("location", thief.to_string())], "").await;
        let upstream = upstream(&base);
        let package = "@acme/left".parse().unwrap();
        let mut publish = sample(&samples::archive());
        assert_eq!(
            upstream.publish(&mut publish, &token(), LIMIT).await,
            Sent::Unclear
        );
        assert!(upstream.versions(&package, Some(&token())).await.is_err());
        assert!(upstream.whoami(&token()).await.is_err());
    }
    assert!(stolen.lock().unwrap().is_empty());
}

/// The variables are read at start, so that this test runs itself again with them set.
#[test]
fn attack_39_proxy_variables_are_ignored() {
    const CHILD: &str = "COUNTERSIGN_TEST_UPSTREAM";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(base) = std::env::var(CHILD) {
        let who = runtime.block_on(upstream(&base.parse().unwrap()).whoami(&token()));
        assert_eq!(who.unwrap(), Account::Named("maint".into()));
        return;
    }
    let (base, log) = runtime.block_on(fake(200, &[], r#"{"username":"maint"}"#));
    let (proxy, caught) = runtime.block_on(fake(200, &[], r#"{"username":"thief"}"#));
    let name = "registry::npm::upstream::tests::attack_39_proxy_variables_are_ignored";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name]).env(CHILD, base.as_str());
    for variable in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        child.env(variable, proxy.as_str());
    }
    child.env_remove("no_proxy").env_remove("NO_PROXY");
    assert!(child.output().unwrap().status.success());
    assert_eq!(log.lock().unwrap().len(), 1);
    assert!(caught.lock().unwrap().is_empty());
}

#[tokio::test]
async fn reads_back_what_the_registry_shows() {
    let digest = Digest::of(Algorithm::Sha512, b"x");
    let text = format!(
        r#"{{"versions":{{"1.0.0":{{"dist":{{"integrity":"{}"}}}},"0.9.0":{{"dist":{{}}}}}},"dist-tags":{{"latest":"1.0.0"}}}}"#,
        digest.sri()
    );
    let (base, log) = fake(200, &[], &text).await;
    let upstream = upstream(&base);
    let package = "@acme/left".parse().unwrap();
    let version = |v: &str| v.parse().unwrap();
    let file = File {
        name: "left-1.0.0.tgz".into(),
        size: 1,
        digest: digest.clone(),
    };
    for _ in 0..2 {
        let shown = upstream.shows(&package, Some(&token())).await.unwrap();
        let back = shown.file(&version("1.0.0"), &file).unwrap();
        assert_eq!(back, ReadBack::Shows(digest.clone()));
    }
    let shown = upstream.shows(&package, None).await.unwrap();
    let back = shown.file(&version("2.0.0"), &file).unwrap();
    assert_eq!(back, ReadBack::Absent);
    assert!(matches!(
        shown.file(&version("0.9.0"), &file),
        Err(ReadError::NoDigest(Algorithm::Sha512))
    ));
    assert_eq!(
        upstream.versions(&package, None).await.unwrap().newest,
        Some(version("1.0.0"))
    );
    let seen = log.lock().unwrap();
    assert_ne!(seen[0].path, seen[1].path, "the caches are passed by");
    assert_eq!(seen[0].headers["authorization"], "Bearer npm_SECRET");
    assert!(!seen[2].headers.contains_key("authorization"));
    assert!(
        seen[0].headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("countersign/")
    );
}

#[tokio::test]
async fn an_unknown_package_is_empty_and_a_failure_is_not() {
    let package = "left".parse().unwrap();
    let (base, _) = fake(404, &[], "{}").await;
    assert_eq!(
        upstream(&base).versions(&package, None).await.unwrap(),
        Published::default()
    );
    for status in [401, 403, 500, 503, 204] {
        let (base, _) = fake(status, &[], "").await;
        let read = upstream(&base).versions(&package, None).await;
        assert!(
            matches!(read, Err(ReadError::Status(s)) if s == status),
            "{status}"
        );
    }
    let (base, _) = fake(200, &[], "<html>").await;
    let read = upstream(&base).versions(&package, None).await;
    assert!(matches!(read, Err(ReadError::NotUnderstood)));
    let nobody = "http://127.0.0.1:1/".parse().unwrap();
    assert!(matches!(
        upstream(&nobody).versions(&package, None).await,
        Err(ReadError::Unreachable)
    ));
}

#[tokio::test]
async fn whose_token_it_is() {
    let (base, _) = fake(200, &[], r#"{"username":"maint"}"#).await;
    assert_eq!(
        upstream(&base).whoami(&token()).await.unwrap(),
        Account::Named("maint".into())
    );
    let (base, _) = fake(401, &[], "{}").await;
    assert_eq!(
        upstream(&base).whoami(&token()).await.unwrap(),
        Account::Unknown
    );
    let (base, _) = fake(200, &[], "{}").await;
    assert_eq!(
        upstream(&base).whoami(&token()).await.unwrap(),
        Account::Unknown
    );
    // Whoever is no one there is unknown; a 403 may be a firewall's.
    for (status, unknown) in [(401, true), (403, false)] {
        let (base, _) = fake(status, &[], "{}").await;
        let proof = upstream(&base).prove(&token(), Trial::default()).await;
        assert_eq!(proof.unwrap().unknown, unknown, "{status}");
    }
    let crooked = Secret::new("a\r\nx: y".to_owned());
    assert!(upstream(&base).whoami(&crooked).await.is_err());
}

#[test]
fn only_a_plain_address_is_a_registry() {
    for bad in [
        "ftp://h/",
        "http://u@h/",
        "http://u:p@h/",
        "https://h/?x",
        "https://h/#x",
        "file:///x",
        "data:x",
    ] {
        assert!(
            Npm::new(Address::at(bad.parse().unwrap()), Timeouts::default()).is_err(),
            "{bad}"
        );
    }
}
