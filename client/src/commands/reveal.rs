//! `reveal`: a stored secret, after approval, for one job.

use crate::{
    context::Context,
    edge,
    fail::Failure,
    job::{
        idtoken,
        open::{self, Wish},
        signals::Signals,
        tool::Plan,
    },
};
use proto::{
    api::Mode,
    ids::{PackageName, RegistryId},
    request::Item,
};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Ask for approval to use a stored secret. It is sealed to this job alone, and counts as exposed
/// from then on: rotate it. Prefer `publish`, which never shows the secret to anybody.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign reveal generic:deploy-key --out deploy.key
  countersign reveal generic:deploy-key --env DEPLOY_KEY -- ./deploy.sh")]
pub(crate) struct Args {
    /// REGISTRY:NAME of the secret
    secret: String,
    /// Words for the approver, shown as unverified
    #[arg(long)]
    note: Option<String>,
    /// Write the secret to this file (mode 0600)
    #[arg(long, conflicts_with = "command")]
    out: Option<PathBuf>,
    /// Give the secret to the command in this variable
    #[arg(long, value_name = "VARIABLE", requires = "command")]
    env: Option<String>,
    /// Stop waiting after this many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The command that needs it
    #[arg(last = true)]
    command: Vec<String>,
}

/// `countersign reveal`
pub(crate) async fn reveal(context: &Context, args: &Args) -> Result<(), Failure> {
    let goes_nowhere = args.out.is_none() && (args.env.is_none() || args.command.is_empty());
    if goes_nowhere {
        return Err(Failure::usage(
            "The secret would go nowhere.",
            "Give --out FILE, or --env VARIABLE and a command after `--`.",
        ));
    }
    let item = item(&args.secret)?;
    let mut signals = Signals::new();
    let broker = context.broker()?;
    let token = idtoken::obtain(&context.env, &broker).await?;
    let wish = Wish {
        items: vec![item],
        note: args.note.clone(),
        leave_out_published: false,
    };
    let (session, shown) = open::open(&context.env, &broker, &token, wish).await?;
    session.show(context, &shown)?;
    session
        .wait_or_cancel(context, &broker, args.timeout, &mut signals)
        .await?;
    let (mode, mut release) = session.collect(&broker).await?;
    let secret = match (mode, release.secret.take()) {
        (Mode::Reveal, Some(secret)) => Zeroizing::new(secret),
        _ => {
            return Err(Failure::refused(
                "The broker revealed no secret.",
                "Ask an admin whether the policy reveals this one.",
            ));
        }
    };
    context
        .out
        .note("  The secret is out: rotate it soon (`countersign admin token rotate`).");
    if let Some(path) = &args.out {
        return edge::write_private(path, secret.as_bytes());
    }
    let variable = args.env.as_deref().unwrap_or_default();
    let plan = Plan::with_secret(&args.command, variable, &secret, &context.env)?;
    let status = tokio::select! {
        status = plan.run(context.out.json) => status?,
        stopped = signals.stopped() => return Err(stopped),
    };
    if status.success() {
        Ok(())
    } else {
        Err(Failure::failed(
            format!("The command failed ({status})."),
            "Read its output above.",
        ))
    }
}

/// A use of a secret is an item without files; its version names the use.
fn item(text: &str) -> Result<Item, Failure> {
    let bad = |why: String| Failure::usage(why, "Write it like generic:deploy-key.");
    let (registry, name) = text
        .split_once(':')
        .ok_or_else(|| bad("The secret is not named as REGISTRY:NAME.".to_owned()))?;
    let registry: RegistryId = registry.parse().map_err(|e| bad(format!("The {e}.")))?;
    let package: PackageName = name.parse().map_err(|e| bad(format!("The {e}.")))?;
    let version = format!("use-{}", edge::random_id()?);
    Ok(Item {
        registry,
        package,
        version: version.parse().map_err(|e| bad(format!("The {e}.")))?,
        tag: None,
        files: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_is_an_item_of_its_own() {
        let one = item("generic:deploy-key").unwrap();
        let two = item("generic:deploy-key").unwrap();
        assert_eq!(one.package_key(), "generic:deploy-key");
        assert_ne!(one.version, two.version);
        assert!(one.files.is_empty());
        for bad in ["deploy-key", "Generic:x", "generic:", ":x"] {
            assert_eq!(item(bad).unwrap_err().exit as u8, 2, "{bad}");
        }
    }
}
