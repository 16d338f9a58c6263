//! The permit is spent in the mode that people were asked about.

use super::Finding;
use crate::policy::{case::Case, reason::Reason};
use proto::{api::Mode, request::File};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    // Approved as a forward, handed out as the secret itself: nobody said yes to that.
    if case.at_open.is_some_and(|a| a.mode != case.entry.mode) {
        return Finding::Deny(Reason::ModeChanged);
    }
    let files = &case.item.files;
    match case.entry.mode {
        // A request for a publish by the broker never hands out the secret itself. What is announced is not
        // published by the broker, and says so on every screen.
        Mode::Reveal if files.iter().all(File::is_announced) => Finding::Pass,
        Mode::Reveal => Finding::Deny(Reason::RevealsNoFiles),
        Mode::Forward | Mode::Deposit | Mode::Mint if files.is_empty() => {
            Finding::Deny(Reason::NoFiles)
        }
        Mode::Forward | Mode::Deposit | Mode::Mint if files.iter().any(File::is_announced) => {
            Finding::Deny(Reason::Announced)
        }
        Mode::Forward | Mode::Deposit | Mode::Mint => Finding::Pass,
    }
}
