//! Devices as witnesses: a real broker's database is rolled back or rewritten, and a terminal and a phone that saw more
//! approve nothing there, and can still say no. And the tiles from which others read the log.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::log::{
    checkpoint::{Checkpoint, LogKey},
    merkle::{
        Frontier, Node, TreeHash, consistency_plan, leaf_hash, prove, root, verify_consistency,
        verify_inclusion,
    },
    tile,
};
use serde_json::{Value, json};
use stand::{
    Output,
    browser::Browser,
    people::{Device, NO_REGISTRY, Office, phone_policy},
    rows,
};
use std::{fs, path::Path};

async fn run(office: &Office, person: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    office.run(person, args, env).await.unwrap()
}

/// A copy of the data folder, as a backup by hand would be.
async fn copied(office: &mut Office) -> std::path::PathBuf {
    let dir = office.daemon.dir().to_owned();
    office.daemon.kill9();
    rows::copy_folder(&dir.join("data"), &dir.join("yesterday")).unwrap();
    office.daemon.restart().await.unwrap();
    dir.join("yesterday")
}

async fn rolled_back(office: &mut Office, to: &Path) {
    let data = office.daemon.dir().join("data");
    office.daemon.kill9();
    rows::copy_folder(to, &data).unwrap();
    office.daemon.restart().await.unwrap();
}

fn kept(office: &Office, person: &str) -> Option<Checkpoint> {
    let path = office.daemon.dir().join(person).join("profile.toml");
    let profile: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let note = profile.get("checkpoint")?.as_str()?;
    Checkpoint::read_unverified(note).ok()
}

#[tokio::test]
async fn attack_45_a_database_rolled_back_gets_no_approval_from_a_terminal_that_saw_more() {
    let policy = phone_policy(1, r#"["device"]"#);
    let mut office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    office.terminal("alice", false).await.unwrap();
    // The enrolment pinned the first checkpoint.
    let first = kept(&office, "alice").unwrap();
    assert!(first.size > 0);
    let yesterday = copied(&mut office).await;
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let (id, code) = (job.opened.id.to_string(), job.opened.match_code.clone());
    let args = ["approve", &id, "--match-code", &code];
    let out = run(&office, "alice", &args, &[]).await;
    assert!(out.success(), "{out}");
    // What it keeps now has its own answer in it.
    let seen = kept(&office, "alice").unwrap();
    assert!(seen.size > first.size + 1, "{} {}", seen.size, first.size);

    rolled_back(&mut office, &yesterday).await;
    let job = office.open("@acme/left", "1.0.1", b"b").await.unwrap();
    let (id, code) = (job.opened.id.to_string(), job.opened.match_code.clone());
    let args = ["approve", &id, "--match-code", &code];
    let out = run(&office, "alice", &args, &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
    let told = format!("but had {} when this device saw it last", seen.size);
    assert!(out.stderr.contains(&told), "{out}");
    assert!(out.stderr.contains("Ask the admins"), "{out}");
    assert_eq!(job.state().await.unwrap(), "pending");
    // The same once the new log has outgrown the old one.
    for at in 0..8 {
        let name = format!("@acme/other{at}");
        office.open(&name, "1.0.0", b"x").await.unwrap();
    }
    let out = run(&office, "alice", &args, &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
    let told = format!("does not begin with the {} entries", seen.size);
    assert!(out.stderr.contains(&told), "{out}");
    assert_eq!(job.state().await.unwrap(), "pending");
    let out = run(&office, "alice", &["log"], &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
    // An export that the broker signs is no log that this device saw, either.
    let device = Device::of(
        proto::device::DeviceKey::from_seed(*office.admin.key.expose_seed()).unwrap(),
        &office.admin.otpauth,
        &office.admin.url,
    );
    let export = office.daemon.dir().join("export").display().to_string();
    whole(&device.unwrap(), &export).await;
    let out = run(&office, "alice", &["verify", &export, "--device"], &[]).await;
    assert_eq!(out.status, Some(1), "{out}");
    assert!(out.stderr.contains("it was rewritten"), "{out}");
    // Who only looks is told.
    let out = run(&office, "alice", &["inbox"], &[]).await;
    assert!(out.success() && out.stderr.contains("rolled back"), "{out}");
    // A no works as ever.
    let out = run(&office, "alice", &["deny", &id], &[]).await;
    assert!(out.success(), "{out}");
    assert_eq!(job.state().await.unwrap(), "denied");
    assert_eq!(
        kept(&office, "alice").unwrap(),
        seen,
        "it still keeps the truth"
    );

    // Knowingly: what was lost is named, and both checkpoints are kept.
    let out = run(&office, "alice", &["log", "accept"], &[]).await;
    assert_eq!(out.status, Some(2), "nobody can type here: {out}");
    let out = run(&office, "alice", &["log", "accept", "--yes"], &[]).await;
    assert!(out.success(), "{out}");
    assert!(out.stderr.contains("Lost: some of the first"), "{out}");
    let home = fs::read_dir(office.daemon.dir().join("alice")).unwrap();
    let names = home.map(|e| e.unwrap().file_name().into_string().unwrap());
    let fork = names.into_iter().find(|n| n.starts_with("fork-")).unwrap();
    let fork = fs::read(office.daemon.dir().join("alice").join(fork)).unwrap();
    let fork: Value = serde_json::from_slice(&fork).unwrap();
    let key: LogKey = fork["log_key"].as_str().unwrap().parse().unwrap();
    for note in ["kept", "shown"] {
        assert!(Checkpoint::open(fork[note].as_str().unwrap(), &key).is_ok());
    }
    let job = office.open("@acme/left", "1.0.2", b"c").await.unwrap();
    let (id, code) = (job.opened.id.to_string(), job.opened.match_code.clone());
    let args = ["approve", &id, "--match-code", &code];
    let out = run(&office, "alice", &args, &[]).await;
    assert!(out.success(), "{out}");
}

/// Writes the whole log with its checkpoint, as `admin audit export` does.
async fn whole(admin: &Device, path: &str) {
    let (_, note) = admin.bytes("/v1/log/checkpoint").await.unwrap();
    let note = String::from_utf8(note).unwrap();
    let (_, lines) = admin.bytes("/v1/log/export?from=0").await.unwrap();
    let size = Checkpoint::read_unverified(&note).unwrap().size;
    let mut text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().count() as u64, size);
    text.push_str(&json!({ "checkpoint": note }).to_string());
    text.push('\n');
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn attack_46_an_edited_log_that_the_broker_itself_signs_anew_gets_no_approval() {
    let policy = phone_policy(1, r#"["device"]"#);
    let mut office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    office.terminal("alice", false).await.unwrap();
    let seen = kept(&office, "alice").unwrap();
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let (id, code) = (job.opened.id.to_string(), job.opened.match_code.clone());
    let args = ["approve", &id, "--match-code", &code];
    office.daemon.kill9();
    rows::rewrite_entry(&office.daemon.dir().join("data"), 1).unwrap();
    office.daemon.restart().await.unwrap();
    let out = run(&office, "alice", &args, &[]).await;
    assert_eq!(out.status, Some(5), "{out}");
    let told = format!("does not begin with the {} entries", seen.size);
    assert!(out.stderr.contains(&told), "{out}");
    assert_eq!(job.state().await.unwrap(), "pending");
    // Before that, nobody would have noticed: the broker's own checkpoint is signed and fits its log.
    let shown = office.admin.get("/v1/log/checkpoint").await.unwrap();
    assert!(shown.success(), "{}", shown.body);
    let out = run(&office, "alice", &["deny", &id, "--freeze"], &[]).await;
    assert!(out.success(), "{out}");
}

#[tokio::test]
async fn attack_45_a_phone_that_saw_more_approves_nothing_and_can_still_deny() {
    let policy = phone_policy(1, r#"["passkey"]"#);
    let mut office = Office::of_phones(&policy).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let yesterday = copied(&mut office).await;
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone
        .fill("Match code", &job.opened.match_code)
        .await
        .unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
    let log = format!("{}/log", office.daemon.url);
    phone.goto(&log).await.unwrap();
    phone
        .sees("It continues what this browser saw")
        .await
        .unwrap();

    rolled_back(&mut office, &yesterday).await;
    let job = office.open("@acme/left", "1.0.1", b"b").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    let said = phone.sees("it was rolled back").await.unwrap();
    for shown in [
        "You can deny it.",
        "Ask the admins",
        "What this browser saw of the log",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert!(!said.contains("Publish exactly this?"), "{said}");
    assert_eq!(job.state().await.unwrap(), "pending");
    phone
        .goto(&format!("{}/", office.daemon.url))
        .await
        .unwrap();
    phone.sees("it was rolled back").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("You can deny it.").await.unwrap();
    phone.unfold("Deny").await.unwrap();
    phone.click("Deny").await.unwrap();
    phone.sees("enied by alice").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "denied");

    // Knowingly.
    phone.goto(&log).await.unwrap();
    phone.sees("it was rolled back").await.unwrap();
    phone.unfold("The admins restored a backup").await.unwrap();
    phone.click("Go on with this log").await.unwrap();
    phone.sees("Ask the admins first").await.unwrap();
    let field = "Type accept if an admin told you so, on another way";
    phone.fill(field, "accept").await.unwrap();
    phone.click("Go on with this log").await.unwrap();
    phone
        .sees("It continues what this browser saw")
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.0.2", b"c").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone
        .fill("Match code", &job.opened.match_code)
        .await
        .unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("1 of 1 approvals: alice").await.unwrap();
}

#[tokio::test]
async fn attack_45_a_question_that_is_open_on_the_screen_is_not_approved_at_an_older_log_either() {
    let policy = phone_policy(1, r#"["passkey"]"#);
    let office = Office::of_phones(&policy).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    phone
        .fill("Match code", &job.opened.match_code)
        .await
        .unwrap();
    // Another tab of this browser has seen more meanwhile than the broker shows now.
    let more = r#"(async () => {
        const at = [...document.querySelectorAll("link[rel=modulepreload]")].find((l) => l.href.endsWith("/device.js"));
        const { keepSeen, seen } = await import(at.href);
        const last = await seen();
        await keepSeen({ ...last, size: last.size + 100 });
    })()"#;
    phone.run(more).await.unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("it was rolled back").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
}

/// The proofs that a browser takes, for all trees of 34 leaves, and every one of them spoilt.
#[tokio::test]
async fn attack_46_a_phone_takes_every_proof_of_consistency_and_no_spoilt_one() {
    let policy = phone_policy(1, r#"["passkey"]"#);
    let office = Office::of_phones(&policy).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let leaves: Vec<_> = (0..34u8).map(|n| leaf_hash(&[n])).collect();
    let roots: Vec<_> = (0..=34).map(|size| root(&leaves[..size])).collect();
    let mut proofs = Vec::new();
    for to in 1..=34u64 {
        for from in 0..=to {
            let node = |n: Node| {
                let start = usize::try_from(n.index << n.level).unwrap();
                Ok(root(&leaves[start..start + (1 << n.level)]))
            };
            let plan = consistency_plan(from, to).unwrap();
            let proof = prove::<std::convert::Infallible>(&plan, node).unwrap();
            proofs.push(json!({"from": from, "to": to, "proof": proof}));
        }
    }
    let all = json!({"roots": roots, "consistency": proofs}).to_string();
    let code = r#"(async () => {
        const at = [...document.querySelectorAll("link[rel=modulepreload]")].find((l) => l.href.endsWith("/witness.js"));
        const { continues } = await import(at.href);
        const v = ALL;
        const tree = (size) => ({ size, root: v.roots[size] });
        const flip = (hash) => (hash[0] === "0" ? "1" : "0") + hash.slice(1);
        let [right, wrong] = [0, 0];
        for (const { from, to, proof } of v.consistency) {
          if (await continues(tree(from), tree(to), proof)) right++;
          const spoilt = proof.map((_, at) => proof.map((hash, i) => (i === at ? flip(hash) : hash)));
          spoilt.push([...proof, v.roots[1]]);
          if (proof.length) spoilt.push(proof.slice(1), proof.slice(0, -1));
          for (const bad of spoilt) if (await continues(tree(from), tree(to), bad)) wrong++;
          if (await continues({ size: from, root: flip(v.roots[from]) }, tree(to), proof)) wrong++;
          // To the empty log anything is a continuation.
          if (from > 0 && await continues(tree(from), { size: to, root: flip(v.roots[to]) }, proof)) wrong++;
        }
        return [right, v.consistency.length, wrong];
    })()"#;
    let done = phone.run(&code.replace("ALL", &all)).await.unwrap();
    assert!(done[1].as_u64().unwrap() > 600, "{done}");
    assert_eq!(done[0], done[1]);
    assert_eq!(done[2], 0, "a spoilt proof was taken");
}

async fn bytes(device: &Device, path: &str) -> Option<Vec<u8>> {
    let reply = device.bytes(path).await.unwrap();
    (reply.0 == 200).then_some(reply.1)
}

#[tokio::test]
async fn tiles_alone_give_the_tree_that_the_checkpoint_signs() {
    let policy = phone_policy(1, r#"["device"]"#);
    let office = Office::start(&policy, NO_REGISTRY).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    // More than a tile of entries.
    for at in 0..270 {
        let package = json!({ "package": format!("npm:@acme/p{at}") });
        let frozen = office.admin.post("/v1/admin/freeze", package).await;
        assert!(frozen.unwrap().success());
    }
    let note = bytes(&alice, "/v1/log/checkpoint").await.unwrap();
    let point = Checkpoint::read_unverified(std::str::from_utf8(&note).unwrap()).unwrap();
    let (full, rest) = (point.size / 256, point.size % 256);
    assert!(full >= 1 && rest > 0, "{}", point.size);
    let mut hashes: Vec<TreeHash> = Vec::new();
    let mut entries = Vec::new();
    for n in 0..=full {
        let place = if n < full {
            format!("{n:03}")
        } else {
            format!("{n:03}.p/{rest}")
        };
        let tile = bytes(&alice, &format!("/v1/log/tile/0/{place}"))
            .await
            .unwrap();
        hashes.extend(tile.chunks(32).map(|h| TreeHash(h.try_into().unwrap())));
        let path = format!("/v1/log/tile/entries/{place}");
        let bundle = bytes(&office.admin, &path).await.unwrap();
        let read = tile::entries(&bundle).unwrap();
        entries.extend(read.into_iter().map(<[u8]>::to_vec));
        // Entries name people: who is no admin does not read them.
        assert_eq!(bytes(&alice, &path).await, None);
    }
    assert_eq!(root(&hashes), point.root);
    let leaves: Vec<_> = entries.iter().map(|e| leaf_hash(e)).collect();
    assert_eq!(leaves, hashes);
    let above = bytes(&alice, &format!("/v1/log/tile/1/000.p/{full}")).await;
    let first = root(&hashes[..256]);
    assert_eq!(&above.unwrap()[..32], first.0);
    // What is not there yet, and what never will be.
    for absent in [
        format!("/v1/log/tile/0/{full:03}"),
        "/v1/log/tile/9/000".into(),
        "/v1/log/tile/0/x001/000".into(),
        "/v1/log/tile/0/0".into(),
        "/v1/log/tile/0/000.p/0".into(),
        format!("/v1/log/tile/entries/{full:03}"),
    ] {
        assert_eq!(bytes(&office.admin, &absent).await, None, "{absent}");
    }
    // The proofs that are served are those of this tree.
    for from in [0, 1, 7, 256, point.size] {
        let path = format!("/v1/log/consistency?from={from}");
        let proof: proto::api::LogProof = alice.get(&path).await.unwrap().ok().unwrap();
        let now = Checkpoint::read_unverified(&proof.checkpoint).unwrap();
        assert_eq!(now, point);
        let mut frontier = Frontier::default();
        for hash in &hashes[..usize::try_from(from).unwrap()] {
            frontier.push(*hash);
        }
        let (old, new) = ((from, &frontier.root()), (now.size, &now.root));
        assert!(verify_consistency(old, new, &proof.proof), "{from}");
        let path = format!("/v1/log/inclusion?index={from}");
        let reply = alice.get(&path).await.unwrap();
        if from == point.size {
            assert_eq!(reply.code(), "not-found");
            continue;
        }
        let proof: proto::api::LogProof = reply.ok().unwrap();
        let leaf = &hashes[usize::try_from(from).unwrap()];
        let inside = verify_inclusion(leaf, from, now.size, &now.root, &proof.proof);
        assert!(inside, "{from}");
    }
}
