//! A log's root, signed: C2SP tlog-checkpoint in a C2SP signed-note (Ed25519, algorithm byte 1).

use super::merkle::TreeHash;
use crate::{
    device::{DeviceKey, DevicePublic},
    digest::{hex, unhex},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Longest note that is read, in bytes.
pub const NOTE_MAX: usize = 64 * 1024;
/// Ed25519 in a signed note.
const ALGORITHM: u8 = 1;

/// Why a key or a checkpoint was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// The key's name is empty or has white space or a plus sign.
    #[error("a log's name must not be empty nor have white space or '+'")]
    Name,
    /// Not `name+hash+key`.
    #[error("is not a verification key like name+1234abcd+AR…")]
    Key,
    /// Not a signed note.
    #[error("is not a signed note")]
    Form,
    /// Its text is not a checkpoint.
    #[error("its text is not a checkpoint")]
    Checkpoint,
    /// Another log's.
    #[error("it is the checkpoint of another log")]
    Origin,
    /// No signature of this key.
    #[error("it is not signed by the log's key")]
    Unsigned,
    /// A signature of this key that does not hold.
    #[error("the log's signature does not hold")]
    Signature,
}

/// A log's public key with its name; written as a vkey: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    public: DevicePublic,
}

impl LogKey {
    /// From parts.
    pub fn new(name: &str, public: DevicePublic) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            public,
        })
    }

    /// Its name, which is the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key.
    pub const fn public(&self) -> &DevicePublic {
        &self.public
    }

    /// The key hash: it tells keys apart; it proves nothing.
    pub fn hash(&self) -> [u8; 4] {
        key_hash(&self.name, ALGORITHM, &self.public)
    }
}

/// Whether a key of a signed note may have this name.
pub(super) fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 255 || name.contains(bad) {
        return Err(NoteError::Name);
    }
    Ok(())
}

fn typed(algorithm: u8, public: &DevicePublic) -> Vec<u8> {
    let mut bytes = vec![algorithm];
    bytes.extend_from_slice(&public.0);
    bytes
}

/// The hash of a key of this signature type (C2SP signed-note).
pub(super) fn key_hash(name: &str, algorithm: u8, public: &DevicePublic) -> [u8; 4] {
    let mut text = name.as_bytes().to_vec();
    text.push(b'\n');
    text.extend(typed(algorithm, public));
    let mut out = [0; 4];
    for (o, b) in out.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
        *o = *b;
    }
    out
}

/// A key of this signature type as a vkey.
pub(super) fn write_vkey(name: &str, algorithm: u8, public: &DevicePublic) -> String {
    let key = STANDARD.encode(typed(algorithm, public));
    format!("{name}+{}+{key}", hex(&key_hash(name, algorithm, public)))
}

/// Reads a vkey of this signature type.
pub(super) fn read_vkey(s: &str, algorithm: u8) -> Result<(&str, DevicePublic), NoteError> {
    let mut parts = s.splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
    let (kind, public) = bytes.split_first().ok_or(NoteError::Key)?;
    let public = <[u8; 32]>::try_from(public).map_err(|_| NoteError::Key)?;
    let public = DevicePublic(public);
    check_name(name)?;
    let fits = unhex(hash).as_deref() == Some(&key_hash(name, algorithm, &public));
    if *kind != algorithm || !fits {
        return Err(NoteError::Key);
    }
    Ok((name, public))
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_vkey(&self.name, ALGORITHM, &self.public))
    }
}

impl FromStr for LogKey {
    type Err = NoteError;
    fn from_str(s: &str) -> Result<Self, NoteError> {
        let (name, public) = read_vkey(s, ALGORITHM)?;
        Self::new(name, public)
    }
}

/// Signs a note's text, which ends with a line feed, under the key's name.
pub fn sign_note(text: &str, name: &str, key: &DeviceKey) -> Result<String, NoteError> {
    let public = LogKey::new(name, key.public())?;
    if !text.ends_with('\n') || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Form);
    }
    let mut signature = public.hash().to_vec();
    signature.extend(key.sign(text.as_bytes()));
    Ok(format!(
        "{text}\n\u{2014} {name} {}\n",
        STANDARD.encode(signature)
    ))
}

/// Splits a note into its text (line feed included) and its signature lines.
pub(super) fn split_note(note: &str) -> Result<(&str, &str), NoteError> {
    let bad = |c: char| c.is_control() && c != '\n';
    if note.len() > NOTE_MAX || note.contains(bad) {
        return Err(NoteError::Form);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Form)?;
    let (text, rest) = note.split_at(at + 1);
    let signatures = rest.get(1..).unwrap_or_default();
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(NoteError::Form);
    }
    Ok((text, signatures))
}

/// What a signature line says behind the key's hash, if it is this key's.
pub(super) fn signature_of(
    line: &str,
    name: &str,
    hash: [u8; 4],
) -> Result<Option<Vec<u8>>, NoteError> {
    let line = line.strip_prefix("\u{2014} ").ok_or(NoteError::Form)?;
    let (of, data) = line.split_once(' ').ok_or(NoteError::Form)?;
    let data = STANDARD.decode(data).map_err(|_| NoteError::Form)?;
    let (found, signature) = data.split_at_checked(4).ok_or(NoteError::Form)?;
    Ok((of == name && found == hash).then(|| signature.to_vec()))
}

/// The text of a note that this key signed. Other keys' signatures (witnesses) are passed over;
/// one of this key that does not hold refuses the whole note.
pub fn open_note<'a>(note: &'a str, key: &LogKey) -> Result<&'a str, NoteError> {
    let (text, signatures) = split_note(note)?;
    let mut signed = false;
    for line in signatures.lines() {
        let Some(signature) = signature_of(line, &key.name, key.hash())? else {
            continue;
        };
        if !key.public.verify(text.as_bytes(), &signature) {
            return Err(NoteError::Signature);
        }
        signed = true;
    }
    signed.then_some(text).ok_or(NoteError::Unsigned)
}

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: TreeHash,
}

impl Checkpoint {
    /// The signed note.
    pub fn sign(&self, key: &DeviceKey) -> Result<String, NoteError> {
        let root = STANDARD.encode(self.root.0);
        let text = format!("{}\n{}\n{root}\n", self.origin, self.size);
        sign_note(&text, &self.origin, key)
    }

    /// Reads a checkpoint that this key signed, of the log that has the key's name.
    pub fn open(note: &str, key: &LogKey) -> Result<Self, NoteError> {
        let checkpoint = Self::parse(open_note(note, key)?)?;
        // A key that signs for two logs must not lend one log's root to the other.
        if checkpoint.origin != key.name {
            return Err(NoteError::Origin);
        }
        Ok(checkpoint)
    }

    /// Reads what a note claims, without looking at its signatures.
    pub fn read_unverified(note: &str) -> Result<Self, NoteError> {
        Self::parse(split_note(note)?.0)
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Checkpoint);
        };
        let number: u64 = size.parse().map_err(|_| NoteError::Checkpoint)?;
        let root = STANDARD.decode(root).map_err(|_| NoteError::Checkpoint)?;
        let root = <[u8; 32]>::try_from(root).map_err(|_| NoteError::Checkpoint)?;
        // One spelling only: no sign, no leading zero.
        if origin.is_empty() || number.to_string() != size {
            return Err(NoteError::Checkpoint);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root: TreeHash(root),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::merkle::leaf_hash;

    fn key() -> DeviceKey {
        DeviceKey::from_seed([9; 32]).unwrap()
    }

    #[test]
    fn the_note_of_the_go_reference_verifies() {
        // The example of golang.org/x/mod/sumdb/note.
        let key: LogKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
            .parse()
            .unwrap();
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FF\
             YC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(open_note(&note, &key), Ok(text));
        assert_eq!(
            open_note(&note.replace("answer", "Answer"), &key),
            Err(NoteError::Signature)
        );
    }

    #[test]
    fn attack_46_a_checkpoint_with_any_bit_flipped_is_refused() {
        let vkey = LogKey::new("broker.example/log", key().public()).unwrap();
        assert_eq!(vkey.to_string().parse(), Ok(vkey.clone()));
        let point = Checkpoint {
            origin: vkey.name().to_owned(),
            size: 7,
            root: leaf_hash(b"x"),
        };
        let note = point.sign(&key()).unwrap();
        assert_eq!(Checkpoint::open(&note, &vkey), Ok(point.clone()));
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(Checkpoint::open(&text, &vkey).is_err(), "{text}");
                }
            }
        }
        let other = LogKey::new("other.example/log", key().public()).unwrap();
        assert_eq!(Checkpoint::open(&note, &other), Err(NoteError::Unsigned));
        // The key's own signature under another log's root.
        let text = format!("other.example/log\n7\n{}\n", STANDARD.encode([0; 32]));
        let lent = sign_note(&text, vkey.name(), &key()).unwrap();
        assert_eq!(Checkpoint::open(&lent, &vkey), Err(NoteError::Origin));
    }
}
