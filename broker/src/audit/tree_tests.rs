use super::*;
use crate::store::redb::Redb;
use proto::log::{
    checkpoint::LogKey,
    merkle::{range_hash, root, verify_consistency, verify_inclusion},
};
use std::convert::Infallible;

const ORIGIN: &str = "broker.example/log";
const CACHE: usize = 1 << 20;

struct Place {
    store: Redb,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Redb::create(folder.path().join("live"), CACHE).unwrap();
        Self { store, folder }
    }

    fn restarted(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        let store = Redb::open(folder.path().join("live"), CACHE).unwrap();
        Self { store, folder }
    }

    async fn append(&self, leaves: std::ops::Range<u64>) {
        let batch = leaves.fold(Batch::new(), |b, i| b.append(i.to_be_bytes()));
        self.store.commit(batch).await.unwrap();
    }
}

fn leaves(n: u64) -> Vec<TreeHash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn root_of(n: u64) -> TreeHash {
    root(&leaves(n))
}

/// A plan's hashes, computed from all leaves.
fn recomputed(plan: &[std::ops::Range<u64>]) -> Vec<TreeHash> {
    let all = leaves(plan.iter().map(|r| r.end).max().unwrap_or(0));
    let slice = |n: Node| {
        let start = usize::try_from(n.index << n.level).unwrap();
        Ok::<_, Infallible>(root(&all[start..start + (1 << n.level)]))
    };
    plan.iter().map(|r| range_hash(r, slice).unwrap()).collect()
}

#[tokio::test]
async fn stored_proofs_verify_and_equal_those_from_all_leaves() {
    let place = Place::new();
    place.append(0..40).await;
    let tree = Tree::load(&place.store).unwrap();
    assert_eq!(tree.catch_up(&place.store).await.unwrap(), 40);
    for size in 0..=40 {
        for index in 0..size {
            let proof = tree.inclusion(&place.store, index, size).unwrap();
            assert_eq!(proof, recomputed(&inclusion_plan(index, size).unwrap()));
            let leaf = leaf_hash(&index.to_be_bytes());
            assert!(verify_inclusion(&leaf, index, size, &root_of(size), &proof));
        }
        for from in 0..=size {
            let proof = tree.consistency(&place.store, from, size).unwrap();
            assert_eq!(proof, recomputed(&consistency_plan(from, size).unwrap()));
            let (old, new) = (root_of(from), root_of(size));
            assert!(verify_consistency((from, &old), (size, &new), &proof));
        }
    }
    assert!(tree.inclusion(&place.store, 40, 40).is_err());
    assert!(tree.inclusion(&place.store, 0, 41).is_err());
    assert!(tree.consistency(&place.store, 41, 40).is_err());
}

#[tokio::test]
async fn tiles_hold_the_hashes_of_their_level_and_are_whole() {
    let place = Place::new();
    let size = 256 * 3 + 7;
    place.append(0..size).await;
    let tree = Tree::load(&place.store).unwrap();
    tree.catch_up(&place.store).await.unwrap();
    let read = |text: &str| {
        let (level, at) = text.split_once('/').unwrap();
        let tile = Tile::parse(level, at).unwrap();
        tree.tile(&place.store, &tile).unwrap()
    };
    let all = leaves(size);
    let flat = |hashes: &[TreeHash]| hashes.iter().flat_map(|h| h.0).collect::<Vec<u8>>();
    assert_eq!(read("0/000").unwrap(), flat(&all[..256]));
    assert_eq!(read("0/002").unwrap(), flat(&all[512..768]));
    assert_eq!(read("0/001.p/5").unwrap(), flat(&all[256..261]));
    assert_eq!(read("0/003.p/7").unwrap(), flat(&all[768..]));
    let above: Vec<_> = all[..768].chunks(256).map(root).collect();
    assert_eq!(read("1/000.p/3").unwrap(), flat(&above));
    for absent in [
        "0/003",
        "0/003.p/8",
        "0/004.p/1",
        "1/000",
        "1/000.p/4",
        "2/000.p/1",
    ] {
        assert!(read(absent).is_none(), "{absent}");
    }
    // A row that is gone is damage, and not a shorter tile.
    let row = place
        .store
        .get(TREE, &node_key(Node { level: 0, index: 9 }));
    let version = row.unwrap().unwrap().version;
    let gone = Batch::new().delete(TREE, node_key(Node { level: 0, index: 9 }), version);
    place.store.commit(gone).await.unwrap();
    for damaged in ["000", "000.p/10"] {
        let tile = Tile::parse("0", damaged).unwrap();
        assert!(tree.tile(&place.store, &tile).is_err(), "{damaged}");
    }
    assert!(read("0/000.p/9").is_some());
}

#[tokio::test]
async fn a_restart_goes_on_from_the_stored_edge_even_when_old_entries_were_moved() {
    let mut place = Place::new();
    let mut size = 0;
    for more in [1, 2, 1_500, 0, 7] {
        if more > 0 {
            place.append(size..size + more).await;
        }
        size += more;
        let tree = Tree::load(&place.store).unwrap();
        assert_eq!(tree.catch_up(&place.store).await.unwrap(), size);
        assert_eq!(tree.snapshot(ORIGIN).root, root_of(size));
        // Nothing before the edge is ever read again.
        let trim = Batch::new().trim_log(size);
        place.store.commit(trim).await.unwrap();
        place = place.restarted();
    }
    let signer = DeviceKey::from_seed([5; 32]).unwrap();
    let tree = Tree::load(&place.store).unwrap();
    let note = tree.checkpoint(&signer, ORIGIN).unwrap();
    let key = LogKey::new(ORIGIN, signer.public()).unwrap();
    assert_eq!(
        Checkpoint::open(&note, &key).unwrap(),
        tree.snapshot(ORIGIN)
    );
    let proof = tree.consistency(&place.store, 3, size).unwrap();
    let (old, new) = (root_of(3), root_of(size));
    assert!(verify_consistency((3, &old), (size, &new), &proof));
}

#[tokio::test]
async fn two_brokers_over_one_database_build_one_tree() {
    let place = Place::new();
    let one = Tree::load(&place.store).unwrap();
    let two = Tree::load(&place.store).unwrap();
    for step in 0..5u64 {
        place.append(step * 10..step * 10 + 10).await;
        let (a, b) = tokio::join!(one.catch_up(&place.store), two.catch_up(&place.store));
        assert_eq!((a.unwrap(), b.unwrap()), (step * 10 + 10, step * 10 + 10));
    }
    assert_eq!(one.snapshot(ORIGIN), two.snapshot(ORIGIN));
    assert_eq!(one.snapshot(ORIGIN).root, root_of(50));
}

#[tokio::test]
async fn attack_46_a_log_cut_under_the_tree_is_found() {
    let (long, short) = (Place::new(), Place::new());
    long.append(0..9).await;
    short.append(0..4).await;
    let tree = Tree::load(&long.store).unwrap();
    tree.catch_up(&long.store).await.unwrap();
    let error = tree.catch_up(&short.store).await.unwrap_err();
    assert!(matches!(error, TreeError::Shrunk { len: 4, size: 9 }));
    // Entries that vanished before the tree had them are not stepped over.
    let trim = Batch::new().trim_log(2);
    short.store.commit(trim).await.unwrap();
    let tree = Tree::load(&short.store).unwrap();
    let error = tree.catch_up(&short.store).await.unwrap_err();
    assert!(matches!(error, TreeError::Gap(0)), "{error}");
}
