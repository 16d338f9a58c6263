use super::*;
use crate::{edge::Env, out::Out};
use proto::{
    api::Mode,
    digest::{Algorithm, Digest},
    request::{CallerFacts, File, Item, RequestFacts},
    time::UnixTime,
};
use std::collections::BTreeMap;

fn asked() -> Question {
    let item = Item {
        registry: "npm".parse().unwrap(),
        package: "@acme/left".parse().unwrap(),
        version: "1.4.2".parse().unwrap(),
        tag: Some("latest".parse().unwrap()),
        files: vec![File {
            name: "left.tgz".into(),
            size: 1234,
            digest: Digest::of(Algorithm::Sha512, b"abc"),
        }],
    };
    let facts = RequestFacts {
        id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        items: vec![item],
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: BTreeMap::from([
                ("sha".into(), "deadbeef".into()),
                ("ref".into(), "refs/tags/v1\u{202e}".into()),
            ]),
            run_url: Some("https://ci.example/run/1".into()),
        },
        policy: Digest::of(Algorithm::Sha256, b"p"),
        job_key: "age1x".into(),
        expires: UnixTime(1000),
    };
    Question {
        request_digest: facts.digest(),
        facts,
        mode: Mode::Forward,
        mint_seconds: None,
        state: StateName::Pending,
        opened: UnixTime(0),
        note: Some("please\u{1b}[2J approve".into()),
        factors: vec![Factor::Totp],
        approvals: vec!["bob".parse().unwrap()],
        intents: Vec::new(),
        not_before: None,
        quorum: 2,
        previous: vec![Some("1.4.1".parse().unwrap())],
        rivals: vec!["00000000-0000-7000-8000-000000000002".parse().unwrap()],
        warnings: vec!["the workflow file changed".into()],
        will_confirm: false,
        confirm: vec![],
        cards: vec![],
    }
}

#[test]
fn attack_35_a_digest_that_does_not_cover_what_is_shown_is_refused() {
    let q = asked();
    assert_eq!(own_digest(&q, q.facts.id).unwrap(), q.facts.digest());
    let mut lie = asked();
    lie.facts.items[0].version = "6.6.6".parse().unwrap();
    assert_eq!(own_digest(&lie, lie.facts.id).unwrap_err().exit as u8, 5);
    let other = "00000000-0000-7000-8000-000000000009".parse().unwrap();
    assert!(own_digest(&q, other).is_err());
}

#[test]
fn attack_10_the_screen_shows_what_matters_and_nothing_that_misleads() {
    let out = Out::new(true, &Env::default());
    let text = screen::draw(&out, &asked(), UnixTime(400));
    assert!(text.starts_with("npm:@acme/left@1.4.2 as latest\n"));
    for part in [
        "1.4.1",
        "left.tgz, 1.2 kB",
        "! the workflow file changed",
        "deadbeef",
        "1 of 2 (bob)",
        "unverified words of the job",
        "10 min 0 s left",
        "https://ci.example/run/1",
        "ddaf35a1 93617aba",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.chars().any(|c| c != '\n' && proto::text::misleads(c)));
}

#[test]
fn a_denial_is_signed_as_a_denial_and_without_a_match_code() {
    let key = proto::device::DeviceKey::from_seed([1; 32]).unwrap();
    let device = Device {
        profile: crate::profile::Profile {
            broker: "https://b.example".into(),
            person: "alice".parse().unwrap(),
            device: key.public().id(),
            device_name: "x".into(),
            log_key: None,
            checkpoint: None,
            seen: None,
        },
        key,
        broker: crate::http::Broker::new("https://b.example", &Env::default()).unwrap(),
    };
    let digest = asked().facts.digest();
    let answer = sign(&device, Decision::DenyAndFreeze, digest).unwrap();
    let signature = proto::digest::unhex(&answer.signature).unwrap();
    assert!(
        device
            .key
            .public()
            .verify(&answer.statement.canonical(), &signature)
    );
    let mut other = answer.statement.clone();
    other.decision = Decision::Approve;
    assert!(!device.key.public().verify(&other.canonical(), &signature));
    assert!(answer.match_code.is_empty() && answer.factor.totp.is_none());
    assert!(needs_totp(&[Factor::Totp]) && !needs_totp(&[Factor::Device, Factor::Totp]));
}
