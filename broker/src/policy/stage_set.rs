//! A stage for the tests of this room: a request, people with real device keys, answers.

use super::{
    case::{Admitted, ItemNow, Now, Person, Terms},
    evaluate::{Refusal, Verdict, admissible, evaluate},
    file::Policy,
};
use crate::challenge::approval::{Approval, Enrolled};
use proto::{
    answer::{Decision, Evidence, Factor, Statement},
    api::Mode,
    card::Card,
    device::DeviceKey,
    digest::{Algorithm, Digest, hex},
    ids::{PersonId, RequestId, VersionText},
    request::{CallerFacts, File, Item, RequestDigest, RequestFacts},
    time::UnixTime,
};

/// The policy that is shipped as an example.
pub(super) const EXAMPLE: &str = include_str!("../../../deploy/examples/policy.toml");
pub(super) const OPENED: u64 = 1_800_000_000;

/// Everything around one decision, free to be bent by a test.
#[derive(Clone)]
pub(super) struct Set {
    pub(super) policy: String,
    pub(super) items: Vec<Item>,
    pub(super) caller: CallerFacts,
    pub(super) actor: Option<String>,
    pub(super) key_packages: Option<Vec<String>>,
    pub(super) people: Vec<Person>,
    /// Person, device seed, factor.
    pub(super) answers: Vec<(&'static str, u8, Factor)>,
    pub(super) published: Option<Vec<VersionText>>,
    pub(super) frozen: bool,
    pub(super) has_tags: bool,
    pub(super) cards: Vec<Card>,
    pub(super) now: u64,
    pub(super) expires: u64,
    pub(super) approved: Option<u64>,
    pub(super) intended: bool,
    pub(super) at_open: Admitted,
}

impl Set {
    /// A release of `@acme/left` under the example, approved by two people: permitted.
    pub(super) fn npm() -> Self {
        Self {
            policy: EXAMPLE.to_owned(),
            items: vec![item("npm", "@acme/left", "1.4.2", Some("latest"))],
            caller: github(&[]),
            actor: Some("github:7".to_owned()),
            key_packages: None,
            people: vec![
                person("alice", &["release"], &["github:1"]),
                person("bob", &["release"], &["github:2"]),
                person("carol", &["release"], &["github:7"]),
                person("dave", &["python"], &["github:3"]),
            ],
            answers: vec![("alice", 1, Factor::Totp), ("bob", 2, Factor::Totp)],
            published: Some(vec![text("1.4.1"), text("1.0.0")]),
            frozen: false,
            has_tags: true,
            cards: Vec::new(),
            now: OPENED + 100,
            expires: OPENED + 1800,
            approved: Some(OPENED - 3600),
            intended: false,
            at_open: Admitted {
                quorum: 1,
                factors: vec![Factor::Device, Factor::Totp],
                answers_seconds: 3600,
                mode: Mode::Forward,
                mint_seconds: 120,
                terms: Terms::default(),
            },
        }
    }

    /// The Python project of the example.
    pub(super) fn pypi() -> Self {
        let mut set = Self::npm();
        set.items = vec![item("pypi", "acme-tools", "2.0", None)];
        set.caller = github(&[
            ("repository_id", "124"),
            ("workflow", ".github/workflows/pypi.yml"),
            ("entry_workflow", ".github/workflows/pypi.yml"),
            ("ref", "refs/heads/main"),
            ("event", "workflow_dispatch"),
            ("environment", ""),
        ]);
        set.has_tags = false;
        set.published = Some(vec![text("1.0")]);
        set
    }

    /// The client key of the example.
    pub(super) fn vault() -> Self {
        let mut set = Self::npm();
        set.items = vec![item("vault", "deploy-key", "1", None)];
        set.items[0].files.clear();
        set.caller = CallerFacts {
            issuer: "client-key".into(),
            subject: "old-ci".into(),
            claims: [].into(),
            run_url: None,
        };
        set.actor = None;
        set.key_packages = Some(vec!["vault:deploy-key".to_owned()]);
        set.has_tags = false;
        set.published = None;
        set.at_open.mode = Mode::Reveal;
        set
    }

    pub(super) fn with(mut self, bend: impl FnOnce(&mut Self)) -> Self {
        bend(&mut self);
        self
    }

    pub(super) fn request(&self) -> RequestFacts {
        RequestFacts {
            id: RequestId(uuid::Uuid::from_u128(7)),
            items: self.items.clone(),
            caller: self.caller.clone(),
            policy: Digest::of(Algorithm::Sha256, self.policy.as_bytes()),
            job_key: "age1job".into(),
            expires: UnixTime(OPENED + 1800),
        }
    }

    pub(super) fn release(&self) -> Verdict {
        self.release_under(&self.policy)
    }

    /// The decision at release, under this document.
    pub(super) fn release_under(&self, document: &str) -> Verdict {
        self.release_by(
            &Policy::parse(document, "policy.toml").unwrap(),
            &self.approvals(),
        )
    }

    pub(super) fn release_by(&self, policy: &Policy, approvals: &[Approval]) -> Verdict {
        self.around(approvals, |now| {
            evaluate(&self.request(), policy, &self.at_open, now)
        })
    }

    pub(super) fn approvals(&self) -> Vec<Approval> {
        let digest = self.request().digest();
        let answers = self.answers.iter();
        answers
            .map(|(who, seed, factor)| approval(who, *seed, *factor, &digest))
            .collect()
    }

    /// The decision before anybody is rung.
    pub(super) fn open(&self) -> Result<Admitted, Refusal> {
        self.open_by(&Policy::parse(&self.policy, "policy.toml").unwrap())
    }

    pub(super) fn open_by(&self, policy: &Policy) -> Result<Admitted, Refusal> {
        let mut request = self.request();
        request.policy = policy.digest().clone();
        self.around(&[], |now| admissible(&request, policy, now))
    }

    fn around<T>(&self, approvals: &[Approval], f: impl FnOnce(&Now<'_>) -> T) -> T {
        let here = ItemNow {
            frozen: self.frozen,
            has_tags: self.has_tags,
            published: self.published.as_deref(),
            cards: &self.cards,
        };
        f(&Now {
            now: UnixTime(self.now),
            opened: UnixTime(OPENED),
            expires: UnixTime(self.expires),
            actor: self.actor.as_deref(),
            client_key_packages: self.key_packages.as_deref(),
            approved: self.approved.map(UnixTime),
            intended: self.intended,
            approvals,
            people: &self.people,
            items: &vec![here; self.items.len()],
        })
    }

    /// The name of the reason of the refusal at open and at release, or what else came out.
    pub(super) fn refused(&self) -> &'static str {
        let open = self.open().map_or_else(|r| r.reason.name(), |_| "admitted");
        let release = outcome(&self.release());
        assert!(
            open == release || open == "admitted",
            "open says {open}, release says {release}"
        );
        release
    }
}

pub(super) fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Permit(_) => "permit",
        Verdict::Wait(_) => "wait",
        Verdict::Later(_) => "later",
        Verdict::Deny(refusal) => refusal.reason.name(),
    }
}

pub(super) fn text(version: &str) -> VersionText {
    version.parse().unwrap()
}

pub(super) fn item(registry: &str, package: &str, version: &str, tag: Option<&str>) -> Item {
    Item {
        registry: registry.parse().unwrap(),
        package: package.parse().unwrap(),
        version: text(version),
        tag: tag.map(text),
        files: vec![File {
            name: "left.tgz".into(),
            size: 1,
            digest: Digest::of(Algorithm::Sha512, b"x"),
        }],
    }
}

/// The example's caller, with these claims instead; an empty value removes the claim.
pub(super) fn github(other: &[(&str, &str)]) -> CallerFacts {
    let mut claims: std::collections::BTreeMap<String, String> = [
        ("repository_id", "123"),
        ("repository_owner_id", "45"),
        ("workflow", ".github/workflows/release.yml"),
        ("entry_workflow", ".github/workflows/release.yml"),
        ("ref", "refs/tags/v1.4.2"),
        ("event", "push"),
        ("environment", "release"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    for (key, value) in other {
        claims.insert((*key).to_owned(), (*value).to_owned());
    }
    claims.retain(|_, v| !v.is_empty());
    let subject = claims.get("repository_id").cloned().unwrap_or_default();
    CallerFacts {
        issuer: "github".into(),
        subject,
        claims,
        run_url: None,
    }
}

pub(super) fn person(id: &str, groups: &[&str], actors: &[&str]) -> Person {
    Person {
        id: id.parse().unwrap(),
        groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
        actors: actors.iter().map(|a| (*a).to_owned()).collect(),
    }
}

/// A real signature by a real key, verified as the broker does.
pub(super) fn approval(who: &str, seed: u8, factor: Factor, digest: &RequestDigest) -> Approval {
    let key = DeviceKey::from_seed([seed; 32]).unwrap();
    let statement = Statement {
        decision: Decision::Approve,
        request_digest: *digest,
        device: key.public().id(),
        time: UnixTime(OPENED),
        nonce: "00".repeat(16),
    };
    let evidence = Evidence {
        person: who.parse::<PersonId>().unwrap(),
        factor,
        signature: hex(&key.sign(&statement.canonical())),
        statement,
        public_key: key.public(),
        totp_mac: None,
        assertion: None,
    };
    let enrolled = Enrolled {
        device: &key.public(),
        browser: false,
        passkey: None,
        site: None,
    };
    Approval::verify(&evidence, digest, Some(enrolled), |_| true).unwrap()
}
