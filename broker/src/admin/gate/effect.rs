//! What each act does: the operations and events of its commit.

use super::{policy, waiting::Stored};
use crate::{
    admin::{custody::rekey, invites, people, tokens},
    audit::event::Event,
    desk::{Desk, Fault},
    policy::Policy,
    publish::Refusal,
    secret::Secret,
    store::Batch,
};
use proto::{
    act::Act,
    api::{Invited, TokenLine},
    time::UnixTime,
};

/// What an act does, before it is done.
pub(super) struct Effect {
    pub(super) batch: Batch,
    pub(super) events: Vec<Event>,
    /// The invite that it makes.
    pub(super) invited: Option<Invited>,
    /// The token that it stores.
    pub(super) token: Option<TokenLine>,
    /// The policy that it puts in force.
    pub(super) policy: Option<Policy>,
}

/// Prepares it, by what is there now; `batch` holds what it spends.
pub(super) async fn of(
    desk: &Desk,
    stored: &Stored,
    token: Option<&Secret<String>>,
    batch: Batch,
    now: UnixTime,
) -> Result<Effect, Refusal> {
    let mut effect = Effect {
        batch,
        events: Vec::new(),
        invited: None,
        token: None,
        policy: None,
    };
    let by = || {
        let by = stored.by.as_ref().map(|b| &b.person);
        by.ok_or(Refusal::Fault(Fault::Damaged("an act")))
    };
    let batch = std::mem::take(&mut effect.batch);
    match &stored.act {
        Act::Invite(asked) => {
            let made = invites::invite(desk, asked.clone(), Some(by()?), batch, now)?;
            (effect.batch, effect.events) = (made.batch, vec![made.event]);
            effect.invited = Some(made.invited);
        }
        Act::ChangePerson {
            person,
            groups,
            admin,
        } => {
            let rights = (groups.as_slice(), *admin);
            (effect.batch, effect.events) = people::change(desk, person, rights, by()?, batch)?;
        }
        Act::RemovePerson { person } => {
            (effect.batch, effect.events) = people::remove(desk, person, by()?, batch)?;
        }
        Act::AddToken(at) | Act::RotateToken(at) => {
            let token = token.ok_or(Fault::Damaged("a token that waits"))?;
            let rotates = matches!(stored.act, Act::RotateToken(_));
            let put = tokens::Put { at, token, rotates };
            let (done, event, line) = tokens::put(desk, put, by()?, batch, now).await?;
            (effect.batch, effect.events) = (done, vec![event]);
            effect.token = Some(line);
        }
        Act::RemoveToken(name) => {
            (effect.batch, effect.events) = tokens::remove(desk, name, by()?, batch)?;
        }
        Act::Rekey => {
            (effect.batch, effect.events) = rekey::begin(desk, by()?, batch, now)?;
        }
        Act::Policy { .. } => {
            let document = stored.document.as_deref();
            let (done, events, policy) = policy::put(desk, document, batch)?;
            (effect.batch, effect.events) = (done, events);
            effect.policy = Some(policy);
        }
    }
    Ok(effect)
}
