//! Why a key file was not made, or not opened.

use super::{
    MAX_METHODS, V,
    methods::{MAX_WORK_FACTOR, WORK_FACTOR},
    plugin::PluginError,
};
use crate::{
    vault::{keys::NotDerived, seal::Sealed, shares::HOLDERS_MAX},
    world::NoEntropy,
};
use proto::ids::PersonId;
use thiserror::Error;

/// Why no key file was made.
#[derive(Debug, Error)]
pub enum InitError {
    /// No random bytes.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Nothing could ever unseal it.
    #[error("name 1 to {MAX_METHODS} ways to unseal: a passphrase, an age identity or a plugin")]
    Methods,
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The work factor is out of range.
    #[error("the work factor must be 1 to {MAX_WORK_FACTOR}; {WORK_FACTOR} takes about a second")]
    WorkFactor,
    /// Nobody, too many, somebody twice, or more needed than there are.
    #[error("name 1 to {HOLDERS_MAX} admins, each once, and how many of them are needed")]
    Holders,
    /// Not a public key.
    #[error("recipient {0} is not an age public key (age1…, as age-keygen prints it)")]
    Recipient(usize),
    /// The vault is sealed, so there is nothing to wrap anew.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// The plugin wrapped nothing.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A library refused what it should take.
    #[error("the keys could not be wrapped")]
    Refused,
}

/// Why the vault stays sealed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UnsealError {
    /// The passphrase or identity is another one.
    #[error(
        "this does not unseal the vault: check the passphrase, or that the identity file belongs to this broker"
    )]
    WrongSecret,
    /// The identity's text has no identity in it.
    #[error("no age identity found: expected a line that begins with AGE-SECRET-KEY-1")]
    NotAnIdentity,
    /// The key file knows no such method.
    #[error("the key file has no {0} method; it can be unsealed by: {1}")]
    NoSuchMethod(&'static str, String),
    /// The plugin opened nothing.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// Another share than this admin was dealt.
    #[error("this is not the share of {0}: was it made for an earlier key file?")]
    WrongShare(PersonId),
    /// Not enough of them.
    #[error("{0} shares are needed")]
    TooFewShares(usize),
    /// It cannot be read.
    #[error("the key file is damaged; restore it from a backup")]
    Damaged,
    /// Written by a newer broker.
    #[error("the key file has format {0}, this broker reads format {V}; use a newer broker")]
    Newer(u32),
    /// It asks for too much work.
    #[error(
        "the key file asks for scrypt work factor {0}, at most {MAX_WORK_FACTOR} is allowed; restore it from a backup"
    )]
    TooSlow(u8),
    /// An admin's word came meanwhile.
    #[error("the vault was sealed meanwhile, and stays so")]
    SealedMeanwhile,
    /// The vault is open with other keys.
    #[error("the vault is open with another key file; seal it first")]
    OtherVault,
}

impl From<NotDerived> for InitError {
    fn from(_: NotDerived) -> Self {
        Self::Refused
    }
}

impl From<NotDerived> for UnsealError {
    fn from(_: NotDerived) -> Self {
        Self::Damaged
    }
}
