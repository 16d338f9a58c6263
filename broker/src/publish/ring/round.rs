//! One look at the requests that may have to ring. Nothing is written where nothing changes.

use super::{
    BUDGET, RINGS, RUNG,
    budget::{Budget, SPACE, Span, VETO_SPACE},
    passable,
    rows::Known,
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    policy::{self, Verdict},
    publish::{
        Refusal, intent, judge,
        ledger::{self, untimed},
        outbox::{self, Letter},
        question::concerns,
        state::Record,
        veto::{self, Told, VETOES},
    },
    store::Batch,
};
use proto::{
    api::StateName,
    ids::{IntentId, PersonId, RequestId},
    request::Item,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem::take,
};

/// Rows looked at for one commit.
const LOOK_MAX: usize = 200;
/// Open requests of a package that are looked at for an open ring.
const OPEN_MAX: usize = 500;

/// Who was rung for a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rang {
    person: PersonId,
    announced: bool,
}

/// Rings for requests that wait for answers.
pub(super) async fn requests(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(RINGS, b"", after.as_deref(), LOOK_MAX)?;
        let more = rows.len() == LOOK_MAX;
        after = rows.last().map(|(key, _)| key.clone());
        let mut round = Round::new(desk, now);
        for (key, row) in rows {
            if let Some((_, id)) = untimed(&key)
                && desk.bells.is_due(id, now)
            {
                round.looked.push(id);
                passable(round.request(id, (&key, row.version)))?;
            }
        }
        round.end().await?;
        if !more {
            return Ok(());
        }
    }
}

/// Rings for approved requests that can still be denied.
pub(super) async fn vetoes(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(VETOES, b"", after.as_deref(), LOOK_MAX)?;
        let more = rows.len() == LOOK_MAX;
        after = rows.last().map(|(key, _)| key.clone());
        let mut round = Round::new(desk, now);
        for (key, row) in rows {
            if let Some(id) = ledger::id_of(&key) {
                passable(round.deniable(id, row.version))?;
            }
        }
        round.end().await?;
        if !more {
            return Ok(());
        }
    }
}

/// The intents that this request fitted when it was opened. The one place where intents and rings meet.
fn intents(record: &Record) -> Vec<IntentId> {
    record.intents.iter().map(|fit| fit.evidence.id).collect()
}

/// Whether the policy lets it wait silently, since nobody announced it.
fn queued(record: &Record) -> bool {
    record.terms.unsolicited != policy::Unsolicited::Ring
}

/// Whose yes is there already.
fn said_yes(desk: &Desk, record: &Record) -> Result<BTreeSet<PersonId>, Fault> {
    let answered = record.evidence().iter().map(|e| e.person.clone());
    let announced = intent::counting(desk, record)?;
    Ok(answered
        .chain(announced.into_iter().map(|e| e.person.clone()))
        .collect())
}

/// Whether what was announced is enough, and it is approved at this very moment, or when its version is free: nobody
/// is asked.
fn approves_itself(desk: &Desk, record: &Record, now: UnixTime) -> Result<bool, Fault> {
    if !record.intents.iter().any(|fit| fit.counts) {
        return Ok(false);
    }
    let unknown = vec![None; record.facts.items.len()];
    match judge::judge(desk, record, record.evidence(), &unknown, now) {
        Ok(Verdict::Permit(_) | Verdict::Later(_)) => Ok(true),
        Err(Refusal::Fault(fault)) => Err(fault),
        Ok(Verdict::Wait(_) | Verdict::Deny(_)) | Err(_) => Ok(false),
    }
}

fn waits(record: &Record, now: UnixTime) -> bool {
    record.name() == StateName::Pending && !record.overdue(now)
}

/// One round's decisions, stored in one commit.
struct Round<'a> {
    desk: &'a Desk,
    now: UnixTime,
    batch: Batch,
    events: Vec<Event>,
    rung: BTreeMap<RequestId, Known<Vec<Rang>>>,
    told: BTreeMap<RequestId, Known<Told>>,
    budgets: BTreeMap<PersonId, Known<Budget>>,
    letters: bool,
    looked: Vec<RequestId>,
    over: Vec<RequestId>,
}

impl<'a> Round<'a> {
    fn new(desk: &'a Desk, now: UnixTime) -> Self {
        Self {
            desk,
            now,
            batch: Batch::new(),
            events: Vec::new(),
            rung: BTreeMap::new(),
            told: BTreeMap::new(),
            budgets: BTreeMap::new(),
            letters: false,
            looked: Vec::new(),
            over: Vec::new(),
        }
    }

    fn request(&mut self, id: RequestId, (key, version): (&[u8], u64)) -> Result<(), Fault> {
        let held = ledger::among(self.desk, id)?.map(|h| h.record);
        let Some(record) = held.filter(|r| waits(r, self.now)) else {
            self.batch = take(&mut self.batch).delete(RINGS, key, version);
            return self.over(id);
        };
        if approves_itself(self.desk, &record, self.now)? {
            return Ok(());
        }
        let intents = intents(&record);
        let yes = said_yes(self.desk, &record)?;
        let time = Span {
            from: record.opened,
            until: record.expires(),
            space: SPACE,
        };
        let mut rung = Vec::new();
        for (person, packages) in approvers(self.desk, &record)? {
            let channels = self.desk.channel_ids(&person)?;
            let known = &self.rung_for(id)?.value;
            let rang = known.iter().any(|r| r.person == person);
            if channels.is_empty() || rang || yes.contains(&person) {
                continue;
            }
            let now = self.now;
            let budget = &self.budget(&person)?.value;
            let mut names = intents.iter().map(ToString::to_string);
            let intent = names.find(|name| budget.has_space(name, time, now));
            let announced = intent.is_some();
            if self.rings_already(id, &person, &packages, announced)? {
                continue;
            }
            let silent = queued(&record) || self.desk.is_quiet(&person, self.now)?;
            // Charged last: what does not ring for another reason costs nothing.
            if (!announced && silent) || !self.charge(&person, intent)? {
                continue;
            }
            self.letters(&person, channels, About::Waits, id)?;
            let rang = Rang {
                person: person.clone(),
                announced,
            };
            let known = self.rung_for(id)?;
            known.value.push(rang);
            known.changed = true;
            rung.push(person);
        }
        self.recorded(id, rung);
        Ok(())
    }

    /// Tells everybody who may deny and has not just said yes: no quiet hours, no count, and whatever an intent's
    /// own person thinks of it, for the release may not be the one that was meant.
    fn deniable(&mut self, id: RequestId, version: u64) -> Result<(), Fault> {
        // A request that cannot be read is not over: its row stays.
        let held = ledger::live(self.desk, id)?.map(|h| h.record);
        let (now, open) = (self.now, self.desk.bells.open_since());
        let told = &self.told_of(id)?.value;
        let waits = held.and_then(|r| veto::with(&r, told, open, now).map(|until| (r, until)));
        let Some((record, until)) = waits else {
            self.told.remove(&id);
            self.batch = take(&mut self.batch).delete(VETOES, id.0.as_bytes(), version);
            return Ok(());
        };
        let time = Span {
            from: record.approved.unwrap_or(record.opened),
            until,
            space: VETO_SPACE,
        };
        let package = record.facts.items.first().map(Item::package_key);
        let what = format!("veto {}", package.unwrap_or_default());
        let mut rung = Vec::new();
        let mut all = true;
        for person in self.desk.people_believed()? {
            let channels = self.desk.channel_ids(&person.id)?;
            let answered = record.evidence().iter().any(|e| e.person == person.id);
            let told = self.told_of(id)?.value.people.contains(&person.id);
            if channels.is_empty() || answered || told || !concerns(self.desk, &record, &person) {
                continue;
            }
            let now = self.now;
            let budget = self.budget(&person.id)?;
            if !budget.value.has_space(&what, time, now) {
                all = false;
                continue;
            }
            budget.value.take(what.clone(), now);
            budget.changed = true;
            self.letters(&person.id, channels, About::Veto, id)?;
            let told = self.told_of(id)?;
            told.value.people.push(person.id.clone());
            told.changed = true;
            rung.push(person.id.clone());
        }
        let (desk, told) = (self.desk, self.told_of(id)?);
        let ordered = all && rung.is_empty() && told.value.since.is_none();
        // Ordered is not sent: a broker that is sealed or stopped in between has told nobody.
        if ordered && !outbox::is_untried(desk, id)? {
            told.value.since = Some(now);
            told.changed = true;
            self.events.push(Event::VetoTold { request: id });
        }
        self.recorded(id, rung);
        Ok(())
    }

    /// The request waits no more.
    fn over(&mut self, id: RequestId) -> Result<(), Fault> {
        self.over.push(id);
        if let Some(row) = self.desk.live.get(RUNG, id.0.as_bytes())? {
            self.batch = take(&mut self.batch).delete(RUNG, id.0.as_bytes(), row.version);
        }
        Ok(())
    }

    fn recorded(&mut self, request: RequestId, people: Vec<PersonId>) {
        if !people.is_empty() {
            self.desk.metrics.rings.inc_by(people.len() as u64);
            self.events.push(Event::Rung { request, people });
        }
    }

    fn rung_for(&mut self, id: RequestId) -> Result<&mut Known<Vec<Rang>>, Fault> {
        let desk = self.desk;
        match self.rung.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Known::read(desk, RUNG, id.0.as_bytes())?)),
        }
    }

    fn told_of(&mut self, id: RequestId) -> Result<&mut Known<Told>, Fault> {
        let desk = self.desk;
        match self.told.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Known::read(desk, VETOES, id.0.as_bytes())?)),
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
                if held.is_some_and(|h| waits(&h.record, self.now)) {
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
        match intent {
            Some(intent) => known.value.take(intent, now),
            None if known.value.charge(now) => {}
            None => return Ok(false),
        }
        known.changed = true;
        Ok(true)
    }

    fn letters(
        &mut self,
        person: &PersonId,
        channels: Vec<String>,
        about: About,
        request: RequestId,
    ) -> Result<(), Fault> {
        for channel in channels {
            let mut letter = Letter::new(person, channel, about, self.now);
            letter.request = Some(request);
            self.batch = letter.put(self.desk, take(&mut self.batch), self.now)?;
        }
        self.letters = true;
        Ok(())
    }

    async fn end(mut self) -> Result<(), Fault> {
        let mut batch = take(&mut self.batch);
        for (id, known) in &self.rung {
            batch = known.stored(batch, RUNG, id.0.as_bytes())?;
        }
        for (id, known) in &self.told {
            batch = known.stored(batch, VETOES, id.0.as_bytes())?;
        }
        for (person, known) in &self.budgets {
            batch = known.stored(batch, BUDGET, person.as_str().as_bytes())?;
        }
        if !batch.is_empty() {
            match self.desk.commit(batch, &self.events, self.now).await {
                Ok(_) => {}
                // Whatever changed meanwhile is looked at in the next round.
                Err(Fault::Conflict(..)) => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
        self.desk.bells.looked(&self.looked, &self.over, self.now);
        if self.letters {
            self.desk.bells.queue();
        }
        Ok(())
    }
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
