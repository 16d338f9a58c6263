//! The permit is spent in the mode that people were asked about.

use super::Finding;
use crate::policy::{case::Case, reason::Reason};
use proto::api::Mode;

pub(super) fn rule(case: &Case<'_>) -> Finding {
    // Approved as a forward, handed out as the secret itself: nobody said yes to that.
    if case.at_open.is_some_and(|a| a.mode != case.entry.mode) {
        return Finding::Deny(Reason::ModeChanged);
    }
    // A request with files reads like a publish: it never hands out the secret itself.
    match (case.entry.mode, case.item.files.is_empty()) {
        (Mode::Reveal, false) => Finding::Deny(Reason::RevealsNoFiles),
        (Mode::Forward | Mode::Deposit | Mode::Mint, true) => Finding::Deny(Reason::NoFiles),
        _ => Finding::Pass,
    }
}
