//! The rules: one file each, each a pure function over a [`Case`], and one row here.

mod caller;
mod factor;
mod freeze;
mod hours;
mod mode;
mod quorum;
mod scan;
mod tag;
mod time;
mod unchanged;
mod unsolicited;
mod version;
mod veto;

use super::{case::Case, reason::Reason};
use proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a rule finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing against it.
    Pass,
    /// Not enough people yet.
    Wait(Missing),
    /// Not at this time.
    Later(Later),
    /// No.
    Deny(Reason),
}

/// Until when something that is approved is not let out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    /// From then on it may be.
    pub until: UnixTime,
    /// Why not before.
    pub why: Why,
}

/// Why something that is approved is not let out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// People may still deny it.
    Veto,
    /// It is outside the policy's hours.
    Hours,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.rfc3339();
        match self.why {
            Why::Veto => write!(
                f,
                "it is approved, and until {until} anybody who approves may still deny it (the policy's `veto`)"
            ),
            Why::Hours => write!(
                f,
                "it is approved, and goes out from {until} on: now is outside the policy's `hours`"
            ),
        }
    }
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
    ("unsolicited", unsolicited::rule),
    ("mode", mode::rule),
    ("version", version::rule),
    ("tag", tag::rule),
    ("scan", scan::rule),
    ("unchanged", unchanged::rule),
    ("factor", factor::rule),
    ("quorum", quorum::rule),
    ("veto", veto::rule),
    ("hours", hours::rule),
];
