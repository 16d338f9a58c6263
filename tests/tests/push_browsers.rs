//! Web Push as browsers have it: end to end in Firefox with a push service on this machine, and the service worker's
//! part in Chromium.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    browser::Browser,
    daemon::Daemon,
    firefox::Firefox,
    people::{NO_REGISTRY, Office, phone_policy},
};

async fn office(push: &str) -> Office {
    let builder = Daemon::builder()
        .named()
        .extra(&format!("[push]\norigins = [\"{push}\"]\n"));
    let policy = phone_policy(1, r#"["passkey", "totp"]"#);
    Office::start_as(builder, &policy, NO_REGISTRY)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_rings_a_real_firefox_over_web_push() {
    let firefox = Firefox::start().await.unwrap();
    let office = office(&firefox.push).await;
    let url = office.daemon.url.clone();
    let invite = office
        .invite("alice", &["release"], false, &[])
        .await
        .unwrap();
    firefox
        .enroll(&format!("{url}/enroll#{invite}"))
        .await
        .unwrap();
    firefox.goto(&format!("{url}/notifications")).await.unwrap();
    firefox.sees("Does not ring").await.unwrap();
    firefox.click("Ring this browser").await.unwrap();
    firefox.sees("web-push at").await.unwrap();
    firefox.click("Send a test").await.unwrap();
    let shown = firefox.notifications(1).await.unwrap();
    let test = "This is a test: you would be rung like this.";
    assert_eq!(shown[0]["body"], test);
    firefox.sees("Delivered").await.unwrap();

    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    let id = job.opened.id.to_string();
    let shown = firefox.notifications(2).await.unwrap();
    let ring = shown.iter().find(|n| n["tag"] == id.as_str()).unwrap();
    assert_eq!(ring["title"], "Countersign");
    assert_eq!(ring["body"], "Something waits for your answer.");
    assert_eq!(ring["data"]["path"], format!("/r/{id}"));

    // The push service saw a key, a time, an urgency and a size, which is always the same; the browser took both.
    let posts = firefox.step("posts", json!({})).await.unwrap();
    let posts = posts.as_array().unwrap();
    assert_eq!(posts.len(), 2, "{posts:?}");
    for post in posts {
        assert_eq!(
            (&post["why"], &post["code"]),
            (&Value::Null, &json!(100)),
            "{post}"
        );
        assert!(!post.to_string().contains(&id), "{post}");
    }
    assert_eq!(posts[0]["size"], posts[1]["size"]);
    assert_eq!(posts[1]["headers"]["urgency"], "high");

    // The push service forgets the subscription: the broker does too.
    firefox.step("forget", json!({})).await.unwrap();
    office.open("@acme/right", "1.0.0", b"more").await.unwrap();
    while !office
        .events()
        .await
        .unwrap()
        .iter()
        .any(|e| e["type"] == "channel-gone")
    {}
    firefox.goto(&format!("{url}/notifications")).await.unwrap();
    firefox.sees("None: nobody rings you.").await.unwrap();
    let said = firefox.step("console", json!({})).await.unwrap();
    assert_eq!(said, json!([]));
}

#[tokio::test]
async fn attack_34_a_push_message_shows_fixed_words_and_leads_nowhere_else() {
    let office = office("https://push.example").await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    let id = job.opened.id.to_string();
    let push = async |data: &str| -> Value {
        let close = "navigator.serviceWorker.ready.then((r) => r.getNotifications()).then((all) => all.forEach((n) => n.close()))";
        phone.run(close).await.unwrap();
        let shown = phone.step("push", json!({ "data": data })).await.unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        shown[0].clone()
    };
    let evil = "https://evil.example/";
    for data in [
        String::new(),
        "no json".to_owned(),
        "null".to_owned(),
        json!({"about": "You won", "id": evil}).to_string(),
        json!({"about": "__proto__", "id": "../../evil"}).to_string(),
        json!({"about": "waits", "id": ["x"], "title": "Evil", "body": "Evil", "path": evil})
            .to_string(),
    ] {
        let shown = push(&data).await;
        assert_eq!(shown["title"], "Countersign", "{data}");
        assert_eq!(shown["body"], "Something waits for your answer.", "{data}");
        assert_eq!(shown["data"], json!({"path": "/"}), "{data}");
    }
    let alarm = push(&json!({"about": "alarm"}).to_string()).await;
    assert_eq!(alarm["body"], "An alarm: look at the inbox.");

    // A ring's tap leads the open app to the request, and answers nothing.
    let ring = push(&json!({"about": "waits", "id": id}).to_string()).await;
    assert_eq!(ring["tag"], id.as_str());
    phone.step("tap", json!({})).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
}
