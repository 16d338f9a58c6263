//! Stages at a registry: which are ours, whether they hold what was approved, and which nobody here made.
//!
//! A stage is approved only if this broker made it (an authenticated row says for which file), and only
//! after its archive was downloaded and is, to the bit, the approved one.

use super::{
    Refusal, ledger, settle,
    state::{FileAt, Progress, Record},
};
use crate::{
    audit::{event::Event, reason::DenyCause},
    desk::{Desk, Fault},
    registry::{Account, ReadError, StageId, Staged, Staging},
    secret::Secret,
    store::{Batch, Table},
    vault::{release as vault, tokens},
};
use proto::{
    api::{StageLine, Stages},
    ids::{PackageName, RegistryId, RequestId},
    request::Item,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `registry` NUL stage → whose it is: the stages that this broker made.
pub const STAGES: Table = Table("stage");
/// `registry` NUL stage: foreign ones that were reported.
pub const FOREIGN: Table = Table("foreign-stage");

/// Open requests of a package that are looked at.
const OPEN_MAX: usize = 100;
/// The tag where a request names none.
const NO_TAG: &str = "latest";

/// Whose a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    request: RequestId,
    item: u32,
    file: u32,
}

/// Whose a stage is that a registry lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// This file's: a row of ours says so.
    Ours(Owner),
    /// Perhaps this request's: it is sending the very version, and has no answer yet.
    OnItsWay(RequestId),
    /// Nobody's here.
    Nobody,
}

/// What is staged of a file's version.
pub(super) enum Found {
    /// Nothing of this version is staged.
    Nothing,
    /// The stage is ours: our account made it, of the approved bytes.
    Ours(StageId),
    /// Another stage holds the version; a sentence about it.
    Occupied(String),
}

fn key(registry: &RegistryId, stage: &StageId) -> Vec<u8> {
    format!("{registry}\0{stage}").into_bytes()
}

fn owner(desk: &Desk, registry: &RegistryId, stage: &StageId) -> Result<Option<Owner>, Fault> {
    let row = desk.authentic_row(STAGES, &key(registry, stage))?;
    Ok(row.map(|r| r.value))
}

/// Adds to a batch whose stage this is. `None`: it is another file's.
pub(super) fn own(
    desk: &Desk,
    batch: Batch,
    item: &Item,
    stage: &StageId,
    (id, at): (RequestId, FileAt),
) -> Result<Option<Batch>, Fault> {
    let (number, file) = at.numbers();
    let mine = Owner {
        request: id,
        item: number,
        file,
    };
    if let Some(other) = owner(desk, &item.registry, stage)? {
        return Ok((other == mine).then_some(batch));
    }
    let key = key(&item.registry, stage);
    let row = desk.authentic(STAGES, &key, &mine)?;
    Ok(Some(batch.create(STAGES, key, row)))
}

/// Forgets a stage that was published.
pub(super) fn forget(
    desk: &Desk,
    batch: Batch,
    registry: &RegistryId,
    stage: &StageId,
) -> Result<Batch, Fault> {
    let key = key(registry, stage);
    Ok(match desk.live.get(STAGES, &key)? {
        Some(row) => batch.delete(STAGES, key, row.version),
        None => batch,
    })
}

/// Whether a stage holds what was approved, right now. If not, the request's state and the log say so,
/// and it is not approved at the registry.
pub(super) async fn holds_what_was_approved(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    stage: &StageId,
) -> Result<bool, Refusal> {
    let id = record.facts.id;
    let (item, staging) = place(desk, record, at)?;
    let file = item.files.get(at.file).ok_or(Refusal::NotFound)?;
    let (number, index) = at.numbers();
    let mine = Owner {
        request: id,
        item: number,
        file: index,
    };
    let token = token(desk, item)?.ok_or_else(|| Refusal::NoToken(item.package_key()))?;
    let inspected = staging.inspect(stage, &token, file.size).await;
    let Some(inspected) = inspected.map_err(down)? else {
        gone(desk, record, at, stage).await?;
        return Ok(false);
    };
    let same_name = is_of(&inspected.staged, item);
    let ours = owner(desk, &item.registry, stage)? == Some(mine);
    if ours && same_name && inspected.digest == file.digest {
        return Ok(true);
    }
    desk.metrics.alarms.inc();
    tracing::error!(%id, %stage, "a stage is not what was approved");
    let event = Event::StageDiffers {
        request: id,
        item: number,
        file: index,
        stage: stage.to_string(),
    };
    desk.commit(Batch::new(), &[event], desk.world.now())
        .await?;
    if inspected.digest == file.digest {
        let said = format!(
            "the stage {stage} is not the one that was made for this request; reject it at the registry"
        );
        settle::change(desk, id, |r| r.unheld(at, said.clone())).await?;
    } else {
        settle::change(desk, id, |r| r.shows(at, inspected.digest.clone())).await?;
    }
    Ok(false)
}

/// The stage is gone, and the version is not shown: somebody said no to it at the registry, which ends the
/// request like any other no. Looked at twice, since what was just published may be shown late.
async fn gone(desk: &Desk, record: &Record, at: FileAt, stage: &StageId) -> Result<(), Refusal> {
    let id = record.facts.id;
    let item = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
    let upstream = desk.upstream(&item.registry).ok_or(Refusal::NotFound)?;
    tokio::time::sleep(upstream.lag()).await;
    if settle::may_send(desk, id, at).await?.is_none() {
        return Ok(());
    }
    let said = format!("the stage {stage} is gone: somebody rejected it at the registry");
    settle::change(desk, id, |r| {
        if r.withheld() {
            r.deny(None, None, DenyCause::Rejected)
        } else {
            r.unheld(at, said.clone())
        }
    })
    .await
}

/// Package, version and tag, which is fixed when something is staged.
fn is_of(staged: &Staged, item: &Item) -> bool {
    staged.package == item.package.as_str()
        && staged.version == item.version.as_str()
        && staged.tag == item.tag.as_ref().map_or(NO_TAG, |t| t.as_str())
}

/// What is staged of a file's version. A stage is ours without a row of ours only after an attempt whose
/// reply was lost, and then bytes alone do not say so, since its metadata may be another's (attack 14): it
/// must be our own account's too.
pub(super) async fn find(desk: &Desk, record: &Record, at: FileAt) -> Result<Found, Refusal> {
    let Ok((item, staging)) = place(desk, record, at) else {
        return Ok(Found::Nothing);
    };
    let file = item.files.get(at.file).ok_or(Refusal::NotFound)?;
    let Some(token) = token(desk, item)? else {
        return Ok(Found::Nothing);
    };
    let mut foreign = Vec::new();
    let mut found = Found::Nothing;
    let me = Some(record.facts.id);
    for (staged, whose) in look(desk, item, staging, (&token, me)).await? {
        let this = staged.version == item.version.as_str();
        if this && may_be_ours(desk, record, at, (&staged, whose), &token).await? {
            let inspected = staging.inspect(&staged.id, &token, file.size).await;
            if inspected
                .map_err(down)?
                .is_some_and(|i| i.digest == file.digest)
            {
                found = Found::Ours(staged.id);
                continue;
            }
        }
        if this {
            found = Found::Occupied(occupied_by(&staged, whose));
        }
        if whose == Whose::Nobody {
            foreign.push(staged);
        }
    }
    report(desk, item, &foreign).await?;
    Ok(found)
}

async fn may_be_ours(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    (staged, whose): (&Staged, Whose),
    token: &Secret<String>,
) -> Result<bool, Refusal> {
    let item = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
    let (number, index) = at.numbers();
    let mine = (record.facts.id, number, index);
    let sent = record.progress(at).is_some_and(|p| p.attempt() > 0);
    if !sent || !is_of(staged, item) {
        return Ok(false);
    }
    match whose {
        Whose::Ours(o) => return Ok((o.request, o.item, o.file) == mine),
        Whose::OnItsWay(_) => return Ok(false),
        Whose::Nobody => {}
    }
    let upstream = desk.upstream(&item.registry).ok_or(Refusal::NotFound)?;
    let account = upstream.whoami(token).await.map_err(down)?;
    Ok(account == Account::Named(staged.actor.clone()))
}

fn occupied_by(staged: &Staged, whose: Whose) -> String {
    let Staged {
        id, actor, version, ..
    } = staged;
    match whose {
        Whose::Ours(Owner { request, .. }) | Whose::OnItsWay(request) => format!(
            "version {version} is occupied by the stage {id} of the request {request}; reject it at the registry (npm stage reject {id}) and publish again"
        ),
        Whose::Nobody => format!(
            "version {version} is occupied by the stage {id} of {actor}, which this broker did not make; look into it, reject it at the registry (npm stage reject {id}) and publish again"
        ),
    }
}

/// Sentences about foreign stages of an item's package, for the question.
pub(super) async fn warnings(desk: &Desk, item: &Item) -> Result<Vec<String>, Refusal> {
    let Some(staging) = desk.upstream(&item.registry).and_then(|u| u.staging()) else {
        return Ok(Vec::new());
    };
    let Some(token) = token(desk, item)? else {
        return Ok(Vec::new());
    };
    let seen = look(desk, item, staging, (&token, None)).await?;
    let foreign = seen.into_iter().filter(|(_, w)| *w == Whose::Nobody);
    let foreign: Vec<_> = foreign.map(|(staged, _)| staged).collect();
    report(desk, item, &foreign).await?;
    let line = |s: &Staged| {
        format!(
            "the registry has a stage of {}@{} that this broker did not make ({}, by {})",
            s.package, s.version, s.id, s.actor
        )
    };
    Ok(foreign.iter().map(line).collect())
}

/// Every stage of gated packages that the stored tokens can see.
pub async fn all(desk: &Desk) -> Result<Stages, Refusal> {
    let now = desk.world.now();
    let stored = tokens::list(&desk.vault, &*desk.live).map_err(Fault::from)?;
    let (mut lines, mut unknown) = (BTreeMap::new(), Vec::new());
    for stored in stored.iter().filter(|t| t.record.serves(now)) {
        let registry = &stored.record.registry;
        let Some(staging) = desk.upstream(registry).and_then(|u| u.staging()) else {
            continue;
        };
        let token = vault::for_check(&desk.vault, stored).map_err(Fault::from)?;
        let seen = match staging.list(None, &token).await {
            Ok(seen) => seen,
            Err(why) => {
                let scope = stored.record.scope.as_str();
                unknown.push(format!("{registry} ({scope}): {why}"));
                continue;
            }
        };
        for staged in seen {
            let gated = |p: &PackageName| desk.policy.load().entry(registry, p).is_ok();
            if !staged.package.parse().is_ok_and(|p| gated(&p)) {
                continue;
            }
            let request = match whose(desk, registry, &staged, None)? {
                Whose::Ours(Owner { request, .. }) | Whose::OnItsWay(request) => Some(request),
                Whose::Nobody => {
                    alarm(desk, registry, &staged).await?;
                    None
                }
            };
            let line = StageLine {
                registry: registry.clone(),
                stage: staged.id.to_string(),
                package: staged.package,
                version: staged.version,
                tag: staged.tag,
                actor: staged.actor,
                created: staged.created,
                request,
            };
            lines.insert((registry.clone(), staged.id), line);
        }
    }
    Ok(Stages {
        stages: lines.into_values().collect(),
        unknown,
    })
}

async fn look(
    desk: &Desk,
    item: &Item,
    staging: &dyn Staging,
    (token, me): (&Secret<String>, Option<RequestId>),
) -> Result<Vec<(Staged, Whose)>, Refusal> {
    let seen = staging.list(Some(&item.package), token).await;
    let with_owner = |staged: Staged| {
        let whose = whose(desk, &item.registry, &staged, me)?;
        Ok((staged, whose))
    };
    seen.map_err(down)?.into_iter().map(with_owner).collect()
}

/// Whose a stage is that was just listed. What is on its way is looked at first: it becomes ours in one
/// commit with the row that is looked at next, so a stage of ours is never taken for a foreign one.
fn whose(
    desk: &Desk,
    registry: &RegistryId,
    staged: &Staged,
    me: Option<RequestId>,
) -> Result<Whose, Fault> {
    let package = format!("{registry}:{}", staged.package);
    let open = ledger::others_of_package(desk, &package, me, OPEN_MAX)?;
    let sends = |r: &Record| {
        r.files().any(|at| {
            let item = r.facts.items.get(at.item);
            let this = item.is_some_and(|i| {
                i.package_key() == package && i.version.as_str() == staged.version
            });
            this && r.progress(at).is_some_and(Progress::on_its_way)
        })
    };
    let sending = open.iter().map(|held| &held.record).find(|r| sends(r));
    Ok(match (owner(desk, registry, &staged.id)?, sending) {
        (Some(owner), _) => Whose::Ours(owner),
        (None, Some(record)) => Whose::OnItsWay(record.facts.id),
        (None, None) => Whose::Nobody,
    })
}

async fn report(desk: &Desk, item: &Item, foreign: &[Staged]) -> Result<(), Fault> {
    for staged in foreign {
        alarm(desk, &item.registry, staged).await?;
    }
    Ok(())
}

/// Once a stage: an event and a count.
async fn alarm(desk: &Desk, registry: &RegistryId, staged: &Staged) -> Result<(), Fault> {
    let key = key(registry, &staged.id);
    if desk.live.get(FOREIGN, &key)?.is_some() {
        return Ok(());
    }
    let event = Event::StageForeign {
        registry: registry.clone(),
        stage: staged.id.to_string(),
        name: format!("{registry}:{}@{}", staged.package, staged.version),
    };
    let batch = Batch::new().create(FOREIGN, key, Vec::new());
    match desk.commit(batch, &[event], desk.world.now()).await {
        Ok(_) => {
            desk.metrics.alarms.inc();
            tracing::error!(%registry, stage = %staged.id, "a stage that this broker did not make");
            Ok(())
        }
        Err(Fault::Conflict(..)) => Ok(()),
        Err(other) => Err(other),
    }
}

fn place<'d, 'r>(
    desk: &'d Desk,
    record: &'r Record,
    at: FileAt,
) -> Result<(&'r Item, &'d dyn Staging), Refusal> {
    let item = record.facts.items.get(at.item).ok_or(Refusal::NotFound)?;
    let staging = desk.upstream(&item.registry).and_then(|u| u.staging());
    Ok((item, staging.ok_or(Refusal::NotFound)?))
}

/// The token by which the registry is asked.
pub(super) fn token(desk: &Desk, item: &Item) -> Result<Option<Secret<String>>, Fault> {
    Ok(vault::for_reading(
        &desk.vault,
        &*desk.live,
        &item.registry,
        &item.package,
        desk.world.now(),
    )?)
}

#[allow(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn down(why: ReadError) -> Refusal {
    Refusal::RegistryDown(why.to_string())
}
