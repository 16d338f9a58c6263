//! A registry's own second factor, handed over to people: some registries want one of their own account
//! holders to say yes on a page of theirs before anything is published. The broker shows that page's
//! address to those who approve, asks how it came out, and repeats the publish with what it was given.
//!
//! A page's address is the registry's text. It is shown only when it lies on an origin that the
//! configuration names, and the outcome is asked for at the registry's own origin and without the token:
//! else a registry's answer could lead people, or our requests, anywhere (attack 39).

use super::{BoxFuture, Publish, ReadError, Sent};
use crate::secret::Secret;
use proto::{digest::Digest, ids::PackageName};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use thiserror::Error;
use url::Url;

/// Longest address that is taken from a registry, in bytes.
const URL_MAX: usize = 2048;
/// Longest factor, in bytes.
const FACTOR_MAX: usize = 256;
/// Shortest and longest pause between two questions how it came out.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a registry asks for before it publishes.
#[derive(Clone, PartialEq, Eq)]
pub struct FactorAsk {
    /// The page where a person gives it, on an origin that the configuration names.
    pub show: Url,
    /// Where the outcome is asked for, at the registry's own origin. Whoever asks there gets the factor:
    /// it is kept in memory and never shown.
    pub poll: Url,
    /// How long the page can be answered, where the registry does not say when it is over.
    pub life: Option<Duration>,
}

impl fmt::Debug for FactorAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FactorAsk")
            .field("show", &self.show.as_str())
            .finish_non_exhaustive()
    }
}

/// How the asking stands.
pub enum FactorSaid {
    /// Nobody has given it; ask again after this pause.
    NotYet(Duration),
    /// Given: what the repeated publish must carry.
    Given(Secret<String>),
    /// The page is over: the publish must be asked for again.
    Over,
}

/// Why what a registry asks for is not passed on to people.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotShown {
    /// Not an address, or one with a user, or over plain HTTP.
    #[error("it names no usable address for its second factor")]
    Address,
    /// An origin that nobody configured.
    #[error(
        "it names a page at {0} for its second factor, an origin that the configuration does not know (key `factor_origins`)"
    )]
    Origin(String),
    /// The outcome would be asked for elsewhere.
    #[error(
        "it wants to be asked at {0} how its second factor came out, which is not its own origin"
    )]
    Elsewhere(String),
}

impl FactorAsk {
    /// From a registry's own words: `base` is its configured address, `origins` are those where its
    /// people may be sent.
    pub fn from_words(
        show: &str,
        poll: &str,
        base: &Url,
        origins: &[Url],
    ) -> Result<Self, NotShown> {
        let (show, poll) = (address(show)?, address(poll)?);
        if poll.origin() != base.origin() {
            return Err(NotShown::Elsewhere(poll.origin().ascii_serialization()));
        }
        let mut known = std::iter::once(base).chain(origins);
        if !known.any(|o| o.origin() == show.origin()) {
            return Err(NotShown::Origin(show.origin().ascii_serialization()));
        }
        Ok(Self {
            show,
            poll,
            life: None,
        })
    }

    /// The page is over after so long, whatever the registry says of it.
    #[must_use]
    pub fn for_at_most(self, life: Duration) -> Self {
        Self {
            life: Some(life),
            ..self
        }
    }
}

/// An address in its one spelling: nothing in it can repaint a terminal or hide its host.
fn address(text: &str) -> Result<Url, NotShown> {
    let url: Url = match text.len() {
        0..=URL_MAX => text.parse().map_err(|_| NotShown::Address)?,
        _ => return Err(NotShown::Address),
    };
    let plain = ["http", "https"].contains(&url.scheme())
        && url.username().is_empty()
        && url.password().is_none()
        && url.as_str().bytes().all(|b| b.is_ascii_graphic());
    plain.then_some(url).ok_or(NotShown::Address)
}

/// A factor as it may stand in a header.
pub(super) fn factor(text: &str) -> Option<Secret<String>> {
    let good = (1..=FACTOR_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| Secret::new(text.to_owned()))
}

/// The pause that a registry asks for, within bounds.
pub(super) fn pause(seconds: Option<u64>) -> Duration {
    let wished = seconds.map_or(Duration::from_secs(3), Duration::from_secs);
    wished.clamp(PAUSE.0, PAUSE.1)
}

/// A registry whose second factor can be handed over.
pub trait SecondFactor: Send + Sync {
    /// How it came out. Asked without the token, where the protocol allows.
    fn outcome<'a>(
        &'a self,
        ask: &'a FactorAsk,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<FactorSaid, ReadError>>;

    /// The publish again, with the factor that was given.
    fn publish_with<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        factor: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent>;
}

/// A registry that keeps a publish aside until one of its own people approves it: a **stage**.
pub trait Staging: Send + Sync {
    /// The stages that the token may see: of a package, or all.
    fn list<'a>(
        &'a self,
        package: Option<&'a PackageName>,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Vec<Staged>, ReadError>>;

    /// One stage, its archive downloaded and hashed; `None` when there is none (any more).
    fn inspect<'a>(
        &'a self,
        stage: &'a StageId,
        token: &'a Secret<String>,
        most: u64,
    ) -> BoxFuture<'a, Result<Option<Inspected>, ReadError>>;

    /// Publishes a stage.
    fn approve<'a>(
        &'a self,
        stage: &'a StageId,
        token: &'a Secret<String>,
        factor: Option<&'a Secret<String>>,
        within: Duration,
    ) -> BoxFuture<'a, Sent>;
}

/// A registry's name for a stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StageId(String);

/// A text that names no stage.
#[derive(Debug, Error)]
#[error("a stage's id has 1 to 64 letters, digits and dashes")]
pub struct NotAStage;

impl FromStr for StageId {
    type Err = NotAStage;
    /// It becomes part of an address: nothing in it may lead to another one (attack 40).
    fn from_str(text: &str) -> Result<Self, NotAStage> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        good.then(|| Self(text.to_owned())).ok_or(NotAStage)
    }
}

impl TryFrom<String> for StageId {
    type Error = NotAStage;
    fn try_from(text: String) -> Result<Self, NotAStage> {
        text.parse()
    }
}

impl From<StageId> for String {
    fn from(id: StageId) -> Self {
        id.0
    }
}

impl StageId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a registry says of a stage, made harmless for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its id.
    pub id: StageId,
    /// The package's name.
    pub package: String,
    /// The version.
    pub version: String,
    /// The tag that will point to it.
    pub tag: String,
    /// Who staged it.
    pub actor: String,
    /// When, in the registry's words.
    pub created: String,
}

/// A stage with the digest of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What the registry says of it.
    pub staged: Staged,
    /// The archive's digest, computed here over the downloaded bytes.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_39_a_second_factor_leads_nowhere_but_where_the_configuration_says() {
        let base: Url = "https://registry.example/npm/".parse().unwrap();
        let origins = ["https://www.example".parse().unwrap()];
        let ask = |show: &str, poll: &str| FactorAsk::from_words(show, poll, &base, &origins);
        let poll = "https://registry.example/-/v1/done?id=1";
        for good in ["https://www.example/auth/1", "https://registry.example/a"] {
            assert_eq!(ask(good, poll).unwrap().show.as_str(), good);
        }
        for bad in [
            "https://www.example.evil/auth",
            "https://evil/auth",
            "http://www.example/auth",
            "https://www.example:444/auth",
        ] {
            assert!(matches!(ask(bad, poll), Err(NotShown::Origin(_))), "{bad}");
        }
        for bad in [
            "",
            "auth",
            "javascript:alert(1)",
            "https://a@www.example/",
            "https://www.example@evil/auth",
            "data:text/html,x",
        ] {
            let got = ask(bad, poll);
            assert_eq!(got, Err(NotShown::Address), "{bad}");
        }
        let long = format!("https://www.example/{}", "a".repeat(3000));
        assert_eq!(ask(&long, poll), Err(NotShown::Address));
        for bad in [
            "https://www.example/-/v1/done",
            "https://evil/done",
            "http://registry.example/done",
        ] {
            let got = ask("https://www.example/a", bad);
            assert!(matches!(got, Err(NotShown::Elsewhere(_))), "{bad}");
        }
    }

    #[test]
    fn a_stage_and_a_factor_have_nothing_that_could_be_another_address_or_header() {
        assert!(
            "2b1b0ee6-8f8e-4f2c-9f6e-3f0d8a1c9f11"
                .parse::<StageId>()
                .is_ok()
        );
        for bad in ["", "..", "a/b", "a%2fb", "a?b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<StageId>().is_err(), "{bad}");
        }
        assert!(factor("1234567890123456").is_some());
        for bad in ["", "a b", "a\r\nx: y", &"1".repeat(257)] {
            assert!(factor(bad).is_none(), "{bad}");
        }
        assert_eq!(pause(Some(0)), PAUSE.0);
        assert_eq!(pause(Some(u64::MAX)), PAUSE.1);
    }
}
