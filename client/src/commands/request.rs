//! `request`: asks for approval, for another step of the job to wait and publish.

use super::ticket;
use crate::{
    context::Context,
    fail::Failure,
    job::{
        inspect::{hand_in, hand_in_source},
        prepare::{What, prepare},
        release::hand_over,
        signals::Signals,
    },
};
use proto::problem::Exit;
use std::path::PathBuf;

/// Ask for approval and return at once. The file that is written holds secrets; `wait`, `collect` and
/// `cancel` take it.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign request npm . --out request.json
  countersign wait --ticket-file request.json && countersign collect --ticket-file request.json

Deposit: hand the files over, end the job, look later from anywhere:
  countersign request npm . --hand-over --out request.json
  countersign wait --published --ticket-file request.json")]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    what: What,
    /// Where to write the request (mode 0600)
    #[arg(long)]
    out: PathBuf,
    /// Hand the files over too, where the policy's mode is `deposit`: the broker publishes them itself
    /// when they are approved, and this job may end
    #[arg(long)]
    hand_over: bool,
    /// With --hand-over: the registry's client [default: as with `publish`]
    #[arg(last = true, requires = "hand_over")]
    command: Vec<String>,
}

/// `countersign request`
pub(crate) async fn request(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let broker = context.broker()?;
    let ready = prepare(context, &args.what, &args.command).await?;
    let Some((mut session, shown)) = ready.open(context, &broker, &args.what).await? else {
        return Err(Failure::new(
            Exit::Conflict,
            "Every version is published already; no request was opened.",
            "There is nothing to wait for. Choose a new version where one is wanted.",
        ));
    };
    if args.hand_over && session.deposit.is_none() {
        let _ = session.cancel(&broker).await;
        return Err(Failure::refused(
            "The policy's mode for this package is not `deposit`; the request is cancelled.",
            "Publish with `countersign publish`, or ask an admin of the broker.",
        ));
    }
    ticket::keep(&mut session, ready.packed.path(), &args.out)?;
    session.show(context, &shown)?;
    hand_in_source(context, &broker, &session, args.what.source.as_deref()).await;
    hand_in(context, &broker, &session).await;
    if args.hand_over {
        let mut signals = Signals::new();
        let folder = ready.folder.as_deref();
        hand_over(
            context,
            &broker,
            &session,
            &args.command,
            folder,
            &mut signals,
        )
        .await?;
    }
    Ok(())
}
