//! What a witness says to a checkpoint: C2SP tlog-cosignature, `cosignature/v1` (Ed25519, type 4 in a signed note).
//!
//! A witness remembers the largest tree that it saw of a log, and cosigns only what continues that. So whoever demands
//! cosignatures is shown no other log than everybody else, whatever the broker does. They say nothing of what stands in
//! the log.

use super::checkpoint::{
    NoteError, check_name, key_hash, read_vkey, signature_of, split_note, write_vkey,
};
use crate::{device::DevicePublic, time::UnixTime};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use std::{collections::BTreeSet, fmt, str::FromStr};
use thiserror::Error;

/// Ed25519 cosignatures in a signed note.
const ALGORITHM: u8 = 4;
/// Most bytes of what a witness answers: some keys' lines.
pub const REPLY_MAX: usize = 16 * 1024;

/// Why a key is none of a witness, or a checkpoint is not cosigned.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CosignError {
    /// Not `name+hash+key`, or the key of something else.
    #[error("is not a witness's key like name+1234abcd+BA… (Ed25519, type 04)")]
    Key,
    /// A key stands there twice: one witness would count as two.
    #[error("names a key that another one has too")]
    Twice,
    /// Not a signed note.
    #[error("is not a signed note")]
    Form,
    /// The witness has not cosigned it.
    #[error("{0} has not cosigned it")]
    Missing(String),
    /// A cosignature that does not hold.
    #[error("the cosignature of {0} does not hold")]
    Forged(String),
    /// Fewer than were demanded.
    #[error("{found} of {needed} witnesses have cosigned it; not by: {}", missing.join(", "))]
    TooFew {
        /// Valid ones.
        found: usize,
        /// Demanded ones.
        needed: usize,
        /// Who has not.
        missing: Vec<String>,
    },
}

impl From<NoteError> for CosignError {
    fn from(_: NoteError) -> Self {
        Self::Form
    }
}

/// A witness's public key with its name; written as a vkey: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    public: DevicePublic,
}

impl WitnessKey {
    /// From parts.
    pub fn new(name: &str, public: DevicePublic) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            public,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key.
    pub const fn public(&self) -> &DevicePublic {
        &self.public
    }

    fn hash(&self) -> [u8; 4] {
        key_hash(&self.name, ALGORITHM, &self.public)
    }

    /// When this witness said that it has seen this note's text, by its own clock. Other keys' lines are passed over; one of
    /// this key that does not hold refuses the note.
    pub fn cosigned(&self, note: &str) -> Result<UnixTime, CosignError> {
        let (text, lines) = split_note(note)?;
        self.first(text, lines).map(|(time, _)| time)
    }

    /// What a witness answered to this note: its own line, in the one spelling that there is. Other keys' are left out.
    pub fn taken(&self, note: &str, reply: &str) -> Result<(UnixTime, String), CosignError> {
        let (text, _) = split_note(note)?;
        let odd = |c: char| c.is_control() && c != '\n';
        if reply.len() > REPLY_MAX || reply.contains(odd) {
            return Err(CosignError::Form);
        }
        self.first(text, reply)
    }

    fn first(&self, text: &str, lines: &str) -> Result<(UnixTime, String), CosignError> {
        let mut first = None;
        for line in lines.lines() {
            let Some(data) = signature_of(line, &self.name, self.hash())? else {
                continue;
            };
            let time = self.signed_at(text, &data);
            let time = time.ok_or_else(|| CosignError::Forged(self.name.clone()))?;
            let line = [&self.hash()[..], &data].concat();
            let line = format!("\u{2014} {} {}\n", self.name, STANDARD.encode(line));
            first.get_or_insert((time, line));
        }
        first.ok_or_else(|| CosignError::Missing(self.name.clone()))
    }

    /// The time in a `timestamped_signature` that holds.
    fn signed_at(&self, text: &str, data: &[u8]) -> Option<UnixTime> {
        let (time, signature) = data.split_at_checked(8)?;
        let time = u64::from_be_bytes(time.try_into().ok()?);
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        let holds = self.public.verify(message.as_bytes(), signature);
        (holds && i64::try_from(time).is_ok()).then_some(UnixTime(time))
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_vkey(&self.name, ALGORITHM, &self.public))
    }
}

impl FromStr for WitnessKey {
    type Err = CosignError;
    fn from_str(s: &str) -> Result<Self, CosignError> {
        let (name, public) = read_vkey(s, ALGORITHM).map_err(|_| CosignError::Key)?;
        Self::new(name, public).map_err(|_| CosignError::Key)
    }
}

/// A cosignature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cosigned {
    /// The witness's name.
    pub witness: String,
    /// When, by the witness's clock: it had seen no larger tree of this log then.
    pub time: UnixTime,
}

/// Refuses a list in which one key would count twice: a cosignature does not say under which name it was made.
pub fn distinct<'a>(keys: impl IntoIterator<Item = &'a WitnessKey>) -> Result<(), CosignError> {
    let (mut names, mut publics) = (BTreeSet::new(), BTreeSet::new());
    let fresh = |key: &'a WitnessKey| names.insert(key.name.as_str()) && publics.insert(key.public);
    let all = keys.into_iter().all(fresh);
    all.then_some(()).ok_or(CosignError::Twice)
}

/// Demands that at least so many of these witnesses cosigned the note. One whose line does not hold refuses it, whatever
/// the others say.
pub fn demand(
    note: &str,
    witnesses: &[WitnessKey],
    needed: usize,
) -> Result<Vec<Cosigned>, CosignError> {
    distinct(witnesses)?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for witness in witnesses {
        match witness.cosigned(note) {
            Ok(time) => found.push(Cosigned {
                witness: witness.name.clone(),
                time,
            }),
            Err(CosignError::Missing(name)) => missing.push(name),
            Err(why) => return Err(why),
        }
    }
    if found.len() < needed {
        let found = found.len();
        return Err(CosignError::TooFew {
            found,
            needed,
            missing,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::DeviceKey, log::checkpoint::Checkpoint, log::merkle::leaf_hash};

    /// Made by another implementation (Python's cryptography), from the words of the specification.
    const VKEY: &str = "witness.example/w1+8832d1ae+BNVCB9oZSXfc9Grb/sK8LnW1LVqKQhhP7f3AACTw4+ja";
    const NOTE: &str = "broker.example/log\n7\nSBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=\n\n\
        \u{2014} broker.example/log jFqvKmGv5tIupwKv91M19tOqDC2VoVUptVAODkayCFNEAEBfBzL7V2CaS1gtxMP2mVtTV1qL5wAGFH2IcTVtuaaY8AU=\n";
    const LINE: &str = "\u{2014} witness.example/w1 iDLRrgAAAABkGFDLbpqXqc9Z2nMAPdVXxEpJ86S7U3MKXvyXNlEqMgeVi6mBTylEKCQnRgPRuwvkKxWy3drOaq3DyxZuDJX36dr/AA==\n";

    fn key() -> WitnessKey {
        VKEY.parse().unwrap()
    }

    fn by(seed: u8, name: &str) -> (DeviceKey, WitnessKey) {
        let key = DeviceKey::from_seed([seed; 32]).unwrap();
        let witness = WitnessKey::new(name, key.public()).unwrap();
        (key, witness)
    }

    fn line(key: &DeviceKey, of: &WitnessKey, text: &str, time: u64) -> String {
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        let signature = key.sign(message.as_bytes());
        let data = [&of.hash()[..], &time.to_be_bytes(), &signature].concat();
        format!("\u{2014} {} {}\n", of.name, STANDARD.encode(data))
    }

    #[test]
    fn a_key_and_a_cosignature_made_elsewhere_are_read() {
        assert_eq!(key().to_string(), VKEY);
        // A key that is in use by a public witness.
        let public = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        assert_eq!(public.parse::<WitnessKey>().unwrap().to_string(), public);
        let whole = format!("{NOTE}{LINE}");
        assert_eq!(key().cosigned(&whole), Ok(UnixTime(1_679_315_147)));
        let taken = (UnixTime(1_679_315_147), LINE.to_owned());
        assert_eq!(key().taken(NOTE, LINE), Ok(taken));
        let missing = CosignError::Missing("witness.example/w1".into());
        assert_eq!(key().cosigned(NOTE), Err(missing));
        for bad in [
            "",
            "witness.example/w1",
            // A log's key is no witness's, under whatever hash.
            "broker.example/log+8c5aaf2a+Af0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY",
            "witness.example/w1+8832d1af+BNVCB9oZSXfc9Grb/sK8LnW1LVqKQhhP7f3AACTw4+ja",
            "witness.example/w2+8832d1ae+BNVCB9oZSXfc9Grb/sK8LnW1LVqKQhhP7f3AACTw4+ja",
            "witness.example/w1+8832d1ae+BNVCB9oZSXfc9Grb",
        ] {
            assert_eq!(bad.parse::<WitnessKey>(), Err(CosignError::Key), "{bad}");
        }
    }

    #[test]
    fn attack_46_a_cosignature_with_any_bit_flipped_or_over_another_tree_is_none() {
        let whole = format!("{NOTE}{LINE}");
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else {
                    continue;
                };
                // The log's own line is another's; whatever is flipped in it, the witness's stays as good.
                let own = at > NOTE.find('\u{2014}').unwrap() && at < NOTE.len();
                assert!(own || key().cosigned(&text).is_err(), "{text}");
            }
        }
        let (log, witness) = (by(9, "broker.example/log").0, by(2, "w"));
        let point = |size, leaf: &[u8]| Checkpoint {
            origin: "broker.example/log".into(),
            size,
            root: leaf_hash(leaf),
        };
        let note = point(7, b"x").sign(&log).unwrap();
        let text = split_note(&note).unwrap().0.to_owned();
        let good = line(&witness.0, &witness.1, &text, 5);
        assert!(witness.1.taken(&note, &good).is_ok());
        let forged = CosignError::Forged("w".into());
        for other in [point(8, b"x"), point(7, b"y")] {
            let note = other.sign(&log).unwrap();
            assert_eq!(witness.1.taken(&note, &good), Err(forged.clone()));
            assert_eq!(
                witness.1.cosigned(&format!("{note}{good}")),
                Err(forged.clone())
            );
        }
        // Another key under this one's name and hash; a plain signature of the text; a time beyond what there is.
        let stranger = line(&by(3, "w").0, &witness.1, &text, 5);
        assert_eq!(witness.1.taken(&note, &stranger), Err(forged.clone()));
        let plain = [
            &witness.1.hash()[..],
            &[0; 8],
            &witness.0.sign(text.as_bytes()),
        ]
        .concat();
        let plain = format!("\u{2014} w {}\n", STANDARD.encode(plain));
        assert_eq!(witness.1.taken(&note, &plain), Err(forged.clone()));
        let late = line(&witness.0, &witness.1, &text, u64::MAX);
        assert_eq!(witness.1.taken(&note, &late), Err(forged));
        for junk in ["x", "\u{2014} w\n", "\u{2014} w !\n", "{}", "\u{1b}[2J\n"] {
            assert_eq!(
                witness.1.taken(&note, junk),
                Err(CosignError::Form),
                "{junk}"
            );
        }
        let long = good.repeat(REPLY_MAX / good.len() + 1);
        assert_eq!(witness.1.taken(&note, &long), Err(CosignError::Form));
    }

    #[test]
    fn attack_46_as_many_witnesses_as_demanded_and_one_key_counts_once() {
        let log = by(9, "broker.example/log").0;
        let point = Checkpoint {
            origin: "broker.example/log".into(),
            size: 7,
            root: leaf_hash(b"x"),
        };
        let mut note = point.sign(&log).unwrap();
        let text = split_note(&note).unwrap().0.to_owned();
        let all: Vec<_> = ["a", "b", "c"].into_iter().zip(2..).collect();
        let keys: Vec<_> = all.iter().map(|(name, seed)| by(*seed, name)).collect();
        for (key, witness) in keys.iter().take(2) {
            note.push_str(&line(key, witness, &text, 5));
        }
        let named: Vec<_> = keys.iter().map(|(_, witness)| witness.clone()).collect();
        let found = demand(&note, &named, 2).unwrap();
        let names: Vec<_> = found.iter().map(|c| c.witness.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let few = CosignError::TooFew {
            found: 2,
            needed: 3,
            missing: vec!["c".into()],
        };
        assert_eq!(demand(&note, &named, 3), Err(few));
        // The same key under another name would be a second witness.
        let twin = WitnessKey::new("d", *named[0].public()).unwrap();
        let two = [named[0].clone(), twin];
        assert_eq!(demand(&note, &two, 2), Err(CosignError::Twice));
        // One that does not hold is not outvoted.
        let (key, witness) = &keys[2];
        note.push_str(&line(key, witness, "other\n", 5));
        let forged = CosignError::Forged("c".into());
        assert_eq!(demand(&note, &named, 2), Err(forged));
    }
}
