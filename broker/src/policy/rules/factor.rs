//! There must be a proof that is accepted now and was accepted when people were asked.

use super::Finding;
use crate::policy::{case::Case, reason::Reason};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    if case.entry.factors.iter().any(|f| case.accepts(*f)) {
        Finding::Pass
    } else {
        Finding::Deny(Reason::NoFactor)
    }
}
