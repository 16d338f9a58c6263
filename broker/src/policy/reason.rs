//! Why a request is refused: a closed list, with a stable short name and a sentence that says what to do.

use proto::card::FindingKind;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why not. The text is for the job's log; it tells a stranger nothing about the policy.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum Reason {
    /// No entry matches the package.
    #[error(
        "the policy does not let this job publish this package; an admin can add it to policy.toml"
    )]
    NoMatch,
    /// No entry of `callers` is this repository, project, subject or key. It reads like
    /// [`Reason::NoMatch`], so that nobody learns which packages exist (attack 55).
    #[error(
        "the policy does not let this job publish this package; an admin can add it to policy.toml"
    )]
    Stranger,
    /// The right repository, but another workflow, ref, event or environment.
    #[error(
        "the policy allows this repository, but not this job: its `{key}` is another one; run the release job, or ask an admin to allow this one"
    )]
    OtherJob {
        /// The key that did not hold.
        key: String,
    },
    /// A client key asked for a package that it was not registered for.
    #[error("this client key was not registered for this package; ask an admin to register it")]
    OtherPackage,
    /// Two entries match equally closely.
    #[error(
        "two [[package]] entries of policy.toml match this package equally closely; ask an admin to name it in one of them"
    )]
    Ambiguous,
    /// Nothing was asked for.
    #[error("the request names no item; name at least one package to publish")]
    Empty,
    /// Too many items.
    #[error("the request names too many items; split it")]
    TooMany,
    /// The same version twice in one request.
    #[error("the request names the same package and version twice; remove one")]
    Twice,
    /// Nothing to publish.
    #[error("the item has no files; build first, and name the files to publish")]
    NoFiles,
    /// Files, where the policy reveals a stored secret.
    #[error(
        "the policy's mode for this package is `reveal`, which hands out the stored secret and publishes no files; ask an admin to compare policy.toml"
    )]
    RevealsNoFiles,
    /// Files that are only announced, where the policy does not reveal the secret.
    #[error(
        "the policy does not hand out the token of this package (its mode is not `reveal`), so cargo cannot publish it by itself; use `countersign publish crates`"
    )]
    Announced,
    /// Items with different modes in one request.
    #[error("the items are handed out in different modes; ask for them in separate requests")]
    Modes,
    /// The mode is not the one that people approved.
    #[error(
        "the policy's mode for this package changed since the request was opened; open it again"
    )]
    ModeChanged,
    /// The policy was replaced while the request was being opened.
    #[error("the policy was replaced just now; try again")]
    PolicyChanged,
    /// No factor is accepted for all items (any more).
    #[error(
        "no second factor is accepted for every item of this request; ask an admin to compare `factors` in policy.toml"
    )]
    NoFactor,
    /// Fewer people could approve than must.
    #[error(
        "only {people} of the {quorum} people that must approve are enrolled and may answer this request; ask an admin to invite more"
    )]
    TooFewApprovers {
        /// Who could.
        people: u32,
        /// Who must.
        quorum: u32,
    },
    /// Too late.
    #[error("the request has expired; open it again")]
    Expired,
    /// The broker's clock stands before the request's beginning.
    #[error("the broker's clock went back; ask an admin to check it, then open the request again")]
    Clock,
    /// Frozen by a person.
    #[error("the package is frozen; two people must thaw it")]
    Frozen,
    /// Not a version of the demanded form.
    #[error("the version is not a semantic version like 1.4.2; correct it")]
    VersionForm,
    /// A pre-release where releases are wanted.
    #[error("a pre-release needs a tag other than `latest`; pass one, like `next`, or release it")]
    Prerelease,
    /// Published already.
    #[error("this version is published already; raise it")]
    Exists,
    /// Not newer than what is published.
    #[error("version {newest} is published already, and this one is older; raise it")]
    Older {
        /// The newest one there.
        newest: String,
    },
    /// The registry has tags, and the request names none.
    #[error("name the tag: without one the registry would take `latest`")]
    NoTag,
    /// Not an allowed tag.
    #[error("the policy does not allow this tag; use one that it allows, or ask an admin")]
    Tag,
    /// The registry has no tags.
    #[error("this registry has no tags; remove it")]
    TagUnknown,
    /// Nobody announced it, and the policy takes nothing else.
    #[error(
        "nobody announced this release, and the policy takes only announced ones; a maintainer announces it with `countersign intend`"
    )]
    Unsolicited,
    /// The hours of the items are never open together.
    #[error(
        "the policy's hours for these packages are never open together; ask for them in separate requests"
    )]
    NeverOpen,
    /// A secret lies in the files.
    #[error(
        "a secret lies in the files ({what}); revoke it, take it out and build again; if it is none, an admin sets `scan`"
    )]
    Secret {
        /// What and where.
        what: String,
    },
    /// The policy wants the files looked into, and nobody has (yet).
    #[error(
        "the policy wants the files inspected, and they are not yet; wait a moment, or hand them over with a current `countersign publish`"
    )]
    NotInspected,
    /// The policy wants the files looked into, and they cannot be.
    #[error(
        "the policy wants the files inspected, and the broker cannot look into them; build them again, or ask an admin to compare `scan`"
    )]
    NotInspectable,
    /// Nobody could compare the files with the version before.
    #[error(
        "the policy wants some things unchanged, and the version before could not be had for comparing; see that the registry answers, and open it again"
    )]
    NotCompared,
    /// The policy wants the files as in the source, and the job handed in none.
    #[error(
        "the policy wants nothing that is not in the source, and the job handed its source in too late or not at all; hand it in with --source"
    )]
    NoSource,
    /// Something changed that the policy wants unchanged.
    #[error(
        "the policy wants `{kind}` unchanged, and it is not ({what}); an admin changes `require_unchanged` for a release that is meant so"
    )]
    Changed {
        /// The kind.
        kind: FindingKind,
        /// What changed.
        what: String,
    },
    /// What is known does not fit the request: a fault of the broker.
    #[error(
        "the broker does not know enough about this request; open it again, and tell an admin if it happens twice"
    )]
    Facts,
}

impl Reason {
    /// A stable short name, for problem bodies, metrics and tests. What a stranger may not tell
    /// apart has one name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoMatch | Self::Stranger => "not-allowed",
            Self::OtherJob { .. } => "other-job",
            Self::OtherPackage => "other-package",
            Self::Ambiguous => "ambiguous-policy",
            Self::Empty => "empty",
            Self::TooMany => "too-many-items",
            Self::Twice => "item-twice",
            Self::NoFiles => "no-files",
            Self::RevealsNoFiles => "reveals-no-files",
            Self::Announced => "announced-only",
            Self::Modes => "mixed-modes",
            Self::ModeChanged => "mode-changed",
            Self::PolicyChanged => "policy-changed",
            Self::NoFactor => "no-factor",
            Self::TooFewApprovers { .. } => "too-few-approvers",
            Self::Expired => "expired",
            Self::Clock => "clock",
            Self::Frozen => "frozen",
            Self::VersionForm => "version-form",
            Self::Prerelease => "prerelease",
            Self::Exists => "version-exists",
            Self::Older { .. } => "version-older",
            Self::NoTag => "no-tag",
            Self::Tag => "tag-not-allowed",
            Self::TagUnknown => "tag-unknown",
            Self::Unsolicited => "unsolicited",
            Self::NeverOpen => "never-open",
            Self::Secret { .. } => "secret",
            Self::NotInspected => "not-inspected",
            Self::NotInspectable => "not-inspectable",
            Self::NotCompared => "not-compared",
            Self::NoSource => "no-source",
            Self::Changed { .. } => "changed",
            Self::Facts => "facts",
        }
    }
}
