//! The real registry and the real issuer, and where the real clients lie. `tests/parts/install` puts them there.

use crate::{
    command::{Running, run},
    daemon::{Builder, Daemon},
    http, root,
};
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long a part may take to listen; it takes about a second on a machine that is not busy.
const START_LIMIT: Duration = Duration::from_mins(1);

/// The maintainer's name at the registry.
const USER: &str = "maint";

/// `tests/parts`, once everything is installed there.
pub fn dir() -> anyhow::Result<PathBuf> {
    let dir = root().join("tests/parts");
    if !dir.join("node_modules/.countersign-stamp").exists() {
        bail!("the real parts are not installed: run tests/parts/install");
    }
    Ok(dir)
}

/// The program of an installed client: `pnpm` or `yarn`. (npm is the system's.)
pub fn client(name: &str) -> anyhow::Result<PathBuf> {
    let modules = dir()?.join("node_modules");
    let candidates = match name {
        "pnpm" => vec![
            modules.join("@pnpm/exe.linux-x64/pnpm"),
            modules.join("@pnpm/exe.linux-arm64/pnpm"),
        ],
        _ => vec![modules.join(".bin").join(name)],
    };
    candidates
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not installed"))
}

#[derive(Deserialize)]
struct Listening {
    url: String,
}

pub(crate) fn node(script: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("node");
    command.arg(dir()?.join(script)).stderr(Stdio::inherit());
    // What the machine's own CI job has set must not leak into a part.
    for name in [
        "NODE_OPTIONS",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    ] {
        command.env_remove(name);
    }
    Ok(command)
}

pub(crate) fn listen(command: &mut Command) -> anyhow::Result<(Running, String)> {
    let (running, line) = Running::with_first_line(command.arg("--until-stdin-ends"), START_LIMIT)?;
    let listening: Listening =
        serde_json::from_str(&line).with_context(|| format!("a part printed {line:?} first"))?;
    Ok((running, listening.url))
}

/// An npm registry: Verdaccio, with one user and no upstream.
#[derive(Debug)]
pub struct Verdaccio {
    /// Its address, without a slash at the end.
    pub url: String,
    /// A token that may publish anything.
    pub token: String,
    password: String,
    dir: TempDir,
    running: Running,
}

impl Verdaccio {
    /// Starts one and logs its user in.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let password = random_hex()?;
        let config = verdaccio_config(dir.path(), &password).await?;
        let (running, url) = listen(node("verdaccio.mjs")?.arg(config))?;
        let token = login(&url, &password).await?;
        Ok(Self {
            url,
            token,
            password,
            dir,
            running,
        })
    }

    /// Another token of the same user's.
    pub async fn another_token(&self) -> anyhow::Result<String> {
        // Its tokens differ by the second in which they were made.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        login(&self.url, &self.password).await
    }

    /// Where it keeps its storage: `storage/<name>/<name>-<version>.tgz`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Reads back what the registry shows of a package; `None` when it knows none.
    pub async fn package(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let reply = http()?
            .get(format!("{}/{}", self.url, name.replace('/', "%2f")))
            .bearer_auth(&self.token)
            .send()
            .await?;
        if reply.status() == 404 {
            return Ok(None);
        }
        Ok(Some(reply.error_for_status()?.json().await?))
    }

    /// The `dist.integrity` of one version; `None` when it is not published.
    pub async fn integrity(&self, name: &str, version: &str) -> anyhow::Result<Option<String>> {
        let document = self.package(name).await?.unwrap_or_default();
        let integrity = document
            .get("versions")
            .and_then(|versions| versions.get(version))
            .and_then(|version| version.pointer("/dist/integrity"))
            .and_then(Value::as_str);
        Ok(integrity.map(str::to_owned))
    }
}

async fn verdaccio_config(dir: &Path, password: &str) -> anyhow::Result<PathBuf> {
    let args = ["passwd", "-apr1", password];
    let hash = run("openssl", &args, &[], dir, START_LIMIT).await?.ok()?;
    fs::write(
        dir.join("htpasswd"),
        format!("{USER}:{}\n", hash.stdout.trim()),
    )?;
    let at = |name: &str| Value::from(dir.join(name).display().to_string());
    // JSON is YAML, and is quoted for us.
    let config = json!({
        "storage": at("storage"),
        "auth": { "htpasswd": { "file": at("htpasswd"), "max_users": -1 } },
        "security": { "api": { "legacy": false, "jwt": { "sign": { "expiresIn": "1d" } } } },
        "uplinks": {},
        "packages": { "**": { "access": "$all", "publish": "$authenticated", "unpublish": "$authenticated" } },
        "web": { "enable": false },
        "max_body_size": "300mb",
        "log": { "type": "file", "path": at("log"), "level": "http" },
    });
    let path = dir.join("config.yaml");
    fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}

async fn login(url: &str, password: &str) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct LoggedIn {
        token: String,
    }
    // The Basic header is what logs in; the body alone would ask to register.
    let reply = http()?
        .put(format!("{url}/-/user/org.couchdb.user:{USER}"))
        .basic_auth(USER, Some(password))
        .json(&json!({ "name": USER, "password": password }))
        .send()
        .await?
        .error_for_status()?;
    Ok(reply.json::<LoggedIn>().await?.token)
}

pub(crate) fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// An OpenID issuer with an RS256 and an ES256 key, that signs whatever a test wants.
#[derive(Debug)]
pub struct Issuer {
    /// Its `iss`, without a slash at the end.
    pub url: String,
    /// The bearer that a job shows to [`Self::actions_url`].
    pub actions_bearer: String,
    claims: PathBuf,
    _dir: TempDir,
    running: Running,
}

impl Issuer {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let claims = dir.path().join("claims.json");
        fs::write(&claims, "{}")?;
        let actions_bearer = random_hex()?;
        let mut command = node("issuer.mjs")?;
        command
            .env("ACTIONS_CLAIMS", &claims)
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", &actions_bearer);
        let (running, url) = listen(&mut command)?;
        let issuer = Self {
            url,
            actions_bearer,
            claims,
            _dir: dir,
            running,
        };
        let keys = http()?.get(issuer.jwks_url()).send().await?;
        keys.error_for_status()?;
        Ok(issuer)
    }

    /// Where its keys are.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// An RS256 token with these claims. `iss`, `iat`, `exp` (5 minutes) and `jti` stand when the claims are silent;
    /// `null` leaves a claim out.
    pub async fn mint(&self, claims: Value) -> anyhow::Result<String> {
        self.mint_with(json!({ "claims": claims })).await
    }

    /// As [`Self::mint`], with everything that `issuer.mjs` understands: `claims`, `header`, `alg`, `kid`.
    pub async fn mint_with(&self, order: Value) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Minted {
            token: String,
        }
        Ok(self.post::<Minted>("mint", order).await?.token)
    }

    /// Adds a key, with which tokens of this algorithm are signed from now on; returns its id.
    pub async fn add_key(&self, alg: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Added {
            kid: String,
        }
        Ok(self.post::<Added>("keys", json!({ "alg": alg })).await?.kid)
    }

    /// The address that stands in for `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub fn actions_url(&self) -> String {
        format!("{}/actions-token?api-version=2.0", self.url)
    }

    /// The environment by which a job's client gets tokens from here.
    pub fn actions_env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("GITHUB_ACTIONS", "true".into()),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", self.actions_url()),
            (
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
                self.actions_bearer.clone(),
            ),
        ]
    }

    /// What the tokens from [`Self::actions_url`] claim from now on (`aud` is what the job asks for).
    pub fn set_actions_claims(&self, claims: &Value) -> anyhow::Result<()> {
        Ok(fs::write(&self.claims, serde_json::to_vec(claims)?)?)
    }

    async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        body: Value,
    ) -> anyhow::Result<T> {
        let reply = http()?
            .post(format!("{}/{path}", self.url))
            .json(&body)
            .send()
            .await?;
        if !reply.status().is_success() {
            bail!("the issuer refused: {}", reply.text().await?);
        }
        Ok(reply.json().await?)
    }
}

/// The claims of a job that runs in a repository of `acme`, shaped as the forge's own.
pub fn github_claims(audience: &str) -> Value {
    json!({
        "aud": audience,
        "sub": "repo:acme/left:environment:release",
        "repository": "acme/left",
        "repository_id": "123",
        "repository_owner": "acme",
        "repository_owner_id": "45",
        "repository_visibility": "public",
        "actor": "robin",
        "actor_id": "7",
        "event_name": "push",
        "ref": "refs/tags/v1.4.2",
        "ref_type": "tag",
        "ref_protected": "true",
        "environment": "release",
        "workflow": "release",
        "workflow_ref": "acme/left/.github/workflows/release.yml@refs/tags/v1.4.2",
        "workflow_sha": "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e",
        "job_workflow_ref": "acme/left/.github/workflows/release.yml@refs/tags/v1.4.2",
        "job_workflow_sha": "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e",
        "sha": "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e",
        "run_id": "987654321",
        "run_number": "10",
        "run_attempt": "1",
        "runner_environment": "github-hosted",
        "head_ref": "",
        "base_ref": "",
    })
}

/// A wall clock that a test sets, for one daemon: a library that is loaded before all others.
#[derive(Debug)]
pub struct Clock {
    offset: PathBuf,
    shim: PathBuf,
}

impl Clock {
    /// Builds it in a folder, right at first.
    pub async fn make(folder: &Path) -> anyhow::Result<Self> {
        let clock = Self {
            offset: folder.join("offset"),
            shim: folder.join("clock.so"),
        };
        let source = root().join("tests/parts/clock.c");
        let (source, shim) = (
            source.display().to_string(),
            clock.shim.display().to_string(),
        );
        let args = ["-shared", "-fPIC", "-O1", "-o", &shim, &source];
        let made = run("cc", &args, &[], folder, Duration::from_mins(1));
        made.await?.ok()?;
        fs::write(&clock.offset, "0")?;
        Ok(clock)
    }

    /// What makes a program go by it.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.shim.display().to_string()),
            ("CLOCK_OFFSET_FILE", self.offset.display().to_string()),
        ]
    }

    /// A daemon that goes by it.
    #[must_use]
    pub fn env(&self, builder: Builder) -> Builder {
        builder
            .preload(&self.shim.display().to_string())
            .env("CLOCK_OFFSET_FILE", &self.offset.display().to_string())
    }

    /// A daemon that goes by it, and whose broker was made so many seconds ago.
    pub fn made_ago(&self, builder: Builder, seconds: u64) -> anyhow::Result<Builder> {
        let made = self.offset.with_extension("made");
        fs::write(&made, format!("-{seconds}"))?;
        let made = made.display().to_string();
        Ok(self.env(builder).init_env("CLOCK_OFFSET_FILE", &made))
    }

    /// Lets so much time pass for a broker while it does not run. Its wall clock is right again at once, so that
    /// devices are answered; it goes on in its own time, since a clock that was set back is not believed.
    pub async fn pass(&self, daemon: &mut Daemon, seconds: i64) -> anyhow::Result<()> {
        daemon.kill9();
        self.set(seconds)?;
        daemon.restart().await?;
        self.set(0)
    }

    /// Sets it so many seconds off, at one instant.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        let fresh = self.offset.with_extension("new");
        fs::write(&fresh, seconds.to_string())?;
        Ok(fs::rename(fresh, &self.offset)?)
    }
}
