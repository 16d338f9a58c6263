//! A real Firefox, with a push service of its own on this machine.

use crate::{now, parts};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::Mutex,
};
use totp_rs::Totp;

/// How long one step may take; the driver's own limit is shorter.
const STEP: Duration = Duration::from_mins(1);

/// The browser with its one page. It ends with this value.
pub struct Firefox {
    /// The push service's origin.
    pub push: String,
    pipes: Mutex<Pipes>,
    _child: Child,
}

struct Pipes {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Firefox {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let mut command = tokio::process::Command::from(parts::node("firefox.mjs")?);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(STEP, lines.next_line()).await??;
        let ready: Value = serde_json::from_str(first.as_deref().unwrap_or("null"))?;
        let Some(push) = ready.get("push").and_then(Value::as_str) else {
            bail!(
                "Firefox did not start; the tests need it (apt-get install firefox-esr), or COUNTERSIGN_FIREFOX"
            );
        };
        Ok(Self {
            push: push.to_owned(),
            pipes: Mutex::new(Pipes {
                stdin,
                lines,
                last: 0,
            }),
            _child: child,
        })
    }

    /// One step of the driver's, with its arguments.
    pub async fn step(&self, what: &str, mut given: Value) -> anyhow::Result<Value> {
        let mut pipes = self.pipes.lock().await;
        pipes.last += 1;
        let id = pipes.last;
        let object = given.as_object_mut().context("arguments are an object")?;
        object.insert("id".into(), id.into());
        object.insert("do".into(), what.into());
        let line = format!("{given}\n");
        pipes.stdin.write_all(line.as_bytes()).await?;
        let line = tokio::time::timeout(STEP, pipes.lines.next_line()).await??;
        let mut reply: Value = serde_json::from_str(&line.context("the browser left")?)?;
        if let Some(error) = reply.get("error").and_then(Value::as_str) {
            bail!("{what}: {error}");
        }
        Ok(reply.get_mut("ok").map(Value::take).unwrap_or_default())
    }

    /// Opens an address.
    pub async fn goto(&self, url: &str) -> anyhow::Result<()> {
        self.step("goto", json!({ "url": url })).await.map(drop)
    }

    /// Clicks a button.
    pub async fn click(&self, name: &str) -> anyhow::Result<()> {
        self.step("click", json!({ "name": name })).await.map(drop)
    }

    /// Waits for a text, and gives what the page says then.
    pub async fn sees(&self, text: &str) -> anyhow::Result<String> {
        let said = self.step("sees", json!({ "text": text })).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Runs code inside the page.
    pub async fn run(&self, code: &str) -> anyhow::Result<Value> {
        self.step("run", json!({ "code": code })).await
    }

    /// The notifications that are shown, once there are so many.
    pub async fn notifications(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        let shown = self
            .step("notifications", json!({ "count": count }))
            .await?;
        Ok(serde_json::from_value(shown)?)
    }

    /// Enrols with an authenticator app by an invite's link.
    pub async fn enroll(&self, link: &str) -> anyhow::Result<()> {
        self.goto(link).await?;
        self.click("Go on").await?;
        self.sees("Welcome").await?;
        let open = "document.querySelectorAll('details').forEach((d) => { d.open = true; })";
        self.run(open).await?;
        let link = self
            .run("document.querySelector('a[href^=otpauth]').href")
            .await?;
        let totp = Totp::from_url(link.as_str().context("an otpauth link")?);
        let totp = totp.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let code = totp.generate(now()?).to_string();
        let field = json!({ "field": "code", "text": code });
        self.step("fill", field).await?;
        self.click("Enrol with this code").await?;
        self.sees("Inbox").await.map(drop)
    }
}
