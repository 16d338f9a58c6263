//! The handlers of what people look back at.

use super::{
    api::{Done, encode},
    routes::Call,
};
use crate::publish::past;

/// What ended.
pub(super) async fn history(call: Call) -> Done {
    let (after, limit) = page(&call)?;
    encode(past::history(&call.desk, call.person()?, after, limit))
}

/// This person's packages.
pub(super) async fn packages(call: Call) -> Done {
    let (after, limit) = page(&call)?;
    encode(past::packages(&call.desk, call.person()?, after, limit))
}

/// Which page is asked for; the verb has its own limit.
fn page(call: &Call) -> Result<(Option<&str>, usize), super::reply::Failed> {
    let limit = call.number("limit")?.unwrap_or(u64::MAX);
    let after = call.query.get("after").map(String::as_str);
    Ok((after, usize::try_from(limit).unwrap_or(usize::MAX)))
}
