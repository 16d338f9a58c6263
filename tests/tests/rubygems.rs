//! Gems: the real `gem build` and `gem push`, and our own client, through the broker to a strict stand-in.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::Question,
    card::{Outcome, Previous},
    digest::{Algorithm, Digest},
    gem::Gem,
    request::{File, Item},
};
use stand::{
    api::{Job, Reply, Small},
    daemon::Daemon,
    gems::{self, Gems, KEY, gem},
    parts::Issuer,
    team::{PUBLISH, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const POLICY: &str = r#"
[[package]]
match = ["gems:acme-*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 2
factors = ["device"]
version = "semver"
"#;

struct Stage {
    registry: Gems,
    small: Small,
    folder: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        Self::with_policy(POLICY).await
    }

    async fn with_policy(policy: &str) -> Self {
        let registry = Gems::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry("gems", "rubygems", &registry.url)
            .policy(policy);
        let small = Small::with_token(builder, issuer, ("gems", KEY))
            .await
            .unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            registry,
            small,
            folder,
        }
    }

    async fn build(&self, name: &str, version: &str, more: &str) -> PathBuf {
        gems::build(&self.folder, name, version, more)
            .await
            .unwrap()
    }

    /// Starts `countersign publish gems <args>` as the CI job.
    async fn publish(&self, args: &[&str]) -> (Waiting, Job) {
        let token = self.small.id_token().await.unwrap();
        let all: Vec<&str> = ["publish", "gems"].iter().chain(args).copied().collect();
        let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
        let daemon = &self.small.daemon;
        let waiting = Waiting::start(daemon, &self.folder, &all, &env)
            .await
            .unwrap();
        let alice = &self.small.alice;
        let job = Job::seen_by(alice, &waiting.id, &waiting.match_code)
            .await
            .unwrap();
        (waiting, job)
    }

    /// A request for this gem under this name and version, approved and collected.
    async fn collected(&self, file: &Path, name: &str, version: &str) -> (Job, String) {
        let bytes = fs::read(file).unwrap();
        let item = Item {
            registry: "gems".parse().unwrap(),
            package: name.parse().unwrap(),
            version: version.parse().unwrap(),
            tag: None,
            files: vec![File {
                name: format!("{name}-{version}.gem"),
                size: bytes.len() as u64,
                digest: Digest::of(Algorithm::Sha256, &bytes),
            }],
        };
        let job = self.small.open(&[item]).await.unwrap();
        self.small.approve(&job).await.unwrap();
        let credential = job.credential().await.unwrap();
        (job, credential)
    }

    async fn post(&self, path: &str, credential: &str, body: &[u8]) -> Reply {
        let origin = self.small.endpoint().unwrap();
        let headers = [("authorization", credential)];
        origin
            .call("POST", path, &headers, body.to_vec())
            .await
            .unwrap()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn gems_of_two_platforms_are_published_only_after_two_people_approved() {
    let stage = Stage::start().await;
    let plain = stage.build("acme-left", "1.4.2", "").await;
    let java = stage
        .build("acme-left", "1.4.2", "s.platform = 'java'")
        .await;
    let (mut waiting, job) = stage.publish(&[&text(&plain), &text(&java)]).await;
    let names: Vec<_> = job.facts.items[0]
        .files
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(names, ["acme-left-1.4.2.gem", "acme-left-1.4.2-java.gem"]);
    for device in [&stage.small.alice, &stage.small.bob] {
        assert!(stage.registry.writes().is_empty());
        let _: serde_json::Value = device.approve(&job).await.unwrap().ok().unwrap();
    }
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    for (name, file) in [
        ("acme-left-1.4.2.gem", &plain),
        ("acme-left-1.4.2-java.gem", &java),
    ] {
        assert_eq!(
            stage.registry.gem(name).unwrap(),
            fs::read(file).unwrap(),
            "{name}"
        );
    }
    let seen = stage.registry.seen();
    assert_eq!(stage.registry.writes().len(), 2);
    // The key goes with the pushes and with nothing else; of the two probes when it was stored one has an invented key.
    let probe = |s: &gems::Seen| s.body == b"countersign-probe";
    assert!(
        (seen.iter().filter(|s| !probe(s))).all(|s| s.key == (s.method == "POST")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn plain_gem_push_publishes_through_the_broker() {
    let stage = Stage::start().await;
    let file = stage.build("acme-plain", "0.1.0", "").await;
    let path = text(&file);
    let args = [path.as_str(), "--", "gem", "push", path.as_str()];
    let (mut waiting, job) = stage.publish(&args).await;
    stage.small.approve(&job).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    assert!(stage.registry.gem("acme-plain-0.1.0.gem").is_some());

    // With the one-shot credential alone, and no client of ours; twice, since gem repeats uploads.
    let file = stage.build("acme-direct", "0.1.0", "").await;
    let (job, credential) = stage.collected(&file, "acme-direct", "0.1.0").await;
    let path = text(&file);
    let host = stage.small.daemon.registry_url.clone();
    let env = [("GEM_HOST_API_KEY", credential.as_str())];
    for _ in 0..2 {
        let args = ["push", "--host", &host, &path];
        let out = gem(&stage.folder, &args, &env).await.unwrap().ok().unwrap();
        assert!(out.stdout.contains("published the gem"), "{out}");
    }
    assert_eq!(job.state().await.unwrap(), "published");
    let pushes = stage.registry.writes();
    assert_eq!(pushes.len(), 2, "one for each gem");

    // Without a credential gem fails, and is told what to do.
    let other = stage.build("acme-other", "0.1.0", "").await;
    let path = text(&other);
    let args = ["push", "--host", &host, &path];
    let env = [("GEM_HOST_API_KEY", KEY)];
    let out = gem(&stage.folder, &args, &env).await.unwrap();
    assert!(!out.success(), "{out}");
    assert!(format!("{out}").contains("countersign publish"), "{out}");
    assert_eq!(stage.registry.writes().len(), 2);
}

#[tokio::test]
async fn attack_12_13_and_20_only_the_approved_gem_passes_and_nothing_else() {
    let stage = Stage::start().await;
    let good = stage.build("acme-good", "1.0.0", "").await;
    let evil = stage.build("acme-evil", "1.0.0", "").await;
    let (_, credential) = stage.collected(&good, "acme-good", "1.0.0").await;
    let bytes = fs::read(&good).unwrap();
    let refused = async |why: &str, path: &str, credential: &str, body: &[u8]| {
        let reply = stage.post(path, credential, body).await;
        assert!(
            !reply.good() && reply.status != 401,
            "{why}: {}",
            reply.text
        );
    };
    let push = "/api/v1/gems";
    for at in [0, 600, bytes.len() / 2, bytes.len() - 1] {
        let mut swapped = bytes.clone();
        swapped[at] ^= 1;
        refused("one bit", push, &credential, &swapped).await;
    }
    refused("another gem", push, &credential, &fs::read(&evil).unwrap()).await;
    refused(
        "half an upload",
        push,
        &credential,
        &bytes[..bytes.len() / 2],
    )
    .await;
    refused("a page", push, &credential, b"<html>no gem</html>").await;
    refused("nothing", push, &credential, b"").await;
    refused(
        "two gems",
        push,
        &credential,
        &[bytes.clone(), bytes.clone()].concat(),
    )
    .await;
    for other in ["", "csc_AAAA", KEY, "Basic x"] {
        refused(other, push, other, &bytes).await;
    }
    for path in [
        "/api/v1/gems/yank",
        "/api/v1/gems/",
        "//api/v1/gems",
        "/api/v1/api_key",
        "/api/v1/webauthn_verification",
        "/api/v1/gems/acme-good/owners",
    ] {
        refused(path, path, &credential, &bytes).await;
    }
    // The approved bytes under another name: what is inside decides.
    let (_, lying) = stage.collected(&evil, "acme-liar", "1.0.0").await;
    refused(
        "a request that lies",
        push,
        &lying,
        &fs::read(&evil).unwrap(),
    )
    .await;
    assert!(stage.registry.writes().is_empty());
    // And then the right one.
    let reply = stage.post(push, &credential, &bytes).await;
    assert!(reply.good(), "{}", reply.text);
    assert_eq!(stage.registry.gem("acme-good-1.0.0.gem").unwrap(), bytes);
}

#[tokio::test]
async fn attack_42_whatever_the_registry_answers_the_index_decides() {
    let stage = Stage::start().await;
    for (n, (status, said, keeps)) in [
        (500, "<html>oops</html>", true),
        (200, "<html>a page that says yes</html>", true),
        (403, "You do not have permission", true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("acme-kept{n}");
        let file = stage.build(&name, "1.0.0", "").await;
        let (job, credential) = stage.collected(&file, &name, "1.0.0").await;
        stage.registry.answers(status, said, keeps);
        let reply = stage
            .post("/api/v1/gems", &credential, &fs::read(&file).unwrap())
            .await;
        assert!(reply.good(), "{status}: {}", reply.text);
        assert_eq!(job.state().await.unwrap(), "published");
    }
    // A no that is one: the registry's words, and the approval stays usable.
    let file = stage.build("acme-no", "1.0.0", "").await;
    let (job, credential) = stage.collected(&file, "acme-no", "1.0.0").await;
    let bytes = fs::read(&file).unwrap();
    let otp = "You have enabled multifactor authentication but no OTP code provided.";
    for (status, said, told) in [
        (
            403,
            "This key cannot push",
            "does the stored key cover this gem",
        ),
        (401, otp, "no security device"),
        (302, "", "redirects"),
    ] {
        stage.registry.answers(status, said, false);
        let reply = stage.post("/api/v1/gems", &credential, &bytes).await;
        assert!(!reply.good() && reply.text.contains(told), "{}", reply.text);
        assert!(!reply.text.contains(KEY));
    }
    let before = stage.registry.writes().len();
    let reply = stage.post("/api/v1/gems", &credential, &bytes).await;
    assert!(reply.good(), "{}", reply.text);
    assert_eq!(job.state().await.unwrap(), "published");
    assert_eq!(stage.registry.writes().len(), before + 1);
    assert!(stage.registry.writes().iter().all(|s| s.key));
}

/// Waits until the question shows the registry's page (and not that one).
async fn page(stage: &Stage, job: &Job, not: &str) -> String {
    let start = Instant::now();
    loop {
        let asked = stage.small.alice.question(job.id).await.unwrap();
        let asked: serde_json::Value = asked.ok().unwrap();
        if let Some(page) = asked["confirm"][0]["page"].as_str().filter(|p| *p != not) {
            return page.to_owned();
        }
        assert!(start.elapsed() < PUBLISH, "no page is shown: {asked}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_registrys_own_second_factor_is_handed_to_those_who_approve() {
    let stage = Stage::start().await;
    stage.registry.wants_factor(&stage.registry.url);
    let plain = stage.build("acme-twice", "1.0.0", "").await;
    let java = stage
        .build("acme-twice", "1.0.0", "s.platform = 'java'")
        .await;
    let (mut waiting, job) = stage.publish(&[&text(&plain), &text(&java)]).await;
    assert!(stage.registry.writes().is_empty());
    stage.small.approve(&job).await.unwrap();
    let first = page(&stage, &job, "").await;
    assert!(stage.registry.gem("acme-twice-1.0.0.gem").is_none());
    // A page that is over is replaced, and the old one helps nobody.
    stage.registry.page_ends();
    let second = page(&stage, &job, &first).await;
    assert!(stage.registry.confirm(&first).await.is_err());
    stage.registry.confirm(&second).await.unwrap();
    // Each file wants its own.
    let third = page(&stage, &job, &second).await;
    assert!(stage.registry.gem("acme-twice-1.0.0.gem").is_some());
    assert!(stage.registry.gem("acme-twice-1.0.0-java.gem").is_none());
    stage.registry.confirm(&third).await.unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    // Who reads the job's log cannot say yes in their place (attack 34).
    for page in [&first, &second, &third] {
        assert!(!waiting.text().contains(page.as_str()));
    }
    let pushed = |s: &&gems::Seen| s.path == "/api/v1/gems" && s.factor;
    assert_eq!(stage.registry.seen().iter().filter(pushed).count(), 2);
}

#[tokio::test]
async fn the_registrys_own_second_factor_is_given_while_plain_gem_push_waits() {
    let stage = Stage::start().await;
    stage.registry.wants_factor(&stage.registry.url);
    let file = stage.build("acme-plain", "1.0.0", "").await;
    let (job, credential) = stage.collected(&file, "acme-plain", "1.0.0").await;
    let (path, host) = (text(&file), stage.small.daemon.registry_url.clone());
    let args = ["push", "--host", &host, &path];
    let env = [("GEM_HOST_API_KEY", credential.as_str())];
    let push = gem(&stage.folder, &args, &env);
    // gem waits for an answer (60 s, and once more), and somebody says yes meanwhile.
    let (pushed, shown) = tokio::join!(push, async {
        let shown = page(&stage, &job, "").await;
        assert!(stage.registry.gem("acme-plain-1.0.0.gem").is_none());
        stage.registry.confirm(&shown).await.unwrap();
        shown
    });
    let pushed = pushed.unwrap().ok().unwrap();
    assert!(pushed.stdout.contains("published the gem"), "{pushed}");
    assert_eq!(job.state().await.unwrap(), "published");
    // Who reads the job's log cannot say yes in their place (attack 34).
    assert!(!format!("{pushed}").contains(shown.as_str()), "{pushed}");
    // The gem itself went there twice: without the factor, and with it.
    let pushes = stage.registry.writes();
    let factors = pushes.iter().filter(|s| s.path == "/api/v1/gems");
    let factors: Vec<_> = factors.map(|s| s.factor).collect();
    assert_eq!(factors, [false, true]);
}

#[tokio::test]
async fn attack_39_nobody_is_led_to_a_page_that_the_configuration_does_not_name() {
    let stage = Stage::start().await;
    let elsewhere = Gems::start().await.unwrap();
    stage.registry.wants_factor(&elsewhere.url);
    let file = stage.build("acme-astray", "1.0.0", "").await;
    let (job, credential) = stage.collected(&file, "acme-astray", "1.0.0").await;
    let bytes = fs::read(&file).unwrap();
    let reply = stage.post("/api/v1/gems", &credential, &bytes).await;
    assert!(!reply.good(), "{}", reply.text);
    assert!(reply.text.contains("does not know"), "{}", reply.text);
    let asked = stage.small.alice.question(job.id).await.unwrap();
    let asked: serde_json::Value = asked.ok().unwrap();
    assert!(asked["confirm"][0]["page"].is_null(), "{asked}");
    assert!(elsewhere.seen().is_empty());
    assert!(stage.registry.gem("acme-astray-1.0.0.gem").is_none());
}

#[tokio::test]
async fn a_gem_is_handed_over_and_published_when_the_job_is_gone() {
    let stage = Stage::with_policy(&format!("{POLICY}mode = \"deposit\"\n")).await;
    let file = stage.build("acme-later", "1.0.0", "").await;
    let token = stage.small.id_token().await.unwrap();
    let (path, out) = (text(&file), text(&stage.folder.join("request.json")));
    let args = ["request", "gems", &path, "--out", &out, "--hand-over"];
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let daemon = &stage.small.daemon;
    let mut waiting = Waiting::start(daemon, &stage.folder, &args, &env)
        .await
        .unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    assert!(stage.registry.writes().is_empty());
    let alice = &stage.small.alice;
    let job = Job::seen_by(alice, &waiting.id, &waiting.match_code)
        .await
        .unwrap();
    stage.small.approve(&job).await.unwrap();
    let args = ["wait", "--published", "--ticket-file", &out];
    let limit = PUBLISH;
    let ended = daemon
        .countersign(&args, &[], &stage.folder, limit)
        .await
        .unwrap();
    assert!(ended.success(), "{ended}");
    let shown = stage.registry.gem("acme-later-1.0.0.gem").unwrap();
    assert_eq!(shown, fs::read(&file).unwrap());

    // The next one is compared with it.
    let file = stage.build("acme-later", "1.1.0", "").await;
    let token = stage.small.id_token().await.unwrap();
    let (path, out) = (text(&file), text(&stage.folder.join("next.json")));
    let args = ["request", "gems", &path, "--out", &out, "--hand-over"];
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let mut waiting = Waiting::start(daemon, &stage.folder, &args, &env)
        .await
        .unwrap();
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let job = Job::seen_by(alice, &waiting.id, &waiting.match_code)
        .await
        .unwrap();
    let start = Instant::now();
    let card = loop {
        let question: Question = alice.question(job.id).await.unwrap().ok().unwrap();
        let [card] = question.cards.try_into().unwrap();
        if card.outcome != Outcome::Waiting {
            break card;
        }
        assert!(start.elapsed() < PUBLISH);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(card.outcome, Outcome::Inspected);
    let against = Previous::Version {
        version: "1.0.0".to_owned(),
        published: None,
    };
    assert_eq!(card.previous, against);
}

/// Our strict reader and Ruby's own library see the same in what the real `gem build` writes, odd values included.
#[tokio::test]
async fn what_gem_build_writes_is_read_as_gem_reads_it() {
    let stage = Stage::start().await;
    for (name, version, more) in [
        ("acme-left", "1.0", ""),
        ("acme_right", "2.0.0.rc1", "s.platform = 'x86_64-linux'"),
        (
            "true",
            "1",
            "s.metadata = {'allowed_push_host' => 'https://acme.example'}",
        ),
        (
            "x.y-z",
            "10.20",
            "s.post_install_message = \"a\\n---\\nname: evil\\n\"",
        ),
    ] {
        let file = stage.build(name, version, more).await;
        let args = ["specification", &text(&file), "full_name"];
        let said = gem(&stage.folder, &args, &[]).await.unwrap().ok().unwrap();
        let full = said.stdout.trim().trim_start_matches("--- ").to_owned();
        let mut archive = tar::Archive::new(fs::File::open(&file).unwrap());
        let metadata = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|e| e.path_bytes().as_ref() == b"metadata.gz")
            .unwrap();
        let mut yaml = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(metadata), &mut yaml)
            .unwrap();
        let read = Gem::read(&yaml).unwrap();
        assert_eq!(read.file_name(), format!("{full}.gem"), "{yaml}");
    }
}
