//! The job must be one that the policy names.

use super::Finding;
use crate::policy::{callers::CLIENT_KEY_ISSUER, case::Case, reason::Reason};

/// One entry of `callers` must match in all it says; a client key must also be registered for the
/// package (attack 11).
pub(super) fn rule(case: &Case<'_>) -> Finding {
    match case.entry.names(case.caller) {
        Ok(()) => package(case),
        Err(reason) => Finding::Deny(reason),
    }
}

fn package(case: &Case<'_>) -> Finding {
    if case.caller.issuer != CLIENT_KEY_ISSUER {
        return Finding::Pass;
    }
    let key = case.item.package_key();
    let registered = case
        .around
        .client_key_packages
        .is_some_and(|all| all.contains(&key));
    if registered {
        Finding::Pass
    } else {
        Finding::Deny(Reason::OtherPackage)
    }
}
