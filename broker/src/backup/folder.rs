//! Backups that the broker makes by itself, into a folder. A backup has its name only when it is whole and durable.

use super::take::take;
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        backups::{Last, Rounds},
    },
    publish::Refusal,
    store::Batch,
};
use proto::time::UnixTime;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Before the time in a backup's name, and after it.
const NAME: (&str, &str) = ("countersign-", ".backup");
/// Behind the name of one that is being written.
const PART: &str = ".part";
/// Digits of the time: seconds since 1970, so that names sort as times do.
const DIGITS: usize = 12;
/// Seconds until a try after one that failed.
const AGAIN: u64 = 600;

/// Makes a backup if it is time for one. `tried` is when that was tried last in vain.
pub async fn round(desk: &Arc<Desk>, tried: &mut UnixTime, now: UnixTime) -> Result<(), Fault> {
    let plan = desk.backups.plan.as_ref();
    let Some(rounds) = plan.and_then(|plan| plan.rounds.as_ref()) else {
        return Ok(());
    };
    if desk.vault.is_sealed() || now.since(*tried) < AGAIN {
        return Ok(());
    }
    let newest = newest(&rounds.folder);
    if let Some(last) = newest {
        desk.backups.made(last);
        if now.since(last.taken) < rounds.every {
            return Ok(());
        }
    }
    match make(desk, rounds, now).await {
        Ok(()) => {
            desk.backups.failing(false);
            Ok(())
        }
        // An admin's own backup is on its way: the next round sees to it.
        Err(Refusal::Busy) => Ok(()),
        Err(why) => {
            *tried = now;
            desk.metrics.backups_failed.inc();
            tracing::error!(%why, folder = %rounds.folder.display(), "ALARM: no backup was made; it is tried again in ten minutes");
            if desk.backups.failing(true) {
                return Ok(());
            }
            desk.commit(Batch::new(), &[Event::BackupFailed], now)
                .await?;
            Ok(())
        }
    }
}

async fn make(desk: &Arc<Desk>, rounds: &Rounds, now: UnixTime) -> Result<(), Refusal> {
    let failed = |error: io::Error| {
        tracing::error!(%error, "the folder of backups");
        Refusal::from(Fault::Damaged("the folder of backups"))
    };
    let whole = rounds.folder.join(name(now));
    let part = rounds.folder.join(format!("{}{PART}", name(now)));
    sweep(&rounds.folder).map_err(failed)?;
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed)?;
    if let Err(why) = take(desk, None, file, now).await {
        let _ = fs::remove_file(&part);
        return Err(why);
    }
    // Whole and flushed, under a name that counts for nothing. A crash leaves it to the next round, which removes it.
    keep(&part, &whole, rounds).map_err(failed)
}

/// Gives a backup its name, and removes those that are too many.
fn keep(part: &Path, whole: &Path, rounds: &Rounds) -> io::Result<()> {
    fs::rename(part, whole)?;
    File::open(&rounds.folder)?.sync_all()?;
    // It counts now, whatever happens. Only now older ones may go.
    let mut all = backups(&rounds.folder)?;
    all.sort_unstable();
    let surplus = all.len().saturating_sub(rounds.keep);
    for (_, path) in all.into_iter().take(surplus) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Removes what a crash left half written. One backup is made at a time, so none of them is on its way.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let whole = file.to_str().and_then(|name| name.strip_suffix(PART));
        if whole.and_then(time_of).is_some() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The newest backup of a folder.
fn newest(folder: &Path) -> Option<Last> {
    let all = backups(folder).ok()?;
    let (taken, path) = all.into_iter().max()?;
    let bytes = fs::metadata(path).ok()?.len();
    Some(Last { taken, bytes })
}

/// What is called like a backup.
fn backups(folder: &Path) -> io::Result<Vec<(UnixTime, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(taken) = entry.file_name().to_str().and_then(time_of) {
            all.push((taken, entry.path()));
        }
    }
    Ok(all)
}

fn name(taken: UnixTime) -> String {
    let (before, after) = NAME;
    format!("{before}{:0DIGITS$}{after}", taken.0)
}

fn time_of(name: &str) -> Option<UnixTime> {
    let (before, after) = NAME;
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map(UnixTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_nothing_else_of_the_folder_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let rounds = Rounds {
            folder: folder.to_owned(),
            every: 60,
            keep: 2,
        };
        let foreign = ["notes.txt", "countersign-1.backup", "countersign-.backup"];
        for other in foreign {
            fs::write(folder.join(other), "x").unwrap();
        }
        for taken in [5, 70, 1_900_000_000] {
            let part = folder.join("countersign-000000000001.backup.part");
            fs::write(&part, "whole").unwrap();
            keep(&part, &folder.join(name(UnixTime(taken))), &rounds).unwrap();
        }
        let mut held: Vec<_> = backups(folder)
            .unwrap()
            .into_iter()
            .map(|(t, _)| t.0)
            .collect();
        held.sort_unstable();
        assert_eq!(held, [70, 1_900_000_000]);
        assert_eq!(newest(folder).unwrap().taken, UnixTime(1_900_000_000));
        fs::write(folder.join("countersign-000000000009.backup.part"), "half").unwrap();
        sweep(folder).unwrap();
        assert!(foreign.iter().all(|other| folder.join(other).exists()));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2 + foreign.len());
    }
}
