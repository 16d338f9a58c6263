//! What the broker does again and again by itself.

use broker::{
    admin::{
        anchor, clock, custody::rekey, gate, invites, panic, reminders, tokens, withdraw, witnesses,
    },
    backup::folder,
    desk::{Desk, Fault, witnesses::Witness},
    publish::{archive, close, confirm, deposit, fetch, outbox, pushes, ring, settle, unseen},
    watch::round,
};
use futures_util::future::join_all;
use proto::time::UnixTime;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Pause between two looks whether a backup is due.
const BACKUPS: Duration = Duration::from_secs(5);
/// Pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause between two looks at what is unclear.
const SETTLE: Duration = Duration::from_secs(10);
/// Seconds between two looks at invites and at the age of tokens.
const SLOW_SWEEP: u64 = 600;

/// Reads back what was on its way, first of all what a crash left; a registry that hangs stalls
/// nothing else.
pub(super) async fn keep_settling(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut first = true;
    loop {
        let pause = if desk.vault.is_sealed() {
            Duration::from_secs(1)
        } else {
            if let Err(why) = settle::resume(&desk, first).await {
                tracing::error!(%why, "settling failed");
            }
            first = false;
            SETTLE
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Downloads and hashes what was published. It may take minutes, so it stops at once when told to.
pub(super) async fn keep_fetching(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        loop {
            if let Err(why) = fetch::sweep(&desk, desk.world.now()).await {
                tracing::error!(%why, "fetching artifacts failed");
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Decides who is rung, and delivers it: beside each other, so that a slow server keeps nobody from being rung.
pub(super) async fn keep_ringing(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let deciding = async {
        loop {
            if let Err(why) = ring::decide(&desk, desk.world.now()).await {
                tracing::error!(%why, "nobody is rung");
            }
            let _ = tokio::time::timeout(SWEEP, desk.bells.asked()).await;
        }
    };
    let delivering = async {
        loop {
            if let Err(why) = outbox::deliver(&desk, desk.world.now()).await {
                tracing::error!(%why, "notifications are not delivered");
            }
            let _ = tokio::time::timeout(SWEEP, desk.bells.queued()).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = deciding => {}
        () = delivering => {}
    }
}

/// Compares what registries serve with what was published here; first one interval after the start.
pub(super) async fn keep_watching(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let Some(every) = desk.place.watch_every else {
        tracing::warn!("the watch is off: versions that others publish are not noticed");
        return;
    };
    let work = async {
        loop {
            tokio::time::sleep(Duration::from_secs(every)).await;
            if desk.vault.is_sealed() {
                continue;
            }
            if let Err(why) = round::round(&desk, None).await {
                tracing::error!(%why, "a round of the watch failed");
            }
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Tells registries what admins agreed to withdraw. A call that is cut off by the stop is made again.
pub(super) async fn keep_withdrawing(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        loop {
            if let Err(why) = withdraw::sweep(&desk, desk.world.now()).await {
                tracing::error!(%why, "withdrawing failed");
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Shows the log to its witnesses, each by itself: one that hangs holds up no other. What was on its way when the broker
/// stops is asked for again.
pub(super) async fn keep_witnessed(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        loop {
            if !desk.vault.is_sealed() {
                match witnesses::settle(&desk, desk.world.now()).await {
                    Ok(()) => break,
                    Err(why) => tracing::error!(%why, "the witnesses are not asked"),
                }
            }
            tokio::time::sleep(SWEEP).await;
        }
        let all = desk.witnesses.all.iter();
        join_all(all.map(|witness| keep_witness(&desk, witness))).await;
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

async fn keep_witness(desk: &Desk, witness: &Witness) {
    loop {
        let pause = match witnesses::look(desk, witness).await {
            Ok(pause) => pause,
            // In the middle of it.
            Err(Fault::Sealed) => SWEEP,
            Err(why) => {
                tracing::error!(%why, witness = witness.key.name(), "a witness is not counted");
                SETTLE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Makes backups when they are due. One that is on its way is left half written when the broker stops; the next
/// start removes it.
pub(super) async fn keep_backups(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        let mut tried = UnixTime(0);
        loop {
            if let Err(why) = folder::round(&desk, &mut tried, desk.world.now()).await {
                tracing::error!(%why, "no backup was made");
            }
            let taken = desk.backups.last().map_or(0, |last| last.taken.0);
            desk.metrics
                .backup_taken
                .set(i64::try_from(taken).unwrap_or_default());
            let marked = desk.restored().map_or(true, |mark| mark.is_some());
            desk.metrics.restored.set(i64::from(marked));
            tokio::time::sleep(BACKUPS).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Brings a re-keying of the vault to its end.
pub(super) async fn keep_rekeying(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        let mut last = None;
        loop {
            match rekey::go_on(&desk, &mut last).await {
                // Somebody changed what opens the vault, or one of the rows: the next round goes on.
                Ok(()) | Err(Fault::Conflict(..)) => {}
                Err(why) => tracing::error!(%why, "the vault's re-keying does not go on"),
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Ends tokens whose time is over. Their registries are asked, so that it stalls nothing else, and stops at once when told
/// to: whatever was not committed is done again.
pub(super) async fn keep_tokens(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        loop {
            if let Err(why) = tokens::end::sweep(&desk, desk.world.now()).await {
                tracing::error!(%why, "tokens whose time is over are not ended");
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Expires, archives, follows the log: everything that nobody waits for.
pub(super) async fn keep_house(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut suspect = false;
    let mut slowly_swept = UnixTime(0);
    let mut anchored = (0, 0);
    loop {
        let watched = clock::watch(&desk, &mut suspect).await;
        let now = desk.world.now();
        let swept = close::sweep(&desk, now).await;
        let forgotten = close::forget_burnt(&desk, now).await;
        let archived = archive::archive(&desk, now).await;
        let told = unseen::sweep(&desk, now).await;
        let deposited = deposit::sweep(&desk).await;
        let confirmed = confirm::sweep(&desk).await;
        let acted = gate::sweep(&desk, now).await;
        let pushed = pushes::sweep(&desk);
        let (mut invited, mut reminded, mut stopped) = (Ok(()), Ok(()), Ok(()));
        if now.since(slowly_swept) >= SLOW_SWEEP && !desk.vault.is_sealed() {
            invited = invites::sweep(&desk, now).await;
            reminded = reminders::sweep(&desk, now).await;
            stopped = panic::sweep(&desk, now).await;
            slowly_swept = now;
        }
        for why in [
            swept.err(),
            forgotten.err(),
            archived.err(),
            told.err(),
            watched.err(),
            deposited.err(),
            confirmed.err(),
            acted.err(),
            pushed.err(),
            invited.err(),
            reminded.err(),
            stopped.err(),
        ]
        .into_iter()
        .flatten()
        {
            tracing::error!(%why, "keeping house failed");
        }
        if let Err(why) = desk.tree.catch_up_into(&*desk.live, &*desk.history).await {
            tracing::error!(%why, "the log's tree cannot follow");
        }
        if let Err(why) = anchor::keep(&desk, &mut anchored).await {
            tracing::error!(%why, "the log's checkpoint is not kept outside the database");
        }
        desk.waiters.sweep();
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
