//! `admin panic`: stop everything, and say what has happened and what is to be done.

use super::{
    audit::find,
    incident::{self, Incident},
};
use crate::{
    context::{Context, Device},
    fail::Failure,
};
use proto::{
    api::PersonLine,
    ids::PersonId,
    stop::{HandedOut, PanicRequest, Stopped, Thawers},
    text::harmless,
    time::UnixTime,
};
use serde_json::json;
use std::time::Duration;

/// People who thaw what is frozen.
const THAW_PEOPLE: usize = 2;
/// How long the list of people may hold up the stop.
const LIST_TIME: Duration = Duration::from_secs(1);

/// Stop everything. One admin, at once, without a code: it only makes things stricter.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin panic
  countersign admin panic --since 7d --reason 'a laptop was stolen'
  countersign admin panic --json > incident.json

Nothing is released from then on. Requests, credentials, announcements, unused invites and jobs' sessions end; what \
is on its way to a registry is read back. Then it lists what was published since that time, and what to rotate where. \
Everybody is told. Two admins who were enrolled before thaw it: countersign admin thaw --all. With fewer than two people \
nothing would thaw any more, and the command says so before it stops anything; unless the broker does not say within a \
second who is enrolled: then it stops everything first.")]
pub(crate) struct PanicArgs {
    /// List what was published since: a day, a moment, or so long ago (2026-11-01, 7d, 12h)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = find::since)]
    since: UnixTime,
    /// Why: it is shown in every inbox
    #[arg(long, default_value = "")]
    reason: String,
    /// Stop everything although fewer than two people are enrolled, and nobody could thaw it
    #[arg(long)]
    for_good: bool,
}

/// Runs it.
pub(super) async fn run(context: &Context, args: PanicArgs) -> Result<(), Failure> {
    let device = context.device()?;
    if !args.for_good {
        thawable(&device).await?;
    }
    let request = PanicRequest {
        reason: args.reason,
    };
    let path = "/v1/admin/panic";
    let stopped: Stopped = device.broker.post(path, &request, device.proof()).await?;
    if !stopped.frozen {
        return Err(Failure::refused(
            "The broker did not freeze everything.",
            "Run the command again; seal it (countersign admin seal: nothing is released, and nothing ends), and stop the \
             broker's machine if that fails.",
        ));
    }
    if !context.out.json {
        show(context, &stopped)?;
    }
    // Everything is frozen, whatever becomes of the lists.
    let listed = incident::read(&device, args.since).await;
    if context.out.json {
        let (incident, problem) = match &listed {
            Ok(incident) => (Some(incident.json()), None),
            Err(why) => (None, Some(&why.what)),
        };
        let value = json!({"stopped": stopped, "incident": incident, "problem": problem});
        context.out.json(&value)?;
    }
    match listed {
        Ok(incident) if context.out.json => drop::<Incident>(incident),
        Ok(incident) => incident.show(context)?,
        Err(why) => {
            return Err(Failure {
                what: format!(
                    "Everything is frozen; what was published is not known: {}",
                    why.what
                ),
                next: format!("{} Then look: countersign admin incident.", why.next),
                ..why
            });
        }
    }
    Ok(())
}

/// Says no where nobody could thaw it, ever. A broker that cannot say who is enrolled (the vault is sealed, say), or not
/// at once, holds nobody up: of all commands this must be the fastest. The reply to the stop says then who could thaw it.
async fn thawable(device: &Device) -> Result<(), Failure> {
    let path = "/v1/admin/people";
    let asked = device.broker.get::<Vec<PersonLine>>(path, device.proof());
    let Ok(Ok(people)) = tokio::time::timeout(LIST_TIME, asked).await else {
        return Ok(());
    };
    if people.iter().filter(|p| p.devices > 0).count() >= THAW_PEOPLE {
        return Ok(());
    }
    Err(Failure::refused(
        "Nothing was stopped: two people who were enrolled before thaw it, and you are the only one.",
        "Seal it at once: countersign admin seal. Nothing is released until it is unsealed. That ends nothing, and tells \
         nobody: requests, announcements, and the credentials and sessions of jobs go on from there as far as their time \
         has not run out (docs/RUNBOOKS.md says what to do), and a start unseals by itself where the configuration names \
         what opens the vault. Or invite a second admin first (countersign admin invite NAME --admin), or stop for good: \
         countersign admin panic --for-good.",
    ))
}

/// What must come before the thaw, where fewer than two admins could do it.
fn before_the_thaw(thawers: &Thawers) -> Option<String> {
    let names = |people: &[PersonId]| {
        let names: Vec<_> = people.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let (admins, others) = (&thawers.admins, &thawers.others);
    let only = match admins.as_slice() {
        [] => "no admin was",
        [_] => "one admin alone was",
        _ => return None,
    };
    Some(if admins.len() + others.len() < THAW_PEOPLE {
        format!(
            "! fewer than two people were enrolled before: NOBODY CAN THAW THIS. If {} lost the own devices, bring that \
             person back as who he was (countersign recover); who is enrolled from now on does not count",
            names(admins)
        )
    } else {
        format!(
            "! {only} enrolled before, and two thaw it. First make an admin of one who was there ({}): countersign admin \
             change-person NAME --admin, with the groups that he has; remove nobody of them before the thaw",
            names(others)
        )
    })
}

fn show(context: &Context, stopped: &Stopped) -> Result<(), Failure> {
    let since = stopped.since.rfc3339();
    let head = format!(
        "everything is frozen since {since}; two admins thaw it: countersign admin thaw --all"
    );
    context.out.line(&context.out.bold(&head))?;
    let ended = [
        (stopped.ended, "requests"),
        (
            stopped.credentials,
            "credentials whose request was published in part",
        ),
        (stopped.intents, "announcements"),
        (stopped.sessions, "sessions of jobs"),
        (stopped.invites, "unused invites"),
    ];
    let ended: Vec<_> = ended
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    let ended = if ended.is_empty() {
        "nothing was open".to_owned()
    } else {
        format!("ended: {}", ended.join(", "))
    };
    context.out.line(&format!("  {ended}"))?;
    let warn = |text: String| context.out.line(&context.out.warning(&text));
    if let Some(first) = stopped.thawers.as_ref().and_then(before_the_thaw) {
        warn(first)?;
    }
    if stopped.more {
        warn("! not all of it could be ended yet; nothing of it is released, and the broker goes on by itself".to_owned())?;
    }
    for file in &stopped.sending {
        let (name, of) = (harmless(&file.name), harmless(&file.file));
        warn(format!(
            "! on its way to the registry, and read back: {name} ({of}), request {}",
            file.request
        ))?;
    }
    stopped
        .handed_out
        .iter()
        .try_for_each(|out| warn(handed_out(out)))?;
    for stage in &stopped.stages {
        let stage = harmless(stage);
        warn(format!(
            "! lies at the registry, unpublished; reject it there: {stage}"
        ))?;
    }
    Ok(())
}

fn handed_out(out: &HandedOut) -> String {
    let (package, request) = (harmless(&out.package), out.request);
    match out.until {
        Some(until) => format!(
            "! a job has a token for {package} that works until {}; revoke the token it was made of to end it (request {request})",
            until.rfc3339()
        ),
        None => format!(
            "! a job was given the secret {package} itself: revoke it now (request {request})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_come_first_is_said_where_fewer_than_two_admins_could_thaw() {
        let people = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect();
        let said = |admins: &[&str], others: &[&str]| {
            before_the_thaw(&Thawers {
                admins: people(admins),
                others: people(others),
            })
        };
        assert_eq!(said(&["robin", "dora"], &["alice"]), None);
        let one = said(&["robin"], &["alice", "bob"]).unwrap();
        assert!(one.contains("alice, bob") && one.contains("change-person"));
        assert!(said(&["robin"], &[]).unwrap().contains("NOBODY"));
        assert!(said(&[], &["alice", "bob"]).unwrap().contains("no admin"));
    }
}
