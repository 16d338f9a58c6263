//! Rotation while jobs publish, and rotation that is killed: at each moment one token is the present one, and it works.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing fails the test, as it should"
)]

use broker::{
    secret::Secret,
    store::{
        Batch, Store as _,
        redb::{Options, Redb},
    },
    vault::{
        Unseal, Vault, release,
        tokens::{self, Back, NewToken, StoredToken, left},
    },
    world::World,
};
use proto::problem::Code;
use serde_json::{Value, json};
use stand::{
    api::{Device, Packed, Reply, Small, policy_of_one},
    daemon::Daemon,
    killed::Killer,
    parts::{Issuer, Verdaccio},
    rows, run,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use tempfile::TempDir;

/// Jobs that publish at once.
const JOBS: usize = 6;
/// Where the child that is killed finds a broker's folder.
const CHILD: &str = "ROTATION_CHILD";
/// What it does there.
const DOES: &str = "ROTATION_CHILD_DOES";
/// The token that it rotates to.
const NEXT: &str = "ROTATION_CHILD_TOKEN";

/// One whole publish of a job of its own.
async fn publish(small: &Small, name: &str, version: &str) -> anyhow::Result<()> {
    let packed = Packed::new(name, version)?;
    let job = small.open(&[packed.item("latest")?]).await?;
    small.alice.approve(&job).await?.ok::<Value>()?;
    let credential = job.credential().await?;
    let endpoint = small.endpoint()?;
    let document = packed.document("latest")?;
    let reply = endpoint.put(name, &credential, document).await?;
    reply.ok_status()?;
    anyhow::ensure!(job.state().await? == "published");
    Ok(())
}

#[tokio::test]
async fn a_rotation_under_load_loses_no_request_and_refuses_none() {
    const ROTATIONS: u64 = 3;
    let small = Small::start(&policy_of_one()).await.unwrap();
    let registry = small.registry.as_ref().unwrap();
    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (small_, over_, count_) = (&small, &over, &count);
    let jobs = (0..JOBS).map(|at| async move {
        for n in 1.. {
            if over_.load(Relaxed) {
                break;
            }
            let name = format!("@acme/job-{at}");
            let done = publish(small_, &name, &format!("{n}.0.0")).await;
            done.unwrap_or_else(|why| panic!("{name} {n}: {why:?}"));
            count_.fetch_add(1, Relaxed);
        }
    });
    let rotating = async {
        let mut published = Vec::new();
        for _ in 0..ROTATIONS {
            let next = registry.another_token().await.unwrap();
            let act = json!({"kind": "rotate-token", "registry": "npm", "scope": "*"});
            let done = small.robin.act(act, Some(&next)).await.unwrap();
            let done: Value = done.ok().unwrap();
            assert_eq!(done["token"]["proof"]["outcome"], "proved", "{done}");
            published.push(count.load(Relaxed));
        }
        // Until each job published with the last one.
        let last = count.load(Relaxed);
        while count.load(Relaxed) < last + 2 * JOBS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.store(true, Relaxed);
        published
    };
    let (published, _) = tokio::join!(rotating, futures_util::future::join_all(jobs));
    println!(
        "{} publishes; at the rotations: {published:?}",
        count.load(Relaxed)
    );

    // The log has each switch and each use, in the order in which they were committed.
    let (mut present, mut uses, mut late) = (1, vec![0; 5], 0);
    for event in events(&small.robin).await {
        let event = &event;
        let version = usize::try_from(event["version"].as_u64().unwrap_or(0)).unwrap();
        match event["type"].as_str().unwrap() {
            "token-rotated" => present = version,
            "token-used" => {
                uses[version] += 1;
                // Taken before the switch, and written down after it.
                if version != present {
                    assert_eq!(version + 1, present, "{event}");
                    late += 1;
                }
            }
            "request-expired" | "conflict" | "token-refused" => panic!("{event}"),
            _ => {}
        }
    }
    println!("uses by version: {uses:?}, {late} of them on their way");
    assert_eq!(present, 4);
    assert_eq!(uses.iter().sum::<usize>(), count.load(Relaxed));
    assert!(uses[1] > 0 && uses[4] >= JOBS, "{uses:?}");
    assert!(late <= JOBS * 3, "{late} took an old one");
}

async fn events(by: &Device) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let path = format!("/v1/log/export?from={}&limit=1000", all.len());
        let page = by.call("GET", &path, &Value::Null).await.unwrap();
        let before = all.len();
        for line in page.text.lines().filter(|l| !l.is_empty()) {
            let line: Value = serde_json::from_str(line).unwrap();
            let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
            all.push(leaf["event"].clone());
        }
        if all.len() == before {
            return all;
        }
    }
}

/// The vault and the live store of a broker that does not run.
fn opened(folder: &Path) -> (Vault, Redb) {
    let vault = Vault::new(World::system());
    let identity = fs::read_to_string(folder.join("unseal.age")).unwrap();
    let file = fs::read(folder.join("data/vault.json")).unwrap();
    let identity = Unseal::Identity(Secret::new(identity));
    vault.unseal(&file, &identity).unwrap();
    let live = Redb::open(folder.join("data/live.redb"), Options::new(8 << 20)).unwrap();
    (vault, live)
}

fn all(vault: &Vault, live: &Redb) -> Vec<StoredToken> {
    tokens::list(vault, live).unwrap()
}

/// What the daemon does at a rotation and at an old token's end, by the same calls; killed by whoever started it.
#[tokio::test]
async fn the_child_that_is_killed() {
    let Ok(folder) = env::var(CHILD) else { return };
    let (vault, live) = opened(Path::new(&folder));
    let now = World::system().now();
    let does = env::var(DOES).unwrap();
    let place = ("npm".parse().unwrap(), "*".parse().unwrap());
    let batch = if does == "back" {
        let wanted = Back {
            registry: &place.0,
            scope: &place.1,
            kept: 1,
            present: 2,
        };
        tokens::back(&vault, &live, Batch::new(), &wanted, now)
            .unwrap()
            .0
    } else if does != "end" {
        let token = Secret::new(env::var(NEXT).unwrap());
        let wanted = NewToken {
            registry: &place.0,
            scope: &place.1,
            token: &token,
            expires: None,
            proof: None,
            emptied: false,
            keeps_old: does == "hold",
        };
        let rotated = tokens::rotate(&vault, &live, Batch::new(), &wanted, now);
        rotated.unwrap().0
    } else {
        let old = all(&vault, &live).remove(0);
        let batch = left::leave(&vault, Batch::new(), &old.record, now).unwrap();
        tokens::destroy(batch, &old)
    };
    live.commit(batch).await.unwrap();
}

/// Files of a broker's data folder, put back as they were; the anchor too, else they would be an older copy.
fn put_back(kept: &Path, data: &Path) {
    for name in ["live.redb", "history.redb", "anchor"] {
        let (from, to) = (kept.join(name), data.join(name));
        if from.exists() {
            fs::copy(from, to).unwrap();
        } else if to.exists() {
            fs::remove_file(to).unwrap();
        }
    }
}

struct Killed {
    killer: Killer,
    next: String,
    _folder: TempDir,
}

impl Killed {
    /// Runs the child; whether it came to its end.
    async fn runs(&self, folder: &Path, does: &str, step: u64) -> bool {
        self.killer.at(step).unwrap();
        let folder = folder.display().to_string();
        let mut env: Vec<(&str, &str)> = vec![(CHILD, &folder), (DOES, does), (NEXT, &self.next)];
        let killing = self.killer.env();
        env.extend(killing.iter().map(|(n, v)| (*n, v.as_str())));
        let args = ["--exact", "the_child_that_is_killed", "--nocapture"];
        let own = env::current_exe().unwrap();
        let out = run(&own, &args, &env, Path::new("/"), Duration::from_mins(1)).await;
        let out = out.unwrap();
        assert!(out.status == Some(0) || out.status.is_none(), "{out}");
        self.killer.at(0).unwrap();
        out.status == Some(0)
    }
}

#[tokio::test]
async fn attack_47_a_rotation_that_is_killed_at_any_durable_step_leaves_the_old_or_the_new_token() {
    let mut small = Small::start(&policy_of_one()).await.unwrap();
    let first = small.registry.as_ref().unwrap().token.clone();
    let next = small.registry.as_ref().unwrap().another_token().await;
    small.daemon.kill9();
    let folder = small.daemon.dir().to_owned();
    let (data, kept) = (folder.join("data"), folder.join("kept"));
    fs::create_dir(&kept).unwrap();
    put_back(&data, &kept);
    let place = TempDir::new().unwrap();
    let killed = Killed {
        killer: Killer::make(place.path(), &data).await.unwrap(),
        next: next.unwrap(),
        _folder: place,
    };
    let mut seen = [[0; 2]; 2];
    let mut version = 0;
    for (at, does) in ["rotate", "end"].into_iter().enumerate() {
        for step in 1.. {
            put_back(&kept, &data);
            let whole = killed.runs(&folder, does, step).await;
            // What the disk holds is one of both, whole.
            let (vault, live) = opened(&folder);
            let after = all(&vault, &live);
            let present: Vec<_> = after
                .iter()
                .filter(|t| t.record.overlap_until.is_none())
                .collect();
            let [present] = present.as_slice() else {
                panic!("{does}, step {step}: {after:?}");
            };
            let is_new = present.record.version == 2;
            let token = release::for_check(&vault, present).unwrap();
            let want = if is_new { &killed.next } else { &first };
            assert_eq!(token.expose(), want);
            let left = left::all(&vault, &live).unwrap().len();
            let happened = if does == "rotate" {
                assert_eq!((after.len(), left), (1 + usize::from(is_new), 0));
                is_new
            } else {
                assert_eq!((after.len(), left), (2 - left, left));
                left == 1
            };
            assert!(happened || !whole, "{does}, step {step}");
            seen[at][usize::from(happened)] += 1;
            drop((vault, live));
            // The daemon opens it, and publishes.
            small.daemon.restart().await.unwrap();
            version += 1;
            let published = publish(&small, "@acme/left", &format!("{version}.0.0")).await;
            published.unwrap_or_else(|why| panic!("{does}, step {step}: {why:?}"));
            small.daemon.kill9();
            // What was killed comes to its end when it is done again.
            if !happened {
                assert!(killed.runs(&folder, does, 0).await, "{does}, step {step}");
            }
            if whole {
                break;
            }
            assert!(step < 100, "it does not come to an end");
        }
        // The end is that of a rotation that happened.
        if does == "rotate" {
            put_back(&kept, &data);
            assert!(killed.runs(&folder, does, 0).await);
            put_back(&data, &kept);
        }
    }
    println!("killed; [not, happened] of rotations and ends: {seen:?}");
    for [not, happened] in seen {
        assert!(not >= 2 && happened >= 1, "{seen:?}");
    }
}

#[tokio::test]
async fn attack_47_a_way_back_that_is_killed_at_any_durable_step_leaves_one_present_token() {
    let mut small = Small::start(&policy_of_one()).await.unwrap();
    let next = small.registry.as_ref().unwrap().another_token().await;
    small.daemon.kill9();
    let folder = small.daemon.dir().to_owned();
    let (data, kept) = (folder.join("data"), folder.join("kept"));
    fs::create_dir(&kept).unwrap();
    let place = TempDir::new().unwrap();
    let killed = Killed {
        killer: Killer::make(place.path(), &data).await.unwrap(),
        next: next.unwrap(),
        _folder: place,
    };
    assert!(killed.runs(&folder, "hold", 0).await);
    put_back(&data, &kept);
    let mut seen = [0; 2];
    for step in 1.. {
        put_back(&kept, &data);
        let whole = killed.runs(&folder, "back", step).await;
        let (vault, live) = opened(&folder);
        let one = |t: &StoredToken| (t.record.version, t.record.is_present(), t.record.held);
        let after: Vec<_> = all(&vault, &live).iter().map(one).collect();
        let happened = after == [(2, false, false), (3, true, false)];
        let before = after == [(1, false, true), (2, true, false)];
        assert!(happened || (before && !whole), "step {step}: {after:?}");
        seen[usize::from(happened)] += 1;
        drop((vault, live));
        // The daemon opens it, and publishes with the one that is present.
        small.daemon.restart().await.unwrap();
        let published = publish(&small, "@acme/left", &format!("{step}.0.0")).await;
        published.unwrap_or_else(|why| panic!("step {step}: {why:?}"));
        small.daemon.kill9();
        if whole {
            break;
        }
        assert!(step < 100, "it does not come to an end");
    }
    println!("killed; [not, happened]: {seen:?}");
    assert!(seen[0] >= 2 && seen[1] >= 1, "{seen:?}");
}

/// A whole daemon that is killed while it does an admin's act.
struct Acting {
    small: Small,
    killer: Killer,
    data: PathBuf,
    base: PathBuf,
    first: String,
    next: String,
    _folder: TempDir,
}

/// The act, as its last admin asks for it.
struct Last<'a> {
    by: &'a Device,
    path: &'a str,
    /// Whether somebody else asked, so that it waits, and this one confirms.
    waits: bool,
}

fn act() -> Value {
    json!({"kind": "rotate-token", "registry": "npm", "scope": "*"})
}

impl Acting {
    async fn new() -> Self {
        let registry = Verdaccio::start().await.unwrap();
        let folder = TempDir::new().unwrap();
        let killer = Killer::make(folder.path(), &env::temp_dir()).await;
        // The whole act is one commit with one flush: it is stopped between its writes as well.
        let killer = killer.unwrap().writes();
        let issuer = Issuer::start().await.unwrap();
        let builder = killer
            .on(Daemon::builder())
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", &registry.url)
            .registry("secrets", "generic", "")
            .policy(&policy_of_one());
        let mut small = Small::with(builder, issuer, &registry.token).await.unwrap();
        let next = registry.another_token().await.unwrap();
        let first = registry.token.clone();
        small.registry = Some(registry);
        Self {
            data: small.daemon.dir().join("data"),
            base: small.daemon.dir().join("base"),
            small,
            killer,
            first,
            next,
            _folder: folder,
        }
    }

    /// Asks for it with a code.
    async fn asks(&self, last: &Last<'_>, code: &str) -> anyhow::Result<Reply> {
        let body = if last.waits {
            json!({"totp": code})
        } else {
            json!({"act": act(), "token": self.next, "factor": {"totp": code}})
        };
        last.by.call("POST", last.path, &body).await
    }

    /// Kills it at each durable step of the act, from what is on the disk now on. Each time the token, the act, its
    /// events and its code tell the same story, and a publish goes. Returns how often it had not happened, and had.
    async fn sweep(&mut self, last: &Last<'_>) -> [usize; 2] {
        self.small.daemon.kill9();
        rows::copy_folder(&self.data, &self.base).unwrap();
        let mut seen = [0; 2];
        for step in (1..).step_by(stride()) {
            rows::copy_folder(&self.base, &self.data).unwrap();
            self.small.daemon.restart().await.unwrap();
            let before = self.told(last).await;
            let process = format!("/proc/{}/exe", self.small.daemon.id().unwrap());
            let code = last.by.code().unwrap();
            self.killer.at(step).unwrap();
            let reply = self.asks(last, &code).await;
            // What is still done after the reply takes no half second.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let killed = !Path::new(&process).exists();
            self.killer.at(0).unwrap();
            self.small.daemon.kill9();
            let happened = self.holds(step);
            match &reply {
                Ok(reply) => assert!(reply.good() && happened, "step {step}: {}", reply.text),
                Err(_) => assert!(killed, "step {step}: {reply:?}"),
            }

            self.small.daemon.restart().await.unwrap();
            self.same(last, step, happened).await;
            let now = self.told(last).await;
            let done = usize::from(happened);
            let of_one = usize::from(last.waits && happened);
            assert_eq!(now, [before[0] + done, before[1] + of_one], "step {step}");
            let published = publish(&self.small, "@acme/left", &format!("{step}.0.0")).await;
            published.unwrap_or_else(|why| panic!("step {step}: {why:?}"));

            // The code was spent by the very commit, or is as good as before.
            if happened {
                let other = json!({"act": act(), "token": self.first, "factor": {"totp": code}});
                let again = last
                    .by
                    .call("POST", "/v1/admin/acts", &other)
                    .await
                    .unwrap();
                assert_eq!(again.code(), Some(Code::FactorWrong), "{}", again.text);
            } else {
                let again = self.asks(last, &code).await.unwrap();
                assert!(again.good(), "step {step}: {}", again.text);
                self.same(last, step, true).await;
            }
            if !killed {
                break;
            }
            seen[usize::from(happened)] += 1;
            assert!(step < 100, "it does not come to an end");
        }
        seen
    }

    /// Rotations and confirmations that the log tells of.
    async fn told(&self, last: &Last<'_>) -> [usize; 2] {
        let events = events(last.by).await;
        ["token-rotated", "act-confirmed"].map(|kind| {
            let of_kind = events.iter().filter(|e| e["type"] == kind);
            of_kind.count()
        })
    }

    /// What the disk holds, looked at in a copy: one of both tokens, whole. Whether it is the new one.
    fn holds(&self, step: u64) -> bool {
        let seen = TempDir::new().unwrap();
        rows::copy_folder(&self.data, &seen.path().join("data")).unwrap();
        let identity = self.small.daemon.dir().join("unseal.age");
        fs::copy(identity, seen.path().join("unseal.age")).unwrap();
        let (vault, live) = opened(seen.path());
        let all = all(&vault, &live);
        let present: Vec<_> = all.iter().filter(|t| t.record.is_present()).collect();
        let [present] = present.as_slice() else {
            panic!("step {step}: {all:?}");
        };
        let is_new = present.record.version == 2;
        let token = release::for_check(&vault, present).unwrap();
        let want = if is_new { &self.next } else { &self.first };
        assert_eq!(token.expose(), want, "step {step}");
        is_new
    }

    /// The broker shows one present token, and the act as still waiting or done.
    async fn same(&self, last: &Last<'_>, step: u64, happened: bool) {
        let tokens = last.by.call("GET", "/v1/admin/tokens", &Value::Null).await;
        let tokens: Vec<Value> = tokens.unwrap().ok().unwrap();
        let shown: Vec<_> = tokens
            .iter()
            .map(|t| (t["version"].as_u64().unwrap(), t["overlap_until"].is_null()))
            .collect();
        let want = if happened {
            vec![(1, false), (2, true)]
        } else {
            vec![(1, true)]
        };
        assert_eq!(shown, want, "step {step}");
        let acts = last.by.call("GET", "/v1/acts", &Value::Null).await;
        let acts: Value = acts.unwrap().ok().unwrap();
        let waiting = acts["acts"].as_array().unwrap().len();
        assert_eq!(waiting, usize::from(last.waits && !happened), "{acts}");
    }
}

/// Every step in the full form (`COUNTERSIGN_SWEEP=full`), every second else.
fn stride() -> usize {
    match env::var("COUNTERSIGN_SWEEP").as_deref() {
        Ok("full") => 1,
        _ => 2,
    }
}

#[tokio::test]
async fn attack_47_a_daemon_that_is_killed_as_one_admin_rotates_has_done_all_of_it_or_nothing() {
    let mut acting = Acting::new().await;
    let robin = Device::fresh(&acting.small.daemon).unwrap();
    let robin = std::mem::replace(&mut acting.small.robin, robin);
    let last = Last {
        by: &robin,
        path: "/v1/admin/acts",
        waits: false,
    };
    let [not, happened] = acting.sweep(&last).await;
    println!(
        "killed at {} steps: {not} not, {happened} done",
        not + happened
    );
    assert!(not >= 3, "{not}, {happened}");
}

#[tokio::test]
async fn attack_47_a_daemon_that_is_killed_as_a_rotation_is_confirmed_keeps_it_waiting_or_has_done_it()
 {
    let mut acting = Acting::new().await;
    let small = &acting.small;
    let invite = small.robin.invite("carol", &[], true, &[]).await.unwrap();
    let carol = Device::enroll(&small.daemon, &invite).await.unwrap();
    let asked = small.robin.act(act(), Some(&acting.next)).await;
    let asked: Value = asked.unwrap().ok().unwrap();
    assert_eq!(asked["done"], false, "{asked}");
    let path = format!(
        "/v1/admin/acts/{}/confirm",
        asked["act"]["id"].as_str().unwrap()
    );
    let last = Last {
        by: &carol,
        path: &path,
        waits: true,
    };
    let [not, happened] = acting.sweep(&last).await;
    println!(
        "killed at {} steps: {not} not, {happened} done",
        not + happened
    );
    assert!(not >= 3, "{not}, {happened}");
}
