//! Witnesses of the log that are no device of the house: a real broker, and witnesses in another language that keep the
//! rules, break them, hang, and remember more than the broker does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{
    api::WitnessState,
    log::{
        checkpoint::Checkpoint,
        cosignature::{WitnessKey, demand},
    },
};
use serde_json::{Value, json};
use stand::{
    Output,
    daemon::Daemon,
    parts::Verdaccio,
    people::{Device, NO_REGISTRY, Office, archive, phone_policy},
    rows,
    witness::Witness,
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// How long the broker may take to notice something.
const LIMIT: Duration = Duration::from_mins(1);

/// A broker whose log these cosign. They know its log from its first minute on.
async fn office(witnesses: &[&Witness], registry: &str) -> Office {
    let settings: String = witnesses.iter().map(|w| w.setting()).collect();
    let builder = Daemon::builder().extra(&settings);
    let policy = phone_policy(1, r#"["totp"]"#);
    let office = Office::start_as(builder, &policy, registry).await.unwrap();
    let log = log_key(&office).await;
    for witness in witnesses {
        witness.knows(&log).await.unwrap();
    }
    office
}

async fn log_key(office: &Office) -> String {
    let status: Value = office.admin.get("/v1/status").await.unwrap().ok().unwrap();
    status["log_key"].as_str().unwrap().to_owned()
}

async fn note(device: &Device, path: &str) -> Option<String> {
    let (status, bytes) = device.bytes(path).await.unwrap();
    (status == 200).then(|| String::from_utf8(bytes).unwrap())
}

fn key(witness: &Witness) -> WitnessKey {
    witness.vkey.parse().unwrap()
}

async fn states(office: &Office) -> Vec<WitnessState> {
    let reply = office.admin.get("/v1/admin/witnesses").await.unwrap();
    reply.ok().unwrap()
}

/// The state of a witness, once this holds of it.
async fn state(
    office: &Office,
    of: &Witness,
    holds: impl Fn(&WitnessState) -> bool,
) -> WitnessState {
    let start = Instant::now();
    loop {
        let all = states(office).await;
        let one = all.into_iter().find(|one| one.witness == of.vkey).unwrap();
        if holds(&one) {
            return one;
        }
        assert!(start.elapsed() < LIMIT, "{one:?}\n{}", office.daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One more act that the log has.
async fn freeze(office: &Office, name: &str) {
    let package = json!({ "package": format!("npm:@acme/{name}") });
    let frozen = office.admin.post("/v1/admin/freeze", package).await;
    assert!(frozen.unwrap().success());
}

async fn all_seen(office: &Office, witness: &Witness) -> u64 {
    let now = note(&office.admin, "/v1/log/checkpoint").await.unwrap();
    let size = Checkpoint::read_unverified(&now).unwrap().size;
    let seen = witness.until("it sees all", |seen| seen.size >= size);
    seen.await.unwrap().size
}

async fn refusing(office: &Office) -> u64 {
    let refusing = office.daemon.metric("countersign_witnesses_refusing");
    refusing.await.unwrap()
}

async fn of_type(office: &Office, kind: &str) -> Vec<Value> {
    let all = office.events().await.unwrap();
    all.into_iter().filter(|e| e["type"] == kind).collect()
}

async fn verify(office: &Office, args: &[&str]) -> Output {
    let all: Vec<_> = std::iter::once("verify")
        .chain(args.iter().copied())
        .collect();
    // No broker is there to be asked.
    let env = [("COUNTERSIGN_BROKER", NO_REGISTRY)];
    office.run("nobody", &all, &env).await.unwrap()
}

#[tokio::test]
async fn what_witnesses_cosigned_is_on_receipts_and_exports_and_verified_offline() {
    let one = Witness::start("one.example/w").await.unwrap();
    let two = Witness::start("two.example/w").await.unwrap();
    let stranger = Witness::start("stranger.example/w").await.unwrap();
    let registry = Verdaccio::start().await.unwrap();
    let mut office = office(&[&one, &two], &registry.url).await;
    office.add_token("npm", "*", &registry.token).await.unwrap();
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    // The last, since a second admin has a say in whatever the first one does.
    office.terminal("rob", true).await.unwrap();
    let bytes = archive("@acme/left", "1.0.0").unwrap();
    let job = office.open("@acme/left", "1.0.0", &bytes).await.unwrap();
    let approved = alice.approve(&job, Some(&alice.code(0).unwrap())).await;
    approved.unwrap().ok::<Value>().unwrap();
    let credential = job.open(&job.collect().await.unwrap()).unwrap();
    job.put(&credential, &bytes)
        .await
        .unwrap()
        .ok::<Value>()
        .unwrap();
    let folder = office.daemon.dir().to_owned();
    let file = |name: &str| folder.join(name).display().to_string();
    let (receipt, log) = (file("receipt.json"), file("log.jsonl"));
    let id = job.opened.id.to_string();
    // Right behind the publish; it waits for those who have to look first.
    let args = ["receipt", &id, "--out", &receipt, "--cosigned", "2"];
    let out = office.run("rob", &args, &[]).await.unwrap();
    assert!(out.success(), "{out}");
    all_seen(&office, &one).await;
    all_seen(&office, &two).await;

    // Both over one checkpoint, and it is the newest while nothing happens.
    let newest = note(&office.admin, "/v1/log/checkpoint?cosigned=2")
        .await
        .unwrap();
    assert_eq!(
        demand(&newest, &[key(&one), key(&two)], 2).unwrap().len(),
        2
    );
    assert_eq!(
        note(&office.admin, "/v1/log/checkpoint?cosigned=3").await,
        None
    );
    for witness in [&one, &two] {
        let well = state(&office, witness, |s| s.failing.is_none()).await;
        assert!(
            well.refused.is_none() && well.entries.unwrap() > 10,
            "{well:?}"
        );
    }

    let export = ["admin", "audit", "export", "--out", &log, "--cosigned", "2"];
    let out = office.run("rob", &export, &[]).await.unwrap();
    assert!(out.success(), "{out}");
    let key_file = file("log.vkey");
    fs::write(&key_file, log_key(&office).await).unwrap();
    office.daemon.kill9();

    let (w1, w2, w3) = (&one.vkey, &two.vkey, &stranger.vkey);
    for path in [&receipt, &log] {
        let base = [path.as_str(), "--key-file", &key_file];
        let with = |more: &[&'static str], keys: &[&str]| {
            let mut all: Vec<String> = base.iter().map(ToString::to_string).collect();
            all.extend(
                keys.iter()
                    .flat_map(|k| ["--witness".to_owned(), (*k).to_owned()]),
            );
            all.extend(more.iter().map(ToString::to_string));
            all
        };
        let run = async |args: Vec<String>| {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            verify(&office, &args).await
        };
        for good in [
            with(&[], &[]),
            with(&[], &[w1, w2]),
            with(&["--witnesses", "2"], &[w1, w3, w2]),
        ] {
            let out = run(good.clone()).await;
            assert!(out.success(), "{good:?}: {out}");
            let named = good.iter().any(|arg| arg == w1);
            assert_eq!(
                out.stdout.contains("cosigned   one.example/w at 20"),
                named,
                "{out}"
            );
        }
        // One that has not is not there, and says so.
        let out = run(with(&[], &[w1, w3])).await;
        assert_eq!(out.status, Some(1), "{out}");
        let said = "1 of 2 witnesses have cosigned it; not by: stranger.example/w";
        assert!(
            out.stderr.contains(said) && out.stderr.contains("Fetch it again"),
            "{out}"
        );
        // The same from a file, with what else stands in one.
        let list = file("witnesses");
        fs::write(&list, format!("# ours\n{w1}\n\n{w2}\n")).unwrap();
        let mut from_file = with(&["--witness-file"], &[]);
        from_file.push(list);
        let out = run(from_file).await;
        assert!(
            out.success() && out.stdout.contains("two.example/w at 20"),
            "{out}"
        );
        // Usage: twice the same, more than there are, none at all.
        for bad in [
            with(&[], &[w1, w1]),
            with(&["--witnesses", "3"], &[w1, w2]),
            with(&["--witnesses", "0"], &[w1]),
            with(&["--witnesses", "1"], &[]),
            with(&["--witness", "x"], &[]),
            // Without the log's key: it may be anybody's log that they cosigned.
            vec![path.clone(), "--witness".to_owned(), w1.clone()],
        ] {
            let out = run(bad.clone()).await;
            assert_eq!(out.status, Some(2), "{bad:?}: {out}");
        }
    }
    // Forged by somebody who writes the file: the log's own signature does not cover what others say to it.
    let text = fs::read_to_string(&log).unwrap();
    let at = text.find("one.example/w ").unwrap() + 40;
    let mut forged = text.clone().into_bytes();
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    fs::write(&log, forged).unwrap();
    let base = [log.as_str(), "--key-file", &key_file];
    let out = verify(&office, &base).await;
    assert!(out.success(), "the log itself is whole: {out}");
    let out = verify(
        &office,
        &[
            &base[..],
            &["--witness", w2, "--witness", w1, "--witnesses", "1"],
        ]
        .concat(),
    )
    .await;
    assert_eq!(out.status, Some(1), "{out}");
    let said = "the cosignature of one.example/w does not hold";
    assert!(
        out.stderr.contains(said) && out.stderr.contains("Do not trust it"),
        "{out}"
    );
}

#[tokio::test]
async fn attack_45_a_database_rolled_back_is_refused_by_its_witness_when_no_device_is_left() {
    let witness = Witness::start("one.example/w").await.unwrap();
    let mut office = office(&[&witness], NO_REGISTRY).await;
    office.terminal("rob", true).await.unwrap();
    all_seen(&office, &witness).await;
    let data = office.daemon.dir().join("data");
    let yesterday = office.daemon.dir().join("yesterday");
    office.daemon.kill9();
    rows::copy_folder(&data, &yesterday).unwrap();
    office.daemon.restart().await.unwrap();
    for at in 0..12 {
        freeze(&office, &format!("p{at}")).await;
    }
    let seen = all_seen(&office, &witness).await;
    assert_eq!(refusing(&office).await, 0);

    // Everything of this machine is put back, the anchor too.
    office.daemon.kill9();
    rows::copy_folder(&yesterday, &data).unwrap();
    office.daemon.restart().await.unwrap();
    let refused = state(&office, &witness, |s| s.refused.is_some()).await;
    let refused = refused.refused.unwrap();
    assert!(
        !refused.forked && refused.seen == seen && refused.entries < seen,
        "{refused:?}"
    );
    let told = of_type(&office, "witness-refused").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["finding"], "shorter");
    assert_eq!(told[0]["seen"], seen);
    assert_eq!(told[0]["witness"], witness.vkey.as_str());
    assert_eq!(refusing(&office).await, 1);
    let out = office.run("rob", &["admin", "status"], &[]).await.unwrap();
    let said = format!(
        "ALARM: the witness one.example/w refuses the log: it has {} entries, and the witness has seen {seen}",
        refused.entries
    );
    assert!(out.stdout.contains(&said), "{out}");
    // It is told once, and stands after a restart; and the broker still does what people ask of it.
    office.daemon.restart().await.unwrap();
    freeze(&office, "q").await;
    let before = witness.seen().await.unwrap().calls;
    witness
        .until("it is asked again", |s| s.calls > before + 1)
        .await
        .unwrap();
    assert_eq!(of_type(&office, "witness-refused").await.len(), 1);
    assert!(state(&office, &witness, |_| true).await.refused.is_some());

    // Once the log has outgrown what the witness saw, it is a fork; the witness never cosigns it.
    for at in 0..20 {
        freeze(&office, &format!("r{at}")).await;
    }
    let forked = |s: &WitnessState| s.refused.as_ref().is_some_and(|r| r.forked);
    state(&office, &witness, forked).await;
    let last = witness.seen().await.unwrap();
    assert_eq!(last.size, seen);
    assert!(last.answers.contains_key("422"), "{last:?}");
    // What it cosigned before the copy was made holds still, and nothing newer is given out as cosigned.
    let newest = note(&office.admin, "/v1/log/checkpoint?cosigned=1").await;
    let size = newest.map_or(0, |note| Checkpoint::read_unverified(&note).unwrap().size);
    assert!(size < refused.entries, "{size}");
}

#[tokio::test]
async fn attack_46_a_log_that_the_broker_itself_signs_anew_is_refused_by_its_witness() {
    let witness = Witness::start("one.example/w").await.unwrap();
    let mut office = office(&[&witness], NO_REGISTRY).await;
    freeze(&office, "left").await;
    let seen = all_seen(&office, &witness).await;
    office.daemon.kill9();
    let data = office.daemon.dir().join("data");
    rows::rewrite_entry(&data, 1).unwrap();
    // Who writes there takes the broker's own memory of the log away too.
    fs::remove_file(data.join("anchor")).unwrap();
    office.daemon.restart().await.unwrap();
    let forked = |s: &WitnessState| s.refused.as_ref().is_some_and(|r| r.forked);
    let refused = state(&office, &witness, forked).await.refused.unwrap();
    assert_eq!(refused.seen, seen);
    let told = of_type(&office, "witness-refused").await;
    assert_eq!(told[0]["finding"], "forked", "{told:?}");
    assert!(
        office
            .daemon
            .log()
            .contains("ALARM: a witness refuses the log")
    );
    // The cosignatures of the log as it was are given out over no other.
    assert_eq!(
        note(&office.admin, "/v1/log/checkpoint?cosigned=1").await,
        None
    );
    let now = note(&office.admin, "/v1/log/checkpoint").await.unwrap();
    assert!(!now.contains("one.example/w"), "{now}");
    assert_eq!(witness.seen().await.unwrap().size, seen);
}

#[tokio::test]
async fn attack_46_who_hangs_lies_or_signs_something_else_delays_nothing_and_is_not_kept() {
    let modes = [
        "hang",
        "junk",
        "long",
        "redirect",
        "status",
        "other-key",
        "other-name",
        "other-body",
        "no-time",
        "conflict",
        "unproved",
        "forbidden",
        "drip",
        "future",
    ];
    let mut all = vec![Witness::start("honest.example").await.unwrap()];
    for mode in modes {
        let witness = Witness::start(&format!("{mode}.example")).await.unwrap();
        witness.answers(mode).await.unwrap();
        all.push(witness);
    }
    let witnesses: Vec<_> = all.iter().collect();
    let office = office(&witnesses, NO_REGISTRY).await;
    let (honest, liars) = (&all[0], &all[1..]);
    // Acts go on while one hangs, and the honest one sees each of them.
    let hanging = &liars[0];
    hanging.until("it is asked", |s| s.calls > 0).await.unwrap();
    for at in 0..3 {
        freeze(&office, &format!("p{at}")).await;
        all_seen(&office, honest).await;
    }
    for liar in liars {
        let name = key(liar).name().to_owned();
        let failing = |s: &WitnessState| s.failing.is_some();
        let state = state(&office, liar, failing).await;
        if ["hang.example", "drip.example"].contains(&name.as_str()) {
            let why = state.failing.as_ref().unwrap().1.as_str();
            assert_eq!(why, "it did not answer in time", "{name}");
        }
        assert_eq!((state.entries, &state.refused), (None, &None), "{state:?}");
        let seen = liar.seen().await.unwrap();
        assert!(
            seen.calls > 0 && !seen.answers.contains_key("elsewhere"),
            "{name}: {seen:?}"
        );
    }
    // One call at a time: whoever hangs for 10 s is called once in that time.
    assert!(hanging.seen().await.unwrap().calls < 5);
    let newest = note(&office.admin, "/v1/log/checkpoint?cosigned=1")
        .await
        .unwrap();
    assert!(key(honest).cosigned(&newest).is_ok());
    assert_eq!(
        newest.matches('\u{2014}').count(),
        2,
        "the log and one witness: {newest}"
    );
    assert!(of_type(&office, "witness-refused").await.is_empty());
    // Who comes to his senses is believed from then on.
    let other = &liars[modes.iter().position(|m| *m == "other-key").unwrap()];
    other.answers("honest").await.unwrap();
    let well = |s: &WitnessState| s.failing.is_none() && s.entries.is_some();
    state(&office, other, well).await;
}

/// Takes the nodes of the log's tree away that nothing needs but old proofs.
fn thin_out(data: &Path) {
    let history = data.join("history.redb");
    let nodes = rows::of_table(&history, "tree").unwrap();
    let leaf = |(key, _): &&(Vec<u8>, Vec<u8>)| key.starts_with(b"tree\0n\0");
    let size = nodes.iter().filter(leaf).count() as u64;
    let needed = |level: u8, index: u64| {
        let whole = size.checked_shr(level.into()).unwrap_or(0);
        level == 0 || (whole & 1 == 1 && index == whole - 1)
    };
    let kept = |key: &[u8]| match key.strip_prefix(b"tree\0n") {
        Some([level, index @ ..]) => needed(*level, u64::from_be_bytes(index.try_into().unwrap())),
        _ => true,
    };
    rows::retain(&history, kept).unwrap();
}

#[tokio::test]
async fn attack_45_whoever_damages_the_tree_and_plants_rows_hides_no_rollback_from_a_witness() {
    let witness = Witness::start("one.example/w").await.unwrap();
    // One behind a proxy that adds to content types.
    let proxied = Witness::start("two.example/w").await.unwrap();
    proxied.answers("sized").await.unwrap();
    let mut office = office(&[&witness, &proxied], NO_REGISTRY).await;
    for at in 0..20 {
        freeze(&office, &format!("a{at}")).await;
    }
    // So many that the proof from there needs nodes inside a larger tree.
    while all_seen(&office, &witness).await.is_multiple_of(32) {
        freeze(&office, "one-more").await;
    }
    all_seen(&office, &proxied).await;
    for one in [&witness, &proxied] {
        one.answers("status").await.unwrap();
    }
    for at in 0..40 {
        freeze(&office, &format!("b{at}")).await;
    }
    // The tree takes entries in when somebody asks for a checkpoint.
    assert!(note(&office.admin, "/v1/log/checkpoint").await.is_some());
    let data = office.daemon.dir().join("data");
    let yesterday = office.daemon.dir().join("yesterday");
    office.daemon.kill9();
    rows::copy_folder(&data, &yesterday).unwrap();
    witness.answers("honest").await.unwrap();
    proxied.answers("sized").await.unwrap();
    office.daemon.restart().await.unwrap();
    for at in 0..12 {
        freeze(&office, &format!("c{at}")).await;
    }
    let seen = all_seen(&office, &witness).await;
    all_seen(&office, &proxied).await;
    office.daemon.kill9();
    rows::copy_folder(&yesterday, &data).unwrap();
    let _ = fs::remove_file(data.join("anchor"));
    thin_out(&data);
    // And more rows than are read at once, that come before each real one.
    let live = data.join("live.redb");
    let row = [b"witness\0", witness.vkey.as_bytes()].concat();
    let like = rows::read(&live, &row).unwrap();
    let planted = (0..1_000).map(|at| (format!("witness\0!{at:04}").into_bytes(), like.clone()));
    rows::write_all(&live, planted).unwrap();
    office.daemon.restart().await.unwrap();
    for one in [&witness, &proxied] {
        let refused = state(&office, one, |s| s.refused.is_some()).await;
        let refused = refused.refused.unwrap();
        assert!(!refused.forked && refused.seen >= seen, "{refused:?}");
    }
    assert!(of_type(&office, "witness-dropped").await.is_empty());
    let log = office.daemon.log();
    assert!(log.contains("cannot be proved to it"), "{log}");
}

#[tokio::test]
async fn attack_46_a_witness_that_says_yes_and_no_by_turns_does_not_fill_the_log() {
    let witness = Witness::start("flap.example").await.unwrap();
    witness.answers("flap").await.unwrap();
    let office = office(&[&witness], NO_REGISTRY).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(25) {
        freeze(&office, &format!("p{}", start.elapsed().as_millis())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let seen = witness.seen().await.unwrap();
    let answered = |status: &str| seen.answers.get(status).copied().unwrap_or(0);
    assert!(answered("409") > 2 && answered("200") > 2, "{seen:?}");
    assert_eq!(of_type(&office, "witness-refused").await.len(), 1);
    assert!(of_type(&office, "witness-agreed").await.len() <= 1);
}

#[tokio::test]
async fn a_witness_that_only_says_that_the_log_was_longer_is_told_by_its_name_and_stops_nothing() {
    let witness = Witness::start("liar.example").await.unwrap();
    witness.answers("larger").await.unwrap();
    let office = office(&[&witness], NO_REGISTRY).await;
    let refused = state(&office, &witness, |s| s.refused.is_some()).await;
    assert_eq!(refused.refused.unwrap().seen, 1_000_000);
    let alice = office
        .hire("alice", &["release"], false, &[])
        .await
        .unwrap();
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let approved = alice.approve(&job, Some(&alice.code(0).unwrap())).await;
    approved.unwrap().ok::<Value>().unwrap();
    // It was wrong, and says so: the log has the end of the alarm too.
    witness.answers("honest").await.unwrap();
    state(&office, &witness, |s| s.refused.is_none()).await;
    assert_eq!(of_type(&office, "witness-agreed").await.len(), 1);
}

#[tokio::test]
async fn attack_47_what_was_cosigned_survives_a_kill_and_the_witnesss_own_end() {
    let mut witness = Witness::start("one.example/w").await.unwrap();
    let mut office = office(&[&witness], NO_REGISTRY).await;
    for at in 0..20 {
        freeze(&office, &format!("p{at}")).await;
        if at % 4 == 0 {
            // Somewhere between growing, asking and keeping.
            tokio::time::sleep(Duration::from_millis(at * 60)).await;
            office.daemon.kill9();
            office.daemon.restart().await.unwrap();
        }
    }
    let size = all_seen(&office, &witness).await;
    state(&office, &witness, |s| s.entries >= Some(size)).await;
    assert!(
        of_type(&office, "witness-refused").await.is_empty(),
        "a crash is no rollback"
    );
    witness.kill9();
    office.daemon.kill9();
    office.daemon.restart().await.unwrap();
    let newest = note(&office.admin, "/v1/log/checkpoint?cosigned=1")
        .await
        .unwrap();
    assert!(Checkpoint::read_unverified(&newest).unwrap().size >= size);
    assert!(key(&witness).cosigned(&newest).is_ok());
    // The witness is away: that is told, and nothing else.
    let away = state(&office, &witness, |s| s.failing.is_some()).await;
    assert_eq!(away.failing.unwrap().1, "it could not be reached");
    // A row of somebody else's is no cosignature, and is written anew.
    office.daemon.kill9();
    let live = office.daemon.dir().join("data/live.redb");
    let row = [b"witness\0", witness.vkey.as_bytes()].concat();
    let mut bytes = rows::read(&live, &row).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    rows::write(&live, &row, Some(&bytes)).unwrap();
    office.daemon.restart().await.unwrap();
    assert_eq!(
        note(&office.admin, "/v1/log/checkpoint?cosigned=1").await,
        None
    );
    assert!(note(&office.admin, "/v1/log/checkpoint").await.is_some());
}

#[tokio::test]
async fn while_the_vault_is_sealed_nothing_is_signed_and_so_nothing_is_posted() {
    let witness = Witness::start("one.example/w").await.unwrap();
    let mut office = office(&[&witness], NO_REGISTRY).await;
    all_seen(&office, &witness).await;
    let sealed = office.admin.post("/v1/admin/seal", json!({})).await;
    assert!(sealed.unwrap().success());
    freeze(&office, "left").await;
    let before = witness.seen().await.unwrap();
    // Two pauses between checkpoints.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let after = witness.seen().await.unwrap();
    assert_eq!((after.calls, after.size), (before.calls, before.size));
    office.daemon.restart().await.unwrap();
    let seen = all_seen(&office, &witness).await;
    assert!(seen > before.size);
    assert!(of_type(&office, "witness-refused").await.is_empty());
}

#[tokio::test]
async fn a_witness_that_the_configuration_names_no_longer_is_told_in_the_log() {
    let witness = Witness::start("one.example/w").await.unwrap();
    let mut office = office(&[&witness], NO_REGISTRY).await;
    all_seen(&office, &witness).await;
    let named = of_type(&office, "witness-named").await;
    assert_eq!(named[0]["witness"], witness.vkey.as_str(), "{named:?}");
    office.daemon.restart().await.unwrap();
    all_seen(&office, &witness).await;
    assert_eq!(of_type(&office, "witness-named").await.len(), 1);
    let config = office.daemon.config_path();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&witness.setting(), "")).unwrap();
    office.daemon.restart().await.unwrap();
    let start = Instant::now();
    while of_type(&office, "witness-dropped").await.is_empty() {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(states(&office).await.is_empty());
    assert_eq!(
        note(&office.admin, "/v1/log/checkpoint?cosigned=1").await,
        None
    );
    // `check` says what is wrong with one, and where.
    let bad = text.replace(&witness.url, "http://witness.example.net");
    fs::write(&config, bad).unwrap();
    let path = config.display().to_string();
    let args = ["check", "--config", &path];
    let out = stand::run(
        &office.daemon.bins.countersignd,
        &args,
        &[],
        office.daemon.dir(),
        LIMIT,
    )
    .await
    .unwrap();
    assert!(
        !out.success() && out.stderr.contains("key `url`: must be https"),
        "{out}"
    );
}
