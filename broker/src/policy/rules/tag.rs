//! A tag decides who gets the version without asking for it, so it must be named and allowed.

use super::Finding;
use crate::policy::{case::Case, reason::Reason};

pub(super) fn rule(case: &Case<'_>) -> Finding {
    match (&case.item.tag, case.here.has_tags) {
        (None, false) => Finding::Pass,
        // npm would silently take `latest`.
        (None, true) => Finding::Deny(Reason::NoTag),
        (Some(_), false) => Finding::Deny(Reason::TagUnknown),
        (Some(tag), true) if case.entry.tags.contains(tag) => Finding::Pass,
        (Some(_), true) => Finding::Deny(Reason::Tag),
    }
}
