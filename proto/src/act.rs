//! What one admin asks for and another one must agree to, as it travels.

use crate::{
    api::{InviteRequest, Invited, SecondFactor, TokenLine, TokenName},
    digest::Digest,
    ids::{GroupName, PackageName, PersonId, RegistryId, VersionText},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// An act of an admin that changes who may do what, or with which token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Act {
    /// Invites somebody new.
    Invite(InviteRequest),
    /// Gives a person these groups, and no others.
    ChangePerson {
        /// Who.
        person: PersonId,
        /// All groups from then on.
        groups: Vec<GroupName>,
        /// Whether an admin from then on.
        admin: bool,
    },
    /// Removes a person with all devices.
    RemovePerson {
        /// Who.
        person: PersonId,
    },
    /// Stores the first token of a registry and scope.
    AddToken(TokenPlace),
    /// Stores the next version of a token.
    RotateToken(TokenPlace),
    /// Makes the old version of a token that is kept the present one again.
    TokenBack(TokenReturn),
    /// Destroys all versions of a token.
    RemoveToken(TokenName),
    /// Gives the vault a fresh data key, and writes everything anew under it.
    Rekey,
    /// Marks a version at its registry as one that nobody should choose, or takes the mark away.
    Withdraw(Withdrawal),
    /// Puts another policy in force. The broker asks for it when it reads one that allows more.
    Policy {
        /// SHA-256 of the document.
        digest: Digest,
    },
}

/// Where a token is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPlace {
    /// The registry.
    pub registry: RegistryId,
    /// What the token covers: a package name or a pattern like `@acme/*` or `*`.
    pub scope: String,
    /// When the registry lets it expire, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
    /// Whether whoever asks says that the token is nowhere else any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emptied: bool,
    /// Of a rotation: the old one was seen, so none is kept, whatever is known of the new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_old: bool,
}

/// A way back to a token that is kept, with the versions that whoever asks has read: where they are others at the end
/// nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReturn {
    /// The registry.
    pub registry: RegistryId,
    /// What the token covers.
    pub scope: String,
    /// The version that is kept.
    pub kept: u64,
    /// The version that is present, and ends by it.
    pub present: u64,
}

/// A version that is withdrawn: yanked, deprecated. Its bytes stay where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The registry.
    pub registry: RegistryId,
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: VersionText,
    /// What users are told, where the registry shows such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The mark is taken away again.
    #[serde(default)]
    pub undo: bool,
}

impl Withdrawal {
    /// `npm:@acme/left@1.4.2`
    pub fn name(&self) -> String {
        format!("{}:{}@{}", self.registry, self.package, self.version)
    }

    /// `npm:@acme/left`
    pub fn package_key(&self) -> String {
        format!("{}:{}", self.registry, self.package)
    }
}

impl Act {
    /// What a second factor is about when this is asked for, and what people read:
    /// `invite bob, groups release, admin`.
    pub fn object(&self) -> String {
        match self {
            Self::Invite(asked) => {
                let mut text = format!("invite {}", asked.person);
                text.push_str(&rights(&asked.groups, asked.admin));
                if !asked.actors.is_empty() {
                    text = format!("{text}, actors {}", asked.actors.join(" "));
                }
                text
            }
            Self::ChangePerson {
                person,
                groups,
                admin,
            } => format!("change {person}{}", rights(groups, *admin)),
            Self::RemovePerson { person } => format!("remove {person}"),
            Self::AddToken(at) => format!("add token {}:{}", at.registry, at.scope),
            Self::RotateToken(at) => {
                let seen = if at.ends_old {
                    ", and keep no old one of it"
                } else {
                    ""
                };
                format!("rotate token {}:{}{seen}", at.registry, at.scope)
            }
            Self::TokenBack(at) => {
                let (registry, scope) = (&at.registry, &at.scope);
                format!(
                    "go back to version {} of token {registry}:{scope}, and end version {}",
                    at.kept, at.present
                )
            }
            Self::RemoveToken(at) => format!("remove token {}:{}", at.registry, at.scope),
            Self::Rekey => "re-key the vault".to_owned(),
            Self::Withdraw(what) if what.undo => format!("offer {} again", what.name()),
            Self::Withdraw(what) => match &what.message {
                None => format!("withdraw {}", what.name()),
                Some(message) => format!("withdraw {}: {message}", what.name()),
            },
            Self::Policy { digest } => format!("policy {digest}"),
        }
    }

    /// The person who loses something by it, and cannot be the one who agrees.
    pub const fn about(&self) -> Option<&PersonId> {
        match self {
            Self::RemovePerson { person } | Self::ChangePerson { person, .. } => Some(person),
            _ => None,
        }
    }
}

fn rights(groups: &[GroupName], admin: bool) -> String {
    let names: Vec<_> = groups.iter().map(GroupName::as_str).collect();
    let groups = if names.is_empty() {
        ", no group".to_owned()
    } else {
        format!(", groups {}", names.join(" "))
    };
    let admin = if admin { ", admin" } else { "" };
    format!("{groups}{admin}")
}

/// `POST /v1/admin/acts`
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct AskAct {
    /// What.
    #[zeroize(skip)]
    pub act: Act,
    /// The token, where it stores one; it goes in and never comes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Proof.
    #[zeroize(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<SecondFactor>,
}

/// `POST /v1/admin/acts/{id}/confirm`, and from a browser `…/veto`.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct AnswerAct {
    /// Proof.
    #[serde(flatten)]
    pub factor: SecondFactor,
}

/// Reply to whoever asks or confirms.
#[derive(Clone, Serialize, Deserialize)]
pub struct Acted {
    /// Whether it is done. Else it waits, as `act` says.
    pub done: bool,
    /// What waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<ActLine>,
    /// The invite that was made, shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invited: Option<Invited>,
    /// The token that was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenLine>,
}

/// An act that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActLine {
    /// Names it.
    pub id: String,
    /// What.
    pub act: Act,
    /// What a policy changes, in words, the weaker first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Who asked; absent: the broker, when it read its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PersonId>,
    /// When.
    pub asked: UnixTime,
    /// Who agreed.
    pub confirmed: Vec<PersonId>,
    /// How many admins must still agree.
    pub missing: usize,
    /// From when on it holds if nobody objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<UnixTime>,
    /// It is forgotten then.
    pub expires: UnixTime,
}

/// One difference between two policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Whether more is allowed by it.
    pub direction: Direction,
    /// What, in words.
    pub words: String,
}

/// What a difference does to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It allows more.
    Weaker,
    /// It allows less.
    Stronger,
    /// Neither.
    Neutral,
}

impl Direction {
    /// In a word.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Weaker => "weaker",
            Self::Stronger => "stronger",
            Self::Neutral => "neutral",
        }
    }
}

/// `GET /v1/admin/acts`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acts {
    /// All that waits, oldest first.
    pub acts: Vec<ActLine>,
    /// SHA-256 of the policy in force.
    pub policy: Digest,
}
