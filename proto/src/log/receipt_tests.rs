use super::*;
use crate::{
    answer::{Evidence, Statement},
    api::{FileStatus, ItemStatus, LogLine},
    digest::hex,
    log::merkle::{Frontier, inclusion_plan, prove},
    request::{CallerFacts, File, Item},
};
use std::convert::Infallible;

const ORIGIN: &str = "broker.example/log";

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed([seed; 32]).unwrap()
}

fn vkey() -> String {
    LogKey::new(ORIGIN, key(1).public()).unwrap().to_string()
}

fn facts() -> RequestFacts {
    let digest = |t: &str| Digest::of(crate::digest::Algorithm::Sha256, t.as_bytes());
    let file = |name: &str| File {
        name: name.into(),
        size: 3,
        digest: digest(name),
    };
    RequestFacts {
        id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
        items: vec![Item {
            registry: "pypi".parse().unwrap(),
            package: "acme-left".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            tag: None,
            files: vec![file("a.whl"), file("a.tar.gz")],
        }],
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: [("ref".to_owned(), "refs/tags/v1.4.2".to_owned())].into(),
            run_url: None,
        },
        policy: digest("policy"),
        job_key: "age1x".into(),
        expires: UnixTime(2_000),
    }
}

fn evidence(person: &str, seed: u8, digest: RequestDigest, decision: Decision) -> Evidence {
    let device = key(seed);
    let statement = Statement {
        decision,
        request_digest: digest,
        device: device.public().id(),
        time: UnixTime(1_000),
        nonce: "00".repeat(16),
    };
    Evidence {
        person: person.parse().unwrap(),
        factor: Factor::Totp,
        public_key: device.public(),
        signature: hex(&device.sign(&statement.canonical())),
        statement,
        totp_mac: None,
        assertion: None,
    }
}

fn shown(file: &File) -> FileStatus {
    FileStatus {
        name: file.name.clone(),
        state: StateName::Published,
        read_back: Some(file.digest.clone()),
    }
}

fn leaf_text(facts: &RequestFacts) -> String {
    let files = &facts.items[0].files;
    format!(
        r#"{{"v":1,"time":1500,"event":{{"type":"request-published","request":"{}","digest":"{}","items":[{{"name":"{}","read_back":["{}","{}"]}}]}}}}"#,
        facts.id,
        facts.digest(),
        facts.items[0].name(),
        files[0].digest,
        files[1].digest,
    )
}

/// A log of 7 leaves with `leaf` at 3, and the body that is proved against it.
fn body_with(leaf: &str) -> ReceiptBody {
    let facts = facts();
    let hashes: Vec<_> = (0u8..7)
        .map(|i| leaf_hash(if i == 3 { leaf.as_bytes() } else { b"other" }))
        .collect();
    let mut nodes = std::collections::BTreeMap::new();
    let mut frontier = Frontier::default();
    for hash in &hashes {
        frontier.push_with(*hash, |n, h| nodes.extend([(n, h)]));
    }
    let plan = inclusion_plan(3, 7).unwrap();
    let proof = prove::<Infallible>(&plan, |n| Ok(nodes[&n])).unwrap();
    let digest = facts.digest();
    ReceiptBody {
        request_digest: digest,
        intents: Vec::new(),
        evidence: vec![
            evidence("alice", 2, digest, Decision::Approve),
            evidence("bob", 3, digest, Decision::Approve),
        ],
        items: vec![ItemStatus {
            name: facts.items[0].name(),
            state: StateName::Published,
            files: facts.items[0].files.iter().map(shown).collect(),
        }],
        leaf: LogLine {
            index: 3,
            leaf: leaf.to_owned(),
        },
        inclusion: proof.iter().map(ToString::to_string).collect(),
        checkpoint: Checkpoint {
            origin: ORIGIN.to_owned(),
            size: 7,
            root: frontier.root(),
        }
        .sign(&key(1))
        .unwrap(),
        site: None,
        facts,
    }
}

fn body() -> ReceiptBody {
    body_with(&leaf_text(&facts()))
}

fn verify(body: &ReceiptBody) -> Result<ReceiptReport, VerifyError> {
    let receipt = sign_receipt(body, ORIGIN, &key(1)).unwrap();
    verify_receipt(receipt.as_bytes(), Some(&vkey()))
}

#[test]
fn a_true_receipt_verifies_and_says_whether_the_key_was_pinned() {
    let report = verify(&body()).unwrap();
    assert!(report.pinned);
    assert_eq!(report.published, UnixTime(1500));
    assert_eq!(report.approvers.len(), 2);
    assert_eq!((report.index, report.tree_size), (3, 7));
    let receipt = sign_receipt(&body(), ORIGIN, &key(1)).unwrap();
    assert!(!verify_receipt(receipt.as_bytes(), None).unwrap().pinned);
    let forged = sign_receipt(&body(), ORIGIN, &key(8)).unwrap();
    assert_eq!(
        verify_receipt(forged.as_bytes(), Some(&vkey())).unwrap_err(),
        VerifyError::OtherKey
    );
    // Without a pinned key the checkpoint still has to be the envelope's signer's.
    assert_eq!(
        verify_receipt(forged.as_bytes(), None).unwrap_err(),
        VerifyError::Checkpoint(NoteError::Unsigned)
    );
}

#[test]
fn attack_46_a_receipt_with_any_bit_flipped_is_refused() {
    let receipt = sign_receipt(&body(), ORIGIN, &key(1)).unwrap().into_bytes();
    for at in 0..receipt.len() {
        let mut bytes = receipt.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(verify_receipt(&bytes, Some(&vkey())).is_err(), "byte {at}");
        assert!(verify_receipt(&receipt[..at], Some(&vkey())).is_err());
    }
}

type Change = Box<dyn Fn(&mut ReceiptBody)>;

#[test]
fn even_the_log_key_cannot_sign_a_receipt_without_its_proofs() {
    let digest = facts().digest();
    let other = RequestDigest([7; 32]);
    let wrong: Vec<(&str, Change)> = vec![
        ("facts", Box::new(|b| b.facts.expires = UnixTime(9))),
        ("nobody", Box::new(|b| b.evidence.clear())),
        (
            "denial",
            Box::new(move |b| b.evidence[0] = evidence("alice", 2, digest, Decision::Deny)),
        ),
        (
            "other request",
            Box::new(move |b| b.evidence[0] = evidence("alice", 2, other, Decision::Approve)),
        ),
        (
            "person twice",
            Box::new(move |b| b.evidence[0] = evidence("bob", 2, digest, Decision::Approve)),
        ),
        (
            "device twice",
            Box::new(move |b| b.evidence[0] = evidence("alice", 3, digest, Decision::Approve)),
        ),
        (
            "signature",
            Box::new(|b| b.evidence[0].statement.time = UnixTime(1)),
        ),
        ("leaf", Box::new(|b| b.leaf.leaf.push(' '))),
        ("index", Box::new(|b| b.leaf.index = 2)),
        ("proof", Box::new(|b| drop(b.inclusion.pop()))),
        (
            "state",
            Box::new(|b| b.items[0].state = StateName::Conflict),
        ),
        (
            "read back",
            Box::new(|b| b.items[0].files[0].read_back = Some(b.facts.policy.clone())),
        ),
        ("one file less", Box::new(|b| drop(b.items[0].files.pop()))),
        ("no items", Box::new(|b| b.items.clear())),
    ];
    for (what, change) in wrong {
        let mut body = body();
        change(&mut body);
        assert!(verify(&body).is_err(), "{what}");
    }
}

/// Signs any payload as the broker would sign a receipt's.
fn signed(payload: &[u8]) -> String {
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![EnvelopeSignature {
            keyid: vkey(),
            sig: STANDARD.encode(key(1).sign(&pae(PAYLOAD_TYPE, payload))),
        }],
    };
    serde_json::to_string(&envelope).unwrap()
}

#[test]
fn attack_46_a_receipt_is_an_in_toto_statement_about_the_published_files_and_no_others() {
    let receipt = sign_receipt(&body(), ORIGIN, &key(1)).unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
    let statement: serde_json::Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "urn:countersign:publish:v1");
    let files = &facts().items[0].files;
    let subject = |at: usize, name: &str| {
        let hex = files[at].digest.to_string();
        let hex = hex.strip_prefix("sha256:").unwrap().to_owned();
        serde_json::json!({"name": name, "digest": {"sha256": hex}})
    };
    let wanted = serde_json::json!([
        subject(0, "pypi:acme-left@1.4.2/a.whl"),
        subject(1, "pypi:acme-left@1.4.2/a.tar.gz"),
    ]);
    assert_eq!(statement["subject"], wanted);
    // Even signed by the log's key, a statement with other subjects is no receipt.
    let changes: [fn(&mut serde_json::Value); 6] = [
        |s| s["subject"][0]["digest"]["sha256"] = "00".repeat(32).into(),
        |s| s["subject"][0]["name"] = "pypi:evil@1/a.whl".into(),
        |s| s["subject"] = serde_json::json!([]),
        |s| s["subject"].as_array_mut().unwrap().reverse(),
        |s| s["predicateType"] = "https://slsa.dev/provenance/v1".into(),
        |s| s["_type"] = "https://in-toto.io/Statement/v0.1".into(),
    ];
    let verify = |s: &serde_json::Value| {
        let text = signed(s.to_string().as_bytes());
        verify_receipt(text.as_bytes(), Some(&vkey()))
    };
    assert!(verify(&statement).is_ok());
    for change in changes {
        let mut other = statement.clone();
        change(&mut other);
        assert!(
            matches!(verify(&other), Err(VerifyError::Form(_))),
            "{other}"
        );
    }
}

#[test]
fn a_leaf_that_records_something_else_is_refused() {
    let good = leaf_text(&facts());
    let file = facts().items[0].files[1].digest.to_string();
    let policy = facts().policy.to_string();
    for bad in [
        good.replace("request-published", "request-opened"),
        good.replace("000000000001", "000000000002"),
        good.replace(&facts().digest().to_string(), &"0".repeat(64)),
        good.replace(&file, &policy),
        good.replace(&format!(",\"{file}\""), ""),
        good.replace("1.4.2", "1.4.3"),
        good.replace("\"v\":1", "\"v\":2"),
        good.replace("\"v\":1", "\"v\":1,\"v\":1"),
        "{}".to_owned(),
    ] {
        assert_ne!(bad, good);
        assert!(verify(&body_with(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_encoding_is_the_one_of_the_dsse_document() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}
