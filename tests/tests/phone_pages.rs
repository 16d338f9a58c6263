//! The phone app's pages: what they weigh, whom they shut out, and whether a browser offers to install them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    browser::{Browser, Page},
    people::{Office, phone_policy},
};
use std::collections::HashMap;

/// Most bytes that a first visit may transfer.
const BUDGET: u64 = 60_000;
/// Most that the content may jump: what the browser's makers call good is 0.1.
const SHIFT: f64 = 0.1;

async fn office() -> Office {
    let policy = phone_policy(2, r#"["passkey", "totp"]"#);
    Office::of_phones(&policy).await.unwrap()
}

/// Something on every page: an open request, one that was denied, and a frozen package.
async fn busy(office: &Office) -> String {
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    office
        .hire("carol", &["release"], false, &[])
        .await
        .unwrap();
    let denied = office.open("@acme/old", "1.0.0", b"old").await.unwrap();
    assert!(bob.deny(&denied, false).await.unwrap().success());
    let frozen = office.open("@acme/cold", "1.0.0", b"cold").await.unwrap();
    assert!(bob.deny(&frozen, true).await.unwrap().success());
    let open = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    let code = bob.code(0).unwrap();
    assert!(bob.approve(&open, Some(&code)).await.unwrap().success());
    open.opened.page
}

/// An admin's page, so that every page has something to show.
async fn enrolled<'a>(
    office: &Office,
    browser: &'a Browser,
    (name, invite): (&'a str, &str),
    how: Value,
) -> Page<'a> {
    let page = browser.page(name, how).await.unwrap();
    let link = format!("{}/enroll#{invite}", office.daemon.url);
    page.enroll(&link).await.unwrap();
    page
}

#[tokio::test]
async fn nobody_is_shut_out_of_any_page() {
    let office = office().await;
    let request = busy(&office).await;
    let browser = Browser::start().await.unwrap();
    // All are invited before the first of them is an admin, who would have to agree.
    let mut invites = HashMap::new();
    for name in ["one", "two", "three", "four"] {
        let invite = office.invite(name, &["release"], true, &[]).await.unwrap();
        invites.insert(name, invite);
    }
    for (name, width, dark) in [
        ("one", 360, false),
        ("two", 360, true),
        ("three", 1280, false),
        ("four", 1280, true),
    ] {
        let how = json!({ "width": width, "dark": dark });
        let page = enrolled(&office, &browser, (name, &invites[name]), how).await;
        let mut pages = vec![(request.clone(), "Publish exactly this?")];
        for (path, text) in [
            ("/", "npm:@acme/left@1.4.2"),
            ("/history", "denied by bob"),
            ("/packages", "Frozen by bob"),
            ("/intents", "Say what is about to be released"),
            ("/notifications", "Quiet hours"),
            ("/devices", "Passkeys"),
            ("/log", "It continues what this browser saw"),
            ("/admin", "Registry tokens"),
            ("/more", "My devices"),
            ("/enroll", "Enrol this browser"),
        ] {
            pages.push((format!("{}{path}", office.daemon.url), text));
        }
        for (url, text) in pages {
            page.goto(&url).await.unwrap();
            page.sees(text).await.unwrap();
            let unfold = "document.querySelectorAll('details').forEach((d) => (d.open = true))";
            page.run(unfold).await.unwrap();
            let found = page.axe().await.unwrap();
            assert_eq!(found, json!([]), "{url} at {width}, dark: {dark}");
            let wide = "document.documentElement.scrollWidth > innerWidth";
            assert_eq!(
                page.run(wide).await.unwrap(),
                json!(false),
                "{url} at {width}"
            );
            let small = r#"[...document.querySelectorAll("a:not(.skip), button, summary, input, textarea")]
                .filter((e) => e.offsetParent && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"#;
            assert_eq!(
                page.run(small).await.unwrap(),
                json!([]),
                "{url} at {width}"
            );
        }
        let said = page.console().await.unwrap();
        let said: Vec<_> = said
            .into_iter()
            .filter(|line| !line.starts_with("verbose:"))
            .collect();
        assert_eq!(said, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_first_visit_is_small_and_the_document_alone_says_something() {
    let office = office().await;
    let request = busy(&office).await;
    let browser = Browser::start().await.unwrap();
    let page = browser.phone("new").await.unwrap();
    page.goto(&request).await.unwrap();
    page.sees("not one of your devices").await.unwrap();
    page.step("installability", json!({})).await.unwrap();
    let bytes = page.step("bytes", json!({})).await.unwrap();
    let bytes = bytes.as_u64().unwrap();
    println!("a first visit: {bytes} bytes");
    assert!(bytes > 5_000 && bytes < BUDGET, "{bytes}");

    let document = reqwest::Client::new().get(&request);
    let document = document.header("accept", "text/html").send().await.unwrap();
    let document = document.text().await.unwrap();
    for shown in ["A publish waits for your answer", "countersign approve"] {
        assert!(document.contains(shown), "{shown}");
    }

    let invite = office.invite("alice", &["release"], true, &[]).await;
    let invite = ("alice", invite.as_ref().unwrap().as_str());
    let phone = enrolled(&office, &browser, invite, json!({ "width": 360 })).await;
    phone.goto(&request).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    let shift = phone.step("shift", json!({})).await.unwrap();
    assert!(shift.as_f64().unwrap() < SHIFT, "{shift}");
}

#[tokio::test]
async fn a_browser_offers_to_install_the_app() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let page = browser.phone("new").await.unwrap();
    page.goto(&format!("{}/", office.daemon.url)).await.unwrap();
    let missing = page.step("installability", json!({})).await.unwrap();
    // A page of a test is in a private window, where nothing is installed.
    let missing: Vec<_> = missing.as_array().unwrap().iter().collect();
    let missing: Vec<_> = missing
        .into_iter()
        .filter(|e| *e != "in-incognito")
        .collect();
    assert_eq!(missing, Vec::<&Value>::new());
}
