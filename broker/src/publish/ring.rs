//! Who is rung, and who is not. Decided after a request was opened, beside the request's own path: opening costs
//! one row more, and nobody waits for a phone.
//!
//! A thief's requests come from the repository of the real ones, so what rings is rationed: one open ring a
//! package and person, three a day and person, nothing in quiet hours (attack 24). What is over that waits in
//! the inbox, and is looked at again: it rings when there is room while it still waits. What a person announced
//! is outside of all that.
//!
//! If an attacker writes here: he rings, or keeps quiet. The inbox does not read these rows.

use super::{
    inbox, judge,
    ledger::{self, timed, untimed},
    outbox::Letter,
    state::Record,
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    policy,
    store::{Batch, Table},
};
use proto::{
    api::StateName,
    ids::{IntentId, PersonId, RequestId},
    request::Item,
    time::UnixTime,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem::take,
};

/// When to look at a request's rings: seconds (big-endian) and id. As long as it waits.
pub const RINGS: Table = Table("ring");
/// Request: who was rung for it. As long as it waits.
pub const RUNG: Table = Table("rung");
/// Person: when they were rung.
pub const BUDGET: Table = Table("ring-budget");
/// Message id: what else people are to be told.
pub const NOTICES: Table = Table("notice");
/// Person NUL what: until when they have been told.
pub const NOTICED: Table = Table("noticed");

/// Rings a day and person for one intent: a thief whose requests fit it could else ring with each of them.
const ANNOUNCED_MOST: u32 = 3;
/// Rings a day and person that nobody announced.
pub const UNSOLICITED_MOST: usize = 3;
/// The day, in seconds.
const DAY: u64 = 24 * 3600;
/// Until a request that still waits is looked at again, in seconds.
const AGAIN: u64 = 5;
/// Seconds between two notices of one kind to one person: what comes between is told by the next.
const NOTICE_PAUSE: u64 = 600;
/// Rows looked at in one round.
const LOOK_MAX: usize = 200;
/// Open requests of a package that are looked at for an open ring.
const OPEN_MAX: usize = 500;

/// Orders the look at who is to be rung: part of the commit that opens a request.
pub fn ordered(batch: Batch, id: RequestId, now: UnixTime) -> Batch {
    batch.create(RINGS, timed(now, id), [])
}

/// The intents that this request fitted when it was opened. The one place where intents and rings meet.
fn intents(record: &Record) -> Vec<IntentId> {
    record.intents.iter().map(|fit| fit.evidence.id).collect()
}

/// Whether the policy lets it wait silently, since nobody announced it.
fn queued(record: &Record) -> bool {
    record.terms.unsolicited != policy::Unsolicited::Ring
}

/// Whether this person's yes is there already.
fn said_yes(record: &Record, person: &PersonId) -> bool {
    record.evidence().iter().any(|e| e.person == *person)
        || record.counting().any(|e| e.person == *person)
}

/// Something that people are told beside requests.
#[derive(Serialize, Deserialize)]
struct Notice {
    about: About,
    /// `registry:package`.
    package: String,
    /// Who did it, and knows.
    by: Option<PersonId>,
}

/// Orders a notice about a package: part of the commit that it is about. It says that there is something to look
/// at, and not what.
pub fn notice(
    desk: &Desk,
    batch: Batch,
    about: About,
    package: &str,
    by: Option<&PersonId>,
) -> Result<Batch, Fault> {
    let notice = Notice {
        about,
        package: package.to_owned(),
        by: by.cloned(),
    };
    let value = serde_json::to_vec(&notice).map_err(|_| Fault::Damaged("a notice"))?;
    let key = desk.world.request_id()?;
    Ok(batch.create(NOTICES, key.0.as_bytes(), value))
}

/// Rings of a person in the last day that nobody announced.
pub fn spent(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<usize, Fault> {
    let (_, mut budget) = read::<Budget>(desk, BUDGET, person.as_str().as_bytes())?;
    budget.forget(now);
    Ok(budget.unsolicited.len())
}

/// When a person was rung in the last day.
#[derive(Default, Serialize, Deserialize)]
struct Budget {
    /// For what nobody announced.
    unsolicited: Vec<UnixTime>,
    /// By intent: how often, and when first.
    announced: BTreeMap<String, (u32, UnixTime)>,
}

impl Budget {
    fn forget(&mut self, now: UnixTime) {
        self.unsolicited.retain(|t| now.since(*t) < DAY);
        self.announced.retain(|_, (_, t)| now.since(*t) < DAY);
    }

    /// An intent that may still ring.
    fn left(&self, intents: &[IntentId]) -> Option<String> {
        let mut names = intents.iter().map(ToString::to_string);
        let spent = |name: &String| {
            let count = self.announced.get(name).map_or(0, |(count, _)| *count);
            count >= ANNOUNCED_MOST
        };
        names.find(|name| !spent(name))
    }
}

/// One look at what may have to ring; says whether there is more to look at.
pub async fn decide(desk: &Desk, now: UnixTime) -> Result<bool, Fault> {
    if desk.vault.is_sealed() {
        return Ok(false);
    }
    let mut looked = 0;
    let mut round = Round {
        desk,
        now,
        batch: Batch::new(),
        events: Vec::new(),
        rung: BTreeMap::new(),
        budgets: BTreeMap::new(),
        noticed: BTreeMap::new(),
        letters: false,
    };
    for (key, row) in desk.live.range(RINGS, b"", None, LOOK_MAX)? {
        let Some((at, id)) = untimed(&key) else {
            continue;
        };
        if at > now {
            break;
        }
        looked += 1;
        round.batch = take(&mut round.batch).delete(RINGS, key, row.version);
        passable(round.request(id))?;
    }
    for (key, row) in desk.live.range(NOTICES, b"", None, LOOK_MAX)? {
        round.batch = take(&mut round.batch).delete(NOTICES, key, row.version);
        if let Ok(notice) = serde_json::from_slice(&row.value) {
            passable(round.notice(&notice))?;
        }
    }
    round.end().await?;
    Ok(looked == LOOK_MAX)
}

/// A damaged row keeps nobody else from being rung.
fn passable(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(Fault::Damaged(what)) => {
            tracing::error!(what, "somebody is not rung for a damaged row");
            Ok(())
        }
        other => other,
    }
}

/// Who was rung for a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rang {
    person: PersonId,
    announced: bool,
}

/// A row as it was read, and as it is now.
struct Known<T> {
    version: Option<u64>,
    value: T,
    changed: bool,
}

impl<T: Default + DeserializeOwned> Known<T> {
    fn read(desk: &Desk, table: Table, key: &[u8]) -> Result<Self, Fault> {
        let (version, value) = read(desk, table, key)?;
        Ok(Self {
            version,
            value,
            changed: false,
        })
    }
}

fn read<T: Default + DeserializeOwned>(
    desk: &Desk,
    table: Table,
    key: &[u8],
) -> Result<(Option<u64>, T), Fault> {
    Ok(match desk.live.get(table, key)? {
        None => (None, T::default()),
        Some(row) => {
            let value = serde_json::from_slice(&row.value).unwrap_or_default();
            (Some(row.version), value)
        }
    })
}

/// One round's decisions, stored in one commit.
struct Round<'a> {
    desk: &'a Desk,
    now: UnixTime,
    batch: Batch,
    events: Vec<Event>,
    rung: BTreeMap<RequestId, Known<Vec<Rang>>>,
    budgets: BTreeMap<PersonId, Known<Budget>>,
    noticed: BTreeMap<Vec<u8>, Known<UnixTime>>,
    letters: bool,
}

impl Round<'_> {
    fn request(&mut self, id: RequestId) -> Result<(), Fault> {
        let held = ledger::among(self.desk, id)?;
        let waits = |r: &Record| r.name() == StateName::Pending && !r.overdue(self.now);
        let Some(record) = held.map(|h| h.record).filter(waits) else {
            return self.over(id);
        };
        let again = timed(self.now.after(AGAIN), id);
        self.batch = take(&mut self.batch).create(RINGS, again, []);
        let intents = intents(&record);
        let mut rung = Vec::new();
        for (person, packages) in approvers(self.desk, &record)? {
            let channels = self.desk.channel_ids(&person)?;
            let known = &self.rung_for(id)?.value;
            let rang = known.iter().any(|r| r.person == person);
            if channels.is_empty() || rang || said_yes(&record, &person) {
                continue;
            }
            let intent = self.budget(&person)?.value.left(&intents);
            let announced = intent.is_some();
            if self.rings_already(id, &person, &packages, announced)? {
                continue;
            }
            let silent = queued(&record) || self.desk.is_quiet(&person, self.now)?;
            // Charged last: what does not ring for another reason costs nothing.
            if (!announced && silent) || !self.charge(&person, intent)? {
                continue;
            }
            for channel in channels {
                self.letter(&person, channel, About::Waits, Some(id), self.now)?;
            }
            let rang = Rang {
                person: person.clone(),
                announced,
            };
            let known = self.rung_for(id)?;
            known.value.push(rang);
            known.changed = true;
            rung.push(person);
        }
        if !rung.is_empty() {
            self.desk.metrics.rings.inc_by(rung.len() as u64);
            self.events.push(Event::Rung {
                request: id,
                people: rung,
            });
        }
        Ok(())
    }

    /// The request waits no more.
    fn over(&mut self, id: RequestId) -> Result<(), Fault> {
        if let Some(row) = self.desk.live.get(RUNG, id.0.as_bytes())? {
            self.batch = take(&mut self.batch).delete(RUNG, id.0.as_bytes(), row.version);
        }
        Ok(())
    }

    fn rung_for(&mut self, id: RequestId) -> Result<&mut Known<Vec<Rang>>, Fault> {
        let desk = self.desk;
        match self.rung.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Known::read(desk, RUNG, id.0.as_bytes())?)),
        }
    }

    /// Whether each of these packages has an open ring for this person: one look at the inbox shows them all. A
    /// ring that nobody announced is none for what somebody did.
    fn rings_already(
        &mut self,
        id: RequestId,
        person: &PersonId,
        packages: &BTreeSet<String>,
        announced: bool,
    ) -> Result<bool, Fault> {
        'packages: for package in packages {
            for other in ledger::ids_of_package(self.desk, package, OPEN_MAX)? {
                let rang = &self.rung_for(other)?.value;
                let rings = |r: &Rang| r.person == *person && (r.announced || !announced);
                if other == id || !rang.iter().any(rings) {
                    continue;
                }
                let held = ledger::among(self.desk, other)?;
                let waits = |r: &Record| r.name() == StateName::Pending && !r.overdue(self.now);
                if held.is_some_and(|h| waits(&h.record)) {
                    continue 'packages;
                }
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn budget(&mut self, person: &PersonId) -> Result<&mut Known<Budget>, Fault> {
        let (desk, now) = (self.desk, self.now);
        match self.budgets.entry(person.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let mut known = Known::<Budget>::read(desk, BUDGET, person.as_str().as_bytes())?;
                known.value.forget(now);
                Ok(place.insert(known))
            }
        }
    }

    /// Takes one of the intent's rings, or one of the day's if there is one left.
    fn charge(&mut self, person: &PersonId, intent: Option<String>) -> Result<bool, Fault> {
        let now = self.now;
        let known = self.budget(person)?;
        if let Some(intent) = intent {
            known.value.announced.entry(intent).or_insert((0, now)).0 += 1;
        } else if known.value.unsolicited.len() >= UNSOLICITED_MOST {
            return Ok(false);
        } else {
            known.value.unsolicited.push(now);
        }
        known.changed = true;
        Ok(true)
    }

    fn notice(&mut self, notice: &Notice) -> Result<(), Fault> {
        for person in self.desk.people()? {
            let concerned = match notice.about {
                About::Thaw => person.admin,
                About::Recovery => true,
                _ => inbox::answers_for(self.desk, &notice.package, &person),
            };
            let channels = self.desk.channel_ids(&person.id)?;
            if !concerned || notice.by.as_ref() == Some(&person.id) || channels.is_empty() {
                continue;
            }
            let mut key = person.id.as_str().as_bytes().to_vec();
            key.push(0);
            key.extend_from_slice(notice.about.name().as_bytes());
            if !self.noticed.contains_key(&key) {
                let known = Known::read(self.desk, NOTICED, &key)?;
                self.noticed.insert(key.clone(), known);
            }
            let Some(known) = self.noticed.get_mut(&key) else {
                continue;
            };
            // One is on its way, and will tell of this too.
            if known.value > self.now {
                continue;
            }
            let due = known.value.after(NOTICE_PAUSE).max(self.now);
            known.value = due;
            known.changed = true;
            for channel in channels {
                self.letter(&person.id, channel, notice.about, None, due)?;
            }
        }
        Ok(())
    }

    fn letter(
        &mut self,
        person: &PersonId,
        channel: String,
        about: About,
        request: Option<RequestId>,
        due: UnixTime,
    ) -> Result<(), Fault> {
        let letter = Letter {
            person: person.clone(),
            channel,
            about,
            request,
            since: self.now,
            tries: 0,
        };
        self.batch = letter.put(self.desk, take(&mut self.batch), due)?;
        self.letters = true;
        Ok(())
    }

    async fn end(mut self) -> Result<(), Fault> {
        let mut batch = take(&mut self.batch);
        for (id, known) in self.rung {
            batch = stored(batch, RUNG, id.0.as_bytes(), &known)?;
        }
        for (person, known) in self.budgets {
            batch = stored(batch, BUDGET, person.as_str().as_bytes(), &known)?;
        }
        for (key, known) in self.noticed {
            batch = stored(batch, NOTICED, &key, &known)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        match self.desk.commit(batch, &self.events, self.now).await {
            Ok(_) => {}
            // Whatever changed meanwhile is looked at in the next round.
            Err(Fault::Conflict(..)) => return Ok(()),
            Err(fault) => return Err(fault),
        }
        if self.letters {
            self.desk.bells.queue();
        }
        Ok(())
    }
}

fn stored<T: Serialize>(
    batch: Batch,
    table: Table,
    key: &[u8],
    known: &Known<T>,
) -> Result<Batch, Fault> {
    if !known.changed {
        return Ok(batch);
    }
    let value = serde_json::to_vec(&known.value).map_err(|_| Fault::Damaged("a ring"))?;
    Ok(match known.version {
        None => batch.create(table, key, value),
        Some(version) => batch.replace(table, key, version, value),
    })
}

/// Who may approve a request, and which of its packages: nobody else is rung, and not the requester.
fn approvers(desk: &Desk, record: &Record) -> Result<BTreeMap<PersonId, BTreeSet<String>>, Fault> {
    let policy = desk.policy.load();
    let people = judge::people(desk, record.opened)?;
    let mut all: BTreeMap<PersonId, BTreeSet<String>> = BTreeMap::new();
    for item in &record.facts.items {
        let Item {
            registry, package, ..
        } = item;
        let Ok(entry) = policy.entry(registry, package) else {
            continue;
        };
        let able = |p: &&policy::Person| entry.may_be_approved_by(p, record.actor.as_deref());
        for person in people.iter().filter(able) {
            let packages = all.entry(person.id.clone()).or_default();
            packages.insert(item.package_key());
        }
    }
    Ok(all)
}
