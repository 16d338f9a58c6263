//! What each act does: the operations and events of its commit.

use super::{policy, waiting::Stored};
use crate::{
    admin::{
        custody::rekey,
        invites, people,
        tokens::{
            self,
            prove::{self, Given},
        },
        withdraw,
    },
    audit::event::Event,
    desk::{Desk, Fault},
    policy::Policy,
    publish::Refusal,
    secret::Secret,
    store::Batch,
    vault::tokens::TOKEN,
};
use proto::{
    act::{Act, Acted},
    api::{Invited, TokenLine},
    time::UnixTime,
};
use std::sync::Arc;

/// How often an act is prepared, where uses of a token come between.
const TRIES: u32 = 20;

/// What an act does, before it is done.
pub(super) struct Effect {
    batch: Batch,
    events: Vec<Event>,
    /// The invite that it makes.
    invited: Option<Invited>,
    /// The token that it stores.
    token: Option<TokenLine>,
    /// The policy that it puts in force.
    policy: Option<Policy>,
}

/// Prepares it, by what is there now; `batch` holds what it spends.
pub(super) async fn of(
    desk: &Desk,
    stored: &Stored,
    given: Option<&Given>,
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
            let given = given.ok_or(Fault::Damaged("a token that waits"))?;
            let rotates = matches!(stored.act, Act::RotateToken(_));
            let (done, event, line) = tokens::put(desk, at, given, rotates, by()?, batch, now)?;
            (effect.batch, effect.events) = (done, vec![event]);
            effect.token = Some(line);
        }
        Act::TokenBack(to) => {
            let (done, event, line) = tokens::back(desk, to, by()?, batch, now)?;
            (effect.batch, effect.events) = (done, vec![event]);
            effect.token = Some(line);
        }
        Act::RemoveToken(name) => {
            (effect.batch, effect.events) = tokens::remove(desk, name, by()?, batch, now)?;
        }
        Act::Rekey => {
            (effect.batch, effect.events) = rekey::begin(desk, by()?, batch, now)?;
        }
        Act::Withdraw(what) => {
            let confirmed = stored.confirmed.iter().map(|c| c.person.clone()).collect();
            let agreed = (by()?, confirmed);
            (effect.batch, effect.events) = withdraw::put(desk, what, agreed, batch, now).await?;
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

/// What the registry says of the token that an act stores, or goes back to. It is asked at the moment of the act itself.
pub(super) async fn proved(
    desk: &Desk,
    stored: &Stored,
    token: Option<Secret<String>>,
    now: UnixTime,
) -> Result<Option<Given>, Refusal> {
    let damaged = || Refusal::Fault(Fault::Damaged("a token that waits"));
    let by = stored.by.as_ref().ok_or_else(damaged);
    let at = match &stored.act {
        Act::AddToken(at) | Act::RotateToken(at) => at,
        Act::TokenBack(to) => {
            prove::kept(desk, to, &by?.person, now).await?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let (by, token) = (by?, token.ok_or_else(damaged)?);
    let rotates = matches!(stored.act, Act::RotateToken(_));
    tokens::fits(desk, at, &token, rotates)?;
    let given = prove::given(desk, at, token, rotates, &by.person, now).await?;
    Ok(Some(given))
}

/// Does it, by what is there now. A publish that notes its use of a token between reading and writing takes nobody's act:
/// it is prepared again. `before` is what it spends, and the events that come first.
pub(super) async fn done(
    desk: &Desk,
    stored: &Stored,
    given: Option<&Given>,
    before: (Batch, Vec<Event>),
    now: UnixTime,
) -> Result<Acted, Refusal> {
    for _ in 1..TRIES {
        let effect = of(desk, stored, given, before.0.clone(), now).await?;
        match committed(desk, effect, before.1.clone(), now).await {
            Err(Refusal::Fault(Fault::Conflict(TOKEN, _))) => {}
            other => return other,
        }
    }
    let effect = of(desk, stored, given, before.0, now).await?;
    committed(desk, effect, before.1, now).await
}

/// The effect, with the events before it, in one commit.
async fn committed(
    desk: &Desk,
    effect: Effect,
    mut events: Vec<Event>,
    now: UnixTime,
) -> Result<Acted, Refusal> {
    events.extend(effect.events);
    // What is in force is in the store and in memory: both change under one lock.
    let _one = desk.policing.lock().await;
    desk.commit(effect.batch, &events, now).await?;
    if let Some(policy) = effect.policy {
        desk.policy.store(Arc::new(policy));
    }
    Ok(Acted {
        done: true,
        act: None,
        invited: effect.invited,
        token: effect.token,
    })
}
