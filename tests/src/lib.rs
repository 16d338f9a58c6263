//! The stand: real binaries, real registries and a real issuer, for the tests in `tests/tests`.
//!
//! Everything listens on loopback, on ports that the system chose; everything is stopped and waited for on `Drop`; every
//! secret is made for the run. Nothing here is part of what is shipped.

pub mod api;
pub mod artifact;
pub mod authority;
pub mod backups;
pub mod bells;
pub mod browser;
pub mod cargo;
pub mod command;
pub mod daemon;
pub mod direct;
pub mod driver;
pub mod firefox;
pub mod gems;
pub mod history;
pub mod index;
pub mod intents;
pub mod kept;
pub mod killed;
pub mod nginx;
pub mod oci;
pub mod packages;
pub mod parts;
pub mod passkey;
pub mod people;
pub mod proxy;
pub mod python;
pub mod rows;
pub mod runbook;
pub mod stages;
pub mod team;
pub mod transcript;
pub mod witness;

use std::{
    cell::Cell,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub use command::{Output, run};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// For programs that cannot choose their own port. Between this call and theirs somebody else may take it, so a start
/// that fails with "address in use" is worth a second try ([`daemon`] does that).
pub fn free_port() -> anyhow::Result<u16> {
    let [port] = free_ports()?;
    Ok(port)
}

/// Several, all different: each is held until the last one is known.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

thread_local! {
    /// Seconds by which the people of this test are ahead of the machine's clock.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

/// Lets the people of this test live so many seconds from now, where its broker goes by a [`Clock`](parts::Clock).
pub fn live_at(seconds: i64) {
    AHEAD.set(seconds);
}

/// Now, in seconds since 1970 UTC: for claims and deadlines that tests make.
#[allow(
    clippy::disallowed_methods,
    reason = "a test stands at the edge, where the clock is read"
)]
pub fn now() -> anyhow::Result<u64> {
    Ok(std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs()
        .saturating_add_signed(AHEAD.get()))
}

/// An HTTP client for the stand's own calls: no proxies, no redirects, 10 s.
pub fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(10))
        .build()?)
}

/// Waits until something holds, a minute at most.
pub async fn until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    while !holds() {
        anyhow::ensure!(start.elapsed() < Duration::from_mins(1), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Seconds of a TOTP step.
const STEP: u64 = 30;

/// Calls without a code, and again with one for as long as the broker wants it: each code is good once. `spent` is
/// the last step that was used.
pub async fn with_code<R>(
    totp: &totp_rs::Totp,
    spent: &AtomicU64,
    wants: impl Fn(&R) -> bool,
    call: impl AsyncFn(Option<String>) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let mut reply = call(None).await?;
    for _ in 0..3 {
        if !wants(&reply) {
            break;
        }
        reply = call(Some(next_code(totp, spent).await?)).await?;
    }
    Ok(reply)
}

/// A code of a step after the last one that was used; waits for it.
pub async fn next_code(totp: &totp_rs::Totp, spent: &AtomicU64) -> anyhow::Result<String> {
    let mut step = now()? / STEP;
    while spent.fetch_max(step, Ordering::Relaxed) >= step {
        tokio::time::sleep(Duration::from_millis(200)).await;
        step = now()? / STEP;
    }
    Ok(totp.generate(step * STEP).to_string())
}
