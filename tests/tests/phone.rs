//! Answering from a phone: a real browser, with a virtual authenticator.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use reqwest::Method;
use serde_json::{Value, json};
use stand::{
    api::Packed,
    browser::Browser,
    daemon::Daemon,
    now,
    parts::{Clock, Verdaccio},
    people::{Job, Office, phone_policy},
};

async fn office() -> Office {
    office_of(1).await
}

/// The same where so many people must say yes.
async fn office_of(quorum: u32) -> Office {
    let policy = phone_policy(quorum, r#"["passkey", "totp"]"#);
    Office::of_phones(&policy).await.unwrap()
}

/// What the job's log says about its request.
async fn told(job: &Job) -> Value {
    let reply = job.with(Method::GET, "", &job.opened.ticket).await;
    reply.unwrap().ok().unwrap()
}

#[tokio::test]
async fn a_phone_enrols_with_a_passkey_and_approves_what_it_is_shown() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    phone.sees("Nothing waits for you").await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    let said = phone.sees("Publish exactly this?").await.unwrap();
    for shown in ["@acme/left@1.4.2", "package.tgz", "refs/tags/v1.4.2"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    phone
        .fill("Match code", &job.opened.match_code)
        .await
        .unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    let collected = job.collect().await.unwrap();
    assert!(collected.success(), "{}", collected.body);
    let said = phone.console().await.unwrap();
    assert_eq!(said, Vec::<String>::new());
    let events = office.events().await.unwrap();
    let answered = events.iter().find(|e| e["type"] == "answer-accepted");
    assert_eq!(answered.unwrap()["factor"], json!("passkey"));
}

#[tokio::test]
async fn without_a_passkey_an_authenticator_code_approves() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let how = json!({ "authenticator": false });
    let phone = browser.page("alice", how).await.unwrap();
    let app = office
        .phone_with_app(phone, "alice", &["release"])
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    let code = job.opened.match_code.as_str();
    phone.fill("Match code", code).await.unwrap();
    let code = app.generate(now().unwrap()).to_string();
    phone.fill("Authenticator code", &code).await.unwrap();
    phone.click("Approve").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
}

#[tokio::test]
async fn a_no_with_its_reason_reaches_the_jobs_log_and_every_open_phone() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let alice = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let bob = office.phone(&browser, "bob", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    bob.goto(&job.opened.page).await.unwrap();
    bob.sees("Publish exactly this?").await.unwrap();
    alice.goto(&job.opened.page).await.unwrap();
    alice.unfold("Deny").await.unwrap();
    let why = "Why? The job's log shows it. May stay empty.";
    alice.fill(why, "not from this branch").await.unwrap();
    alice.click("Deny").await.unwrap();
    let words = "enied by alice: not from this branch";
    alice.sees(words).await.unwrap();
    // Bob touched nothing: his page follows the request.
    let said = bob.sees(words).await.unwrap();
    assert!(!said.contains("Publish exactly this?"), "{said}");
    let status = told(&job).await;
    assert_eq!(status["state"], "denied");
    assert_eq!(status["reason"], "denied by alice: not from this branch");
    // And both find it again.
    bob.goto(&format!("{}/history", office.daemon.url))
        .await
        .unwrap();
    bob.sees(words).await.unwrap();
}

#[tokio::test]
async fn deny_and_freeze_stops_the_package_and_shows_who_did_it() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.unfold("Deny").await.unwrap();
    phone.click("Deny and freeze").await.unwrap();
    phone.sees("enied by alice").await.unwrap();
    let (refused, ..) = office.ask("@acme/left", "1.4.3", b"more").await.unwrap();
    assert_eq!(refused.code(), "frozen");
    let packages = format!("{}/packages", office.daemon.url);
    phone.goto(&packages).await.unwrap();
    let said = phone.sees("Nothing of it is released").await.unwrap();
    for shown in [
        "npm:@acme/left",
        "frozen",
        "Frozen by alice",
        "admin thaw npm:@acme/left",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
}

#[tokio::test]
async fn a_wrong_match_code_says_how_many_tries_are_left() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    let right = job.opened.match_code.clone();
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    // What is no code costs no try.
    phone.fill("Match code", "12").await.unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("type six digits").await.unwrap();
    for left in ["Two tries are left", "One try is left"] {
        phone.fill("Match code", wrong).await.unwrap();
        phone.click("Approve with passkey").await.unwrap();
        phone.sees(left).await.unwrap();
    }
    assert_eq!(job.state().await.unwrap(), "pending");
    phone.fill("Match code", &right).await.unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
}

#[tokio::test]
async fn two_people_approve_on_two_phones_and_each_sees_the_other() {
    let office = office_of(2).await;
    let browser = Browser::start().await.unwrap();
    let alice = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let bob = office.phone(&browser, "bob", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    let code = job.opened.match_code.as_str();
    for phone in [alice, bob] {
        phone.goto(&job.opened.page).await.unwrap();
        phone.sees("Publish exactly this?").await.unwrap();
    }
    // Bob is typing while alice answers; what he typed stays.
    bob.fill("Match code", code).await.unwrap();
    alice.fill("Match code", code).await.unwrap();
    alice.click("Approve with passkey").await.unwrap();
    alice.sees("You have approved it").await.unwrap();
    bob.sees("1 of 2 approvals: alice").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    bob.click("Approve with passkey").await.unwrap();
    bob.sees("2 of 2 approvals: alice and bob").await.unwrap();
    alice.sees("2 of 2 approvals: alice and bob").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
}

#[tokio::test]
async fn offline_nothing_is_answered_and_back_nothing_old_is_shown() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    let code = job.opened.match_code.as_str();
    phone.fill("Match code", code).await.unwrap();
    phone.offline(true).await.unwrap();
    phone.sees("You are offline").await.unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("Nothing was sent").await.unwrap();
    assert!(job.cancel().await.unwrap().success());
    phone.offline(false).await.unwrap();
    let said = phone.sees("The job took it back").await.unwrap();
    assert!(!said.contains("Publish exactly this?"), "{said}");
}

#[tokio::test]
async fn a_release_is_announced_from_the_phone_and_its_request_says_so() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let intents = format!("{}/intents", office.daemon.url);
    phone.goto(&intents).await.unwrap();
    phone.sees("Nothing is announced").await.unwrap();
    phone.unfold("Announce a release").await.unwrap();
    let item = "npm:@acme/left@1.4.2";
    phone.fill("Package and version", item).await.unwrap();
    phone.click("Announce with passkey").await.unwrap();
    let said = phone.sees("by you").await.unwrap();
    assert!(said.contains(item) && said.contains("live"), "{said}");
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("alice announced this version").await.unwrap();
    phone.goto(&intents).await.unwrap();
    phone.click("Withdraw 1.4.2").await.unwrap();
    phone.sees("withdrawn").await.unwrap();
}

#[tokio::test]
async fn a_request_whose_time_is_over_says_so_and_takes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::make(folder.path()).await.unwrap();
    let policy = phone_policy(1, r#"["passkey", "totp"]"#);
    let builder = clock.env(Daemon::builder());
    let mut office = Office::of_phones_as(builder, &policy).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    clock.pass(&mut office.daemon, 31 * 60).await.unwrap();
    // She looks at the page all the while, and touches nothing.
    let said = phone
        .sees("Nothing more of it can be published")
        .await
        .unwrap();
    assert!(said.contains("expired"), "{said}");
    for gone in ["Publish exactly this?", "Match code", "Deny"] {
        assert!(!said.contains(gone), "{gone}: {said}");
    }
    assert_eq!(job.state().await.unwrap(), "expired");
    let history = format!("{}/history", office.daemon.url);
    phone.goto(&history).await.unwrap();
    phone.sees("@acme/left").await.unwrap();
}

#[tokio::test]
async fn what_is_inside_appears_by_itself_with_what_changed_on_demand() {
    let registry = Verdaccio::start().await.unwrap();
    let policy = phone_policy(1, r#"["passkey", "totp"]"#);
    let named = Daemon::builder().named();
    let office = Office::start_as(named, &policy, &registry.url)
        .await
        .unwrap();
    office.store(&registry.token).await.unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let before = Packed::new("@acme/left", "1.4.1").unwrap().tgz;
    office
        .publish(&bob, "@acme/left", "1.4.1", &before)
        .await
        .unwrap();
    let extra = json!({"scripts": {"postinstall": "node index.js"}});
    let bytes = Packed::with("@acme/left", "1.4.2", &extra).unwrap().tgz;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", &bytes).await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    phone.fill("Match code", "12").await.unwrap();
    // The file comes while she looks; what she typed stays.
    assert!(job.hand_in(&bytes).await.unwrap().success());
    let said = phone.sees("is new: node index.js").await.unwrap();
    for shown in [
        "install-scripts",
        "high",
        "0 new, 2 changed, 0 gone since 1.4.1",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    let typed = "document.querySelector('#match').value";
    assert_eq!(phone.run(typed).await.unwrap(), json!("12"));
    phone.unfold("Files that differ (2)").await.unwrap();
    phone
        .click("Show what changed in package.json")
        .await
        .unwrap();
    phone
        .sees("\"scripts\":{\"postinstall\":\"node index.js\"}")
        .await
        .unwrap();
    assert_eq!(phone.axe().await.unwrap(), json!([]));
    assert_eq!(phone.console().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_published_requests_receipt_is_downloaded_and_verifies() {
    let registry = Verdaccio::start().await.unwrap();
    let policy = phone_policy(1, r#"["passkey", "totp"]"#);
    let named = Daemon::builder().named();
    let office = Office::start_as(named, &policy, &registry.url)
        .await
        .unwrap();
    office.store(&registry.token).await.unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let bytes = Packed::new("@acme/left", "1.4.2").unwrap().tgz;
    let job = office.open("@acme/left", "1.4.2", &bytes).await.unwrap();
    let code = bob.code(0).unwrap();
    let approved = bob.approve(&job, Some(&code)).await.unwrap();
    assert!(approved.success(), "{}", approved.body);
    let credential = job.open(&job.collect().await.unwrap()).unwrap();
    let put = job.put(&credential, &bytes).await.unwrap();
    assert!(put.success(), "{}", put.body);
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("1 of 1 approvals: bob").await.unwrap();
    // What would be saved, and under which name.
    let watch = r"(() => {
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => (globalThis.saved = blob.text(), make(blob));
        HTMLAnchorElement.prototype.click = function () { globalThis.named = this.download; };
    })()";
    phone.run(watch).await.unwrap();
    phone.click("Download the receipt").await.unwrap();
    let saved = "(async () => { while (!globalThis.named) await new Promise((r) => setTimeout(r, 50)); return [globalThis.named, await globalThis.saved]; })()";
    let saved = phone.run(saved).await.unwrap();
    let id = job.opened.id;
    assert_eq!(saved[0], format!("receipt-{id}.json"));
    let status: Value = office.admin.get("/v1/status").await.unwrap().ok().unwrap();
    let key = status["log_key"].as_str().unwrap();
    let receipt = saved[1].as_str().unwrap();
    let report = proto::log::receipt::verify_receipt(receipt.as_bytes(), Some(key)).unwrap();
    assert_eq!(report.facts.id, id);
    assert_eq!(report.approvers[0].person.as_str(), "bob");
}
