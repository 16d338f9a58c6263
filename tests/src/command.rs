//! Running a program to its end, and keeping one running.

use anyhow::{Context, bail};
use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }

    /// Itself if it exited with 0, else an error that shows what it said.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.success() {
            return Ok(self);
        }
        bail!("{self}")
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `program` in `dir` with nothing on its standard input, and kills it after `limit`.
///
/// `env` comes on top of the caller's environment; a variable named with an empty value is removed.
pub async fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    env: &[(&str, &str)],
    dir: &Path,
    limit: Duration,
) -> anyhow::Result<Output> {
    let program = program.as_ref();
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (name, value) in env {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    let what = program.display();
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{what} did not end within {limit:?}"))?
        .with_context(|| format!("{what} could not be started"))?;
    Ok(Output {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A server that runs as long as this value lives.
///
/// It is killed and waited for on `Drop`, so that a port or a database file is free when the test goes on. Should the
/// test itself be killed, the end of the pipe on its standard input tells the server's script to leave.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts `command`, whose output the caller has already directed somewhere.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("its standard input is closed")?;
        stdin.write_all(text.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Closes its standard input.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Starts `command` and waits at most `limit` for the first line of its standard output.
    pub fn with_first_line(
        command: &mut Command,
        limit: Duration,
    ) -> anyhow::Result<(Self, String)> {
        let mut running = Self::start(command.stdout(Stdio::piped()))?;
        let stdout = running.child.stdout.take().context("no standard output")?;
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            // Lines after the first are read and dropped: a full pipe would stop the server.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let line = receive.recv_timeout(limit).with_context(|| {
            format!(
                "{} said nothing within {limit:?}",
                command.get_program().display()
            )
        })?;
        Ok((running, line))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit code's text, if it has ended by itself.
    pub fn status(&mut self) -> Option<Option<i32>> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.code())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.to_string())
    }

    /// SIGKILL, as a power cut would: nothing is flushed, no handler runs.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end; returns the exit code.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<Option<i32>> {
        let pid = self.id().to_string();
        run("kill", &["-TERM", &pid], &[], Path::new("/"), limit)
            .await?
            .ok()?;
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("process {pid} ignored SIGTERM for {limit:?}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill9();
    }
}
