//! Deposit: the usual client hands its publish over before anybody has approved, and the job may end.
//! The broker keeps the upload encrypted, and publishes it when people have approved.

mod room;

use super::{
    Refusal, forward, inspect,
    ledger::{self, REQUESTS},
    release, settle,
    state::{FileAt, Progress, Record, State},
    veto,
};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        pushes::{Owner, Unapproved},
    },
    registry::{Head, IN_MEMORY, Publish},
    store::{Batch, Row, Table},
    vault::{
        Binding,
        match_code::ticket,
        payload::{self, PayloadError},
    },
};
use proto::{
    api::{Mode, StateName},
    digest::{Digest, hex, unhex},
    ids::{RegistryId, RequestId},
    time::UnixTime,
};
use room::Room;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Seek as _,
    path::PathBuf,
    sync::Arc,
};
use tempfile::SpooledTempFile;

/// Kept uploads: id, item and file (both big-endian).
pub const DEPOSITS: Table = Table("deposits");
/// Rows looked at in one go.
const LOOK_MAX: usize = 5000;

/// One kept upload.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The file's name in the folder of deposits.
    path: String,
    /// Its identity, sealed, hex.
    key: String,
    /// Bytes as uploaded.
    size: u64,
    /// Whose it counts as.
    subject: String,
    /// The CI account that it counts as, where the issuer names one.
    #[serde(default)]
    actor: Option<String>,
    /// What the upload's head said, for the adapter.
    head: Head,
}

/// Keeps an upload until people have approved. The same bytes again are the same deposit.
pub async fn hand_over(
    desk: Arc<Desk>,
    id: RequestId,
    registry: RegistryId,
    upload: Publish,
    body: SpooledTempFile,
    head: Head,
) -> Result<(), Refusal> {
    let at = forward::approved_place(&desk, id, &registry, &upload).await?;
    let record = ledger::find(&desk, id)?.ok_or(Refusal::NotFound)?;
    if let Some(item) = record.facts.items.get(at.item) {
        forward::referred_to(&desk, &item.files, &upload).await?;
    }
    let digest = upload.digest().clone();
    let mut body = upload.into_body(body);
    let key = key(id, at);
    if desk
        .live
        .get(DEPOSITS, &key)
        .map_err(Fault::from)?
        .is_some()
    {
        return Ok(());
    }
    let size = body.seek(std::io::SeekFrom::End(0)).map_err(disk)?;
    body.rewind().map_err(disk)?;
    let owner = owner(&record);
    let mut room = beside(&desk, Room::of(&owner, size))?;
    for (other, bytes) in desk.pushes.spooled() {
        room.grows(&other.subject, other.actor.as_deref(), bytes);
    }
    if !room.is_left() {
        return Err(Refusal::Busy);
    }

    let name: [u8; 16] = desk.world.random().map_err(Fault::from)?;
    let path = hex(&name);
    let place = folder(&desk).join(&path);
    let (own, own_key, own_place) = (Arc::clone(&desk), key.clone(), place.clone());
    let kept = tokio::task::spawn_blocking(move || {
        payload::keep(&own.vault, &binding(&own_key), &mut body, &own_place)
    });
    let kept = kept.await.map_err(|_| Fault::Damaged("an upload"))?;
    let sealed = match kept {
        Ok(sealed) => sealed,
        Err(why) => {
            remove(&place);
            return Err(refusal(&why));
        }
    };
    let row = Kept {
        path,
        key: hex(&sealed),
        size,
        subject: owner.subject,
        actor: owner.actor,
        head,
    };
    let stored = store(&desk, id, at, &key, &row, digest).await;
    if stored.is_err() {
        remove(&place);
    }
    stored
}

/// The room beside all that is kept.
fn beside<'o>(desk: &Desk, mut room: Room<'o>) -> Result<Room<'o>, Fault> {
    each(desk, |_, row| {
        if let Ok(kept) = serde_json::from_slice::<Kept>(&row.value) {
            room.takes(&kept.subject, kept.actor.as_deref(), kept.size);
        }
    })?;
    Ok(room)
}

/// What an owner's unfinished pushes may have beside what is kept.
pub(super) fn left(desk: &Desk, owner: &Owner) -> Result<Unapproved, Fault> {
    Ok(beside(desk, Room::of(owner, 0))?.left())
}

/// In one commit: the row, the event, and the request still waiting.
async fn store(
    desk: &Desk,
    id: RequestId,
    at: FileAt,
    key: &[u8],
    row: &Kept,
    digest: Digest,
) -> Result<(), Refusal> {
    let value = serde_json::to_vec(row).map_err(|_| Fault::Damaged("a deposit"))?;
    for _ in 0..20 {
        let held = ledger::live(desk, id)?.ok_or(Refusal::NotFound)?;
        match held.record.state {
            State::Pending { .. } | State::Approved { .. } => {}
            _ => {
                let record = &held.record;
                return Err(Refusal::State(record.name(), record.status().reason));
            }
        }
        let batch = Batch::new()
            .require(REQUESTS, id.0.as_bytes(), held.version)
            .create(DEPOSITS, key, value.clone());
        let (item, file) = at.numbers();
        let event = Event::Deposited {
            request: id,
            item,
            file,
            digest: digest.clone(),
        };
        match desk.commit(batch, &[event], desk.world.now()).await {
            Ok(_) => return Ok(()),
            // The same bytes were handed over twice at once.
            Err(Fault::Conflict(DEPOSITS, _)) => return Err(Refusal::Busy),
            Err(Fault::Conflict(..)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(Refusal::Busy)
}

/// Looks at everything that was handed over: goes on with what is approved, destroys what has ended.
pub async fn sweep(desk: &Arc<Desk>) -> Result<(), Fault> {
    let mut by_request: BTreeMap<RequestId, Vec<(Vec<u8>, Row)>> = BTreeMap::new();
    each(desk, |key, row| {
        if let Some(id) = key.get(..16).and_then(ledger::id_of) {
            by_request.entry(id).or_default().push((key, row));
        }
    })?;
    let now = desk.world.now();
    for (id, rows) in by_request {
        let record = match ledger::find(desk, id) {
            // Its row may be put right by hand, and what was handed over stays until then; the others
            // are not kept waiting for that.
            Err(Fault::Damaged(what)) => {
                if desk.in_hand.begin(id, rows.len(), now) {
                    tracing::error!(%id, what, "a request's row cannot be believed; its deposit waits");
                    desk.in_hand.end(id);
                }
                continue;
            }
            record => record?,
        };
        let Some(record) = record.filter(|r| !r.name().is_final()) else {
            destroy(desk, rows, now).await?;
            desk.in_hand.forget(id);
            continue;
        };
        if !desk.vault.is_sealed() {
            look_into(desk, &record)?;
        }
        let ready = matches!(
            record.state,
            State::Approved { .. } | State::Releasing { .. }
        );
        let in_time = now < record.expires() && veto::until(desk, &record, now)?.is_none();
        if ready && in_time && !desk.vault.is_sealed() && desk.in_hand.begin(id, rows.len(), now) {
            let desk = Arc::clone(desk);
            tokio::spawn(async move {
                if let Err(why) = publish(&desk, id).await {
                    tracing::warn!(%id, %why, "a deposit is not published yet");
                }
                desk.in_hand.end(id);
            });
        }
    }
    Ok(())
}

/// Has a card made of each file that has none, in the background: also of what a crash left without.
fn look_into(desk: &Arc<Desk>, record: &Record) -> Result<(), Fault> {
    let id = record.facts.id;
    for at in inspect::within(desk, record) {
        let Some(item) = record.facts.items.get(at.item) else {
            continue;
        };
        if !is_kept(desk, id, at)? || !inspect::is_wanted(desk, item) {
            continue;
        }
        let Some(claim) = inspect::claim(desk, id, at)? else {
            continue;
        };
        let (desk, registry) = (Arc::clone(desk), item.registry.clone());
        let account = inspect::account(record);
        tokio::spawn(async move {
            let Some(turn) = desk.inspections.turn(account).await else {
                return;
            };
            let looked = async {
                let kept = read(&desk, id, at, registry).await?;
                let kept = kept.ok_or(Refusal::NotFound)?;
                inspect::look(&desk, &claim, turn, kept.upload.into_file()).await
            };
            match looked.await {
                // A sealed vault: it is looked at again when somebody has unsealed it.
                Ok(()) | Err(Refusal::Fault(Fault::Sealed)) => {}
                Err(why) => {
                    tracing::warn!(%id, %why, "there is no card of a deposit");
                    let failed = inspect::failed(&desk, &claim).await;
                    if let Err(why) = failed {
                        tracing::warn!(%id, %why, "nor can that be stored");
                    }
                }
            }
        });
    }
    Ok(())
}

/// Whether the broker keeps the bytes of a file.
pub fn is_kept(desk: &Desk, id: RequestId, at: FileAt) -> Result<bool, Fault> {
    Ok(desk.live.get(DEPOSITS, &key(id, at))?.is_some())
}

/// Publishes all files of an approved request in their order; what is out already is passed over.
async fn publish(desk: &Arc<Desk>, id: RequestId) -> Result<(), Refusal> {
    let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
    let out = not_handed_over(desk, &record)?;
    for at in &out {
        // Whoever hands files over one by one leaves out what the registry has. Anything else that is
        // missing may still come: nothing of the release leaves before (attack 16).
        if !settle::is_out(desk, &record, *at).await? {
            return Err(Refusal::Upload(format!(
                "{} was not handed over yet",
                name_of(&record, *at)
            )));
        }
    }
    // The decision is taken again here, as at every collect, and once more before each file leaves.
    let ticket = ticket(&desk.vault, id).map_err(Fault::from)?;
    release::collect(desk, id, &ticket, desk.world.now()).await?;
    for at in out {
        // It counts as published only with the approved bytes.
        forward::told(settle::settled(desk, id, at).await?)?;
    }
    for at in record.files() {
        let now = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
        match now.progress(at) {
            Some(Progress::Published { .. }) => continue,
            // The registry has said no to these very bytes: nobody asks it again unasked.
            Some(Progress::Waiting {
                said: Some(said), ..
            }) => {
                return Err(Refusal::RegistryRefused(said.clone()));
            }
            _ => {}
        }
        let Some(item) = record.facts.items.get(at.item) else {
            return Err(Refusal::NotFound);
        };
        let kept = read(desk, id, at, item.registry.clone()).await?;
        let upload = kept.ok_or(Refusal::NotFound)?.upload;
        match forward::forward(Arc::clone(desk), id, item.registry.clone(), upload).await {
            Err(Refusal::Confirming) => confirmed(desk, id, at).await?,
            other => other?,
        }
    }
    Ok(())
}

/// The files of a request that no payload is kept of.
fn not_handed_over(desk: &Desk, record: &Record) -> Result<Vec<FileAt>, Fault> {
    let mut missing = Vec::new();
    for at in record.files() {
        if desk
            .live
            .get(DEPOSITS, &key(record.facts.id, at))?
            .is_none()
        {
            missing.push(at);
        }
    }
    Ok(missing)
}

fn name_of(record: &Record, at: FileAt) -> &str {
    let item = record.facts.items.get(at.item);
    let file = item.and_then(|item| item.files.get(at.file));
    file.map_or("a file", |file| file.name.as_str())
}

/// A kept upload as it was handed over.
pub struct Again {
    registry: RegistryId,
    upload: Publish,
    body: SpooledTempFile,
    head: Head,
}

/// What was handed over to a request, to be handed over to the one that takes its place: each is sealed
/// to its own request.
pub async fn kept(desk: &Arc<Desk>, record: &Record) -> Result<Vec<Again>, Refusal> {
    let mut all = Vec::new();
    if !takes(record) {
        return Ok(all);
    }
    for at in record.files() {
        if let Some(item) = record.facts.items.get(at.item) {
            all.extend(read(desk, record.facts.id, at, item.registry.clone()).await?);
        }
    }
    Ok(all)
}

/// Hands over what [`kept`] returned.
pub async fn hand_over_again(
    desk: &Arc<Desk>,
    id: RequestId,
    kept: Vec<Again>,
) -> Result<(), Refusal> {
    for one in kept {
        let Again {
            registry,
            upload,
            body,
            head,
        } = one;
        match hand_over(Arc::clone(desk), id, registry, upload, body, head).await {
            // Built again meanwhile: the longer request has other bytes of it.
            Ok(()) | Err(Refusal::BytesDiffer(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Waits for the registry's second factor: nobody else waits for a deposit.
async fn confirmed(desk: &Desk, id: RequestId, at: FileAt) -> Result<(), Refusal> {
    loop {
        match settle::settled(desk, id, at).await? {
            settle::Outcome::Confirming => {}
            settle::Outcome::Published => return Ok(()),
            settle::Outcome::Conflict => return Err(Refusal::RegistryConflict),
            settle::Outcome::Refused(said) => return Err(Refusal::RegistryRefused(said)),
            settle::Outcome::MaySend(_) | settle::Outcome::Unclear => {
                return Err(Refusal::Unsettled);
            }
        }
    }
}

/// A kept upload, read by its adapter again: nothing is believed because it was believed before.
async fn read(
    desk: &Arc<Desk>,
    id: RequestId,
    at: FileAt,
    registry: RegistryId,
) -> Result<Option<Again>, Refusal> {
    let key = key(id, at);
    let Some(row) = desk.live.get(DEPOSITS, &key).map_err(Fault::from)? else {
        return Ok(None);
    };
    let kept: Kept = serde_json::from_slice(&row.value).map_err(|_| Fault::Damaged("a deposit"))?;
    let reader = desk.registries.get(&registry).map(|r| r.kind().row().read);
    let reader = reader.flatten().ok_or(Refusal::NotFound)?;
    let own = Arc::clone(desk);
    let task = tokio::task::spawn_blocking(move || {
        let sealed = unhex(&kept.key).unwrap_or_default();
        let mut body = tempfile::spooled_tempfile_in(IN_MEMORY, &own.place.spool);
        let path = place(&own, &kept).ok_or(Fault::Damaged("a deposit"))?;
        payload::open(&own.vault, &binding(&key), &sealed, &path, &mut body)
            .map_err(|why| refusal(&why))?;
        body.rewind().map_err(disk)?;
        let upload = reader(&mut body, &kept.head, &own.place.spool).map_err(Refusal::Upload)?;
        Ok(Some(Again {
            registry,
            upload,
            body,
            head: kept.head,
        }))
    });
    task.await.map_err(|_| Fault::Damaged("a deposit"))?
}

/// Every kept upload.
fn each(desk: &Desk, mut see: impl FnMut(Vec<u8>, Row)) -> Result<(), Fault> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = desk.live.range(DEPOSITS, b"", after.as_deref(), LOOK_MAX)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, row) in rows {
            see(key, row);
        }
    }
}

/// Removes files that no row names: a crash between file and row leaves one. At start, before anybody
/// hands anything over.
pub fn remove_strays(desk: &Desk) -> Result<(), Fault> {
    let mut known = BTreeSet::new();
    each(desk, |_, row| {
        if let Ok(kept) = serde_json::from_slice::<Kept>(&row.value) {
            known.insert(kept.path);
        }
    })?;
    let folder = folder(desk);
    let Ok(files) = std::fs::read_dir(&folder) else {
        return Ok(());
    };
    for file in files.flatten() {
        if !file.file_name().to_str().is_some_and(|n| known.contains(n)) {
            remove(&file.path());
        }
    }
    Ok(())
}

/// Rows first: a file without a row is a stray, a row without a file would be a publish that fails.
async fn destroy(desk: &Desk, rows: Vec<(Vec<u8>, Row)>, now: UnixTime) -> Result<(), Fault> {
    let mut batch = Batch::new();
    let mut files = Vec::new();
    for (key, row) in rows {
        if let Ok(kept) = serde_json::from_slice::<Kept>(&row.value) {
            files.extend(place(desk, &kept));
        }
        batch = batch.delete(DEPOSITS, key, row.version);
    }
    match desk.commit(batch, &[], now).await {
        Ok(_) => files.iter().for_each(|f| remove(f)),
        Err(Fault::Conflict(..)) => {}
        Err(other) => return Err(other),
    }
    Ok(())
}

/// Whose room a request takes.
pub(super) fn owner(record: &Record) -> Owner {
    let caller = &record.facts.caller;
    Owner {
        subject: format!("{}\n{}", caller.issuer, caller.subject),
        actor: record.actor.clone(),
    }
}

/// Whether uploads to this request are kept instead of being passed on.
pub fn takes(record: &Record) -> bool {
    record.mode == Mode::Deposit
        && matches!(record.name(), StateName::Pending | StateName::Approved)
}

fn key(id: RequestId, at: FileAt) -> Vec<u8> {
    let mut key = id.0.as_bytes().to_vec();
    let (item, file) = at.numbers();
    key.extend_from_slice(&item.to_be_bytes());
    key.extend_from_slice(&file.to_be_bytes());
    key
}

const fn binding(key: &[u8]) -> Binding<'_> {
    Binding {
        table: DEPOSITS.0,
        record: key,
        purpose: "payload",
        registry: None,
        scope: None,
        version: 0,
    }
}

fn folder(desk: &Desk) -> PathBuf {
    desk.place.data.join("deposits")
}

/// Where a kept upload lies. The row is not authenticated: whoever writes the database must not make
/// us read or remove another file.
fn place(desk: &Desk, kept: &Kept) -> Option<PathBuf> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let good = kept.path.len() == 32 && kept.path.bytes().all(hex);
    good.then(|| folder(desk).join(&kept.path))
}

fn remove(path: &std::path::Path) {
    if let Err(why) = std::fs::remove_file(path) {
        tracing::warn!(%why, "a deposit's file stays");
    }
}

#[allow(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn disk(why: std::io::Error) -> Refusal {
    tracing::error!(%why, "an upload could not be kept");
    Fault::Damaged("an upload").into()
}

fn refusal(why: &PayloadError) -> Refusal {
    match why {
        PayloadError::Seal(crate::vault::envelope::SealRowError::Sealed(_))
        | PayloadError::Open(crate::vault::envelope::OpenRowError::Sealed(_)) => {
            Fault::Sealed.into()
        }
        other => {
            tracing::error!(why = %other, "an upload could not be kept or opened");
            Fault::Damaged("a deposit").into()
        }
    }
}
