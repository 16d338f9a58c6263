//! Databases of released versions, kept in `tests/corpus`: made by the real daemon, opened by every later one.

use crate::{
    daemon::Daemon,
    people::{Device, NO_REGISTRY, Office},
};
use anyhow::Context as _;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proto::{device::DeviceKey, digest::hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

/// What of a broker's folder is kept.
const FILES: [&str; 4] = [
    "data/live.redb",
    "data/history.redb",
    "data/vault.json",
    "unseal.age",
];
/// Beside them: who is in it.
const TOLD: &str = "told.json";
/// The policy of every kept broker.
pub const POLICY: &str = r#"[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "semver-release"
tags = ["latest"]
"#;

/// What a later version must find.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// The daemon's version.
    pub version: String,
    /// The admin's device key, hex.
    pub seed: String,
    /// The admin's authenticator.
    pub otpauth: String,
    /// Everybody's name.
    pub people: Vec<String>,
    /// How many tokens are stored.
    pub tokens: usize,
    /// The log's key.
    pub log_key: String,
    /// How many entries the log had at least.
    pub entries: usize,
}

/// The folder of kept databases.
pub fn folder() -> PathBuf {
    crate::root().join("tests/corpus")
}

/// Every kept database.
pub fn all() -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "gz") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Makes a broker with the daemon beside this program, lets it see some of everything, and keeps its database.
#[allow(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null where nothing is"
)]
pub async fn make(out: &Path) -> anyhow::Result<Told> {
    let mut office = Office::start(POLICY, NO_REGISTRY).await?;
    let alice = office.hire("alice", &["release"], false, &[]).await?;
    office.hire("carol", &[], true, &["github:77"]).await?;
    office.store("canary-registry-token").await?;
    let mut pending = office.open("@acme/left", "1.0.0", b"left").await?;
    alice.approve(&pending, Some(&alice.code(0)?)).await?;
    pending = office.open("@acme/right", "1.0.0", b"right").await?;
    let denied = office.open("@acme/down", "1.0.0", b"down").await?;
    alice.deny(&denied, false).await?.ok::<Value>()?;
    let frozen = json!({"package": "npm:@acme/up"});
    let frozen = office.admin.post("/v1/admin/freeze", frozen).await?;
    frozen.ok::<Value>()?;
    // What is finished moves to the history within a few seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    pending.state().await.context("what waits")?;
    let status: Value = office.admin.get("/v1/status").await?.ok()?;
    let told = Told {
        version: status["version"].as_str().context("a version")?.to_owned(),
        seed: hex(office.admin.key.expose_seed()),
        otpauth: office.admin.otpauth.clone(),
        people: ["alice", "carol", "robin"].map(str::to_owned).to_vec(),
        tokens: 1,
        log_key: status["log_key"].as_str().context("a key")?.to_owned(),
        entries: office.events().await?.len(),
    };
    office.daemon.terminate().await?;
    pack(office.daemon.dir(), &told, out)?;
    Ok(told)
}

fn pack(dir: &Path, told: &Told, out: &Path) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(out)?, Compression::best()));
    let mut add = |name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        Ok(tar.append_data(&mut header, name, bytes)?)
    };
    for name in FILES {
        add(name, &fs::read(dir.join(name))?)?;
    }
    add(TOLD, &serde_json::to_vec_pretty(told)?)?;
    Ok(tar.into_inner()?.finish()?.sync_all()?)
}

/// Puts a kept database into the place of a broker's own, and starts today's daemon over it; gives what it must
/// find, and the admin's device.
pub async fn open(daemon: &mut Daemon, kept: &Path) -> anyhow::Result<(Told, Device)> {
    daemon.kill9();
    fs::remove_dir_all(daemon.dir().join("data"))?;
    fs::remove_file(daemon.dir().join("unseal.age"))?;
    tar::Archive::new(GzDecoder::new(File::open(kept)?)).unpack(daemon.dir())?;
    let told: Told = serde_json::from_slice(&fs::read(daemon.dir().join(TOLD))?)?;
    daemon.restart().await?;
    let seed = proto::digest::unhex(&told.seed).and_then(|s| <[u8; 32]>::try_from(s).ok());
    let key = DeviceKey::from_seed(seed.context("a seed")?)?;
    let admin = Device::of(key, &told.otpauth, &daemon.url)?;
    Ok((told, admin))
}
