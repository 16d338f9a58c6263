//! Much larger than before, or many more files.

use super::Case;
use proto::card::{Finding, FindingKind, Risk};

/// Growth below this is nothing, in bytes.
const BYTES: u64 = 256 << 10;
/// Growth below this is nothing, in files.
const FILES: usize = 30;

pub(super) fn look(case: &Case<'_>) -> Vec<Finding> {
    let Some(before) = case.before.tree() else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let (old, new) = (before.unpacked, case.now.unpacked);
    if new >= old.saturating_mul(2) && new - old >= BYTES {
        out.push(format!("{old} bytes unpacked became {new}"));
    }
    let (old, new) = (before.files.len(), case.now.files.len());
    if new >= old.saturating_mul(2) && new - old >= FILES {
        out.push(format!("{old} files became {new}"));
    }
    let finding = |what| Finding {
        kind: FindingKind::Size,
        risk: Risk::Medium,
        what,
        why: "A jump in size is often something that was not meant to be in it: a build folder, a \
              data set, or a payload."
            .to_owned(),
    };
    out.into_iter().map(finding).collect()
}
