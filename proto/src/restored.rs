//! Backups, and an older database that was put back, as they travel.

use crate::{api::SecondFactor, ids::PersonId, time::UnixTime};
use serde::{Deserialize, Serialize};

/// `GET /v1/admin/backups`: what is known of backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupState {
    /// How many keys open a backup; 0: the configuration names none, and there are no backups.
    pub recipients: usize,
    /// Seconds between two that the broker makes by itself; absent: it makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// When the newest was taken that the broker knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<UnixTime>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether the broker's own last try failed.
    #[serde(default)]
    pub failed: bool,
}

/// `POST /v1/admin/restored/agree`: an admin goes on with an older database.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Agree {
    /// The last checkpoint that this device saw, where it kept one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Whether he agrees although his device saw entries that are lost.
    #[serde(default)]
    pub despite_loss: bool,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `GET /v1/admin/restored`, and the reply to an admin who agrees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredState {
    /// Whether this is an older copy, and nothing is approved or released.
    pub restored: bool,
    /// Whether nobody restored it: the broker found its log shorter than it had been, or another.
    #[serde(default)]
    pub rolled_back: bool,
    /// When the copy was taken; absent where the mark cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<UnixTime>,
    /// When it was put here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixTime>,
    /// Entries of the log that came with it.
    #[serde(default)]
    pub entries: u64,
    /// How many admins must agree.
    #[serde(default)]
    pub needed: usize,
    /// Who may: admins who were enrolled when the copy was taken.
    #[serde(default)]
    pub may: Vec<PersonId>,
    /// Who did.
    #[serde(default)]
    pub agreed: Vec<Agreed>,
}

/// An admin who agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Who.
    pub person: PersonId,
    /// Entries of the log that the device saw, and that are lost.
    pub lost: u64,
}
