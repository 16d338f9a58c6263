//! The watch: what others publish past the broker is an alarm and freezes the package; what nobody did is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse as _, routing::get};
use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{self, Packed, Small},
    cargo::{self, Freighter},
    daemon::Daemon,
    http,
    index::{self, Dist},
    oci::{self, DockerRegistry, IMAGE, Image, USER},
    parts::{Issuer, Verdaccio},
    people::publish_document,
    python::{self, PyPiServer},
    team::Team,
};
use std::{
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

mod watch {
    mod gems;
    mod given;
    mod rounds;
    mod unseen;
}

const CALLERS: &str = r#"callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device", "totp"]
"#;

/// A look at all watched packages.
async fn look(small: &Small) -> Value {
    let path = "/v1/admin/watch";
    let reply = small.robin.call("POST", path, &json!({})).await.unwrap();
    reply.ok().unwrap()
}

fn line<'a>(report: &'a Value, package: &str) -> &'a Value {
    let lines = report["packages"].as_array().unwrap();
    lines.iter().find(|l| l["package"] == package).unwrap()
}

/// The types of all events in the log.
async fn events(small: &Small) -> Vec<Value> {
    let path = "/v1/log/export?from=0&limit=1000";
    let log = small.robin.call("GET", path, &Value::Null).await.unwrap();
    let event = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
        leaf["event"].clone()
    };
    log.text.lines().map(event).collect()
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|e| e["type"] == kind).count()
}

/// Publishes past the broker, with the registry's own token.
async fn past_the_broker(registry: &Verdaccio, name: &str, version: &str) {
    let bytes = stand::packages::with_readme(name, version).unwrap();
    let document = publish_document(name, version, &registry.url, &bytes);
    let url = format!("{}/{}", registry.url, name.replace('/', "%2f"));
    let put = http().unwrap().put(url).bearer_auth(&registry.token);
    let reply = put.json(&document).send().await.unwrap();
    assert!(reply.status().is_success(), "{reply:?}");
}

/// A whole publish through the broker.
async fn publish(small: &Small, version: &str) {
    let packed = Packed::new("@acme/left", version).unwrap();
    let job = small.open(&[packed.item("latest").unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    let document = packed.document("latest").unwrap();
    let endpoint = &small.daemon.registry_url;
    let reply = api::put(endpoint, &credential, "@acme/left", document).await;
    assert!(reply.unwrap().good());
}

#[tokio::test]
async fn attack_59_a_version_published_past_the_broker_freezes_the_package_once() {
    let small = Small::start(api::POLICY).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    past_the_broker(registry, "@acme/left", "0.9.0").await;
    publish(&small, "1.0.0").await;
    let report = look(&small).await;
    let left = line(&report, "npm:@acme/left");
    assert_eq!(
        (&left["before"], &left["published"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(left["first_shown"], json!(["0.9.0"]));
    // What the broker publishes from now on is its own, and what was there is told once.
    publish(&small, "1.1.0").await;
    let report = look(&small).await;
    let left = line(&report, "npm:@acme/left");
    assert_eq!(left["published"], 2);
    assert!(
        left["first_shown"].is_null() && left["alarm"].is_null(),
        "{left}"
    );
    assert_eq!(count(&events(&small).await, "frozen-by-broker"), 0);

    // The old token, left in the forge, publishes past the broker.
    past_the_broker(registry, "@acme/left", "1.2.0").await;
    let report = look(&small).await;
    let left = line(&report, "npm:@acme/left");
    assert_eq!(left["others"], json!(["1.2.0"]));
    assert_eq!(left["frozen"], true);
    assert!(
        left["alarm"]
            .as_str()
            .unwrap()
            .contains("npm:@acme/left@1.2.0")
    );
    let inbox: Value = small.alice.inbox().await.unwrap().ok().unwrap();
    assert!(
        inbox["alarms"][0].as_str().unwrap().contains("1.2.0"),
        "{inbox}"
    );
    let metrics = format!("{}/metrics", small.daemon.operations_url);
    let metrics = http().unwrap().get(metrics).send().await.unwrap();
    assert!(
        metrics
            .text()
            .await
            .unwrap()
            .contains("countersign_alarms_total 1")
    );

    // Nothing of it is released until two admins have thawed it; then it is not frozen for the same again.
    let next = [Packed::new("@acme/left", "1.3.0")
        .unwrap()
        .item("latest")
        .unwrap()];
    let token = small.id_token().await.unwrap();
    let refused = small.open_raw(&token, &next).await.unwrap();
    assert_eq!(refused.code(), Some(Code::Frozen), "{}", refused.text);
    let invite = small.robin.invite("carol", &[], true, &[]).await.unwrap();
    let carol = api::Device::enroll(&small.daemon, &invite).await.unwrap();
    let late = carol.freezer("thaw", "npm:@acme/left").await.unwrap();
    assert!(
        !late.good() || late.json()["frozen"] == true,
        "{}",
        late.text
    );
    let all = events(&small).await;
    assert_eq!(count(&all, "version-unknown"), 1);
    look(&small).await;
    assert_eq!(count(&events(&small).await, "version-unknown"), 1);
}

#[tokio::test]
async fn attack_59_a_registry_that_fails_empties_or_forgets_freezes_nothing() {
    #[derive(Default)]
    struct Moody {
        mood: Mutex<&'static str>,
    }
    async fn document(State(moody): State<Arc<Moody>>) -> axum::response::Response {
        let of = |versions: &[&str]| {
            let dist = |v: &str| json!({"dist": {"integrity": proto::digest::Digest::of(proto::digest::Algorithm::Sha512, v.as_bytes()).sri()}});
            let all: serde_json::Map<_, _> = versions
                .iter()
                .map(|v| ((*v).to_owned(), dist(v)))
                .collect();
            axum::Json(json!({"name": "left", "versions": all})).into_response()
        };
        let mood = *moody.mood.lock().unwrap();
        match mood {
            "html" => axum::response::Html("<html>back soon</html>").into_response(),
            "500" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            "404" => StatusCode::NOT_FOUND.into_response(),
            "empty" => of(&[]),
            "cut" => "{\"versions\":{\"1.0.0\":".into_response(),
            "one" => of(&["1.0.0"]),
            _ => of(&["1.0.0", "1.1.0"]),
        }
    }
    let moody = Arc::new(Moody::default());
    let router = Router::new()
        .route("/{package}", get(document))
        .with_state(Arc::clone(&moody));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let policy = format!("[[package]]\nmatch = [\"npm:left\"]\n{CALLERS}version = \"semver\"\n");
    let small = Small::over(&url, "canary", &policy).await.unwrap();
    let first = look(&small).await;
    assert_eq!(line(&first, "npm:left")["before"], 2);
    for mood in ["html", "500", "404", "empty", "cut"] {
        *moody.mood.lock().unwrap() = mood;
        let report = look(&small).await;
        let left = line(&report, "npm:left");
        assert_eq!(left["frozen"], false, "{mood}");
        assert!(left["problem"].is_string(), "{mood}: {left}");
        assert_eq!(left["gone"], Value::Null, "{mood}");
    }
    *moody.mood.lock().unwrap() = "one";
    assert!(line(&look(&small).await, "npm:left")["gone"].is_null());
    let report = look(&small).await;
    let left = line(&report, "npm:left");
    assert_eq!(left["gone"], json!(["1.1.0"]));
    assert!(
        left["problem"].is_null() && left["frozen"] == false,
        "{left}"
    );
    let all = events(&small).await;
    assert_eq!(count(&all, "version-gone"), 1);
    assert_eq!(count(&all, "frozen-by-broker"), 0);
}

#[tokio::test]
async fn attack_59_a_file_slipped_into_a_python_release_is_noticed() {
    let registry = PyPiServer::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let policy = format!("[[package]]\nmatch = [\"pypi:acme-*\"]\n{CALLERS}version = \"pep440\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("pypi", "pypi", &registry.index, &keys)
        .policy(&policy);
    let token = registry.token.clone();
    let small = Small::with_token(builder, issuer, ("pypi", &token))
        .await
        .unwrap();
    let wheel = Dist::wheel("acme-left", "1.0.0");
    let job = small.open(&[wheel.item(&[]).unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    let credential = job.credential().await.unwrap();
    let sent = index::post(&small.daemon.registry_url, &credential, wheel.form()).await;
    assert_eq!(sent.unwrap().0, 200);
    let report = look(&small).await;
    assert_eq!(line(&report, "pypi:acme-left")["published"], 1);

    let slipped = Dist::wheel("acme-left", "1.0.0").tagged("py2");
    let file = small.daemon.dir().join(&slipped.name);
    fs::write(&file, &slipped.bytes).unwrap();
    let upload = python::upload(&[&file], &registry.upload, "__token__", &token).await;
    upload.unwrap().ok().unwrap();
    let report = look(&small).await;
    let left = line(&report, "pypi:acme-left");
    assert_eq!(left["others"], json!(["1.0.0"]));
    assert_eq!(left["frozen"], true);
    let all = events(&small).await;
    let unknown = all.iter().find(|e| e["type"] == "version-unknown").unwrap();
    assert_eq!(unknown["file"], slipped.name);
}

/// Publishes an image through the broker.
async fn push(small: &Small, image: &Image, name: &str, tag: &str) {
    let job = small.open(&[image.item(name, tag).unwrap()]).await.unwrap();
    small.approve(&job).await.unwrap();
    let basic = oci::basic("countersign", &job.credential().await.unwrap());
    let api = small.endpoint().unwrap();
    for blob in image.blobs() {
        let pushed = oci::push_blob(&api, &basic, name, blob).await.unwrap();
        pushed.ok_status().unwrap();
    }
    let path = format!("/v2/{name}/manifests/{tag}");
    let pushed = oci::put_manifest(&api, &basic, &path, &image.manifest, IMAGE).await;
    pushed.unwrap().ok_status().unwrap();
    small.until(&job, "published").await.unwrap();
}

#[tokio::test]
async fn attack_59_a_published_tag_that_points_elsewhere_is_an_alarm() {
    let registry = DockerRegistry::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let policy = format!(
        "[[package]]\nmatch = [\"oci:acme/*\", \"oci:acme/named\"]\n{CALLERS}version = \"any\"\n"
    );
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("oci", "oci", &registry.url, &format!("user = \"{USER}\""))
        .policy(&policy);
    let token = registry.password.clone();
    let small = Small::with_token(builder, issuer, ("oci", &token)).await;
    let small = small.unwrap();
    let (ours, theirs) = (Image::new(b"ours"), Image::new(b"theirs"));
    for name in ["acme/app", "acme/tool"] {
        push(&small, &ours, name, "1.0").await;
        // Tags of others were never ours, and say nothing of those that are.
        registry.push(&theirs, name, "latest").await.unwrap();
    }
    // One is moved before anybody has looked, the other behind the first look.
    registry.push(&theirs, "acme/tool", "1.0").await.unwrap();
    let report = look(&small).await;
    let app = line(&report, "oci:acme/app");
    assert_eq!(
        (&app["published"], &app["frozen"]),
        (&json!(1), &json!(false))
    );
    let tool = line(&report, "oci:acme/tool");
    assert_eq!(
        (&tool["others"], &tool["frozen"]),
        (&json!(["1.0"]), &json!(true))
    );
    registry.push(&theirs, "acme/app", "1.0").await.unwrap();
    let report = look(&small).await;
    let app = line(&report, "oci:acme/app");
    assert_eq!(
        (&app["others"], &app["frozen"]),
        (&json!(["1.0"]), &json!(true))
    );
    let all = events(&small).await;
    assert_eq!(count(&all, "version-unknown"), 1);
    assert_eq!(count(&all, "version-changed"), 1);
    // A package of which nothing left this broker is not among them.
    let lines = report["packages"].as_array().unwrap();
    assert!(lines.iter().all(|l| l["package"] != "oci:acme/named"));
}

#[tokio::test]
async fn attack_57_another_owners_crate_is_noticed() {
    let registry = Freighter::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.url);
    let policy =
        format!("[[package]]\nmatch = [\"crates:acme-left\"]\n{CALLERS}version = \"semver\"\n");
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("crates", "crates", &registry.index, &keys)
        .policy(&policy);
    let token = registry.token.clone();
    let small = Small::with_token(builder, issuer, ("crates", &token))
        .await
        .unwrap();
    let folder = small.daemon.dir().join("work");
    fs::create_dir(&folder).unwrap();
    let publish = async |version: &str| {
        let package = cargo::package(&folder, "acme-left", version).unwrap();
        let env = [
            (
                "CARGO_REGISTRIES_RAW_INDEX",
                format!("sparse+{}", registry.index),
            ),
            ("CARGO_REGISTRIES_RAW_TOKEN", registry.token.clone()),
        ];
        let env: Vec<_> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let args = ["publish", "--registry", "raw", "--allow-dirty"];
        cargo::cargo(&package, &args, &env)
            .await
            .unwrap()
            .ok()
            .unwrap();
    };
    publish("1.0.0").await;
    let report = look(&small).await;
    assert_eq!(line(&report, "crates:acme-left")["before"], 1);
    publish("1.1.0").await;
    let report = look(&small).await;
    let left = line(&report, "crates:acme-left");
    assert_eq!(
        (&left["others"], &left["frozen"]),
        (&json!(["1.1.0"]), &json!(true))
    );
}

#[tokio::test]
async fn attack_58_admins_see_the_alarm_wherever_they_look_and_two_of_them_thaw() {
    let team = Team::start().await.unwrap();
    past_the_broker(&team.registry, "left", "1.0.0").await;
    let first = team.admin(&["admin", "watch", "--now"]).await.unwrap();
    let first = first.ok().unwrap();
    assert!(
        first
            .stdout
            .contains("there before it was watched (shown once): 1.0.0"),
        "{first}"
    );
    past_the_broker(&team.registry, "left", "1.0.1").await;
    let out = team
        .admin(&["admin", "watch", "npm:left", "--now"])
        .await
        .unwrap();
    assert_eq!(out.status, Some(1), "{out}");
    assert!(
        out.stdout
            .contains("! npm:left@1.0.1: somebody published it past this broker"),
        "{out}"
    );
    for args in [&["admin", "status"][..], &["inbox"]] {
        let shown = team.admin(args).await.unwrap().ok().unwrap();
        assert!(
            shown.stdout.contains("! ALARM, frozen: npm:left@1.0.1"),
            "{shown}"
        );
    }
    let json = team.admin(&["--json", "admin", "watch"]).await.unwrap();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(line(&json, "npm:left")["others"], json!(["1.0.1"]));
    let unknown = team.admin(&["admin", "watch", "npm:right"]).await.unwrap();
    assert_eq!(unknown.status, Some(1), "{unknown}");
    let thaw = team.admin_with_code(&["admin", "thaw", "npm:left"]);
    let thaw = thaw.await.unwrap();
    assert!(thaw.ok().unwrap().stdout.contains("1 of 2"));
}
