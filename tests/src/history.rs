//! What clients were told, and the checks that everything told stays true.
//!
//! A history holds acknowledged replies, what a registry took, and the log. Whatever contradicts an acknowledged
//! reply is a violation. A call without a reply may have had its effect or not; both are right.

use crate::direct::Fail;
use broker::audit::event::Event;
use proto::{
    api::{Answered, Collected, LogLine, Opened, StateName, Status},
    digest::Digest,
    ids::{PersonId, RequestId},
    log::{
        checkpoint::{Checkpoint, LogKey},
        export::{Known, verify_export},
    },
    request::RequestDigest,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Violations that are kept as text.
const TEXTS: usize = 50;

/// What is known of one request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub id: RequestId,
    /// Opens its status.
    pub ticket: String,
    /// `npm:@one/a@1.0.0`
    pub name: String,
    /// Its bytes.
    pub bytes: Digest,
    digest: RequestDigest,
    quorum: usize,
    seen: Seen,
    said_yes: BTreeSet<PersonId>,
    counted: BTreeSet<PersonId>,
    /// The blob, once collected.
    pub sealed: Option<String>,
    published: bool,
}

/// The furthest that a reply has shown of a request.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    state: StateName,
    revision: u64,
    approvals: u32,
}

#[derive(Default)]
struct Inner {
    asked: BTreeMap<RequestId, Asked>,
    tokens: HashMap<String, RequestId>,
    /// By `npm:name@version`: what the registry shows, and whether a stranger put it there.
    shown: BTreeMap<String, (Digest, bool)>,
    checkpoint: Option<Checkpoint>,
    operations: u64,
    violations: u64,
    texts: Vec<String>,
    refusals: BTreeMap<String, u64>,
}

/// Everything that was acknowledged. Shared by all clients, the registry's stand-in and the checker.
#[derive(Default)]
pub struct History(Mutex<Inner>);

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// Replies that were received and checked.
    pub operations: u64,
    /// Requests that were opened.
    pub requests: usize,
    /// Of them published.
    pub published: usize,
    /// Contradictions.
    pub violations: u64,
    /// The first of them in words.
    pub texts: Vec<String>,
    /// What was refused, by call and code.
    pub refusals: BTreeMap<String, u64>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a contradiction.
    pub fn violation(&self, text: String) {
        self.lock().violation(text);
    }

    /// Counts a reply that says nothing about a request.
    pub fn operation(&self) {
        self.lock().operations += 1;
    }

    /// Counts a refusal; no reply at all is none.
    pub fn refused(&self, what: &'static str, why: &Fail) {
        let Some(code) = why.code() else {
            return;
        };
        let code = code.text();
        let mut inner = self.lock();
        inner.operations += 1;
        *inner.refusals.entry(format!("{what} {code}")).or_default() += 1;
    }

    /// An open was acknowledged.
    pub fn opened(&self, token: &str, opened: &Opened, quorum: usize) {
        let mut inner = self.lock();
        inner.operations += 1;
        let first = *inner.tokens.entry(token.to_owned()).or_insert(opened.id);
        if first != opened.id {
            inner.violation(format!("one token opened {first} and {}", opened.id));
        }
        let (Some(item), true) = (
            opened.facts.items.first(),
            opened.facts.digest() == opened.request_digest,
        ) else {
            inner.violation(format!("{} has a wrong digest or no item", opened.id));
            return;
        };
        let Some(file) = item.files.first() else {
            return;
        };
        let asked = Asked {
            id: opened.id,
            ticket: opened.ticket.clone(),
            name: item.name(),
            bytes: file.digest.clone(),
            digest: opened.request_digest,
            quorum,
            seen: Seen {
                state: StateName::Pending,
                revision: 1,
                approvals: 0,
            },
            said_yes: BTreeSet::new(),
            counted: BTreeSet::new(),
            sealed: None,
            published: false,
        };
        inner.asked.entry(opened.id).or_insert(asked);
    }

    /// What is known before a call is made: its reply may not fall behind.
    pub fn before(&self, id: RequestId) -> Option<Seen> {
        self.lock().asked.get(&id).map(|a| a.seen)
    }

    /// A status was read; `before` was taken before the call.
    pub fn status(&self, before: Option<Seen>, status: &Status) {
        let mut inner = self.lock();
        inner.operations += 1;
        let now = Seen {
            state: status.state,
            revision: status.revision,
            approvals: status.approvals,
        };
        if let Some(before) = before {
            if now.revision < before.revision {
                inner.violation(format!(
                    "{} went back from revision {} to {}",
                    status.id, before.revision, now.revision
                ));
            }
            if now.state == StateName::Pending && now.approvals < before.approvals {
                inner.violation(format!("{} lost an approval", status.id));
            }
        }
        inner.saw(status.id, before, now);
    }

    /// A state was told without a revision.
    pub fn state(&self, id: RequestId, before: Option<Seen>, state: StateName, approvals: u32) {
        let mut inner = self.lock();
        inner.operations += 1;
        let revision = before.map_or(0, |b| b.revision);
        let now = Seen {
            state,
            revision,
            approvals,
        };
        inner.saw(id, before, now);
    }

    /// A person is about to approve: from now on it may count.
    pub fn will_approve(&self, id: RequestId, person: &PersonId) {
        if let Some(asked) = self.lock().asked.get_mut(&id) {
            asked.said_yes.insert(person.clone());
        }
    }

    /// An approval was acknowledged.
    pub fn approved(&self, before: Option<Seen>, id: RequestId, person: &PersonId, a: &Answered) {
        self.state(id, before, a.state, a.approvals);
        if let Some(asked) = self.lock().asked.get_mut(&id) {
            asked.counted.insert(person.clone());
        }
    }

    /// A credential was collected.
    pub fn collected(&self, before: Option<Seen>, id: RequestId, collected: &Collected) {
        self.state(id, before, StateName::Releasing, 0);
        let mut inner = self.lock();
        let Some(asked) = inner.asked.get_mut(&id) else {
            return;
        };
        match &asked.sealed {
            None => asked.sealed = Some(collected.sealed.clone()),
            Some(first) if *first == collected.sealed => {}
            Some(_) => inner.violation(format!("{id} was collected twice with different blobs")),
        }
    }

    /// An upload was acknowledged.
    pub fn published(&self, before: Option<Seen>, id: RequestId) {
        self.state(id, before, StateName::Published, 0);
        let mut inner = self.lock();
        let Some(asked) = inner.asked.get_mut(&id) else {
            return;
        };
        asked.published = true;
        let (name, bytes) = (asked.name.clone(), asked.bytes.clone());
        if inner.shown.get(&name).is_none_or(|(d, _)| *d != bytes) {
            inner.violation(format!("{id} was told published, but {name} is not there"));
        }
    }

    /// The registry took bytes; `stranger` says that they did not come from the broker.
    pub fn registry_took(&self, name: &str, bytes: &Digest, stranger: bool) {
        let mut inner = self.lock();
        if let Some((there, _)) = inner.shown.get(name) {
            let text = format!("{name} was taken twice: {there} and {bytes}");
            inner.violation(text);
            return;
        }
        inner
            .shown
            .insert(name.to_owned(), (bytes.clone(), stranger));
        if stranger {
            return;
        }
        let approved = inner.asked.values().any(|a| {
            a.name == name
                && a.bytes == *bytes
                && a.said_yes.len() >= a.quorum
                && !matches!(
                    a.seen.state,
                    StateName::Pending
                        | StateName::Denied
                        | StateName::Cancelled
                        | StateName::Expired
                        | StateName::Conflict
                )
        });
        if !approved {
            inner.violation(format!(
                "{name} {bytes} was published without the approval of enough people"
            ));
        }
    }

    /// The bytes of an upload that reached the registry, taken or not: they must be approved ones.
    pub fn registry_saw(&self, name: &str, bytes: &Digest) {
        let mut inner = self.lock();
        let known = inner
            .asked
            .values()
            .any(|a| a.name == name && a.bytes == *bytes && a.said_yes.len() >= a.quorum);
        if !known {
            inner.violation(format!("{name} {bytes} was sent without an approval"));
        }
    }

    /// The requests that were acknowledged, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.values().cloned().collect()
    }

    /// Verifies an export, that it continues the one before, and that it tells the story that clients saw.
    ///
    /// `before` is [`Self::asked`] from before the export was asked for: what was acknowledged since may be missing.
    pub fn log(&self, before: &[Asked], key: &LogKey, lines: &[LogLine], checkpoint: &str) {
        let mut inner = self.lock();
        inner.operations += 1;
        let mut text = String::new();
        for line in lines {
            text.push_str(&serde_json::to_string(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str(&serde_json::json!({ "checkpoint": checkpoint }).to_string());
        text.push('\n');
        let known = Known {
            key: Some(key),
            seen: inner.checkpoint.as_ref(),
        };
        if let Err(why) = verify_export(text.as_bytes(), known) {
            inner.violation(format!("the log does not verify: {why}"));
            return;
        }
        inner.checkpoint = Checkpoint::open(checkpoint, key).ok();
        let story = Story::read(lines, &mut inner);
        story.compare(before, &mut inner);
    }

    /// The end: every record agrees with the registry.
    pub fn settle(&self, statuses: &[Status]) {
        let mut inner = self.lock();
        for status in statuses {
            let Some(asked) = inner.asked.get(&status.id).cloned() else {
                continue;
            };
            let shown = inner.shown.get(&asked.name).cloned();
            let same = shown.as_ref().is_some_and(|(d, _)| *d == asked.bytes);
            let item = status.items.first();
            let wrong = match status.state {
                StateName::Published => {
                    !same
                        || item.and_then(|i| i.files.first()?.read_back.as_ref())
                            != Some(&asked.bytes)
                }
                StateName::Conflict => same || shown.is_none(),
                // Whoever collected may still hold a credential, but what is there must be known.
                StateName::Releasing => shown.is_some(),
                StateName::Settling => true,
                _ => same,
            };
            if wrong || (asked.published && status.state != StateName::Published) {
                inner.violation(format!(
                    "{} is {} but the registry shows {shown:?} of {}",
                    status.id,
                    status.state.text(),
                    asked.bytes
                ));
            }
        }
    }

    /// The figures.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            operations: inner.operations,
            requests: inner.asked.len(),
            published: inner
                .asked
                .values()
                .filter(|a| a.seen.state == StateName::Published)
                .count(),
            violations: inner.violations,
            texts: inner.texts.clone(),
            refusals: inner.refusals.clone(),
        }
    }
}

impl Inner {
    fn violation(&mut self, text: String) {
        self.violations += 1;
        if self.texts.len() < TEXTS {
            self.texts.push(text);
        }
    }

    fn saw(&mut self, id: RequestId, before: Option<Seen>, now: Seen) {
        if let Some(before) = before
            && !may_follow(before.state, now.state)
        {
            self.violation(format!(
                "{id} was {} and then {}",
                before.state.text(),
                now.state.text()
            ));
        }
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        let known = asked.seen;
        asked.seen.revision = known.revision.max(now.revision);
        // Replies overtake each other: only what is further is kept.
        if rank(now.state) > rank(known.state) {
            asked.seen.state = now.state;
            asked.seen.approvals = now.approvals;
        } else if now.state == StateName::Pending && known.state == StateName::Pending {
            asked.seen.approvals = known.approvals.max(now.approvals);
        } else if now.state.is_final() && known.state.is_final() && now.state != known.state {
            self.violation(format!(
                "{id} ended as {} and as {}",
                known.state.text(),
                now.state.text()
            ));
        }
    }
}

const fn rank(state: StateName) -> u8 {
    match state {
        StateName::Pending => 0,
        StateName::Approved => 1,
        StateName::Releasing | StateName::Settling => 2,
        _ => 3,
    }
}

/// Whether a request that was `old` may be `new` later.
pub fn may_follow(old: StateName, new: StateName) -> bool {
    match old {
        StateName::Pending => true,
        StateName::Approved => new != StateName::Pending,
        StateName::Releasing | StateName::Settling => !matches!(
            new,
            StateName::Pending | StateName::Approved | StateName::Denied | StateName::Cancelled
        ),
        ended => ended == new,
    }
}

/// The log, read as a story: what each request came to.
#[derive(Default)]
struct Story {
    requests: BTreeMap<RequestId, Told>,
    holders: BTreeMap<String, RequestId>,
    frozen: BTreeSet<String>,
}

struct Told {
    digest: RequestDigest,
    name: String,
    state: StateName,
    yes: BTreeSet<PersonId>,
}

#[derive(Deserialize)]
struct Leaf {
    event: Event,
}

impl Story {
    fn read(lines: &[LogLine], inner: &mut Inner) -> Self {
        let mut story = Self::default();
        for line in lines {
            match serde_json::from_str::<Leaf>(&line.leaf) {
                Ok(leaf) => {
                    if let Err(why) = story.tell(leaf.event, inner) {
                        inner.violation(format!("log entry {}: {why}", line.index));
                    }
                }
                Err(why) => inner.violation(format!("log entry {}: {why}", line.index)),
            }
        }
        story
    }

    fn tell(&mut self, event: Event, inner: &Inner) -> Result<(), String> {
        match event {
            Event::RequestOpened {
                request,
                digest,
                items,
                ..
            } => {
                let told = Told {
                    digest,
                    name: items.into_iter().next().unwrap_or_default(),
                    state: StateName::Pending,
                    yes: BTreeSet::new(),
                };
                match self.requests.insert(request, told) {
                    None => Ok(()),
                    Some(_) => Err(format!("{request} was opened twice")),
                }
            }
            Event::AnswerAccepted {
                request,
                person,
                decision: proto::answer::Decision::Approve,
                ..
            } => {
                if let Some(told) = self.requests.get_mut(&request)
                    && !told.yes.insert(person.clone())
                {
                    return Err(format!("{person} counts twice for {request}"));
                }
                Ok(())
            }
            Event::RequestApproved { request, .. } => self.approve(request, inner),
            Event::Collected { request, .. } => {
                self.thawed(request)?;
                self.move_to(request, &[StateName::Approved], StateName::Releasing)
            }
            Event::Releasing { request, .. } => {
                self.thawed(request)?;
                self.move_to(request, &[StateName::Releasing], StateName::Releasing)
            }
            Event::RequestPublished { request, .. } => {
                self.move_to(request, &[StateName::Releasing], StateName::Published)
            }
            Event::Conflict { request, .. } => {
                self.move_to(request, &[StateName::Releasing], StateName::Conflict)
            }
            Event::RequestDenied { request, .. } => self.end(request, StateName::Denied),
            Event::RequestCancelled { request } => self.end(request, StateName::Cancelled),
            Event::Frozen { package, .. } => {
                self.frozen.insert(package);
                Ok(())
            }
            Event::Thawed { package, .. } => {
                self.frozen.remove(&package);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn approve(&mut self, request: RequestId, inner: &Inner) -> Result<(), String> {
        self.thawed(request)?;
        self.move_to(request, &[StateName::Pending], StateName::Approved)?;
        let Some(told) = self.requests.get(&request) else {
            return Ok(());
        };
        if let Some(asked) = inner.asked.get(&request)
            && told.yes.len() < asked.quorum
        {
            return Err(format!("{request} was approved by too few"));
        }
        let before = self.holders.insert(told.name.clone(), request);
        let taken = before.and_then(|b| self.requests.get(&b)).is_some_and(|b| {
            matches!(
                b.state,
                StateName::Approved | StateName::Releasing | StateName::Published
            )
        });
        if taken {
            return Err(format!("{} has two approved requests", told.name));
        }
        Ok(())
    }

    fn thawed(&self, request: RequestId) -> Result<(), String> {
        let package = self
            .requests
            .get(&request)
            .and_then(|t| t.name.rsplit_once('@'))
            .map(|(package, _)| package);
        match package {
            Some(package) if self.frozen.contains(package) => {
                Err(format!("{request} went on although {package} is frozen"))
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, request: RequestId, state: StateName) -> Result<(), String> {
        self.move_to(request, &[StateName::Pending, StateName::Approved], state)
    }

    fn move_to(
        &mut self,
        request: RequestId,
        from: &[StateName],
        to: StateName,
    ) -> Result<(), String> {
        let Some(told) = self.requests.get_mut(&request) else {
            return Err(format!("{request} was never opened"));
        };
        let was = std::mem::replace(&mut told.state, to);
        if from.contains(&was) {
            Ok(())
        } else {
            Err(format!(
                "{request} became {} from {}",
                to.text(),
                was.text()
            ))
        }
    }

    /// Everything acknowledged before the export was asked for is in it.
    fn compare(&self, before: &[Asked], inner: &mut Inner) {
        for asked in before {
            let Some(told) = self.requests.get(&asked.id) else {
                inner.violation(format!("{} was acknowledged, but is not logged", asked.id));
                continue;
            };
            let (log, seen) = (rank(told.state), rank(asked.seen.state));
            if told.digest != asked.digest {
                inner.violation(format!("{} has another digest in the log", asked.id));
            }
            if log < seen || (seen == 3 && told.state != asked.seen.state) {
                inner.violation(format!(
                    "{} is {} in the log, but {} for clients",
                    asked.id,
                    told.state.text(),
                    asked.seen.state.text()
                ));
            }
            if !asked.counted.is_subset(&told.yes) {
                inner.violation(format!("{} lost an approval in the log", asked.id));
            }
        }
    }
}
