//! A backup put back on a bare machine.
//!
//! It grows in a folder of its own inside the data folder, with the mark that it is an old copy, and moves into
//! its places only when all of it is there, signed and durable. The live store moves last: a broker starts only
//! where that is. So whenever this breaks off, there is no broker there, and it is simply done again; or there is
//! a whole one, marked.

use super::{
    KEY_FILE, TEXTS,
    format::{Frame, Head, ReadError, Reader, Which},
};
use crate::{
    audit::event::{Event, leaf},
    desk::{
        Fault,
        restored::{self, Cause, Mark},
    },
    secret::Secret,
    store::{
        redb::{CreateError, Filling, Options, Redb, SCHEMA},
        snapshot::{Counters, Piece},
    },
    world::{NoEntropy, World},
};
use age::{DecryptError, x25519::Identity};
use proto::{
    digest::hex,
    log::checkpoint::{Checkpoint, LogKey},
    time::UnixTime,
};
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Where it grows, in the data folder.
pub const DRAFT: &str = ".restore";
/// Where the texts of a backup end up, for a person to read.
pub const REFERENCE: &str = "reference";
/// The two stores.
pub const STORES: (&str, &str) = ("live.redb", "history.redb");
/// Page cache of a database that is being filled, in bytes.
const CACHE: usize = 32 << 20;

/// What is to be restored, and where.
pub struct Wish<'a> {
    /// The backup.
    pub from: &'a Path,
    /// The text of an age identity that it was encrypted to.
    pub identity: &'a Secret<String>,
    /// The data folder.
    pub data: &'a Path,
    /// The key that the log must have; none: whatever the backup names.
    pub log_key: Option<&'a LogKey>,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub head: Head,
    /// Rows of both stores.
    pub rows: u64,
    /// Bytes of the backup.
    pub bytes: u64,
}

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// There is something.
    #[error("{}: there is a broker already; restore never touches one: name an empty folder", .0.display())]
    Broker(PathBuf),
    /// Another restore.
    #[error("{}: another restore is at work in it: wait until it has ended", .0.display())]
    AtWork(PathBuf),
    /// There is something else.
    #[error("{}: the folder is not empty; name an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// A file or folder.
    #[error("{}: {error}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The identity is another one.
    #[error(
        "this identity does not open the backup: use one of those whose public keys stood in `recipients` of [backup] when it was made"
    )]
    Identity,
    /// Not an age file.
    #[error("this is not a backup: it is no age file, or a damaged one")]
    NotAge,
    /// What is inside.
    #[error(transparent)]
    Inside(#[from] ReadError),
    /// Another broker's.
    #[error("the backup is of a log with another key: {found}; expected {expected}")]
    OtherLog {
        /// The backup's.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The new database.
    #[error(transparent)]
    Store(#[from] CreateError),
    /// No random bytes.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// The mark could not be written out.
    #[error(transparent)]
    Mark(#[from] Fault),
}

impl RestoreError {
    /// Whether a newer program made the backup: trying again helps nothing.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Inside(ReadError::Newer { .. }))
    }
}

/// Restores. Blocking.
pub fn restore(wish: &Wish<'_>, world: &World, now: UnixTime) -> Result<Restored, RestoreError> {
    let data = wish.data;
    // Held until the end: two in one folder would mix two brokers.
    let _alone = alone(data)?;
    prepare(data)?;
    let draft = data.join(DRAFT);
    make_folder(&draft)?;
    let done = grow(wish, &draft, world, now).and_then(|restored| {
        settle(data, &draft)?;
        Ok(restored)
    });
    if done.is_err() {
        // Else the next try does it.
        let _ = prepare(data);
    }
    done
}

/// Sees to it that the folder is there, and has it alone for as long as the result is held.
fn alone(data: &Path) -> Result<File, RestoreError> {
    let mut new = DirBuilder::new();
    let made = new.recursive(true).mode(0o700).create(data);
    made.map_err(disk(data))?;
    let folder = File::open(data).map_err(disk(data))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(RestoreError::AtWork(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(disk(data)(error)),
    }
}

/// Sees to it that the folder is empty. What an earlier try left that broke off, it removes.
fn prepare(data: &Path) -> Result<(), RestoreError> {
    let (live, past) = STORES;
    if data.join(live).symlink_metadata().is_ok() {
        return Err(RestoreError::Broker(data.to_owned()));
    }
    let draft = data.join(DRAFT);
    if draft.symlink_metadata().is_ok() {
        // The draft is made in an empty folder, and the live store leaves it last: so long, these are ours. Later they are
        // a broker's, whatever became of its live store.
        if draft.join(live).symlink_metadata().is_ok() {
            for name in [KEY_FILE, past] {
                remove(&data.join(name), |path| fs::remove_file(path))?;
            }
            for name in ["spool", "deposits"] {
                remove(&data.join(name), |path| fs::remove_dir(path))?;
            }
            remove(&data.join(REFERENCE), |path| fs::remove_dir_all(path))?;
            sync(data)?;
        }
        // Last: as long as it is there, the rest is known for what it is.
        remove(&draft, |path| fs::remove_dir_all(path))?;
        sync(data)?;
    }
    for entry in fs::read_dir(data).map_err(disk(data))? {
        // What a fresh file system has by itself.
        if entry.map_err(disk(data))?.file_name() != "lost+found" {
            return Err(RestoreError::NotEmpty(data.to_owned()));
        }
    }
    Ok(())
}

/// Makes everything in the draft, and flushes it.
fn grow(
    wish: &Wish<'_>,
    draft: &Path,
    world: &World,
    now: UnixTime,
) -> Result<Restored, RestoreError> {
    let file = File::open(wish.from).map_err(disk(wish.from))?;
    let bytes = file.metadata().map_err(disk(wish.from))?.len();
    let identities = identities(wish.identity)?;
    let decryptor = age::Decryptor::new_buffered(BufReader::new(file));
    let opened = decryptor.and_then(|d| d.decrypt(identities.iter().map(|i| i as _)));
    let plain = opened.map_err(|error| match error {
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed => RestoreError::Identity,
        _ => RestoreError::NotAge,
    })?;
    let (head, mut reader) = Reader::begin(BufReader::new(plain), SCHEMA)?;
    if let Some(expected) = wish.log_key.filter(|key| key.to_string() != head.log_key) {
        return Err(RestoreError::OtherLog {
            found: head.log_key,
            expected: expected.to_string(),
        });
    }
    let mut new = New {
        live: Redb::fill(&draft.join(STORES.0), Options::new(CACHE))?,
        past: Redb::fill(&draft.join(STORES.1), Options::new(CACHE).quick_repair())?,
        rows: 0,
        place: restored::place(),
        mark: Mark {
            id: hex(&world.random::<16>()?),
            cause: Cause::Restored,
            taken: head.taken,
            restored: now,
            entries: head.live.log_len,
            log_key: Some(head.log_key.clone()),
        },
        marked: head.live.version.saturating_add(1),
    };
    // First: there is no row without it. And again at the end, when it is known what the copy was.
    new.mark()?;
    while let Some(frame) = reader.next_frame()? {
        new.take(&frame, draft)?;
    }
    // All of it was signed with the key that the head names; whose that is say `--log-key` and, later, the vault.
    checked(&head)?;
    let rows = new.finish(&head, now)?;
    sync(&draft.join(REFERENCE)).or_else(absent)?;
    sync(draft)?;
    Ok(Restored { head, rows, bytes })
}

/// The head's checkpoint is one of the log that the head names.
fn checked(head: &Head) -> Result<(), RestoreError> {
    let key: Option<LogKey> = head.log_key.parse().ok();
    let holds = key.is_some_and(|key| Checkpoint::open(&head.checkpoint, &key).is_ok());
    let bad = RestoreError::Inside(ReadError::Damaged("its log's checkpoint"));
    holds.then_some(()).ok_or(bad)
}

/// The new broker's files.
struct New {
    live: Filling,
    past: Filling,
    rows: u64,
    place: Vec<u8>,
    mark: Mark,
    /// The version of the mark's row: what has a smaller one came with the copy.
    marked: u64,
}

impl New {
    fn take(&mut self, frame: &Frame, draft: &Path) -> Result<(), RestoreError> {
        if let Some((which, piece)) = frame.piece() {
            // Of a broker that was itself an older copy, not agreed to yet. This restore is the one that is agreed to; but
            // what is unknown begins where the older one ended.
            if let Piece::Row {
                place,
                version,
                value,
            } = piece
                && place == self.place
            {
                let bad = |_| RestoreError::Inside(ReadError::Damaged("the mark of a restore"));
                let before: Mark = serde_json::from_slice(value).map_err(bad)?;
                self.mark.taken = self.mark.taken.min(before.taken);
                self.mark.entries = self.mark.entries.min(before.entries);
                self.marked = self.marked.min(version);
                return Ok(());
            }
            self.rows += u64::from(matches!(piece, Piece::Row { .. }));
            return Ok(match which {
                Which::Live => self.live.put(piece),
                Which::Past => self.past.put(piece),
            }?);
        }
        let bad = RestoreError::Inside(ReadError::Damaged("a file's name"));
        let (name, bytes) = frame.file().ok_or(bad)?;
        // By a list: a name is a path, and a path may lead anywhere.
        if name == KEY_FILE {
            return new_file(&draft.join(KEY_FILE), bytes);
        }
        if let Some(name) = TEXTS.into_iter().find(|known| *known == name) {
            let folder = draft.join(REFERENCE);
            if folder.symlink_metadata().is_err() {
                make_folder(&folder)?;
            }
            return new_file(&folder.join(name), bytes);
        }
        Err(RestoreError::Inside(ReadError::Damaged("a file's name")))
    }

    /// Writes the mark.
    fn mark(&mut self) -> Result<(), RestoreError> {
        Ok(self.live.put(Piece::Row {
            place: &self.place,
            version: self.marked,
            value: &restored::bytes(&self.mark)?,
        })?)
    }

    /// Writes the mark as it stays, and its record as the log's next entry; closes both stores.
    fn finish(mut self, head: &Head, now: UnixTime) -> Result<u64, RestoreError> {
        self.mark()?;
        let event = Event::BrokerRestored {
            taken: head.taken,
            entries: head.live.log_len,
        };
        self.live.put(Piece::Entry {
            index: head.live.log_len,
            value: &leaf(&event, now),
        })?;
        self.live.finish(Counters {
            version: head.live.version.saturating_add(1),
            log_len: head.live.log_len.saturating_add(1),
            ..head.live
        })?;
        self.past.finish(head.history)?;
        Ok(self.rows)
    }
}

/// Moves everything from the draft into its place.
fn settle(data: &Path, draft: &Path) -> Result<(), RestoreError> {
    let (live, past) = STORES;
    for folder in ["spool", "deposits"] {
        make_folder(&data.join(folder))?;
    }
    for name in [KEY_FILE, REFERENCE, past] {
        let moved = fs::rename(draft.join(name), data.join(name)).map_err(disk(&data.join(name)));
        if name == REFERENCE {
            moved.or_else(absent)?;
        } else {
            moved?;
        }
    }
    sync(data)?;
    // All but the live store is in its place, durably. A crash here: nothing starts, and the next try begins anew.
    fs::rename(draft.join(live), data.join(live)).map_err(disk(&data.join(live)))?;
    sync(data)?;
    // From here on there is a broker, and it is marked. The draft is empty.
    let _ = fs::remove_dir(draft);
    sync(data)
}

fn identities(text: &Secret<String>) -> Result<Vec<Identity>, RestoreError> {
    let lines = text.expose().lines().map(str::trim);
    let found: Vec<Identity> = lines.filter_map(|line| line.parse().ok()).collect();
    if found.is_empty() {
        return Err(RestoreError::Identity);
    }
    Ok(found)
}

fn new_file(path: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
    let mut new = File::options();
    new.write(true).create_new(true).mode(0o600);
    let mut file = new.open(path).map_err(disk(path))?;
    file.write_all(bytes).map_err(disk(path))?;
    file.sync_all().map_err(disk(path))
}

fn make_folder(path: &Path) -> Result<(), RestoreError> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700).create(path).map_err(disk(path))
}

fn remove(path: &Path, how: fn(&Path) -> io::Result<()>) -> Result<(), RestoreError> {
    how(path).map_err(disk(path)).or_else(absent)
}

/// That something is not there is no error.
fn absent(error: RestoreError) -> Result<(), RestoreError> {
    match error {
        RestoreError::Disk { error, .. } if error.kind() == io::ErrorKind::NotFound => Ok(()),
        error => Err(error),
    }
}

fn sync(folder: &Path) -> Result<(), RestoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(disk(folder))
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    |error| RestoreError::Disk { path, error }
}
