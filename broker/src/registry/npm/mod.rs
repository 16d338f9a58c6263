//! npm's protocol, as npm, pnpm and Yarn speak it.
//!
//! [`read`] parses the body of `PUT /{package}` into a [`super::Publish`]; [`Upstream`] rebuilds it
//! for the registry and reads the registry back. Nothing of what the client sent is copied as it
//! stood, except the archive's bytes and the provenance bundle's text.

mod attestation;
mod body;
mod document;
mod json;
mod manifest;
mod names;
mod packument;
mod pieces;
mod tarball;
mod upstream;

pub mod name;

pub use document::{DocumentError, read};
pub use json::JsonError;
pub use manifest::Disagreement;
pub use names::NamesError;
pub use packument::{Published, ReadBack};
pub use tarball::TarballError;
pub use upstream::{BaseError, ReadError, Sent, Timeouts, Upstream, shown};

#[cfg(test)]
mod samples;
