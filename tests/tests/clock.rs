//! Row 48 against the real daemon: its wall clock jumps, by a preloaded `tests/parts/clock.c`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use serde_json::{Value, json};
use stand::{
    daemon::Daemon,
    http, now,
    parts::{Clock, Issuer, github_claims},
    people::{Device, Office},
};
use std::{
    fs,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const POLICY: &str = r#"[[package]]
match = ["npm:@acme/totp"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "semver-release"
tags = ["latest"]

[[package]]
match = ["npm:@acme/key"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "semver-release"
tags = ["latest"]
"#;

const LIMIT: Duration = Duration::from_mins(1);
const HOUR: i64 = 3600;

/// An office whose broker's clock the test sets.
struct Wrong {
    office: Office,
    clock: Clock,
    _dir: TempDir,
}

impl Wrong {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Clock::make(dir.path()).await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", "http://127.0.0.1:1")
            .policy(POLICY);
        let daemon = clock.env(builder).start().await.unwrap();
        let invite = fs::read_to_string(daemon.invite_path()).unwrap();
        let admin = Device::enroll(&daemon.url, &invite).await.unwrap();
        Self {
            office: Office {
                seconds: std::sync::Mutex::default(),
                issuer,
                daemon,
                admin,
            },
            clock,
            _dir: dir,
        }
    }

    /// Sets the broker's wall clock so many seconds off, at one instant.
    fn set(&self, seconds: i64) {
        self.clock.set(seconds).unwrap();
    }

    async fn status(&self) -> Value {
        let url = format!("{}/v1/status", self.office.daemon.url);
        let reply = http().unwrap().get(url).send().await.unwrap();
        reply.json().await.unwrap()
    }

    async fn suspect(&self) -> bool {
        self.status().await["clock_suspect"] == true
    }

    /// Waits until the broker's own round has noticed.
    async fn noticed(&self, value: u64) {
        let start = Instant::now();
        loop {
            let seen = self.office.daemon.metric("countersign_clock_suspect");
            if seen.await.unwrap() == value {
                return;
            }
            assert!(start.elapsed() < LIMIT, "it is not {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn attack_48_a_clock_that_jumps_stops_codes_and_tokens_and_nobody_with_a_key() {
    let wrong = Wrong::start().await;
    let office = &wrong.office;
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let totp = office.open("@acme/totp", "1.0.0", b"x").await.unwrap();
    let keys = [
        office.open("@acme/key", "1.0.0", b"x").await.unwrap(),
        office.open("@acme/key", "2.0.0", b"x").await.unwrap(),
    ];
    for (jump, key) in [HOUR, -HOUR].into_iter().zip(&keys) {
        assert!(!wrong.suspect().await);
        wrong.set(jump);
        let status = wrong.status().await;
        assert_eq!(status["clock_suspect"], true, "{status}");
        let told = status["time"].as_u64().unwrap();
        assert!(told.abs_diff(now().unwrap()) < 60, "{status}");

        // Neither today's code nor the one that the wrong clock would take.
        let then = now().unwrap().saturating_add_signed(jump);
        let shifted = alice.totp.generate(then).to_string();
        for code in [alice.code(0).unwrap(), shifted] {
            let reply = alice.approve(&totp, Some(&code)).await.unwrap();
            assert_eq!(reply.code(), "clock-suspect", "{}", reply.body);
        }
        let asked = office.ask("@acme/key", "3.0.0", b"x").await.unwrap().0;
        assert_eq!(asked.code(), "clock-suspect", "{}", asked.body);
        // Nor at the registry origin, where a stock client exchanges its token.
        let mut claims = github_claims("npm:127.0.0.1");
        claims["jti"] = format!("exchange {jump}").into();
        let token = office.issuer.mint(claims).await.unwrap();
        let url = format!(
            "{}/-/npm/v1/oidc/token/exchange/package/@acme%2fkey",
            office.daemon.registry_url
        );
        let call = http().unwrap().post(url).bearer_auth(token);
        let exchanged = call.send().await.unwrap();
        assert_eq!(exchanged.status(), 503);
        // Who has a key goes on: he says yes, and could say no.
        let yes = alice.approve(key, None).await.unwrap();
        assert!(yes.success(), "{}", yes.body);
        // No admin whose own clock differs accepts it by mistake.
        let trust = office
            .admin
            .post("/v1/admin/clock", json!({}))
            .await
            .unwrap();
        assert_eq!(trust.code(), "not-allowed", "{}", trust.body);
        wrong.noticed(1).await;
        assert!(office.daemon.log().contains("THE CLOCK JUMPED"));

        wrong.set(0);
        assert!(!wrong.suspect().await);
        wrong.noticed(0).await;
    }
    // The jumps have spent no step of hers.
    let code = alice.code(0).unwrap();
    let reply = alice.approve(&totp, Some(&code)).await.unwrap();
    assert!(reply.success(), "{}", reply.body);
    let events = office.events().await.unwrap();
    let kinds = |kind: &str| events.iter().filter(|e| e["type"] == kind).count();
    assert_eq!((kinds("clock-suspect"), kinds("clock-agrees")), (2, 2));
}

#[tokio::test]
async fn attack_48_a_clock_set_back_while_the_broker_was_down_is_noticed_and_an_admin_ends_it() {
    let mut wrong = Wrong::start().await;
    wrong.set(-HOUR);
    wrong.office.daemon.restart().await.unwrap();
    assert!(wrong.suspect().await, "the log is later than the clock");
    let asked = wrong
        .office
        .ask("@acme/key", "1.0.0", b"x")
        .await
        .unwrap()
        .0;
    assert_eq!(asked.code(), "clock-suspect", "{}", asked.body);
    wrong.set(0);
    assert!(!wrong.suspect().await);

    // Wrong from the start, and then set right: the broker cannot know, an admin can.
    wrong.set(HOUR);
    wrong.office.daemon.restart().await.unwrap();
    assert!(!wrong.suspect().await);
    let far = wrong.office.admin.get("/v1/admin/people").await.unwrap();
    assert_eq!(far.code(), "clock-wrong", "{}", far.body);
    wrong.set(0);
    assert!(wrong.suspect().await);
    let trust = wrong
        .office
        .admin
        .post("/v1/admin/clock", json!({}))
        .await
        .unwrap();
    assert!(trust.success(), "{}", trust.body);
    assert!(!wrong.suspect().await);
    // Codes and id tokens are good again.
    wrong
        .office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let asked = wrong
        .office
        .ask("@acme/key", "1.0.0", b"x")
        .await
        .unwrap()
        .0;
    assert!(asked.success(), "{}", asked.body);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_with_both_times() {
    let mut wrong = Wrong::start().await;
    let office = &wrong.office;
    let invite = office.invite("alice", &["release"], false, &[]).await;
    let invite = invite.unwrap();
    let home = office.daemon.dir().join("alice").display().to_string();
    let totp = office.daemon.dir().join("totp.txt").display().to_string();
    let env = [
        ("COUNTERSIGN_HOME", home.as_str()),
        ("COUNTERSIGN_PASSPHRASE", "of-the-device"),
        ("COUNTERSIGN_BROKER", office.daemon.url.as_str()),
        ("COUNTERSIGN_INVITE", invite.as_str()),
    ];
    let run = |args: Vec<String>| {
        let (daemon, env) = (&wrong.office.daemon, &env);
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            daemon
                .countersign(&args, env, daemon.dir(), LIMIT)
                .await
                .unwrap()
        }
    };
    let enroll = ["enroll", "--totp-file", &totp].map(str::to_owned).to_vec();
    run(enroll).await.ok().unwrap();
    wrong.set(HOUR);
    let status = run(vec!["status".to_owned()]).await;
    assert!(status.stdout.contains("clock jumped"), "{status}");
    assert!(status.stdout.contains("trust-clock"), "{status}");

    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
    wrong.office.daemon.restart().await.unwrap();
    let env = env.each_ref().map(|(k, v)| (k.as_str(), v.as_str()));
    let daemon = &wrong.office.daemon;
    let inbox = daemon.countersign(&["inbox"], &env, daemon.dir(), LIMIT);
    let inbox = inbox.await.unwrap();
    assert_eq!(inbox.status, Some(5), "{inbox}");
    for word in ["clock", "this machine's: 20", "the broker's: 20", "behind"] {
        assert!(inbox.stderr.contains(word), "{word}: {inbox}");
    }
}
