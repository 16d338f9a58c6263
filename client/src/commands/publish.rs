//! `publish`: from a file to an approved publish.

use super::ticket;
use crate::{
    context::Context,
    fail::Failure,
    job::{
        inspect::{hand_in, hand_in_source},
        prepare::{What, prepare},
        release::{hand_over, release},
        signals::Signals,
    },
};
use std::{path::PathBuf, pin::pin};

/// Ask for approval of exactly these bytes, print the match code, wait, and publish them through the
/// broker. Exits 0 only when the broker has read the approved bytes back from the registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign publish npm ./left-1.4.2.tgz
  countersign publish npm . --tag next --note 'fixes the release of Monday'
  countersign publish npm . -- pnpm publish --no-git-checks
  countersign publish npm . -- yarn npm publish
  countersign publish npm --workspaces                        # a whole monorepo, one approval
  countersign publish npm packages/left packages/right
  countersign publish npm --workspaces -- npx changeset publish
  countersign publish pypi dist/
  countersign publish pypi dist/* -- uv publish
  countersign publish npm . --source source.tar.gz            # made by: git archive -o source.tar.gz HEAD
  countersign publish crates .
  countersign publish crates left-1.4.2.crate
  countersign publish crates . -- cargo publish
  countersign publish rubygems left-1.4.2.gem
  countersign publish rubygems left-1.4.2.gem -- gem push left-1.4.2.gem
  countersign publish files app.tgz app.sig --as acme/app@1.4.2
  countersign publish oci acme/app:1.4.2 --layout ./image
  countersign publish oci acme/app:1.4.2 --layout ./image -- sh -c 'crane push ./image $OCI_REFERENCE'

Who asks: in GitHub Actions `permissions: id-token: write` is enough; elsewhere COUNTERSIGN_ID_TOKEN \
(an OIDC token for the broker's URL) or COUNTERSIGN_CLIENT_KEY (a file by `admin client-key new`). \
The command gets the credential in its environment, for npm and for files also in a temporary settings \
file, for images in such a file alone. It gets no COUNTERSIGN_* variable, and no ACTIONS_ID_TOKEN_* one unless it is told to make a provenance \
statement:
  countersign publish npm . -- npm publish --provenance")]
pub(crate) struct Args {
    #[command(flatten)]
    what: What,
    /// Stop waiting after this many seconds (the request stays open)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Also write the request to this file (mode 0600): `countersign collect --ticket-file` goes on with it,
    /// under the same approval, should this job stop half-way
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the signed receipt to this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The registry's client [default: npm publish; twine upload or uv publish; skopeo copy for images; none for
    /// crates, gems and files, which are uploaded without one]
    #[arg(last = true)]
    command: Vec<String>,
}

/// `countersign publish`
pub(crate) async fn publish(context: &Context, args: &Args) -> Result<(), Failure> {
    let mut signals = Signals::new();
    let broker = context.broker()?;
    let ready = prepare(context, &args.what, &args.command).await?;
    let Some((mut session, shown)) = ready.open(context, &broker, &args.what).await? else {
        let nothing = serde_json::json!({"event": "done", "state": "nothing-to-publish"});
        let text = "nothing to publish: every version is published already";
        return context.out.result(&nothing, text);
    };
    if let Some(out) = &args.out {
        ticket::keep(&mut session, ready.packed.path(), out)?;
    }
    session.show(context, &shown)?;
    hand_in_source(context, &broker, &session, args.what.source.as_deref()).await;
    let folder = ready.folder.as_deref();
    if session.deposit.is_some() {
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
    // Beside the waiting: nobody's answer waits for it.
    {
        let waiting = session.wait_or_cancel(context, &broker, args.timeout, &mut signals);
        let mut waiting = pin!(waiting);
        tokio::select! {
            waited = &mut waiting => drop(waited?),
            () = hand_in(context, &broker, &session) => drop(waiting.await?),
        }
    }
    release(
        context,
        &broker,
        &session,
        &args.command,
        folder,
        &mut signals,
    )
    .await?;
    match &args.receipt {
        Some(path) => super::verify::fetch_receipt(&broker, &session, path).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
