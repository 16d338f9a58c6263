//! Who asks: a CI job's token becomes a [`Caller`], or is refused with a sentence that helps.
//!
//! Read [`verify`] first: it is the one place that makes a `Caller`, and its order of checks is the
//! story. [`token`] reads what nobody has verified yet, [`keys`] holds the issuers' public keys,
//! [`github`], [`oidc`] and [`client_key`] say what each kind of token means.
//!
//! What if an attacker writes here? Everything in a token is his until the signature has been
//! checked; no address is ever taken from it, and what is fetched comes from the configuration.
//! A key server can name keys for its own issuer and nothing else.
//!
//! A `Caller` says who asks. It authorises nothing: whoever holds a stolen repository-admin token can
//! get a perfect one (attack 9).

pub mod client_key;
pub mod github;
pub mod issuer;
pub mod keys;
pub mod oidc;
pub mod refused;
pub mod token;
pub mod verify;

pub use client_key::{ClientKeys, NoClientKeys};
pub use issuer::{Alg, BadIssuer, IssuerConfig, Kind};
pub use refused::CallerRefused;
pub use verify::{Burn, Caller, Issuers};

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod testkit;
