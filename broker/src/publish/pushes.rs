//! What pushes that nobody has ended may take, and when they end.

use super::{Refusal, deposit, forward::Admission, ledger};
use crate::desk::{Desk, Fault, pushes::Budget};
use proto::api::StateName;
use std::collections::BTreeSet;

/// The bytes that a request's pushes may have: as many as it asked for, and before its approval no more than there
/// is room for deposits.
pub fn budget(desk: &Desk, admission: &Admission) -> Result<Budget, Refusal> {
    let owner = admission.owner.as_ref();
    Ok(Budget {
        request: admission.bytes_all,
        unapproved: owner.map(|owner| deposit::left(desk, owner)).transpose()?,
    })
}

/// Destroys pushes that have taken too long, and those of requests that have ended. After a publish clients may
/// repeat themselves for a while.
pub fn sweep(desk: &Desk) -> Result<(), Fault> {
    let mut ended = BTreeSet::new();
    for id in desk.pushes.requests() {
        let name = match ledger::find(desk, id) {
            // Nothing of such a request can be published; the other requests' pushes are swept all the same.
            Err(Fault::Damaged(_)) => None,
            record => record?.map(|record| record.name()),
        };
        if name.is_none_or(|name| name.is_final() && name != StateName::Published) {
            ended.insert(id);
        }
    }
    desk.pushes.end(desk.world.now(), &ended);
    Ok(())
}
