//! Announced releases: what a person said before any job asked.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    api::{Inbox, Opened, Question, StateName},
    ids::IntentId,
    intent::{IntentState, Names},
    problem::Code,
    request::Item,
};
use serde_json::{Value, json};
use stand::{
    api::{Api, Device, Job, Packed, Small, policy_of_one},
    free_port,
    intents::{version_only, with_files},
    team::{POLICY, PUBLISH, Team},
};

/// The commit that the release job's token claims.
const COMMIT: &str = "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e";

fn packed(version: &str) -> Packed {
    Packed::new("@acme/left", version).unwrap()
}

fn item(version: &str) -> Item {
    packed(version).item("latest").unwrap()
}

/// A broker whose registry is never needed.
async fn small(policy: &str) -> Small {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    Small::over(&url, "canary-registry-token", policy)
        .await
        .unwrap()
}

async fn question(device: &Device, job: &Job) -> Question {
    device.question(job.id).await.unwrap().ok().unwrap()
}

/// What alice sees of her one intent.
async fn standing(device: &Device, id: IntentId) -> IntentState {
    let all = device.intents().await.unwrap();
    all.iter().find(|i| i.id == id).unwrap().state
}

#[tokio::test]
async fn what_was_announced_with_its_files_is_published_without_an_answer() {
    let team = Team::with_policy(&POLICY.replacen("quorum = 2", "quorum = 1", 1))
        .await
        .unwrap();
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let pack = ["pack", "--pack-destination", ".."];
    stand::command::run("npm", &pack, &[], &dir, PUBLISH)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let file = team.folder().join("acme-left-1.4.2.tgz");
    let file = file.display().to_string();
    let alice = &team.maintainers[0];

    // Files of another version are not what is named.
    let wrong = ["npm:@acme/left@1.4.3", "--file", &file];
    let wrong = team.intend(alice, &wrong).await.unwrap();
    assert_eq!(wrong.status, Some(2), "{wrong:?}");

    let args = ["npm:@acme/left@1.4.2", "--file", &file, "--for", "20m"];
    let out = team.intend(alice, &args).await.unwrap().ok().unwrap();
    let made: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(made["names"], json!("bytes"));

    let mut job = team.publish(&[&file]).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = team.registry.integrity("@acme/left", "1.4.2").await;
    assert!(shown.unwrap().is_some(), "{}", job.text());

    let list = team.run(alice, &["intend", "--list"], &[]).await.unwrap();
    let spent = format!("spent for request {}", job.id);
    assert!(list.stdout.contains(&spent), "{}", list.stdout);
    let show = team.run(alice, &["show", &job.id], &[]).await.unwrap();
    assert!(
        show.stdout.contains("announced  by alice"),
        "{}",
        show.stdout
    );

    // Anybody can check afterwards whose yes it was.
    let receipt = team.folder().join("receipt.json").display().to_string();
    let args = ["receipt", &job.id, "--out", &receipt];
    team.run(alice, &args, &[]).await.unwrap().ok().unwrap();
    let args = ["--json", "verify", &receipt];
    let verified = team.run(alice, &args, &[]).await.unwrap().ok().unwrap();
    assert!(
        verified.stdout.contains("\"announced\":\"bytes\""),
        "{verified:?}"
    );
}

#[tokio::test]
async fn an_intent_is_one_persons_approval_and_the_others_still_answer() {
    let small = small(stand::api::POLICY).await;
    let wish = item("1.4.2");
    let made = small
        .alice
        .intend(vec![with_files(&wish)], Some(COMMIT))
        .await;
    assert_eq!(made.unwrap().names, Names::Bytes);
    let job = small.open(std::slice::from_ref(&wish)).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    let question = question(&small.bob, &job).await;
    assert_eq!(question.approvals.len(), 1);
    assert!(question.intents[0].counts);
    let inbox: Inbox = small.bob.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox.requests[0].intended_by[0].as_str(), "alice");
    assert_eq!(inbox.requests[0].approvals, (1, 2));

    // Her own answer brings it no nearer: two people are two people (attack 29).
    let again = small.alice.approve(&job).await.unwrap();
    assert_eq!(again.code(), Some(Code::NotAllowed));
    assert!(small.bob.approve(&job).await.unwrap().good());
    assert_eq!(job.state().await.unwrap(), "approved");
    job.collect().await.unwrap();
}

#[tokio::test]
async fn attack_12_a_request_that_fits_the_commit_and_not_the_bytes_gains_nothing() {
    let policy = policy_of_one().replacen("quorum = 1", "quorum = 1\nintent = \"commit\"", 1);
    let small = small(&policy).await;
    let wish = item("1.4.2");
    let announced = vec![with_files(&wish)];
    small.alice.intend(announced, Some(COMMIT)).await.unwrap();
    let evil = Packed::with("@acme/left", "1.4.2", &json!({"scripts": {"install": "x"}}));
    let thief = small.open(&[evil.unwrap().item("latest").unwrap()]).await;
    let thief = thief.unwrap();
    assert_eq!(thief.state().await.unwrap(), "pending");
    let seen = question(&small.alice, &thief).await;
    assert!(seen.intents.is_empty() && seen.approvals.is_empty());
    assert!(
        seen.warnings[0].contains("NOT what was announced"),
        "{:?}",
        seen.warnings
    );
    assert_eq!(
        thief.collect_raw().await.unwrap().code(),
        Some(Code::NotApproved)
    );
}

#[tokio::test]
async fn attack_24_an_intent_without_files_or_commit_lets_a_request_ring_and_no_more() {
    let small = small(&policy_of_one()).await;
    let wish = item("1.4.2");
    for commit in [None, Some(COMMIT)] {
        let made = small.alice.intend(vec![version_only(&wish)], commit).await;
        assert_ne!(made.unwrap().names, Names::Bytes);
    }
    let job = small.open(std::slice::from_ref(&wish)).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    let seen = question(&small.bob, &job).await;
    assert_eq!(
        seen.intents.len(),
        1,
        "of each person the one that says most"
    );
    assert_eq!(seen.intents[0].names, Names::Commit);
    assert!(seen.approvals.is_empty() && !seen.intents[0].counts);
    assert_eq!(
        job.collect_raw().await.unwrap().code(),
        Some(Code::NotApproved)
    );
}

#[tokio::test]
async fn a_commit_counts_where_the_policy_says_so_and_said_so_when_people_were_asked() {
    let one = policy_of_one();
    let small = small(&one).await;
    let wish = item("1.4.2");
    let announced = || vec![version_only(&wish)];
    small.alice.intend(announced(), Some(COMMIT)).await.unwrap();
    let before = small.open(std::slice::from_ref(&wish)).await.unwrap();
    assert_eq!(before.state().await.unwrap(), "pending");

    // A weaker policy does not weaken what is open (attack 29).
    let weaker = one.replacen("quorum = 1", "quorum = 1\nintent = \"commit\"", 1);
    small.daemon.change_policy(&weaker).await.unwrap();
    assert_eq!(before.state().await.unwrap(), "pending");
    let after = small.open(std::slice::from_ref(&wish)).await.unwrap();
    assert_eq!(after.state().await.unwrap(), "approved");

    // Another commit is another release.
    let other = item("1.4.3");
    small
        .alice
        .intend(vec![version_only(&other)], Some(&COMMIT.replace('9', "8")))
        .await
        .unwrap();
    let other = small.open(&[other]).await.unwrap();
    assert_eq!(other.state().await.unwrap(), "pending");
    assert!(question(&small.alice, &other).await.intents.is_empty());
}

#[tokio::test]
async fn attack_27_of_two_requests_for_one_intent_one_is_approved_and_the_other_has_its_turn() {
    let small = small(&policy_of_one()).await;
    let wish = item("1.4.2");
    let made = small.alice.intend(vec![with_files(&wish)], None).await;
    let made = made.unwrap();
    let items = std::slice::from_ref(&wish);
    let jobs = futures_util::future::join_all((0..8).map(|_| small.open(items))).await;
    let jobs: Vec<Job> = jobs.into_iter().map(Result::unwrap).collect();
    let mut states = Vec::new();
    for job in &jobs {
        states.push(job.state().await.unwrap());
    }
    let approved: Vec<_> = (0..jobs.len())
        .filter(|n| states[*n] == "approved")
        .collect();
    assert_eq!(approved.len(), 1, "{states:?}");
    assert_eq!(standing(&small.alice, made.id).await, IntentState::Spent);

    // Whoever took it and does not come keeps it from nobody.
    let thief = &jobs[approved[0]];
    assert!(thief.cancel().await.unwrap().good());
    let waiting: Vec<_> = (0..jobs.len())
        .filter(|n| states[*n] == "pending")
        .collect();
    if let Some(next) = waiting.first() {
        assert_eq!(jobs[*next].state().await.unwrap(), "approved");
    }
    let late = small.open(items).await.unwrap();
    let expected = if waiting.is_empty() {
        "approved"
    } else {
        "pending"
    };
    assert_eq!(late.state().await.unwrap(), expected);
}

#[tokio::test]
async fn attack_29_the_intent_of_somebody_removed_counts_no_more() {
    let small = small(&policy_of_one()).await;
    let wish = item("1.4.2");
    let items = std::slice::from_ref(&wish);
    small
        .alice
        .intend(vec![with_files(&wish)], None)
        .await
        .unwrap();
    let job = small.open(items).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    assert!(small.robin.remove_person("alice").await.unwrap().good());
    assert!(
        !job.collect_raw().await.unwrap().good(),
        "decided again at release"
    );
    assert!(job.cancel().await.unwrap().good());

    let job = small.open(items).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    assert!(question(&small.bob, &job).await.intents.is_empty());
}

#[tokio::test]
async fn a_withdrawal_and_a_denial_win_until_the_credential_is_out() {
    let small = small(&policy_of_one()).await;
    let wish = item("1.4.2");
    let items = std::slice::from_ref(&wish);
    let announce = || small.alice.intend(vec![with_files(&wish)], None);

    let made = announce().await.unwrap();
    let job = small.open(items).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    // A no is never harder than a yes: anybody of the group takes it back.
    assert!(small.bob.withdraw(made.id).await.unwrap().good());
    assert_eq!(
        job.collect_raw().await.unwrap().code(),
        Some(Code::NotApproved)
    );
    assert!(job.cancel().await.unwrap().good());

    let made = announce().await.unwrap();
    let job = small.open(items).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    assert!(small.bob.deny(&job).await.unwrap().good());
    assert_eq!(
        standing(&small.alice, made.id).await,
        IntentState::Withdrawn
    );
    let again = small.open(items).await.unwrap();
    assert_eq!(again.state().await.unwrap(), "pending", "no is no");

    // What was frozen is not released, whoever announced it.
    announce().await.unwrap();
    let frozen = small
        .robin
        .freezer("freeze", "npm:@acme/left")
        .await
        .unwrap();
    assert!(frozen.good());
    let token = small.id_token().await.unwrap();
    let refused = small.open_raw(&token, items).await.unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen));
}

#[tokio::test]
async fn attack_22_and_23_an_intent_needs_its_own_device_and_a_fresh_code() {
    let policy =
        policy_of_one().replace("factors = [\"device\", \"totp\"]", "factors = [\"totp\"]");
    let small = small(&policy).await;
    let announced = || vec![with_files(&item("1.4.2"))];
    let code = small.alice.code().unwrap();
    let send = async |request| small.alice.announce(&request).await.unwrap().code();

    let none = small.alice.intending(announced(), None, None).unwrap();
    assert_eq!(send(none).await, Some(Code::FactorMissing));
    let mut foreign = small
        .alice
        .intending(announced(), None, Some(&code))
        .unwrap();
    foreign.signature = small
        .bob
        .intending(announced(), None, None)
        .unwrap()
        .signature;
    assert_eq!(send(foreign).await, Some(Code::NotAllowed));
    let stolen = small.bob.intending(announced(), None, Some(&code)).unwrap();
    assert_eq!(
        send(stolen).await,
        Some(Code::NotAllowed),
        "another device's statement"
    );
    let mut longer = small
        .alice
        .intending(announced(), None, Some(&code))
        .unwrap();
    longer.statement.expires = longer.statement.expires.after(60);
    assert_eq!(
        send(longer).await,
        Some(Code::NotAllowed),
        "one bit of the statement"
    );
    let spaced = small
        .alice
        .intending(announced(), None, Some(&format!(" {code}")))
        .unwrap();
    assert_eq!(send(spaced).await, Some(Code::BadRequest));

    let good = small
        .alice
        .intending(announced(), None, Some(&code))
        .unwrap();
    // Four: each that comes late is a wrong code, and five of those end the tries.
    let once = [&good; 4].map(|request| small.alice.announce(request));
    let taken = futures_util::future::join_all(once).await;
    let taken = taken.iter().filter(|r| r.as_ref().unwrap().good()).count();
    assert_eq!(taken, 1, "one code, one intent");
    // The same code for an answer is a used one.
    let job = small.open(&[item("1.4.3")]).await.unwrap();
    let decision = proto::answer::Decision::Approve;
    let used = small
        .alice
        .answer(&job, decision, &job.match_code, Some(&code))
        .await;
    assert_eq!(used.unwrap().code(), Some(Code::FactorWrong));
}

#[tokio::test]
async fn attack_25_and_26_intents_are_of_those_who_approve_and_of_nobody_else() {
    let small = small(&policy_of_one()).await;
    let wish = item("1.4.2");
    let made = small
        .alice
        .intend(vec![with_files(&wish)], None)
        .await
        .unwrap();
    let invite = small
        .robin
        .invite("mallory", &["other"], false, &[])
        .await
        .unwrap();
    let mallory = Device::enroll(&small.daemon, &invite).await.unwrap();
    let request = mallory
        .intending(vec![with_files(&wish)], None, None)
        .unwrap();
    let refused = mallory.announce(&request).await.unwrap();
    assert_eq!(refused.code(), Some(Code::NotAllowed));
    assert!(mallory.intents().await.unwrap().is_empty());
    let unseen = mallory.withdraw(made.id).await.unwrap();
    let unknown: IntentId = "0198c0de-0000-7000-8000-000000000001".parse().unwrap();
    let nothing = mallory.withdraw(unknown).await.unwrap();
    assert_eq!((unseen.status, unseen.text), (nothing.status, nothing.text));
    assert_eq!(standing(&small.bob, made.id).await, IntentState::Live);
    // Nobody in particular is told nothing.
    let path = format!("/v1/intents/{}", made.id);
    for (method, path) in [
        ("GET", "/v1/intents"),
        ("POST", "/v1/intents"),
        ("DELETE", path.as_str()),
    ] {
        let reply = small.api.call(method, path, &[], Vec::new()).await.unwrap();
        assert_eq!(reply.status, 401, "{method}");
    }
}

/// Opens as the release job of this account, whose token is perfect.
async fn open_by(small: &Small, actor: u64, wish: &Item) -> (Option<Code>, Option<Opened>) {
    let claims = json!({"actor_id": actor.to_string(), "run_id": actor.to_string()});
    let token = small.token_with(&claims).await.unwrap();
    let reply = small
        .open_raw(&token, std::slice::from_ref(wish))
        .await
        .unwrap();
    (reply.code(), reply.ok().ok())
}

#[tokio::test]
async fn attack_54_a_flood_that_fills_every_place_does_not_keep_an_announced_release_out() {
    let small = Small::start(&policy_of_one()).await.unwrap();
    let left = packed("2.0.0");
    let wish = left.item("latest").unwrap();
    // A thief with every right in the repository fills the package's places, as ever new accounts.
    let mut full = false;
    for n in 0..60 {
        let evil = item(&format!("1.0.{n}"));
        if open_by(&small, 1000 + n, &evil).await.0 == Some(Code::Busy) {
            full = true;
            break;
        }
    }
    assert!(full, "the package's places are taken");
    assert_eq!(open_by(&small, 7, &wish).await.0, Some(Code::Busy));

    small
        .alice
        .intend(vec![with_files(&wish)], Some(COMMIT))
        .await
        .unwrap();
    // What he opens beside it does not become what was announced.
    let evil = Packed::with("@acme/left", "2.0.0", &json!({"main": "evil.js"})).unwrap();
    let evil = evil.item("latest").unwrap();
    assert_eq!(open_by(&small, 5000, &evil).await.0, Some(Code::Busy));
    let job = small.open(std::slice::from_ref(&wish)).await.unwrap();
    assert_eq!(job.state().await.unwrap(), StateName::Approved.text());
    let credential = job.credential().await.unwrap();
    let endpoint = Api::at(&small.daemon.registry_url).unwrap();
    let put = endpoint.put(&left.name, &credential, left.document("latest").unwrap());
    let put = put.await.unwrap();
    assert!(put.good(), "{}", put.text);
    let shown = small
        .registry
        .as_ref()
        .unwrap()
        .integrity(&left.name, "2.0.0");
    assert_eq!(shown.await.unwrap(), Some(wish.files[0].digest.sri()));
}

#[tokio::test]
async fn attack_54_the_places_outside_the_quotas_are_bounded() {
    let small = small(&policy_of_one()).await;
    let wish = item("2.0.0");
    small
        .alice
        .intend(vec![version_only(&wish)], None)
        .await
        .unwrap();
    // With no digests named, a thief's request fits too: so he gets places, and no more than some.
    let mut opened = 0;
    for n in 0..100 {
        let evil = Packed::with("@acme/left", "2.0.0", &json!({"n": n})).unwrap();
        let (code, done) = open_by(&small, 1000 + n, &evil.item("latest").unwrap()).await;
        match code {
            None => opened += u32::from(done.is_some()),
            Some(code) => {
                assert_eq!(code, Code::Busy);
                break;
            }
        }
    }
    assert!((40..=60).contains(&opened), "{opened}");
}

#[tokio::test]
async fn attack_29_an_announcement_taken_back_counts_nowhere_and_is_on_no_receipt() {
    let small = Small::start(stand::api::POLICY).await.unwrap();
    let invite = small.robin.invite("carol", &["release"], false, &[]).await;
    let carol = Device::enroll(&small.daemon, &invite.unwrap())
        .await
        .unwrap();
    let left = packed("1.4.2");
    let wish = left.item("latest").unwrap();
    let made = small.alice.intend(vec![with_files(&wish)], None).await;
    let job = small.open(std::slice::from_ref(&wish)).await.unwrap();
    let count = async || {
        let status: proto::api::Status = job.status().await.unwrap().ok().unwrap();
        let inbox: Inbox = small.bob.inbox().await.unwrap().ok().unwrap();
        let asked = question(&small.bob, &job).await.approvals.len();
        (status.approvals, inbox.requests[0].approvals.0, asked)
    };
    assert_eq!(count().await, (1, 1, 1));
    let withdrawn = small.bob.withdraw(made.unwrap().id).await.unwrap();
    assert!(withdrawn.good());
    assert_eq!(count().await, (0, 0, 0));
    for device in [&small.bob, &carol] {
        assert!(device.approve(&job).await.unwrap().good());
    }
    let credential = job.credential().await.unwrap();
    let endpoint = Api::at(&small.daemon.registry_url).unwrap();
    let put = endpoint.put(&left.name, &credential, left.document("latest").unwrap());
    assert!(put.await.unwrap().good());
    let path = format!("/v1/requests/{}/receipt", job.id);
    let receipt: Value = small
        .bob
        .call("GET", &path, &Value::Null)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let body = STANDARD
        .decode(receipt["payload"].as_str().unwrap())
        .unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("carol") && !body.contains("alice"), "{body}");
}

#[tokio::test]
async fn attack_54_what_is_left_after_the_published_versions_decides_about_the_quotas() {
    let small = Small::start(&policy_of_one()).await.unwrap();
    let old = Packed::new("@acme/old", "1.0.0").unwrap();
    let done = small.open(&[old.item("latest").unwrap()]).await.unwrap();
    assert!(small.alice.approve(&done).await.unwrap().good());
    let credential = done.credential().await.unwrap();
    let endpoint = Api::at(&small.daemon.registry_url).unwrap();
    let put = endpoint.put(&old.name, &credential, old.document("latest").unwrap());
    assert!(put.await.unwrap().good());
    let mut n = 0;
    while open_by(&small, 1000 + n, &item(&format!("1.0.{n}")))
        .await
        .0
        != Some(Code::Busy)
    {
        n += 1;
        assert!(n < 100, "the package's places are never taken");
    }
    let ask = async |version: &str| {
        let items = [old.item("latest").unwrap(), item(version)];
        let (mut body, _) = stand::api::asking(&items, version);
        body["leave_out_published"] = json!(true);
        let token = small.id_token().await.unwrap();
        let reply = small.api.bearer("POST", "/v1/requests", &token, &body);
        (reply.await.unwrap(), token, body)
    };
    // Of two that are asked for, one is out, and the other is what was announced.
    let announced = vec![with_files(&item("2.0.0"))];
    small.alice.intend(announced, None).await.unwrap();
    let opened: Opened = ask("2.0.0").await.0.ok().unwrap();
    assert_eq!(opened.facts.items.len(), 1);
    // Both were announced as one release: what is left of it is another one.
    let both = [old.item("latest").unwrap(), item("3.0.0")];
    let both = both.iter().map(version_only).collect();
    small.alice.intend(both, None).await.unwrap();
    assert_eq!(ask("3.0.0").await.0.code(), Some(Code::Busy));
    // Nothing of it was announced. The look was this token's only one.
    let (reply, token, body) = ask("4.0.0").await;
    assert_eq!(reply.code(), Some(Code::Busy));
    let again = small.api.bearer("POST", "/v1/requests", &token, &body);
    assert_eq!(again.await.unwrap().code(), Some(Code::TokenReplayed));
}
