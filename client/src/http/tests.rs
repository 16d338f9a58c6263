//! A broker of a few lines, that answers what a test scripts.

use super::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Answers one connection per script line; returns what was asked.
async fn serve(script: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for reply in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut part = [0; 4096];
                let n = stream.read(&mut part).await.unwrap();
                head.extend_from_slice(&part[..n]);
            }
            asked.push(String::from_utf8_lossy(&head).into_owned());
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        asked
    });
    (base, task)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "current_thread")]
async fn a_signed_call_is_signed_again_once_with_the_new_nonce() {
    let unauthorized = reply("401 Unauthorized", "DPoP-Nonce: n1\r\n", "{}");
    let (base, task) = serve(vec![unauthorized, reply("200 OK", "", "7")]).await;
    let broker = Broker::new(&base, &Env::default()).unwrap();
    let key = DeviceKey::from_seed([1; 32]).unwrap();
    let n: u32 = broker.get("/v1/x?a=1", Proof::Device(&key)).await.unwrap();
    assert_eq!(n, 7);
    let asked = task.await.unwrap();
    let claims = |head: &str| {
        use base64::Engine as _;
        let line = head
            .lines()
            .find(|l| l.to_lowercase().starts_with("dpop:"))
            .unwrap();
        let jwt = line.split_once(':').unwrap().1.trim();
        let body = jwt.split('.').nth(1).unwrap();
        let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(body)
            .unwrap();
        serde_json::from_slice::<proto::device::CallClaims>(&raw).unwrap()
    };
    assert_eq!(claims(&asked[0]).nonce, "");
    assert_eq!(claims(&asked[1]).nonce, "n1");
    assert_eq!(claims(&asked[1]).htu, format!("{base}/v1/x?a=1"));
    assert_ne!(claims(&asked[0]).jti, claims(&asked[1]).jti);
}

#[tokio::test(flavor = "current_thread")]
async fn problems_become_exit_codes_and_redirects_are_not_followed() {
    let problem = r#"{"code":"denied","title":"bob said no","detail":"","status":403}"#;
    let (base, _task) = serve(vec![
        reply("403 Forbidden", "", problem),
        reply("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
        reply("502 Bad Gateway", "", "<html>"),
    ])
    .await;
    let broker = Broker::new(&base, &Env::default()).unwrap();
    let ask = || broker.get::<u32>("/", Proof::Bearer("cst_secret"));
    let denied = ask().await.unwrap_err();
    assert_eq!(denied.exit as u8, 3);
    assert_eq!(denied.what, "bob said no");
    assert_eq!(ask().await.unwrap_err().exit as u8, 1);
    assert_eq!(ask().await.unwrap_err().exit as u8, 6);
}

#[tokio::test(flavor = "current_thread")]
async fn a_reply_without_end_and_a_broker_that_is_away_fail() {
    let (base, _task) = serve(vec![reply("200 OK", "", &"x".repeat(REPLY_MAX + 1))]).await;
    let broker = Broker::new(&base, &Env::default()).unwrap();
    let f = broker.get::<u32>("/", Proof::Nobody).await.unwrap_err();
    assert!(f.what.contains("larger than"), "{}", f.what);
    let gone = Broker::new("http://127.0.0.1:9", &Env::default()).unwrap();
    let f = gone
        .post_only("/", Some(&1), Proof::Nobody)
        .await
        .unwrap_err();
    assert_eq!(f.exit as u8, 6);
}

#[test]
fn plain_http_goes_to_this_machine_only() {
    for good in [
        "https://b.example",
        "http://127.0.0.1:8080/x",
        "http://[::1]:1",
        "http://localhost",
    ] {
        assert!(Broker::new(good, &Env::default()).is_ok(), "{good}");
    }
    for bad in [
        "http://b.example",
        "ftp://b",
        "https://u:p@b.example",
        "b.example",
        "https://b/?q",
        "",
    ] {
        assert!(Broker::new(bad, &Env::default()).is_err(), "{bad}");
    }
    let slash = Broker::new("https://b.example/", &Env::default()).unwrap();
    assert_eq!(slash.base(), "https://b.example");
}
