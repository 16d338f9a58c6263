//! No secret is published that somebody could have seen; and where the policy says so, nothing that nobody could
//! look into.

use super::Finding;
use crate::policy::{
    case::{Case, Stage},
    keys::Scan,
    reason::Reason,
};
use proto::card::{FindingKind, Outcome};

/// Judged when answers come and at release: before that nobody has the bytes.
pub(super) fn rule(case: &Case<'_>) -> Finding {
    let scan = case.entry.scan;
    if case.stage == Stage::Open || matches!(scan, Scan::Show | Scan::Off) {
        return Finding::Pass;
    }
    let mut findings = case.here.cards.iter().flat_map(|c| &c.findings);
    if let Some(secret) = findings.find(|f| f.kind == FindingKind::Secrets) {
        return Finding::Deny(Reason::Secret {
            what: secret.what.clone(),
        });
    }
    match scan {
        Scan::Block => inspected(case),
        _ => Finding::Pass,
    }
}

/// Whether the broker has looked into every file. No card at all is a no.
pub(super) fn inspected(case: &Case<'_>) -> Finding {
    let cards = case.here.cards;
    let outcomes = || cards.iter().map(|c| c.outcome);
    if outcomes().any(|o| matches!(o, Outcome::Failed | Outcome::NotAnArchive)) {
        return Finding::Deny(Reason::NotInspectable);
    }
    if cards.is_empty() || outcomes().any(|o| o != Outcome::Inspected) {
        return Finding::Deny(Reason::NotInspected);
    }
    Finding::Pass
}
