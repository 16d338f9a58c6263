//! `status` and `completions`.

use crate::{cli::Cli, context::Context, fail::Failure, http::Proof};
use clap::CommandFactory as _;
use clap_complete::Shell;
use proto::{api::BrokerStatus, problem::Exit, text::harmless};

/// Print a completion script.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign completions bash > ~/.local/share/bash-completion/completions/countersign
  countersign completions zsh > ~/.zfunc/_countersign")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// `countersign status`. A sealed broker exits 6: nothing can be released.
pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let broker = context.broker()?;
    let status: BrokerStatus = broker.get("/v1/status", Proof::Nobody).await?;
    let text = describe(broker.base(), &status);
    context.out.result(&status, &text)?;
    if status.sealed {
        return Err(is_sealed());
    }
    if status.restored {
        return Err(is_older());
    }
    Ok(())
}

/// What both status commands end with while nothing can be released.
pub(crate) fn is_sealed() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "The vault is sealed.",
        "An admin unseals it with `countersign admin unseal` (the passphrase, or shares of several admins).",
    )
}

/// What the status ends with while the database is an older copy.
fn is_older() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "The broker's database is an older copy.",
        "Its admins look at what was lost, and agree to go on with it: `countersign admin restored`.",
    )
}

/// The status for people.
pub(crate) fn describe(base: &str, status: &BrokerStatus) -> String {
    let state = if status.sealed { "sealed" } else { "ready" };
    let mut text = format!(
        "{base}: {state}\n  version   {}\n  clock     {}\n  audience  {}",
        harmless(&status.version),
        status.time.rfc3339(),
        harmless(&status.audience),
    );
    if status.clock_suspect {
        text.push_str(
            "\n! the broker's clock jumped: TOTP codes and id tokens are refused until an admin has checked it\n\
             ! (`countersign admin trust-clock`) or it agrees again; denying and device-key approvals work",
        );
    }
    if status.restored {
        text.push_str(
            "\n! THE DATABASE IS AN OLDER COPY: nothing is approved or released until its admins have agreed to it\n\
             ! (`countersign admin restored`); denying and freezing work",
        );
    }
    if let Some(key) = &status.log_key {
        text.push_str("\n  log key   ");
        text.push_str(&harmless(key));
    }
    text
}

/// `countersign completions`
pub(crate) fn completions(context: &Context, args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: the generator itself panics when the pipe breaks.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "countersign", &mut script);
    context
        .out
        .line(String::from_utf8_lossy(&script).trim_end())
}
