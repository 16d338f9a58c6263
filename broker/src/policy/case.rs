//! All that a rule can see. No store, no clock, no network: what is not in here decides nothing.

use super::{
    file::Entry,
    hours::{self, Hours},
    keys::Unsolicited,
};
use crate::challenge::approval::Approval;
use proto::{
    answer::Factor,
    api::Mode,
    card::{Card, Outcome, Previous, Risk},
    digest::Digest,
    ids::{GroupName, PersonId, VersionText},
    intent::Names,
    request::{CallerFacts, Item},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// When the decision is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before anybody is rung.
    Open,
    /// When enough answers may be there, and again when it is collected.
    Release,
}

/// A person who is enrolled right now.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub id: PersonId,
    /// Groups.
    pub groups: Vec<GroupName>,
    /// Accounts at CI issuers, like `github:12345`.
    pub actors: Vec<String>,
}

/// What the policy said about a whole request when it was opened; kept with it, so that a policy
/// weakened meanwhile cannot release what people were asked under a stricter one (attack 29).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// Distinct people who must approve: the most that an item asks for.
    pub quorum: u32,
    /// Proofs that every item accepts.
    pub factors: Vec<Factor>,
    /// How long answers are taken, in seconds: the shortest time of all items.
    pub answers_seconds: u64,
    /// How the permit is spent.
    pub mode: Mode,
    /// How long a minted token lives, in seconds: the shortest life of all items.
    pub mint_seconds: u64,
    /// What the policy's other keys said.
    #[serde(default)]
    pub terms: Terms,
}

/// What the policy's other keys said of a whole request when it was opened: the strictest of all items. What
/// is not there is the stricter of both, or what it was before the key existed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Whether an intent that names the commit, and no digests, counts as an approval.
    #[serde(default)]
    pub commit_counts: bool,
    /// Seconds after the approval in which anybody who approves may still deny: the most of all items.
    #[serde(default)]
    pub veto_seconds: u64,
    /// The hours of each item that has some.
    #[serde(default)]
    pub hours: Vec<Hours>,
    /// What becomes of a request that nobody announced.
    #[serde(default)]
    pub unsolicited: Unsolicited,
}

impl Terms {
    /// Both at once: the stricter of each.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.commit_counts &= other.commit_counts;
        self.veto_seconds = self.veto_seconds.max(other.veto_seconds);
        for hours in other.hours {
            if !self.hours.contains(&hours) {
                self.hours.push(hours);
            }
        }
        self.unsolicited = self.unsolicited.max(other.unsolicited);
        self
    }
}

/// What is known about one item from outside the request.
#[derive(Clone, Copy, Debug)]
pub struct ItemNow<'a> {
    /// Whether the package is frozen.
    pub frozen: bool,
    /// Whether its registry has tags.
    pub has_tags: bool,
    /// Versions that the registry shows; `None` when it has not been read.
    pub published: Option<&'a [VersionText]>,
    /// What is known of the bytes: one card a file, once people are asked.
    pub cards: &'a [Card],
}

/// What is known right now, beside the request and the policy.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The time.
    pub now: UnixTime,
    /// When the request was opened.
    pub opened: UnixTime,
    /// The deadline of what is being done: for answers, then for collecting.
    pub expires: UnixTime,
    /// The CI account that started the job, like `github:12345`, if the issuer says.
    pub actor: Option<&'a str>,
    /// Packages that the client key was registered for (`npm:@acme/left`), if a client key asks.
    pub client_key_packages: Option<&'a [String]>,
    /// When enough people had approved; `None` before.
    pub approved: Option<UnixTime>,
    /// Whether it fits what somebody announced.
    pub intended: bool,
    /// Approvals of exactly this request, verified just now.
    pub approvals: &'a [Approval],
    /// Everybody who is enrolled.
    pub people: &'a [Person],
    /// One per item, in the request's order.
    pub items: &'a [ItemNow<'a>],
}

/// One item under one entry of the policy.
#[derive(Debug)]
pub struct Case<'a> {
    /// When the decision is taken.
    pub stage: Stage,
    /// What is to be published.
    pub item: &'a Item,
    /// Who asks.
    pub caller: &'a CallerFacts,
    /// What the policy says about it now.
    pub entry: &'a Entry,
    /// What it said when the request was opened; `None` while it is being opened.
    pub at_open: Option<&'a Admitted>,
    /// Digest of the policy now.
    pub policy_now: &'a Digest,
    /// Digest of the policy in the request.
    pub policy_of_request: &'a Digest,
    /// Time, people, answers.
    pub around: &'a Now<'a>,
    /// Freeze, tags, published versions.
    pub here: &'a ItemNow<'a>,
}

impl Case<'_> {
    /// How many must approve: never fewer than when people were asked (attack 29).
    pub fn quorum(&self) -> u32 {
        self.entry.quorum.max(self.at_open.map_or(0, |a| a.quorum))
    }

    /// How long a minted token lives: never longer than when people were asked (attack 38).
    pub fn mint_seconds(&self) -> u64 {
        let now = self.entry.mint_seconds;
        self.at_open.map_or(now, |a| now.min(a.mint_seconds))
    }

    /// Whether a proof is accepted: now, when people were asked, and for the risk that is in the bytes.
    pub fn accepts(&self, factor: Factor) -> bool {
        let risky = self.entry.risky_factors.as_ref();
        let risky = risky.filter(|_| self.stage == Stage::Release && is_risky(self.here.cards));
        self.entry.factors.contains(&factor)
            && self.at_open.is_none_or(|a| a.factors.contains(&factor))
            && risky.is_none_or(|strong| strong.contains(&factor))
    }

    /// What holds beside the quorum: now and, never less, when people were asked (attack 29).
    pub fn terms(&self) -> Terms {
        let now = Terms {
            commit_counts: self.entry.commit_counts,
            veto_seconds: self.entry.veto_seconds,
            hours: self.entry.hours.iter().cloned().collect(),
            unsolicited: self.entry.unsolicited,
        };
        match self.at_open {
            None => now,
            Some(at_open) => now.and(at_open.terms.clone()),
        }
    }

    /// When the time for a veto is over: counted from the approval, or from now while there is none.
    pub fn veto_ends(&self) -> UnixTime {
        let approved = self.around.approved.unwrap_or(self.around.now);
        approved.after(self.terms().veto_seconds)
    }

    /// The first moment from this one on in which the hours let it out; `None` if they never do.
    pub fn opens(&self, from: UnixTime) -> Option<UnixTime> {
        hours::all_open(&self.terms().hours, from)
    }

    /// Whether an approval is of a kind that counts here.
    pub fn counts(&self, approval: &Approval) -> bool {
        self.accepts(approval.factor())
            && match approval.intent() {
                // What a job gets from a mint or a reveal is good for other bytes than the announced ones.
                Some(_) if !matches!(self.entry.mode, Mode::Forward | Mode::Deposit) => false,
                None | Some(Names::Bytes) => true,
                Some(Names::Commit) => self.terms().commit_counts,
                Some(Names::Versions) => false,
            }
    }

    /// Whether this person may approve this item right now.
    pub fn may_approve(&self, person: &Person) -> bool {
        self.entry.may_be_approved_by(person, self.around.actor)
    }
}

/// Whether the bytes are a risk: something of high risk stands out, nobody has looked into them, or nobody could
/// compare them. Whoever names a file so that it has no counterpart would switch the comparison off.
pub fn is_risky(cards: &[Card]) -> bool {
    let calm = |card: &Card| {
        card.outcome == Outcome::Inspected
            && card.previous != Previous::Unknown
            && card.findings.iter().all(|f| f.risk < Risk::High)
    };
    cards.is_empty() || !cards.iter().all(calm)
}
