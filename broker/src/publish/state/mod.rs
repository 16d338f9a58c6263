//! The life of a request (design: open → pending → approved → releasing → published).
//!
//! Every transition consumes the old record and yields a [`Step`]: the new record with its audit
//! events. A [`Step`] has private fields and is made here alone, and `ledger::persist` is the one
//! function that stores one, so no state is ever stored without its event.
//!
//! [`asked`]: the transitions until something is released. [`sent`]: those from then on; [`held`]: what the
//! registry keeps back until its own second factor is given.
//! [`stopped`]: when an admin stops everything. [`status`]: what a ticket holder is told.

mod asked;
mod held;
mod sent;
mod status;
mod stopped;

pub use asked::Opening;

use crate::{
    audit::{event::Event, reason::DenyCause},
    policy::{Later, Terms},
    registry::StageId,
    vault::tokens::Scope,
};
use proto::{
    answer::{Evidence, Factor},
    api::{Mode, StateName},
    canonical::Canonical,
    digest::Digest,
    ids::{PersonId, RegistryId},
    intent::IntentEvidence,
    request::{RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds between approval and collecting.
pub const COLLECT_SECONDS: u64 = 15 * 60;
/// Seconds that a credential works.
pub const CREDENTIAL_SECONDS: u64 = 15 * 60;
/// Seconds after a credential's end in which an earlier attempt's bytes may still show up.
pub const LATE_SECONDS: u64 = 10 * 60;
/// Seconds in which the registry's own second factor must be given.
pub const FACTOR_SECONDS: u64 = 30 * 60;
/// Wrong match codes that one request takes from one person.
pub const MATCH_TRIES: u8 = 3;

/// A request as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What the digest covers.
    pub facts: RequestFacts,
    /// The digest.
    pub digest: RequestDigest,
    /// When it was opened.
    pub opened: UnixTime,
    /// Words of the job, unverified.
    pub note: Option<String>,
    /// The CI account that started the job, for requester exclusion.
    pub actor: Option<String>,
    /// Packages that the caller's client key may ask for; absent: no limit beyond the policy.
    pub limits: Option<Vec<String>>,
    /// The ticket's hash, hex.
    pub ticket: String,
    /// The credential's hash, hex, once it is out.
    pub credential: Option<String>,
    /// The idempotency row's key, hex.
    pub idempotency: String,
    /// Approvals needed, when it was opened. The policy decides again at release.
    pub quorum: u32,
    /// Accepted factors, when it was opened.
    pub factors: Vec<Factor>,
    /// Seconds for answers, when it was opened.
    pub answers_seconds: u64,
    /// How the permit is spent.
    pub mode: Mode,
    /// How long a minted token may live, in seconds, when it was opened.
    #[serde(default)]
    pub mint_seconds: u64,
    /// What the policy's other keys said, when it was opened.
    #[serde(default)]
    pub terms: Terms,
    /// The intents that it fitted when it was opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Fit>,
    /// When enough people had approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<UnixTime>,
    /// When it was collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<UnixTime>,
    /// MAC of what decides beside the digest, hex; made when it is opened.
    #[serde(default)]
    pub bound: String,
    /// Where in the log its publish is, or shortly before.
    #[serde(default)]
    pub leaf_from: Option<u64>,
    /// Files of which an attempt ended without a clear word and that were not shown since: item and file.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unclear: BTreeSet<(u32, u32)>,
    /// Whether the alarm for them was given.
    #[serde(default)]
    pub told: bool,
    /// Files that left with a token of which nobody knew whether its registry takes it, and that it did not refuse since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_with: Vec<SentWith>,
    /// When an admin stopped everything after a part of it had left: nothing more leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<UnixTime>,
    /// Grows with every change.
    pub revision: u64,
    /// Where it stands.
    pub state: State,
}

/// The version of a token with which a file was sent last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentWith {
    /// Item and file.
    pub file: (u32, u32),
    /// Under whose name the token is stored.
    pub registry: RegistryId,
    /// The packages that it is for.
    pub scope: Scope,
    /// Which version of it.
    pub version: u64,
}

/// An intent that a request fitted when it was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fit {
    /// The intent, to be verified again whenever it counts.
    pub evidence: IntentEvidence,
    /// Whether it counted as an approval then; from the approval on, whether it was one of those that did. It
    /// decides nothing: receipts and people are told it.
    pub counts: bool,
}

/// Where a request stands. Each variant holds exactly what is legal then.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum State {
    /// Waits for answers.
    Pending {
        /// Approvals so far.
        evidence: Vec<Evidence>,
        /// Wrong tries per person.
        tries: BTreeMap<PersonId, Tries>,
    },
    /// Enough answers; waits to be collected.
    Approved {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// Collecting works until then.
        collect_by: UnixTime,
        /// Until when it does not work yet, as far as was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        later: Option<Later>,
    },
    /// The credential is out.
    Releasing {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// The credential works until then.
        until: UnixTime,
        /// The blob sealed to the job's key; the same on every fetch.
        sealed: String,
        /// Per item and file, how far it is.
        progress: Vec<Vec<Progress>>,
    },
    /// Done.
    Published {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// The blob, for a reply that was lost.
        sealed: String,
        /// Per item and file, the digest that was read back.
        read_back: Vec<Vec<Digest>>,
    },
    /// The registry shows other bytes for one of the files.
    Conflict {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// Per item and file, how far it was.
        progress: Vec<Vec<Progress>>,
    },
    /// A person or a freeze said no.
    Denied {
        /// Who.
        by: Option<PersonId>,
        /// Words of that person.
        reason: Option<String>,
        /// Another request for the same version was approved, or the package was frozen.
        cause: DenyCause,
    },
    /// Too late.
    Expired {
        /// In which state it stood.
        was: StateName,
        /// The approvals so far.
        evidence: Vec<Evidence>,
        /// Per item and file, how far it was; empty when no credential was out.
        progress: Vec<Vec<Progress>>,
    },
    /// The job took it back.
    Cancelled,
}

/// Wrong tries of one person at one request.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tries {
    /// Match codes.
    pub match_code: u8,
    /// TOTP codes.
    pub totp: u8,
}

/// One file of a request: which item, and which of its files, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAt {
    /// The item.
    pub item: usize,
    /// The item's file.
    pub file: usize,
}

impl FileAt {
    /// Item and file as the log and the store's keys have them.
    pub fn numbers(self) -> (u32, u32) {
        let number = |index| u32::try_from(index).unwrap_or(u32::MAX);
        (number(self.item), number(self.file))
    }
}

/// How far one file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing left the broker (or the registry refused and shows nothing).
    Waiting {
        /// Attempts so far.
        attempt: u32,
        /// What the registry said to the last one.
        said: Option<String>,
        /// What it keeps back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
    },
    /// Bytes may be on their way. After a crash this is read as `Settling`.
    Sending {
        /// Which attempt.
        attempt: u32,
        /// Since when.
        since: UnixTime,
        /// What the registry keeps back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
    },
    /// The answer was unclear; the registry is read back.
    Settling {
        /// Which attempt.
        attempt: u32,
        /// Since when.
        since: UnixTime,
        /// What the registry keeps back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
    },
    /// The registry wants its own second factor before it publishes. Nothing is on its way.
    Held {
        /// Attempts so far.
        attempt: u32,
        /// What it keeps back, and until when.
        hold: Hold,
    },
    /// The registry shows the approved bytes.
    Published {
        /// As read back.
        read_back: Digest,
    },
    /// The registry shows other bytes.
    Conflict {
        /// As read back.
        read_back: Digest,
    },
}

/// What a registry keeps back until one of its own people gives its second factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// It is waited for until then, however often it is asked for.
    pub until: UnixTime,
    /// The stage that holds the bytes; absent: the registry holds nothing, and they are sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageId>,
}

/// A transition that has not been stored yet.
#[derive(Debug)]
pub struct Step {
    record: Record,
    events: Vec<Event>,
}

impl Step {
    pub(super) fn into_parts(self) -> (Record, Vec<Event>) {
        (self.record, self.events)
    }
    /// The record as it will be.
    pub const fn record(&self) -> &Record {
        &self.record
    }
}

/// The record is not in a state from which this transition leads.
#[derive(Debug, thiserror::Error)]
#[error("the request is {}", .0.text())]
pub struct NotFrom(pub StateName);

impl Record {
    fn step(mut self, events: Vec<Event>) -> Step {
        self.revision += 1;
        Step {
            record: self,
            events,
        }
    }

    fn not_from(&self) -> NotFrom {
        NotFrom(self.name())
    }

    /// The state in one word.
    pub fn name(&self) -> StateName {
        match &self.state {
            State::Pending { .. } => StateName::Pending,
            State::Approved { .. } => StateName::Approved,
            State::Releasing { progress, .. } => {
                let any = |f: fn(&Progress) -> bool| progress.iter().flatten().any(f);
                if any(|p| matches!(p, Progress::Settling { .. })) {
                    StateName::Settling
                } else if any(|p| matches!(p, Progress::Held { .. })) {
                    StateName::Confirming
                } else {
                    StateName::Releasing
                }
            }
            State::Published { .. } => StateName::Published,
            State::Conflict { .. } => StateName::Conflict,
            State::Denied { .. } => StateName::Denied,
            State::Expired { .. } => StateName::Expired,
            State::Cancelled => StateName::Cancelled,
        }
    }

    /// What decides and is not covered by the digest that people sign: bound by the broker's own MAC,
    /// so that who writes the database cannot drop the requester's exclusion or lower a quorum.
    pub fn beside_the_digest(&self) -> Vec<u8> {
        let mut c = Canonical::new("countersign/request-row/v1")
            .bytes(&self.digest.0)
            .number(self.opened.0)
            .maybe(self.actor.as_deref())
            .number(self.limits.as_ref().map_or(0, |l| l.len() as u64 + 1));
        for package in self.limits.iter().flatten() {
            c = c.text(package);
        }
        c = c
            .text(&self.ticket)
            .number(u64::from(self.quorum))
            .number(self.answers_seconds)
            .text(match self.mode {
                Mode::Forward => "forward",
                Mode::Deposit => "deposit",
                Mode::Mint => "mint",
                Mode::Reveal => "reveal",
            });
        if self.mode == Mode::Mint {
            c = c.number(self.mint_seconds);
        }
        // Rows from before these keys have none, and their MAC holds still.
        if self.terms != Terms::default() || !self.intents.is_empty() {
            c = c
                .number(u64::from(self.terms.commit_counts))
                .number(self.terms.veto_seconds)
                .number(self.terms.hours.len() as u64);
            for hours in &self.terms.hours {
                c = c.text(&hours.text());
            }
            c = c.number(self.intents.len() as u64);
            for fit in &self.intents {
                c = c.bytes(fit.evidence.id.0.as_bytes());
            }
        }
        c = c.number(self.factors.len() as u64);
        for factor in &self.factors {
            c = c.text(factor.name());
        }
        c.finish()
    }

    /// When it expires next, if it can.
    pub fn expires(&self) -> UnixTime {
        match &self.state {
            State::Approved { collect_by, .. } => *collect_by,
            State::Releasing { until, .. } => *until,
            _ => self.facts.expires,
        }
    }

    /// Until when the job gets what it collected once more; a secret, unlike a credential, ends nowhere else. It
    /// counts from the collecting, which a veto or the hours may hold back for long. Whoever writes the database could
    /// make it longer; what he gives again is sealed to the same job's key.
    pub fn told_again_until(&self) -> UnixTime {
        match &self.state {
            State::Published { .. } if self.mode == Mode::Reveal => {
                let collected = self.collected.unwrap_or(UnixTime(0));
                collected.after(CREDENTIAL_SECONDS)
            }
            _ => self.expires(),
        }
    }

    /// Whether its time is over. Bytes on their way do not expire: they are settled first.
    pub fn overdue(&self, now: UnixTime) -> bool {
        match &self.state {
            State::Pending { .. } | State::Approved { .. } => now >= self.expires(),
            State::Releasing {
                until, progress, ..
            } => {
                // What was sent once is read back for a while longer: it may show up late.
                let late = until.after(LATE_SECONDS);
                progress.iter().flatten().all(|p| match p {
                    Progress::Waiting { attempt: 0, .. } | Progress::Published { .. } => {
                        now >= *until
                    }
                    Progress::Waiting { .. } => now >= late,
                    Progress::Held { hold, .. } => now >= hold.until,
                    _ => false,
                })
            }
            _ => false,
        }
    }

    /// The approvals so far.
    pub fn evidence(&self) -> &[Evidence] {
        match &self.state {
            State::Pending { evidence, .. }
            | State::Approved { evidence, .. }
            | State::Releasing { evidence, .. }
            | State::Published { evidence, .. }
            | State::Conflict { evidence, .. }
            | State::Expired { evidence, .. } => evidence,
            State::Denied { .. } | State::Cancelled => &[],
        }
    }

    /// When enough people had approved: not before the last of them signed, nor before it was asked for. So
    /// much can be told without believing the row (attack 44).
    pub fn approved_at(&self) -> Option<UnixTime> {
        let signed = self.evidence().iter().map(|e| e.statement.time).max();
        let least = signed.unwrap_or(self.opened).max(self.opened);
        self.approved.map(|approved| approved.max(least))
    }

    /// Until when it is approved and cannot be collected yet.
    pub fn later(&self, now: UnixTime) -> Option<Later> {
        match &self.state {
            State::Approved { later, .. } => later.filter(|l| now < l.until),
            _ => None,
        }
    }

    /// The intents that counted as approvals when it was opened, or, of what is approved, those that it was approved
    /// with; but of those who answered nonetheless.
    pub fn counting(&self) -> impl Iterator<Item = &IntentEvidence> {
        let answered = |e: &IntentEvidence| self.evidence().iter().any(|a| a.person == e.person);
        let counting = self.intents.iter().filter(|fit| fit.counts);
        counting
            .map(|fit| &fit.evidence)
            .filter(move |e| !answered(e))
    }

    /// How many people have said yes, so far as is known without asking whether their announcements still hold.
    pub fn approvals(&self) -> u32 {
        let all = self.evidence().len() + self.counting().count();
        u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// Whether it ended before any byte of it left the broker.
    pub fn never_left(&self) -> bool {
        match &self.state {
            State::Expired { progress, .. } => progress
                .iter()
                .flatten()
                .all(|p| matches!(p, Progress::Waiting { attempt: 0, .. })),
            _ => false,
        }
    }

    /// How far a file is, once the credential is out.
    pub fn progress(&self, at: FileAt) -> Option<&Progress> {
        match &self.state {
            State::Releasing { progress, .. }
            | State::Conflict { progress, .. }
            | State::Expired { progress, .. } => progress.get(at.item)?.get(at.file),
            _ => None,
        }
    }

    /// Every file, in the request's order.
    pub fn files(&self) -> impl Iterator<Item = FileAt> + use<> {
        let counts: Vec<_> = self.facts.items.iter().map(|i| i.files.len()).collect();
        counts
            .into_iter()
            .enumerate()
            .flat_map(|(item, count)| (0..count).map(move |file| FileAt { item, file }))
    }
}

#[cfg(test)]
mod tests;
