//! A whole organisation: a real registry, an issuer, a broker, an admin and maintainers, all with our
//! own command line, as people would set it up.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON member that is missing fails the test, as it should"
)]

use crate::{
    command::{Output, Running},
    daemon::{Builder, Daemon},
    packages,
    parts::{Issuer, Verdaccio, github_claims},
    people::publish_document,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// One command of a person.
const COMMAND: Duration = Duration::from_mins(1);
/// A whole publish with all its waiting.
pub const PUBLISH: Duration = Duration::from_mins(3);
/// The passphrase of every device key here.
const PASSPHRASE: &str = "canary-device-passphrase";

/// The policy of these tests.
pub const POLICY: &str = r#"
[[package]]
match = ["npm:@acme/*", "npm:left"]
callers = [
    { issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" },
    { issuer = "client-key", client_key = "old-ci" },
]
approvers = ["release"]
quorum = 2
factors = ["totp"]
version = "semver-release"
tags = ["latest", "next"]

[[package]]
match = ["secrets:deploy-key"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "any"
mode = "reveal"
"#;

/// A person with a device on this machine.
pub struct Person {
    /// The name.
    pub name: String,
    home: PathBuf,
}

/// The organisation.
pub struct Team<R = Verdaccio> {
    /// The registry.
    pub registry: R,
    /// The CI's issuer.
    pub issuer: Issuer,
    /// The broker.
    pub daemon: Daemon,
    /// The admin.
    pub admin: Person,
    /// Two maintainers.
    pub maintainers: [Person; 2],
    folder: TempDir,
    ca: Option<String>,
    /// What people typed.
    typed: Mutex<Vec<String>>,
    /// What people's programs are told by their environment.
    pub env: Vec<(&'static str, String)>,
}

/// A publish that waits for people.
pub struct Waiting {
    child: Running,
    out: PathBuf,
    err: PathBuf,
    /// The request's id.
    pub id: String,
    /// The match code that the job's output shows.
    pub match_code: String,
}

impl Team {
    /// Sets everything up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_policy(POLICY).await
    }

    /// Sets everything up under another policy.
    pub async fn with_policy(policy: &str) -> anyhow::Result<Self> {
        let registry = Verdaccio::start().await?;
        let issuer = Issuer::start().await?;
        let url = registry.url.clone();
        Self::over(registry, issuer, &url, policy).await
    }

    /// Sets everything up with another address for the registry (a proxy that cuts, say).
    pub async fn over(
        registry: Verdaccio,
        issuer: Issuer,
        url: &str,
        policy: &str,
    ) -> anyhow::Result<Self> {
        Self::with(registry, issuer, url, Daemon::builder().policy(policy), "").await
    }

    /// Sets everything up behind the broker's own TLS. Everybody pins the CA (all PEM).
    pub async fn over_tls(chain: &str, key: &str, ca: &str) -> anyhow::Result<Self> {
        let registry = Verdaccio::start().await?;
        let issuer = Issuer::start().await?;
        let url = registry.url.clone();
        let builder = Daemon::builder().policy(POLICY).tls(chain, key);
        Self::with(registry, issuer, &url, builder, ca).await
    }

    async fn with(
        registry: Verdaccio,
        issuer: Issuer,
        url: &str,
        builder: Builder,
        ca: &str,
    ) -> anyhow::Result<Self> {
        let builder = builder
            .registry("npm", "npm", url)
            .registry("secrets", "generic", "");
        let token = registry.token.clone();
        Self::assemble(registry, issuer, builder, ("npm", &token), ca).await
    }
}

impl<R> Team<R> {
    /// Starts a broker over any registry, enrols everybody, and stores the registry's token (the
    /// registry's name, the token). Everybody pins the CA, where one is given (PEM).
    pub async fn assemble(
        registry: R,
        issuer: Issuer,
        builder: Builder,
        token: (&str, &str),
        ca: &str,
    ) -> anyhow::Result<Self> {
        let daemon = builder
            .issuer("github", "github", &issuer.url, None)
            .start()
            .await?;
        let folder = TempDir::new()?;
        let person = |name: &str| Person {
            name: name.into(),
            home: folder.path().join(name),
        };
        let pinned = folder.path().join("ca.pem");
        fs::write(&pinned, ca)?;
        let ca = (!ca.is_empty()).then(|| pinned.display().to_string());
        let admin = person("robin");
        let maintainers = [person("alice"), person("bob")];
        let team = Self {
            registry,
            issuer,
            daemon,
            admin,
            maintainers,
            folder,
            ca,
            typed: Mutex::default(),
            env: Vec::new(),
        };
        let invite = fs::read_to_string(team.daemon.invite_path())?;
        team.enroll(&team.admin, invite.trim()).await?;
        for m in &team.maintainers {
            let out = team
                .admin(&["--json", "admin", "invite", &m.name, "--group", "release"])
                .await?
                .ok()?;
            let invited: Value = serde_json::from_str(&out.stdout)?;
            team.enroll(m, invited["invite"].as_str().context("an invite")?)
                .await?;
        }
        let file = team.folder.path().join("token");
        fs::write(&file, token.1)?;
        team.admin(&[
            "admin",
            "token",
            "add",
            token.0,
            "*",
            "--token-file",
            &file.display().to_string(),
        ])
        .await?
        .ok()?;
        Ok(team)
    }

    /// A folder for this test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `countersign` as a person.
    pub async fn run(
        &self,
        person: &Person,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let mut all = self.at(person);
        all.extend_from_slice(env);
        let typed = self.typed.lock();
        typed
            .unwrap_or_else(PoisonError::into_inner)
            .push(args.join(" "));
        self.daemon
            .countersign(args, &all, self.folder.path(), COMMAND)
            .await
    }

    /// As [`Team::run`], of a line as people type it in a shell.
    pub async fn type_in(
        &self,
        person: &Person,
        line: &str,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let bins = self.daemon.bins.countersign.parent().context("a folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", bins.display());
        let mut all = self.at(person);
        all.push(("PATH", &path));
        all.extend_from_slice(env);
        crate::run("sh", &["-c", line], &all, self.folder.path(), COMMAND).await
    }

    /// All that people typed so far, without the program's name.
    pub fn typed(&self) -> Vec<String> {
        let typed = self.typed.lock();
        typed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A further person, invited by the admin with these rights.
    pub async fn hire(&self, name: &str, rights: &[&str]) -> anyhow::Result<Person> {
        let person = self.with_home(name, name);
        let words = [&["--json", "admin", "invite", name], rights].concat();
        let out = self.admin(&words).await?.ok()?;
        let invited: Value = serde_json::from_str(&out.stdout)?;
        self.enroll(&person, invited["invite"].as_str().context("an invite")?)
            .await?;
        Ok(person)
    }

    /// A person at another machine, with nothing on it yet.
    pub fn with_home(&self, name: &str, home: &str) -> Person {
        Person {
            name: name.into(),
            home: self.folder.path().join(home),
        }
    }

    /// As [`Team::run`], with what it prints in a file too, while it still runs.
    pub async fn run_into(
        &self,
        file: &Path,
        person: &Person,
        args: &[&str],
    ) -> anyhow::Result<Output> {
        let file = file.display().to_string();
        let program = self.daemon.bins.countersign.display().to_string();
        let words = ["-c", "\"$@\" | tee \"$0\"", &file, &program];
        let words = [&words, args].concat();
        crate::run("sh", &words, &self.at(person), self.folder.path(), COMMAND).await
    }

    /// What makes a command the person's own.
    fn at<'a>(&'a self, person: &'a Person) -> Vec<(&'a str, &'a str)> {
        let home = person.home.to_str().unwrap_or_default();
        let mut all = vec![
            ("COUNTERSIGN_HOME", home),
            ("COUNTERSIGN_PASSPHRASE", PASSPHRASE),
            ("COUNTERSIGN_BROKER", self.daemon.url.as_str()),
        ];
        all.extend(self.pinned());
        all.extend(self.env.iter().map(|(name, value)| (*name, value.as_str())));
        all
    }

    fn pinned(&self) -> Option<(&str, &str)> {
        self.ca.as_deref().map(|ca| ("COUNTERSIGN_CA", ca))
    }

    /// Runs `countersign` as the admin.
    pub async fn admin(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.run(&self.admin, args, &[]).await
    }

    /// Runs an admin's command with a code that was not used before.
    pub async fn admin_with_code(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut used = String::new();
        for _ in 0..40 {
            let code = self.code(&self.admin).await?;
            if code == used {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let out = self.admin(&[args, &["--totp", &code]].concat()).await?;
            if !out.stderr.contains("wrong or was used") {
                return Ok(out);
            }
            used = code;
        }
        anyhow::bail!("no code is taken")
    }

    /// Enrols a person who has an invite.
    pub async fn enroll(&self, person: &Person, invite: &str) -> anyhow::Result<()> {
        fs::create_dir_all(&person.home)?;
        let totp = person.totp();
        self.run(
            person,
            &["enroll", "--totp-file", &totp],
            &[("COUNTERSIGN_INVITE", invite)],
        )
        .await?
        .ok()
        .with_context(|| format!("{} enrols", person.name))?;
        Ok(())
    }

    /// The current code of a person; waits for the next step when the last one was used already.
    pub async fn code(&self, person: &Person) -> anyhow::Result<String> {
        let out = self
            .run(person, &["totp", "--quiet", "--file", &person.totp()], &[])
            .await?
            .ok()?;
        Ok(out.stdout.trim().to_owned())
    }

    /// A package in a folder of its own.
    pub fn package(&self, name: &str, version: &str) -> anyhow::Result<PathBuf> {
        let dir = self
            .folder
            .path()
            .join(format!("{}-{version}", name.replace('/', "+")));
        packages::npm_package(&dir, name, version, &json!({}))?;
        Ok(dir)
    }

    /// A fresh token of the release job.
    pub async fn id_token(&self) -> anyhow::Result<String> {
        self.issuer.mint(github_claims(&self.daemon.url)).await
    }

    /// Starts `countersign publish npm <args>` as the CI job, and returns once its output shows the
    /// match code.
    pub async fn publish(&self, args: &[&str]) -> anyhow::Result<Waiting> {
        let token = self.id_token().await?;
        self.publish_as(args, &[("COUNTERSIGN_ID_TOKEN", &token)])
            .await
    }

    /// The same with other variables.
    pub async fn publish_as(&self, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Waiting> {
        let all: Vec<&str> = ["publish", "npm"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.job_as(&all, env).await
    }

    /// Starts `countersign <args>` as a CI job, and returns once its output shows the match code.
    pub async fn job_as(&self, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Waiting> {
        let all: Vec<_> = self
            .pinned()
            .into_iter()
            .chain(env.iter().copied())
            .collect();
        Waiting::start(&self.daemon, self.folder.path(), args, &all).await
    }

    /// Uploads what `npm publish` would of version 1.0.0, with a token of the registry endpoint; the
    /// reply's status and text.
    pub async fn upload(
        &self,
        token: &str,
        name: &str,
        tarball: &[u8],
    ) -> anyhow::Result<(u16, String)> {
        let registry = &self.daemon.registry_url;
        let document = publish_document(name, "1.0.0", registry, tarball);
        let url = format!("{registry}/{}", name.replace('/', "%2f"));
        let put = crate::http()?.put(url).bearer_auth(token).json(&document);
        let reply = put.send().await?;
        Ok((reply.status().as_u16(), reply.text().await?))
    }

    /// Begins an upload whose body does not come; it takes its place until the connection is dropped.
    pub async fn slow_upload(&self, token: &str, name: &str) -> anyhow::Result<TcpStream> {
        let host = self.daemon.registry_url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await?;
        let head = format!(
            "PUT /{} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
            name.replace('/', "%2f")
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }

    /// A person approves with a TOTP code and the match code.
    pub async fn approve(&self, person: &Person, waiting: &Waiting) -> anyhow::Result<Output> {
        let limit = Instant::now();
        loop {
            let code = self.code(person).await?;
            let args = [
                "--json",
                "approve",
                &waiting.id,
                "--match-code",
                &waiting.match_code,
                "--totp",
                &code,
            ];
            let out = self.run(person, &args, &[]).await?;
            // The code of this half minute was used before (at enrolment, say): wait for the next.
            if out.success()
                || !out.stderr.contains("factor-wrong")
                || limit.elapsed() > Duration::from_secs(70)
            {
                return Ok(out);
            }
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
    }

    /// Both maintainers approve.
    pub async fn approve_both(&self, waiting: &Waiting) -> anyhow::Result<()> {
        for m in &self.maintainers {
            self.approve(m, waiting)
                .await?
                .ok()
                .with_context(|| format!("{} approves", m.name))?;
        }
        Ok(())
    }
}

impl Person {
    /// The file with the second factor.
    pub fn totp(&self) -> String {
        self.home.join("totp.txt").display().to_string()
    }
}

impl Waiting {
    /// Starts `countersign <args>` as a CI job, and returns once its output shows the match code.
    pub async fn start(
        daemon: &Daemon,
        folder: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let stamp = crate::free_port()?;
        let out = folder.join(format!("job-{stamp}.out"));
        let err = folder.join(format!("job-{stamp}.err"));
        let mut command = Command::new(&daemon.bins.countersign);
        command
            .arg("--json")
            .args(args)
            .current_dir(folder)
            .env("COUNTERSIGN_BROKER", &daemon.url)
            .env_remove("COUNTERSIGN_HOME")
            .envs(env.iter().copied())
            .stdout(Stdio::from(fs::File::create(&out)?))
            .stderr(Stdio::from(fs::File::create(&err)?));
        let child = Running::start(&mut command)?;
        let mut waiting = Self {
            child,
            out,
            err,
            id: String::new(),
            match_code: String::new(),
        };
        let start = Instant::now();
        loop {
            if let Some(line) = waiting
                .lines()
                .into_iter()
                .find(|l| l["match_code"].is_string())
            {
                line["match_code"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut waiting.match_code);
                line["id"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut waiting.id);
                return Ok(waiting);
            }
            if let Some(status) = waiting.child.ended() {
                bail!(
                    "the job ended ({status}) before it asked:\n{}",
                    waiting.text()
                );
            }
            if start.elapsed() > COMMAND {
                bail!("the job did not ask:\n{}", waiting.text());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the job's end and returns its exit code.
    pub async fn end(&mut self) -> anyhow::Result<Option<i32>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.status() {
                return Ok(status);
            }
            if start.elapsed() > PUBLISH {
                bail!("the job does not end:\n{}", self.text());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The JSON lines of its output.
    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        text.lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }

    /// All its output.
    pub fn text(&self) -> String {
        let read = |p: &Path| fs::read_to_string(p).unwrap_or_default();
        format!("{}{}", read(&self.out), read(&self.err))
    }
}
