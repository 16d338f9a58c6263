//! A program that is killed at its Nth durable step: a library that is loaded before all others.

use crate::{root, run};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Kills programs at a durable step below one path.
#[derive(Debug)]
pub struct Killer {
    count: PathBuf,
    shim: PathBuf,
    under: PathBuf,
}

impl Killer {
    /// Builds it in a folder; it counts steps below `under`, and kills nothing at first.
    pub async fn make(folder: &Path, under: &Path) -> anyhow::Result<Self> {
        let killer = Self {
            count: folder.join("steps-left"),
            shim: folder.join("kill.so"),
            under: under.to_owned(),
        };
        let source = root().join("tests/parts/kill.c").display().to_string();
        let shim = killer.shim.display().to_string();
        let args = ["-shared", "-fPIC", "-O1", "-o", &shim, &source, "-ldl"];
        let made = run("cc", &args, &[], folder, Duration::from_mins(1));
        made.await?.ok()?;
        killer.at(0)?;
        Ok(killer)
    }

    /// Kills whoever makes the `n`th step from now on; 0: nobody.
    pub fn at(&self, n: u64) -> anyhow::Result<()> {
        Ok(fs::write(&self.count, format!("{n:<20}"))?)
    }

    /// The environment of a program that is to be killed.
    pub fn env(&self) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", self.shim.display().to_string()),
            ("KILL_COUNT_FILE", self.count.display().to_string()),
            ("KILL_UNDER", self.under.display().to_string()),
        ]
    }
}
