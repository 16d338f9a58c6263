//! Handlers of a person's own devices and factors, and of recoveries.

use super::{
    api::{Done, Empty, encode},
    auth::Signer,
    routes::Call,
};
use crate::admin::{
    authenticator,
    own::{self, Own},
    recovery,
};

impl Signer {
    pub(super) fn own(&self) -> Own<'_> {
        Own {
            person: &self.person.id,
            device: &self.device,
        }
    }
}

/// An invite for a further device.
pub(super) async fn invite(call: Call) -> Done {
    let given = call.json()?;
    encode(own::invite(&call.desk, call.signer()?.own(), &given, call.now).await)
}

/// Removes a device.
pub(super) async fn remove_device(call: Call) -> Done {
    let given = call.json()?;
    let done = own::remove_device(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// Options for a new passkey.
pub(super) async fn passkey_options(call: Call) -> Done {
    encode(own::passkey_options(&call.desk, call.signer()?.own(), call.now).await)
}

/// Adds a passkey.
pub(super) async fn add_passkey(call: Call) -> Done {
    let given = call.json()?;
    let done = own::add_passkey(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// Removes a passkey.
pub(super) async fn remove_passkey(call: Call) -> Done {
    let given = call.json()?;
    let done = own::remove_passkey(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// A secret for an authenticator app.
pub(super) async fn totp_offer(call: Call) -> Done {
    encode(authenticator::offer(&call.desk, call.signer()?.own(), call.now).await)
}

/// Sets the app up.
pub(super) async fn add_totp(call: Call) -> Done {
    let given = call.json()?;
    let done = authenticator::add(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// Recoveries under way.
pub(super) async fn recoveries(call: Call) -> Done {
    encode(recovery::list(&call.desk, call.now))
}

/// Asks for a recovery.
pub(super) async fn ask_recovery(call: Call) -> Done {
    let given = call.json()?;
    let by = call.signer()?;
    encode(recovery::ask(&call.desk, &by.person, &by.device, &given, call.now).await)
}

/// Calls a recovery off.
pub(super) async fn cancel_recovery(call: Call) -> Done {
    let given = call.json()?;
    let by = call.signer()?;
    encode(recovery::cancel(&call.desk, &by.person, &by.device, &given, call.now).await)
}

/// The invite at a recovery's end.
pub(super) async fn invite_recovered(call: Call) -> Done {
    let given = call.json()?;
    let by = call.signer()?;
    encode(recovery::invite(&call.desk, &by.person, &by.device, &given, call.now).await)
}
