//! Registries that list tags without digests. A look asks for the tags that this broker published, one by one: tags of
//! others were never ours, and tell nothing.

use crate::{
    desk::{Desk, Fault},
    publish::{known::Known, trace},
};
use proto::ids::VersionText;
use std::collections::BTreeSet;

/// Tags of which the manifest left this broker, and those that were looked at before. `limit` traces are read.
pub(super) fn ours(
    desk: &Desk,
    package: &str,
    known: Option<&Known>,
    limit: usize,
) -> Result<BTreeSet<VersionText>, Fault> {
    let mut tags: BTreeSet<_> = known
        .into_iter()
        .flat_map(|known| known.versions.keys().cloned())
        .collect();
    for trace in trace::of_package(desk, package, limit)? {
        // A blob that left before somebody else's tag was seen makes no tag ours.
        let manifest = format!("\0manifests/{}\0", trace.version);
        if trace.key.ends_with(manifest.as_bytes()) {
            tags.extend(trace.version.parse().ok());
        }
    }
    Ok(tags)
}
