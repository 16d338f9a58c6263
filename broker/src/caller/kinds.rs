//! The table of issuer kinds: one row each. The row says how strict its tokens can be read, and its
//! file says what their claims mean.
//!
//! A new kind is a file beside this one with its `ROW`, a variant of [`Kind`] and a line below.

use super::{
    buildkite, circleci, github, gitlab, issuer::IssuerConfig, issuer::Kind, kubernetes, oidc,
    refused::CallerRefused, token::UnverifiedClaims,
};
use proto::request::CallerFacts;

/// What a token's claims mean: the facts, and the person who started the job by an id that never
/// changes hands, like `github:12345`, where the CI says who it was.
pub(super) type Mapped = Result<(CallerFacts, Option<String>), CallerRefused>;

/// Events in which a stranger's code, timing or hands run with the project's identity. Refused unless
/// the configuration names them, and refused again by a policy entry that does not.
pub const RISKY_EVENTS: [&str; 5] = [
    // GitHub: on the base repository's behalf for a stranger's pull request, or after his workflow.
    "pull_request_target",
    "workflow_run",
    // GitLab: the pipeline of a merge request, which may come from a fork.
    "merge_request_event",
    "external_pull_request_event",
    // CircleCI: a job in which somebody has a shell.
    "ssh-rerun",
];

/// One kind.
pub(super) struct Row {
    /// Longest life of its tokens in seconds, unless the configuration says otherwise.
    pub(super) life: u64,
    /// Whether it writes the audience as a list. Then a list of exactly one is read like that one.
    pub(super) audience_list: bool,
    /// What makes its tokens single-use.
    pub(super) once: Once,
    /// Where links to its runs lead, unless the configuration says otherwise; `None`: to the issuer.
    pub(super) server: Option<&'static str>,
    /// Maps the claims of a token whose signature holds.
    pub(super) facts: fn(&UnverifiedClaims, &IssuerConfig) -> Mapped,
}

/// What is burnt when a token is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    /// Its `jti`, which must be there.
    Jti,
    /// The signed text itself: this issuer gives its tokens no `jti`.
    SignedText,
}

/// The row of a kind.
pub(super) const fn row(kind: Kind) -> &'static Row {
    match kind {
        Kind::Github => &github::ROW,
        Kind::Gitlab => &gitlab::ROW,
        Kind::Circleci => &circleci::ROW,
        Kind::Buildkite => &buildkite::ROW,
        Kind::Kubernetes => &kubernetes::ROW,
        Kind::Oidc => &oidc::ROW,
    }
}
