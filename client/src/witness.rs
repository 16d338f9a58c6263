//! This device as a witness: it keeps the last checkpoint of the broker's log that it verified, and approves nothing
//! while the broker does not prove that its log still begins with that. So a database that was rolled back to an old
//! copy is found by the first device that comes along (attack 45), and an edited log too (attack 46).

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    http::Proof,
    profile::{Profile, not_enrolled},
};
use proto::{
    api::{BrokerStatus, LogProof},
    log::{
        checkpoint::{Checkpoint, LogKey},
        witness::{self, Fork},
    },
    problem::{Code, Exit},
};

/// What a device kept, and what it is shown.
pub(crate) struct Look {
    /// The log's key that this device knows.
    pub(crate) key: LogKey,
    /// What was kept; nothing before the first look.
    pub(crate) kept: Option<Checkpoint>,
    /// What the broker answered.
    pub(crate) shown: LogProof,
    /// What follows from both.
    pub(crate) result: Result<Checkpoint, Fork>,
}

/// Looks at the log; keeps nothing.
pub(crate) async fn look(context: &Context, device: &Device) -> Result<Look, Failure> {
    let profile = stored(context, device)?;
    let key = match &profile.log_key {
        Some(pinned) => pinned.clone(),
        // The first contact: from here on this key and no other (attack 35).
        None => first_key(device).await?,
    };
    let key: LogKey = key.parse().map_err(|_| damaged())?;
    let kept = profile.checkpoint.as_deref();
    let kept = kept.map(|note| Checkpoint::open(note, &key)).transpose();
    let kept = kept.map_err(|_| damaged())?;
    let from = kept.as_ref().map_or(0, |point| point.size);
    let path = format!("/v1/log/consistency?from={from}");
    let shown: LogProof = device
        .broker
        .get(&path, device.proof())
        .await
        .map_err(unproved)?;
    let result = witness::follow(kept.as_ref(), &shown, &key);
    Ok(Look {
        key,
        kept,
        shown,
        result,
    })
}

/// Follows the log: what the broker shows must continue what this device kept, and is kept from now on.
pub(crate) async fn follow(context: &Context, device: &Device) -> Result<Checkpoint, Failure> {
    let look = look(context, device).await?;
    match look.result {
        Ok(point) => {
            keep(context, device, &look.key, &look.shown.checkpoint, &point)?;
            Ok(point)
        }
        Err(why) => Err(refused(&why, stored(context, device)?.seen)),
    }
}

/// The same for whoever only looks, or says no: what is wrong is told, and stops nothing. Denying must work whatever
/// became of the log.
pub(crate) async fn warn(context: &Context, device: &Device) {
    if let Err(failure) = follow(context, device).await
        && failure.exit == Exit::Refused
    {
        let text = format!("! {} {}", failure.what, failure.next);
        context.out.note(&context.out.bold_note(&text));
    }
}

/// Keeps a verified checkpoint, unless another command of this device kept a later one meanwhile.
pub(crate) fn keep(
    context: &Context,
    device: &Device,
    key: &LogKey,
    note: &str,
    point: &Checkpoint,
) -> Result<(), Failure> {
    let mut profile = stored(context, device)?;
    let later = profile.checkpoint.as_deref().is_some_and(|other| {
        Checkpoint::open(other, key).is_ok_and(|other| other.size > point.size)
    });
    if later {
        return Ok(());
    }
    replace(context, &mut profile, key, note)
}

/// Writes what is kept, whatever was kept before.
pub(crate) fn replace(
    context: &Context,
    profile: &mut Profile,
    key: &LogKey,
    note: &str,
) -> Result<(), Failure> {
    profile.log_key = Some(key.to_string());
    profile.checkpoint = Some(note.to_owned());
    profile.seen = Some(edge::now());
    context.home()?.store_profile(profile)
}

/// What this device knows of the log without asking anybody.
pub(crate) fn kept(context: &Context) -> Result<(LogKey, Option<Checkpoint>), Failure> {
    let profile = context.home()?.profile()?.ok_or_else(not_enrolled)?;
    let key = profile.log_key.as_deref().unwrap_or_default();
    let key: LogKey = key.parse().map_err(|_| damaged())?;
    let seen = profile.checkpoint.as_deref();
    let seen = seen.map(|note| Checkpoint::open(note, &key)).transpose();
    Ok((key, seen.map_err(|_| damaged())?))
}

/// What is on disk now: other commands write it too.
pub(crate) fn stored(context: &Context, device: &Device) -> Result<Profile, Failure> {
    let profile = context.home()?.profile()?;
    Ok(profile.unwrap_or_else(|| device.profile.clone()))
}

async fn first_key(device: &Device) -> Result<String, Failure> {
    let status: BrokerStatus = device.broker.get("/v1/status", Proof::Nobody).await?;
    status.log_key.ok_or_else(|| {
        Failure::unreachable(
            "The broker is sealed and does not say its log's key.",
            "Ask an admin to run `countersign admin unseal`.",
        )
    })
}

/// Says what was found, and what to do.
pub(crate) fn refused(why: &Fork, seen: Option<proto::time::UnixTime>) -> Failure {
    let when = seen.map_or_else(String::new, |t| format!(" (on {})", t.rfc3339()));
    let what = match why {
        Fork::Checkpoint(why) => {
            format!("The broker's log is not the one that this device knows: {why}.")
        }
        Fork::Shorter { seen, shown } => format!(
            "The broker's log has {shown} entries, but had {seen} when this device saw it last{when}: it was rolled back."
        ),
        Fork::Rewritten { seen, shown } => format!(
            "The broker's log of {shown} entries does not begin with the {seen} entries that this device saw{when}: it was rolled back or rewritten."
        ),
    };
    Failure::refused(
        what,
        "Approve nothing. Ask the admins, on another way, whether the broker was restored from a backup; if so: `countersign log accept`. Denying and freezing work as ever.",
    )
}

/// A broker that has no proof proves nothing.
fn unproved(failure: Failure) -> Failure {
    if failure.code != Some(Code::NotFound) {
        return failure;
    }
    Failure::refused(
        "The broker does not prove that its log is the one that this device saw.",
        "Approve nothing. Check that client and broker have the same version: `countersign status`.",
    )
}

fn damaged() -> Failure {
    Failure::refused(
        "What this device kept of the broker's log is damaged.",
        "Restore profile.toml of this device, or enrol it again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::time::UnixTime;

    #[test]
    fn whatever_is_found_is_a_refusal_that_says_what_to_do() {
        let all = [
            Fork::Shorter { seen: 9, shown: 4 },
            Fork::Rewritten { seen: 9, shown: 12 },
            Fork::Checkpoint(proto::log::checkpoint::NoteError::Unsigned),
        ];
        for why in all {
            let told = refused(&why, Some(UnixTime(0)));
            assert_eq!(told.exit, Exit::Refused);
            assert!(told.next.contains("countersign log accept"));
        }
        let told = refused(&Fork::Shorter { seen: 9, shown: 4 }, Some(UnixTime(0)));
        let said =
            "has 4 entries, but had 9 when this device saw it last (on 1970-01-01T00:00:00Z)";
        assert!(told.what.contains(said), "{}", told.what);
    }
}
