//! Handlers of stored registry tokens. What stores, replaces and removes them is an act ([`super::acts`]).

use super::{
    api::{Done, encode, unsigned, whole},
    routes::Call,
};
use crate::admin::tokens;
use proto::api::{TokenName, TokenPrint, TokenRevoked};

/// Stored tokens, without their secrets.
pub(super) async fn list(call: Call) -> Done {
    encode(tokens::list(&call.desk, call.now))
}

/// What is to be revoked at registries.
pub(super) async fn left(call: Call) -> Done {
    encode(tokens::end::list(&call.desk))
}

/// Asks the registry about a stored token.
pub(super) async fn check(call: Call) -> Done {
    let name: TokenName = call.json()?;
    encode(tokens::prove::check(&call.desk, &name, &call.person()?.id, call.now).await)
}

/// An admin says that a token is revoked at its registry.
pub(super) async fn revoked(call: Call) -> Done {
    let of: TokenRevoked = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { tokens::end::revoked(&desk, signer.own(), &of, now).await }).await)
}

/// An admin says that a token is nowhere else any more.
pub(super) async fn emptied(call: Call) -> Done {
    let of: TokenPrint = call.json()?;
    encode(tokens::end::emptied(&call.desk, &of, &call.person()?.id, call.now).await)
}
