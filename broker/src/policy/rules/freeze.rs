//! A freeze beats everything, an approved request too (attack 52).

use super::Finding;
use crate::policy::{case::Case, reason::Reason};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    if case.here.frozen {
        Finding::Deny(Reason::Frozen)
    } else {
        Finding::Pass
    }
}
