//! One file per command family.

pub(crate) mod admin;
pub(crate) mod answer;
pub(crate) mod cargo_credential;
pub(crate) mod devices;
pub(crate) mod enroll;
pub(crate) mod inbox;
pub(crate) mod intend;
pub(crate) mod log;
pub(crate) mod notify;
pub(crate) mod publish;
pub(crate) mod request;
pub(crate) mod reveal;
pub(crate) mod status;
pub(crate) mod ticket;
pub(crate) mod verify;

use crate::{cli::Command, context::Context, fail::Failure};

/// Runs a command.
pub(crate) async fn dispatch(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Publish(args) => publish::publish(context, &args).await,
        Command::Request(args) => request::request(context, &args).await,
        Command::Wait(args) => ticket::wait(context, &args).await,
        Command::Collect(args) => ticket::collect(context, &args).await,
        Command::Cancel(args) => ticket::cancel(context, &args).await,
        Command::Reveal(args) => reveal::reveal(context, &args).await,
        Command::CargoCredential(_) => Err(cargo_credential::not_by_hand()),
        Command::Enroll(args) => enroll::enroll(context, &args).await,
        Command::Totp(args) => enroll::totp(context, &args),
        Command::Inbox(args) => inbox::inbox(context, &args).await,
        Command::Show(args) => answer::show(context, &args).await,
        Command::Approve(args) => answer::approve(context, &args).await,
        Command::Deny(args) => answer::deny(context, &args).await,
        Command::Intend(args) => intend::intend(context, &args).await,
        Command::Log(args) => log::log(context, args).await,
        Command::Devices(args) => devices::devices(context, &args).await,
        Command::Recover(args) => devices::recover(context, &args).await,
        Command::Notify(command) => notify::run(context, command).await,
        Command::Admin(command) => admin::run(context, command).await,
        Command::Verify(args) => verify::verify(context, &args),
        Command::Receipt(args) => verify::receipt(context, &args).await,
        Command::Status => status::status(context).await,
        Command::Completions(args) => status::completions(context, &args),
    }
}
