//! A backup of a running broker, as of one commit of the live store.
//!
//! Both stores hold what they showed at one moment for as long as it is copied, and go on being written
//! meanwhile. Nothing is gathered in memory: each row goes through encryption to the disk by itself.

use super::{
    KEY_FILE,
    format::{FORMAT, Head, Which, Writer},
};
use crate::{
    audit::event::Event,
    desk::{
        Desk, Fault,
        backups::{Last, Plan},
    },
    publish::Refusal,
    secret::Secret,
    store::{
        Batch,
        snapshot::{Snapshot, WalkError},
    },
};
use age::x25519::Recipient;
use proto::{device::DeviceKey, ids::PersonId, log::checkpoint::LogKey, time::UnixTime};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    sync::Arc,
};

/// Bytes of a configuration or policy at most.
const TEXT_MAX: u64 = 16 << 20;

/// Everything that goes into one backup, of one moment.
struct Whole {
    head: Head,
    live: Box<dyn Snapshot>,
    past: Box<dyn Snapshot>,
    files: Vec<(&'static str, Secret<Vec<u8>>)>,
    to: Vec<Recipient>,
    key: DeviceKey,
}

/// Writes a backup into `file`, encrypted, and flushes it. That it was taken is recorded first, and stands in it.
pub async fn take(
    desk: &Arc<Desk>,
    by: Option<&PersonId>,
    file: File,
    now: UnixTime,
) -> Result<Last, Refusal> {
    let Some(plan) = &desk.backups.plan else {
        let why = "the configuration names nobody whom a backup is encrypted to: set `recipients` of [backup], and restart";
        return Err(Refusal::BadRequest(why.to_owned()));
    };
    let Ok(_one) = Arc::clone(&desk.backups.one).try_acquire_owned() else {
        return Err(Refusal::Busy);
    };
    let whole = whole(desk, plan, by, now).await?;
    let work = move || whole.write(file);
    let written = tokio::task::spawn_blocking(work).await;
    match written {
        Ok(Ok(bytes)) => {
            let made = Last { taken: now, bytes };
            desk.backups.made(made, now);
            Ok(made)
        }
        other => {
            tracing::error!(?other, "a backup was not written");
            Err(Fault::Damaged("a backup").into())
        }
    }
}

async fn whole(
    desk: &Arc<Desk>,
    plan: &Plan,
    by: Option<&PersonId>,
    now: UnixTime,
) -> Result<Whole, Refusal> {
    let to: Option<Vec<Recipient>> = plan.recipients.iter().map(|r| r.parse().ok()).collect();
    let to = to.ok_or(Fault::Damaged("a recipient of backups"))?;
    let key = desk.log_key()?;
    let log_key = LogKey::new(&desk.place.origin, key.public());
    let log_key = log_key.map_err(|_| Fault::Damaged("the log key"))?;
    // The key file opens the very rows that are copied: it does not change until they are.
    let one = desk.unsealing.acquire().await;
    let key_file = fs::read(desk.place.data.join(KEY_FILE)).map(Secret::new);
    let mut files = vec![(
        KEY_FILE,
        key_file.map_err(|_| Fault::Damaged("the key file"))?,
    )];
    for (name, path) in &plan.texts {
        let short = fs::metadata(path).is_ok_and(|m| m.len() <= TEXT_MAX);
        match fs::read(path).map(Secret::new) {
            Ok(text) if short => files.push((name, text)),
            // It is no part of the broker's memory: without it there is a backup all the same.
            _ => tracing::warn!(name, "is not in the backup: it cannot be read"),
        }
    }
    let event = Event::BackupTaken { by: by.cloned() };
    desk.commit(Batch::new(), &[event], now).await?;
    let moving = desk.backups.moving.lock().await;
    let (_, checkpoint) = desk.checkpoint().await?;
    // The history first: its tree has no entry then that the live store does not have. What is moved is in one of
    // the two at least, since nothing moves between.
    let past = desk.history.snapshot().map_err(Fault::from)?;
    let live = desk.live.snapshot().map_err(Fault::from)?;
    drop((moving, one));
    let head = Head {
        v: FORMAT,
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        taken: now,
        public_url: desk.place.public_url.clone(),
        log_key: log_key.to_string(),
        checkpoint,
        live: live.counters(),
        history: past.counters(),
    };
    Ok(Whole {
        head,
        live,
        past,
        files,
        to,
        key,
    })
}

impl Whole {
    /// Writes and flushes all of it; returns how many bytes that are. Blocking.
    fn write(self, file: File) -> io::Result<u64> {
        let to = self.to.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(to).map_err(io::Error::other)?;
        let sealed = encryptor.wrap_output(BufWriter::new(file))?;
        let mut writer = Writer::begin(sealed, &self.head)?;
        for (name, bytes) in &self.files {
            writer.file(name, bytes.expose())?;
        }
        for (which, store) in [(Which::Past, &self.past), (Which::Live, &self.live)] {
            let walked = store.walk(&mut |piece| writer.piece(which, piece));
            walked.map_err(|error| match error {
                WalkError::Taker(error) => error,
                WalkError::Store(error) => io::Error::other(error.to_string()),
            })?;
        }
        let sealed = writer.end(|bytes| self.key.sign(bytes))?;
        let mut buffered = sealed.finish()?;
        buffered.flush()?;
        let file = buffered
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}
