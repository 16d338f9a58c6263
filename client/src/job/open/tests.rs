use super::*;
use proto::{
    digest::{Algorithm, Digest},
    request::{CallerFacts, File, RequestFacts},
};
use std::collections::BTreeMap;

fn item(version: &str) -> Item {
    Item {
        registry: "npm".parse().unwrap(),
        package: "@acme/left".parse().unwrap(),
        version: version.parse().unwrap(),
        tag: Some("latest".parse().unwrap()),
        files: vec![File {
            name: "left.tgz".into(),
            size: 3,
            digest: Digest::of(Algorithm::Sha512, b"abc"),
        }],
    }
}

fn honest() -> (OpenRequest, Opened) {
    let asked = OpenRequest {
        leave_out_published: false,
        items: vec![item("1.0.0")],
        job_key: age::x25519::Identity::generate().to_public().to_string(),
        idempotency_key: "k".into(),
        note: None,
    };
    let facts = RequestFacts {
        id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        items: asked.items.clone(),
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: BTreeMap::default(),
            run_url: None,
        },
        policy: Digest::of(Algorithm::Sha256, b"policy"),
        job_key: asked.job_key.clone(),
        expires: UnixTime(2_000_000_000),
    };
    let opened = Opened {
        id: facts.id,
        request_digest: facts.digest(),
        facts,
        ticket: Bearer::from_entropy(Kind::Ticket, [5; 32]).expose(),
        match_code: "012345".into(),
        page: "https://b.example/r/1".into(),
        registry_url: BTreeMap::from([(
            "npm".parse().unwrap(),
            "https://b.example:8444/npm/".into(),
        )]),
        deposit: None,
        inspect: Vec::new(),
    };
    (asked, opened)
}

type Lie = Box<dyn Fn(&mut Opened)>;

#[test]
fn attack_35_lying_broker_is_refused_at_open() {
    let (asked, opened) = honest();
    assert!(check(&asked, &opened).is_ok());
    let other = Digest::of(Algorithm::Sha512, b"evil");
    let lies: Vec<(&str, Lie)> = vec![
        (
            "digest",
            Box::new(|o| o.request_digest = RequestDigest([0; 32])),
        ),
        ("version", Box::new(|o| o.facts.items = vec![item("6.6.6")])),
        (
            "more items",
            Box::new(|o| o.facts.items.push(item("1.0.1"))),
        ),
        (
            "bytes",
            Box::new(move |o| o.facts.items[0].files[0].digest = other.clone()),
        ),
        ("tag", Box::new(|o| o.facts.items[0].tag = None)),
        (
            "job key",
            Box::new(|o| o.facts.job_key = "age1other".into()),
        ),
        (
            "id",
            Box::new(|o| o.id = "00000000-0000-7000-8000-000000000002".parse().unwrap()),
        ),
        (
            "match code",
            Box::new(|o| o.match_code = "1234\u{1b}[".into()),
        ),
        ("ticket", Box::new(|o| o.ticket = "cst_short".into())),
        ("page", Box::new(|o| o.page = "http://evil.example".into())),
        ("registry", Box::new(|o| o.registry_url.clear())),
        (
            "registry http",
            Box::new(|o| {
                o.registry_url
                    .insert("npm".parse().unwrap(), "http://evil.example".into());
            }),
        ),
    ];
    for (what, lie) in lies {
        // A thorough liar also computes the digest of his facts again.
        let (_, mut opened) = honest();
        opened.facts.job_key.clone_from(&asked.job_key);
        lie(&mut opened);
        if what != "digest" {
            opened.request_digest = opened.facts.digest();
        }
        let f = check(&asked, &opened).unwrap_err();
        assert_eq!(f.exit as u8, 5, "{what}");
    }
}

#[test]
fn attack_17_what_is_left_out_was_asked_to_be_and_nothing_is_slipped_in() {
    let (mut asked, _) = honest();
    asked.items = ["1.0.0", "1.0.1", "1.0.2"].map(item).into();
    let some = |versions: &[&str]| versions.iter().map(|v| item(v)).collect::<Vec<_>>();
    assert!(holds(&asked, &some(&["1.0.0", "1.0.1", "1.0.2"])));
    assert!(!holds(&asked, &some(&["1.0.0", "1.0.2"])));
    asked.leave_out_published = true;
    for good in [
        &["1.0.0", "1.0.1", "1.0.2"][..],
        &["1.0.0", "1.0.2"],
        &["1.0.1"],
    ] {
        assert!(holds(&asked, &some(good)), "{good:?}");
    }
    for bad in [
        &[][..],
        &["1.0.1", "1.0.0"],
        &["1.0.0", "1.0.0"],
        &["6.6.6"],
        &["1.0.0", "1.0.1", "1.0.2", "6.6.6"],
    ] {
        assert!(!holds(&asked, &some(bad)), "{bad:?}");
    }
}

#[test]
fn the_idempotency_key_follows_run_and_body() {
    let (asked, _) = honest();
    let one = Env::from([("GITHUB_RUN_ID", "1"), ("GITHUB_RUN_ATTEMPT", "1")]);
    let two = Env::from([("GITHUB_RUN_ID", "1"), ("GITHUB_RUN_ATTEMPT", "2")]);
    let key = |env: &Env, a: &OpenRequest| idempotency_key(env, a).unwrap();
    assert_eq!(key(&one, &asked), key(&one, &asked));
    assert_ne!(key(&one, &asked), key(&two, &asked));
    let mut other = asked.clone();
    other.note = Some("x".into());
    assert_ne!(key(&one, &asked), key(&one, &other));
}
