//! The rules: one file each, each a pure function over a [`Case`], and one row here.

mod caller;
mod factor;
mod freeze;
mod mode;
mod quorum;
mod tag;
mod time;
mod version;

use super::{case::Case, reason::Reason};
use std::fmt;

/// What a rule finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing against it.
    Pass,
    /// Not yet.
    Wait(Missing),
    /// No.
    Deny(Reason),
}

/// How many people are still missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Approvals that count.
    pub approvals: u32,
    /// Approvals that are needed.
    pub quorum: u32,
    /// Approvals that are missing, over all items: an answer that helps makes it smaller.
    pub gap: u32,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} approvals are there",
            self.approvals, self.quorum
        )
    }
}

/// A rule.
pub type Rule = fn(&Case<'_>) -> Finding;

/// All rules. The first denial is the one that is told, so who asks comes first: a stranger learns
/// nothing about freezes, versions or people.
pub const RULES: &[(&str, Rule)] = &[
    ("caller", caller::rule),
    ("time", time::rule),
    ("freeze", freeze::rule),
    ("mode", mode::rule),
    ("version", version::rule),
    ("tag", tag::rule),
    ("factor", factor::rule),
    ("quorum", quorum::rule),
];
