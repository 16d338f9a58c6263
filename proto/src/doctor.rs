//! The JSON of `admin doctor`: other doors to a package.

use serde::{Deserialize, Serialize};

/// `POST /v1/admin/doctor`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {
    /// These packages, like `npm:@acme/left`; none: all that are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

/// Its reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoctorReport {
    /// The packages that were looked at.
    pub packages: Vec<Checkup>,
    /// Packages that were left out, since there are too many for one call: name them.
    #[serde(default)]
    pub left_out: usize,
}

/// One package.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkup {
    /// `npm:@acme/left`
    pub package: String,
    /// What is wrong, one sentence each.
    pub findings: Vec<Finding>,
    /// What a program has asked the registry.
    pub asked: Vec<String>,
    /// What it could not ask.
    pub unasked: Vec<String>,
    /// What a person looks at.
    pub checklist: Vec<Check>,
}

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What to do.
    pub next: String,
}

/// Something that only a person can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must be so.
    pub what: String,
    /// Where that stands, if the configuration knows the registry's web pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}
