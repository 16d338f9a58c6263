//! The audit log: [`event`] says what can be recorded, [`reason`] why a thing was refused, [`tree`]
//! makes the record verifiable.
//!
//! An event is appended in the same commit as the change that it records; if it cannot be written,
//! the act fails. What if an attacker writes here? He can lengthen the log; he cannot change what
//! a checkpoint has signed without every device that kept one noticing (attacks 45, 46).

pub mod event;
pub mod reason;
pub mod tree;
