//! The Merkle tree over the log's entries, kept beside them.
//!
//! The log grows in the commits of the acts themselves; the tree follows in batches. Stored are its
//! right edge, so that a start reads one row whatever the log's age, and the hash of every complete
//! subtree, so that a proof reads some 20 rows. What if an attacker writes here? A changed row makes
//! proofs and roots that no device accepts: each compares with the checkpoint that it kept.

use crate::store::{Batch, CommitError, Store, StoreError, Table};
use arc_swap::ArcSwap;
use proto::{
    device::DeviceKey,
    log::{
        checkpoint::{Checkpoint, NoteError},
        merkle::{Frontier, Node, TreeHash, consistency_plan, inclusion_plan, leaf_hash, prove},
    },
};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::Mutex;

/// Where the tree is stored.
pub const TREE: Table = Table("tree");
/// The right edge's row.
const FRONTIER: &[u8] = b"frontier";
/// Log entries that one commit takes in.
pub const CATCH_UP_BATCH: usize = 1_000;
/// Commits lost to other brokers before giving up.
const LOST_MAX: u32 = 100;

/// Why the tree could not follow the log, or gave no proof.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The store failed.
    #[error("the audit tree's store: {0}")]
    Store(#[from] StoreError),
    /// The store failed to commit.
    #[error("the audit tree's store: {0}")]
    Commit(CommitError),
    /// A row is not what was written.
    #[error("the audit tree's stored {0} is damaged")]
    Damaged(&'static str),
    /// The log lost entries that the tree has.
    #[error("the log has {len} entries, but its tree has {size}; it was cut or rolled back")]
    Shrunk {
        /// The log's.
        len: u64,
        /// The tree's.
        size: u64,
    },
    /// The entry that comes next is not in the log.
    #[error("log entry {0} is missing; it was moved or cut before the tree took it in")]
    Gap(u64),
    /// No such leaf or tree.
    #[error("the tree has no such entry or size")]
    OutOfRange,
}

/// The tree as it is stored.
pub struct Tree {
    edge: ArcSwap<Edge>,
    /// One catch-up at a time.
    turn: Mutex<()>,
}

/// The right edge and its row's version; none before the first catch-up.
#[derive(Default)]
struct Edge {
    frontier: Frontier,
    version: Option<u64>,
}

impl Tree {
    /// Reads the stored right edge.
    pub fn load(store: &dyn Store) -> Result<Self, TreeError> {
        Ok(Self {
            edge: ArcSwap::from_pointee(read_edge(store)?),
            turn: Mutex::new(()),
        })
    }

    /// Takes in all log entries that the tree does not have yet; returns the size.
    /// To be called before entries are trimmed from the log.
    pub async fn catch_up(&self, store: &dyn Store) -> Result<u64, TreeError> {
        self.catch_up_into(store, store).await
    }

    /// The same, where the log and the tree live in different stores.
    pub async fn catch_up_into(&self, log: &dyn Store, tree: &dyn Store) -> Result<u64, TreeError> {
        let _turn = self.turn.lock().await;
        let mut lost = 0;
        loop {
            let edge = self.edge.load_full();
            let Some(batch) = next_batch(log, &edge)? else {
                return Ok(edge.frontier.size());
            };
            match tree.commit(batch).await {
                Ok(_) => {}
                // Another broker over the same database took these entries in. Its edge is as good.
                Err(CommitError::Conflict { .. }) if lost < LOST_MAX => lost += 1,
                Err(e) => return Err(TreeError::Commit(e)),
            }
            // Edge and nodes are durable now, together; a crash here is a start that reads them.
            let stored = read_edge(tree)?;
            let moved = stored.version != edge.version;
            if !moved || stored.frontier.size() < edge.frontier.size() {
                // The nodes are there without their edge: planted, or the edge was rolled back.
                return Err(TreeError::Damaged("edge"));
            }
            self.edge.store(Arc::new(stored));
        }
    }

    /// How many entries the tree has.
    pub fn size(&self) -> u64 {
        self.edge.load().frontier.size()
    }

    /// The tree of this instant, to be signed; proofs for it take its size.
    pub fn snapshot(&self, origin: &str) -> Checkpoint {
        let edge = self.edge.load();
        Checkpoint {
            origin: origin.to_owned(),
            size: edge.frontier.size(),
            root: edge.frontier.root(),
        }
    }

    /// The signed checkpoint of this instant. Only what is durable is ever signed: a root that a
    /// crash could take back would make honest devices refuse for ever.
    pub fn checkpoint(&self, signer: &DeviceKey, origin: &str) -> Result<String, NoteError> {
        self.snapshot(origin).sign(signer)
    }

    /// The proof that entry `index` is in the tree of the first `size` entries.
    pub fn inclusion(
        &self,
        store: &dyn Store,
        index: u64,
        size: u64,
    ) -> Result<Vec<TreeHash>, TreeError> {
        self.within(size)?;
        let plan = inclusion_plan(index, size).ok_or(TreeError::OutOfRange)?;
        prove(&plan, |node| read_node(store, node))
    }

    /// The proof that the tree of `to` entries begins with the tree of `from` entries.
    pub fn consistency(
        &self,
        store: &dyn Store,
        from: u64,
        to: u64,
    ) -> Result<Vec<TreeHash>, TreeError> {
        self.within(to)?;
        let plan = consistency_plan(from, to).ok_or(TreeError::OutOfRange)?;
        prove(&plan, |node| read_node(store, node))
    }

    fn within(&self, size: u64) -> Result<(), TreeError> {
        (size <= self.size())
            .then_some(())
            .ok_or(TreeError::OutOfRange)
    }
}

/// The batch that takes in the next log entries; `None` when there are none.
fn next_batch(log: &dyn Store, edge: &Edge) -> Result<Option<Batch>, TreeError> {
    let (size, len) = (edge.frontier.size(), log.log_len()?);
    if len < size {
        return Err(TreeError::Shrunk { len, size });
    }
    if len == size {
        return Ok(None);
    }
    let mut frontier = edge.frontier.clone();
    let mut nodes = Vec::new();
    for (index, leaf) in log.log_read(size, CATCH_UP_BATCH)? {
        if index != frontier.size() {
            return Err(TreeError::Gap(frontier.size()));
        }
        frontier.push_with(leaf_hash(&leaf), |n, h| nodes.push((n, h)));
    }
    if nodes.is_empty() {
        return Err(TreeError::Gap(size));
    }
    let row = serde_json::to_vec(&frontier).map_err(|_| TreeError::Damaged("edge"))?;
    let batch = match edge.version {
        None => Batch::new().create(TREE, FRONTIER, row),
        Some(version) => Batch::new().replace(TREE, FRONTIER, version, row),
    };
    Ok(Some(
        nodes.into_iter().fold(batch, |batch, (node, hash)| {
            batch.create(TREE, node_key(node), hash.0)
        }),
    ))
}

fn read_edge(store: &dyn Store) -> Result<Edge, TreeError> {
    let Some(row) = store.get(TREE, FRONTIER)? else {
        return Ok(Edge::default());
    };
    let frontier = serde_json::from_slice(&row.value).map_err(|_| TreeError::Damaged("edge"))?;
    Ok(Edge {
        frontier,
        version: Some(row.version),
    })
}

/// `n`, level, index (8 bytes, big-endian): one level's nodes lie together, in order.
fn node_key(node: Node) -> Vec<u8> {
    let mut key = vec![b'n', node.level];
    key.extend(node.index.to_be_bytes());
    key
}

fn read_node(store: &dyn Store, node: Node) -> Result<TreeHash, TreeError> {
    let row = store.get(TREE, &node_key(node))?;
    row.and_then(|r| <[u8; 32]>::try_from(r.value).ok())
        .map(TreeHash)
        .ok_or(TreeError::Damaged("node"))
}

#[cfg(test)]
mod tests {
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
}
