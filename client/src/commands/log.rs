//! `log`: the broker's log, as this device saw it.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    profile::ask_line,
    witness::{self, Look},
};
use proto::log::{
    checkpoint::{Checkpoint, LogKey},
    witness::Fork,
};

/// The broker's log, as this device saw it.
///
/// Each device keeps the last checkpoint of the log that it verified, and approves nothing while the broker does not
/// prove that its log still begins with that: a database that was rolled back has forgotten denials, freezes and used
/// codes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign log          # does the log continue what this device saw?
  countersign log accept   # after the admins said, on another way, that they restored a backup")]
pub(crate) struct Args {
    /// What to do; without it, the log is compared with what was kept
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is done about it.
#[derive(clap::Subcommand)]
enum Command {
    /// Go on with a log that was restored from a backup; says what was lost, and keeps both checkpoints
    #[command(after_help = "\
Only after the admins said, on another way, that they restored a backup. What was denied, frozen, \
removed or revoked between the backup and the restore is forgotten: do it again. Both checkpoints \
are kept in this device's folder: signed by one key, they prove what happened.")]
    Accept {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// The broker's new log key, where the admins set the broker up anew
        #[arg(long, value_name = "VKEY")]
        key: Option<LogKey>,
    },
}

/// `countersign log`
pub(crate) async fn log(context: &Context, args: Args) -> Result<(), Failure> {
    let device = context.device()?;
    match args.command {
        None => check(context, &device).await,
        Some(Command::Accept { yes, key }) => accept(context, &device, yes, key).await,
    }
}

async fn check(context: &Context, device: &Device) -> Result<(), Failure> {
    let before = witness::stored(context, device)?;
    let point = witness::follow(context, device).await?;
    let seen = before.seen.map_or_else(
        || "seen for the first time".to_owned(),
        |t| format!("continues what this device saw on {}", t.rfc3339()),
    );
    let value = serde_json::json!({
        "origin": point.origin, "entries": point.size, "root": point.root, "seen": before.seen,
    });
    let text = format!("the log has {} entries and {seen}", point.size);
    context.out.result(&value, &text)
}

async fn accept(
    context: &Context,
    device: &Device,
    yes: bool,
    key: Option<LogKey>,
) -> Result<(), Failure> {
    let look = witness::look(context, device).await?;
    let Err(why) = &look.result else {
        return context
            .out
            .line("nothing to accept: the log continues what this device saw");
    };
    let shown_key = key.as_ref().unwrap_or(&look.key);
    let point = Checkpoint::open(&look.shown.checkpoint, shown_key).map_err(|e| {
        Failure::refused(
            format!("The broker's checkpoint does not hold: {e}."),
            "Accept nothing. If the admins set the broker up anew, give its log's key, as they read it out, with --key.",
        )
    })?;
    let profile = witness::stored(context, device)?;
    context
        .out
        .note(&format!("! {}", witness::refused(why, profile.seen).what));
    context.out.note(&format!("  {}", lost(why, &look, &point)));
    context.out.note(
        "  What was denied, frozen, removed or revoked in them is forgotten by the broker: look at it, and do it again.",
    );
    if !yes {
        let typed = ask_line(
            "Type \"accept\" if the admins restored a backup",
            "Give --yes.",
        )?;
        if typed.trim() != "accept" {
            return Err(Failure::refused(
                "Nothing was accepted.",
                "Ask the admins first.",
            ));
        }
    }
    let kept = remember(context, device, &look)?;
    let mut profile = witness::stored(context, device)?;
    witness::replace(context, &mut profile, shown_key, &look.shown.checkpoint)?;
    let value = serde_json::json!({"entries": point.size, "root": point.root, "kept": kept});
    let text = format!(
        "this device goes on with the log of {} entries; both checkpoints are in {}",
        point.size,
        kept.display()
    );
    context.out.result(&value, &text)
}

/// Names what is gone, as far as two checkpoints tell it.
fn lost(why: &Fork, look: &Look, point: &Checkpoint) -> String {
    let seen = look.kept.as_ref().map_or(0, |kept| kept.size);
    match why {
        Fork::Shorter { .. } => format!(
            "Lost: entries {} to {} at least, which this device had a checkpoint over.",
            point.size,
            seen.saturating_sub(1)
        ),
        Fork::Rewritten { .. } => format!(
            "Lost: some of the first {seen} entries, which this device had a checkpoint over; others stand in their place."
        ),
        Fork::Checkpoint(_) => {
            format!("Lost: all {seen} entries; this is another log, by another key.")
        }
    }
}

/// Keeps both checkpoints: signed by one key, they prove that the log was not only added to.
fn remember(
    context: &Context,
    device: &Device,
    look: &Look,
) -> Result<std::path::PathBuf, Failure> {
    let profile = witness::stored(context, device)?;
    let now = edge::now();
    let both = serde_json::json!({
        "log_key": look.key.to_string(), "kept": profile.checkpoint, "seen": profile.seen,
        "shown": look.shown.checkpoint, "accepted": now,
    });
    context
        .home()?
        .keep_fork(now, format!("{both:#}\n").as_bytes())
}
