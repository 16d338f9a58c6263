//! `admin yank`: marks a version at its registry as one that nobody should choose, by two admins.

use super::acts;
use crate::{
    commands::devices::Code,
    context::{Context, Device},
    fail::Failure,
};
use proto::{
    act::{Act, Withdrawal},
    ids::{PackageName, RegistryId, VersionText},
    problem::Exit,
    stop::{CallBack, WithdrawalLine, WithdrawalState},
    text::harmless,
};
use serde_json::json;
use std::time::Duration;

/// How long the command waits for the registry to show it.
const PATIENCE: u32 = 45;

/// Mark a version at its registry as one that nobody should choose: deprecate, yank. The broker makes the one call
/// itself, with the stored token, when a second admin has agreed, and reads it back.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin yank npm @acme/left 1.2.3 --message 'steals tokens: use 1.2.4'
  countersign admin yank crates acme-left 1.2.3
  countersign admin yank npm @acme/left 1.2.3 --undo
  countersign admin yank npm @acme/left 1.2.3 --call-back    # agreed to, and not sent yet
  countersign admin yank --list

npm (deprecate), cargo registries and RubyGems take it from a program. PyPI, container registries and others do not:
the command says what a person does there. It asks for a code, and another admin confirms: countersign admin confirm.")]
pub(crate) struct YankArgs {
    /// The registry, as the broker's configuration names it
    #[arg(required_unless_present = "list")]
    registry: Option<RegistryId>,
    /// The package
    #[arg(required_unless_present = "list")]
    package: Option<PackageName>,
    /// The version
    #[arg(required_unless_present = "list")]
    version: Option<VersionText>,
    /// What users are told; npm shows it, and wants one
    #[arg(long)]
    message: Option<String>,
    /// Take the mark away again
    #[arg(long, conflicts_with = "message")]
    undo: bool,
    /// Call back what was agreed to and waits, by you alone: as long as its call to the registry has not begun
    #[arg(long, conflicts_with_all = ["message", "undo", "list"])]
    call_back: bool,
    /// What was agreed to lately, and what became of it
    #[arg(long, conflicts_with_all = ["registry", "message", "undo"])]
    list: bool,
    #[command(flatten)]
    code: Code,
}

/// Runs it.
pub(super) async fn run(context: &Context, args: YankArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let (Some(registry), Some(package), Some(version)) =
        (args.registry, args.package, args.version)
    else {
        return list(context, &device).await;
    };
    if args.call_back {
        let asked = CallBack {
            registry,
            package,
            version,
            factor: args.code.factor()?,
        };
        return called_back(context, &device, &asked).await;
    }
    let what = Withdrawal {
        registry,
        package,
        version,
        message: args.message,
        undo: args.undo,
    };
    let act = Act::Withdraw(what.clone());
    let acted = acts::ask(&device, act, None, &args.code).await?;
    if acted.done {
        return settled(context, &device, &what).await;
    }
    let value = json!({"version": what.name(), "undo": what.undo});
    acts::told(context, &acted, &value, "agreed to")
}

async fn called_back(context: &Context, device: &Device, asked: &CallBack) -> Result<(), Failure> {
    let path = "/v1/admin/withdrawals/call-back";
    let line: WithdrawalLine = device.broker.post(path, asked, device.proof()).await?;
    if line.withdrawal.name() != asked.name() || line.state != WithdrawalState::CalledBack {
        return Err(Failure::refused(
            "The broker's reply is about something else.",
            "Look what became of it: countersign admin yank --list.",
        ));
    }
    context.out.result(&line, &told(&line))
}

async fn all(device: &Device) -> Result<Vec<WithdrawalLine>, Failure> {
    device
        .broker
        .get("/v1/admin/withdrawals", device.proof())
        .await
}

async fn list(context: &Context, device: &Device) -> Result<(), Failure> {
    let all = all(device).await?;
    if context.out.json {
        return context.out.json(&all);
    }
    if all.is_empty() {
        return context.out.line("nothing was withdrawn lately");
    }
    all.iter().try_for_each(|line| {
        let people: Vec<_> = line.confirmed.iter().map(ToString::to_string).collect();
        let people = if people.is_empty() {
            String::new()
        } else {
            format!(", confirmed by {}", people.join(", "))
        };
        context.out.line(&told(line))?;
        let agreed = line.agreed.rfc3339();
        context
            .out
            .line(&format!("    asked by {}{people}, {agreed}", line.by))
    })
}

/// Waits until the registry shows what was agreed to, or the broker gives up.
pub(super) async fn settled(
    context: &Context,
    device: &Device,
    what: &Withdrawal,
) -> Result<(), Failure> {
    for _ in 0..PATIENCE {
        let line = all(device)
            .await?
            .into_iter()
            .find(|l| l.withdrawal == *what);
        let line = line.filter(|l| l.state != WithdrawalState::Waiting);
        if let Some(line) = line {
            return match line.state {
                WithdrawalState::CalledBack => Err(Failure::failed(
                    told(&line),
                    "Another admin decided so. Ask for it again if it is wanted after all.",
                )),
                WithdrawalState::Failed => Err(Failure::failed(
                    told(&line),
                    "Nothing was changed that the registry shows. Mend the cause, and ask for it again.",
                )),
                _ => context.out.result(&line, &told(&line)),
            };
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(Failure::new(
        Exit::Conflict,
        format!(
            "{} is agreed to; the registry does not show it yet.",
            what.name()
        ),
        "The broker goes on with it by itself. Look: countersign admin yank --list.",
    ))
}

fn told(line: &WithdrawalLine) -> String {
    let name = harmless(&line.withdrawal.name());
    let said = line.said.as_deref().map(harmless).unwrap_or_default();
    match (line.state, line.withdrawal.undo) {
        (WithdrawalState::Waiting, _) if line.attempts == 0 => {
            format!("{name}: waits for uploads of the package; --call-back calls it back")
        }
        (WithdrawalState::Waiting, _) => {
            format!("{name}: on its way, {} call(s) so far", line.attempts)
        }
        (WithdrawalState::CalledBack, _) => format!("{name}: {said}; nothing had left"),
        (WithdrawalState::Failed, _) => format!("{name}: not done. {said}"),
        (WithdrawalState::Done, false) => format!("{name} is withdrawn: the registry shows it"),
        (WithdrawalState::Done, true) => format!("{name} is offered again: the registry shows it"),
    }
}
