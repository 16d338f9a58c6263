//! A person's own notification settings.

use super::own::{Own, current};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        bells::{ADDED, CHANNELS, CHANNELS_MAX, HEALTH, QUIET, TESTED, channel_id, channel_key},
    },
    notify::{
        Channel,
        quiet::{self, QuietHours},
    },
    publish::{Refusal, outbox, prove::prove_in_browser, ring},
    store::Batch,
};
use proto::{
    api::SecondFactor,
    factors::change,
    ids::{DeviceId, PersonId},
    notify::{AddChannel, ChannelAdded, ChannelKind, ChannelLine, Quiet, Settings},
    time::UnixTime,
};
use std::slice;

/// Attempts to remove a channel that is rung by at the same moment.
const RACES_MAX: usize = 10;
/// Seconds between two tests.
const TEST_PAUSE: u64 = 10;

/// All of them.
pub async fn settings(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<Settings, Refusal> {
    let mut channels = Vec::new();
    for id in desk.channel_ids(person)? {
        let Some(held) = desk.channel(person, &id)? else {
            continue;
        };
        let (_, health) = desk.health(&channel_key(person, &id))?;
        let channel = &held.value;
        let host = channel.address().ok();
        channels.push(ChannelLine {
            id,
            kind: channel.kind,
            name: channel.name.clone(),
            host: host.map_or_else(String::new, |url| url.origin().ascii_serialization()),
            added: channel.added,
            delivered: health.delivered,
            failed: health.failed,
        });
    }
    channels.sort_by_key(|c| c.added);
    Ok(Settings {
        vapid: desk.vapid().await?.public().to_owned(),
        channels,
        quiet: desk.quiet(person)?,
        allowed: desk.bells.egress.allowed(),
        rings: ring::spent(desk, person, now)?,
        rings_most: ring::UNSOLICITED_MOST,
    })
}

/// Adds a channel. One with the same address stays as it is: a stolen session must not make it deaf by other keys
/// (attack 32), and to remove it takes a factor and is told.
pub async fn add(
    desk: &Desk,
    person: &PersonId,
    device: &DeviceId,
    given: &AddChannel,
    now: UnixTime,
) -> Result<ChannelAdded, Refusal> {
    let random = desk.world.random().map_err(Fault::from)?;
    let channel =
        Channel::take(given, &random, now).map_err(|e| Refusal::BadRequest(e.to_string()))?;
    let url = channel
        .address()
        .map_err(|e| Refusal::BadRequest(e.to_string()))?;
    if desk.bells.egress.allows(&url).is_err() {
        let allowed = desk.bells.egress.allowed();
        let allowed = if allowed.is_empty() {
            "none".to_owned()
        } else {
            allowed.join(", ")
        };
        return Err(Refusal::BadRequest(format!(
            "this broker sends notifications to servers of its configuration only ([push]): {allowed}"
        )));
    }
    let id = channel_id(channel.kind, &channel.url);
    let key = channel_key(person, &id);
    if desk
        .live
        .get(CHANNELS, &key)
        .map_err(Fault::from)?
        .is_some()
    {
        return known(desk, person, id, &channel);
    }
    let of = person.as_str().as_bytes();
    // Read before they are counted: of two that are added at once, one is told to try again, and there are never more.
    let added = desk.live.get(ADDED, of).map_err(Fault::from)?;
    if desk.channel_ids(person)?.len() >= CHANNELS_MAX {
        return Err(Refusal::BadRequest(format!(
            "a person has {CHANNELS_MAX} channels at most; remove one first"
        )));
    }
    let sealed = desk.seal_channel(&key, &channel)?;
    let time = now.0.to_be_bytes();
    let batch = Batch::new().put(ADDED, of, added.map(|row| row.version), time);
    let batch = batch.create(CHANNELS, &key, sealed);
    let event = Event::ChannelAdded {
        person: person.clone(),
        device: device.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(ChannelAdded {
        id,
        secret: (channel.kind == ChannelKind::Webhook)
            .then(|| channel.secret.clone())
            .flatten(),
    })
}

/// The reply for an address that the person has: a browser gives the same subscription again and again.
fn known(
    desk: &Desk,
    person: &PersonId,
    id: String,
    given: &Channel,
) -> Result<ChannelAdded, Refusal> {
    let held = desk.channel(person, &id).ok().flatten();
    if held.is_some_and(|held| held.value.is_subscription_of(given)) {
        return Ok(ChannelAdded { id, secret: None });
    }
    Err(Refusal::BadRequest(format!(
        "you have a channel with this address; remove it first: countersign notify remove {id}"
    )))
}

/// Removes a channel. Its person is told, there for the last time and on all others.
pub async fn remove(
    desk: &Desk,
    own: Own<'_>,
    id: &str,
    factor: &SecondFactor,
    now: UnixTime,
) -> Result<(), Refusal> {
    let held = current(desk, own)?;
    if !desk.channel_ids(own.person)?.iter().any(|own| own == id) {
        return Err(Refusal::NotFound);
    }
    let about = (change::REMOVE_CHANNEL, id);
    let event = Event::ChannelRemoved {
        person: own.person.clone(),
        device: own.device.clone(),
    };
    for _ in 0..RACES_MAX {
        let spent = prove_in_browser(desk, &held.value, own.device, about, factor, now).await?;
        let batch = outbox::channel_removed(desk, spent, own.person, id, now)?;
        let batch = desk.forget_channel(batch, &channel_key(own.person, id))?;
        match desk.commit(batch, slice::from_ref(&event), now).await {
            // It was rung by at this moment.
            Err(Fault::Conflict(HEALTH, _)) => {}
            done => {
                done?;
                desk.bells.queue();
                return Ok(());
            }
        }
    }
    Err(Refusal::Busy)
}

/// Sets quiet hours, or takes them away.
pub async fn quiet(desk: &Desk, own: Own<'_>, given: &Quiet, now: UnixTime) -> Result<(), Refusal> {
    let held = current(desk, own)?;
    let hours = given.hours.as_deref();
    if hours.is_some_and(|h| QuietHours::parse(h).is_none()) {
        return Err(Refusal::BadRequest(format!(
            "{}, with a zone of the IANA list",
            quiet::FORM
        )));
    }
    let about = (change::QUIET_HOURS, hours.unwrap_or_default());
    let spent = prove_in_browser(desk, &held.value, own.device, about, &given.factor, now).await?;
    let key = own.person.as_str().as_bytes();
    let old = desk.live.get(QUIET, key).map_err(Fault::from)?;
    let batch = match (old, hours) {
        (None, None) => spent,
        (None, Some(hours)) => spent.create(QUIET, key, hours),
        (Some(row), None) => spent.delete(QUIET, key, row.version),
        (Some(row), Some(hours)) => spent.replace(QUIET, key, row.version, hours),
    };
    let event = Event::QuietHoursSet {
        person: own.person.clone(),
        device: own.device.clone(),
        quiet: hours.is_some(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Sends a test to each channel that was not used a moment ago. The time of the test is stored in the commit that
/// orders it: pressed a hundred times at once, it is one test.
pub async fn test(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<(), Refusal> {
    let mut channels = desk.channel_ids(person)?;
    if channels.is_empty() {
        return Err(Refusal::BadRequest(
            "you have no channel yet: countersign notify add".to_owned(),
        ));
    }
    let a_moment_ago = || {
        let why = format!("each channel was used in the last {TEST_PAUSE} seconds");
        Refusal::BadRequest(why)
    };
    let key = person.as_str().as_bytes();
    let tested = desk.live.get(TESTED, key).map_err(Fault::from)?;
    // A time ahead of the clock was no test: it must not keep anybody from testing.
    let last = tested.as_ref().and_then(|row| at(&row.value));
    let last = last.filter(|last| *last <= now);
    if last.is_some_and(|last| now.since(last) < TEST_PAUSE) {
        return Err(a_moment_ago());
    }
    let mut fresh = Vec::new();
    for id in channels.drain(..) {
        let (_, health) = desk.health(&channel_key(person, &id))?;
        let last = health.failed.map(|f| f.at).max(health.delivered);
        let last = last.filter(|last| *last <= now);
        if last.is_none_or(|last| now.since(last) >= TEST_PAUSE) {
            fresh.push(id);
        }
    }
    if fresh.is_empty() {
        return Err(a_moment_ago());
    }
    let time = now.0.to_be_bytes();
    let batch = Batch::new().put(TESTED, key, tested.map(|row| row.version), time);
    let batch = outbox::test(desk, batch, person, fresh, now)?;
    match desk.commit(batch, &[], now).await {
        Err(Fault::Conflict(TESTED, _)) => return Err(a_moment_ago()),
        done => drop(done?),
    }
    desk.bells.queue();
    Ok(())
}

/// The time in a row of [`TESTED`].
fn at(row: &[u8]) -> Option<UnixTime> {
    Some(UnixTime(u64::from_be_bytes(row.try_into().ok()?)))
}
