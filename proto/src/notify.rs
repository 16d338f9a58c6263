//! A person's notifications, as their settings travel. What is sent by a channel itself is the broker's
//! business alone, and says no more than "something waits".

use crate::{api::SecondFactor, time::UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How a notification travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelKind {
    /// A browser's push service (RFC 8030).
    WebPush,
    /// A topic of an ntfy server.
    Ntfy,
    /// A signed POST, with a text as Slack and its likes take it.
    Webhook,
}

impl ChannelKind {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::WebPush => "web-push",
            Self::Ntfy => "ntfy",
            Self::Webhook => "webhook",
        }
    }
}

/// `POST /v1/notify/channels`. The same address again replaces what was given before.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AddChannel {
    /// What a browser's `PushSubscription` says.
    WebPush {
        /// Where to post to.
        endpoint: String,
        /// The browser's key, base64url.
        p256dh: String,
        /// The shared secret, base64url.
        auth: String,
        /// What the person calls this device.
        name: String,
    },
    /// A topic.
    Ntfy {
        /// The topic's address.
        url: String,
        /// An access token, where the topic is not open to everybody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// What the person calls it.
        name: String,
    },
    /// Any server.
    Webhook {
        /// Where to post to.
        url: String,
        /// What the person calls it.
        name: String,
    },
}

/// Reply to it.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ChannelAdded {
    /// The channel.
    pub id: String,
    /// Webhook: what its signatures are checked with; shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One channel in [`Settings`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChannelLine {
    /// Its id.
    pub id: String,
    /// How it travels.
    pub kind: ChannelKind,
    /// What the person calls it.
    pub name: String,
    /// The server; the rest of the address may be a secret.
    pub host: String,
    /// When it was added.
    pub added: UnixTime,
    /// When its server last took a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<UnixTime>,
    /// The last failure, where it is newer than the last delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<ChannelFailure>,
}

/// What went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFailure {
    /// When.
    pub at: UnixTime,
    /// What.
    pub why: String,
}

/// `GET /v1/notify`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The broker's public key for browsers' push services (RFC 8292), base64url.
    pub vapid: String,
    /// Channels, oldest first.
    pub channels: Vec<ChannelLine>,
    /// When nothing rings that nobody announced: `22:00-07:00 Europe/Berlin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// Servers that the broker's configuration allows.
    pub allowed: Vec<String>,
    /// Rings of this person in the last day that nobody announced.
    pub rings: usize,
    /// How many there may be.
    pub rings_most: usize,
}

/// `PUT /v1/notify/quiet`
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Quiet {
    /// `22:00-07:00 Europe/Berlin`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
    /// Proof, from a browser.
    #[serde(flatten)]
    pub factor: SecondFactor,
}
