//! Enough distinct people of the right groups, with accepted proofs, and not the requester alone.

use super::{Finding, Missing};
use crate::policy::{
    case::{Case, Stage},
    reason::Reason,
};

/// Counts people and not approvals: two devices of one person are one person (attack 29). Who is
/// counted is decided by today's list of people and groups, so somebody removed counts no more.
pub(super) fn rule(case: &Case<'_>) -> Finding {
    let quorum = case.quorum();
    let mut able: Vec<_> = case
        .around
        .people
        .iter()
        .filter(|p| case.may_approve(p))
        .map(|p| &p.id)
        .collect();
    able.sort();
    able.dedup();
    if case.stage == Stage::Open {
        // Better said now than after half an hour of waiting for nobody.
        let people = count(able.len());
        return if people < quorum {
            Finding::Deny(Reason::TooFewApprovers { people, quorum })
        } else {
            Finding::Wait(Missing {
                approvals: 0,
                quorum,
                gap: quorum,
            })
        };
    }
    able.retain(|id| {
        case.around
            .approvals
            .iter()
            .any(|a| a.person() == *id && case.counts(a))
    });
    let approvals = count(able.len());
    // `quorum` is at least 1 by the parser; zero of zero must never be enough.
    if approvals >= quorum && approvals > 0 {
        Finding::Pass
    } else {
        Finding::Wait(Missing {
            approvals,
            quorum,
            gap: quorum.saturating_sub(approvals),
        })
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
