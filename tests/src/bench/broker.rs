//! The release daemon on a folder of our choice, and what the kernel says about its process.

use anyhow::{Context as _, bail};
use stand::{Output, command::Running, free_ports, run};
use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(2);

/// One broker.
pub(crate) struct Broker {
    /// The API.
    pub(crate) url: String,
    /// The npm endpoint.
    pub(crate) registry_url: String,
    operations_port: u16,
    binary: PathBuf,
    folder: TempDir,
    running: Option<Running>,
}

impl Broker {
    /// Makes a store in `parent` and starts.
    pub(crate) async fn make(
        binary: &Path,
        parent: &Path,
        issuer: &str,
        registry: &str,
        policy: &str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("countersign-bench-")
            .tempdir_in(parent)?;
        let [port, registry_port, operations_port] = free_ports()?;
        let text = format!(
            r#"data = "data"
policy = "policy.toml"
listen = "127.0.0.1:{port}"
public_url = "http://127.0.0.1:{port}"

[operations]
listen = "127.0.0.1:{operations_port}"

[unseal]
identity_file = "unseal.age"

[[issuer]]
name = "github"
kind = "github"
issuer = "{issuer}"
jwks_url = "{issuer}/jwks"

[[registry]]
name = "npm"
kind = "npm"
url = "{registry}"
listen = "127.0.0.1:{registry_port}"
public_url = "http://127.0.0.1:{registry_port}"
"#
        );
        fs::write(folder.path().join("countersign.toml"), text)?;
        fs::write(folder.path().join("policy.toml"), policy)?;
        let mut broker = Self {
            url: format!("http://127.0.0.1:{port}"),
            registry_url: format!("http://127.0.0.1:{registry_port}"),
            operations_port,
            binary: binary.to_owned(),
            folder,
            running: None,
        };
        let args = ["init", "--admin", "robin", "--invite-file", "invite"];
        let made: Output = run(binary, &args, &[], broker.folder.path(), LIMIT).await?;
        made.ok().context("countersignd init")?;
        broker.start().await?;
        Ok(broker)
    }

    /// Starts it; returns the time from spawning to the first accepted connection that is served.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--config", "countersign.toml"])
            .current_dir(self.folder.path())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let begin = Instant::now();
        let mut running = Running::start(&mut command)?;
        // The operations listener and the API are bound in one go, after the vault is unsealed.
        let address = ([127, 0, 0, 1], self.operations_port).into();
        while TcpStream::connect_timeout(&address, LIMIT).is_err() {
            if let Some(status) = running.ended() {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                bail!("countersignd ended ({status}):\n{log}");
            }
            if begin.elapsed() > LIMIT {
                bail!("countersignd does not listen");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let mut connection = super::http::Connection::open(&self.url).await?;
        connection.call("GET", "/v1/status", &[], b"").await?.ok()?;
        let took = begin.elapsed();
        self.running = Some(running);
        Ok(took)
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    /// SIGTERM, and wait.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            running.terminate(LIMIT).await?;
        }
        Ok(())
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The first admin's invite.
    pub(crate) fn invite(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("invite"))?
            .trim()
            .to_owned())
    }

    /// A field of `/proc/<pid>/status` as a number: `VmRSS`, `VmHWM` (kB) or `Threads`.
    pub(crate) fn status(&self, field: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))
            .with_context(|| format!("no {field}"))?;
        let number = line.split_whitespace().next().context("a number")?;
        Ok(number.parse()?)
    }

    /// Processor time that it has used, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        let (_, rest) = text.rsplit_once(')').context("a name")?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut next = || -> anyhow::Result<u64> { Ok(fields.next().context("a field")?.parse()?) };
        // Clock ticks are 10 ms on Linux (USER_HZ).
        Ok(Duration::from_millis((next()? + next()?) * 10))
    }

    fn id(&self) -> anyhow::Result<u32> {
        Ok(self.running.as_ref().context("it does not run")?.id())
    }
}
