use super::*;

fn request() -> RequestId {
    "0198c0de-0000-7000-8000-000000000001".parse().unwrap()
}

#[test]
fn a_leaf_has_one_spelling() {
    let event = Event::RequestDenied {
        request: request(),
        person: Some("alice".parse().unwrap()),
        cause: DenyCause::Person,
    };
    let bytes = leaf(&event, UnixTime(5));
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"request-denied","request":"0198c0de-0000-7000-8000-000000000001","person":"alice","cause":"person"}}"#
    );
    let stored = Event::TokenStored(TokenFacts {
        registry: "npm".parse().unwrap(),
        scope: "@acme/*".into(),
        version: 1,
        fingerprint: "00c0ffee".into(),
        proof: Some(ProofOutcome::Proved),
        by: "alice".parse().unwrap(),
    });
    assert_eq!(
        String::from_utf8(leaf(&stored, UnixTime(5))).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"token-stored","registry":"npm","scope":"@acme/*","version":1,"fingerprint":"00c0ffee","proof":"proved","by":"alice"}}"#
    );
    let json = serde_json::to_string(&stored).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), stored);
    let refused = Event::WitnessRefused {
        witness: "w+1+x".into(),
        entries: 5,
        seen: 9,
        finding: WitnessFinding::Shorter,
    };
    assert_eq!(
        String::from_utf8(leaf(&refused, UnixTime(5))).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"witness-refused","witness":"w+1+x","entries":5,"seen":9,"finding":"shorter"}}"#
    );
    let tried = Event::TokenTried {
        request: request(),
        registry: "npm".parse().unwrap(),
        scope: "@acme/*".into(),
        version: 2,
        proof: ProofOutcome::Refused,
    };
    assert_eq!(
        String::from_utf8(leaf(&tried, UnixTime(5))).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"token-tried","request":"0198c0de-0000-7000-8000-000000000001","registry":"npm","scope":"@acme/*","version":2,"proof":"refused"}}"#
    );
    let went_back = Event::TokenBack {
        registry: "npm".parse().unwrap(),
        scope: "*".into(),
        version: 3,
        fingerprint: "00c0ffee".into(),
        kept: 1,
        ended: 2,
        by: "robin".parse().unwrap(),
    };
    assert_eq!(
        String::from_utf8(leaf(&went_back, UnixTime(5))).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"token-back","registry":"npm","scope":"*","version":3,"fingerprint":"00c0ffee","kept":1,"ended":2,"by":"robin"}}"#
    );
    let back = Event::WithdrawalCalledBack {
        name: "npm:left@1.0.0".into(),
        undo: false,
        by: "robin".parse().unwrap(),
    };
    assert_eq!(
        String::from_utf8(leaf(&back, UnixTime(5))).unwrap(),
        r#"{"v":1,"time":5,"event":{"type":"withdrawal-called-back","name":"npm:left@1.0.0","undo":false,"by":"robin"}}"#
    );
    let sealed = br#"{"v":1,"time":0,"event":{"type":"sealed"}}"#;
    assert_eq!(leaf(&Event::Sealed, UnixTime(0)), sealed);
}

#[test]
fn the_last_leaf_of_a_request_is_what_a_receipt_reads() {
    let digest = RequestDigest([7; 32]);
    let file = Digest::of(proto::digest::Algorithm::Sha256, b"x");
    let event = Event::RequestPublished {
        request: request(),
        digest,
        items: vec![PublishedItem {
            name: "npm:left@1.0.0".into(),
            read_back: vec![file.clone()],
        }],
    };
    let text = String::from_utf8(leaf(&event, UnixTime(5))).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"v":1,"time":5,"event":{{"type":"{}","request":"{}","digest":"{digest}","items":[{{"name":"npm:left@1.0.0","read_back":["{file}"]}}]}}}}"#,
            proto::log::receipt::PUBLISHED_TYPE,
            request(),
        )
    );
}

#[test]
fn attack_41_text_from_outside_cannot_repaint_or_flood_the_log() {
    let event = Event::RequestOpened {
        request: request(),
        digest: RequestDigest([7; 32]),
        items: vec!["a\u{1b}[2J\u{202e}b".into()],
        issuer: "x".repeat(1_000_000),
        subject: "ü".repeat(10_000),
    };
    let bytes = leaf(&event, UnixTime(0));
    assert!(bytes.len() < 2_000);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("\\u001b") && !text.chars().any(text::misleads));
}
