//! Who asks: a CI job's token becomes a [`Caller`], or is refused with a sentence that helps.
//!
//! Read [`verify`] first: it is the one place that makes a `Caller`, and its order of checks is the
//! story. [`token`] reads what nobody has verified yet, [`keys`] holds the issuers' public keys,
//! [`kinds`] has a row for each kind of issuer, and the file beside it ([`github`], [`gitlab`], …) says what its claims
//! mean; [`client_key`] is for CI without OIDC.
//!
//! What if an attacker writes here? Everything in a token is his until the signature has been
//! checked; no address is ever taken from it, and what is fetched comes from the configuration.
//! A key server can name keys for its own issuer and nothing else.
//!
//! A `Caller` says who asks. It authorises nothing: whoever holds a stolen repository-admin token can
//! get a perfect one (attack 9).

pub mod buildkite;
pub mod circleci;
pub mod client_key;
pub mod github;
pub mod gitlab;
pub mod issuer;
pub mod keys;
pub mod kinds;
pub mod kubernetes;
pub mod oidc;
pub mod refused;
mod shape;
pub mod token;
pub mod verify;

pub use client_key::{ClientKeys, NoClientKeys};
pub use issuer::{Alg, BadIssuer, IssuerConfig, Kind};
pub use kinds::RISKY_EVENTS;
pub use refused::CallerRefused;
pub use verify::{Burn, Caller, Issuers};

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod testkit;
