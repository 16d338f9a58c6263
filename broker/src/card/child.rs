//! The process that reads archives: `countersignd inspect`, started by [`super::run`] and by nobody else. What it
//! reads stands on its standard input: the length of the job, the job, the archives.

use super::{
    Against, Inspection, Job, Task, Window, findings::secrets::Rules, inspect, sandbox,
    source::Listing,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufReader, Read as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

/// Longest job, in bytes.
pub(super) const JOB_MAX: usize = 16 << 10;

/// What it says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// What it found.
    Inspected(Inspection),
    /// Which files a source has.
    Listed(Listing),
    /// The archive cannot be read, or programs read it differently.
    Refused,
}

/// Does its work and ends. Whatever fails is told by its end alone: nobody believes more of this process.
pub fn run() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody reads it but whoever starts this by hand.
            eprintln!("countersignd inspect: {why}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<(), Box<dyn std::error::Error>> {
    // Afterwards no file can be had any more, not even by a copy of this one.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let again = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Made of nothing that came from outside, by a library that asks how many processors there are.
    let rules = Rules::new();
    sandbox::enter()?;
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if usize::try_from(length)? > JOB_MAX {
        return Err("the job is too long".into());
    }
    let mut job = vec![0; usize::try_from(length)?];
    input.read_exact(&mut job)?;
    let task: Task = serde_json::from_slice(&job)?;
    let start = u64::from(length) + 4;
    let said = match task {
        Task::List(length) => {
            let archive = Window::new(input, start, length);
            Listing::read(archive, length).map_or(Said::Refused, Said::Listed)
        }
        Task::Look(job) => look(&rules, &job, [input, again], start)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(&serde_json::to_vec(&said)?)?;
    out.flush()?;
    Ok(())
}

/// Behind the task stand the archive, the list of the source's files, and the archive before.
fn look(
    rules: &Rules,
    job: &Job,
    [mut input, again]: [File; 2],
    start: u64,
) -> Result<Said, Box<dyn std::error::Error>> {
    let mut at = start.saturating_add(job.length);
    let source = match job.source {
        Some(length) => {
            let list = Window::new(&mut input, at, length.min(Listing::JSON_MAX));
            at = at.saturating_add(length);
            Some(serde_json::from_reader::<_, Listing>(BufReader::new(list))?)
        }
        None => None,
    };
    let before = match job.previous {
        Against::Bytes(length) => Some(Window::new(again, at, length)),
        Against::First | Against::Unknown => None,
    };
    let archive = Window::new(input, start, job.length);
    let said = inspect(rules, job, archive, before, source.as_ref());
    Ok(said.map_or(Said::Refused, Said::Inspected))
}
