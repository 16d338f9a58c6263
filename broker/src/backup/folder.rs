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
    if let Some(last) = newest(&rounds.folder, now) {
        desk.backups.made(last, now);
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
    name_it(&part, &whole, rounds).map_err(failed)?;
    // Whoever looks at an older copy may find that he needs a backup from before or after it.
    if desk.restored()?.is_some() {
        return Ok(());
    }
    keep(rounds, now).map_err(failed)
}

/// Gives a backup its name. From then on it counts, whatever happens, and older ones may go.
fn name_it(part: &Path, whole: &Path, rounds: &Rounds) -> io::Result<()> {
    fs::rename(part, whole)?;
    File::open(&rounds.folder)?.sync_all()
}

/// Removes those that are too many.
fn keep(rounds: &Rounds, now: UnixTime) -> io::Result<()> {
    let mut all = backups(&rounds.folder, now)?;
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
        if whole.and_then(time_of).is_some() && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The newest backup of a folder.
fn newest(folder: &Path, now: UnixTime) -> Option<Last> {
    let all = backups(folder, now).ok()?;
    let (taken, path) = all.into_iter().max()?;
    let bytes = fs::metadata(path).ok()?.len();
    Some(Last { taken, bytes })
}

/// Files that are called like a backup of the past. One with a date that has not come was made by a clock that jumped,
/// or by somebody else: it stands for no backup, no real one goes for it, and it stays where it is.
fn backups(folder: &Path, now: UnixTime) -> io::Result<Vec<(UnixTime, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let taken = entry.file_name().to_str().and_then(time_of);
        if let Some(taken) = taken.filter(|taken| *taken <= now)
            && entry.file_type()?.is_file()
        {
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
        let now = UnixTime(1_900_000_000);
        let foreign = ["notes.txt", "countersign-1.backup", "countersign-.backup"];
        for other in foreign {
            fs::write(folder.join(other), "x").unwrap();
        }
        for taken in [5, 70, 1_900_000_000] {
            let part = folder.join("countersign-000000000001.backup.part");
            fs::write(&part, "whole").unwrap();
            name_it(&part, &folder.join(name(UnixTime(taken))), &rounds).unwrap();
            keep(&rounds, now).unwrap();
        }
        let mut held: Vec<_> = backups(folder, now)
            .unwrap()
            .into_iter()
            .map(|(t, _)| t.0)
            .collect();
        held.sort_unstable();
        assert_eq!(held, [70, 1_900_000_000]);
        assert_eq!(newest(folder, now).unwrap().taken, now);
        fs::write(folder.join("countersign-000000000009.backup.part"), "half").unwrap();
        sweep(folder).unwrap();
        assert!(foreign.iter().all(|other| folder.join(other).exists()));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2 + foreign.len());
    }

    #[test]
    fn a_backup_of_the_future_is_neither_due_nor_in_the_way_of_a_real_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let rounds = Rounds {
            folder: folder.to_owned(),
            every: 60,
            keep: 2,
        };
        let now = UnixTime(1000);
        let put = |taken: u64| fs::write(folder.join(name(UnixTime(taken))), "x").unwrap();
        let ahead = [2000, 3000, 4000];
        ahead.into_iter().for_each(put);
        assert_eq!(newest(folder, now), None, "none is known: one is due");
        [100, 200, 300].into_iter().for_each(put);
        // No file: nothing that can be restored.
        fs::create_dir(folder.join(name(UnixTime(900)))).unwrap();
        let part = format!("{}{PART}", name(UnixTime(901)));
        fs::create_dir(folder.join(part)).unwrap();
        sweep(folder).unwrap();
        assert_eq!(newest(folder, now).unwrap().taken, UnixTime(300));
        keep(&rounds, now).unwrap();
        let left = |taken: u64| folder.join(name(UnixTime(taken))).exists();
        assert!(!left(100) && left(200) && left(300));
        assert!(ahead.into_iter().all(left), "nothing is lost by a date");
    }
}
