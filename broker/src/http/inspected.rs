//! What is inside the files of a request.

use super::{
    api::{Done, encode},
    reply::Failed,
    routes::Call,
};
use crate::publish::{Refusal, inspect, state::FileAt};

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
