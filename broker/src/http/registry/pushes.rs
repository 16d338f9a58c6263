//! Blobs on their way in pieces: spooled until their digest is named. They live in memory and in files without a
//! name, for some minutes: after a restart the client begins again.

use super::{not_taken, too_large};
use crate::{
    desk::{Desk, Fault, uploads},
    http::{reply::Failed, spool},
    publish::{Refusal, forward::Admission},
    registry::IN_MEMORY,
};
use axum::extract::Request;
use http::{HeaderName, header};
use proto::{
    digest::hex,
    ids::{PackageName, RequestId},
    problem::Code,
    time::UnixTime,
};
use std::{
    collections::HashMap,
    io::Seek as _,
    sync::{Mutex, PoisonError},
};
use tempfile::SpooledTempFile;

/// Seconds that a push may take.
const PUSH_SECONDS: u64 = 15 * 60;

/// A push's name: the request that it is for, the repository, its number.
pub(super) type Key<'k> = (RequestId, &'k PackageName, &'k str);

/// The pushes of one registry origin.
#[derive(Default)]
pub(super) struct Pushes(Mutex<HashMap<String, Push>>);

struct Push {
    id: RequestId,
    package: PackageName,
    file: SpooledTempFile,
    size: u64,
    until: UnixTime,
    /// Counts it among the request's uploads: one credential must not fill the disk (attack 53).
    place: uploads::Place,
}

impl Pushes {
    /// Begins one; its number.
    pub(super) fn begin(
        &self,
        desk: &Desk,
        admission: &Admission,
        package: &PackageName,
    ) -> Result<String, Failed> {
        let now = desk.world.now();
        let number: [u8; 16] = desk
            .world
            .random()
            .map_err(|e| Refusal::from(Fault::from(e)))?;
        let number = hex(&number);
        self.with(|all| all.retain(|_, push| now < push.until));
        let place = desk
            .uploads
            .enter(admission.slot.clone())
            .ok_or(Refusal::Busy)?;
        let push = Push {
            id: admission.id,
            package: package.clone(),
            file: tempfile::spooled_tempfile_in(IN_MEMORY, &desk.place.spool),
            size: 0,
            until: now.after(PUSH_SECONDS),
            place,
        };
        self.with(|all| all.insert(number.clone(), push));
        Ok(number)
    }

    /// Takes the next piece; how long it is now. While a piece arrives nobody else finds the push.
    pub(super) async fn append(
        &self,
        desk: &Desk,
        key: Key<'_>,
        most: u64,
        request: Request,
    ) -> Result<u64, Failed> {
        let mut push = self.remove(key)?;
        if desk.world.now() >= push.until {
            return Err(unknown());
        }
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
        let taking = spool::append(push.file, push.size, request.into_body(), most);
        let taken = tokio::time::timeout(super::UPLOAD_TIME, taking).await;
        let taken = taken.map_err(|_| too_large(most))?;
        (push.file, push.size) = taken.map_err(|why| not_taken(&why, most))?;
        let size = push.size;
        self.with(|all| all.insert(key.2.to_owned(), push));
        Ok(size)
    }

    /// The whole blob, at its start.
    pub(super) fn end(&self, key: Key<'_>) -> Result<(SpooledTempFile, uploads::Place), Failed> {
        let mut push = self.remove(key)?;
        let begun = push.file.rewind();
        begun.map_err(|e| not_taken(&e.into(), push.size))?;
        Ok((push.file, push.place))
    }

    /// Gives one up.
    pub(super) fn forget(&self, key: Key<'_>) {
        drop(self.remove(key));
    }

    /// Takes a push out, for the request and the repository that it was begun for.
    fn remove(&self, (id, package, number): Key<'_>) -> Result<Push, Failed> {
        self.with(|all| {
            let own = all.get(number)?;
            let own = own.id == id && own.package == *package;
            own.then(|| all.remove(number)).flatten()
        })
        .ok_or_else(unknown)
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Push>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The header that repeats a push's number.
pub(super) const fn numbered() -> HeaderName {
    HeaderName::from_static("docker-upload-uuid")
}

fn unknown() -> Failed {
    Failed::new(
        Code::NotFound,
        "no such upload",
        "Push the blob again from its beginning.",
    )
}
