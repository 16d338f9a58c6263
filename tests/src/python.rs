//! The Python world: two real indexes, the real upload clients, and packages to publish.

use crate::{
    command::{Output, Running, run},
    free_port, http,
    parts::random_hex,
    root,
};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a part may take to listen.
const START_LIMIT: Duration = Duration::from_mins(1);
/// One command.
const COMMAND: Duration = Duration::from_mins(2);
/// How often a start is tried: between choosing a port and listening, somebody else may take it.
const START_TRIES: u32 = 3;

/// A program of `tests/parts/venv`: `twine`, `uv`, `hatch`, `flit`, `devpi`, …
pub fn program(name: &str) -> anyhow::Result<String> {
    let path = root().join("tests/parts/venv/bin").join(name);
    if !path.exists() {
        bail!("the real parts are not installed: run tests/parts/install");
    }
    Ok(path.display().to_string())
}

/// A wheel and a source archive that a real build tool made.
#[derive(Debug)]
pub struct Built {
    /// The project's folder; the files are in its `dist`.
    pub folder: PathBuf,
    /// The wheel.
    pub wheel: PathBuf,
    /// The source archive.
    pub sdist: PathBuf,
}

/// Makes a project and builds it. `name` is spelt as the index spells it.
pub async fn project(dir: &Path, name: &str, version: &str) -> anyhow::Result<Built> {
    let folder = dir.join(format!("{name}-{version}"));
    let module = name.replace('-', "_");
    fs::create_dir_all(folder.join("src").join(&module))?;
    fs::write(
        folder.join("pyproject.toml"),
        format!(
            r#"[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"
description = "A package of the tests, with umlauts: äöü"
readme = "README.md"
requires-python = ">=3.9"
license = "MIT"
authors = [{{ name = "Ann Ö", email = "ann@example.org" }}]
keywords = ["a", "b c"]
classifiers = ["Programming Language :: Python :: 3", "Typing :: Typed"]
dependencies = ["idna", "requests>=2; python_version < '4'"]
optional-dependencies = {{ x = ["six"] }}
urls = {{ Home = "https://example.org/" }}
"#
        ),
    )?;
    fs::write(
        folder.join("README.md"),
        format!("# {name}\n\nWith ünïcode.\n"),
    )?;
    fs::write(
        folder.join("src").join(&module).join("__init__.py"),
        "X = 1\n",
    )?;
    let args = ["--no-isolation", "--outdir", "dist", "."];
    run(program("pyproject-build")?, &args, &[], &folder, COMMAND)
        .await?
        .ok()
        .context("building a project")?;
    let dist = folder.join("dist");
    Ok(Built {
        wheel: dist.join(format!("{module}-{version}-py3-none-any.whl")),
        sdist: dist.join(format!("{module}-{version}.tar.gz")),
        folder,
    })
}

/// Uploads past the broker, as somebody with the registry's own token would.
pub async fn upload(files: &[&Path], url: &str, user: &str, token: &str) -> anyhow::Result<Output> {
    let mut args = vec!["upload".to_owned(), "--non-interactive".to_owned()];
    args.extend(files.iter().map(|f| f.display().to_string()));
    let env = [
        ("TWINE_REPOSITORY_URL", url),
        ("TWINE_USERNAME", user),
        ("TWINE_PASSWORD", token),
        ("NO_PROXY", "127.0.0.1"),
    ];
    run(program("twine")?, &args, &env, &root(), COMMAND).await
}

/// The `#sha256=` of every file that a simple index shows of a project; empty when it knows none.
pub async fn shown(index: &str, project: &str) -> anyhow::Result<Vec<(String, String)>> {
    let reply = http()?
        .get(format!("{index}{project}/"))
        .header("accept", "text/html")
        .send()
        .await?;
    if reply.status() == 404 {
        return Ok(Vec::new());
    }
    let page = reply.error_for_status()?.text().await?;
    let mut out = Vec::new();
    for rest in page.split("#sha256=").skip(1) {
        let digest: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        let text = rest.split_once('>').and_then(|(_, r)| r.split_once('<'));
        out.push((
            text.context("an anchor's text")?.0.trim().to_owned(),
            digest,
        ));
    }
    out.sort();
    Ok(out)
}

/// pypiserver: one user, uploads at the root.
#[derive(Debug)]
pub struct PyPiServer {
    /// Where uploads go.
    pub upload: String,
    /// The simple index, with a slash at its end.
    pub index: String,
    /// The password of the user `__token__`.
    pub token: String,
    dir: TempDir,
    running: Running,
}

impl PyPiServer {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let token = format!("pypi-{}", random_hex()?);
        let args = ["passwd", "-apr1", &token];
        let hash = run("openssl", &args, &[], dir.path(), COMMAND)
            .await?
            .ok()?;
        let users = dir.path().join("htpasswd");
        fs::write(&users, format!("__token__:{}\n", hash.stdout.trim()))?;
        let packages = dir.path().join("packages");
        fs::create_dir(&packages)?;
        let (running, url) = listening(dir.path(), "/simple/", |port| {
            let mut command = Command::new(program("pypi-server")?);
            command
                .args(["run", "-i", "127.0.0.1", "-p", &port.to_string(), "-P"])
                .arg(&users)
                .args([
                    "-a",
                    "update",
                    "--hash-algo",
                    "sha256",
                    "--disable-fallback",
                ])
                .arg(&packages);
            Ok(command)
        })
        .await?;
        Ok(Self {
            upload: format!("{url}/"),
            index: format!("{url}/simple/"),
            token,
            dir,
            running,
        })
    }

    /// The bytes of a file that it holds.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.path().join("packages").join(name)).ok()
    }

    /// Takes a file away, behind its back.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.dir.path().join("packages").join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }
}

/// devpi with one user, one index and macaroon tokens.
#[derive(Debug)]
pub struct Devpi {
    /// Where uploads go: the index itself.
    pub upload: String,
    /// The simple index, with a slash at its end.
    pub index: String,
    /// Its user.
    pub user: String,
    dir: TempDir,
    running: Running,
}

impl Devpi {
    /// Starts one, with the user `maint` and the index `maint/dev`.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let data = dir.path().join("data").display().to_string();
        let secret = dir.path().join("secret");
        fs::write(&secret, random_hex()?)?;
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        }
        let password = random_hex()?;
        // argon2's default costs make every start and login take ten seconds.
        let init = [
            "--serverdir",
            &data,
            "--no-root-pypi",
            "--root-passwd",
            &password,
        ];
        run(program("devpi-init")?, &init, &[], dir.path(), COMMAND)
            .await?
            .ok()?;
        let (running, url) = listening(dir.path(), "/+api", |port| {
            let mut command = Command::new(program("devpi-server")?);
            command
                .args([
                    "--serverdir",
                    &data,
                    "--offline-mode",
                    "--host",
                    "127.0.0.1",
                ])
                .args(["--port", &port.to_string(), "--secretfile"])
                .arg(&secret)
                .args(["--argon2-memory-cost", "1024", "--argon2-time-cost", "1"]);
            Ok(command)
        })
        .await?;
        let devpi = Self {
            upload: format!("{url}/maint/dev/"),
            index: format!("{url}/maint/dev/+simple/"),
            user: "maint".into(),
            dir,
            running,
        };
        let user = random_hex()?;
        devpi.client(&["use", &url]).await?;
        let login = format!("--password={password}");
        devpi.client(&["login", "root", &login]).await?;
        let new = format!("password={user}");
        devpi.client(&["user", "-c", "maint", &new]).await?;
        devpi
            .client(&["login", "maint", &format!("--password={user}")])
            .await?;
        devpi
            .client(&["index", "-c", "dev", "volatile=False", "bases="])
            .await?;
        devpi.client(&["use", "maint/dev"]).await?;
        Ok(devpi)
    }

    /// A token for uploads of one project, good for an hour.
    pub async fn token(&self, project: &str) -> anyhow::Result<String> {
        let args = [
            "token-create",
            "-y",
            "-a",
            "upload",
            "-a",
            "pkg_read",
            "-i",
            "maint/dev",
            "-p",
            project,
            "-e",
            "3600s",
        ];
        let output = self.client(&args).await?;
        let token = output
            .stdout
            .split_whitespace()
            .find(|word| word.starts_with("devpi-"))
            .with_context(|| format!("no token in {output}"))?;
        Ok(token.to_owned())
    }

    async fn client(&self, args: &[&str]) -> anyhow::Result<Output> {
        let state = self.dir.path().join("client").display().to_string();
        let env = [
            ("DEVPI_CLIENTDIR", state.as_str()),
            ("NO_PROXY", "127.0.0.1"),
        ];
        run(program("devpi")?, args, &env, self.dir.path(), COMMAND)
            .await?
            .ok()
            .with_context(|| format!("devpi {args:?}"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }
}

/// Starts a server on a free port, and waits until it answers.
async fn listening(
    dir: &Path,
    path: &str,
    command: impl Fn(u16) -> anyhow::Result<Command>,
) -> anyhow::Result<(Running, String)> {
    for _ in 0..START_TRIES {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let log = fs::File::create(dir.join("server.log"))?;
        let mut command = command(port)?;
        command
            .current_dir(dir)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut running = Running::start(&mut command)?;
        let start = Instant::now();
        while running.ended().is_none() {
            let reply = http()?.get(format!("{url}{path}")).send().await;
            if reply.is_ok_and(|r| r.status().is_success()) {
                return Ok((running, url));
            }
            if start.elapsed() > START_LIMIT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let log = fs::read_to_string(dir.join("server.log")).unwrap_or_default();
    bail!("a part does not answer:\n{log}")
}

/// The policy of the tests with Python packages.
pub fn policy(quorum: u32) -> String {
    format!(
        r#"
[[package]]
match = ["pypi:acme-*"]
callers = [{{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }}]
approvers = ["release"]
quorum = {quorum}
factors = ["totp"]
version = "pep440"
"#
    )
}
