//! Digests that say which algorithm made them.

use aws_lc_rs::digest as lc;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// The algorithm of a [`Digest`]: the one the file's registry itself publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// PyPI, crates.io.
    Sha256,
    /// npm.
    Sha512,
}

impl Algorithm {
    /// Length of the digest in bytes.
    pub const fn width(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Name as written before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn lc(self) -> &'static lc::Algorithm {
        match self {
            Self::Sha256 => &lc::SHA256,
            Self::Sha512 => &lc::SHA512,
        }
    }
}

/// Writes a type of 32 bytes as 64 lower-case hex digits, and reads it so: for people and in JSON.
macro_rules! hex_text {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::digest::hex(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                $crate::digest::unhex(s)
                    .and_then(|b| <[u8; 32]>::try_from(b).ok())
                    .map(Self)
                    .ok_or("is not 64 lower-case hex digits")
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(s: String) -> Result<Self, Self::Error> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use hex_text;

/// A digest with its algorithm; written `sha512:<lower-case hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

/// Why a digest text was refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a digest like sha512:<128 hex digits> or sha256:<64 hex digits>")]
pub struct DigestError(String);

impl Digest {
    /// The digest of bytes at hand.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self {
            algorithm,
            bytes: lc::digest(algorithm.lc(), bytes).as_ref().to_vec(),
        }
    }

    /// Its algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Subresource-integrity form, `sha512-<base64>` (W3C SRI §3.1), as npm writes it.
    pub fn sri(&self) -> String {
        format!("{}-{}", self.algorithm.name(), STANDARD.encode(&self.bytes))
    }

    /// Reads a single subresource-integrity value.
    pub fn from_sri(text: &str) -> Result<Self, DigestError> {
        let bad = || DigestError(crate::text::harmless(text));
        let (algorithm, data) = text.split_once('-').ok_or_else(bad)?;
        let algorithm = algorithm_named(algorithm).ok_or_else(bad)?;
        let bytes = STANDARD.decode(data).map_err(|_| bad())?;
        (bytes.len() == algorithm.width())
            .then_some(Self { algorithm, bytes })
            .ok_or_else(bad)
    }
}

/// Computes a [`Digest`] over a stream.
pub struct Hasher {
    algorithm: Algorithm,
    context: lc::Context,
}

impl Hasher {
    /// Starts.
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            context: lc::Context::new(algorithm.lc()),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Ends.
    pub fn finish(self) -> Digest {
        Digest {
            algorithm: self.algorithm,
            bytes: self.context.finish().as_ref().to_vec(),
        }
    }
}

fn algorithm_named(name: &str) -> Option<Algorithm> {
    match name {
        "sha256" => Some(Algorithm::Sha256),
        "sha512" => Some(Algorithm::Sha512),
        _ => None,
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(digit(b >> 4));
        out.push(digit(b & 15));
    }
    out
}

/// Reads lower-case hex; anything else is `None`.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[hi, lo]| Some(nibble(*hi)? << 4 | nibble(*lo)?))
        .collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), hex(&self.bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(s: &str) -> Result<Self, DigestError> {
        let bad = || DigestError(crate::text::harmless(s));
        let (algorithm, data) = s.split_once(':').ok_or_else(bad)?;
        let algorithm = algorithm_named(algorithm).ok_or_else(bad)?;
        let bytes = unhex(data).ok_or_else(bad)?;
        (bytes.len() == algorithm.width())
            .then_some(Self { algorithm, bytes })
            .ok_or_else(bad)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(s: String) -> Result<Self, DigestError> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}
