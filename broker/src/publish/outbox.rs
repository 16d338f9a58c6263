//! What is to be delivered: one row a ring and channel. It survives a restart, is tried a few times, and goes when
//! the request waits no more. A crash between sending and forgetting sends once more; the message's id is the same.

use super::{ledger, veto};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        bells::{CHANNELS, CHANNELS_MAX, HEALTH, channel_key},
        passable,
    },
    notify::{About, Channel, Note, Pen, Unusable, egress::NotSent},
    store::{Batch, Row, Table},
};
use futures_util::{StreamExt as _, stream};
use proto::{
    api::StateName,
    digest::{hex, unhex},
    ids::{PersonId, RequestId},
    notify::{ChannelFailure, ChannelKind},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When (seconds, big-endian) and the message's id: what is to be delivered.
pub const OUTBOX: Table = Table("outbox");

/// Seconds before each further try.
const PAUSES: [u64; 4] = [5, 30, 120, 600];
/// Delivered at once.
const AT_ONCE: usize = 8;
/// Rows looked at in one round.
const LOOK_MAX: usize = 2000;
/// Delivered in one round.
const ROUND_MAX: usize = 100;
/// The same to one person: two on each channel.
const PERSON_MAX: usize = 2 * CHANNELS_MAX;
/// Seconds for which something is of use that is about no request.
const OF_USE: u64 = 24 * 3600;

/// One notification on one channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    /// To whom.
    pub(super) person: PersonId,
    /// By which channel.
    pub(super) channel: String,
    /// What it says.
    pub(super) about: About,
    /// Of which request.
    pub(super) request: Option<RequestId>,
    /// When it was written.
    pub(super) since: UnixTime,
    /// Tries so far.
    pub(super) tries: usize,
    /// The channel itself, sealed, hex: it is removed, and its person is told there for the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
}

impl Letter {
    /// One that is about no request.
    pub(super) fn new(person: &PersonId, channel: String, about: About, now: UnixTime) -> Self {
        Self {
            person: person.clone(),
            channel,
            about,
            request: None,
            since: now,
            tries: 0,
            last: None,
        }
    }

    /// Adds it to a batch, to be delivered from `due` on.
    pub(super) fn put(&self, desk: &Desk, batch: Batch, due: UnixTime) -> Result<Batch, Fault> {
        let message = desk.world.request_id()?;
        self.put_again(batch, message, due)
    }

    fn put_again(&self, batch: Batch, message: RequestId, due: UnixTime) -> Result<Batch, Fault> {
        let value = serde_json::to_vec(self).map_err(|_| Fault::Damaged("a notification"))?;
        Ok(batch.create(OUTBOX, ledger::timed(due, message), value))
    }
}

/// Adds a test of these channels. It is not tried again.
pub fn test(
    desk: &Desk,
    mut batch: Batch,
    person: &PersonId,
    channels: Vec<String>,
    now: UnixTime,
) -> Result<Batch, Fault> {
    for channel in channels {
        let mut letter = Letter::new(person, channel, About::Test, now);
        letter.tries = PAUSES.len();
        batch = letter.put(desk, batch, now)?;
    }
    Ok(batch)
}

/// Tells a person that one of the own channels is removed, on each of them and on this one for the last time: part of
/// the commit that removes it. Who does that with a stolen device is not to do it unheard (attack 32).
pub fn channel_removed(
    desk: &Desk,
    mut batch: Batch,
    person: &PersonId,
    gone: &str,
    now: UnixTime,
) -> Result<Batch, Fault> {
    batch = told_elsewhere(desk, batch, person, gone, now)?;
    if let Some(row) = desk.live.get(CHANNELS, &channel_key(person, gone))? {
        let mut letter = Letter::new(person, gone.to_owned(), About::Settings, now);
        letter.last = Some(hex(&row.value));
        batch = letter.put(desk, batch, now)?;
    }
    Ok(batch)
}

/// Tells a person on the other channels that this one is no more.
fn told_elsewhere(
    desk: &Desk,
    mut batch: Batch,
    person: &PersonId,
    gone: &str,
    now: UnixTime,
) -> Result<Batch, Fault> {
    for channel in desk.channel_ids(person)? {
        if channel != gone {
            batch = Letter::new(person, channel, About::Settings, now).put(desk, batch, now)?;
        }
    }
    Ok(batch)
}

/// Whether a letter about this request was not tried yet.
pub fn is_untried(desk: &Desk, id: RequestId) -> Result<bool, Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(OUTBOX, b"", after.as_deref(), LOOK_MAX)?;
        let more = rows.len() == LOOK_MAX;
        let letters = rows
            .iter()
            .filter_map(|(_, row)| serde_json::from_slice::<Letter>(&row.value).ok());
        if letters
            .into_iter()
            .any(|l| l.request == Some(id) && l.tries == 0)
        {
            return Ok(true);
        }
        after = rows.last().map(|(key, _)| key.clone());
        if !more {
            return Ok(false);
        }
    }
}

/// Delivers what is due.
pub async fn deliver(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let results = stream::iter(due(desk, now)?)
        .map(|(key, row)| async move { one(desk, &key, &row).await })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    results.into_iter().collect()
}

/// What is delivered in this round: what is due first, and of each person only so much. Who writes much to slow
/// servers, by tests or by what he announces, keeps nobody else from being rung.
fn due(desk: &Desk, now: UnixTime) -> Result<Vec<(Vec<u8>, Row)>, Fault> {
    let mut persons = BTreeMap::<String, usize>::new();
    let mut is_next = |(key, row): &(Vec<u8>, Row)| {
        if ledger::untimed(key).is_some_and(|(at, _)| at > now) {
            return false;
        }
        let letter: Option<Letter> = serde_json::from_slice(&row.value).ok();
        letter.is_none_or(|letter| {
            let count = persons.entry(letter.person.to_string()).or_default();
            *count += 1;
            *count <= PERSON_MAX
        })
    };
    let mut chosen = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let mut rows = desk.live.range(OUTBOX, b"", after.as_deref(), LOOK_MAX)?;
        after = rows.last().map(|(key, _)| key.clone());
        // Rows lie in the order in which they are due.
        let later = |key: &[u8]| ledger::untimed(key).is_some_and(|(at, _)| at > now);
        let more = rows.len() == LOOK_MAX && !after.as_deref().is_some_and(later);
        rows.retain(&mut is_next);
        chosen.append(&mut rows);
        chosen.truncate(ROUND_MAX);
        if !more || chosen.len() == ROUND_MAX {
            return Ok(chosen);
        }
    }
}

async fn one(desk: &Desk, key: &[u8], row: &Row) -> Result<(), Fault> {
    let gone = || Batch::new().delete(OUTBOX, key, row.version);
    let message = ledger::untimed(key).map(|(_, id)| id);
    let letter: Option<Letter> = serde_json::from_slice(&row.value).ok();
    let (Some(message), Some(letter)) = (message, letter) else {
        tracing::error!("a notification's row is damaged; it is dropped");
        return passable(desk.commit(gone(), &[], desk.world.now()).await.map(drop));
    };
    let channel = channel_key(&letter.person, &letter.channel);
    let version = |row: Option<Row>| row.map(|row| row.version);
    let before = version(desk.live.get(CHANNELS, &channel)?);
    let sent = match send(desk, message, &letter).await {
        Err(Fault::Damaged(what)) => {
            tracing::error!(what, person = %letter.person, "a notification cannot be sent; it is dropped");
            None
        }
        other => other?,
    };
    let now = desk.world.now();
    let Some(sent) = sent else {
        return passable(desk.commit(gone(), &[], now).await.map(drop));
    };
    let (mut batch, mut events) = (gone(), Vec::new());
    match &sent {
        Ok(()) => {}
        // Another letter has found that out, or it was added anew meanwhile.
        Err(Failure::Not(NotSent::Gone))
            if before.is_none() || before != version(desk.live.get(CHANNELS, &channel)?) => {}
        Err(Failure::Not(NotSent::Gone)) => {
            // Who ended a subscription by a stolen browser is not to do it unheard, as above.
            batch = told_elsewhere(desk, batch, &letter.person, &letter.channel, now)?;
            batch = desk.forget_channel(batch, &channel)?;
            events.push(Event::ChannelGone {
                person: letter.person.clone(),
            });
        }
        Err(why) => {
            desk.metrics.notifications_failed.inc();
            tracing::warn!(person = %letter.person, channel = letter.channel, %why, "a notification was not delivered");
            if let Some(pause) = PAUSES.get(letter.tries) {
                let again = Letter {
                    tries: letter.tries + 1,
                    ..letter
                };
                batch = again.put_again(batch, message, now.after(*pause))?;
            }
        }
    }
    passable(desk.commit(batch, &events, now).await.map(drop))?;
    let is_gone = matches!(sent, Err(Failure::Not(NotSent::Gone)));
    if is_gone {
        desk.bells.queue();
    } else {
        remember(desk, &channel, sent.err().map(|f| f.to_string()), now).await?;
    }
    Ok(())
}

/// Why a notification did not leave, or did not arrive.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Not(#[from] NotSent),
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Sends, unless nobody waits for it any more (`None`).
async fn send(
    desk: &Desk,
    message: RequestId,
    letter: &Letter,
) -> Result<Option<Result<(), Failure>>, Fault> {
    let now = desk.world.now();
    // Who was removed is not rung, whatever was on its way to him.
    if desk.person(&letter.person)?.is_none() {
        return Ok(None);
    }
    let Some(channel) = channel(desk, letter)? else {
        return Ok(None);
    };
    let until = of_use(desk, letter, now)?;
    let Some(until) = until.filter(|until| now <= *until) else {
        return Ok(None);
    };
    let place = letter
        .request
        .map_or_else(String::new, |id| format!("r/{id}"));
    let note = Note {
        message,
        about: letter.about,
        request: letter.request,
        page: format!("{}/{place}", desk.place.public_url),
        until,
    };
    let vapid = desk.vapid().await?;
    let post = channel.post(&Pen {
        note: &note,
        vapid: &vapid,
        contact: &desk.bells.contact,
        world: &desk.world,
        now,
    });
    // The secrets of the channel are not kept while its server takes its time.
    let subscribed = channel.kind == ChannelKind::WebPush;
    drop(channel);
    let post = match post {
        Ok(post) => post,
        Err(why) => return Ok(Some(Err(why.into()))),
    };
    let sent = desk.bells.egress.post(post).await.map_err(|why| match why {
        // Only a push service says so of a subscription (RFC 8030 §7.3); elsewhere a server that is being mended
        // would take the channel away.
        NotSent::Gone if !subscribed => NotSent::Status(404),
        why => why,
    });
    Ok(Some(sent.map_err(Into::into)))
}

/// The channel of a letter, or what it was when it was removed.
fn channel(desk: &Desk, letter: &Letter) -> Result<Option<Channel>, Fault> {
    let Some(last) = &letter.last else {
        let held = desk.channel(&letter.person, &letter.channel)?;
        return Ok(held.map(|held| held.value));
    };
    let sealed = unhex(last).ok_or(Fault::Damaged("a notification"))?;
    desk.open_channel(&letter.person, &letter.channel, &sealed)
        .map(Some)
}

/// Until when a letter is of use, if it is.
fn of_use(desk: &Desk, letter: &Letter, now: UnixTime) -> Result<Option<UnixTime>, Fault> {
    let Some(id) = letter.request else {
        return Ok(Some(letter.since.after(OF_USE)));
    };
    let Some(r) = ledger::among(desk, id)?.map(|held| held.record) else {
        return Ok(None);
    };
    let held = veto::until(desk, &r, now)?;
    Ok(match letter.about {
        About::Veto => held,
        _ if r.name() == StateName::Pending && !r.overdue(now) => Some(r.expires()),
        _ => None,
    })
}

/// For the person's settings. It decides nothing: whoever is faster is right enough.
async fn remember(
    desk: &Desk,
    channel: &[u8],
    failed: Option<String>,
    now: UnixTime,
) -> Result<(), Fault> {
    let Some(row) = desk.live.get(CHANNELS, channel)? else {
        return Ok(());
    };
    let there = Batch::new().require(CHANNELS, channel, row.version);
    let (version, mut health) = desk.health(channel)?;
    match failed {
        None => {
            health.delivered = Some(now);
            health.failed = None;
        }
        Some(why) => health.failed = Some(ChannelFailure { at: now, why }),
    }
    let value = serde_json::to_vec(&health).map_err(|_| Fault::Damaged("a channel"))?;
    let batch = there.put(HEALTH, channel, version, value);
    passable(desk.commit(batch, &[], now).await.map(drop))
}
