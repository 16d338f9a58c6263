//! What can be typed.

use crate::commands::{
    admin, answer, cargo_credential, devices, enroll, inbox, intend, log, notify, publish, request,
    reveal, status, ticket, verify,
};
use clap::{Parser, Subcommand};

/// The exit codes, under every help.
const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 expired or timed out, 5 refused,
6 broker unreachable or sealed, 7 conflict or unsettled.

Environment: COUNTERSIGN_BROKER (the broker's URL), COUNTERSIGN_CA (PEM file: the only CAs that are
trusted for the broker), COUNTERSIGN_HOME (this device's folder, else ~/.config/countersign), NO_COLOR.";

/// Publish only what a maintainer has approved with a second factor.
#[derive(Parser)]
#[command(name = "countersign", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    /// The broker's public URL, like https://broker.example.org
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_BROKER",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) broker: Option<String>,
    /// Print JSON on standard output, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// CI: ask for approval, wait, and publish
    Publish(publish::Args),
    /// CI: ask for approval and write the request to a file
    Request(request::RequestArgs),
    /// CI: wait for a request
    Wait(ticket::WaitArgs),
    /// CI: publish what was approved
    Collect(ticket::CollectArgs),
    /// CI: take a request back
    Cancel(ticket::Args),
    /// CI: get a stored secret after approval
    Reveal(reveal::Args),
    /// CI: hand a crate's token to cargo after approval (its credential provider)
    CargoCredential(cargo_credential::Args),
    /// Maintainers: make this machine one of your devices
    Enroll(enroll::Args),
    /// Show the current code of an otpauth file
    Totp(enroll::TotpArgs),
    /// Maintainers: what waits for an answer, most urgent first
    Inbox(inbox::InboxArgs),
    /// Maintainers: what exactly would be published
    Show(answer::ShowArgs),
    /// Maintainers: approve a request
    Approve(answer::ApproveArgs),
    /// Maintainers: deny a request
    Deny(answer::DenyArgs),
    /// Maintainers: announce a release before its job asks
    Intend(intend::Args),
    /// Maintainers: whether the broker's log continues what this device saw
    Log(log::Args),
    /// Maintainers: your devices and passkeys
    Devices(devices::Args),
    /// Maintainers: help somebody who lost all factors
    Recover(devices::RecoverArgs),
    /// Maintainers: how you are told that something waits
    #[command(subcommand)]
    Notify(notify::Command),
    /// Admins: tokens, people, client keys, freezes, the seal, the log
    #[command(subcommand)]
    Admin(admin::Command),
    /// Verify a receipt or an exported log, offline
    Verify(verify::Args),
    /// Fetch a request's receipt
    Receipt(verify::ReceiptArgs),
    /// Whether the broker answers
    Status,
    /// Print a completion script for a shell
    Completions(status::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent_and_takes_no_secret_as_an_argument() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut names = Vec::new();
        walk(&command, &mut names);
        for name in &names {
            for secret in [
                "password",
                "passphrase",
                "secret",
                "invite",
                "ticket",
                "seed",
            ] {
                assert_ne!(name, secret, "--{name} would put a secret into argv");
            }
        }
        assert!(names.iter().any(|n| n == "ticket-file"));
    }

    fn walk(command: &clap::Command, names: &mut Vec<String>) {
        names.extend(
            command
                .get_arguments()
                .filter_map(|a| a.get_long().map(str::to_owned)),
        );
        command.get_subcommands().for_each(|c| walk(c, names));
    }
}
