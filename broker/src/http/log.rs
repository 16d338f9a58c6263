//! The handlers of the log: checkpoints, proofs, tiles, exports.
//!
//! Hashes and proofs are for every enrolled device, since each is a witness. They are not for strangers: how fast the
//! log grows tells when something is released, and whoever can guess an entry could check his guess against its hash.
//! Entries name people, so they are for admins. No call costs more with a longer log, but for a few hashes more.

use super::{
    api::{Done, encode},
    reply::Failed,
    routes::Call,
};
use crate::{
    admin::{find as search, log, witnesses},
    audit::tree::TreeError,
    desk::Fault,
    publish::Refusal,
};
use axum::response::IntoResponse as _;
use http::header;
use proto::{
    api::LogProof,
    log::{
        find::Wanted,
        tile::{Place, Tile},
    },
    time::UnixTime,
};
use std::sync::Arc;

/// A tile never changes: whoever has it need not ask again.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// The signed checkpoint of this moment, with the cosignatures there are over it; or the newest that `cosigned` witnesses
/// cosigned.
pub(super) async fn checkpoint(call: Call) -> Done {
    let desk = &call.desk;
    let text = match call.number("cosigned")? {
        None | Some(0) => {
            let (size, note) = desk.checkpoint().await.map_err(Refusal::from)?;
            witnesses::cosigned(desk, size, note).map_err(Refusal::from)?
        }
        Some(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let newest = witnesses::newest(desk, count).map_err(Refusal::from)?;
            newest.ok_or(Refusal::NotFound)?
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// How the log's witnesses do.
pub(super) async fn witnessed(call: Call) -> Done {
    encode(witnesses::states(&call.desk).map_err(Refusal::from))
}

/// The checkpoint, and that its tree begins with the one of `from` entries. To a device that saw more than there is
/// nothing can be proved: the checkpoint itself tells it so (attack 45).
pub(super) async fn consistency(call: Call) -> Done {
    let from = call.number("from")?.unwrap_or(0);
    let desk = &call.desk;
    let (size, checkpoint) = desk.checkpoint().await.map_err(Refusal::from)?;
    let proof = if from > size {
        Vec::new()
    } else {
        let proof = desk.tree.consistency(&*desk.history, from, size);
        proof.map_err(|e| fault(&e))?
    };
    encode(Ok(LogProof { checkpoint, proof }))
}

/// The checkpoint, and that its tree has the entry `index`.
pub(super) async fn inclusion(call: Call) -> Done {
    let index = call.number("index")?.unwrap_or(0);
    let desk = &call.desk;
    let (size, checkpoint) = desk.checkpoint().await.map_err(Refusal::from)?;
    if index >= size {
        return Err(Refusal::NotFound.into());
    }
    let proof = desk.tree.inclusion(&*desk.history, index, size);
    let proof = proof.map_err(|e| fault(&e))?;
    encode(Ok(LogProof { checkpoint, proof }))
}

/// A tile of hashes.
pub(super) async fn tile(call: Call) -> Done {
    let part = |name: &str| call.path.get(name).map(String::as_str).unwrap_or_default();
    let tile = Tile::parse(part("level"), part("tile")).ok_or(Refusal::NotFound)?;
    let desk = &call.desk;
    let hashes = desk
        .tree
        .tile(&*desk.history, &tile)
        .map_err(|e| fault(&e))?;
    Ok(as_tile(hashes.ok_or(Refusal::NotFound)?))
}

/// A bundle of entries.
pub(super) async fn entries(call: Call) -> Done {
    let place = call.path.get("tile").and_then(|text| Place::parse(text));
    let bundle = log::bundle(&call.desk, place.ok_or(Refusal::NotFound)?)?;
    Ok(as_tile(bundle))
}

fn as_tile(bytes: Vec<u8>) -> axum::response::Response {
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, FOR_EVER),
    ];
    (head, bytes).into_response()
}

/// A page of the log as JSON lines.
pub(super) async fn export(call: Call) -> Done {
    let from = call.number("from")?.unwrap_or(0);
    let limit = call.number("limit")?.unwrap_or(1000);
    let limit = usize::try_from(limit).unwrap_or(log::PAGE_MAX);
    let lines = log::export(&call.desk, from, limit)?;
    let mut text = String::new();
    for line in &lines {
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], text).into_response())
}

/// What somebody looks for. It reads thousands of entries, so it does not hold up those who wait on this thread.
pub(super) async fn find(call: Call) -> Done {
    let text = |name: &str| call.query.get(name).cloned();
    let person = text("person").map(|p| p.parse()).transpose();
    let wanted = Wanted {
        package: text("package"),
        person: person.map_err(|_| Refusal::BadRequest("`person` is no name".to_owned()))?,
        event: text("event"),
        since: call.number("since")?.map(UnixTime),
        until: call.number("until")?.map(UnixTime),
    };
    let from = call.number("from")?.unwrap_or(0);
    let limit = call.number("limit")?.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(search::FOUND_MAX);
    let desk = Arc::clone(&call.desk);
    let found = tokio::task::spawn_blocking(move || search::find(&desk, &wanted, from, limit));
    let found = found.await;
    encode(found.unwrap_or_else(|_| Err(Fault::Damaged("a search").into())))
}

fn fault(why: &TreeError) -> Failed {
    Refusal::from(Fault::Store(why.to_string())).into()
}
