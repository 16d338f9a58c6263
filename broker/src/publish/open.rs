//! Opening: a verified caller's wish becomes a pending request, or a recorded refusal.

use super::{
    Refusal, deposit, inspect, intent, judge,
    ledger::{self, BURNT, BY_ACTOR, BY_SUBJECT, CREDENTIALS, Held, IDEMPOTENCY},
    release, ring,
    state::{Opening, Record},
};
use crate::{
    audit::{
        event::Event,
        reason::{CallerRefusal, RefusalReason},
    },
    caller::{Burn, Caller},
    desk::{Desk, Fault, Registry},
    registry::{Kind, MINTS_NOTHING},
    store::{Batch, history},
    vault::{
        match_code::{deposit_credential, match_code, ticket},
        release as vault,
    },
};
use proto::{
    api::{Mode, OpenRequest, Opened},
    canonical::Canonical,
    ids::{RegistryId, RequestId},
    request::{FILES_MAX, ITEMS_MAX, Item, RequestFacts},
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Open requests of one project. New ones are refused; waiting ones are never pushed out (attack 54).
const OPEN_PER_SUBJECT: usize = 100;
/// Open requests of one CI account: whoever stole it cannot take every place of a project.
const OPEN_PER_ACTOR: usize = 80;
/// Open requests of one CI account for one package.
const OPEN_PER_ACTOR_AND_PACKAGE: usize = 30;
/// Open requests of one project for one package: another project's flood takes none of its places.
const OPEN_PER_PACKAGE: usize = 40;
/// Longest note, in bytes.
const NOTE_MAX: usize = 500;
/// Longest idempotency key, in bytes.
const KEY_MAX: usize = 128;

const REPLAYED: Event = Event::CallerRefused {
    reason: CallerRefusal::Replayed,
};

const TOO_MUCH: Event = Event::RequestRefused {
    reason: RefusalReason::Quota,
};

#[derive(Serialize, Deserialize)]
struct Remembered {
    id: RequestId,
    body: String,
}

/// Opens a request, or returns the one that the same key and body opened before.
pub async fn open(
    desk: &Desk,
    caller: &Caller,
    asked: OpenRequest,
    now: UnixTime,
) -> Result<Opened, Refusal> {
    open_as(desk, Door::Api, caller, asked, Terms::of(caller), now).await
}

/// How a request is opened.
pub(super) struct Terms {
    /// The use of the caller's token.
    pub(super) burn: Burn,
    /// A request that ends in the commit that opens this one, unless somebody has touched it since.
    pub(super) instead_of: Option<Held>,
}

impl Terms {
    /// The usual ones.
    pub(super) fn of(caller: &Caller) -> Self {
        Self {
            burn: caller.burn(),
            instead_of: None,
        }
    }
}

/// Where a request is opened. Each door has idempotency keys of its own: who chooses a key at one
/// occupies none of the other.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// The API; the job chooses its keys.
    Api,
    /// A registry origin; the broker makes the keys, from the run and the bytes. Were they also the API's,
    /// a thief who knows both could have the job's own output lead to his request.
    Origin,
}

/// The request that a caller's key opened before.
pub(super) fn remembered(
    desk: &Desk,
    door: Door,
    caller: &Caller,
    key: &str,
) -> Result<Option<RequestId>, Fault> {
    let key = idempotency(door, caller, key);
    let row = history::find(&*desk.live, &*desk.history, IDEMPOTENCY, &key)?;
    let known = row.map(|value| serde_json::from_slice::<Remembered>(&value));
    let known = known.transpose();
    Ok(known
        .map_err(|_| Fault::Damaged("an idempotency key"))?
        .map(|known| known.id))
}

/// [`open`] on terms of its own.
pub(super) async fn open_as(
    desk: &Desk,
    door: Door,
    caller: &Caller,
    asked: OpenRequest,
    terms: Terms,
    now: UnixTime,
) -> Result<Opened, Refusal> {
    let Terms { burn, instead_of } = terms;
    check_shape(desk, &asked)?;
    let key = idempotency(door, caller, &asked.idempotency_key);
    let body = fingerprint(&asked);
    if let Some(value) =
        history::find(&*desk.live, &*desk.history, IDEMPOTENCY, &key).map_err(Fault::from)?
    {
        let known: Remembered =
            serde_json::from_slice(&value).map_err(|_| Fault::Damaged("an idempotency key"))?;
        if known.body != body {
            return Err(Refusal::IdempotencyMismatch);
        }
        let record = ledger::find(desk, known.id)?.ok_or(Refusal::NotFound)?;
        return opened(desk, &record);
    }

    let policy = desk.policy.load();
    let id = desk.world.request_id().map_err(Fault::from)?;
    let mut facts = RequestFacts {
        id,
        items: asked.items,
        caller: caller.facts().clone(),
        policy: policy.digest().clone(),
        job_key: asked.job_key,
        expires: now,
    };
    let mut burnt = burn.keep_until.0.to_be_bytes().to_vec();
    burnt.extend_from_slice(&burn.key);
    if desk.live.get(BURNT, &burnt).map_err(Fault::from)?.is_some() {
        return refuse(desk, Batch::new(), REPLAYED, Refusal::TokenReplayed, now).await;
    }
    let whole = !asked.leave_out_published;
    // What is left after the published versions may be what was announced: that is looked at below.
    if is_too_much(desk, &facts, caller, now)?
        && (whole || !intent::fits_in_part(desk, &facts, now)?)
    {
        // What was looked for among all that is announced is looked for with one token once.
        let spent = if whole {
            Batch::new()
        } else {
            Batch::new().create(BURNT, &burnt, [])
        };
        return refuse(desk, spent, TOO_MUCH, Refusal::Busy, now).await;
    }
    let admitted =
        match judge::admit(desk, &mut facts, asked.leave_out_published, caller, now).await {
            Ok(a) => a,
            Err(refusal) => {
                // Burnt by the refusal too: the same token does not ask twice.
                let burn = Batch::new().create(BURNT, &burnt, []);
                return refuse(
                    desk,
                    burn,
                    Event::RequestRefused {
                        reason: RefusalReason::Policy,
                    },
                    refusal,
                    now,
                )
                .await;
            }
        };
    // What was left out decides what fits an intent: one that fitted before may fit no more.
    if !whole && is_too_much(desk, &facts, caller, now)? {
        let spent = Batch::new().create(BURNT, &burnt, []);
        return refuse(desk, spent, TOO_MUCH, Refusal::Busy, now).await;
    }
    match admitted.mode {
        Mode::Mint => mintable(desk, &facts.items)?,
        Mode::Reveal => revealable(desk, &facts.items, now)?,
        Mode::Forward | Mode::Deposit => {}
    }
    facts.expires = now.after(admitted.answers_seconds);

    let ticket = ticket(&desk.vault, id).map_err(Fault::from)?;
    let deposit = (admitted.mode == Mode::Deposit)
        .then(|| deposit_credential(&desk.vault, id))
        .transpose()
        .map_err(Fault::from)?;
    let deposit = deposit.map(|credential| credential.hash());
    let how = (caller.actor(), admitted.mode, admitted.terms.commit_counts);
    let fitting = intent::fitting(desk, &facts, now)?;
    let intents = intent::described(desk, &facts, how, fitting)?;
    let step = Record::open(Opening {
        facts,
        caller,
        admitted: &admitted,
        note: asked.note,
        ticket: ticket.hash(),
        credential: deposit,
        idempotency: &key,
        intents,
        now,
    });
    let remembered =
        serde_json::to_vec(&Remembered { id, body }).map_err(|_| Fault::Damaged("a key"))?;
    // The token is burnt in the commit that opens the request: used twice at once, one wins (attack 4).
    let mut batch =
        Batch::new()
            .create(BURNT, burnt, id.0.as_bytes())
            .create(IDEMPOTENCY, key, remembered);
    batch = ring::ordered(batch, id, now);
    if let Some(hash) = deposit {
        batch = batch.create(CREDENTIALS, hash.0.as_slice(), id.0.as_bytes());
    }
    let ended = match instead_of {
        None => None,
        Some(held) => Some((held.version, held.record.cancel()?)),
    };
    match ledger::create(desk, step, ended, batch, now).await {
        Ok(record) => {
            desk.metrics.opened.inc();
            // Opened and durable. If we stop here, it is approved when its job asks how it stands.
            Box::pin(intent::approve(desk, id, now)).await?;
            desk.bells.ask();
            opened(desk, &record)
        }
        Err(Fault::Conflict(BURNT, _)) => {
            refuse(desk, Batch::new(), REPLAYED, Refusal::TokenReplayed, now).await
        }
        Err(fault) => Err(fault.into()),
    }
}

async fn refuse<T>(
    desk: &Desk,
    batch: Batch,
    event: Event,
    refusal: Refusal,
    now: UnixTime,
) -> Result<T, Refusal> {
    desk.metrics.refused.inc();
    let events = if desk.refusals.take(now) {
        vec![event]
    } else {
        Vec::new()
    };
    if !batch.is_empty() || !events.is_empty() {
        match desk.commit(batch, &events, now).await {
            // The same token was refused twice at once.
            Ok(_) | Err(Fault::Conflict(..)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Err(refusal)
}

fn opened(desk: &Desk, record: &Record) -> Result<Opened, Refusal> {
    let id = record.facts.id;
    let mut registry_url = BTreeMap::<RegistryId, String>::new();
    for item in &record.facts.items {
        if let Some(Registry::Forward { endpoint, .. }) = desk.registries.get(&item.registry) {
            registry_url.insert(item.registry.clone(), endpoint.to_string());
        }
    }
    Ok(Opened {
        id,
        request_digest: record.digest,
        facts: record.facts.clone(),
        ticket: ticket(&desk.vault, id).map_err(Fault::from)?.expose(),
        match_code: match_code(&desk.vault, id).map_err(Fault::from)?,
        page: format!("{}/r/{id}", desk.place.public_url),
        registry_url,
        deposit: deposit::takes(record)
            .then(|| deposit_credential(&desk.vault, id))
            .transpose()
            .map_err(Fault::from)?
            .map(|credential| credential.expose()),
        inspect: inspect::asked_for(desk, record),
    })
}

fn check_shape(desk: &Desk, asked: &OpenRequest) -> Result<(), Refusal> {
    let bad = |why: String| Err(Refusal::BadRequest(why));
    if asked.items.is_empty() || asked.items.len() > ITEMS_MAX {
        return bad(format!("a request has 1 to {ITEMS_MAX} items"));
    }
    if let Err(e) = text::check(&asked.idempotency_key, KEY_MAX) {
        return bad(format!("the idempotency key {e}"));
    }
    if let Some(Err(e)) = asked.note.as_deref().map(|n| text::check(n, NOTE_MAX)) {
        return bad(format!("the note {e}"));
    }
    if asked.job_key.parse::<age::x25519::Recipient>().is_err() {
        return bad("job_key is not an age X25519 recipient (age1…)".to_owned());
    }
    let mut names = std::collections::BTreeSet::new();
    for item in &asked.items {
        if !names.insert((&item.registry, &item.package, &item.version)) {
            return bad(format!("{} is named twice", item.name()));
        }
        check_item(desk, item)?;
    }
    Ok(())
}

/// Whether a token can be minted for these items: better said now than after the answers.
fn mintable(desk: &Desk, items: &[Item]) -> Result<(), Refusal> {
    let [item] = items else {
        return Err(release::one_at_a_time());
    };
    let upstream = desk.upstream(&item.registry);
    let mints = upstream.map_or(Err(MINTS_NOTHING), |u| u.mints(&item.package));
    mints.map_err(|why| Refusal::BadRequest(format!("the registry '{}' {why}", item.registry)))
}

/// Whether a secret is stored for exactly these items.
fn revealable(desk: &Desk, items: &[Item], now: UnixTime) -> Result<(), Refusal> {
    let [item] = items else {
        return Err(release::one_at_a_time());
    };
    vault::revealable(&desk.vault, &*desk.live, item, now)
        .map_err(Fault::from)?
        .then_some(())
        .ok_or_else(|| release::none_to_reveal(item))
}

fn check_item(desk: &Desk, item: &Item) -> Result<(), Refusal> {
    let bad = |why: String| Err(Refusal::BadRequest(why));
    if item.files.len() > FILES_MAX {
        return bad(format!("{} has more than {FILES_MAX} files", item.name()));
    }
    for file in &item.files {
        if let Err(e) = text::check(&file.name, 255) {
            return bad(format!("a file name of {} {e}", item.name()));
        }
    }
    let registry = desk.registries.get(&item.registry);
    // Only cargo tells what it will publish before it takes the token.
    if let Some(file) = item.files.iter().find(|f| f.is_announced())
        && registry.is_none_or(|r| r.kind() != Kind::Crates)
    {
        return bad(format!("{} of {} is empty", file.name, item.name()));
    }
    match registry {
        None => bad(format!(
            "this broker has no registry '{}'; it has: {}",
            item.registry,
            desk.registries
                .keys()
                .map(RegistryId::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        )),
        Some(registry) => {
            let row = registry.kind().row();
            (row.item)(item).map_err(Refusal::BadRequest)?;
            let one_spelling = (row.package)(item.package.as_str()).map_err(Refusal::BadRequest)?;
            if one_spelling == item.package {
                Ok(())
            } else {
                bad(format!("write {} as {one_spelling}", item.package))
            }
        }
    }
}

/// Whether nobody announced it and its places are taken.
fn is_too_much(
    desk: &Desk,
    facts: &RequestFacts,
    caller: &Caller,
    now: UnixTime,
) -> Result<bool, Fault> {
    let announced = intent::outside_quotas(desk, &intent::fitting(desk, facts, now)?)?;
    Ok(!announced && over_quota(desk, facts, caller.actor())?)
}

fn over_quota(desk: &Desk, facts: &RequestFacts, actor: Option<&str>) -> Result<bool, Fault> {
    let caller = &facts.caller;
    let full = |table, prefix: &[u8], limit| -> Result<bool, Fault> {
        Ok(desk.live.range(table, prefix, None, limit)?.len() >= limit)
    };
    if let Some(actor) = actor {
        let prefix = ledger::prefix(&[&caller.issuer, &caller.subject, actor]);
        if full(BY_ACTOR, &prefix, OPEN_PER_ACTOR)? {
            return Ok(true);
        }
    }
    let prefix = ledger::prefix(&[&caller.issuer, &caller.subject]);
    if full(BY_SUBJECT, &prefix, OPEN_PER_SUBJECT)? {
        return Ok(true);
    }
    for item in &facts.items {
        let prefix = ledger::prefix(&[&item.package_key(), &caller.issuer, &caller.subject]);
        let open = desk
            .live
            .range(ledger::BY_PACKAGE_ASKER, &prefix, None, OPEN_PER_PACKAGE)?;
        if open.len() >= OPEN_PER_PACKAGE {
            return Ok(true);
        }
        // Few enough to look at each: whose are they?
        if let Some(actor) = actor.filter(|_| open.len() >= OPEN_PER_ACTOR_AND_PACKAGE) {
            let mut own = 0;
            for (key, _) in &open {
                let id = key.get(prefix.len()..).and_then(ledger::id_of);
                let held = id.map(|id| ledger::among(desk, id)).transpose()?.flatten();
                own += usize::from(held.is_some_and(|h| h.record.actor.as_deref() == Some(actor)));
            }
            if own >= OPEN_PER_ACTOR_AND_PACKAGE {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The key is the caller's own: nobody can occupy another project's keys.
fn idempotency(door: Door, caller: &Caller, key: &str) -> Vec<u8> {
    let facts = caller.facts();
    let domain = match door {
        Door::Api => "countersign/idempotency/v1",
        Door::Origin => "countersign/idempotency-at-origin/v1",
    };
    Canonical::new(domain)
        .text(&facts.issuer)
        .text(&facts.subject)
        .text(key)
        .sha256()
        .to_vec()
}

fn fingerprint(asked: &OpenRequest) -> String {
    // Struct serialisation: the order of members is the declaration's.
    let bytes = serde_json::to_vec(asked).unwrap_or_default();
    proto::device::body_hash(&bytes)
}
