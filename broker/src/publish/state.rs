//! The life of a request (design: open → pending → approved → releasing → published).
//!
//! Every transition consumes the old record and yields a [`Step`]: the new record with its audit
//! events. A [`Step`] has private fields and is made here alone, and `ledger::persist` is the one
//! function that stores one, so no state is ever stored without its event.

use crate::{
    audit::{event::Event, reason::DenyCause},
    caller::Caller,
    policy::Admitted,
};
use proto::{
    answer::{Evidence, Factor},
    api::{ItemStatus, Mode, StateName, Status},
    bearer::BearerHash,
    canonical::Canonical,
    digest::{Digest, hex},
    ids::PersonId,
    log::receipt::PublishedItem,
    request::{Item, RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seconds between approval and collecting.
pub const COLLECT_SECONDS: u64 = 15 * 60;
/// Seconds that a credential works.
pub const CREDENTIAL_SECONDS: u64 = 15 * 60;
/// Seconds after a credential's end in which an earlier attempt's bytes may still show up.
pub const LATE_SECONDS: u64 = 10 * 60;
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
    /// MAC of what decides beside the digest, hex; made when it is opened.
    #[serde(default)]
    pub bound: String,
    /// Where in the log its publish is, or shortly before.
    #[serde(default)]
    pub leaf_from: Option<u64>,
    /// Grows with every change.
    pub revision: u64,
    /// Where it stands.
    pub state: State,
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
    },
    /// The credential is out.
    Releasing {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// The credential works until then.
        until: UnixTime,
        /// The blob sealed to the job's key; the same on every fetch.
        sealed: String,
        /// Per item, how far it is.
        progress: Vec<Progress>,
    },
    /// Done.
    Published {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// The blob, for a reply that was lost.
        sealed: String,
        /// Per item, the digest that was read back.
        read_back: Vec<Option<Digest>>,
    },
    /// The registry shows other bytes for one of the items.
    Conflict {
        /// The approvals.
        evidence: Vec<Evidence>,
        /// Per item, how far it was.
        progress: Vec<Progress>,
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

/// How far one item is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing left the broker (or the registry refused and shows nothing).
    Waiting {
        /// Attempts so far.
        attempt: u32,
        /// What the registry said to the last one.
        said: Option<String>,
    },
    /// Bytes may be on their way. After a crash this is read as `Settling`.
    Sending {
        /// Which attempt.
        attempt: u32,
        /// Since when.
        since: UnixTime,
    },
    /// The answer was unclear; the registry is read back.
    Settling {
        /// Which attempt.
        attempt: u32,
        /// Since when.
        since: UnixTime,
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

/// What a new request consists of beside its caller.
pub struct Opening<'a> {
    /// What the digest covers; its caller facts are the caller's.
    pub facts: RequestFacts,
    /// Who asks: a proof, so that nothing is opened for an unverified token.
    pub caller: &'a Caller,
    /// What the policy said.
    pub admitted: &'a Admitted,
    /// Words of the job.
    pub note: Option<String>,
    /// The ticket's hash.
    pub ticket: BearerHash,
    /// The idempotency row's key.
    pub idempotency: &'a [u8],
    /// Now.
    pub now: UnixTime,
}

impl Record {
    /// A new pending request.
    pub fn open(opening: Opening<'_>) -> Step {
        let Opening {
            facts,
            caller,
            admitted,
            note,
            ticket,
            idempotency,
            now,
        } = opening;
        let digest = facts.digest();
        let event = Event::RequestOpened {
            request: facts.id,
            digest,
            items: facts.items.iter().map(Item::name).collect(),
            issuer: facts.caller.issuer.clone(),
            subject: facts.caller.subject.clone(),
        };
        let record = Self {
            digest,
            opened: now,
            note,
            actor: caller.actor().map(str::to_owned),
            limits: caller.limits().map(<[String]>::to_vec),
            ticket: hex(&ticket.0),
            credential: None,
            idempotency: hex(idempotency),
            quorum: admitted.quorum,
            factors: admitted.factors.clone(),
            answers_seconds: admitted.answers_seconds,
            mode: admitted.mode,
            bound: String::new(),
            leaf_from: None,
            revision: 1,
            state: State::Pending {
                evidence: Vec::new(),
                tries: BTreeMap::new(),
            },
            facts,
        };
        Step {
            record,
            events: vec![event],
        }
    }

    /// Another approval. `enough` says that policy would permit with it.
    pub fn approve(mut self, new: Evidence, enough: bool, now: UnixTime) -> Result<Step, NotFrom> {
        let State::Pending { evidence, tries } = &self.state else {
            return Err(self.not_from());
        };
        let (mut evidence, tries) = (evidence.clone(), tries.clone());
        let mut events = vec![Event::AnswerAccepted {
            request: self.facts.id,
            digest: self.digest,
            person: new.person.clone(),
            device: new.statement.device.clone(),
            factor: new.factor,
            decision: new.statement.decision,
        }];
        evidence.push(new);
        self.state = if enough {
            events.push(Event::RequestApproved {
                request: self.facts.id,
                digest: self.digest,
            });
            State::Approved {
                evidence,
                collect_by: now.after(COLLECT_SECONDS),
            }
        } else {
            State::Pending { evidence, tries }
        };
        Ok(self.step(events))
    }

    /// A wrong match code or factor: charged, nothing else.
    pub fn charge(mut self, person: &PersonId, add: Tries, event: Event) -> Result<Step, NotFrom> {
        let State::Pending { tries, .. } = &mut self.state else {
            return Err(self.not_from());
        };
        let t = tries.entry(person.clone()).or_default();
        t.match_code = t.match_code.saturating_add(add.match_code);
        t.totp = t.totp.saturating_add(add.totp);
        Ok(self.step(vec![event]))
    }

    /// A denial, by a person, a freeze or a rival. Possible until bytes are on their way.
    pub fn deny(
        mut self,
        by: Option<&Evidence>,
        reason: Option<String>,
        cause: DenyCause,
    ) -> Result<Step, NotFrom> {
        match &self.state {
            State::Pending { .. } | State::Approved { .. } => {}
            _ => return Err(self.not_from()),
        }
        let mut events = Vec::new();
        if let Some(e) = by {
            events.push(Event::AnswerAccepted {
                request: self.facts.id,
                digest: self.digest,
                person: e.person.clone(),
                device: e.statement.device.clone(),
                factor: e.factor,
                decision: e.statement.decision,
            });
        }
        let by = by.map(|e| e.person.clone());
        events.push(Event::RequestDenied {
            request: self.facts.id,
            person: by.clone(),
            cause,
        });
        self.state = State::Denied { by, reason, cause };
        Ok(self.step(events))
    }

    /// Too late: unanswered, uncollected or unused.
    pub fn expire(mut self, now: UnixTime) -> Result<Step, NotFrom> {
        if !self.overdue(now) {
            return Err(self.not_from());
        }
        let was = self.name();
        self.state = State::Expired { was };
        let event = Event::RequestExpired {
            request: self.facts.id,
        };
        Ok(self.step(vec![event]))
    }

    /// The job takes it back; possible until the credential is out.
    pub fn cancel(mut self) -> Result<Step, NotFrom> {
        match &self.state {
            State::Pending { .. } | State::Approved { .. } => {}
            _ => return Err(self.not_from()),
        }
        self.state = State::Cancelled;
        let event = Event::RequestCancelled {
            request: self.facts.id,
        };
        Ok(self.step(vec![event]))
    }

    /// The credential goes out (forward): the state and the sealed blob are one commit.
    pub fn collect(
        mut self,
        credential: BearerHash,
        sealed: String,
        now: UnixTime,
    ) -> Result<Step, NotFrom> {
        let State::Approved { evidence, .. } = &self.state else {
            return Err(self.not_from());
        };
        let evidence = evidence.clone();
        self.credential = Some(hex(&credential.0));
        let progress = self
            .facts
            .items
            .iter()
            .map(|_| Progress::Waiting {
                attempt: 0,
                said: None,
            })
            .collect();
        self.state = State::Releasing {
            evidence,
            until: now.after(CREDENTIAL_SECONDS),
            sealed,
            progress,
        };
        let event = Event::Collected {
            request: self.facts.id,
            mode: Mode::Forward,
        };
        Ok(self.step(vec![event]))
    }

    /// The secret goes out (reveal): burnt at once.
    pub fn reveal(mut self, sealed: String) -> Result<Step, NotFrom> {
        let State::Approved { evidence, .. } = &self.state else {
            return Err(self.not_from());
        };
        let evidence = evidence.clone();
        let events = vec![
            Event::Collected {
                request: self.facts.id,
                mode: Mode::Reveal,
            },
            Event::Revealed {
                request: self.facts.id,
                secret: self.facts.items.first().map(Item::name).unwrap_or_default(),
            },
        ];
        let read_back = self.facts.items.iter().map(|_| None).collect();
        self.state = State::Published {
            evidence,
            sealed,
            read_back,
        };
        Ok(self.step(events))
    }

    /// Durable before the first byte leaves.
    pub fn sending(mut self, item: usize, now: UnixTime) -> Result<Step, NotFrom> {
        let State::Releasing { progress, .. } = &mut self.state else {
            return Err(self.not_from());
        };
        let attempt = match progress.get_mut(item) {
            Some(p @ (Progress::Waiting { .. } | Progress::Settling { .. })) => {
                let (Progress::Waiting { attempt, .. } | Progress::Settling { attempt, .. }) = *p
                else {
                    return Err(self.not_from());
                };
                *p = Progress::Sending {
                    attempt: attempt + 1,
                    since: now,
                };
                attempt + 1
            }
            _ => return Err(self.not_from()),
        };
        let item = u32::try_from(item).unwrap_or(u32::MAX);
        let event = Event::Releasing {
            request: self.facts.id,
            item,
            attempt,
        };
        Ok(self.step(vec![event]))
    }

    /// The answer was unclear.
    pub fn unclear(mut self, item: usize, now: UnixTime) -> Result<Step, NotFrom> {
        let State::Releasing { progress, .. } = &mut self.state else {
            return Err(self.not_from());
        };
        match progress.get_mut(item) {
            Some(p @ Progress::Sending { .. }) => {
                if let Progress::Sending { attempt, .. } = *p {
                    *p = Progress::Settling {
                        attempt,
                        since: now,
                    };
                }
            }
            _ => return Err(self.not_from()),
        }
        let item = u32::try_from(item).unwrap_or(u32::MAX);
        let event = Event::Settling {
            request: self.facts.id,
            item,
        };
        Ok(self.step(vec![event]))
    }

    /// The registry said no and shows nothing: the same bytes may be sent again.
    pub fn absent(mut self, item: usize, said: Option<String>) -> Result<Step, NotFrom> {
        let State::Releasing { progress, .. } = &mut self.state else {
            return Err(self.not_from());
        };
        match progress.get_mut(item) {
            Some(p @ (Progress::Sending { .. } | Progress::Settling { .. })) => {
                if let Progress::Sending { attempt, .. } | Progress::Settling { attempt, .. } = *p {
                    *p = Progress::Waiting { attempt, said };
                }
            }
            _ => return Err(self.not_from()),
        }
        let item = u32::try_from(item).unwrap_or(u32::MAX);
        let event = Event::Settling {
            request: self.facts.id,
            item,
        };
        Ok(self.step(vec![event]))
    }

    /// The registry shows this digest for an item: the approved one, or another.
    pub fn shows(mut self, item: usize, read_back: Digest) -> Result<Step, NotFrom> {
        let approved = self
            .facts
            .items
            .get(item)
            .and_then(|i| i.files.first())
            .map(|f| &f.digest);
        let same = approved == Some(&read_back);
        let name = self
            .facts
            .items
            .get(item)
            .map(Item::name)
            .unwrap_or_default();
        let id = self.facts.id;
        let State::Releasing { progress, .. } = &mut self.state else {
            return Err(self.not_from());
        };
        match progress.get_mut(item) {
            Some(
                p @ (Progress::Sending { .. }
                | Progress::Settling { .. }
                | Progress::Waiting { .. }),
            ) => {
                *p = if same {
                    Progress::Published {
                        read_back: read_back.clone(),
                    }
                } else {
                    Progress::Conflict {
                        read_back: read_back.clone(),
                    }
                };
            }
            _ => return Err(self.not_from()),
        }
        let number = u32::try_from(item).unwrap_or(u32::MAX);
        let events = if same {
            vec![Event::Published {
                request: id,
                digest: self.digest,
                name,
                read_back: vec![read_back],
            }]
        } else {
            vec![Event::Conflict {
                request: id,
                item: number,
            }]
        };
        Ok(self.finished(events))
    }

    /// Ends a release whose items are all published, or one of which conflicts.
    fn finished(mut self, mut events: Vec<Event>) -> Step {
        self.state = match self.state {
            State::Releasing {
                evidence, progress, ..
            } if progress
                .iter()
                .any(|p| matches!(p, Progress::Conflict { .. })) =>
            {
                State::Conflict { evidence, progress }
            }
            State::Releasing {
                evidence,
                sealed,
                progress,
                ..
            } if progress
                .iter()
                .all(|p| matches!(p, Progress::Published { .. })) =>
            {
                let read_back: Vec<_> = progress.iter().map(Progress::read_back).collect();
                let items = self.facts.items.iter().zip(&read_back);
                events.push(Event::RequestPublished {
                    request: self.facts.id,
                    digest: self.digest,
                    items: items
                        .filter_map(|(i, d)| {
                            Some(PublishedItem {
                                name: i.name(),
                                read_back: vec![d.clone()?],
                            })
                        })
                        .collect(),
                });
                State::Published {
                    evidence,
                    sealed,
                    read_back,
                }
            }
            other => other,
        };
        self.step(events)
    }

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
                if progress
                    .iter()
                    .any(|p| matches!(p, Progress::Settling { .. }))
                {
                    StateName::Settling
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
                Mode::Reveal => "reveal",
            })
            .number(self.factors.len() as u64);
        for factor in &self.factors {
            c = c.text(match factor {
                Factor::Device => "device",
                Factor::Totp => "totp",
            });
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

    /// Whether its time is over. Bytes on their way do not expire: they are settled first.
    pub fn overdue(&self, now: UnixTime) -> bool {
        match &self.state {
            State::Pending { .. } | State::Approved { .. } => now >= self.expires(),
            State::Releasing {
                until, progress, ..
            } => {
                // What was sent once is read back for a while longer: it may show up late.
                let late = until.after(LATE_SECONDS);
                progress.iter().all(|p| match p {
                    Progress::Waiting { attempt: 0, .. } | Progress::Published { .. } => {
                        now >= *until
                    }
                    Progress::Waiting { .. } => now >= late,
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
            | State::Conflict { evidence, .. } => evidence,
            State::Denied { .. } | State::Expired { .. } | State::Cancelled => &[],
        }
    }

    /// What a ticket holder is told.
    pub fn status(&self) -> Status {
        let state = self.name();
        let items = self
            .facts
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| self.item_status(i, item));
        Status {
            id: self.facts.id,
            state,
            revision: self.revision,
            approvals: u32::try_from(self.evidence().len()).unwrap_or(u32::MAX),
            quorum: self.quorum,
            expires: self.expires(),
            reason: self.reason(),
            items: items.collect(),
        }
    }

    fn item_status(&self, index: usize, item: &Item) -> ItemStatus {
        let (state, read_back) = match &self.state {
            State::Releasing { progress, .. } | State::Conflict { progress, .. } => {
                match progress.get(index) {
                    Some(Progress::Published { read_back }) => {
                        (StateName::Published, Some(read_back.clone()))
                    }
                    Some(Progress::Conflict { read_back }) => {
                        (StateName::Conflict, Some(read_back.clone()))
                    }
                    Some(Progress::Settling { .. }) => (StateName::Settling, None),
                    _ => (StateName::Releasing, None),
                }
            }
            State::Published { read_back, .. } => (
                StateName::Published,
                read_back.get(index).cloned().flatten(),
            ),
            _ => (self.name(), None),
        };
        ItemStatus {
            name: item.name(),
            state,
            read_back,
        }
    }

    fn reason(&self) -> Option<String> {
        match &self.state {
            State::Denied { by, reason, cause } => Some(match (by, reason, cause) {
                (Some(p), Some(r), _) => format!("denied by {p}: {r}"),
                (Some(p), None, _) => format!("denied by {p}"),
                (None, _, DenyCause::Frozen) => "the package was frozen".to_owned(),
                (None, _, _) => "another request for this version was approved".to_owned(),
            }),
            State::Expired { was } => Some(
                match was {
                    StateName::Pending => "nobody approved in time",
                    StateName::Approved => "it was approved, but not collected in time",
                    _ => "the credential was not used in time",
                }
                .to_owned(),
            ),
            State::Releasing { progress, .. } => progress.iter().find_map(|p| match p {
                Progress::Waiting { said: Some(s), .. } => Some(format!("the registry said: {s}")),
                _ => None,
            }),
            State::Conflict { .. } => Some(
                "the registry shows other bytes than the approved ones; look into it now"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl Progress {
    fn read_back(&self) -> Option<Digest> {
        match self {
            Self::Published { read_back } | Self::Conflict { read_back } => Some(read_back.clone()),
            _ => None,
        }
    }
}
