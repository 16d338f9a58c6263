//! Where the policy takes announced releases alone, nobody is asked about another one (attack 24).

use super::Finding;
use crate::policy::{
    case::{Case, Stage},
    keys::Unsolicited,
    reason::Reason,
};

/// Decided when it is opened: an announcement that came later would be one of whatever was asked for.
pub(super) fn rule(case: &Case<'_>) -> Finding {
    let refuses = case.entry.unsolicited == Unsolicited::Refuse;
    if case.stage == Stage::Open && refuses && !case.around.intended {
        Finding::Deny(Reason::Unsolicited)
    } else {
        Finding::Pass
    }
}
