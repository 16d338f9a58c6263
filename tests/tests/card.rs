//! The card: what an approver sees of the bytes, computed by the broker from the bytes.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{
    api::Question,
    card::{Card, Change, FindingKind, Outcome, Previous, Risk},
};
use serde_json::json;
use stand::{
    api::{self, Job, Packed, Reply, Small},
    packages,
    team::{POLICY, Team, Waiting},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

/// Files with a secret, and files that nobody looked into, are a no.
const BLOCK: &str = "scan = \"block\"\nrequire_unchanged = \"nothing\"\nrisky_factors = \"any\"";

async fn team(more: &str) -> Team {
    let policy = POLICY.replacen("quorum = 2", &format!("quorum = 2\n{more}"), 1);
    Team::with_policy(&policy).await.unwrap()
}

/// A job that asks, hands its file over, and ends.
async fn hand_over(team: &Team, what: &Path) -> Waiting {
    hand_over_with(team, what, &[]).await
}

async fn hand_over_with(team: &Team, what: &Path, more: &[&str]) -> Waiting {
    let token = team.id_token().await.unwrap();
    let out = team
        .folder()
        .join(format!("{}.json", stand::free_port().unwrap()));
    let (what, out) = (what.display().to_string(), out.display().to_string());
    let mut args = vec!["request", "npm", &what, "--out", &out, "--hand-over"];
    args.extend(more);
    let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
    let mut job = team.job_as(&args, &env).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    job
}

/// The question as a program gets it, once no card of it is being made any more.
async fn question(team: &Team, id: &str) -> Question {
    let start = Instant::now();
    loop {
        let shown = team
            .run(&team.maintainers[0], &["show", id, "--json"], &[])
            .await;
        let question: Question =
            serde_json::from_str(&shown.unwrap().ok().unwrap().stdout).unwrap();
        if question.cards.iter().all(|c| c.outcome != Outcome::Waiting) {
            return question;
        }
        assert!(start.elapsed() < LIMIT, "{:?}", question.cards);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn card(team: &Team, id: &str) -> Card {
    let [card] = question(team, id).await.cards.try_into().unwrap();
    card
}

#[tokio::test]
async fn a_deposit_is_looked_into_and_compared_with_what_is_published() {
    let team = team("mode = \"deposit\"").await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let first = hand_over(&team, &dir).await;
    let seen = card(&team, &first.id).await;
    assert_eq!(
        (seen.outcome, &seen.previous),
        (Outcome::Inspected, &Previous::First)
    );
    team.approve_both(&first).await.unwrap();
    let start = Instant::now();
    while team
        .registry
        .integrity("@acme/left", "1.0.0")
        .await
        .unwrap()
        .is_none()
    {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let dir = team.package("@acme/left", "1.1.0").unwrap();
    let extra = json!({"scripts": {"postinstall": "node index.js"}});
    packages::npm_package(&dir, "@acme/left", "1.1.0", &extra).unwrap();
    // As `git archive` would make it, of a repository in which the script is not.
    let source = team.folder().join("source.tar.gz");
    let index = std::fs::read_to_string(dir.join("index.js")).unwrap();
    let files = [
        ("left/index.js", index.as_str()),
        ("left/package.json", "{}"),
    ];
    std::fs::write(&source, archive(&files)).unwrap();
    let source = source.display().to_string();
    let second = hand_over_with(&team, &dir, &["--source", &source]).await;
    let seen = card(&team, &second.id).await;
    let Previous::Version { version, published } = &seen.previous else {
        panic!("{seen:?}");
    };
    assert_eq!(version, "1.0.0");
    assert!(published.is_some(), "the registry says when");
    let inside = seen.inside.as_ref().unwrap();
    assert_eq!((inside.added, inside.changed, inside.removed), (0, 2, 0));
    assert!(
        inside
            .lines
            .iter()
            .all(|l| l.change == Change::Changed && l.difference.is_some())
    );
    assert_eq!(seen.findings[0].kind, FindingKind::InstallScripts);
    assert_eq!(seen.findings[0].risk, Risk::High);

    let shown = team
        .run(&team.maintainers[0], &["show", &second.id], &[])
        .await
        .unwrap();
    let text = shown.ok().unwrap().stdout;
    for part in [
        "against    version 1.0.0, published 20",
        "HIGH       install-scripts: postinstall is new: node index.js",
        "~ package.json",
        "source     as the job handed it in: 1 the same, 1 with other bytes, 1 not in it",
        "source: other bytes than in the source: package.json",
        "3 files",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let diff = |name: &'static str| {
        let (team, id) = (&team, second.id.as_str());
        async move {
            let args = ["show", id, "--diff", name];
            team.run(&team.maintainers[0], &args, &[]).await.unwrap()
        }
    };
    let text = diff("package.json").await.ok().unwrap().stdout;
    assert!(
        text.contains("+    \"postinstall\": \"node index.js\""),
        "{text}"
    );
    assert_eq!(diff("README.md").await.status, Some(5), "it did not change");
}

/// A broker with one maintainer's answer, and this line in its policy.
async fn small(line: &str) -> Small {
    let policy = api::policy_of_one().replacen("quorum = 1", &format!("quorum = 1\n{line}"), 1);
    Small::start(&policy).await.unwrap()
}

/// Hands bytes over to be looked into, in the place of a file of the request.
async fn hand_in(job: &Job, ticket: &str, bytes: &[u8]) -> Reply {
    let digest = &job.facts.items[0].files[0].digest;
    let path = job.path(&format!("/files/{digest}"));
    let bearer = format!("Bearer {ticket}");
    let headers = [("authorization", bearer.as_str())];
    job.api
        .call("PUT", &path, &headers, bytes.to_vec())
        .await
        .unwrap()
}

async fn only_card(small: &Small, job: &Job) -> Card {
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let [card] = question.cards.try_into().unwrap();
    card
}

/// A secret of no registry: made here, so that no scanner takes this file for a leak.
fn secret() -> String {
    format!("npm{}{}", "_", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xLaB3d")
}

#[tokio::test]
async fn a_forwarded_file_is_handed_in_by_the_client_and_looked_into() {
    let team = team("").await;
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    let start = Instant::now();
    let seen = loop {
        let seen = card(&team, &job.id).await;
        if seen.outcome != Outcome::NotGiven {
            break seen;
        }
        assert!(start.elapsed() < LIMIT, "{}", job.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(
        (seen.outcome, &seen.previous),
        (Outcome::Inspected, &Previous::First)
    );
    // Nothing of it stays on the disk.
    let spool = std::fs::read_dir(team.daemon.dir().join("data/spool")).unwrap();
    assert_eq!(spool.count(), 0);
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
}

#[tokio::test]
async fn attack_12_only_the_bytes_of_the_request_are_looked_into() {
    let small = small("").await;
    let package = Packed::new("@acme/left", "1.0.0").unwrap();
    let job = small
        .open(&[package.item("latest").unwrap()])
        .await
        .unwrap();
    let mut other = package.tgz.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    for bad in [&other[..], &package.tgz[..last], b""] {
        let refused = hand_in(&job, &job.ticket, bad).await;
        assert!((400..500).contains(&refused.status), "{}", refused.text);
        assert_eq!(only_card(&small, &job).await.outcome, Outcome::NotGiven);
    }
    let right = Packed::new("@acme/right", "1.0.0").unwrap();
    let stranger = small.open(&[right.item("latest").unwrap()]).await.unwrap();
    assert_eq!(
        hand_in(&job, &stranger.ticket, &package.tgz).await.status,
        404
    );
    let path = stranger.path(&format!("/files/{}", job.facts.items[0].files[0].digest));
    let bearer = format!("Bearer {}", stranger.ticket);
    let headers = [("authorization", bearer.as_str())];
    let reply = job
        .api
        .call("PUT", &path, &headers, package.tgz.clone())
        .await
        .unwrap();
    assert_eq!(reply.status, 400, "no file of that request: {}", reply.text);
    // The right ones; and again, which changes nothing.
    for _ in 0..2 {
        hand_in(&job, &job.ticket, &package.tgz)
            .await
            .ok_status()
            .unwrap();
        assert_eq!(only_card(&small, &job).await.outcome, Outcome::Inspected);
    }
}

#[tokio::test]
async fn attack_53_a_bomb_is_no_card_and_holds_up_nobody() {
    let small = small(BLOCK).await;
    let zeros = vec![0; 40 << 20];
    let json = br#"{"name":"@acme/left","version":"1.0.0"}"#;
    let bomb = packages::tarball(&[("package/package.json", json), ("package/z", &zeros)]).unwrap();
    let files: [(&str, &[u8]); 2] = [("package/package.json", json), ("package/l", b"")];
    let mut after_end = packages::stored_tarball(&files).unwrap();
    after_end.push(0);
    let deep = format!("package/{}x", "d/".repeat(45));
    let deep = packages::tarball(&[("package/package.json", json), (&deep, b"x")]).unwrap();
    let escaping =
        packages::tarball(&[("package/package.json", json), ("package/../../x", b"x")]).unwrap();
    let mut jobs = Vec::new();
    for (n, bytes) in [bomb, after_end, deep, escaping, b"not an archive".to_vec()]
        .iter()
        .enumerate()
    {
        let item = api::item("npm", "@acme/left", &format!("1.0.{n}"), "latest", bytes).unwrap();
        jobs.push((small.open(&[item]).await.unwrap(), bytes.clone()));
    }
    let hand_all_in = async {
        for (job, bytes) in &jobs {
            hand_in(job, &job.ticket, bytes).await.ok_status().unwrap();
        }
    };
    let mut hand_all_in = std::pin::pin!(hand_all_in);
    let mut slowest = Duration::ZERO;
    loop {
        let start = Instant::now();
        tokio::select! {
            () = &mut hand_all_in => break,
            inbox = small.alice.inbox() => inbox.unwrap().ok_status().unwrap(),
        }
        slowest = slowest.max(start.elapsed());
    }
    eprintln!("the slowest look at the inbox meanwhile took {slowest:?}");
    for (n, (job, _)) in jobs.iter().enumerate() {
        let outcome = only_card(&small, job).await.outcome;
        // Forty-five folders deep is unusual and unambiguous: its package.json is another matter.
        let want = if n == 2 {
            Outcome::Inspected
        } else {
            Outcome::Failed
        };
        assert_eq!(outcome, want, "{n}");
        if n != 2 {
            let refused = small.alice.approve(job).await.unwrap();
            assert!(
                refused.text.contains("cannot look into them"),
                "{}",
                refused.text
            );
        }
    }
}

#[tokio::test]
async fn a_secret_is_not_approved_and_what_nobody_saw_is_not_where_the_policy_says_so() {
    let small = small(BLOCK).await;
    let leak = json!({"left": {"token": secret()}});
    let leak = Packed::with("@acme/left", "1.0.0", &leak).unwrap();
    let job = small.open(&[leak.item("latest").unwrap()]).await.unwrap();
    let unseen = small.alice.approve(&job).await.unwrap();
    assert!(unseen.text.contains("they are not yet"), "{}", unseen.text);
    hand_in(&job, &job.ticket, &leak.tgz)
        .await
        .ok_status()
        .unwrap();
    let refused = small.alice.approve(&job).await.unwrap();
    assert!(
        refused
            .text
            .contains("looks like an npm token: package.json line 1"),
        "{}",
        refused.text
    );
    assert!(!refused.text.contains(&secret()));
    assert_eq!(job.state().await.unwrap(), "pending");

    let clean = Packed::new("@acme/left", "1.0.1").unwrap();
    let job = small.open(&[clean.item("latest").unwrap()]).await.unwrap();
    hand_in(&job, &job.ticket, &clean.tgz)
        .await
        .ok_status()
        .unwrap();
    small
        .alice
        .approve(&job)
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    let credential = job.credential().await.unwrap();
    let document = clean.document("latest").unwrap();
    let put = small
        .endpoint()
        .unwrap()
        .put("@acme/left", &credential, document)
        .await
        .unwrap();
    assert_eq!(put.status, 201, "{}", put.text);
}

#[tokio::test]
async fn what_must_be_unchanged_is_and_a_risk_raises_the_factor() {
    let small = small(
        "scan = \"show\"\nrequire_unchanged = [\"install-scripts\"]\nrisky_factors = [\"totp\"]",
    )
    .await;
    let first = Packed::new("@acme/left", "1.0.0").unwrap();
    let job = small.open(&[first.item("latest").unwrap()]).await.unwrap();
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    assert_eq!(
        question.factors,
        [proto::answer::Factor::Totp],
        "nobody has seen it"
    );
    hand_in(&job, &job.ticket, &first.tgz)
        .await
        .ok_status()
        .unwrap();
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    assert_eq!(question.factors.len(), 2, "nothing stands out");
    small
        .alice
        .approve(&job)
        .await
        .unwrap()
        .ok_status()
        .unwrap();
    let credential = job.credential().await.unwrap();
    let document = first.document("latest").unwrap();
    let put = small
        .endpoint()
        .unwrap()
        .put("@acme/left", &credential, document)
        .await
        .unwrap();
    assert_eq!(put.status, 201, "{}", put.text);

    let hook = json!({"scripts": {"postinstall": "node index.js"}});
    let second = Packed::with("@acme/left", "1.0.1", &hook).unwrap();
    let job = small.open(&[second.item("latest").unwrap()]).await.unwrap();
    hand_in(&job, &job.ticket, &second.tgz)
        .await
        .ok_status()
        .unwrap();
    let refused = small.alice.approve(&job).await.unwrap();
    assert!(
        refused.text.contains("`install-scripts` unchanged"),
        "{}",
        refused.text
    );
}

/// Hands in the source of a request.
async fn hand_in_source(job: &Job, bytes: &[u8]) -> Reply {
    let bearer = format!("Bearer {}", job.ticket);
    let headers = [("authorization", bearer.as_str())];
    let path = job.path("/source");
    job.api
        .call("PUT", &path, &headers, bytes.to_vec())
        .await
        .unwrap()
}

/// A `.tar.gz` of these files, as `git archive` makes it.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Approves and publishes with the job's credential.
async fn publish(small: &Small, job: &Job, package: &Packed) {
    small.alice.approve(job).await.unwrap().ok_status().unwrap();
    let credential = job.credential().await.unwrap();
    let document = package.document("latest").unwrap();
    let endpoint = small.endpoint().unwrap();
    let put = endpoint.put(&package.name, &credential, document).await;
    let put = put.unwrap();
    assert_eq!(put.status, 201, "{}", put.text);
}

#[tokio::test]
async fn the_source_as_the_job_handed_it_in_is_compared_with_and_wanted_where_the_policy_says() {
    let small =
        small("scan = \"show\"\nrequire_unchanged = [\"source\"]\nrisky_factors = \"any\"").await;
    let package = Packed::new("@acme/left", "1.0.0").unwrap();
    let item = || [package.item("latest").unwrap()];
    // Without a source it is said, and here it is a no.
    let job = small.open(&item()).await.unwrap();
    hand_in(&job, &job.ticket, &package.tgz)
        .await
        .ok_status()
        .unwrap();
    assert_eq!(only_card(&small, &job).await.inside.unwrap().source, None);
    let refused = small.alice.approve(&job).await.unwrap();
    assert!(refused.text.contains("--source"), "{}", refused.text);
    job.cancel().await.unwrap().ok_status().unwrap();

    let job = small.open(&item()).await.unwrap();
    for bad in [&b"no archive"[..], b""] {
        let refused = hand_in_source(&job, bad).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
    let other = archive(&[("index.js", "something else"), ("README.md", "x")]);
    for _ in 0..2 {
        hand_in_source(&job, &other).await.ok_status().unwrap();
    }
    let another = archive(&[("index.js", "")]);
    let refused = hand_in_source(&job, &another).await;
    assert_eq!(refused.status, 400, "once: {}", refused.text);
    hand_in(&job, &job.ticket, &package.tgz)
        .await
        .ok_status()
        .unwrap();
    let card = only_card(&small, &job).await;
    let source = card.inside.as_ref().unwrap().source.unwrap();
    assert!(source.differ > 0 && source.absent > 0, "{source:?}");
    let kinds: Vec<_> = card.findings.iter().map(|f| f.kind).collect();
    assert!(kinds.contains(&FindingKind::Source), "{kinds:?}");
    let refused = small.alice.approve(&job).await.unwrap();
    assert!(
        refused.text.contains("`source` unchanged"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn attack_53_a_request_of_too_many_bytes_is_read_in_part_and_that_is_told() {
    let small = small(BLOCK).await;
    let package = |n: usize| Packed::new(&format!("@acme/p{n}"), "1.0.0").unwrap();
    let first = package(0);
    let mut items = vec![first.item("latest").unwrap()];
    for n in 1..=17 {
        let mut item = package(n).item("latest").unwrap();
        // More than there is room for in all.
        item.files[0].size = 64 << 20;
        items.push(item);
    }
    let job = small.open(&items).await.unwrap();
    hand_in(&job, &job.ticket, &first.tgz)
        .await
        .ok_status()
        .unwrap();
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let outcomes: Vec<_> = question.cards.iter().map(|c| c.outcome).collect();
    assert_eq!(outcomes.len(), 18);
    assert_eq!(outcomes[0], Outcome::Inspected);
    assert!(outcomes[1..16].iter().all(|o| *o == Outcome::NotGiven));
    assert_eq!(outcomes[16..], [Outcome::LeftOut, Outcome::LeftOut]);
    assert!(
        question
            .warnings
            .iter()
            .any(|w| w.contains("2 files were NOT read")),
        "{:?}",
        question.warnings
    );
    let bearer = format!("Bearer {}", job.ticket);
    let digest = &job.facts.items[17].files[0].digest;
    let headers = [("authorization", bearer.as_str())];
    let path = job.path(&format!("/files/{digest}"));
    let reply = job.api.call("PUT", &path, &headers, vec![0]).await.unwrap();
    assert_eq!(reply.status, 400, "it is not asked for: {}", reply.text);
}

#[tokio::test]
async fn what_a_release_does_for_the_first_time_is_told() {
    let small = small("").await;
    let workflow = ".github/workflows/release.yml";
    let first = Packed::new("@acme/left", "1.0.0").unwrap();
    let job = small.open(&[first.item("latest").unwrap()]).await.unwrap();
    let told = |q: &Question| {
        let ours = |w: &&String| w.contains("the first release") || w.contains("the workflow");
        q.warnings.iter().filter(ours).cloned().collect::<Vec<_>>()
    };
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let none: [String; 0] = [];
    assert_eq!(told(&question), none, "nothing is known");
    let source = archive(&[(workflow, "on: push"), ("index.js", "")]);
    hand_in_source(&job, &source).await.ok_status().unwrap();
    publish(&small, &job, &first).await;

    let second = Packed::new("@acme/left", "1.0.1").unwrap();
    let items = [second.item("latest").unwrap()];
    let changes = json!({"actor": "eve", "actor_id": "8", "runner_environment": "self-hosted", "ref": "refs/tags/v1.0.1"});
    let start = Instant::now();
    let open = |n: u128| {
        let (small, items, changes) = (&small, &items, &changes);
        async move {
            let token = small.token_with(changes).await.unwrap();
            Job::open(&small.daemon, &token, items, &format!("key {n}"))
                .await
                .unwrap()
        }
    };
    let (lines, job) = loop {
        let job = open(start.elapsed().as_nanos()).await;
        let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
        // It is remembered when the finished request moves to the history.
        if !told(&question).is_empty() {
            break (told(&question), job);
        }
        job.cancel().await.unwrap().ok_status().unwrap();
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(
        lines,
        [
            "whether the workflow .github/workflows/release.yml changed is not known: it was in the source of a \
             release before, and is in none that this job handed in",
            "the first release of npm:@acme/left on a runner of the kind self-hosted",
            "the first release of npm:@acme/left by a job that was started by eve",
        ]
    );
    let changed = archive(&[(workflow, "on: workflow_dispatch"), ("index.js", "")]);
    hand_in_source(&job, &changed).await.ok_status().unwrap();
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    let gravest = told(&question).remove(0);
    assert!(
        gravest.starts_with(
            "the workflow .github/workflows/release.yml changed since its last release"
        ),
        "{gravest}"
    );
    job.cancel().await.unwrap().ok_status().unwrap();
    let job = open(0).await;
    hand_in_source(&job, &source).await.ok_status().unwrap();
    let question: Question = small.alice.question(job.id).await.unwrap().ok().unwrap();
    assert_eq!(told(&question).len(), 2, "{:?}", told(&question));
}
