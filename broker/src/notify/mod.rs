//! Notifications: that something waits, told to a person's phone or team. A channel may fail; it never
//! decides anything, and what it carries gives no power (attack 34).
//!
//! One file and one row a channel: it judges what a person gives, and writes the one POST that tells. The
//! POST leaves through [`egress`] alone. [`note`] is all that can be told, [`quiet`] when it is not.
//!
//! If an attacker writes here, or reads what leaves: he rings, or nobody is rung. Who waits finds the request
//! in the inbox all the same.

pub mod egress;
pub mod note;
mod ntfy;
pub mod quiet;
mod webhook;
mod webpush;

pub use note::{About, Note};
pub use webpush::{NotMade, Vapid};

use crate::world::World;
use egress::Post;
use proto::{
    notify::{AddChannel, ChannelKind},
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest address, in bytes.
const URL_MAX: usize = 1000;
/// Longest name that a person gives, in bytes.
const NAME_MAX: usize = 60;

/// A person's channel, as it lies sealed in the store.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Channel {
    /// How it travels.
    #[zeroize(skip)]
    pub kind: ChannelKind,
    /// What the person calls it.
    pub name: String,
    /// When it was added.
    #[zeroize(skip)]
    pub added: UnixTime,
    /// Where to post to; who knows it may be able to ring.
    pub url: String,
    /// Access token, signing secret or shared secret.
    pub secret: Option<String>,
    /// The browser's public key.
    pub key: Option<String>,
}

/// What a channel may use to write its POST.
pub struct Pen<'a> {
    /// What is told.
    pub note: &'a Note,
    /// The broker's identity at push services.
    pub vapid: &'a Vapid,
    /// Whom a push service's operator writes to.
    pub contact: &'a str,
    /// Entropy.
    pub world: &'a World,
    /// Now.
    pub now: UnixTime,
}

/// Why a channel is not taken, or cannot be written to.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Unusable {
    fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// One kind of channel.
pub struct Row {
    /// Which.
    pub kind: ChannelKind,
    /// Judges a channel that a person gives.
    pub judge: fn(&Channel) -> Result<(), Unusable>,
    /// Writes the POST that tells.
    pub post: fn(&Channel, &Pen<'_>) -> Result<Post, Unusable>,
}

/// All kinds.
pub const KINDS: [Row; 3] = [webpush::ROW, ntfy::ROW, webhook::ROW];

impl Channel {
    /// Takes what a person gives. A webhook's secret is made here, from `random`.
    pub fn take(given: &AddChannel, random: &[u8; 32], now: UnixTime) -> Result<Self, Unusable> {
        let channel = match given {
            AddChannel::WebPush {
                endpoint,
                p256dh,
                auth,
                name,
            } => Self {
                kind: ChannelKind::WebPush,
                name: name.clone(),
                added: now,
                url: endpoint.clone(),
                secret: Some(auth.clone()),
                key: Some(p256dh.clone()),
            },
            AddChannel::Ntfy { url, token, name } => Self {
                kind: ChannelKind::Ntfy,
                name: name.clone(),
                added: now,
                url: url.clone(),
                secret: token.clone(),
                key: None,
            },
            AddChannel::Webhook { url, name } => Self {
                kind: ChannelKind::Webhook,
                name: name.clone(),
                added: now,
                url: url.clone(),
                secret: Some(webhook::secret(random)),
                key: None,
            },
        };
        text::check(&channel.name, NAME_MAX).map_err(|e| Unusable(format!("the name {e}")))?;
        text::check(&channel.url, URL_MAX).map_err(|e| Unusable(format!("the address {e}")))?;
        let url = channel.address()?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(Unusable::new(
                "the address has no user, password or fragment",
            ));
        }
        (channel.row()?.judge)(&channel)?;
        Ok(channel)
    }

    /// Whether both are the same subscription of one browser.
    pub fn is_subscription_of(&self, other: &Self) -> bool {
        let subscribed = |c: &Self| c.kind == ChannelKind::WebPush;
        subscribed(self)
            && subscribed(other)
            && (&self.url, &self.secret, &self.key) == (&other.url, &other.secret, &other.key)
    }

    /// Its address.
    pub fn address(&self) -> Result<Url, Unusable> {
        Url::parse(&self.url).map_err(|_| Unusable::new("the address is no URL"))
    }

    /// The POST that tells.
    pub fn post(&self, pen: &Pen<'_>) -> Result<Post, Unusable> {
        (self.row()?.post)(self, pen)
    }

    fn row(&self) -> Result<Row, Unusable> {
        let mut rows = KINDS.into_iter();
        rows.find(|row| row.kind == self.kind)
            .ok_or_else(|| Unusable::new("there is no such kind of channel"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_and_a_name_harmless() {
        let take = |url: &str, name: &str| {
            let (url, name) = (url.to_owned(), name.to_owned());
            Channel::take(&AddChannel::Webhook { url, name }, &[0; 32], UnixTime(1)).map(drop)
        };
        assert_eq!(take("https://hooks.example/a?b=c", "team"), Ok(()));
        for (url, name) in [
            ("https://user@hooks.example/a", "team"),
            ("https://user:pw@hooks.example/a", "team"),
            ("https://hooks.example/a#b", "team"),
            ("https://hooks.example/a", "te\u{202e}am"),
            ("https://hooks.example/a", ""),
            ("not a url", "team"),
            (&format!("https://hooks.example/{}", "a".repeat(1000)), "t"),
        ] {
            assert!(take(url, name).is_err(), "{url} {name:?}");
        }
    }
}
