//! A new token that nobody could prove takes no good one's place for good: the one before is kept until its registry has
//! accepted the new one once, and admins may go back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{self, Job, Packed, Reply, Small, policy_of_one},
    daemon::Daemon,
    parts::{Clock, Issuer, Verdaccio},
    proxy::{Fault, Proxy},
    rows,
    team::{self, Team},
};
use std::{fs, time::Duration};
use tempfile::TempDir;

/// The question whose a token is.
const WHOSE: &str = "GET /-/whoami";
/// What a registry says that has no such question, or whose front is out of order.
const NOT_FOUND: Fault =
    Fault::Answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
const UNAUTHORIZED: Fault =
    Fault::Answer("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

const FORBIDDEN: Fault =
    Fault::Answer("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
/// What a registry says that is out of order.
const BROKEN: Fault =
    Fault::Answer("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
/// What a front says that says yes to everything.
const OK: Fault =
    Fault::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
/// A publish of the package that these tests publish, and a read of it.
const PUT: &str = "PUT /@acme%2fleft";
const GET: &str = "GET /@acme%2fleft";
/// Where an admin says that a token is revoked.
const REVOKED: &str = "/v1/admin/tokens/revoked";
/// Its versions, whether they are old, and whether they are kept, after a rotation that nobody could prove.
const KEPT: [(u64, bool, bool); 2] = [(1, true, true), (2, false, false)];

/// A broker in front of a registry that can be kept from telling anything about tokens.
struct Stage {
    small: Small,
    registry: Verdaccio,
    proxy: Proxy,
    clock: Clock,
    _folder: TempDir,
}

impl Stage {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Clock::make(folder.path()).await.unwrap();
        let registry = Verdaccio::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = clock.env(Daemon::builder());
        let builder = builder
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", &proxy.url)
            .registry("secrets", "generic", "")
            .policy(&policy_of_one());
        let small = Small::with(builder, issuer, &registry.token).await.unwrap();
        Self {
            small,
            registry,
            proxy,
            clock,
            _folder: folder,
        }
    }

    async fn rotate(&self, token: &str) -> Reply {
        let act = json!({"kind": "rotate-token", "registry": "npm", "scope": "*"});
        self.small.robin.act(act, Some(token)).await.unwrap()
    }

    /// Rotated to a good token of which nobody could say that it is.
    async fn unproved(&self) -> String {
        self.proxy.arm_all(WHOSE, NOT_FOUND);
        let next = self.registry.another_token().await.unwrap();
        self.rotate(&next).await.ok_status().unwrap();
        assert_eq!(shape(&self.tokens().await), KEPT);
        next
    }

    async fn revoked(&self, token: &Value) -> Reply {
        let of = json!({"fingerprint": token["fingerprint"]});
        self.small.robin.with_code(REVOKED, of).await.unwrap()
    }

    /// A figure of the broker's.
    async fn metric(&self, name: &str) -> u64 {
        self.small.daemon.metric(name).await.unwrap()
    }

    async fn back(&self, kept: u64, present: u64) -> Reply {
        let act = json!({
            "kind": "token-back", "registry": "npm", "scope": "*", "kept": kept, "present": present,
        });
        self.small.robin.act(act, None).await.unwrap()
    }

    async fn check(&self) -> Value {
        let name = json!({"registry": "npm", "scope": "*"});
        let path = "/v1/admin/tokens/check";
        let checked = self.small.robin.call("POST", path, &name).await.unwrap();
        checked.ok().unwrap()
    }

    async fn get(&self, path: &str) -> Vec<Value> {
        let all = self.small.robin.call("GET", path, &Value::Null).await;
        all.unwrap().ok().unwrap()
    }

    async fn tokens(&self) -> Vec<Value> {
        self.get("/v1/admin/tokens").await
    }

    async fn left(&self) -> usize {
        self.get("/v1/admin/tokens/left").await.len()
    }

    /// An approved release of one package, with its credential.
    async fn approved(&self, version: &str) -> (Packed, Job, String) {
        self.approved_of("@acme/left", version).await
    }

    async fn approved_of(&self, name: &str, version: &str) -> (Packed, Job, String) {
        let packed = Packed::new(name, version).unwrap();
        let item = packed.item("latest").unwrap();
        let job = self.small.open(&[item]).await.unwrap();
        self.small
            .alice
            .approve(&job)
            .await
            .unwrap()
            .ok_status()
            .unwrap();
        let credential = job.credential().await.unwrap();
        (packed, job, credential)
    }

    async fn put(&self, packed: &Packed, credential: &str) -> Reply {
        let endpoint = &self.small.daemon.registry_url;
        let document = packed.document("latest").unwrap();
        let sent = api::put(endpoint, credential, &packed.name, document).await;
        sent.unwrap()
    }

    async fn events(&self, kind: &str) -> Vec<Value> {
        let path = "/v1/log/export?from=0&limit=1000";
        let page = self.small.robin.call("GET", path, &Value::Null).await;
        let text = page.unwrap().text;
        let event = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
            leaf["event"].clone()
        };
        let events = text.lines().filter(|l| !l.is_empty()).map(event);
        events.filter(|e| e["type"] == kind).collect()
    }

    /// Lets an hour and more pass, and gives the broker the time to end what is over.
    async fn hour(&mut self) {
        self.clock.pass(&mut self.small.daemon, 3700).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
}

/// Versions, whether they are old, and whether they are kept.
fn shape(tokens: &[Value]) -> Vec<(u64, bool, bool)> {
    let one = |t: &Value| {
        let version = t["version"].as_u64().unwrap();
        (version, !t["overlap_until"].is_null(), t["held"] == true)
    };
    tokens.iter().map(one).collect()
}

#[tokio::test]
async fn a_token_that_nobody_could_prove_leaves_the_old_one_kept_until_a_publish_was_accepted() {
    let mut stage = Stage::start().await;
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    let next = stage.registry.another_token().await.unwrap();
    let rotated = stage.rotate(&next).await.json();
    assert_eq!(
        rotated["token"]["proof"]["outcome"], "unproved",
        "{rotated}"
    );
    assert_eq!(rotated["token"]["fallback"], 1, "{rotated}");
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens), [(1, true, true), (2, false, false)]);
    assert_eq!(tokens[1]["fallback"], 1);
    // The new one is used from the switch on, and a yes of the registry is enough.
    let (packed, job, credential) = stage.approved("1.0.0").await;
    let sent = stage.put(&packed, &credential).await;
    assert!(sent.good(), "{}", sent.text);
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(stage.events("token-used").await[0]["version"], 2);
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens), [(1, true, false), (2, false, false)]);
    assert_eq!(tokens[1]["proof"]["outcome"], "proved", "{tokens:?}");
    assert!(tokens[1].get("fallback").is_none());
    let tried = stage.events("token-tried").await;
    assert_eq!(tried.len(), 1, "{tried:?}");
    assert_eq!(
        (&tried[0]["proof"], &tried[0]["version"]),
        (&json!("proved"), &json!(2))
    );
    // So the old one ends after its hour, as ever.
    stage.hour().await;
    assert_eq!(shape(&stage.tokens().await), [(2, false, false)]);
    assert_eq!(stage.left().await, 1);
}

#[tokio::test]
async fn an_old_token_is_kept_beyond_its_hour_and_nobody_is_asked_to_revoke_it_before_the_new_one_was_proved()
 {
    let mut stage = Stage::start().await;
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    let next = stage.registry.another_token().await.unwrap();
    stage.rotate(&next).await.ok_status().unwrap();
    // Once more, and the one that worked is kept, and no other.
    let third = stage.registry.another_token().await.unwrap();
    stage.rotate(&third).await.ok_status().unwrap();
    let kept = [(1, true, true), (2, true, false), (3, false, false)];
    assert_eq!(shape(&stage.tokens().await), kept);
    stage.hour().await;
    assert_eq!(
        shape(&stage.tokens().await),
        [(1, true, true), (3, false, false)]
    );
    assert_eq!(stage.events("token-destroyed").await.len(), 1);
    assert_eq!(stage.left().await, 1, "of the one that never worked");
    // No word of the registry's is no yes.
    assert_eq!(stage.check().await["outcome"], "unproved");
    assert_eq!(shape(&stage.tokens().await)[0], (1, true, true));
    stage.proxy.arm_all(WHOSE, Fault::None);
    assert_eq!(stage.check().await["outcome"], "proved");
    assert_eq!(shape(&stage.tokens().await)[0], (1, true, false));
    assert!(stage.tokens().await[1].get("fallback").is_none());
    // Its last hour begins with that yes: what was sent a moment ago was sent with it, perhaps.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(shape(&stage.tokens().await)[0], (1, true, false));
    stage
        .clock
        .pass(&mut stage.small.daemon, 7500)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(shape(&stage.tokens().await), [(3, false, false)]);
}

#[tokio::test]
async fn a_front_that_says_yes_to_everything_ends_no_token_that_works() {
    let stage = Stage::start().await;
    stage.unproved().await;
    stage.proxy.arm_all(PUT, OK);
    let (packed, job, credential) = stage.approved("1.0.0").await;
    // It looks for the bytes for longer than this.
    let sending = stage.put(&packed, &credential);
    let _ = tokio::time::timeout(Duration::from_secs(12), sending).await;
    assert_ne!(job.state().await.unwrap(), "published");
    assert_eq!(shape(&stage.tokens().await), KEPT);
    assert!(stage.events("token-tried").await.is_empty());
}

#[tokio::test]
async fn a_no_to_a_version_that_is_there_and_reads_that_are_refused_are_no_refusals_of_a_token() {
    let stage = Stage::start().await;
    stage.unproved().await;
    // Whatever a job names is read, and a registry refuses reads of what is not the reader's.
    stage.proxy.arm_all(GET, UNAUTHORIZED);
    let packed = Packed::new("@acme/left", "0.9.0").unwrap();
    let item = packed.item("latest").unwrap();
    stage.small.open(&[item]).await.unwrap();
    stage.proxy.arm_all(GET, Fault::None);
    // Somebody publishes the very bytes, right between the broker's look and its upload.
    let (packed, job, credential) = stage.approved("1.0.0").await;
    by_hand(&stage, &packed).await;
    stage.proxy.forget(GET);
    stage.proxy.arm(GET, NOT_FOUND);
    stage.proxy.arm(PUT, FORBIDDEN);
    stage.put(&packed, &credential).await;
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(stage.proxy.watched(PUT).len(), 1);
    assert!(stage.events("token-tried").await.is_empty());
    assert_eq!(stage.tokens().await[1]["proof"]["outcome"], "unproved");
    assert_eq!(shape(&stage.tokens().await), KEPT);
}

#[tokio::test]
async fn a_yes_to_the_old_token_that_was_on_its_way_says_nothing_of_the_new_one() {
    let stage = Stage::start().await;
    // Of neither anybody knows that it works.
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    assert_eq!(stage.check().await["outcome"], "unproved");
    stage.proxy.arm(PUT, Fault::Delay(Duration::from_secs(4)));
    let (packed, job, credential) = stage.approved("1.0.0").await;
    let rotated = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        stage.unproved().await;
    };
    let (sent, ()) = tokio::join!(stage.put(&packed, &credential), rotated);
    assert!(sent.good(), "{}", sent.text);
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(stage.events("token-used").await[0]["version"], 1);
    assert_eq!(shape(&stage.tokens().await), KEPT);
    // Nor does a yes to the new one say anything of the one after it. An admin's next code has to be there.
    let (packed, job, credential) = stage.approved("1.1.0").await;
    stage.proxy.forget(PUT);
    stage.proxy.arm(PUT, Fault::Delay(Duration::from_secs(4)));
    tokio::time::sleep(Duration::from_secs(31)).await;
    let rotated = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let third = stage.registry.another_token().await.unwrap();
        stage.rotate(&third).await.ok_status().unwrap();
    };
    let (sent, ()) = tokio::join!(stage.put(&packed, &credential), rotated);
    assert!(sent.good(), "{}", sent.text);
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(stage.events("token-used").await[1]["version"], 2);
    let kept = [(1, true, true), (2, true, false), (3, false, false)];
    assert_eq!(shape(&stage.tokens().await), kept);
    assert!(stage.events("token-tried").await.is_empty());
}

#[tokio::test]
async fn a_publish_that_shows_late_is_a_yes_to_the_token_that_it_was_sent_with() {
    let mut stage = Stage::start().await;
    stage.unproved().await;
    let (packed, job, credential) = stage.approved("1.0.0").await;
    // The registry takes it, and its front shows nothing of it for longer than an upload waits, and a broker lives.
    stage.proxy.arm_all(GET, NOT_FOUND);
    let sent = stage.put(&packed, &credential).await;
    assert_ne!(job.state().await.unwrap(), "published", "{}", sent.text);
    assert_eq!(shape(&stage.tokens().await), KEPT);
    stage.small.daemon.kill9();
    stage.small.daemon.restart().await.unwrap();
    stage.proxy.arm_all(GET, Fault::None);
    stage.small.until(&job, "published").await.unwrap();
    let after = [(1, true, false), (2, false, false)];
    assert_eq!(shape(&stage.tokens().await), after);
    let tried = stage.events("token-tried").await;
    assert_eq!(
        (tried.len(), &tried[0]["proof"], &tried[0]["version"]),
        (1, &json!("proved"), &json!(2))
    );
}

/// Somebody publishes the very bytes at the registry.
async fn by_hand(stage: &Stage, packed: &Packed) {
    let (url, token) = (&stage.registry.url, &stage.registry.token);
    let document = packed.document("latest").unwrap();
    let own = api::put(url, token, &packed.name, document).await.unwrap();
    assert!(own.good(), "{}", own.text);
}

#[tokio::test]
async fn what_others_publish_after_a_refusal_is_no_yes_to_the_token() {
    let stage = Stage::start().await;
    stage.unproved().await;
    // The refusal cannot be read back at once.
    let (packed, job, credential) = stage.approved("1.0.0").await;
    let Fault::Answer(no) = FORBIDDEN else {
        panic!("an answer");
    };
    let late = Fault::LateAnswer(Duration::from_secs(2), no);
    stage.proxy.arm(PUT, late);
    let (sent, ()) = tokio::join!(stage.put(&packed, &credential), async {
        while stage.proxy.watched(PUT).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.proxy.arm_all(GET, BROKEN);
    });
    assert!(!sent.good(), "{}", sent.text);
    assert!(stage.events("token-tried").await.is_empty());
    by_hand(&stage, &packed).await;
    stage.proxy.arm_all(GET, Fault::None);
    stage.small.until(&job, "published").await.unwrap();
    assert_eq!(shape(&stage.tokens().await), KEPT);
    assert!(stage.events("token-tried").await.is_empty());
    // It can, and it is a no; what is shown later is none the less somebody else's.
    let (packed, job, credential) = stage.approved("1.1.0").await;
    stage.proxy.forget(PUT);
    stage.proxy.arm(PUT, FORBIDDEN);
    let sent = stage.put(&packed, &credential).await;
    assert!(!sent.good(), "{}", sent.text);
    by_hand(&stage, &packed).await;
    stage.small.until(&job, "published").await.unwrap();
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens), KEPT);
    assert_eq!(tokens[1]["proof"]["outcome"], "refused");
    assert_eq!(stage.events("token-tried").await.len(), 1);
}

#[tokio::test]
async fn a_token_that_was_seen_is_not_kept() {
    let mut stage = Stage::start().await;
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    let next = stage.registry.another_token().await.unwrap();
    let act = json!({"kind": "rotate-token", "registry": "npm", "scope": "*", "ends_old": true});
    let rotated = stage.small.robin.act(act, Some(&next)).await.unwrap();
    assert!(
        rotated.json()["token"].get("fallback").is_none(),
        "{}",
        rotated.text
    );
    assert_eq!(shape(&stage.tokens().await)[0], (1, true, false));
    // And where that was learned later: whoever revoked it at the registry says so.
    let third = stage.registry.another_token().await.unwrap();
    stage.rotate(&third).await.ok_status().unwrap();
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens)[1], (2, true, true));
    stage.clock.pass(&mut stage.small.daemon, 60).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(stage.metric("countersign_tokens_kept").await, 1);
    // It ends a way back, so one machine of an admin's is not enough.
    let of = json!({"fingerprint": tokens[1]["fingerprint"]});
    let bare = stage.small.robin.call("POST", REVOKED, &of).await.unwrap();
    assert_eq!(bare.code(), Some(Code::FactorMissing), "{}", bare.text);
    assert_eq!(shape(&stage.tokens().await)[1], (2, true, true));
    stage.revoked(&tokens[1]).await.ok_status().unwrap();
    assert_eq!(stage.events("token-revoked").await[0]["version"], 2);
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens)[1], (2, true, false));
    assert!(tokens[2].get("fallback").is_none(), "{tokens:?}");
    assert_eq!(stage.back(2, 3).await.code(), Some(Code::BadRequest));
    stage.hour().await;
    assert_eq!(shape(&stage.tokens().await), [(3, false, false)]);
    assert_eq!(stage.metric("countersign_tokens_kept").await, 0);
}

#[tokio::test]
async fn a_new_token_that_was_proved_leaves_nothing_kept() {
    let stage = Stage::start().await;
    stage.unproved().await;
    stage.proxy.arm_all(WHOSE, Fault::None);
    let third = stage.registry.another_token().await.unwrap();
    let rotated = stage.rotate(&third).await.json();
    assert_eq!(rotated["token"]["proof"]["outcome"], "proved", "{rotated}");
    let ends = [(1, true, false), (2, true, false), (3, false, false)];
    assert_eq!(shape(&stage.tokens().await), ends);
}

#[tokio::test]
async fn a_new_token_that_its_registry_refuses_is_told_and_two_admins_go_back() {
    let mut stage = Stage::start().await;
    let dora = stage.small.dora().await.unwrap();
    let agreed = async |stage: &Stage, asked: Reply| {
        let id = asked.json()["act"]["id"].as_str().unwrap().to_owned();
        let done = dora.confirm(&id).await.unwrap();
        assert_eq!(done.json()["done"], true, "{}", done.text);
        shape(&stage.tokens().await)
    };
    let none = stage.back(1, 2).await;
    assert_eq!(none.code(), Some(Code::BadRequest), "{}", none.text);
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    let next = stage.registry.another_token().await.unwrap();
    let asked = stage.rotate(&next).await;
    let kept = KEPT;
    assert_eq!(agreed(&stage, asked).await, kept);
    let (packed, job, credential) = stage.approved("1.0.0").await;
    stage.proxy.arm_all(PUT, FORBIDDEN);
    let sent = stage.put(&packed, &credential).await;
    assert!(!sent.good(), "{}", sent.text);
    stage.proxy.arm_all(PUT, Fault::None);
    let tokens = stage.tokens().await;
    assert_eq!(shape(&tokens), kept);
    let proof = &tokens[1]["proof"];
    assert_eq!(proof["outcome"], "refused", "{tokens:?}");
    assert_eq!(proof["package"], "npm:@acme/left@1.0.0");
    assert_eq!(
        (&tokens[1]["rotation"], &tokens[1]["fallback"]),
        (&json!("now"), &json!(1))
    );
    assert_eq!(stage.events("token-tried").await[0]["proof"], "refused");
    // The kept one is no new one, and goes back only by two, and only where its registry takes it.
    let again = stage.rotate(&stage.registry.token).await;
    assert!(again.text.contains("token back npm"), "{}", again.text);
    stage.proxy.arm_all(WHOSE, UNAUTHORIZED);
    let refused = stage.back(1, 2).await;
    assert_eq!(
        refused.code(),
        Some(Code::RegistryRefused),
        "{}",
        refused.text
    );
    assert_eq!(shape(&stage.tokens().await), kept);
    stage.proxy.arm_all(WHOSE, NOT_FOUND);
    let asked = stage.back(1, 2).await;
    assert_eq!(asked.json()["done"], false, "{}", asked.text);
    assert_eq!(shape(&stage.tokens().await), kept);
    assert!(stage.events("token-back").await.is_empty());
    let after = [(2, true, false), (3, false, false)];
    assert_eq!(agreed(&stage, asked).await, after);
    let back = &stage.events("token-back").await[0];
    assert_eq!(
        (&back["version"], &back["kept"], &back["ended"]),
        (&json!(3), &json!(1), &json!(2))
    );
    let sent = stage.put(&packed, &credential).await;
    assert!(sent.good(), "{}", sent.text);
    stage.small.until(&job, "published").await.unwrap();
    stage.hour().await;
    assert_eq!(shape(&stage.tokens().await), [(3, false, false)]);
}

#[tokio::test]
async fn attack_44_a_kept_token_that_was_put_back_ends_none_that_is_in_use() {
    let mut stage = Stage::start().await;
    stage.unproved().await;
    let live = stage.small.daemon.dir().join("data/live.redb");
    stage.small.daemon.kill9();
    let kept = rows::of_table(&live, "token").unwrap().remove(0);
    stage.small.daemon.restart().await.unwrap();
    stage.back(1, 2).await.ok_status().unwrap();
    // Whoever writes the database puts the kept row back, and the registry proves the very same token.
    stage.small.daemon.kill9();
    rows::write(&live, &kept.0, Some(&kept.1)).unwrap();
    stage.small.daemon.restart().await.unwrap();
    let there = [(1, true, true), (2, true, false), (3, false, false)];
    assert_eq!(shape(&stage.tokens().await), there);
    stage.proxy.arm_all(WHOSE, Fault::None);
    assert_eq!(stage.check().await["outcome"], "proved");
    stage
        .clock
        .pass(&mut stage.small.daemon, 7500)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(shape(&stage.tokens().await), [(3, false, false)]);
    let ended = stage.events("token-destroyed").await;
    let of = |version: u64| ended.iter().find(|e| e["version"] == version).unwrap();
    assert_eq!(
        (&of(1)["end"], &of(2)["end"]),
        (&json!("in-use"), &json!("open"))
    );
    assert_eq!(stage.left().await, 1, "of the one that nobody could prove");
}

#[tokio::test]
async fn a_way_back_is_between_the_versions_that_were_read_or_nothing() {
    let stage = Stage::start().await;
    stage.unproved().await;
    let dora = stage.small.dora().await.unwrap();
    let asked = stage.back(1, 2).await;
    let third = stage.registry.another_token().await.unwrap();
    let rotated = stage.rotate(&third).await;
    let id = |reply: &Reply| reply.json()["act"]["id"].as_str().unwrap().to_owned();
    dora.confirm(&id(&rotated))
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    let before = [(1, true, true), (2, true, false), (3, false, false)];
    assert_eq!(shape(&stage.tokens().await), before);
    // With another one present he agrees to nothing.
    let late = dora.confirm(&id(&asked)).await.unwrap();
    assert_eq!(late.code(), Some(Code::BadRequest), "{}", late.text);
    assert_eq!(shape(&stage.tokens().await), before);
    assert!(stage.events("token-back").await.is_empty());
}

#[tokio::test]
async fn a_wide_token_is_proved_at_a_package_that_no_narrower_one_is_for() {
    let stage = Stage::start().await;
    for name in ["@acme/left", "@acme/right"] {
        let (packed, _, credential) = stage.approved_of(name, "1.0.0").await;
        let sent = stage.put(&packed, &credential).await;
        assert!(sent.good(), "{}", sent.text);
    }
    let looked = stage
        .small
        .robin
        .call("POST", "/v1/admin/watch", &json!({}))
        .await;
    looked.unwrap().ok_status().unwrap();
    let add = json!({"kind": "add-token", "registry": "npm", "scope": "@acme/left"});
    let narrow = stage.registry.another_token().await.unwrap();
    let added = stage.small.robin.act(add, Some(&narrow)).await.unwrap();
    added.ok_status().unwrap();
    let (left, right) = ("GET /@acme%2fleft", "GET /@acme%2fright");
    for text in [left, right] {
        stage.proxy.arm_all(text, Fault::None);
    }
    stage.check().await;
    assert_eq!(
        stage.proxy.watched(left).len(),
        0,
        "another token is for it"
    );
    assert_eq!(stage.proxy.watched(right).len(), 1);
}

/// What an admin sees in a terminal.
#[tokio::test]
async fn a_terminal_tells_of_the_version_that_is_kept_and_goes_back_to_it() {
    let registry = Verdaccio::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let team = Team::over(registry, issuer, &proxy.url, team::POLICY).await;
    let team = team.unwrap();
    let shown = async |args: &[&str]| {
        let out = team.admin(args).await.unwrap();
        println!("$ countersign {}\n{out}", args.join(" "));
        out
    };
    let list = ["admin", "token", "list"];
    let check = ["admin", "token", "check", "npm", "*"];
    proxy.arm_all(WHOSE, NOT_FOUND);
    let file = team.folder().join("new-token");
    fs::write(&file, "canary-mistyped").unwrap();
    let file = file.display().to_string();
    let rotate = [
        "admin",
        "token",
        "rotate",
        "npm",
        "*",
        "--token-file",
        &file,
    ];
    let rotated = team.admin_with_code(&rotate).await.unwrap().ok().unwrap();
    println!("{rotated}");
    assert!(rotated.stdout.contains("version 1 is kept"), "{rotated}");
    assert!(
        !rotated.stdout.contains("Revoke it at the registry"),
        "{rotated}"
    );
    let all = shown(&list).await.stdout;
    assert!(
        all.contains("kept until the new one was accepted once"),
        "{all}"
    );
    assert!(all.contains("not accepted yet; version 1 is kept"), "{all}");
    let due = shown(&["admin", "token", "list", "--due"]).await.stdout;
    assert!(due.contains("1 (old)") && due.contains("2 "), "{due}");
    let status = shown(&["admin", "status"]).await.stdout;
    assert!(
        status.contains("is not accepted yet; version 1 is kept"),
        "{status}"
    );
    assert_eq!(shown(&check).await.status, Some(7));
    proxy.arm_all(WHOSE, UNAUTHORIZED);
    let refused = shown(&check).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("admin token back"), "{refused}");
    // Look, and then go back.
    for args in [&list[..], &["admin", "status"]] {
        let told = shown(args).await.stdout;
        let way = "look why (countersign admin token check npm '*'); then go back to version 1 (countersign admin token back npm '*')";
        assert!(told.contains(way), "{told}");
    }
    proxy.arm_all(WHOSE, NOT_FOUND);
    let back = ["admin", "token", "back", "npm", "*"];
    let back = team.admin_with_code(&back).await.unwrap().ok().unwrap();
    assert!(
        back.stdout
            .contains("is the present one again, as version 3"),
        "{back}"
    );
    let all = shown(&list).await.stdout;
    assert!(all.contains("2 (old)") && !all.contains("1 (old)"), "{all}");
    // Nothing is kept now, and one that was seen is not, either.
    let none = ["admin", "token", "back", "npm", "*"];
    let none = team.admin_with_code(&none).await.unwrap();
    assert!(
        none.stderr.contains("No old version of npm:* is kept"),
        "{none}"
    );
    let mut seen = rotate.to_vec();
    seen.push("--ends-old");
    fs::write(&file, "canary-after-it-was-seen").unwrap();
    let seen = team.admin_with_code(&seen).await.unwrap().ok().unwrap();
    assert!(
        seen.stdout.contains("revoke it at the registry now"),
        "{seen}"
    );
    assert!(!seen.stdout.contains("is kept"), "{seen}");
    let all = shown(&list).await.stdout;
    assert!(all.contains("to rotate: 0 now"), "{all}");
    // And of what waits at a registry.
    let call = ["admin", "yank", "npm", "@acme/left", "1.0.0", "--call-back"];
    let none = team.admin_with_code(&call).await.unwrap();
    assert!(
        none.stderr
            .contains("nothing waits for npm:@acme/left@1.0.0"),
        "{none}"
    );
}
