//! The job must be one that the policy names.

use super::Finding;
use crate::policy::{
    callers::{CLIENT_KEY_ISSUER, Match},
    case::Case,
    reason::Reason,
};

/// One entry of `callers` must match in all it says; a client key must also be registered for the
/// package (attack 11).
pub(super) fn rule(case: &Case<'_>) -> Finding {
    let mut other = None;
    for entry in &case.entry.callers {
        match entry.matches(case.caller) {
            Match::Yes => return package(case),
            Match::NotThis(key) => other = other.or(Some(key)),
            Match::Stranger => {}
        }
    }
    Finding::Deny(other.map_or(Reason::Stranger, |key| Reason::OtherJob { key }))
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
