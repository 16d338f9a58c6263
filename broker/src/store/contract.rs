//! What every back end must pass. A back end's tests name a [`Place`] and call
//! [`contract_tests!`]; nothing here knows which back end it is.

use super::{Batch, CommitError, Store, Table};
use std::sync::Arc;

/// A new, empty store that can be opened, closed by dropping all handles, and opened again.
pub trait Place {
    /// A place with an empty store in it.
    fn new() -> Self;
    /// Opens the store.
    fn open(&self) -> Arc<dyn Store>;
}

macro_rules! contract_tests {
    ($place:ty) => {
        $crate::store::contract::contract_tests!($place:
            create_replace_delete require a_conflict_leaves_nothing one_write_per_row
            attack_36_of_64_parallel_swaps_one_wins
            attack_36_a_row_made_anew_is_another_row ranges tables_are_apart
            log_indexes_are_gapless_under_64_parallel_appends trimming_keeps_the_length
            reopening_keeps_everything moving_rows moving_the_log
            a_half_done_move_is_finished_and_history_is_never_overwritten
        );
    };
    ($place:ty: $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::store::contract::$name::<$place>().await;
        })*
    };
}
pub(crate) use contract_tests;

const A: Table = Table("a");
const B: Table = Table("b");

fn version(store: &Arc<dyn Store>, table: Table, key: &[u8]) -> u64 {
    store.get(table, key).unwrap().unwrap().version
}

fn value(store: &Arc<dyn Store>, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    store.get(table, key).unwrap().map(|row| row.value)
}

fn conflict(table: Table, key: &[u8]) -> CommitError {
    let key = key.to_vec();
    CommitError::Conflict { table, key }
}

pub async fn create_replace_delete<P: Place>() {
    let place = P::new();
    let store = place.open();
    assert_eq!(store.get(A, b"k").unwrap(), None);
    let create = || Batch::new().create(A, b"k", "one");
    store.commit(create()).await.unwrap();
    assert_eq!(store.commit(create()).await, Err(conflict(A, b"k")));
    let first = version(&store, A, b"k");
    let replace = |version| Batch::new().replace(A, b"k", version, "two");
    let done = store.commit(replace(first)).await.unwrap();
    assert_eq!(store.commit(replace(first)).await, Err(conflict(A, b"k")));
    assert_eq!(value(&store, A, b"k").unwrap(), b"two");
    let second = version(&store, A, b"k");
    assert!(second > first);
    assert_eq!(done.version, second);
    let delete = |version| Batch::new().delete(A, b"k", version);
    assert_eq!(store.commit(delete(first)).await, Err(conflict(A, b"k")));
    store.commit(delete(second)).await.unwrap();
    assert_eq!(store.commit(delete(second)).await, Err(conflict(A, b"k")));
    assert_eq!(store.commit(replace(second)).await, Err(conflict(A, b"k")));
    assert_eq!(value(&store, A, b"k"), None);
    store.commit(Batch::new().create(A, b"", "")).await.unwrap();
    assert_eq!(value(&store, A, b"").unwrap(), b"");
}

pub async fn require<P: Place>() {
    let place = P::new();
    let store = place.open();
    let made = Batch::new().create(A, b"k", "v").append("e");
    store.commit(made).await.unwrap();
    let now = version(&store, A, b"k");
    let ask = || Batch::new().require(A, b"k", now).require_absent(A, b"l");
    let done = store.commit(ask().create(B, b"x", "")).await.unwrap();
    assert_eq!(done.first_appended, 1);
    assert_eq!(store.commit(ask()).await.unwrap().first_appended, 1);
    assert_eq!(version(&store, A, b"k"), now, "a question writes nothing");
    // A question and a write about the same row go together.
    let both = ask().replace(A, b"k", now, "w");
    store.commit(both).await.unwrap();
    assert_eq!(store.commit(ask()).await, Err(conflict(A, b"k")));
    let there = Batch::new().require_absent(A, b"k");
    assert_eq!(store.commit(there).await, Err(conflict(A, b"k")));
}

pub async fn a_conflict_leaves_nothing<P: Place>() {
    let place = P::new();
    let store = place.open();
    let made = Batch::new().create(A, b"k", "v").append("0");
    store.commit(made).await.unwrap();
    let now = version(&store, A, b"k");
    // The precondition that fails stands last, after everything that could be written too early;
    // others commit beside it, so that an early write would be flushed with theirs.
    for round in 0..16_u8 {
        let lost = Batch::new()
            .create(A, b"new", "x")
            .replace(A, b"k", now, "x")
            .append("x")
            .trim_log(1)
            .require_absent(A, b"k");
        let other = |side| tokio::spawn(store.commit(Batch::new().create(B, [round, side], "")));
        let (before, lost, after) = (other(0), tokio::spawn(store.commit(lost)), other(1));
        before.await.unwrap().unwrap();
        after.await.unwrap().unwrap();
        assert_eq!(lost.await.unwrap(), Err(conflict(A, b"k")));
    }
    assert_eq!(store.range(B, b"", None, 99).unwrap().len(), 32);
    assert_eq!(value(&store, A, b"new"), None);
    assert_eq!(version(&store, A, b"k"), now);
    assert_eq!(store.log_read(0, 9).unwrap(), [(0, b"0".to_vec())]);
    assert_eq!(store.log_len().unwrap(), 1);
}

pub async fn one_write_per_row<P: Place>() {
    let place = P::new();
    let store = place.open();
    let twice = Batch::new().create(A, b"k", "1").create(A, b"k", "2");
    assert_eq!(store.commit(twice).await, Err(conflict(A, b"k")));
    assert_eq!(value(&store, A, b"k"), None);
}

pub async fn attack_36_of_64_parallel_swaps_one_wins<P: Place>() {
    let place = P::new();
    let store = place.open();
    store
        .commit(Batch::new().create(A, b"k", ""))
        .await
        .unwrap();
    for round in 0..8_u64 {
        let now = version(&store, A, b"k");
        let tasks: Vec<_> = (0..64_u8)
            .map(|who| {
                let swap = Batch::new().replace(A, b"k", now, [who]).append([who]);
                tokio::spawn(store.commit(swap))
            })
            .collect();
        let mut winners = Vec::new();
        for (who, task) in (0_u8..).zip(tasks) {
            match task.await.unwrap() {
                Ok(_) => winners.push(who),
                Err(error) => assert_eq!(error, conflict(A, b"k")),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(value(&store, A, b"k").unwrap(), winners);
        assert_eq!(store.log_read(round, 9).unwrap(), [(round, winners)]);
    }
}

pub async fn attack_36_a_row_made_anew_is_another_row<P: Place>() {
    let place = P::new();
    let store = place.open();
    let create = || Batch::new().create(A, b"k", "same");
    store.commit(create()).await.unwrap();
    let old = version(&store, A, b"k");
    let deleted = Batch::new().delete(A, b"k", old);
    store.commit(deleted).await.unwrap();
    drop(store);
    let store = place.open();
    store.commit(create()).await.unwrap();
    assert!(version(&store, A, b"k") > old);
    let late = Batch::new().replace(A, b"k", old, "late");
    assert_eq!(store.commit(late).await, Err(conflict(A, b"k")));
}

pub async fn ranges<P: Place>() {
    let place = P::new();
    let store = place.open();
    let mut batch = Batch::new().create(B, b"p3", "other table");
    for key in ["o", "p", "p1", "p2", "p\u{ff}", "q"] {
        batch = batch.create(A, key, key);
    }
    store.commit(batch).await.unwrap();
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found = store.range(A, prefix.as_bytes(), after.map(str::as_bytes), limit);
        let found = found.unwrap().into_iter();
        found
            .map(|(key, row)| {
                assert_eq!(key, row.value);
                String::from_utf8(key).unwrap()
            })
            .collect()
    };
    assert_eq!(keys("", None, 99), ["o", "p", "p1", "p2", "p\u{ff}", "q"]);
    assert_eq!(keys("p", None, 99), ["p", "p1", "p2", "p\u{ff}"]);
    assert_eq!(keys("p", None, 2), ["p", "p1"]);
    assert_eq!(keys("p", Some("p1"), 2), ["p2", "p\u{ff}"]);
    assert_eq!(keys("p", Some("a"), 1), ["p"], "before the prefix");
    assert_eq!(keys("p", Some("q"), 9), [""; 0], "behind the prefix");
    assert_eq!(keys("p", None, 0), [""; 0]);
    assert_eq!(keys("p", None, usize::MAX).len(), 4);
    assert_eq!(keys("x", None, 9), [""; 0]);
}

pub async fn tables_are_apart<P: Place>() {
    let place = P::new();
    let store = place.open();
    let (short, long) = (Table("t"), Table("tx"));
    let batch = Batch::new().create(short, b"xk", "1");
    let batch = batch.create(long, b"k", "2").create(short, [0, 0xff], "3");
    store.commit(batch).await.unwrap();
    assert_eq!(value(&store, short, b"xk").unwrap(), b"1");
    assert_eq!(value(&store, short, b"k"), None);
    assert_eq!(store.range(short, b"", None, 9).unwrap().len(), 2);
    assert_eq!(store.range(long, b"", None, 9).unwrap().len(), 1);
}

pub async fn log_indexes_are_gapless_under_64_parallel_appends<P: Place>() {
    let place = P::new();
    let store = place.open();
    let tasks: Vec<_> = (0..64_u8)
        .map(|who| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for nth in 0..8_u8 {
                    let two = Batch::new().append([who, nth, 0]).append([who, nth, 1]);
                    let first = store.commit(two).await.unwrap().first_appended;
                    mine.push((first, vec![who, nth, 0]));
                    mine.push((first + 1, vec![who, nth, 1]));
                }
                assert!(mine.is_sorted());
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort();
    assert!(all.iter().map(|(index, _)| *index).eq(0..1024));
    assert_eq!(store.log_read(0, usize::MAX).unwrap(), all);
    assert_eq!(store.log_len().unwrap(), 1024);
    assert_eq!(store.log_read(1000, 2).unwrap(), all[1000..1002]);
}

pub async fn trimming_keeps_the_length<P: Place>() {
    let place = P::new();
    let store = place.open();
    let four = ["0", "1", "2", "3"];
    let batch = four.into_iter().fold(Batch::new(), Batch::append);
    store.commit(batch).await.unwrap();
    store.commit(Batch::new().trim_log(3)).await.unwrap();
    assert_eq!(store.log_read(0, 9).unwrap(), [(3, b"3".to_vec())]);
    assert_eq!(store.log_len().unwrap(), 4);
    store.commit(Batch::new().trim_log(1)).await.unwrap();
    // Beyond the end: what the same batch and later ones append stays.
    let beyond = Batch::new().trim_log(u64::MAX).append("4");
    assert_eq!(store.commit(beyond).await.unwrap().first_appended, 4);
    assert_eq!(store.log_read(0, 9).unwrap(), [(4, b"4".to_vec())]);
    store.commit(Batch::new().trim_log(5)).await.unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.log_len().unwrap(), 5);
    let next = store.commit(Batch::new().append("5")).await.unwrap();
    assert_eq!(next.first_appended, 5);
}

pub async fn reopening_keeps_everything<P: Place>() {
    let place = P::new();
    let store = place.open();
    let made = Batch::new().create(A, b"k", "v").append("e");
    store.commit(made).await.unwrap();
    let row = store.get(A, b"k").unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.get(A, b"k").unwrap(), row);
    assert_eq!(store.log_read(0, 9).unwrap(), [(0, b"e".to_vec())]);
}

pub async fn moving_rows<P: Place>() {
    let (here, there) = (P::new(), P::new());
    let (live, history) = (here.open(), there.open());
    let batch = Batch::new().create(A, b"k", "1").create(B, b"k", "2");
    live.commit(batch.create(A, b"stays", "3")).await.unwrap();
    let read = |table, key: &[u8]| (table, key.to_vec(), live.get(table, key).unwrap().unwrap());
    let rows = vec![read(A, b"k"), read(B, b"k")];
    super::history::move_rows(&*live, &*history, rows.clone())
        .await
        .unwrap();
    assert_eq!(value(&live, A, b"k"), None);
    assert_eq!(value(&live, A, b"stays").unwrap(), b"3");
    assert_eq!(value(&history, A, b"k").unwrap(), b"1");
    assert_eq!(value(&history, B, b"k").unwrap(), b"2");
    let found = super::history::find(&*live, &*history, B, b"k").unwrap();
    assert_eq!(found.unwrap(), b"2");
    let again = super::history::move_rows(&*live, &*history, rows).await;
    assert!(matches!(
        again,
        Err(super::history::MoveError::Changed { .. })
    ));
}

pub async fn moving_the_log<P: Place>() {
    let (here, there) = (P::new(), P::new());
    let (live, history) = (here.open(), there.open());
    let all: Vec<(u64, Vec<u8>)> = (0..1500_u64)
        .map(|n| (n, n.to_le_bytes().to_vec()))
        .collect();
    let entries = all.iter().map(|(_, value)| value.clone());
    live.commit(entries.fold(Batch::new(), Batch::append))
        .await
        .unwrap();
    let whole = |from, limit| super::history::whole_log_read(&*live, &*history, from, limit);
    for keep_last in [2000, 300, 300, 0] {
        super::history::move_log(&*live, &*history, keep_last)
            .await
            .unwrap();
        let left = live.log_read(0, usize::MAX).unwrap();
        assert_eq!(left.len() as u64, keep_last.min(1500));
        assert_eq!(live.log_len().unwrap(), 1500);
        assert_eq!(whole(0, usize::MAX).unwrap(), all);
        assert_eq!(whole(1199, 2).unwrap(), all[1199..1201]);
        assert_eq!(whole(1499, 9).unwrap(), all[1499..]);
        assert_eq!(whole(1500, 9).unwrap(), []);
    }
    let old = super::history::history_log_read(&*history, 7, 3).unwrap();
    assert_eq!(old, all[7..10]);
}

pub async fn a_half_done_move_is_finished_and_history_is_never_overwritten<P: Place>() {
    let (here, there) = (P::new(), P::new());
    let (live, history) = (here.open(), there.open());
    let batch = Batch::new().create(A, b"k", "1").append("e0").append("e1");
    live.commit(batch).await.unwrap();
    // As a crash between the two stores leaves it.
    let index = 0_u64.to_be_bytes();
    let half = Batch::new().create(A, b"k", "1");
    let half = half.create(super::history::LOG, index, "e0");
    history.commit(half).await.unwrap();
    let row = live.get(A, b"k").unwrap().unwrap();
    let rows = vec![(A, b"k".to_vec(), row)];
    super::history::move_rows(&*live, &*history, rows)
        .await
        .unwrap();
    super::history::move_log(&*live, &*history, 0)
        .await
        .unwrap();
    assert_eq!(value(&live, A, b"k"), None);
    assert_eq!(live.log_read(0, 9).unwrap(), []);
    // A live row that contradicts the history stays where it is, and so does the history.
    live.commit(Batch::new().create(A, b"k", "forged"))
        .await
        .unwrap();
    let row = live.get(A, b"k").unwrap().unwrap();
    let rows = vec![(A, b"k".to_vec(), row)];
    let refused = super::history::move_rows(&*live, &*history, rows).await;
    assert!(matches!(
        refused,
        Err(super::history::MoveError::Differs { .. })
    ));
    assert_eq!(value(&live, A, b"k").unwrap(), b"forged");
    assert_eq!(value(&history, A, b"k").unwrap(), b"1");
}
