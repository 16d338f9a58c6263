//! Releasing: from the credential to what the registry shows. Each file goes its own way; the
//! request ends when none of them is open any more.

use super::{
    CREDENTIAL_SECONDS, FileAt, LATE_SECONDS, NotFrom, Progress, Record, SentWith, State, Step,
};
use crate::audit::event::Event;
use proto::{
    api::Mode,
    bearer::BearerHash,
    digest::{Digest, hex},
    log::receipt::PublishedItem,
    request::{File, Item},
    time::UnixTime,
};

impl Record {
    /// The credential goes out (forward): the state and the sealed blob are one commit.
    pub fn collect(
        mut self,
        credential: BearerHash,
        sealed: String,
        now: UnixTime,
    ) -> Result<Step, NotFrom> {
        let State::Approved { evidence, .. } = self.state else {
            return Err(self.not_from());
        };
        self.credential = Some(hex(&credential.0));
        self.collected = Some(now);
        let waiting = |_: &File| Progress::Waiting {
            attempt: 0,
            said: None,
            hold: None,
        };
        let items = self.facts.items.iter();
        self.state = State::Releasing {
            evidence,
            until: now.after(CREDENTIAL_SECONDS),
            sealed,
            progress: items
                .map(|i| i.files.iter().map(waiting).collect())
                .collect(),
        };
        let event = Event::Collected {
            request: self.facts.id,
            mode: self.mode,
        };
        Ok(self.step(vec![event]))
    }

    /// A token of the registry's own goes out (mint): from here on bytes may be on their way, though not
    /// from us, until it ends; the registry is read back as after an unclear answer.
    pub fn mint(mut self, sealed: String, until: UnixTime, now: UnixTime) -> Result<Step, NotFrom> {
        let State::Approved { evidence, .. } = &self.state else {
            return Err(self.not_from());
        };
        let evidence = evidence.clone();
        self.collected = Some(now);
        self.state = State::Releasing {
            evidence,
            until,
            sealed,
            progress: self.all_on_their_way(now),
        };
        let request = self.facts.id;
        let mode = self.mode;
        let mut events = vec![Event::Collected { request, mode }];
        events.extend(self.facts.items.iter().map(|item| Event::Minted {
            request,
            package: item.package_key(),
            until,
        }));
        Ok(self.step(events))
    }

    /// The secret goes out (reveal): burnt at once. What the job announced to publish with it is read back
    /// from then on, as bytes on their way are.
    pub fn reveal(mut self, sealed: String, now: UnixTime) -> Result<Step, NotFrom> {
        let State::Approved { evidence, .. } = &self.state else {
            return Err(self.not_from());
        };
        let evidence = evidence.clone();
        self.collected = Some(now);
        let mut events = vec![
            Event::Collected {
                request: self.facts.id,
                mode: Mode::Reveal,
            },
            Event::Revealed {
                request: self.facts.id,
                secret: self.facts.items.first().map(Item::name).unwrap_or_default(),
            },
        ];
        events.extend(self.files().map(|at| self.settling(at)));
        self.unclear = self.files().map(FileAt::numbers).collect();
        let items = self.facts.items.iter();
        self.state = if items.clone().all(|i| i.files.is_empty()) {
            State::Published {
                evidence,
                sealed,
                read_back: items.map(|_| Vec::new()).collect(),
            }
        } else {
            State::Releasing {
                evidence,
                until: now.after(CREDENTIAL_SECONDS),
                sealed,
                progress: self.all_on_their_way(now),
            }
        };
        Ok(self.step(events))
    }

    /// What a job publishes by itself may be anywhere on its way from now on.
    fn all_on_their_way(&self, since: UnixTime) -> Vec<Vec<Progress>> {
        let on_its_way = |_: &File| Progress::Settling {
            attempt: 1,
            since,
            hold: None,
        };
        let items = self.facts.items.iter();
        items
            .map(|i| i.files.iter().map(on_its_way).collect())
            .collect()
    }

    /// Notes with which token the next attempt goes; none: what becomes of the file says nothing of one. Nor does it while
    /// an earlier attempt with another token may still show up.
    #[must_use]
    pub fn with_token(mut self, at: FileAt, token: Option<SentWith>) -> Self {
        let may_show = self.unclear.contains(&at.numbers());
        let token = token.filter(|token| !may_show || self.tries(at) == Some(token));
        self.sent_with.retain(|w| w.file != at.numbers());
        self.sent_with.extend(token);
        self
    }

    /// The token that is tried by what becomes of a file.
    pub fn tries(&self, at: FileAt) -> Option<&SentWith> {
        self.sent_with.iter().find(|w| w.file == at.numbers())
    }

    /// Durable before the first byte leaves. Nothing more leaves once the registry showed other bytes for one
    /// of the files, and nothing twice before an unclear attempt was found to be [`Self::absent`].
    pub fn sending(mut self, at: FileAt, now: UnixTime) -> Result<Step, NotFrom> {
        if self.conflicts() {
            return Err(self.not_from());
        }
        let attempt = match self.open_file(at) {
            // What is being read back is not sent again before it is known to be absent.
            Some(p @ (Progress::Waiting { .. } | Progress::Held { .. })) => {
                let attempt = p.attempt() + 1;
                *p = Progress::Sending {
                    attempt,
                    since: now,
                    hold: p.hold().cloned(),
                };
                attempt
            }
            _ => return Err(self.not_from()),
        };
        let (item, file) = at.numbers();
        let event = Event::Releasing {
            request: self.facts.id,
            item,
            file,
            attempt,
        };
        Ok(self.step(vec![event]))
    }

    /// The answer was unclear.
    pub fn unclear(mut self, at: FileAt, now: UnixTime) -> Result<Step, NotFrom> {
        let hold = match self.open_file(at) {
            Some(p @ Progress::Sending { .. }) => {
                let hold = p.hold().cloned();
                *p = Progress::Settling {
                    attempt: p.attempt(),
                    since: now,
                    hold: hold.clone(),
                };
                hold
            }
            _ => return Err(self.not_from()),
        };
        // People may approve a stage by themselves.
        if hold.is_some_and(|hold| hold.stage.is_some()) {
            self = self.with_token(at, None);
        }
        self.unclear.insert(at.numbers());
        let event = self.settling(at);
        Ok(self.step(vec![event]))
    }

    /// The time in which what was sent may show up late is over, and the registry still does not say what became
    /// of it. Such a file does not expire; the alarm is given once.
    pub fn unsettled(mut self, now: UnixTime) -> Result<Step, NotFrom> {
        match &self.state {
            State::Releasing { until, .. } if now >= until.after(LATE_SECONDS) => {}
            _ => return Err(self.not_from()),
        }
        let events = self.tells_unclear();
        if events.is_empty() {
            return Err(self.not_from());
        }
        Ok(self.step(events))
    }

    /// An alarm for each file of which nobody knows whether the registry has it, once.
    pub(super) fn tells_unclear(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.told, !self.unclear.is_empty()) {
            return Vec::new();
        }
        let event = |&(item, file): &(u32, u32)| Event::OutcomeUnclear {
            request: self.facts.id,
            item,
            file,
        };
        self.unclear.iter().map(event).collect()
    }

    /// The registry said no and shows nothing: the same bytes may be sent again. A stage that it did not
    /// say no to still waits for the second factor.
    pub fn absent(mut self, at: FileAt, said: Option<String>) -> Result<Step, NotFrom> {
        let refused = said.is_some();
        match self.open_file(at) {
            Some(p @ (Progress::Sending { .. } | Progress::Settling { .. })) => {
                let (attempt, hold) = (p.attempt(), p.hold().cloned());
                *p = match hold {
                    Some(hold) if said.is_none() && hold.stage.is_some() => {
                        Progress::Held { attempt, hold }
                    }
                    hold => Progress::Waiting {
                        attempt,
                        said,
                        hold,
                    },
                };
            }
            _ => return Err(self.not_from()),
        }
        if refused {
            self = self.with_token(at, None);
        }
        let event = self.settling(at);
        Ok(self.finished(vec![event]))
    }

    /// The registry shows this digest for a file: the approved one, or another.
    pub fn shows(mut self, at: FileAt, read_back: Digest) -> Result<Step, NotFrom> {
        let Some(item) = self.facts.items.get(at.item) else {
            return Err(self.not_from());
        };
        let name = item.name();
        let same = item.files.get(at.file).map(|f| &f.digest) == Some(&read_back);
        match self.open_file(at) {
            Some(Progress::Published { .. } | Progress::Conflict { .. }) | None => {
                return Err(self.not_from());
            }
            Some(p) if same => {
                *p = Progress::Published {
                    read_back: read_back.clone(),
                };
            }
            Some(p) => {
                *p = Progress::Conflict {
                    read_back: read_back.clone(),
                };
            }
        }
        let (item, file) = at.numbers();
        self.unclear.remove(&(item, file));
        let event = if same {
            Event::Published {
                request: self.facts.id,
                digest: self.digest,
                name,
                file,
                read_back,
            }
        } else {
            Event::Conflict {
                request: self.facts.id,
                item,
                file,
                read_back,
            }
        };
        Ok(self.finished(vec![event]))
    }

    /// Ends a release whose files are all published, or one of which conflicts while none of the
    /// others is on its way: what is still open then is read back before anything is final.
    fn finished(mut self, mut events: Vec<Event>) -> Step {
        let conflicts = self.conflicts();
        self.state = match self.state {
            State::Releasing {
                evidence, progress, ..
            } if conflicts && !progress.iter().flatten().any(Progress::on_its_way) => {
                State::Conflict { evidence, progress }
            }
            State::Releasing {
                evidence,
                sealed,
                progress,
                until,
            } => {
                let read_back: Option<Vec<Vec<Digest>>> = progress
                    .iter()
                    .map(|files| files.iter().map(Progress::read_back).collect())
                    .collect();
                match read_back.filter(|_| !conflicts) {
                    None => State::Releasing {
                        evidence,
                        until,
                        sealed,
                        progress,
                    },
                    Some(read_back) => {
                        let items = self.facts.items.iter().zip(&read_back);
                        events.push(Event::RequestPublished {
                            request: self.facts.id,
                            digest: self.digest,
                            items: items
                                .map(|(item, read_back)| PublishedItem {
                                    name: item.name(),
                                    read_back: read_back.clone(),
                                })
                                .collect(),
                        });
                        State::Published {
                            evidence,
                            sealed,
                            read_back,
                        }
                    }
                }
            }
            other => other,
        };
        self.step(events)
    }

    /// Whether the registry shows other bytes for one of the files.
    pub fn conflicts(&self) -> bool {
        match &self.state {
            State::Releasing { progress, .. } | State::Conflict { progress, .. } => progress
                .iter()
                .flatten()
                .any(|p| matches!(p, Progress::Conflict { .. })),
            _ => false,
        }
    }

    pub(super) fn open_file(&mut self, at: FileAt) -> Option<&mut Progress> {
        match &mut self.state {
            State::Releasing { progress, .. } => progress.get_mut(at.item)?.get_mut(at.file),
            _ => None,
        }
    }

    pub(super) fn settling(&self, at: FileAt) -> Event {
        let (item, file) = at.numbers();
        Event::Settling {
            request: self.facts.id,
            item,
            file,
        }
    }
}

impl Progress {
    fn read_back(&self) -> Option<Digest> {
        match self {
            Self::Published { read_back } => Some(read_back.clone()),
            _ => None,
        }
    }

    /// Bytes may be at the registry without our knowing.
    pub fn on_its_way(&self) -> bool {
        matches!(self, Self::Sending { .. } | Self::Settling { .. })
    }

    /// Sends so far.
    pub const fn attempt(&self) -> u32 {
        match self {
            Self::Waiting { attempt, .. }
            | Self::Sending { attempt, .. }
            | Self::Settling { attempt, .. }
            | Self::Held { attempt, .. } => *attempt,
            Self::Published { .. } | Self::Conflict { .. } => 0,
        }
    }
}
