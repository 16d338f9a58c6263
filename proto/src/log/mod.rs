//! The audit log as anybody can verify it, offline.
//!
//! [`merkle`] hashes leaves to one root, [`checkpoint`] is that root signed by the broker, [`cosignature`] what others say to it,
//! [`receipt`] proves one publish against it, [`export`] checks a whole exported log, [`witness`] whether a log
//! continues what was seen of it, [`tile`] is how others read the tree, [`find`] what is looked for in
//! it.

pub mod checkpoint;
pub mod cosignature;
pub mod export;
pub mod find;
pub mod merkle;
pub mod receipt;
pub mod statement;
pub mod tile;
pub mod witness;

#[cfg(test)]
mod vectors;
