//! Calling a withdrawal back, as long as nothing of it has left: the attempt is counted in the commit before the call, and
//! this replaces the same row, so one of both happens. A call counts on when somebody agrees again meanwhile.

use super::{Stored, line};
use crate::{
    admin::own::{Own, current},
    audit::event::Event,
    desk::{Desk, Fault, inventory::WITHDRAWALS, people::PEOPLE},
    notify::About,
    publish::{Refusal, prove::prove_in_terminal, ring},
};
use proto::{
    factors::change,
    stop::{CallBack, WithdrawalLine, WithdrawalState},
    time::UnixTime,
};

/// Any admin calls it back, with a second factor: a thief with one machine would else stop what answers the theft.
pub async fn call_back(
    desk: &Desk,
    own: Own<'_>,
    asked: &CallBack,
    now: UnixTime,
) -> Result<WithdrawalLine, Refusal> {
    let by = current(desk, own)?;
    let name = asked.name();
    let key = name.as_bytes();
    let held = desk.authentic_row::<Stored>(WITHDRAWALS, key)?;
    let waits = held.filter(|held| held.value.state == WithdrawalState::Waiting);
    let Some(held) = waits else {
        return Err(Refusal::BadRequest(format!(
            "nothing waits for {name}: countersign admin yank --list"
        )));
    };
    let (version, mut row) = (held.version, held.value);
    if row.attempts > 0 {
        return Err(begun(&name));
    }
    let about = (change::CALL_BACK, name.as_str());
    let spent = prove_in_terminal(desk, &by.value, own.device, about, &asked.factor, now).await?;
    row.state = WithdrawalState::CalledBack;
    row.said = Some(format!("called back by {}", own.person));
    row.next = now;
    let batch = spent
        .require(PEOPLE, own.person.as_str().as_bytes(), by.version)
        .replace(
            WITHDRAWALS,
            key,
            version,
            desk.authentic(WITHDRAWALS, key, &row)?,
        );
    let batch = ring::notice(desk, batch, About::Act, "", Some(own.person))?;
    let event = Event::WithdrawalCalledBack {
        name: name.clone(),
        undo: row.what.undo,
        by: own.person.clone(),
    };
    match desk.commit(batch, &[event], now).await {
        // The call began at this very moment, or another admin was faster.
        Err(Fault::Conflict(WITHDRAWALS, _)) => Err(begun(&name)),
        done => done.map(|_| line(row)).map_err(Refusal::from),
    }
}

fn begun(name: &str) -> Refusal {
    Refusal::BadRequest(format!(
        "a call for {name} has begun: look what became of it (countersign admin yank --list), and ask for the opposite \
         where it is done"
    ))
}
