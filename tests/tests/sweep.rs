//! The short form of the sweep over cut connections; the long form is `cargo run --bin sweep` (docs/RELIABILITY.md).

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use stand::run;
use std::time::Duration;

fn figure(text: &str, name: &str) -> u64 {
    let after = text.split_once(&format!(", {name} "));
    let count = after.and_then(|(_, rest)| rest.split(',').next()?.trim().parse().ok());
    count.unwrap_or(0)
}

async fn sweeps(args: &[&str]) {
    let dir = stand::root();
    let limit = Duration::from_mins(8);
    let out = run(env!("CARGO_BIN_EXE_sweep"), args, &[], &dir, limit).await;
    let out = out.unwrap().ok().unwrap();
    let figure = |name: &str| figure(&out.stdout, name);
    assert!(out.stdout.contains(", wrong records 0,"), "{}", out.stdout);
    println!("{}", out.stdout);
    // Cuts that hit nothing, or that nothing came of, would prove nothing.
    assert!(figure("points") >= 15, "{}", out.stdout);
    assert!(out.stdout.contains(", missed 0,"), "{}", out.stdout);
    let unclear = figure("sent again") + figure("settling");
    assert!(unclear >= 1, "{}", out.stdout);
    assert!(figure("published") >= 15, "{}", out.stdout);
}

#[tokio::test]
async fn attack_42_no_cut_of_an_npm_upload_leaves_a_wrong_record() {
    sweeps(&["--registry", "npm", "--every", "200"]).await;
}

#[tokio::test]
async fn attack_42_no_cut_of_a_large_npm_upload_leaves_a_wrong_record() {
    let args = "--registry npm --size 2000000 --points 8 --seed 7 --parallel 4";
    sweeps(&args.split(' ').collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn attack_42_no_cut_of_a_python_upload_leaves_a_wrong_record() {
    sweeps(&["--registry", "pypi", "--every", "120"]).await;
}

/// The broker waits 90 s for a cargo registry before it sends again: what is unclear is judged as it stands.
#[tokio::test]
async fn attack_42_no_cut_of_a_crate_leaves_a_wrong_record() {
    let args = "--registry crates --every 200 --patience 5";
    sweeps(&args.split(' ').collect::<Vec<_>>()).await;
}
