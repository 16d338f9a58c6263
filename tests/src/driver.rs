//! A script of the tests' own that drives a browser: lines of JSON in, one line of JSON back for each.

use crate::parts;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::Mutex,
};

/// How long one step may take; the script's own limit is shorter.
const STEP: Duration = Duration::from_mins(1);
/// How long the script may take to close its browser.
const CLOSING: Duration = Duration::from_secs(10);

/// A script that runs. It ends with this value, and its browser with it.
pub struct Driver {
    pipes: Mutex<Pipes>,
    child: Child,
}

struct Pipes {
    /// Absent once the script was told to leave.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Driver {
    /// Starts a script; gives what it says first, when its browser is there.
    pub async fn start(script: &str) -> anyhow::Result<(Self, Value)> {
        let mut command = tokio::process::Command::from(parts::node(script)?);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(STEP, lines.next_line()).await??;
        let first = serde_json::from_str(first.as_deref().unwrap_or("null"))?;
        let pipes = Pipes {
            stdin: Some(stdin),
            lines,
            last: 0,
        };
        let driver = Self {
            pipes: Mutex::new(pipes),
            child,
        };
        Ok((driver, first))
    }

    /// One step, with its arguments.
    pub async fn step(&self, what: &str, mut given: Value) -> anyhow::Result<Value> {
        let mut pipes = self.pipes.lock().await;
        pipes.last += 1;
        let id = pipes.last;
        let object = given.as_object_mut().context("arguments are an object")?;
        object.insert("id".into(), id.into());
        object.insert("do".into(), what.into());
        let line = format!("{given}\n");
        let stdin = pipes.stdin.as_mut().context("the script has left")?;
        stdin.write_all(line.as_bytes()).await?;
        let line = tokio::time::timeout(STEP, pipes.lines.next_line()).await??;
        let mut reply: Value = serde_json::from_str(&line.context("the browser left")?)?;
        if let Some(error) = reply.get("error").and_then(Value::as_str) {
            bail!("{what}: {error}");
        }
        Ok(reply.get_mut("ok").map(Value::take).unwrap_or_default())
    }
}

impl Drop for Driver {
    /// The end of its input tells the script to close its browser. Killed at once, it would leave that behind.
    fn drop(&mut self) {
        self.pipes.get_mut().stdin = None;
        let told = Instant::now();
        while told.elapsed() < CLOSING && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
