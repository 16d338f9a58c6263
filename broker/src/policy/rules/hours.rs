//! Nothing leaves outside the policy's hours. People may be asked and may answer at any time: what they said is
//! decided again when it is let out.

use super::{Finding, Later, Why};
use crate::policy::{
    case::{Case, Stage},
    reason::Reason,
};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    if case.stage == Stage::Open {
        return Finding::Pass;
    }
    // What the veto holds back until evening goes out in the morning.
    let from = case.around.now.max(case.veto_ends());
    match case.opens(from) {
        None => Finding::Deny(Reason::NeverOpen),
        Some(opens) if opens <= from => Finding::Pass,
        Some(until) => Finding::Later(Later {
            until,
            why: Why::Hours,
        }),
    }
}
