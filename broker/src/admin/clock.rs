//! The broker's clock: noticed when it jumps, and trusted again.

use super::gate;
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    publish::Refusal,
    store::{Batch, history::whole_log_read},
};
use proto::{device::CALL_WINDOW, ids::PersonId, time::UnixTime};

/// Believes the wall clock as it is. The admin's own device vouches for it: the signed call's time must
/// be the wall clock's, so that nobody accepts by mistake what somebody else has set.
pub async fn accept(
    desk: &Desk,
    by: &PersonId,
    signed_at: UnixTime,
    now: UnixTime,
) -> Result<(), Refusal> {
    let wall = desk.world.wall();
    let apart = wall.0.abs_diff(signed_at.0);
    if apart > CALL_WINDOW {
        return Err(Refusal::NotAllowed(format!(
            "this device's clock and that of the broker's machine are {apart} s apart"
        )));
    }
    let event = Event::ClockAccepted { by: by.clone() };
    let batch = gate::postponed(desk, Batch::new(), wall.since(now))?;
    desk.commit(batch, &[event], now).await?;
    desk.world.believe_clock();
    Ok(())
}

/// Takes the log's last entry as the time before which it cannot be: a clock that was set back while
/// the broker was down is noticed.
pub fn start(desk: &Desk) -> Result<(), Fault> {
    #[derive(serde::Deserialize)]
    struct Leaf {
        time: UnixTime,
    }
    let Some(last) = desk.live.log_len()?.checked_sub(1) else {
        return Ok(());
    };
    let found = whole_log_read(&*desk.live, &*desk.history, last, 1)?;
    if let Some((_, bytes)) = found.first() {
        let leaf: Leaf =
            serde_json::from_slice(bytes).map_err(|_| Fault::Damaged("a leaf of the log"))?;
        desk.world.not_before(leaf.time);
    }
    Ok(())
}

/// Says it where people and machines look, when the clock becomes suspect and when it agrees again.
pub async fn watch(desk: &Desk, was: &mut bool) -> Result<(), Fault> {
    let suspect = desk.world.clock_suspect();
    desk.metrics.clock_suspect.set(i64::from(suspect));
    if suspect == *was {
        return Ok(());
    }
    let (believed, wall) = (desk.world.now(), desk.world.wall());
    let event = if suspect {
        tracing::error!(
            wall = wall.rfc3339(),
            believed = believed.rfc3339(),
            "THE CLOCK JUMPED: TOTP codes and id tokens are refused; check this machine's clock, then: countersign admin trust-clock"
        );
        Event::ClockSuspect
    } else {
        tracing::warn!(wall = wall.rfc3339(), "the clock is trusted again");
        Event::ClockAgrees
    };
    desk.commit(Batch::new(), &[event], believed).await?;
    *was = suspect;
    Ok(())
}
