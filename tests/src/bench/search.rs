//! How long a search of a long log takes, and what it costs whoever else calls the broker meanwhile.

use crate::machine::Times;
use broker::store::{Batch, Store as _, redb::Redb};
use serde_json::Value;
use stand::people::{NO_REGISTRY, Office, phone_policy};
use std::time::{Duration, Instant};

/// How much.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Entries of the log
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
}

/// Entries in one commit of the preparation.
const PIECE: u64 = 10_000;

/// Makes a broker with a long log, and searches it.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let policy = phone_policy(1, r#"["device"]"#);
    let mut office = Office::start(&policy, NO_REGISTRY).await?;
    office.daemon.kill9();
    let live = Redb::open(office.daemon.dir().join("data/live.redb"), 64 << 20)?;
    let now = stand::now()?;
    for piece in 0..arguments.entries / PIECE {
        let leaf = |at: u64| {
            let time = now - arguments.entries + at;
            format!(
                r#"{{"v":1,"time":{time},"event":{{"type":"answer-accepted","request":"0198c0de-0000-7000-8000-{at:012}","digest":"{}","person":"alice","device":"dev_abcdefghijklmnopqrstuvwxyz","factor":"totp","decision":"approve"}}}}"#,
                "0".repeat(64)
            )
        };
        let from = piece * PIECE;
        let batch = (from..from + PIECE).fold(Batch::new(), |batch, at| batch.append(leaf(at)));
        live.commit(batch).await?;
    }
    drop(live);
    office.daemon.restart().await?;
    let took = |what: &str, times: Vec<Duration>, calls: usize| {
        let times = Times::new(times);
        println!(
            "{what}: {calls} calls, p50 {:.1} ms, largest {:.1} ms",
            times.ms(50),
            times.ms(100)
        );
    };
    let whole = Instant::now();
    let times = search(&office, "event=frozen").await?;
    let calls = times.len();
    println!(
        "all of {} entries: {:.2} s",
        arguments.entries,
        whole.elapsed().as_secs_f64()
    );
    took("a piece of it", times, calls);
    let times = search(&office, "package=npm:@acme/left").await?;
    let calls = times.len();
    took(
        "a piece, by package (each entry's request is looked up)",
        times,
        calls,
    );
    let since = now - 1000;
    let times = search(&office, &format!("event=frozen&since={since}")).await?;
    let calls = times.len();
    took("since 1,000 entries ago", times, calls);
    Ok(())
}

/// Follows a search to its end; how long each call took.
async fn search(office: &Office, query: &str) -> anyhow::Result<Vec<Duration>> {
    let (mut from, mut times) = (0, Vec::new());
    loop {
        let path = format!("/v1/log/find?{query}&from={from}");
        let start = Instant::now();
        let found: Value = office.admin.get(&path).await?.ok()?;
        times.push(start.elapsed());
        match found.get("next").and_then(Value::as_u64) {
            Some(next) => from = next,
            None => return Ok(times),
        }
    }
}
