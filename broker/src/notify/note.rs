//! All that a notification can say. A closed list of fixed sentences and a request's id: no package, no person,
//! no code, no ticket, and no address that answers anything (attack 34).

use proto::{ids::RequestId, time::UnixTime};
use serde::{Deserialize, Serialize};

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// A request waits for this person.
    Waits,
    /// A request is approved, and can still be denied.
    Veto,
    /// Something was frozen, denied, or is published that nobody approved.
    Alarm,
    /// An admin stopped everything.
    Stopped,
    /// A registry asks the people of a package for its own second factor.
    Factor,
    /// An admin wants a package thawed; a second one is needed.
    Thaw,
    /// What opens the vault is to change.
    Custody,
    /// An admin asks for what a second one must agree to.
    Act,
    /// The policy is to allow more.
    Policy,
    /// The database is an older copy; an admin agreed to go on with it.
    Restored,
    /// Somebody's lost factors are to be replaced.
    Recovery,
    /// A registry token is to be rotated, or an old one to be revoked.
    Token,
    /// One of the person's own channels was removed.
    Settings,
    /// The person pressed the test button.
    Test,
}

impl About {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Veto => "veto",
            Self::Alarm => "alarm",
            Self::Stopped => "stopped",
            Self::Factor => "factor",
            Self::Thaw => "thaw",
            Self::Custody => "custody",
            Self::Act => "act",
            Self::Policy => "policy",
            Self::Restored => "restored",
            Self::Recovery => "recovery",
            Self::Token => "token",
            Self::Settings => "settings",
            Self::Test => "test",
        }
    }

    /// The sentence that a person reads.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Waits => "Something waits for your answer.",
            Self::Veto => "Something is approved, and can still be denied: look at it now.",
            Self::Alarm => "An alarm: look at the inbox.",
            Self::Stopped => "An admin stopped everything: look at the inbox.",
            Self::Factor => "A registry asks for its own second factor: look at the inbox.",
            Self::Thaw => "A thaw waits for a second admin.",
            Self::Custody => "What opens the vault is about to change: look who asks for it.",
            Self::Act => "An admin asks for something that a second one must agree to: look at it.",
            Self::Policy => {
                "The policy is to allow more: look at what changes, and object if it should not."
            }
            Self::Restored => "The broker was put back to an older state: look what was lost.",
            Self::Recovery => "Somebody's lost factors are to be replaced: look who asks for it.",
            Self::Token => {
                "A registry token is to be rotated or revoked: look at the list of tokens."
            }
            Self::Settings => {
                "One of your channels was removed: if that was not you, look at your devices."
            }
            Self::Test => "This is a test: you would be rung like this.",
        }
    }

    /// Whether somebody is asked to act soon.
    pub const fn is_urgent(self) -> bool {
        !matches!(self, Self::Test | Self::Token)
    }
}

/// One notification.
#[derive(Clone, Debug)]
pub struct Note {
    /// The message's own id: a repeated delivery is seen as one.
    pub message: RequestId,
    /// What it is about.
    pub about: About,
    /// Which request.
    pub request: Option<RequestId>,
    /// The page where an enrolled device looks. Opening it does nothing.
    pub page: String,
    /// When it is of no use any more.
    pub until: UnixTime,
}

/// A note's members, for the programs that show it.
#[derive(Serialize)]
pub struct Payload<'a> {
    /// What it is about.
    pub about: &'a str,
    /// Which request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
}

impl Note {
    /// What a program is told.
    pub fn payload(&self) -> Payload<'static> {
        Payload {
            about: self.about.name(),
            id: self.request,
        }
    }
}
