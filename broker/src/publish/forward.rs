//! Forwarding: the approved bytes, checked, go to the registry with the token that never left.
//!
//! One-shot means one artifact, not one HTTP request: clients repeat uploads. The same bytes get the
//! recorded outcome again; other bytes are refused and the registry sees nothing (attack 12).

use super::{
    Refusal, deposit, judge, ledger, release, settle,
    state::{COLLECT_SECONDS, CREDENTIAL_SECONDS, FileAt, Record, State},
};
use crate::{
    audit::{
        event::{Event, leaf},
        reason::RefusalReason,
    },
    desk::{Desk, Fault},
    policy::Verdict,
    registry::{Publish, Sent},
    store::Batch,
    vault::release as vault,
};
use proto::{
    api::{Mode, StateName},
    bearer::BearerHash,
    ids::{PackageName, RegistryId, RequestId, VersionText},
    request::Item,
};
use std::{sync::Arc, time::Duration};

/// Longest wait for the registry's answer to one upload.
pub const UPLOAD_DEADLINE: Duration = Duration::from_mins(2);
/// Sends of the same bytes before the client is told to come back.
const SENDS_MAX: u32 = 3;

/// Seconds after a credential's end in which a repeated upload still gets the recorded outcome.
const REPEAT_SECONDS: u64 = 3600;
/// Metadata and provenance beside the archive, in bytes.
const BESIDE_ARCHIVE: u64 = 3 * 1024 * 1024;

/// What a credential lets in.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// The request.
    pub id: RequestId,
    /// Whether the upload is kept until people have approved.
    pub deposit: bool,
    /// Most bytes of the upload: the approved file as base64, with what stands beside it. A stolen
    /// credential must not fill the disk (attack 53).
    pub bytes_max: u64,
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
    match items.flat_map(|i| &i.files).map(|f| f.size).max() {
        Some(size) => Ok(Admission {
            id: record.facts.id,
            deposit: deposit::takes(&record),
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

/// Publishes one upload. Runs in a task of its own, so that a client that hangs up changes nothing.
pub async fn forward(
    desk: Arc<Desk>,
    id: RequestId,
    registry: RegistryId,
    mut upload: Publish,
) -> Result<(), Refusal> {
    let at = approved_place(&desk, id, &registry, &upload).await?;
    for _ in 0..SENDS_MAX {
        let shown = match settle::settled(&desk, id, at).await? {
            settle::Outcome::Published => return Ok(()),
            settle::Outcome::Conflict => return Err(Refusal::RegistryConflict),
            settle::Outcome::Unclear => return Err(Refusal::Unsettled),
            settle::Outcome::MaySend(shown) => shown,
        };
        match send(&desk, id, at, shown, &mut upload).await? {
            Some(said) => return Err(Refusal::RegistryRefused(said)),
            None => tokio::task::yield_now().await,
        }
    }
    match settle::settled(&desk, id, at).await? {
        settle::Outcome::Published => Ok(()),
        settle::Outcome::Conflict => Err(Refusal::RegistryConflict),
        settle::Outcome::Unclear | settle::Outcome::MaySend(_) => Err(Refusal::Unsettled),
    }
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
            let now = desk.world.now();
            if desk.refusals.take(now) {
                let event = Event::RequestRefused {
                    reason: RefusalReason::BytesDiffer,
                };
                desk.commit(Batch::new(), &[event], now).await?;
            }
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

/// One attempt, after `shown` was read. `Some` says why the registry refused and shows nothing.
async fn send(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    shown: Vec<VersionText>,
    upload: &mut Publish,
) -> Result<Option<String>, Refusal> {
    let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
    let now = desk.world.now();
    let Some(wish) = held.record.facts.items.get(at.item).cloned() else {
        return Err(Refusal::NotFound);
    };
    let upstream = desk.upstream(&wish.registry).ok_or(Refusal::NotFound)?;
    if now >= held.record.expires() {
        return Err(Refusal::State(StateName::Expired, None));
    }

    // Everything is decided again, against today's policy, people, freezes and registry.
    let mut published = vec![None; held.record.facts.items.len()];
    if let Some(slot) = published.get_mut(at.item) {
        if !shown.is_empty() {
            upload.for_known_package();
        }
        *slot = Some(shown);
    }
    let permit = match judge::judge(desk, &held.record, held.record.evidence(), &published, now)? {
        Verdict::Permit(permit) => permit,
        Verdict::Wait(missing) => return Err(Refusal::NotApproved(missing.to_string())),
        Verdict::Deny(reason) => return Err(Refusal::Policy(reason)),
    };
    let mode = match held.record.mode {
        Mode::Reveal => return Err(Refusal::NotFound),
        mode => mode,
    };
    let (token, stored) = vault::release(&desk.vault, &*desk.live, permit, &wish, mode, now)
        .map_err(Fault::from)?
        .ok_or_else(|| Refusal::NoToken(wish.package_key()))?;
    let step = held.record.sending(at, now)?;
    let used = release::token_used(id, &stored.record);
    let batch = judge::unless_frozen(Batch::new(), &step.record().facts).append(leaf(&used, now));
    let record = match ledger::persist(desk, held.version, step, batch, now).await {
        Ok(record) => record,
        // Another upload of the same bytes was faster: its outcome is ours.
        Err(Fault::Conflict(..)) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    // `Sending` is durable: from here on bytes may be at the registry, whatever happens to us. A
    // restart reads the registry back, as the lines below do.
    release::note_use(desk, stored, false, now).await;
    let sent = upstream.publish(upload, &token, UPLOAD_DEADLINE).await;
    drop(token);
    match sent {
        Sent::Accepted => settle::after_accepted(desk, &record, at)
            .await
            .map(|()| None),
        Sent::Unclear => settle::mark_unclear(desk, id, at).await.map(|()| None),
        Sent::Refused { status, said } => settle::after_refused(desk, id, at, status, said).await,
    }
}
