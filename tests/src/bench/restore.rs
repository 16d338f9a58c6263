//! A backup of a broker with many tokens, and the way back on a bare machine: `bench restore`.

use super::machine;
use age::secrecy::ExposeSecret as _;
use anyhow::Context as _;
use broker::{
    secret::Secret,
    store::{
        Batch, Store as _,
        redb::{Options, Redb},
    },
    vault::{
        Unseal, Vault,
        tokens::{self, NewToken},
    },
    world::World,
};
use clap::Args;
use serde_json::{Value, json};
use stand::{
    backups::Vaulted,
    daemon::Daemon,
    kept,
    people::{NO_REGISTRY, Office},
};
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

/// Tokens that are stored in one commit.
const CHUNK: usize = 250;

/// A backup with many tokens, and the way back
#[derive(Args)]
pub(crate) struct Arguments {
    /// Tokens
    #[arg(long, default_value_t = 10_000)]
    tokens: usize,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let vaulted = Vaulted::new()?;
    let builder = vaulted.of(Daemon::builder(), "");
    let mut office = Office::start_as(builder, kept::POLICY, NO_REGISTRY).await?;
    office.daemon.terminate().await?;
    fill(office.daemon.dir(), arguments.tokens).await?;
    office.daemon.restart().await?;

    let mut quiet = Vec::new();
    for _ in 0..50 {
        quiet.push(freeze(&office).await?);
    }
    let before = status(&office, "VmRSS")?;
    let began = Instant::now();
    let (backup, busy) = tokio::join!(vaulted.take(&office.admin, "one"), async {
        let mut all = Vec::new();
        while all.len() < 50 {
            all.push(freeze(&office).await?);
        }
        anyhow::Ok(all)
    });
    let (backup, took) = (backup?, began.elapsed());
    let (quiet, busy) = (machine::Times::new(quiet), machine::Times::new(busy?));
    let bytes = fs::metadata(&backup)?.len();
    println!(
        "{} tokens: backup over HTTP {:.2} s, {} kB; VmRSS {before} kB before, {} kB at most",
        arguments.tokens,
        took.as_secs_f64(),
        bytes / 1024,
        status(&office, "VmHWM")?
    );
    println!(
        "a commit by an admin's call: p50 {:.2} ms, worst {:.2} ms; while a backup is taken p50 {:.2} ms, worst {:.2} ms",
        quiet.ms(50),
        quiet.ms(100),
        busy.ms(50),
        busy.ms(100)
    );

    let drilled = vaulted.drill(&office.daemon, &backup).await?.ok()?;
    let report: Value = serde_json::from_str(&drilled.stdout)?;
    println!("drill: {report}");
    office.daemon.kill9();
    let data = office.daemon.dir().join("data");
    fs::rename(&data, office.daemon.dir().join("old"))?;
    let began = Instant::now();
    vaulted
        .restore(&office.daemon, &backup, &data, &[])
        .await?
        .ok()?;
    let restored = began.elapsed();
    office.daemon.restart().await?;
    println!(
        "restored on a bare machine in {:.2} s, started and unsealed after {:.2} s",
        restored.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let tokens = office.admin.get("/v1/admin/tokens").await?;
    let count = tokens.body.as_array().context("a list")?.len();
    anyhow::ensure!(count == arguments.tokens, "{count} tokens came back");
    let size = fs::metadata(data.join("live.redb"))?.len();
    let plain = plain_copy(office.daemon.dir(), size)?;
    println!(
        "the machine's own limit: as many bytes as the restored live store ({} kB), written and flushed, {:.2} s",
        size / 1024,
        plain.as_secs_f64()
    );
    Ok(())
}

/// One durable act.
async fn freeze(office: &Office) -> anyhow::Result<Duration> {
    let asked = json!({"package": "npm:@acme/left"});
    let began = Instant::now();
    let done = office.admin.post("/v1/admin/freeze", asked).await?;
    done.ok::<Value>()?;
    Ok(began.elapsed())
}

fn status(office: &Office, field: &str) -> anyhow::Result<u64> {
    let pid = office.daemon.id().context("it does not run")?;
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|l| l.split_whitespace().next());
    Ok(number.context("a number")?.parse()?)
}

/// Stores tokens by the vault's own calls. The daemon must not run.
async fn fill(dir: &Path, count: usize) -> anyhow::Result<()> {
    let world = World::system();
    let vault = Vault::new(world.clone());
    let identity = fs::read_to_string(dir.join("unseal.age"))?;
    let file = fs::read(dir.join("data/vault.json"))?;
    vault.unseal(&file, &Unseal::Identity(Secret::new(identity)))?;
    let live = Redb::open(dir.join("data/live.redb"), Options::new(8 << 20))?;
    let registry = "npm".parse()?;
    for from in (0..count).step_by(CHUNK) {
        let mut batch = Batch::new();
        for n in from..(from + CHUNK).min(count) {
            // A macaroon has some 200 bytes.
            let token = age::x25519::Identity::generate().to_string();
            let token = Secret::new(token.expose_secret().repeat(3));
            let wanted = NewToken {
                registry: &registry,
                scope: &format!("@acme/p{n}").parse()?,
                token: &token,
                expires: None,
                proof: None,
                emptied: false,
                keeps_old: false,
            };
            (batch, _) = tokens::add(&vault, &live, batch, &wanted, world.now())?;
        }
        live.commit(batch).await?;
    }
    Ok(())
}

fn plain_copy(dir: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let path = dir.join("plain");
    let began = Instant::now();
    let mut file = File::create(&path)?;
    let piece = vec![7; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let took = began.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}
