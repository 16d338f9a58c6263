//! What the machine itself can do, measured in the same run: flushes, verifications, starts.

use anyhow::{Context as _, bail};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Sorted durations.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub(crate) fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The duration that `percent` of them do not exceed, in milliseconds.
    pub(crate) fn ms(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
    }
}

/// 4 kB writes with fdatasync into a file of fixed size in `folder`.
pub(crate) fn flushes(folder: &Path, time: Duration) -> anyhow::Result<Times> {
    let path = folder.join("flush");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let (start, mut all) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        file.rewind()?;
        let at = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        all.push(at.elapsed());
    }
    fs::remove_file(path)?;
    Ok(Times::new(all))
}

/// Hello world, compiled as the release profile compiles.
pub(crate) fn hello(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (folder.join("hello.rs"), folder.join("hello"));
    fs::write(&source, "fn main() { println!(\"hello\"); }\n")?;
    let done = Command::new("rustc")
        .args(["-O", "-C", "lto=fat", "-C", "codegen-units=1"])
        .args(["-C", "strip=symbols", "-C", "overflow-checks=yes"])
        .args([source.as_os_str(), OsStr::new("-o"), program.as_os_str()])
        .status()
        .context("rustc")?;
    if !done.success() {
        bail!("rustc did not compile a hello world");
    }
    Ok(program)
}

/// Starts each program in turn, `rounds` times; from spawn to exit.
pub(crate) fn starts(programs: [(&Path, &[&str]); 2], rounds: usize) -> anyhow::Result<[Times; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for ((program, args), times) in programs.iter().zip(&mut all) {
            let at = Instant::now();
            let status = Command::new(program)
                .args(*args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()?;
            times.push(at.elapsed());
            if !status.success() {
                bail!("{} fails", program.display());
            }
        }
    }
    Ok(all.map(Times::new))
}
