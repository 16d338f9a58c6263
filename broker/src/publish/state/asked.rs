//! Asking: from open to approved, denied, cancelled or too late.

use super::{COLLECT_SECONDS, Fit, NotFrom, Record, State, Step, Tries};
use crate::{
    audit::{event::Event, reason::DenyCause},
    caller::Caller,
    policy::{Admitted, Later},
};
use proto::{
    answer::Evidence,
    bearer::BearerHash,
    digest::hex,
    ids::{IntentId, PersonId},
    request::{Item, RequestFacts},
    time::UnixTime,
};
use std::collections::{BTreeMap, BTreeSet};

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
    /// The credential's hash, where one is out from the beginning (deposit).
    pub credential: Option<BearerHash>,
    /// The idempotency row's key.
    pub idempotency: &'a [u8],
    /// The intents that it fits.
    pub intents: Vec<Fit>,
    /// Now.
    pub now: UnixTime,
}

/// The time for collecting counts from when it works.
fn approved(evidence: Vec<Evidence>, later: Option<Later>, now: UnixTime) -> State {
    let from = later.map_or(now, |l| l.until.max(now));
    State::Approved {
        evidence,
        collect_by: from.after(COLLECT_SECONDS),
        later,
    }
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
            credential,
            idempotency,
            intents,
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
        let mut events = vec![event];
        events.extend(intents.iter().map(|fit| Event::RequestIntended {
            request: facts.id,
            intent: fit.evidence.id,
            person: fit.evidence.person.clone(),
        }));
        let record = Self {
            digest,
            opened: now,
            note,
            actor: caller.actor().map(str::to_owned),
            limits: caller.limits().map(<[String]>::to_vec),
            ticket: hex(&ticket.0),
            credential: credential.map(|c| hex(&c.0)),
            idempotency: hex(idempotency),
            quorum: admitted.quorum,
            factors: admitted.factors.clone(),
            answers_seconds: admitted.answers_seconds,
            mode: admitted.mode,
            mint_seconds: admitted.mint_seconds,
            terms: admitted.terms.clone(),
            intents,
            approved: None,
            collected: None,
            bound: String::new(),
            leaf_from: None,
            unclear: BTreeSet::new(),
            told: false,
            sent_with: Vec::new(),
            stopped: None,
            revision: 1,
            state: State::Pending {
                evidence: Vec::new(),
                tries: BTreeMap::new(),
            },
            facts,
        };
        Step { record, events }
    }

    /// Of the intents that it fits, these were spent for it.
    #[must_use]
    pub fn resting_on(mut self, spent: &[IntentId]) -> Self {
        for fit in &mut self.intents {
            fit.counts = spent.contains(&fit.evidence.id);
        }
        self
    }

    /// The intents alone are enough.
    pub fn approve_intended(
        mut self,
        later: Option<Later>,
        now: UnixTime,
    ) -> Result<Step, NotFrom> {
        let State::Pending { evidence, .. } = &self.state else {
            return Err(self.not_from());
        };
        let evidence = evidence.clone();
        let event = Event::RequestApproved {
            request: self.facts.id,
            digest: self.digest,
        };
        self.approved = Some(now);
        self.state = approved(evidence, later, now);
        Ok(self.step(vec![event]))
    }

    /// Another approval. `enough` says that policy would permit with it, now or `later`.
    pub fn approve(
        mut self,
        new: Evidence,
        enough: bool,
        later: Option<Later>,
        now: UnixTime,
    ) -> Result<Step, NotFrom> {
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
            self.approved = Some(now);
            approved(evidence, later, now)
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

    /// A denial, by a person, a freeze or a rival. Possible until bytes are on their way, and again while
    /// the registry keeps all of them back.
    pub fn deny(
        mut self,
        by: Option<&Evidence>,
        reason: Option<String>,
        cause: DenyCause,
    ) -> Result<Step, NotFrom> {
        match &self.state {
            State::Pending { .. } | State::Approved { .. } => {}
            _ if self.withheld() => {}
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
        let evidence = self.evidence().to_vec();
        let progress = match self.state {
            // What was published of a batch stays told.
            State::Releasing { progress, .. } => progress,
            _ => Vec::new(),
        };
        self.state = State::Expired {
            was,
            evidence,
            progress,
        };
        let mut events = vec![Event::RequestExpired {
            request: self.facts.id,
        }];
        events.extend(self.tells_unclear());
        Ok(self.step(events))
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
}
