//! Pushing a blob in pieces, as clients do it. What is on its way lies in [`desk::pushes`](crate::desk::pushes).

use super::{not_taken, too_large};
use crate::{
    desk::{
        Desk, Fault,
        pushes::{Push, Target},
    },
    http::{reply::Failed, spool},
    publish::{Refusal, forward::Admission, pushes},
    registry::IN_MEMORY,
};
use axum::extract::Request;
use http::{HeaderName, header};
use proto::{digest::hex, problem::Code};
use std::io::Seek as _;
use tempfile::SpooledTempFile;

/// Begins a push; its number.
pub(super) fn begin(desk: &Desk, admission: &Admission, target: &Target) -> Result<String, Failed> {
    let number: [u8; 16] = desk
        .world
        .random()
        .map_err(|e| Refusal::from(Fault::from(e)))?;
    let number = hex(&number);
    let file = tempfile::spooled_tempfile_in(IN_MEMORY, &desk.place.spool);
    let owner = admission.owner.clone();
    let now = desk.world.now();
    desk.pushes
        .begin(number.clone(), target.clone(), owner, file, now)
        .ok_or(Refusal::Busy)?;
    Ok(number)
}

/// Takes the next piece; how long the blob is now. While a piece arrives nobody else finds the push.
pub(super) async fn append(
    desk: &Desk,
    admission: &Admission,
    (target, number): (&Target, &str),
    most: u64,
    request: Request,
) -> Result<u64, Failed> {
    let mut push = taken(desk, target, number)?;
    if let Some(range) = request.headers().get(header::CONTENT_RANGE) {
        let from = range.to_str().ok().and_then(|r| r.split_once('-'));
        if from.and_then(|(from, _)| from.parse().ok()) != Some(push.size) {
            return Err(Failed::new(
                Code::BadRequest,
                "this piece does not follow the last one",
                "Push the blob again.",
            ));
        }
    }
    let budget = pushes::budget(desk, admission)?;
    let (mut size, mut full) = (push.size, false);
    let share = &mut push.share;
    let may = |bytes: u64| {
        size = size.saturating_add(bytes);
        full = size <= most && !share.grow(bytes, &budget);
        size <= most && !full
    };
    let taking = spool::append(push.file, push.size, request.into_body(), may);
    let taken = tokio::time::timeout(super::UPLOAD_TIME, taking).await;
    let taken = taken.map_err(|_| too_large(most))?;
    if full {
        return Err(Refusal::Busy.into());
    }
    (push.file, push.size) = taken.map_err(|why| not_taken(&why, most))?;
    let size = push.size;
    desk.pushes.put(number.to_owned(), push);
    Ok(size)
}

/// The whole blob, at its start. Its bytes are not counted as a push's any more.
pub(super) fn end(desk: &Desk, target: &Target, number: &str) -> Result<SpooledTempFile, Failed> {
    let mut push = taken(desk, target, number)?;
    let begun = push.file.rewind();
    begun.map_err(|e| not_taken(&e.into(), push.size))?;
    Ok(push.file)
}

/// Gives one up.
pub(super) fn forget(desk: &Desk, target: &Target, number: &str) {
    drop(desk.pushes.take(number, target, desk.world.now()));
}

fn taken(desk: &Desk, target: &Target, number: &str) -> Result<Push, Failed> {
    let push = desk.pushes.take(number, target, desk.world.now());
    push.ok_or_else(|| {
        Failed::new(
            Code::NotFound,
            "no such upload",
            "Push the blob again from its beginning.",
        )
    })
}

/// The header that repeats a push's number.
pub(super) const fn numbered() -> HeaderName {
    HeaderName::from_static("docker-upload-uuid")
}
