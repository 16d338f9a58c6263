//! A new broker in its default configuration, without a stored way to unseal: the first admin gets in,
//! and nobody else does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{
    api::{EnrollRequest, UnsealFirst},
    bearer::{Bearer, Kind},
    device::{DeviceKey, enrolment_bytes},
    digest::hex,
};
use serde_json::Value;
use stand::{
    Output,
    daemon::Daemon,
    free_port, http, people,
    proxy::{Fault, Proxy},
    team::POLICY,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const COMMAND: Duration = Duration::from_mins(1);

/// A broker that is sealed and has nobody, and the passphrase that `init` printed.
async fn new_broker() -> (Daemon, String) {
    let daemon = Daemon::builder()
        .policy(POLICY)
        .sealed()
        .start()
        .await
        .unwrap();
    let told = &daemon.init.as_ref().unwrap().stdout;
    let passphrase = told
        .lines()
        .map(str::trim)
        .find(|l| l.len() == 39 && l.matches('-').count() == 7)
        .unwrap_or_else(|| panic!("no passphrase in {told}"));
    let passphrase = passphrase.to_owned();
    (daemon, passphrase)
}

async fn person(daemon: &Daemon, home: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let home = home.display().to_string();
    let mut all = vec![
        ("COUNTERSIGN_HOME", home.as_str()),
        ("COUNTERSIGN_PASSPHRASE", "of-the-device"),
        ("COUNTERSIGN_BROKER", daemon.url.as_str()),
    ];
    all.extend_from_slice(env);
    let out = daemon.countersign(args, &all, daemon.dir(), COMMAND).await;
    out.unwrap()
}

fn written(daemon: &Daemon, name: &str, text: &str) -> String {
    let path: PathBuf = daemon.dir().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn request(invite: &str, key: &DeviceKey) -> EnrollRequest {
    let bearer = Bearer::parse(Kind::Invite, invite.trim()).unwrap();
    EnrollRequest {
        invite: bearer.expose(),
        public_key: key.public(),
        signature: hex(&key.sign(&enrolment_bytes(&bearer.hash().0, "test"))),
        device_name: "test".into(),
        kind: proto::device::DeviceKind::Terminal,
        passkey: None,
        totp: None,
    }
}

async fn post(daemon: &Daemon, path: &str, body: &impl serde::Serialize) -> (u16, Value) {
    let client = http().unwrap();
    let url = format!("{}{path}", daemon.url);
    let call = client.post(url).json(body).timeout(COMMAND);
    let reply = call.send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

async fn sealed(daemon: &Daemon) -> bool {
    let status = http().unwrap().get(format!("{}/v1/status", daemon.url));
    let status: Value = status.send().await.unwrap().json().await.unwrap();
    status["sealed"] == true
}

fn with<'a>(enroll: &[&'a str], file: &'a str) -> Vec<&'a str> {
    [enroll, &["--vault-passphrase-file", file]].concat()
}

#[tokio::test]
async fn the_first_admin_enrols_at_a_sealed_broker_and_everything_works_from_there() {
    let (mut daemon, passphrase) = new_broker().await;
    let home = daemon.dir().join("robin");
    let invite = daemon.invite_path().display().to_string();
    let totp = daemon.dir().join("totp.txt").display().to_string();
    let enroll = ["enroll", "--invite-file", &invite, "--totp-file", &totp];

    // Without the passphrase it says what is missing and how to give it, and nothing is lost.
    let asked = person(&daemon, &home, &enroll, &[]).await;
    assert_eq!(asked.status, Some(2), "{asked}");
    assert!(asked.stderr.contains("--vault-passphrase-file"), "{asked}");
    let wrong = written(&daemon, "wrong", "not-the-passphrase");
    let refused = person(&daemon, &home, &with(&enroll, &wrong), &[]).await;
    assert_eq!(refused.status, Some(5), "{refused}");
    assert!(sealed(&daemon).await);

    let right = written(&daemon, "right", &passphrase);
    let done = person(&daemon, &home, &with(&enroll, &right), &[]).await;
    assert!(done.success(), "{done}");
    assert!(!sealed(&daemon).await);
    assert!(!daemon.log().contains(&passphrase));

    // From here on the admin unseals.
    daemon.restart().await.unwrap();
    assert!(sealed(&daemon).await);
    let unseal = ["admin", "unseal", "--passphrase-file", &right];
    let unsealed = person(&daemon, &home, &unseal, &[]).await;
    assert!(unsealed.success(), "{unsealed}");
    let people = person(&daemon, &home, &["--json", "admin", "people"], &[]).await;
    assert!(people.ok().unwrap().stdout.contains("robin"));
}

#[tokio::test]
async fn attack_53_only_the_first_admins_invite_makes_a_sealed_broker_try_a_passphrase() {
    let (daemon, passphrase) = new_broker().await;
    let key = DeviceKey::from_seed(people::random().unwrap()).unwrap();
    let invite = fs::read_to_string(daemon.invite_path()).unwrap();
    let stranger = Bearer::from_entropy(Kind::Invite, people::random().unwrap()).expose();
    let unseal = |enrolment: EnrollRequest, passphrase: &str| UnsealFirst {
        enrolment,
        passphrase: passphrase.to_owned(),
    };

    // An invite of somebody's own making is unknown, here as at every broker (attack 55), and the right
    // passphrase with it opens nothing.
    let (status, body) = post(&daemon, "/v1/enroll", &request(&stranger, &key)).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("not-allowed")));
    let forged = unseal(request(&stranger, &key), &passphrase);
    let (status, body) = post(&daemon, "/v1/enroll/unseal", &forged).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("not-allowed")));
    // Nor does the real invite without the device's signature.
    let mut unsigned = request(&invite, &key);
    unsigned.signature = "00".repeat(64);
    let (status, _) = post(&daemon, "/v1/enroll/unseal", &unseal(unsigned, &passphrase)).await;
    assert_eq!(status, 403);
    assert!(sealed(&daemon).await);

    // Who has the invite is told what to bring, and may guess five times.
    let (status, body) = post(&daemon, "/v1/enroll", &request(&invite, &key)).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (503, Some("passphrase-needed"))
    );
    for _ in 0..5 {
        let guess = unseal(request(&invite, &key), "a guess");
        let (status, body) = post(&daemon, "/v1/enroll/unseal", &guess).await;
        assert_eq!(status, 403, "{body}");
    }
    let late = unseal(request(&invite, &key), &passphrase);
    let (status, body) = post(&daemon, "/v1/enroll/unseal", &late).await;
    assert_eq!(status, 403, "{body}");
    assert!(sealed(&daemon).await, "the tries were used up");
}

#[tokio::test]
async fn attack_53_who_hangs_up_during_an_unseal_escapes_neither_the_record_nor_the_queue() {
    let (daemon, passphrase) = new_broker().await;
    let key = DeviceKey::from_seed(people::random().unwrap()).unwrap();
    let invite = fs::read_to_string(daemon.invite_path()).unwrap();
    let unseal = |passphrase: &str| UnsealFirst {
        enrolment: request(&invite, &key),
        passphrase: passphrase.to_owned(),
    };
    let client = http().unwrap();
    let url = format!("{}/v1/enroll/unseal", daemon.url);
    // Long enough for the call to arrive, too short for a passphrase to be tried (a second of scrypt).
    let call = client.post(url).json(&unseal("a guess"));
    let gone = call.timeout(Duration::from_millis(300)).send().await;
    assert!(gone.is_err());
    loop {
        let (status, body) = post(&daemon, "/v1/enroll/unseal", &unseal(&passphrase)).await;
        match (status, body["code"].as_str()) {
            (200, _) => break,
            (429, Some("busy")) => tokio::time::sleep(Duration::from_millis(200)).await,
            other => panic!("{other:?}: {body}"),
        }
    }
    let robin = people::Device::enroll_with(&daemon.url, &invite, key)
        .await
        .unwrap();
    let log = robin.get("/v1/log/export?from=0").await.unwrap();
    let text = log.body.as_str().unwrap_or_default();
    assert_eq!(text.matches("unseal-failed").count(), 1, "{text}");
}

#[tokio::test]
async fn attack_26_once_somebody_is_enrolled_no_invite_unseals() {
    let (mut daemon, passphrase) = new_broker().await;
    let key = DeviceKey::from_seed(people::random().unwrap()).unwrap();
    let invite = fs::read_to_string(daemon.invite_path()).unwrap();
    let first = UnsealFirst {
        enrolment: request(&invite, &key),
        passphrase: passphrase.clone(),
    };
    let (status, body) = post(&daemon, "/v1/enroll/unseal", &first).await;
    assert_eq!(
        (status, body["done"].as_bool()),
        (200, Some(false)),
        "{body}"
    );
    let robin = people::Device::enroll_with(&daemon.url, &invite, key)
        .await
        .unwrap();
    let act = serde_json::json!({"kind": "invite", "person": "mallory", "admin": true});
    let acted: Value = robin.act(act, None).await.unwrap().ok().unwrap();
    let second = acted["invited"]["invite"].as_str().unwrap();

    daemon.restart().await.unwrap();
    let other = DeviceKey::from_seed(people::random().unwrap()).unwrap();
    let (status, body) = post(&daemon, "/v1/enroll", &request(second, &other)).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("sealed")));
    let late = UnsealFirst {
        enrolment: request(second, &other),
        passphrase,
    };
    let (status, _) = post(&daemon, "/v1/enroll/unseal", &late).await;
    assert_eq!(status, 403);
    assert!(sealed(&daemon).await);
}

#[tokio::test]
async fn who_is_alone_is_told_to_seal_before_everything_is_stopped_for_good() {
    let daemon = Daemon::builder().policy(POLICY).start().await.unwrap();
    let home = daemon.dir().join("robin");
    let invite = daemon.invite_path().display().to_string();
    let totp = daemon.dir().join("totp.txt").display().to_string();
    let enroll = ["enroll", "--invite-file", &invite, "--totp-file", &totp];
    person(&daemon, &home, &enroll, &[]).await.ok().unwrap();
    let refused = person(&daemon, &home, &["admin", "panic"], &[]).await;
    assert_eq!(refused.status, Some(5), "{refused}");
    for said in ["countersign admin seal", "ends nothing", "credentials"] {
        assert!(refused.stderr.contains(said), "{refused}");
    }
    let thaw = ["admin", "thaw", "--all", "--totp", "000000"];
    let thawed = person(&daemon, &home, &thaw, &[]).await;
    assert!(
        !thawed.stdout.contains("is frozen"),
        "nothing was: {thawed}"
    );
    let stopped = person(&daemon, &home, &["admin", "panic", "--for-good"], &[]).await;
    assert_eq!(stopped.status, Some(0), "{stopped}");
    assert!(stopped.stdout.contains("NOBODY CAN THAW"), "{stopped}");
}

#[tokio::test]
async fn a_list_of_people_that_does_not_come_holds_up_no_stop() {
    let mut daemon = Daemon::builder().policy(POLICY).start().await.unwrap();
    let home = daemon.dir().join("robin");
    let invite = daemon.invite_path().display().to_string();
    let totp = daemon.dir().join("totp.txt").display().to_string();
    let enroll = ["enroll", "--invite-file", &invite, "--totp-file", &totp];
    person(&daemon, &home, &enroll, &[]).await.ok().unwrap();
    // Something stands in front of it, at the address that clients know.
    let port: u16 = daemon.url.rsplit(':').next().unwrap().parse().unwrap();
    let own = free_port().unwrap();
    let config = fs::read_to_string(daemon.config_path()).unwrap();
    let [listen, behind] = [port, own].map(|port| format!("listen = \"127.0.0.1:{port}\""));
    let moved = config.replacen(&listen, &behind, 1);
    assert_ne!(moved, config);
    fs::write(daemon.config_path(), moved).unwrap();
    daemon.kill9();
    let front = format!("http://127.0.0.1:{own}");
    let front = Proxy::at(port, &front).await.unwrap();
    daemon.restart().await.unwrap();
    // With the list it would say that robin is alone, and stop nothing.
    let people = "GET /v1/admin/people";
    front.arm(people, Fault::Delay(Duration::from_secs(3)));
    let stopped = person(&daemon, &home, &["admin", "panic"], &[]).await;
    assert!(front.watched(people)[0].hit, "{stopped}");
    assert_eq!(stopped.status, Some(0), "{stopped}");
    assert!(stopped.stdout.contains("everything is frozen"), "{stopped}");
    assert!(stopped.stdout.contains("NOBODY CAN THAW"), "{stopped}");
}
