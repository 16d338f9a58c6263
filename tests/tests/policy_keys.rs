//! What the policy says beside the quorum: the time for a veto, the hours, and releases that nobody announced.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::{Inbox, Status},
    problem::Code,
    request::Item,
};
use stand::{
    api::{Api, Job, Packed, Small, policy_of_one},
    bells::veto_told,
    daemon::Daemon,
    free_port,
    intents::with_files,
    parts::{Clock, Issuer, Verdaccio},
    team::{POLICY, Team},
};
use tempfile::TempDir;

/// One approval, with these keys.
fn policy(keys: &str) -> String {
    policy_of_one().replacen("quorum = 1", &format!("quorum = 1\n{keys}"), 1)
}

fn item(version: &str) -> Item {
    let packed = Packed::new("@acme/left", version).unwrap();
    packed.item("latest").unwrap()
}

async fn small(policy: &str) -> Small {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    Small::over(&url, "canary-registry-token", policy)
        .await
        .unwrap()
}

/// A window of one day that is not open before two days from now.
fn far_hours() -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    // 1970-01-01 was a Thursday.
    let day = stand::now().unwrap() / 86_400 + 3;
    format!(
        "{} 00:00-24:00 UTC",
        DAYS[usize::try_from(day % 7).unwrap()]
    )
}

async fn status(job: &Job) -> Status {
    job.status().await.unwrap().ok().unwrap()
}

#[tokio::test]
async fn after_the_approval_anybody_of_the_group_may_still_deny() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = "veto = \"2m\"\nhours = \"always\"\nunsolicited = \"ring\"";
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &registry.url)
        .registry("secrets", "generic", "")
        .policy(&policy(keys));
    let token = registry.token.clone();
    let mut small = Small::with(clock.env(builder), issuer, &token)
        .await
        .unwrap();

    let left = Packed::new("@acme/left", "1.1.0").unwrap();
    let job = small.open(&[left.item("latest").unwrap()]).await.unwrap();
    assert!(small.alice.approve(&job).await.unwrap().good());
    let vetoed = small.open(&[item("1.0.0")]).await.unwrap();
    assert!(small.alice.approve(&vetoed).await.unwrap().good());
    for job in [&vetoed, &job] {
        let status = status(job).await;
        assert_eq!(status.state.text(), "approved");
        assert!(status.not_before.is_some());
        assert!(status.reason.unwrap().contains("may still deny"));
        assert_eq!(job.collect_raw().await.unwrap().code(), Some(Code::NotYet));
    }
    // It waits where people look, and one of them says no.
    let inbox: Inbox = small.bob.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox.requests.len(), 2);
    assert!(inbox.requests[0].not_before.is_some());
    assert!(small.bob.deny(&vetoed).await.unwrap().good());
    assert_eq!(vetoed.state().await.unwrap(), "denied");

    veto_told(&small.robin, &job.id).await.unwrap();
    // The time for collecting counts from the veto's end: 15 minutes and more are later than it would have been.
    clock.pass(&mut small.daemon, 15 * 60 + 20).await.unwrap();
    // The broker was away: a third of the veto is left to people from now on.
    assert!(status(&job).await.not_before.is_some());
    while_held_back(&job).await;
    assert_eq!(status(&job).await.reason, None);
    let credential = job.credential().await.unwrap();
    let endpoint = Api::at(&small.daemon.registry_url).unwrap();
    let put = endpoint.put(&left.name, &credential, left.document("latest").unwrap());
    assert!(put.await.unwrap().good());
    assert!(
        registry
            .integrity(&left.name, "1.1.0")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn attack_29_hours_and_veto_that_people_were_asked_under_are_never_weakened() {
    let hours = format!(
        "veto = \"10m\"\nhours = \"{}\"\nunsolicited = \"ring\"",
        far_hours()
    );
    let small = small(&policy(&hours)).await;
    let job = small.open(&[item("1.0.0")]).await.unwrap();
    // People may be asked, and may answer, at any time.
    assert!(small.alice.approve(&job).await.unwrap().good());
    let held = status(&job).await;
    assert!(
        held.reason
            .unwrap()
            .contains("outside the policy's `hours`")
    );
    assert!(held.not_before.unwrap().0 > stand::now().unwrap() + 24 * 3600);
    assert!(
        held.expires > held.not_before.unwrap(),
        "it can be collected then"
    );
    let refused = job.collect_raw().await.unwrap();
    assert_eq!(refused.code(), Some(Code::NotYet), "{}", refused.text);

    small.daemon.change_policy(&policy_of_one()).await.unwrap();
    assert_eq!(job.collect_raw().await.unwrap().code(), Some(Code::NotYet));
    // What is asked for from now on is judged by the new one; a stricter one holds at once.
    let next = small.open(&[item("1.0.1")]).await.unwrap();
    assert!(small.alice.approve(&next).await.unwrap().good());
    small.daemon.change_policy(&policy(&hours)).await.unwrap();
    assert_eq!(next.collect_raw().await.unwrap().code(), Some(Code::NotYet));
}

#[tokio::test]
async fn attack_24_where_only_announced_releases_are_taken_nobody_is_asked_about_another() {
    let keys = "veto = \"none\"\nhours = \"always\"\nunsolicited = \"refuse\"";
    let small = small(&policy(keys)).await;
    let wish = item("1.0.0");
    let items = std::slice::from_ref(&wish);
    let token = small.id_token().await.unwrap();
    let refused = small.open_raw(&token, items).await.unwrap();
    assert_eq!(refused.code(), Some(Code::PolicyDenied));
    assert!(
        refused.text.contains("countersign intend"),
        "{}",
        refused.text
    );
    assert_eq!(small.waiting().await.unwrap(), 0);
    small
        .alice
        .intend(vec![with_files(&wish)], None)
        .await
        .unwrap();
    let job = small.open(items).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
}

#[tokio::test]
async fn a_waiting_job_waits_on_through_the_veto_and_hears_who_denied_and_why() {
    let keys = "quorum = 1\nveto = \"1h\"\nhours = \"always\"\nunsolicited = \"ring\"";
    let team = Team::with_policy(&POLICY.replacen("quorum = 2", keys, 1))
        .await
        .unwrap();
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    team.approve(&team.maintainers[0], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    // The job has seen the approval, and waits.
    while !job.text().contains("may still deny") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let inbox = team
        .run(&team.maintainers[1], &["inbox"], &[])
        .await
        .unwrap();
    assert!(
        inbox.stdout.contains("it can still be denied"),
        "{}",
        inbox.stdout
    );
    let deny = ["deny", &job.id, "--reason", "wrong branch"];
    team.run(&team.maintainers[1], &deny, &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(job.end().await.unwrap(), Some(3), "{}", job.text());
    assert!(
        job.text().contains("denied by bob: wrong branch"),
        "{}",
        job.text()
    );
}

/// Waits until it may be collected.
async fn while_held_back(job: &Job) {
    let start = std::time::Instant::now();
    while status(job).await.not_before.is_some() {
        assert!(start.elapsed() < std::time::Duration::from_mins(2));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Uploads that the broker keeps.
fn kept(small: &Small) -> usize {
    let files = std::fs::read_dir(small.daemon.dir().join("data/deposits")).unwrap();
    files.count()
}

#[tokio::test]
async fn a_deposit_waits_for_the_vetos_end_and_for_the_hours_and_anybody_may_still_deny_it() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = |hours: &str| {
        policy(&format!(
            "mode = \"deposit\"\nveto = \"2m\"\nhours = \"{hours}\"\nunsolicited = \"ring\""
        ))
    };
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry("npm", "npm", &registry.url)
        .registry("secrets", "generic", "")
        .policy(&keys("always"));
    let token = registry.token.clone();
    let mut small = Small::with(clock.env(builder), issuer, &token)
        .await
        .unwrap();
    // Handed over, and approved by one.
    let hand_over = async |small: &Small, version: &str| {
        let left = Packed::new("@acme/left", version).unwrap();
        let job = small.open(&[left.item("latest").unwrap()]).await.unwrap();
        let endpoint = Api::at(&small.daemon.registry_url).unwrap();
        let credential = job.deposit.clone().unwrap();
        let put = endpoint.put(&left.name, &credential, left.document("latest").unwrap());
        let put = put.await.unwrap();
        assert!(put.good(), "{}", put.text);
        assert!(small.alice.approve(&job).await.unwrap().good());
        assert!(status(&job).await.not_before.is_some());
        job
    };
    let shown = async |version: &str| registry.integrity("@acme/left", version).await.unwrap();
    let until = async |small: &Small, count: usize| {
        for _ in 0..600 {
            if kept(small) == count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(kept(small), count);
    };
    let vetoed = hand_over(&small, "1.0.0").await;
    let good = hand_over(&small, "1.1.0").await;
    // Another one says no while the first one's yes lies there.
    assert!(small.bob.deny(&vetoed).await.unwrap().good());
    until(&small, 1).await;
    assert_eq!(vetoed.state().await.unwrap(), "denied");
    assert_eq!((shown("1.0.0").await, shown("1.1.0").await), (None, None));
    // Nobody comes back for it: it is published by itself when its time has come.
    veto_told(&small.robin, &good.id).await.unwrap();
    clock.pass(&mut small.daemon, 3 * 60).await.unwrap();
    while_held_back(&good).await;
    small.until(&good, "published").await.unwrap();
    assert!(shown("1.1.0").await.is_some());
    until(&small, 0).await;

    // Outside the hours it waits in the same way.
    let small = Small::over(&registry.url, &token, &keys(&far_hours())).await;
    let small = small.unwrap();
    let held = hand_over(&small, "1.2.0").await;
    let next = hand_over(&small, "1.3.0").await;
    assert!(status(&held).await.reason.unwrap().contains("`hours`"));
    // The sweep that destroys the one has looked at the other.
    assert!(small.bob.deny(&next).await.unwrap().good());
    until(&small, 1).await;
    assert_eq!(shown("1.2.0").await, None);
    assert!(small.robin.deny(&held).await.unwrap().good());
    until(&small, 0).await;
    assert_eq!((shown("1.0.0").await, shown("1.2.0").await), (None, None));
}
