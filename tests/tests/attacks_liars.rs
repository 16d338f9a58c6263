//! Attacks by a broker or registry that lies, stammers or falls silent: the client never says yes to that.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode};
use proto::{
    api::{EnrollRequest, OpenRequest, SealedRelease},
    bearer::{Bearer, Kind},
    device::DeviceKey,
    digest::{Algorithm, Digest},
    log::{
        checkpoint::{Checkpoint, LogKey},
        merkle::{leaf_hash, root},
    },
    request::{CallerFacts, RequestFacts},
    time::UnixTime,
};
use serde_json::{Value, json};
use stand::{Output, people::archive};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;

const ID: &str = "01900000-0000-7000-8000-000000000001";
/// A client that still waits after this time has not said yes.
const PATIENCE: Duration = Duration::from_secs(8);
/// For commands that must say yes, on a machine that is busy.
const LONG: Duration = Duration::from_mins(1);

/// What is wrong with a reply.
const GARBAGE: [&str; 9] = [
    "accepted", "empty", "null", "array", "html", "problem", "broken", "cut", "redirect",
];

/// A broker that says yes to everything, but for one step.
struct Liar {
    url: String,
    step: Mutex<(String, String)>,
    facts: Mutex<RequestFacts>,
    put: Mutex<bool>,
    log: DeviceKey,
    folder: TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Liar {
    async fn start() -> anyhow::Result<Arc<Self>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let liar = Arc::new(Self {
            url: format!("http://{}", listener.local_addr()?),
            step: Mutex::default(),
            facts: Mutex::new(facts()?),
            put: Mutex::default(),
            log: DeviceKey::from_seed([5; 32])?,
            folder: TempDir::new()?,
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&liar));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(liar)
    }

    /// Lies at one step from now on.
    fn lie(&self, step: &str, how: &str) {
        *lock(&self.step) = (step.into(), how.into());
        *lock(&self.put) = false;
    }

    async fn run(&self, args: &[&str]) -> Option<Output> {
        self.run_for(args, PATIENCE).await
    }

    async fn run_for(&self, args: &[&str], limit: Duration) -> Option<Output> {
        let bins = stand::daemon::bins().await.ok()?;
        let home = self.folder.path().join("home").display().to_string();
        let env = [
            ("COUNTERSIGN_HOME", home.as_str()),
            ("COUNTERSIGN_PASSPHRASE", "p"),
            ("COUNTERSIGN_BROKER", &self.url),
            ("COUNTERSIGN_ID_TOKEN", "x.y.z"),
            (
                "COUNTERSIGN_INVITE",
                &Bearer::from_entropy(Kind::Invite, [1; 32]).expose(),
            ),
        ];
        stand::run(&bins.countersign, args, &env, self.folder.path(), limit)
            .await
            .ok()
    }

    /// Runs a command that must not say yes; `None` is one that still waited and was stopped.
    async fn no(&self, args: &[&str]) {
        let (step, how) = lock(&self.step).clone();
        if let Some(out) = self.run(args).await {
            assert_ne!(out.status, Some(0), "{args:?}, {how} at {step}:\n{out}");
            assert!(
                !out.stderr.contains("panicked"),
                "{args:?}, {how} at {step}:\n{out}"
            );
        }
    }

    /// Runs a command that must say yes: the lie is what the others fail for.
    async fn yes(&self, args: &[&str]) {
        let out = self.run_for(args, LONG).await;
        let out = out.unwrap_or_else(|| panic!("{args:?} did not end"));
        assert_eq!(out.status, Some(0), "{args:?}\n{out}");
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn facts() -> anyhow::Result<RequestFacts> {
    Ok(RequestFacts {
        id: ID.parse()?,
        items: serde_json::from_value(json!([{
            "registry": "npm", "package": "@acme/left", "version": "1.0.0", "tag": "latest",
            "files": [{"name": "l.tgz", "size": 1, "digest": Digest::of(Algorithm::Sha512, b"a")}],
        }]))?,
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: [("repository".to_owned(), "acme/left".to_owned())].into(),
            run_url: None,
        },
        policy: Digest::of(Algorithm::Sha256, b"policy"),
        job_key: age::x25519::Identity::generate().to_public().to_string(),
        expires: UnixTime(stand::now()? + 5),
    })
}

async fn serve(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24)
        .await
        .unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let route = path.replace(ID, "ID");
    let step = match (&parts.method, route.as_str()) {
        (&Method::PUT, _) => "put",
        (_, "/v1/requests") => "open",
        (_, "/v1/requests/ID") if *lock(&liar.put) => "final",
        (_, "/v1/requests/ID") => "poll",
        (&Method::DELETE, _) => "delete",
        (_, other) => other.rsplit('/').next().unwrap_or_default(),
    };
    let (wrong, how) = lock(&liar.step).clone();
    let lies = wrong == step;
    if step == "put" && !lies {
        *lock(&liar.put) = true;
    }
    let value = right(&liar, step, &body);
    let status = if step == "put" {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    if !lies {
        return (status, axum::Json(value)).into_response();
    }
    let page = "<!doctype html><title>Sign in</title>";
    match how.as_str() {
        "accepted" => (StatusCode::ACCEPTED, axum::Json(value)).into_response(),
        "empty" => StatusCode::OK.into_response(),
        "null" => (StatusCode::OK, "null").into_response(),
        "array" => (StatusCode::OK, "[1]").into_response(),
        "html" => (StatusCode::OK, [("content-type", "text/html")], page).into_response(),
        "problem" => (
            StatusCode::OK,
            axum::Json(json!({"code": "denied", "title": "no", "detail": "", "status": 403})),
        )
            .into_response(),
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, page).into_response(),
        "redirect" => (StatusCode::FOUND, [("location", "/v1/status")], "").into_response(),
        "cut" => {
            let text = value.to_string();
            let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
            let parts: [Result<String, std::io::Error>; 2] =
                [Ok(half), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
        lie => (status, axum::Json(twisted(value, lie))).into_response(),
    }
}

/// What an honest broker would say.
fn right(liar: &Liar, step: &str, body: &Bytes) -> Value {
    let mut facts = lock(&liar.facts);
    match step {
        "open" => {
            if let Ok(asked) = serde_json::from_slice::<OpenRequest>(body) {
                facts.items = asked.items;
                facts.job_key = asked.job_key;
            }
            facts.expires = UnixTime(stand::now().unwrap_or_default() + 5);
            json!({
                "id": ID, "request_digest": facts.digest(), "facts": &*facts,
                "ticket": Bearer::from_entropy(Kind::Ticket, [2; 32]).expose(),
                "match_code": "123456", "page": format!("{}/r/{ID}", liar.url),
                "registry_url": {"npm": format!("{}/", liar.url)},
            })
        }
        "poll" | "final" | "cancel" => {
            let state = match step {
                "poll" => "approved",
                "final" => "published",
                _ => "cancelled",
            };
            let items = facts.items.iter().map(|i| {
                let files = i.files.iter().map(|f| {
                    json!({"name": f.name, "state": state,
                           "read_back": (step == "final").then(|| f.digest.clone())})
                });
                json!({"name": i.name(), "state": state, "files": files.collect::<Vec<_>>()})
            });
            json!({"id": ID, "state": state, "revision": 3, "approvals": 1, "quorum": 1,
                   "expires": facts.expires, "items": items.collect::<Vec<_>>()})
        }
        "collect" => {
            let release = SealedRelease {
                credential: Some(Bearer::from_entropy(Kind::Credential, [3; 32]).expose()),
                secret: None,
                minted: None,
            };
            let plain = serde_json::to_vec(&release).unwrap_or_default();
            let sealed = facts
                .job_key
                .parse::<age::x25519::Recipient>()
                .map(|to| age::encrypt_and_armor(&to, &plain).unwrap_or_default());
            json!({"sealed": sealed.unwrap_or_default(), "mode": "forward", "expires": facts.expires})
        }
        "enroll" => {
            let device = serde_json::from_slice::<EnrollRequest>(body).map(|e| e.public_key.id());
            json!({"person": "alice", "device": device.ok(), "done": true})
        }
        "status" => {
            let key = LogKey::new("broker.test", liar.log.public()).map(|k| k.to_string());
            json!({"version": "0", "sealed": false, "time": stand::now().unwrap_or_default(),
                   "log_key": key.ok(), "audience": liar.url})
        }
        "consistency" => checkpoint(&liar.log, 3),
        "inbox" => json!({"requests": []}),
        "question" => json!({
            "facts": &*facts, "request_digest": facts.digest(), "state": "pending",
            "opened": facts.expires, "factors": ["device"], "mode": "forward", "approvals": [], "quorum": 1,
            "previous": [null], "rivals": [], "warnings": [],
        }),
        "answer" => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let decision = &asked["statement"]["decision"];
            let state = if decision == "approve" {
                "approved"
            } else {
                "denied"
            };
            json!({"state": state, "approvals": 1, "quorum": 1, "decision": decision})
        }
        "acts" => json!({"done": true}),
        "freeze" => json!({"package": "npm:@acme/left", "frozen": true, "thawing": []}),
        "thaw" => json!({"package": "npm:@acme/left", "frozen": true, "thawing": ["alice"]}),
        "people" => json!([]),
        "devices" => json!({"person": "alice", "groups": [], "admin": true, "devices": []}),
        _ => json!({}),
    }
}

/// A checkpoint over a log of so many entries that never changes, and no proof: there is nothing to prove.
fn checkpoint(by: &DeviceKey, size: usize) -> Value {
    let root = root(&vec![leaf_hash(b"{}"); size]);
    let point = Checkpoint {
        origin: "broker.test".into(),
        size: size as u64,
        root,
    };
    json!({"checkpoint": point.sign(by).unwrap_or_default(), "proof": []})
}

/// A well-formed reply that says something else than was asked.
fn twisted(mut value: Value, lie: &str) -> Value {
    let other = json!(Digest::of(Algorithm::Sha512, b"evil"));
    match lie {
        "digest" => value["request_digest"] = json!("00".repeat(32)),
        "file" => value["facts"]["items"][0]["files"][0]["digest"] = other,
        "version" => value["facts"]["items"][0]["version"] = json!("6.6.6"),
        "item" => {
            let item = value["facts"]["items"][0].clone();
            if let Some(items) = value["facts"]["items"].as_array_mut() {
                items.push(item);
            }
        }
        "job-key" => {
            let key = age::x25519::Identity::generate().to_public().to_string();
            value["facts"]["job_key"] = json!(key);
        }
        "id" => value["facts"]["id"] = json!("01900000-0000-7000-8000-00000000000f"),
        "match-code" => value["match_code"] = json!("12345\u{661}"),
        "ticket" => value["ticket"] = json!("cst_AAAA"),
        "page" => value["page"] = json!("http://evil.example/r"),
        "registry" => value["registry_url"]["npm"] = json!("http://evil.example/"),
        "log-key" => {
            let key = DeviceKey::from_seed([6; 32]).ok();
            let key = key.and_then(|k| LogKey::new("broker.test", k.public()).ok());
            value["log_key"] = json!(key.map(|k| k.to_string()));
        }
        "other-log" => {
            if let Ok(key) = DeviceKey::from_seed([6; 32]) {
                value = checkpoint(&key, 3);
            }
        }
        "shorter" => value = lied(checkpoint, 2),
        "longer" => value = lied(checkpoint, 4),
        "other-root" => value = lied(another, 3),
        "proof" => value["proof"] = json!([leaf_hash(b"{}")]),
        "decision" => {
            let said = value["decision"] == "approve";
            value["decision"] = json!(if said { "deny" } else { "approve" });
        }
        "state" => value["state"] = json!("pending"),
        "thawed" => value["frozen"] = json!(false),
        "read-back" => value["items"][0]["files"][0]["read_back"] = other,
        "no-read-back" => value["items"] = json!([]),
        "other-request" => value["id"] = json!("01900000-0000-7000-8000-00000000000f"),
        "not-published" => value["state"] = json!("conflict"),
        "sealed-to-another" => {
            let to = age::x25519::Identity::generate().to_public();
            value["sealed"] = json!(age::encrypt_and_armor(&to, b"{}").unwrap_or_default());
        }
        "reveal" => value["mode"] = json!("reveal"),
        other => panic!("{other}"),
    }
    // A thorough liar makes the digest fit his facts.
    if matches!(lie, "file" | "version" | "item" | "job-key" | "id")
        && let Ok(facts) = serde_json::from_value::<RequestFacts>(value["facts"].clone())
    {
        value["request_digest"] = json!(facts.digest());
    }
    value
}

/// The same over another log.
fn another(by: &DeviceKey, size: usize) -> Value {
    let point = Checkpoint {
        origin: "broker.test".into(),
        size: size as u64,
        root: leaf_hash(b"another"),
    };
    json!({"checkpoint": point.sign(by).unwrap_or_default(), "proof": []})
}

/// What the liar's own log key signs.
fn lied(what: impl Fn(&DeviceKey, usize) -> Value, size: usize) -> Value {
    let key = DeviceKey::from_seed([5; 32]).ok();
    key.map(|key| what(&key, size)).unwrap_or_default()
}

fn tarball(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("left.tgz");
    fs::write(&path, archive("@acme/left", "1.0.0")?)?;
    Ok(path.display().to_string())
}

#[tokio::test]
async fn attack_35_publish_refuses_a_broker_that_records_something_else() {
    let liar = Liar::start().await.unwrap();
    let file = tarball(liar.folder.path()).unwrap();
    let publish = ["publish", "npm", &file, "--", "false"];
    for lie in [
        "digest",
        "file",
        "version",
        "item",
        "job-key",
        "id",
        "match-code",
        "ticket",
        "page",
        "registry",
    ] {
        liar.lie("open", lie);
        let out = liar.run(&publish).await.unwrap();
        assert_eq!(out.status, Some(5), "{lie}: {out}");
        assert!(
            !out.stdout.contains("123456") && !out.stderr.contains("1 2 3 4 5 6"),
            "{lie}: {out}"
        );
    }
    for (step, lie) in [
        ("poll", "other-request"),
        ("collect", "sealed-to-another"),
        ("collect", "reveal"),
    ] {
        liar.lie(step, lie);
        let out = liar.run(&publish).await.unwrap();
        assert_eq!(out.status, Some(5), "{lie}: {out}");
    }
    // It came to the command, so what was refused above was the lie.
    liar.lie("", "");
    let out = liar.run(&publish).await;
    assert!(out.is_none_or(|o| o.status == Some(1)));
}

#[tokio::test]
async fn attack_35_a_device_answers_no_question_that_does_not_hold() {
    let liar = Liar::start().await.unwrap();
    let totp = liar.path("totp");
    liar.yes(&["enroll", "--totp-file", &totp]).await;
    let approve = ["approve", ID, "--match-code", "123456"];
    liar.yes(&approve).await;
    liar.yes(&["deny", ID]).await;
    liar.yes(&["deny", ID, "--freeze"]).await;

    // Facts under another digest, another request's facts.
    for lie in ["digest", "id"] {
        liar.lie("question", lie);
        for args in [&approve[..], &["deny", ID], &["show", ID]] {
            let out = liar.run(args).await.unwrap();
            assert_eq!(out.status, Some(5), "{lie}: {out}");
        }
    }
    // Facts that changed since the person looked, under a digest that fits them.
    liar.lie("", "");
    let digest = lock(&liar.facts).digest().to_string();
    liar.lie("question", "file");
    let pinned = ["approve", ID, "--match-code", "123456", "--digest", &digest];
    assert_eq!(liar.run(&pinned).await.unwrap().status, Some(5));
    // Another broker in its place.
    liar.lie("consistency", "other-log");
    assert_eq!(liar.run(&approve).await.unwrap().status, Some(5));
    // Another decision recorded than the one that was signed, or none.
    liar.lie("answer", "decision");
    for args in [&approve[..], &["deny", ID], &["deny", ID, "--freeze"]] {
        assert_eq!(liar.run(args).await.unwrap().status, Some(5), "{args:?}");
    }
    liar.lie("answer", "state");
    liar.no(&["deny", ID]).await;
    liar.no(&["deny", ID, "--freeze"]).await;
    liar.lie("freeze", "thawed");
    liar.no(&["admin", "freeze", "npm:@acme/left"]).await;
}

#[tokio::test]
async fn attack_45_46_a_device_approves_nothing_at_a_log_that_it_cannot_follow() {
    let liar = Liar::start().await.unwrap();
    let totp = liar.path("totp");
    liar.yes(&["enroll", "--totp-file", &totp]).await;
    let approve = ["approve", ID, "--match-code", "123456"];
    let agree = ["admin", "confirm", "3f9c2a17b0de", "--totp", "123456"];
    let intend = ["intend", "npm:@acme/left@1.0.0"];
    liar.yes(&approve).await;
    liar.yes(&["log"]).await;
    for lie in ["other-log", "shorter", "longer", "other-root", "proof"] {
        liar.lie("consistency", lie);
        for args in [&approve[..], &intend, &agree, &["log"]] {
            let out = liar.run(args).await.unwrap();
            assert_eq!(out.status, Some(5), "{lie}: {out}");
            assert!(
                out.stderr.contains("countersign log accept"),
                "{lie}: {out}"
            );
        }
        // A no works as ever, and whoever looks is told.
        for args in [&["deny", ID][..], &["show", ID], &["inbox"]] {
            let out = liar.run_for(args, LONG).await.unwrap();
            assert_eq!(out.status, Some(0), "{lie}: {out}");
            assert!(
                out.stderr.contains("countersign log accept"),
                "{lie}: {out}"
            );
        }
    }
    // No proof at all.
    for how in GARBAGE {
        liar.lie("consistency", how);
        liar.no(&approve).await;
    }
    liar.lie("", "");
    liar.yes(&approve).await;
    // Accepting needs a log whose checkpoint holds.
    liar.lie("consistency", "other-log");
    let out = liar.run(&["log", "accept", "--yes"]).await.unwrap();
    assert_eq!(out.status, Some(5), "{out}");
    let other = LogKey::new(
        "broker.test",
        DeviceKey::from_seed([6; 32]).unwrap().public(),
    );
    let other = other.unwrap().to_string();
    liar.yes(&["log", "accept", "--yes", "--key", &other]).await;
    liar.yes(&approve).await;
}

#[tokio::test]
async fn attack_43_people_and_admins_are_never_told_yes_by_garbage() {
    let folder = TempDir::new().unwrap();
    let receipt = folder.path().join("receipt.json").display().to_string();
    let commands: [(&str, Vec<&str>); 13] = [
        ("inbox", vec!["inbox"]),
        ("question", vec!["show", ID]),
        ("question", vec!["approve", ID, "--match-code", "123456"]),
        ("answer", vec!["approve", ID, "--match-code", "123456"]),
        ("answer", vec!["deny", ID]),
        ("consistency", vec!["log"]),
        ("devices", vec!["devices"]),
        ("status", vec!["status"]),
        ("freeze", vec!["admin", "freeze", "npm:@acme/left"]),
        (
            "thaw",
            vec!["admin", "thaw", "npm:@acme/left", "--totp", "123456"],
        ),
        ("seal", vec!["admin", "seal"]),
        (
            "acts",
            vec!["admin", "remove-person", "bob", "--totp", "123456"],
        ),
        ("receipt", vec!["receipt", ID, "--out", &receipt]),
    ];
    let mut runs = tokio::task::JoinSet::new();
    // Few at once: a command that were only slow would look like one that did not say yes.
    let slots = Arc::new(tokio::sync::Semaphore::new(3));
    for (step, args) in commands {
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let slots = Arc::clone(&slots);
        runs.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let liar = Liar::start().await.unwrap();
            let totp = liar.path("totp");
            liar.yes(&["enroll", "--totp-file", &totp]).await;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            if step != "receipt" {
                liar.yes(&args).await;
            }
            for how in GARBAGE {
                // To these, an object of other members says nothing wrong.
                if how == "problem" && matches!(step, "seal") {
                    continue;
                }
                liar.lie(step, how);
                liar.no(&args).await;
            }
        });
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn attack_43_enrolment_is_never_finished_by_garbage() {
    for how in GARBAGE {
        let liar = Liar::start().await.unwrap();
        liar.lie("enroll", how);
        let totp = liar.path("totp");
        liar.no(&["enroll", "--totp-file", &totp]).await;
        assert!(
            !liar.folder.path().join("home/profile.toml").exists(),
            "{how}"
        );
    }
}

#[tokio::test]
async fn attack_43_publish_never_exits_0_when_it_was_not_told_yes() {
    let liar = Liar::start().await.unwrap();
    let file = tarball(liar.folder.path()).unwrap();
    // The lie is what the others fail for: told yes at every step, the real npm's publish exits 0.
    liar.yes(&["publish", "npm", &file]).await;
    let mut runs = tokio::task::JoinSet::new();
    let mut cases = Vec::new();
    for how in GARBAGE {
        cases.extend(["open", "poll", "collect", "final"].map(|step| (step, how)));
    }
    cases.extend([
        ("final", "read-back"),
        ("final", "no-read-back"),
        ("final", "other-request"),
        ("final", "not-published"),
        // Nothing is wrong, and nothing was published either.
        ("nothing", "nothing"),
    ]);
    let slots = Arc::new(tokio::sync::Semaphore::new(12));
    for (step, how) in cases {
        let slots = Arc::clone(&slots);
        runs.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let liar = Liar::start().await.unwrap();
            let file = tarball(liar.folder.path()).unwrap();
            liar.lie(step, how);
            if step == "final" {
                // As if the registry's client had just handed the bytes over.
                let url = format!("{}/left", liar.url);
                let call = format!("fetch('{url}', {{method: 'PUT', body: 'x'}})");
                liar.no(&["publish", "npm", &file, "--", "node", "-e", &call])
                    .await;
                assert!(*lock(&liar.put), "{how}: the broker saw no upload");
            } else {
                liar.no(&["publish", "npm", &file, "--", "true"]).await;
            }
        });
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn attack_43_a_registry_that_stammers_is_no_publish() {
    // The real npm takes some of these for a success. The broker's word decides, never npm's.
    let mut runs = tokio::task::JoinSet::new();
    for how in ["accepted", "empty", "html", "broken", "cut"] {
        runs.spawn(async move {
            let liar = Liar::start().await.unwrap();
            let file = tarball(liar.folder.path()).unwrap();
            liar.lie("put", how);
            liar.no(&["publish", "npm", &file]).await;
            assert!(!*lock(&liar.put), "{how}");
        });
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn attack_43_a_cancel_that_was_not_confirmed_is_no_cancel() {
    let liar = Liar::start().await.unwrap();
    let file = tarball(liar.folder.path()).unwrap();
    let out = liar.path("request.json");
    liar.yes(&["request", "npm", &file, "--out", &out]).await;
    let cancel = ["cancel", "--ticket-file", &out];
    liar.yes(&cancel).await;
    for how in GARBAGE.into_iter().chain(["state", "not-published"]) {
        liar.lie("cancel", how);
        liar.no(&cancel).await;
    }
    let wait = ["wait", "--ticket-file", &out, "--timeout", "2"];
    liar.lie("", "");
    liar.yes(&wait).await;
    for how in GARBAGE
        .into_iter()
        .chain(["other-request", "not-published"])
    {
        liar.lie("poll", how);
        liar.no(&wait).await;
    }
}

#[tokio::test]
async fn attack_43_verify_says_yes_to_nothing_that_is_not_proved() {
    let liar = Liar::start().await.unwrap();
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "<!doctype html>",
        "{\"payload\":\"\"}",
        "{\"payload\":\"e30=\",\"payloadType\":\"x\",\"signatures\":[]}",
        "{\"index\":0,\"leaf\":\"{}\"}\n",
        "{\"checkpoint\":\"\"}\n",
        "{\"index\":0,\"leaf\":\"{}\"}\n{\"checkpoint\":\"broker.test\\n1\\nAAAA\\n\\n\"}\n",
        "{\"checkpoint\":\"broker.test\\n0\\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\\n\\n\"}\n",
    ] {
        let path = liar.path("file");
        fs::write(&path, text).unwrap();
        for extra in [&[][..], &["--key", "broker.test+00000000+AQAA"]] {
            let args = [&["verify", &path][..], extra].concat();
            liar.no(&args).await;
        }
    }
    // A log whose checkpoint is well formed and signed: by its own key, over its own lines, or not at all.
    let own = LogKey::new("broker.test", liar.log.public()).unwrap();
    let other = LogKey::new(
        "broker.test",
        DeviceKey::from_seed([6; 32]).unwrap().public(),
    );
    let (own, other) = (own.to_string(), other.unwrap().to_string());
    for (leaf, key, valid) in [
        ("{}", &own, true),
        ("[]", &own, false),
        ("{}", &other, false),
    ] {
        let point = Checkpoint {
            origin: "broker.test".into(),
            size: 1,
            root: leaf_hash(b"{}"),
        };
        let line = json!({"checkpoint": point.sign(&liar.log).unwrap()});
        let entry = json!({"index": 0, "leaf": leaf});
        let path = liar.path("log");
        fs::write(&path, format!("{entry}\n{line}\n")).unwrap();
        let args = ["verify", &path, "--key", key];
        if valid {
            liar.yes(&args).await;
        } else {
            liar.no(&args).await;
        }
    }
    liar.no(&["verify", &liar.path("absent")]).await;
}
