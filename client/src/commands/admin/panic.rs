//! `admin panic`: stop everything, and say what has happened and what is to be done.

use super::{
    audit::find,
    incident::{self, Incident},
};
use crate::{context::Context, fail::Failure};
use proto::{
    stop::{HandedOut, PanicRequest, Stopped},
    text::harmless,
    time::UnixTime,
};
use serde_json::json;

/// Stop everything. One admin, at once, without a code: it only makes things stricter.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin panic
  countersign admin panic --since 7d --reason 'a laptop was stolen'
  countersign admin panic --json > incident.json

Nothing is released from then on. Requests, credentials, announcements, unused invites and jobs' sessions end; what
is on its way to a registry is read back. Then it lists what was published since that time, and what to rotate where.
Everybody is told. Two admins thaw it: countersign admin thaw --all")]
pub(crate) struct PanicArgs {
    /// List what was published since: a day, a moment, or so long ago (2026-11-01, 7d, 12h)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = find::since)]
    since: UnixTime,
    /// Why: it is shown in every inbox
    #[arg(long, default_value = "")]
    reason: String,
}

/// Runs it.
pub(super) async fn run(context: &Context, args: PanicArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let request = PanicRequest {
        reason: args.reason,
    };
    let path = "/v1/admin/panic";
    let stopped: Stopped = device.broker.post(path, &request, device.proof()).await?;
    if !stopped.frozen {
        return Err(Failure::refused(
            "The broker did not freeze everything.",
            "Run the command again, seal it (countersign admin seal), and stop the broker's machine if that fails.",
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
