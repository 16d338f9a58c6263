//! Nothing happens after its deadline (attack 28), and nothing when the clock is wrong (attack 48).

use super::Finding;
use crate::policy::{
    case::{Case, Stage},
    reason::Reason,
};

/// How far the clock may step back without harm, in seconds.
const STEP_BACK: u64 = 60;

pub(super) fn rule(case: &Case<'_>) -> Finding {
    let around = case.around;
    if around.now >= around.expires {
        return Finding::Deny(Reason::Expired);
    }
    // With the clock set back, every deadline would move away.
    if around.opened > around.now.after(STEP_BACK) {
        return Finding::Deny(Reason::Clock);
    }
    // The request's digest names the policy under which it was opened: it must be this one. At
    // release the current policy decides, and `at_open` keeps it from being the weaker one.
    if case.stage == Stage::Open && case.policy_now != case.policy_of_request {
        return Finding::Deny(Reason::PolicyChanged);
    }
    Finding::Pass
}
