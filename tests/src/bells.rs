//! What is rung: a real ntfy server, and a receiver of webhooks.

use crate::{
    api::Device,
    command::{Running, run},
    free_port, http, root,
};
use anyhow::{Context as _, bail};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use futures_util::StreamExt as _;
use serde_json::Value;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How long something may take that comes at once on a machine that is not busy.
const LIMIT: Duration = Duration::from_mins(1);

/// The real ntfy server, where nobody reads or writes without a token.
pub struct Ntfy {
    /// Its origin.
    pub url: String,
    /// A token that writes to the topic `releases`, and reads it.
    pub token: String,
    _dir: TempDir,
    _running: Running,
}

fn program() -> anyhow::Result<PathBuf> {
    let own = root().join("tests/parts/bin/ntfy");
    if own.exists() {
        return Ok(own);
    }
    let found = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&found).map(|dir| dir.join("ntfy"));
    found
        .into_iter()
        .find(|path| path.exists())
        .context("the ntfy server is not installed: run tests/parts/install")
}

impl Ntfy {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let program = program()?;
        let dir = TempDir::new()?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "base-url: {url}\nlisten-http: {}\nauth-file: {}\nauth-default-access: deny-all\n",
            url.trim_start_matches("http://"),
            path("auth.db"),
        );
        fs::write(path("server.yml"), config)?;
        let log = File::create(path("log"))?;
        let config = path("server.yml");
        let mut command = Command::new(&program);
        command
            .args(["serve", "--config", &config])
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut running = Running::start(&mut command)?;
        let start = Instant::now();
        while http()?
            .get(format!("{url}/v1/health"))
            .send()
            .await
            .is_err()
        {
            if let Some(status) = running.ended() {
                bail!(
                    "ntfy ended ({status}): {}",
                    fs::read_to_string(path("log"))?
                );
            }
            if start.elapsed() > LIMIT {
                bail!("ntfy does not answer: {}", fs::read_to_string(path("log"))?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let password = crate::parts::random_hex()?;
        let env = [("NTFY_PASSWORD", password.as_str())];
        let mut said = String::new();
        for words in [
            &["user", "--config", &config, "add", "maint"][..],
            &["access", "--config", &config, "maint", "releases", "rw"],
            &["token", "--config", &config, "add", "maint"],
        ] {
            let out = run(&program, words, &env, dir.path(), LIMIT).await?.ok()?;
            said = format!("{}{}", out.stdout, out.stderr);
        }
        let token = said.split_whitespace().find(|w| w.starts_with("tk_"));
        Ok(Self {
            url,
            token: token.context("a token")?.to_owned(),
            _dir: dir,
            _running: running,
        })
    }

    /// The topic's address.
    pub fn topic(&self) -> String {
        format!("{}/releases", self.url)
    }

    /// Waits, as the app on a phone does, until so many messages were there, and returns them.
    pub async fn messages(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let call = client.get(format!("{}/json?since=all", self.topic()));
        let reply = call.bearer_auth(&self.token).send().await?;
        let mut stream = reply.error_for_status()?.bytes_stream();
        let mut text = Vec::new();
        let work = async {
            loop {
                let all: Vec<Value> = String::from_utf8_lossy(&text)
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .filter(|line: &Value| line.get("event").is_some_and(|e| e == "message"))
                    .collect();
                if all.len() >= count {
                    return Ok(all);
                }
                text.extend_from_slice(&stream.next().await.context("the stream ended")??);
            }
        };
        tokio::time::timeout(LIMIT, work)
            .await
            .context("no message came")?
    }
}

/// One POST that came.
#[derive(Clone, Debug)]
pub struct Got {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Got {
    /// A header; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

struct Inside {
    status: AtomicU16,
    got: Mutex<Vec<Got>>,
    count: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

/// A receiver of webhooks.
pub struct Hook {
    /// Its origin.
    pub origin: String,
    inside: Arc<Inside>,
    served: JoinHandle<()>,
}

impl Hook {
    /// Starts one that says yes.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let inside = Arc::new(Inside {
            status: AtomicU16::new(200),
            got: Mutex::default(),
            count: watch::channel(0).0,
            open: watch::channel(true).0,
        });
        let app = Router::new()
            .route("/{*path}", post(receive))
            .with_state(Arc::clone(&inside));
        let served = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            origin,
            inside,
            served,
        })
    }

    /// An address here.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.origin)
    }

    /// What it answers from now on.
    pub fn answer(&self, status: u16) {
        self.inside.status.store(status, Ordering::SeqCst);
    }

    /// Whether it answers at all from now on, or holds who calls.
    pub fn hold(&self, hold: bool) {
        self.inside.open.send_replace(!hold);
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<Got> {
        let got = self.inside.got.lock();
        got.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so much has come, and returns all of it.
    pub async fn got(&self, count: usize) -> anyhow::Result<Vec<Got>> {
        let mut counted = self.inside.count.subscribe();
        let wait = counted.wait_for(|n| *n >= count);
        let waited = tokio::time::timeout(LIMIT, wait).await;
        let come = self.so_far();
        waited.with_context(|| format!("{} of {count} came", come.len()))??;
        Ok(come)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn receive(State(inside): State<Arc<Inside>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let count = {
        let mut got = inside.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.push(Got {
            headers,
            body: body.to_vec(),
        });
        got.len()
    };
    inside.count.send_replace(count);
    let mut open = inside.open.subscribe();
    let _ = open.wait_for(|open| *open).await;
    StatusCode::from_u16(inside.status.load(Ordering::SeqCst)).unwrap_or(StatusCode::OK)
}

/// The log's events of this kind, as an admin exports them.
pub async fn events(admin: &Device, kind: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let path = format!("/v1/log/export?from={from}&limit=1000");
        let reply = admin.call("GET", &path, &Value::Null).await?;
        reply.ok_status()?;
        let lines: Vec<_> = reply.text.lines().filter(|l| !l.is_empty()).collect();
        for line in &lines {
            let line: Value = serde_json::from_str(line)?;
            let leaf = line.get("leaf").and_then(Value::as_str).unwrap_or_default();
            let leaf: Value = serde_json::from_str(leaf)?;
            let event = leaf.get("event").cloned().unwrap_or_default();
            if event.get("type").is_some_and(|t| t == kind) {
                found.push(event);
            }
        }
        if lines.is_empty() {
            return Ok(found);
        }
        from += lines.len();
    }
}

/// Waits until everybody who may deny what is approved was told.
pub async fn veto_told(admin: &Device, request: &impl ToString) -> anyhow::Result<()> {
    let (request, start) = (request.to_string(), Instant::now());
    loop {
        let told = events(admin, "veto-told").await?;
        let is = |e: &Value| e.get("request").is_some_and(|r| *r == request);
        if told.iter().any(is) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            bail!("nobody was told that {request} can be denied");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
