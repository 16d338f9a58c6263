//! The audit log as anybody can verify it, offline.
//!
//! [`merkle`] hashes leaves to one root, [`checkpoint`] is that root signed by the broker,
//! [`receipt`] proves one publish against it, [`export`] checks a whole exported log.

pub mod checkpoint;
pub mod export;
pub mod merkle;
pub mod receipt;

#[cfg(test)]
mod vectors;
