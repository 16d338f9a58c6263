//! Freezing a package takes one person; thawing it takes two.

use super::own::{Own, current};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    notify::About,
    publish::{
        Refusal, close,
        ledger::{self, FROZEN, Freeze},
        prove::prove_in_terminal,
        ring,
    },
    store::Batch,
};
use proto::{
    api::{FreezeStatus, ThawRequest},
    factors::change,
    ids::{PackageName, PersonId, RegistryId},
    stop::{EVERYTHING, Thawers},
    time::UnixTime,
};

/// People who must ask for a thaw.
const THAW_PEOPLE: usize = 2;

/// Freezes: nothing of the package is released from this commit on. Works while sealed.
pub async fn freeze(
    desk: &Desk,
    package: &str,
    by: &PersonId,
    now: UnixTime,
) -> Result<FreezeStatus, Refusal> {
    let package = parse(desk, package)?;
    if let Some((version, mut freeze)) = ledger::freeze(desk, &package)? {
        // Frozen again: a thaw that was under way starts anew.
        freeze.thawing.clear();
        let event = Event::Frozen {
            package: package.clone(),
            by: by.clone(),
        };
        desk.commit(
            Batch::new().replace(
                FROZEN,
                package.as_bytes(),
                version,
                ledger::freeze_row(desk, &package, &freeze)?,
            ),
            &[event],
            now,
        )
        .await?;
    } else {
        let freeze = Freeze::new(Some(by.clone()), now);
        let event = Event::Frozen {
            package: package.clone(),
            by: by.clone(),
        };
        let row = ledger::freeze_row(desk, &package, &freeze)?;
        let batch = Batch::new().create(FROZEN, package.as_bytes(), row);
        let batch = ring::notice(desk, batch, About::Alarm, &package, Some(by))?;
        desk.commit(batch, &[event], now).await?;
    }
    close::deny_frozen(desk, &package, now).await?;
    Ok(FreezeStatus {
        package,
        frozen: true,
        thawing: Vec::new(),
    })
}

/// Asks for a thaw, with a second factor; the second person's asking does it.
pub async fn thaw(
    desk: &Desk,
    own: Own<'_>,
    asked: &ThawRequest,
    now: UnixTime,
) -> Result<FreezeStatus, Refusal> {
    let package = match asked.package.as_str() {
        EVERYTHING => EVERYTHING.to_owned(),
        package => parse(desk, package)?,
    };
    let by = own.person;
    let Some((version, mut freeze)) = ledger::freeze(desk, &package)? else {
        return Ok(FreezeStatus {
            package,
            frozen: false,
            thawing: Vec::new(),
        });
    };
    let admins = thawers(desk, freeze.since)?.admins;
    freeze.thawing.retain(|p| admins.contains(p));
    if !admins.contains(by) {
        return Err(Refusal::NotAllowed(
            "who was enrolled after the freeze does not thaw it".to_owned(),
        ));
    }
    let person = current(desk, own)?.value;
    let about = (change::THAW, package.as_str());
    let spent = prove_in_terminal(desk, &person, own.device, about, &asked.factor, now).await?;
    if !freeze.thawing.contains(by) {
        freeze.thawing.push(by.clone());
    }
    let key = package.as_bytes();
    if freeze.thawing.len() >= THAW_PEOPLE {
        if package == EVERYTHING {
            // What a crash left open does not come back to life with the thaw.
            super::panic::finish(desk, &freeze, now).await?;
        }
        let event = Event::Thawed {
            package: package.clone(),
            by: freeze.thawing.clone(),
        };
        desk.commit(spent.delete(FROZEN, key, version), &[event], now)
            .await?;
        return Ok(FreezeStatus {
            package,
            frozen: false,
            thawing: freeze.thawing,
        });
    }
    let event = Event::ThawAsked {
        package: package.clone(),
        by: by.clone(),
    };
    let row = ledger::freeze_row(desk, &package, &freeze)?;
    let batch = spent.replace(FROZEN, key, version, row);
    let batch = ring::notice(desk, batch, About::Thaw, &package, Some(by))?;
    desk.commit(batch, &[event], now).await?;
    Ok(FreezeStatus {
        package,
        frozen: true,
        thawing: freeze.thawing,
    })
}

/// Who could thaw what is frozen since then. Who is no admin any more does not count; nor does one who was enrolled after
/// the freeze. The person's own date counts: whoever has a new phone since is no newcomer.
pub(super) fn thawers(desk: &Desk, frozen: UnixTime) -> Result<Thawers, Fault> {
    let mut of_before = Thawers::default();
    for person in desk.people()? {
        if person.since().is_some_and(|since| since <= frozen) {
            let list = if person.admin {
                &mut of_before.admins
            } else {
                &mut of_before.others
            };
            list.push(person.id.clone());
        }
    }
    Ok(of_before)
}

/// `registry:package`, by the very parsers that requests go through: a freeze of another spelling
/// would freeze nothing.
fn parse(desk: &Desk, package: &str) -> Result<String, Refusal> {
    let (registry, name) = named(desk, package)?;
    Ok(format!("{registry}:{name}"))
}

/// The same, in its parts.
pub fn named(desk: &Desk, package: &str) -> Result<(RegistryId, PackageName), Refusal> {
    let bad = || Refusal::BadRequest("name a package like npm:@acme/left".to_owned());
    let (registry, name) = package.split_once(':').ok_or_else(bad)?;
    let registry: RegistryId = registry.parse().map_err(|_| bad())?;
    let name = match desk.registries.get(&registry) {
        Some(known) => (known.kind().row().package)(name).map_err(Refusal::BadRequest)?,
        None => {
            return Err(Refusal::BadRequest(format!(
                "this broker has no registry '{registry}'"
            )));
        }
    };
    Ok((registry, name))
}
