//! The handlers of the watch and the doctor: decode, verb, encode.

use super::{
    api::{Done, encode},
    routes::Call,
};
use crate::{
    admin::{doctor as doctors, freeze},
    publish::Refusal,
    watch::{report, round},
};
use proto::{doctor::DoctorRequest, watch::WatchRequest};

/// The state of the watch.
pub(super) async fn report(call: Call) -> Done {
    encode(report::report(&call.desk, call.now).await)
}

/// Looks now.
pub(super) async fn now(call: Call) -> Done {
    let asked: WatchRequest = call.json()?;
    encode(report::now(&call.desk, asked.package).await)
}

/// Looks for other doors.
pub(super) async fn doctor(call: Call) -> Done {
    let asked: DoctorRequest = call.json()?;
    let desk = &call.desk;
    let packages = if asked.packages.is_empty() {
        round::targets(desk)
            .map_err(Refusal::from)?
            .into_iter()
            .collect()
    } else {
        let named = asked.packages.iter().map(|p| freeze::named(desk, p));
        named.collect::<Result<Vec<_>, _>>()?
    };
    encode(doctors::doctor(desk, &packages).await)
}
