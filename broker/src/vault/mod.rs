//! The vault: what may only be read while it is unsealed, and by whom.
//!
//! Reading order: [`seal`] (unsealing), [`key_file`] (what unseals), [`envelope`] (how a row is sealed
//! and bound to its place), [`rows`] (rows that are plain but authentic), [`tokens`] (the stored
//! RegistryTokens and their rotation), [`spent`] (what was given out once),
//! [`payload`] (uploads that wait for approval), [`match_code`] (what is
//! derived for one request), [`harden`] (the process around the keys).
//!
//! What if an attacker writes here? Who writes the database can delete rows and roll the whole of it
//! back (the signed checkpoints show that), and he cannot read a secret, put one row's secret into
//! another row, or add a person's device. Who reads it has names, times and ciphertext (attack 44).
//! Who has root on the live, unsealed machine has the tokens in use: that is the declared limit.

pub mod envelope;
pub mod harden;
pub mod key_file;
mod keys;
pub mod match_code;
pub mod payload;
pub mod release;
pub mod rows;
pub mod seal;
pub mod shares;
pub mod spent;
pub mod tokens;

#[cfg(test)]
mod pairs_tests;

pub use envelope::Binding;
pub use key_file::{InitError, Unseal, UnsealError, UnsealMethod};
pub use seal::{Domain, Sealed, Vault};
