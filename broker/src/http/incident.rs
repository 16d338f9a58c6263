//! Handlers of an incident: stop everything, look back.

use super::{
    api::{Done, encode, unsigned, whole},
    routes::Call,
};
use crate::admin::{incident, panic as stopper, withdraw};
use proto::{
    stop::{CallBack, PanicRequest},
    time::UnixTime,
};

/// Stops everything. Whoever goes away in the middle stops it half way no more than a crash does.
pub(super) async fn panic(call: Call) -> Done {
    let asked: PanicRequest = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    let by = signer.person.id.clone();
    encode(whole(async move { stopper::panic(&desk, &by, &asked.reason, now).await }).await)
}

/// What left the broker.
pub(super) async fn published(call: Call) -> Done {
    let since = UnixTime(call.number("since")?.unwrap_or(0));
    let limit = call.number("limit")?.unwrap_or(u64::MAX);
    let after = call.query.get("after").map(String::as_str);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    encode(incident::published(&call.desk, since, after, limit))
}

/// The configured registries.
pub(super) async fn registries(call: Call) -> Done {
    encode(Ok(incident::registries(&call.desk)))
}

/// What was withdrawn.
pub(super) async fn withdrawals(call: Call) -> Done {
    encode(withdraw::list(&call.desk))
}

/// What was to be withdrawn is not. Whoever goes away in the middle changes nothing about that.
pub(super) async fn call_back(call: Call) -> Done {
    let asked: CallBack = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { withdraw::call_back(&desk, signer.own(), &asked, now).await }).await)
}
