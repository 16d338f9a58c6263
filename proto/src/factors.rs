//! A person's own devices and passkeys, and the recovery of somebody else's, as they travel. Every one of these
//! calls is signed by a device and carries a second factor made for this change alone.

use crate::{
    api::SecondFactor,
    ids::{DeviceId, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// What a second factor is about when devices or factors change: the name in
/// [`change_digest`](crate::passkey::change_digest), beside the object in brackets.
pub mod change {
    /// An invite for a further device (the own person).
    pub const ADD_DEVICE: &str = "add-device";
    /// A device goes (its id).
    pub const REMOVE_DEVICE: &str = "remove-device";
    /// A new passkey (its credential's id).
    pub const ADD_PASSKEY: &str = "add-passkey";
    /// A passkey goes (its credential's id).
    pub const REMOVE_PASSKEY: &str = "remove-passkey";
    /// Somebody lost the own factors (that person).
    pub const RECOVER: &str = "recover";
    /// A recovery is called off (that person).
    pub const CANCEL_RECOVERY: &str = "cancel-recovery";
    /// The invite at its end (that person).
    pub const INVITE_RECOVERED: &str = "invite-recovered";
    /// An authenticator app is set up (the setup's id).
    pub const ADD_TOTP: &str = "add-totp";
    /// An admin's key for shares of the vault (the public key).
    pub const SHARE_KEY: &str = "share-key";
    /// What opens the vault changes, or such a change is confirmed (to what).
    pub const UNSEAL_METHOD: &str = "unseal-method";
    /// An admin asks for an act (what it does, in words).
    pub const ACT: &str = "act";
    /// Another admin agrees to it (its id).
    pub const CONFIRM_ACT: &str = "confirm-act";
    /// From a browser: somebody objects to it (its id).
    pub const VETO_ACT: &str = "veto-act";
    /// What was agreed to withdraw is called back (`registry:package@version`).
    pub const CALL_BACK: &str = "call-back";
    /// A token that is kept is revoked at its registry (its fingerprint).
    pub const TOKEN_REVOKED: &str = "token-revoked";
    /// A package is thawed (`registry:package`).
    pub const THAW: &str = "thaw";
    /// An older database is gone on with (when it was taken, and its log's length).
    pub const RESTORED: &str = "restored";
    /// From a browser: a channel goes (its id).
    pub const REMOVE_CHANNEL: &str = "remove-channel";
    /// From a browser: quiet hours change (the hours; empty: none).
    pub const QUIET_HOURS: &str = "quiet-hours";
    /// From a browser: an announcement is taken back (its id).
    pub const WITHDRAW_INTENT: &str = "withdraw-intent";
}

/// `POST /v1/devices/invite`: an invite for a further device of one's own.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct InviteDevice {
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `POST /v1/devices/remove`
#[derive(Clone, Serialize, Deserialize)]
pub struct RemoveDevice {
    /// Which.
    pub device: DeviceId,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// Reply to `POST /v1/passkeys/options`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasskeyOptions {
    /// For `navigator.credentials.create`.
    pub options: serde_json::Value,
}

/// `POST /v1/passkeys`
#[derive(Clone, Serialize, Deserialize)]
pub struct AddPasskey {
    /// A name, for the person's own list.
    pub name: String,
    /// The new credential, `PublicKeyCredential.toJSON()`.
    pub credential: serde_json::Value,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `POST /v1/passkeys/remove`
#[derive(Clone, Serialize, Deserialize)]
pub struct RemovePasskey {
    /// Its credential's id, base64url.
    pub id: String,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// Reply to `POST /v1/totp/offer`: a fresh secret for an authenticator app.
#[derive(Clone, Serialize, Deserialize)]
pub struct TotpOffer {
    /// The setup's id, which the proof is about.
    pub setup: String,
    /// `otpauth://…`, secret: shown once.
    pub otpauth: String,
    /// The same as a QR code, a row of 0 and 1 each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<Vec<String>>,
}

/// `POST /v1/totp`: the app was set up.
#[derive(Clone, Serialize, Deserialize)]
pub struct AddTotp {
    /// The setup's id.
    pub setup: String,
    /// The first code that the new app shows.
    pub code: String,
    /// Proof, by what was enrolled before: a passkey, or a code of the app before.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// `POST /v1/recoveries/ask`, `…/cancel` and `…/invite`: for somebody who lost the own factors.
#[derive(Clone, Serialize, Deserialize)]
pub struct Recover {
    /// Who.
    pub person: PersonId,
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// A recovery under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveryLine {
    /// Whose factors are to be replaced.
    pub person: PersonId,
    /// Who asked; two are needed.
    pub asked_by: Vec<PersonId>,
    /// From when on an invite can be made; absent while one more person must ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<UnixTime>,
    /// Until when.
    pub expires: UnixTime,
}

/// `GET /v1/recoveries`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recoveries {
    /// All of them, for everybody who is enrolled.
    pub recoveries: Vec<RecoveryLine>,
}
