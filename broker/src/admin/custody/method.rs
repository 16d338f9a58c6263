//! What opens the vault changes, online. The new key file is made and tried while the change is asked for; it
//! lies sealed in the database until everybody has confirmed who must: each holder of a share, by opening it, and
//! in any case a second admin where there is one. Only then it takes the old one's place. So one admin alone
//! neither keeps the others out nor lets himself in with a stolen disk (attacks 44, 50).

use super::{
    file, rekey,
    shares::{genuine, holder},
};
use crate::{
    admin::{
        own::{Own, current},
        signed::{SignedBy, is_admin},
    },
    audit::event::Event,
    desk::{
        Desk, Fault,
        inventory::CHANGES,
        people::{Person, Versioned},
    },
    notify::About,
    publish::{Refusal, prove::prove_in_terminal, ring},
    secret::Secret,
    store::Batch,
    vault::{
        Binding, Vault,
        key_file::{self, Offer},
    },
};
use proto::{
    custody::{Change, ChangeMethod, ConfirmMethod, Custody, Method},
    digest::{Algorithm, Digest, hex, unhex},
    factors::change,
    ids::PersonId,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod made;
use made::{made, wanted};

/// The one row of the change under way.
const ROW: &[u8] = b"next";
/// Seconds until a change that not everybody confirmed is over.
const LIFE_SECONDS: u64 = 3 * 24 * 3600;
/// Random bytes that name a change.
const ID_BYTES: usize = 6;

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    to: Method,
    by: SignedBy,
    asked: UnixTime,
    expires: UnixTime,
    /// SHA-256 of the key file that it replaces, hex: kept for later, this row puts nothing back.
    replaces: String,
    confirmed: Vec<SignedBy>,
    /// Everybody confirmed: from here on it is only a matter of the file.
    agreed: bool,
    /// The new key file, sealed under the vault, hex. A copy of the disk is not opened by what one admin just
    /// chose.
    file: String,
}

type Held = Versioned<Stored>;

/// What opens the vault, and what is about to.
pub async fn state(desk: &Desk, own: Own<'_>, now: UnixTime) -> Result<Custody, Refusal> {
    let bytes = file::read(desk).await?;
    let methods = key_file::methods(bytes.expose()).map_err(|e| super::refused(&e))?;
    let offer = offered(&bytes)?;
    let mut custody = Custody {
        methods: methods.into_iter().map(str::to_owned).collect(),
        needed: offer.as_ref().map(|o| o.needed),
        holders: Vec::new(),
        stale: Vec::new(),
        keys: Vec::new(),
        change: None,
        data_key: rekey::state(desk)?,
    };
    for dealt in offer.into_iter().flat_map(|o| o.holders) {
        if holder(desk, &dealt.person)?.as_ref() != Some(&dealt) {
            custody.stale.push(dealt.person.clone());
        }
        custody.holders.push(dealt.person);
    }
    for person in desk.people()? {
        custody
            .keys
            .extend(holder(desk, &person.id)?.map(|h| h.person));
    }
    if let Some(held) = under_way(desk, now)? {
        custody.change = Some(shown(desk, &held.value, own.person)?);
    }
    Ok(custody)
}

/// Asks for a change. It holds at once where nobody else must confirm it.
pub async fn ask(
    desk: &Arc<Desk>,
    own: Own<'_>,
    given: ChangeMethod,
    now: UnixTime,
) -> Result<Custody, Refusal> {
    if let Some(held) = under_way(desk, now)? {
        return Err(Refusal::BadRequest(format!(
            "{} asked for another change already; confirm it, or take it back (countersign admin unseal-method cancel)",
            held.value.by.person
        )));
    }
    if rekey::is_near(desk)? {
        return Err(Refusal::BadRequest(
            "the vault is being re-keyed: ask again in a minute (countersign admin unseal-method)"
                .to_owned(),
        ));
    }
    let (method, opens) = wanted(desk, &given)?;
    let object = given.to.object();
    let about = (change::UNSEAL_METHOD, object.as_str());
    let by = current(desk, own)?.value;
    let spent = prove_in_terminal(desk, &by, own.device, about, &given.factor, now).await?;
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Refusal::Busy);
    };
    let bytes = made(desk, method, opens).await?;
    // Counted from before that: who was enrolled since is no second admin.
    let (asked, now) = (now, now.max(desk.world.now()));
    let mut stored = Stored {
        id: hex(&desk.world.random::<ID_BYTES>().map_err(Fault::from)?),
        to: given.to.clone(),
        by: own.into(),
        asked,
        expires: now.after(LIFE_SECONDS),
        replaces: print(&file::read(desk).await?),
        confirmed: Vec::new(),
        agreed: false,
        file: String::new(),
    };
    let sealed = (desk.vault).seal_row(&binding(&stored.id), bytes.expose());
    stored.file = hex(&sealed.map_err(Fault::from)?);
    let mut events = vec![Event::UnsealMethodAsked {
        by: own.person.clone(),
        to: object,
    }];
    stored.agreed = missing(desk, &stored, offered(&bytes)?.as_ref())?.is_none();
    if stored.agreed {
        events.push(agreed(&stored));
    }
    let row = desk.authentic(CHANGES, ROW, &stored)?;
    let old = desk.live.get(CHANGES, ROW).map_err(Fault::from)?;
    let batch = spent.put(CHANGES, ROW, old.map(|old| old.version), row);
    // A change must not go unseen.
    let batch = ring::notice(desk, batch, About::Custody, "", Some(own.person))?;
    desk.commit(batch, &events, now).await?;
    finish(desk, now).await?;
    state(desk, own, now).await
}

/// Confirms a change: a holder shows that he opens his share, and another admin agrees. The last one makes it hold.
pub async fn confirm(
    desk: &Arc<Desk>,
    own: Own<'_>,
    given: ConfirmMethod,
    share: Option<Secret<Vec<u8>>>,
    now: UnixTime,
) -> Result<Custody, Refusal> {
    // One at a time, to the end: the key file has one writer.
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Refusal::Busy);
    };
    let held = under_way(desk, now)?.filter(|h| h.value.id == given.change);
    let Held { version, mut value } = held.ok_or(Refusal::NotFound)?;
    let by = current(desk, own)?.value;
    let holds = holders(&value.to).contains(own.person);
    let no = |why: &str| Err(Refusal::BadRequest(why.to_owned()));
    match &share {
        None if holds => return no("you get a share: open it, so that it is known to open"),
        None if value.by.person == *own.person => {
            return no("you asked for it: another admin confirms");
        }
        _ => {}
    }
    let mut batch = Batch::new();
    // Who asked gave a factor then.
    let asked = value.by.person == *own.person && value.by.device == *own.device;
    if !asked {
        let object = value.to.object();
        let about = (change::UNSEAL_METHOD, object.as_str());
        batch = prove_in_terminal(desk, &by, own.device, about, &given.factor, now).await?;
    }
    let next = opened(desk, &value)?;
    if let Some(share) = share.filter(|_| holds) {
        genuine(desk, next.expose(), own.person, &share, now).await?;
    }
    value.confirmed.retain(|c| c.person != *own.person);
    value.confirmed.push(own.into());
    let mut events = vec![Event::UnsealMethodConfirmed {
        by: own.person.clone(),
    }];
    value.agreed = missing(desk, &value, offered(&next)?.as_ref())?.is_none();
    if value.agreed {
        events.push(agreed(&value));
    }
    let row = desk.authentic(CHANGES, ROW, &value)?;
    batch = batch.replace(CHANGES, ROW, version, row);
    if value.agreed {
        batch = ring::notice(desk, batch, About::Custody, "", Some(own.person))?;
    }
    desk.commit(batch, &events, now).await?;
    finish(desk, now).await?;
    if value.agreed && file::read(desk).await?.expose() != next.expose() {
        return Err(Refusal::BadRequest(
            "it came to nothing: the key file, or who confirmed, is another one since; ask again"
                .to_owned(),
        ));
    }
    state(desk, own, now).await
}

/// Takes a change back: any admin, since what opened the vault goes on opening it, until the new key file is there.
pub async fn cancel(desk: &Desk, own: Own<'_>, now: UnixTime) -> Result<Custody, Refusal> {
    // Not while the file is replaced.
    let Ok(_one) = desk.unsealing.try_acquire() else {
        return Err(Refusal::Busy);
    };
    let held = under_way(desk, now)?.ok_or(Refusal::NotFound)?;
    if held.value.agreed {
        let (now_there, next) = files(desk, &held.value).await?;
        if now_there.expose() == next.expose() {
            return Err(Refusal::BadRequest(
                "it holds already; ask for another change".to_owned(),
            ));
        }
    }
    let event = Event::UnsealMethodCancelled {
        by: own.person.clone(),
    };
    let batch = Batch::new().delete(CHANGES, ROW, held.version);
    desk.commit(batch, &[event], now).await?;
    state(desk, own, now).await
}

/// Brings a change to its end that everybody confirmed: the same after the last confirmation, and after a crash,
/// as soon as the vault is open again.
pub async fn finish(desk: &Desk, now: UnixTime) -> Result<(), Fault> {
    let Some(held) = under_way(desk, now)?.filter(|h| h.value.agreed) else {
        return Ok(());
    };
    let (now_there, bytes) = files(desk, &held.value).await?;
    // Its file may be in its place already, and only the record be missing.
    if now_there.expose() != bytes.expose()
        && let Some(why) = obsolete(desk, &held.value, &now_there, &bytes)?
    {
        tracing::error!(
            why,
            "ALARM: a change of what opens the vault is dropped; what opened it opens it still"
        );
        let batch = Batch::new().delete(CHANGES, ROW, held.version);
        desk.commit(batch, &[Event::UnsealMethodDropped], now)
            .await?;
        return Ok(());
    }
    let folder = desk.place.data.clone();
    // The very bytes that were tried when it was asked for.
    let work = move || file::install(&folder, bytes.expose());
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => {}
        other => {
            tracing::error!(
                ?other,
                "the key file was not replaced; the old one opens the vault"
            );
            return Err(Fault::Damaged("the key file"));
        }
    }
    // Its key is not known where the broker was started since it was asked for; nobody loses anything by that.
    let installed = file::read(desk).await?;
    if let Err(why) = desk.vault.take_in(installed.expose()) {
        tracing::warn!(%why, "the vault is not re-keyed before it was sealed and unsealed once");
    }
    // The new file is in its place. Whoever finds this row again finds that too, and has nothing left to do.
    let event = Event::UnsealMethodChanged {
        to: held.value.to.object(),
    };
    let batch = Batch::new().delete(CHANGES, ROW, held.version);
    match desk.commit(batch, &[event], now).await {
        // Another one brought it to its end.
        Ok(_) | Err(Fault::Conflict(..)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The key file in use, and the one that is to take its place: equal, where only the record is missing.
async fn files(desk: &Desk, stored: &Stored) -> Result<(Secret<Vec<u8>>, Secret<Vec<u8>>), Fault> {
    Ok((file::read(desk).await?, opened(desk, stored)?))
}

/// Why an agreed change must not come to its end any more. A disk that was full may have kept it for long.
fn obsolete(
    desk: &Desk,
    stored: &Stored,
    now_there: &Secret<Vec<u8>>,
    next: &Secret<Vec<u8>>,
) -> Result<Option<&'static str>, Fault> {
    if print(now_there) != stored.replaces {
        return Ok(Some("the key file is not the one that it replaces"));
    }
    let judged = offered(next).and_then(|offer| missing(desk, stored, offer.as_ref()));
    match judged {
        Ok(None) => Ok(None),
        Ok(Some(_)) => Ok(Some(
            "who confirmed it is no admin now, or has another share key",
        )),
        Err(Refusal::Fault(fault)) => Err(fault),
        Err(_) => Ok(Some("it cannot be read")),
    }
}

fn print(key_file: &Secret<Vec<u8>>) -> String {
    Digest::of(Algorithm::Sha256, key_file.expose()).to_string()
}

fn holders(to: &Method) -> &[PersonId] {
    match to {
        Method::Shares { holders, .. } => holders,
        _ => &[],
    }
}

/// What is missing: holders who have not opened their share, and whether a second admin has not agreed. None:
/// nothing. Judged by today's people and keys, like every answer: a share that its holder could not open any more
/// is none, and who was removed has confirmed nothing, whoever has his name now.
fn missing(
    desk: &Desk,
    stored: &Stored,
    offer: Option<&Offer>,
) -> Result<Option<(Vec<PersonId>, bool)>, Refusal> {
    let confirmed = |person: &PersonId| {
        let mut own = stored.confirmed.iter().filter(|c| c.person == *person);
        own.any(|c| is_admin(desk, c))
    };
    let mut waits = Vec::new();
    for dealt in offer.into_iter().flat_map(|o| &o.holders) {
        if !confirmed(&dealt.person) || holder(desk, &dealt.person)?.as_ref() != Some(dealt) {
            waits.push(dealt.person.clone());
        }
    }
    let asker = &stored.by.person;
    let people = desk.people()?;
    // Who was enrolled since is no second one: the asker may have invited him.
    let there = |p: &Arc<Person>| p.since().is_some_and(|since| since <= stored.asked);
    let mut others = people.iter().filter(|p| p.id != *asker && there(p));
    let agreed = others.clone().any(|p| confirmed(&p.id));
    let others = others.any(|p| p.admin);
    let second = others && !agreed;
    // What somebody wanted who was removed since is nobody's wish.
    let nothing = waits.is_empty() && !second && is_admin(desk, &stored.by);
    Ok((!nothing).then_some((waits, second)))
}

/// The change under way, if there is one.
fn under_way(desk: &Desk, now: UnixTime) -> Result<Option<Held>, Fault> {
    match desk.authentic_row::<Stored>(CHANGES, ROW) {
        // Nobody's wish, and it keeps nobody from asking.
        Err(Fault::Damaged(what)) => {
            tracing::error!(
                what,
                "ALARM: a change of what opens the vault cannot be believed"
            );
            Ok(None)
        }
        held => Ok(held?.filter(|h| h.value.agreed || now < h.value.expires)),
    }
}

fn shown(desk: &Desk, stored: &Stored, person: &PersonId) -> Result<Change, Refusal> {
    let offer = offered(&opened(desk, stored)?)?;
    let (waits_for, second_admin) = missing(desk, stored, offer.as_ref())?.unwrap_or_default();
    Ok(Change {
        id: stored.id.clone(),
        to: stored.to.clone(),
        by: stored.by.person.clone(),
        confirmed: names(stored),
        waits_for,
        second_admin,
        expires: stored.expires,
        own: offer.and_then(|o| o.of(person).map(str::to_owned)),
    })
}

/// The shares of a key file, where shares open it.
fn offered(key_file: &Secret<Vec<u8>>) -> Result<Option<Offer>, Refusal> {
    key_file::offer(key_file.expose()).map_err(|e| super::refused(&e))
}

fn opened(desk: &Desk, stored: &Stored) -> Result<Secret<Vec<u8>>, Fault> {
    let sealed = unhex(&stored.file).ok_or(Fault::Damaged("a key file"))?;
    Ok(desk.vault.open_row(&binding(&stored.id), &sealed)?)
}

fn binding(id: &str) -> Binding<'_> {
    Binding {
        table: CHANGES.0,
        record: id.as_bytes(),
        purpose: "next key file",
        registry: None,
        scope: None,
        version: 0,
    }
}

/// Whether a change is under way.
pub(super) fn is_under_way(desk: &Desk, now: UnixTime) -> Result<bool, Fault> {
    Ok(under_way(desk, now)?.is_some())
}

/// The plain bytes of a row whose key file is sealed with the vault's current key; none where it is already. It replaces
/// a key file that is not there any more, and will be dropped.
pub(super) fn sealed_anew(vault: &Vault, plain: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let damaged = || Fault::Damaged("a key file");
    let mut stored: Stored = serde_json::from_slice(plain).map_err(|_| damaged())?;
    let sealed = unhex(&stored.file).ok_or_else(damaged)?;
    if vault.seal_is_new(&sealed)? {
        return Ok(None);
    }
    let file = vault.open_row(&binding(&stored.id), &sealed)?;
    stored.file = hex(&vault.seal_row(&binding(&stored.id), file.expose())?);
    serde_json::to_vec(&stored).map(Some).map_err(|_| damaged())
}

fn agreed(stored: &Stored) -> Event {
    Event::UnsealMethodAgreed {
        by: stored.by.person.clone(),
        confirmed: names(stored),
        to: stored.to.object(),
    }
}

fn names(stored: &Stored) -> Vec<PersonId> {
    stored.confirmed.iter().map(|c| c.person.clone()).collect()
}
