//! Kills the broker again and again while clients work, and checks that nothing acknowledged was lost and that the
//! record agrees with the registry. See docs/RELIABILITY.md.
//!
//! Reading order: `main` (the cycles), `client` (what one client does), `registry` (the stand-in).

use anyhow::{Context as _, bail};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use http::StatusCode;
use proto::{
    answer::Decision,
    digest::{Algorithm, Digest},
    log::checkpoint::LogKey,
    problem::Code,
};
use serde_json::{Value, json};
use stand::{
    daemon::Daemon,
    direct::{self, Device, Direct, Fail, Packed, Wish},
    history::{Asked, History},
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinSet};

/// Packages: two that one person approves, two that two people approve. The last of each is frozen now and then.
const PACKAGES: [(&str, u32); 4] = [("@one/a", 1), ("@one/b", 1), ("@two/a", 2), ("@two/b", 2)];
/// The whole history is checked after so many cycles.
const CHECK_EVERY: u64 = 50;
/// How long clients may take to end what they began, after the last crash.
const DRAIN: Duration = Duration::from_secs(150);
/// How long the broker may take to settle what is left.
const SETTLE: Duration = Duration::from_secs(45);
/// The stand-in knows one token.
const TOKEN: &str = "canary-registry-token";

/// Kills the broker again and again while clients work, and checks what was acknowledged.
#[derive(Parser)]
struct Args {
    /// How often it is killed
    #[arg(long, default_value_t = 200)]
    cycles: u64,
    /// Decides every choice of clients, registry and killer (not the scheduler's)
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients at a time
    #[arg(long, default_value_t = 8)]
    clients: u64,
}

/// splitmix64: small, seedable, good enough to choose by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// What everybody shares.
struct Shared {
    direct: Direct,
    history: Arc<History>,
    stop: AtomicBool,
    versions: AtomicU64,
    /// One client thaws at a time: each thaw costs two people a code, and a code is good once.
    thawing: tokio::sync::Mutex<()>,
    /// When somebody froze last, in seconds from the start.
    froze: AtomicU64,
    started: Instant,
}

/// Seconds between two freezes that clients make: a thaw waits for codes.
const FREEZE_EVERY: u64 = 40;

impl Shared {
    /// Whether a client may freeze now.
    fn may_freeze(&self) -> bool {
        let now = self.started.elapsed().as_secs() + FREEZE_EVERY;
        let last = self.froze.load(Ordering::Relaxed);
        let due = now >= last + FREEZE_EVERY && !self.stop.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        due && self.froze.compare_exchange(last, now, order, order).is_ok()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("crash: {why:?} (seed {})", args.seed);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let history = Arc::new(History::default());
    let url = registry::start(Arc::clone(&history), args.seed).await?;
    let mut daemon = Daemon::builder()
        .registry("npm", "npm", &url)
        .policy(&direct::policy(&[("@one", 1), ("@two", 2)]))
        .start()
        .await?;
    let names: Vec<_> = PACKAGES.iter().map(|(n, _)| (*n).to_owned()).collect();
    let direct = Direct::set_up(&daemon, TOKEN, &names).await?;
    let key: LogKey = direct
        .log_key()
        .await?
        .parse()
        .ok()
        .context("the log's key")?;
    let shared = Arc::new(Shared {
        direct,
        history,
        stop: AtomicBool::new(false),
        versions: AtomicU64::new(0),
        thawing: tokio::sync::Mutex::default(),
        froze: AtomicU64::default(),
        started,
    });
    let mut clients = JoinSet::new();
    for n in 0..args.clients {
        let dice = Dice(args.seed.wrapping_mul(1_000_003).wrapping_add(n));
        clients.spawn(client::work(Arc::clone(&shared), dice));
    }
    clients.spawn(client::watch(Arc::clone(&shared), Dice(args.seed ^ 7)));

    let mut dice = Dice(args.seed);
    let (mut starting, mut slowest) = (0u64, Duration::ZERO);
    for cycle in 1..=args.cycles {
        if dice.percent(15) {
            // Dropping the start kills what has begun to start.
            starting += 1;
            let life = Duration::from_millis(1 + dice.below(60));
            daemon.kill9();
            let _ = tokio::time::timeout(life, daemon.restart()).await;
            daemon.kill9();
        }
        let start = Instant::now();
        daemon.restart().await.context("after a crash")?;
        slowest = slowest.max(start.elapsed());
        if cycle % CHECK_EVERY == 0 {
            check(&shared, &key, 10).await?;
        }
        let long = dice.percent(10);
        let life = if long {
            300 + dice.below(600)
        } else {
            5 + dice.below(56)
        };
        tokio::time::sleep(Duration::from_millis(life)).await;
        daemon.kill9();
    }

    daemon.restart().await.context("after the last crash")?;
    shared.stop.store(true, Ordering::Relaxed);
    let drained = tokio::time::timeout(DRAIN, async {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    });
    drained.await.context("the clients do not end")??;
    settle(&shared, &key).await?;

    let report = shared.history.report();
    println!(
        "cycles {} (and {starting} while starting), operations {}, requests {}, published {}, violations {}, slowest start {} ms, {} s, seed {}",
        args.cycles,
        report.operations,
        report.requests,
        report.published,
        report.violations,
        slowest.as_millis(),
        started.elapsed().as_secs(),
        args.seed
    );
    println!("refused: {:?}", report.refusals);
    for text in &report.texts {
        println!("violation: {text}");
    }
    Ok(report.violations == 0)
}

/// Everything acknowledged is still there, and the log tells the same story. Of the older requests one in `share` is
/// looked at; the log is read whole.
async fn check(
    shared: &Arc<Shared>,
    key: &LogKey,
    share: usize,
) -> anyhow::Result<Vec<proto::api::Status>> {
    let before = shared.history.asked();
    let mut statuses = Vec::new();
    let old = before.len().saturating_sub(100);
    let looked_at = |n: &usize| *n >= old || n.is_multiple_of(share);
    for (_, asked) in before.iter().enumerate().filter(|(n, _)| looked_at(n)) {
        if let Some(status) = client::look(shared, asked).await? {
            statuses.push(status);
        }
    }
    let (lines, checkpoint) = shared.direct.export().await?;
    shared.history.log(&before, key, &lines, &checkpoint);
    Ok(statuses)
}

/// The broker reads back what is left; then every record must agree with the registry.
async fn settle(shared: &Arc<Shared>, key: &LogKey) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let statuses = check(shared, key, 1).await?;
        let unclear = statuses
            .iter()
            .any(|s| s.state == proto::api::StateName::Settling);
        if !unclear || start.elapsed() > SETTLE {
            shared.history.settle(&statuses);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

mod client {
    use super::{
        Arc, Asked, Code, Decision, Device, Dice, Direct, Duration, Fail, Instant, Ordering,
        PACKAGES, Packed, Shared, Wish, bail,
    };
    use proto::api::{Opened, Status};

    /// How long a call is repeated whose replies are lost.
    const PATIENCE: Duration = Duration::from_secs(30);
    const PAUSE: Duration = Duration::from_millis(7);

    /// A request of ours.
    struct Mine {
        opened: Opened,
        wish: Wish,
        packed: Packed,
        quorum: usize,
    }

    /// Works until told to stop.
    pub(crate) async fn work(shared: Arc<Shared>, mut dice: Dice) -> anyhow::Result<()> {
        while !shared.stop.load(Ordering::Relaxed) {
            round(&shared, &mut dice).await?;
        }
        Ok(())
    }

    /// Looks at what others were told, again and again.
    pub(crate) async fn watch(shared: Arc<Shared>, mut dice: Dice) -> anyhow::Result<()> {
        while !shared.stop.load(Ordering::Relaxed) {
            let all = shared.history.asked();
            let newest = dice.below(40).min(all.len() as u64);
            let at = all.len().wrapping_sub(usize::try_from(newest)?);
            if let Some(asked) = all.get(at) {
                look(&shared, asked).await?;
                if let Some(sealed) = &asked.sealed
                    && let Ok(again) = shared.direct.collect(asked.id, &asked.ticket).await
                    && again.sealed != *sealed
                {
                    let text = format!("{} gave another blob when collected again", asked.id);
                    shared.history.violation(text);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// A request's status; a request that was acknowledged may not be unknown.
    pub(crate) async fn look(shared: &Shared, asked: &Asked) -> anyhow::Result<Option<Status>> {
        let before = shared.history.before(asked.id);
        match shared.direct.status(asked.id, &asked.ticket).await {
            Ok(status) => {
                shared.history.status(before, &status);
                Ok(Some(status))
            }
            Err(Fail::Away) => Ok(None),
            Err(why) => {
                let text = format!("{} was acknowledged, and then: {why}", asked.id);
                shared.history.violation(text);
                Ok(None)
            }
        }
    }

    /// One package's version, alone or wanted by two at once.
    async fn round(shared: &Shared, dice: &mut Dice) -> anyhow::Result<()> {
        let at = usize::try_from(dice.below(PACKAGES.len() as u64))?;
        let Some(&(name, quorum)) = PACKAGES.get(at) else {
            return Ok(());
        };
        let quorum = quorum as usize;
        let version = format!("1.0.{}", shared.versions.fetch_add(1, Ordering::Relaxed));
        let mut mine = Vec::new();
        let rivals = if dice.percent(20) { 2 } else { 1 };
        for n in 0..rivals {
            let packed = Packed::new(name, &version, &format!("{n} {}", dice.roll()))?;
            mine.extend(open(shared, dice, packed, quorum).await?);
        }
        for request in &mine {
            match dice.below(100) {
                0..8 => cancel(shared, request).await?,
                8..16 => deny(shared, request, Decision::Deny).await?,
                16..19 if name.ends_with('b') && shared.may_freeze() => {
                    deny(shared, request, Decision::DenyAndFreeze).await?;
                    thaw(shared, name).await?;
                }
                19..24 if name.ends_with('b') && shared.may_freeze() => {
                    freeze(shared, name).await?;
                    thaw(shared, name).await?;
                }
                24..30 => {
                    approve(shared, request).await?;
                    cancel(shared, request).await?;
                }
                _ => publish(shared, dice, request).await?,
            }
        }
        // Nothing of ours stays open, or it would count against later requests.
        for request in &mine {
            cancel(shared, request).await?;
        }
        Ok(())
    }

    /// Repeats a call until it has a reply.
    async fn insist<T, F: Future<Output = Result<T, Fail>>>(
        call: impl Fn() -> F,
    ) -> anyhow::Result<Result<T, Fail>> {
        let start = Instant::now();
        loop {
            match call().await {
                Err(Fail::Away) if start.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(Fail::Away) => bail!("the broker does not come back"),
                Err(Fail::Strange(text)) => bail!("not a broker's reply: {text}"),
                other => return Ok(other),
            }
        }
    }

    async fn open(
        shared: &Shared,
        dice: &mut Dice,
        packed: Packed,
        quorum: usize,
    ) -> anyhow::Result<Option<Mine>> {
        let wish = Wish::new(&packed)?;
        let token = shared.direct.id_token()?;
        let direct = &shared.direct;
        let opened = if dice.percent(15) {
            // The same token, twice at once, for two requests: one of them at most is opened.
            let other = Wish::new(&packed)?;
            let (a, b) = tokio::join!(
                direct.open(&token, &wish.asked),
                direct.open(&token, &other.asked)
            );
            if let Ok(b) = b {
                shared.history.opened(&token, &b, quorum);
                if let Ok(a) = a {
                    shared.history.opened(&token, &a, quorum);
                }
                insist(|| direct.cancel(b.id, &b.ticket)).await?.ok();
                return Ok(None);
            }
            match a {
                Ok(a) => Ok(a),
                Err(_) => insist(|| direct.open(&token, &wish.asked)).await?,
            }
        } else {
            insist(|| direct.open(&token, &wish.asked)).await?
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                shared.history.refused("open", &why);
                return Ok(None);
            }
        };
        shared.history.opened(&token, &opened, quorum);
        if dice.percent(10) {
            // The token is spent: with another key it opens nothing.
            let again = Wish::new(&packed)?;
            if let Ok(second) = insist(|| direct.open(&token, &again.asked)).await? {
                shared.history.opened(&token, &second, quorum);
            }
        }
        Ok(Some(Mine {
            opened,
            wish,
            packed,
            quorum,
        }))
    }

    async fn answer(
        shared: &Shared,
        request: &Mine,
        device: &Device,
        decision: Decision,
    ) -> anyhow::Result<()> {
        let Opened {
            id, request_digest, ..
        } = request.opened;
        let before = shared.history.before(id);
        if decision == Decision::Approve {
            shared.history.will_approve(id, &device.person);
        }
        let about = (id, request_digest, request.opened.match_code.as_str());
        match insist(|| shared.direct.answer(device, about, decision)).await? {
            Ok(answered) if decision == Decision::Approve => {
                shared
                    .history
                    .approved(before, id, &device.person, &answered);
            }
            Ok(answered) => {
                shared
                    .history
                    .state(id, before, answered.state, answered.approvals);
            }
            Err(why) => shared.history.refused("answer", &why),
        }
        Ok(())
    }

    async fn approve(shared: &Shared, request: &Mine) -> anyhow::Result<()> {
        let people = [&shared.direct.alice, &shared.direct.bob];
        for person in people.into_iter().take(request.quorum) {
            answer(shared, request, person, Decision::Approve).await?;
        }
        Ok(())
    }

    async fn deny(shared: &Shared, request: &Mine, decision: Decision) -> anyhow::Result<()> {
        answer(shared, request, &shared.direct.alice, decision).await
    }

    async fn cancel(shared: &Shared, request: &Mine) -> anyhow::Result<()> {
        let opened = &request.opened;
        let before = shared.history.before(opened.id);
        match insist(|| shared.direct.cancel(opened.id, &opened.ticket)).await? {
            Ok(status) => shared.history.status(before, &status),
            Err(why) => shared.history.refused("cancel", &why),
        }
        Ok(())
    }

    async fn freeze(shared: &Shared, name: &str) -> anyhow::Result<()> {
        let package = format!("npm:{name}");
        let direct: &Direct = &shared.direct;
        let _ = insist(|| direct.freezer(&direct.robin, "freeze", &package)).await?;
        shared.history.operation();
        Ok(())
    }

    async fn thaw(shared: &Shared, name: &str) -> anyhow::Result<()> {
        let package = format!("npm:{name}");
        let direct: &Direct = &shared.direct;
        let _one = shared.thawing.lock().await;
        for _ in 0..100 {
            let mut frozen = true;
            for person in [&direct.robin, &direct.alice] {
                // Somebody else may thaw or freeze at the same moment: that is told, and tried again.
                // The time that a code is waited for is nobody's patience: who is away is asked in the next round.
                match direct.freezer(person, "thaw", &package).await {
                    Ok(status) => frozen = status.frozen,
                    Err(Fail::Away) => tokio::time::sleep(PAUSE).await,
                    Err(_) => {}
                }
                shared.history.operation();
            }
            if !frozen {
                break;
            }
        }
        Ok(())
    }

    async fn publish(shared: &Shared, dice: &mut Dice, request: &Mine) -> anyhow::Result<()> {
        approve(shared, request).await?;
        let opened = &request.opened;
        let before = shared.history.before(opened.id);
        let collected = insist(|| shared.direct.collect(opened.id, &opened.ticket)).await?;
        let collected = match collected {
            Ok(collected) => collected,
            Err(why) => {
                shared.history.refused("collect", &why);
                return Ok(());
            }
        };
        shared.history.collected(before, opened.id, &collected);
        let credential = request.wish.credential(&collected)?;
        let dies = dice.percent(5);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let before = shared.history.before(opened.id);
            let put = || shared.direct.upload(&request.packed, &credential);
            let result = if dice.percent(20) {
                let (a, b) = tokio::join!(put(), put());
                if a.is_ok() { a } else { b }
            } else {
                put().await
            };
            match result {
                Ok(_) => {
                    shared.history.published(before, opened.id);
                    return Ok(());
                }
                Err(f) => {
                    if let Fail::Strange(text) = &f {
                        bail!("not a broker's reply to an upload: {text}");
                    }
                    shared.history.refused("upload", &f);
                    // A job that died with its upload: the broker settles it alone.
                    if dies {
                        break;
                    }
                    match f.code() {
                        // The broker froze it for what the registry shows: two people look, and thaw it.
                        Some(Code::Frozen) => thaw(shared, &request.packed.name).await?,
                        Some(Code::RegistryConflict | Code::Expired | Code::Denied) => break,
                        // Other bytes under a good credential: nothing reaches the registry.
                        _ if dice.percent(5) => {
                            let name = &request.packed.name;
                            let other = Packed::new(name, &request.packed.version, "other bytes")?;
                            if shared.direct.upload(&other, &credential).await.is_ok() {
                                let text = format!("{} took other bytes", opened.id);
                                shared.history.violation(text);
                            }
                        }
                        _ => {}
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

mod registry {
    use super::{
        Algorithm, Arc, BTreeMap, Bytes, Dice, Digest, Duration, History, Instant, Ipv4Addr, Json,
        Mutex, Path, PoisonError, Response, Router, STANDARD, State, StatusCode, TOKEN,
        TcpListener, Value, get, json,
    };
    use axum::response::IntoResponse as _;
    use base64::Engine as _;

    /// Per package and version: what was taken, and from when on it is shown.
    type Shown = BTreeMap<String, BTreeMap<String, (Digest, Instant)>>;

    struct Registry {
        history: Arc<History>,
        dice: Mutex<Dice>,
        shown: Mutex<Shown>,
    }

    /// An npm registry as far as a publish and its read-back need one, on a bad day.
    pub(crate) async fn start(history: Arc<History>, seed: u64) -> anyhow::Result<String> {
        let registry = Arc::new(Registry {
            history,
            dice: Mutex::new(Dice(seed ^ 0x7e61)),
            shown: Mutex::default(),
        });
        let router = Router::new()
            .route("/{package}", get(show).put(put))
            .with_state(registry);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    async fn show(State(registry): State<Arc<Registry>>, Path(package): Path<String>) -> Response {
        let shown = registry
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(versions) = shown.get(&package) else {
            return (StatusCode::NOT_FOUND, Json(json!({"error": "not found"}))).into_response();
        };
        let now = Instant::now();
        let versions: serde_json::Map<_, _> = versions
            .iter()
            .filter(|(_, (_, from))| *from <= now)
            .map(|(v, (digest, _))| (v.clone(), json!({"dist": {"integrity": digest.sri()}})))
            .collect();
        Json(json!({"name": package, "versions": versions, "dist-tags": {}})).into_response()
    }

    async fn put(
        State(registry): State<Arc<Registry>>,
        Path(package): Path<String>,
        headers: http::HeaderMap,
        body: Bytes,
    ) -> Response {
        let bearer = format!("Bearer {TOKEN}");
        if headers.get("authorization").and_then(|v| v.to_str().ok()) != Some(bearer.as_str()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let Some((version, bytes)) = read(&body) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        registry
            .history
            .registry_saw(&format!("npm:{package}@{version}"), &bytes);
        let (trouble, late) = {
            let mut dice = registry.dice.lock().unwrap_or_else(PoisonError::into_inner);
            (dice.below(100), Duration::from_millis(dice.below(120)))
        };
        let error =
            |status: StatusCode| (status, Json(json!({"error": "trouble"}))).into_response();
        match trouble {
            // Refused, and nothing taken.
            0..4 => error(StatusCode::INTERNAL_SERVER_ERROR),
            4..6 => error(StatusCode::TOO_MANY_REQUESTS),
            6..8 => error(StatusCode::FORBIDDEN),
            // Said to be taken, and lost.
            46..48 => said(true),
            // Taken, and yet refused.
            8..14 => {
                registry.take(&package, &version, &bytes, Duration::ZERO, false);
                error(StatusCode::BAD_GATEWAY)
            }
            // A stranger with another token was faster.
            14..16 => {
                let other = Digest::of(Algorithm::Sha512, body.as_ref());
                registry.take(&package, &version, &other, Duration::ZERO, true);
                error(StatusCode::CONFLICT)
            }
            // Taken late, whether or not the broker is still there.
            16..36 => {
                let (registry, package) = (Arc::clone(&registry), package);
                let task = tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    registry.take(&package, &version, &bytes, Duration::ZERO, false)
                });
                said(task.await.unwrap_or(false))
            }
            // Taken, and shown later.
            36..46 => said(registry.take(&package, &version, &bytes, late, false)),
            _ => said(registry.take(&package, &version, &bytes, Duration::ZERO, false)),
        }
    }

    fn said(taken: bool) -> Response {
        if taken {
            (StatusCode::CREATED, Json(json!({"ok": true}))).into_response()
        } else {
            (StatusCode::CONFLICT, Json(json!({"error": "exists"}))).into_response()
        }
    }

    impl Registry {
        /// Takes a version unless there is one. First come, first served, as real registries do.
        fn take(
            &self,
            package: &str,
            version: &str,
            bytes: &Digest,
            lag: Duration,
            stranger: bool,
        ) -> bool {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let versions = shown.entry(package.to_owned()).or_default();
            if versions.contains_key(version) {
                return false;
            }
            versions.insert(version.to_owned(), (bytes.clone(), Instant::now() + lag));
            let name = format!("npm:{package}@{version}");
            // Before anybody can read it back.
            self.history.registry_took(&name, bytes, stranger);
            drop(shown);
            true
        }
    }

    /// The version and the archive's digest.
    fn read(body: &[u8]) -> Option<(String, Digest)> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let version = document
            .get("versions")?
            .as_object()?
            .keys()
            .next()?
            .clone();
        let attachments = document.get("_attachments")?.as_object()?;
        let data = attachments.values().next()?.get("data")?.as_str()?;
        let archive = STANDARD.decode(data).ok()?;
        Some((version, Digest::of(Algorithm::Sha512, &archive)))
    }
}
