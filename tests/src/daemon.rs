//! Our own programs: where they are, and a broker that runs.

use crate::{
    command::{Output, Running, run},
    free_ports, http,
};
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const BUILD_LIMIT: Duration = Duration::from_mins(30);
const INIT_LIMIT: Duration = Duration::from_mins(1);
const READY_LIMIT: Duration = Duration::from_mins(1);

/// How often a start is tried: between choosing a port and listening, somebody else may take it.
const START_TRIES: u32 = 3;

/// Our two programs.
#[derive(Clone, Debug)]
pub struct Bins {
    /// The broker.
    pub countersignd: PathBuf,
    /// The command line.
    pub countersign: PathBuf,
}

/// Finds both programs beside the running test, and builds them if one is absent.
pub async fn bins() -> anyhow::Result<Bins> {
    // A test is target/<profile>/deps/<name>-<hash>, where nextest and cargo test agree; a program of ours lies
    // in target/<profile>.
    let own = std::env::current_exe()?;
    let profile = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("the test does not lie in a target folder")?;
    let bins = Bins {
        countersignd: profile.join("countersignd"),
        countersign: profile.join("countersign"),
    };
    if !(bins.countersignd.exists() && bins.countersign.exists()) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // The same command as everywhere else: other flags would compile everything once more.
        let args = ["build", "--workspace", "--all-targets", "--locked"];
        run(cargo, &args, &[], &crate::root(), BUILD_LIMIT)
            .await?
            .ok()?;
    }
    Ok(bins)
}

/// One issuer of the configuration.
#[derive(Clone, Debug)]
pub struct IssuerSetting {
    /// The name that policy uses.
    pub name: String,
    /// `github`, `gitlab` or `oidc`.
    pub kind: String,
    /// The exact `iss`.
    pub issuer: String,
    /// Where the keys are, when discovery shall not be asked.
    pub jwks_url: Option<String>,
}

/// One registry of the configuration.
#[derive(Clone, Debug)]
pub struct RegistrySetting {
    /// The name that packages are written with (`npm:…`).
    pub name: String,
    /// The adapter.
    pub kind: String,
    /// The upstream.
    pub url: String,
    /// More keys, as lines of TOML.
    pub keys: String,
}

/// What a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    issuers: Vec<IssuerSetting>,
    registries: Vec<RegistrySetting>,
    policy: String,
    extra: String,
    env: Vec<(String, String)>,
    /// Of `countersignd init` alone.
    init_env: Vec<(String, String)>,
    sealed: bool,
    /// The identity and the program of an age plugin.
    plugin: Option<(String, PathBuf)>,
    tls: Option<[String; 2]>,
    /// Whether people reach it by a name, where browsers have passkeys.
    named: bool,
    /// The port of whatever stands in front of the registry endpoint.
    front: Option<u16>,
}

impl Builder {
    /// Trusts an issuer.
    #[must_use]
    pub fn issuer(mut self, name: &str, kind: &str, issuer: &str, jwks_url: Option<&str>) -> Self {
        self.issuers.push(IssuerSetting {
            name: name.into(),
            kind: kind.into(),
            issuer: issuer.into(),
            jwks_url: jwks_url.map(Into::into),
        });
        self
    }

    /// Serves a registry.
    #[must_use]
    pub fn registry(self, name: &str, kind: &str, url: &str) -> Self {
        self.registry_with(name, kind, url, "")
    }

    /// Serves a registry whose kind has more keys (lines of TOML).
    #[must_use]
    pub fn registry_with(mut self, name: &str, kind: &str, url: &str, keys: &str) -> Self {
        self.registries.push(RegistrySetting {
            name: name.into(),
            kind: kind.into(),
            url: url.into(),
            keys: keys.into(),
        });
        self
    }

    /// The text of `policy.toml`.
    #[must_use]
    pub fn policy(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.policy);
        self
    }

    /// More lines for the end of `countersign.toml` (tables only).
    #[must_use]
    pub fn extra(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.extra);
        self
    }

    /// A variable for the broker's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Loads a library into the broker before all others, beside those that were named before.
    #[must_use]
    pub fn preload(mut self, library: &str) -> Self {
        const NAME: &str = "LD_PRELOAD";
        match self.env.iter_mut().find(|(name, _)| name == NAME) {
            Some((_, all)) => all.extend([":", library]),
            None => self.env.push((NAME.into(), library.into())),
        }
        self
    }

    /// A variable for `countersignd init` alone.
    #[must_use]
    pub fn init_env(mut self, name: &str, value: &str) -> Self {
        self.init_env.push((name.into(), value.into()));
        self
    }

    /// Names no way to unseal: the broker starts sealed, and counts as started when it answers.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// An age plugin opens the vault: the text of its identity file, and its program.
    #[must_use]
    pub fn plugin(mut self, identity: &str, program: &Path) -> Self {
        self.plugin = Some((identity.into(), program.into()));
        self
    }

    /// Serves TLS with this chain and key (PEM); they lie in [`Daemon::certificate`].
    #[must_use]
    pub fn tls(mut self, chain: &str, key: &str) -> Self {
        self.tls = Some([chain.into(), key.into()]);
        self
    }

    /// People reach it at `localhost`: browsers have no passkeys at an address.
    #[must_use]
    pub fn named(mut self) -> Self {
        self.named = true;
        self
    }

    /// Something stands in front of the registry endpoint, at this port of 127.0.0.1: clients are sent there.
    #[must_use]
    pub fn behind(mut self, port: u16) -> Self {
        self.front = Some(port);
        self
    }

    /// Makes a store, starts the broker and waits until it is ready.
    pub async fn start(self) -> anyhow::Result<Daemon> {
        let dir = TempDir::new()?;
        let mut daemon = Daemon {
            bins: bins().await?,
            url: String::new(),
            registry_url: String::new(),
            registry_listen: String::new(),
            operations_url: String::new(),
            init: None,
            setting: self,
            dir,
            running: None,
        };
        daemon.choose_ports()?;
        if let Some(pair) = &daemon.setting.tls {
            for (path, text) in daemon.certificate().iter().zip(pair) {
                fs::write(path, text)?;
            }
        }
        if let Some((identity, _)) = &daemon.setting.plugin {
            fs::write(daemon.dir().join("unseal.age"), identity)?;
        }
        let config = daemon.config_path();
        let invite = daemon.invite_path();
        let args = [
            "init".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
            "--admin".as_ref(),
            "robin".as_ref(),
            "--invite-file".as_ref(),
            invite.as_os_str(),
        ];
        let own = daemon.setting.init_env.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let env: Vec<_> = daemon.env().into_iter().chain(own).collect();
        let output = run(
            &daemon.bins.countersignd,
            &args,
            &env,
            daemon.dir(),
            INIT_LIMIT,
        )
        .await?;
        daemon.init = Some(output.ok().context("countersignd init")?);
        let mut tries = 0;
        loop {
            tries += 1;
            match daemon.restart().await {
                Err(error) if tries < START_TRIES && daemon.log().contains("in use") => {
                    daemon.choose_ports().context(error)?;
                }
                started => return started.map(|()| daemon),
            }
        }
    }

    fn host(&self) -> &'static str {
        if self.named { "localhost" } else { "127.0.0.1" }
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The configuration: the one place in the tests that knows its keys.
    fn config(&self, dir: &Path, ports: [u16; 3]) -> String {
        let [port, registry_port, operations_port] = ports;
        let front = self.front.unwrap_or(registry_port);
        let scheme = self.scheme();
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let path = |name: &str| quoted(&dir.join(name).display().to_string());
        let mut text = format!(
            r#"data = {data}
policy = {policy}
listen = "127.0.0.1:{port}"
public_url = "{scheme}://{host}:{port}"

[operations]
listen = "127.0.0.1:{operations_port}"

[log]
format = "json"
"#,
            host = self.host(),
            data = path("data"),
            policy = path("policy.toml"),
        );
        if !self.sealed {
            let identity = path("unseal.age");
            text.extend([format!("\n[unseal]\nidentity_file = {identity}\n")]);
        }
        if let Some((_, program)) = &self.plugin {
            let program = quoted(&program.display().to_string());
            text.extend([format!("plugin = {program}\n")]);
        }
        if self.tls.is_some() {
            let (chain, key) = (path("tls.crt"), path("tls.key"));
            text.extend([format!("\n[tls]\ncertificate = {chain}\nkey = {key}\n")]);
        }
        for issuer in &self.issuers {
            text.extend([format!(
                "\n[[issuer]]\nname = {}\nkind = {}\nissuer = {}\n",
                quoted(&issuer.name),
                quoted(&issuer.kind),
                quoted(&issuer.issuer)
            )]);
            if let Some(url) = &issuer.jwks_url {
                text.extend([format!("jwks_url = {}\n", quoted(url))]);
            }
        }
        for registry in &self.registries {
            text.extend([format!(
                "\n[[registry]]\nname = {}\nkind = {}\n",
                quoted(&registry.name),
                quoted(&registry.kind),
            )]);
            if registry.kind != "generic" {
                text.extend([format!(
                    "url = {}\nlisten = \"127.0.0.1:{registry_port}\"\npublic_url = \"{scheme}://127.0.0.1:{front}\"\n{}\n",
                    quoted(&registry.url),
                    registry.keys
                )]);
            }
        }
        text.push('\n');
        text.push_str(&self.extra);
        text
    }
}

/// A broker that runs, in a folder of its own.
#[derive(Debug)]
pub struct Daemon {
    /// Our programs.
    pub bins: Bins,
    /// People, API and phone app.
    pub url: String,
    /// Where registry clients point.
    pub registry_url: String,
    /// Where the broker itself serves them: the same, unless it stands [behind](Builder::behind) something.
    pub registry_listen: String,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub operations_url: String,
    /// What `countersignd init` said (the first admin's invite is in it).
    pub init: Option<Output>,
    setting: Builder,
    dir: TempDir,
    running: Option<Running>,
}

impl Daemon {
    /// A broker with nothing set yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("countersign.toml")
    }

    /// Where `countersignd init` left the first admin's invite.
    pub fn invite_path(&self) -> PathBuf {
        self.dir().join("invite")
    }

    /// Its policy file. Write it, then reload or restart.
    pub fn policy_path(&self) -> PathBuf {
        self.dir().join("policy.toml")
    }

    /// Where its certificate chain and key lie. Write them, then reload.
    pub fn certificate(&self) -> [PathBuf; 2] {
        [self.dir().join("tls.crt"), self.dir().join("tls.key")]
    }

    /// SIGHUP: policy and certificate are read again.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let pid = self.id().context("it does not run")?.to_string();
        let args = ["-HUP", pid.as_str()];
        run("kill", &args, &[], self.dir(), READY_LIMIT)
            .await?
            .ok()?;
        Ok(())
    }

    /// Puts another policy in force, and waits until it is.
    pub async fn change_policy(&self, toml: &str) -> anyhow::Result<()> {
        let reloads = || self.log().matches("policy reloaded").count();
        let before = reloads();
        fs::write(self.policy_path(), toml)?;
        self.reload().await?;
        let start = Instant::now();
        while reloads() == before {
            if start.elapsed() > READY_LIMIT {
                bail!("the policy was not reloaded:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Everything it has logged, over all restarts.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// A figure of `/metrics`, by its name.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let url = format!("{}/metrics", self.operations_url);
        let text = http()?.get(url).send().await?.text().await?;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).context(name.to_owned())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(Running::id)
    }

    /// SIGKILL: nothing is flushed, no handler runs.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    /// SIGTERM, as the service manager would; returns the exit code.
    pub async fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        match self.running.take() {
            Some(mut running) => running.terminate(READY_LIMIT).await,
            None => bail!("it does not run"),
        }
    }

    /// Kills it if it runs, starts it on the same data and ports, and waits until it is ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let sign = if self.setting.sealed {
            "healthz"
        } else {
            "readyz"
        };
        self.restart_until(sign).await
    }

    /// The same, where it starts sealed whatever its configuration says.
    pub async fn restart_sealed(&mut self) -> anyhow::Result<()> {
        self.restart_until("healthz").await
    }

    async fn restart_until(&mut self, sign: &str) -> anyhow::Result<()> {
        self.kill9();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = Command::new(&self.bins.countersignd);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.config_path())
            .current_dir(self.dir())
            .envs(self.env())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut running = Running::start(&mut command)?;
        let start = Instant::now();
        let client = http()?;
        loop {
            let reply = client
                .get(format!("{}/{sign}", self.operations_url))
                .send()
                .await;
            // Another daemon may have taken a port a moment ago, and answer there in our place: ours must
            // be alive with its API open.
            if reply.is_ok_and(|reply| reply.status().is_success())
                && self.answers(&client).await
                && running.ended().is_none()
            {
                self.running = Some(running);
                return Ok(());
            }
            if let Some(status) = running.ended() {
                bail!("countersignd ended ({status}):\n{}", self.log());
            }
            if start.elapsed() > READY_LIMIT {
                bail!("countersignd is not ready:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn answers(&self, client: &reqwest::Client) -> bool {
        let status = client.get(format!("{}/v1/status", self.url)).send().await;
        // The daemon's own TLS is not ours to judge here: whoever speaks it is there.
        status.map_or_else(
            |e| !e.is_connect() || self.url.starts_with("https"),
            |_| true,
        )
    }

    /// Runs `countersign` with these arguments in `dir`.
    pub async fn countersign(
        &self,
        args: &[&str],
        env: &[(&str, &str)],
        dir: &Path,
        limit: Duration,
    ) -> anyhow::Result<Output> {
        run(&self.bins.countersign, args, env, dir, limit).await
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    fn env(&self) -> Vec<(&str, &str)> {
        self.setting
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn choose_ports(&mut self) -> anyhow::Result<()> {
        let ports: [u16; 3] = free_ports()?;
        let [port, registry_port, operations_port] = ports;
        let scheme = self.setting.scheme();
        self.url = format!("{scheme}://{}:{port}", self.setting.host());
        let front = self.setting.front.unwrap_or(registry_port);
        self.registry_url = format!("{scheme}://127.0.0.1:{front}");
        self.registry_listen = format!("{scheme}://127.0.0.1:{registry_port}");
        self.operations_url = format!("http://127.0.0.1:{operations_port}");
        fs::write(self.config_path(), self.setting.config(self.dir(), ports))?;
        Ok(fs::write(self.policy_path(), &self.setting.policy)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_whatever_the_names() {
        let builder = Daemon::builder()
            .issuer(
                "github",
                "github",
                "http://127.0.0.1:1",
                Some("http://127.0.0.1:1/jwks"),
            )
            .registry("npm", "npm", "http://127.0.0.1:2");
        let text = builder.config(Path::new("/tmp/with \"quotes\""), [1, 2, 3]);
        let value: toml::Table = text.parse().unwrap();
        assert_eq!(value["data"].as_str(), Some("/tmp/with \"quotes\"/data"));
        assert_eq!(value["issuer"][0]["kind"].as_str(), Some("github"));
        assert_eq!(value["registry"][0]["name"].as_str(), Some("npm"));
    }
}
