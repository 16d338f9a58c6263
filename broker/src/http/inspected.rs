//! What is inside the files of a request: handed over to be looked into, and shown.

use super::{
    api::{Done, encode},
    auth,
    reply::Failed,
    routes::Call,
    spool::{self, NotTaken},
};
use crate::publish::{
    Refusal, close,
    inspect::{self, source},
    state::FileAt,
};
use http::header;
use proto::{card::SOURCE_MAX, digest::Digest, problem::Code};
use serde_json::json;
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use tempfile::SpooledTempFile;

/// Time for a file to arrive.
const FILE_TIME: Duration = Duration::from_mins(5);

/// Takes a file of a request and looks into it. It is gone afterwards; what stays is its card.
pub(super) async fn take(call: Call) -> Done {
    let ticket = auth::ticket(&call.headers)?;
    let desk = Arc::clone(&call.desk);
    let record = close::status(&desk, call.id()?, &ticket)?;
    let digest: Digest = call.named("digest")?;
    let Some((claim, file)) = inspect::wanted(&desk, &record, &digest)? else {
        return encode(Ok(json!({"inspected": true})));
    };
    let declared = call.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|n| n != file.size) {
        let why = "the file has another length than the request says".to_owned();
        return Err(Refusal::BytesDiffer(why).into());
    }
    // Nobody has approved it: all of one account together, as with every other upload (attack 54).
    let slot = inspect::account(&record);
    let place = desk.uploads.enter(slot).ok_or(Refusal::Busy)?;
    let body = body(&call, file.size).await?;
    // A client that hangs up changes nothing about what was begun.
    let looked = tokio::spawn(async move {
        let _place = place;
        let turn = desk.inspections.turn(inspect::account(&record)).await;
        let turn = turn.ok_or(Refusal::Busy)?;
        inspect::handed_over(&desk, &claim, &file, turn, body).await
    });
    let looked = looked.await.map_err(|_| Refusal::Busy)?;
    encode(looked.map(|()| json!({"inspected": true})))
}

/// Takes the source of a request and lists its files. It is gone afterwards.
pub(super) async fn source(call: Call) -> Done {
    let ticket = auth::ticket(&call.headers)?;
    let desk = Arc::clone(&call.desk);
    let record = close::status(&desk, call.id()?, &ticket)?;
    source::wanted(&desk, &record)?;
    let slot = inspect::account(&record);
    let place = desk.uploads.enter(slot).ok_or(Refusal::Busy)?;
    let body = body(&call, SOURCE_MAX).await?;
    let listed = tokio::spawn(async move {
        let _place = place;
        source::handed_in(&desk, &record, body).await
    });
    let listed = listed.await.map_err(|_| Refusal::Busy)?;
    encode(listed.map(|()| json!({"listed": true})))
}

/// The call's body, of at most so many bytes.
async fn body(call: &Call, most: u64) -> Result<SpooledTempFile, Failed> {
    let body = call
        .file
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let body = body.ok_or_else(|| Refusal::BadRequest("the file is missing".to_owned()))?;
    let taking = spool::take(body, call.desk.place.spool.clone(), most);
    match tokio::time::timeout(FILE_TIME, taking).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(NotTaken::Disk)) => Err(Failed::new(
            Code::Internal,
            "the file could not be stored",
            "",
        )),
        Ok(Err(NotTaken::TooLarge | NotTaken::BrokeOff)) | Err(_) => Err(Failed::new(
            Code::BadRequest,
            "the file did not arrive whole",
            "",
        )),
    }
}

/// How the text of one file inside changed.
pub(super) async fn diff(call: Call) -> Done {
    let item = number(&call, "item")?;
    let file = number(&call, "file")?;
    let difference = number(&call, "difference")?;
    let at = FileAt { item, file };
    encode(inspect::diff(
        &call.desk,
        call.id()?,
        call.person()?,
        at,
        difference,
    ))
}

fn number(call: &Call, name: &str) -> Result<usize, Failed> {
    let number = call.number(name)?;
    let number = number.ok_or_else(|| Refusal::BadRequest(format!("`{name}` is missing")))?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}
