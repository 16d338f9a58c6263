//! Handlers of what one admin asks for and another one agrees to.

use super::{
    api::{Done, encode, unsigned, whole},
    routes::Call,
};
use crate::admin::gate;
use proto::act::{AnswerAct, AskAct};

/// What waits.
pub(super) async fn list(call: Call) -> Done {
    encode(gate::list(&call.desk, call.now))
}

/// The policy in force.
pub(super) async fn policy(call: Call) -> Done {
    encode(gate::policy::shown(&call.desk))
}

/// Asks for an act. Whoever goes away while the registry is asked about a token stops nothing half way.
pub(super) async fn ask(call: Call) -> Done {
    let given: AskAct = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { gate::ask(&desk, signer.own(), given, now).await }).await)
}

/// Another admin agrees.
pub(super) async fn confirm(call: Call) -> Done {
    let given: AnswerAct = call.json()?;
    let id: String = call.named("id")?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { gate::confirm(&desk, signer.own(), &id, given, now).await }).await)
}

/// Somebody objects, or takes it back.
pub(super) async fn veto(call: Call) -> Done {
    let given: AnswerAct = call.json_if_any()?;
    let id: String = call.named("id")?;
    encode(gate::veto(&call.desk, call.signer()?.own(), &id, given, call.now).await)
}
