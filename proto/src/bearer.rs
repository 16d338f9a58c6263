//! Bearer secrets: a prefix that a secret scanner can find, 256 random bits, a checksum.
//!
//! `cst_…` ticket, `csc_…` credential, `csg_…` guest token, `csi_…` invite. The broker stores and logs their SHA-256 only.

use aws_lc_rs::{constant_time, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::str::FromStr;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a bearer secret is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Wait for a request and collect it.
    Ticket,
    /// One publish of approved bytes, at the broker's own registry endpoint.
    Credential,
    /// Ask for a publish by uploading it, at the broker's own registry endpoint.
    Guest,
    /// Enrol one person's device, once.
    Invite,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Ticket => "cst_",
            Self::Credential => "csc_",
            Self::Guest => "csg_",
            Self::Invite => "csi_",
        }
    }
}

/// A bearer secret. It has no `Debug`, `Display`, `Clone` or `Serialize`; [`Bearer::expose`] is the one way out.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Bearer {
    #[zeroize(skip)]
    kind: Kind,
    bytes: [u8; 32],
}

/// A text that is no bearer secret. It does not repeat the text.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("is not a complete {0:?} (it may have been cut or mistyped)")]
pub struct BearerError(Kind);

impl Bearer {
    /// Makes one from 32 bytes of entropy.
    pub const fn from_entropy(kind: Kind, bytes: [u8; 32]) -> Self {
        Self { kind, bytes }
    }

    /// Reads one of the expected kind; the checksum finds cuts and typing errors early.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, BearerError> {
        let bad = BearerError(kind);
        let Some(body) = text.strip_prefix(kind.prefix()) else {
            return Err(bad);
        };
        let Ok(mut raw) = URL_SAFE_NO_PAD.decode(body) else {
            return Err(bad);
        };
        let mut bytes = [0; 32];
        let ok = raw.len() == 36 && {
            let (data, sum) = raw.split_at(32);
            bytes.copy_from_slice(data);
            constant_time::verify_slices_are_equal(sum, &checksum(kind, &bytes)).is_ok()
        };
        raw.zeroize();
        if ok {
            Ok(Self { kind, bytes })
        } else {
            Err(bad)
        }
    }

    /// The text to hand over.
    pub fn expose(&self) -> String {
        let mut raw = [0; 36];
        let (data, sum) = raw.split_at_mut(32);
        data.copy_from_slice(&self.bytes);
        sum.copy_from_slice(&checksum(self.kind, &self.bytes));
        let text = format!("{}{}", self.kind.prefix(), URL_SAFE_NO_PAD.encode(raw));
        raw.zeroize();
        text
    }

    /// SHA-256 over prefix and bytes: what is stored, looked up and logged.
    pub fn hash(&self) -> BearerHash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.kind.prefix().as_bytes());
        context.update(&self.bytes);
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        BearerHash(out)
    }
}

/// The hash of a bearer secret; public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BearerHash(pub [u8; 32]);

fn checksum(kind: Kind, bytes: &[u8; 32]) -> [u8; 4] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"countersign/checksum/v1");
    context.update(kind.prefix().as_bytes());
    context.update(bytes);
    let mut out = [0; 4];
    if let Some(head) = context.finish().as_ref().first_chunk::<4>() {
        out = *head;
    }
    out
}

impl FromStr for Kind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Ticket, Self::Credential, Self::Invite]
            .into_iter()
            .find(|k| text.starts_with(k.prefix()))
            .ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_single_character_change_is_noticed() {
        let t = Bearer::from_entropy(Kind::Ticket, [7; 32]);
        let text = t.expose();
        assert!(Bearer::parse(Kind::Ticket, &text).is_ok_and(|b| b.hash() == t.hash()));
        assert!(Bearer::parse(Kind::Credential, &text).is_err());
        for i in 4..text.len() {
            let mut other = text.clone().into_bytes();
            other[i] = if other[i] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(Bearer::parse(Kind::Ticket, &other).is_err(), "{i}");
        }
        assert!(Bearer::parse(Kind::Ticket, &text[..20]).is_err());
    }
}
