//! Cuts the connection in front of a real registry, or in front of the broker, after every byte of an upload and of its
//! reply, and compares the broker's record with what the registry truly holds. See docs/RELIABILITY.md.
//!
//! Reading order: `main`, `Sweep::batch` (a few points under one approval), `Sweep::judge` (what would be wrong).

#[path = "../sweep/points.rs"]
mod points;
#[path = "../sweep/shelf.rs"]
mod shelf;

use anyhow::{Context as _, bail};
use clap::Parser;
use points::{Length, Point, Side};
use proto::{
    answer::Decision,
    api::{FileStatus, Opened, StateName},
    ids::RequestId,
};
use shelf::{Shelf, Truth};
use stand::{
    artifact::{Artifact, Kind},
    daemon::Daemon,
    direct::{Direct, Fail, Wish},
    proxy::{Fault, Proxy},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Uploads of the same bytes that a client tries; npm tries three times.
const TRIES: usize = 3;
/// How often a call of the API is repeated that had no reply.
const CALLS: usize = 4;
/// Requests under one of the job's names: the broker has a quota for each.
const PER_NAME: usize = 60;
/// How long the broker may take, at the end, to read back what is unclear.
const SETTLE: Duration = Duration::from_secs(45);
/// Wrong records whose text is printed.
const TEXTS: usize = 20;

/// Cuts connections after every byte of an upload and of its reply, and looks for wrong records.
#[derive(Parser)]
struct Args {
    /// Which registries: npm, pypi, crates
    #[arg(long, value_delimiter = ',', default_value = "npm,pypi,crates", value_parser = kind)]
    registry: Vec<Kind>,
    /// Every how many bytes
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// Bytes of filler in the package
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// So many bytes chosen by chance, instead of every one
    #[arg(long)]
    points: Option<u64>,
    /// Decides which
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which connection alone: registry or client
    #[arg(long, value_parser = side)]
    side: Option<Side>,
    /// Seconds that a client waits for an upload's reply; what is unclear then is judged as it stands
    #[arg(long, default_value_t = 240)]
    patience: u64,
    /// Packages under one approval
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Approvals at work at once
    #[arg(long, default_value_t = 60)]
    parallel: usize,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "npm, pypi or crates".into())
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "registry" => Ok(Side::Registry),
        "client" => Ok(Side::Client),
        _ => Err("registry or client".into()),
    }
}

/// What came of the points so far.
#[derive(Default)]
struct Tally {
    points: usize,
    missed: usize,
    uploads: usize,
    again: usize,
    states: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

/// A registry, a broker in front of it, and a proxy on each side of the broker.
struct Sweep {
    kind: Kind,
    shelf: Shelf,
    upstream: Proxy,
    front: Proxy,
    direct: Direct,
    http: reqwest::Client,
    filler: usize,
    patience: Duration,
    _daemon: Daemon,
}

/// One point on its way.
struct Case {
    point: Point,
    stem: String,
    artifact: Artifact,
}

/// One point afterwards.
struct Done {
    case: Case,
    /// Whether the client was told that it is published.
    told: bool,
    /// What the registry held at that moment.
    early: Truth,
    /// The broker's record in the end.
    file: FileStatus,
    /// What the registry held then.
    truth: Truth,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut good = true;
    for kind in &args.registry {
        match run(*kind, &args).await {
            Ok(clean) => good &= clean,
            Err(why) => {
                eprintln!("sweep {}: {why:#}", kind.name());
                good = false;
            }
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(kind: Kind, args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    // The names are known before the number of bytes is: an upload without a fault tells it.
    let sweep = Sweep::start(kind, args).await?;
    let mut points = Vec::new();
    let mut lengths = String::new();
    for (side, length) in sweep.lengths().await? {
        if args.side.is_some_and(|only| only != side) {
            continue;
        }
        let _ = write!(lengths, ", {side:?}: {} up {} down", length.up, length.down);
        points.extend(match args.points {
            Some(count) => points::sample(side, length, count, args.seed),
            None => points::every(side, length, args.every),
        });
    }
    let cases: Vec<_> = points.into_iter().enumerate().collect();
    let (sweep, turns) = (
        Arc::new(sweep),
        Arc::new(Semaphore::new(args.parallel.max(1))),
    );
    let per_name = PER_NAME * args.batch.max(1);
    let mut work = JoinSet::new();
    for (n, some) in cases.chunks(per_name).enumerate() {
        let name = format!("ci-{n}");
        let packages: Vec<_> = some
            .iter()
            .map(|(n, _)| format!("{}:{}", kind.name(), kind.package(&stem(*n))))
            .collect();
        sweep.direct.add_client_key(&name, &packages).await?;
        for batch in some.chunks(args.batch.max(1)) {
            let (sweep, turns, name) = (Arc::clone(&sweep), Arc::clone(&turns), name.clone());
            let batch = batch.to_vec();
            work.spawn(async move {
                let _turn = turns.acquire_owned().await?;
                sweep.batch(&name, &batch).await
            });
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = work.join_next().await {
        tally.add(done??);
    }
    print!(
        "registry {}{lengths}, points {}, missed {}, uploads {}, sent again {}",
        kind.name(),
        tally.points,
        tally.missed,
        tally.uploads,
        tally.again
    );
    for (state, count) in &tally.states {
        print!(", {state} {count}");
    }
    println!(
        ", wrong records {}, {} s",
        tally.wrong.len(),
        started.elapsed().as_secs()
    );
    for text in tally.wrong.iter().take(TEXTS) {
        println!("wrong: {text}");
    }
    Ok(tally.wrong.is_empty())
}

/// Repeats a call until it has a reply: each of them may be repeated, and a machine may be busy.
async fn insist<T, F: Future<Output = Result<T, Fail>>>(call: impl Fn() -> F) -> Result<T, Fail> {
    for _ in 1..CALLS {
        match call().await {
            Err(Fail::Away) => {}
            other => return other,
        }
    }
    call().await
}

/// Names of one length.
fn stem(n: usize) -> String {
    format!("s{n:06}")
}

impl Sweep {
    async fn start(kind: Kind, args: &Args) -> anyhow::Result<Self> {
        let shelf = Shelf::start(kind).await?;
        let upstream = Proxy::start(shelf.origin()).await?;
        let (url, keys) = shelf.settings(&upstream.url);
        let daemon = Daemon::builder()
            .registry_with(kind.name(), kind.name(), &url, &keys)
            .policy(&policy(kind))
            .start()
            .await?;
        let front = Proxy::start(&daemon.registry_url).await?;
        let direct = Direct::with_people(&daemon).await?;
        direct.add_token(kind.name(), shelf.token()).await?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A connection that was cut is nobody else's.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(args.patience))
            .build()?;
        Ok(Self {
            kind,
            shelf,
            upstream,
            front,
            direct,
            http,
            filler: args.size,
            patience: Duration::from_secs(args.patience),
            _daemon: daemon,
        })
    }

    /// How many bytes there are to cut: of an upload without a fault.
    async fn lengths(&self) -> anyhow::Result<[(Side, Length); 2]> {
        let n = 999_999;
        let package = format!("{}:{}", self.kind.name(), self.kind.package(&stem(n)));
        self.direct.add_client_key("ci-whole", &[package]).await?;
        let point = Point {
            side: Side::Registry,
            fault: Fault::None,
        };
        let (cases, opened, credential) = self.approved("ci-whole", &[(n, point)]).await?;
        let case = cases.first().context("a case")?;
        self.front.arm_inside(&case.stem, Fault::None);
        self.upstream.arm_inside(&case.stem, Fault::None);
        if !self.upload(&case.artifact, &credential).await {
            let status = self.direct.status(opened.id, &opened.ticket).await?;
            bail!("an upload without a fault is not published: {status:?}");
        }
        let of = |proxy: &Proxy| -> anyhow::Result<Length> {
            let all = proxy.watched(&case.stem);
            let whole = all.first().context("an upload that was seen")?;
            let head = whole.up.windows(4).position(|w| w == b"\r\n\r\n");
            Ok(Length {
                head: head.context("a head")? as u64 + 4,
                up: whole.up.len() as u64,
                down: whole.down,
            })
        };
        Ok([
            (Side::Registry, of(&self.upstream)?),
            (Side::Client, of(&self.front)?),
        ])
    }

    /// Opens, approves and collects.
    async fn approved(
        &self,
        name: &str,
        points: &[(usize, Point)],
    ) -> anyhow::Result<(Vec<Case>, Opened, String)> {
        let case = |(n, point): &(usize, Point)| -> anyhow::Result<Case> {
            let stem = stem(*n);
            let artifact = self.kind.artifact(&stem, self.filler)?;
            Ok(Case {
                point: *point,
                stem,
                artifact,
            })
        };
        let cases: Vec<_> = points.iter().map(case).collect::<anyhow::Result<_>>()?;
        let wish = Wish::of(cases.iter().map(|c| c.artifact.item.clone()).collect())?;
        let token = self.direct.id_token_of(name)?;
        let opened = insist(|| self.direct.open(&token, &wish.asked)).await?;
        let about = (opened.id, opened.request_digest, opened.match_code.as_str());
        let alice = &self.direct.alice;
        insist(|| self.direct.answer(alice, about, Decision::Approve)).await?;
        let collected = insist(|| self.direct.collect(opened.id, &opened.ticket)).await?;
        let credential = wish.credential(&collected)?;
        Ok((cases, opened, credential))
    }

    /// Some points under one approval.
    async fn batch(
        self: Arc<Self>,
        name: &str,
        points: &[(usize, Point)],
    ) -> anyhow::Result<Tally> {
        let (cases, opened, credential) = self.approved(name, points).await?;
        let mut uploads = JoinSet::new();
        for (at, case) in cases.into_iter().enumerate() {
            let (sweep, credential) = (Arc::clone(&self), credential.clone());
            let asked = (opened.id, opened.ticket.clone());
            uploads.spawn(async move {
                let (cut, other) = match case.point.side {
                    Side::Registry => (&sweep.upstream, &sweep.front),
                    Side::Client => (&sweep.front, &sweep.upstream),
                };
                cut.arm_inside(&case.stem, case.point.fault);
                other.arm_inside(&case.stem, Fault::None);
                let mut told = false;
                for _ in 0..TRIES {
                    told = sweep.upload(&case.artifact, &credential).await;
                    if told {
                        break;
                    }
                }
                // Whoever was told so may look at once.
                let early = sweep.shelf.truth(&case.artifact).await?;
                let (file, truth) = sweep.at_last(at, &case.artifact, &asked).await?;
                anyhow::Ok(Done {
                    case,
                    told,
                    early,
                    file,
                    truth,
                })
            });
        }
        let mut tally = Tally::default();
        while let Some(done) = uploads.join_next().await {
            let done = done??;
            self.judge(&done, &mut tally);
            // Only what will not be looked at again.
            if done.file.state == StateName::Published {
                self.shelf.clear(&done.case.artifact)?;
            }
        }
        Ok(tally)
    }

    /// Whether the broker said yes.
    async fn upload(&self, artifact: &Artifact, credential: &str) -> bool {
        let address = format!("{}{}", self.front.url, artifact.path);
        let request = match artifact.method() {
            "POST" => self.http.post(address),
            _ => self.http.put(address),
        };
        let request = request
            .header("authorization", artifact.authorization(credential))
            .header("content-type", &artifact.media_type)
            .body(artifact.body.clone());
        // A reply that is cut is none, whatever its first line says.
        match request.send().await {
            Ok(reply) => reply.status().is_success() && reply.bytes().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Compares the record with the registry.
    fn judge(&self, done: &Done, tally: &mut Tally) {
        let Done {
            case,
            told,
            early,
            file,
            truth,
        } = done;
        let sent = self.upstream.watched(&case.stem);
        let cut = match case.point.side {
            Side::Registry => sent.first().is_some_and(|u| u.hit),
            Side::Client => self.front.watched(&case.stem).iter().any(|u| u.hit),
        };
        let longest = sent.iter().map(|u| u.up.len()).max().unwrap_or(0);
        let whole = sent.iter().filter(|u| u.up.len() == longest).count();
        let mut wrong = |what: &str| {
            tally.wrong.push(format!(
                "{:?}: {what}; told {told}, {} read back as {:?}, registry {early:?} then {truth:?}, {} uploads, {whole} whole",
                case.point,
                file.state.text(),
                file.read_back,
                sent.len()
            ));
        };
        if *told && *early != Truth::Same {
            wrong("the client was told published");
        }
        let agrees = match file.state {
            StateName::Published => {
                *truth == Truth::Same && file.read_back.as_ref() == Some(&case.artifact.digest)
            }
            StateName::Conflict => matches!(truth, Truth::Other(_)),
            StateName::Settling => true,
            _ => *truth == Truth::Absent,
        };
        if !agrees {
            wrong("the record is not what the registry holds");
        }
        if *told && file.state != StateName::Published {
            wrong("published, and then not");
        }
        if *truth == Truth::Same && whole > 1 {
            wrong("sent again after it had landed");
        }
        if case.point.side == Side::Client && sent.len() > 1 {
            wrong("a client that repeats itself was passed on twice");
        }
        tally.points += 1;
        tally.missed += usize::from(!cut);
        tally.uploads += sent.len();
        tally.again += usize::from(sent.len() > 1);
        *tally.states.entry(file.state.text()).or_default() += 1;
        self.upstream.forget(&case.stem);
        self.front.forget(&case.stem);
    }

    /// A file's record and the registry's truth, once they agree or the broker has had its time.
    async fn at_last(
        &self,
        at: usize,
        artifact: &Artifact,
        (id, ticket): &(RequestId, String),
    ) -> anyhow::Result<(FileStatus, Truth)> {
        let start = Instant::now();
        loop {
            let status = insist(|| self.direct.status(*id, ticket)).await?;
            let item = status.items.get(at).context("an item")?;
            let file = item.files.first().context("a file")?.clone();
            let truth = self.shelf.truth(artifact).await?;
            let (known, limit) = match file.state {
                StateName::Published | StateName::Conflict => (true, SETTLE),
                StateName::Settling => (false, SETTLE.min(self.patience)),
                _ => (truth == Truth::Absent, SETTLE),
            };
            if known || start.elapsed() > limit {
                return Ok((file, truth));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.points += other.points;
        self.missed += other.missed;
        self.uploads += other.uploads;
        self.again += other.again;
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.wrong.extend(other.wrong);
    }
}

/// One device's answer is enough, whatever name of the job's asks.
fn policy(kind: Kind) -> String {
    let callers: Vec<_> = (0..400)
        .map(|n| format!("ci-{n}"))
        .chain(["ci-whole".to_owned()])
        .map(|name| format!(r#"{{ issuer = "client-key", client_key = "{name}" }}"#))
        .collect();
    let (version, tags) = match kind {
        Kind::Npm => ("any", "tags = [\"latest\"]\n"),
        Kind::PyPi => ("pep440", ""),
        Kind::Crates => ("semver", ""),
    };
    format!(
        "[[package]]\nmatch = [\"{}\"]\ncallers = [{}]\napprovers = [\"release\"]\nquorum = 1\n\
         factors = [\"device\"]\nversion = \"{version}\"\n{tags}",
        kind.pattern(),
        callers.join(", ")
    )
}
