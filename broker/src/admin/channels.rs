//! A person's own notification settings.

use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        bells::{CHANNELS, CHANNELS_MAX, QUIET, channel_id, channel_key},
    },
    notify::{
        Channel,
        quiet::{self, QuietHours},
    },
    publish::{Refusal, outbox, ring},
    store::Batch,
};
use proto::{
    ids::{DeviceId, PersonId},
    notify::{AddChannel, ChannelAdded, ChannelKind, ChannelLine, Settings},
    time::UnixTime,
};

/// Seconds between two tests of one channel.
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

/// Adds a channel, or replaces the one with the same address.
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
    let old = desk.live.get(CHANNELS, &key).map_err(Fault::from)?;
    if old.is_none() && desk.channel_ids(person)?.len() >= CHANNELS_MAX {
        return Err(Refusal::BadRequest(format!(
            "a person has {CHANNELS_MAX} channels at most; remove one first"
        )));
    }
    let sealed = desk.seal_channel(&key, &channel)?;
    let batch = match old {
        None => Batch::new().create(CHANNELS, &key, sealed),
        Some(row) => Batch::new().replace(CHANNELS, &key, row.version, sealed),
    };
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

/// Removes a channel.
pub async fn remove(
    desk: &Desk,
    person: &PersonId,
    device: &DeviceId,
    id: &str,
    now: UnixTime,
) -> Result<(), Refusal> {
    if !desk.channel_ids(person)?.iter().any(|own| own == id) {
        return Err(Refusal::NotFound);
    }
    let batch = desk.forget_channel(Batch::new(), &channel_key(person, id))?;
    let event = Event::ChannelRemoved {
        person: person.clone(),
        device: device.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

/// Sets quiet hours, or takes them away.
pub async fn quiet(
    desk: &Desk,
    person: &PersonId,
    hours: Option<&str>,
    now: UnixTime,
) -> Result<(), Refusal> {
    if hours.is_some_and(|h| QuietHours::parse(h).is_none()) {
        return Err(Refusal::BadRequest(format!(
            "{}, with a zone of the IANA list",
            quiet::FORM
        )));
    }
    let key = person.as_str().as_bytes();
    let old = desk.live.get(QUIET, key).map_err(Fault::from)?;
    let batch = match (old, hours) {
        (None, None) => return Ok(()),
        (None, Some(hours)) => Batch::new().create(QUIET, key, hours),
        (Some(row), None) => Batch::new().delete(QUIET, key, row.version),
        (Some(row), Some(hours)) => Batch::new().replace(QUIET, key, row.version, hours),
    };
    desk.commit(batch, &[], now).await?;
    Ok(())
}

/// Sends a test to each channel that was not used a moment ago.
pub async fn test(desk: &Desk, person: &PersonId, now: UnixTime) -> Result<(), Refusal> {
    let mut channels = desk.channel_ids(person)?;
    if channels.is_empty() {
        return Err(Refusal::BadRequest(
            "you have no channel yet: countersign notify add".to_owned(),
        ));
    }
    let mut fresh = Vec::new();
    for id in channels.drain(..) {
        let (_, health) = desk.health(&channel_key(person, &id))?;
        let last = health.failed.map(|f| f.at).max(health.delivered);
        if last.is_none_or(|last| now.since(last) >= TEST_PAUSE) {
            fresh.push(id);
        }
    }
    if fresh.is_empty() {
        return Err(Refusal::BadRequest(format!(
            "each channel was used in the last {TEST_PAUSE} seconds"
        )));
    }
    outbox::test(desk, person, &fresh, now).await?;
    Ok(())
}
