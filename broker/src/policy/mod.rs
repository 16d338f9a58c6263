//! What may be published, by whom it may be asked for, and who must say yes.
//!
//! [`file`] reads `policy.toml`; [`case`] is all that a rule can see; [`rules`] holds one rule per
//! file; [`evaluate`] applies them to every item of a request, and makes the Permit. [`compare`] says
//! whether another policy would allow more. Nothing in this
//! room reads a clock, a store or the network, and nothing is ever permitted by silence: no entry, no
//! caller, no approver, no item means no.

pub mod callers;
pub mod case;
pub mod compare;
pub mod evaluate;
pub mod file;
pub mod hours;
pub mod keys;
pub mod pattern;
mod read;
pub mod reason;
pub mod rules;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod compare_tests;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod stage_set;

pub use case::{Admitted, ItemNow, Now, Person, Terms, is_risky};
pub use evaluate::{Permit, Refusal, Verdict, admissible, evaluate};
pub use file::{Entry, Policy};
pub use keys::Unsolicited;
pub use read::PolicyError;
pub use reason::Reason;
pub use rules::{Later, Why};
