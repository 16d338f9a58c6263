//! Admins' own gate: what one admin asks for and another one agrees to, and the policy in force.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    browser::Browser,
    daemon::Daemon,
    parts::Clock,
    people::{Device, NO_REGISTRY, Office, Reply, phone_policy},
    rows,
};
use std::{fs, time::Duration};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// robin and alice are admins, bob and carol approve.
struct Two {
    office: Office,
    alice: Device,
    bob: Device,
}

impl Two {
    async fn start() -> Self {
        Self::over(Office::start(&policy(1), NO_REGISTRY).await.unwrap()).await
    }

    /// Where the broker was made half a day ago: its policy is written. The clock is the daemon's own.
    async fn after_setup(clock: &Clock) -> Self {
        let builder = clock.made_ago(Daemon::builder(), 13 * 3600).unwrap();
        let office = Office::start_as(builder, &policy(1), NO_REGISTRY).await;
        Self::over(office.unwrap()).await
    }

    /// All are invited before the second admin enrols: from then on, that one must agree.
    async fn over(office: Office) -> Self {
        let mut people = Vec::new();
        for (name, admin) in [("alice", true), ("bob", false), ("carol", false)] {
            let invite = office.invite(name, &["release"], admin, &[]).await;
            people.push(invite.unwrap());
        }
        let url = &office.daemon.url;
        let alice = Device::enroll(url, &people[0]).await.unwrap();
        let bob = Device::enroll(url, &people[1]).await.unwrap();
        Device::enroll(url, &people[2]).await.unwrap();
        Self { office, alice, bob }
    }

    async fn ask(&self, act: Value, token: Option<&str>) -> String {
        let reply = self.office.admin.act(act, token).await.unwrap();
        assert_eq!(reply.body["done"], false, "{}", reply.body);
        reply.body["act"]["id"].as_str().unwrap().to_owned()
    }

    async fn people(&self) -> Vec<Value> {
        let all = self.office.admin.get("/v1/admin/people").await.unwrap();
        all.ok().unwrap()
    }

    async fn tokens(&self) -> Vec<Value> {
        let all = self.office.admin.get("/v1/admin/tokens").await.unwrap();
        all.ok().unwrap()
    }

    async fn acts(&self) -> Value {
        self.alice.get("/v1/acts").await.unwrap().ok().unwrap()
    }

    async fn types(&self) -> Vec<String> {
        let events = self.office.events().await.unwrap();
        let names = events
            .iter()
            .map(|e| e["type"].as_str().unwrap().to_owned());
        names.collect()
    }
}

fn policy(quorum: u32) -> String {
    phone_policy(quorum, "[\"totp\"]")
}

fn names(people: &[Value]) -> Vec<&str> {
    let names = people.iter().map(|p| p["person"].as_str().unwrap());
    names.collect()
}

async fn veto(by: &Device, id: &str) -> Reply {
    by.veto(id).await.unwrap()
}

#[tokio::test]
async fn attack_50_one_admin_alone_changes_nobody_and_no_token() {
    let two = Two::start().await;
    let robin = &two.office.admin;
    two.office.store("canary-first").await.unwrap();
    let before = (two.people().await, two.tokens().await);
    let place = |kind: &str, scope: &str| json!({"kind": kind, "registry": "npm", "scope": scope});
    let acts = [
        (
            json!({"kind": "invite", "person": "mallory", "admin": true}),
            None,
        ),
        (
            json!({"kind": "change-person", "person": "bob", "groups": ["release"], "admin": true}),
            None,
        ),
        (
            json!({"kind": "change-person", "person": "alice", "groups": [], "admin": false}),
            None,
        ),
        (
            json!({"kind": "change-person", "person": "alice", "groups": [], "admin": true}),
            None,
        ),
        (json!({"kind": "remove-person", "person": "carol"}), None),
        (json!({"kind": "remove-person", "person": "alice"}), None),
        (place("remove-token", "@acme/*"), None),
        // Narrower, wider: it would take the stored one's place.
        (place("add-token", "@acme/left"), Some("canary-narrow")),
        (place("add-token", "*"), Some("canary-wide")),
    ];
    let mut ids = Vec::new();
    for (act, token) in acts {
        // The device alone is nothing.
        let asked = json!({"act": act, "token": token});
        let bare = robin.post("/v1/admin/acts", asked).await.unwrap();
        assert_eq!(bare.code(), "factor-missing", "{act}: {}", bare.body);
        // Each costs a code, and so half a minute: two of them wait for what follows.
        if ids.len() < 2 {
            ids.push(two.ask(act.clone(), token).await);
        }
    }
    for id in &ids {
        // Not twice by one, not by who is no admin, and not without a code.
        let own = robin.confirm(id).await.unwrap();
        assert_eq!(own.code(), "bad-request", "{}", own.body);
        let bobs = two.bob.confirm(id).await.unwrap();
        assert_eq!(bobs.status, 403, "{}", bobs.body);
        let path = format!("/v1/admin/acts/{id}/confirm");
        let bare = two.alice.post(&path, json!({})).await.unwrap();
        assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    }
    assert_eq!(before, (two.people().await, two.tokens().await));

    // The second one's word does it, in one commit with the act.
    let done = two.alice.confirm(&ids[0]).await.unwrap();
    assert_eq!(done.body["done"], true, "{}", done.body);
    let types = two.types().await;
    let at = types.iter().position(|t| t == "act-confirmed").unwrap();
    assert_eq!(types[at + 1], "invite-made");
    // Who was enrolled since is no second one for what waited before.
    let invite = done.body["invited"]["invite"].as_str().unwrap();
    while stand::now().unwrap() <= two.acts().await["acts"][0]["asked"].as_u64().unwrap() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mallory = Device::enroll(&robin.url, invite).await.unwrap();
    let late = mallory.confirm(&ids[1]).await.unwrap();
    assert_eq!(late.code(), "not-allowed", "{}", late.body);
    // Somebody objects: it is gone, and the second one's word comes too late.
    assert!(veto(&mallory, &ids[1]).await.success());
    let late = two.alice.confirm(&ids[1]).await.unwrap();
    assert_eq!(late.code(), "not-found", "{}", late.body);
    let people = two.people().await;
    let bob = people.iter().find(|p| p["person"] == "bob").unwrap();
    assert_eq!(bob["admin"], false);
    assert!(two.types().await.contains(&"act-vetoed".to_owned()));
}

#[tokio::test]
async fn attack_50_each_dangerous_act_waits_for_the_second_admin() {
    let two = Two::start().await;
    two.office.store("canary-first").await.unwrap();
    let place = |kind: &str, scope: &str| json!({"kind": kind, "registry": "npm", "scope": scope});
    // Narrower and wider than the stored one: it would take its place.
    for (act, token) in [
        (place("add-token", "@acme/left"), Some("canary-that-waits")),
        (json!({"kind": "remove-person", "person": "carol"}), None),
    ] {
        let before = two.tokens().await.len();
        let id = two.ask(act.clone(), token).await;
        assert_eq!(two.tokens().await.len(), before, "{act}");
        assert!(names(&two.people().await).contains(&"carol"), "{act}");
        // Asked for again, it is the same.
        let again = two.office.admin.act(act.clone(), token).await.unwrap();
        assert_eq!(again.code(), "bad-request", "{}", again.body);
        let done = two.alice.confirm(&id).await.unwrap();
        assert_eq!(done.body["done"], true, "{act}: {}", done.body);
    }
    assert_eq!(two.tokens().await.len(), 2);
    assert!(!names(&two.people().await).contains(&"carol"));
    let apart = place("add-token", "@other/*");
    let free = two
        .office
        .admin
        .post("/v1/admin/acts", json!({"act": apart, "token": "canary-b"}));
    assert_eq!(
        free.await.unwrap().body["done"],
        true,
        "it takes nothing's place"
    );
}

#[tokio::test]
async fn attack_44_a_token_that_waits_lies_sealed_and_survives_a_restart() {
    let mut two = Two::start().await;
    two.office.store("canary-first").await.unwrap();
    let act = json!({"kind": "add-token", "registry": "npm", "scope": "*"});
    let id = two.ask(act, Some("canary-that-waits")).await;
    two.office.daemon.kill9();
    for file in ["live.redb", "history.redb"] {
        let bytes = fs::read(two.office.daemon.dir().join("data").join(file)).unwrap();
        let canary = b"canary-that-waits";
        assert!(!bytes.windows(canary.len()).any(|w| w == canary), "{file}");
    }
    two.office.daemon.restart().await.unwrap();
    let acts = two.acts().await;
    assert!(!acts.to_string().contains("canary"), "{acts}");
    let done = two.alice.confirm(&id).await.unwrap();
    assert_eq!(done.body["token"]["scope"], "*", "{}", done.body);
}

#[tokio::test]
async fn attack_50_who_asked_and_was_removed_since_asked_for_nothing() {
    let two = Two::start().await;
    let id = two
        .ask(json!({"kind": "remove-person", "person": "bob"}), None)
        .await;
    // alice wants robin gone; he objects, and she has to find somebody else.
    let act = json!({"kind": "remove-person", "person": "robin"});
    let asked = two.alice.act(act, None).await.unwrap();
    let hers = asked.body["act"]["id"].as_str().unwrap();
    assert!(asked.body["act"]["ready"].is_u64(), "{}", asked.body);
    let own = two.office.admin.confirm(hers).await.unwrap();
    assert_eq!(own.code(), "bad-request", "it is about him: {}", own.body);
    // His word without a code is nobody's: whoever stole his machine has it. With one, it ends the two weeks; where
    // nobody else could agree, that is all.
    let path = format!("/v1/acts/{hers}/veto");
    let bare = two.office.admin.post(&path, json!({})).await.unwrap();
    assert_eq!(bare.code(), "factor-missing", "{}", bare.body);
    assert!(veto(&two.office.admin, hers).await.success());
    assert_eq!(two.acts().await["acts"].as_array().unwrap().len(), 1);
    assert!(veto(&two.office.admin, &id).await.success(), "his own");
    assert_eq!(two.acts().await["acts"], json!([]));
}

/// Rights of the other admin are no end of a role: he agrees himself, and nobody changes them alone.
#[tokio::test]
async fn attack_50_the_other_admins_groups_are_not_changed_alone() {
    let two = Two::start().await;
    let act = json!({"kind": "change-person", "person": "alice", "groups": [], "admin": true});
    let id = two.ask(act, None).await;
    let groups = async || {
        let people = two.people().await;
        let alice = people.iter().find(|p| p["person"] == "alice").unwrap();
        alice["groups"].clone()
    };
    assert_eq!(groups().await, json!(["release"]));
    let done = two.alice.confirm(&id).await.unwrap();
    assert_eq!(done.body["done"], true, "{}", done.body);
    assert_eq!(groups().await, json!([]));
}

#[tokio::test]
async fn an_admin_who_is_gone_for_good_is_removed_after_two_weeks_in_which_nobody_objects() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let builder = clock.env(Daemon::builder());
    let office = Office::start_as(builder, &policy(1), NO_REGISTRY).await;
    let mut two = Two::over(office.unwrap()).await;
    let act = json!({"kind": "remove-person", "person": "alice"});
    let id = two.ask(act, None).await;
    clock.pass(&mut two.office.daemon, 13 * DAY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(names(&two.people().await).contains(&"alice"));
    assert_eq!(two.acts().await["acts"][0]["id"], json!(id));
    clock
        .pass(&mut two.office.daemon, 14 * DAY + HOUR)
        .await
        .unwrap();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if !names(&two.people().await).contains(&"alice") {
            return;
        }
    }
    panic!("she is there: {:?}", two.people().await);
}

/// Where nobody but the asker and the subject was there, no agreement is missing: that the asker still is an admin is
/// what counts then.
#[tokio::test]
async fn attack_50_the_wish_of_an_admin_who_was_removed_removes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let builder = clock.env(Daemon::builder());
    let office = Office::start_as(builder, &policy(1), NO_REGISTRY).await;
    let mut two = Two::over(office.unwrap()).await;
    two.ask(json!({"kind": "remove-person", "person": "alice"}), None)
        .await;
    // alice wants robin gone as well, and finds a third one who agrees: he was enrolled since robin asked.
    let act = json!({"kind": "invite", "person": "dora", "admin": true});
    let asked = two.alice.act(act, None).await.unwrap();
    let id = asked.body["act"]["id"].as_str().unwrap().to_owned();
    let done = two.office.admin.confirm(&id).await.unwrap();
    let invite = done.body["invited"]["invite"].as_str().unwrap().to_owned();
    let dora = Device::enroll(&two.office.daemon.url, &invite)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let act = json!({"kind": "remove-person", "person": "robin"});
    let asked = two.alice.act(act, None).await.unwrap();
    let id = asked.body["act"]["id"].as_str().unwrap().to_owned();
    let done = dora.confirm(&id).await.unwrap();
    assert_eq!(done.body["done"], true, "{}", done.body);
    clock
        .pass(&mut two.office.daemon, 14 * DAY + HOUR)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let people: Vec<Value> = two
        .alice
        .get("/v1/admin/people")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(names(&people), ["alice", "bob", "carol", "dora"]);
}

/// The digest of the policy in force, and what waits.
async fn in_force(two: &Two) -> (String, Vec<Value>) {
    let acts = two.acts().await;
    let waits = acts["acts"].as_array().unwrap().clone();
    (acts["policy"].as_str().unwrap().to_owned(), waits)
}

/// Writes a policy and waits until the daemon has read it.
async fn write(two: &Two, policy: &str) {
    let read = || {
        let log = two.office.daemon.log();
        log.matches("policy reloaded").count() + log.matches("allows more than the policy").count()
    };
    let before = read();
    fs::write(two.office.daemon.policy_path(), policy).unwrap();
    two.office.daemon.reload().await.unwrap();
    while read() == before {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn attack_50_a_weaker_policy_waits_for_two_admins_and_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let mut two = Two::after_setup(&clock).await;
    let (first, none) = in_force(&two).await;
    assert!(none.is_empty());
    // Stricter holds at once.
    write(&two, &policy(2)).await;
    let (strict, none) = in_force(&two).await;
    assert!(none.is_empty() && strict != first);
    // Weaker does not, also not after a restart, and not while one admin agrees.
    write(&two, &policy(1)).await;
    two.office.daemon.restart().await.unwrap();
    let robin_says = async |id: &str| two.office.admin.confirm(id).await.unwrap();
    let (now, waits) = in_force(&two).await;
    assert_eq!((now.as_str(), waits.len()), (strict.as_str(), 1));
    assert_eq!(waits[0]["changes"][0]["direction"], "weaker");
    assert_eq!(
        waits[0]["changes"][0]["words"],
        "npm:@acme/* quorum: 2 to 1"
    );
    assert_eq!(waits[0]["missing"], 2);
    let id = waits[0]["id"].as_str().unwrap();
    assert_eq!(robin_says(id).await.body["act"]["missing"], 1);
    // Everybody may object, and does not have to be an admin.
    assert!(veto(&two.bob, id).await.success());
    assert_eq!(in_force(&two).await.1.len(), 0);
    // Read again, it is asked for again, and nobody has agreed to that.
    write(&two, &policy(1)).await;
    let (_, waits) = in_force(&two).await;
    let id = waits[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(waits[0]["missing"], 2);
    assert_eq!(robin_says(&id).await.body["act"]["missing"], 1);
    let both = two.alice.confirm(&id).await.unwrap();
    assert_eq!(both.body["act"]["missing"], 0, "{}", both.body);
    let ready = both.body["act"]["ready"].as_i64().unwrap();
    let day = ready - i64::try_from(stand::now().unwrap()).unwrap();
    assert!((DAY - 60..=DAY).contains(&day), "{day}");
    clock
        .pass(&mut two.office.daemon, DAY - HOUR)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(in_force(&two).await.0, strict);
    clock
        .pass(&mut two.office.daemon, DAY + HOUR)
        .await
        .unwrap();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if in_force(&two).await.0 == first {
            break;
        }
    }
    assert_eq!(in_force(&two).await, (first, Vec::new()));
}

/// On a phone people see what is asked for, what a policy would change, and object with their passkey.
#[tokio::test]
async fn a_policy_that_allows_more_is_read_and_refused_on_a_phone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let builder = clock.made_ago(Daemon::builder(), 13 * 3600).unwrap();
    let office = Office::of_phones_as(builder, &policy(2)).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "dora", &["release"]).await.unwrap();
    let two = Two::over(office).await;
    write(&two, &policy(1)).await;
    two.ask(json!({"kind": "remove-person", "person": "bob"}), None)
        .await;
    let home = two.office.daemon.url.clone();
    phone.goto(&home).await.unwrap();
    phone.sees("2 acts of admins wait").await.unwrap();
    phone.goto(&format!("{home}/devices")).await.unwrap();
    phone.sees("npm:@acme/* quorum: 2 to 1").await.unwrap();
    phone.sees("Remove bob").await.unwrap();
    // The other act is for admins: there is one button.
    phone.click("Object").await.unwrap();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if in_force(&two).await.1.len() == 1 {
            break;
        }
    }
    let (_, waits) = in_force(&two).await;
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!(waits[0]["act"]["kind"], "remove-person");
    let events = two.office.events().await.unwrap();
    let vetoed = events.iter().find(|e| e["type"] == "act-vetoed").unwrap();
    assert_eq!(vetoed["by"], "dora");
    assert_eq!(phone.axe().await.unwrap(), json!([]));
}

#[tokio::test]
async fn attack_44_without_the_row_of_the_policy_in_force_nothing_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::make(dir.path()).await.unwrap();
    let mut two = Two::after_setup(&clock).await;
    assert!(
        two.office
            .ask("@acme/left", "1.0.0", b"x")
            .await
            .unwrap()
            .0
            .success()
    );
    two.office.daemon.kill9();
    let live = two.office.daemon.dir().join("data").join("live.redb");
    let key = b"policy\0in-force";
    rows::read(&live, key).unwrap();
    rows::write(&live, key, None).unwrap();
    two.office.daemon.restart().await.unwrap();
    let refused = two.office.ask("@acme/left", "2.0.0", b"x").await.unwrap().0;
    assert_eq!(refused.code(), "policy-denied", "{}", refused.body);
    let (_, waits) = in_force(&two).await;
    assert_eq!(waits[0]["missing"], 2, "{waits:?}");
    assert!(
        two.office
            .daemon
            .log()
            .contains("the policy in force cannot be believed")
    );
}
