//! Keeps a database of today's daemon for all later ones: `cargo run --bin corpus`, once for each release.

use clap::Parser;
use std::path::PathBuf;

/// Makes a broker with the daemon beside this program, and keeps its database in tests/corpus.
#[derive(Parser)]
struct Args {
    /// Where to write it; the version's own name when absent
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write over the one that is there: never for a version that was released
    #[arg(long)]
    again: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let out = args.out.unwrap_or_else(|| {
        stand::kept::folder().join(concat!(env!("CARGO_PKG_VERSION"), ".tar.gz"))
    });
    anyhow::ensure!(
        args.again || !out.exists(),
        "{}: this version has one already; where it was never released: --again",
        out.display()
    );
    let told = stand::kept::make(&out).await?;
    println!(
        "version {}: {} people, {} entries of the log, in {}",
        told.version,
        told.people.len(),
        told.entries,
        out.display()
    );
    Ok(())
}
