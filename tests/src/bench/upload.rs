//! Uploads through the broker beside uploads through a plain reverse proxy, in one run: `bench upload`.
//!
//! Every way gets the same bytes in turn, round after round, so that a busy minute hits all of them. The registry behind
//! all of them throws the bytes away. What the figures mean stands in `docs/PERFORMANCE.md`.

use super::{discard::Discard, http::Connection, machine::Times, nginx::Nginx};
use anyhow::Context as _;
use clap::Args;
use proto::{
    answer::Decision,
    digest::{Algorithm, Digest},
};
use stand::{
    artifact::{Artifact, Kind},
    daemon::Daemon,
    direct::{Direct, Wish},
    parts::Verdaccio,
};
use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Below this a row tells milliseconds, not a rate.
const SMALL: usize = 1 << 20;
/// Largest crate that a cargo registry of the public kind takes, with room for the archive's own bytes.
const CRATE_MAX: usize = 10_400_000;
/// Packages for which one of the job's keys may ask: all of them would not fit into one call.
const PER_KEY: usize = 300;
/// Such keys at most.
const KEYS: usize = 40;
/// Largest package that Verdaccio is asked to take.
const VERDACCIO_MAX: usize = 200_000_000;

/// Uploads through the broker beside a plain reverse proxy
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which kinds: npm, pypi, crates
    #[arg(long, value_delimiter = ',', default_value = "pypi,npm,crates", value_parser = kind)]
    kinds: Vec<Kind>,
    /// Sizes of the package: 1k, 10m
    #[arg(long, value_delimiter = ',', default_value = "1k,10m,100m", value_parser = size)]
    sizes: Vec<usize>,
    /// Uploads at once
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    at_once: Vec<usize>,
    /// Rounds of each row
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "npm, pypi or crates".into())
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix('m') {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let number: usize = digits.parse().map_err(|_| "a size like 10m".to_owned())?;
    Ok(number * unit)
}

/// One way to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    Streaming,
    Buffering,
    Broker,
    Verdaccio,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Streaming => "nginx, `proxy_request_buffering off`",
            Self::Buffering => "nginx, as it comes",
            Self::Broker => "countersignd",
            Self::Verdaccio => "Verdaccio, local publish",
        }
    }
}

/// What one way did over all rounds of a row.
#[derive(Default)]
struct Row {
    bytes: u64,
    times: Vec<Duration>,
    walls: Vec<Duration>,
    cpu: Duration,
    /// Memory beyond what there was before the round, in kB; the worst round.
    grown: u64,
}

impl Row {
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    fn rate(&self) -> f64 {
        let wall: f64 = self.walls.iter().map(Duration::as_secs_f64).sum();
        self.bytes as f64 / 1e6 / wall
    }

    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    fn cpu_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }

    fn p50(&self) -> f64 {
        Times::new(self.times.clone()).ms(50)
    }
}

/// Everything for one kind of registry.
struct Stage {
    kind: Kind,
    sink: Discard,
    nginx: Option<Nginx>,
    daemon: Daemon,
    direct: Direct,
    verdaccio: Option<Verdaccio>,
    serial: usize,
    /// How many names the job's key has; each is good for some packages.
    keys: usize,
}

/// Runs all rows and prints them.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    println!("cores: {}", std::thread::available_parallelism()?);
    let (sha256, sha512) = (hashing(Algorithm::Sha256), hashing(Algorithm::Sha512));
    println!("hashing on one core: SHA-256 {sha256:.0} MB/s, SHA-512 {sha512:.0} MB/s");
    println!(
        "\n| registry | package | at once | way | p50 ms | MB/s | CPU s/GB | memory +kB |\n|---|---|---|---|---|---|---|---|"
    );
    let mut goals = Vec::new();
    for kind in &arguments.kinds {
        let mut stage = Stage::start(*kind).await?;
        for size in &arguments.sizes {
            if *kind == Kind::Crates && *size > CRATE_MAX {
                println!("| crates | {size} | | larger than such a registry takes | | | | |");
                continue;
            }
            for at_once in &arguments.at_once {
                let rows = stage.rows(*size, *at_once, arguments.rounds).await?;
                for (way, row) in &rows {
                    // Of a small upload neither says anything.
                    let (rate, cpu) = if *size < SMALL {
                        ("-".to_owned(), "-".to_owned())
                    } else {
                        let cpu = format!("{:.2}", row.cpu_per_gb());
                        (format!("{:.0}", row.rate()), cpu)
                    };
                    println!(
                        "| {} | {size} | {at_once} | {} | {:.2} | {rate} | {cpu} | {} |",
                        kind.name(),
                        way.name(),
                        row.p50(),
                        row.grown
                    );
                }
                goals.extend(judge(*kind, *size, *at_once, &rows, [sha256, sha512]));
            }
        }
        if stage.nginx.is_none() {
            println!("nginx is not installed: its rows are left out (Debian: nginx-light)");
        }
    }
    println!("\n| goal | measured | |\n|---|---|---|");
    for goal in goals {
        println!("{goal}");
    }
    Ok(())
}

/// MB/s of one core.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn hashing(algorithm: Algorithm) -> f64 {
    let bytes = vec![7; 32 << 20];
    let at = Instant::now();
    let _ = Digest::of(algorithm, &bytes);
    bytes.len() as f64 / 1e6 / at.elapsed().as_secs_f64()
}

/// The goals that a row speaks about.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn judge(
    kind: Kind,
    size: usize,
    at_once: usize,
    rows: &BTreeMap<Way, Row>,
    [sha256, sha512]: [f64; 2],
) -> Vec<String> {
    let mut out = Vec::new();
    let Some(ours) = rows.get(&Way::Broker) else {
        return out;
    };
    let name = format!("{} {size} x {at_once}", kind.name());
    let mut say = |goal: &str, measured: String, met: bool| {
        let met = if met { "met" } else { "missed" };
        out.push(format!("| {goal} | {name}: {measured} | {met} |"));
    };
    let rate = ours.rate();
    if size >= 10 * SMALL && at_once == 1 && kind == Kind::PyPi {
        if let Some(nginx) = rows.get(&Way::Streaming).map(Row::rate) {
            let measured = format!("{rate:.0} against {nginx:.0} MB/s: {:.2}", rate / nginx);
            say(
                "4: at least 1.5 x nginx unbuffered",
                measured,
                rate >= 1.5 * nginx,
            );
        }
        if let Some(free) = rows.get(&Way::Direct).map(Row::rate) {
            // Hashing and one way without any proxy, one after the other.
            let limit = 1.0 / (1.0 / free + 1.0 / sha256);
            let measured = format!("{rate:.0} against R {limit:.0} MB/s: {:.2}", rate / limit);
            say("4: at least 1.15 x R", measured, rate >= 1.15 * limit);
        }
    }
    let each = ours.grown / at_once as u64;
    if at_once == 1 {
        let measured = format!("+{each} kB");
        say("5: at most 512 kB an upload", measured, each <= 512);
    } else {
        let measured = format!("+{} kB", ours.grown);
        say("5: at most 8 MB at once", measured, ours.grown <= 8 << 10);
    }
    if kind == Kind::Npm && size >= 10 * SMALL && at_once == 1 {
        if let Some(verdaccio) = rows.get(&Way::Verdaccio) {
            let measured = format!(
                "{rate:.0} against {:.0} MB/s: {:.2}",
                verdaccio.rate(),
                rate / verdaccio.rate()
            );
            say(
                "6: at least 5 x Verdaccio",
                measured,
                rate >= 5.0 * verdaccio.rate(),
            );
        }
        let measured = format!("+{} kB", ours.grown);
        say(
            "6: memory grows at most 4 MB",
            measured,
            ours.grown <= 4 << 10,
        );
        // The package's bytes are hashed, not their base64.
        let hashed = size as f64 / 1e6 / sha512;
        let cpu = ours.cpu.as_secs_f64() / ours.times.len().max(1) as f64;
        let measured = format!(
            "CPU {cpu:.3} s, SHA-512 alone {hashed:.3} s: {:.2}",
            cpu / hashed
        );
        say(
            "6: CPU within 1.25 x pure SHA-512 (the scan's goal; ours is the whole publish)",
            measured,
            cpu <= 1.25 * hashed,
        );
    }
    out
}

impl Stage {
    async fn start(kind: Kind) -> anyhow::Result<Self> {
        let sink = Discard::start().await?;
        let url = &sink.url;
        let (at, keys) = match kind {
            Kind::Npm => (url.clone(), String::new()),
            Kind::PyPi => (format!("{url}/simple/"), format!("upload_url = \"{url}/\"")),
            Kind::Crates => (format!("{url}/index/"), format!("upload_url = \"{url}\"")),
        };
        let daemon = Daemon::builder()
            .registry_with(kind.name(), kind.name(), &at, &keys)
            .policy(&policy(kind))
            .start()
            .await?;
        let direct = Direct::with_people(&daemon).await?;
        direct.add_token(kind.name(), "null-registry-token").await?;
        let verdaccio = match kind {
            Kind::Npm => Some(Verdaccio::start().await?),
            Kind::PyPi | Kind::Crates => None,
        };
        Ok(Self {
            kind,
            nginx: Nginx::start(&sink.url).await?,
            sink,
            daemon,
            direct,
            verdaccio,
            serial: 0,
            keys: 0,
        })
    }

    /// All ways in turn, round after round.
    async fn rows(
        &mut self,
        size: usize,
        at_once: usize,
        rounds: usize,
    ) -> anyhow::Result<BTreeMap<Way, Row>> {
        let mut ways = vec![Way::Direct, Way::Broker];
        if self.nginx.is_some() {
            ways.extend([Way::Streaming, Way::Buffering]);
        }
        if self.verdaccio.is_some() && at_once == 1 && size <= VERDACCIO_MAX {
            ways.push(Way::Verdaccio);
        }
        // A small one by each way first: connections, pools and pages that everybody needs once.
        for way in &ways {
            self.round(*way, 1_000, 1, &mut Row::default()).await?;
        }
        let mut rows: BTreeMap<Way, Row> = BTreeMap::new();
        for _ in 0..rounds {
            for way in &ways {
                let row = rows.entry(*way).or_default();
                self.round(*way, size, at_once, row).await?;
            }
        }
        Ok(rows)
    }

    /// Some uploads at once by one way; all that can be made before the clock runs is.
    async fn round(
        &mut self,
        way: Way,
        size: usize,
        at_once: usize,
        row: &mut Row,
    ) -> anyhow::Result<()> {
        let mut uploads = Vec::new();
        for _ in 0..at_once {
            self.serial += 1;
            let artifact = self.kind.artifact(&stem(self.serial), size)?;
            self.sink.expect(self.kind, &artifact);
            let credential = match way {
                Way::Broker => self.approved(&artifact).await?,
                Way::Verdaccio => self.verdaccio.as_ref().context("Verdaccio")?.token.clone(),
                _ => "null-registry-token".to_owned(),
            };
            uploads.push((artifact, credential));
        }
        let (origin, ids) = self.place(way)?;
        let mut ready = Vec::new();
        for (artifact, credential) in uploads {
            ready.push((Connection::open(&origin).await?, artifact, credential));
        }
        let before = (memory(&ids)?, cpu(&ids)?);
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = watch(ids.clone(), Arc::clone(&stop));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (mut connection, artifact, credential) in ready {
            tasks.spawn(async move {
                let at = Instant::now();
                let authorization = artifact.authorization(&credential);
                let headers = [
                    ("authorization", authorization.as_str()),
                    ("content-type", &artifact.media_type),
                ];
                let reply = connection
                    .call(artifact.method(), &artifact.path, &headers, &artifact.body)
                    .await?;
                reply.ok()?;
                anyhow::Ok((at.elapsed(), artifact.body.len() as u64))
            });
        }
        let mut done = Vec::new();
        while let Some(task) = tasks.join_next().await {
            done.push(task?.with_context(|| format!("an upload by way of {}", way.name())));
        }
        let wall = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let most = watcher.await?;
        for one in done {
            let (took, bytes) = one?;
            row.times.push(took);
            row.bytes += bytes;
        }
        row.walls.push(wall);
        row.cpu += cpu(&ids)?.saturating_sub(before.1);
        row.grown = row.grown.max(most.saturating_sub(before.0));
        Ok(())
    }

    /// Where uploads go, and whose memory and time are counted.
    fn place(&self, way: Way) -> anyhow::Result<(String, Vec<u32>)> {
        let nginx = || self.nginx.as_ref().context("nginx");
        Ok(match way {
            Way::Direct => (self.sink.url.clone(), Vec::new()),
            Way::Streaming => (nginx()?.streaming.clone(), nginx()?.ids()),
            Way::Buffering => (nginx()?.buffering.clone(), nginx()?.ids()),
            Way::Broker => {
                let id = self.daemon.id().context("the broker does not run")?;
                (self.daemon.registry_url.clone(), vec![id])
            }
            Way::Verdaccio => {
                let verdaccio = self.verdaccio.as_ref().context("Verdaccio")?;
                (verdaccio.url.clone(), vec![verdaccio.id()])
            }
        })
    }

    async fn approved(&mut self, artifact: &Artifact) -> anyhow::Result<String> {
        let wish = Wish::of(vec![artifact.item.clone()])?;
        let key = self.serial / PER_KEY;
        while self.keys <= key {
            let first = self.keys * PER_KEY;
            let names: Vec<_> = (first..first + PER_KEY)
                .map(|n| format!("{}:{}", self.kind.name(), self.kind.package(&stem(n))))
                .collect();
            let name = format!("ci-{}", self.keys);
            self.direct.add_client_key(&name, &names).await?;
            self.keys += 1;
        }
        let token = self.direct.id_token_of(&format!("ci-{key}"))?;
        let opened = self.direct.open(&token, &wish.asked).await?;
        let about = (opened.id, opened.request_digest, opened.match_code.as_str());
        let alice = &self.direct.alice;
        self.direct.answer(alice, about, Decision::Approve).await?;
        let collected = self.direct.collect(opened.id, &opened.ticket).await?;
        wish.credential(&collected)
    }
}

/// Looks at the memory of some processes until told to stop; the most that there was, in kB.
fn watch(ids: Vec<u32>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::task::spawn_blocking(move || {
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            most = most.max(memory(&ids).unwrap_or(0));
            std::thread::sleep(LOOK);
        }
        most
    })
}

/// Resident memory in kB.
fn memory(ids: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for id in ids {
        let text = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        sum += number.context("a process without memory")?;
    }
    Ok(sum)
}

/// Processor time, user and system.
fn cpu(ids: &[u32]) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for id in ids {
        let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let (_, rest) = text.rsplit_once(')').context("a name")?;
        let mut fields = rest.split_whitespace().skip(11);
        for _ in 0..2 {
            ticks += fields.next().context("a field")?.parse::<u64>()?;
        }
    }
    // Clock ticks are 10 ms on Linux (USER_HZ).
    Ok(Duration::from_millis(ticks * 10))
}

fn stem(n: usize) -> String {
    format!("u{n:06}")
}

fn policy(kind: Kind) -> String {
    let (version, tags) = match kind {
        Kind::Npm => ("any", "tags = [\"latest\"]\n"),
        Kind::PyPi => ("pep440", ""),
        Kind::Crates => ("semver", ""),
    };
    let callers: Vec<_> = (0..KEYS)
        .map(|n| format!(r#"{{ issuer = "client-key", client_key = "ci-{n}" }}"#))
        .collect();
    format!(
        "[[package]]\nmatch = [\"{}\"]\ncallers = [{}]\napprovers = [\"release\"]\nquorum = 1\n\
         factors = [\"device\"]\nversion = \"{version}\"\n{tags}",
        kind.pattern(),
        callers.join(", ")
    )
}
