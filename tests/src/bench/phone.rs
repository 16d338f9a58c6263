//! From the ring to done on a phone: `bench phone`. The page is opened, the match code typed, the passkey asked, the
//! answer taken; and how long a slow phone on a slow network shows nothing. What it means stands in `docs/PHONE.md`.

use clap::Args;
use serde_json::{Value, json};
use stand::{browser::Browser, daemon::Daemon, people::Office};
use std::time::Instant;

const POLICY: &str = r#"
[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["passkey"]
version = "semver-release"
tags = ["latest"]
"#;

/// From the ring to done on a phone
#[derive(Args)]
pub(crate) struct Arguments {
    /// Releases
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// How much slower the phone's processor is
    #[arg(long, default_value_t = 4)]
    slower: u32,
    /// Round trip of its network, in milliseconds
    #[arg(long, default_value_t = 150)]
    round_trip: u32,
    /// Its network's rate, in kilobits a second
    #[arg(long, default_value_t = 1600)]
    rate: u32,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let builder = Daemon::builder().named();
    let office = Office::start_as(builder, POLICY, "http://127.0.0.1:1").await?;
    let browser = Browser::start().await?;
    let phone = office.phone(&browser, "alice", &["release"]).await?;
    let mut paints = Vec::new();
    let (mut shown, mut done) = (Vec::new(), Vec::new());
    let how = json!({
        "cpu": arguments.slower, "latency": arguments.round_trip, "kilobits": arguments.rate,
    });
    for slow in [false, true] {
        if slow {
            phone.step("slow", how.clone()).await?;
        }
        for run in 0..arguments.runs {
            let name = format!("@acme/p{slow}{run}").to_lowercase();
            let job = office.open(&name, "1.0.0", b"bytes").await?;
            let began = Instant::now();
            phone.goto(&job.opened.page).await?;
            phone.sees("Publish exactly this?").await?;
            shown.push(began.elapsed().as_secs_f64() * 1e3);
            phone.fill("Match code", &job.opened.match_code).await?;
            phone.click("Approve with passkey").await?;
            phone.sees("1 of 1 approvals: alice").await?;
            done.push(began.elapsed().as_secs_f64() * 1e3);
            let paint: Value = phone.step("paint", json!({})).await?;
            paints.extend(paint.as_f64());
        }
        let what = if slow {
            let Arguments {
                slower,
                round_trip,
                rate,
                ..
            } = arguments;
            format!("slow phone ({slower}x slower, {round_trip} ms, {rate} kbit/s)")
        } else {
            "as fast as this machine".to_owned()
        };
        println!(
            "{what}, {} runs, median (largest) in ms: first paint {}, question shown {}, approved {}",
            arguments.runs,
            middle(&mut paints),
            middle(&mut shown),
            middle(&mut done),
        );
    }
    // Whoever opens the link for the first time has nothing of the app yet.
    let job = office.open("@acme/first", "1.0.0", b"bytes").await?;
    let names: Vec<_> = (0..arguments.runs).map(|run| format!("new{run}")).collect();
    for name in &names {
        let page = browser.page(name, json!({})).await?;
        page.step("slow", how.clone()).await?;
        page.goto(&job.opened.page).await?;
        paints.extend(page.step("paint", json!({})).await?.as_f64());
        page.step("close", json!({})).await?;
    }
    println!(
        "slow phone, first visit, nothing kept: first paint {}",
        middle(&mut paints)
    );
    Ok(())
}

/// The median and the largest; what was measured is taken.
fn middle(all: &mut Vec<f64>) -> String {
    let mut all = std::mem::take(all);
    all.sort_by(f64::total_cmp);
    let median = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    let last = all.last().copied().unwrap_or(f64::NAN);
    format!("{median:.0} ({last:.0})")
}
