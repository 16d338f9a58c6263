//! How long it takes to verify the log and a receipt, by the command that people use.

use crate::machine::Times;
use anyhow::{Context as _, bail};
use proto::{
    answer::{Decision, Evidence, Factor, Statement},
    api::{FileStatus, ItemStatus, LogLine, ReceiptBody, StateName},
    device::DeviceKey,
    digest::{Algorithm, Digest, hex},
    log::{
        checkpoint::{Checkpoint, LogKey},
        export::CheckpointLine,
        merkle::{Frontier, Node, TreeHash, consistency_plan, inclusion_plan, leaf_hash, prove},
        receipt::{PublishedItem, sign_receipt},
    },
    request::{CallerFacts, File as Named, Item, RequestFacts},
    time::UnixTime,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ORIGIN: &str = "broker.example";

/// How much.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Entries of the log
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Verifications of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Makes a log and a receipt in it, and verifies both with the client beside this program.
pub(crate) fn run(arguments: &Arguments, client: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let signer = DeviceKey::from_seed([7; 32])?;
    let vkey = LogKey::new(ORIGIN, signer.public())?.to_string();
    let facts = facts()?;
    let entries = arguments.entries;
    let (export, receipt) = (folder.path().join("log"), folder.path().join("receipt"));
    let (bytes, hashes) = write(&export, entries, &facts, &signer)?;
    let proof = of_inclusion(&hashes, 0, entries)?;
    std::fs::write(&receipt, receipt_of(&facts, &hashes, entries, &signer)?)?;
    println!("entries: {entries}, {bytes} bytes");
    let longest = (1..64).map(|n| entries / n).map(|from| {
        let plan = consistency_plan(from, entries).unwrap_or_default();
        plan.len() * 32
    });
    println!(
        "proof of inclusion: {} bytes; of consistency: at most {} of 63 looked at",
        proof.len() * 32,
        longest.max().unwrap_or(0)
    );
    let rate = hashing();
    println!(
        "one core hashes {rate:.0} MB/s SHA-256 (64 kB), {:.0} entries/s",
        leaves()
    );
    let limit = f64::from(u32::try_from(entries)?) / leaves();
    let log = verified(client, &export, &vkey, arguments.rounds)?;
    println!(
        "log verified: p50 {:.2} s, largest {:.2} s; hashing its leaves and nodes alone {limit:.2} s",
        log.ms(50) / 1000.0,
        log.ms(100) / 1000.0
    );
    let small = verified(client, &receipt, &vkey, arguments.rounds.max(20))?;
    println!(
        "receipt verified: p50 {:.2} ms, largest {:.2} ms",
        small.ms(50),
        small.ms(100)
    );
    let none = started(client, arguments.rounds.max(20))?;
    println!(
        "the client's start alone (--version): p50 {:.2} ms",
        none.ms(50)
    );
    Ok(())
}

/// Entries like those of real releases, the first of them the publish that the receipt is about.
fn leaf(index: u64, facts: &RequestFacts) -> String {
    if index == 0 {
        let items = facts.items.iter().map(|item| PublishedItem {
            name: item.name(),
            read_back: item.files.iter().map(|f| f.digest.clone()).collect(),
        });
        let items = items.collect::<Vec<_>>();
        let event = serde_json::json!({
            "type": "request-published", "request": facts.id, "digest": facts.digest(), "items": items,
        });
        return format!(r#"{{"v":1,"time":1700000000,"event":{event}}}"#);
    }
    format!(
        r#"{{"v":1,"time":{},"event":{{"type":"answer-accepted","request":"0198c0de-0000-7000-8000-{index:012}","digest":"{}","person":"alice","device":"dev_abcdefghijklmnopqrstuvwxyz","factor":"totp","decision":"approve"}}}}"#,
        1_700_000_000 + index,
        hex(&leaf_hash(&index.to_be_bytes()).0),
    )
}

type Nodes = BTreeMap<Node, TreeHash>;

fn write(
    path: &Path,
    entries: u64,
    facts: &RequestFacts,
    signer: &DeviceKey,
) -> anyhow::Result<(u64, Nodes)> {
    let mut file = BufWriter::new(File::create(path)?);
    let (mut frontier, mut nodes) = (Frontier::default(), Nodes::new());
    for index in 0..entries {
        let leaf = leaf(index, facts);
        frontier.push_with(leaf_hash(leaf.as_bytes()), |node, hash| {
            nodes.insert(node, hash);
        });
        serde_json::to_writer(&mut file, &LogLine { index, leaf })?;
        file.write_all(b"\n")?;
    }
    let checkpoint = point(&frontier).sign(signer)?;
    serde_json::to_writer(&mut file, &CheckpointLine { checkpoint })?;
    file.write_all(b"\n")?;
    file.flush()?;
    let bytes = std::fs::metadata(path)?.len();
    Ok((bytes, nodes))
}

fn point(frontier: &Frontier) -> Checkpoint {
    Checkpoint {
        origin: ORIGIN.into(),
        size: frontier.size(),
        root: frontier.root(),
    }
}

fn of_inclusion(nodes: &Nodes, index: u64, size: u64) -> anyhow::Result<Vec<TreeHash>> {
    let plan = inclusion_plan(index, size).context("an entry")?;
    prove(&plan, |node| nodes.get(&node).copied().context("a node"))
}

fn facts() -> anyhow::Result<RequestFacts> {
    let digest = Digest::of(Algorithm::Sha512, b"file");
    Ok(RequestFacts {
        id: "0198c0de-0000-7000-8000-000000000001".parse()?,
        items: vec![Item {
            registry: "npm".parse()?,
            package: "@acme/left".parse()?,
            version: "1.4.2".parse()?,
            tag: Some("latest".parse()?),
            files: vec![Named {
                name: "acme-left-1.4.2.tgz".into(),
                size: 1000,
                digest,
            }],
        }],
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "123".into(),
            claims: [("ref".to_owned(), "refs/tags/v1.4.2".to_owned())].into(),
            run_url: None,
        },
        policy: Digest::of(Algorithm::Sha256, b"policy"),
        job_key: "age1x".into(),
        expires: UnixTime(1_700_000_000),
    })
}

fn evidence(person: &str, seed: u8, facts: &RequestFacts) -> anyhow::Result<Evidence> {
    let device = DeviceKey::from_seed([seed; 32])?;
    let statement = Statement {
        decision: Decision::Approve,
        request_digest: facts.digest(),
        device: device.public().id(),
        time: UnixTime(1_700_000_000),
        nonce: "00".repeat(16),
    };
    Ok(Evidence {
        person: person.parse()?,
        factor: Factor::Totp,
        public_key: device.public(),
        signature: hex(&device.sign(&statement.canonical())),
        statement,
        totp_mac: None,
        assertion: None,
    })
}

fn receipt_of(
    facts: &RequestFacts,
    nodes: &Nodes,
    entries: u64,
    signer: &DeviceKey,
) -> anyhow::Result<String> {
    let mut frontier = Frontier::default();
    for index in 0..entries {
        frontier.push(*nodes.get(&Node { level: 0, index }).context("a leaf")?);
    }
    let shown = |file: &Named| FileStatus {
        name: file.name.clone(),
        state: StateName::Published,
        read_back: Some(file.digest.clone()),
    };
    let items = facts.items.iter().map(|item| ItemStatus {
        name: item.name(),
        state: StateName::Published,
        files: item.files.iter().map(shown).collect(),
    });
    let body = ReceiptBody {
        facts: facts.clone(),
        request_digest: facts.digest(),
        evidence: vec![evidence("alice", 2, facts)?, evidence("bob", 3, facts)?],
        site: None,
        intents: Vec::new(),
        items: items.collect(),
        leaf: LogLine {
            index: 0,
            leaf: leaf(0, facts),
        },
        inclusion: of_inclusion(nodes, 0, entries)?
            .iter()
            .map(ToString::to_string)
            .collect(),
        checkpoint: point(&frontier).sign(signer)?,
    };
    Ok(sign_receipt(&body, ORIGIN, signer)?)
}

/// `countersign verify`, from its start to its end.
fn verified(client: &Path, file: &Path, vkey: &str, rounds: usize) -> anyhow::Result<Times> {
    let file = file.display().to_string();
    timed(client, &["verify", &file, "--key", vkey], rounds)
}

fn started(client: &Path, rounds: usize) -> anyhow::Result<Times> {
    timed(client, &["--version"], rounds)
}

fn timed(client: &Path, args: &[&str], rounds: usize) -> anyhow::Result<Times> {
    let mut all = Vec::new();
    for _ in 0..rounds {
        let at = Instant::now();
        let status = Command::new(client)
            .args(args)
            .stdout(Stdio::null())
            .status()?;
        all.push(at.elapsed());
        if !status.success() {
            bail!("{} {args:?} fails", client.display());
        }
    }
    Ok(Times::new(all))
}

/// MB/s of one core.
fn hashing() -> f64 {
    let piece = vec![7u8; 64 * 1024];
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < Duration::from_secs(1) {
        std::hint::black_box(Digest::of(Algorithm::Sha256, &piece));
        done += f64::from(64 * 1024);
    }
    done / start.elapsed().as_secs_f64() / 1e6
}

/// Entries a second whose leaf is hashed, with the one node that each of them costs on the way to the root.
fn leaves() -> f64 {
    let leaf = [7u8; 270];
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < Duration::from_secs(1) {
        let mut frontier = Frontier::default();
        for _ in 0..1000 {
            frontier.push(leaf_hash(&leaf));
        }
        std::hint::black_box(frontier.root());
        done += 1000.0;
    }
    done / start.elapsed().as_secs_f64()
}
