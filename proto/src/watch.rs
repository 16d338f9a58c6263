//! The JSON of the watch: what registries serve, against what the broker published.

use crate::{ids::VersionText, stop::Standstill, time::UnixTime};
use serde::{Deserialize, Serialize};

/// `POST /v1/admin/watch`: look now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchRequest {
    /// This package alone, like `npm:@acme/left`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// Its reply, and that of `GET /v1/admin/watch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchReport {
    /// Seconds between two rounds; absent: the watch is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Whether an admin stopped everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Standstill>,
    /// The watched packages.
    pub packages: Vec<WatchLine>,
}

/// One watched package.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WatchLine {
    /// `npm:@acme/left`
    pub package: String,
    /// When its registry last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<UnixTime>,
    /// Why nothing could be seen since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_since: Option<UnixTime>,
    /// Versions that were there before it was watched.
    #[serde(default)]
    pub before: usize,
    /// Versions that this broker published.
    #[serde(default)]
    pub published: usize,
    /// Those of the first look by name; to whoever asks first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_shown: Vec<VersionText>,
    /// Versions that somebody else published or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<VersionText>,
    /// Versions that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<VersionText>,
    /// Versions that are yanked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<VersionText>,
    /// Where the tag `latest` points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<VersionText>,
    /// Whether the package is frozen.
    #[serde(default)]
    pub frozen: bool,
    /// What the broker saw, where it froze the package itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

impl WatchLine {
    /// Of a package of which nothing is known yet.
    pub fn of(package: String) -> Self {
        Self {
            package,
            ..Self::default()
        }
    }
}
