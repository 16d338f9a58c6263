//! A program that is killed at its Nth durable step: a library that is loaded before all others.

use crate::{daemon::Builder, root, run};
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
    from: Option<String>,
    writes: bool,
}

impl Killer {
    /// Builds it in a folder; it counts steps below `under`, and kills nothing at first.
    pub async fn make(folder: &Path, under: &Path) -> anyhow::Result<Self> {
        let killer = Self {
            count: folder.join("steps-left"),
            shim: folder.join("kill.so"),
            under: under.to_owned(),
            from: None,
            writes: false,
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

    /// Counts nothing before the first step at a path that has this in it.
    #[must_use]
    pub fn since(mut self, path: &str) -> Self {
        self.from = Some(path.to_owned());
        self
    }

    /// Counts each write into a file as a step: of a database's commit, what lies between two flushes.
    #[must_use]
    pub fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    /// Steps that are left until it kills.
    pub fn left(&self) -> anyhow::Result<u64> {
        Ok(fs::read_to_string(&self.count)?.trim().parse()?)
    }

    /// The environment of a program that is to be killed.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("LD_PRELOAD", self.shim.display().to_string()),
            ("KILL_COUNT_FILE", self.count.display().to_string()),
            ("KILL_UNDER", self.under.display().to_string()),
        ];
        env.extend(self.writes.then(|| ("KILL_WRITES", "1".to_owned())));
        env.extend(self.from.iter().map(|from| ("KILL_FROM", from.clone())));
        env
    }

    /// A daemon that is to be killed, with whatever else is loaded into it.
    #[must_use]
    pub fn on(&self, builder: Builder) -> Builder {
        let env = self.env();
        env.iter().fold(builder, |builder, (name, value)| {
            if *name == "LD_PRELOAD" {
                builder.preload(value)
            } else {
                builder.env(name, value)
            }
        })
    }
}
