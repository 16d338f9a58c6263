//! People, their devices, and the broker as everybody sees it.

use crate::{
    device::{DeviceKind, DevicePublic},
    ids::{DeviceId, GroupName, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// `POST /v1/enroll`: the first call of a new device, with the invite in the body.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// `csi_…`
    pub invite: String,
    /// The device's public key.
    pub public_key: DevicePublic,
    /// Over [`crate::device::enrolment_bytes`], hex.
    pub signature: String,
    /// A name for the device, for the person's own list.
    pub device_name: String,
    /// What the device is.
    #[serde(default)]
    pub kind: DeviceKind,
    /// Absent like `passkey`: the broker makes a TOTP secret and returns it (stage 1). Present: the first
    /// code proves that it was stored (stage 2), and the person is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// A new passkey, `PublicKeyCredential.toJSON()`: stage 2 as well, beside a code or instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<serde_json::Value>,
}

/// `POST /v1/enroll/unseal`: the first admin enrols while the vault is sealed. The reply is that of the
/// enrolment's stage 1.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsealFirst {
    /// The enrolment, as it would be sent without this; its `totp` is not read.
    pub enrolment: EnrollRequest,
    /// The vault's passphrase.
    pub passphrase: String,
}

/// Reply to an enrolment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// Who.
    pub person: PersonId,
    /// The device.
    pub device: DeviceId,
    /// `otpauth://…`, secret: shown once as a QR code. Only at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otpauth: Option<String>,
    /// The same as a QR code, a row of 0 and 1 each. For browsers, at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<Vec<String>>,
    /// For `navigator.credentials.create`, where the broker has passkeys. Only at stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<serde_json::Value>,
    /// Whether the person can answer now.
    pub done: bool,
}

/// A device in `GET /v1/devices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: DeviceKind,
    /// When it was enrolled.
    pub enrolled: UnixTime,
    /// Whether it is the one that asks.
    pub this: bool,
}

/// A passkey in `GET /v1/devices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasskeyLine {
    /// Its credential's id, base64url.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub enrolled: UnixTime,
    /// When it answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixTime>,
}

/// `GET /v1/devices`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Devices {
    /// Who asks.
    pub person: PersonId,
    /// Groups.
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    pub admin: bool,
    /// Devices.
    pub devices: Vec<DeviceLine>,
    /// Passkeys.
    #[serde(default)]
    pub passkeys: Vec<PasskeyLine>,
    /// Whether an authenticator app is set up.
    #[serde(default)]
    pub totp: bool,
}

/// `GET /v1/status`, for everybody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// The daemon's version.
    pub version: String,
    /// Whether the vault is sealed.
    pub sealed: bool,
    /// The broker's clock, as the broker believes it.
    pub time: UnixTime,
    /// Whether it jumped: TOTP codes and id tokens are refused until it is trusted again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_suspect: bool,
    /// Whether the database is an older copy: nothing is approved or released until the admins have agreed to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The log's verification key (C2SP signed-note vkey), once unsealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_key: Option<String>,
    /// The audience that an IdToken must name.
    pub audience: String,
}

/// Whom an invite is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Who.
    pub person: PersonId,
    /// Groups that the person joins.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Whether an admin.
    #[serde(default)]
    pub admin: bool,
    /// The person's accounts at CI issuers, like `github:12345` (actor id), for requester exclusion.
    #[serde(default)]
    pub actors: Vec<String>,
}

/// Reply: the invite, shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invited {
    /// `csi_…`
    pub invite: String,
    /// Works until.
    pub expires: UnixTime,
    /// The page that takes it.
    #[serde(default)]
    pub link: String,
    /// The link as a QR code, a row of 0 and 1 each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<Vec<String>>,
}
