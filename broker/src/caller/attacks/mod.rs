//! Tokens that must not name a caller, with real signatures and a loopback key server.

mod callers;
mod claims;
mod keys;
mod kinds;
mod tokens;

use super::{CallerRefused, Issuers, testkit::*};
use serde_json::Value;

pub(super) async fn refused(issuers: &Issuers, token: &str, what: &str) -> CallerRefused {
    match issuers.verify(token, NOW).await {
        Err(why) => why,
        Ok(caller) => panic!("{what}: became {caller:?}"),
    }
}

pub(super) fn with(name: &str, value: Value) -> Value {
    bent(github_claims(), name, value)
}

pub(super) fn bent(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}
