//! Notification settings: decode, verb, encode.

use super::{
    api::{Done, Empty, encode},
    routes::Call,
};
use crate::admin::channels as verbs;
use proto::notify::{AddChannel, Quiet};

/// A person's settings.
pub async fn settings(call: Call) -> Done {
    let person = call.person()?.id.clone();
    encode(verbs::settings(&call.desk, &person, call.now).await)
}

/// Adds a channel.
pub async fn add(call: Call) -> Done {
    let given: AddChannel = call.json()?;
    let signer = call.signer()?;
    let (person, device) = (&signer.person.id, &signer.device);
    encode(verbs::add(&call.desk, person, device, &given, call.now).await)
}

/// Removes a channel.
pub async fn remove(call: Call) -> Done {
    let id = call.path.get("id").map(String::as_str).unwrap_or_default();
    let factor = call.json_if_any()?;
    let own = call.signer()?.own();
    let done = verbs::remove(&call.desk, own, id, &factor, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// Sets quiet hours.
pub async fn quiet(call: Call) -> Done {
    let given: Quiet = call.json()?;
    let done = verbs::quiet(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// Sends a test.
pub async fn test(call: Call) -> Done {
    let person = call.person()?.id.clone();
    let done = verbs::test(&call.desk, &person, call.now).await;
    encode(done.map(|()| Empty {}))
}
