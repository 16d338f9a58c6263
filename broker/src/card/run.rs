//! Starts the process that reads archives, and believes nothing of it but a short answer in time.

use super::{
    Against, Inspection, Job, Task,
    child::{JOB_MAX, Said},
    source::Listing,
};
use std::{
    fs::File,
    io::{self, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::Semaphore;

/// Longest answer, in bytes.
const ANSWER_MAX: u64 = 512 << 10;
/// Longest list of a source's files, in bytes.
const LIST_MAX: u64 = Listing::JSON_MAX;
/// Longest time for one answer.
const WITHIN: Duration = Duration::from_secs(20);
/// Archives that are looked into at once.
const AT_ONCE: usize = 2;

/// Why there is no card.
#[derive(Debug, Error)]
pub enum NotInspected {
    /// The archive cannot be read, or programs read it differently.
    #[error("the archive is damaged, ambiguous or too large")]
    Refused,
    /// It took too long.
    #[error("it took longer than {} s", WITHIN.as_secs())]
    TooSlow,
    /// It broke a limit, crashed, or said what cannot be understood.
    #[error("the process that looks into it ended without an answer")]
    Ended,
    /// The broker's own system.
    #[error("it could not be started")]
    Io(#[from] io::Error),
}

/// Starts one process for each archive.
pub struct Inspector {
    program: PathBuf,
    arguments: Vec<String>,
    within: Duration,
    slots: Semaphore,
}

impl Default for Inspector {
    /// This very program, also after the file on the disk was replaced by its next version.
    fn default() -> Self {
        Self::of("/proc/self/exe", &["inspect"], WITHIN)
    }
}

/// Packs a job for the process: what it is, then the archives, in a file without a name.
pub fn pack(
    mut job: Job,
    archive: impl Read,
    previous: Option<impl Read>,
    source: Option<&Listing>,
    folder: &Path,
) -> io::Result<File> {
    let source = source.map(serde_json::to_vec).transpose()?;
    job.source = source.as_ref().map(|list| list.len() as u64);
    let (length, before) = (job.length, job.previous);
    let mut file = head(&Task::Look(job), folder)?;
    let mut whole = io::copy(&mut archive.take(length), &mut file)? == length;
    file.write_all(&source.unwrap_or_default())?;
    if let (Against::Bytes(length), Some(previous)) = (before, previous) {
        whole &= io::copy(&mut previous.take(length), &mut file)? == length;
    }
    packed(file, whole)
}

/// Packs a source archive, whose files are to be listed.
pub fn pack_source(archive: impl Read, length: u64, folder: &Path) -> io::Result<File> {
    let mut file = head(&Task::List(length), folder)?;
    let whole = io::copy(&mut archive.take(length), &mut file)? == length;
    packed(file, whole)
}

fn head(task: &Task, folder: &Path) -> io::Result<File> {
    let head = serde_json::to_vec(task)?;
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    if head.len() > JOB_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&length.to_be_bytes())?;
    file.write_all(&head)?;
    Ok(file)
}

fn packed(mut file: File, whole: bool) -> io::Result<File> {
    if !whole {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.rewind()?;
    Ok(file)
}

impl Inspector {
    /// Another program, or another time.
    pub fn of(program: impl Into<PathBuf>, arguments: &[&str], within: Duration) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            within,
            slots: Semaphore::new(AT_ONCE),
        }
    }

    /// Waits for a place among those that are looked into; it is had as long as what is returned lives.
    pub async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, NotInspected> {
        self.slots.acquire().await.map_err(|_| NotInspected::Ended)
    }

    /// Looks into what [`pack`] made.
    pub async fn inspect(&self, packed: File) -> Result<Inspection, NotInspected> {
        match self.said(packed, ANSWER_MAX).await? {
            Said::Inspected(inspection) => Ok(inspection),
            Said::Refused => Err(NotInspected::Refused),
            Said::Listed(_) => Err(NotInspected::Ended),
        }
    }

    /// Lists the files of what [`pack_source`] made.
    pub async fn list(&self, packed: File) -> Result<Listing, NotInspected> {
        match self.said(packed, LIST_MAX).await? {
            Said::Listed(listing) if listing.is_sound() => Ok(listing),
            Said::Refused => Err(NotInspected::Refused),
            Said::Listed(_) | Said::Inspected(_) => Err(NotInspected::Ended),
        }
    }

    async fn said(&self, packed: File, most: u64) -> Result<Said, NotInspected> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(packed)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let running: Arc<Mutex<Option<Child>>> = Arc::default();
        let own = Arc::clone(&running);
        let asked = tokio::task::spawn_blocking(move || answer(command, &own, most));
        let ended = tokio::time::timeout(self.within, asked).await;
        // Whatever came of it, nothing of it runs on: also where it closed its output and went on.
        end(&running);
        let (answer, whole) = ended
            .map_err(|_| NotInspected::TooSlow)?
            .map_err(|_| NotInspected::Ended)??;
        if !whole {
            return Err(NotInspected::Ended);
        }
        serde_json::from_slice(&answer).map_err(|_| NotInspected::Ended)
    }
}

/// Starts it, and reads its answer to the end or to the limit. The thread that starts it must live as long as
/// it does: the kernel ends it with that thread.
fn answer(
    mut command: Command,
    running: &Mutex<Option<Child>>,
    most: u64,
) -> io::Result<(Vec<u8>, bool)> {
    let mut child = command.spawn()?;
    let output = child.stdout.take();
    *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    let mut answer = Vec::new();
    if let Some(output) = output {
        output.take(most + 1).read_to_end(&mut answer)?;
    }
    if answer.len() as u64 > most {
        return Ok((Vec::new(), false));
    }
    let mut held = running.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut child) = held.take() else {
        return Ok((answer, false));
    };
    drop(held);
    // It closed its output; a reader that does not end then is ended.
    for _ in 0..100 {
        if let Some(status) = child.try_wait()? {
            return Ok((answer, status.success()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    child.wait()?;
    Ok((answer, false))
}

fn end(running: &Mutex<Option<Child>>) {
    let child = running
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> File {
        tempfile::tempfile().unwrap()
    }

    async fn of(program: &str, arguments: &[&str]) -> Result<Inspection, NotInspected> {
        let within = Duration::from_secs(2);
        Inspector::of(program, arguments, within)
            .inspect(input())
            .await
    }

    fn sh(script: &str) -> [&str; 2] {
        ["-c", script]
    }

    #[tokio::test]
    async fn attack_53_a_reader_that_hangs_dies_or_talks_too_much_is_no_card() {
        let slow = of("/bin/sleep", &["1000"]).await;
        assert!(matches!(slow, Err(NotInspected::TooSlow)), "{slow:?}");
        // It closes its output and stays.
        let deaf = of("/bin/sh", &sh("exec >&-; exec sleep 1000")).await;
        assert!(matches!(deaf, Err(NotInspected::Ended)), "{deaf:?}");
        for script in [
            "kill -9 $$",
            "exit 1",
            "exit 0",
            "echo no json",
            "echo '{\"inspected\":{}}'; exit 1",
            "echo '{\"inspected\":{\"compared\":true}}'; exit 0",
        ] {
            let ended = of("/bin/sh", &sh(script)).await;
            assert!(
                matches!(ended, Err(NotInspected::Ended)),
                "{script}: {ended:?}"
            );
        }
        let loud = of(
            "/bin/sh",
            &sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyy; done"),
        )
        .await;
        assert!(matches!(loud, Err(NotInspected::Ended)), "{loud:?}");
        let absent = of("/nonexistent", &[]).await;
        assert!(matches!(absent, Err(NotInspected::Io(_))), "{absent:?}");
    }

    #[tokio::test]
    async fn attack_53_a_list_that_no_archive_has_is_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let listed = |files: String, settings: &str| {
            let answer = folder.path().join("answer");
            let json = format!(r#"{{"listed":{{"files":{{{files}}},"settings":{{{settings}}}}}}}"#);
            std::fs::write(&answer, json).unwrap();
            let answer = answer.to_str().unwrap().to_owned();
            async move {
                let reader = Inspector::of("/bin/cat", &[&answer], Duration::from_secs(10));
                reader.list(input()).await
            }
        };
        let digest = "0".repeat(32);
        let sound = format!(r#""a.js":"{digest}""#);
        assert!(listed(sound.clone(), "").await.is_ok());
        let file = |n: usize| format!(r#""{n}":"{digest}""#);
        let many: Vec<_> = (0..=20_000).map(file).collect();
        let long: Vec<_> = (0..1100)
            .map(|n| format!(r#""{n}/{}":"{digest}""#, "a".repeat(1000)))
            .collect();
        for (files, settings) in [
            (format!(r#""a.js":"{}""#, "0".repeat(1000)), ""),
            (format!(r#""a.js":"{}""#, "X".repeat(32)), ""),
            (many.join(","), ""),
            (long.join(","), ""),
            (sound.clone(), r#""setup.cfg":"""#),
            (String::new(), sound.as_str()),
        ] {
            let shown: String = files.chars().take(60).collect();
            let refused = listed(files, settings).await;
            assert!(matches!(refused, Err(NotInspected::Ended)), "{shown}");
        }
    }

    #[tokio::test]
    async fn attack_41_it_gets_no_environment() {
        let script = "test -z \"$HOME$USER$CARGO$CARGO_MANIFEST_DIR\" && echo '\"refused\"'";
        let answer = of("/bin/sh", &sh(script)).await;
        assert!(matches!(answer, Err(NotInspected::Refused)), "{answer:?}");
    }

    #[test]
    fn a_job_is_packed_whole_or_not_at_all() {
        let job = Job {
            format: super::super::Format::Npm,
            package: "left".to_owned(),
            version: "1.0.0".to_owned(),
            length: 4,
            previous: Against::Bytes(2),
            source: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let packed = |archive: &[u8], previous: &[u8]| {
            pack(job.clone(), archive, Some(previous), None, folder.path())
        };
        let mut file = packed(b"news", b"ol").unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert!(all.ends_with(b"}newsol"));
        assert!(packed(b"new", b"ol").is_err());
        assert!(packed(b"news", b"o").is_err());
    }
}
