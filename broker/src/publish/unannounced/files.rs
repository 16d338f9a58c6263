//! A release of several files that nobody announced: uv and pdm upload file by file, and stop at the first
//! that is refused.
//!
//! Each upload names one file, and people are asked about whole requests. So the requests of one run for
//! one version form a chain, and its last one is the run's word: while nobody has answered it, another
//! file of the same run ends it and opens the next one, with all files so far. Its digest, id and match
//! code are new: whoever looked at the shorter one cannot say yes to the longer one by accident (attacks
//! 16, 17). Once somebody has answered, nothing is added: what comes later is a request of its own, about
//! a release that is half out, and people are shown which part is.

use super::{ask, asker, of_this_run};
use crate::{
    desk::{Desk, Fault, guests::Guest},
    publish::{
        Refusal, deposit,
        ledger::{self, APPROVED, BY_PACKAGE_ASKER, Held, IDEMPOTENCY, REQUESTS},
        open::{self, Door},
        state::{FileAt, Progress, Record, State},
    },
};
use proto::{
    api::StateName,
    digest::hex,
    ids::RequestId,
    request::{FILES_MAX, File, Item},
};
use std::sync::Arc;

/// Requests of one run for one version: one for each file, and some that ended unanswered.
const CHAIN_MAX: u32 = 200;
/// Attempts against other jobs of the same run, which upload their files at the same moment.
const RACES_MAX: usize = 20;
/// Open requests looked at for one upload; the quotas allow no more.
const LOOK_MAX: usize = 100;

/// Where an upload belongs.
enum Place {
    /// Its bytes are at the registry.
    Out,
    /// This request has it.
    In(RequestId),
    /// A request has to be opened: for these files, under this key.
    New(Vec<File>, String),
    /// The same, in the place of this request.
    Longer(Vec<File>, String, Box<Held>),
}

/// The request that an upload belongs to, opened or made longer if need be; `None`: it is published.
/// The item has the one file that was uploaded.
pub(super) async fn request_of(
    desk: &Arc<Desk>,
    guest: &Guest,
    item: Item,
) -> Result<Option<RequestId>, Refusal> {
    let now = desk.world.now();
    // The exchange named no package: here it is known for the first time.
    let caller = guest.caller.facts();
    if let Err(reason) = desk
        .policy
        .load()
        .may_ask(&item.registry, &item.package, caller)
    {
        let key = Some(item.package_key());
        return Err(super::refuse(desk, key, reason, now).await?);
    }
    for _ in 0..RACES_MAX {
        let (files, key, instead_of) = match place(desk, guest, &item)? {
            Place::Out => return Ok(None),
            Place::In(id) => return Ok(Some(id)),
            Place::New(files, key) => (files, key, None),
            Place::Longer(files, key, held) => (files, key, Some(*held)),
        };
        let item = Item {
            files,
            ..item.clone()
        };
        // What was handed over to the shorter request is handed over to the longer one.
        let kept = match &instead_of {
            Some(held) => deposit::kept(desk, &held.record).await?,
            None => Vec::new(),
        };
        match ask(desk, guest, item, key, instead_of).await {
            Ok(id) => {
                deposit::hand_over_again(desk, id, kept).await?;
                return Ok(Some(id));
            }
            // Another job of the run, or a maintainer, was faster: it is looked at again.
            Err(
                Refusal::IdempotencyMismatch
                | Refusal::Fault(Fault::Conflict(REQUESTS | IDEMPOTENCY, _)),
            ) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Refusal::Busy)
}

fn place(desk: &Desk, guest: &Guest, item: &Item) -> Result<Place, Refusal> {
    let now = desk.world.now();
    let Some(file) = item.files.first() else {
        return Err(Refusal::NotFound);
    };
    if let Some(id) = announced(desk, guest, item, file)? {
        return Ok(Place::In(id));
    }
    let (key, last) = chain(desk, guest, item)?;
    let holder = desk.live.get(APPROVED, item.name().as_bytes());
    let holder = holder
        .map_err(Fault::from)?
        .and_then(|row| ledger::id_of(&row.value));
    let holder = holder
        .map(|id| ledger::find(desk, id))
        .transpose()?
        .flatten();
    let mut out = Vec::new();
    for record in last.iter().chain(&holder) {
        out = united(out, &files_out(record, item), &item.name())?;
    }
    if out.contains(file) {
        return Ok(Place::Out);
    }
    let with_out = |files: &[File]| united(out.clone(), files, &item.name());
    if let Some(record) = &last {
        let asked = files_of(record, item);
        match &record.state {
            State::Denied { .. } | State::Conflict { .. } => {
                return Err(Refusal::State(record.name(), record.status().reason));
            }
            _ if record.overdue(now) => {}
            _ if asked.contains(file) && !record.name().is_final() => {
                return Ok(Place::In(record.facts.id));
            }
            // Who made the bytes so far does not approve them either: a request names one requester (attack 29).
            State::Pending { .. } if record.actor.as_deref() != guest.caller.actor() => {
                return Err(anothers(record, item));
            }
            State::Pending { evidence, .. } if evidence.is_empty() => {
                let held = ledger::live(desk, record.facts.id)?;
                let held = held.ok_or_else(|| Fault::Conflict(REQUESTS, Vec::new()))?;
                // Built again, it has other bytes: the run's last word counts.
                let others = asked.iter().filter(|f| f.name != file.name).cloned();
                let others: Vec<_> = others.chain([file.clone()]).collect();
                return Ok(Place::Longer(with_out(&others)?, key, Box::new(held)));
            }
            State::Pending { .. } => return Err(answered(record, item)),
            _ => {}
        }
    }
    match holder {
        Some(r) if !r.name().is_final() && !r.overdue(now) => Err(answered(&r, item)),
        _ => Ok(Place::New(with_out(std::slice::from_ref(file))?, key)),
    }
}

/// A request of the same run that our own client opened for this very file.
fn announced(
    desk: &Desk,
    guest: &Guest,
    item: &Item,
    file: &File,
) -> Result<Option<RequestId>, Refusal> {
    let now = desk.world.now();
    let facts = guest.caller.facts();
    let prefix = ledger::prefix(&[&item.package_key(), &facts.issuer, &facts.subject]);
    let rows = desk.live.range(BY_PACKAGE_ASKER, &prefix, None, LOOK_MAX);
    for (key, _) in rows.map_err(Fault::from)? {
        let id = key.get(prefix.len()..).and_then(ledger::id_of);
        let held = id.map(|id| ledger::among(desk, id)).transpose()?.flatten();
        let fits = held.filter(|held| {
            let record = &held.record;
            files_of(record, item).contains(file)
                && of_this_run(guest, record)
                && !record.overdue(now)
        });
        if let Some(held) = fits {
            return Ok(Some(held.record.facts.id));
        }
    }
    Ok(None)
}

/// The last request that this run opened for this version, and the key of the next one.
fn chain(desk: &Desk, guest: &Guest, item: &Item) -> Result<(String, Option<Record>), Refusal> {
    let wish = asker(guest, "countersign/unannounced-files/v1")
        .text(&item.name())
        .sha256();
    let wish = hex(&wish);
    let mut last = None;
    for link in 0..CHAIN_MAX {
        let key = format!("unannounced-files-{link}-{wish}");
        let Some(id) = open::remembered(desk, Door::Origin, &guest.caller, &key)? else {
            let record = last.map(|id| ledger::find(desk, id)).transpose()?;
            return Ok((key, record.flatten()));
        };
        last = Some(id);
    }
    Err(Refusal::Busy)
}

/// A request's files of this version.
fn files_of<'r>(record: &'r Record, item: &Item) -> &'r [File] {
    let mut items = record.facts.items.iter();
    let same = items.find(|i| i.name() == item.name());
    same.map_or(&[], |i| i.files.as_slice())
}

/// Those that the registry showed with the approved bytes.
fn files_out(record: &Record, item: &Item) -> Vec<File> {
    let Some(at) = record
        .facts
        .items
        .iter()
        .position(|i| i.name() == item.name())
    else {
        return Vec::new();
    };
    let out = |index: &usize| {
        record.name() == StateName::Published
            || matches!(
                record.progress(FileAt {
                    item: at,
                    file: *index
                }),
                Some(Progress::Published { .. })
            )
    };
    let files = files_of(record, item).iter().enumerate();
    files
        .filter(|(index, _)| out(index))
        .map(|(_, file)| file.clone())
        .collect()
}

/// Both lists, each file once, in the order of their names.
fn united(mut files: Vec<File>, more: &[File], name: &str) -> Result<Vec<File>, Refusal> {
    for file in more {
        match files.iter().find(|f| f.name == file.name) {
            None => files.push(file.clone()),
            Some(known) if known == file => {}
            Some(_) => {
                let why = format!("{} of {name} is out already, with other bytes", file.name);
                return Err(Refusal::BytesDiffer(why));
            }
        }
    }
    if files.len() > FILES_MAX {
        let why = format!("{name} has more than {FILES_MAX} files");
        return Err(Refusal::BadRequest(why));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// People have said yes to other files of this version: nothing is added to that (attack 16).
fn answered(record: &Record, item: &Item) -> Refusal {
    Refusal::VersionTaken(format!(
        "request {} for {} is answered already, without this file: publish its files first, then run this again",
        record.facts.id,
        item.name()
    ))
}

/// Files of one release that two people had built are two questions, one after the other.
fn anothers(record: &Record, item: &Item) -> Refusal {
    Refusal::VersionTaken(format!(
        "request {} for {} is open with what another person's job built: publish or cancel that first, then run this again",
        record.facts.id,
        item.name()
    ))
}
