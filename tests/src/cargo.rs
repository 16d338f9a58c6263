//! The cargo world: a real registry over the freighter crates, and crates to publish.

use crate::{
    command::{Output, Running, run},
    http, root,
};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long the registry may take to listen.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long its first build may take: some three hundred crates.
const BUILD_LIMIT: Duration = Duration::from_mins(30);
/// One command of cargo.
const COMMAND: Duration = Duration::from_mins(2);

/// A cargo registry with two users.
#[derive(Debug)]
pub struct Freighter {
    /// Its API.
    pub url: String,
    /// Its sparse index.
    pub index: String,
    /// A token that may publish.
    pub token: String,
    /// Another user's.
    pub other: String,
    folder: TempDir,
    /// Its process.
    pub running: Running,
}

impl Freighter {
    /// Builds it if nobody has, and starts one.
    pub async fn start() -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Listening {
            url: String,
            token: String,
            other: String,
        }
        let home = root().join("tests/parts/freighter");
        let program = home.join("target/debug/countersign-test-registry");
        // cargo itself knows whether there is something to do, and lets one build at a time.
        let folder = home.clone();
        // What cargo tells a test of its own package would make some of the registry's crates anew each time.
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
        let names: Vec<_> = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| ours.iter().any(|o| name.starts_with(o)))
            .collect();
        let without: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        run(
            "cargo",
            &["build", "--locked", "--quiet"],
            &without,
            &folder,
            BUILD_LIMIT,
        )
        .await?
        .ok()
        .context("the test registry cannot be built")?;
        let folder = TempDir::new()?;
        let mut command = Command::new(program);
        command.arg(folder.path()).stderr(Stdio::inherit());
        let (running, line) = Running::with_first_line(&mut command, START_LIMIT)?;
        let listening: Listening = serde_json::from_str(&line)
            .with_context(|| format!("the registry printed {line:?} first"))?;
        Ok(Self {
            index: format!("{}/index/", listening.url),
            url: listening.url,
            token: listening.token,
            other: listening.other,
            folder,
            running,
        })
    }

    /// What its index shows of a crate: each version's line.
    pub async fn lines(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let place = match name.len() {
            0..=3 => bail!("a longer name"),
            _ => format!(
                "{}/{}/{name}",
                name.get(..2).unwrap_or_default(),
                name.get(2..4).unwrap_or_default()
            ),
        };
        let reply = http()?.get(format!("{}{place}", self.index)).send().await?;
        if reply.status() == 404 {
            return Ok(Vec::new());
        }
        let text = reply.error_for_status()?.text().await?;
        text.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    /// The sha256 of one version, as the index shows it.
    pub async fn cksum(&self, name: &str, version: &str) -> anyhow::Result<Option<String>> {
        let lines = self.lines(name).await?;
        let found = lines
            .iter()
            .find(|l| l.get("vers").and_then(Value::as_str) == Some(version));
        let cksum = found.and_then(|l| l.get("cksum")).and_then(Value::as_str);
        Ok(cksum.map(str::to_owned))
    }

    /// The archive as it is stored.
    pub fn stored(&self, name: &str, version: &str) -> PathBuf {
        let file = format!("{name}-{version}.crate");
        self.folder.path().join("files").join(file)
    }
}

/// Makes a crate without dependencies in a folder of its own.
pub fn package(dir: &Path, name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let folder = dir.join(format!("{name}-src"));
    write(&folder, name, version, "")?;
    Ok(folder)
}

/// Writes a crate; `more` goes to the end of its Cargo.toml.
pub fn write(folder: &Path, name: &str, version: &str, more: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         description = \"A crate of the tests\"\nlicense = \"MIT\"\nreadme = \"README.md\"\n{more}"
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("README.md"), format!("# {name}\n"))?;
    fs::write(folder.join("src/lib.rs"), "//! Nothing.\n")?;
    Ok(())
}

/// Publishes past any broker: the real cargo, with a token of the registry's own.
pub async fn publish_past(registry: &Freighter, folder: &Path, token: &str) -> anyhow::Result<()> {
    let index = format!("sparse+{}", registry.index);
    let env = [
        ("CARGO_REGISTRIES_FR_INDEX", index.as_str()),
        ("CARGO_REGISTRIES_FR_TOKEN", token),
    ];
    let args = [
        "publish",
        "--registry",
        "fr",
        "--no-verify",
        "--allow-dirty",
    ];
    cargo(folder, &args, &env).await?.ok()?;
    Ok(())
}

/// Runs the real cargo.
pub async fn cargo(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Output> {
    run("cargo", args, env, folder, COMMAND).await
}
