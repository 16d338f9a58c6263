//! Handlers of backups, and of an older database that was put back.

use super::{
    api::{Done, encode, unsigned, whole},
    routes::Call,
};
use crate::{
    admin::restored as older,
    backup::take,
    desk::{Desk, Fault},
    publish::Refusal,
};
use axum::{
    body::{Body, Bytes},
    response::IntoResponse as _,
};
use futures_util::stream;
use http::header;
use proto::restored::{Agree, BackupState};
use std::io::SeekFrom;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// A backup. It is whole before its first byte leaves: what fails is told as an error, and a slow caller holds
/// up nothing. It needs no second factor: an admin gets what only the recipients' identities open.
pub(super) async fn take(call: Call) -> Done {
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    let spool = desk.place.spool.clone();
    let disk = |error: std::io::Error| {
        tracing::error!(%error, "the spool");
        Refusal::from(Fault::Damaged("the spool"))
    };
    let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(spool)).await;
    let file = file.map_err(|_| disk(std::io::Error::other("no file")))?;
    let file = file.map_err(disk)?;
    let written = file.try_clone().map_err(disk)?;
    let made = whole(async move { take::take(&desk, Some(&signer.person.id), written, now).await });
    let made = made.await?;
    let mut file = File::from_std(file);
    file.seek(SeekFrom::Start(0)).await.map_err(disk)?;
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), file)))
    });
    let heads = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, made.bytes.to_string()),
    ];
    Ok((heads, Body::from_stream(pieces)).into_response())
}

/// What is known of backups.
pub(super) async fn state(call: Call) -> Done {
    encode(Ok(known(&call.desk)))
}

fn known(desk: &Desk) -> BackupState {
    let Some(plan) = &desk.backups.plan else {
        return BackupState::default();
    };
    let last = desk.backups.last();
    BackupState {
        recipients: plan.recipients.len(),
        every: plan.rounds.as_ref().map(|rounds| rounds.every),
        taken: last.map(|last| last.taken),
        bytes: last.map(|last| last.bytes),
        failed: desk.backups.has_failed(),
    }
}

/// Whether the database is an older copy.
pub(super) async fn restored(call: Call) -> Done {
    encode(older::state(&call.desk))
}

/// Agrees to go on with it.
pub(super) async fn agree(call: Call) -> Done {
    let given: Agree = call.json()?;
    encode(older::agree(&call.desk, call.signer()?.own(), &given, call.now).await)
}
