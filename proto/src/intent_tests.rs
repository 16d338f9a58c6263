//! What an intent fits, and its pinned bytes.

use super::*;
use crate::{device::DeviceKey, digest::hex, request::CallerFacts};
use proptest::prelude::*;
use serde::Deserialize;

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, bytes)
}

fn statement() -> IntentStatement {
    let key = DeviceKey::from_seed([7; 32]).unwrap();
    IntentStatement {
        items: vec![IntendedItem {
            registry: "npm".parse().unwrap(),
            package: "@acme/left".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: None,
            files: vec![IntendedFile {
                name: "acme-left-1.4.2.tgz".into(),
                digest: digest(b"good"),
            }],
        }],
        commit: Some(COMMIT.into()),
        expires: UnixTime(2000),
        device: key.public().id(),
        time: UnixTime(1000),
        nonce: "00".repeat(16),
    }
}

fn request() -> RequestFacts {
    RequestFacts {
        id: RequestId(uuid::Uuid::from_u128(7)),
        items: vec![Item {
            registry: "npm".parse().unwrap(),
            package: "@acme/left".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: Some("latest".parse().unwrap()),
            files: vec![File {
                name: "left.tgz".into(),
                size: 4,
                digest: digest(b"good"),
            }],
        }],
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: [("sha".to_owned(), COMMIT.to_owned())].into(),
            run_url: None,
        },
        policy: Digest::of(Algorithm::Sha256, b"policy"),
        job_key: "age1job".into(),
        expires: UnixTime(3000),
    }
}

type Bend = fn(&mut RequestFacts);

#[test]
fn attack_15_every_field_that_is_named_must_fit() {
    let meant = statement();
    assert!(meant.fits(&request()));
    let bends: Vec<(&str, Bend)> = vec![
        ("registry", |r| {
            r.items[0].registry = "other".parse().unwrap();
        }),
        ("package", |r| {
            r.items[0].package = "@acme/right".parse().unwrap();
        }),
        ("version", |r| r.items[0].version = "1.4.3".parse().unwrap()),
        ("tag", |r| r.items[0].tag = Some("next".parse().unwrap())),
        ("bytes", |r| r.items[0].files[0].digest = digest(b"gooe")),
        ("no file", |r| r.items[0].files.clear()),
        ("a file more", |r| {
            let mut more = r.items[0].files[0].clone();
            more.digest = digest(b"evil");
            r.items[0].files.push(more);
        }),
        ("the file twice", |r| {
            let twice = r.items[0].files[0].clone();
            r.items[0].files.push(twice);
        }),
        ("an item more", |r| {
            let mut more = r.items[0].clone();
            more.package = "@acme/evil".parse().unwrap();
            r.items.push(more);
        }),
        ("a version more", |r| {
            let mut more = r.items[0].clone();
            more.version = "9.9.9".parse().unwrap();
            r.items.push(more);
        }),
        ("no item", |r| r.items.clear()),
        ("commit", |r| {
            r.caller
                .claims
                .insert("sha".into(), COMMIT.replace('9', "8"));
        }),
        ("commit under another name", |r| {
            r.caller.claims.clear();
            r.caller.claims.insert("head_sha".into(), COMMIT.into());
        }),
    ];
    for (what, bend) in bends {
        let mut other = request();
        bend(&mut other);
        assert!(!meant.fits(&other), "{what}");
    }
    let mut none = meant.clone();
    none.items.clear();
    let mut nothing = request();
    nothing.items.clear();
    assert!(!none.fits(&nothing), "nothing fits nothing");
}

#[test]
fn attack_16_each_file_of_a_release_is_named_with_its_name() {
    let file = |name: &str, bytes: &[u8]| IntendedFile {
        name: name.into(),
        digest: Digest::of(Algorithm::Sha256, bytes),
    };
    let asked = |name: &str, bytes: &[u8]| File {
        name: name.into(),
        size: 1,
        digest: Digest::of(Algorithm::Sha256, bytes),
    };
    let mut meant = statement();
    meant.items[0].files = vec![file("a.whl", b"a"), file("a.tar.gz", b"b")];
    let mut wish = request();
    wish.items[0].tag = None;
    wish.items[0].files = vec![asked("a.tar.gz", b"b"), asked("a.whl", b"a")];
    assert!(meant.fits(&wish), "in any order");
    wish.items[0].files[1].name = "a-py2.whl".into();
    assert!(!meant.fits(&wish), "a wheel for other machines");
    wish.items[0].files.pop();
    assert!(!meant.fits(&wish), "half of it");
}

#[test]
fn how_much_an_intent_says() {
    let mut meant = statement();
    assert_eq!(meant.names(), Names::Bytes);
    let mut half = meant.items[0].clone();
    half.package = "@acme/right".parse().unwrap();
    half.files.clear();
    meant.items.push(half);
    assert_eq!(meant.names(), Names::Commit, "one item without files");
    meant.commit = None;
    assert_eq!(meant.names(), Names::Versions);
    assert_eq!(meant.check(), Ok(()));
    meant.commit = Some(COMMIT[..12].into());
    assert!(meant.check().is_err(), "a short hash fits many commits");
    meant.commit = Some(COMMIT.replace('1', "A"));
    assert!(meant.check().is_err());
    meant.commit = None;
    meant.items[1].package = meant.items[0].package.clone();
    assert!(meant.check().is_err(), "one package, one version");
    meant.items.clear();
    assert!(meant.check().is_err());
    meant = statement();
    meant.items[0].files[0].name = "a\u{202e}b".into();
    assert!(meant.check().is_err(), "attack 10");
}

#[test]
fn attack_28_an_intent_lives_from_when_it_was_taken_until_it_is_over() {
    let key = DeviceKey::from_seed([7; 32]).unwrap();
    let meant = statement();
    let mut evidence = IntentEvidence {
        id: IntentId(uuid::Uuid::from_u128(1)),
        person: "alice".parse().unwrap(),
        factor: Factor::Device,
        signature: hex(&key.sign(&meant.canonical())),
        statement: meant,
        public_key: key.public(),
        totp_mac: None,
        assertion: None,
        made: UnixTime(1010),
    };
    assert!(evidence.signature_holds());
    for (opened, lived) in [(1009, false), (1010, true), (1999, true), (2000, false)] {
        assert_eq!(evidence.lived_at(UnixTime(opened)), lived, "{opened}");
    }
    evidence.statement.expires = UnixTime(9000);
    assert!(
        !evidence.signature_holds(),
        "a longer life is another statement"
    );
}

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    statement: IntentStatement,
    canonical: String,
    sha256: Digest,
    seed: String,
    signature: String,
}

#[test]
fn the_signed_bytes_are_the_pinned_ones() {
    let v: Vectors = serde_json::from_str(include_str!("../vectors/intent.json")).unwrap();
    assert!(v.vectors.len() >= 2);
    for vector in v.vectors {
        let bytes = vector.statement.canonical();
        assert_eq!(hex(&bytes), vector.canonical);
        assert_eq!(Digest::of(Algorithm::Sha256, &bytes), vector.sha256);
        let seed: [u8; 32] = crate::digest::unhex(&vector.seed)
            .unwrap()
            .try_into()
            .unwrap();
        let key = DeviceKey::from_seed(seed).unwrap();
        assert_eq!(key.public().id(), vector.statement.device);
        assert_eq!(hex(&key.sign(&bytes)), vector.signature);
    }
}

proptest! {
    #[test]
    fn attack_23_no_two_statements_share_their_bytes(at in 0usize..9, with in "[a-z]{1,8}") {
        let one = statement();
        let mut other = one.clone();
        match at {
            0 => other.items[0].tag = Some(with.parse().unwrap()),
            1 => other.items[0].files[0].name = with,
            2 => other.items[0].files.clear(),
            3 => other.commit = None,
            4 => other.commit = Some(with),
            5 => other.expires = UnixTime(with.len() as u64),
            6 => other.nonce = with,
            7 => other.items.push(one.items[0].clone()),
            _ => other.items[0].version = with.parse().unwrap(),
        }
        prop_assert_ne!(one.canonical(), other.canonical());
        // An answer's bytes are never an intent's.
        let answer = crate::answer::Statement {
            decision: crate::answer::Decision::Approve,
            request_digest: RequestDigest([0; 32]),
            device: one.device.clone(),
            time: one.time,
            nonce: one.nonce.clone(),
        };
        prop_assert_ne!(one.canonical(), answer.canonical());
    }
}
