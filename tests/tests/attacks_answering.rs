//! Attacks on the answer: who says yes, how often, and what stays after a race.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{answer::Decision, api::AnswerRequest, device::DeviceKey, digest::hex};
use serde_json::{Value, json};
use stand::people::{Device, Job, Office, STEP, count, random};
use std::{sync::Arc, time::Duration};
use tokio::sync::Barrier;

/// Nobody listens there: what these attacks are about never reaches a registry.
const NO_REGISTRY: &str = "http://127.0.0.1:9";

const CALLER: &str = r#"{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }"#;

fn policy(quorum: u32, factor: &str) -> String {
    format!(
        r#"[[package]]
match = ["npm:@acme/*"]
callers = [{CALLER}]
approvers = ["release"]
quorum = {quorum}
factors = ["{factor}"]
version = "semver-release"
tags = ["latest"]
"#
    )
}

fn id(job: &Job) -> String {
    job.opened.id.to_string()
}

/// Waits until at least so many seconds of the current TOTP step are left.
async fn in_one_step(seconds: u64) {
    while STEP - stand::now().unwrap_or_default() % STEP < seconds {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// So many requests, each of a package of its own.
async fn open_many(office: &Office, many: usize) -> anyhow::Result<Vec<Arc<Job>>> {
    let mut jobs = Vec::new();
    for n in 0..many {
        let job = office.open(&format!("@acme/p{n}"), "1.0.0", b"x").await?;
        jobs.push(Arc::new(job));
    }
    Ok(jobs)
}

#[tokio::test]
async fn attack_21_guessing_spread_over_requests_is_rationed_and_deny_still_works() {
    let office = Office::start(&policy(1, "totp"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let jobs = open_many(&office, 4).await.unwrap();

    // Other spellings are no attempt: nothing is charged, however many.
    let right = alice.code(0).unwrap();
    let wide: String = right
        .chars()
        .filter_map(|c| char::from_u32(u32::from(c) + 0xfee0))
        .collect();
    for spelling in [
        format!(" {right}"),
        format!("{right} "),
        format!("{} {}", &right[..3], &right[3..]),
        format!("+{}", &right[1..]),
        format!("-{}", &right[1..]),
        format!("{}\0", &right[..5]),
        format!("{right}\0"),
        format!("0{right}"),
        right[..5].to_owned(),
        wide,
        String::new(),
    ] {
        let reply = alice.approve(&jobs[0], Some(&spelling)).await.unwrap();
        assert_eq!(reply.code(), "bad-request", "{spelling:?}: {}", reply.body);
        assert_eq!(jobs[0].state().await.unwrap(), "pending");
    }

    // Three wrong ones at one request, two at the next: the hour's budget is used up everywhere.
    let wrong = alice.wrong_code().unwrap();
    for job in [&jobs[0], &jobs[0], &jobs[0]] {
        let reply = alice.approve(job, Some(&wrong)).await.unwrap();
        assert_eq!(reply.code(), "factor-wrong", "{}", reply.body);
    }
    let right = alice.code(0).unwrap();
    let fourth = alice.approve(&jobs[0], Some(&right)).await.unwrap();
    assert_eq!(
        fourth.code(),
        "factor-exhausted",
        "three a request: {}",
        fourth.body
    );
    for job in [&jobs[1], &jobs[2]] {
        let reply = alice.approve(job, Some(&wrong)).await.unwrap();
        assert_eq!(reply.code(), "factor-wrong", "{}", reply.body);
    }
    for job in &jobs {
        let right = alice.code(0).unwrap();
        let reply = alice.approve(job, Some(&right)).await.unwrap();
        assert_eq!(reply.code(), "factor-exhausted", "{}", reply.body);
        assert_eq!(job.state().await.unwrap(), "pending");
    }
    // Nobody is locked out of saying no.
    let denied = alice.deny(&jobs[3], false).await.unwrap();
    assert!(denied.success(), "{}", denied.body);
    assert_eq!(jobs[3].state().await.unwrap(), "denied");
}

#[tokio::test]
async fn attack_21_a_used_up_budget_survives_a_crash() {
    let mut office = Office::start(&policy(1, "totp"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let jobs = open_many(&office, 3).await.unwrap();
    let wrong = alice.wrong_code().unwrap();
    for n in [0, 0, 0, 1, 1] {
        let reply = alice.approve(&jobs[n], Some(&wrong)).await.unwrap();
        assert_eq!(reply.code(), "factor-wrong");
    }
    office.daemon.kill9();
    office.daemon.restart().await.unwrap();
    let right = alice.code(0).unwrap();
    let reply = alice.approve(&jobs[2], Some(&right)).await.unwrap();
    assert_eq!(reply.code(), "factor-exhausted", "{}", reply.body);
}

#[tokio::test]
async fn attack_22_a_code_is_good_once_also_at_the_next_request_and_after_a_crash() {
    let mut office = Office::start(&policy(1, "totp"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let jobs = open_many(&office, 3).await.unwrap();
    in_one_step(12).await;
    let code = alice.code(0).unwrap();
    let first = alice.approve(&jobs[0], Some(&code)).await.unwrap();
    assert!(first.success(), "{}", first.body);
    let second = alice.approve(&jobs[1], Some(&code)).await.unwrap();
    assert_eq!(second.code(), "factor-wrong", "{}", second.body);
    // The step before the accepted one is spent with it.
    let before = alice
        .approve(&jobs[1], Some(&alice.code(1).unwrap()))
        .await
        .unwrap();
    assert_eq!(before.code(), "factor-wrong", "{}", before.body);
    office.daemon.kill9();
    office.daemon.restart().await.unwrap();
    let third = alice.approve(&jobs[2], Some(&code)).await.unwrap();
    assert_eq!(third.code(), "factor-wrong", "{}", third.body);
    assert_eq!(jobs[0].state().await.unwrap(), "approved");
    for job in &jobs[1..] {
        assert_eq!(job.state().await.unwrap(), "pending");
    }
}

#[tokio::test]
async fn attack_22_one_code_at_64_requests_at_once_approves_exactly_one() {
    let office = Office::start(&policy(1, "totp"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = Arc::new(
        office
            .hire("alice", &["release"], false, &[])
            .await
            .unwrap(),
    );
    let jobs = open_many(&office, 64).await.unwrap();
    // The nonce is fetched before, so that all 64 arrive together.
    alice.get("/v1/devices").await.unwrap();
    in_one_step(12).await;
    let code = alice.code(0).unwrap();
    let barrier = Arc::new(Barrier::new(jobs.len()));
    let mut tasks = tokio::task::JoinSet::new();
    for job in &jobs {
        let (alice, job, code) = (Arc::clone(&alice), Arc::clone(job), code.clone());
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            // Connected before, so that all arrive together.
            alice.get("/v1/devices").await.unwrap();
            barrier.wait().await;
            alice.approve(&job, Some(&code)).await.unwrap()
        });
    }
    let replies = tasks.join_all().await;
    let accepted = replies.iter().filter(|r| r.success()).count();
    assert_eq!(accepted, 1, "{replies:?}");
    let mut approved = 0;
    for job in &jobs {
        approved += usize::from(job.state().await.unwrap() == "approved");
    }
    assert_eq!(approved, 1);
    let events = office.events().await.unwrap();
    let all = events.iter().filter(|e| e["type"] == "answer-accepted");
    assert_eq!(all.count(), 1);
}

#[tokio::test]
async fn attack_23_a_code_without_the_enrolled_devices_signature_is_worth_nothing() {
    let office = Office::start(&policy(1, "totp"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let jobs = open_many(&office, 1).await.unwrap();
    let job = &jobs[0];
    let path = format!("/v1/requests/{}/answer", id(job));
    let code = alice.code(0).unwrap();
    let o = &job.opened;
    let good = alice
        .answer(
            Decision::Approve,
            o.request_digest,
            &o.match_code,
            Some(&code),
        )
        .unwrap();
    let body = serde_json::to_value(&good).unwrap();

    // No signature on the call at all; not even a hint of a session.
    let bare = stand::http()
        .unwrap()
        .post(format!("{}{path}", office.daemon.url));
    let bare = bare.json(&body).send().await.unwrap();
    assert_eq!(bare.status(), 401);

    // A key that nobody enrolled, for the call, for the statement, for both.
    let stranger = DeviceKey::from_seed(random().unwrap()).unwrap();
    let resigned = |with: &DeviceKey, device: Option<&DeviceKey>| {
        let mut answer: AnswerRequest = good.clone();
        if let Some(device) = device {
            answer.statement.device = device.public().id();
        }
        answer.signature = hex(&with.sign(&answer.statement.canonical()));
        serde_json::to_value(answer).unwrap()
    };
    let mut unsigned = body.clone();
    unsigned["signature"] = json!("00".repeat(64));
    let mut empty = body.clone();
    empty["signature"] = json!("");
    let post = reqwest::Method::POST;
    for (what, caller, body) in [
        ("a stranger's call", &stranger, body.clone()),
        (
            "a stranger's call and statement",
            &stranger,
            resigned(&stranger, Some(&stranger)),
        ),
        ("another person's call", &bob.key, body.clone()),
        (
            "another person's signature",
            &alice.key,
            resigned(&bob.key, None),
        ),
        (
            "another person's statement",
            &alice.key,
            resigned(&bob.key, Some(&bob.key)),
        ),
        (
            "a stranger's signature",
            &alice.key,
            resigned(&stranger, None),
        ),
        ("zeros", &alice.key, unsigned),
        ("nothing", &alice.key, empty),
        // Bob's device, bob's statement, alice's code.
        (
            "alice's code from bob's device",
            &bob.key,
            resigned(&bob.key, Some(&bob.key)),
        ),
    ] {
        let reply = alice
            .call_as(caller, post.clone(), &path, Some(&body))
            .await
            .unwrap();
        assert!(
            matches!(reply.status, 401 | 403),
            "{what}: {} {}",
            reply.status,
            reply.body
        );
        assert_eq!(job.state().await.unwrap(), "pending", "{what}");
    }
    // A denial cannot be turned into an approval.
    let mut turned = alice
        .answer(Decision::Deny, o.request_digest, &o.match_code, Some(&code))
        .unwrap();
    turned.statement.decision = Decision::Approve;
    let reply = alice.send(&id(job), &turned).await.unwrap();
    assert!(!reply.success(), "{}", reply.body);
    // No code where the policy wants one.
    let reply = alice.approve(job, None).await.unwrap();
    assert_eq!(reply.code(), "factor-missing", "{}", reply.body);
    assert_eq!(job.state().await.unwrap(), "pending");
}

#[tokio::test]
async fn attack_23_another_requests_match_number_is_refused_and_three_wrong_ones_end_the_tries() {
    let office = Office::start(&policy(1, "device"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let jobs = open_many(&office, 2).await.unwrap();
    let with = async |who: &Device, code: &str| {
        let digest = jobs[0].opened.request_digest;
        let answer = who.answer(Decision::Approve, digest, code, None).unwrap();
        who.send(&id(&jobs[0]), &answer).await.unwrap()
    };
    let right = jobs[0].opened.match_code.clone();
    let others = jobs[1].opened.match_code.clone();
    assert_ne!(right, others, "a chance of one in a million");
    assert_eq!(with(&alice, &others).await.code(), "match-code-wrong");
    assert_eq!(with(&alice, "").await.code(), "match-code-wrong");
    assert_eq!(
        with(&alice, &format!("{right} ")).await.code(),
        "match-code-wrong"
    );
    // The fourth is not even compared.
    let fourth = with(&alice, &right).await;
    assert_eq!(fourth.code(), "factor-exhausted", "{}", fourth.body);
    assert_eq!(jobs[0].state().await.unwrap(), "pending");
    // A statement about one request says nothing about the other, from one who has all tries left.
    let digest = jobs[1].opened.request_digest;
    let stray = bob.answer(Decision::Approve, digest, &right, None).unwrap();
    assert!(!bob.send(&id(&jobs[0]), &stray).await.unwrap().success());
    // She can still deny, and nobody else lost a try.
    assert!(with(&bob, &right).await.success());
    assert_eq!(jobs[0].state().await.unwrap(), "approved");
}

#[tokio::test]
async fn attack_27_approve_deny_cancel_freeze_and_collect_raced_leave_one_end() {
    const MANY: usize = 24;
    let office = Office::start(&policy(1, "device"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = Arc::new(
        office
            .hire("alice", &["release"], false, &[])
            .await
            .unwrap(),
    );
    let bob = Arc::new(office.hire("bob", &["release"], false, &[]).await.unwrap());
    let jobs = open_many(&office, MANY).await.unwrap();
    for device in [&alice, &bob] {
        device.get("/v1/devices").await.unwrap();
    }
    let barrier = Arc::new(Barrier::new(MANY * 7));
    let mut tasks = tokio::task::JoinSet::new();
    for (n, job) in jobs.iter().enumerate() {
        for act in 0..7 {
            let (alice, bob, job) = (Arc::clone(&alice), Arc::clone(&bob), Arc::clone(job));
            let barrier = Arc::clone(&barrier);
            tasks.spawn(async move {
                barrier.wait().await;
                // Some requests lack one of the acts, so that all ends come up.
                let reply = match act {
                    0 | 1 => alice.approve(&job, None).await,
                    2 if n % 3 != 0 => bob.deny(&job, false).await,
                    3 if n % 4 != 0 => job.cancel().await,
                    4 if n % 5 == 1 => bob.deny(&job, true).await,
                    _ => job.collect().await,
                };
                assert!(reply.unwrap().status != 500, "act {act}");
            });
        }
    }
    tasks.join_all().await;

    let before = office.events().await.unwrap();
    let mut states = Vec::new();
    for job in &jobs {
        let id = id(job);
        let state = job.state().await.unwrap();
        let denied = count(&before, "request-denied", &id);
        let cancelled = count(&before, "request-cancelled", &id);
        let collected = count(&before, "collected", &id);
        let ends = (denied, cancelled, collected);
        let expected = match state.as_str() {
            "denied" => (1, 0, 0),
            "cancelled" => (0, 1, 0),
            "releasing" => (0, 0, 1),
            "approved" | "pending" => (0, 0, 0),
            other => panic!("{other}"),
        };
        assert_eq!(ends, expected, "{id} is {state}");
        assert!(count(&before, "request-approved", &id) <= 1);
        states.push(state);
    }
    // Whatever is tried afterwards, an end stays an end.
    for (job, state) in jobs.iter().zip(&states) {
        if matches!(state.as_str(), "denied" | "cancelled") {
            for reply in [
                alice.approve(job, None).await.unwrap(),
                bob.deny(job, false).await.unwrap(),
                job.cancel().await.unwrap(),
                job.collect().await.unwrap(),
            ] {
                assert!(!reply.success(), "{state}: {}", reply.body);
            }
            // A freeze that comes too late for its request still freezes the package, and changes
            // nothing about how the request ended.
            bob.deny(job, true).await.unwrap();
            assert_eq!(&job.state().await.unwrap(), state);
        }
    }
    let after = office.events().await.unwrap();
    let ends = |events: &[Value]| {
        let end = |e: &&Value| e["type"] == "request-denied" || e["type"] == "request-cancelled";
        events.iter().filter(end).count()
    };
    assert_eq!(ends(&before), ends(&after));
}

#[tokio::test]
async fn attack_29_one_human_is_one_and_who_asked_does_not_count() {
    let office = Office::start(&policy(2, "device"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    // Robert started the job: actor 7 in its token.
    let robert = office
        .hire("robert", &["release"], false, &["github:7"])
        .await
        .unwrap();
    let carol = office.hire("carol", &["docs"], false, &[]).await.unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();

    for _ in 0..3 {
        let again = alice.approve(&job, None).await.unwrap();
        assert_eq!(again.body["approvals"], 1, "{}", again.body);
    }
    assert_eq!(job.state().await.unwrap(), "pending");
    for (who, device) in [
        ("requester", &robert),
        ("stranger", &carol),
        ("admin", &office.admin),
    ] {
        let reply = device.approve(&job, None).await.unwrap();
        assert!(!reply.success(), "{who}: {}", reply.body);
        assert_eq!(job.state().await.unwrap(), "pending", "{who}");
    }
    assert!(bob.approve(&job, None).await.unwrap().success());
    assert_eq!(job.state().await.unwrap(), "approved");
}

#[tokio::test]
async fn attack_29_a_person_removed_after_approving_does_not_count_at_collect() {
    let office = Office::start(&policy(2, "device"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    for person in [&alice, &bob] {
        assert!(person.approve(&job, None).await.unwrap().success());
    }
    assert_eq!(job.state().await.unwrap(), "approved");
    let remove = json!({"kind": "remove-person", "person": "bob"});
    let removed = office.admin.act(remove, None).await.unwrap();
    assert!(removed.success(), "{}", removed.body);
    let collected = job.collect().await.unwrap();
    assert_eq!(collected.code(), "not-approved", "{}", collected.body);
    assert_eq!(bob.get("/v1/inbox").await.unwrap().status, 401);
    // Enrolled anew under the same name, the old answer is still another device's.
    let _bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let collected = job.collect().await.unwrap();
    assert_eq!(collected.code(), "not-approved", "{}", collected.body);
}

#[tokio::test]
async fn attack_29_a_quorum_lowered_meanwhile_does_not_count_and_a_raised_one_does() {
    let office = Office::start(&policy(2, "device"), NO_REGISTRY)
        .await
        .unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let bob = office.hire("bob", &["release"], false, &[]).await.unwrap();
    let approved = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    for person in [&alice, &bob] {
        assert!(person.approve(&approved, None).await.unwrap().success());
    }
    let waiting = office.open("@acme/right", "1.0.0", b"x").await.unwrap();
    assert!(alice.approve(&waiting, None).await.unwrap().success());
    assert_eq!(waiting.state().await.unwrap(), "pending");
    let unanswered = office.open("@acme/third", "1.0.0", b"x").await.unwrap();

    reload(&office, &policy(1, "device")).await.unwrap();
    // What was asked for under a quorum of two is not approved by one.
    let collected = waiting.collect().await.unwrap();
    assert!(!collected.success(), "{}", collected.body);
    assert_eq!(waiting.state().await.unwrap(), "pending");
    assert!(alice.approve(&unanswered, None).await.unwrap().success());
    assert_eq!(unanswered.state().await.unwrap(), "pending");

    reload(&office, &policy(3, "device")).await.unwrap();
    let collected = approved.collect().await.unwrap();
    assert!(!collected.success(), "{}", collected.body);
    assert!(matches!(collected.code(), "not-approved" | "policy-denied"));
    let events = office.events().await.unwrap();
    assert_eq!(count(&events, "collected", &id(&approved)), 0);
}

/// Writes another policy and waits until it is in force.
async fn reload(office: &Office, policy: &str) -> anyhow::Result<()> {
    let loaded = |events: &[Value]| {
        events
            .iter()
            .filter(|e| e["type"] == "policy-loaded")
            .count()
    };
    let before = loaded(&office.events().await?);
    std::fs::write(office.daemon.policy_path(), policy)?;
    let pid = office.daemon.id().unwrap_or_default().to_string();
    let second = Duration::from_secs(10);
    stand::run("kill", &["-HUP", &pid], &[], office.daemon.dir(), second)
        .await?
        .ok()?;
    for _ in 0..100 {
        if loaded(&office.events().await?) > before {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the policy was not reloaded")
}
