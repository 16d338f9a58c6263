//! A whole publish against a broker of a few lines, which is honest or lies as a test wants.

use super::*;
use crate::{edge::Env, job::tarball, out::Out};
use proto::{
    api::{
        Collected, FileStatus, ItemStatus, Mode, OpenRequest, Opened, SealedRelease, StateName,
        Status,
    },
    bearer::{Bearer, Kind},
    digest::{Algorithm, Digest},
    request::{CallerFacts, RequestFacts},
    time::UnixTime,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// What the scripted broker does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    Denies,
    /// Says "published" with other bytes.
    OtherBytes,
}

struct Fake {
    base: String,
    conduct: Conduct,
    opened: Option<(OpenRequest, RequestFacts)>,
    polls: u64,
    uploaded: bool,
    seen: Vec<String>,
}

async fn fake(conduct: Conduct) -> Arc<Mutex<Fake>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Arc::new(Mutex::new(Fake {
        base: format!("http://{}", listener.local_addr().unwrap()),
        conduct,
        opened: None,
        polls: 0,
        uploaded: false,
        seen: Vec::new(),
    }));
    let state = Arc::clone(&fake);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (head, body) = read(&mut stream).await;
            let (status, reply) = answer(&mut state.lock().unwrap(), &head, &body);
            let text = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reply}",
                reply.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    fake
}

async fn read(stream: &mut tokio::net::TcpStream) -> (String, Vec<u8>) {
    let mut data = Vec::new();
    loop {
        let mut part = [0; 2048];
        let n = stream.read(&mut part).await.unwrap();
        data.extend_from_slice(&part[..n]);
        let Some(end) = data.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&data[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "))
            .map_or(0, |l| l.trim().parse().unwrap());
        if data.len() >= end + 4 + length || n == 0 {
            return (head, data[end + 4..].to_vec());
        }
    }
}

fn answer(f: &mut Fake, head: &str, body: &[u8]) -> (u16, String) {
    let line = head.lines().next().unwrap_or_default().to_owned();
    f.seen.push(head.to_owned());
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["post", "/v1/requests", _] => (200, open_reply(f, body)),
        ["post", path, _] if path.ends_with("/collect") => (200, collect_reply(f)),
        ["get", path, _] if path.starts_with("/v1/requests/") => (200, status_reply(f)),
        ["put", path, _] if path.starts_with("/npm/") => {
            f.uploaded = true;
            (200, "{}".into())
        }
        _ => (404, "{}".into()),
    }
}

fn open_reply(f: &mut Fake, body: &[u8]) -> String {
    let asked: OpenRequest = serde_json::from_slice(body).unwrap();
    let facts = RequestFacts {
        id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        items: asked.items.clone(),
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "1".into(),
            claims: BTreeMap::new(),
            run_url: None,
        },
        policy: Digest::of(Algorithm::Sha256, b"p"),
        job_key: asked.job_key.clone(),
        expires: crate::edge::now().after(600),
    };
    f.opened = Some((asked, facts.clone()));
    let opened = Opened {
        id: facts.id,
        request_digest: facts.digest(),
        facts,
        ticket: Bearer::from_entropy(Kind::Ticket, [3; 32]).expose(),
        match_code: "471102".into(),
        page: format!("{}/r/1", f.base),
        registry_url: BTreeMap::from([("npm".parse().unwrap(), format!("{}/npm/", f.base))]),
        deposit: None,
        inspect: Vec::new(),
    };
    serde_json::to_string(&opened).unwrap()
}

fn status_reply(f: &mut Fake) -> String {
    f.polls += 1;
    let (asked, facts) = f.opened.as_ref().unwrap();
    let state = match (f.conduct, f.polls) {
        (_, 1) => StateName::Pending,
        (Conduct::Denies, _) => StateName::Denied,
        (Conduct::OtherBytes, 4..) => StateName::Published,
        _ if f.uploaded => StateName::Published,
        _ => StateName::Approved,
    };
    let digest = match f.conduct {
        Conduct::OtherBytes => Digest::of(Algorithm::Sha512, b"other"),
        _ => asked.items[0].files[0].digest.clone(),
    };
    let status = Status {
        id: facts.id,
        state,
        revision: f.polls,
        approvals: 0,
        quorum: 1,
        expires: facts.expires,
        reason: Some("bob: not today".into()),
        not_before: None,
        items: vec![ItemStatus {
            name: asked.items[0].name(),
            state,
            files: vec![FileStatus {
                name: asked.items[0].files[0].name.clone(),
                state,
                read_back: (state == StateName::Published).then_some(digest),
            }],
        }],
    };
    serde_json::to_string(&status).unwrap()
}

fn collect_reply(f: &Fake) -> String {
    let (asked, _) = f.opened.as_ref().unwrap();
    let recipient: age::x25519::Recipient = asked.job_key.parse().unwrap();
    let release = SealedRelease {
        credential: Some("csc_onlyhere".into()),
        secret: None,
        minted: None,
    };
    let plain = serde_json::to_vec(&release).unwrap();
    let collected = Collected {
        sealed: age::encrypt_and_armor(&recipient, &plain).unwrap(),
        mode: Mode::Forward,
        expires: UnixTime(u64::MAX),
    };
    serde_json::to_string(&collected).unwrap()
}

/// Publishes `@acme/left` with `command` and gives back the exit code.
async fn run(conduct: Conduct, command: &[&str]) -> (u8, Arc<Mutex<Fake>>) {
    let fake = fake(conduct).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("left-1.4.2.tgz");
    let json = r#"{"name":"@acme/left","version":"1.4.2"}"#;
    tarball::pack(&file, &[("package/package.json", json)]);
    let path = std::env::var("PATH").unwrap_or_default();
    let env = Env::from([
        ("COUNTERSIGN_ID_TOKEN", "token"),
        ("HOME", dir.path().to_str().unwrap()),
        ("PATH", &path),
    ]);
    let context = Context {
        out: Out::new(true, &env),
        env,
        broker: Some(fake.lock().unwrap().base.clone()),
    };
    let args = Args {
        what: What {
            layout: None,
            named: None,
            registry: "npm".parse().unwrap(),
            paths: vec![file],
            tag: None,
            note: Some("hello".into()),
            no_verify: false,
            source: None,
            workspaces: false,
            skip_published: false,
        },
        out: None,
        timeout: None,
        receipt: None,
        command: command.iter().map(ToString::to_string).collect(),
    };
    let exit = match publish(&context, &args).await {
        Ok(()) => 0,
        Err(f) => {
            context.out.failure(&f);
            f.exit as u8
        }
    };
    (exit, fake)
}

/// Publishes as a client would: with the credential from the environment.
const UPLOAD: &str = r#"
[ "$YARN_NPM_AUTH_TOKEN" = csc_onlyhere ] || exit 11
grep -q ':_authToken=csc_onlyhere' "$npm_config_userconfig" || exit 12
[ -z "$COUNTERSIGN_ID_TOKEN" ] || exit 13
host="${npm_config_registry#http://}"; host="${host%%/*}"
exec 3<>"/dev/tcp/${host%:*}/${host#*:}" || exit 14
printf 'PUT /npm/left HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}' >&3 && head -1 <&3 | grep -q 200 || exit 15
"#;

#[tokio::test(flavor = "current_thread")]
async fn a_command_publishes_with_the_credential_and_the_read_back_decides() {
    let with = |script: &str| ["bash".to_owned(), "-c".to_owned(), script.to_owned()];
    let script = with(UPLOAD);
    let words: Vec<&str> = script.iter().map(String::as_str).collect();
    let (exit, fake) = run(Conduct::Honest, &words).await;
    assert_eq!(exit, 0);
    assert!(fake.lock().unwrap().uploaded);
    // A command that fails after its publish went through.
    let script = with(&format!("{UPLOAD}\nexit 1"));
    let words: Vec<&str> = script.iter().map(String::as_str).collect();
    assert_eq!(run(Conduct::Honest, &words).await.0, 0);
    assert_eq!(run(Conduct::OtherBytes, &["true"]).await.0, 7);
}

#[tokio::test(flavor = "current_thread")]
async fn a_denial_exits_3_and_nothing_is_collected_or_run() {
    let (exit, fake) = run(Conduct::Denies, &["touch", "/nonexistent/never"]).await;
    assert_eq!(exit, 3);
    assert!(
        !fake
            .lock()
            .unwrap()
            .seen
            .iter()
            .any(|h| h.contains("/collect"))
    );
}

/// With the npm that is installed: one PUT, with the credential as its bearer.
#[tokio::test(flavor = "current_thread")]
async fn npm_itself_publishes_to_the_broker() {
    let (exit, fake) = run(Conduct::Honest, &[]).await;
    assert_eq!(exit, 0);
    let fake = fake.lock().unwrap();
    let put = fake
        .seen
        .iter()
        .find(|h| h.starts_with("put /npm/@acme%2fleft"))
        .unwrap();
    assert!(put.contains("authorization: bearer csc_onlyhere"));
}
