//! After the approval anybody who approves may still deny, for as long as the policy says.

use super::{Finding, Later, Why};
use crate::policy::case::{Case, Stage};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    if case.stage == Stage::Open || case.terms().veto_seconds == 0 {
        return Finding::Pass;
    }
    let until = case.veto_ends();
    if case.around.now >= until {
        Finding::Pass
    } else {
        Finding::Later(Later {
            until,
            why: Why::Veto,
        })
    }
}
