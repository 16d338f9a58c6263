//! Who signed, and whether that is an admin: the same for what waits for others, sealed or open.

use super::own::Own;
use crate::desk::Desk;
use proto::ids::{DeviceId, PersonId};
use serde::{Deserialize, Serialize};

/// Who signed a call, as far as a sealed broker can know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedBy {
    /// Who.
    pub person: PersonId,
    /// With which device.
    pub device: DeviceId,
}

impl From<Own<'_>> for SignedBy {
    fn from(own: Own<'_>) -> Self {
        Self {
            person: own.person.clone(),
            device: own.device.clone(),
        }
    }
}

/// Whether an admin has this device now.
pub(super) fn is_admin(desk: &Desk, by: &SignedBy) -> bool {
    let held = desk.person_of_device(&by.device);
    held.is_ok_and(|p| p.is_some_and(|p| p.value.admin && p.value.id == by.person))
}
