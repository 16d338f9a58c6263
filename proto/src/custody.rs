//! Who opens the vault, and how that changes, as it travels.

use crate::{api::SecondFactor, ids::PersonId, time::UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `POST /v1/admin/unseal`: the vault's passphrase, or the caller's share. One of them.
#[derive(Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct UnsealRequest {
    /// The passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// The caller's own share, opened, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

/// `GET /v1/admin/unseal`, and the reply to `POST`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Unsealing {
    /// Whether the vault is sealed (still).
    pub sealed: bool,
    /// What opens it: `passphrase`, `identity`, `plugin`, `shares`.
    pub methods: Vec<String>,
    /// Where shares open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<ShareRound>,
}

/// Shares: how many are needed, and who handed in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShareRound {
    /// How many are needed.
    pub needed: usize,
    /// Who has one.
    pub holders: Vec<PersonId>,
    /// Who handed in, since the vault was sealed.
    pub given: Vec<PersonId>,
    /// The caller's own share: an age file to the own share key, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
}

/// `POST /v1/admin/share-key`: the key that the caller's shares are encrypted to.
#[derive(Clone, Serialize, Deserialize)]
pub struct ShareKey {
    /// Its public half, `age1…`.
    pub recipient: String,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// What shall open the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// A passphrase.
    Passphrase,
    /// The identity that the daemon's configuration names.
    Identity,
    /// The age plugin that it names.
    Plugin,
    /// So many admins together.
    Shares {
        /// How many are needed.
        needed: usize,
        /// Who gets a share.
        holders: Vec<PersonId>,
    },
}

impl Method {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Identity => "identity",
            Self::Plugin => "plugin",
            Self::Shares { .. } => "shares",
        }
    }

    /// What a second factor is about when this is asked for or agreed to: `shares 2 alice bob carol`.
    pub fn object(&self) -> String {
        match self {
            Self::Shares { needed, holders } => {
                let names = holders.iter().map(PersonId::as_str).collect::<Vec<_>>();
                format!("shares {needed} {}", names.join(" "))
            }
            other => other.name().to_owned(),
        }
    }
}

/// `POST /v1/admin/unseal-method`
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ChangeMethod {
    /// What shall open the vault from then on, and nothing else.
    #[zeroize(skip)]
    pub to: Method,
    /// The new passphrase, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// Proof.
    #[zeroize(skip)]
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `POST /v1/admin/unseal-method/confirm`
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct ConfirmMethod {
    /// Names the change that is meant.
    pub change: String,
    /// The own share of the new key file, opened, base64; of those who have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Proof; not of the one who asked, who gave it then.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `GET /v1/admin/unseal-method`, and the reply to every call that changes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Custody {
    /// What opens the vault now.
    pub methods: Vec<String>,
    /// How many shares are needed, where shares open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<usize>,
    /// Who has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<PersonId>,
    /// Of these, who cannot open it any more: no admin now, or with another share key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<PersonId>,
    /// Admins who registered a share key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PersonId>,
    /// A change under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// What it opens.
    pub data_key: DataKey,
}

/// The vault's data key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataKey {
    /// Its generation; 1 until the vault is re-keyed.
    pub generation: u32,
    /// The one before, while something of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<u32>,
    /// How far a re-keying is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Rekeying>,
    /// When the key before goes, at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
}

/// A step of re-keying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rekeying {
    /// It was agreed to.
    Agreed,
    /// The fresh key is in use, and rows are written anew under it.
    Writing,
    /// Everything is under the fresh key; nothing is believed that the old one authenticated.
    Retired,
}

/// A change of what opens the vault, before it holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Names it.
    pub id: String,
    /// What shall open the vault.
    pub to: Method,
    /// Who asked.
    pub by: PersonId,
    /// Who confirmed.
    pub confirmed: Vec<PersonId>,
    /// Holders who have not opened their share yet.
    pub waits_for: Vec<PersonId>,
    /// Whether an admin besides the one who asked must confirm it, and none has.
    pub second_admin: bool,
    /// Until when.
    pub expires: UnixTime,
    /// The caller's own share of it: an age file to the own share key, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
}
