//! What people are told beside requests: that there is something to look at, and not what.

use super::{passable, rows::Known};
use crate::{
    desk::{Desk, Fault, people::Person},
    notify::About,
    publish::{inbox, outbox::Letter},
    store::{Batch, Table},
};
use proto::{ids::PersonId, time::UnixTime};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, mem::take};

/// Message id: what people are to be told.
const NOTICES: Table = Table("notice");
/// Person NUL what: until when they have been told.
const NOTICED: Table = Table("noticed");

/// Seconds between two notices of one kind to one person: what comes between is told by the next.
const PAUSE: u64 = 600;
/// Rows looked at in one round.
const LOOK_MAX: usize = 200;

/// Something that people are told beside requests.
#[derive(Serialize, Deserialize)]
struct Notice {
    about: About,
    /// `registry:package`.
    package: String,
    /// Who did it, and knows.
    by: Option<PersonId>,
}

/// Orders a notice about a package: part of the commit that it is about.
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

/// Writes the letters of what was ordered, in the commit that forgets the order.
pub(super) async fn tell(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let mut told = Told {
        desk,
        now,
        batch: Batch::new(),
        noticed: BTreeMap::new(),
    };
    for (key, row) in desk.live.range(NOTICES, b"", None, LOOK_MAX)? {
        if let Ok(notice) = serde_json::from_slice(&row.value) {
            told.notice(&notice)?;
        } else {
            tracing::error!("ALARM: an order to tell people cannot be read");
        }
        // Only what was told is forgotten.
        told.batch = take(&mut told.batch).delete(NOTICES, key, row.version);
    }
    told.end().await
}

struct Told<'a> {
    desk: &'a Desk,
    now: UnixTime,
    batch: Batch,
    noticed: BTreeMap<Vec<u8>, Known<UnixTime>>,
}

impl Told<'_> {
    fn notice(&mut self, notice: &Notice) -> Result<(), Fault> {
        for person in self.desk.people_believed()? {
            passable(self.person(notice, &person))?;
        }
        Ok(())
    }

    fn person(&mut self, notice: &Notice, person: &Person) -> Result<(), Fault> {
        let channels = self.desk.channel_ids(&person.id)?;
        let knows = notice.by.as_ref() == Some(&person.id);
        if knows || channels.is_empty() || !concerned(self.desk, notice, person) {
            return Ok(());
        }
        let mut key = person.id.as_str().as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(notice.about.name().as_bytes());
        if !self.noticed.contains_key(&key) {
            let known = Known::read(self.desk, NOTICED, &key)?;
            self.noticed.insert(key.clone(), known);
        }
        let Some(known) = self.noticed.get_mut(&key) else {
            return Ok(());
        };
        // What no round can have stored silences nobody.
        if known.value > self.now.after(PAUSE) {
            known.value = UnixTime::default();
        }
        // One is on its way, and will tell of this too.
        if known.value > self.now {
            return Ok(());
        }
        let due = known.value.after(PAUSE).max(self.now);
        known.value = due;
        known.changed = true;
        for channel in channels {
            let letter = Letter::new(&person.id, channel, notice.about, self.now);
            self.batch = letter.put(self.desk, take(&mut self.batch), due)?;
        }
        Ok(())
    }

    async fn end(self) -> Result<(), Fault> {
        let mut batch = self.batch;
        for (key, known) in self.noticed {
            batch = known.stored(batch, NOTICED, &key)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        match self.desk.commit(batch, &[], self.now).await {
            // Whatever changed meanwhile is looked at in the next round.
            Err(Fault::Conflict(..)) => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => {
                self.desk.bells.queue();
                Ok(())
            }
        }
    }
}

fn concerned(desk: &Desk, notice: &Notice, person: &Person) -> bool {
    match notice.about {
        About::Thaw | About::Token | About::Custody | About::Act | About::Restored => person.admin,
        About::Recovery | About::Policy | About::Stopped => true,
        _ => inbox::answers_for(desk, &notice.package, person),
    }
}
