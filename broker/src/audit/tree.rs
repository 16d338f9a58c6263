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
        merkle::{
            Frontier, Node, TreeHash, consistency_plan, inclusion_plan, leaf_hash, prove,
            range_hash,
        },
        tile::Tile,
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
    #[error(
        "the log has {len} entries, but its tree has {size}: live.redb is older than history.redb, or was cut; restore both from one backup (countersignd restore)"
    )]
    Shrunk {
        /// The log's.
        len: u64,
        /// The tree's.
        size: u64,
    },
    /// The entry that comes next is not in the log.
    #[error("log entry {0} is missing; it was moved or cut before the tree took it in")]
    Gap(u64),
    /// An entry is another one than the tree has.
    #[error(
        "log entry {0} is not the one in its tree: live.redb and history.redb are not of one moment; restore both from one backup (countersignd restore)"
    )]
    Differs(u64),
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

    /// Compares the entries that are still in the log with the leaves that the tree has of them. One of the two that was
    /// put back alone, and has grown since, has another past: no device accepts what would be signed over it.
    pub fn check(&self, log: &dyn Store, tree: &dyn Store) -> Result<(), TreeError> {
        let (size, len) = (self.size(), log.log_len()?);
        if len < size {
            return Err(TreeError::Shrunk { len, size });
        }
        let mut from = 0;
        loop {
            let entries = log.log_read(from, CATCH_UP_BATCH)?;
            let Some((last, _)) = entries.last() else {
                return Ok(());
            };
            from = last + 1;
            for (index, leaf) in entries {
                if index >= size {
                    return Ok(());
                }
                if read_node(tree, Node { level: 0, index })? != leaf_hash(&leaf) {
                    return Err(TreeError::Differs(index));
                }
            }
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

    /// The hashes of a tile; none where the tree has not all of them yet.
    pub fn tile(&self, store: &dyn Store, tile: &Tile) -> Result<Option<Vec<u8>>, TreeError> {
        if !tile.is_in(self.size()) {
            return Ok(None);
        }
        let first = tile.first();
        let width = usize::try_from(tile.place.width).unwrap_or(0);
        // A level's nodes lie together, so one read gives all of a tile.
        let before = first.index.checked_sub(1).map(|index| {
            node_key(Node {
                level: first.level,
                index,
            })
        });
        let rows = store.range(TREE, &[b'n', first.level], before.as_deref(), width)?;
        let mut hashes = Vec::with_capacity(width * 32);
        for ((key, row), index) in rows.iter().zip(first.index..) {
            let level = first.level;
            if *key != node_key(Node { level, index }) || row.value.len() != 32 {
                return Err(TreeError::Damaged("node"));
            }
            hashes.extend_from_slice(&row.value);
        }
        if rows.len() != width {
            return Err(TreeError::Damaged("node"));
        }
        Ok(Some(hashes))
    }

    /// The root of the tree of the first `size` entries.
    pub fn root_at(&self, store: &dyn Store, size: u64) -> Result<TreeHash, TreeError> {
        self.within(size)?;
        range_hash(&(0..size), |node| read_node(store, node))
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
    let batch = Batch::new().put(TREE, FRONTIER, edge.version, row);
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
#[path = "tree_tests.rs"]
mod tests;
