//! What is to be delivered: one row a ring and channel. It survives a restart, is tried a few times, and goes when
//! the request waits no more. A crash between sending and forgetting sends once more; the message's id is the same.

use super::ledger;
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        bells::{CHANNELS, HEALTH, channel_key},
    },
    notify::{About, Note, Pen, Unusable, egress::NotSent},
    store::{Batch, Row, Table},
};
use futures_util::{StreamExt as _, stream};
use proto::{
    api::StateName,
    ids::{PersonId, RequestId},
    notify::{ChannelFailure, ChannelKind},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// When (seconds, big-endian) and the message's id: what is to be delivered.
pub const OUTBOX: Table = Table("outbox");

/// Seconds before each further try.
const PAUSES: [u64; 4] = [5, 30, 120, 600];
/// Delivered at once.
const AT_ONCE: usize = 8;
/// Rows looked at in one round.
const LOOK_MAX: usize = 100;
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
}

impl Letter {
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

/// Writes a test to these channels.
pub async fn test(
    desk: &Desk,
    person: &PersonId,
    channels: &[String],
    now: UnixTime,
) -> Result<(), Fault> {
    let mut batch = Batch::new();
    for channel in channels {
        let letter = Letter {
            person: person.clone(),
            channel: channel.clone(),
            about: About::Test,
            request: None,
            since: now,
            tries: PAUSES.len(),
        };
        batch = letter.put(desk, batch, now)?;
    }
    desk.commit(batch, &[], now).await?;
    desk.bells.queue();
    Ok(())
}

/// Delivers what is due.
pub async fn deliver(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let mut due = desk.live.range(OUTBOX, b"", None, LOOK_MAX)?;
    due.retain(|(key, _)| ledger::untimed(key).is_none_or(|(at, _)| at <= now));
    let results = stream::iter(due)
        .map(|(key, row)| async move { one(desk, &key, &row).await })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    results.into_iter().collect()
}

async fn one(desk: &Desk, key: &[u8], row: &Row) -> Result<(), Fault> {
    let gone = || Batch::new().delete(OUTBOX, key, row.version);
    let message = ledger::untimed(key).map(|(_, id)| id);
    let letter: Option<Letter> = serde_json::from_slice(&row.value).ok();
    let (Some(message), Some(letter)) = (message, letter) else {
        tracing::error!("a notification's row is damaged; it is dropped");
        return tolerate(desk.commit(gone(), &[], desk.world.now()).await.map(drop));
    };
    let sent = match send(desk, message, &letter).await {
        Err(Fault::Damaged(what)) => {
            tracing::error!(what, person = %letter.person, "a notification cannot be sent; it is dropped");
            None
        }
        other => other?,
    };
    let now = desk.world.now();
    let Some(sent) = sent else {
        return tolerate(desk.commit(gone(), &[], now).await.map(drop));
    };
    let channel = channel_key(&letter.person, &letter.channel);
    let (mut batch, mut events) = (gone(), Vec::new());
    match &sent {
        Ok(()) => {}
        Err(Failure::Not(NotSent::Gone)) => {
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
    tolerate(desk.commit(batch, &events, now).await.map(drop))?;
    if events.is_empty() {
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
    let Some(channel) = desk.channel(&letter.person, &letter.channel)? else {
        return Ok(None);
    };
    let mut until = letter.since.after(OF_USE);
    if let Some(id) = letter.request {
        let held = ledger::among(desk, id)?;
        let waits = |r: &super::state::Record| r.name() == StateName::Pending && !r.overdue(now);
        let Some(held) = held.filter(|h| waits(&h.record)) else {
            return Ok(None);
        };
        until = held.record.expires();
    }
    if now > until {
        return Ok(None);
    }
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
    let post = channel.value.post(&Pen {
        note: &note,
        vapid: &vapid,
        contact: &desk.bells.contact,
        world: &desk.world,
        now,
    });
    // The secrets of the channel are not kept while its server takes its time.
    let subscribed = channel.value.kind == ChannelKind::WebPush;
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
    let batch = match version {
        None => there.create(HEALTH, channel, value),
        Some(version) => there.replace(HEALTH, channel, version, value),
    };
    tolerate(desk.commit(batch, &[], now).await.map(drop))
}

fn tolerate(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(Fault::Conflict(..)) => Ok(()),
        other => other,
    }
}
