//! The short form of the crash loop, in two halves; the long form is `cargo run --bin crash -- --cycles 10000`.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use stand::run;
use std::time::Duration;

async fn a_hundred_kills(seed: &str) {
    let limit = Duration::from_mins(4);
    let args = ["--cycles", "100", "--seed", seed];
    let dir = stand::root();
    let out = run(env!("CARGO_BIN_EXE_crash"), &args, &[], &dir, limit).await;
    let out = out.unwrap().ok().unwrap();
    let figure = |name: &str| {
        let after = out.stdout.split_once(&format!("{name} ")).unwrap().1;
        after.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(figure("violations"), 0, "{}", out.stdout);
    // Clients that were refused everything would prove nothing.
    assert!(figure("requests") >= 50, "{}", out.stdout);
    assert!(figure("published") >= 20, "{}", out.stdout);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_over_a_hundred_kills() {
    a_hundred_kills("1").await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_over_a_hundred_other_kills() {
    a_hundred_kills("2").await;
}
