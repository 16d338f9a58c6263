//! `countersignd`: holds registry tokens, asks people first, publishes exactly what they approved.
//!
//! The rooms stand on floors and only look down; `tests/tests/house.rs` keeps it so. Read
//! [`publish`] for the story, then the room of whatever a verb uses.

pub mod secret;
pub mod telemetry;
pub mod world;

pub mod store;

pub mod audit;
pub mod caller;
pub mod challenge;
pub mod notify;
pub mod registry;

pub mod card;

pub mod policy;

pub mod vault;
pub mod watch;

pub mod desk;

pub mod admin;
pub mod backup;
pub mod publish;

pub mod http;

pub mod config;
