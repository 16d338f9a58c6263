//! Measures the release daemon over loopback: `cargo run --release --bin bench`.
//!
//! Build first: `cargo build --release --workspace`. Generator, null registry and broker share the
//! machine's cores; every step is durable unless a line says otherwise. What the figures mean, and
//! the goals, stand in `docs/PERFORMANCE.md`.

#![allow(
    clippy::indexing_slicing,
    reason = "a bench that reads what is not there ends, and says where"
)]

#[path = "../bench/broker.rs"]
mod broker_process;
#[path = "../bench/card.rs"]
mod card;
#[path = "../bench/cycle.rs"]
mod cycle;
#[path = "../bench/discard.rs"]
mod discard;
#[path = "../bench/history.rs"]
mod history;
#[path = "../bench/http.rs"]
mod http;
#[path = "../bench/log.rs"]
mod log;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/nginx.rs"]
mod nginx;
#[path = "../bench/phone.rs"]
mod phone;
#[path = "../bench/restore.rs"]
mod restore;
#[path = "../bench/search.rs"]
mod search;
#[path = "../bench/sink.rs"]
mod sink;
#[path = "../bench/upload.rs"]
mod upload;

use age::x25519::Identity;
use anyhow::{Context as _, bail};
use broker::Broker;
use broker_process as broker;
use clap::{Parser, Subcommand};
use cycle::{Client, Job, Jobs, Person, Steps};
use machine::Times;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Measures the daemon beside this program.
#[derive(Parser)]
struct Arguments {
    /// How many clients at once.
    #[arg(long, value_delimiter = ',', default_value = "1,32,256")]
    clients: Vec<usize>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Finished requests for the start after a kill.
    #[arg(long, default_value_t = 100_000)]
    history: u64,
    /// Waiting clients.
    #[arg(long, default_value_t = 1000)]
    waiters: usize,
    /// Only the cycles, one second each.
    #[arg(long)]
    quick: bool,
    /// Where durable data lie; on a disk.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// The daemon; beside this program unless given.
    #[arg(long)]
    daemon: Option<PathBuf>,
    #[command(subcommand)]
    only: Option<Only>,
}

/// What is measured alone.
#[derive(Subcommand)]
enum Only {
    /// Uploads through the broker beside a plain reverse proxy
    Upload(upload::Arguments),
    /// The card on real published packages, fetched by npm and pip
    Card(card::Arguments),
    /// From the ring to done on a phone
    Phone(phone::Arguments),
    /// The log and a receipt, verified by the client
    Log(log::Arguments),
    /// A long log, searched
    Search(search::Arguments),
    /// A backup with many tokens, and the way back
    Restore(restore::Arguments),
}

/// A broker that is set up, with what drives it.
struct Stand {
    broker: Broker,
    jobs: Jobs,
    person: Arc<Person>,
    job_key: Arc<Identity>,
}

/// One run of cycles.
struct Run {
    clients: usize,
    rate: f64,
    cpu_us: f64,
    all: Times,
    steps: [Times; 4],
    rss_kb: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match &arguments.only {
        Some(Only::Upload(uploads)) => return upload::run(uploads).await,
        Some(Only::Phone(phones)) => return phone::run(phones).await,
        Some(Only::Search(searches)) => return search::run(searches).await,
        Some(Only::Log(logs)) => {
            let client = std::env::current_exe()?.with_file_name("countersign");
            return log::run(logs, &client);
        }
        Some(Only::Restore(backups)) => return restore::run(backups).await,
        // Measured with a daemon, which is looked for first.
        Some(Only::Card(_)) | None => {}
    }
    let beside = std::env::current_exe()?;
    let beside = beside.parent().context("a folder")?;
    let daemon = arguments
        .daemon
        .clone()
        .unwrap_or_else(|| beside.join("countersignd"));
    if !daemon.exists() {
        bail!("{}: cargo build --release --workspace", daemon.display());
    }
    let seconds = Duration::from_secs(if arguments.quick {
        1
    } else {
        arguments.seconds
    });

    if let Some(Only::Card(cards)) = &arguments.only {
        return card::run(cards, &daemon);
    }

    println!("cores: {}", std::thread::available_parallelism()?);
    let disk = Stand::make(&daemon, &arguments.folder).await?;
    let memory = Stand::make(&daemon, Path::new("/dev/shm")).await?;
    let flush = machine::flushes(&arguments.folder, Duration::from_secs(1))?;
    println!(
        "fdatasync of 4 kB: p50 {:.3} ms, p99 {:.3} ms, {:.0} /s",
        flush.ms(50),
        flush.ms(99),
        rate(flush.len(), Duration::from_secs(1))
    );
    let verify = disk.jobs.issuer().verify_rate(Duration::from_millis(500))?;
    println!("RS256 verifications of one core: {verify:.0} /s");
    println!(
        "idle: VmRSS {} kB, {} threads",
        disk.broker.status("VmRSS")?,
        disk.broker.status("Threads")?
    );

    println!(
        "\n| store | clients | cycles/s | CPU µs/cycle | cycle p50 / p99 ms | open | answer | collect | forward | VmRSS kB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for clients in &arguments.clients {
        for (name, stand) in [("disk, durable", &disk), ("tmpfs, no flush", &memory)] {
            let run = stand.run(*clients, seconds).await?;
            run.print(name);
        }
    }
    println!(
        "after the runs: VmRSS {} kB, peak {} kB, {} threads",
        disk.broker.status("VmRSS")?,
        disk.broker.status("VmHWM")?,
        disk.broker.status("Threads")?
    );
    drop(memory);
    if arguments.quick {
        return Ok(());
    }
    disk.wake(arguments.waiters).await?;
    drop(disk);

    let mut fresh = Stand::make(&daemon, &arguments.folder).await?;
    fresh.upload(100 << 20).await?;
    fresh.restarts(arguments.history).await?;
    drop(fresh);
    client_starts(&beside.join("countersign"))
}

impl Stand {
    async fn make(daemon: &Path, folder: &Path) -> anyhow::Result<Self> {
        let issuer = sink::Issuer::start().await?;
        let registry = sink::registry().await?;
        let broker = Broker::make(daemon, folder, &issuer.url, &registry, &cycle::policy()).await?;
        let person = cycle::team(&broker).await?;
        let job_key = Arc::new(Identity::generate());
        let jobs = Jobs::new(issuer, &job_key, &broker.url);
        Ok(Self {
            broker,
            jobs,
            person,
            job_key,
        })
    }

    async fn clients(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(Client::connect(&self.broker, &self.person, &self.job_key).await?);
        }
        Ok(all)
    }

    /// A short run to learn the rate, then one for which all jobs are made beforehand.
    async fn run(&self, clients: usize, time: Duration) -> anyhow::Result<Run> {
        let mut connections = self.clients(clients).await?;
        let warm = (200 / clients).max(2);
        let (rate, _, _) = self.drive(&mut connections, warm, time).await?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a number of jobs"
        )]
        let each = (rate * time.as_secs_f64() * 1.5 / clients as f64) as usize + 2;
        let cpu = self.broker.cpu()?;
        let (rate, done, cpu_after) = self.drive(&mut connections, each, time).await?;
        let used = cpu_after.saturating_sub(cpu);
        #[allow(clippy::cast_precision_loss, reason = "a number of cycles")]
        let cpu_us = used.as_secs_f64() * 1e6 / done.len() as f64;
        let step = |n: usize| {
            Times::new(
                done.iter()
                    .filter_map(|s| s.steps.get(n).copied())
                    .collect(),
            )
        };
        Ok(Run {
            clients,
            rate,
            cpu_us,
            all: Times::new(done.iter().map(|s| s.all).collect()),
            steps: [step(0), step(1), step(2), step(3)],
            rss_kb: self.broker.status("VmRSS")?,
        })
    }

    /// At most `each` cycles per client and at most for `time`; jobs and tokens are made before the
    /// clock runs.
    async fn drive(
        &self,
        connections: &mut Vec<Client>,
        each: usize,
        time: Duration,
    ) -> anyhow::Result<(f64, Vec<Steps>, Duration)> {
        let mut work = Vec::new();
        for client in 0..connections.len() {
            let jobs: Vec<Job> = (0..each)
                .map(|_| self.jobs.next(client, 300))
                .collect::<anyhow::Result<_>>()?;
            work.push(jobs);
        }
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (mut client, jobs) in connections.drain(..).zip(work) {
            tasks.spawn(async move {
                let mut done = Vec::with_capacity(jobs.len());
                for job in &jobs {
                    if start.elapsed() >= time {
                        break;
                    }
                    done.push(client.cycle(job).await?);
                }
                anyhow::Ok((client, done))
            });
        }
        let mut all = Vec::new();
        while let Some(task) = tasks.join_next().await {
            let (client, done) = task??;
            connections.push(client);
            all.extend(done);
        }
        let took = start.elapsed();
        Ok((rate(all.len(), took), all, self.broker.cpu()?))
    }

    /// Many waiting clients; some of their requests are answered one after another.
    async fn wake(&self, waiters: usize) -> anyhow::Result<()> {
        let before = (self.broker.status("VmRSS")?, self.broker.status("Threads")?);
        let (report, mut woken) = tokio::sync::mpsc::unbounded_channel();
        let mut requests = Vec::new();
        for n in 0..waiters {
            // Packages of their own, so that nobody's earlier version stands above.
            let job = self.jobs.next(1000 + n % 256, 300)?;
            let mut client = Client::connect(&self.broker, &self.person, &self.job_key).await?;
            let opened = client.open(&job).await?;
            let (id, report) = (opened.id, report.clone());
            let waiting = serde_json::from_value(serde_json::to_value(&opened)?)?;
            tokio::spawn(async move {
                let status = client.wait(&waiting).await;
                let _ = report.send((id, Instant::now(), status));
            });
            requests.push(opened);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!(
            "\n{waiters} clients wait: {} threads (before {}), VmRSS {} kB (before {})",
            self.broker.status("Threads")?,
            before.1,
            self.broker.status("VmRSS")?,
            before.0
        );
        let mut person = Client::connect(&self.broker, &self.person, &self.job_key).await?;
        let (mut sent, mut stored) = (Vec::new(), Vec::new());
        for opened in requests.iter().take(300) {
            let at = Instant::now();
            person.approve(opened).await?;
            let answered = Instant::now();
            let (id, when, status) = woken.recv().await.context("nobody woke")?;
            if id != opened.id || status?["state"] != "approved" {
                bail!("another waiter woke");
            }
            sent.push(when - at);
            stored.push(when.saturating_duration_since(answered));
        }
        for (name, all) in [
            ("answer sent to waiter told (durable)", sent),
            ("answer's reply to waiter told", stored),
        ] {
            let all = Times::new(all);
            println!("{name}: p50 {:.3} ms, p99 {:.3} ms", all.ms(50), all.ms(99));
        }
        Ok(())
    }

    /// Memory that one large upload costs, after a small one has warmed everything up.
    async fn upload(&self, size: usize) -> anyhow::Result<()> {
        // Made before connecting: the broker closes connections that idle for long.
        let job = self.jobs.next(3, size)?;
        let mut client = Client::connect(&self.broker, &self.person, &self.job_key).await?;
        for _ in 0..20 {
            client.cycle(&self.jobs.next(0, 300)?).await?;
        }
        let before = self.broker.status("VmRSS")?;
        let task = tokio::spawn(async move { client.cycle(&job).await });
        let mut most = before;
        while !task.is_finished() {
            most = most.max(self.broker.status("VmRSS")?);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let done = task.await??;
        let [.., forward] = done.steps;
        println!(
            "\none upload of {} MB: {:.2} s, VmRSS {before} kB before, {most} kB at most: +{} kB",
            size >> 20,
            forward.as_secs_f64(),
            most - before
        );
        Ok(())
    }

    /// Start-up with nothing and with much behind it, after SIGKILL.
    async fn restarts(&mut self, history: u64) -> anyhow::Result<()> {
        let empty = self.killed_starts(10).await?;
        // What is finished moves to the history within a few seconds.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.broker.stop().await?;
        let at = Instant::now();
        history::fill(&self.broker.data(), history).await?;
        println!(
            "\n{history} finished requests written in {:.1} s through the store's own calls",
            at.elapsed().as_secs_f64()
        );
        self.broker.start().await?;
        self.person.forget_nonce();
        let mut client = Client::connect(&self.broker, &self.person, &self.job_key).await?;
        for _ in 0..20 {
            client.cycle(&self.jobs.next(1, 300)?).await?;
        }
        let full = self.killed_starts(10).await?;
        println!(
            "kill -9, then start until served: nearly empty p50 {:.1} ms, worst {:.1} ms; after {history} requests p50 {:.1} ms, worst {:.1} ms; VmRSS then {} kB",
            empty.ms(50),
            empty.ms(100),
            full.ms(50),
            full.ms(100),
            self.broker.status("VmRSS")?
        );
        for name in ["live.redb", "history.redb"] {
            let size = std::fs::metadata(self.broker.data().join(name))?.len();
            println!("{name}: {} kB", size / 1024);
        }
        Ok(())
    }

    async fn killed_starts(&mut self, rounds: usize) -> anyhow::Result<Times> {
        let mut all = Vec::new();
        for _ in 0..rounds {
            self.broker.kill9();
            all.push(self.broker.start().await?);
        }
        Ok(Times::new(all))
    }
}

impl Run {
    fn print(&self, store: &str) {
        let step = |t: &Times| format!("{:.2} / {:.2}", t.ms(50), t.ms(99));
        let [open, answer, collect, forward] = &self.steps;
        println!(
            "| {store} | {} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} |",
            self.clients,
            self.rate,
            self.cpu_us,
            step(&self.all),
            step(open),
            step(answer),
            step(collect),
            step(forward),
            self.rss_kb
        );
    }
}

#[allow(clippy::cast_precision_loss, reason = "a number of events")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn client_starts(client: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let hello = machine::hello(folder.path())?;
    let [ours, plain] = machine::starts([(client, &["--version"]), (&hello, &[])], 200)?;
    println!(
        "\nclient: {} kB, start to exit p50 {:.2} ms; hello world: {} kB, {:.2} ms; ratio {:.2}",
        std::fs::metadata(client)?.len() / 1024,
        ours.ms(50),
        std::fs::metadata(&hello)?.len() / 1024,
        plain.ms(50),
        ours.ms(50) / plain.ms(50)
    );
    Ok(())
}
