//! What is inside the files of a request: handed over to be looked into, and shown.

use super::{
    api::{Done, encode},
    auth,
    reply::Failed,
    routes::Call,
    spool::{self, NotTaken},
};
use crate::{
    desk::uploads::Slot,
    publish::{Refusal, close, inspect, state::FileAt},
};
use http::header;
use proto::{digest::Digest, problem::Code};
use serde_json::json;
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

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
    let slot = Slot::account(&record.facts.caller, record.actor.as_deref());
    let place = desk.uploads.enter(slot).ok_or(Refusal::Busy)?;
    let body = call
        .file
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let body = body.ok_or_else(|| Refusal::BadRequest("the file is missing".to_owned()))?;
    let taking = spool::take(body, desk.place.spool.clone(), file.size);
    let body = match tokio::time::timeout(FILE_TIME, taking).await {
        Ok(Ok(body)) => body,
        Ok(Err(NotTaken::Disk)) => {
            return Err(Failed::new(
                Code::Internal,
                "the file could not be stored",
                "",
            ));
        }
        Ok(Err(NotTaken::TooLarge | NotTaken::BrokeOff)) | Err(_) => {
            return Err(Failed::new(
                Code::BadRequest,
                "the file did not arrive whole",
                "",
            ));
        }
    };
    // A client that hangs up changes nothing about what was begun.
    let looked = tokio::spawn(async move {
        let _place = place;
        inspect::handed_over(&desk, &claim, &file, body).await
    });
    let looked = looked.await.map_err(|_| Refusal::Busy)?;
    encode(looked.map(|()| json!({"inspected": true})))
}

/// How the text of one file inside changed.
pub(super) async fn diff(call: Call) -> Done {
    let place = (number(&call, "item")?, number(&call, "file")?);
    let at = match place {
        (Some(item), Some(file)) => Some(FileAt { item, file }),
        _ => None,
    };
    let name = call.query.get("name").map(String::as_str);
    let name = name.ok_or_else(|| Refusal::BadRequest("`name` is missing".to_owned()))?;
    let id = call.id()?;
    encode(inspect::diff(&call.desk, id, call.person()?, at, name))
}

fn number(call: &Call, name: &str) -> Result<Option<usize>, Failed> {
    Ok(call
        .number(name)?
        .map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
}
