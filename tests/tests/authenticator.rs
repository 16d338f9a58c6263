//! An authenticator app that is set up after the enrolment: on the phone, and from a terminal in place of another.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::Value;
use stand::{
    browser::Browser,
    now,
    people::{Office, phone_policy},
    team::Team,
};
use std::{
    fs,
    time::{Duration, Instant},
};
use totp_rs::Totp;

#[tokio::test]
async fn who_has_a_passkey_alone_sets_an_app_up_on_the_devices_page() {
    let policy = phone_policy(1, r#"["passkey", "totp"]"#);
    let office = Office::of_phones(&policy).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let devices = format!("{}/devices", office.daemon.url);
    phone.goto(&devices).await.unwrap();
    phone.click("Set up an authenticator app").await.unwrap();
    phone.sees("The code that the new app shows").await.unwrap();
    let read = "document.querySelector('a[href^=\"otpauth:\"]').href";
    let otpauth = phone.run(read).await.unwrap();
    let app = Totp::from_url(otpauth.as_str().unwrap()).unwrap();
    let code = app.generate(now().unwrap()).to_string();
    phone
        .fill("The code that the new app shows", &code)
        .await
        .unwrap();
    phone.click("Use this app").await.unwrap();
    phone.sees("Set up another app in its place").await.unwrap();
}

#[tokio::test]
async fn a_terminal_sets_another_app_up_and_the_one_before_is_worth_nothing() {
    let team = Team::with_policy(stand::team::POLICY).await.unwrap();
    let alice = &team.maintainers[0];
    let fresh = team.folder().join("another.totp").display().to_string();
    let start = Instant::now();
    loop {
        let code = team.code(alice).await.unwrap();
        let args = [
            "--json",
            "devices",
            "totp",
            "--totp-file",
            &fresh,
            "--totp",
            &code,
        ];
        let out = team.run(alice, &args, &[]).await.unwrap();
        if out.success() {
            assert!(out.stdout.contains("true"), "{out}");
            break;
        }
        // The code of this half minute was used at the enrolment: the next one is awaited.
        assert!(out.stderr.contains("factor-wrong"), "{out}");
        assert!(start.elapsed() < Duration::from_secs(70), "{out}");
        fs::remove_file(&fresh).unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
    }
    // The app before is no app any more.
    let args = ["totp", "--quiet", "--file", &alice.totp()];
    let code = team.run(alice, &args, &[]).await.unwrap().ok().unwrap();
    let args = ["devices", "add", "--totp", code.stdout.trim()];
    let out = team.run(alice, &args, &[]).await.unwrap();
    assert!(out.stderr.contains("wrong or was used"), "{out}");
    let devices = team.run(alice, &["--json", "devices"], &[]).await.unwrap();
    let devices: Value = serde_json::from_str(&devices.ok().unwrap().stdout).unwrap();
    assert_eq!(devices["totp"], true);
}
