//! The Merkle tree of RFC 6962 §2.1 (the same in RFC 9162 §2.1), over SHA-256.
//!
//! Proofs are planned as ranges of leaves ([`inclusion_plan`], [`consistency_plan`]); a range is
//! hashed from complete subtrees ([`Node`]), wherever those are kept.

use crate::digest::hex_text;
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A tree or leaf hash; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreeHash(pub [u8; 32]);

hex_text!(TreeHash);

fn sha256(parts: &[&[u8]]) -> TreeHash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    TreeHash(out)
}

/// The hash of a leaf's bytes. The prefix differs from a node's, so that nobody can pass two
/// hashes off as a leaf (second preimage).
pub fn leaf_hash(leaf: &[u8]) -> TreeHash {
    sha256(&[&[0], leaf])
}

/// The hash over two subtrees.
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    sha256(&[&[1], &left.0, &right.0])
}

/// The root of the empty tree.
pub fn empty_root() -> TreeHash {
    sha256(&[])
}

/// A complete subtree: the leaves from `index << level`, `1 << level` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height; 0 is a leaf.
    pub level: u8,
    /// Position among the subtrees of this height.
    pub index: u64,
}

/// The complete subtrees that a range of a plan is made of, left to right, largest first.
pub fn nodes_of(range: &Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let fits = (range.end - start).ilog2();
        let level = fits.min(start.trailing_zeros()).min(63);
        nodes.push(Node {
            level: u8::try_from(level).unwrap_or(63),
            index: start >> level,
        });
        start += 1 << level;
    }
    nodes
}

/// The hash over a range of a plan, from complete subtrees that `node` looks up.
pub fn range_hash<E>(
    range: &Range<u64>,
    mut node: impl FnMut(Node) -> Result<TreeHash, E>,
) -> Result<TreeHash, E> {
    let mut hash = None;
    for n in nodes_of(range).into_iter().rev() {
        let left = node(n)?;
        hash = Some(hash.map_or(left, |right| node_hash(&left, &right)));
    }
    Ok(hash.unwrap_or_else(empty_root))
}

/// The largest power of two below `n`; `n` is at least 2.
const fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The ranges whose hashes prove that leaf `index` is in the tree of `size` leaves, in the proof's
/// order (RFC 9162 §2.1.3.1). `None` when there is no such leaf.
pub fn inclusion_plan(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let mut plan = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            plan.push(middle..end);
            end = middle;
        } else {
            plan.push(start..middle);
            start = middle;
        }
    }
    plan.reverse();
    Some(plan)
}

/// The ranges whose hashes prove that the tree of `to` leaves begins with the tree of `from`
/// leaves (RFC 9162 §2.1.4.1). `None` when `from` is larger than `to`.
pub fn consistency_plan(from: u64, to: u64) -> Option<Vec<Range<u64>>> {
    if from > to {
        return None;
    }
    if from == 0 || from == to {
        return Some(Vec::new());
    }
    let mut plan = Vec::new();
    let (mut start, mut end) = (0, to);
    while end != from {
        let middle = start + split(end - start);
        if from <= middle {
            plan.push(middle..end);
            end = middle;
        } else {
            plan.push(start..middle);
            start = middle;
        }
    }
    // The old tree itself, unless it is a complete left subtree, whose root the verifier has.
    if start != 0 {
        plan.push(start..end);
    }
    plan.reverse();
    Some(plan)
}

/// Computes a plan's hashes from complete subtrees.
pub fn prove<E>(
    plan: &[Range<u64>],
    mut node: impl FnMut(Node) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    plan.iter().map(|r| range_hash(r, &mut node)).collect()
}

/// The root over leaf hashes at hand.
pub fn root(leaves: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// Whether `proof` shows that `leaf` is at `index` of the tree (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    root: &TreeHash,
    proof: &[TreeHash],
) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for p in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(p, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, p);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the newer tree begins with the older one (RFC 9162 §2.1.4.2).
/// This is what a device asks before it approves: it finds a database rolled back (attack 45) and a
/// log rewritten (attack 46).
pub fn verify_consistency(
    older: (u64, &TreeHash),
    newer: (u64, &TreeHash),
    proof: &[TreeHash],
) -> bool {
    let ((from, old_root), (to, new_root)) = (older, newer);
    if from > to {
        return false;
    }
    if from == to {
        return proof.is_empty() && old_root == new_root;
    }
    if from == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    let first = if from.is_power_of_two() {
        Some(old_root)
    } else {
        rest.next()
    };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for p in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node_hash(p, &old);
            new = node_hash(p, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, p);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *new_root
}

/// The right edge of a growing tree: all that is needed to go on, at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Edge", into = "Edge")]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees that make the tree, largest first.
    peaks: Vec<TreeHash>,
}

/// [`Frontier`] as stored; unchecked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edge {
    size: u64,
    peaks: Vec<TreeHash>,
}

impl TryFrom<Edge> for Frontier {
    type Error = &'static str;
    fn try_from(edge: Edge) -> Result<Self, Self::Error> {
        let Edge { size, peaks } = edge;
        (u32::try_from(peaks.len()) == Ok(size.count_ones()))
            .then_some(Self { size, peaks })
            .ok_or("has a size that does not fit its hashes")
    }
}

impl From<Frontier> for Edge {
    fn from(f: Frontier) -> Self {
        Self {
            size: f.size,
            peaks: f.peaks,
        }
    }
}

impl Frontier {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: TreeHash) {
        self.push_with(leaf, |_, _| ());
    }

    /// Adds a leaf and tells every complete subtree that it finishes, the leaf itself first.
    pub fn push_with(&mut self, leaf: TreeHash, mut done: impl FnMut(Node, TreeHash)) {
        let (mut index, mut level, mut hash) = (self.size, 0, leaf);
        done(Node { level, index }, hash);
        while index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            index >>= 1;
            level += 1;
            done(Node { level, index }, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The tree's root.
    pub fn root(&self) -> TreeHash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
#[path = "merkle_tests.rs"]
mod tests;
