//! The contract over redb files, and what only this back end can get wrong.

use super::{CreateError, META, META_SCHEMA, OpenError, Options, Redb, SCHEMA};
use crate::store::{
    Batch, CommitError, Store, StoreError, Table,
    contract::{Place, contract_tests},
    snapshot::{Counters, Piece},
};
use ::redb::{StorageBackend, backends::InMemoryBackend};
use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;

const A: Table = Table("a");
const CACHE: usize = 1 << 20;

struct Folder(TempDir);

impl Folder {
    fn file(&self) -> PathBuf {
        self.0.path().join("live.redb")
    }
}

impl Place for Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        drop(Redb::create(folder.file(), CACHE).unwrap());
        folder
    }

    fn open(&self) -> Arc<dyn Store> {
        Arc::new(Redb::open(self.file(), CACHE).unwrap())
    }
}

contract_tests!(Folder);

#[tokio::test]
async fn quick_repair_keeps_everything() {
    let folder = Folder::new();
    let options = || Options::new(CACHE).quick_repair();
    let store = Redb::open(folder.file(), options()).unwrap();
    store.commit(Batch::new().append("e")).await.unwrap();
    drop(store);
    let store = Redb::open(folder.file(), options()).unwrap();
    assert_eq!(store.log_len().unwrap(), 1);
}

#[test]
fn attack_47_create_and_open_are_different_acts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("live.redb");
    let absent = Redb::open(&path, CACHE).err().unwrap();
    assert!(matches!(absent, OpenError::Absent(_)), "{absent}");
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    let there = Redb::create(&path, CACHE).err().unwrap();
    assert!(matches!(there, CreateError::Exists(_)), "{there}");
    assert!(Redb::open(&path, CACHE).is_err(), "an emptied file");
    assert_eq!(fs::read(&path).unwrap(), b"");
    fs::write(&path, [7; 9000]).unwrap();
    let foreign = Redb::open(&path, CACHE).err().unwrap();
    assert!(matches!(foreign, OpenError::Foreign(_)), "{foreign}");
    fs::remove_file(&path).unwrap();
    drop(::redb::Database::create(&path).unwrap());
    let foreign = Redb::open(&path, CACHE).err().unwrap();
    assert!(matches!(foreign, OpenError::Foreign(_)), "{foreign}");
}

#[test]
fn attack_47_a_crash_while_creating_leaves_no_database() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("live.redb");
    // What a crash before the rename leaves behind is in nobody's way.
    fs::write(folder.path().join(".new-store-abc123"), b"half").unwrap();
    drop(Redb::create(&path, CACHE).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    drop(Redb::open(&path, CACHE).unwrap());
    // Many at once: one makes it, and nothing else stays.
    let path = folder.path().join("other.redb");
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match Redb::create(&path, CACHE) {
                Ok(_) => _ = made.fetch_add(1, Ordering::SeqCst),
                Err(error) => assert!(matches!(error, CreateError::Exists(_)), "{error}"),
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[cfg(unix)]
#[test]
fn attack_44_the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn attack_47_a_store_that_was_not_filled_to_its_end_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half");
    let mut half = Redb::fill(&path, 1 << 20).unwrap();
    let value = vec![7; 8 << 20];
    let row = Piece::Row {
        place: b"t\0k",
        version: 1,
        value: &value,
    };
    // More than is gathered: it is in the file.
    half.put(row).unwrap();
    drop(half);
    let refused = Redb::open(&path, 1 << 20);
    assert!(matches!(refused, Err(OpenError::Foreign(_))));
    let path = dir.path().join("whole");
    let mut whole = Redb::fill(&path, 1 << 20).unwrap();
    whole.put(row).unwrap();
    let counters = Counters {
        schema: SCHEMA,
        version: 1,
        log_len: 0,
    };
    whole.finish(counters).unwrap();
    drop(Redb::open(&path, 1 << 20).unwrap());
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = Folder::new();
    let db = ::redb::Database::open(folder.file()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META)
        .unwrap()
        .insert(META_SCHEMA, 2)
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let newer = Redb::open(folder.file(), CACHE).err().unwrap();
    assert!(matches!(newer, OpenError::Newer { found: 2, known: 1 }));
}

#[test]
fn a_second_process_is_refused() {
    let folder = Folder::new();
    let _first = folder.open();
    let second = Redb::open(folder.file(), CACHE).err().unwrap();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
}

#[tokio::test]
async fn dropping_the_handle_finishes_the_queue() {
    let folder = Folder::new();
    let store = folder.open();
    let queued: Vec<_> = (0..2000_u32)
        .map(|n| tokio::spawn(store.commit(Batch::new().append(n.to_be_bytes()))))
        .collect();
    // All tasks run and wait for the writer or for a place, on this one thread.
    for _ in 0..queued.len() {
        tokio::task::yield_now().await;
    }
    let never_polled = store.commit(Batch::new().append("never"));
    drop(store);
    let mut done = 0;
    for task in queued {
        match task.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert!(matches!(error, CommitError::Unavailable(_))),
        }
    }
    assert!(matches!(
        never_polled.await,
        Err(CommitError::Unavailable(_))
    ));
    assert!(done > 0);
    assert_eq!(folder.open().log_len().unwrap(), done);
}

/// Memory that stops taking flushes, or giving bytes, when it is told to.
#[derive(Debug, Default, Clone)]
struct Faulty {
    memory: Arc<InMemoryBackend>,
    no_sync: Arc<AtomicBool>,
    no_read: Arc<AtomicBool>,
}

fn unless(failing: &AtomicBool) -> io::Result<()> {
    if failing.load(Ordering::SeqCst) {
        return Err(io::Error::other("injected"));
    }
    Ok(())
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        unless(&self.no_read)?;
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        unless(&self.no_sync)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

fn counted(alarms: &Arc<AtomicUsize>) -> Options {
    let alarms = Arc::clone(alarms);
    Options::new(CACHE).on_fatal(Box::new(move |_| _ = alarms.fetch_add(1, Ordering::SeqCst)))
}

#[tokio::test]
async fn attack_47_after_a_failed_flush_nothing_is_answered() {
    let (faulty, alarms) = (Faulty::default(), Arc::default());
    let store = Redb::over(faulty.clone(), counted(&alarms)).unwrap();
    let made = Batch::new().create(A, b"k", "v");
    store.commit(made).await.unwrap();
    faulty.no_sync.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..64_u8)
        .map(|n| tokio::spawn(store.commit(Batch::new().append([n]))))
        .collect();
    for task in waiting {
        let refused = task.await.unwrap();
        assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    }
    // The disk is well again; the store is not, for nobody knows what is on the disk.
    faulty.no_sync.store(false, Ordering::SeqCst);
    let later = store.commit(Batch::new().append("later")).await;
    assert!(matches!(later, Err(CommitError::Unavailable(_))));
    let unavailable = |error| matches!(error, StoreError::Unavailable(_));
    assert!(store.get(A, b"k").is_err_and(unavailable));
    assert!(store.range(A, b"", None, 1).is_err_and(unavailable));
    assert!(store.log_read(0, 1).is_err_and(unavailable));
    assert!(store.log_len().is_err_and(unavailable));
    drop(store);
    assert_eq!(alarms.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn attack_47_after_a_failed_read_nothing_is_answered() {
    let (faulty, alarms) = (Faulty::default(), Arc::default());
    let mut options = counted(&alarms);
    options.cache_bytes = 0;
    let store = Redb::over(faulty.clone(), options).unwrap();
    // More than one page: the first one is open from the commit on.
    let made = (0..8).fold(Batch::new(), |b, n| b.create(A, [b'k', n], vec![n; 3000]));
    store.commit(made).await.unwrap();
    faulty.no_read.store(true, Ordering::SeqCst);
    let StoreError::Unavailable(first) = store.get(A, b"k\x05").unwrap_err();
    faulty.no_read.store(false, Ordering::SeqCst);
    // Ours is the refusal, not the library's: the reason is the first one, word for word.
    let again = StoreError::Unavailable(first.clone());
    assert_eq!(store.get(A, b"k\x05"), Err(again));
    let later = store.commit(Batch::new().append("later")).await;
    assert_eq!(later, Err(CommitError::Unavailable(first)));
    drop(store);
    assert_eq!(alarms.load(Ordering::SeqCst), 1);
}
