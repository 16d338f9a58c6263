//! Forwarding: the approved bytes, checked, go to the registry with the token that never left.
//!
//! One-shot means one artifact, not one HTTP request: clients repeat uploads. The same bytes get the
//! recorded outcome again; other bytes are refused and the registry sees nothing (attack 12).

use super::{
    Refusal, confirm, deposit, frozen, judge, ledger, release, settle, stages,
    state::{COLLECT_SECONDS, CREDENTIAL_SECONDS, FileAt, Progress, Record, State},
    trace, tried,
};
use crate::{
    audit::{
        event::{Event, leaf},
        reason::RefusalReason,
    },
    desk::{Desk, Fault, pushes::Owner, uploads::Slot},
    policy::Verdict,
    registry::{FactorAsk, Publish, Sent, StageId, Upstream},
    secret::Secret,
    store::Batch,
    vault::release as vault,
};
use proto::{
    api::{Mode, StateName},
    bearer::BearerHash,
    ids::{PackageName, RegistryId, RequestId, VersionText},
    request::{File, Item},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Longest wait for the registry's answer to one upload.
pub const UPLOAD_DEADLINE: Duration = Duration::from_mins(2);
/// Sends of the same bytes before the client is told to come back.
const SENDS_MAX: u32 = 3;

/// Attempts that another file of the same request may overtake: clients send several at once.
const RACES_MAX: u32 = 100;

/// Pause while a version of the package is being withdrawn.
const TURN_PAUSE: Duration = Duration::from_secs(1);

/// Seconds after a credential's end in which a repeated upload still gets the recorded outcome.
const REPEAT_SECONDS: u64 = 3600;
/// Metadata and provenance beside the archive, in bytes.
const BESIDE_ARCHIVE: u64 = 3 * 1024 * 1024;

/// What a credential lets in.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The request.
    pub id: RequestId,
    /// Whether the upload is kept until people have approved.
    pub deposit: bool,
    /// Where the upload is counted.
    pub slot: Slot,
    /// Most bytes of the upload: the approved file as base64, with what stands beside it. A stolen
    /// credential must not fill the disk (attack 53).
    pub bytes_max: u64,
    /// Bytes of all its files at this registry.
    pub bytes_all: u64,
    /// Whose room it takes before people have approved it.
    pub owner: Option<Owner>,
}

/// Finds what a credential is good for, before any body is read. The package is named where the
/// address of the upload names it.
pub fn admit(
    desk: &Desk,
    registry: &RegistryId,
    credential: BearerHash,
    package: Option<&PackageName>,
) -> Result<Admission, Refusal> {
    let record = ledger::of_credential(desk, credential)?.ok_or(Refusal::NotFound)?;
    let now = desk.world.now();
    let repeat_until = record
        .facts
        .expires
        .after(COLLECT_SECONDS + CREDENTIAL_SECONDS + REPEAT_SECONDS);
    match &record.state {
        _ if deposit::takes(&record) && !record.overdue(now) => {}
        State::Releasing { until, .. } if now < *until => {}
        State::Published { .. } if now < repeat_until => {}
        State::Releasing { .. } | State::Published { .. } => {
            return Err(Refusal::State(StateName::Expired, None));
        }
        _ => return Err(Refusal::State(record.name(), record.status().reason)),
    }
    let named = |i: &&Item| i.registry == *registry && package.is_none_or(|p| i.package == *p);
    let items = record.facts.items.iter().filter(named);
    let bytes_all = record
        .facts
        .items
        .iter()
        .filter(|i| i.registry == *registry);
    let bytes_all = bytes_all.flat_map(|i| &i.files);
    let bytes_all = bytes_all.fold(0_u64, |sum, f| sum.saturating_add(f.size));
    let deposit = deposit::takes(&record);
    match items.flat_map(|i| &i.files).map(|f| f.size).max() {
        Some(size) => Ok(Admission {
            id: record.facts.id,
            deposit,
            slot: if deposit {
                Slot::account(&record.facts.caller, record.actor.as_deref())
            } else {
                Slot::Request(record.facts.id)
            },
            bytes_all,
            owner: deposit.then(|| deposit::owner(&record)),
            bytes_max: size
                .saturating_mul(4)
                .div_ceil(3)
                .saturating_add(BESIDE_ARCHIVE),
        }),
        None => Err(Refusal::BytesDiffer(match package {
            Some(package) => format!("this credential is not for {package}"),
            None => format!("this credential is not for the registry '{registry}'"),
        })),
    }
}

/// What one attempt sends.
pub(super) enum Delivery<'a> {
    /// The bytes, with the registry's second factor where that was given.
    Bytes {
        /// What was uploaded.
        upload: &'a mut Publish,
        /// The factor.
        factor: Option<&'a Secret<String>>,
    },
    /// The word that a stage is to be published.
    Stage {
        /// Which.
        stage: &'a StageId,
        /// The registry's second factor where that was given.
        factor: Option<&'a Secret<String>>,
    },
}

/// What came of one attempt.
pub(super) enum After {
    /// The request's state says it.
    Look,
    /// Nothing left: the request has changed meanwhile, by another of its files or the same one.
    Raced,
    /// The registry refused and shows nothing; its words.
    Refused(String),
    /// The registry wants its second factor.
    Asked(FactorAsk),
}

/// Publishes one upload. Runs in a task of its own, so that a client that hangs up changes nothing.
pub async fn forward(
    desk: Arc<Desk>,
    id: RequestId,
    registry: RegistryId,
    mut upload: Publish,
) -> Result<(), Refusal> {
    let at = approved_place(&desk, id, &registry, &upload).await?;
    all_there(&desk, id, at, &upload).await?;
    let (mut sends, mut races) = (0, 0);
    while sends < SENDS_MAX && races < RACES_MAX {
        let shown = match settle::settled(&desk, id, at).await? {
            settle::Outcome::MaySend(shown) => shown,
            outcome => return told(outcome),
        };
        match attempt(&desk, id, at, shown, &mut upload).await? {
            After::Refused(said) => return Err(Refusal::RegistryRefused(said)),
            After::Raced => races += 1,
            After::Look | After::Asked(_) => sends += 1,
        }
        tokio::task::yield_now().await;
    }
    told(settle::settled(&desk, id, at).await?)
}

/// The outcome as whoever publishes is told it.
pub(super) fn told(outcome: settle::Outcome) -> Result<(), Refusal> {
    match outcome {
        settle::Outcome::Published => Ok(()),
        settle::Outcome::Conflict => Err(Refusal::RegistryConflict),
        settle::Outcome::Confirming => Err(Refusal::Confirming),
        settle::Outcome::Refused(said) => Err(Refusal::RegistryRefused(said)),
        settle::Outcome::Unclear | settle::Outcome::MaySend(_) => Err(Refusal::Unsettled),
    }
}

/// One attempt with the bytes in hand. A registry that holds nothing back but wants its second factor
/// gets them again with what was given; in the meantime they stay here.
async fn attempt(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    shown: Vec<VersionText>,
    upload: &mut Publish,
) -> Result<After, Refusal> {
    let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
    let stage = held.record.progress(at).and_then(Progress::hold);
    if let Some(stage) = stage.and_then(|h| h.stage.clone()) {
        // The bytes are at the registry; the sweep asks for the second factor.
        let factor = None;
        let delivery = Delivery::Stage {
            stage: &stage,
            factor,
        };
        return send(desk, id, at, shown, delivery).await;
    }
    let factor = None;
    let bytes = Delivery::Bytes {
        upload: &mut *upload,
        factor,
    };
    let ask = match send(desk, id, at, shown, bytes).await? {
        After::Asked(ask) => ask,
        after => return Ok(after),
    };
    if !desk.factors.begin(id, at.numbers(), desk.world.now()) {
        // A twin of this upload asks already.
        return Ok(After::Look);
    }
    let after = with_factor(desk, id, at, &ask, upload).await;
    desk.factors.forget(id, at.numbers());
    after
}

/// Sends the bytes again as soon as the registry's second factor was given.
async fn with_factor(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    ask: &FactorAsk,
    upload: &mut Publish,
) -> Result<After, Refusal> {
    let record = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?.record;
    let until = record
        .progress(at)
        .and_then(Progress::hold)
        .map(|h| h.until);
    let until = until.ok_or(Refusal::Unsettled)?;
    let Some(factor) = confirm::given(desk, id, at, ask, until).await? else {
        return Ok(After::Look);
    };
    let Some(shown) = settle::may_send(desk, id, at).await? else {
        return Ok(After::Look);
    };
    let factor = Some(&factor);
    send(desk, id, at, shown, Delivery::Bytes { upload, factor }).await
}

/// The file of a request whose bytes these are; other bytes are refused on the record.
pub(super) async fn approved_place(
    desk: &Desk,
    id: RequestId,
    registry: &RegistryId,
    upload: &Publish,
) -> Result<FileAt, Refusal> {
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    match approved_file(&record, registry, upload) {
        Ok(at) => Ok(at),
        Err(refusal) => {
            note_refused(desk).await?;
            Err(refusal)
        }
    }
}

/// The file whose approved bytes these are.
fn approved_file(
    record: &Record,
    registry: &RegistryId,
    upload: &Publish,
) -> Result<FileAt, Refusal> {
    let items = &record.facts.items;
    let same = |i: &Item| {
        i.registry == *registry && i.package == *upload.package() && i.version == *upload.version()
    };
    let Some(at) = items.iter().position(same) else {
        let asked: Vec<_> = items.iter().map(Item::name).collect();
        return Err(Refusal::BytesDiffer(format!(
            "{}@{} is not what was approved: {}",
            upload.package(),
            upload.version(),
            asked.join(", ")
        )));
    };
    let item = items.get(at).ok_or(Refusal::NotFound)?;
    let found = match (upload.name(), item.files.as_slice()) {
        (Some(name), files) => files.iter().position(|f| f.name == name),
        (None, [_]) => Some(0),
        (None, _) => None,
    };
    let Some((index, file)) = found.and_then(|i| Some((i, item.files.get(i)?))) else {
        return Err(Refusal::BytesDiffer(format!(
            "{} is not among the approved files of {}",
            upload.name().unwrap_or("the upload"),
            item.name()
        )));
    };
    if file.digest != *upload.digest() || file.size != upload.size() {
        return Err(Refusal::BytesDiffer(format!(
            "the uploaded bytes are {} ({} bytes); approved were {} ({} bytes)",
            upload.digest(),
            upload.size(),
            file.digest,
            file.size
        )));
    }
    if upload.tag() != item.tag.as_ref() {
        let text = |tag: Option<&VersionText>| tag.map_or("none", |t| t.as_str()).to_owned();
        return Err(Refusal::BytesDiffer(format!(
            "the upload sets the tag '{}'; approved was '{}'",
            text(upload.tag()),
            text(item.tag.as_ref())
        )));
    }
    Ok(FileAt {
        item: at,
        file: index,
    })
}

/// What a file refers to must be approved with it, and be at the registry already; before the file that makes a
/// version visible, all the others must be. There is no moment in which it stands for something that is not there.
async fn all_there(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    upload: &Publish,
) -> Result<(), Refusal> {
    if upload.needs().is_empty() && !upload.is_last() {
        return Ok(());
    }
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    let files = record.facts.items.get(at.item).map(|item| &item.files);
    let files = files.ok_or(Refusal::NotFound)?;
    let mut before = referred_to(desk, files, upload).await?;
    if upload.is_last() {
        before.extend((0..files.len()).filter(|file| *file != at.file));
    }
    for file in before {
        let place = FileAt {
            item: at.item,
            file,
        };
        match settle::settled(desk, id, place).await? {
            settle::Outcome::MaySend(_) => {
                let name = files.get(file).map(|f| f.name.as_str());
                return Err(Refusal::Upload(format!(
                    "{} has to be pushed before it",
                    name.unwrap_or_default()
                )));
            }
            outcome => told(outcome)?,
        }
    }
    Ok(())
}

/// The item's files that a file refers to; what was not approved with it is refused on the record. So is a manifest
/// that its tag does not stand for: people would have said yes to one image, and a registry would list
/// the other beside whatever it says it is about (attack 19).
pub(super) async fn referred_to(
    desk: &Desk,
    files: &[File],
    upload: &Publish,
) -> Result<BTreeSet<usize>, Refusal> {
    let mut found = BTreeSet::new();
    let mut why = upload.stray(files).map(|file| {
        format!(
            "{} was approved with it, but is no part of what the tag points to",
            file.name
        )
    });
    for need in upload.needs() {
        let same = |f: &File| f.name == need.name && f.digest == need.digest && f.size == need.size;
        match files.iter().position(same) {
            Some(file) => drop(found.insert(file)),
            None => {
                why = Some(format!(
                    "it refers to {} ({} bytes), which was not approved with it",
                    need.name, need.size
                ));
            }
        }
    }
    match why {
        None => Ok(found),
        Some(why) => {
            note_refused(desk).await?;
            Err(Refusal::BytesDiffer(why))
        }
    }
}

/// The approved file of this name in a package, where the address of an upload names no version. Several items
/// may have the same one: it is sent for the first, and shown by the registry for the others.
pub fn named(
    desk: &Desk,
    id: RequestId,
    registry: &RegistryId,
    package: &PackageName,
    name: &str,
) -> Result<Option<(FileAt, Item)>, Refusal> {
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    let found = record.files().find_map(|at| {
        let item = record.facts.items.get(at.item)?;
        let file = item.files.get(at.file)?;
        let same = item.registry == *registry && item.package == *package && file.name == name;
        same.then(|| (at, item.clone()))
    });
    Ok(found)
}

/// Notes in the log that bytes were refused.
pub async fn note_refused(desk: &Desk) -> Result<(), Refusal> {
    let now = desk.world.now();
    if desk.refusals.take(now) {
        let event = Event::RequestRefused {
            reason: RefusalReason::BytesDiffer,
        };
        desk.commit(Batch::new(), &[event], now).await?;
    }
    Ok(())
}

/// One attempt, after `shown` was read.
pub(super) async fn send(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    shown: Vec<VersionText>,
    mut delivery: Delivery<'_>,
) -> Result<After, Refusal> {
    let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
    let Some(wish) = held.record.facts.items.get(at.item).cloned() else {
        return Err(Refusal::NotFound);
    };
    let upstream = desk.upstream(&wish.registry).ok_or(Refusal::NotFound)?;
    // Held until the answer is written down: what would come between a withdrawal's question and its call would be gone.
    let Some(_turn) = desk.turns.beside(&wish.package_key()) else {
        tokio::time::sleep(TURN_PAUSE).await;
        return Ok(After::Raced);
    };
    if let Some(after) = stands_in_the_way(desk, &held.record, at, &delivery).await? {
        return Ok(after);
    }
    let now = desk.world.now();
    if now >= held.record.expires() {
        return Err(Refusal::State(StateName::Expired, None));
    }

    // Everything is decided again, against today's policy, people, freezes and registry.
    let mut published = vec![None; held.record.facts.items.len()];
    if let Some(slot) = published.get_mut(at.item) {
        if let (false, Delivery::Bytes { upload, .. }) = (shown.is_empty(), &mut delivery) {
            upload.for_known_package();
        }
        *slot = Some(shown);
    }
    let permit = match judge::judge(desk, &held.record, held.record.evidence(), &published, now)? {
        Verdict::Permit(permit) => permit,
        Verdict::Wait(missing) => return Err(Refusal::NotApproved(missing.to_string())),
        Verdict::Later(later) => return Err(Refusal::NotYet(later)),
        Verdict::Deny(reason) => return Err(Refusal::Policy(reason)),
    };
    let mode = match held.record.mode {
        Mode::Reveal | Mode::Mint => return Err(Refusal::NotFound),
        mode => mode,
    };
    let holder = match &delivery {
        Delivery::Bytes { .. } => &wish.registry,
        Delivery::Stage { .. } => desk.approve_token(&wish.registry),
    };
    let of = (&wish, holder);
    let (token, stored) = vault::release(&desk.vault, &*desk.live, permit, of, mode, now)
        .map_err(Fault::from)?
        .ok_or_else(|| Refusal::NoToken(format!("{holder}:{}", wish.package)))?;
    let tried = tried::of(desk, at, &stored.record)?;
    let step = held.record.with_token(at, tried).sending(at, now)?;
    let used = release::token_used(id, &stored.record);
    let batch = frozen::unless_frozen(Batch::new(), &step.record().facts).append(leaf(&used, now));
    let batch = match wish.files.get(at.file) {
        Some(file) => trace::leaves(desk, batch, &wish, file, now)?,
        None => return Err(Refusal::NotFound),
    };
    let record = match ledger::persist(desk, held.version, step, batch, now).await {
        Ok(record) => record,
        // Another upload was faster; if it was of the same bytes, its outcome is ours.
        Err(Fault::Conflict(..)) => return Ok(After::Raced),
        Err(other) => return Err(other.into()),
    };
    // `Sending` is durable: from here on bytes may be at the registry, whatever happens to us. A
    // restart reads the registry back, as the lines below do.
    release::note_use(desk, stored, false, now).await;
    let sent = deliver(upstream, delivery, &token).await;
    drop(token);
    // Boxed: this future is part of every upload's.
    Box::pin(answered(desk, &record, at, &wish, sent)).await
}

/// Brings an attempt to its state. What the token is worth is noted by that state, and not by the registry's word.
async fn answered(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    wish: &Item,
    sent: Sent,
) -> Result<After, Refusal> {
    let id = record.facts.id;
    let used = record.tries(at);
    match sent {
        Sent::Accepted => settle::after_accepted(desk, record, at).await?,
        Sent::Unclear => settle::mark_unclear(desk, id, at).await?,
        Sent::Staged(stage) => {
            confirm::hold(desk, id, at, Some(stage.clone())).await?;
            if let Some(used) = used {
                Box::pin(tried::staged(desk, (record, at), &stage, (wish, used))).await;
            }
        }
        Sent::NeedsFactor(ask) => {
            confirm::hold(desk, id, at, None).await?;
            return Ok(After::Asked(ask));
        }
        Sent::Refused { status, said } => {
            let said = settle::after_refused(desk, id, at, status, said).await?;
            if let (401 | 403, Some(said), Some(used)) = (status, &said, used) {
                Box::pin(tried::refused(desk, (id, wish), used, said)).await;
            }
            return Ok(said.map_or(After::Look, After::Refused));
        }
    }
    Ok(After::Look)
}

/// What the registry holds in stages must not stand in the way: nobody's stage of this version before
/// ours is made, and in ours the approved bytes before it is published.
async fn stands_in_the_way(
    desk: &Desk,
    record: &Record,
    at: FileAt,
    delivery: &Delivery<'_>,
) -> Result<Option<After>, Refusal> {
    let id = record.facts.id;
    let found = match delivery {
        Delivery::Stage { stage, .. } => {
            let good = stages::holds_what_was_approved(desk, record, at, stage).await?;
            return Ok((!good).then_some(After::Look));
        }
        Delivery::Bytes { .. } => stages::find(desk, record, at).await?,
    };
    match found {
        stages::Found::Nothing => Ok(None),
        stages::Found::Ours(stage) => {
            confirm::hold(desk, id, at, Some(stage)).await?;
            Ok(Some(After::Look))
        }
        stages::Found::Occupied(said) => {
            settle::change(desk, id, |r| r.unheld(at, said.clone())).await?;
            Ok(Some(After::Refused(said)))
        }
    }
}

async fn deliver(upstream: &dyn Upstream, delivery: Delivery<'_>, token: &Secret<String>) -> Sent {
    let within = UPLOAD_DEADLINE;
    match delivery {
        Delivery::Bytes {
            upload,
            factor: None,
        } => upstream.publish(upload, token, within).await,
        Delivery::Bytes {
            upload,
            factor: Some(factor),
        } => match upstream.second_factor() {
            Some(second) => second.publish_with(upload, token, factor, within).await,
            None => Sent::Unclear,
        },
        Delivery::Stage { stage, factor } => match upstream.staging() {
            Some(staging) => staging.approve(stage, token, factor, within).await,
            None => Sent::Unclear,
        },
    }
}
