//! Narrows an API token of the index without asking the index: its tokens are macaroons, and whoever holds
//! one can add a caveat, and nobody can take one away.
//!
//! Format: libmacaroons' binary version 2, base64url without padding, behind `pypi-`. Caveats are JSON arrays
//! whose first member says which kind they are. The vectors are made by two reference libraries
//! (`tests/parts/macaroon-vectors.py`).

use super::project::ProjectId;
use crate::{registry::Life, secret::Secret};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::ids::PackageName;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// What a token of the index begins with.
const PREFIX: &str = "pypi-";
/// Longest token that is read, in bytes of text.
const MAX_TOKEN: usize = 16 << 10;
/// The format's version.
const VERSION: u8 = 2;
/// Kinds of fields.
const END: u8 = 0;
const LOCATION: u8 = 1;
const IDENTIFIER: u8 = 2;
const SIGNATURE: u8 = 6;
/// Length of a signature (HMAC-SHA256).
const SIGNATURE_LENGTH: usize = 32;

/// Why a token cannot be narrowed. Says nothing of the token.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MacaroonError {
    /// Not a token of this kind of index.
    #[error("the stored token is no macaroon (pypi-…), so that it cannot be narrowed")]
    NotAMacaroon,
    /// One, but not of the form that the index writes.
    #[error("the stored token is a macaroon of an unknown form")]
    Form,
}

/// What narrows a token. Several must all hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caveat<'a> {
    /// Uploads to the project of this name alone, whether it exists or not.
    Project(&'a PackageName),
    /// Uploads to the project of this id alone.
    ProjectId(&'a ProjectId),
    /// Uploads in this time alone. The index allows no leeway.
    Life(Life),
    #[cfg(test)]
    Raw(&'a str),
}

impl Caveat<'_> {
    fn text(self) -> String {
        match self {
            // A project's name needs no escape in JSON: it was parsed.
            Self::Project(name) => format!("[1,[\"{name}\"]]"),
            // Nor does an id.
            Self::ProjectId(id) => format!("[2,[\"{}\"]]", id.as_str()),
            Self::Life(Life { from, until }) => format!("[0,{},{}]", until.0, from.0),
            #[cfg(test)]
            Self::Raw(text) => text.to_owned(),
        }
    }
}

/// The same token with more caveats.
pub(super) fn narrow(
    token: &Secret<String>,
    caveats: &[Caveat<'_>],
) -> Result<Secret<String>, MacaroonError> {
    let text = token.expose();
    let encoded = text
        .strip_prefix(PREFIX)
        .filter(|_| text.len() <= MAX_TOKEN)
        .ok_or(MacaroonError::NotAMacaroon)?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded);
    let mut bytes = Zeroizing::new(bytes.map_err(|_| MacaroonError::NotAMacaroon)?);
    check(&bytes).ok_or(MacaroonError::Form)?;
    // The end of the caveats, and the signature's field.
    let tail = 1 + 2 + SIGNATURE_LENGTH;
    let head = bytes.len().checked_sub(tail).ok_or(MacaroonError::Form)?;
    let mut signature = Zeroizing::new([0; SIGNATURE_LENGTH]);
    let last = bytes.last_chunk::<SIGNATURE_LENGTH>();
    signature.copy_from_slice(last.ok_or(MacaroonError::Form)?);
    bytes.truncate(head);
    for caveat in caveats {
        let caveat = caveat.text();
        bytes.push(IDENTIFIER);
        push_length(&mut bytes, caveat.len());
        bytes.extend_from_slice(caveat.as_bytes());
        bytes.push(END);
        let key = hmac::Key::new(hmac::HMAC_SHA256, signature.as_slice());
        signature.copy_from_slice(hmac::sign(&key, caveat.as_bytes()).as_ref());
    }
    bytes.extend_from_slice(&[END, SIGNATURE, 32]);
    bytes.extend_from_slice(signature.as_slice());
    let mut encoded = URL_SAFE_NO_PAD.encode(bytes.as_slice());
    let narrowed = Secret::new(format!("{PREFIX}{encoded}"));
    encoded.zeroize();
    Ok(narrowed)
}

/// Whether these are version, location, identifier, end, caveats of the index's own, end, signature, and
/// nothing else. Another order would put what is added where nobody looks.
fn check(bytes: &[u8]) -> Option<()> {
    let mut fields = Fields(bytes);
    (fields.byte()? == VERSION).then_some(())?;
    fields.field(LOCATION)?;
    fields.field(IDENTIFIER)?;
    (fields.byte()? == END).then_some(())?;
    while *fields.0.first()? != END {
        fields.field(IDENTIFIER)?;
        (fields.byte()? == END).then_some(())?;
    }
    fields.byte()?;
    let signature = fields.field(SIGNATURE)?;
    (signature.len() == SIGNATURE_LENGTH && fields.0.is_empty()).then_some(())
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A field of this kind: the kind, the length (LEB128), the data.
    fn field(&mut self, kind: u8) -> Option<&'a [u8]> {
        (self.byte()? == kind).then_some(())?;
        let mut length = 0usize;
        // Two bytes are enough for every length within a token.
        for shift in [0, 7] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let (data, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                return Some(data);
            }
        }
        None
    }
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    let mut left = length;
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or(0);
        left >>= 7;
        if left == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::time::UnixTime;

    #[derive(serde::Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        token: String,
        add: Vec<String>,
        narrowed: String,
    }

    fn vectors() -> Vec<Vector> {
        let text = include_str!("macaroon_vectors.json");
        serde_json::from_str::<Vectors>(text).unwrap().vectors
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn tokens_are_narrowed_as_the_reference_libraries_do() {
        let vectors = vectors();
        assert!(vectors.len() >= 4);
        for v in &vectors {
            let caveats: Vec<_> = v.add.iter().map(|c| Caveat::Raw(c)).collect();
            let ours = narrow(&secret(&v.token), &caveats).unwrap();
            assert_eq!(*ours.expose(), v.narrowed, "{}", v.name);
        }
        // The caveat that we write is the one of the vectors.
        let name = "acme-demo".parse().unwrap();
        assert_eq!(Caveat::Project(&name).text(), vectors[0].add[1]);
        let life = Life {
            from: UnixTime(1_799_999_640),
            until: UnixTime(1_800_000_000),
        };
        assert_eq!(Caveat::Life(life).text(), vectors[0].add[0]);
        let id = "0b6cf8a4-5a1d-4d4e-8f57-2f2f0b3f9d10".to_owned();
        let id = id.try_into().unwrap();
        let by_id = vectors.iter().find(|v| v.name.contains("and by its id"));
        assert_eq!(Caveat::ProjectId(&id).text(), by_id.unwrap().add[2]);
    }

    #[test]
    fn attack_38_what_is_no_plain_macaroon_is_not_narrowed() {
        type Change = fn(&mut Vec<u8>);
        let good = vectors().remove(0).token;
        let bytes = URL_SAFE_NO_PAD.decode(&good[PREFIX.len()..]).unwrap();
        let with = |change: Change| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
            narrow(&secret(&text), &[]).err()
        };
        assert_eq!(with(|_| {}), None);
        let cases: [(&str, Change); 9] = [
            ("another version", |b| b[0] = 1),
            ("no location", |b| b[1] = 2),
            ("a location that is too long", |b| b[2] = 0x7f),
            ("cut", |b| {
                b.pop();
            }),
            ("a byte more", |b| b.push(0)),
            ("a signature of another length", |b| {
                let at = b.len() - 33;
                b[at] = 31;
            }),
            ("another kind at the end", |b| {
                let at = b.len() - 34;
                b[at] = 5;
            }),
            ("a caveat of somebody else's", |b| {
                let at = b.len() - 35;
                b.splice(at..at, *b"\x02\x01x\x04\x01y\0");
            }),
            ("nothing", Vec::clear),
        ];
        for (what, change) in cases {
            assert_eq!(with(change), Some(MacaroonError::Form), "{what}");
        }
        for other in ["", "pypi-", "pypi-!", "npm_x", "devpi-AgEN", &good[5..]] {
            assert!(narrow(&secret(other), &[]).is_err(), "{other:?}");
        }
        assert!(narrow(&secret(&format!("pypi-{}", "A".repeat(20_000))), &[]).is_err());
    }
}
