//! Attacks on what is released, and on what lies on the disk.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use broker::{
    audit::tree::Tree,
    caller::{Issuers, client_key},
    config,
    desk::{
        Desk, Place, Registry, inventory::Known, people::Device as Enrolled, people::Person,
        people::Roster, waiters::Waiters,
    },
    policy::Policy,
    publish::{Refusal, answer, close, ledger, open, release},
    secret::Secret,
    store::{Batch, Store, redb::Options, redb::Redb},
    telemetry::Metrics,
    vault::{
        Unseal, UnsealMethod, Vault,
        tokens::{self, NewToken},
    },
    world::{Clock, Entropy, NoEntropy, World},
};
use proto::{
    answer::{Decision, Statement},
    api::{AnswerRequest, OpenRequest, Opened, StateName},
    bearer::{Bearer, Kind},
    device::DeviceKey,
    digest::{Algorithm, Digest, hex},
    ids::ClientKeyId,
    time::UnixTime,
};
use serde_json::{Value, json};
use stand::{
    parts::Verdaccio,
    people::{Device, Job, Office, Reply, archive, count, random},
    rows::{read as row, write as write_row},
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Barrier;

mod attacks_release {
    mod people;
    mod rows;
}

/// Nobody listens there.
const NO_REGISTRY: &str = "http://127.0.0.1:9";

const POLICY: &str = r#"[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "semver-release"
tags = ["latest"]
"#;

fn id(job: &Job) -> String {
    job.opened.id.to_string()
}

async fn approved(office: &Office, who: &Device, name: &str) -> anyhow::Result<Job> {
    let bytes = archive(name, "1.0.0")?;
    let job = office.open(name, "1.0.0", &bytes).await?;
    let reply = who.approve(&job, None).await?;
    anyhow::ensure!(reply.success(), "{}", reply.body);
    Ok(job)
}

#[tokio::test]
async fn attack_36_a_hundred_collects_and_a_crash_give_one_blob() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let job = Arc::new(approved(&office, &alice, "@acme/left").await.unwrap());
    let barrier = Arc::new(Barrier::new(100));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (job, barrier) = (Arc::clone(&job), Arc::clone(&barrier));
        tasks.spawn(async move {
            // Connected before, so that all arrive together.
            job.state().await.unwrap();
            barrier.wait().await;
            job.collect().await.unwrap()
        });
    }
    let replies = tasks.join_all().await;
    let first = &replies[0];
    assert!(first.success(), "{}", first.body);
    for reply in &replies {
        assert_eq!(reply.body["sealed"], first.body["sealed"], "{}", reply.body);
    }
    office.daemon.kill9();
    office.daemon.restart().await.unwrap();
    let again = job.collect().await.unwrap();
    assert_eq!(
        again.body["sealed"], first.body["sealed"],
        "nobody is stranded"
    );
    assert!(job.open(&again).unwrap().starts_with("csc_"));
    let events = office.events().await.unwrap();
    assert_eq!(count(&events, "collected", &id(&job)), 1);
}

#[tokio::test]
async fn attack_36_a_crash_in_the_middle_of_collects_makes_no_second_credential() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    for round in 0..4u64 {
        let name = format!("@acme/p{round}");
        let job = Arc::new(approved(&office, &alice, &name).await.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let job = Arc::clone(&job);
            tasks.spawn(async move { job.collect().await.ok() });
        }
        let mut before = Vec::new();
        if round < 2 {
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
        } else {
            // Somebody was told, the others are on their way.
            before.extend(tasks.join_next().await.map(Result::unwrap));
        }
        office.daemon.kill9();
        before.extend(tasks.join_all().await);
        office.daemon.restart().await.unwrap();
        let after = job.collect().await.unwrap();
        assert!(after.success(), "{}", after.body);
        for reply in before.into_iter().flatten().filter(Reply::success) {
            assert_eq!(reply.body["sealed"], after.body["sealed"]);
        }
        let events = office.events().await.unwrap();
        assert_eq!(count(&events, "collected", &id(&job)), 1, "round {round}");
    }
}

#[tokio::test]
async fn attack_37_another_job_or_a_log_reader_gets_nothing_he_can_open() {
    let office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let mine = approved(&office, &alice, "@acme/left").await.unwrap();
    let other = approved(&office, &alice, "@acme/right").await.unwrap();

    // Another job's ticket, a made-up one, a credential's form, an invite's: all like no request at all.
    let made_up = Bearer::from_entropy(Kind::Ticket, random().unwrap()).expose();
    let mut absent = office.open("@acme/third", "1.0.0", b"x").await.unwrap();
    absent.opened.id = "01900000-0000-7000-8000-000000000000".parse().unwrap();
    for (method, route) in [
        (reqwest::Method::POST, "/collect"),
        (reqwest::Method::POST, "/cancel"),
        (reqwest::Method::GET, ""),
        (reqwest::Method::GET, "/receipt"),
    ] {
        let nothing = absent
            .with(method.clone(), route, &mine.opened.ticket)
            .await
            .unwrap();
        assert_eq!(nothing.status, 404, "{route}: {}", nothing.body);
        for ticket in [&other.opened.ticket, &made_up] {
            let reply = mine.with(method.clone(), route, ticket).await.unwrap();
            assert_eq!(
                (reply.status, reply.body),
                (nothing.status, nothing.body.clone())
            );
        }
        let kinds =
            [Kind::Credential, Kind::Invite].map(|k| Bearer::from_entropy(k, [7; 32]).expose());
        for wrong in kinds.iter().map(String::as_str).chain(["", "x"]) {
            let reply = mine.with(method.clone(), route, wrong).await.unwrap();
            assert_eq!(reply.status, 401, "{route} {wrong}: {}", reply.body);
        }
    }
    assert_eq!(mine.state().await.unwrap(), "approved");

    // A log reader with the ticket gets the blob, and cannot open it without the job's own key.
    let stolen = mine.collect().await.unwrap();
    assert!(stolen.success());
    assert!(
        other.open(&stolen).is_err(),
        "another job's key must not open it"
    );
    assert!(mine.open(&stolen).is_ok());
    let text = stolen.body.to_string();
    assert!(
        !text.contains("csc_"),
        "the credential is inside the blob alone"
    );
}

#[tokio::test]
async fn attack_52_approved_then_frozen_then_collected_or_forwarded_is_refused() {
    let registry = Verdaccio::start().await.unwrap();
    let office = Office::start(POLICY, &registry.url).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let second = office.hire("sam", &[], true, &[]).await.unwrap();
    office.add_token("npm", "*", &registry.token).await.unwrap();
    let uncollected = approved(&office, &alice, "@acme/left").await.unwrap();
    let bytes = archive("@acme/left", "2.0.0").unwrap();
    let collected = office.open("@acme/left", "2.0.0", &bytes).await.unwrap();
    assert!(alice.approve(&collected, None).await.unwrap().success());
    let blob = collected.collect().await.unwrap();
    let credential = collected.open(&blob).unwrap();

    let package = json!({"package": "npm:@acme/left"});
    let frozen = office
        .admin
        .post("/v1/admin/freeze", package.clone())
        .await
        .unwrap();
    assert_eq!(frozen.body["frozen"], true, "{}", frozen.body);
    let refused = uncollected.collect().await.unwrap();
    assert!(!refused.success(), "{}", refused.body);
    let refused = collected.put(&credential, &bytes).await.unwrap();
    assert_eq!(
        refused.code(),
        "frozen",
        "{} {}",
        refused.status,
        refused.body
    );
    let asked = office.ask("@acme/left", "3.0.0", b"x").await.unwrap().0;
    assert_eq!(asked.code(), "frozen", "{}", asked.body);
    assert!(registry.package("@acme/left").await.unwrap().is_none());

    // Nobody is made an admin for the thaw. Enrolment is known to the second: it must be a later one.
    let frozen_by = stand::now().unwrap();
    while stand::now().unwrap() == frozen_by {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = hired_by_two(&office, &second, "late").await;
    let refused = late.thaw("npm:@acme/left").await.unwrap();
    assert_eq!(refused.code(), "not-allowed", "{}", refused.body);
    // The device alone thaws nothing. One admin twice is not two, and a maintainer is no admin.
    let bare = office.admin.post("/v1/admin/thaw", package.clone());
    assert_eq!(bare.await.unwrap().code(), "factor-missing");
    for _ in 0..2 {
        let one = office.admin.thaw("npm:@acme/left").await.unwrap();
        assert_eq!(one.body["frozen"], true, "{}", one.body);
        let alices = alice.post("/v1/admin/thaw", package.clone()).await.unwrap();
        assert_eq!(alices.status, 403, "{}", alices.body);
    }
    // Frozen again meanwhile: the thaw starts anew.
    second
        .post("/v1/admin/freeze", package.clone())
        .await
        .unwrap();
    let one = second.thaw("npm:@acme/left").await.unwrap();
    assert_eq!(one.body["frozen"], true, "{}", one.body);
    let refused = collected.put(&credential, &bytes).await.unwrap();
    assert_eq!(refused.code(), "frozen", "{}", refused.body);
    assert!(registry.package("@acme/left").await.unwrap().is_none());

    let two = office.admin.thaw("npm:@acme/left").await.unwrap();
    assert_eq!(two.body["frozen"], false, "{}", two.body);
    // What was only waiting stays denied; the credential that was out works again.
    assert_eq!(uncollected.state().await.unwrap(), "denied");
    let published = collected.put(&credential, &bytes).await.unwrap();
    assert_eq!(published.status, 201, "{}", published.body);
    let shown = registry.integrity("@acme/left", "2.0.0").await.unwrap();
    assert_eq!(shown, Some(Digest::of(Algorithm::Sha512, &bytes).sri()));
}

/// A clock that the test sets.
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1000
    }

    fn monotonic_ms(&self) -> u64 {
        self.now_ms()
    }
}

/// Asked for by the first admin, agreed to by the second one, enrolled.
async fn hired_by_two(office: &Office, second: &Device, name: &str) -> Device {
    let act = json!({"kind": "invite", "person": name, "admin": true});
    let waits = office.admin.act(act, None).await.unwrap();
    let id = waits.body["act"]["id"].as_str().unwrap();
    let done = second.confirm(id).await.unwrap();
    let invite = done.body["invited"]["invite"].as_str().unwrap();
    Device::enroll(&office.daemon.url, invite).await.unwrap()
}

struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        aws_lc_rs::rand::fill(out).map_err(|_| NoEntropy)
    }
}

const PUBLIC: &str = "http://127.0.0.1:1";

/// A policy by which one person's yes reveals a secret to one client key, with these lines more.
fn reveals(more: &str) -> String {
    format!(
        r#"[[package]]
match = ["vault:deploy-key"]
callers = [{{ issuer = "client-key", client_key = "old-ci" }}]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "any"
mode = "reveal"
{more}
"#
    )
}

/// A desk in this process, whose clock the test sets; `ci` is the one job's key.
async fn desk(folder: &Path, clock: Arc<SetClock>, ci: &DeviceKey) -> anyhow::Result<Desk> {
    let world = World::new(clock, Arc::new(RealEntropy));
    let identity = age::x25519::Identity::generate();
    let key_file = Vault::init(
        &world,
        &[UnsealMethod::Identity {
            recipients: vec![identity.to_public().to_string()],
        }],
    )?;
    let vault = Vault::new(world.clone());
    let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    vault.unseal(&key_file, &Unseal::Identity(Secret::new(text)))?;
    let cache = Options::new(1 << 20);
    let live = Redb::create(folder.join("live.redb"), cache)?;
    let history = Redb::create(folder.join("history.redb"), Options::new(1 << 20))?;
    let public = ci.public();
    let packages = ["vault:deploy-key", "npm:left"].map(str::to_owned).to_vec();
    let keys = move |_: &ClientKeyId| Some((public, packages.clone()));
    let policy = reveals("answers = \"10m\"");
    let policy = Policy::parse(&policy, "policy.toml").map_err(|e| anyhow::anyhow!("{e}"))?;
    let tree = Tree::load(&history)?;
    let (live, vault): (Arc<dyn Store>, _) = (Arc::new(live), Arc::new(vault));
    let desk = Desk {
        passkeys: None,
        known: Arc::new(Known::new(Arc::clone(&live), Arc::clone(&vault))),
        live,
        history: Arc::new(history),
        vault,
        world,
        issuers: Issuers::new(Vec::new(), PUBLIC.into())?.with_client_keys(Arc::new(keys)),
        policy: Arc::new(policy).into(),
        given: Arc::new(Policy::nothing()).into(),
        policing: tokio::sync::Mutex::default(),
        registries: [("vault".parse()?, Registry::Secrets)].into(),
        tree,
        roster: Roster::default(),
        witnesses: broker::desk::witnesses::Witnesses::default(),
        waiters: Waiters::default(),
        uploads: broker::desk::uploads::Uploads::default(),
        pushes: broker::desk::pushes::Pushes::default(),
        reading: Arc::new(tokio::sync::Semaphore::new(4)),
        guests: broker::desk::guests::Guests::default(),
        in_hand: broker::desk::in_hand::InHand::default(),
        turns: broker::desk::turns::Turns::default(),
        inspections: Arc::default(),
        factors: broker::desk::factors::Factors::default(),
        refusals: broker::desk::ration::Ration::default(),
        lookups: broker::desk::ration::Ration::default(),
        unsealing: tokio::sync::Semaphore::new(1),
        offered: broker::desk::offered::Offered::default(),
        first_tries: broker::desk::ration::Tries::default(),
        watching: tokio::sync::Mutex::default(),
        bells: broker::desk::bells::Bells::new(
            broker::notify::egress::Egress::new(Vec::new(), &[])?,
            PUBLIC.into(),
        ),
        backups: broker::desk::backups::Backups::new(None),
        metrics: Metrics::default(),
        place: Place {
            public_url: PUBLIC.into(),
            origin: "broker.test".into(),
            spool: folder.into(),
            data: folder.into(),
            anchor: folder.join("anchor"),
            identity: None,
            plugin: None,
            token_max_age_days: 90,
            weakening_wait: 86_400,
            web: std::collections::BTreeMap::new(),
            watch_every: None,
        },
    };
    desk.make_log_key().await?;
    desk.make_inventory().await?;
    // So that what is collected in time comes out.
    let wanted = NewToken {
        registry: &"vault".parse()?,
        scope: &"deploy-key".parse()?,
        token: &Secret::new("canary-deploy-key".to_owned()),
        expires: None,
        proof: None,
        emptied: false,
        keeps_old: false,
    };
    let now = desk.world.now();
    let (batch, _) = tokens::add(&desk.vault, &*desk.live, Batch::new(), &wanted, now)?;
    desk.commit(batch, &[], now).await?;
    Ok(desk)
}

/// A request of the client key, and alice, who may answer it.
async fn late_case(
    desk: &Desk,
    ci: &DeviceKey,
    device: &DeviceKey,
) -> anyhow::Result<(Opened, Person)> {
    let item = json!({"registry": "vault", "package": "deploy-key", "version": "1", "files": []});
    case_of(desk, ci, device, &item).await
}

/// The same about another item.
async fn case_of(
    desk: &Desk,
    ci: &DeviceKey,
    device: &DeviceKey,
    item: &Value,
) -> anyhow::Result<(Opened, Person)> {
    let now = desk.world.now();
    let claims = json!({"iss": client_key::ISSUER, "sub": "old-ci", "aud": PUBLIC,
        "iat": now.0, "exp": now.0 + 300, "jti": hex(&random::<16>()?)});
    let token = ci.sign_jwt(client_key::TYPE, "old-ci", &claims);
    let caller = desk.issuers.verify(&token, now).await?;
    let asked: OpenRequest = serde_json::from_value(json!({
        "items": [item],
        "job_key": age::x25519::Identity::generate().to_public().to_string(),
        "idempotency_key": hex(&random::<16>()?),
    }))?;
    let alice = Person {
        enrolled: None,
        passkeys: Vec::new(),
        id: "alice".parse()?,
        groups: vec!["release".parse()?],
        admin: false,
        actors: Vec::new(),
        devices: vec![Enrolled {
            kind: proto::device::DeviceKind::Terminal,
            id: device.public().id(),
            public_key: device.public(),
            name: "test".into(),
            enrolled: now,
        }],
        totp: Vec::new(),
    };
    let table = broker::desk::people::PEOPLE;
    if desk.person(&alice.id)?.is_none() {
        let row = desk.authentic(table, b"alice", &alice)?;
        desk.commit(
            Batch::new().create(table, b"alice".as_slice(), row),
            &[],
            now,
        )
        .await?;
    }
    let opened = open::open(desk, &caller, asked, now).await?;
    Ok((opened, alice))
}

/// A request that alice has approved, and its ticket.
async fn approved_case(
    desk: &Desk,
    ci: &DeviceKey,
    device: &DeviceKey,
) -> anyhow::Result<(Opened, Bearer)> {
    let (opened, alice) = late_case(desk, ci, device).await?;
    let now = desk.world.now();
    let answer = yes(device, &opened, now)?;
    answer::answer(desk, opened.id, &alice, &answer, now)
        .await
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let ticket = Bearer::parse(Kind::Ticket, &opened.ticket)?;
    Ok((opened, ticket))
}

fn yes(device: &DeviceKey, opened: &Opened, now: UnixTime) -> anyhow::Result<AnswerRequest> {
    let statement = Statement {
        decision: Decision::Approve,
        request_digest: opened.request_digest,
        device: device.public().id(),
        time: now,
        nonce: hex(&random::<16>()?),
    };
    Ok(AnswerRequest {
        signature: hex(&device.sign(&statement.canonical())),
        statement,
        match_code: opened.match_code.clone(),
        factor: proto::api::SecondFactor::default(),
        reason: None,
    })
}

#[tokio::test]
async fn attack_28_a_late_answer_and_a_late_collect_are_refused_to_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let start = stand::now().unwrap();
    let clock = Arc::new(SetClock(AtomicU64::new(start)));
    let at = |seconds: u64| clock.0.store(start + seconds, Ordering::SeqCst);
    let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
    let state = |opened: &Opened| {
        let ticket = Bearer::parse(Kind::Ticket, &opened.ticket).unwrap();
        close::status(&desk, opened.id, &ticket)
            .unwrap()
            .name()
            .text()
    };

    // 600 s for answers: the second before is in time, the second itself is late.
    for (wait, in_time) in [(599, true), (600, false), (601, false), (86_400, false)] {
        at(0);
        let (opened, alice) = late_case(&desk, &ci, &key).await.unwrap();
        at(wait);
        let now = desk.world.now();
        let answer = yes(&key, &opened, now).unwrap();
        let done = answer::answer(&desk, opened.id, &alice, &answer, now).await;
        assert_eq!(
            done.is_ok(),
            in_time,
            "after {wait} s: {:?}",
            done.map(|a| a.state)
        );
        let ticket = Bearer::parse(Kind::Ticket, &opened.ticket).unwrap();
        if in_time {
            assert_eq!(state(&opened), "approved");
            // Approved in time, collected too late: 15 minutes, to the second.
            at(wait + 15 * 60);
            let now = desk.world.now();
            let late = release::collect(&desk, opened.id, &ticket, now).await;
            let expired = matches!(late, Err(Refusal::State(StateName::Expired, _)));
            assert!(expired, "after 15 min: {late:?}");
        } else {
            assert!(
                release::collect(&desk, opened.id, &ticket, now)
                    .await
                    .is_err()
            );
        }
        // The sweeper makes it final; the clock set back changes nothing about it.
        at(2 * 86_400);
        close::sweep(&desk, desk.world.now()).await.unwrap();
        assert_eq!(state(&opened), "expired");
        at(1);
        let now = desk.world.now();
        let answer = yes(&key, &opened, now).unwrap();
        assert!(
            answer::answer(&desk, opened.id, &alice, &answer, now)
                .await
                .is_err()
        );
        assert!(
            release::collect(&desk, opened.id, &ticket, now)
                .await
                .is_err()
        );
        assert_eq!(state(&opened), "expired");
    }
    // A statement that was signed in time and held back does not get in later either.
    at(0);
    let (opened, alice) = late_case(&desk, &ci, &key).await.unwrap();
    let early = yes(&key, &opened, desk.world.now()).unwrap();
    at(61);
    let now = desk.world.now();
    let late = answer::answer(&desk, opened.id, &alice, &early, now).await;
    assert!(matches!(late, Err(Refusal::BadRequest(_))), "{late:?}");
    // One second earlier it comes out: it was the time that was against it.
    at(0);
    let (opened, ticket) = approved_case(&desk, &ci, &key).await.unwrap();
    at(15 * 60 - 1);
    let collected = release::collect(&desk, opened.id, &ticket, desk.world.now()).await;
    assert!(collected.is_ok(), "{collected:?}");
}

#[tokio::test]
async fn attack_28_a_revealed_secret_is_not_fetched_again_after_its_time_or_a_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let start = stand::now().unwrap();
    let clock = Arc::new(SetClock(AtomicU64::new(start)));
    let at = |seconds: u64| clock.0.store(start + seconds, Ordering::SeqCst);
    let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
    let (opened, ticket) = approved_case(&desk, &ci, &key).await.unwrap();
    let collect = async || release::collect(&desk, opened.id, &ticket, desk.world.now()).await;
    at(15 * 60 - 1);
    let first = collect().await.unwrap();
    // A lost reply: the same blob, as long as it says.
    at(first.expires.0 - start - 1);
    assert_eq!(collect().await.unwrap().sealed, first.sealed);
    assert_eq!(first.expires.0, start + 30 * 60 - 1);

    // Frozen in between: nobody gets it any more.
    let package = "vault:deploy-key";
    let now = desk.world.now();
    let freeze = json!({"by": "alice", "since": now.0, "thawing": []});
    let freeze = serde_json::from_value(freeze).unwrap();
    let row = ledger::freeze_row(&desk, package, &freeze).unwrap();
    let batch = Batch::new().create(ledger::FROZEN, package.as_bytes(), row);
    desk.commit(batch, &[], now).await.unwrap();
    let again = collect().await;
    assert!(matches!(again, Err(Refusal::Policy(_))), "{again:?}");
    let (version, _) = ledger::freeze(&desk, package).unwrap().unwrap();
    let thaw = Batch::new().delete(ledger::FROZEN, package.as_bytes(), version);
    desk.commit(thaw, &[], now).await.unwrap();
    assert_eq!(collect().await.unwrap().sealed, first.sealed);

    for late in [30 * 60, 86_400] {
        at(late);
        let again = collect().await;
        let over = matches!(again, Err(Refusal::State(StateName::Expired, _)));
        assert!(over, "{late}: {again:?}");
    }
}

#[tokio::test]
async fn attack_37_a_secret_that_covers_more_than_the_approved_package_is_not_revealed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetClock(AtomicU64::new(stand::now().unwrap())));
    let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
    let now = desk.world.now();
    let (opened, ticket) = approved_case(&desk, &ci, &key).await.unwrap();

    // After the answers the package's own secret is gone, and one for everything is there.
    let vault = "vault".parse().unwrap();
    let all = NewToken {
        registry: &vault,
        scope: &"*".parse().unwrap(),
        token: &Secret::new("canary-of-all".to_owned()),
        expires: None,
        proof: None,
        emptied: false,
        keeps_old: false,
    };
    let (batch, _) = tokens::add(&desk.vault, &*desk.live, Batch::new(), &all, now).unwrap();
    let own = "deploy-key".parse().unwrap();
    let (batch, _) = tokens::remove(&desk.vault, &*desk.live, batch, &vault, &own).unwrap();
    desk.commit(batch, &[], now).await.unwrap();
    let collected = release::collect(&desk, opened.id, &ticket, now).await;
    assert!(
        matches!(collected, Err(Refusal::NoToken(_))),
        "{collected:?}"
    );
    // Nobody is asked for what would not come out.
    let asked = late_case(&desk, &ci, &key).await.err().unwrap();
    assert!(asked.to_string().contains("never revealed"), "{asked}");

    // The control: stored for exactly this package, the approval is good.
    let exact = NewToken { scope: &own, ..all };
    let (batch, _) = tokens::add(&desk.vault, &*desk.live, Batch::new(), &exact, now).unwrap();
    desk.commit(batch, &[], now).await.unwrap();
    release::collect(&desk, opened.id, &ticket, now)
        .await
        .unwrap();
}

/// Keys and stored bytes.
type Rows<'a> = Vec<(&'a [u8], Vec<u8>)>;

#[tokio::test]
async fn attack_44_who_writes_the_database_adds_no_phone_and_swaps_no_person() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let mallory = office.hire("mallory", &["docs"], false, &[]).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"x").await.unwrap();
    assert!(!mallory.approve(&job, None).await.unwrap().success());
    let live = office.daemon.dir().join("data/live.redb");

    office.daemon.kill9();
    let alices = row(&live, b"person\0alice").unwrap();
    let mallorys = row(&live, b"person\0mallory").unwrap();
    let pointer = row(
        &live,
        format!("device\0{}", mallory.key.public().id()).as_bytes(),
    )
    .unwrap();
    let edit = |row: &[u8], from: &str, to: &str| {
        let text = String::from_utf8_lossy(row.get(40..).unwrap_or_default());
        assert!(text.contains(from), "{text}");
        [
            row.get(..40).unwrap_or_default(),
            text.replace(from, to).as_bytes(),
        ]
        .concat()
    };
    let hers = hex(&alice.key.public().0);
    let his = hex(&mallory.key.public().0);
    let pointing = [pointer.get(..8).unwrap_or_default(), b"alice"].concat();
    let device = format!("device\0{}", mallory.key.public().id());
    let cases: Vec<(&str, Rows<'_>)> = vec![
        (
            "alice's row over mallory's",
            vec![(b"person\0mallory", alices.clone())],
        ),
        (
            "mallory's group changed",
            vec![(b"person\0mallory", edit(&mallorys, "docs", "release"))],
        ),
        (
            "mallory's phone in alice's row",
            vec![
                (b"person\0alice", edit(&alices, &hers, &his)),
                (device.as_bytes(), pointing.clone()),
            ],
        ),
        (
            "mallory's phone points to alice",
            vec![(device.as_bytes(), pointing)],
        ),
        (
            "mallory made an admin",
            vec![(
                b"person\0mallory",
                edit(&mallorys, "\"admin\":false", "\"admin\":true"),
            )],
        ),
    ];
    for (what, rows) in cases {
        for (key, value) in &rows {
            write_row(&live, key, Some(value)).unwrap();
        }
        office.daemon.restart().await.unwrap();
        for reply in [
            mallory.approve(&job, None).await.unwrap(),
            mallory.get("/v1/admin/tokens").await.unwrap(),
        ] {
            assert!(!reply.success(), "{what}: {}", reply.body);
        }
        assert_eq!(job.state().await.unwrap(), "pending", "{what}");
        office.daemon.kill9();
        for (key, value) in [
            (b"person\0alice".as_slice(), &alices),
            (b"person\0mallory", &mallorys),
            (device.as_bytes(), &pointer),
        ] {
            write_row(&live, key, Some(value)).unwrap();
        }
    }
    // Put back as it was, everything works: it was the change that was refused.
    office.daemon.restart().await.unwrap();
    assert!(alice.approve(&job, None).await.unwrap().success());
}

/// Every line removed in turn, with its number.
fn without_each_line(text: &str) -> impl Iterator<Item = (usize, String, String)> + '_ {
    text.lines().enumerate().map(|(at, line)| {
        let rest: Vec<&str> = text
            .lines()
            .enumerate()
            .filter_map(|(n, l)| (n != at).then_some(l))
            .collect();
        (at + 1, line.to_owned(), rest.join("\n"))
    })
}

#[tokio::test]
async fn attack_49_each_line_of_the_policy_removed_is_refused_or_allows_less() {
    let office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let strict = r#"[[package]]
match = ["npm:@acme/*"]
callers = [
    { issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" },
]
approvers = ["release"]
quorum = 2
factors = ["totp"]
requester_may_approve = false
version = "semver-release"
tags = ["latest", "next"]
answers = "10m"
intent = "commit"
veto = "10m"
hours = "Mon-Fri 08:00-18:00 Europe/Berlin"
unsolicited = "refuse"
mode = "forward"
"#;
    // Without these lines less or the same is allowed: no tag, the defaults.
    let harmless = ["requester_may_approve", "tags", "answers", "intent", "mode"];
    for (number, line, rest) in without_each_line(strict) {
        let checked = check(&office, None, Some(&rest)).await.unwrap();
        let key = line.split(' ').next().unwrap_or_default();
        if let Ok(less) = Policy::parse(&rest, "policy.toml") {
            let seconds = less.entries()[0].answers_seconds;
            assert!(seconds <= 600, "line {number} `{line}`: {seconds} s");
        }
        assert!(
            !checked || harmless.contains(&key),
            "line {number} `{line}` may go"
        );
    }
    // The same for every key of the caller.
    let caller = "issuer = \"github\", repository_id = 123, owner_id = 45, workflow = \".github/workflows/release.yml\", ref = \"refs/tags/v*\", event = [\"push\"], environment = \"release\"";
    for part in caller.split(", ") {
        let fewer: Vec<&str> = caller.split(", ").filter(|p| *p != part).collect();
        let fewer = strict.replace(caller, &fewer.join(", "));
        assert_ne!(fewer, strict);
        assert!(
            !check(&office, None, Some(&fewer)).await.unwrap(),
            "without {part}"
        );
    }
}

#[tokio::test]
async fn attack_49_each_line_of_the_configuration_removed_allows_nothing_more() {
    let office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let full = fs::read_to_string(office.daemon.config_path()).unwrap();
    let (certificate, key) = (
        office.daemon.dir().join("c.pem"),
        office.daemon.dir().join("k.pem"),
    );
    // Everything switched on that makes a broker stricter, on addresses that are not loopback.
    let full = full
        .replacen("listen = \"127.0.0.1", "listen = \"192.0.2.1", 1)
        .replacen(
            "[operations]",
            "behind_proxy = \"192.0.2.7\"\ntoken_max_age_days = 30\n\n[operations]",
            1,
        )
        .replacen(
            "[unseal]",
            &format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n\n[unseal]"),
            1,
        );
    let read = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, text).unwrap();
        config::load(&path)
    };
    let whole = read(&full).unwrap();
    let issuers = |c: &config::Config| {
        let one = |i: &broker::caller::IssuerConfig| {
            (i.name.clone(), i.issuer.clone(), i.algorithms.len())
        };
        c.issuers
            .iter()
            .map(|i| one(i.get_ref()))
            .collect::<Vec<_>>()
    };
    let registries = |c: &config::Config| {
        let url = |r: &config::RegistryEntry| r.url.as_ref().map(|u| u.get_ref().to_string());
        c.registries
            .iter()
            .map(|r| (r.name.get_ref().to_string(), url(r)))
            .collect::<Vec<_>>()
    };
    let mut taken = 0;
    for (number, line, rest) in without_each_line(&full) {
        let Ok(less) = read(&rest) else { continue };
        taken += 1;
        let what = format!("line {number} `{line}`");
        let within = |less: &[(String, String, usize)], all: &[(String, String, usize)]| {
            less.iter().all(|i| all.contains(i))
        };
        assert!(
            within(&issuers(&less), &issuers(&whole)),
            "{what}: another issuer"
        );
        assert!(
            registries(&less)
                .iter()
                .all(|r| registries(&whole).contains(r)),
            "{what}: another registry"
        );
        assert_eq!(less.data, whole.data, "{what}");
        assert_eq!(less.policy, whole.policy, "{what}");
        assert_eq!(
            less.public_url.get_ref(),
            whole.public_url.get_ref(),
            "{what}: another audience"
        );
        assert_eq!(less.listen.get_ref(), whole.listen.get_ref(), "{what}");
        assert_eq!(less.operations.listen, whole.operations.listen, "{what}");
        // Without TLS, plain HTTP stays behind the named proxy.
        assert!(
            less.tls.is_some() || less.behind_proxy.is_some(),
            "{what}: plain HTTP for all"
        );
        let unseals = |c: &config::Config| {
            let u = &c.unseal;
            u.identity_file.is_some() || u.passphrase_file.is_some() || u.credential.is_some()
        };
        assert!(
            unseals(&whole) || !unseals(&less),
            "{what}: unsealed by something else"
        );
    }
    assert!(taken > 0, "some lines are optional");
    // Neither TLS nor a proxy: refused.
    let bare = full.replace("behind_proxy = \"192.0.2.7\"\n", "");
    let (before, after) = bare.split_once("[tls]").unwrap();
    let (_, after) = after.split_once("[unseal]").unwrap();
    let why = read(&format!("{before}[unseal]{after}")).unwrap_err();
    assert!(why.contains("plain HTTP"), "{why}");
}

/// Whether `countersignd check` takes this configuration and policy.
async fn check(
    office: &Office,
    config: Option<&str>,
    policy: Option<&str>,
) -> anyhow::Result<bool> {
    let daemon = &office.daemon;
    if let Some(policy) = policy {
        fs::write(daemon.policy_path(), policy)?;
    }
    let path = daemon.dir().join("checked.toml");
    let whole = fs::read_to_string(daemon.config_path())?;
    fs::write(&path, config.unwrap_or(&whole))?;
    let shown = path.display().to_string();
    let args = ["check", "--config", &shown];
    let limit = Duration::from_secs(20);
    let out = stand::run(&daemon.bins.countersignd, &args, &[], daemon.dir(), limit).await?;
    anyhow::ensure!(!out.stderr.contains("panicked"), "{out}");
    Ok(out.success())
}

#[tokio::test]
async fn attack_51_the_daemon_has_no_test_door() {
    let bins = stand::daemon::bins().await.unwrap();
    let release = stand::root().join("target/release/countersignd");
    for path in [bins.countersignd, release] {
        if !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("countersign/request/v1"),
            "the search finds what is there"
        );
        for door in [
            "test-only",
            "test_only",
            "FAILPOINT",
            "failpoint",
            "fail_point",
            "COUNTERSIGN_TEST",
            "COUNTERSIGN_DEBUG",
            "COUNTERSIGN_INSECURE",
            "skip_verify",
            "danger_accept",
            "--insecure",
            "--no-verify",
            "FAKETIME",
            "backdoor",
        ] {
            assert!(!text.contains(door), "{}: \"{door}\"", path.display());
        }
    }
    // No feature that could open one, and no variable that could switch one on.
    let manifest: toml::Table = fs::read_to_string(stand::root().join("broker/Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(!manifest.contains_key("features"));
    let mut read = 0;
    let mut folders = vec![
        stand::root().join("broker/src"),
        stand::root().join("proto/src"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // The app's pictures lie there too.
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            read += 1;
            let shown = path.display();
            for door in ["feature =", "debug_assertions", "cfg!(", "option_env!"] {
                assert!(!text.contains(door), "{shown}: {door}");
            }
            let test_file = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().contains("tests"));
            for (at, _) in text.match_indices("env::var") {
                let rest = text.get(at..).unwrap_or_default();
                // The second one makes it refuse, and nothing else.
                let known = ["CREDENTIALS_DIRECTORY", "AGEDEBUG"]
                    .iter()
                    .any(|name| rest.starts_with(&format!("env::var_os(\"{name}\")")));
                assert!(known || test_file, "{shown}: reads a variable");
            }
        }
    }
    assert!(read > 80, "{read} files were read");
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    !secret.is_empty() && bytes.windows(secret.len()).any(|w| w == secret)
}

#[tokio::test]
async fn attack_44_the_stolen_data_folder_holds_no_secret() {
    let mut office = Office::start(POLICY, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let canary = "npm_Canary0registry0token0never0on0disk";
    office.add_token("npm", "*", canary).await.unwrap();
    let job = approved(&office, &alice, "@acme/left").await.unwrap();
    let blob = job.collect().await.unwrap();
    let credential = job.open(&blob).unwrap();
    let invite = office.invite("carol", &[], false, &[]).await.unwrap();
    let seed = alice.totp.secret().to_vec();
    let base32 = alice
        .otpauth
        .split("secret=")
        .nth(1)
        .and_then(|s| s.split('&').next())
        .unwrap();
    let identity = fs::read_to_string(office.daemon.dir().join("unseal.age")).unwrap();
    office.daemon.terminate().await.unwrap();

    let raw = |text: &str| {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD
            .decode(text.get(4..).unwrap_or_default())
            .unwrap()
    };
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("registry token", canary.into()),
        ("TOTP seed", seed),
        ("TOTP seed, base32", base32.into()),
        ("credential", credential.clone().into()),
        ("credential's bytes", raw(&credential)[..32].to_vec()),
        ("ticket", job.opened.ticket.clone().into()),
        ("ticket's bytes", raw(&job.opened.ticket)[..32].to_vec()),
        ("invite's bytes", raw(&invite)[..32].to_vec()),
        ("unseal identity", identity.trim().into()),
        ("device key", alice.key.expose_seed().to_vec()),
        (
            "match code",
            format!("\"{}\"", job.opened.match_code).into(),
        ),
    ];
    let mut searched = 0;
    let mut folders = vec![office.daemon.dir().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            searched += bytes.len();
            for (what, secret) in &secrets {
                assert!(!holds(&bytes, secret), "{}: {what}", entry.path().display());
            }
        }
    }
    assert!(searched > 10_000);
    // The search finds what is there.
    let live = fs::read(office.daemon.dir().join("data/live.redb")).unwrap();
    assert!(holds(&live, b"@acme/left"));
}
