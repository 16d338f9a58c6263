//! Other doors to a package: what a registry's API says about who else can publish it.
//!
//! The broker guards one door. Each adapter asks what can be asked at the configured address, and says
//! plainly what could not: silence is never "all clear".

use super::ReadError;
use proto::text;
use serde::de::DeserializeOwned;

/// Longest name that is kept of what a registry says, in characters.
const NAME_MAX: usize = 100;
/// Most names of one kind.
const NAMES_MAX: usize = 50;

/// Another door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// The registry believes a forge's own id tokens: whoever rules that repository publishes.
    TrustedPublisher(String),
    /// The newest release came in by a forge's id token.
    PublishedByForge(String),
    /// These accounts can publish.
    Owners(Vec<String>),
    /// A team of a forge can publish; who rules the organisation adds himself.
    Team(String),
    /// The registry takes trusted publishers alone: the broker's token is of no use.
    TokensShut,
}

/// What was found, and what could not be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Doors.
    pub found: Vec<Door>,
    /// Questions that the registry answered.
    pub asked: Vec<&'static str>,
    /// Questions that it did not, and why.
    pub unasked: Vec<(&'static str, String)>,
}

impl Doors {
    /// Takes the answer to one question.
    pub(super) fn answer(&mut self, question: &'static str, answer: Result<Vec<Door>, ReadError>) {
        match answer {
            Ok(doors) => {
                self.asked.push(question);
                self.found.extend(doors);
            }
            Err(ReadError::Status(401 | 403)) => {
                let why = "the registry asks for more rights than the broker's token has";
                self.unasked.push((question, why.to_owned()));
            }
            Err(why) => self.unasked.push((question, why.to_string())),
        }
    }
}

/// Reads an answer about what not every registry has: where there is no such page there is none of it.
pub(super) fn or_none(
    answer: Result<Vec<u8>, ReadError>,
    read: impl FnOnce(&[u8]) -> Result<Vec<Door>, ReadError>,
) -> Result<Vec<Door>, ReadError> {
    match answer {
        Err(ReadError::Status(404)) => Ok(Vec::new()),
        other => other.and_then(|bytes| read(&bytes)),
    }
}

/// Reads an answer of JSON.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|_| ReadError::NotUnderstood)
}

/// Names that a registry says, in a form that may be shown.
pub(super) fn names(all: impl IntoIterator<Item = String>) -> Vec<String> {
    all.into_iter().take(NAMES_MAX).map(|n| name(&n)).collect()
}

/// One name.
pub(super) fn name(text: &str) -> String {
    text::harmless(&text.chars().take(NAME_MAX).collect::<String>())
}
