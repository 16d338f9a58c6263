//! A witness of the log: a program of another language, with keys, state and proofs of its own (`tests/parts/witness.mjs`).

use crate::{
    command::Running,
    http,
    parts::{listen, node},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long the broker may take to show it something.
const LIMIT: Duration = Duration::from_mins(1);

/// What it has seen.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// Its vkey.
    pub vkey: String,
    /// Entries of the log.
    pub size: u64,
    /// Calls.
    pub calls: u64,
    /// Its answers, by status.
    pub answers: BTreeMap<String, u64>,
}

/// One.
pub struct Witness {
    /// Its address.
    pub url: String,
    /// Its vkey.
    pub vkey: String,
    running: Running,
}

impl Witness {
    /// Starts one of this name, which knows no log yet.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        let (running, url) = listen(node("witness.mjs")?.arg(name))?;
        let mut witness = Self {
            url,
            vkey: String::new(),
            running,
        };
        witness.vkey = witness.seen().await?.vkey;
        Ok(witness)
    }

    /// Its table in the configuration.
    pub fn setting(&self) -> String {
        format!(
            "[[witness]]\nkey = \"{}\"\nurl = \"{}\"\n",
            self.vkey, self.url
        )
    }

    /// What it has seen.
    pub async fn seen(&self) -> anyhow::Result<Seen> {
        let reply = http()?.get(self.control()).send().await?;
        Ok(reply.error_for_status()?.json().await?)
    }

    /// From now on it knows this log.
    pub async fn knows(&self, log: &str) -> anyhow::Result<()> {
        self.tell(json!({ "log": log })).await
    }

    /// From now on it answers like this; `tests/parts/witness.mjs` names the ways.
    pub async fn answers(&self, mode: &str) -> anyhow::Result<()> {
        self.tell(json!({ "mode": mode })).await
    }

    /// Waits until this holds of what it has seen.
    pub async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        let start = Instant::now();
        loop {
            let seen = self.seen().await?;
            if holds(&seen) {
                return Ok(seen);
            }
            anyhow::ensure!(start.elapsed() < LIMIT, "{what}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it, as its operator would who gives up.
    pub fn kill9(&mut self) {
        self.running.kill9();
    }

    async fn tell(&self, what: Value) -> anyhow::Result<()> {
        let call = http()?.post(self.control()).json(&what);
        call.send().await?.error_for_status()?;
        Ok(())
    }

    fn control(&self) -> String {
        format!("{}/control", self.url)
    }
}
